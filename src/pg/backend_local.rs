//! Variables of this process. `thread_local!` would do, at the cost of a call of the dynamic linker and three cold cache
//! lines for each look, because a library that is loaded later can't have its thread's memory at a known place.

use std::cell::{RefCell, RefMut};

/// A variable of this process. Only one caller at a time gets it: a call within a call doesn't.
pub struct BackendLocal<T>(RefCell<T>);

// SAFETY: a server process runs the library's code in one thread: the server calls it in its own, and the library starts
// none. (pgrx refuses calls into the server from any other.)
unsafe impl<T> Sync for BackendLocal<T> {}

impl<T> BackendLocal<T> {
    /// A variable with that value.
    pub const fn new(value: T) -> Self {
        BackendLocal(RefCell::new(value))
    }

    /// The variable; none while somebody further up is using it.
    #[inline]
    pub fn get(&self) -> Option<RefMut<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}
