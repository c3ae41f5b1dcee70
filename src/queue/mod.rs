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
//! | `handle.rs` | a queue as a session knows it |
//! | `name.rs`, `options.rs` | names; the rows of `enough.queue` |
//! | `index.rs`, `entry.rs` | where its index lies; what that has to know of a row |
//! | `send.rs` | sending |
//! | `consume/` | a message from the read to its end |
//! | `pending.rs` | what waits for the end of the transaction |
//! | `heap/` | a queue's table, past the executor |
//! | `admin/` | queues made, changed, renamed, dropped, granted, scheduled |
//! | `inspect/` | how messages stand, and what a queue has seen |
//! | `upkeep/` | maintenance |

mod admin;
mod arguments;
mod consume;
mod entry;
mod functions;
mod handle;
pub mod heap;
mod index;
mod inspect;
mod name;
mod options;
pub mod pending;
mod send;
pub mod upkeep;

pub use admin::check;
pub use inspect::stats;
pub use upkeep::cleanup;
