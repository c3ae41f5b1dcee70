//! The two ways to the segment, and making it.
//!
//! 1. `pg_enough` is in `shared_preload_libraries`: the segment is part of the server's main shared memory, requested
//!    at its start.
//! 2. Else it is a dynamic segment, whose handle is in the registry: a cache line in the slack of the main shared memory,
//!    which `ShmemInitStruct` gives to the session that asks first, also long after the start.
//!
//! Why the registry is in shared memory and not in a file or a table: it must live exactly as long as the segments
//! do. The server drops both when it restarts after a crash; a file would outlive them, could be copied by a base
//! backup, deleted or damaged while sessions use the segment (two segments at once would be two sets of leases), and
//! a table row goes when the creating transaction rolls back. Why it isn't what PostgreSQL 17 and later have for that,
//! `GetNamedDSMSegment`: it does the same for some versions only, and raises its errors under a lock of the server's.
//!
//! The registry is written once. A segment that it names and that can't be had any more is never replaced, because there
//! may be sessions that have it: a session that comes later is told to restart the server. Whatever the registry says is checked
//! against the segment's own header: magic, nonce, layout version, size.
//!
//! No lightweight lock is held here. Sessions that make the segment at the same moment wait for one another by one of the
//! server's heavyweight locks, which an ERROR releases as it should.

use super::configured;
use super::layout::{Header, MAGIC, PartitionHead, Plan, Registry, Sizes};
use super::version::LAYOUT_VERSION;
use crate::capability::{self, Made};
use crate::error::Error;
use crate::pg::key_lock::KeyLock;
use crate::pg::{catalog, guard, server};
use enough_engine::cache::LogicalTime;
use enough_engine::seqlock::SeqLock;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, PgTryBuilder};
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;
use std::ptr;
use std::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// How a process came to the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// In the main shared memory, by `shared_preload_libraries`.
    Preloaded,
    /// As a dynamic segment.
    Dynamic,
}

impl Found {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Found::Preloaded => "main shared memory, by shared_preload_libraries",
            Found::Dynamic => "dynamic segment, by a registry in the main shared memory",
        }
    }
}

const MAIN: &std::ffi::CStr = c"pg_enough segment";
const REGISTRY: &std::ffi::CStr = c"pg_enough registry";

/// The preloaded segment. Set in the postmaster, inherited by every backend, set again after a crash.
static PRELOADED: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

static mut PREVIOUS_REQUEST_HOOK: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP_HOOK: pg_sys::shmem_startup_hook_type = None;

/// What must happen when the library is loaded, be it at the server's start or in a session.
pub fn init() {
    guard::init();
    catalog::init();
    // SAFETY: hooks are installed by the postmaster alone, while it loads libraries.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            PREVIOUS_REQUEST_HOOK = pg_sys::shmem_request_hook;
            pg_sys::shmem_request_hook = Some(request);
            PREVIOUS_STARTUP_HOOK = pg_sys::shmem_startup_hook;
            pg_sys::shmem_startup_hook = Some(startup);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: the server calls its hook once, in the postmaster.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST_HOOK {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(Plan::new(Sizes::shown()).bytes);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: the server calls its hook in the postmaster, when it has no other process yet, or no more.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP_HOOK {
            previous();
        }
        let plan = Plan::new(Sizes::shown());
        let mut known = false;
        let base = pg_sys::ShmemInitStruct(MAIN.as_ptr(), plan.bytes, &raw mut known).cast::<u8>();
        if !known {
            make(base, &plan, random());
        }
        PRELOADED.store(base, Relaxed);
        // Every process inherits the names, also those that never use the extension.
        (*base.cast::<Header>()).name_locks();
    }
}

/// The segment's address in this process, which stays valid until the process ends.
pub(super) fn find() -> Result<(*mut u8, Found), Error> {
    let preloaded = PRELOADED.load(Relaxed);
    if !preloaded.is_null() {
        verify(preloaded, usize::MAX, None)?;
        return Ok((preloaded, Found::Preloaded));
    }
    let registry = registry()?;
    if registry.handle.load(Acquire) == 0 {
        make_dynamic(registry)?;
    }
    attach(registry).map(|base| (base, Found::Dynamic))
}

/// Makes a dynamic segment and enters it, unless somebody else has done so by the time that it is this session's turn.
fn make_dynamic(registry: &Registry) -> Result<(), Error> {
    let turn = KeyLock::of_the_server();
    if registry.handle.load(Acquire) == 0 {
        let plan = Plan::new(configured::sizes()?);
        let segment = create(plan.bytes)?;
        // SAFETY: just created with the plan's size, and seen by nobody else before the registry names it. It is pinned so
        // that it outlives this session, and this transaction's rollback; until then an error takes it away again.
        unsafe {
            let nonce = random();
            make(pg_sys::dsm_segment_address(segment).cast(), &plan, nonce);
            let handle = pg_sys::dsm_segment_handle(segment);
            pg_sys::dsm_pin_segment(segment);
            registry.magic.store(MAGIC, Relaxed);
            registry.layout.store(LAYOUT_VERSION, Relaxed);
            registry.nonce.store(nonce, Relaxed);
            registry.handle.store(u64::from(handle), Release);
        }
    }
    turn.end();
    Ok(())
}

/// The address of the segment that the registry names, mapped until the process ends.
fn attach(registry: &Registry) -> Result<*mut u8, Error> {
    if registry.magic.load(Relaxed) != MAGIC || registry.layout.load(Relaxed) != LAYOUT_VERSION {
        return Err(other_layout(registry.layout.load(Relaxed)));
    }
    let handle = registry.handle.load(Relaxed) as u32;
    // SAFETY: any handle may be asked for. Where it is mapped already, this session has just made it, or its transaction
    // found it before a savepoint was rolled back.
    let segment = unsafe {
        let mapped = pg_sys::dsm_find_mapping(handle);
        if mapped.is_null() { refused(|| pg_sys::dsm_attach(handle)).map_err(|why| gone(&why))? } else { mapped }
    };
    if segment.is_null() {
        return Err(gone("The server doesn't know it any more."));
    }
    // SAFETY: just attached. What isn't ours goes with the transaction, which fails. What is belongs to the session from
    // here on, not to the current query.
    unsafe {
        let base = pg_sys::dsm_segment_address(segment).cast::<u8>();
        verify(base, pg_sys::dsm_segment_map_length(segment), Some(registry.nonce.load(Relaxed)))?;
        pg_sys::dsm_pin_mapping(segment);
        Ok(base)
    }
}

/// Does what the server may refuse; the server's words if it does. For calls whose failure is the call's own.
fn refused<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    let refusal = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work()))).catch_others(|error| match error {
        CaughtError::PostgresError(report) => Err(report.message().to_owned()),
        other => other.rethrow(),
    });
    let outcome = refusal.execute();
    if outcome.is_err() {
        // It may have been refused because somebody has cancelled it.
        server::check_for_interrupts();
    }
    outcome
}

fn no_segment(reason: String, hint: &str) -> Error {
    Error::NoSegment { reason, hint: hint.into() }
}

fn gone(why: &str) -> Error {
    no_segment(
        format!("Other sessions may have it, but it can't be attached any more: {why}"),
        "Restart the server, so that there is one again for all. Where files in /dev/shm are removed at a logout \
         (systemd's RemoveIPC), switch that off for the server's user.",
    )
}

fn other_layout(version: u64) -> Error {
    Error::OtherLayout { found: version, known: LAYOUT_VERSION }
}

/// Fails unless the `mapped` bytes at `base` are our segment, by that nonce, and of this layout.
fn verify(base: *mut u8, mapped: usize, nonce: Option<u64>) -> Result<(), Error> {
    if mapped < size_of::<Header>() {
        return Err(gone("What is there is too small."));
    }
    // SAFETY: so many bytes are mapped at least.
    let header = unsafe { &*base.cast::<Header>() };
    if header.magic != MAGIC || nonce.is_some_and(|nonce| nonce != header.nonce) {
        return Err(gone("What is there is something else."));
    }
    if header.layout != LAYOUT_VERSION {
        return Err(other_layout(header.layout));
    }
    if (mapped as u64) < header.bytes {
        return Err(gone("What is there is only a part of it."));
    }
    Ok(())
}

/// A dynamic segment, or the error that says why there is none.
fn create(bytes: usize) -> Result<*mut pg_sys::dsm_segment, Error> {
    // SAFETY: plain call.
    refused(|| unsafe { pg_sys::dsm_create(bytes, 0) }).map_err(|why| {
        no_segment(
            format!("A dynamic shared memory segment of {bytes} bytes could not be made: {why}"),
            "Make /dev/shm larger, lower enough.cache_memory, enough.rate_limit_memory, enough.queue_memory and \
             enough.semaphore_memory, or add pg_enough to shared_preload_libraries, which needs no /dev/shm.",
        )
    })
}

/// The registry.
fn registry() -> Result<&'static Registry, Error> {
    let mut known = false;
    let place = &raw mut known;
    // SAFETY: named memory of the main segment stays until the server ends or makes its memory again, which ends this
    // process first. Nobody has to fill it: see `Registry`.
    let registry = refused(|| unsafe {
        pg_sys::ShmemInitStruct(REGISTRY.as_ptr(), size_of::<Registry>(), place).cast::<Registry>()
    });
    match registry {
        // SAFETY: as above; all fields are atomics.
        Ok(registry) => Ok(unsafe { &*registry }),
        Err(why) => Err(no_segment(
            format!("The server's main shared memory has no room to note where it is: {why}"),
            "Add pg_enough to shared_preload_libraries, and restart the server.",
        )),
    }
}

fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: writes that many bytes.
    let done = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    assert!(done, "no strong random numbers are to be had");
    u64::from_ne_bytes(bytes)
}

/// Writes header and empty partitions.
///
/// # Safety
/// `base` has the plan's size, is aligned to a page or a cache line, and nobody else uses it.
unsafe fn make(base: *mut u8, plan: &Plan, nonce: u64) {
    let (now, secret) = (server::now(), [random(), random()]);
    // SAFETY: the caller's promise; the plan's places lie inside its size. A tranche's number is the server's to give.
    unsafe {
        let mut regions = plan.regions;
        for place in regions.iter_mut().take(capability::all().len()) {
            place.tranche = pg_sys::LWLockNewTrancheId() as u64;
        }
        base.cast::<Header>().write(Header {
            magic: MAGIC,
            layout: LAYOUT_VERSION,
            nonce,
            bytes: plan.bytes as u64,
            secret,
            created_at: now,
            sizes: plan.sizes,
            regions,
            told: plan.sizes.0.map(|own| own.map(|size| AtomicU64::new(size as u64))),
        });
        // Nothing has been removed from what is only being made.
        let made = Made { secret, now, floor: LogicalTime::default() };
        for (capability, place) in capability::all().iter().zip(regions) {
            for partition in 0..place.partitions as usize {
                let head = base.add(place.offset as usize + partition * place.stride());
                let words = head.add(size_of::<PartitionHead>()).cast::<AtomicU64>();
                let head = head.cast::<PartitionHead>();
                (&raw mut (*head).version).write(SeqLock::default());
                (&raw mut (*head).resets).write(AtomicU64::new(0));
                pg_sys::LWLockInitialize(&raw mut (*head).lock, place.tranche as i32);
                let words = std::slice::from_raw_parts(words, place.words as usize);
                (capability.format)(words, &made);
            }
        }
    }
}
