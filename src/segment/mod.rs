//! The shared-memory segment: how it is found, locked and reset; transaction hooks; waiting and waking. Besides
//! `engine/`, the only place with `unsafe` in it: what needs the server's C interface goes through the safe calls here.
//!
//! # Rules of the locks
//! * Each partition has one lock, which protects its words and nothing else. Nobody holds two at a time, but for `rate_limit_all`,
//!   which takes those that it needs in the order in which they lie.
//! * Under a lock nothing can fail: no palloc, no ereport, no detoasting, no hashing, no SPI, no panic. The structures
//!   of the engine answer a violated bound with [`Corrupt`] instead.
//! * An exclusive section sets the partition's `torn` mark and clears it at its end. Whoever takes the lock and finds
//!   the mark set makes the partition empty first: nothing in it is the only copy of anything durable.
//! * Errors: the server's error handling releases the lock of a section that an ERROR left; the mark then stands.
//!
//! | file | subject |
//! |---|---|
//! | `layout.rs` | what lies where |
//! | `find.rs` | the three ways to the segment, and making it |
//! | `xact.rs` | what happens at commit, abort and their savepoints |
//! | `wait.rs` | sleeping until another session wakes this one |
//! | `turn.rs` | one session at work for a key, while others wait for it |
//! | `jsonb.rs` | whether two jsonb values are equal |
//! | `server.rs` | small safe calls: clock, database, roles, interrupts |
//! | `catalog.rs` | what the catalogs say of relations |
//! | `table.rs`, `insert.rs`, `rows.rs` | a queue's table, its new rows and those that are there, past the executor |
//! | `sql.rs` | statements of the extension's own |
//! | `query.rs` | a query that the user has given |
//! | `bare.rs` | calls of the server that can't fail, without a guard |
//! | `call.rs`, `value.rs` | from SQL into Rust and back |

#![allow(unsafe_code, reason = "the one place that talks to the server's C interface")]
#![allow(
    clippy::cast_ptr_alignment,
    reason = "the server aligns its memory to cache lines or pages; layout.rs asserts"
)]

mod bare;
pub mod call;
pub mod catalog;
mod find;
mod insert;
pub mod jsonb;
mod layout;
pub mod query;
pub mod rows;
pub mod server;
pub mod sql;
pub mod table;
pub mod turn;
mod value;
pub mod wait;
pub mod xact;

pub use find::{Found, init};
pub use layout::Region;

use crate::error::Error;
use enough_engine::hash::{KeyHash, key_hash};
use enough_engine::words::{Corrupt, Words};
use layout::{Header, PartitionHead};
use pgrx::pg_sys;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed, compiler_fence};

/// The segment as this process sees it.
pub struct Segment {
    secret: [u64; 2],
    database: u32,
    /// The largest value that the cache takes, in bytes.
    pub cache_max_value: usize,
    /// All its memory, in bytes.
    pub bytes: usize,
    /// How it was found.
    pub found: Found,
    /// When it was made, in microseconds since PostgreSQL's epoch.
    pub created_at: i64,
    regions: [Vec<Partition>; 3],
}

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
    let known = SEGMENT.load(Relaxed);
    if known.is_null() {
        return attach();
    }
    // SAFETY: only `attach` stores here, a leaked box.
    Ok(unsafe { &*known })
}

#[cold]
fn attach() -> Result<&'static Segment, Error> {
    let (base, found) = find::find()?;
    // SAFETY: `find` hands out a mapping that stays until the process ends and whose header it has verified, and
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
        // SAFETY: the header lies at the start of every segment and isn't written any more.
        let header = unsafe { &*base.cast::<Header>() };
        let regions = [0, 1, 2].map(|index| {
            let place = header.regions[index];
            (0..place.partitions as usize)
                .map(|partition| {
                    // SAFETY: the plan that made the header put the partitions there, inside the mapping. The words
                    // are atomics, so that other processes may write them while this slice is around.
                    unsafe {
                        let head = base.add(place.offset as usize + partition * place.stride());
                        let words = head.add(size_of::<PartitionHead>()).cast::<AtomicU64>();
                        let words = std::slice::from_raw_parts(words, place.words as usize);
                        Partition { region: Region::ALL[index], head: head.cast(), words }
                    }
                })
                .collect()
        });
        // SAFETY: the name is a static C string; registering a tranche is a write to this process's own list.
        unsafe { pg_sys::LWLockRegisterTranche(header.tranche as i32, c"pg_enough".as_ptr()) };
        Segment {
            secret: header.secret,
            database: server::database(),
            cache_max_value: header.cache_max_value as usize,
            bytes: header.bytes as usize,
            found,
            created_at: header.created_at,
            regions,
        }
    }

    /// The partitions of a region.
    #[inline]
    pub fn partitions(&self, region: Region) -> &[Partition] {
        &self.regions[region as usize]
    }

    /// What `key` of this session's database is known by in `region`.
    #[inline]
    pub fn hash(&self, region: Region, key: &[u8]) -> KeyHash {
        key_hash(self.secret, self.database, region as u32, key)
    }

    /// What a group of messages is known by in the queues' index: a number above 0, or 0 for no group.
    pub fn group(&self, key: Option<&[u8]>) -> u64 {
        key.map_or(0, |key| self.hash(Region::Queue, key).high.max(1))
    }

    /// The partition that a key belongs to.
    #[inline]
    pub fn partition_of(&self, region: Region, hash: KeyHash) -> &Partition {
        let partitions = self.partitions(region);
        &partitions[hash.partition(partitions.len())]
    }
}

/// Lets go of the lock when a section is left, be it by a panic.
struct Held(*mut pg_sys::LWLock);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: made only after the lock was taken.
        unsafe { bare::LWLockRelease(self.0) };
    }
}

impl Partition {
    #[inline]
    fn lock(&self, mode: pg_sys::LWLockMode::Type) -> Held {
        // SAFETY: the head lies in the mapped segment, whose lock was initialised before it was published.
        let lock = unsafe { &raw mut (*self.head).lock };
        // SAFETY: as above; this process holds no other partition's lock.
        unsafe { bare::LWLockAcquire(lock, mode) };
        Held(lock)
    }

    #[inline]
    fn head(&self) -> &PartitionHead {
        // SAFETY: the head lies in the mapped segment, and its fields besides the lock are atomics.
        unsafe { &*self.head }
    }

    /// Does `work` on the words while no other process sees or changes them. `work` keeps the rules at the top of
    /// this file; it is called a second time, on the emptied partition, where it meets a violated bound.
    #[inline]
    pub fn exclusive<R>(&self, mut work: impl FnMut(Words<'static>) -> Result<R, Corrupt>) -> Result<R, Error> {
        let held = self.lock(pg_sys::LWLockMode::LW_EXCLUSIVE);
        let head = self.head();
        if head.torn.load(Relaxed) != 0 {
            self.reset();
        }
        head.torn.store(1, Relaxed);
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
        let mut result = work(self.words);
        if result.is_err() {
            self.reset();
            result = work(self.words);
        }
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
        head.torn.store(0, Relaxed);
        drop(held);
        match result {
            Ok(result) => Ok(result),
            Err(Corrupt) => Err(Error::Damaged { region: self.region.name() }),
        }
    }

    /// Does `work` on the words while no other process changes them, except for marks that any reader may set.
    #[inline]
    pub fn shared<R>(&self, mut work: impl FnMut(Words<'static>) -> Result<R, Corrupt>) -> Result<R, Error> {
        for _ in 0..2 {
            let held = self.lock(pg_sys::LWLockMode::LW_SHARED);
            let torn = self.head().torn.load(Relaxed) != 0;
            if !torn && let Ok(result) = work(self.words) {
                return Ok(result);
            }
            drop(held);
            let _held = self.lock(pg_sys::LWLockMode::LW_EXCLUSIVE);
            // Somebody else may have emptied a torn partition in between; a corrupt one shows no mark.
            if !torn || self.head().torn.load(Relaxed) != 0 {
                self.reset();
                self.head().torn.store(0, Relaxed);
            }
        }
        Err(Error::Damaged { region: self.region.name() })
    }

    #[cold]
    fn reset(&self) {
        self.region.format(self.words, server::now(), server::moment());
        self.head().count_reset();
    }

    /// How large it is, by which the structures in it are laid out.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// How often the partition was found damaged and made empty.
    pub fn resets(&self) -> u64 {
        self.head().resets.load(Relaxed)
    }
}
