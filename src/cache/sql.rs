//! Arguments in, rows out.

use super::fetch::{self, Fetch, Life};
use super::log::Removed;
use super::store::{self, Count};
use super::transactional::{self, Mode, NewValue};
use super::{jsonb, pending, settings};
use crate::error::{Error, required, required_elements, shown};
use crate::segment::call::{Buffer, Call, Time, Value};
use crate::segment::memory::PgVec;
use crate::segment::{Region, Segment, segment, server, xact};
use enough_engine::cache::{Kind, MAX_TAGS, NEVER, Tags};
use enough_engine::hash::KeyHash;

/// Longest key in bytes.
pub(super) const LONGEST_KEY: usize = 512;

/// Longest tag in bytes.
pub(super) const LONGEST_TAG: usize = 128;

/// The first instant past `PostgreSQL`'s timestamps, in microseconds since its epoch.
const END_OF_TIME: u64 = 9_223_371_331_200_000_000;

crate::export!(
    enough_cache_set = super::short::set | cache_set,
    enough_cache_get = super::short::get | cache_get,
    enough_cache_mget = cache_mget,
    enough_cache_mset = cache_mset,
    enough_cache_delete = cache_delete,
    enough_cache_mdelete = cache_mdelete,
    enough_cache_compare_and_set = cache_compare_and_set,
    enough_cache_incr = cache_incr,
    enough_cache_take = cache_take,
    enough_cache_exists = cache_exists,
    enough_cache_expires_at = cache_expires_at,
    enough_cache_touch = cache_touch,
    enough_cache_fetch = cache_fetch,
    enough_cache_set_bytes = super::short::set_bytes | cache_set_bytes,
    enough_cache_get_bytes = super::short::get_bytes | cache_get_bytes,
    enough_cache_invalidate = cache_invalidate,
    enough_cache_invalidate_by_trigger = super::tables::invalidate_by_trigger,
    enough_cache_clear = cache_clear,
    enough_cache_stats = cache_stats,
);

fn hashed(segment: &Segment, key: &[u8]) -> Result<KeyHash, Error> {
    if key.len() > LONGEST_KEY {
        return Err(Error::TooLarge {
            what: "cache key",
            size: key.len(),
            limit: LONGEST_KEY,
            hint: "Limits are in bytes. Hash what identifies the entry, with sha256() or the like, and use that.",
        });
    }
    Ok(segment.hash(Region::Cache, key))
}

fn key(call: &Call<'_>, segment: &Segment) -> Result<KeyHash, Error> {
    hashed(segment, required(call.bytes(0), "key")?)
}

/// What the keys of an array are known by.
fn keys(call: &Call<'_>, segment: &Segment) -> Result<PgVec<KeyHash>, Error> {
    let keys = required(call.text_array(0), "keys")?;
    required_elements(keys.iter(), "keys").map(|key| hashed(segment, key?)).collect()
}

/// What a tag is known by.
pub(super) fn hashed_tag(segment: &Segment, tag: &[u8]) -> Result<u64, Error> {
    if tag.len() > LONGEST_TAG {
        return Err(Error::TooLarge {
            what: "cache tag",
            size: tag.len(),
            limit: LONGEST_TAG,
            hint: "Limits are in bytes. Use a shorter tag.",
        });
    }
    // No key holds a zero byte, so no tag is hashed like a key.
    let mut named = [0; LONGEST_TAG + 1];
    let (named, _) = named.split_at_mut(tag.len() + 1);
    named[1..].copy_from_slice(tag);
    Ok(segment.hash(Region::Cache, named).high)
}

/// The tags of a new entry.
fn tags(call: &Call<'_>, segment: &Segment, index: usize) -> Result<Tags, Error> {
    let mut tags = Tags::default();
    let Some(names) = call.text_array(index) else { return Ok(tags) };
    if names.len() > MAX_TAGS {
        return Err(Error::TooLarge {
            what: "list of cache tags",
            size: names.len(),
            limit: MAX_TAGS,
            hint: "Give an entry fewer tags, each for more of what it was made from.",
        });
    }
    for name in required_elements(names.iter(), "tags") {
        tags.push(hashed_tag(segment, name?)?);
    }
    Ok(tags)
}

/// Checks a value's size.
fn fitting<'v>(segment: &Segment, value: &'v [u8]) -> Result<&'v [u8], Error> {
    let limit = store::largest_value(segment)?;
    if value.len() > limit {
        return Err(Error::TooLarge {
            what: "cache value",
            size: value.len(),
            limit,
            hint: "Limits are in bytes of the stored form. Raise enough.cache_max_value and enough.cache_memory, or cache less in one value.",
        });
    }
    Ok(value)
}

/// When something with this TTL is over that begins now; none where there is no such moment.
#[inline]
pub(super) fn end(ttl: Option<Time>) -> Option<u64> {
    let expiry = match ttl {
        None => return Some(NEVER),
        Some(Time::Micros(micros @ 1..)) => pending::now().checked_add(micros.unsigned_abs()),
        _ => None,
    };
    expiry.filter(|&expiry| expiry < END_OF_TIME)
}

/// The same for an argument, which must have one. On a standby there must be a TTL, and one that is longer than it may be
/// there counts as that: nobody tells this server what the primary removes.
fn expiry(argument: &'static str, ttl: Option<Time>) -> Result<u64, Error> {
    let expiry = end(ttl).ok_or_else(|| {
        let ttl = ttl.map_or_else(String::new, Time::describe);
        Error::invalid(argument, ttl, "longer than nothing and finite, or NULL for an entry that never expires")
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
fn latest_on_standby() -> u64 {
    pending::now().saturating_add(settings::standby_ttl())
}

fn mode(name: Option<&[u8]>) -> Result<Mode, Error> {
    match name {
        None | Some(b"always") => Ok(Mode::Always),
        Some(b"if_absent") => Ok(Mode::IfAbsent),
        Some(b"if_present") => Ok(Mode::IfPresent),
        Some(name) => Err(Error::invalid("mode", shown(name), "\"always\", \"if_absent\" or \"if_present\"")),
    }
}

/// A value of the kind that the called function returns; `None` where there is none.
fn of_kind(found: Option<(Buffer, Kind)>, kind: Kind) -> Result<Value<'static>, Error> {
    match found {
        None => Ok(Value::Null),
        Some((buffer, found)) if found == kind => Ok(buffer.into_value()),
        Some((_, Kind::Bytes)) => {
            Err(Error::invalid("key", "the entry holds a bytea", "the key of a jsonb; see cache_get_bytes()"))
        }
        Some((_, Kind::Json)) => {
            Err(Error::invalid("key", "the entry holds a jsonb", "the key of a bytea; see cache_get()"))
        }
    }
}

fn cache_set(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let key = key(call, segment)?;
    let value = fitting(segment, required(call.jsonb(1), "value")?.payload())?;
    let expiry = expiry("ttl", call.interval(2))?;
    let mode = mode(call.bytes(3))?;
    let tags = tags(call, segment, 4)?;
    let keep_ttl = call.bool(5).unwrap_or(false);
    let value = NewValue { bytes: value, kind: Kind::Json, expiry, tags };
    transactional::set(segment, key, value, mode, keep_ttl).map(Value::Bool)
}

fn cache_get(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let key = key(call, segment)?;
    let found = match call.interval(1) {
        None => transactional::get(segment, key, pending::now()),
        ttl => transactional::get_and_slide(segment, key, expiry("slide_ttl", ttl)?),
    };
    of_kind(found?, Kind::Json)
}

fn cache_compare_and_set(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let key = key(call, segment)?;
    let expected = required(call.jsonb(1), "expected")?.payload();
    let value = fitting(segment, required(call.jsonb(2), "value")?.payload())?;
    let expiry = expiry("ttl", call.interval(3))?;
    transactional::compare_and_set(segment, key, expected, value, expiry).map(Value::Bool)
}

fn cache_incr(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let key = key(call, segment)?;
    let by = call.i64(1).unwrap_or(1);
    let expiry = expiry("ttl", call.interval(2))?;
    match transactional::add(segment, key, by, expiry)? {
        Count::Is(new) => Ok(Value::I64(new)),
        Count::OutOfRange => Err(Error::invalid("by", by, "so that the sum fits a bigint")),
        Count::NotANumber => {
            Err(Error::invalid("key", "the entry is not a whole number", "the key of a number, or of nothing yet"))
        }
        Count::Again | Count::Full => Err(Error::NotReady {
            problem: "the cache's memory is reserved by transactions that are about to commit".into(),
            hint: "Call again, or raise enough.cache_memory.".into(),
        }),
    }
}

fn cache_set_bytes(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let key = key(call, segment)?;
    let value = fitting(segment, required(call.bytes(1), "value")?)?;
    let expiry = expiry("ttl", call.interval(2))?;
    let value = NewValue { bytes: value, kind: Kind::Bytes, expiry, tags: tags(call, segment, 3)? };
    transactional::set(segment, key, value, Mode::Always, false).map(Value::Bool)
}

fn cache_get_bytes(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    of_kind(transactional::get(segment, key(call, segment)?, pending::now())?, Kind::Bytes)
}

fn cache_fetch(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let key = key(call, segment)?;
    let ttl = call.interval(1);
    // Checked before the query is run, and taken from when it is done.
    let latest = expiry("ttl", ttl)?;
    let (stale_for, stale_if_error) =
        (period("stale_for", call.interval(4), latest)?, period("stale_if_error", call.interval(6), latest)?);
    let fetch = Fetch {
        query: required(call.bytes(2), "query")?,
        args: call.jsonb(3),
        stale_for,
        stale_if_error,
        tags: tags(call, segment, 5)?,
    };
    let found = fetch::fetch(segment, key, &fetch, || {
        let over = expiry("ttl", ttl)?;
        let until = over.saturating_add(stale_for.max(stale_if_error));
        Ok(Life { over, until: if server::in_recovery() { until.min(latest_on_standby()) } else { until } })
    })?;
    of_kind(Some(found), Kind::Json)
}

/// A duration after something that is over at `latest`; nothing by default.
fn period(argument: &'static str, given: Option<Time>, latest: u64) -> Result<u64, Error> {
    let fits = |micros: u64| latest == NEVER || micros < END_OF_TIME - latest;
    match given {
        None => Ok(0),
        Some(Time::Micros(micros @ 0..)) if fits(micros.unsigned_abs()) => Ok(micros.unsigned_abs()),
        Some(other) => Err(Error::invalid(argument, other.describe(), "nothing or longer, and finite")),
    }
}

fn cache_mget(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let keys = required(call.raw_text_array(0), "keys")?;
    let mut asked = PgVec::with_capacity(keys.len());
    for key in required_elements(keys.iter(), "keys") {
        let key = key?;
        let hash = hashed(segment, key.payload())?;
        store::fetch(segment, hash);
        asked.push((key, hash));
    }
    let mut rows = call.rows()?;
    let (now, plain) = (pending::now(), !xact::is_joined());
    for &(key, hash) in &asked {
        let value = match plain.then(|| store::glimpse(segment, hash, Kind::Json)).flatten() {
            Some(buffer) => buffer.into_value(),
            // One that holds bytes is none here, so that it doesn't keep the others from their caller.
            None => match transactional::get(segment, hash, now)? {
                Some((buffer, Kind::Json)) => buffer.into_value(),
                Some((_, Kind::Bytes)) | None => Value::Null,
            },
        };
        rows.push(&[key.into_value(), value])?;
    }
    Ok(rows.end())
}

fn cache_mset(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let entries = jsonb::members("entries", required(call.jsonb(0), "entries")?.payload())?;
    let expiry = expiry("ttl", call.interval(1))?;
    let tags = tags(call, segment, 2)?;
    let mut value = PgVec::new();
    // All of it is checked before any of it is written.
    for member in entries.clone() {
        let member = member?;
        hashed(segment, member.key)?;
        fitting(segment, member.value(&mut value)?)?;
    }
    let mut count = 0;
    for member in entries {
        let member = member?;
        let value = NewValue { bytes: member.value(&mut value)?, kind: Kind::Json, expiry, tags };
        transactional::set(segment, hashed(segment, member.key)?, value, Mode::Always, false)?;
        count += 1;
    }
    Ok(Value::I32(count))
}

fn cache_delete(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    transactional::delete(segment, key(call, segment)?, pending::now()).map(Value::Bool)
}

fn cache_mdelete(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let (mut deleted, now) = (0, pending::now());
    for &key in &keys(call, segment)? {
        deleted += i32::from(transactional::delete(segment, key, now)?);
    }
    Ok(Value::I32(deleted))
}

fn cache_take(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    of_kind(transactional::take(segment, key(call, segment)?)?, Kind::Json)
}

fn cache_exists(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    Ok(Value::Bool(transactional::expiry(segment, key(call, segment)?, pending::now())?.is_some()))
}

fn cache_expires_at(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let expiry = transactional::expiry(segment, key(call, segment)?, pending::now())?;
    // The server's infinity is the largest number, too.
    Ok(Value::or_null(expiry, |expiry| Value::Instant(i64::try_from(expiry).unwrap_or(i64::MAX))))
}

fn cache_touch(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let key = key(call, segment)?;
    let expiry = expiry("ttl", call.interval(1))?;
    transactional::touch(segment, key, expiry).map(Value::Bool)
}

fn cache_clear(_: &mut Call<'_>) -> Result<Value<'static>, Error> {
    segment()?;
    pending::end(Removed::Everything)?;
    Ok(Value::VOID)
}

fn cache_invalidate(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let tag = hashed_tag(segment, required(call.bytes(0), "tag")?)?;
    pending::end(Removed::Tag(tag))?;
    Ok(Value::VOID)
}

fn cache_stats(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let segment = segment()?;
    let stats = store::stats(segment)?;
    let columns = [
        stats.entries,
        stats.bytes_used,
        stats.bytes_max,
        stats.hits,
        stats.misses,
        stats.sets,
        stats.deletes,
        stats.evictions,
        stats.expirations,
        stats.stale_fills_refused,
        stats.fetch_waits,
        stats.fetch_uncached,
    ];
    call.row(&columns.map(|count| Value::I64(i64::try_from(count).unwrap_or(i64::MAX))))
}
