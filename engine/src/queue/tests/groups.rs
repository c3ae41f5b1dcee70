//! Groups and limits, rule by rule.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, entry, fresh, list};
use crate::queue::layout::{BLOCKED, DELAYED, LEASED, Partition, Q};
use crate::queue::{Entry, MOST_BLOCKED, Options, Overtaken, Taken, Wake};
use crate::words::allocate;

fn member(msg_id: i64, group: u64) -> Entry {
    Entry { group, ..entry(msg_id) }
}

fn send(p: &Partition<'_>, slot: u32, entries: impl IntoIterator<Item = Entry>) {
    for entry in entries {
        p.sent(slot, &entry, NOW, &mut Wake::default()).unwrap();
    }
}

fn take(p: &Partition<'_>, slot: u32, want: usize) -> Vec<Taken> {
    take_at(p, slot, want, NOW)
}

fn take_at(p: &Partition<'_>, slot: u32, want: usize, now: i64) -> Vec<Taken> {
    let mut taken = Vec::with_capacity(want);
    p.take(slot, now, want, OPTIONS.visibility_timeout, &mut taken).unwrap();
    walk(p);
    taken
}

fn ids(taken: &[Taken]) -> Vec<i64> {
    taken.iter().map(|taken| taken.msg_id).collect()
}

fn finish(p: &Partition<'_>, slot: u32, msg_id: i64) -> Wake {
    let mut wake = Wake::default();
    p.drop_message(slot, msg_id, &mut wake).unwrap();
    walk(p);
    wake
}

#[test]
fn one_of_a_group_at_a_time_and_others_go_on() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [member(1, 7), member(2, 7), member(3, 8), entry(4), member(5, 7)]);
    assert_eq!(ids(&take(&p, slot, 10)), [1, 3, 4]);
    assert_eq!(ids(&take(&p, slot, 10)), [] as [i64; 0]);
    p.wait(slot, 9).unwrap();
    assert_eq!(finish(&p, slot, 1).processes(), [9], "whoever waits gets the next of the group");
    assert_eq!(ids(&take(&p, slot, 10)), [2]);
    finish(&p, slot, 2);
    assert_eq!(ids(&take(&p, slot, 10)), [5]);
}

#[test]
fn a_message_that_failed_or_rests_holds_its_group_up() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [member(1, 7), member(2, 7)]);
    let taken = take(&p, slot, 2);
    p.give_back(slot, 1, taken[0].lease, NOW, 5 * SECOND, &mut Wake::default()).unwrap();
    assert_eq!(list(&p, slot, 1), Some(DELAYED));
    assert_eq!(take(&p, slot, 2), []);
    p.expire(NOW + 6 * SECOND, 10, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take_at(&p, slot, 2, NOW + 6 * SECOND)), [1]);
    p.expire(NOW + 99 * SECOND, 10, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take_at(&p, slot, 2, NOW + 99 * SECOND)), [1], "its lease ran out");
}

#[test]
fn an_earlier_message_goes_first_unless_the_later_one_was_delivered() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let late = Entry { deliver_at: Some(NOW + SECOND), ..member(1, 7) };
    send(&p, slot, [member(3, 7), member(2, 7), late]);
    assert_eq!((list(&p, slot, 1), list(&p, slot, 2)), (Some(DELAYED), Some(BLOCKED)));
    assert_eq!(take(&p, slot, 9), []);
    send(&p, slot, [member(6, 8)]);
    assert_eq!(ids(&take(&p, slot, 9)), [6]);
    send(&p, slot, [member(5, 8)]);
    assert_eq!(take(&p, slot, 9), [], "6 is under way");
    finish(&p, slot, 6);
    assert_eq!(ids(&take(&p, slot, 9)), [5]);
}

#[test]
fn a_long_group_is_read_from_the_table_piece_by_piece() {
    let words = allocate(8000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let most = i64::from(MOST_BLOCKED);
    send(&p, slot, (1..=most + 20).map(|id| member(id, 7)));
    send(&p, slot, [entry(1000)]);
    assert_eq!(list(&p, slot, most + 1), Some(BLOCKED));
    assert_eq!(list(&p, slot, most + 2), None, "left to the table");
    assert_eq!(p.q_i64(slot, Q::Frontier), Ok(i64::MAX), "and the queue needs no refill for it");
    assert_eq!(ids(&take(&p, slot, 9)), [1, 1000]);
    for id in 1..=most {
        finish(&p, slot, id);
        let taken = take(&p, slot, 9);
        assert_eq!(ids(&taken), [id + 1]);
        assert_eq!(taken[0].ends_group, id == most);
    }
    let last = most + 1;
    assert_eq!(p.start_group(slot, 7, 3), Ok(Some(last)));
    for id in last + 1..=most + 20 {
        assert_eq!(p.found_in_group(slot, &member(id, 7), NOW), Ok(true));
    }
    // Committed after the snapshot, and left out: the reading has not reached it.
    send(&p, slot, [member(most + 21, 7)]);
    p.end_group(slot, 7, 3, i64::MAX).unwrap();
    for id in last..most + 20 {
        finish(&p, slot, id);
        assert_eq!(ids(&take(&p, slot, 9)), [id + 1]);
    }
    assert_eq!(p.start_group(slot, 7, 3), Ok(Some(most + 20)));
}

#[test]
fn a_group_that_nobody_has_read_on_is_found_by_a_refill() {
    let words = allocate(8000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, (1..=100).map(|id| member(id, 7)));
    for id in 1..=i64::from(MOST_BLOCKED) + 1 {
        finish(&p, slot, id);
    }
    assert_eq!(p.q_i64(slot, Q::Frontier), Ok(i64::from(MOST_BLOCKED) + 1));
    assert!(p.outlook(slot, 1, NOW).unwrap().refill);
}

/// The table may hold messages with a delivery time that the index doesn't know.
fn doubt(p: &Partition<'_>, slot: u32) {
    p.start_refill(slot, 1, NOW, None).unwrap();
    p.end_refill(slot, 1, Some(i64::MAX), Some(NOW - 1), NOW, &mut Wake::default()).unwrap();
    p.start_refill(slot, 1, i64::MIN, None).unwrap();
    p.lower(slot, Q::Horizon, Q::HorizonFloor, NOW).unwrap();
    p.end_refill(slot, 1, None, None, NOW, &mut Wake::default()).unwrap();
}

#[test]
fn a_message_that_was_delivered_is_not_overtaken_any_more() {
    for max_attempts in [1, 2] {
        let words = allocate(4000);
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        p.set_options(slot, Options { max_attempts, ..OPTIONS }).unwrap();
        doubt(&p, slot);
        send(&p, slot, [member(5, 7)]);
        assert!(take(&p, slot, 1)[0].unsure);
        p.expire(NOW + 99 * SECOND, 1, &mut Wake::default()).unwrap();
        let again = take_at(&p, slot, 1, NOW + 99 * SECOND)[0];
        assert_eq!((again.exhausted, again.unsure), (max_attempts == 1, false));
    }
}

#[test]
fn an_earlier_one_in_the_table_goes_before_the_leased_one() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    doubt(&p, slot);
    send(&p, slot, [member(5, 7)]);
    let taken = take(&p, slot, 1);
    assert!(taken[0].unsure);
    let earlier = Entry { deliver_at: Some(NOW + SECOND), ..member(2, 7) };
    let waits = p.overtaken(slot, 5, taken[0].lease, &earlier, NOW, &mut Wake::default());
    assert_eq!(waits, Ok(Overtaken::Waits));
    assert_eq!((list(&p, slot, 2), list(&p, slot, 5)), (Some(DELAYED), Some(BLOCKED)));
    p.expire(NOW + SECOND, 1, &mut Wake::default()).unwrap();
    let taken = take_at(&p, slot, 9, NOW + SECOND);
    assert_eq!((taken[0].msg_id, taken[0].attempts), (2, 1));
    finish(&p, slot, 2);
    let taken = take_at(&p, slot, 9, NOW + SECOND);
    assert_eq!((taken[0].msg_id, taken[0].attempts), (5, 1), "the lease that was taken back was no attempt");
}

#[test]
fn what_is_in_flight_is_limited() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_in_flight: 2, ..OPTIONS }).unwrap();
    send(&p, slot, (1..=5).map(entry));
    assert_eq!(ids(&take(&p, slot, 9)), [1, 2]);
    assert_eq!(p.outlook(slot, 1, NOW).unwrap().ready, 0);
    p.start_busy(slot, 1, None, NOW).unwrap();
    assert_eq!(take(&p, slot, 9), [], "a message that is being finished is in flight");
    p.wait(slot, 9).unwrap();
    let mut wake = Wake::default();
    p.end_busy(slot, 1, true, NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [9]);
    assert_eq!(ids(&take(&p, slot, 9)), [3]);
    assert_eq!(list(&p, slot, 3), Some(LEASED));
}

#[test]
fn deliveries_are_limited_in_time() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_rate: 2, rate_period: SECOND, ..OPTIONS }).unwrap();
    send(&p, slot, (1..=9).map(entry));
    assert_eq!(ids(&take(&p, slot, 9)), [1, 2]);
    let outlook = p.outlook(slot, 1, NOW).unwrap();
    assert_eq!((outlook.ready, outlook.next), (0, Some(NOW + SECOND / 2)));
    assert_eq!(take_at(&p, slot, 9, NOW + SECOND / 2 - 1), []);
    assert_eq!(ids(&take_at(&p, slot, 9, NOW + SECOND / 2)), [3]);
    p.not_delivered(slot, 1, NOW + SECOND / 2).unwrap();
    assert_eq!(ids(&take_at(&p, slot, 9, NOW + SECOND / 2)), [4], "a row that was gone doesn't count");
}
