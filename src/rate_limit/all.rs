//! Several keys at once: either each of them grants the cost, or none does.
//!
//! This is the one place that holds the locks of several partitions: of those that its keys belong to, taken in the
//! order in which they lie in the segment. Everybody else holds one and waits for none, so nobody waits in a circle.

use crate::error::Error;
use crate::pg::encoding::shown;
use crate::pg::server;
use crate::rate_limit::REGION;
use crate::shmem::{Partition, segment};
use enough_engine::limiter::all::{Claim, request_all};
use enough_engine::limiter::{Decision, Limit};
use enough_engine::words::{Corrupt, Words};

/// Consumes `cost` of each key's limit, or nothing; whether it did (or, for a cost of 0, would). The answers are as
/// [`request_all`] gives them.
pub(super) fn request(keys: &[&[u8]], limits: &[Limit], cost: u32) -> Result<(bool, Vec<Decision>), Error> {
    let segment = segment()?;
    let partitions = segment.partitions(REGION);
    let hashes: Vec<_> = keys.iter().map(|key| segment.hash(REGION, key)).collect();
    let mut places: Vec<_> = hashes.iter().map(|hash| hash.partition(partitions.len())).collect();
    let ours = places.clone();
    places.sort_unstable();
    places.dedup();
    let mut claims: Vec<Claim> = Vec::with_capacity(keys.len());
    for (at, (&key, &limit)) in hashes.iter().zip(limits).enumerate() {
        let same = |claim: &&Claim| {
            claim.key == key && claim.limit.algorithm() == limit.algorithm() && claim.limit.period() == limit.period()
        };
        let earlier: Vec<_> = claims.iter().filter(same).collect();
        if earlier.iter().any(|claim| claim.limit != limit) {
            let expected = "given with one max_requests only for the same period";
            return Err(Error::invalid("keys", shown(keys[at]), expected));
        }
        let before = u32::try_from(earlier.len()).unwrap_or(u32::MAX);
        let partition = places.partition_point(|place| *place < ours[at]);
        claims.push(Claim { partition, key, limit, before });
    }
    let locked: Vec<_> = places.iter().map(|place| &partitions[*place]).collect();
    // All that is allocated is allocated before the first lock is taken.
    let mut words = Vec::with_capacity(locked.len());
    let mut answers = vec![Decision::default(); claims.len()];
    let mut work = |words: &[Words<'static>]| request_all(words, &claims, server::now(), cost, &mut answers);
    let granted = if let Ok(granted) = with_all(&locked, &mut words, &mut work)? {
        granted
    } else {
        // One of them is damaged, which doesn't say which: they are made empty as any other is.
        for partition in &locked {
            let mut damaged = true;
            partition.exclusive(|_| if std::mem::take(&mut damaged) { Err(Corrupt) } else { Ok(()) })?;
        }
        with_all(&locked, &mut words, &mut work)??
    };
    Ok((granted, answers))
}

/// Does `work` on the words of all `partitions` while this process holds their locks.
fn with_all<R>(
    partitions: &[&Partition],
    words: &mut Vec<Words<'static>>,
    work: &mut dyn FnMut(&[Words<'static>]) -> Result<R, Corrupt>,
) -> Result<Result<R, Corrupt>, Error> {
    let Some((first, rest)) = partitions.split_first() else { return Ok(work(words)) };
    first.exclusive(|content| {
        words.push(content);
        let result = with_all(rest, words, work);
        words.pop();
        Ok(result)
    })?
}
