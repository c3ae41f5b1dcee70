//! Memory whose size follows from what a user does: it belongs to the server's memory contexts, where `pg_backend_memory_contexts`
//! shows it and where too much of it is an ERROR (53200 `out_of_memory`). Rust's own allocator would end the process
//! instead, and with it all sessions of the server.
//!
//! [`PgVec`] is for everything that may become large. What stays small (names, messages, lists of a few) is Rust's, which
//! has a reserve (`reserve.rs`).

use std::mem::needs_drop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// A list in this session's own memory context, `pg_enough`. Growing raises the server's ERROR where there is no memory,
/// and leaves the list as it was; nothing else fails.
pub struct PgVec<T> {
    start: NonNull<T>,
    len: usize,
    capacity: usize,
}

/// Bytes of the first allocation.
const FIRST_BYTES: usize = 512;
/// From so many bytes on a list grows by a half instead of twofold.
const LARGE_BYTES: usize = 1 << 20;

impl<T> PgVec<T> {
    /// Nothing is ever dropped, and the server aligns what it allocates to 8 bytes.
    const PLAIN: () = assert!(!needs_drop::<T>() && align_of::<T>() <= 8 && size_of::<T>() > 0);

    /// An empty list, without memory.
    pub const fn new() -> Self {
        let () = Self::PLAIN;
        PgVec { start: NonNull::dangling(), len: 0, capacity: 0 }
    }

    /// An empty list with room for `capacity` elements.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut list = Self::new();
        list.reserve(capacity);
        list
    }

    /// Makes room for `more` elements.
    #[inline(always)]
    pub fn reserve(&mut self, more: usize) {
        if self.capacity - self.len < more {
            self.grow(more);
        }
    }

    /// How many elements may be added before the list must grow.
    #[inline]
    pub fn room(&self) -> usize {
        self.capacity - self.len
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let bytes = self.capacity * size_of::<T>();
        let doubled = if bytes < LARGE_BYTES { bytes * 2 } else { bytes + bytes / 2 };
        // A number of bytes that doesn't fit is refused below, as one that is too large is.
        let needed = self.len.checked_add(more).and_then(|len| len.checked_mul(size_of::<T>())).unwrap_or(usize::MAX);
        let bytes = needed.max(doubled).max(FIRST_BYTES) / size_of::<T>() * size_of::<T>();
        // SAFETY: the memory is this list's own.
        let start = unsafe { backing::grow(self.start.as_ptr().cast(), self.capacity * size_of::<T>(), bytes) };
        self.start = NonNull::new(start.cast()).unwrap_or(self.start);
        self.capacity = bytes / size_of::<T>();
    }

    /// Adds an element.
    #[inline(always)]
    pub fn push(&mut self, element: T) {
        self.reserve(1);
        // SAFETY: there is room for one more.
        unsafe { self.start.as_ptr().add(self.len).write(element) };
        self.len += 1;
    }

    /// Takes the last element.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: it was there, and isn't any more.
        Some(unsafe { self.start.as_ptr().add(self.len).read() })
    }

    /// Takes an element out; the others keep their order.
    pub fn remove(&mut self, index: usize) -> T {
        let tail = &mut self[index..];
        // SAFETY: the element is there; those behind it move into its place.
        unsafe {
            let element = tail.as_ptr().read();
            ptr::copy(tail.as_ptr().add(1), tail.as_mut_ptr(), tail.len() - 1);
            self.len -= 1;
            element
        }
    }

    /// Keeps the elements for which `keep` says so, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut kept = 0;
        for index in 0..self.len {
            if keep(&self[index]) {
                self.swap(kept, index);
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Of equal elements in a row keeps one.
    pub fn dedup(&mut self)
    where
        T: PartialEq,
    {
        let mut kept = 0;
        for index in 0..self.len {
            if kept == 0 || self[kept - 1] != self[index] {
                self.swap(kept, index);
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Keeps the first `len` elements.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Removes all elements; the memory stays.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Removes all elements, and gives the memory back where it is for more than `kept`.
    pub fn empty(&mut self, kept: usize) {
        self.len = 0;
        if self.capacity > kept {
            *self = Self::new();
        }
    }
}

impl<T: Copy> PgVec<T> {
    /// Adds elements.
    #[inline(always)]
    pub fn extend_from_slice(&mut self, elements: &[T]) {
        self.reserve(elements.len());
        // SAFETY: there is room for them, and they lie elsewhere, since they are borrowed beside this list.
        unsafe { ptr::copy_nonoverlapping(elements.as_ptr(), self.start.as_ptr().add(self.len), elements.len()) };
        self.len += elements.len();
    }

    /// Makes the list `len` elements long; new ones are `element`.
    pub fn resize(&mut self, len: usize, element: T) {
        self.truncate(len);
        self.reserve(len - self.len);
        while self.len < len {
            self.push(element);
        }
    }
}

impl<T> Drop for PgVec<T> {
    fn drop(&mut self) {
        if self.capacity > 0 {
            // SAFETY: allocated by `grow`, and this list's own.
            unsafe { backing::free(self.start.as_ptr().cast(), self.capacity * size_of::<T>()) };
        }
    }
}

impl<T> Default for PgVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for PgVec<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: so many elements have been written.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for PgVec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: so many elements have been written, and they are this list's own.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Extend<T> for PgVec<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, elements: I) {
        let elements = elements.into_iter();
        self.reserve(elements.size_hint().0);
        elements.for_each(|element| self.push(element));
    }
}

impl<T> FromIterator<T> for PgVec<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut list = Self::new();
        list.extend(elements);
        list
    }
}

impl<'l, T> IntoIterator for &'l PgVec<T> {
    type Item = &'l T;
    type IntoIter = std::slice::Iter<'l, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The server's memory.
#[cfg(not(test))]
mod backing {
    use super::super::unguarded;
    use pgrx::pg_sys;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

    /// The memory context of this session's lists; made at the first use, and there as long as the process is. What is in
    /// it belongs to the lists, which give it back.
    fn context() -> pg_sys::MemoryContext {
        static CONTEXT: AtomicPtr<pg_sys::MemoryContextData> = AtomicPtr::new(ptr::null_mut());
        let known = CONTEXT.load(Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the parent is there as long as the process is, and the name is a constant.
        let made = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"pg_enough".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        CONTEXT.store(made, Relaxed);
        made
    }

    /// `bytes` of memory with the first `old` bytes of `start`, which is given back. Where the server has none it raises an
    /// ERROR, and then `start` stays as it is.
    ///
    /// # Safety
    /// `start` came from here with a size of `old`, or `old` is 0.
    pub(super) unsafe fn grow(start: *mut u8, old: usize, bytes: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            if old > 0 {
                return pg_sys::repalloc_huge(start.cast(), bytes).cast();
            }
            let context = context();
            let memory = unguarded::try_alloc_huge(context, bytes);
            if memory.is_null() { pg_sys::MemoryContextAllocHuge(context, bytes).cast() } else { memory.cast() }
        }
    }

    /// # Safety
    /// `start` came from [`grow`], and is used no more.
    pub(super) unsafe fn free(start: *mut u8, _bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { unguarded::pfree(start.cast()) };
    }
}

/// The same for tests that run without a server.
#[cfg(test)]
mod backing {
    use std::alloc::{Layout, alloc, dealloc, realloc};

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 8).expect("a layout")
    }

    pub(super) unsafe fn grow(start: *mut u8, old: usize, bytes: usize) -> *mut u8 {
        // SAFETY: as the server's.
        unsafe { if old == 0 { alloc(layout(bytes)) } else { realloc(start, layout(old), bytes) } }
    }

    pub(super) unsafe fn free(start: *mut u8, bytes: usize) {
        // SAFETY: as the server's.
        unsafe { dealloc(start, layout(bytes)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_list() {
        let (mut list, mut expected) = (PgVec::new(), Vec::new());
        for round in 0..3_000_u32 {
            match round % 7 {
                0..4 => {
                    list.push(round);
                    expected.push(round);
                }
                4 => {
                    list.extend_from_slice(&[round, 1, 2]);
                    expected.extend_from_slice(&[round, 1, 2]);
                }
                5 => assert_eq!(list.pop(), expected.pop()),
                _ => assert_eq!(list.remove(list.len() / 2), expected.remove(expected.len() / 2)),
            }
            assert_eq!(&*list, &*expected);
        }
        list.retain(|element| element % 3 != 0);
        expected.retain(|element| element % 3 != 0);
        list.truncate(700);
        expected.truncate(700);
        list.resize(800, 5);
        expected.resize(800, 5);
        assert_eq!(&*list, &*expected);
        assert_eq!(&*list.iter().copied().collect::<PgVec<_>>(), &*expected);
        list.empty(1 << 20);
        assert!(list.is_empty() && list.room() >= 800, "the memory stays");
        list.empty(100);
        assert_eq!(list.room(), 0);
        assert!(PgVec::<u64>::new().pop().is_none());
    }
}
