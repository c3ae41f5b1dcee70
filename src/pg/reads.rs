//! Which tables a piece of work reads: those that the executor is given a plan for meanwhile, in the query itself and in
//! the functions that it calls, whatever their language.
//!
//! The server is asked to tell of each plan from a session's first such work on; before that it has nobody to tell. Not
//! told is what runs in a parallel worker, and what reads a table past the executor.

use super::backend_local::BackendLocal;
use super::catalog;
use super::memory::PgVec;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The relations met by the work that is going on, those of work within other work behind those of the latter.
static MET: BackendLocal<PgVec<u32>> = BackendLocal::new(PgVec::new());
/// Where in there the innermost work's begin. They are sorted.
static START: AtomicU32 = AtomicU32::new(NO_WORK);
/// Nothing is going on.
const NO_WORK: u32 = u32::MAX;
static INSTALLED: AtomicBool = AtomicBool::new(false);
/// The hook that was there before.
static mut PREVIOUS: pg_sys::ExecutorStart_hook_type = None;

/// Whether anybody wants to know what is read: then it is to be read by the executor.
#[inline(always)]
pub fn are_noted() -> bool {
    START.load(Relaxed) != NO_WORK
}

/// What is read as long as this lives; with what work within this reads.
pub struct Reads {
    /// Where those of this work begin, and where those of the work around it.
    start: u32,
    outer: u32,
}

impl Reads {
    /// From now on.
    pub fn begin() -> Self {
        if !INSTALLED.swap(true, Relaxed) {
            // SAFETY: one thread; the library stays loaded as long as the process lives.
            unsafe {
                PREVIOUS = pg_sys::ExecutorStart_hook;
                pg_sys::ExecutorStart_hook = Some(starting);
            }
        }
        let met = MET.get().map_or(0, |met| met.len() as u32);
        Reads { start: met, outer: START.swap(met, Relaxed) }
    }

    /// What the triggers of the relations that were read until now pass to `function` of the schema `enough`, first
    /// argument by first argument. What of a relation's triggers is known afterwards is what has been committed by now.
    pub fn first_arguments(&self, function: &CStr, mut each: impl FnMut(&[u8])) {
        catalog::see_committed();
        let start = self.start as usize;
        // Not held while the server is called, which could call back.
        for place in start.. {
            let Some(relation) = MET.get().and_then(|met| met.get(place).copied()) else { break };
            first_arguments_of(Oid::from(relation), function, &mut each);
        }
    }
}

impl Drop for Reads {
    fn drop(&mut self) {
        START.store(self.outer, Relaxed);
        if let Some(mut met) = MET.get() {
            if self.outer == NO_WORK {
                met.empty(64);
            } else if let Some(own) = met.get_mut(self.outer as usize..) {
                own.sort_unstable();
            }
        }
    }
}

fn first_arguments_of(relation: Oid, function: &CStr, each: &mut impl FnMut(&[u8])) {
    // SAFETY: a relation that may be gone is opened with a lock that the query has taken, as a rule; its description is read
    // while it is open, and the strings are the server's copies.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let opened = pg_sys::try_relation_open(relation, lock);
        if opened.is_null() {
            return;
        }
        let triggers = (*opened).trigdesc;
        if !triggers.is_null() {
            for index in 0..usize::try_from((*triggers).numtriggers).unwrap_or(0) {
                let trigger = &*(*triggers).triggers.add(index);
                if trigger.tgenabled != b'D' as std::ffi::c_char
                    && trigger.tgnargs >= 1
                    && catalog::is_own_function(trigger.tgfoid, function)
                {
                    each(CStr::from_ptr(*trigger.tgargs).to_bytes());
                }
            }
        }
        pg_sys::relation_close(opened, lock);
    }
}

/// Notes the relations of a plan that is about to be run, where work is going on.
///
/// # Safety
/// The description is the executor's.
unsafe fn note(description: *const pg_sys::QueryDesc) {
    let start = START.load(Relaxed);
    if start == NO_WORK {
        return;
    }
    let (Some(mut met), start) = (MET.get(), start as usize) else { return };
    // SAFETY: the caller's promise; a list has as many elements as it says.
    unsafe {
        let relations = (*(*description).plannedstmt).relationOids;
        let count = if relations.is_null() { 0 } else { usize::try_from((*relations).length).unwrap_or(0) };
        for index in 0..count {
            let relation = (*(*relations).elements.add(index)).oid_value.to_u32();
            let own = met.get(start..).unwrap_or_default();
            if let Err(place) = own.binary_search(&relation) {
                met.push(relation);
                if let Some(moved) = met.get_mut(start + place..) {
                    moved.rotate_right(1);
                }
            }
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn starting(description: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: called as the server does; so is the hook that was there before.
    unsafe {
        note(description);
        match PREVIOUS {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(description, flags)),
            None => pg_sys::standard_ExecutorStart(description, flags),
        }
    }
}
