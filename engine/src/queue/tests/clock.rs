//! A clock that is set back.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, TAG, entry, fresh, list};
use crate::queue::layout::{DELAYED, Partition};
use crate::queue::{Delivery, Entry, Options, Wake};
use crate::words::allocate;

fn send(p: &Partition<'_>, slot: u32, entries: impl IntoIterator<Item = Entry>) {
    for entry in entries {
        p.sent(slot, &entry, NOW, &mut Wake::default()).unwrap();
    }
}

fn take(p: &Partition<'_>, slot: u32, now: i64) -> Vec<Delivery> {
    let (mut taken, mut wake) = (Vec::with_capacity(10), Wake::default());
    p.expire(slot, now, 100, &mut wake).unwrap();
    p.take(slot, 77, now, 10, 30 * SECOND, &mut taken, &mut wake).unwrap();
    walk(p);
    p.expire(slot, now, 100, &mut wake).unwrap();
    p.take(slot, 77, now, 10, 30 * SECOND, &mut taken, &mut wake).unwrap();
    walk(p);
    taken
}

fn ids(taken: &[Delivery]) -> Vec<i64> {
    let mut ids: Vec<i64> = taken.iter().map(|taken| taken.msg_id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_lease_does_not_last_longer() {
    for back in [SECOND / 2, 20 * SECOND, 3600 * SECOND, 10 * 365 * 86_400 * SECOND] {
        let words = allocate(4000);
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        p.set_options(slot, Options { max_attempts: 9, ..OPTIONS }, NOW).unwrap();
        send(&p, slot, (1..=3).map(entry));
        let leases = take(&p, slot, NOW);
        assert_eq!(ids(&leases), [1, 2, 3]);
        // One is being finished meanwhile, and one has been given ten seconds more.
        p.start_busy(slot, 2, Some(leases[1].lease), NOW).unwrap();
        p.extend(slot, 3, None, NOW, NOW + 40 * SECOND, &mut Wake::default()).unwrap();
        assert_eq!(take(&p, slot, NOW + 10 * SECOND), []);
        // From here on the clock is back.
        let at = |seconds: i64| NOW + seconds * SECOND - back;
        assert_eq!(take(&p, slot, at(10)), [], "20 seconds are left");
        p.end_busy(slot, 2, TAG, false, at(20), &mut Wake::default()).unwrap();
        assert_eq!(take(&p, slot, at(29)), [], "back by {back}");
        assert_eq!(ids(&take(&p, slot, at(30))), [1, 2], "back by {back}");
        assert_eq!(ids(&take(&p, slot, at(40))), [3], "back by {back}");
    }
}

#[test]
fn a_rest_does_not_last_longer_and_a_delivery_time_is_a_time() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 2);
    let slot = slots[0];
    p.set_options(slot, Options { max_attempts: 9, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, [entry(1), Entry { deliver_at: Some(NOW + 20 * SECOND), ..entry(2) }]);
    let lease = take(&p, slot, NOW)[0].lease;
    p.release_with_backoff(slot, 1, lease, NOW, 10 * SECOND, &mut Wake::default()).unwrap();
    assert_eq!(list(&p, slot, 1), Some(DELAYED));
    // Whichever queue of the partition is read.
    let back = 3600 * SECOND;
    take(&p, slots[1], NOW + SECOND);
    take(&p, slots[1], NOW + SECOND - back);
    assert_eq!(take(&p, slot, NOW + 9 * SECOND - back), []);
    assert_eq!(ids(&take(&p, slot, NOW + 10 * SECOND - back)), [1]);
    assert_eq!(list(&p, slot, 2), Some(DELAYED));
    p.extend(slot, 1, None, NOW + 10 * SECOND - back, NOW + 60 * SECOND, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take(&p, slot, NOW + 20 * SECOND)), [2]);
}

#[test]
fn a_rest_does_not_last_longer_for_a_delivery_time_or_a_transaction_that_has_the_message_in_hand() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_attempts: 9, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, [entry(1), Entry { deliver_at: Some(NOW - SECOND), ..entry(2) }]);
    let leases = take(&p, slot, NOW);
    for taken in &leases {
        p.release_with_backoff(slot, taken.msg_id, taken.lease, NOW, 10 * SECOND, &mut Wake::default()).unwrap();
    }
    p.start_busy(slot, 1, None, NOW).unwrap();
    let back = 3600 * SECOND;
    take(&p, slot, NOW + SECOND);
    take(&p, slot, NOW + SECOND - back);
    p.end_busy(slot, 1, TAG, false, NOW + SECOND - back, &mut Wake::default()).unwrap();
    assert_eq!(take(&p, slot, NOW + 8 * SECOND - back), []);
    assert_eq!(ids(&take(&p, slot, NOW + 10 * SECOND - back)), [1, 2]);
}

#[test]
fn what_begins_by_the_clock_that_is_back_is_not_cut_short() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_attempts: 9, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, [entry(1), entry(2)]);
    let leases = take(&p, slot, NOW);
    // Nobody has read since the clock was set back.
    let now = NOW - 3600 * SECOND;
    p.extend(slot, 1, None, now, now + 30 * SECOND, &mut Wake::default()).unwrap().unwrap();
    p.release_with_backoff(slot, 2, leases[1].lease, now, 10 * SECOND, &mut Wake::default()).unwrap();
    assert_eq!(take(&p, slot, now + 9 * SECOND), []);
    assert_eq!(ids(&take(&p, slot, now + 11 * SECOND)), [2]);
    assert_eq!(ids(&take(&p, slot, now + 31 * SECOND)), [1]);
}

#[test]
fn a_clock_that_is_back_by_little_changes_nothing() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_attempts: 9, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, [entry(1)]);
    let until = take(&p, slot, NOW)[0].until;
    for step in 0..100 {
        assert_eq!(take(&p, slot, NOW - step % 2 * 9_000), []);
    }
    assert_eq!(walk(&p)[&slot].messages[&1].due, until);
}
