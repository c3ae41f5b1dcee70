//! The boundary to PostgreSQL: every call of the server's C interface is in here, behind safe functions, but for the shared
//! memory ([`shmem`](crate::shmem)) and the values of a queue's rows ([`queue::heap`](crate::queue)).
//!
//! # Rules
//! * A call that may raise an ERROR runs within pgrx's guard, which makes a panic of it; nothing that has to be dropped is
//!   held across one that doesn't. `unguarded.rs` has those that can't raise one, each with the reason.
//! * No ERROR is caught but in a savepoint of its own (`savepoint.rs`), and none is raised while an `LWLock` is held.
//! * Memory that grows with what a user does is the server's (`memory.rs`); text is in the database's encoding until
//!   somebody is to read it (`encoding.rs`).
//!
//! | file | subject |
//! |---|---|
//! | `fmgr.rs`, `argument.rs`, `time.rs` | from SQL into Rust: calls and their arguments |
//! | `value.rs`, `results.rs`, `row.rs` | and back: values, rows, and rows of a fixed size |
//! | `guard.rs`, `raise.rs` | errors and panics on their way into the server; errors with a SQLSTATE of the extension's own |
//! | `spi.rs`, `query.rs` | statements of the extension's own; a query that the user has given |
//! | `reads.rs` | the tables that a piece of work reads |
//! | `xact.rs`, `savepoint.rs` | what happens at commit, abort and their savepoints; work in a savepoint of its own |
//! | `prepared.rs` | transactions that are prepared, and what becomes of them |
//! | `wal.rs` | what the transaction has written, and whether its commit waits for the disk |
//! | `latch.rs` | sleeping until another session wakes this one |
//! | `watchers.rs`, `writers.rs` | sessions that wait for changes of a table; transactions whose changes of it are undecided |
//! | `key_lock.rs` | one session at work for a key, while others wait for it |
//! | `catalog.rs`, `server.rs` | what the catalogs say of relations; clock, database, interrupts |
//! | `sequence.rs` | numbers from sequences |
//! | `name.rs` | names of what tables are called after |
//! | `level.rs` | what the current role may do beyond what everybody may |
//! | `table/` | plain tables, past the executor |
//! | `copied.rs` | tables of whose rows copies are kept |
//! | `own.rs` | whether the extension's own tables still have their columns |
//! | `trigger.rs`, `changes.rs` | what a trigger tells; the rows of its statement, as JSON |
//! | `encoding.rs`, `jsonb.rs` | text between the database's encoding and Rust's; whether two jsonb values are equal |
//! | `memory.rs`, `reserve.rs` | lists that grow with what a user does, and what is left for errors when memory isn't |
//! | `backend_local.rs` | variables of this process |
//! | `unguarded.rs` | calls of the server that can't fail, without a guard |

#![allow(unsafe_code, reason = "the server's C interface")]
#![allow(clippy::cast_ptr_alignment, reason = "the server aligns what it allocates")]

pub mod argument;
pub mod backend_local;
pub mod catalog;
pub mod changes;
pub mod copied;
pub mod encoding;
pub mod fmgr;
pub mod guard;
pub mod jsonb;
pub mod key_lock;
pub mod latch;
pub mod level;
pub mod memory;
pub mod name;
pub mod notify;
pub mod own;
pub mod prepared;
pub mod query;
pub mod raise;
pub mod reads;
mod reserve;
mod results;
pub mod row;
pub mod savepoint;
pub mod sequence;
pub mod server;
pub mod setting;
pub mod spi;
pub mod table;
mod time;
pub mod trigger;
pub mod unguarded;
pub mod value;
pub mod wal;
pub mod watchers;
pub mod writers;
pub mod xact;
