//! Queues themselves: made, changed, renamed, dropped, granted, scheduled.
//!
//! | file | subject |
//! |---|---|
//! | `create.rs`, `rename.rs`, `alter.rs` | the functions of that name; `create.rs` drops, too |
//! | `ddl.rs` | the locks under which DDL runs |
//! | `tables.rs`, `sequence.rs` | a queue's tables and its message numbers |
//! | `check.rs` | what is wrong with queues |
//! | `grant.rs`, `schedule.rs` | privileges; messages by the clock |

pub(in crate::queue) mod alter;
pub mod check;
pub(in crate::queue) mod create;
pub(in crate::queue) mod ddl;
pub(in crate::queue) mod grant;
pub(in crate::queue) mod rename;
pub(in crate::queue) mod schedule;
pub(in crate::queue) mod sequence;
pub(in crate::queue) mod tables;
