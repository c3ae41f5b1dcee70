//! All settings of the extension. The prefix `enough.` is reserved.
//!
//! The three sizes are read once, when the segment is made. They are `SIGHUP` settings, not `POSTMASTER` ones, because
//! the server refuses to define those after its start, and the extension must work without
//! `shared_preload_libraries`; they aren't settings of a session, because the segment is everybody's.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

const MIB: i32 = 1024 * 1024;
/// The server measures sizes in kilobytes at the least (`GUC_UNIT_KB`); so do the settings.
const KIB_IN_MIB: i32 = 1024;

static CACHE_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(16 * KIB_IN_MIB);
static RATE_LIMIT_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(8 * KIB_IN_MIB);
static QUEUE_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(8 * KIB_IN_MIB);
static CACHE_MAX_VALUE: GucSetting<i32> = GucSetting::<i32>::new(MIB / 1024);

/// The sizes as they stand now, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// `enough.cache_memory`
    pub cache: usize,
    /// `enough.rate_limit_memory`
    pub rate_limit: usize,
    /// `enough.queue_memory`
    pub queue: usize,
    /// `enough.cache_max_value`
    pub cache_max_value: usize,
}

/// Reads the sizes.
pub fn sizes() -> Sizes {
    let bytes = |setting: &GucSetting<i32>| usize::try_from(setting.get()).unwrap_or(0) * 1024;
    Sizes {
        cache: bytes(&CACHE_MEMORY),
        rate_limit: bytes(&RATE_LIMIT_MEMORY),
        queue: bytes(&QUEUE_MEMORY),
        cache_max_value: bytes(&CACHE_MAX_VALUE),
    }
}

/// Defines the settings; called once when the library is loaded.
pub fn define() {
    let memory = |name, what, long, setting, smallest| {
        GucRegistry::define_int_guc(
            name,
            what,
            long,
            setting,
            smallest,
            i32::MAX,
            GucContext::Sighup,
            GucFlags::UNIT_KB,
        );
    };
    memory(
        c"enough.cache_memory",
        c"Memory for the cache, a hard cap.",
        c"Read once, when the shared memory is made: after the next start of the server.",
        &CACHE_MEMORY,
        1024,
    );
    memory(
        c"enough.rate_limit_memory",
        c"Memory for the state of rate limits, a hard cap.",
        c"Read once, when the shared memory is made: after the next start of the server.",
        &RATE_LIMIT_MEMORY,
        64,
    );
    memory(
        c"enough.queue_memory",
        c"Memory for the index of the queues, a hard cap.",
        c"Read once, when the shared memory is made: after the next start of the server. The messages are in tables.",
        &QUEUE_MEMORY,
        16,
    );
    memory(
        c"enough.cache_max_value",
        c"Largest value that the cache takes.",
        c"Read once, when the shared memory is made: after the next start of the server.",
        &CACHE_MAX_VALUE,
        1,
    );
}
