//! The shared-memory segment: how it is found, laid out, locked and reset.
//!
//! # Rules of the locks
//! * Each partition has one lock, which protects its words and nothing else. Nobody holds two at a time, but for `rate_limit_all`,
//!   which takes those that it needs in the order in which they lie.
//! * Under a lock nothing can fail: no palloc, no ereport, no detoasting, no hashing, no SPI, no panic. The structures
//!   of the engine answer a violated bound with [`Corrupt`] instead.
//! * An exclusive section makes the partition's version odd and, at its end, even again. The next session that takes the lock and finds
//!   it odd makes the partition empty first: nothing in it is the only copy of anything durable.
//! * Errors: the server's error handling releases the lock of a section that an ERROR left; the version then stays odd.
//! * A reader may do without the lock ([`Partition::read_optimistic`]): what was read counts if the version was even and
//!   is the same afterwards. Until then it may be anything, and nothing may be written because of it.
//!
//! | file | subject |
//! |---|---|
//! | `layout.rs` | what lies where |
//! | `version.rs` | the version of the layout, and what forces it up |
//! | `attach.rs` | the two ways to the segment, and making it |
//! | `segment.rs` | its partitions, and their locks |
//! | `settings.rs` | the settings that it is made by |
//! | `configured.rs` | what the configuration says of them |

#![allow(unsafe_code, reason = "memory that processes share")]
#![allow(
    clippy::cast_ptr_alignment,
    reason = "the server aligns its memory to cache lines or pages; layout.rs asserts"
)]

mod attach;
mod configured;
mod layout;
mod segment;
pub mod settings;
pub mod version;

pub use configured::{Configured, configured};
pub use segment::{Domain, Partition, Segment, known, segment};

/// Defines the settings, and asks for the segment where the library is preloaded; once, when it is loaded.
pub fn init() {
    settings::init();
    attach::init();
}
