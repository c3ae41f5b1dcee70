//! Moments that values are computed at, and removed.

/// A moment, by two clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogicalTime {
    /// Microseconds of the wall clock, which tells any two moments apart but may be set back.
    pub time: u64,
    /// How far the numbers of ended transactions had got: never set back, but it may stand still.
    pub ended: u64,
}
