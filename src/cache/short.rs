//! The plain cases of get and set, without the guard and the layers that the others go through: at many sessions a call
//! finds the processor's caches full of what others have used, and what it costs is the number of lines it touches.
//!
//! Nothing here may panic or raise an error; what isn't plain is left to [`super::sql`], before anything is done.

use super::sql::{self, LONGEST_KEY};
use super::{single, store};
use crate::segment::call::{Call, Short};
use crate::segment::{Region, Segment, known, xact};
use enough_engine::cache::Kind;
use enough_engine::hash::KeyHash;

/// Argument 0.
#[inline(always)]
fn key(call: &Call<'_>, segment: &Segment) -> Option<KeyHash> {
    let key = call.plain_bytes(0).filter(|key| key.len() <= LONGEST_KEY)?;
    Some(segment.hash(Region::Cache, key))
}

/// `cache_get` of a small value without tags that is in frequent use, in a transaction that has written nothing.
#[inline(always)]
pub(super) fn get(call: &Call<'_>) -> Option<Short> {
    if xact::is_joined() || !call.is_null(1) {
        return None;
    }
    let segment = known()?;
    store::glimpse(segment, key(call, segment)?, Kind::Json).map(Short::buffer)
}

/// `cache_set` of a small value without conditions and tags, as the first thing that its transaction leaves to the
/// commit.
#[inline(always)]
pub(super) fn set(call: &Call<'_>) -> Option<Short> {
    if xact::is_joined() || call.plain_bytes(3)? != b"always" || !call.is_null(4) || call.bool(5)? {
        return None;
    }
    let segment = known()?;
    let value = call.plain_bytes(1).filter(|value| value.len() <= store::known_largest_value())?;
    let key = key(call, segment)?;
    single::keep(key, sql::end(call.interval(2))?, value)?;
    store::fetch(segment, key);
    Some(Short::bool(true))
}
