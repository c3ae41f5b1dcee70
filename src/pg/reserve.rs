//! Rust's allocator: the C library's, and where that has nothing left a reserve, because Rust ends the process, and with it
//! the server, where an allocation fails.
//!
//! The reserve is for what an error needs on its way out (its text, the panic that carries it) and for the small lists of a
//! call. It is whole again when they are gone. What may become large is a [`PgVec`](super::memory::PgVec).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// See the top of this file.
struct WithReserve {
    /// Taken by the call that looks at the others.
    taken: AtomicBool,
    /// Bytes handed out since it was whole.
    used: AtomicUsize,
    /// Allocations that are still in it.
    pieces: AtomicUsize,
    memory: UnsafeCell<[u128; RESERVE / 16]>,
}

/// Pages that nobody has touched take no memory.
const RESERVE: usize = 1 << 20;

#[global_allocator]
static ALLOCATOR: WithReserve = WithReserve {
    taken: AtomicBool::new(false),
    used: AtomicUsize::new(0),
    pieces: AtomicUsize::new(0),
    memory: UnsafeCell::new([0; RESERVE / 16]),
};

// SAFETY: `memory` is handed out in pieces that don't overlap, each to one owner.
unsafe impl Sync for WithReserve {}

impl WithReserve {
    fn start(&self) -> *mut u8 {
        self.memory.get().cast()
    }

    #[inline]
    fn holds(&self, piece: *mut u8) -> bool {
        (piece as usize).wrapping_sub(self.start() as usize) < RESERVE
    }

    /// Does `work` alone: tests run in several threads.
    fn alone<R>(&self, work: impl FnOnce() -> R) -> R {
        while self.taken.swap(true, Acquire) {
            std::hint::spin_loop();
        }
        let result = work();
        self.taken.store(false, Release);
        result
    }

    #[cold]
    fn take(&self, layout: Layout) -> *mut u8 {
        self.alone(|| {
            let used = self.used.load(Relaxed).next_multiple_of(layout.align());
            if layout.align() > 16 || layout.size() > RESERVE - used.min(RESERVE) {
                return ptr::null_mut();
            }
            self.used.store(used + layout.size(), Relaxed);
            self.pieces.store(self.pieces.load(Relaxed) + 1, Relaxed);
            self.start().wrapping_add(used)
        })
    }

    #[cold]
    fn give_back(&self) {
        self.alone(|| {
            let left = self.pieces.load(Relaxed).saturating_sub(1);
            self.pieces.store(left, Relaxed);
            if left == 0 {
                self.used.store(0, Relaxed);
            }
        });
    }
}

// SAFETY: what comes from the C library goes back there; what comes from the reserve is aligned, is nobody else's, and
// is told by its address. Nothing here unwinds.
unsafe impl GlobalAlloc for WithReserve {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { self.take(layout) } else { memory }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if self.holds(memory) {
            return self.give_back();
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.holds(memory) {
            // SAFETY: the caller's promise.
            let larger = unsafe { System.realloc(memory, layout, size) };
            if !larger.is_null() {
                return larger;
            }
        }
        // SAFETY: the caller's promise about `size` and `layout`; both pieces hold what is copied.
        unsafe {
            let larger = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !larger.is_null() {
                ptr::copy_nonoverlapping(memory, larger, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            larger
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_gives_pieces_that_dont_overlap_and_is_whole_again_after_them() {
        let layout = |size, align| Layout::from_size_align(size, align).expect("a layout");
        for _ in 0..3 {
            let mut pieces = Vec::new();
            for (size, align) in [(1, 1), (8, 8), (3, 2), (100, 16), (RESERVE / 2, 8), (RESERVE / 3, 1)] {
                let piece = ALLOCATOR.take(layout(size, align)) as usize;
                assert!(piece != 0 && piece.is_multiple_of(align) && ALLOCATOR.holds(piece as *mut u8));
                pieces.push((piece, piece + size));
            }
            assert!(ALLOCATOR.take(layout(RESERVE / 3, 1)).is_null(), "it has an end");
            assert!(ALLOCATOR.take(layout(1, 32)).is_null(), "and no larger alignment");
            pieces.sort_unstable();
            assert!(pieces.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            for _ in &pieces {
                ALLOCATOR.give_back();
            }
        }
        assert!(!ALLOCATOR.holds(Box::into_raw(Box::new(1_u8))), "the rest is the C library's");
    }
}
