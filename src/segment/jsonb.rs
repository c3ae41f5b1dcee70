//! What only the server knows about a `jsonb`.

use super::call::Buffer;
use pgrx::pg_sys;

/// Whether two `jsonb` values, given by their binary form without the varlena header, are equal as the operator `=` has
/// it: `1.0` and `1.00` are. What isn't aligned as the server wants it is copied first.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    if left == right {
        return true;
    }
    // An empty container is a word long; nothing shorter is one.
    if left.len() < 4 || right.len() < 4 {
        return false;
    }
    let (left, right) = (aligned(left), aligned(right));
    // SAFETY: both are the binary form of a jsonb, as it came out of the server, at an address aligned for it; the
    // comparison reads them only.
    unsafe { pg_sys::compareJsonbContainers(left.bytes().as_mut_ptr().cast(), right.bytes().as_mut_ptr().cast()) == 0 }
}

/// A copy in the call's memory, which starts at a multiple of 4.
fn aligned(bytes: &[u8]) -> Buffer {
    let buffer = Buffer::allocate(bytes.len());
    buffer.bytes().copy_from_slice(bytes);
    buffer
}
