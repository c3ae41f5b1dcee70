//! Sleeping until another session wakes this one: the server's latches, by process number.
//!
//! A wake-up may come for another reason or too late, so whoever sleeps looks for itself when it wakes; and no sleep is
//! longer than [`LONGEST`], so that a session isn't lost when the segment's list of waiting ones is.

use super::server;
use enough_engine::queue::LOOK_AGAIN;
use pgrx::pg_sys;

/// The longest sleep without a look, in microseconds.
const LONGEST: i64 = LOOK_AGAIN;

/// This session's process number: its place in the server's array of processes.
#[inline]
pub fn process() -> u32 {
    // SAFETY: a session has a process entry as long as it lives.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    unsafe {
        (*pg_sys::MyProc).pgprocno as u32
    }
    // SAFETY: as above.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe {
        pg_sys::MyProcNumber as u32
    }
}

/// Whether a process with that number is there.
pub fn is_alive(process: u32) -> bool {
    // SAFETY: the array has that many entries for as long as the server runs.
    unsafe {
        process < (*pg_sys::ProcGlobal).allProcCount && (*(*pg_sys::ProcGlobal).allProcs.add(process as usize)).pid != 0
    }
}

/// Wakes sessions. Who isn't asleep, or has ended, takes no harm.
pub fn wake(processes: &[u32]) {
    for &process in processes {
        // SAFETY: the number is compared with the size of the array, whose entries and latches exist for as long as the
        // server runs.
        unsafe {
            if process < (*pg_sys::ProcGlobal).allProcCount {
                let entry = (*pg_sys::ProcGlobal).allProcs.add(process as usize);
                pg_sys::SetLatch(&raw mut (*entry).procLatch);
            }
        }
    }
}

/// Sleeps until woken, for `micros` microseconds at the most; ends the call where the user or the server asks for it.
/// Whoever calls has looked for work after the last [`forget_wake_ups`].
pub fn sleep(micros: i64) {
    // Rounded up: waking a moment before a timer runs out would be a turn for nothing.
    let millis = micros.clamp(0, LONGEST).div_euclid(1000) + 1;
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the session's own latch.
    unsafe { pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, millis as _, event()) };
    server::check_for_interrupts();
}

/// Clears the latch, before looking for work.
pub fn forget_wake_ups() {
    // SAFETY: the session's own latch.
    unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
}

/// What `pg_stat_activity` calls the sleep.
#[cfg(any(feature = "pg15", feature = "pg16"))]
fn event() -> u32 {
    pg_sys::PG_WAIT_EXTENSION
}

/// What `pg_stat_activity` calls the sleep.
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
fn event() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static EVENT: AtomicU32 = AtomicU32::new(0);
    if EVENT.load(Relaxed) == 0 {
        // SAFETY: the name is a static C string; the server answers the same number to the same name.
        EVENT.store(unsafe { pg_sys::WaitEventExtensionNew(c"EnoughQueueRead".as_ptr()) }, Relaxed);
    }
    EVENT.load(Relaxed)
}
