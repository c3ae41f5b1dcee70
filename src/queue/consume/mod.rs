//! What becomes of a message once it is read: leased, finished, failed, delivered again.
//!
//! | file | subject |
//! |---|---|
//! | `read.rs`, `wait.rs` | reading from one queue or several, and waiting for the first message |
//! | `reader.rs` | one look at a queue: leasing messages and fetching their rows |
//! | `pick.rs` | leasing messages by their numbers, and those of this transaction |
//! | `refill.rs` | rows of the table brought into the index |
//! | `groups.rs` | the next message of a group |
//! | `claim.rs` | the right to end a message: by its lease, or while nobody holds it |
//! | `finish.rs` | deleting and archiving |
//! | `fail.rs`, `release.rs` | failing: a retry, or the archive; giving back unused; another delivery time |
//! | `batch.rs` | many messages ended by one call |
//! | `bury.rs` | messages that have been delivered as often as they may be |
//! | `replace.rs` | one that waits, replaced by another with its dedup key |
//! | `purge.rs`, `redrive.rs` | all of a queue's messages removed; dead ones delivered again |

pub(in crate::queue) mod batch;
pub(in crate::queue) mod bury;
pub(in crate::queue) mod claim;
pub(in crate::queue) mod fail;
pub(in crate::queue) mod finish;
pub(in crate::queue) mod groups;
pub(in crate::queue) mod letters;
pub(in crate::queue) mod pick;
pub(in crate::queue) mod purge;
pub(in crate::queue) mod read;
pub(in crate::queue) mod reader;
pub(in crate::queue) mod redrive;
pub(in crate::queue) mod refill;
pub(in crate::queue) mod release;
pub(in crate::queue) mod replace;
pub(in crate::queue) mod supersede;
mod wait;
