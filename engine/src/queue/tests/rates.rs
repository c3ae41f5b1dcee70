//! Groups with a rate, rule by rule.

use super::check::{Holding, walk};
use super::rules::{NOW, OPTIONS, SECOND, TAG, entry, fresh, list};
use crate::queue::Found::{Brought, Known};
use crate::queue::layout::{HELD, Head, PARKED, Partition};
use crate::queue::{Busy, Delivery, Entry, Fence, Options, Wake};
use crate::words::allocate;

/// The process that reads.
const PROCESS: u32 = 77;
/// Its steps are of a second.
const PERIOD: i64 = 16 * SECOND;

fn member(msg_id: i64) -> Entry {
    Entry { group: 7, ..entry(msg_id) }
}

fn send(p: &Partition<'_>, slot: u32, entries: impl IntoIterator<Item = Entry>, now: i64) {
    for entry in entries {
        p.sent(slot, &entry, now, &mut Wake::default()).unwrap();
        walk(p);
    }
}

fn limit(p: &Partition<'_>, slot: u32, group_rate: u32, group_limit: u32) {
    let options = Options { group_rate, group_rate_period: PERIOD, group_limit, ..OPTIONS };
    p.set_options(slot, options, NOW).unwrap();
    walk(p);
}

fn expire(p: &Partition<'_>, slot: u32, now: i64) {
    p.expire(slot, now, 1000, &mut Wake::default()).unwrap();
    walk(p);
}

/// Reads as a session does that knows of all messages of the group already.
fn take(p: &Partition<'_>, slot: u32, want: usize, now: i64) -> Vec<Delivery> {
    expire(p, slot, now);
    let mut got = Vec::new();
    loop {
        let mut taken = Vec::with_capacity(want);
        p.take(slot, PROCESS, now, want - got.len(), PERIOD * 9, &mut taken, &mut Wake::default()).unwrap();
        walk(p);
        if taken.is_empty() {
            return got;
        }
        for one in &taken {
            if one.find_next.is_some() {
                let hash = holding(p, slot).messages[&one.msg_id].group;
                p.end_probe(slot, hash, PROCESS, now, &mut Wake::default()).unwrap();
                walk(p);
            }
        }
        got.append(&mut taken);
    }
}

fn numbers(taken: &[Delivery]) -> Vec<i64> {
    taken.iter().map(|one| one.msg_id).collect()
}

fn read(p: &Partition<'_>, slot: u32, want: usize, now: i64) -> Vec<i64> {
    numbers(&take(p, slot, want, now))
}

fn finish(p: &Partition<'_>, slot: u32, msg_id: i64, now: i64) {
    p.drop_message(slot, msg_id, TAG, now, &mut Wake::default()).unwrap();
    walk(p);
}

fn holding(p: &Partition<'_>, slot: u32) -> Holding {
    walk(p)[&slot].clone()
}

/// Sends one and reads and finishes it; whether it was delivered.
fn deliver(p: &Partition<'_>, slot: u32, msg_id: i64, now: i64) -> bool {
    deliver_entry(p, slot, member(msg_id), now)
}

/// The same with one of another group, numbered by the time.
fn deliver_of(p: &Partition<'_>, slot: u32, group: u64, now: i64) -> bool {
    deliver_entry(p, slot, Entry { group, ..entry(1_000_000 + now - NOW) }, now)
}

fn deliver_entry(p: &Partition<'_>, slot: u32, entry: Entry, now: i64) -> bool {
    send(p, slot, [entry], now);
    let delivered = read(p, slot, 1, now) == [entry.msg_id];
    finish(p, slot, entry.msg_id, now);
    delivered
}

fn free(p: &Partition<'_>) -> u64 {
    p.head(Head::FreeRecords).unwrap()
}

fn none() -> Vec<i64> {
    Vec::new()
}

#[test]
fn a_group_that_has_run_empty_does_not_begin_anew() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 2, 1);
    assert!(deliver(&p, slot, 1, NOW));
    assert!(deliver(&p, slot, 2, NOW + SECOND));
    assert_eq!(holding(&p, slot).lanes.len(), 0, "the group's record is gone");
    assert!(!deliver(&p, slot, 3, NOW + 2 * SECOND));
    assert!(!deliver(&p, slot, 4, NOW + PERIOD - 1));
    assert!(deliver(&p, slot, 5, NOW + PERIOD), "the first of them is a period old");
    assert!(!deliver(&p, slot, 6, NOW + PERIOD));
    assert!(deliver(&p, slot, 7, NOW + PERIOD + 2 * SECOND));
}

#[test]
fn one_that_is_held_is_read_when_its_time_has_come_and_holds_no_other_group_up() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    assert!(deliver(&p, slot, 1, NOW));
    send(&p, slot, [member(2), Entry { group: 8, ..entry(3) }, entry(4)], NOW);
    assert_eq!(read(&p, slot, 9, NOW), [3, 4]);
    assert_eq!(list(&p, slot, 2), Some(HELD));
    let state = p.queue_state(slot, 1, NOW).unwrap();
    assert_eq!((state.ready, state.next), (0, Some(NOW + PERIOD)));
    // A session that waits looks then, and so does one that waited before it was held.
    assert_eq!(p.wait(slot, 9, NOW, i64::MAX).unwrap().unwrap().alarm, NOW + PERIOD);
    send(&p, slot, [entry(5)], NOW);
    let mut wake = Wake::default();
    p.expire(slot, NOW + PERIOD, 99, &mut wake).unwrap();
    assert_eq!(read(&p, slot, 9, NOW + PERIOD), [2, 5], "it has been the first in line");
}

#[test]
fn who_waits_is_woken_where_one_is_held_by_another_reader() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    assert!(deliver(&p, slot, 1, NOW));
    assert_eq!(p.wait(slot, 9, NOW, i64::MAX).unwrap().unwrap().alarm, i64::MAX);
    let mut wake = Wake::default();
    p.sent(slot, &member(2), NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [9]);
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    let mut wake = Wake::default();
    p.take(slot, PROCESS, NOW, 1, PERIOD, &mut Vec::with_capacity(1), &mut wake).unwrap();
    assert_eq!(list(&p, slot, 2), Some(HELD));
    assert_eq!(wake.processes(), [9], "its alarm was set for later");
}

#[test]
fn lanes_and_rate_hold_together() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 3, 2);
    send(&p, slot, (1..=2).map(member), NOW);
    assert_eq!(read(&p, slot, 9, NOW), [1, 2]);
    send(&p, slot, (3..=3).map(member), NOW);
    assert_eq!(read(&p, slot, 9, NOW), none());
    finish(&p, slot, 1, NOW);
    assert_eq!(read(&p, slot, 9, NOW), [3]);
    finish(&p, slot, 2, NOW);
    finish(&p, slot, 3, NOW);
    send(&p, slot, [member(4)], NOW);
    assert_eq!(read(&p, slot, 9, NOW), none());
    assert_eq!(list(&p, slot, 4), Some(HELD));
    assert_eq!(read(&p, slot, 9, NOW + PERIOD), [4]);
}

#[test]
fn a_lane_that_one_has_given_up_by_leaving_what_is_held_goes_to_the_next() {
    let words = allocate(4000);
    for how in 0..3 {
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        limit(&p, slot, 0, 3);
        send(&p, slot, (1..=2).map(member), NOW);
        assert_eq!(read(&p, slot, 9, NOW), [1, 2]);
        send(&p, slot, [member(3)], NOW);
        assert_eq!(read(&p, slot, 9, NOW), [3]);
        limit(&p, slot, 0, 1);
        for id in [1, 2] {
            let lease = holding(&p, slot).messages[&id].lease;
            p.release_with_backoff(slot, id, lease, NOW, 0, &mut Wake::default()).unwrap();
        }
        assert_eq!(read(&p, slot, 9, NOW), none());
        limit(&p, slot, 1, 1);
        send(&p, slot, [Entry { group: 8, ..entry(9) }], NOW);
        assert_eq!(read(&p, slot, 9, NOW), [9]);
        // One is in line and the other is parked; the first is held.
        finish(&p, slot, 3, NOW);
        let first = read(&p, slot, 1, NOW)[0];
        finish(&p, slot, first, NOW);
        let second = 3 - first;
        assert_eq!(read(&p, slot, 9, NOW), none());
        assert_eq!(list(&p, slot, second), Some(HELD));
        match how {
            0 => assert!(matches!(p.start_busy(slot, second, Fence::None, NOW), Ok(Busy::Yours(_)))),
            1 => {
                let mut aside = Vec::with_capacity(9);
                p.set_all_aside(slot, &mut aside).unwrap();
                assert!(aside.iter().any(|one| one.msg_id == second));
            }
            _ => {}
        }
        walk(&p);
        if how < 2 {
            p.end_busy(slot, second, TAG, false, NOW, &mut Wake::default()).unwrap();
            assert_eq!(read(&p, slot, 9, NOW), none(), "it is held again");
        }
        assert_eq!(list(&p, slot, second), Some(HELD));
        assert_eq!(read(&p, slot, 9, NOW + PERIOD), [second]);
        assert_eq!(holding(&p, slot).count(PARKED), 0);
    }
}

#[test]
fn a_delivery_that_has_not_come_about_does_not_count() {
    let words = allocate(4000);
    for how in 0..4 {
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        limit(&p, slot, 1, 1);
        send(&p, slot, [member(2)], NOW);
        let taken = take(&p, slot, 1, NOW)[0];
        // A step later.
        let (now, wake) = (NOW + SECOND, &mut Wake::default());
        match how {
            0 => p.undo_lease(slot, 2, taken.lease, now, wake).unwrap(),
            1 => {
                p.drop_leased(slot, 2, taken.lease, now, wake).unwrap();
                send(&p, slot, [member(2)], now);
            }
            2 => {
                p.yield_to(slot, 2, taken.lease, &member(1), now, wake).unwrap();
            }
            _ => {
                p.not_delivered_of_group(slot, 2, taken.lease, now).unwrap();
                p.drop_message(slot, 2, TAG, now, wake).unwrap();
                send(&p, slot, [member(2)], now);
            }
        }
        walk(&p);
        let first = if how == 2 { 1 } else { 2 };
        assert_eq!(read(&p, slot, 1, now), [first], "{how}");
        finish(&p, slot, first, now);
        assert!(!deliver(&p, slot, 3, now), "{how}");
    }
}

#[test]
fn another_rate_or_period_holds_for_what_is_read_from_then_on() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    assert!(deliver(&p, slot, 1, NOW));
    send(&p, slot, [member(2)], NOW);
    assert_eq!(read(&p, slot, 1, NOW), none());
    limit(&p, slot, 2, 1);
    assert_eq!(read(&p, slot, 1, NOW), [2]);
    finish(&p, slot, 2, NOW);
    send(&p, slot, [member(3)], NOW);
    assert_eq!(read(&p, slot, 1, NOW), none());
    // Two have been delivered in the longer period, and none in the shorter one.
    let later = NOW + 2 * PERIOD;
    for (period, now, expected) in [(10 * PERIOD, NOW, none()), (10 * PERIOD, later, none()), (PERIOD, later, vec![3])]
    {
        let options = Options { group_rate: 2, group_rate_period: period, ..OPTIONS };
        p.set_options(slot, options, now).unwrap();
        walk(&p);
        assert_eq!(read(&p, slot, 1, now), expected, "{period}");
    }
    finish(&p, slot, 3, later);
    limit(&p, slot, 0, 1);
    assert_eq!(holding(&p, slot).rates.len(), 0, "without a rate nothing is kept");
}

#[test]
fn what_was_delivered_counts_by_another_period_for_just_as_long_as_that() {
    for period in [2 * PERIOD, PERIOD / 2] {
        let words = allocate(4000);
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        limit(&p, slot, 2, 1);
        let second = NOW + 4 * SECOND;
        assert!(deliver(&p, slot, 1, NOW));
        assert!(deliver(&p, slot, 2, second));
        let options = Options { group_rate: 2, group_rate_period: period, ..OPTIONS };
        p.set_options(slot, options, second).unwrap();
        // Four seconds are a number of steps of either.
        for (id, since) in [(3, NOW), (5, second)] {
            assert!(!deliver(&p, slot, id, since + period - 1), "{period}");
            assert!(deliver(&p, slot, id + 1, since + period), "{period}");
        }
    }
}

#[test]
fn counts_that_say_nothing_go_as_others_come() {
    let words = allocate(20_000);
    let (p, slots) = fresh(&words, 2);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    let deliver = |slot, group, now| {
        let id = 1_000_000 + now - NOW + group as i64;
        send(&p, slot, [Entry { group, ..entry(id) }], now);
        assert_eq!(read(&p, slot, 1, now), [id]);
        finish(&p, slot, id, now);
    };
    for group in 1..=100 {
        deliver(slot, group, NOW);
    }
    assert_eq!(holding(&p, slot).rates.len(), 100);
    for group in 101..=200 {
        deliver(slot, group, NOW + 2 * PERIOD);
    }
    assert_eq!(holding(&p, slot).rates.len(), 100, "each delivery frees as many as it makes, and more");
    p.forget_counts(slot, NOW + 3 * PERIOD - 1, 1000).unwrap();
    assert_eq!(holding(&p, slot).rates.len(), 100);
    p.forget_counts(slot, NOW + 4 * PERIOD, 1000).unwrap();
    assert_eq!(holding(&p, slot).rates.len(), 0);
}

#[test]
fn where_there_is_no_room_the_group_begins_anew_that_was_delivered_from_longest_ago() {
    let words = allocate(4096);
    let (p, slots) = fresh(&words, 4);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    let deliver = |group, now| deliver_of(&p, slot, group, now);
    let most = p.records as u64 / 8 * 3;
    for group in 1..=most {
        assert!(deliver(group, NOW + group as i64));
    }
    assert!(!deliver(1, NOW + 1000));
    assert!(deliver(most + 1, NOW + 2000));
    assert_eq!(holding(&p, slot).rates.len() as u64, most);
    assert!(deliver(1, NOW + 3000), "its counts have given way");
    assert!(!deliver(3, NOW + 4000));
    // Messages come first where memory is short.
    for &queue in slots.iter().rev() {
        send(&p, queue, (1..=63).map(entry), NOW);
        assert_eq!(read(&p, queue, 63, NOW).len(), 63);
    }
    let left = holding(&p, slot).rates.len() as u64;
    assert!(left < most, "{left} of {most} in {}", p.records);
}

#[test]
fn a_group_that_is_delivered_from_again_gives_way_later() {
    let words = allocate(4096);
    let (p, slots) = fresh(&words, 4);
    let slot = slots[0];
    limit(&p, slot, 2, 1);
    let most = p.records as u64 / 8 * 3;
    // The first one's record was made before all others.
    for (at, group) in (1..=most).chain([1, most + 1]).enumerate() {
        assert!(deliver_of(&p, slot, group, NOW + at as i64));
    }
    assert!(!deliver_of(&p, slot, 1, NOW + 1000), "it has been delivered from twice");
    let rates = holding(&p, slot).rates;
    assert!(!rates.contains_key(&2) && rates.contains_key(&3), "the second has given way");
}

#[test]
fn counts_above_255_are_exact_too() {
    let words = allocate(8000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 900, 1);
    let mut id = 0;
    // 300 in each of three steps.
    for step in 0..3 {
        for _ in 0..300 {
            id += 1;
            assert!(deliver(&p, slot, id, NOW + step * SECOND), "{id}");
        }
    }
    assert!(!deliver(&p, slot, 901, NOW + PERIOD - 1));
    for step in 0..3 {
        for _ in 0..300 {
            id += 1;
            assert!(deliver(&p, slot, id + 1, NOW + PERIOD + step * SECOND), "{id}");
        }
        assert!(!deliver(&p, slot, 5000 + step, NOW + PERIOD + step * SECOND));
    }
    assert_eq!(free(&p), p.records as u64 - 2, "a record and its extension");
    p.forget_counts(slot, NOW + 9 * PERIOD, 9).unwrap();
    walk(&p);
    assert_eq!(free(&p), p.records as u64);
}

#[test]
fn counts_above_255_leave_nothing_behind_however_they_go() {
    for how in 0..3 {
        let words = allocate(2048);
        let (p, slots) = fresh(&words, 1);
        let (slot, records) = (slots[0], p.records as u64);
        limit(&p, slot, 900, 1);
        for id in 1..=256 {
            assert!(deliver(&p, slot, id, NOW));
        }
        assert!(deliver(&p, slot, 257, NOW + SECOND));
        assert_eq!(free(&p), records - 2, "a record and its extension");
        let others = match how {
            0 => {
                limit(&p, slot, 0, 1);
                0
            }
            1 => {
                // The last of them takes its place.
                let most = records / 8 * 3;
                for group in 1..=most {
                    assert!(deliver_of(&p, slot, 100 + group, NOW + 2 * SECOND + group as i64));
                }
                assert!(!holding(&p, slot).rates.contains_key(&7));
                most
            }
            _ => {
                while !p.detach(slot, 1, NOW, &mut Wake::default()).unwrap() {}
                0
            }
        };
        walk(&p);
        assert_eq!(free(&p), records - others, "{how}");
    }
}

#[test]
fn while_a_quarter_of_the_memory_is_held_nothing_is_brought() {
    let words = allocate(2048);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    let quarter = p.records as i64 / 4;
    for round in 0..2 {
        let rows: Vec<Entry> =
            (1..=quarter + 1).map(|group| Entry { group: group as u64, ..entry(1000 * round + group) }).collect();
        for row in rows {
            send(&p, slot, [row], NOW + round);
            let got = read(&p, slot, 1, NOW + round);
            assert_eq!(got.len(), usize::from(round == 0));
            if round == 0 {
                finish(&p, slot, row.msg_id, NOW);
            }
        }
    }
    assert!(p.is_crowded(slot).unwrap());
    send(&p, slot, [entry(9000)], NOW + 2);
    assert_eq!(list(&p, slot, 9000), None);
    let state = p.queue_state(slot, 1, NOW + 2).unwrap();
    assert!(!state.refill && state.next.is_some());
    assert!(!read(&p, slot, 99, NOW + PERIOD).is_empty());
    assert!(p.queue_state(slot, 1, NOW + PERIOD).unwrap().refill);
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_for_longer_than_a_period() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    assert!(deliver(&p, slot, 1, NOW));
    send(&p, slot, [member(2)], NOW);
    assert_eq!(read(&p, slot, 1, NOW), none());
    let earlier = NOW - 3600 * SECOND;
    assert_eq!(read(&p, slot, 1, earlier), none());
    assert_eq!(read(&p, slot, 1, earlier + PERIOD + SECOND), [2]);
    // So it is with the queue's own rate.
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_rate: 1, rate_period: PERIOD, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, [entry(1), entry(2)], NOW);
    assert_eq!(read(&p, slot, 9, NOW), [1]);
    assert_eq!(read(&p, slot, 9, earlier), none());
    assert_eq!(read(&p, slot, 9, earlier + PERIOD + SECOND), [2]);
}

#[test]
fn one_that_has_been_held_has_its_turn_where_its_row_is_compared() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    for group in [7, 8] {
        send(&p, slot, [Entry { group, ..entry(group as i64) }], NOW);
    }
    assert_eq!(read(&p, slot, 2, NOW), [7, 8]);
    finish(&p, slot, 7, NOW);
    finish(&p, slot, 8, NOW);
    let delayed = Entry { deliver_at: Some(NOW + SECOND), ..member(17) };
    send(&p, slot, [delayed, Entry { group: 8, ..entry(18) }], NOW);
    let now = NOW + 2 * SECOND;
    assert_eq!(read(&p, slot, 2, now), none());
    assert_eq!([17, 18].map(|id| list(&p, slot, id)), [Some(HELD); 2]);
    // Its row is as it was; then an owner has changed it.
    for (row, changed) in [(delayed, false), (Entry { priority: 3, ..delayed }, true)] {
        let now = NOW + PERIOD;
        expire(&p, slot, now);
        let first = holding(&p, slot).ready;
        let found = p.reconcile(slot, &row, now, &mut Wake::default()).unwrap();
        walk(&p);
        assert_eq!((found, holding(&p, slot).ready == first), (if changed { Brought } else { Known }, !changed));
    }
}

#[test]
fn one_that_was_held_gives_way_to_an_earlier_one_and_is_due_all_the_same() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 1, 1);
    assert!(deliver(&p, slot, 1, NOW));
    send(&p, slot, [Entry { deliver_at: Some(NOW), ..member(5) }], NOW);
    assert_eq!(read(&p, slot, 1, NOW), none());
    assert_eq!(list(&p, slot, 5), Some(HELD));
    send(&p, slot, [member(2)], NOW);
    // From here on both may be delivered.
    limit(&p, slot, 0, 1);
    assert_eq!(read(&p, slot, 1, NOW), [2]);
    finish(&p, slot, 2, NOW);
    p.end_probe(slot, 7, PROCESS, NOW, &mut Wake::default()).unwrap();
    assert_eq!(read(&p, slot, 1, NOW), [5], "not when it would have been delivered by the rate");
}

#[test]
fn a_lease_from_when_there_was_no_rate_gives_nothing_back() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 0, 3);
    send(&p, slot, [member(1)], NOW);
    let uncounted = take(&p, slot, 1, NOW)[0];
    limit(&p, slot, 1, 3);
    send(&p, slot, [member(2)], NOW);
    assert_eq!(read(&p, slot, 1, NOW), [2]);
    p.undo_lease(slot, 1, uncounted.lease, NOW, &mut Wake::default()).unwrap();
    walk(&p);
    assert_eq!(read(&p, slot, 1, NOW), none());
    assert_eq!(read(&p, slot, 1, NOW + PERIOD), [1]);
}

#[test]
fn what_is_given_back_shortens_the_time_of_no_other_delivery() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    // The last moment of a step: the second lease has the number of the next one.
    let now = NOW / SECOND * SECOND;
    limit(&p, slot, 3, 3);
    send(&p, slot, [entry(9)], now);
    send(&p, slot, [member(1)], now);
    let first = take(&p, slot, 2, now);
    assert_eq!(numbers(&first), [9, 1]);
    for id in [2, 3] {
        send(&p, slot, [member(id)], now);
        assert_eq!(read(&p, slot, 1, now + SECOND), [id]);
    }
    p.undo_lease(slot, 1, first[1].lease, now + SECOND, &mut Wake::default()).unwrap();
    walk(&p);
    // Two of the later step count, for as long as they would have.
    assert_eq!(read(&p, slot, 1, now + SECOND), [1]);
    finish(&p, slot, 1, now + SECOND);
    send(&p, slot, [member(4)], now + SECOND);
    assert_eq!(read(&p, slot, 1, now + SECOND + PERIOD - 1), none());
    assert_eq!(read(&p, slot, 1, now + SECOND + PERIOD), [4]);
    // One that counts no longer gives nothing back, though by its number it began in the step after its own.
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 2, 3);
    send(&p, slot, [entry(9)], now);
    send(&p, slot, [member(1)], now);
    let first = take(&p, slot, 2, now);
    send(&p, slot, [member(2)], now);
    assert_eq!(read(&p, slot, 1, now + SECOND), [2]);
    p.undo_lease(slot, 1, first[1].lease, now + PERIOD, &mut Wake::default()).unwrap();
    walk(&p);
    assert_eq!(read(&p, slot, 1, now + PERIOD), [1]);
    send(&p, slot, [member(3)], now + PERIOD);
    assert_eq!(read(&p, slot, 1, now + PERIOD), none(), "the second one counts");
}
