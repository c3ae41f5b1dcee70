//! What lies where in the segment.
//!
//! ```text
//! Header | partition | partition | …            (queues, then cache, then rate limits)
//! partition = PartitionHead (lock, version) | words
//! ```
//! Everything in the header is written before any other process can see the segment and, but for what the log has been
//! told, never again. Which version of the layout this is, and what forces it up, is in `version.rs`.

use crate::guc::{Size, Sizes};
use enough_engine::hash::key_hash;
use enough_engine::seqlock::SeqLock;
use enough_engine::words::Words;
use enough_engine::{cache, limiter, queue};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// "enough" and a byte for luck, so that a foreign segment is told apart.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"enough\x1b\x01");

/// Below this a partition would be too small to be worth its lock, or to hold the leases of one busy queue.
const QUEUE_PARTITION_BYTES: usize = 8 << 20;
const RATE_LIMIT_PARTITION_BYTES: usize = 64 << 10;
/// A cache partition holds at least this many of the largest values.
const LARGEST_VALUES_PER_CACHE_PARTITION: usize = 4;
const MOST_PARTITIONS: usize = 64;

/// The parts of the segment, each with its own memory and its own locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// Windows, leases and timers of the queues.
    Queue,
    /// Cached values.
    Cache,
    /// States of rate limits.
    RateLimit,
}

impl Region {
    /// All of them, in the order in which they lie in the segment.
    pub(super) const ALL: [Region; 3] = [Region::Queue, Region::Cache, Region::RateLimit];

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Region::Queue => "queue",
            Region::Cache => "cache",
            Region::RateLimit => "rate limit",
        }
    }

    /// What `pg_stat_activity` calls waiting for one of its locks.
    pub(super) fn wait_event(self) -> &'static CStr {
        match self {
            Region::Queue => c"EnoughQueue",
            Region::Cache => c"EnoughCache",
            Region::RateLimit => c"EnoughRateLimit",
        }
    }

    /// Makes a partition empty, whatever it holds. `now` is in microseconds; `floor` is the moment before which nobody
    /// knows any more what was removed. `secret` is the segment's.
    pub(super) fn format(self, words: Words<'_>, secret: [u64; 2], now: i64, floor: cache::Moment) {
        match self {
            Region::Queue => {
                // Another number for each partition of each segment, and for each time that one is made empty.
                let mut place = [0; 16];
                place[..8].copy_from_slice(&now.to_ne_bytes());
                place[8..].copy_from_slice(&words.as_ptr().addr().to_ne_bytes());
                queue::format(words, key_hash(secret, 0, Region::Queue as u32, &place).high);
            }
            Region::Cache => cache::format(words, floor),
            Region::RateLimit => limiter::format(words),
        }
    }
}

/// The first bytes of the segment.
#[repr(C, align(128))]
pub(super) struct Header {
    pub magic: u64,
    pub layout: u64,
    /// Random; the registry holds it too, so that a segment that took over an old one's handle isn't mistaken for it.
    pub nonce: u64,
    pub bytes: u64,
    pub secret: [u64; 2],
    /// Microseconds since PostgreSQL's epoch.
    pub created_at: i64,
    /// What it was made with, in bytes.
    pub sizes: Sizes,
    pub regions: [RegionHead; 3],
    /// The sizes that the server's log speaks of.
    pub told: [AtomicU64; Size::ALL.len()],
}
const _: () = assert!(size_of::<Header>() == 256 && align_of::<Header>() == 128);

impl Header {
    /// Tells this process what the locks are called.
    pub(super) fn name_locks(&self) {
        for (region, place) in Region::ALL.into_iter().zip(self.regions) {
            // SAFETY: the name is a static C string; registering a tranche is a write to this process's own list.
            unsafe { pg_sys::LWLockRegisterTranche(place.tranche as i32, region.wait_event().as_ptr()) };
        }
    }
}

/// Where a region lies.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct RegionHead {
    /// Of the first partition's head, in bytes from the start of the segment.
    pub offset: u64,
    pub partitions: u64,
    /// A partition's words, without its head.
    pub words: u64,
    /// Of its partitions' locks.
    pub tranche: u64,
}

/// What stands before a partition's words. Alone in its cache lines, so that taking one partition's lock doesn't
/// disturb another's readers.
#[repr(C, align(128))]
pub(super) struct PartitionHead {
    pub lock: pg_sys::LWLock,
    /// The version of the words, by which they are read without the lock.
    pub version: SeqLock,
    /// How often the partition has been found torn or corrupt and was made empty.
    pub resets: AtomicU64,
}
const _: () = assert!(size_of::<PartitionHead>() == 128);

/// Where the dynamic segment is. In shared memory that the server has never given to anybody: zeroed, as the kernel has
/// made it.
#[repr(C)]
pub(super) struct Registry {
    pub magic: AtomicU64,
    pub layout: AtomicU64,
    /// 0: none has been made. (The server's own handles are never 0.) Written last.
    pub handle: AtomicU64,
    pub nonce: AtomicU64,
}
// A version that wants another size can't find out that there is this one.
const _: () = assert!(size_of::<Registry>() == 32);

/// The layout that follows from the settings.
pub(super) struct Plan {
    pub bytes: usize,
    pub regions: [RegionHead; 3],
    pub sizes: Sizes,
}

impl Plan {
    pub(super) fn new(sizes: Sizes) -> Self {
        let mut offset = size_of::<Header>();
        let regions = Region::ALL.map(|region| {
            let (memory, least) = match region {
                Region::Queue => (sizes.of(Size::Queue), QUEUE_PARTITION_BYTES),
                Region::Cache => {
                    let largest = sizes.of(Size::CacheMaxValue).max(1);
                    (sizes.of(Size::Cache), largest * LARGEST_VALUES_PER_CACHE_PARTITION)
                }
                Region::RateLimit => (sizes.of(Size::RateLimit), RATE_LIMIT_PARTITION_BYTES),
            };
            let partitions = (memory / least).clamp(1, MOST_PARTITIONS);
            // The heads come out of the setting, which is a hard cap; a partition is a multiple of its alignment.
            let partition = (memory / partitions) & !(align_of::<PartitionHead>() - 1);
            let words = partition.saturating_sub(size_of::<PartitionHead>()) / size_of::<u64>();
            let (partitions, words) = (partitions as u64, words as u64);
            let head = RegionHead { offset: offset as u64, partitions, words, tranche: 0 };
            offset += partitions as usize * partition;
            head
        });
        Plan { bytes: offset, regions, sizes }
    }
}

impl RegionHead {
    /// Bytes from one partition's head to the next one's.
    pub(super) fn stride(&self) -> usize {
        size_of::<PartitionHead>() + self.words as usize * size_of::<u64>()
    }
}

impl PartitionHead {
    /// Counts and marks that a partition was made empty.
    pub(super) fn count_reset(&self) {
        self.resets.fetch_add(1, Relaxed);
    }
}
