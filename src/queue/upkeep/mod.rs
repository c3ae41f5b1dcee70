//! Maintenance of queues.
//!
//! | file | subject |
//! |---|---|
//! | `maintain.rs` | whose turn it is, and for how long |
//! | `reconcile.rs` | the index and the table made to agree |
//! | `cleanup.rs` | archives that expire, and queues that are gone |

pub mod cleanup;
pub mod maintain;
pub(in crate::queue) mod reconcile;
