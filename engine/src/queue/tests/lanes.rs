//! Groups with more than one lane, rule by rule.

use super::check::{Holding, Lanes, walk};
use super::rules::{NOW, OPTIONS, SECOND, TAG, entry, fresh, list};
use crate::queue::layout::{BUSY, DELAYED, LEASED, PARKED, Partition};
use crate::queue::lease::PASSES;
use crate::queue::{Busy, Delivery, Entry, Fence, Offered, Options, Storage, Wake};
use crate::words::allocate;

/// The process that reads.
const PROCESS: u32 = 77;

fn member(msg_id: i64) -> Entry {
    Entry { group: 7, ..entry(msg_id) }
}

fn send(p: &Partition<'_>, slot: u32, entries: impl IntoIterator<Item = Entry>) {
    for entry in entries {
        p.sent(slot, &entry, NOW, &mut Wake::default()).unwrap();
    }
}

fn limit(p: &Partition<'_>, slot: u32, group_limit: u32) {
    p.set_options(slot, Options { group_limit, ..OPTIONS }, NOW).unwrap();
    walk(p);
}

fn take_at(p: &Partition<'_>, slot: u32, want: usize, now: i64) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(want);
    p.take(slot, PROCESS, now, want, OPTIONS.visibility_timeout, &mut taken, &mut Wake::default()).unwrap();
    walk(p);
    taken
}

/// Reads as a session does: it looks for the next of the group in the table, which holds `rows`, and reads again.
fn read(p: &Partition<'_>, slot: u32, want: usize, rows: &[Entry]) -> Vec<i64> {
    let mut got = Vec::new();
    while got.len() < want {
        let taken = take_at(p, slot, want - got.len(), NOW);
        if taken.is_empty() {
            break;
        }
        for one in taken {
            got.push(one.msg_id);
            if let Some(after) = one.find_next {
                probe(p, slot, after, rows);
            }
        }
    }
    got
}

fn probe(p: &Partition<'_>, slot: u32, after: i64, rows: &[Entry]) {
    let wake = &mut Wake::default();
    for row in rows.iter().filter(|row| row.msg_id > after && row.group == 7) {
        if p.offer_next(slot, row, PROCESS, NOW, wake).unwrap() != Offered::Busy {
            walk(p);
            return;
        }
    }
    p.end_probe(slot, 7, PROCESS, NOW, wake).unwrap();
    walk(p);
}

fn finish(p: &Partition<'_>, slot: u32, msg_id: i64) -> Wake {
    let mut wake = Wake::default();
    p.drop_message(slot, msg_id, TAG, NOW, &mut wake).unwrap();
    walk(p);
    wake
}

fn holding(p: &Partition<'_>, slot: u32) -> Holding {
    walk(p)[&slot].clone()
}

fn lanes(p: &Partition<'_>, slot: u32) -> Option<Lanes> {
    holding(p, slot).lanes.get(&7).copied()
}

fn release_with_backoff(p: &Partition<'_>, slot: u32, msg_id: i64, delay: i64) {
    let lease = holding(p, slot).messages[&msg_id].lease;
    p.release_with_backoff(slot, msg_id, lease, NOW, delay, &mut Wake::default()).unwrap();
    walk(p);
}

fn none() -> Vec<i64> {
    Vec::new()
}

#[test]
fn as_many_of_a_group_are_leased_as_it_has_lanes_in_order() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 3);
    let rows: Vec<Entry> = (1..=9).map(member).collect();
    send(&p, slot, rows.clone());
    assert_eq!(read(&p, slot, 9, &rows), [1, 2, 3]);
    assert_eq!(read(&p, slot, 9, &rows), none());
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    assert_eq!(finish(&p, slot, 2).processes(), [9], "the session that waits gets the next of the group");
    assert_eq!(read(&p, slot, 9, &rows), [4]);
    finish(&p, slot, 4);
    finish(&p, slot, 1);
    assert_eq!(read(&p, slot, 9, &rows), [5, 6]);
    for id in [3, 5, 6] {
        finish(&p, slot, id);
    }
    assert_eq!(read(&p, slot, 9, &rows), [7, 8, 9]);
    for id in [9, 8] {
        finish(&p, slot, id);
    }
    assert_eq!(lanes(&p, slot), Some(Lanes { running: 1, members: 1, ..Lanes::default() }));
    finish(&p, slot, 7);
    assert_eq!(lanes(&p, slot), None, "the group goes with its last message");
    assert_eq!(p.reach(slot), Ok((i64::MAX, i64::MAX)), "and the queue needs no refill for it");
}

#[test]
fn groups_take_turns_with_many_lanes_too() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, u32::MAX);
    let rows: Vec<Entry> = (1..=50).map(member).collect();
    send(&p, slot, rows.clone());
    send(&p, slot, (51..=53).map(|id| Entry { group: 8, ..entry(id) }));
    let mut order = Vec::new();
    for _ in 0..7 {
        let one = take_at(&p, slot, 1, NOW)[0];
        order.push(one.msg_id);
        match one.find_next {
            Some(after) if one.msg_id < 51 => probe(&p, slot, after, &rows),
            Some(after) => {
                let next = Entry { group: 8, ..entry(after + 1) };
                p.offer_next(slot, &next, PROCESS, NOW, &mut Wake::default()).unwrap();
            }
            None => {}
        }
    }
    assert_eq!(order, [1, 51, 2, 52, 3, 53, 4]);
}

#[test]
fn one_that_rests_takes_no_lane_and_holds_nobody_up() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 2);
    let rows: Vec<Entry> = (1..=5).map(member).collect();
    send(&p, slot, rows.clone());
    assert_eq!(read(&p, slot, 9, &rows), [1, 2]);
    release_with_backoff(&p, slot, 1, 5 * SECOND);
    assert_eq!(read(&p, slot, 9, &rows), [3]);
    release_with_backoff(&p, slot, 2, 5 * SECOND);
    release_with_backoff(&p, slot, 3, 5 * SECOND);
    assert_eq!(read(&p, slot, 9, &rows), [4, 5]);
    assert_eq!(lanes(&p, slot), Some(Lanes { running: 2, members: 4, ..Lanes::default() }));
    p.expire(slot, NOW + 6 * SECOND, 10, &mut Wake::default()).unwrap();
    assert_eq!(take_at(&p, slot, 9, NOW + 6 * SECOND), []);
    assert_eq!(lanes(&p, slot).map(|lanes| lanes.parked), Some(3), "they wait for a lane");
    finish(&p, slot, 5);
    let taken = take_at(&p, slot, 9, NOW + 6 * SECOND);
    assert_eq!((taken.len(), taken[0].msg_id, taken[0].attempts), (1, 1, 2));
    // The head of a group that rests lets those go on that come later.
    for id in [1, 2, 3, 4] {
        finish(&p, slot, id);
    }
    send(&p, slot, [member(6)]);
    assert_eq!(read(&p, slot, 1, &[]), [6]);
    release_with_backoff(&p, slot, 6, 5 * SECOND);
    send(&p, slot, [member(7)]);
    assert_eq!(read(&p, slot, 9, &[]), [7]);
}

#[test]
fn where_one_in_line_leaves_it_another_that_is_parked_takes_its_place() {
    let words = allocate(4000);
    for how in 0..4 {
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        limit(&p, slot, 4);
        let rows: Vec<Entry> = (1..=4).map(member).collect();
        send(&p, slot, rows.clone());
        assert_eq!(read(&p, slot, 9, &rows), [1, 2, 3, 4]);
        limit(&p, slot, 1);
        for id in [1, 2, 3] {
            release_with_backoff(&p, slot, id, 0);
        }
        assert_eq!(take_at(&p, slot, 9, NOW), []);
        assert_eq!(lanes(&p, slot), Some(Lanes { running: 1, members: 3, parked: 3, ..Lanes::default() }));
        finish(&p, slot, 4);
        assert_eq!(lanes(&p, slot), Some(Lanes { running: 0, members: 3, parked: 2, held: 0, ready: 1 }));
        let first = holding(&p, slot).ready[0];
        match how {
            0 => {
                finish(&p, slot, first);
            }
            1 => assert!(matches!(p.start_busy(slot, first, Fence::None, NOW), Ok(Busy::Yours(_)))),
            2 => p.drop_known(slot, p.lookup(slot, first).unwrap().unwrap()).unwrap(),
            _ => {
                let later = Entry { deliver_at: Some(NOW + SECOND), attempts: 1, ..member(first) };
                p.schedule_retry(slot, &later, NOW, &mut Wake::default()).unwrap();
                assert_eq!(list(&p, slot, first), Some(DELAYED));
            }
        }
        let taken = take_at(&p, slot, 9, NOW);
        if how == 1 || how == 3 {
            // With one lane the order is strict: the others wait for what is being changed, or rests.
            assert_eq!(taken, [], "{how}");
            if how == 1 {
                assert_eq!(list(&p, slot, first), Some(BUSY));
                p.end_busy(slot, first, TAG, false, NOW, &mut Wake::default()).unwrap();
            } else {
                p.expire(slot, NOW + SECOND, 9, &mut Wake::default()).unwrap();
            }
            let taken = take_at(&p, slot, 9, NOW + SECOND);
            assert_eq!((taken.len(), taken[0].msg_id), (1, first));
            finish(&p, slot, first);
            assert_eq!(take_at(&p, slot, 9, NOW + SECOND).len(), 1);
            continue;
        }
        assert_eq!(taken.len(), 1, "{how}");
        assert_ne!(taken[0].msg_id, first);
    }
}

#[test]
fn another_limit_holds_for_what_is_read_from_then_on() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let rows: Vec<Entry> = (1..=9).map(member).collect();
    send(&p, slot, rows.clone());
    assert_eq!(read(&p, slot, 9, &rows), [1]);
    limit(&p, slot, 3);
    assert_eq!(read(&p, slot, 9, &rows), [2, 3]);
    limit(&p, slot, 2);
    assert_eq!(list(&p, slot, 3), Some(LEASED), "no lease is ended");
    finish(&p, slot, 1);
    assert_eq!(read(&p, slot, 9, &rows), none());
    finish(&p, slot, 2);
    assert_eq!(read(&p, slot, 9, &rows), [4]);
    limit(&p, slot, 1);
    release_with_backoff(&p, slot, 3, 0);
    assert_eq!(read(&p, slot, 9, &rows), none());
    assert_eq!(list(&p, slot, 3), Some(PARKED));
    limit(&p, slot, 2);
    assert_eq!(read(&p, slot, 9, &rows), [3]);
    release_with_backoff(&p, slot, 3, SECOND);
    assert_eq!(read(&p, slot, 9, &rows), [5]);
}

#[test]
fn what_is_parked_ends_with_its_queue_and_its_table() {
    let words = allocate(4000);
    for how in 0..4 {
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        p.set_storage(slot, Storage { file: 1, toast: 1, empty: false }, &mut Wake::default()).unwrap();
        limit(&p, slot, 5);
        let rows: Vec<Entry> = (1..=9).map(member).collect();
        send(&p, slot, rows.clone());
        assert_eq!(read(&p, slot, 5, &rows), [1, 2, 3, 4, 5]);
        limit(&p, slot, 1);
        for id in [1, 3, 4] {
            release_with_backoff(&p, slot, id, 0);
        }
        assert_eq!(take_at(&p, slot, 9, NOW), []);
        assert_eq!(lanes(&p, slot).map(|lanes| lanes.parked), Some(3));
        match how {
            0 => while !p.detach(slot, 1, NOW, &mut Wake::default()).unwrap() {},
            1 => {
                p.set_storage(slot, Storage { file: 2, toast: 1, empty: true }, &mut Wake::default()).unwrap();
                assert_eq!(holding(&p, slot).messages.len(), 0);
                assert_eq!(p.reach(slot), Ok((i64::MIN, i64::MIN)));
            }
            2 => {
                let mut aside = Vec::with_capacity(99);
                assert_eq!(p.set_all_aside(slot, &mut aside), Ok(false));
                assert_eq!(aside.len(), 5);
                for one in aside {
                    p.end_purged(slot, one.msg_id, one.tag, NOW, &mut Wake::default()).unwrap();
                    walk(&p);
                }
                assert_eq!(holding(&p, slot).messages.len(), 0);
            }
            _ => {
                let mut listed = Vec::with_capacity(99);
                p.list_from(slot, 0, &mut listed).unwrap();
                assert_eq!(listed.len(), 5);
                for one in listed {
                    p.drop_vanished(slot, one.msg_id, one.tag, NOW, &mut Wake::default()).unwrap();
                    walk(&p);
                }
                assert_eq!(holding(&p, slot).messages.len(), 0);
            }
        }
        assert!(walk(&p).get(&slot).is_none_or(|holding| holding.lanes.is_empty()));
    }
}

#[test]
fn where_one_has_vanished_the_others_of_its_group_go_on() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 2);
    let rows: Vec<Entry> = (1..=6).map(member).collect();
    send(&p, slot, rows.clone());
    assert_eq!(read(&p, slot, 9, &rows), [1, 2]);
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    let mut wake = Wake::default();
    p.drop_vanished(slot, 1, TAG, NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [9]);
    p.start_refill(slot, 1, NOW, None).unwrap();
    for row in &rows[1..] {
        p.found(slot, row, NOW, &mut Wake::default()).unwrap();
        walk(&p);
    }
    p.end_refill(slot, 1, Some(i64::MAX), None, &mut Wake::default()).unwrap();
    assert_eq!(read(&p, slot, 9, &rows), [3]);
}

#[test]
fn a_read_parks_a_bounded_number_under_one_hold_of_the_lock() {
    let words = allocate(12_000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 200);
    let rows: Vec<Entry> = (1..=150).map(member).collect();
    send(&p, slot, rows.clone());
    assert_eq!(read(&p, slot, 150, &rows).len(), 150);
    limit(&p, slot, 1);
    for id in 1..150 {
        release_with_backoff(&p, slot, id, 0);
    }
    send(&p, slot, [entry(999)]);
    assert_eq!(take_at(&p, slot, 1, NOW), []);
    assert_eq!(lanes(&p, slot).map(|lanes| lanes.parked), Some(PASSES as u32));
    let taken: Vec<Delivery> = (0..2).flat_map(|_| take_at(&p, slot, 1, NOW)).collect();
    assert_eq!(taken.iter().map(|one| one.msg_id).collect::<Vec<_>>(), [999], "messages without a group pass them");
}

#[test]
fn one_that_was_dropped_comes_back_into_its_group() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    limit(&p, slot, 2);
    let rows: Vec<Entry> = (1..=6).map(member).collect();
    send(&p, slot, rows.clone());
    assert_eq!(read(&p, slot, 9, &rows), [1, 2]);
    release_with_backoff(&p, slot, 1, 0);
    p.drop_known(slot, p.lookup(slot, 1).unwrap().unwrap()).unwrap();
    assert_eq!(p.reach(slot), Ok((0, i64::MAX)));
    assert_eq!(lanes(&p, slot).map(|lanes| (lanes.running, lanes.members)), Some((1, 1)));
    p.start_refill(slot, 1, NOW, None).unwrap();
    for row in &rows {
        p.found(slot, row, NOW, &mut Wake::default()).unwrap();
        walk(&p);
    }
    p.end_refill(slot, 1, Some(i64::MAX), None, &mut Wake::default()).unwrap();
    let mut got = read(&p, slot, 9, &rows);
    for _ in 0..9 {
        for id in got.clone() {
            finish(&p, slot, id);
        }
        got.extend(read(&p, slot, 9, &rows));
    }
    got.sort_unstable();
    got.dedup();
    assert_eq!(got, [1, 3, 4, 5, 6]);
}
