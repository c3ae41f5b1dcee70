//! The index of the queues: which messages are ready, leased or delayed, and who waits for one.
//!
//! The messages are rows of tables; this is a hint about them, complete enough to find the next ones without a look at
//! the table. What is true of each queue at any time:
//!
//! * **Frontier.** Every committed row without a delivery time whose number is at or below the frontier is in the index,
//!   or behind the head of a group that is.
//!   What lies above may be in it or not, up to an *end*, above which all are in it again. A row that is dropped from the
//!   index for lack of room lowers the frontier below it, so dropping is always allowed, and the next refill looks at the
//!   rows between that and the end alone. `i64::MAX` means that nothing is outside.
//! * **Horizon.** The same for rows with a delivery time, by that time.
//! * **Keyed by number.** A message is in the index once; a second push of it does nothing. So it does no harm when
//!   a sender and a refill both bring it. Another row of the same number takes the place of the first (`identity.rs`).
//! * **Refill.** A session that scans the table for more first takes the refill mark, then a snapshot. While the mark stands, every
//!   committing sender pushes, whatever its number, and what is dropped meanwhile lowers the *floor*; at the end the
//!   frontier is where the scan came to, or the floor. So a row that was committed before the snapshot is scanned, and
//!   one committed after it is pushed: never neither.
//! * **In doubt.** What a prepared transaction has sent may be at or below the marks and not in the index. The queue has a record of each
//!   such transaction until it is known to be decided, which lowers the marks where it has committed. What it has finished stays set aside
//!   under that record.
//!
//! A message goes from *ready* to *leased* when it is read; to *busy* while an open transaction deletes it, when its
//! timer stands still and nobody else gets it; and back when its lease runs out or that transaction aborts. After its
//! last delivery it is *used up* instead of ready again.
//!
//! | file | subject |
//! |---|---|
//! | `layout.rs` | what lies where |
//! | `records.rs` | records, buckets and lists |
//! | `timers.rs` | timers; messages in the order in which they come due |
//! | `registry.rs` | queues: finding, adding, dropping one; its options |
//! | `marks.rs` | how far the table has been read |
//! | `window.rs` | ready and delayed messages: pushing, dropping, refilling |
//! | `group.rs` | messages of one group: one after the other |
//! | `lanes.rs` | several of one group at a time |
//! | `rates.rs` | how often messages of one group are delivered |
//! | `probe.rs` | what of a group is in the table alone |
//! | `message.rs` | a message as the index knows it |
//! | `identity.rs` | which row an entry is about |
//! | `limits.rs` | messages in flight, deliveries in a time |
//! | `lease.rs`, `busy.rs` | reading and giving back; messages that open transactions are changing |
//! | `numbered.rs` | messages that stand in line by their numbers |
//! | `pick.rs` | reading messages by their numbers |
//! | `used_up.rs` | messages that have been delivered as often as they may be |
//! | `look.rs` | looking at messages without taking any |
//! | `wait.rs`, `wake.rs` | sessions that wait for a message, and those to wake |
//! | `awaited.rs` | sessions that wait for the end of a message |
//! | `notify.rs` | when listeners are told |
//! | `doubt.rs` | prepared transactions |
//! | `undecided.rs` | messages that they have set aside |
//! | `durations.rs` | how long messages wait, and how long work on them takes |
//! | `clock.rs` | what a clock that is set back must not prolong |

mod awaited;
mod busy;
mod clock;
mod doubt;
mod durations;
mod group;
mod identity;
mod lanes;
mod layout;
mod lease;
mod limits;
mod look;
mod marks;
mod message;
mod notify;
mod numbered;
mod pick;
mod probe;
mod rates;
mod records;
mod registry;
#[cfg(test)]
mod tests;
mod timers;
mod undecided;
mod used_up;
mod wait;
mod wake;
mod window;

pub use busy::{Aside, Busy, Claimed, Fence};
pub use doubt::{Decided, Decision, Doubt, Doubts};
pub use durations::{Durations, Histogram};
pub use identity::Storage;
pub use layout::{DOUBTS as MOST_DOUBTS, PRIORITIES, Partition};
pub use lease::{Delivery, Extended};
pub use look::{Listed, Seen, State};
pub use marks::Range;
pub use message::{Entry, Found, Tag, Tid};
pub use notify::NOTIFY_INTERVAL;
pub use pick::Picked;
pub use probe::{Offered, Yielded};
pub use registry::{Counters, Maintenance, Options, QueueKey};
pub use undecided::{Met, Undecided};
pub use wait::Place;
pub use wake::Wake;
pub use window::{QueueState, Refill};

use crate::fingerprint;
use crate::words::Words;

/// The fingerprint of what lies where in the words: where it changes, so does the layout version.
pub const LAYOUT: u64 = fingerprint![
    awaited::LAYOUT,
    doubt::LAYOUT,
    durations::LAYOUT,
    group::LAYOUT,
    lanes::LAYOUT,
    layout::LAYOUT,
    records::LAYOUT,
    registry::LAYOUT,
    timers::LAYOUT,
    undecided::LAYOUT
];

/// Makes a partition empty. `random` says where the lease numbers start: another place each time, so that a lease from before the
/// segment was lost isn't taken for one of after it, whatever has become of the clock.
pub fn format(words: Words<'_>, random: u64) {
    // Of 2^62 places to start at; from each of them the numbers stay positive as a `bigint`.
    let first_lease = (random >> 2).max(1);
    // A partition too small for its own head stays unusable: every call on it answers that it is corrupt.
    let _ = Partition::new(words).clear(first_lease);
}
