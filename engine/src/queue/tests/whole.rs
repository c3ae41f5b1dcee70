//! Readers that ask for whole groups: rule by rule, and by random histories against the order of the numbers.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, TAG, entry, fresh, list};
use crate::queue::layout::{DELAYED, PARKED, Partition, USED_UP};
use crate::queue::marks::TIMES;
use crate::queue::{Busy, Delivery, Entry, Fence, Offered, Options, Wake};
use crate::words::allocate;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Messages of groups, their readers, and what is known of both.
struct World<'a> {
    p: Partition<'a>,
    slot: u32,
    now: i64,
    next_id: i64,
    /// Unfinished messages, each with its group.
    rows: BTreeMap<i64, u64>,
    /// What is leased: by which call, under which number, until when.
    leases: BTreeMap<i64, (u32, u64, i64)>,
    calls: u32,
    /// The groups have one lane: their order is strict.
    strict: bool,
}

impl<'a> World<'a> {
    fn new(words: crate::words::Words<'a>, options: Options) -> Self {
        let (p, slots) = fresh(words, 1);
        p.set_options(slots[0], Options { max_attempts: 1000, ..options }, NOW).unwrap();
        World {
            p,
            slot: slots[0],
            now: NOW,
            next_id: 1,
            rows: BTreeMap::new(),
            leases: BTreeMap::new(),
            calls: 0,
            strict: options.group_limit < 2,
        }
    }

    fn row(&self, id: i64) -> Entry {
        Entry { group: self.rows[&id], ..entry(id) }
    }

    fn send(&mut self, group: u64, count: i64) {
        for _ in 0..count {
            let id = self.next_id;
            self.next_id += 1;
            self.rows.insert(id, group);
            self.p.sent(self.slot, &self.row(id), self.now, &mut Wake::default()).unwrap();
            walk(&self.p);
        }
    }

    fn expire(&mut self) {
        self.p.expire(self.slot, self.now, 1000, &mut Wake::default()).unwrap();
        walk(&self.p);
        let now = self.now;
        self.leases.retain(|_, (_, _, until)| *until > now);
    }

    /// A reader with a message does what the lease says.
    fn deliver(&mut self, one: &Delivery, mine: &mut Vec<i64>) {
        assert!(!one.may_overtake, "all is in memory");
        let group = self.rows[&one.msg_id];
        if let Some(after) = one.find_next {
            let rows: Vec<i64> = self.rows.range(after + 1..).filter(|row| *row.1 == group).map(|row| *row.0).collect();
            let wake = &mut Wake::default();
            let found = rows.iter().any(|id| {
                let offered = self.p.offer_next(self.slot, &self.row(*id), self.calls, self.now, wake).unwrap();
                walk(&self.p);
                offered != Offered::Busy
            });
            if !found {
                self.p.end_probe(self.slot, group, self.calls, self.now, wake).unwrap();
            }
        }
        walk(&self.p);
        if self.strict && group != 0 {
            let earlier = self.rows.range(..one.msg_id).find(|(id, of)| **of == group && !mine.contains(id));
            assert_eq!(earlier, None, "message {} comes before one of its group", one.msg_id);
            let others = self.leases.iter().find(|(id, lease)| self.rows[id] == group && lease.0 != self.calls);
            assert_eq!(others, None, "message {}: another reader has one of its group", one.msg_id);
        }
        mine.push(one.msg_id);
        assert_eq!(self.leases.insert(one.msg_id, (self.calls, one.lease, one.until)), None);
    }

    /// A call that reads up to `qty`, as whole groups or not; what it got.
    fn read(&mut self, qty: usize, whole: bool) -> Vec<i64> {
        self.expire();
        self.calls += 1;
        let (mut mine, timeout) = (Vec::new(), OPTIONS.visibility_timeout);
        let mut looks = 0;
        while mine.len() < qty {
            let mut taken = Vec::with_capacity(1);
            let wake = &mut Wake::default();
            self.p.take(self.slot, self.calls, self.now, 1, timeout, &mut taken, wake).unwrap();
            walk(&self.p);
            let Some(mut one) = taken.pop() else {
                if self.p.queue_state(self.slot, 1, self.now).unwrap().ready > 0 {
                    looks += 1;
                    assert!(looks < 1000, "nobody has a turn: {:?}", walk(&self.p)[&self.slot]);
                    continue;
                }
                break;
            };
            self.deliver(&one, &mut mine);
            while whole && mine.len() < qty {
                let Some(next) = self.follow(one.msg_id, one.lease, &mut mine) else { break };
                one = next;
            }
        }
        mine
    }

    /// A reader asks for the next one of a group beside one that it has.
    fn follow(&mut self, id: i64, lease: u64, mine: &mut Vec<i64>) -> Option<Delivery> {
        let (wake, timeout) = (&mut Wake::default(), OPTIONS.visibility_timeout);
        let next = self.p.take_next(self.slot, id, lease, self.calls, self.now, timeout, wake).unwrap();
        walk(&self.p);
        if let Some(next) = &next {
            self.deliver(next, mine);
        }
        next
    }

    /// The same, of the call that has that one.
    fn next(&mut self, id: i64) -> Option<i64> {
        let (call, lease, _) = self.leases[&id];
        let last = std::mem::replace(&mut self.calls, call);
        let mut mine = self.leases.iter().filter(|(_, lease)| lease.0 == call).map(|(id, _)| *id).collect();
        let next = self.follow(id, lease, &mut mine);
        self.calls = last;
        next.map(|next| next.msg_id)
    }

    fn set(&self, options: Options) {
        self.p.set_options(self.slot, options, self.now).unwrap();
        walk(&self.p);
    }

    fn finish(&mut self, id: i64) {
        self.p.drop_message(self.slot, id, TAG, self.now, &mut Wake::default()).unwrap();
        walk(&self.p);
        self.rows.remove(&id);
        self.leases.remove(&id);
    }

    /// A transaction ends a message, in which others may do something before it ends.
    fn finish_in(&mut self, id: i64, commit: bool, meanwhile: impl FnOnce(&mut Self)) {
        let before = self.p.start_busy(self.slot, id, Fence::None, self.now).unwrap();
        walk(&self.p);
        let Busy::Yours(claimed) = before else { return };
        if claimed.find_next {
            let after = self.p.start_probe(self.slot, self.rows[&id], 9999).unwrap();
            assert!(after.is_some());
            let group = self.rows[&id];
            let rows: Vec<i64> = self.rows.range(id + 1..).filter(|row| *row.1 == group).map(|row| *row.0).collect();
            let found = rows.iter().any(|id| {
                let wake = &mut Wake::default();
                self.p.offer_next(self.slot, &self.row(*id), 9999, self.now, wake).unwrap() != Offered::Busy
            });
            if !found {
                self.p.end_probe(self.slot, group, 9999, self.now, &mut Wake::default()).unwrap();
            }
        }
        meanwhile(self);
        self.p.end_busy(self.slot, id, TAG, commit, self.now, &mut Wake::default()).unwrap();
        walk(&self.p);
        if commit {
            self.rows.remove(&id);
            self.leases.remove(&id);
        }
    }

    fn give_back(&mut self, id: i64, delay: i64) {
        let (_, lease, _) = self.leases[&id];
        self.p.release_with_backoff(self.slot, id, lease, self.now, delay, &mut Wake::default()).unwrap();
        walk(&self.p);
        self.leases.remove(&id);
    }

    /// The reader's transaction commits a failure: the row has another delivery time.
    fn fail(&mut self, id: i64, delay: i64) {
        let entry = Entry { attempts: 1, deliver_at: Some(self.now + delay), ..self.row(id) };
        self.p.schedule_retry(self.slot, &entry, self.now, &mut Wake::default()).unwrap();
        walk(&self.p);
        self.leases.remove(&id);
    }
}

fn none() -> Vec<i64> {
    Vec::new()
}

#[test]
fn a_reader_gets_a_group_in_order_and_others_get_nothing_of_it() {
    let words = allocate(4000);
    let mut world = World::new(&words, OPTIONS);
    world.send(7, 5);
    world.send(8, 2);
    world.send(0, 1);
    assert_eq!(world.read(3, true), [1, 2, 3], "no more than it has asked for");
    assert_eq!(world.read(9, false), [6, 8]);
    for id in [2, 1] {
        world.finish(id);
        assert_eq!(world.read(9, true), none(), "one of them is leased");
    }
    world.finish(3);
    assert_eq!(world.read(9, true), [4, 5]);
    world.finish(6);
    assert_eq!(world.read(9, true), [7]);
    for id in [4, 5, 7, 8] {
        world.finish(id);
    }
    assert!(walk(&world.p)[&world.slot].lanes.is_empty());
}

#[test]
fn one_that_failed_comes_again_before_those_behind_it() {
    let words = allocate(4000);
    for how in 0..4 {
        let mut world = World::new(&words, OPTIONS);
        world.send(7, 6);
        assert_eq!(world.read(4, true), [1, 2, 3, 4]);
        let delay = if how % 2 == 0 { 0 } else { 5 * SECOND };
        if how < 2 {
            world.give_back(2, delay);
        } else {
            world.fail(2, delay);
        }
        assert_eq!(world.read(9, true), none(), "what is leased stays with its reader");
        for id in [1, 4, 3] {
            world.finish(id);
        }
        if delay > 0 {
            assert_eq!(list(&world.p, world.slot, 2), Some(DELAYED));
            assert_eq!(world.read(9, true), none(), "it rests, and nothing passes it");
            world.now += delay;
        }
        assert_eq!(world.read(9, true), [2, 5, 6], "{how}");
    }
}

#[test]
fn all_that_has_come_back_comes_again_in_order_whoever_reads() {
    let words = allocate(4000);
    for whole in [false, true] {
        let mut world = World::new(&words, OPTIONS);
        world.send(7, 6);
        assert_eq!(world.read(4, true), [1, 2, 3, 4]);
        // In another order, some at once and some after a rest.
        world.give_back(4, 0);
        world.give_back(2, 3 * SECOND);
        world.give_back(3, SECOND);
        assert_eq!(world.read(9, whole), none());
        world.give_back(1, 0);
        assert_eq!(world.read(9, whole), none(), "two rest");
        world.now += 2 * SECOND;
        assert_eq!(world.read(9, whole), none(), "one rests");
        world.now += 2 * SECOND;
        if whole {
            assert_eq!(world.read(9, true), [1, 2, 3, 4, 5, 6]);
            continue;
        }
        for id in 1..=6 {
            assert_eq!(world.read(9, false), [id]);
            world.finish(id);
        }
    }
}

#[test]
fn leases_that_run_out_together_leave_the_order_as_it_was() {
    let words = allocate(4000);
    let mut world = World::new(&words, OPTIONS);
    world.send(7, 5);
    assert_eq!(world.read(9, true), [1, 2, 3, 4, 5]);
    world.finish(3);
    world.now += OPTIONS.visibility_timeout;
    assert_eq!(world.read(2, true), [1, 2]);
    assert_eq!(world.read(9, true), none());
    world.finish(1);
    world.now += OPTIONS.visibility_timeout;
    assert_eq!(world.read(9, true), [2, 4, 5]);
}

#[test]
fn limits_hold_for_whole_groups_too() {
    let words = allocate(4000);
    let mut world = World::new(&words, Options { max_in_flight: 3, ..OPTIONS });
    world.send(7, 9);
    assert_eq!(world.read(9, true), [1, 2, 3]);
    let rate = Options { group_rate: 2, group_rate_period: 16 * SECOND, ..OPTIONS };
    let mut world = World::new(&words, rate);
    world.send(7, 9);
    world.send(8, 1);
    assert_eq!(world.read(9, true), [1, 2, 10]);
    world.finish(1);
    world.finish(2);
    assert_eq!(world.read(9, true), none());
    world.now += 16 * SECOND;
    assert_eq!(world.read(9, true), [3, 4]);
}

#[test]
fn with_more_lanes_a_reader_gets_what_is_next_and_others_what_comes_then() {
    let words = allocate(4000);
    let mut world = World::new(&words, Options { group_limit: 3, ..OPTIONS });
    world.send(7, 9);
    assert_eq!(world.read(1, false), [1]);
    assert_eq!(world.read(4, true), [2, 3, 4, 5], "more than there are lanes");
    assert_eq!(world.read(9, true), none());
    world.give_back(3, 0);
    world.finish(1);
    assert_eq!(world.read(9, true), none(), "three are leased");
    world.finish(5);
    assert_eq!(world.read(1, true).len(), 1);
}

#[test]
fn more_lanes_let_go_what_waited_for_its_turn() {
    let words = allocate(4000);
    let mut world = World::new(&words, OPTIONS);
    world.send(7, 5);
    assert_eq!(world.read(4, true), [1, 2, 3, 4]);
    world.give_back(2, 9 * SECOND);
    world.give_back(3, 0);
    world.finish(1);
    world.finish(4);
    assert_eq!(world.read(9, false), none());
    assert_eq!(list(&world.p, world.slot, 3), Some(PARKED));
    world.strict = false;
    let wider = Options { group_limit: 2, max_attempts: 1000, ..OPTIONS };
    world.p.set_options(world.slot, wider, world.now).unwrap();
    walk(&world.p);
    assert_eq!(world.read(1, false), [3]);
    world.finish(3);
    world.now += 9 * SECOND;
    assert!(world.read(9, false).contains(&2));
}

#[test]
fn a_lease_that_has_run_out_brings_nothing_more() {
    let words = allocate(4000);
    let mut world = World::new(&words, OPTIONS);
    world.send(7, 4);
    assert_eq!(world.read(1, true), [1]);
    world.now += OPTIONS.visibility_timeout - 1;
    assert_eq!(world.next(1), Some(2));
    // Nobody has looked at the timers since.
    world.now += OPTIONS.visibility_timeout;
    assert_eq!(world.next(2), None);
    assert_eq!(world.read(9, true), [1, 2, 3, 4]);
}

#[test]
fn each_of_a_group_that_is_read_has_been_delivered_once_more() {
    let words = allocate(4000);
    let mut world = World::new(&words, OPTIONS);
    world.set(OPTIONS);
    world.send(7, 3);
    for _ in 0..OPTIONS.max_attempts {
        assert_eq!(world.read(9, true), [1, 2, 3]);
        world.now += OPTIONS.visibility_timeout;
    }
    assert_eq!(world.read(9, true), none());
    assert_eq!([1, 2, 3].map(|id| list(&world.p, world.slot, id)), [Some(USED_UP); 3]);
}

#[test]
fn what_is_parked_comes_beside_no_other_where_a_group_has_more_lanes() {
    let words = allocate(4000);
    let mut world = World::new(&words, Options { group_limit: 2, ..OPTIONS });
    world.send(7, 5);
    assert_eq!(world.read(4, true), [1, 2, 3, 4]);
    world.give_back(2, 0);
    assert_eq!(world.read(9, false), none());
    assert_eq!(list(&world.p, world.slot, 2), Some(PARKED));
    assert_eq!(world.next(1), None, "it waits for a lane");
    assert_eq!(world.next(4), Some(5));
}

#[test]
fn what_has_come_back_comes_beside_earlier_ones_while_it_may_be_delivered() {
    let words = allocate(4000);
    let mut world = World::new(&words, OPTIONS);
    world.send(7, 4);
    assert_eq!(world.read(9, true), [1, 2, 3, 4]);
    world.give_back(2, 0);
    assert_eq!(world.read(9, false), none());
    assert_eq!(list(&world.p, world.slot, 2), Some(PARKED));
    for id in [3, 4] {
        assert_eq!(world.next(id), None, "its reader has a later one");
    }
    world.set(Options { max_attempts: 1, ..OPTIONS });
    assert_eq!(world.next(1), None, "it is used up");
    world.set(OPTIONS);
    assert_eq!(world.next(1), Some(2));
}

#[test]
fn what_may_have_another_before_it_is_not_the_next() {
    let words = allocate(4000);
    let mut world = World::new(&words, OPTIONS);
    world.send(7, 4);
    assert_eq!(world.read(2, true), [1, 2]);
    // 3, the next one, is deleted by somebody who hadn't set it aside, and 5 comes: between them 4 is in the table.
    world.p.left_outside(world.slot, 3, false, 7).unwrap();
    world.rows.remove(&3);
    world.send(7, 1);
    assert_eq!(world.next(2), None);
    assert_eq!(world.p.start_probe(world.slot, 7, world.calls), Ok(Some(2)));
    world.p.offer_next(world.slot, &world.row(4), world.calls, world.now, &mut Wake::default()).unwrap();
    assert_eq!([2, 4].map(|id| world.next(id)), [Some(4), Some(5)]);
}

#[test]
fn while_an_earlier_one_may_be_in_the_table_none_follows() {
    let words = allocate(4000);
    let mut world = World::new(&words, OPTIONS);
    let slot = world.slot;
    world.p.lower(slot, TIMES, NOW, i64::MAX).unwrap();
    world.send(7, 2);
    let (wake, mut taken) = (&mut Wake::default(), Vec::with_capacity(1));
    world.p.take(slot, 1, NOW, 1, OPTIONS.visibility_timeout, &mut taken, wake).unwrap();
    let one = taken[0];
    assert_eq!((one.may_overtake, one.find_next), (true, Some(1)));
    world.leases.insert(1, (1, one.lease, one.until));
    world.p.offer_next(slot, &world.row(2), 1, NOW, wake).unwrap();
    assert_eq!(world.next(1), None, "its reader hasn't looked for one yet");
    world.p.comes_first(slot, 7, 1, NOW, wake).unwrap();
    assert_eq!(world.next(1), Some(2));
}

#[test]
fn a_next_one_that_is_delayed_or_used_up_comes_beside_no_other() {
    let words = allocate(4000);
    for delayed in [true, false] {
        let mut world = World::new(&words, OPTIONS);
        world.set(OPTIONS);
        world.send(7, 1);
        let (slot, time) = (world.slot, NOW + SECOND);
        let second = Entry { group: 7, ..entry(2) };
        let second = if delayed {
            Entry { deliver_at: Some(time), ..second }
        } else {
            Entry { attempts: OPTIONS.max_attempts, ..second }
        };
        world.p.sent(slot, &second, NOW, &mut Wake::default()).unwrap();
        world.rows.insert(2, 7);
        assert_eq!(world.read(9, true), [1]);
        world.now = time - 1;
        assert_eq!(world.next(1), None);
        if delayed {
            world.now = time;
        } else {
            world.set(Options { max_attempts: 9, ..OPTIONS });
        }
        assert_eq!(world.next(1), Some(2));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(u64, i64),
    Read(usize, bool),
    Finish(prop::sample::Index),
    FinishIn(prop::sample::Index, bool),
    FinishAny(prop::sample::Index, bool),
    GiveBack(prop::sample::Index, i64),
    Fail(prop::sample::Index, i64),
    Tick(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..3_u64, 1..6_i64).prop_map(|(group, count)| Step::Send(group, count)),
        6 => (1..8_usize, any::<bool>()).prop_map(|(qty, whole)| Step::Read(qty, whole)),
        6 => which().prop_map(Step::Finish),
        2 => (which(), any::<bool>()).prop_map(|(which, commit)| Step::FinishIn(which, commit)),
        1 => (which(), any::<bool>()).prop_map(|(which, commit)| Step::FinishAny(which, commit)),
        4 => (which(), 0..4_i64).prop_map(|(which, rest)| Step::GiveBack(which, rest * SECOND)),
        2 => (which(), 0..4_i64).prop_map(|(which, rest)| Step::Fail(which, rest * SECOND)),
        4 => prop_oneof![1..5 * SECOND, Just(OPTIONS.visibility_timeout)].prop_map(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Whatever becomes of what was read: nothing is delivered before an unfinished one of its group, but in the same read.
    #[test]
    fn whole_groups_keep_their_order(steps in proptest::collection::vec(step(), 1..80)) {
        let words = allocate(4000);
        let mut world = World::new(&words, OPTIONS);
        for step in &steps {
            let leased = |world: &World<'_>, which: &prop::sample::Index| {
                let leased: Vec<i64> = world.leases.keys().copied().collect();
                (!leased.is_empty()).then(|| leased[which.index(leased.len())])
            };
            match step {
                Step::Send(group, count) => world.send(*group, *count),
                Step::Read(qty, whole) => {
                    world.read(*qty, *whole);
                }
                Step::Tick(by) => {
                    world.now += by;
                    world.expire();
                }
                Step::Finish(which) => if let Some(id) = leased(&world, which) { world.finish(id) },
                Step::FinishIn(which, commit) => if let Some(id) = leased(&world, which) {
                    world.finish_in(id, *commit, |world| { world.read(3, true); });
                },
                Step::FinishAny(which, commit) => {
                    let all: Vec<i64> = world.rows.keys().copied().collect();
                    if !all.is_empty() {
                        world.finish_in(all[which.index(all.len())], *commit, |_| {});
                    }
                }
                Step::GiveBack(which, rest) => if let Some(id) = leased(&world, which) { world.give_back(id, *rest) },
                Step::Fail(which, rest) => if let Some(id) = leased(&world, which) { world.fail(id, *rest) },
            }
        }
        let mut seen = BTreeSet::new();
        for _ in 0..1000 {
            if world.rows.is_empty() {
                break;
            }
            world.now += OPTIONS.visibility_timeout;
            for id in world.read(7, seen.len() % 2 == 0) {
                seen.insert(id);
                world.finish(id);
            }
        }
        prop_assert_eq!(&world.rows, &BTreeMap::new(), "all are delivered at last");
    }
}
