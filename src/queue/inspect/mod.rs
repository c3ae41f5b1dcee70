//! Looking at messages and queues without changing them.
//!
//! | file | subject |
//! |---|---|
//! | `look.rs` | how a message stands |
//! | `peek.rs` | messages that stand in some way |
//! | `result.rs` | what has come of a message, and waiting for it |
//! | `stats.rs` | counts and times |
//! | `warnings.rs` | what an operator is warned of |

pub(in crate::queue) mod look;
pub(in crate::queue) mod peek;
pub(in crate::queue) mod result;
pub mod stats;
pub mod warnings;
