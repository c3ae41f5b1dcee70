//! What keeps a value that was computed before a removal from being put back after it.
//!
//! Since when a value is computed is taken to be the start of the transaction that puts it: whichever of its statements
//! has read what the value was made from, its snapshot isn't older. (In a transaction with one snapshot that is exact;
//! else a value may be refused that a later statement has computed, which is a miss more.) What a client has read in an
//! earlier transaction nobody here knows of; [`cache_fetch`](super::fetch) knows what it has read.
//!
//! A removal is seen by others at once, or they may see rows that its transaction has changed while the cache has what
//! was made from the old ones. So it is carried out before the commit, under fences that refuse every value until
//! the commit callback raises them to its moment, when the rows are visible. See [`enough_engine::cache::Removal`].

use crate::cache::settings::REGION;
use crate::pg::server;
use crate::shmem::Segment;
use enough_engine::cache::{Moment, Partition as Cache, Tags};
use enough_engine::hash::KeyHash;
use enough_engine::words::Corrupt;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A fence that this transaction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    pub(super) partition: u32,
    pub(super) slot: u32,
    /// Of the partition when it was held; `None`: not held yet.
    pub(super) epoch: Option<u64>,
}

/// What a value to be published was computed from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'l> {
    /// No snapshot that it was computed from is older.
    pub since: Moment,
    /// The fences of its own transaction, which don't refuse it; sorted.
    pub own: &'l [Fence],
}

impl Origin<'static> {
    /// Computed by something that has begun at a moment.
    pub fn at(since: Moment) -> Self {
        Origin { since, own: &[] }
    }
}

/// The time of this session's last removal: its next transaction has begun after that, be it in the same microsecond.
static LAST_REMOVAL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The key that was refused last, in the transaction that began at the first moment; the second is that of the refusal.
    static LAST_REFUSED: Cell<Option<(KeyHash, Moment, Moment)>> = const { Cell::new(None) };
}

/// Since when what this transaction puts may be computed.
#[inline]
pub fn since() -> Moment {
    let began = server::transaction_began();
    Moment { time: began.time.max(LAST_REMOVAL.load(Relaxed) + 1), ..began }
}

/// The same for a value that is to be put at once, where the caller learns of a refusal: what comes for that key
/// afterwards counts as computed since then, so that who waits for a key in one transaction doesn't wait forever.
pub fn since_for(key: KeyHash) -> Moment {
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

/// Remembers a refusal for [`since_for`].
pub fn refused_at_once(key: KeyHash) {
    LAST_REFUSED.set(Some((key, since(), server::moment())));
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
    origin: &Origin<'_>,
) -> Result<bool, Corrupt> {
    let own = |slot| !origin.own.is_empty() && is_own(segment, origin.own, key, slot);
    match cache.refuses(key, server::database(), tags, origin.since, own)? {
        None => Ok(false),
        // A fence raised to a time that is still to come: the clock was set back, and has no say in it.
        Some(raised) if raised > u64::try_from(server::now()).unwrap_or(0) + SKEW => Ok(false),
        Some(_) => {
            cache.count_refused(server::stripe());
            Ok(true)
        }
    }
}

#[cold]
fn is_own(segment: &Segment, own: &[Fence], key: KeyHash, slot: u32) -> bool {
    let partition = key.partition(segment.partitions(REGION).len()) as u32;
    own.binary_search_by_key(&(partition, slot), |fence| (fence.partition, fence.slot)).is_ok()
}

/// Remembers that a removal of this session has become visible at `moment`.
pub fn removed_at(moment: Moment) {
    LAST_REMOVAL.store(moment.time, Relaxed);
}
