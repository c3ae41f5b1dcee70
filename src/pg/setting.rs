//! A setting of the session that is another one while something is done.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Does `work` with a setting that has another value meanwhile.
pub fn with_setting<R>(name: &CStr, value: &CStr, work: impl FnOnce() -> R) -> R {
    // SAFETY: as the server does for functions with a SET clause: a nest level, a setting saved in it, and its end, which
    // sets it back. An error ends the level with the (sub)transaction.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let result = work();
        pg_sys::AtEOXact_GUC(true, level);
        result
    }
}

/// Does `work` with statements that are planned to go by an index wherever one leads there, in its order. Without statistics (VACUUM is
/// held back, or the table was just filled) the planner takes an index for one in no order, and rather sorts all rows of a queue for a page
/// of them. Not for statements that fire a user's triggers, whose plans would be made so, too, and kept.
pub fn by_index<R>(work: impl FnOnce() -> R) -> R {
    with_setting(c"enable_seqscan", c"off", || with_setting(c"enable_bitmapscan", c"off", work))
}
