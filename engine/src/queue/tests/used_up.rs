//! Messages that have been delivered as often as they may be, rule by rule.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, entry, fresh, list};
use crate::queue::layout::{BUSY, LEASED, Partition, USED_UP};
use crate::queue::{Aside, Busy, Delivery, Entry, Found, Options, Wake};
use crate::words::allocate;

const ONCE: Options = Options { max_attempts: 1, ..OPTIONS };
const LATER: i64 = NOW + 60 * SECOND;

fn member(msg_id: i64) -> Entry {
    Entry { group: 7, ..entry(msg_id) }
}

fn send(p: &Partition<'_>, slot: u32, entries: impl IntoIterator<Item = Entry>) {
    for entry in entries {
        p.sent(slot, &entry, NOW, &mut Wake::default()).unwrap();
    }
}

fn take(p: &Partition<'_>, slot: u32, now: i64) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(10);
    p.take(slot, 77, now, 10, OPTIONS.visibility_timeout, &mut taken, &mut Wake::default()).unwrap();
    walk(p);
    taken
}

fn ids(taken: &[Delivery]) -> Vec<i64> {
    taken.iter().map(|taken| taken.msg_id).collect()
}

fn expire(p: &Partition<'_>, slot: u32, now: i64) -> Wake {
    let mut wake = Wake::default();
    p.expire(slot, now, 100, &mut wake).unwrap();
    walk(p);
    wake
}

fn set_aside(p: &Partition<'_>, slot: u32, most: usize) -> Vec<Aside> {
    let mut aside = Vec::with_capacity(most);
    p.set_used_up_aside(slot, &mut aside).unwrap();
    walk(p);
    aside
}

fn end(p: &Partition<'_>, slot: u32, aside: &[Aside], buried: bool) {
    for one in aside {
        p.end_busy(slot, one.msg_id, one.tag, buried, LATER, &mut Wake::default()).unwrap();
        walk(p);
    }
}

#[test]
fn the_group_goes_on_and_who_waits_is_woken() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, ONCE, NOW).unwrap();
    send(&p, slot, (1..=3).map(member));
    assert_eq!(ids(&take(&p, slot, NOW)), [1]);
    p.offer_next(slot, &member(2), 77, NOW, &mut Wake::default()).unwrap();
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    assert_eq!(expire(&p, slot, LATER).processes(), [9]);
    assert_eq!((list(&p, slot, 1), p.queue_state(slot, 1, LATER).unwrap().ready), (Some(USED_UP), 1));
    assert_eq!(ids(&take(&p, slot, LATER)), [2]);
    // Its burial is under way, comes to nothing, and is done.
    for buried in [false, true] {
        let aside = set_aside(&p, slot, 9);
        assert_eq!(aside.iter().map(|one| (one.msg_id, one.attempts)).collect::<Vec<_>>(), [(1, 1)]);
        assert_eq!(list(&p, slot, 1), Some(BUSY));
        end(&p, slot, &aside, buried);
    }
    assert_eq!((list(&p, slot, 1), list(&p, slot, 2)), (None, Some(LEASED)));
}

#[test]
fn what_is_used_up_is_not_in_flight() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_in_flight: 1, ..ONCE }, NOW).unwrap();
    send(&p, slot, (1..=3).map(entry));
    assert_eq!(ids(&take(&p, slot, NOW)), [1]);
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    assert_eq!(expire(&p, slot, LATER).processes(), [9]);
    assert_eq!(set_aside(&p, slot, 9).len(), 1);
    assert_eq!(ids(&take(&p, slot, LATER)), [2]);
    assert_eq!(p.counters(slot).unwrap().leased, 2, "one is leased, and one in a transaction's hands");
}

#[test]
fn more_attempts_bring_it_back_to_its_place() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, ONCE, NOW).unwrap();
    send(&p, slot, [member(1), member(2), entry(3)]);
    assert_eq!(ids(&take(&p, slot, NOW)), [1, 3]);
    p.offer_next(slot, &member(2), 77, NOW, &mut Wake::default()).unwrap();
    expire(&p, slot, LATER);
    p.set_options(slot, Options { max_attempts: 2, ..ONCE }, LATER).unwrap();
    walk(&p);
    // 2 has never been delivered, so the first of the group comes first.
    let taken = take(&p, slot, LATER);
    assert_eq!(taken.iter().map(|taken| (taken.msg_id, taken.attempts)).collect::<Vec<_>>(), [(3, 2), (1, 2)]);
    // And fewer are met in line.
    expire(&p, slot, LATER + 60 * SECOND);
    p.set_options(slot, ONCE, LATER).unwrap();
    assert_eq!(ids(&take(&p, slot, LATER + 60 * SECOND)), [2]);
    let mut aside: Vec<i64> = set_aside(&p, slot, 9).iter().map(|one| one.msg_id).collect();
    aside.sort_unstable();
    assert_eq!(aside, [1, 3]);
}

#[test]
fn one_for_which_there_is_no_room_in_line_is_left_to_a_refill() {
    let words = allocate(800);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, ONCE, NOW).unwrap();
    // In its record the time gives way to its group.
    send(&p, slot, [Entry { deliver_at: Some(NOW), ..member(1) }]);
    expire(&p, slot, NOW);
    assert_eq!(ids(&take(&p, slot, NOW)), [1]);
    expire(&p, slot, LATER);
    assert_eq!(list(&p, slot, 1), Some(USED_UP));
    // Its own record is free then, but its group takes one, too.
    for process in 1.. {
        if p.wait(slot, process, LATER, i64::MAX).unwrap().is_none() {
            break;
        }
    }
    p.set_options(slot, Options { max_attempts: 2, ..ONCE }, LATER).unwrap();
    assert_eq!(list(&p, slot, 1), None);
    walk(&p);
    let [_, times] = p.outlying(slot).unwrap();
    assert!(times.is_some_and(|range| range.has(NOW)), "a refill finds it: {times:?}");
}

#[test]
fn one_that_comes_into_line_as_its_sender_or_a_scan_brings_it_is_there_once() {
    for by_sender in [true, false] {
        let words = allocate(4000);
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        p.set_options(slot, ONCE, NOW).unwrap();
        send(&p, slot, [member(1)]);
        assert_eq!(ids(&take(&p, slot, NOW)), [1]);
        // A scan is faster than the sender of the second.
        assert_eq!(p.found(slot, &member(2), NOW, &mut Wake::default()), Ok(Found::Known));
        // The lease of the first has run out, and nobody has looked.
        if by_sender {
            p.sent(slot, &member(2), LATER, &mut Wake::default()).unwrap();
        } else {
            assert_eq!(p.found(slot, &member(2), LATER, &mut Wake::default()), Ok(Found::Known));
        }
        assert_eq!(walk(&p)[&slot].groups[&7].next, None, "it is the head");
        assert_eq!(ids(&take(&p, slot, LATER)), [2]);
        expire(&p, slot, LATER + 60 * SECOND);
        assert_eq!(take(&p, slot, LATER + 60 * SECOND), [], "after its only delivery");
    }
}

#[test]
fn one_whose_lease_is_ended_makes_way_for_who_waits_for_the_flight() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_in_flight: 1, ..ONCE }, NOW).unwrap();
    send(&p, slot, (1..=2).map(entry));
    let lease = take(&p, slot, NOW)[0].lease;
    p.wait(slot, 5, NOW, i64::MAX).unwrap().unwrap();
    let mut wake = Wake::default();
    p.extend(slot, 1, Some(lease), NOW, NOW, &mut wake).unwrap().unwrap();
    assert_eq!(list(&p, slot, 1), Some(USED_UP));
    assert_eq!(wake.processes(), [5]);
    assert_eq!(ids(&take(&p, slot, NOW)), [2]);
}

#[test]
fn those_in_line_are_passed_in_steps() {
    let words = allocate(12_000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, ONCE, NOW).unwrap();
    // As a sender's trigger may have it.
    send(&p, slot, (1..=200).map(|id| Entry { attempts: 1, ..entry(id) }));
    send(&p, slot, [entry(201)]);
    let mut rounds = 0;
    while take(&p, slot, NOW).is_empty() {
        assert!(p.queue_state(slot, 1, NOW).unwrap().ready > 0);
        rounds += 1;
    }
    assert_eq!((rounds, p.counters(slot).unwrap().used_up), (3, 200));
}

#[test]
fn a_row_is_buried_only_if_it_is_used_up() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, ONCE, NOW).unwrap();
    send(&p, slot, [member(1), member(2), entry(3)]);
    let start = |entry: &Entry, now| p.start_burial(slot, entry, now, &mut Wake::default()).unwrap();
    assert_eq!(start(&entry(3), NOW), Busy::Stale, "it has never been delivered");
    assert_eq!(ids(&take(&p, slot, NOW)), [1, 3]);
    p.offer_next(slot, &member(2), 77, NOW, &mut Wake::default()).unwrap();
    assert_eq!(start(&member(1), NOW), Busy::Stale, "its last lease runs");
    p.start_busy(slot, 3, None, NOW).unwrap();
    assert!(matches!(start(&member(1), LATER), Busy::Yours(claimed) if claimed.attempts == 1));
    assert_eq!(ids(&take(&p, slot, LATER)), [2]);
    assert_eq!(start(&member(1), LATER), Busy::Others);
    assert_eq!(start(&entry(3), LATER), Busy::Stale, "its consumer is finishing it");
    // Not in the index.
    assert_eq!(start(&entry(8), NOW), Busy::Stale);
    for used_up in [Entry { attempts: 1, ..member(8) }, Entry { attempts: 1, ..entry(9) }] {
        assert!(matches!(start(&used_up, NOW), Busy::Yours(claimed) if claimed.attempts == 1));
        walk(&p);
    }
}

#[test]
fn a_scan_of_the_table_finds_them_and_room_is_made() {
    let words = allocate(9_000);
    let (p, slots) = fresh(&words, 2);
    let slot = slots[0];
    p.set_options(slot, ONCE, NOW).unwrap();
    p.invalidate_watermark(slot).unwrap();
    let mut wake = Wake::default();
    p.start_refill(slot, 5, NOW, None).unwrap().unwrap();
    for id in 1..=300 {
        let found = p.found(slot, &Entry { attempts: 1, ..member(id) }, NOW, &mut wake).unwrap();
        assert_eq!(found, if id <= 257 { Found::Brought } else { Found::Known }, "{id}");
    }
    p.end_refill(slot, 5, Some(i64::MAX), Some(i64::MAX), &mut wake).unwrap();
    walk(&p);
    assert_eq!(p.counters(slot).unwrap().used_up, 256, "the others are in line behind the first of them");
    // Another queue needs the room.
    for process in 1..=p.records as u32 - 100 {
        assert!(p.wait(slots[1], process, NOW, i64::MAX).unwrap().is_some(), "{process}");
    }
    walk(&p);
    assert!(p.counters(slot).unwrap().used_up < 100);
    assert!(p.reach(slot).unwrap().0 < 300, "they are found again");
}
