//! What must hold of a queue after each step, whatever came before.

use super::check::{Holding, Message, Shape};
use super::model::{LOW, Queue};
use crate::queue::clock::TOLERANCE;
use crate::queue::layout::{BUSY, DELAYED, LEASED, Q};
use crate::queue::registry::OWED;
use crate::queue::window::RETRY;
use crate::queue::{Entry, Partition};

impl Queue {
    /// Another row has a number, and the index knows: what sessions held of the first is gone.
    pub fn known_again(&mut self, id: i64) {
        self.leases.remove(&id);
        self.rests.remove(&id);
        self.attempts.remove(&id);
        self.order.retain(|other| *other != id);
        self.tags.remove(&id);
    }

    /// Whether nobody has told the index of a row.
    fn is_unknown(&self, row: &Entry) -> bool {
        // What a prepared transaction has deleted is brought back by its decision.
        self.unannounced.contains(row) || self.by_hand.contains(&row.msg_id) || self.is_undecided(row.msg_id)
    }

    /// Notes where the index has learnt a number from another row, or has dropped one.
    pub fn note_replaced(&mut self, holding: &Holding) {
        // Those of a higher priority go before what they would wait for where that was dropped for lack of room.
        let lowest = |id: &i64| self.rows.get(id).is_some_and(|row: &Entry| row.priority == 0);
        self.due.retain(|id, _| lowest(id) || holding.messages.contains_key(id) || !self.tags.contains_key(id));
        for (id, tag) in self.tags.clone() {
            let known = holding.messages.get(&id).map(|message| message.tag);
            if known != Some(tag) {
                let replaced = self.rows.get(&id).is_none_or(|row| row.tag != tag);
                assert!(replaced || !self.leases.contains_key(&id), "a leased message stays in the index: {id}");
                self.known_again(id);
            }
        }
        for (id, message) in &holding.messages {
            // A group may remember the deliveries of a follower that is out of the index.
            if !self.tags.contains_key(id) && message.attempts > 0 {
                let most = self.deliveries.get(id).copied().unwrap_or(0);
                assert!(message.attempts <= most, "message {id}: {} of {most} deliveries", message.attempts);
                self.attempts.insert(*id, message.attempts);
            }
        }
        self.tags = holding.messages.iter().map(|(id, message)| (*id, message.tag)).collect();
    }

    pub fn check(&mut self, p: &Partition<'_>, slot: u32, shape: &Shape, now: i64) {
        let holding = &shape[&slot];
        self.note_replaced(holding);
        self.by_hand.retain(|id| self.tags.get(id) != self.rows.get(id).map(|row| &row.tag));
        self.attempts.retain(|id, _| holding.messages.contains_key(id));
        self.rests.retain(|id, until| {
            *until > now || holding.messages.get(id).is_some_and(|message| matches!(message.list, DELAYED | BUSY))
        });
        for (id, lease) in &self.leases {
            let message = holding.messages.get(id).expect("a leased message stays in the index");
            assert_eq!((message.lease, message.due), (lease.number, lease.until), "message {id}: its lease");
            assert_eq!(message.list, if self.busy.contains_key(id) { BUSY } else { LEASED }, "message {id}");
        }
        let latest = now.max(self.latest);
        for (id, message) in &holding.messages {
            let row = self.rows.get(id).filter(|row| row.tag == message.tag);
            match message.list {
                LEASED => assert!(self.leases.contains_key(id), "message {id} is leased to nobody"),
                BUSY => assert!(self.busy.contains_key(id), "message {id} is set aside for nobody"),
                DELAYED => {
                    let due = self.rests.get(id).copied().or(row.and_then(|row| row.deliver_at));
                    // Behind what else was due when it came.
                    let behind = message.due <= latest + 1 && !message.timed;
                    // One that was delivered before stands first: its record has no room for its time.
                    let first = message.due == i64::MIN && message.timed && due.is_some_and(|due| due <= latest);
                    assert!(
                        row.is_none() || behind || first || due == Some(message.due),
                        "message {id} is delayed until {due:?}"
                    );
                }
                _ => {
                    assert!(
                        row.is_none_or(|row| row.deliver_at.is_none_or(|at| at <= latest)),
                        "message {id}: too early"
                    );
                }
            }
        }
        self.check_marks(p, slot, shape);
        self.check_waiting(p, slot, shape, now);
        // One that was delivered before goes to the front where room is made for others; one of a group may have been out of line in between.
        let may_leave = self.was_wide || self.options.group_rate > 0;
        let fresh = |id: &&i64| {
            let message = &holding.messages[*id];
            message.lease == 0 && (message.group == 0 || !may_leave)
        };
        let kept: Vec<i64> = self.order.iter().copied().filter(|id| holding.ready.contains(id)).collect();
        let still: Vec<i64> = holding.ready.iter().copied().filter(|id| self.order.contains(id)).collect();
        let (kept, still) = (kept.iter().filter(fresh), still.iter().filter(fresh));
        assert_eq!(kept.collect::<Vec<_>>(), still.collect::<Vec<_>>(), "ready messages keep their order");
        self.order.clone_from(&holding.ready);
        let count = |list| holding.messages.values().filter(|message| message.list == list).count() as i64;
        if p.counters(slot).unwrap().live.is_none() {
            // Where a row went behind the index's back, it is for the next look at the statistics to count.
            let counting = p.start_counting(slot).unwrap();
            let outside = self.rows.values().filter(|row| !holding.messages.contains_key(&row.msg_id));
            let delayed = outside.filter(|row| row.deliver_at.is_some()).count() as i64 + count(DELAYED);
            let live = self.sent - self.finished - self.buried;
            p.counted(slot, counting, [live, delayed, 0, self.buried], 0, 0).unwrap();
        }
        let counters = p.counters(slot).unwrap();
        assert_eq!(counters.leased, count(LEASED) + count(BUSY));
        assert_eq!(counters.live, Some(self.sent - self.finished - self.buried));
        let seen = (counters.sent, counters.delivered, counters.finished, counters.dead);
        assert_eq!(seen, (self.sent, self.delivered, self.finished, self.buried));
        assert!(counters.delayed >= count(DELAYED));
        let timed = self.rows.values().filter(|row| row.deliver_at.is_some());
        let outside = timed.filter(|row| !holding.messages.contains_key(&row.msg_id)).count() as i64;
        assert!(p.q_i64(slot, Q::TimedOutside).unwrap() <= outside + self.uncertain, "more are counted than there are");
        let ready = holding.messages.values().filter(|message| message.is_ready()).count() as u64;
        assert_eq!(p.queue_state(slot, LOW, now).unwrap().ready, ready.min(self.allowance(holding)));
    }

    /// The frontier and the horizon are true.
    fn check_marks(&self, p: &Partition<'_>, slot: u32, shape: &Shape) {
        let [numbers, times] = p.outlying(slot).unwrap();
        for row in self.rows.values().filter(|row| !self.is_unknown(row)) {
            let (range, place) = row.deliver_at.map_or((numbers, row.msg_id), |at| (times, at));
            let inside = range.is_none_or(|range| !range.has(place));
            let indexed = shape[&slot].messages.contains_key(&row.msg_id);
            let group = shape[&slot].groups.get(&row.group);
            assert!(indexed || group.is_some() || !inside, "{row:?} is lost: outside are {numbers:?}, {times:?}");
            if let Some(group) = group.filter(|_| !indexed) {
                let followed = group.next.is_some_and(|next| next <= row.msg_id);
                let open = if row.msg_id > group.head { !group.known } else { !group.first && (!inside || group.late) };
                assert!(followed || open, "{row:?} is lost behind {group:?}");
            }
        }
    }

    /// What was due before another was sent has come before it, of the same priority. What is `taken` is the first of what is
    /// ready; for messages without a group that nobody has had in hand in between.
    pub fn check_order(&mut self, holding: &Holding, taken: &[i64]) {
        for (at, id) in taken.iter().enumerate() {
            self.due.remove(id);
            let message = &holding.messages[id];
            let Some(&(sent, announced)) = self.committed.get(id) else { continue };
            let fresh = message.list.is_multiple_of(2) && message.lease == 0 && message.group == 0 && !message.timed;
            let judged = fresh && !self.was_set_back && !self.aside.contains(id);
            if !judged || self.rows.get(id).is_none_or(|row| row.tag != message.tag) {
                continue;
            }
            let same = |other: &i64| {
                let row =
                    self.rows.get(other).filter(|row| row.group == 0 && usize::from(row.priority) == message.priority);
                row.is_some() && !self.aside.contains(other) && !taken[..at].contains(other)
            };
            let earlier = self.due.iter().find(|(other, (due, known))| {
                *due <= sent && *known <= announced && same(other) && !self.leases.contains_key(other)
            });
            assert_eq!(earlier, None, "message {id}, sent at {sent}, comes before one that was due");
            let lost = self.leases.iter().find(|(other, lease)| {
                let known = holding.messages.get(other).is_some_and(|message| message.list == LEASED);
                lease.until <= sent && known && same(other)
            });
            assert!(lost.is_none(), "message {id}, sent at {sent}, comes before one whose lease had run out: {lost:?}");
        }
    }

    /// How many messages the limit of those in flight leaves to be read.
    pub fn allowance(&self, holding: &Holding) -> u64 {
        let flying = |message: &&Message| message.list == LEASED || (message.list == BUSY && message.origin == LEASED);
        let flying = holding.messages.values().filter(flying).count() as u64;
        match self.options.max_in_flight {
            0 => u64::MAX,
            most => u64::from(most).saturating_sub(flying),
        }
    }

    /// Nobody waits in vain.
    fn check_waiting(&self, p: &Partition<'_>, slot: u32, shape: &Shape, now: i64) {
        let holding = &shape[&slot];
        assert_eq!(holding.waiting, self.waiting.iter().map(|waiter| waiter.process).collect::<Vec<_>>());
        if self.waiting.is_empty() || self.options.paused {
            return;
        }
        let about = self.woken.len() + usize::from(self.refill.as_ref().is_some_and(|scan| scan.reader));
        let allowance = self.allowance(holding);
        let ready = allowance.min(holding.ready.len() as u64);
        let owed = about > 0 && p.q(slot, Q::Flags).unwrap() & OWED != 0;
        assert!(owed || about as u64 >= ready, "{ready} ready, sessions wait, {about} woken");
        if about == 0 && self.refill.is_none() {
            let (watch, next) = (self.waiting.last().unwrap().alarm, p.comes_due(slot, now).unwrap());
            // What is due in the table may have had no room when the watch began.
            let retried = p.reach(slot).unwrap().1 < now.max(self.latest) && watch <= now + RETRY;
            // A waiter may have begun by a clock that was back by so little that nobody had noticed.
            let slack = if self.was_set_back { TOLERANCE } else { 0 };
            let next = next.map(|next| next.saturating_add(slack));
            assert!(next.is_none_or(|next| watch <= next) || retried, "{next:?} comes due, the watch ends at {watch}");
        }
        let outside = self
            .rows
            .values()
            .filter(|row| !self.is_unknown(row))
            .filter(|row| allowance > 0 && !p.is_crowded(slot).unwrap() && !holding.groups.contains_key(&row.group))
            .find(|row| row.deliver_at.is_none_or(|at| at <= now) && !holding.messages.contains_key(&row.msg_id));
        if let Some(row) = outside {
            let retried = if row.deliver_at.is_some() { RETRY } else { 0 };
            let rings = self.waiting.iter().any(|waiter| waiter.alarm <= now + retried);
            let care = about > 0 || self.refill.is_some() || self.refused || rings;
            assert!(care, "{row:?} is outside, sessions wait, nobody looks: {:?}", p.queue_state(slot, LOW, now));
        }
    }
}
