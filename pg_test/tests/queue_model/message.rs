//! A message as the model knows it, and when it may, or must, be delivered.

use crate::session::Span;

/// A number of which only bounds are known, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds<T> {
    pub(crate) least: T,
    pub(crate) most: T,
}

impl<T: Copy + PartialOrd> Bounds<T> {
    pub(crate) fn exactly(value: T) -> Self {
        Self { least: value, most: value }
    }

    pub(crate) fn holds(self, value: T) -> bool {
        self.least <= value && value <= self.most
    }
}

/// Ready at once.
pub(crate) const AT_ONCE: Bounds<i64> = Bounds { least: i64::MIN, most: i64::MIN };

/// A delivery that has not been finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// `None` where nobody was told, as by a pop.
    pub(crate) number: Option<i64>,
    /// When it ends.
    pub(crate) until: Bounds<i64>,
    /// The deliveries so far, this one included.
    pub(crate) attempts: u32,
}

/// Whether something has happened by a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    Sure,
    Possible,
    /// It isn't, for this reason.
    Not(&'static str),
}

impl Is {
    pub(crate) fn and(self, other: Is) -> Is {
        match (self, other) {
            (Is::Not(why), _) | (_, Is::Not(why)) => Is::Not(why),
            (Is::Sure, Is::Sure) => Is::Sure,
            _ => Is::Possible,
        }
    }
}

/// Whether `moment` has passed when the server looks during `span`.
pub(crate) fn passed(moment: Bounds<i64>, span: Span, else_: &'static str) -> Is {
    if moment.most <= span.from {
        Is::Sure
    } else if moment.least <= span.to {
        Is::Possible
    } else {
        Is::Not(else_)
    }
}

/// A message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) payload: i64,
    pub(crate) priority: i16,
    pub(crate) group: Option<u8>,
    pub(crate) dedup: Option<u8>,
    /// The transaction that sends it, while that is open.
    pub(crate) sender: Option<usize>,
    /// The commits that made and that last changed its row, in the order of all commits.
    pub(crate) sent: u64,
    pub(crate) changed: Bounds<u64>,
    /// Deliveries so far.
    pub(crate) attempts: Bounds<u32>,
    /// Those that its committed row knows of.
    pub(crate) durable: Bounds<u32>,
    /// When it may be delivered, but for its lease.
    pub(crate) due: Bounds<i64>,
    /// The same by its committed row alone.
    pub(crate) row_due: Bounds<i64>,
    pub(crate) lease: Option<Lease>,
    /// The number of its last lease, where a rollback has given that back.
    pub(crate) given_back: Option<i64>,
    /// The session whose open transaction has deleted, archived, failed or buried it.
    pub(crate) ending: Option<usize>,
    /// A moment before which it wasn't sent; of one that came by hand, which the index hasn't been told of, `i64::MAX`.
    pub(crate) began: i64,
    /// It has waited in its place since its sender's commit: never leased, delayed or set aside.
    pub(crate) fresh: bool,
    /// How many commits there had been when it was first leased.
    pub(crate) leased_at: Option<u64>,
}

impl Message {
    /// One that came by hand, by that commit.
    pub(crate) fn sent(payload: i64, commit: u64) -> Self {
        Self {
            payload,
            priority: 0,
            group: None,
            dedup: None,
            sender: None,
            sent: commit,
            changed: Bounds::exactly(commit),
            attempts: Bounds::exactly(0),
            durable: Bounds::exactly(0),
            due: AT_ONCE,
            row_due: AT_ONCE,
            lease: None,
            given_back: None,
            ending: None,
            began: i64::MAX,
            fresh: false,
            leased_at: None,
        }
    }

    /// Whether it had come due, its last lease or its rest being over, before another one was sent.
    pub(crate) fn was_due_before(&self, other: &Message) -> bool {
        let leased = self.lease.is_some_and(|lease| lease.until.most >= other.began);
        self.began <= other.began
            && self.changed.most < other.sent
            && self.due.most < other.began
            && self.ending.is_none()
            && !leased
    }

    /// Whether it has been delivered as often as it may be (`most`), and its last lease is over.
    pub(crate) fn used_up(&self, most: u32, span: Span) -> Is {
        if self.ending.is_some() {
            return Is::Not("an open transaction is finishing it");
        }
        if self.attempts.most < most {
            return Is::Not("it may be delivered again");
        }
        let known = if self.attempts.least >= most { Is::Sure } else { Is::Possible };
        known.and(self.lease.map_or(Is::Sure, |lease| passed(lease.until, span, "its last lease runs")))
    }

    /// Whether it may be delivered during `span` to a transaction with that snapshot, but for its group.
    pub(crate) fn ready(&self, snapshot: Option<u64>, span: Span) -> Is {
        if self.sender.is_some() {
            return Is::Not("its send is not committed");
        }
        if self.ending.is_some() {
            return Is::Not("an open transaction is finishing it");
        }
        let shown = match snapshot {
            Some(snapshot) if self.changed.least > snapshot => Is::Not("the reader's snapshot doesn't show it"),
            Some(snapshot) if self.changed.most > snapshot => Is::Possible,
            _ => Is::Sure,
        };
        let free = self.lease.map_or(Is::Sure, |lease| passed(lease.until, span, "it is under a live lease"));
        shown.and(free).and(passed(self.due, span, "its time has not come"))
    }

    /// Whether `later`, of the same group, may be delivered for all that this one says.
    pub(crate) fn lets(&self, is_earlier: bool, later: &Message, most: u32, span: Span) -> Is {
        if self.sender.is_some() {
            return Is::Sure;
        }
        match self.used_up(most, span) {
            Is::Sure => return Is::Sure,
            Is::Possible => return Is::Possible,
            Is::Not(_) => {}
        }
        match self.leased(None, span) {
            Is::Sure => return Is::Not("another message of its group is leased"),
            Is::Possible => return Is::Possible,
            Is::Not(_) => {}
        }
        if !is_earlier {
            // One that was leased before keeps its turn.
            return if self.leased_at.is_some() || self.ending.is_some() { Is::Possible } else { Is::Sure };
        }
        // One that is finished by hand while it waits is out of the order, and so is one that wasn't in its place when the
        // other had its first turn: not sent yet, or failed or finished by a transaction that was still open.
        let came = self.sent.max(self.changed.most);
        let came_later = later.leased_at.is_some_and(|leased_at| came > leased_at);
        if self.ending.is_some() || came_later {
            Is::Possible
        } else {
            Is::Not("an earlier message of its group waits")
        }
    }

    /// Whether `number` (`None`: any) is its current lease during `span`.
    pub(crate) fn leased(&self, number: Option<i64>, span: Span) -> Is {
        let Some(lease) = self.lease else { return Is::Not("it isn't leased") };
        if number.is_some() && number != lease.number {
            return Is::Not("that isn't its lease");
        }
        match passed(lease.until, span, "") {
            Is::Sure => Is::Not("its lease has run out"),
            Is::Possible => Is::Possible,
            Is::Not(_) => Is::Sure,
        }
    }
}
