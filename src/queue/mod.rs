//! Durable messages in an ordinary table, with an index of what is ready, leased and delayed in shared memory. Sending
//! and finishing write the table; reading writes nothing.
//!
//! The table is the truth. The index (crate `enough_engine`, module `queue`) is a hint: every entry is checked against
//! its row before it is delivered, and whatever is missing is found by scanning the table. What a transaction does to
//! the index waits for its end (`pending.rs`).
//!
//! | file | subject |
//! |---|---|
//! | `functions.rs`, `arguments.rs` | arguments in, rows out; their ranges, defaults and arrays |
//! | `by_number.rs` | functions for messages whose numbers the caller knows, or this transaction |
//! | `handle.rs` | a queue as a session knows it |
//! | `name.rs`, `options.rs` | names; the rows of `enough.queue` |
//! | `index.rs`, `entry.rs` | where its index lies; what that has to know of a row |
//! | `send.rs`, `store.rs` | sending; the rows of new messages |
//! | `keys.rs` | dedup keys that stay taken for a while |
//! | `topics.rs` | subscriptions of queues to topics, and publishing to them |
//! | `sources.rs` | tables whose changes are sent |
//! | `consume/` | a message from the read to its end |
//! | `pending.rs`, `action.rs` | what waits for the end of the transaction |
//! | `backoff.rs` | how long a message rests whose delivery has failed |
//! | `doubt.rs` | prepared transactions |
//! | `notify.rs` | NOTIFY when an empty queue becomes ready |
//! | `ack.rs` | acknowledgement that does not wait for the disk |
//! | `heap/` | a queue's table, past the executor |
//! | `admin/` | queues made, changed, renamed, dropped, granted, scheduled |
//! | `inspect/` | how messages stand, and what a queue has seen |
//! | `upkeep/` | maintenance |

mod ack;
mod action;
mod admin;
mod arguments;
mod backoff;
mod by_number;
mod consume;
mod doubt;
mod entry;
mod functions;
mod handle;
pub mod heap;
mod index;
mod inspect;
mod keys;
mod name;
mod notify;
mod options;
pub mod pending;
mod send;
mod sources;
mod store;
mod topics;
pub mod upkeep;

pub use admin::check;
pub use index::REGION;
pub use inspect::stats;
pub use inspect::warnings::define;
pub use upkeep::cleanup;

use crate::capability::{Capability, Made};
use crate::guc::{KIB_IN_MIB, Size};
use enough_engine::hash::key_hash;
use enough_engine::words::Words;
use pgrx::guc::GucSetting;

static SIZES: [Size; 1] = [Size {
    name: c"enough.queue_memory",
    short: c"Memory for the index of the queues, a hard cap.",
    long: c"Read once, when the shared memory is made: after the next start of the server. The messages are in tables.",
    setting: GucSetting::<i32>::new(8 * KIB_IN_MIB),
    least: 16,
}];

/// The queues.
pub static CAPABILITY: Capability = Capability {
    name: "queue",
    wait_event: c"EnoughQueue",
    sizes: &SIZES,
    // Below this a partition would be too small to hold the leases of one busy queue.
    smallest_partition: |_| 8 << 20,
    format,
    keeps_waiters: true,
    participant: Some(&pending::PARTICIPANT),
    tasks: &[("queue_forget", cleanup::forget_dropped), ("queue_keys", keys::expire)],
    warnings: inspect::warnings::warnings,
};

fn format(words: Words<'_>, made: &Made) {
    // Another number for each partition of each segment, and for each time that one is made empty.
    let mut place = [0; 16];
    place[..8].copy_from_slice(&made.now.to_ne_bytes());
    place[8..].copy_from_slice(&words.as_ptr().addr().to_ne_bytes());
    enough_engine::queue::format(words, key_hash(made.secret, 0, u32::from(index::REGION.0), &place).high);
}
