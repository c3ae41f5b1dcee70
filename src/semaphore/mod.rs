//! Semaphores: locks, and limits on what runs at once, by name. Who holds one is in the segment alone, so that it outlives the
//! caller's transaction and session, works in read-only transactions and on standbys, and writes nothing. It ends when it is
//! released or its time is over; after a crash nobody holds anything.
//!
//! What the calls mean, and the order of sessions that wait, is in [`enough_engine::semaphore`]; here a name of this session's database
//! finds its partition, each look is one short section under that partition's lock, and a session that has to wait sleeps outside of it.
//!
//! A torn partition is made empty, which frees its names; its tokens go on from the clock, as after a crash.
//!
//! | file | subject |
//! |---|---|
//! | `functions.rs`, `arguments.rs` | arguments in, rows out; their ranges and defaults |
//! | `acquire.rs` | acquiring, and waiting |
//! | `line.rs` | this session's place in a line, which an error gives up |
//! | `held.rs` | ending and prolonging what somebody holds, and by whom |
//! | `look.rs` | who holds what, what was counted, and what an operator is warned of |
//! | `place.rs` | where a name lies |

mod acquire;
mod arguments;
mod functions;
mod held;
mod line;
mod look;
mod place;

pub use place::REGION;

use crate::capability::Capability;
use crate::guc::{KIB_IN_MIB, READ_ONCE, Size};
use enough_engine::semaphore;
use pgrx::guc::GucSetting;

static SIZES: [Size; 1] = [Size {
    name: c"enough.semaphore_memory",
    short: c"Memory for the holders of semaphores and the sessions that wait, a hard cap.",
    long: READ_ONCE,
    setting: GucSetting::<i32>::new(KIB_IN_MIB),
    least: 64,
}];

/// The semaphores.
pub static CAPABILITY: Capability = Capability {
    name: "semaphore",
    wait_event: c"EnoughSemaphore",
    sizes: &SIZES,
    smallest_partition: |_| 64 << 10,
    format: |words, _| semaphore::format(words),
    keeps_waiters: true,
    participant: Some(&line::PARTICIPANT),
    tasks: &[("semaphore_expired", |deadline| {
        look::sweep(deadline).map(|(items, whole)| (items.cast_signed(), whole))
    })],
    warnings: look::warnings,
};
