//! The three ways to the segment, and making it.
//!
//! 1. `pg_enough` is in `shared_preload_libraries`: the segment is part of the server's main shared memory, requested
//!    at its start.
//! 2. PostgreSQL 17 and later, not preloaded: a dynamic segment, whose handle is in the registry, a page that
//!    `GetNamedDSMSegment` gives.
//! 3. Before 17, not preloaded: the same, with the registry in the slack of the main shared memory, which
//!    `ShmemInitStruct` gives to whoever asks first, also long after the start.
//!
//! Why the registry is in shared memory and not in a file or a table: it must live exactly as long as the segments
//! do. The server drops both when it restarts after a crash; a file would outlive them, could be copied by a base
//! backup, deleted or damaged while sessions use the segment (two segments at once would be two sets of leases), and
//! a table row goes when the creating transaction rolls back. Why the registry and not the segment itself is asked of
//! the server by name: it gives named memory only to who knows its size, and the size is a setting that may change
//! while the server runs.
//!
//! The server's `AddinShmemInitLock` makes one process at a time look into the registry, so a segment is made once.
//! Whatever the registry says is checked against the segment's own header: magic, nonce, layout version.

use super::layout::{Header, LAYOUT_VERSION, MAGIC, PartitionHead, Plan, Region};
use super::{catalog, guard, server, xact};
use crate::error::Error;
use crate::guc;
use enough_engine::cache::Moment;
use pgrx::pg_sys::{self, PgTryBuilder};
use pgrx::prelude::*;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

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
            Found::Dynamic if cfg!(any(feature = "pg15", feature = "pg16")) => {
                "dynamic segment, by the slack of the main shared memory"
            }
            Found::Dynamic => "dynamic segment, by the server's registry of named segments",
        }
    }
}

/// Where the dynamic segment is. In shared memory, zeroed at first.
#[repr(C)]
struct Registry {
    magic: AtomicU64,
    layout: AtomicU64,
    /// 0: none has been made. (The server's own handles are never 0.)
    handle: AtomicU64,
    nonce: AtomicU64,
}
const _: () = assert!(size_of::<Registry>() == 32);

const MAIN: &std::ffi::CStr = c"pg_enough segment";
const REGISTRY: &std::ffi::CStr = c"pg_enough registry";

/// The preloaded segment. Set in the postmaster, inherited by every backend, set anew after a crash.
static PRELOADED: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

static mut PREVIOUS_REQUEST_HOOK: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP_HOOK: pg_sys::shmem_startup_hook_type = None;

/// What must happen when the library is loaded, be it at the server's start or in a session.
pub fn init() {
    guard::init();
    xact::init();
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
        pg_sys::RequestAddinShmemSpace(Plan::new(guc::sizes()).bytes);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: the server calls its hook in the postmaster, when no other process uses the segment; under
    // `AddinShmemInitLock`, as the server asks of whoever takes named memory.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP_HOOK {
            previous();
        }
        let plan = Plan::new(guc::sizes());
        let _serial = Serial::lock();
        let mut known = false;
        let base = pg_sys::ShmemInitStruct(MAIN.as_ptr(), plan.bytes, &raw mut known).cast::<u8>();
        if !known {
            make(base, &plan, random());
        }
        PRELOADED.store(base, Relaxed);
    }
}

/// `AddinShmemInitLock`, held until dropped. An error in between lets go of it like any lock.
struct Serial(*mut pg_sys::LWLock);

impl Serial {
    fn lock() -> Self {
        /// Its place in the server's array of named locks (`lwlocknames.txt`, `lwlocklist.h`): 21 in every release
        /// from 15 to 18.
        const ADDIN_SHMEM_INIT: usize = 21;
        // SAFETY: the array is set up before any library is loaded.
        unsafe {
            let lock = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT)).lock;
            pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
            Serial(lock)
        }
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        // SAFETY: taken by `lock`. When an ERROR unwinds through here, the server lets go of all locks later and
        // this one must not be missing then: releasing it now is what any code does that ends normally.
        unsafe { pg_sys::LWLockRelease(self.0) };
    }
}

/// The segment's address in this process, which stays valid until the process ends.
pub(super) fn find() -> Result<(*mut u8, Found), Error> {
    let preloaded = PRELOADED.load(Relaxed);
    if !preloaded.is_null() {
        verify(preloaded, None)?;
        return Ok((preloaded, Found::Preloaded));
    }
    let registry = registry()?;
    let _serial = Serial::lock();
    if registry.magic.load(Relaxed) == 0 {
        registry.magic.store(MAGIC, Relaxed);
        registry.layout.store(LAYOUT_VERSION, Relaxed);
    }
    if registry.magic.load(Relaxed) != MAGIC || registry.layout.load(Relaxed) != LAYOUT_VERSION {
        return Err(other_layout(registry.layout.load(Relaxed)));
    }
    let handle = registry.handle.load(Relaxed) as u32;
    if handle != 0 {
        let segment = attach(handle);
        if !segment.is_null() {
            // SAFETY: just attached.
            let base = unsafe { pg_sys::dsm_segment_address(segment) }.cast::<u8>();
            match verify(base, Some(registry.nonce.load(Relaxed))) {
                Ok(true) => {
                    // SAFETY: from here on the mapping belongs to the session, not to the current query.
                    unsafe { pg_sys::dsm_pin_mapping(segment) };
                    return Ok((base, Found::Dynamic));
                }
                // SAFETY: attached above and not used further.
                Ok(false) => unsafe { pg_sys::dsm_detach(segment) },
                Err(error) => {
                    // SAFETY: as above.
                    unsafe { pg_sys::dsm_detach(segment) };
                    return Err(error);
                }
            }
        }
    }
    let plan = Plan::new(guc::sizes());
    let segment = create(plan.bytes)?;
    // SAFETY: just created with the plan's size, and seen by nobody else before the registry names it. Pinning makes
    // it outlive this session, and this transaction's rollback.
    unsafe {
        let base = pg_sys::dsm_segment_address(segment).cast::<u8>();
        let nonce = random();
        make(base, &plan, nonce);
        pg_sys::dsm_pin_mapping(segment);
        pg_sys::dsm_pin_segment(segment);
        registry.nonce.store(nonce, Relaxed);
        registry.handle.store(u64::from(pg_sys::dsm_segment_handle(segment)), Relaxed);
        Ok((base, Found::Dynamic))
    }
}

/// The dynamic segment with that handle; NULL where there is none (any more).
fn attach(handle: u32) -> *mut pg_sys::dsm_segment {
    PgTryBuilder::new(|| {
        // SAFETY: any handle may be asked for; an ERROR arrives at the handler below.
        unsafe { pg_sys::dsm_attach(handle) }
    })
    .catch_when(PgSqlErrorCode::ERRCODE_UNDEFINED_FILE, |_| {
        // Somebody has removed its file from /dev/shm (systemd's RemoveIPC does at a logout). What the server noted down
        // before it saw that is undone, or it would complain of a leak.
        // SAFETY: NULL or a descriptor of this process that nobody uses.
        unsafe {
            let noted = pg_sys::dsm_find_mapping(handle);
            if !noted.is_null() {
                pg_sys::dsm_detach(noted);
            }
        }
        ptr::null_mut()
    })
    .execute()
}

fn other_layout(version: u64) -> Error {
    Error::NoSegment {
        reason: format!(
            "It was laid out by another version of pg_enough (layout {version}; this library's is {LAYOUT_VERSION})."
        ),
        hint: "Restart the server, so that the installed version makes it anew.".into(),
    }
}

/// Whether the segment at `base` is the one with that nonce; an error where it is ours but of another layout.
fn verify(base: *mut u8, nonce: Option<u64>) -> Result<bool, Error> {
    // SAFETY: every dynamic segment is at least a page; the header of the smallest of ours is smaller.
    let header = unsafe { &*base.cast::<Header>() };
    if header.magic != MAGIC || nonce.is_some_and(|nonce| nonce != header.nonce) {
        return Ok(false);
    }
    if header.layout != LAYOUT_VERSION {
        return Err(other_layout(header.layout));
    }
    Ok(true)
}

/// A dynamic segment, or the error that says why there is none.
fn create(bytes: usize) -> Result<*mut pg_sys::dsm_segment, Error> {
    PgTryBuilder::new(|| {
        // SAFETY: plain call; an ERROR arrives at the handler below.
        Ok(unsafe { pg_sys::dsm_create(bytes, 0) })
    })
    .catch_when(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, |error| no_memory(bytes, error))
    .catch_when(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, |error| no_memory(bytes, error))
    .catch_when(PgSqlErrorCode::ERRCODE_DISK_FULL, |error| no_memory(bytes, error))
    .execute()
}

fn no_memory(bytes: usize, error: pg_sys::panic::CaughtError) -> Result<*mut pg_sys::dsm_segment, Error> {
    use pg_sys::panic::CaughtError;
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    Err(Error::NoSegment {
        reason: format!("A dynamic shared memory segment of {bytes} bytes could not be made: {}", report.message()),
        hint: "Make /dev/shm larger, lower enough.cache_memory, enough.rate_limit_memory and enough.queue_memory, or \
               add pg_enough to shared_preload_libraries, which needs no /dev/shm."
            .into(),
    })
}

/// The registry page, zeroed when nobody has written to it.
#[cfg(any(feature = "pg15", feature = "pg16"))]
#[allow(clippy::unnecessary_wraps, reason = "the other servers' way can fail")]
fn registry() -> Result<&'static Registry, Error> {
    let _serial = Serial::lock();
    let mut known = false;
    // SAFETY: named memory of the main segment stays until the server ends or reinitialises its memory, which ends
    // this process first. Only who comes first zeroes it, still under the lock.
    unsafe {
        let page = pg_sys::ShmemInitStruct(REGISTRY.as_ptr(), size_of::<Registry>(), &raw mut known);
        if !known {
            zero_registry(page);
        }
        Ok(&*page.cast::<Registry>())
    }
}

/// The registry page, zeroed when nobody has written to it.
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
fn registry() -> Result<&'static Registry, Error> {
    let bytes = size_of::<Registry>();
    PgTryBuilder::new(|| {
        let mut known = false;
        // SAFETY: a named segment stays until the server ends or reinitialises its memory, which ends this process
        // first; the server calls `zero_registry` once, before anybody else gets the page.
        unsafe {
            let page = pg_sys::GetNamedDSMSegment(REGISTRY.as_ptr(), bytes, Some(zero_registry), &raw mut known);
            Ok(&*page.cast::<Registry>())
        }
    })
    .catch_when(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, |error| no_memory(bytes, error).map(|_| unreachable!()))
    .catch_when(PgSqlErrorCode::ERRCODE_DISK_FULL, |error| no_memory(bytes, error).map(|_| unreachable!()))
    .execute()
}

#[pg_guard]
unsafe extern "C-unwind" fn zero_registry(page: *mut std::ffi::c_void) {
    // SAFETY: the caller gives a page of at least that size that nobody else has yet.
    unsafe { page.cast::<u8>().write_bytes(0, size_of::<Registry>()) };
}

fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: writes that many bytes.
    if !unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) } {
        error_without_randomness();
    }
    u64::from_ne_bytes(bytes)
}

#[cold]
fn error_without_randomness() -> ! {
    panic!("no strong random numbers are to be had")
}

/// Writes header and empty partitions.
///
/// # Safety
/// `base` has the plan's size, is aligned to a page or a cache line, and nobody else uses it.
unsafe fn make(base: *mut u8, plan: &Plan, nonce: u64) {
    let now = server::now();
    // SAFETY: the caller's promise; the plan's places lie inside its size.
    unsafe {
        let tranche = pg_sys::LWLockNewTrancheId();
        base.cast::<Header>().write(Header {
            magic: MAGIC,
            layout: LAYOUT_VERSION,
            nonce,
            bytes: plan.bytes as u64,
            secret: [random(), random()],
            cache_max_value: plan.cache_max_value as u64,
            tranche: tranche as u64,
            created_at: now,
            regions: plan.regions,
        });
        for (region, place) in Region::ALL.into_iter().zip(plan.regions) {
            for partition in 0..place.partitions as usize {
                let head = base.add(place.offset as usize + partition * place.stride());
                let words = head.add(size_of::<PartitionHead>()).cast::<AtomicU64>();
                let head = head.cast::<PartitionHead>();
                (&raw mut (*head).version).write(AtomicU64::new(0));
                (&raw mut (*head).resets).write(AtomicU64::new(0));
                pg_sys::LWLockInitialize(&raw mut (*head).lock, tranche);
                let words = std::slice::from_raw_parts(words, place.words as usize);
                // Nothing has been removed from what is only being made.
                region.format(words, now, Moment::default());
            }
        }
    }
}
