//! Keeps a value that was computed before a removal from being stored after it.
//!
//! A value counts as computed since the start of the transaction that stores it: none of the snapshots that its statements have
//! read with is older. (In a transaction with one snapshot that is exact. In others a value may be refused that a later statement
//! has computed, which costs a miss.) What a client has read in an earlier transaction is not known here;
//! [`cache_fetch`](super::fetch) knows what it has read.
//!
//! Other sessions must not see the rows that a transaction has changed while the cache has a value that was made from the old ones.
//! So a removal is carried out before the commit, under raised barriers ([`enough_engine::cache::Removal`]), which refuse every value
//! until the commit callback lowers them. They keep the removal's logical time from then on, when the rows are visible.

use super::settings::REGION;
use super::settled;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{LogicalTime, Partition as Cache, Tags};
use enough_engine::hash::KeyHash;
use enough_engine::words::Corrupt;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A barrier that this transaction has raised, or will raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Barrier {
    pub(super) partition: u32,
    pub(super) slot: u32,
    /// The partition's epoch when it was raised; `None` before that.
    pub(super) epoch: Option<u64>,
}

/// What a value to be published was computed from.
#[derive(Debug, Clone, Copy)]
pub struct ComputedFrom<'l> {
    /// No snapshot that it was computed from is older.
    pub since: LogicalTime,
    /// The barriers of its own transaction, which don't refuse it; sorted.
    pub own: &'l [Barrier],
}

impl ComputedFrom<'static> {
    /// Computed by something that began at that time.
    pub fn at(since: LogicalTime) -> Self {
        ComputedFrom { since, own: &[] }
    }
}

/// The time of this session's last removal. Its next transaction counts as begun after that, even in the same microsecond.
static LAST_REMOVAL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The key that was refused last, the start of the transaction in which it was, and the time of the refusal.
    static LAST_REFUSED: Cell<Option<(KeyHash, LogicalTime, LogicalTime)>> = const { Cell::new(None) };
}

/// No value that this transaction stores is computed from a snapshot older than this.
#[inline]
pub fn since() -> LogicalTime {
    let began = server::transaction_began();
    LogicalTime { time: began.time.max(LAST_REMOVAL.load(Relaxed) + 1), ..began }
}

/// Like [`since`], for operations that report a refusal to the caller (if absent, compare and set): after a refusal, later attempts
/// on the same key in this transaction count as computed at the time of the refusal, so that a loop of retries ends.
pub fn since_for(key: KeyHash) -> LogicalTime {
    let began = since();
    match LAST_REFUSED.get() {
        Some((refused, transaction, at))
            if refused == key && transaction.time == began.time && !server::has_one_snapshot() =>
        {
            at
        }
        _ => began,
    }
}

/// Notes a refusal for [`since_for`].
pub fn refused_at_once(key: KeyHash) {
    LAST_REFUSED.set(Some((key, since(), server::logical_time())));
}

/// How far the clock may seem to have run back between processors before that means that somebody has set it.
const SKEW: u64 = 60_000_000;

/// Whether a value must not be published; counts it. Under the exclusive lock of the key's partition.
#[inline]
pub fn refuses(
    cache: &Cache<'_>,
    segment: &Segment,
    key: KeyHash,
    tags: &Tags,
    origin: &ComputedFrom<'_>,
) -> Result<bool, Corrupt> {
    let own = |slot| !origin.own.is_empty() && is_own(segment, origin.own, key, slot);
    match cache.refuses(key, server::database(), tags, origin.since, own)? {
        None => Ok(false),
        // A time that is still to come: the clock was set back, so its time does not count.
        Some(raised) if raised > u64::try_from(server::now()).unwrap_or(0) + SKEW => Ok(false),
        Some(_) => {
            if cache.is_undecided()? {
                settled::look_soon();
            }
            cache.count_refused(server::stripe());
            Ok(true)
        }
    }
}

#[cold]
fn is_own(segment: &Segment, own: &[Barrier], key: KeyHash, slot: u32) -> bool {
    let partition = key.partition(segment.partitions(REGION).len()) as u32;
    own.binary_search_by_key(&(partition, slot), |barrier| (barrier.partition, barrier.slot)).is_ok()
}

/// Notes that a removal of this session has become visible at `moment`.
pub fn removed_at(moment: LogicalTime) {
    LAST_REMOVAL.store(moment.time, Relaxed);
}
