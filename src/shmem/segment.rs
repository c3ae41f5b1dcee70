//! The segment as this process sees it, and its partitions with their locks; the rules stand in [`shmem`](super).

use super::attach::{self, Found};
use super::layout::{Header, PartitionHead, Sizes};
use crate::capability::{MOST, Made, Region};
use crate::error::Error;
use crate::guc::SIZES;
use crate::pg::{latch, server, unguarded};
use enough_engine::hash::{KeyHash, key_hash};
use enough_engine::words::{Corrupt, Words};
use pgrx::pg_sys;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// The segment as this process sees it.
pub struct Segment {
    secret: [u64; 2],
    database: u32,
    /// What it was made with.
    pub sizes: Sizes,
    /// All its memory, in bytes.
    pub bytes: usize,
    /// How it was found.
    pub found: Found,
    /// When it was made, in microseconds since PostgreSQL's epoch.
    pub created_at: i64,
    regions: [Vec<Partition>; MOST],
    told: &'static [[AtomicU64; SIZES]; MOST],
}

/// The secret of a name space.
#[derive(Clone, Copy, Default)]
pub struct Domain([u64; 2]);

/// A part of a region with its own lock.
pub struct Partition {
    region: Region,
    head: *mut PartitionHead,
    words: Words<'static>,
}

/// The segment, once this process has found it.
static SEGMENT: AtomicPtr<Segment> = AtomicPtr::new(ptr::null_mut());

/// The segment; found, or made, at the first call of a session.
#[inline]
pub fn segment() -> Result<&'static Segment, Error> {
    known().map_or_else(attach, Ok)
}

/// The segment, if this process has found it.
#[inline]
pub fn known() -> Option<&'static Segment> {
    // SAFETY: only `attach` stores here, a leaked box.
    unsafe { SEGMENT.load(Relaxed).as_ref() }
}

#[cold]
fn attach() -> Result<&'static Segment, Error> {
    // To find or make it takes a look at the settings, and so at the catalogs, which the end of a transaction can't.
    if !server::is_in_transaction() {
        return Err(Error::NotReady {
            problem: "the shared memory of pg_enough can't be had outside of a transaction".into(),
            hint: "The next call in a transaction finds it.".into(),
        });
    }
    let (base, found) = attach::find()?;
    // SAFETY: `attach::find` hands out a mapping that stays until the process ends and whose header it has verified, and
    // which holds what the header says.
    let segment = unsafe { Segment::at(base, found) };
    let segment = Box::leak(Box::new(segment));
    SEGMENT.store(segment, Relaxed);
    Ok(segment)
}

impl Segment {
    /// # Safety
    /// `base` is a verified segment, mapped for as long as the process lives.
    unsafe fn at(base: *mut u8, found: Found) -> Self {
        // SAFETY: the header lies at the start of every segment; of what is written to it later all are atomics.
        let header: &'static Header = unsafe { &*base.cast::<Header>() };
        let regions = std::array::from_fn(|index| {
            let place = header.regions[index];
            (0..place.partitions as usize)
                .map(|partition| {
                    // SAFETY: the plan that made the header put the partitions there, inside the mapping. The words
                    // are atomics, so that other processes may write them while this slice is around.
                    unsafe {
                        let head = base.add(place.offset as usize + partition * place.stride());
                        let words = head.add(size_of::<PartitionHead>()).cast::<AtomicU64>();
                        let words = std::slice::from_raw_parts(words, place.words as usize);
                        Partition { region: Region(index as u8), head: head.cast(), words }
                    }
                })
                .collect()
        });
        header.name_locks();
        Segment {
            secret: header.secret,
            database: server::database(),
            sizes: header.sizes,
            bytes: header.bytes as usize,
            found,
            created_at: header.created_at,
            regions,
            told: &header.told,
        }
    }

    /// Whether the log is to be told that a size would be another one, in bytes, were the segment made now: the first time
    /// that anybody asks with that value.
    pub(super) fn tell_of_size(&self, region: Region, number: usize, now: usize) -> bool {
        let told = self.told[usize::from(region.0)][number].swap(now as u64, Relaxed);
        told != now as u64 && now != self.sizes.of(region, number)
    }

    /// The partitions of a region.
    #[inline]
    pub fn partitions(&self, region: Region) -> &[Partition] {
        self.regions.get(usize::from(region.0)).map_or(&[], Vec::as_slice)
    }

    /// The same, beginning with any of them: work that is stopped before its end comes to all of them in the course of time.
    pub fn partitions_from_any(&self, region: Region) -> impl Iterator<Item = &Partition> {
        let all = self.partitions(region);
        let start = server::now().unsigned_abs() as usize % all.len().max(1);
        all[start..].iter().chain(&all[..start])
    }

    /// What `key` of this session's database is known by in `region`.
    #[inline]
    pub fn hash(&self, region: Region, key: &[u8]) -> KeyHash {
        key_hash(self.secret, self.database, u32::from(region.0), key)
    }

    /// What keys of a name space of their own are hashed under, in `region` and this session's database.
    pub fn domain(&self, region: Region, name: &[u8]) -> Domain {
        /// Tells these from the region's keys.
        const DOMAINS: u32 = 1 << 8;
        let KeyHash { high, low } = key_hash(self.secret, self.database, u32::from(region.0) | DOMAINS, name);
        Domain([high, low])
    }

    /// What `key` of a domain is known by.
    #[inline(always)]
    pub fn hash_in(&self, domain: Domain, key: &[u8]) -> KeyHash {
        key_hash(domain.0, self.database, 0, key)
    }

    /// The partition that a key belongs to, for callers that must not panic.
    #[inline]
    pub fn place_of(&self, region: Region, hash: KeyHash) -> Option<&Partition> {
        let partitions = self.partitions(region);
        partitions.get(hash.partition(partitions.len()))
    }

    /// The partition that a key belongs to.
    #[inline]
    pub fn partition_of(&self, region: Region, hash: KeyHash) -> &Partition {
        let partitions = self.partitions(region);
        &partitions[hash.partition(partitions.len())]
    }
}

/// A hint, whatever the address.
#[inline(always)]
fn prefetch(address: *const i8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see, and ignores an address that isn't mapped.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Lets go of the lock when a section is left, be it by a panic.
struct Held(*mut pg_sys::LWLock);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: made only after the lock was taken.
        unsafe { unguarded::LWLockRelease(self.0) };
    }
}

impl Partition {
    #[inline]
    fn lock(&self, mode: pg_sys::LWLockMode::Type) -> Held {
        // SAFETY: the head lies in the mapped segment, whose lock was initialised before it was published.
        let lock = unsafe { &raw mut (*self.head).lock };
        // SAFETY: as above; this process holds no other partition's lock.
        unsafe { unguarded::LWLockAcquire(lock, mode) };
        Held(lock)
    }

    #[inline]
    fn head(&self) -> &PartitionHead {
        // SAFETY: the head lies in the mapped segment, and its fields besides the lock are atomics.
        unsafe { &*self.head }
    }

    /// Does `work` on the words while no other process sees or changes them. `work` keeps the rules at the top of
    /// this file; it is called a second time, on the emptied partition, where it meets a violated bound.
    #[inline(always)]
    pub fn exclusive<R>(&self, mut work: impl FnMut(Words<'static>) -> Result<R, Corrupt>) -> Result<R, Error> {
        let held = self.lock(pg_sys::LWLockMode::LW_EXCLUSIVE);
        let version = &self.head().version;
        if version.begin_write() {
            self.reset();
        }
        let result = match work(self.words) {
            Err(Corrupt) => self.retry_after_reset(&mut work),
            done => done,
        };
        version.end_write();
        drop(held);
        result.map_err(|Corrupt| self.damaged())
    }

    /// Does `work` on the words while no other process changes them, except for marks that any reader may set.
    #[inline]
    pub fn shared<R>(&self, mut work: impl FnMut(Words<'static>) -> Result<R, Corrupt>) -> Result<R, Error> {
        for _ in 0..2 {
            let held = self.lock(pg_sys::LWLockMode::LW_SHARED);
            let torn = self.head().version.is_torn();
            if !torn && let Ok(result) = work(self.words) {
                return Ok(result);
            }
            drop(held);
            self.reset_if_torn(torn);
        }
        Err(self.damaged())
    }

    /// Lets the processor fetch the lock, the words' head and what lies at a word, for an exclusive section that is to
    /// come: it waits for one cache line while it takes the lock, and would then wait for the next.
    #[inline(always)]
    pub fn prefetch(&self, word: usize) {
        prefetch(self.head.cast());
        prefetch(self.words.as_ptr().cast());
        prefetch(self.words.as_ptr().wrapping_add(word).cast());
    }

    /// The same for a few cache lines from a word on.
    #[inline(always)]
    pub fn prefetch_lines(&self, word: usize) {
        for line in 0..3 {
            prefetch(self.words.as_ptr().wrapping_add(word + line * 8).cast());
        }
    }

    /// Does `work` on the words without the lock, while others may change them; none where they have, or are torn. `work`
    /// writes nothing, and answers none to what it can't make sense of.
    #[inline(always)]
    pub fn read_optimistic<R>(&self, work: impl FnOnce(Words<'static>) -> Option<R>) -> Option<R> {
        self.head().version.read_optimistic(|| work(self.words))
    }

    /// Makes a partition that was found damaged empty; `torn`: by its version.
    #[cold]
    fn reset_if_torn(&self, torn: bool) {
        let _held = self.lock(pg_sys::LWLockMode::LW_EXCLUSIVE);
        // Somebody else may have emptied a torn partition in between; one that is corrupt doesn't show it.
        let version = &self.head().version;
        if !torn || version.is_torn() {
            // Torn or not, it is made empty.
            let _ = version.begin_write();
            self.reset();
            version.end_write();
        }
    }

    #[cold]
    fn retry_after_reset<R>(&self, work: &mut dyn FnMut(Words<'static>) -> Result<R, Corrupt>) -> Result<R, Corrupt> {
        self.reset();
        work(self.words)
    }

    #[cold]
    fn damaged(&self) -> Error {
        Error::Damaged { region: self.region.name() }
    }

    #[cold]
    fn reset(&self) {
        // A process that works on a partition has found the segment.
        let secret = known().map_or([0; 2], |segment| segment.secret);
        let Some(capability) = self.region.capability() else { return };
        (capability.format)(self.words, &Made { secret, now: server::now(), floor: server::logical_time() });
        self.head().count_reset();
        if capability.keeps_waiters {
            // Nobody is in a list of waiting sessions any more.
            latch::wake_everybody();
        }
    }

    /// Its words, by whose number the structures in it are laid out. What they hold is the lock's, but for counters.
    pub fn words(&self) -> Words<'static> {
        self.words
    }

    /// How often the partition was found damaged and made empty.
    pub fn resets(&self) -> u64 {
        self.head().resets.load(Relaxed)
    }
}
