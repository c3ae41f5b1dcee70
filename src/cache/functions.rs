//! Arguments in, rows out.

use super::arguments::{
    expiry, fitting, hashed, hashed_tag, holds_bytes, key, keys, latest_on_standby, mode, named, of_kind, period,
    prefix, tags,
};
use super::atomic::{self, Change, Current, Outcome, Payload};
use super::count::Count;
use super::fetch::{self, Fetch, Life};
use super::transactional::{self, Mode, NewValue};
use super::{jsonb, names};
use crate::coherent::clock;
use crate::coherent::log::Removed;
use crate::coherent::{pending, store};
use crate::error::{Error, required, required_elements};
use crate::pg::encoding::shown;
use crate::pg::fmgr::{Call, Value};
use crate::pg::memory::PgVec;
use crate::pg::{jsonb as jsonb_of_server, server, xact};
use crate::shmem::segment;
use enough_engine::cache::Kind;

type Answer = Result<Value<'static>, Error>;

crate::export!(
    enough_cache_set = super::fast_path::set | cache_set,
    enough_cache_get = super::fast_path::get | cache_get,
    enough_cache_mget = cache_mget,
    enough_cache_mset = cache_mset,
    enough_cache_delete = cache_delete,
    enough_cache_mdelete = cache_mdelete,
    enough_cache_compare_and_set = cache_compare_and_set,
    enough_cache_delete_if = cache_delete_if,
    enough_cache_merge = cache_merge,
    enough_cache_incr = cache_incr,
    enough_cache_take = cache_take,
    enough_cache_exists = cache_exists,
    enough_cache_expires_at = cache_expires_at,
    enough_cache_touch = cache_touch,
    enough_cache_fetch = cache_fetch,
    enough_cache_set_bytes = super::fast_path::set_bytes | cache_set_bytes,
    enough_cache_get_bytes = super::fast_path::get_bytes | cache_get_bytes,
    enough_cache_mget_bytes = cache_mget_bytes,
    enough_cache_mset_bytes = cache_mset_bytes,
    enough_cache_take_bytes = cache_take_bytes,
    enough_cache_compare_and_set_bytes = cache_compare_and_set_bytes,
    enough_cache_keys = cache_keys,
    enough_cache_delete_prefix = cache_delete_prefix,
    enough_cache_invalidate = cache_invalidate,
    enough_cache_invalidate_by_trigger = super::tables::invalidate_by_trigger,
    enough_cache_clear = cache_clear,
    enough_cache_stats = cache_stats,
);

fn cache_set(call: &mut Call<'_>) -> Answer {
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

fn cache_set_bytes(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let key = key(call, segment)?;
    let value = fitting(segment, required(call.bytes(1), "value")?)?;
    let expiry = expiry("ttl", call.interval(2))?;
    let tags = tags(call, segment, 3)?;
    let mode = mode(call.bytes(4))?;
    let keep_ttl = call.bool(5).unwrap_or(false);
    let value = NewValue { bytes: value, kind: Kind::Bytes, expiry, tags };
    transactional::set(segment, key, value, mode, keep_ttl).map(Value::Bool)
}

fn cache_get(call: &mut Call<'_>) -> Answer {
    get(call, Kind::Json)
}

fn cache_get_bytes(call: &mut Call<'_>) -> Answer {
    get(call, Kind::Bytes)
}

fn get(call: &Call<'_>, kind: Kind) -> Answer {
    let segment = segment()?;
    let key = key(call, segment)?;
    let found = match call.interval(1) {
        None => transactional::get(segment, key.hash, clock::now()),
        ttl => transactional::get_and_slide(segment, key, kind, expiry("slide_ttl", ttl)?),
    };
    of_kind(found?, kind)
}

fn cache_compare_and_set(call: &mut Call<'_>) -> Answer {
    let expected = required(call.jsonb(1), "expected")?.payload();
    let value = required(call.jsonb(2), "value")?.payload();
    compare_and_set(call, Kind::Json, |current| jsonb_of_server::equal(current, expected), value)
}

fn cache_compare_and_set_bytes(call: &mut Call<'_>) -> Answer {
    let expected = required(call.bytes(1), "expected")?;
    let value = required(call.bytes(2), "value")?;
    compare_and_set(call, Kind::Bytes, |current| current == expected, value)
}

fn compare_and_set(call: &Call<'_>, kind: Kind, is_expected: impl Fn(&[u8]) -> bool, value: &[u8]) -> Answer {
    let segment = segment()?;
    let key = key(call, segment)?;
    let value = fitting(segment, value)?;
    let expiry = expiry("ttl", call.interval(3))?;
    let outcome = atomic::update(segment, key, |current| {
        let equal = current.is_some_and(|current| current.kind == kind && is_expected(current.bytes));
        Ok(if equal { Change::Put { value: Payload::Given(value), kind, expiry } } else { Change::None })
    })?;
    Ok(Value::Bool(matches!(outcome, Outcome::Put(_))))
}

fn cache_delete_if(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let key = key(call, segment)?;
    let expected = required(call.jsonb(1), "expected")?.payload();
    let outcome = atomic::update(segment, key, |current| {
        let equal =
            |current: Current<'_>| current.kind == Kind::Json && jsonb_of_server::equal(current.bytes, expected);
        Ok(if current.is_some_and(equal) { Change::Remove } else { Change::None })
    })?;
    Ok(Value::Bool(matches!(outcome, Outcome::Removed)))
}

fn cache_merge(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let key = key(call, segment)?;
    let patch = fitting(segment, required(call.jsonb(1), "patch")?.payload())?;
    let ttl = call.interval(2);
    let given = ttl.map(|ttl| expiry("ttl", Some(ttl))).transpose()?;
    let outcome = atomic::update(segment, key, |current| {
        if current.as_ref().is_some_and(|current| current.kind == Kind::Bytes) {
            return Err(holds_bytes());
        }
        let merged = jsonb_of_server::merged(current.as_ref().map(|current| current.bytes), patch);
        fitting(segment, merged.bytes())?;
        let expiry = match (given, current) {
            (Some(given), _) => given,
            (None, Some(current)) => current.expiry,
            (None, None) => expiry("ttl", None)?,
        };
        Ok(Change::Put { value: Payload::Made(merged), kind: Kind::Json, expiry })
    })?;
    Ok(match outcome {
        Outcome::Put(Payload::Made(merged)) => merged.into_value(),
        _ => Value::Null,
    })
}

fn cache_incr(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let key = key(call, segment)?;
    let by = call.i64(1).unwrap_or(1);
    let ttl = call.interval(2);
    let new = match call.bytes(3) {
        None | Some(b"always") => Some(expiry("ttl", ttl)?),
        Some(b"if_present") => {
            ttl.map(|ttl| expiry("ttl", Some(ttl))).transpose()?;
            None
        }
        Some(mode) => return Err(Error::invalid("mode", shown(mode), "\"always\" or \"if_present\"")),
    };
    match atomic::add(segment, key, by, new)? {
        Count::Is(new) => Ok(Value::I64(new)),
        Count::Absent => Ok(Value::Null),
        Count::OutOfRange => Err(Error::invalid("by", by, "small enough for the sum to fit a bigint")),
        Count::NotANumber => {
            Err(Error::invalid("key", "the entry is not a whole number", "the key of a number, or of nothing yet"))
        }
        Count::Again | Count::Full => Err(Error::NotReady {
            problem: "the cache's memory is reserved by transactions that are about to commit".into(),
            hint: "Call again, or raise enough.cache_memory.".into(),
        }),
    }
}

fn cache_fetch(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let key = key(call, segment)?;
    let ttl = call.interval(1);
    // Checked before the query is run, and taken from when it is done.
    let latest = expiry("ttl", ttl)?;
    let stale_for = period("stale_for", call.interval(4), latest)?;
    let stale_if_error = period("stale_if_error", call.interval(6), latest)?;
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

fn cache_mget(call: &mut Call<'_>) -> Answer {
    mget(call, Kind::Json)
}

fn cache_mget_bytes(call: &mut Call<'_>) -> Answer {
    mget(call, Kind::Bytes)
}

fn mget(call: &mut Call<'_>, kind: Kind) -> Answer {
    let segment = segment()?;
    let Some(keys) = call.raw_text_array(0) else { return Ok(call.rows()?.end()) };
    let mut asked = PgVec::with_capacity(keys.len());
    for (place, key) in required_elements(keys.iter(), "keys").enumerate() {
        let key = key?;
        let hash = hashed(segment, key.payload()).map_err(|error| error.of_element("keys", place))?;
        asked.push((key, hash));
    }
    let mut rows = call.rows()?;
    let (now, plain) = (clock::now(), !xact::is_enlisted());
    for &(key, hash) in &asked {
        let value = match plain.then(|| store::read_optimistic(segment, hash, kind)).flatten() {
            Some(buffer) => buffer.into_value(),
            // One of another kind is none here, so that it doesn't keep the others from their caller.
            None => match transactional::get(segment, hash, now)? {
                Some((buffer, found)) if found == kind => buffer.into_value(),
                _ => Value::Null,
            },
        };
        rows.push(&[key.into_value(), value])?;
    }
    Ok(rows.end())
}

fn cache_mset(call: &mut Call<'_>) -> Answer {
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
        transactional::set(segment, named(segment, member.key)?, value, Mode::Always, false)?;
        count += 1;
    }
    Ok(Value::I32(count))
}

fn cache_mset_bytes(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let keys = required(call.text_array(0), "keys")?;
    // All of it is checked before any of it is written.
    for (place, key) in required_elements(keys.iter(), "keys").enumerate() {
        hashed(segment, key?).map_err(|error| error.of_element("keys", place))?;
    }
    let values = required(call.bytes_array(1), "values")?;
    for (place, value) in required_elements(values.iter(), "values").enumerate() {
        fitting(segment, value?).map_err(|error| error.of_element("values", place))?;
    }
    if values.len() != keys.len() {
        return Err(Error::length("values", values.len(), keys.len(), "key"));
    }
    let expiry = expiry("ttl", call.interval(2))?;
    let tags = tags(call, segment, 3)?;
    for (key, bytes) in keys.iter().zip(values.iter()) {
        let (Some(key), Some(bytes)) = (key, bytes) else { continue };
        let value = NewValue { bytes, kind: Kind::Bytes, expiry, tags };
        transactional::set(segment, named(segment, key)?, value, Mode::Always, false)?;
    }
    Ok(Value::I32(i32::try_from(keys.len()).unwrap_or(i32::MAX)))
}

fn cache_delete(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    transactional::delete(segment, key(call, segment)?.hash, clock::now()).map(Value::Bool)
}

fn cache_mdelete(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let (mut deleted, now) = (0, clock::now());
    for &key in &keys(call, segment)? {
        deleted += i32::from(transactional::delete(segment, key, now)?);
    }
    Ok(Value::I32(deleted))
}

fn cache_take(call: &mut Call<'_>) -> Answer {
    take(call, Kind::Json)
}

fn cache_take_bytes(call: &mut Call<'_>) -> Answer {
    take(call, Kind::Bytes)
}

fn take(call: &Call<'_>, kind: Kind) -> Answer {
    let segment = segment()?;
    of_kind(transactional::take(segment, key(call, segment)?.hash, kind)?, kind)
}

fn cache_exists(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    Ok(Value::Bool(transactional::expiry(segment, key(call, segment)?.hash, clock::now())?.is_some()))
}

fn cache_expires_at(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let expiry = transactional::expiry(segment, key(call, segment)?.hash, clock::now())?;
    Ok(Value::or_null(expiry, instant))
}

/// When something is over. The server's infinity is the largest number, too.
fn instant(expiry: u64) -> Value<'static> {
    Value::Instant(i64::try_from(expiry).unwrap_or(i64::MAX))
}

fn cache_touch(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let key = key(call, segment)?;
    let expiry = expiry("ttl", call.interval(1))?;
    transactional::touch(segment, key, expiry).map(Value::Bool)
}

/// The most keys that one call lists.
const MOST_KEYS: i32 = 10_000;

fn cache_keys(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let prefix = prefix(call)?;
    let most = call.i32(2).unwrap_or(1_000);
    let most = usize::try_from(most)
        .ok()
        .filter(|_| (1..=MOST_KEYS).contains(&most))
        .ok_or_else(|| Error::invalid("max", most, format!("from 1 to {MOST_KEYS}")))?;
    names::require()?;
    let keys = names::list(segment, prefix, call.bytes(1), most)?;
    let mut rows = call.rows()?;
    for (met, name) in keys.iter() {
        rows.push(&[Value::Bytes(name), Value::I64(met.len as i64), instant(met.expiry)])?;
    }
    Ok(rows.end())
}

fn cache_delete_prefix(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let prefix = prefix(call)?;
    names::require()?;
    names::delete(segment, prefix).map(Value::I64)
}

fn cache_clear(_: &mut Call<'_>) -> Answer {
    segment()?;
    pending::end(Removed::Everything)?;
    Ok(Value::VOID)
}

fn cache_invalidate(call: &mut Call<'_>) -> Answer {
    let segment = segment()?;
    let tag = hashed_tag(segment, required(call.bytes(0), "tag")?)?;
    pending::end(Removed::Tag(tag))?;
    Ok(Value::VOID)
}

fn cache_stats(call: &mut Call<'_>) -> Answer {
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
