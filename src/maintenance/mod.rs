//! What time asks for and no call has done yet. Nothing depends on it for correctness: without it, memory and archives
//! are cleaned later.
//!
//! | file | subject |
//! |---|---|
//! | `tasks.rs` | the tasks of `maintain()`, in their order |
//! | `schedule.rs` | running it by `pg_cron` |
//! | `status.rs` | where the segment lives and how it is |
//! | `sql.rs` | arguments in, rows out |

mod schedule;
mod sql;
mod status;
mod tasks;
