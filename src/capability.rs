//! What makes a capability: all that the foundation, maintenance and `status()` need to know of one, in one place.
//!
//! The root of the library lists the capabilities; shared memory ([`shmem`](crate::shmem)), the end of transactions
//! ([`xact`](crate::pg::xact)), settings and maintenance go by that list, and name none of them. What a new one takes is in
//! `docs/adding-a-capability.md`.

use crate::error::Error;
use crate::guc::Size;
use crate::pg::xact::Participant;
use enough_engine::cache::LogicalTime;
use enough_engine::words::Words;
use std::ffi::CStr;
use std::sync::OnceLock;

/// The most capabilities that the segment's header has room for.
pub const MOST: usize = 8;

/// The number of a capability: its place in the list, and of its region in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region(pub u8);

/// A capability.
pub struct Capability {
    /// For messages: "rate limit".
    pub name: &'static str,
    /// What `pg_stat_activity` calls waiting for one of its locks.
    pub wait_event: &'static CStr,
    /// The settings that its memory is made by, at most [`SIZES`](crate::guc::SIZES). The first is its memory.
    pub sizes: &'static [Size],
    /// The smallest partition that is worth its lock, in bytes, where the settings have these values, in bytes.
    pub smallest_partition: fn(&[usize; crate::guc::SIZES]) -> usize,
    /// Makes a partition empty, whatever it holds. Nothing in it can fail.
    pub format: fn(Words<'_>, &Made),
    /// Whether sessions wait in lists that lie in its partitions: where one was made empty, all are woken.
    pub keeps_waiters: bool,
    /// What it does at the end of transactions.
    pub participant: Option<&'static dyn Participant>,
    /// Its tasks of `maintain()`.
    pub tasks: &'static [Task],
    /// What `status()` warns of.
    pub warnings: fn() -> Result<Vec<Warning>, Error>,
}

/// What a partition is made by.
pub struct Made {
    /// The segment's secret.
    pub secret: [u64; 2],
    /// In microseconds.
    pub now: i64,
    /// The moment before which nobody knows any more what was removed.
    pub floor: LogicalTime,
}

/// A task of `maintain()`: its name, and what does it until a deadline in microseconds of the server's clock; how many
/// items were removed or found, and whether it came to its end.
pub type Task = (&'static str, fn(i64) -> Result<(i64, bool), Error>);

/// A warning: its name, the same for all of the kind, and what is wrong, with what to do about it.
pub type Warning = (&'static str, String);

static CAPABILITIES: OnceLock<&'static [&'static Capability]> = OnceLock::new();

/// Sets the list; once, when the library is loaded, before anything else.
pub fn init(all: &'static [&'static Capability]) {
    // A second time nothing is set: there is one list.
    let _ = CAPABILITIES.set(all);
}

/// All capabilities, in the order in which they lie in the segment.
pub fn all() -> &'static [&'static Capability] {
    CAPABILITIES.get().copied().unwrap_or_default()
}

impl Region {
    /// All regions.
    pub fn all() -> impl Iterator<Item = Region> {
        (0..).map(Region).take(all().len())
    }

    /// Its capability.
    pub fn capability(self) -> Option<&'static Capability> {
        all().get(usize::from(self.0)).copied()
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        self.capability().map_or("unknown", |capability| capability.name)
    }
}
