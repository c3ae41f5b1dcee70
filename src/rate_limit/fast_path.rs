//! The plain case of a check, without the guard and the layers that the others go through: at many sessions a call finds
//! the processor's caches full of what others have used, and what it costs is the number of lines it touches.
//!
//! Nothing here may panic or raise an error; what isn't plain is left to [`super::sql`], before anything is consumed.

use super::MAX_KEY;
use super::arguments::{ROW, algorithm_named, bounded};
use crate::pg::fmgr::{Call, FastResult, Time};
use crate::pg::row::Micros;
use crate::pg::server;
use crate::rate_limit::REGION;
use crate::shmem::known;
use enough_engine::limiter::table::Table;
use enough_engine::limiter::{Limit, MAX_REQUESTS, Request};

/// `rate_limit`, with arguments in their ranges.
#[inline(always)]
pub(super) fn rate_limit(call: &Call<'_>) -> Option<FastResult> {
    let key = call.plain_bytes(0).filter(|key| key.len() <= MAX_KEY)?;
    let segment = known()?;
    let hash = segment.hash(REGION, key);
    let partition = segment.place_of(REGION, hash)?;
    let unsigned = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
    let Some(Time::Micros(period)) = call.interval(2) else { return None };
    let burst = if call.is_null(5) { None } else { Some(unsigned(call.i32(5))?) };
    let algorithm = algorithm_named(call.plain_bytes(4)?)?;
    let limit = Limit::new(algorithm, unsigned(call.i32(1))?, u64::try_from(period).ok()?, burst).ok()?;
    let cost = unsigned(call.i32(3)).filter(|cost| *cost <= MAX_REQUESTS)?;
    // Whatever may be missing is asked for before anything is consumed.
    let answer = ROW.row(call.function())?;
    let decision = partition
        .exclusive(|words| Table::open(words)?.request(hash, &limit, server::now(), Request::All(cost)))
        .ok()?;
    let interval = |micros| Micros(bounded(micros));
    let (retry_after, reset_after) = (decision.retry_after.map(interval), interval(decision.reset_after));
    Some(FastResult::raw(answer.fill((decision.allowed, i64::from(decision.remaining), retry_after, reset_after))))
}
