//! Settings that are sizes of the shared memory. The prefix `enough.` is reserved.
//!
//! Each capability has its own. They are read once, when the segment is made; how they are defined, and why they aren't a
//! session's, is in `shmem/settings.rs`.

use pgrx::guc::GucSetting;
use std::ffi::CStr;

/// The server measures sizes in kilobytes at the least (`GUC_UNIT_KB`); so do the settings.
pub const KIB_IN_MIB: i32 = 1024;

/// A size that is read when the segment is made; in kilobytes.
pub struct Size {
    /// With the prefix.
    pub name: &'static CStr,
    /// For `pg_settings`.
    pub short: &'static CStr,
    /// The same.
    pub long: &'static CStr,
    /// Its value in this process.
    pub setting: GucSetting<i32>,
    /// The least value.
    pub least: i32,
}

/// For [`Size::long`].
pub const READ_ONCE: &CStr = c"Read once, when the shared memory is made: after the next start of the server.";

impl Size {
    /// The setting's name.
    pub fn name(&self) -> &'static str {
        self.name.to_str().unwrap_or_default()
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

/// The most sizes of a capability.
pub const SIZES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_people_do() {
        let written: Vec<String> = [0, 1024, 1 << 20, 3 << 19, 5 << 30, 1 << 40].map(written).to_vec();
        assert_eq!(written, ["0B", "1kB", "1MB", "1536kB", "5GB", "1TB"]);
    }
}
