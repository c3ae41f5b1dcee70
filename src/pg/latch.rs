//! Sleeping until another session wakes this one: the server's latches, by process number.
//!
//! A session that sleeps for a client that is gone is woken by that, and ends before it could take anything.
//!
//! A wake-up may come for another reason or too late, so a sleeper looks for itself when it wakes; and no sleep is
//! longer than [`patience`], so that a session isn't lost should a wake-up be.

use super::{server, unguarded};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::AtomicU32;
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
use std::sync::atomic::Ordering::Relaxed;

/// How long a session sleeps that nobody wakes, in microseconds, a quarter more or less.
const PATIENCE: i64 = 30_000_000;

/// How long this session may sleep without a look, in microseconds: another time with each call, so that sessions that began to
/// wait together don't all look together. That it looks at all is for a wake-up that was lost.
pub fn patience(now: i64) -> i64 {
    let seed = now.cast_unsigned() ^ u64::from(process()) << 32;
    // The upper 16 bits: 0 to 65,535 of a quarter's two.
    let jitter = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48).cast_signed();
    PATIENCE / 4 * 3 + ((PATIENCE / 2 * jitter) >> 16)
}

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

/// Whether the process with that number is the session of that process ID.
pub fn is_session(process: u32, process_id: u32) -> bool {
    // SAFETY: the array has that many entries for as long as the server runs.
    unsafe {
        process < (*pg_sys::ProcGlobal).allProcCount
            && (*(*pg_sys::ProcGlobal).allProcs.add(process as usize)).pid.cast_unsigned() == process_id
    }
}

/// Wakes sessions. One that isn't asleep, or has ended, takes no harm.
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

/// Wakes all processes of the server: for the rare case in which it isn't known any more which sessions wait. It does none of them any
/// harm, and can't fail.
pub fn wake_everybody() {
    // SAFETY: the number of processes stays what it is for as long as the server runs.
    for process in 0..unsafe { (*pg_sys::ProcGlobal).allProcCount } {
        wake(&[process]);
    }
}

/// Sleeps until woken, for `micros` microseconds at the most; ends the call where the user or the server asks for it, and the
/// session where its client is gone: a session that wakes takes something only for a client that is there. The caller has
/// looked for work after the last [`forget_wake_ups`], and looks again.
pub fn sleep(micros: i64) {
    static READ: Sleep = Sleep::new(c"EnoughQueueRead");
    sleep_as(micros, &READ);
}

/// [`sleep`] by another name.
pub fn sleep_as(micros: i64, called: &Sleep) {
    // Rounded up: waking a moment before a timer runs out would be a turn for nothing.
    let millis = micros.clamp(0, 2 * PATIENCE).div_euclid(1000) + 1;
    if let Some(set) = client() {
        sleep_with(set, millis, called.event());
    } else {
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: the session's own latch.
        unsafe { pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, millis as _, called.event()) };
    }
    check_client();
    forget_wake_ups();
}

/// Clears the latch, before looking for work. Ends the call where the user or the server asks for it: that may have set
/// the latch, so it is looked for after the latch was cleared.
pub fn forget_wake_ups() {
    // SAFETY: the session's own latch.
    unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
    server::check_for_interrupts();
}

/// What the server waits by for this session's client: its socket, the session's latch, the postmaster. None for a
/// process without a client, or where the kernel doesn't tell that a socket was closed.
fn client() -> Option<*mut pg_sys::WaitEventSet> {
    // SAFETY: variables of this process; the set is made with the connection and stays.
    unsafe {
        let remote = !pg_sys::MyProcPort.is_null() && pg_sys::whereToSendOutput == pg_sys::CommandDest::DestRemote;
        let set = unguarded::FeBeWaitSet;
        (remote && !set.is_null() && pg_sys::WaitEventSetCanReportClosed()).then_some(set)
    }
}

/// Sleeps until woken, until the client closes its socket, or until the time is over.
fn sleep_with(set: *mut pg_sys::WaitEventSet, millis: i64, event: u32) {
    /// `FeBeWaitSetSocketPos` (libpq.h)
    const SOCKET: i32 = 0;
    // SAFETY: the server's own set, at whose socket it wants to be told of something else each time that it waits; so it
    // asks again whenever it does, and needn't be restored.
    unsafe {
        pg_sys::ModifyWaitEvent(set, SOCKET, pg_sys::WL_SOCKET_CLOSED, std::ptr::null_mut());
        let mut happened: pg_sys::WaitEvent = std::mem::zeroed();
        let count = pg_sys::WaitEventSetWait(set, millis as _, &raw mut happened, 1, event);
        if count > 0 && happened.events & pg_sys::WL_POSTMASTER_DEATH != 0 {
            // As `WL_EXIT_ON_PM_DEATH` has it.
            pg_sys::proc_exit(1);
        }
    }
}

/// Ends the session where its client has closed the connection, whatever `client_connection_check_interval` says: for a
/// session that has waited and is about to take something. It may clear the latch, so the caller looks for work afterwards.
pub fn check_client() {
    if client().is_none() {
        return;
    }
    // SAFETY: the session has a client's socket, and the server's set for it.
    let there = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| unguarded::pq_check_connection()) };
    if !there {
        // As the server's own check does it.
        // SAFETY: variables of this process.
        unsafe {
            pg_sys::ClientConnectionLost = 1;
            pg_sys::InterruptPending = 1;
        }
    }
    server::check_for_interrupts();
}

/// What `pg_stat_activity` calls a sleep; before 17 all are called alike.
pub struct Sleep {
    name: &'static CStr,
    /// What the server calls that name by; 0 before the first sleep.
    number: AtomicU32,
}

impl Sleep {
    /// Of that name.
    pub const fn new(name: &'static CStr) -> Self {
        Sleep { name, number: AtomicU32::new(0) }
    }

    #[cfg(any(feature = "pg15", feature = "pg16"))]
    fn event(&self) -> u32 {
        let _ = (self.name, &self.number);
        pg_sys::PG_WAIT_EXTENSION
    }

    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    fn event(&self) -> u32 {
        if self.number.load(Relaxed) == 0 {
            // SAFETY: the name is a static C string; the server answers the same number to the same name.
            self.number.store(unsafe { pg_sys::WaitEventExtensionNew(self.name.as_ptr()) }, Relaxed);
        }
        self.number.load(Relaxed)
    }
}
