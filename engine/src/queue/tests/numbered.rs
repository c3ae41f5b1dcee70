//! Messages that stand in line by their numbers.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, entry, fresh};
use crate::queue::{Delivery, Entry, Options, Partition, Wake};
use crate::words::allocate;

const NUMBERED: Options = Options { max_attempts: u32::MAX, retry_backoff: 0, ..OPTIONS };

fn send(p: &Partition<'_>, slot: u32, entry: &Entry, now: i64) {
    p.sent(slot, entry, now, &mut Wake::default()).unwrap();
}

fn read(p: &Partition<'_>, slot: u32, now: i64, want: usize, timeout: i64) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(want);
    while !p.expire(slot, now, 100, &mut Wake::default()).unwrap() {}
    p.take(slot, 1, now, want, timeout, &mut taken, &mut Wake::default()).unwrap();
    walk(p);
    taken
}

fn numbers(p: &Partition<'_>, slot: u32, now: i64, want: usize) -> Vec<i64> {
    read(p, slot, now, want, 0).iter().map(|taken| taken.msg_id).collect()
}

#[test]
fn whatever_comes_back_stands_by_its_number() {
    let words = allocate(40_000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, NUMBERED, NOW).unwrap();
    send(&p, slot, &Entry { deliver_at: Some(NOW + SECOND), ..entry(1) }, NOW);
    for id in 2..=6 {
        send(&p, slot, &entry(id), NOW);
    }
    // 2 for long, 3 for short; then 4 is read and given back, 5 deleted and rolled back, 6 rests.
    read(&p, slot, NOW, 1, 9 * SECOND);
    read(&p, slot, NOW, 1, SECOND);
    let four = read(&p, slot, NOW, 1, 60 * SECOND)[0];
    p.start_busy(slot, 5, None, NOW).unwrap();
    p.schedule_retry(slot, &Entry { deliver_at: Some(NOW + SECOND), ..entry(6) }, NOW, &mut Wake::default()).unwrap();
    assert_eq!(numbers(&p, slot, NOW, 9), []);
    p.undo_lease(slot, 4, four.lease, NOW, &mut Wake::default()).unwrap();
    p.end_busy(slot, 5, entry(5).tag, false, NOW, &mut Wake::default()).unwrap();
    assert_eq!(numbers(&p, slot, NOW, 9), [4, 5]);
    assert_eq!(numbers(&p, slot, NOW + 2 * SECOND, 9), [1, 3, 4, 5, 6]);
    assert_eq!(numbers(&p, slot, NOW + 20 * SECOND, 9), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn many_that_come_back_out_of_order_are_near_their_places() {
    let words = allocate(400_000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, NUMBERED, NOW).unwrap();
    for id in 1..=1000 {
        send(&p, slot, &entry(id), NOW);
    }
    // From the back to the front, then those in the middle, for which no place is near.
    let all = read(&p, slot, NOW, 1000, 60 * SECOND);
    for taken in all.iter().rev().filter(|taken| !(400..=600).contains(&taken.msg_id)) {
        p.undo_lease(slot, taken.msg_id, taken.lease, NOW, &mut Wake::default()).unwrap();
    }
    for taken in all.iter().filter(|taken| (400..=600).contains(&taken.msg_id)) {
        p.undo_lease(slot, taken.msg_id, taken.lease, NOW, &mut Wake::default()).unwrap();
    }
    let got = numbers(&p, slot, NOW, 1000);
    assert_eq!(got.len(), 1000);
    assert_eq!(got[..60], (1..=60).collect::<Vec<_>>());
    let outside: Vec<i64> = got.iter().copied().filter(|id| !(400..=600).contains(id)).collect();
    assert!(outside.is_sorted());
}

#[test]
fn elsewhere_they_come_back_in_the_order_of_time() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, &Entry { deliver_at: Some(NOW + SECOND), ..entry(1) }, NOW);
    send(&p, slot, &entry(2), NOW);
    assert_eq!(numbers(&p, slot, NOW + 2 * SECOND, 9), [2, 1]);
}
