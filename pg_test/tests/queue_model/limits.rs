//! How many messages a queue's options allow to be delivered.

use crate::message::Bounds;
use crate::session::Span;

/// Deliveries in a time: in no trailing period more than `most`. A delivery counts for a period, and up to a sixteenth of
/// it longer. When it was follows from its call, between two moments.
#[derive(Debug, Clone)]
pub(crate) struct Rate {
    most: usize,
    period: i64,
    deliveries: Vec<Deliveries>,
}

#[derive(Debug, Clone)]
struct Deliveries {
    span: Span,
    count: usize,
    /// Whether the server knows of them for sure: it has not come up anew since.
    known: bool,
}

impl Rate {
    pub(crate) fn new(most: u32, period: i64) -> Self {
        Self { most: most as usize, period, deliveries: Vec::new() }
    }

    /// How many deliveries are possible during `span`, at the least and at the most.
    pub(crate) fn allowance(&self, span: Span) -> Bounds<usize> {
        let longest = self.period + (self.period + 15) / 16;
        let count = |counts: &dyn Fn(&Deliveries) -> bool| -> usize {
            self.deliveries.iter().filter(|one| counts(one)).map(|one| one.count).sum()
        };
        let possible = count(&|one| one.span.to + longest > span.from);
        let sure = count(&|one| one.known && one.span.from + self.period > span.to);
        Bounds { least: self.most.saturating_sub(possible), most: self.most.saturating_sub(sure) }
    }

    pub(crate) fn spend(&mut self, span: Span, count: usize) {
        self.deliveries.push(Deliveries { span, count, known: true });
    }

    /// The server has come up anew: that it still counts them isn't promised.
    pub(crate) fn forget(&mut self) {
        self.deliveries.iter_mut().for_each(|one| one.known = false);
    }
}
