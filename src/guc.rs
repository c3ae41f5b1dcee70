//! All settings of the extension. The prefix `enough.` is reserved.
//!
//! The four sizes are read once, when the segment is made; how they are defined, and why they aren't a session's, is in
//! `shmem/settings.rs`.

use pgrx::guc::GucSetting;
use std::ffi::CStr;

const MIB: i32 = 1024 * 1024;
/// The server measures sizes in kilobytes at the least (`GUC_UNIT_KB`); so do the settings.
const KIB_IN_MIB: i32 = 1024;

/// A size that is read when the segment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// `enough.cache_memory`
    Cache,
    /// `enough.rate_limit_memory`
    RateLimit,
    /// `enough.queue_memory`
    Queue,
    /// `enough.cache_max_value`
    CacheMaxValue,
}

/// How a size is defined; in kilobytes.
pub struct Definition {
    pub name: &'static CStr,
    pub short: &'static CStr,
    pub long: &'static CStr,
    pub setting: GucSetting<i32>,
    pub least: i32,
}

const READ_ONCE: &CStr = c"Read once, when the shared memory is made: after the next start of the server.";

static DEFINITIONS: [Definition; Size::ALL.len()] = [
    Definition {
        name: c"enough.cache_memory",
        short: c"Memory for the cache, a hard cap.",
        long: READ_ONCE,
        setting: GucSetting::<i32>::new(16 * KIB_IN_MIB),
        least: 1024,
    },
    Definition {
        name: c"enough.rate_limit_memory",
        short: c"Memory for the state of rate limits, a hard cap.",
        long: READ_ONCE,
        setting: GucSetting::<i32>::new(8 * KIB_IN_MIB),
        least: 64,
    },
    Definition {
        name: c"enough.queue_memory",
        short: c"Memory for the index of the queues, a hard cap.",
        long: c"Read once, when the shared memory is made: after the next start of the server. The messages are in tables.",
        setting: GucSetting::<i32>::new(8 * KIB_IN_MIB),
        least: 16,
    },
    Definition {
        name: c"enough.cache_max_value",
        short: c"Largest value that the cache takes.",
        long: READ_ONCE,
        setting: GucSetting::<i32>::new(MIB / 1024),
        least: 1,
    },
];

impl Size {
    /// All of them, in the order of [`Sizes`].
    pub const ALL: [Size; 4] = [Size::Cache, Size::RateLimit, Size::Queue, Size::CacheMaxValue];

    /// How it is defined.
    pub fn definition(self) -> &'static Definition {
        &DEFINITIONS[self as usize]
    }

    /// The setting's name.
    pub fn name(self) -> &'static str {
        self.definition().name.to_str().unwrap_or_default()
    }

    /// The setting of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.name().eq_ignore_ascii_case(name))
    }
}

/// A size's number in bytes.
pub fn bytes(kilobytes: i32) -> usize {
    usize::try_from(kilobytes).unwrap_or(0) * 1024
}

/// Bytes as a size is written: `16MB`.
pub fn written(bytes: usize) -> String {
    let units = [(1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    let unit = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// The four sizes in bytes, by [`Size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Sizes(pub [usize; Size::ALL.len()]);

impl Sizes {
    /// One of them.
    pub fn of(&self, size: Size) -> usize {
        self.0[size as usize]
    }

    /// As `SHOW` has them in this process.
    pub fn shown() -> Self {
        Sizes(Size::ALL.map(|size| bytes(size.definition().setting.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_people_do() {
        let written: Vec<String> = [0, 1024, 1 << 20, 3 << 19, 5 << 30, 1 << 40].map(written).to_vec();
        assert_eq!(written, ["0B", "1kB", "1MB", "1536kB", "5GB", "1TB"]);
    }

    #[test]
    fn sizes_and_definitions_have_one_order() {
        for (number, size) in Size::ALL.into_iter().enumerate() {
            assert_eq!(size as usize, number);
            assert_eq!(Size::named(&size.name().to_uppercase()), Some(size));
        }
    }
}
