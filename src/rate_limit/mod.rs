//! Rate limits: the state of every limiter is in the segment alone, so a check takes no row lock, writes no row, works
//! in read-only transactions and on standbys, and isn't undone by the caller's rollback.
//!
//! What a limit means is in [`enough_engine::limiter`]; here a key of this session's database finds its partition, and
//! each call is one short section under that partition's lock. The clock is read inside of it: read before, it could
//! lie behind the time of a state that another session has written meanwhile, which would look like a step back.
//!
//! A torn partition is made empty, which gives its keys fresh limits.
//!
//! | file | subject |
//! |---|---|
//! | `functions.rs`, `fast_path.rs` | the functions that say by their arguments what is allowed, and the fast path of `rate_limit` |
//! | `all.rs` | several keys at once |
//! | `policy.rs` | defining policies: their table |
//! | `by.rs` | asking by a policy |
//! | `calendar.rs` | when the calendar's windows open |
//! | `enforce.rs`, `headers.rs` | the answer as an error, and as fields of HTTP |
//! | `stats.rs` | what was counted |
//! | `arguments.rs` | what they take and return |

mod all;
mod arguments;
mod by;
mod calendar;
mod enforce;
mod fast_path;
mod functions;
mod headers;
mod policy;
mod stats;

use crate::capability::{Capability, Region, Warning};
use crate::error::Error;
use crate::guc::{KIB_IN_MIB, READ_ONCE, Size};
use crate::pg::server;
use crate::shmem::segment;
use enough_engine::hash::KeyHash;
use enough_engine::limiter::table::{Stats, Table};
use enough_engine::limiter::{self, Decision, Limit, Request};
use enough_engine::words::Corrupt;
use pgrx::guc::GucSetting;

/// Its place in the segment.
pub const REGION: Region = Region(2);

static SIZES: [Size; 1] = [Size {
    name: c"enough.rate_limit_memory",
    short: c"Memory for the state of rate limits, a hard cap.",
    long: READ_ONCE,
    setting: GucSetting::<i32>::new(8 * KIB_IN_MIB),
    least: 64,
}];

/// The rate limiter.
pub static CAPABILITY: Capability = Capability {
    name: "rate limit",
    wait_event: c"EnoughRateLimit",
    sizes: &SIZES,
    smallest_partition: |_| 64 << 10,
    format: |words, _| limiter::format(words),
    keeps_waiters: false,
    // What a request consumes isn't given back by a rollback.
    participant: None,
    tasks: &[("rate_limit_expired", |deadline| sweep(deadline).map(|(items, whole)| (items.cast_signed(), whole)))],
    warnings,
};

/// The longest key, in bytes.
const MAX_KEY: usize = 512;

/// Entries that a sweep looks at before it lets others at the partition: some ten microseconds.
const SWEEP_STEP: u32 = 1024;

/// States in more than so many percent of the memory are warned of.
const MUCH: u64 = 90;

/// Does `work` on the table that `key` belongs to; given are also the key's hash and the time in microseconds.
#[inline]
fn with_key<R>(key: &[u8], work: impl Fn(Table<'static>, KeyHash, i64) -> Result<R, Corrupt>) -> Result<R, Error> {
    let segment = segment()?;
    let hash = segment.hash(REGION, key);
    let partition = segment.partition_of(REGION, hash);
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

/// Books `cost` of `key`'s token bucket ahead, as far as `max_wait` microseconds from now.
fn reserve(key: &[u8], limit: &Limit, cost: u32, max_wait: u64) -> Result<Decision, Error> {
    with_key(key, |table, hash, now| table.reserve(hash, limit, now, cost, max_wait))
}

/// Blocks `key` for `length` microseconds.
fn block(key: &[u8], length: u64) -> Result<(), Error> {
    with_key(key, |table, hash, now| table.block(hash, now, length))
}

/// Ends the block of `key`; whether it was blocked.
fn unblock(key: &[u8]) -> Result<bool, Error> {
    with_key(key, |table, hash, now| table.unblock(hash, now))
}

/// For how many more microseconds `key` is blocked; 0 if it isn't. Without a lock where nothing in its partition is.
fn block_left(key: &[u8]) -> Result<u64, Error> {
    let segment = segment()?;
    let hash = segment.hash(REGION, key);
    let partition = segment.partition_of(REGION, hash);
    if !Table::may_have_blocks(partition.words()) {
        return Ok(0);
    }
    partition.exclusive(|words| Table::open(words)?.block_left(hash, server::now()))
}

/// Forgets all that `key` has consumed under any limit; whether it had.
fn reset(key: &[u8]) -> Result<bool, Error> {
    with_key(key, |table, hash, now| table.reset(hash, now))
}

/// Removes the states that are as good as new, until `deadline` (microseconds of the server's clock) has come. How many
/// were removed, and whether it got to the end.
pub fn sweep(deadline: i64) -> Result<(u64, bool), Error> {
    let mut removed = 0;
    for partition in segment()?.partitions_from_any(REGION) {
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
fn whole() -> Result<Stats, Error> {
    let mut sum = Stats::default();
    for partition in segment()?.partitions(REGION) {
        sum = sum + partition.shared(|words| Table::open(words)?.stats())?;
    }
    Ok(sum)
}

/// What of the limiter's memory an operator is warned of.
fn warnings() -> Result<Vec<Warning>, Error> {
    let stats = whole()?;
    let mut warnings = Vec::new();
    if stats.keys.saturating_mul(100) > stats.capacity.saturating_mul(MUCH) {
        warnings.push((
            "rate_limit_memory_nearly_full",
            format!(
                "{} of {} places for limiter states are taken: enough.maintain() frees those that are as good as new; if that \
                 isn't enough, raise enough.rate_limit_memory",
                stats.keys, stats.capacity
            ),
        ));
    }
    if stats.evictions_of_exhausted > 0 {
        warnings.push((
            "rate_limit_exhausted_evicted",
            format!(
                "{} keys whose limit was used up were forgotten for lack of room, and began with a full one: raise \
                 enough.rate_limit_memory",
                stats.evictions_of_exhausted
            ),
        ));
    }
    Ok(warnings)
}
