//! The model's prepared transactions: what they have set aside, and rows that they have deleted and that nobody has set aside.

use super::check::walk;
use super::model::{World, pick};
use crate::queue::layout::BUSY;
use crate::queue::{Decided, Decision, Delivery, Doubt, MOST_DOUBTS, Met, Undecided, Wake};
use std::collections::BTreeSet;

/// A transaction that is neither committed nor rolled back.
#[derive(Debug)]
pub(super) struct Prepared {
    transaction: u64,
    /// Messages that it has deleted, each of them set aside.
    ended: BTreeSet<i64>,
    /// Messages whose rows it has deleted, and that are set aside where a reader meets them.
    hidden: BTreeSet<i64>,
}

impl World<'_> {
    /// A transaction that is deleting up to `count` messages is prepared.
    pub fn prepare(&mut self, q: usize, count: usize) {
        let Some(slot) = self.queues[q].slot else { return };
        self.transactions += 1;
        let (transaction, queue) = (self.transactions, &self.queues[q]);
        let busy = queue.busy.keys().filter(|id| !queue.is_undecided(**id) && queue.rows.contains_key(id));
        let ended: BTreeSet<i64> = busy.copied().take(count).collect();
        let free = |id: &&i64| {
            let held = queue.busy.contains_key(id) || queue.leases.contains_key(id) || queue.is_undecided(**id);
            !held && !queue.unannounced.iter().any(|row| row.msg_id == **id)
        };
        let hidden: BTreeSet<i64> = queue.rows.keys().rev().filter(free).take(count / 2).copied().collect();
        let doubt = Doubt { finished: ended.len() as u32, ..Doubt::new(transaction) };
        let mut wake = Wake::default();
        let noted = self.p.doubt(slot, &doubt, self.now, &mut wake).unwrap();
        self.woke(&wake);
        assert_eq!(noted, self.queues[q].prepared.len() < MOST_DOUBTS);
        if !noted {
            return;
        }
        for id in &ended {
            let tag = self.queues[q].busy[id].tag;
            self.p.leave_undecided(slot, *id, tag, transaction, Undecided::Ended, false).unwrap();
            self.p.leave_undecided(slot, *id, tag, transaction, Undecided::Ended, false).unwrap();
            walk(&self.p);
        }
        self.queues[q].prepared.push(Prepared { transaction, ended, hidden });
    }

    /// A reader has met a row; whether that waits for a decision.
    pub fn meets_undecided(&mut self, q: usize, slot: u32, taken: &Delivery) -> bool {
        let (id, queue) = (taken.msg_id, &self.queues[q]);
        let Some(prepared) = queue.prepared.iter().find(|prepared| prepared.hidden.contains(&id)) else {
            let mut wake = Wake::default();
            let met = self.p.meet_undecided(slot, id, taken.lease, 1 << 31, self.now, &mut wake);
            assert_eq!(met, Ok(Met::Nothing));
            return false;
        };
        let (transaction, mut wake) = (prepared.transaction as u32, Wake::default());
        self.note_given_back(slot);
        let met = self.p.meet_undecided(slot, id, taken.lease, transaction, self.now, &mut wake);
        assert_eq!(met, Ok(Met::Aside));
        self.woke(&wake);
        let after = walk(&self.p)[&slot].messages.get(&id).cloned();
        let queue = &mut self.queues[q];
        queue.aside.insert(id);
        if let Some(mut aside) = after {
            assert_eq!((aside.list, aside.attempts), (BUSY, taken.attempts - 1));
            queue.attempts.insert(id, aside.attempts);
            aside.list = aside.origin;
            queue.busy.insert(id, aside);
        } else {
            queue.known_again(id);
            queue.uncertain += 1;
        }
        true
    }

    /// A prepared transaction is decided, and the index is told.
    pub fn decide(&mut self, q: usize, which: u8, decision: Decision) {
        let Some(slot) = self.queues[q].slot else { return };
        let Some(at) = pick(which, 0..self.queues[q].prepared.len()) else { return };
        let queue = &mut self.queues[q];
        let Prepared { transaction, ended, hidden } = queue.prepared.swap_remove(at);
        let commits = decision == Decision::Committed || (decision == Decision::Either && which.is_multiple_of(2));
        let all = || ended.iter().chain(&hidden).copied();
        if commits {
            queue.rows.retain(|id, _| all().all(|ended| ended != *id));
            queue.uncertain += all().count() as i64;
        }
        loop {
            let mut wake = Wake::default();
            let decided = self.p.decided(slot, transaction, decision, self.now, &mut wake, |_, _, _| 0).unwrap();
            self.woke(&wake);
            if decided == Decided::Done {
                break;
            }
            assert_eq!(decided, Decided::Partly);
        }
        let again = self.p.decided(slot, transaction, decision, self.now, &mut Wake::default(), |_, _, _| 0);
        assert_eq!(again, Ok(Decided::Known));
        let holding = walk(&self.p)[&slot].clone();
        let queue = &mut self.queues[q];
        for id in all() {
            let Some(before) = queue.busy.remove(&id) else { continue };
            queue.aside.insert(id);
            let after = holding.messages.get(&id);
            if decision == Decision::Committed && ended.contains(&id) {
                assert_eq!(after, None, "message {id} is gone");
                queue.leases.remove(&id);
            } else if before.group == 0 {
                let after = after.expect("it is back");
                assert_eq!((after.lease, after.attempts), (before.lease, before.attempts), "as it was");
                assert!(after.list == before.list || after.is_ready());
            }
        }
        if decision == Decision::Committed {
            queue.finished += ended.len() as i64;
        }
    }
}

impl super::model::Queue {
    /// Whether a prepared transaction has deleted a message.
    pub fn is_undecided(&self, id: i64) -> bool {
        self.prepared.iter().any(|prepared| prepared.ended.contains(&id) || prepared.hidden.contains(&id))
    }
}
