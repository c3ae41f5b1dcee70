//! The cache's settings that may change while the server runs.

use crate::shmem::settings::Switch;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

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
