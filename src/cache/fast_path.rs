//! The plain cases of get and set, without the guard and the layers that the others go through: at many sessions a call
//! finds the processor's caches full of what others have used, and what it costs is the number of lines it touches.
//!
//! Nothing here may panic or raise an error; what isn't plain is left to [`super::sql`], before anything is done.

use super::arguments::{self, LONGEST_KEY};
use super::settings;
use crate::coherent::key::Key;
use crate::coherent::settings::REGION;
use crate::coherent::{pending, store};
use crate::pg::fmgr::{Call, FastResult};
use crate::pg::server;
use crate::pg::xact;
use crate::shmem::{Segment, known};
use enough_engine::cache::Kind;
use enough_engine::hash::KeyHash;

/// Argument 0.
#[inline(always)]
fn key<'c>(call: &Call<'c>, segment: &Segment) -> Option<(KeyHash, &'c [u8])> {
    let key = call.plain_bytes(0).filter(|key| key.len() <= LONGEST_KEY)?;
    Some((segment.hash(REGION, key), key))
}

/// The value of a small entry without tags that is in frequent use, in a transaction that has written nothing.
#[inline(always)]
fn value(call: &Call<'_>, kind: Kind) -> Option<FastResult> {
    if xact::is_enlisted() {
        return None;
    }
    let segment = known()?;
    store::read_optimistic(segment, key(call, segment)?.0, kind).map(FastResult::buffer)
}

/// Keeps argument 1 under argument 0 with the time to live of argument 2, in a transaction that leaves nothing else than such
/// values to the commit.
#[inline(always)]
fn keep(call: &Call<'_>, kind: Kind) -> Option<FastResult> {
    // On a standby a TTL has rules, and every transaction is read-only.
    if xact::is_enlisted_by_others_than(pending::WRITES) || server::is_read_only() {
        return None;
    }
    let segment = known()?;
    let value = call.plain_bytes(1).filter(|value| value.len() <= store::known_largest_value())?;
    let (hash, name) = key(call, segment)?;
    let key = Key { hash, name: if settings::keep_keys() { Some(name) } else { None } };
    pending::put(key, arguments::end(call.interval(2))?, value, kind)?;
    Some(FastResult::bool(true))
}

/// `cache_get` without `slide_ttl`.
#[inline(always)]
pub(super) fn get(call: &Call<'_>) -> Option<FastResult> {
    if call.is_null(1) { value(call, Kind::Json) } else { None }
}

/// `cache_get_bytes` without `slide_ttl`.
#[inline(always)]
pub(super) fn get_bytes(call: &Call<'_>) -> Option<FastResult> {
    if call.is_null(1) { value(call, Kind::Bytes) } else { None }
}

/// `cache_set` of a small value without conditions and tags.
#[inline(always)]
pub(super) fn set(call: &Call<'_>) -> Option<FastResult> {
    let plain = call.plain_bytes(3)? == b"always" && call.is_null(4) && !call.bool(5)?;
    if plain { keep(call, Kind::Json) } else { None }
}

/// `cache_set_bytes` of a small value without conditions and tags.
#[inline(always)]
pub(super) fn set_bytes(call: &Call<'_>) -> Option<FastResult> {
    let plain = call.is_null(3) && call.plain_bytes(4)? == b"always" && !call.bool(5)?;
    if plain { keep(call, Kind::Bytes) } else { None }
}
