//! The sizes of the segment: defining their settings, and what the configuration says of them.
//!
//! Where the library is preloaded the sizes are `POSTMASTER` settings, and the server itself says that a change waits for
//! its restart. A library that is loaded later may not define such ones: there they are `SIGHUP` settings, whose value in
//! a session is what the configuration says and not what the segment was made with. What differs is in `status()`, and
//! once in the server's log.
//!
//! They are never settings of a session, because the segment is everybody's. But until the library is loaded the server
//! takes them for anybody's: a session, a role or a database may give them values. When the library defines them the
//! server drops such a value with a warning, and with it that of the configuration file, which it has replaced. So
//! the session that makes the segment reads the file where the setting is left with its default.

use super::attach::Found;
use super::segment::known;
use crate::capability::{self, MOST, Region};
use crate::guc::{self, SIZES};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::{CStr, c_int, c_void};

/// A hook for each size that there may be.
static HOOKS: [unsafe extern "C-unwind" fn(c_int, *mut c_void); MOST * SIZES] = [
    assigned::<0>,
    assigned::<1>,
    assigned::<2>,
    assigned::<3>,
    assigned::<4>,
    assigned::<5>,
    assigned::<6>,
    assigned::<7>,
    assigned::<8>,
    assigned::<9>,
    assigned::<10>,
    assigned::<11>,
    assigned::<12>,
    assigned::<13>,
    assigned::<14>,
    assigned::<15>,
];

/// Defines the sizes and reserves the prefix of all settings; once, when the library is loaded.
pub(super) fn init() {
    // SAFETY: a variable of this process.
    let preloading = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    for (region, capability) in capability::all().iter().enumerate() {
        for (number, size) in capability.sizes.iter().enumerate() {
            // SAFETY: the hook doesn't panic.
            unsafe {
                GucRegistry::define_int_guc_with_hooks(
                    size.name,
                    size.short,
                    size.long,
                    &size.setting,
                    size.least,
                    i32::MAX,
                    if preloading { GucContext::Postmaster } else { GucContext::Sighup },
                    GucFlags::UNIT_KB,
                    None,
                    HOOKS.get(region * SIZES + number).copied(),
                    None,
                );
            }
        }
    }
    // What has the prefix and isn't defined by now is a slip of the pen: a warning names it, and it is refused from here on.
    // SAFETY: the name is a static C string, which the server copies.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"enough".as_ptr()) };
}

/// Called by the server when a size gets a value: when it is defined, and in every session when the configuration has been
/// reloaded. The first session that sees a new value writes it to the log.
unsafe extern "C-unwind" fn assigned<const HOOK: usize>(kilobytes: c_int, _extra: *mut c_void) {
    let Some(segment) = known().filter(|segment| segment.found == Found::Dynamic) else { return };
    let (region, number, new) = (Region((HOOK / SIZES) as u8), HOOK % SIZES, guc::bytes(kilobytes));
    let size = region.capability().and_then(|capability| capability.sizes.get(number));
    if let Some(size) = size
        && segment.tell_of_size(region, number, new)
    {
        let (name, new, old) = (size.name(), guc::written(new), guc::written(segment.sizes.of(region, number)));
        pgrx::log!(
            "parameter \"{name}\" changed to \"{new}\", the shared memory keeps {old} until the server is restarted"
        );
    }
}

/// A setting that is on or off, for hot paths: its value is a variable of this process.
pub struct Switch(GucSetting<bool>);

impl Switch {
    /// One that is off by default.
    pub const fn new() -> Self {
        Switch(GucSetting::<bool>::new(false))
    }

    /// Whether it is on.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        // SAFETY: the server writes it in this thread, and nowhere while this reads.
        unsafe { *self.0.as_ptr() }
    }

    /// Defines it as the administrator's; once, when the library is loaded.
    pub fn define(&'static self, name: &'static CStr, short: &'static CStr, long: &'static CStr) {
        GucRegistry::define_bool_guc(name, short, long, &self.0, GucContext::Sighup, GucFlags::empty());
    }
}
