//! The memory that copies lie in, and its sizes.

use crate::capability::Region;
use crate::guc::{KIB_IN_MIB, READ_ONCE, SIZES as MOST_SIZES, Size};
use pgrx::guc::GucSetting;

/// The place of the cache in the segment.
pub const REGION: Region = Region(1);

/// The sizes that its memory is made by.
pub static SIZES: [Size; 2] = [
    Size {
        name: c"enough.cache_memory",
        short: c"Memory for the cache, a hard cap.",
        long: READ_ONCE,
        setting: GucSetting::<i32>::new(16 * KIB_IN_MIB),
        least: 1024,
    },
    Size {
        name: c"enough.cache_max_value",
        short: c"Largest value that the cache takes.",
        long: READ_ONCE,
        setting: GucSetting::<i32>::new(KIB_IN_MIB),
        least: 1,
    },
];

/// Which of them is the largest value.
pub const MAX_VALUE: usize = 1;

/// A partition holds at least this many of the largest values.
const LARGEST_VALUES: usize = 4;

/// See [`Capability::smallest_partition`](crate::capability::Capability).
pub fn smallest_partition(sizes: &[usize; MOST_SIZES]) -> usize {
    sizes[MAX_VALUE].max(1) * LARGEST_VALUES
}
