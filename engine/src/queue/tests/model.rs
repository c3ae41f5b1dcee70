//! One partition and the world around it in plain collections: tables with their transactions, readers, sessions that
//! wait. Each method does what the extension does with a real table, and compares the index with the model.

use super::check::{Holding, Message, Shape, walk};
use super::refill::Scan;
use super::two_phase::Prepared;
use crate::queue::clock::TOLERANCE;
use crate::queue::layout::{BUSY, DELAYED, HELD, LEASED, PARKED, USED_UP};
use crate::queue::lease::PASSES;
use crate::queue::{Busy, Delivery, Entry, Found, Offered, Options, Partition, QueueKey, Tag, Tid, Wake, Yielded};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const SECOND: i64 = 1_000_000;
/// A refill is wanted below so many ready messages.
pub(super) const LOW: u64 = 4;
/// In which so many messages of one group may be delivered.
pub(super) const RATE_PERIOD: i64 = 16 * SECOND;
/// The numbers of leases, by which it is known when they began, may be so far ahead of the clock.
const DRIFT: i64 = 10_000;
/// A session that nobody wakes looks after so long.
const NET: i64 = 100 * SECOND;

/// A lease that a reader believes to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub number: u64,
    pub until: i64,
}

/// A session that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub process: u32,
    place: u32,
    pub alarm: i64,
}

/// A queue: its table first, then what readers and sessions know.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub slot: Option<u32>,
    pub relation: u32,
    pub options: Options,
    pub next_id: i64,
    /// Rows of open transactions.
    pub open: Vec<Entry>,
    /// Committed rows.
    pub rows: BTreeMap<i64, Entry>,
    /// Committed, and their senders have yet to tell the index.
    pub unannounced: Vec<Entry>,
    /// Rows that open transactions are deleting, and what they were in the index.
    pub busy: BTreeMap<i64, Message>,
    /// Transactions that are neither committed nor rolled back.
    pub prepared: Vec<Prepared>,
    pub leases: BTreeMap<i64, Lease>,
    /// Given back by an abort: when the rest ends.
    pub rests: BTreeMap<i64, i64>,
    /// Deliveries that the index knows of.
    pub attempts: BTreeMap<i64, u32>,
    /// All deliveries of a number, also those that the index has forgotten.
    pub deliveries: BTreeMap<i64, u32>,
    /// Rows that came by hand, and that nobody has told the index of.
    pub by_hand: BTreeSet<i64>,
    /// From which rows the index knew its messages after the last step.
    pub tags: BTreeMap<i64, Tag>,
    pub refill: Option<Scan>,
    /// The last refill found no room.
    pub refused: bool,
    pub waiting: Vec<Waiter>,
    pub woken: Vec<u32>,
    /// Ready messages after the last step, in order.
    pub order: Vec<i64>,
    /// In which order senders have told the index.
    pub announced: BTreeMap<i64, u64>,
    /// When transactions committed, and after how many announcements.
    pub committed: BTreeMap<i64, (i64, u64)>,
    /// What is due when, by delays and rests, and after how many announcements that was known.
    pub due: BTreeMap<i64, (i64, u64)>,
    /// Messages that a transaction has set aside once: out of the order.
    pub aside: BTreeSet<i64>,
    pub sent: i64,
    pub delivered: i64,
    pub finished: i64,
    pub buried: i64,
    /// Rows that vanished behind the index's back, or that others may have met before their senders told the index: the
    /// count of delayed messages may be off by them.
    pub uncertain: i64,
    /// The latest time that the clock has shown.
    pub latest: i64,
    /// The clock was set back: what was due before what else isn't for this model any more.
    pub was_set_back: bool,
    /// Groups had more than one lane: which of their messages is the next isn't for this model any more.
    pub was_wide: bool,
    /// What counts of each group against its rate: lease and time of deliveries.
    pub counted: BTreeMap<u64, Vec<(u64, i64)>>,
    /// When a delivery was last given back, in whose place another one may count, a step longer.
    pub given_back: Option<i64>,
}

impl Queue {
    /// Whether a message is where it goes when it may be delivered at once.
    fn is_in_line(&self, message: &Message) -> bool {
        if message.attempts >= self.options.max_attempts { message.list == USED_UP } else { message.is_ready() }
    }
}

pub(super) struct World<'a> {
    pub p: Partition<'a>,
    pub now: i64,
    /// The latest time that a reader has noted.
    clock: i64,
    pub queues: Vec<Queue>,
    next_process: u32,
    next_row: i64,
    /// The memory never runs short.
    pub roomy: bool,
    /// How many transactions were prepared.
    pub transactions: u64,
    leases: BTreeSet<u64>,
}

/// One of several by a number that the random driver chose.
pub(super) fn pick<T>(pick: u8, from: impl ExactSizeIterator<Item = T>) -> Option<T> {
    let mut from = from;
    let len = from.len();
    if len == 0 { None } else { from.nth(usize::from(pick) % len) }
}

impl<'a> World<'a> {
    pub fn new(words: crate::words::Words<'a>, queues: usize) -> Self {
        let now = 100_000 * SECOND;
        crate::queue::format(words, 7 << 40);
        let options =
            Options { visibility_timeout: 30 * SECOND, max_attempts: 3, group_limit: 1, ..Options::default() };
        let queues = (0..queues).map(|at| Queue {
            relation: at as u32 + 1,
            options,
            next_id: 1,
            latest: now,
            ..Queue::default()
        });
        let mut world = World {
            p: Partition::new(words),
            now,
            clock: 0,
            queues: queues.collect(),
            next_process: 1,
            next_row: 0,
            roomy: false,
            transactions: 0,
            leases: BTreeSet::new(),
        };
        for q in 0..world.queues.len() {
            world.attach(q);
        }
        world
    }

    pub fn attach(&mut self, q: usize) {
        let queue = &mut self.queues[q];
        if queue.slot.is_some() {
            return;
        }
        queue.slot = self.p.attach(QueueKey { database: 1, relation: queue.relation }, queue.options).unwrap();
        if let Some(slot) = queue.slot {
            (queue.sent, queue.delivered, queue.finished, queue.buried) = (0, 0, 0, 0);
            let counting = self.p.start_counting(slot).unwrap();
            self.p.counted(slot, counting, [0; 4], 0, 0).unwrap();
        }
    }

    /// Dropping and making a queue holds off its transactions, so it happens only without any.
    pub fn detach(&mut self, q: usize, step: usize) {
        let queue = &self.queues[q];
        if !queue.busy.is_empty()
            || !queue.prepared.is_empty()
            || queue.refill.is_some()
            || !queue.unannounced.is_empty()
        {
            return;
        }
        let Some(slot) = queue.slot else { return };
        for _ in 0..=self.p.records {
            let mut wake = Wake::default();
            let gone = self.p.detach(slot, step.max(1), self.now, &mut wake).unwrap();
            self.woke(&wake);
            if gone {
                let queue = &mut self.queues[q];
                queue.slot = None;
                queue.leases.clear();
                queue.rests.clear();
                queue.attempts.clear();
                queue.tags.clear();
                queue.woken.clear();
                queue.order.clear();
                queue.due.clear();
                queue.counted.clear();
                queue.refused = false;
                assert!(queue.waiting.is_empty(), "those that waited for the queue were woken");
                return;
            }
            walk(&self.p);
        }
        panic!("detach doesn't come to its end");
    }

    /// A row of an open transaction.
    pub fn insert(&mut self, q: usize, priority: u8, delay: Option<i64>, group: u64) {
        let queue = &mut self.queues[q];
        let msg_id = queue.next_id;
        queue.next_id += 1;
        let deliver_at = delay.map(|delay| self.now + delay);
        self.next_row += 1;
        let tag = Tag::new(self.next_row, Some(self.next_row as u32));
        let tid = tid(q, msg_id);
        queue.open.push(Entry { msg_id, tid, priority, attempts: 0, deliver_at, group, tag });
    }

    /// A transaction commits: its row is visible from now on, its sender's callback is still to come.
    pub fn commit(&mut self, q: usize, which: u8) {
        let queue = &mut self.queues[q];
        if let Some(at) = pick(which, 0..queue.open.len()) {
            let entry = queue.open.remove(at);
            queue.rows.insert(entry.msg_id, entry);
            queue.committed.insert(entry.msg_id, (self.now, queue.announced.len() as u64));
            queue.unannounced.push(entry);
        }
    }

    /// A sender's commit callback.
    pub fn announce(&mut self, q: usize, which: u8) {
        let queue = &mut self.queues[q];
        if let Some(at) = pick(which, 0..queue.unannounced.len()) {
            let entry = queue.unannounced.remove(at);
            let order = queue.announced.len() as u64;
            queue.announced.insert(entry.msg_id, order);
            // A refill may have brought it, and a reader given it back since.
            let fresh = !queue.deliveries.contains_key(&entry.msg_id);
            if let Some(at) = entry.deliver_at.filter(|_| fresh && queue.slot.is_some()) {
                queue.due.insert(entry.msg_id, (at, order + 1));
            }
            if let Some(slot) = queue.slot {
                queue.sent += 1;
                let indexed = &walk(&self.p)[&slot].messages;
                let now = self.now;
                let mut due = queue.due.iter().filter(|(id, (at, _))| *at <= now && !indexed.contains_key(id));
                if entry.priority > 0 && due.next().is_some() {
                    // It doesn't wait for what is due and not in the index, or what comes after it would wait, too.
                    queue.aside.insert(entry.msg_id);
                }
                let mut wake = Wake::default();
                self.p.sent(slot, &entry, self.now, &mut wake).unwrap();
                self.woke(&wake);
            }
        }
    }

    /// A row vanishes and the index isn't told.
    pub fn purge(&mut self, q: usize, which: u8) {
        let queue = &mut self.queues[q];
        let free = |id: &i64| !queue.busy.contains_key(id) && !queue.is_undecided(*id);
        let free: Vec<i64> = queue.rows.keys().copied().filter(free).collect();
        if let Some(id) = pick(which, free.into_iter()) {
            queue.rows.remove(&id);
            queue.uncertain += 1;
        }
    }

    /// A read of up to `want` messages; how many it got.
    #[allow(clippy::too_many_lines, reason = "what a reader does, step by step")]
    pub fn read(&mut self, q: usize, want: usize) -> usize {
        let Some(slot) = self.queues[q].slot else { return 0 };
        self.follow_clock();
        let paused = self.queues[q].options.paused;
        let holding = walk(&self.p)[&slot].clone();
        self.queues[q].note_replaced(&holding);
        let most = self.queues[q].allowance(&holding).min(want as u64) as usize;
        let max_attempts = self.queues[q].options.max_attempts;
        let used_up = |id: &i64| holding.messages[id].attempts >= max_attempts;
        let passed = holding.messages.iter().filter(|(id, message)| message.list != LEASED && used_up(id));
        // Out of the order of their groups.
        self.queues[q].aside.extend(passed.map(|(id, _)| *id));
        let ready = holding.ready.iter().copied().filter(|id| !used_up(id));
        let expected: Vec<i64> = ready.take(if paused { 0 } else { most }).collect();
        let options = self.queues[q].options;
        let wide =
            options.group_limit > 1 || options.group_rate > 0 || holding.lanes.values().any(|lanes| lanes.members > 0);
        let mut taken = Vec::with_capacity(want);
        let timeout = self.queues[q].options.visibility_timeout;
        let process = self.process();
        let mut wake = Wake::default();
        self.p.take(slot, process, self.now, want, timeout, &mut taken, &mut wake).unwrap();
        self.woke(&wake);
        let mut numbers: Vec<i64> = taken.iter().map(|taken| taken.msg_id).collect();
        if wide {
            self.check_lanes(q, slot, &holding, &numbers, if paused { 0 } else { most });
            self.check_rates(q, slot, &holding, &numbers);
            numbers.retain(|id| holding.messages.contains_key(id));
        } else if holding.ready.iter().any(used_up) {
            // The next of their groups have come into line.
            let new = |id: &i64| !holding.ready.contains(id);
            let ended = holding.ready.iter().filter(|id| used_up(id)).count() >= PASSES;
            let enough = ended || numbers.len() >= expected.len().min(most);
            assert!(enough, "{numbers:?}, where {expected:?} are ready");
            numbers.retain(|id| !new(id));
            assert!(expected.starts_with(&numbers), "{numbers:?}, where {expected:?} are ready");
        } else {
            assert_eq!(numbers, expected, "the first in order");
        }
        self.queues[q].check_order(&holding, &numbers);
        let (mut got, mut met) = (0, Vec::new());
        for taken in taken {
            let queue = &mut self.queues[q];
            let id = taken.msg_id;
            assert!(self.leases.insert(taken.lease), "lease {} is given twice", taken.lease);
            assert_eq!(taken.tid, tid(q, id));
            assert_eq!(taken.until, self.now + timeout);
            assert!(!queue.leases.contains_key(&id), "message {id} is under two leases");
            assert!(!queue.busy.contains_key(&id), "message {id} is read while a transaction deletes it");
            let mut known = queue.attempts.get(&id).copied().unwrap_or(0);
            if !holding.messages.contains_key(&id) {
                // Its group remembered the deliveries.
                known = taken.attempts - 1;
                assert!(known <= queue.deliveries.get(&id).copied().unwrap_or(0), "message {id}: {taken:?}");
            }
            assert!(known < queue.options.max_attempts, "message {id} is delivered after {known} deliveries");
            let attempts = known + 1;
            assert_eq!(taken.attempts, attempts);
            queue.attempts.insert(id, attempts);
            *queue.deliveries.entry(id).or_default() += 1;
            let Some(row) = queue.rows.get(&id).copied() else {
                self.forget_leased(slot, &taken);
                continue;
            };
            if !taken.tag.matches(row.tag) {
                // Another row has the number.
                queue.known_again(id);
                self.forget_leased(slot, &taken);
                met.push(row);
                continue;
            }
            if self.meets_undecided(q, slot, &taken) {
                continue;
            }
            let queue = &mut self.queues[q];
            if row.deliver_at.is_some_and(|at| at > self.now) {
                // By a clock that was set back since it came due.
                assert!(row.deliver_at <= Some(queue.latest), "message {id} is read before its time");
                queue.known_again(id);
                queue.aside.insert(id);
                let mut wake = Wake::default();
                self.p.drop_message(slot, id, row.tag, self.now, &mut wake).unwrap();
                self.woke(&wake);
                met.push(row);
                continue;
            }
            if taken.may_overtake && self.overtakes(q, slot, &taken) {
                continue;
            }
            if let Some(after) = taken.find_next {
                self.find_next(q, row.group, after, process, got % 2 == 0);
            }
            let queue = &mut self.queues[q];
            if attempts == 1 && row.group != 0 {
                let order = |id: &i64| queue.announced.get(id);
                let earlier = queue.rows.range(..id).find(|(other, entry)| {
                    entry.group == row.group
                        && !queue.aside.contains(other)
                        && !(queue.was_wide && queue.deliveries.contains_key(other))
                        && order(other) < order(&id)
                        && order(other).is_some()
                });
                assert_eq!(earlier, None, "message {id} of a group overtakes one");
            }
            got += 1;
            if row.group != 0 && queue.options.group_rate > 0 {
                queue.counted.entry(row.group).or_default().push((taken.lease, self.now));
            }
            queue.delivered += 1;
            queue.leases.insert(id, Lease { number: taken.lease, until: taken.until });
            self.p.delivered(slot, 1).unwrap();
        }
        // Not before all that was read is noted.
        for row in &met {
            self.meet(q, row, false);
        }
        got
    }

    /// What a read has taken that passes over messages of groups whose lanes are taken.
    fn check_lanes(&self, q: usize, slot: u32, before: &Holding, taken: &[i64], most: usize) {
        let queue = &self.queues[q];
        let after = &walk(&self.p)[&slot];
        let plain = |id: &&i64| before.messages.get(id).is_some_and(|message| message.group == 0);
        let used_up = |id: &&i64| before.messages[id].attempts >= queue.options.max_attempts;
        let expected: Vec<&i64> = before.ready.iter().filter(plain).filter(|id| !used_up(id)).collect();
        let got: Vec<&i64> = taken.iter().filter(plain).collect();
        assert!(expected.starts_with(&got), "{got:?}, where {expected:?} are ready");
        // Those of a group with one lane and members come in an order of their own.
        let plain = |id: &&i64| {
            let group = before.messages.get(id).map_or(0, |message| message.group);
            before.lanes.get(&group).is_none_or(|lanes| lanes.members == 0)
        };
        let in_order: Vec<&i64> = before.ready.iter().filter(|id| taken.contains(id)).filter(plain).collect();
        let old: Vec<&i64> = taken.iter().filter(|id| before.ready.contains(id)).filter(plain).collect();
        assert_eq!(old, in_order, "the first in order");
        let passed = |list| after.count(list).saturating_sub(before.count(list));
        let ended = passed(PARKED) + passed(USED_UP) + passed(HELD) >= PASSES;
        let enough = taken.len() == most || after.ready.is_empty() || ended;
        assert!(enough, "{taken:?} of {most}, and {:?} stay", after.ready);
        for id in taken {
            let Some(message) = after.messages.get(id) else { continue };
            if message.group != 0 && message.list == LEASED {
                let running = after.lanes[&message.group].running;
                assert!(running <= queue.options.group_limit, "message {id} is read as number {running} of its group");
            }
        }
    }

    /// What a read has taken is within the rates of the groups, and what it has held is not.
    fn check_rates(&mut self, q: usize, slot: u32, before: &Holding, taken: &[i64]) {
        let (now, roomy) = (self.now, self.roomy);
        let after = &walk(&self.p)[&slot];
        let queue = &mut self.queues[q];
        let rate = queue.options.group_rate as usize;
        if rate == 0 || queue.was_set_back {
            return;
        }
        let group_of = |id: &i64| after.messages.get(id).or(before.messages.get(id)).map_or(0, |message| message.group);
        for group in 1..4 {
            let read = taken.iter().filter(|id| group_of(id) == group).count();
            let earlier = queue.counted.entry(group).or_default();
            let within = |time: i64| earlier.iter().filter(|(_, at)| *at > now - time).count();
            let counts = after.rates.get(&group).map_or(0, |window| window.counts.iter().sum::<u32>() as usize);
            let held = |holding: &Holding, id: &i64| holding.messages.get(id).is_some_and(|one| one.list == HELD);
            let newly = after.messages.keys().find(|id| group_of(id) == group && held(after, id) && !held(before, id));
            // A count of steps gives back within one of them.
            let longest = RATE_PERIOD + RATE_PERIOD / 16 + DRIFT;
            let recent = within(longest) + read;
            let longer = queue.given_back.is_some_and(|at| now - at < 2 * longest);
            assert!(
                newly.is_none() || recent >= rate || longer,
                "{newly:?} is held after {recent} of {rate} deliveries"
            );
            if within(RATE_PERIOD - DRIFT) + read > counts {
                // Its record has given way to others.
                assert!(!roomy || read == 0, "the deliveries of group {group} are forgotten");
                earlier.clear();
            } else if read > 0 {
                let recent = within(RATE_PERIOD - DRIFT) + read;
                assert!(recent <= rate, "{recent} of {rate} deliveries of group {group} in a period");
            }
        }
    }

    pub fn limit_group_rate(&mut self, q: usize, most: u32) {
        let queue = &mut self.queues[q];
        (queue.options.group_rate, queue.options.group_rate_period) = (most, RATE_PERIOD);
        if most == 0 {
            queue.counted.clear();
        }
        if let Some(slot) = queue.slot {
            self.p.set_options(slot, queue.options, self.now).unwrap();
            self.wake_all(q);
        }
    }

    fn forget_leased(&mut self, slot: u32, taken: &Delivery) {
        self.note_given_back(slot);
        let mut wake = Wake::default();
        self.p.drop_leased(slot, taken.msg_id, taken.lease, self.now, &mut wake).unwrap();
        self.woke(&wake);
    }

    pub(super) fn note_given_back(&mut self, slot: u32) {
        let now = self.now;
        self.queues.iter_mut().filter(|queue| queue.slot == Some(slot)).for_each(|queue| queue.given_back = Some(now));
    }

    /// A row is met that has a number which the index knows from another row, or not at all.
    pub fn meet(&mut self, q: usize, row: &Entry, announced: bool) {
        let Some(slot) = self.queues[q].slot else { return };
        let mut wake = Wake::default();
        if announced {
            self.p.sent(slot, row, self.now, &mut wake).unwrap();
            self.queues[q].sent += 1;
        } else {
            self.p.insert_or_leave_out(slot, row, self.now, &mut wake).unwrap();
        }
        let shape = walk(&self.p);
        self.queues[q].note_replaced(&shape[&slot]);
        self.woke(&wake);
    }

    /// A row vanishes and another one gets its number, by a sender or by hand.
    pub fn reuse(&mut self, q: usize, which: u8, priority: u8, delay: Option<i64>, announced: bool) {
        let deliver_at = delay.map(|delay| self.now + delay);
        self.next_row += 1;
        let tag = Tag::new(self.next_row, Some(self.next_row as u32));
        let queue = &mut self.queues[q];
        let free = |id: &i64| !queue.busy.contains_key(id) && !queue.is_undecided(*id);
        let free: Vec<i64> = queue.rows.keys().copied().filter(free).collect();
        let Some(id) = pick(which, free.into_iter()) else { return };
        let group = queue.rows[&id].group;
        let row = Entry { msg_id: id, tid: tid(q, id), priority, attempts: 0, deliver_at, group, tag };
        queue.rows.insert(id, row);
        queue.unannounced.retain(|row| row.msg_id != id);
        queue.uncertain += 1;
        // Its place in the order of its group isn't for this model.
        queue.aside.insert(id);
        self.queues[q].by_hand.insert(id);
        if announced {
            self.queues[q].by_hand.remove(&id);
            self.meet(q, &row, true);
            self.queues[q].known_again(id);
        }
    }

    /// `maintain()` compares the table with the index.
    pub fn reconcile(&mut self, q: usize) {
        let Some(slot) = self.queues[q].slot else { return };
        let queue = &self.queues[q];
        let rows: Vec<Entry> = queue.rows.values().filter(|row| !queue.unannounced.contains(row)).copied().collect();
        let [numbers, times] = self.p.outlying(slot).unwrap();
        for row in rows {
            let (range, place) = row.deliver_at.map_or((numbers, row.msg_id), |at| (times, at));
            if range.is_none_or(|range| !range.has(place)) {
                self.queues[q].by_hand.remove(&row.msg_id);
                let mut wake = Wake::default();
                let found = self.p.reconcile(slot, &row, self.now, &mut wake).unwrap();
                self.woke(&wake);
                self.queues[q].note_replaced(&walk(&self.p)[&slot]);
                if found == Found::Other {
                    self.meet(q, &row, false);
                }
            }
        }
        self.verify();
    }

    /// `maintain()` compares the index with the tables.
    fn verify(&mut self) {
        for q in 0..self.queues.len() {
            let Some(slot) = self.queues[q].slot else { continue };
            let (mut from, mut listed) = (Some(0), Vec::with_capacity(7));
            while let Some(next) = from {
                listed.clear();
                from = self.p.list_from(slot, next, &mut listed).unwrap();
                for one in &listed {
                    let row = self.queues[q].rows.get(&one.msg_id).copied();
                    if row.is_some_and(|row| row.tag == one.tag) {
                        continue;
                    }
                    let mut wake = Wake::default();
                    self.p.drop_vanished(slot, one.msg_id, one.tag, self.now, &mut wake).unwrap();
                    self.woke(&wake);
                    self.queues[q].known_again(one.msg_id);
                    self.queues[q].uncertain += 1;
                    if let Some(row) = row {
                        self.meet(q, &row, false);
                    }
                }
            }
        }
        let shape = walk(&self.p);
        for queue in &self.queues {
            let Some(slot) = queue.slot else { continue };
            for (id, message) in shape[&slot].messages.iter().filter(|(_, message)| message.list != BUSY) {
                assert_eq!(queue.rows.get(id).map(|row| row.tag), Some(message.tag), "message {id} has that row");
            }
        }
    }

    /// A session has a message whose number another row has by now; whether it is so.
    fn is_replaced(&mut self, q: usize, id: i64, tag: Tag) -> bool {
        let Some(row) = self.queues[q].rows.get(&id).copied().filter(|row| row.tag != tag) else { return false };
        let (slot, mut wake) = (self.queues[q].slot.unwrap(), Wake::default());
        self.p.drop_message(slot, id, tag, self.now, &mut wake).unwrap();
        self.woke(&wake);
        self.queues[q].known_again(id);
        self.meet(q, &row, false);
        true
    }

    /// The reader looks in the table for an earlier message of the group; whether the one that it took is behind one now.
    fn overtakes(&mut self, q: usize, slot: u32, taken: &Delivery) -> bool {
        self.note_given_back(slot);
        let (id, queue) = (taken.msg_id, &mut self.queues[q]);
        let group = queue.rows[&id].group;
        let mut wake = Wake::default();
        let mut ask = |row: &Entry| self.p.yield_to(slot, id, taken.lease, row, self.now, &mut wake).unwrap();
        let earlier = queue.rows.range(..id).filter(|(_, row)| row.group == group);
        let overtaken = earlier.map(|(_, row)| ask(row)).any(|outcome| outcome == Yielded::Overtaken);
        if overtaken {
            // What has gone out of the index begins anew when it comes back.
            queue.attempts.remove(&id);
        } else {
            self.p.comes_first(slot, group, id, self.now, &mut wake).unwrap();
        }
        self.woke(&wake);
        overtaken
    }

    /// A session that finishes a message by its number looks for the next one of its group.
    fn find_next_by_number(&mut self, q: usize, group: u64, which: u8) {
        let (process, slot) = (self.process(), self.queues[q].slot.unwrap());
        if let Some(after) = self.p.start_probe(slot, group, process).unwrap() {
            self.find_next(q, group, after, process, which.is_multiple_of(3));
        }
    }

    /// The prober looks for the next message of a group, while other transactions commit.
    fn find_next(&mut self, q: usize, group: u64, after: i64, process: u32, meanwhile: bool) {
        let slot = self.queues[q].slot.unwrap();
        let rows = self.queues[q].rows.range(after.saturating_add(1)..).filter(|(_, row)| row.group == group);
        let rows: Vec<Entry> = rows.map(|(_, row)| *row).collect();
        if meanwhile {
            for _ in 0..self.queues[q].open.len().min(3) {
                self.commit(q, 0);
                self.announce(q, 0);
            }
        }
        for row in &rows {
            let mut wake = Wake::default();
            let offered = self.p.offer_next(slot, row, process, self.now, &mut wake).unwrap();
            self.woke(&wake);
            if offered != Offered::Busy {
                return;
            }
        }
        let mut wake = Wake::default();
        self.p.end_probe(slot, group, process, self.now, &mut wake).unwrap();
        self.woke(&wake);
    }

    /// A lease of the queue by a random number; leases of messages that a transaction has in hand too.
    pub fn lease(&self, q: usize, which: u8) -> Option<(u32, i64, Lease)> {
        let queue = &self.queues[q];
        let (id, lease) = pick(which, queue.leases.iter())?;
        Some((queue.slot?, *id, *lease))
    }

    pub fn extend(&mut self, q: usize, which: u8, fenced: bool, by: i64) {
        self.follow_clock_with_lease(q);
        let Some((slot, id, lease)) = self.lease(q, which) else { return };
        let mut wake = Wake::default();
        let stranger = self.p.extend(slot, id, Some(lease.number ^ 1 << 40), self.now, self.now + 1, &mut wake);
        assert_eq!(stranger, Ok(None), "another's lease number");
        let until = self.now + by;
        let number = fenced.then_some(lease.number);
        let extended = self.p.extend(slot, id, number, self.now, until, &mut wake).unwrap();
        let queue = &mut self.queues[q];
        let current = lease.until > self.now && !queue.busy.contains_key(&id);
        assert_eq!(extended.map(|extended| extended.until), current.then_some(until));
        if let Some(extended) = extended
            && self.is_replaced(q, id, extended.tag)
        {
            self.woke(&wake);
            return;
        }
        let queue = &mut self.queues[q];
        if current && by > 0 {
            queue.leases.insert(id, Lease { until, ..lease });
        } else if current {
            queue.leases.remove(&id);
            let message = &walk(&self.p)[&slot].messages[&id];
            assert!(queue.is_in_line(message));
        }
        self.woke(&wake);
    }

    /// A reader's transaction is rolled back.
    pub fn release_with_backoff(&mut self, q: usize, which: u8, delay: i64) {
        self.follow_clock_with_lease(q);
        let Some((slot, id, lease)) = self.lease(q, which) else { return };
        let mut wake = Wake::default();
        self.p.release_with_backoff(slot, id, lease.number, self.now, delay, &mut wake).unwrap();
        self.woke(&wake);
        let queue = &mut self.queues[q];
        if queue.busy.contains_key(&id) {
            return;
        }
        queue.leases.remove(&id);
        let message = &walk(&self.p)[&slot].messages[&id];
        if delay > 0 && message.list != USED_UP {
            assert_eq!((message.list, message.due), (DELAYED, self.now + delay));
            queue.rests.insert(id, message.due);
            queue.due.insert(id, (message.due, queue.announced.len() as u64));
        } else {
            assert!(queue.is_in_line(message));
        }
    }

    /// A session sets out to bury what is used up.
    pub fn start_burial(&mut self, q: usize, count: usize) {
        let Some(slot) = self.queues[q].slot else { return };
        let mut aside = Vec::with_capacity(count);
        let holding = walk(&self.p)[&slot].clone();
        self.p.set_used_up_aside(slot, &mut aside).unwrap();
        for one in aside {
            let before = holding.messages[&one.msg_id].clone();
            assert_eq!((before.list, before.attempts, before.tag), (USED_UP, one.attempts, one.tag));
            if self.queues[q].is_undecided(one.msg_id) {
                // Its row is being changed.
                let mut wake = Wake::default();
                self.p.end_busy(slot, one.msg_id, one.tag, false, self.now, &mut wake).unwrap();
                self.woke(&wake);
            } else if !self.is_replaced(q, one.msg_id, one.tag) {
                self.queues[q].aside.insert(one.msg_id);
                self.queues[q].busy.insert(one.msg_id, before);
            }
        }
    }

    /// A sender meets a row with its dedup key.
    pub fn bury_by_row(&mut self, q: usize, which: u8) {
        let queue = &self.queues[q];
        let (Some(slot), Some(row)) = (queue.slot, pick(which, queue.rows.values()).copied()) else { return };
        if queue.is_undecided(row.msg_id) {
            return;
        }
        let before = walk(&self.p)[&slot].messages.get(&row.msg_id).filter(|before| before.tag == row.tag).cloned();
        let mut wake = Wake::default();
        let answer = self.p.start_burial(slot, &row, self.now, &mut wake).unwrap();
        let Some(before) = before else {
            assert_eq!(answer, Busy::Stale, "the rows of the model know of no delivery");
            self.woke(&wake);
            return;
        };
        let runs = match before.list {
            LEASED => before.due > self.now,
            BUSY => before.origin == LEASED,
            _ => false,
        };
        if runs || before.attempts < queue.options.max_attempts {
            assert_eq!(answer, Busy::Stale);
        } else if before.list == BUSY {
            assert_eq!(answer, Busy::Others);
        } else {
            assert!(matches!(answer, Busy::Yours(claimed) if claimed.tid == tid(q, row.msg_id)));
            let queue = &mut self.queues[q];
            queue.leases.remove(&row.msg_id);
            queue.rests.remove(&row.msg_id);
            queue.aside.insert(row.msg_id);
            // One that was given back is used up with the number of its lease.
            let lease = if before.list == USED_UP { before.lease } else { 0 };
            queue.busy.insert(row.msg_id, Message { list: USED_UP, lease, ..before });
        }
        self.woke(&wake);
    }

    pub fn limit_attempts(&mut self, q: usize, most: u32) {
        let queue = &mut self.queues[q];
        queue.options.max_attempts = most;
        if let Some(slot) = queue.slot {
            self.p.set_options(slot, queue.options, self.now).unwrap();
            for (id, message) in &walk(&self.p)[&slot].messages {
                let right = message.list != USED_UP || message.attempts >= most;
                assert!(right, "message {id} is put aside after {} of {most} deliveries", message.attempts);
            }
            self.wake_all(q);
        }
    }

    /// A reader's snapshot doesn't show the row.
    pub fn undo_lease(&mut self, q: usize, which: u8) {
        let Some((slot, id, lease)) = self.lease(q, which) else { return };
        self.note_given_back(slot);
        let mut wake = Wake::default();
        self.p.undo_lease(slot, id, lease.number, self.now, &mut wake).unwrap();
        self.woke(&wake);
        let queue = &mut self.queues[q];
        if !queue.busy.contains_key(&id) {
            queue.leases.remove(&id);
            // What may count no longer is given back by nobody.
            let counts = |at: i64| at > self.now - RATE_PERIOD + DRIFT;
            let counted = queue.counted.values_mut();
            counted.for_each(|counted| counted.retain(|(number, at)| *number != lease.number || !counts(*at)));
            *queue.attempts.get_mut(&id).unwrap() -= 1;
            let holding = &walk(&self.p)[&slot];
            let ready = holding.ready.iter().filter(|ready| **ready == id).count();
            let gave_way = usize::from(!holding.messages.contains_key(&id));
            assert_eq!(ready + gave_way, 1);
        }
    }

    /// A transaction sets out to delete a message under its lease.
    pub fn start_delete(&mut self, q: usize, which: u8) {
        let Some((slot, id, lease)) = self.lease(q, which) else { return };
        let before = walk(&self.p)[&slot].messages[&id].clone();
        assert_eq!(self.p.start_busy(slot, id, Some(lease.number ^ 1 << 40), self.now), Ok(Busy::Stale));
        let answer = self.p.start_busy(slot, id, Some(lease.number), self.now).unwrap();
        if before.list == BUSY {
            assert_eq!(answer, Busy::Others);
        } else if lease.until <= self.now {
            assert_eq!(answer, Busy::Stale);
        } else {
            let Busy::Yours(claimed) = answer else { panic!("message {id}: {answer:?}") };
            assert_eq!(claimed.tid, tid(q, id));
            let group = before.group;
            if self.is_replaced(q, id, claimed.tag) {
                return;
            }
            let queue = &mut self.queues[q];
            queue.busy.insert(id, before);
            if claimed.find_next {
                self.find_next_by_number(q, group, which);
            }
        }
    }

    /// A transaction sets out to delete any message, leased or not.
    pub fn start_delete_any(&mut self, q: usize, which: u8) {
        let queue = &mut self.queues[q];
        let (Some(slot), Some(id)) = (queue.slot, pick(which, queue.rows.keys()).copied()) else { return };
        if queue.is_undecided(id) {
            // It waits for the row.
            return;
        }
        let before = walk(&self.p)[&slot].messages.get(&id).cloned();
        let mut answer = self.p.start_busy(slot, id, None, self.now).unwrap();
        if before.as_ref().is_none_or(|before| before.list != LEASED) {
            queue.aside.insert(id);
        }
        if answer == Busy::Unknown && which.is_multiple_of(2) {
            let row = queue.rows[&id];
            answer = self.p.set_aside(slot, &row, self.now).unwrap();
            if let Busy::Yours(claimed) = answer {
                let mut aside = walk(&self.p)[&slot].messages[&id].clone();
                aside.list = aside.origin;
                queue.busy.insert(id, aside);
                if claimed.find_next {
                    self.find_next_by_number(q, row.group, which);
                }
            }
            return;
        }
        match before {
            None => assert_eq!(answer, Busy::Unknown),
            Some(before) if before.list == BUSY => assert_eq!(answer, Busy::Others),
            Some(before) => {
                let Busy::Yours(claimed) = answer else { panic!("message {id}: {answer:?}") };
                assert_eq!(claimed.tid, tid(q, id));
                let group = before.group;
                if self.is_replaced(q, id, claimed.tag) {
                    return;
                }
                let queue = &mut self.queues[q];
                queue.busy.insert(id, before);
                if claimed.find_next {
                    self.find_next_by_number(q, group, which);
                }
            }
        }
    }

    /// A deletion becomes visible; the callback of its transaction is still to come.
    pub fn delete(&mut self, q: usize, which: u8) {
        let queue = &mut self.queues[q];
        let own = queue.busy.keys().copied().filter(|id| !queue.is_undecided(*id));
        if let Some(id) = pick(which, own.collect::<Vec<_>>().into_iter()) {
            queue.rows.remove(&id);
        }
    }

    /// The callback of a deleting transaction's end.
    pub fn end_delete(&mut self, q: usize, which: u8, commit: bool) {
        let queue = &mut self.queues[q];
        let Some(slot) = queue.slot else { return };
        let own: Vec<i64> = queue.busy.keys().copied().filter(|id| !queue.is_undecided(*id)).collect();
        let Some(id) = pick(which, own.into_iter()) else { return };
        let before = queue.busy.remove(&id).unwrap();
        let finished = commit || !queue.rows.contains_key(&id);
        let mut wake = Wake::default();
        self.p.end_busy(slot, id, before.tag, finished, self.now, &mut wake).unwrap();
        let after = walk(&self.p)[&slot].messages.get(&id).cloned();
        if !finished {
            // It comes back at another time than its own.
            queue.aside.insert(id);
        }
        if finished {
            queue.rows.remove(&id);
            queue.leases.remove(&id);
            queue.finished += 1;
            self.p.finished(slot, 1).unwrap();
            assert_eq!(after, None);
        } else if before.group == 0 && after.is_some() {
            let kept = after.clone().map(|after| Message { origin: before.origin, ..after });
            assert_eq!(
                kept.map(|kept| (kept.lease, kept.attempts)),
                Some((before.lease, before.attempts)),
                "as it was"
            );
            assert!(after.is_some_and(|after| after.list == before.list || after.is_ready()));
        }
        self.woke(&wake);
    }

    /// Lets timers run out.
    pub fn expire(&mut self, limit: usize) {
        for q in 0..self.queues.len() {
            self.expire_of(q, limit);
        }
    }

    fn expire_of(&mut self, q: usize, limit: usize) {
        let Some(slot) = self.queues[q].slot else { return };
        let due = |shape: &Shape, now| -> BTreeSet<i64> {
            let due = shape[&slot].messages.iter().filter(|(_, message)| message.timer && message.due <= now);
            due.map(|(id, _)| *id).collect()
        };
        let before = due(&walk(&self.p), self.now);
        let mut wake = Wake::default();
        let all = self.p.expire(slot, self.now, limit, &mut wake).unwrap();
        let shape = walk(&self.p);
        let (after, most) = (due(&shape, self.now), before.len().min(limit));
        let ended = before.difference(&after).count();
        // The next of their groups may have come due as well.
        let exact = shape[&slot].groups.is_empty();
        assert!(ended == most || !exact && (1..=most).contains(&ended), "{ended} of {most} that were due");
        assert_eq!(all, after.is_empty());
        self.woke(&wake);
        self.note_expired(&shape);
    }

    /// Leases that have run out, and which somebody has met, are over.
    fn note_expired(&mut self, shape: &Shape) {
        for queue in &mut self.queues {
            let Some(slot) = queue.slot else { continue };
            let messages = &shape[&slot].messages;
            queue.leases.retain(|id, lease| {
                lease.until > self.now
                    || queue.busy.contains_key(id)
                    || messages.get(id).is_some_and(|message| message.list == LEASED && message.lease == lease.number)
            });
        }
    }

    /// The clock is set back. A session that sleeps does so for a time, whatever the clock says.
    pub fn set_back(&mut self, by: i64) {
        self.now -= by;
        for queue in &mut self.queues {
            for waiter in &mut queue.waiting {
                waiter.alarm = waiter.alarm.saturating_sub(by);
            }
            queue.was_set_back = true;
            queue.counted.clear();
        }
    }

    /// Somebody notes the time: what runs doesn't last longer because the clock was set back.
    fn follow_clock(&mut self) {
        let back = self.clock - self.now;
        if (1..TOLERANCE).contains(&back) {
            return;
        }
        self.clock = self.now;
        for queue in self.queues.iter_mut().filter(|_| back > 0) {
            queue.leases.values_mut().for_each(|lease| lease.until -= back);
            queue.rests.values_mut().for_each(|until| *until -= back);
        }
    }

    fn follow_clock_with_lease(&mut self, q: usize) {
        if self.lease(q, 0).is_some() {
            self.follow_clock();
        }
    }

    /// Time passes, and the alarms of waiting sessions ring.
    pub fn tick(&mut self, by: i64) {
        self.now += by;
        for queue in &mut self.queues {
            queue.latest = queue.latest.max(self.now);
            let Some(slot) = queue.slot else { continue };
            let ringing: Vec<Waiter> =
                queue.waiting.iter().copied().filter(|waiter| waiter.alarm <= self.now).collect();
            queue.waiting.retain(|waiter| waiter.alarm > self.now);
            for waiter in ringing {
                assert_eq!(self.p.leave(slot, waiter.place, waiter.process), Ok(true));
                assert_eq!(self.p.leave(slot, waiter.place, waiter.process), Ok(false), "left already");
                queue.woken.push(waiter.process);
            }
        }
    }

    pub fn process(&mut self) -> u32 {
        self.next_process += 1;
        self.next_process
    }

    /// A session that waits for a message looks: takes one, or refills, or waits (again).
    pub fn act(&mut self, q: usize, process: u32) {
        self.expire_of(q, self.p.records);
        let Some(slot) = self.queues[q].slot else { return };
        let got = self.read(q, 1) > 0;
        let queue_state = self.p.queue_state(slot, LOW, self.now).unwrap();
        if got {
            // A session that leaves with a message leaves the care for the rest to the next one.
            if queue_state.refill {
                self.forward_wakeup(q);
            }
            self.watch(q);
        } else if queue_state.refill && queue_state.refiller.is_none() && !self.queues[q].refused && !queue_state.paused
        {
            self.start_refill(q, process, true);
        } else if queue_state.ready > 0 && !queue_state.paused {
            // What it was woken for had no row.
            self.queues[q].woken.push(process);
        } else if let Some(place) = self.p.wait(slot, process, self.now, self.now + NET).unwrap() {
            assert!(place.alarm <= self.now + NET);
            let queue = &mut self.queues[q];
            queue.waiting.push(Waiter { process, place: place.record, alarm: place.alarm });
            let listed = &walk(&self.p)[&slot].waiting;
            if listed.last() != Some(&process) {
                // The one before keeps watch.
                let newest = queue.waiting.len() - 1;
                queue.waiting.swap(newest - 1, newest);
            }
        }
    }

    /// A session that has waited goes away.
    fn watch(&mut self, q: usize) {
        let Some(slot) = self.queues[q].slot else { return };
        let mut wake = Wake::default();
        self.p.watch(slot, self.now, &mut wake).unwrap();
        self.woke(&wake);
    }

    /// A woken session goes on.
    pub fn act_woken(&mut self, q: usize, which: u8) {
        if let Some(at) = pick(which, 0..self.queues[q].woken.len()) {
            let process = self.queues[q].woken.remove(at);
            self.act(q, process);
        }
    }

    /// A session that waits, or has been woken and doesn't know yet, is cancelled.
    pub fn cancel(&mut self, q: usize, which: u8, woken: bool) {
        let queue = &mut self.queues[q];
        let Some(slot) = queue.slot else { return };
        if woken {
            if let Some(at) = pick(which, 0..queue.woken.len()) {
                queue.woken.remove(at);
                self.forward_wakeup(q);
                self.watch(q);
            }
        } else if let Some(at) = pick(which, 0..queue.waiting.len()) {
            let waiter = queue.waiting.remove(at);
            assert_eq!(self.p.leave(slot, waiter.place, waiter.process), Ok(true));
            self.watch(q);
        }
    }

    pub fn forward_wakeup(&mut self, q: usize) {
        if let Some(slot) = self.queues[q].slot {
            let mut wake = Wake::default();
            self.p.forward_wakeup(slot, &mut wake).unwrap();
            self.woke(&wake);
        }
    }

    pub fn pause(&mut self, q: usize, paused: bool) {
        let queue = &mut self.queues[q];
        queue.options.paused = paused;
        if let Some(slot) = queue.slot {
            self.p.set_options(slot, queue.options, self.now).unwrap();
            assert_eq!(self.p.options(slot), Ok(queue.options));
            self.wake_all(q);
        }
    }

    pub fn limit_flight(&mut self, q: usize, most: u32) {
        let queue = &mut self.queues[q];
        queue.options.max_in_flight = most;
        if let Some(slot) = queue.slot {
            self.p.set_options(slot, queue.options, self.now).unwrap();
            self.wake_all(q);
        }
    }

    pub fn limit_groups(&mut self, q: usize, most: u32) {
        let queue = &mut self.queues[q];
        queue.options.group_limit = most;
        queue.was_wide |= most > 1;
        if let Some(slot) = queue.slot {
            self.p.set_options(slot, queue.options, self.now).unwrap();
            self.wake_all(q);
        }
    }

    /// All that wait look again: the queue has other options.
    fn wake_all(&mut self, q: usize) {
        let (slot, mut wake) = (self.queues[q].slot.unwrap(), Wake::default());
        while !self.p.wake_all(slot, &mut wake).unwrap() {
            self.woke(&std::mem::take(&mut wake));
        }
        self.woke(&wake);
    }

    pub fn invalidate_watermark(&mut self, q: usize) {
        if let Some(slot) = self.queues[q].slot {
            self.p.invalidate_watermark(slot).unwrap();
            self.forward_wakeup(q);
        }
    }

    /// The woken ones are those that have waited longest, each in its queue, or the one that keeps watch.
    pub fn woke(&mut self, wake: &Wake) {
        for &process in wake.processes() {
            let queue = self.queues.iter_mut().find(|queue| queue.waiting.iter().any(|w| w.process == process));
            let queue = queue.expect("a session that waits");
            let at = queue.waiting.iter().position(|waiter| waiter.process == process).unwrap();
            assert!(at == 0 || at == queue.waiting.len() - 1, "first come, first woken");
            queue.waiting.remove(at);
            queue.woken.push(process);
        }
    }

    /// What must hold after each step.
    pub fn check(&mut self) {
        let shape = walk(&self.p);
        self.note_expired(&shape);
        assert_eq!(shape.len(), self.queues.iter().filter(|queue| queue.slot.is_some()).count());
        for queue in &mut self.queues {
            if let Some(slot) = queue.slot {
                queue.check(&self.p, slot, &shape, self.now);
            }
        }
    }
}

/// Where the model's tables keep a row.
fn tid(q: usize, msg_id: i64) -> Tid {
    Tid { block: msg_id as u32, offset: q as u16 + 1 }
}
