//! Looking at messages and queues without changing them.
//!
//! | file | subject |
//! |---|---|
//! | `look.rs` | single messages and their states |
//! | `stats.rs` | counts and times |
//! | `warnings.rs` | what an operator is warned of |

pub(in crate::queue) mod look;
pub mod stats;
pub mod warnings;
