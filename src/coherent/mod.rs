//! Copies in the segment that are never older than what is committed: what the cache keeps, and of the key-value store what was
//! read last.
//!
//! A transaction's writes and removals wait in this process's memory ([`pending`]); before the commit memory in the segment is
//! reserved for what it has written, and the commit callback, which can't fail, publishes it. What it removes goes before the
//! commit, under barriers that are lowered after it. So once it has committed, no value that was computed before can be stored
//! ([`barrier`]), be it that of a session that has read a row and is slow.
//!
//! | file | subject |
//! |---|---|
//! | `settings.rs` | the memory, and its sizes |
//! | `log/` | what a transaction has done, by savepoint |
//! | `pending.rs` | what waits for the commit, and how it is carried out |
//! | `barrier.rs` | keeps a value that was computed before a removal from being stored after it |
//! | `removal.rs` | the removals of a transaction, carried out under barriers |
//! | `undecided.rs`, `settled.rs` | those of transactions that are prepared, until they are decided |
//! | `store.rs` | what is committed: the calls into the segment |
//! | `rows.rs` | copies of committed rows of tables |
//! | `computing.rs` | the values that a session is computing, and the tags of what they are made of |
//! | `key.rs`, `clock.rs` | keys; the time as the engine counts it |

pub mod barrier;
pub mod clock;
pub mod computing;
pub mod key;
pub mod log;
pub mod pending;
mod removal;
pub mod rows;
pub mod settings;
mod settled;
pub mod store;
pub mod undecided;
