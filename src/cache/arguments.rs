//! The arguments that the cache's functions share.

use super::settings;
use super::transactional::Mode;
use crate::coherent::clock;
use crate::coherent::key::Key;
use crate::coherent::settings::REGION;
use crate::coherent::store;
use crate::error::{Error, required, required_elements};
use crate::pg::encoding::shown;
use crate::pg::fmgr::{Buffer, Call, Time, Value};
use crate::pg::memory::PgVec;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{Kind, MAX_TAGS, NEVER, Tags};
use enough_engine::hash::KeyHash;

/// Longest key in bytes.
pub(super) const LONGEST_KEY: usize = 512;

/// Longest tag in bytes.
pub(super) const LONGEST_TAG: usize = 128;

/// The first instant past `PostgreSQL`'s timestamps, in microseconds since its epoch.
pub(super) const END_OF_TIME: u64 = 9_223_371_331_200_000_000;

pub(super) fn hashed(segment: &Segment, key: &[u8]) -> Result<KeyHash, Error> {
    if key.len() > LONGEST_KEY {
        return Err(Error::TooLarge {
            what: "the cache key".into(),
            size: key.len(),
            limit: LONGEST_KEY,
            unit: "bytes",
            hint: "Hash what identifies the entry, with sha256() or the like, and use that.",
        });
    }
    Ok(segment.hash(REGION, key))
}

/// The same for a key that is to get a value.
pub(super) fn named<'k>(segment: &Segment, key: &'k [u8]) -> Result<Key<'k>, Error> {
    Ok(Key { hash: hashed(segment, key)?, name: settings::keep_keys().then_some(key) })
}

pub(super) fn key<'c>(call: &Call<'c>, segment: &Segment) -> Result<Key<'c>, Error> {
    named(segment, required(call.bytes(0), "key")?)
}

/// What keys are to begin with.
pub(super) fn prefix<'c>(call: &Call<'c>) -> Result<&'c [u8], Error> {
    let prefix = required(call.bytes(0), "prefix")?;
    if prefix.len() > LONGEST_KEY {
        let hint = "No key is as long as this.";
        return Err(Error::TooLarge {
            what: "the prefix".into(),
            size: prefix.len(),
            limit: LONGEST_KEY,
            unit: "bytes",
            hint,
        });
    }
    Ok(prefix)
}

/// What the keys of an array are known by. NULL is an array of none: it is what `array_agg` makes of no rows.
pub(super) fn keys(call: &Call<'_>, segment: &Segment) -> Result<PgVec<KeyHash>, Error> {
    let Some(keys) = call.text_array(0) else { return Ok(PgVec::new()) };
    required_elements(keys.iter(), "keys")
        .enumerate()
        .map(|(place, key)| hashed(segment, key?).map_err(|error| error.of_element("keys", place)))
        .collect()
}

/// What a tag is known by.
pub(super) fn hashed_tag(segment: &Segment, tag: &[u8]) -> Result<u64, Error> {
    if tag.len() > LONGEST_TAG {
        return Err(Error::TooLarge {
            what: "the cache tag".into(),
            size: tag.len(),
            limit: LONGEST_TAG,
            unit: "bytes",
            hint: "Use a shorter tag, such as a hash of it.",
        });
    }
    // No key holds a zero byte, so no tag is hashed like a key.
    let mut named = [0; LONGEST_TAG + 1];
    let (named, _) = named.split_at_mut(tag.len() + 1);
    named[1..].copy_from_slice(tag);
    Ok(segment.hash(REGION, named).high)
}

/// The tags of a new entry.
pub(super) fn tags(call: &Call<'_>, segment: &Segment, index: usize) -> Result<Tags, Error> {
    let mut tags = Tags::default();
    let Some(names) = call.text_array(index) else { return Ok(tags) };
    if names.len() > MAX_TAGS {
        return Err(Error::TooLarge {
            what: "the array of tags".into(),
            size: names.len(),
            limit: MAX_TAGS,
            unit: "elements",
            hint: "Give an entry fewer tags, each for more of what it was made from.",
        });
    }
    for (place, name) in required_elements(names.iter(), "tags").enumerate() {
        tags.push(hashed_tag(segment, name?).map_err(|error| error.of_element("tags", place))?);
    }
    Ok(tags)
}

/// Checks a value's size.
pub(super) fn fitting<'v>(segment: &Segment, value: &'v [u8]) -> Result<&'v [u8], Error> {
    let limit = store::largest_value(segment)?;
    if value.len() > limit {
        return Err(Error::TooLarge {
            what: "the cache value".into(),
            size: value.len(),
            limit,
            unit: "bytes in its stored form",
            hint: "Raise enough.cache_max_value and enough.cache_memory, or cache less in one value.",
        });
    }
    Ok(value)
}

/// When something with this TTL is over that begins now; none where there is no such moment.
#[inline]
pub(super) fn end(ttl: Option<Time>) -> Option<u64> {
    let expiry = match ttl {
        None => return Some(NEVER),
        Some(Time::Micros(micros @ 1..)) => clock::now().checked_add(micros.unsigned_abs()),
        _ => None,
    };
    expiry.filter(|&expiry| expiry < END_OF_TIME)
}

/// The same for an argument, which must have one. On a standby there must be a TTL, and one that is longer than it may be
/// there counts as that: nobody tells this server what the primary removes.
pub(super) fn expiry(argument: &'static str, ttl: Option<Time>) -> Result<u64, Error> {
    let expiry = end(ttl).ok_or_else(|| {
        let ttl = ttl.map_or_else(String::new, Time::describe);
        Error::invalid(argument, ttl, "a finite interval above 0, or NULL for an entry that never expires")
    })?;
    if !server::in_recovery() {
        return Ok(expiry);
    }
    if expiry == NEVER {
        return Err(Error::NullOnStandby { argument });
    }
    Ok(expiry.min(latest_on_standby()))
}

/// When a value that a standby caches now is to be over at the latest.
pub(super) fn latest_on_standby() -> u64 {
    clock::now().saturating_add(settings::standby_ttl())
}

pub(super) fn mode(name: Option<&[u8]>) -> Result<Mode, Error> {
    match name {
        None | Some(b"always") => Ok(Mode::Always),
        Some(b"if_absent") => Ok(Mode::IfAbsent),
        Some(b"if_present") => Ok(Mode::IfPresent),
        Some(name) => Err(Error::invalid("mode", shown(name), "\"always\", \"if_absent\" or \"if_present\"")),
    }
}

/// A value of the kind that the called function returns; `None` where there is none.
pub(super) fn of_kind(found: Option<(Buffer, Kind)>, kind: Kind) -> Result<Value<'static>, Error> {
    match found {
        None => Ok(Value::Null),
        Some((buffer, found)) if found == kind => Ok(buffer.into_value()),
        Some((_, Kind::Bytes)) => Err(holds_bytes()),
        Some((_, Kind::Json)) => {
            Err(Error::invalid("key", "the entry holds a jsonb", "the key of a bytea; see cache_get()"))
        }
    }
}

/// A duration after something that is over at `latest`; nothing by default.
pub(super) fn period(argument: &'static str, given: Option<Time>, latest: u64) -> Result<u64, Error> {
    let fits = |micros: u64| latest == NEVER || micros < END_OF_TIME - latest;
    match given {
        None => Ok(0),
        Some(Time::Micros(micros @ 0..)) if fits(micros.unsigned_abs()) => Ok(micros.unsigned_abs()),
        Some(other) => Err(Error::invalid(argument, other.describe(), "a finite interval of 0 or more")),
    }
}

/// The error where a jsonb was asked for.
pub(super) fn holds_bytes() -> Error {
    Error::invalid("key", "the entry holds a bytea", "the key of a jsonb; see cache_get_bytes()")
}
