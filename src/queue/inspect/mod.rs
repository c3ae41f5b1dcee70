//! Looking at messages and queues without changing them.
//!
//! | file | subject |
//! |---|---|
//! | `look.rs` | single messages and their states |
//! | `stats.rs` | counts |

pub(in crate::queue) mod look;
pub mod stats;
