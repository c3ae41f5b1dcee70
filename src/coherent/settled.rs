//! What this session knows of prepared transactions (`undecided.rs`): before it stores a value, it has to have looked for them.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// What it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// Nothing: it has to look.
    Nothing,
    /// It has looked, on a standby.
    OnStandby,
    /// It has looked.
    All,
}

static STATE: AtomicU8 = AtomicU8::new(Known::Nothing as u8);

/// What it knows.
pub fn state() -> Known {
    let state = STATE.load(Relaxed);
    [Known::All, Known::OnStandby].into_iter().find(|&known| known as u8 == state).unwrap_or(Known::Nothing)
}

/// Whether it may store values without a look.
#[inline(always)]
pub fn is_settled() -> bool {
    STATE.load(Relaxed) == Known::All as u8
}

/// It has looked.
pub fn note(known: Known) {
    STATE.store(known as u8, Relaxed);
}

/// A value was refused by a barrier that somebody may lower by looking.
#[cold]
pub fn look_soon() {
    note(Known::Nothing);
}
