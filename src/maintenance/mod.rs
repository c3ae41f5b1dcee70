//! Time-based housekeeping that no call has done yet. Nothing depends on it for correctness: without it, memory and archives
//! are cleaned later.
//!
//! | file | subject |
//! |---|---|
//! | `tasks.rs` | the tasks of `maintain()`, in their order |
//! | `schedule.rs` | running it by `pg_cron` |
//! | `status.rs` | where the segment lives and how it is |
//! | `functions.rs` | arguments in, rows out |

mod functions;
mod schedule;
mod status;
mod tasks;
