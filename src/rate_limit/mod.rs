//! Rate limits: the state of every limiter is in the segment alone, so a check takes no row lock, writes no row, works
//! in read-only transactions and on standbys, and isn't undone by the caller's rollback.
//!
//! What a limit means is in [`enough_engine::limiter`]; here a key of this session's database finds its partition, and
//! each call is one short section under that partition's lock. The clock is read inside of it: read before, it could
//! lie behind the time of a state that another session has written meanwhile, which would look like a step back.
//!
//! A torn partition is made empty, which gives its keys fresh limits.

mod all;
mod policy;
mod short;
mod sql;

use crate::error::Error;
use crate::segment::{Region, segment, server};
use enough_engine::hash::KeyHash;
use enough_engine::limiter::table::{Stats, Table};
use enough_engine::limiter::{Decision, Limit, Request};
use enough_engine::words::Corrupt;

/// The longest key, in bytes.
const MAX_KEY: usize = 512;

/// Entries that a sweep looks at before it lets others at the partition: some ten microseconds.
const SWEEP_STEP: u32 = 1024;

/// Does `work` on the table that `key` belongs to; given are also the key's hash and the time in microseconds.
#[inline]
fn with_key<R>(key: &[u8], work: impl Fn(Table<'static>, KeyHash, i64) -> Result<R, Corrupt>) -> Result<R, Error> {
    let segment = segment()?;
    let hash = segment.hash(Region::RateLimit, key);
    let partition = segment.partition_of(Region::RateLimit, hash);
    partition.exclusive(|words| work(Table::open(words)?, hash, server::now()))
}

/// Answers a request of `key`; what it consumes is consumed for good.
#[inline]
fn request(key: &[u8], limit: &Limit, request: Request) -> Result<Decision, Error> {
    with_key(key, |table, hash, now| table.request(hash, limit, now, request))
}

/// Gives back `amount` of what `key` has consumed, and answers as a peek then would.
fn refund(key: &[u8], limit: &Limit, amount: u32) -> Result<Decision, Error> {
    with_key(key, |table, hash, now| table.refund(hash, limit, now, amount))
}

/// Forgets all that `key` has consumed under any limit; whether it had.
fn reset(key: &[u8]) -> Result<bool, Error> {
    with_key(key, |table, hash, now| table.reset(hash, now))
}

/// Removes the states that are as good as new, until `deadline` (microseconds of the server's clock) has come. How many
/// were removed, and whether it got to the end.
pub fn sweep(deadline: i64) -> Result<(u64, bool), Error> {
    let mut removed = 0;
    for partition in segment()?.partitions_from_any(Region::RateLimit) {
        let mut next = Some(0);
        while let Some(start) = next {
            if server::now() >= deadline {
                return Ok((removed, false));
            }
            server::check_for_interrupts();
            let step = partition.exclusive(|words| Table::open(words)?.sweep(server::now(), start, SWEEP_STEP))?;
            removed += u64::from(step.removed);
            next = step.next;
        }
    }
    Ok((removed, true))
}

/// How full the limiter's memory is, and what was counted since it was made.
pub fn stats() -> Result<Stats, Error> {
    let mut sum = Stats::default();
    for partition in segment()?.partitions(Region::RateLimit) {
        sum = sum + partition.shared(|words| Table::open(words)?.stats())?;
    }
    Ok(sum)
}
