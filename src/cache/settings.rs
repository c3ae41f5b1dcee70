//! The cache's settings that may change while the server runs.

use crate::capability::Region;
use crate::guc::{KIB_IN_MIB, READ_ONCE, SIZES as MOST_SIZES, Size};
use crate::shmem::settings::Switch;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

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
pub(super) const MAX_VALUE: usize = 1;

/// A partition holds at least this many of the largest values.
const LARGEST_VALUES: usize = 4;

/// See [`Capability::smallest_partition`](crate::capability::Capability).
pub fn smallest_partition(sizes: &[usize; MOST_SIZES]) -> usize {
    sizes[MAX_VALUE].max(1) * LARGEST_VALUES
}

/// In milliseconds.
static STANDBY_TTL: GucSetting<i32> = GucSetting::<i32>::new(60_000);

static KEEP_KEYS: Switch = Switch::new();

/// `enough.cache_keep_keys`
#[inline(always)]
pub(super) fn keep_keys() -> bool {
    KEEP_KEYS.is_on()
}

/// `enough.cache_standby_ttl`, in microseconds.
pub(super) fn standby_ttl() -> u64 {
    u64::try_from(STANDBY_TTL.get()).unwrap_or(0) * 1_000
}

/// Defines them; called once when the library is loaded.
pub fn define() {
    // The administrator's: a session must not lengthen for how long others get what is no longer so.
    GucRegistry::define_int_guc(
        c"enough.cache_standby_ttl",
        c"Longest time that a standby's cache keeps a value.",
        c"A standby isn't told of what the primary removes from its cache, so this bounds how old a value gets there.",
        &STANDBY_TTL,
        1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    KEEP_KEYS.define(
        c"enough.cache_keep_keys",
        c"Keeps the text of each key beside its value.",
        c"So that cache_keys() and cache_delete_prefix() find what is stored from then on. Costs the bytes of the keys.",
    );
}
