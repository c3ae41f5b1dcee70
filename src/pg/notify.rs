//! NOTIFY.

use super::unguarded;
use pgrx::pg_sys;
use std::ffi::CString;

/// Tells the listeners of a channel, when the transaction commits. An ERROR where the channel's name is longer than a name may be.
pub fn notify(channel: &str) {
    let Ok(channel) = CString::new(channel) else { return };
    // SAFETY: both are C strings, which the server copies.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| unguarded::Async_Notify(channel.as_ptr(), c"".as_ptr()));
    }
}
