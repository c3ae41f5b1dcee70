//! How many messages a queue's options allow to be delivered.

use crate::message::Bounds;
use crate::session::Span;

/// Deliveries in a time: a bucket that holds as many as a period allows and fills evenly. Between which bounds it stands
/// follows from when deliveries came at the earliest and at the latest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    most: i128,
    period: i128,
    /// In deliveries × period, each at its own moment.
    low: (i128, i64),
    high: (i128, i64),
}

impl Rate {
    pub(crate) fn new(most: u32, period: i64) -> Self {
        let (most, period) = (i128::from(most), i128::from(period));
        let full = (most * period, 0);
        Self { most, period, low: full, high: full }
    }

    fn at(&self, (level, since): (i128, i64), moment: i64) -> i128 {
        let filled = level + i128::from((moment - since).max(0)) * self.most;
        filled.clamp(0, self.most * self.period)
    }

    /// How many deliveries are possible during `span`, at the least and at the most.
    pub(crate) fn allowance(&self, span: Span) -> Bounds<usize> {
        let whole = |level: i128| usize::try_from(level / self.period).unwrap_or(0);
        Bounds { least: whole(self.at(self.low, span.from)), most: whole(self.at(self.high, span.to)) }
    }

    pub(crate) fn spend(&mut self, span: Span, count: usize) {
        let cost = count as i128 * self.period;
        // Who spends late has let the bucket overflow for longer.
        self.low = ((self.at(self.low, span.to) - cost).max(0), span.to);
        self.high = ((self.at(self.high, span.from) - cost).max(0), span.from);
    }

    /// The server has come up anew: whether the bucket is full isn't promised.
    pub(crate) fn forget(&mut self) {
        self.high = (self.most * self.period, 0);
    }
}
