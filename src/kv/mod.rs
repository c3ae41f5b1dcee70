//! A key-value store: values by key in plain tables, so durable, transactional and under the tables' own privileges.
//!
//! One table is a *space*, `enough.kv_<space>`. A row's version is drawn from the space's sequence, so that of two writes of one key the
//! later one, which waits for the row's lock, has the greater version. A key that is deleted keeps its row for a day, without a value:
//! a transaction that has drawn a version before meets that row, and takes a new one.
//!
//! Each row has a *fence*: the number that the next transaction was to get when its version had been drawn. A writer has its own
//! transaction number before it draws. So where every transaction below the fence has ended, all versions up to this one
//! are decided: nothing smaller can appear any more. By that rule a watcher that passes the greatest version that it has seen misses nothing.
//!
//! What was read last lies in the segment, too, and is read there until the row is changed: [`coherent`](crate::coherent).
//!
//! | file | subject |
//! |---|---|
//! | `functions.rs`, `arguments.rs` | arguments in, rows out; their ranges and defaults |
//! | `space.rs`, `table.rs` | making and dropping a space; one that is there |
//! | `read.rs`, `write.rs` | the statements on one |
//! | `direct.rs` | writing a row that is there, past the executor |
//! | `memory.rs`, `known.rs` | the copies of rows in the segment; for which spaces and roles they may stand for the rows |
//! | `version.rs` | where versions come from |
//! | `history.rs` | versions of before |
//! | `watch.rs`, `wake.rs` | changes after a version, and the sessions that wait for them |
//! | `changed.rs` | what the triggers of a table do |
//! | `crash.rs` | unlogged spaces that a crash may have emptied |
//! | `upkeep.rs`, `mark.rs` | rows that are over; up to which version changes are gone with them |

mod arguments;
mod changed;
mod crash;
mod direct;
mod functions;
mod history;
mod known;
mod mark;
mod memory;
mod read;
mod space;
mod table;
mod upkeep;
mod version;
mod wake;
mod watch;
mod write;

pub use upkeep::expire;
pub use wake::{NUMBER, PARTICIPANT};
