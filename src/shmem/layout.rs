//! What lies where in the segment.
//!
//! ```text
//! Header | partition | partition | …            (region by region, as the library lists its capabilities)
//! partition = PartitionHead (lock, version) | words
//! ```
//! Everything in the header is written before any other process can see the segment and, but for what the log has been
//! told, never again. Which version of the layout this is, and what forces it up, is in `version.rs`.

use crate::capability::{self, MOST, Region};
use crate::guc::{self, SIZES};
use enough_engine::seqlock::SeqLock;
use pgrx::pg_sys;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// "enough" and a byte for luck, so that a foreign segment is told apart.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"enough\x1b\x01");

const MOST_PARTITIONS: usize = 64;

/// The values of all sizes, in bytes: by region, and in it in the order of the capability's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Sizes(pub [[usize; SIZES]; MOST]);

impl Sizes {
    /// As `SHOW` has them in this process.
    pub(super) fn shown() -> Self {
        let mut sizes = Sizes([[0; SIZES]; MOST]);
        for (own, capability) in sizes.0.iter_mut().zip(capability::all()) {
            for (value, size) in own.iter_mut().zip(capability.sizes) {
                *value = guc::bytes(size.setting.get());
            }
        }
        sizes
    }

    /// One of them.
    pub fn of(&self, region: Region, number: usize) -> usize {
        self.0.get(usize::from(region.0)).and_then(|own| own.get(number)).copied().unwrap_or(0)
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
    pub regions: [RegionHead; MOST],
    /// The sizes that the server's log speaks of.
    pub told: [[AtomicU64; SIZES]; MOST],
}
const _: () = assert!(size_of::<Header>() == 640 && align_of::<Header>() == 128);

impl Header {
    /// Tells this process what the locks are called.
    pub(super) fn name_locks(&self) {
        for (capability, place) in capability::all().iter().zip(self.regions) {
            // SAFETY: the name is a static C string; registering a tranche is a write to this process's own list.
            unsafe { pg_sys::LWLockRegisterTranche(place.tranche as i32, capability.wait_event.as_ptr()) };
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
    pub regions: [RegionHead; MOST],
    pub sizes: Sizes,
}

impl Plan {
    pub(super) fn new(sizes: Sizes) -> Self {
        let mut offset = size_of::<Header>();
        let mut regions = [RegionHead { offset: 0, partitions: 0, words: 0, tranche: 0 }; MOST];
        for ((place, capability), own) in regions.iter_mut().zip(capability::all()).zip(&sizes.0) {
            let (memory, least) = (own[0], (capability.smallest_partition)(own).max(1));
            let partitions = (memory / least).clamp(1, MOST_PARTITIONS);
            // The heads come out of the setting, which is a hard cap; a partition is a multiple of its alignment.
            let partition = (memory / partitions) & !(align_of::<PartitionHead>() - 1);
            let words = partition.saturating_sub(size_of::<PartitionHead>()) / size_of::<u64>();
            let (partitions, words) = (partitions as u64, words as u64);
            *place = RegionHead { offset: offset as u64, partitions, words, tranche: 0 };
            offset += partitions as usize * partition;
        }
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
