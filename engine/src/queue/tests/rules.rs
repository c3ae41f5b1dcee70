//! The rules one by one: those that are easily broken, and those that random histories seldom meet.

use super::check::walk;
use crate::queue::layout::{BUSY, DELAYED, Head, LEASED, USED_UP};
use crate::queue::{
    Busy, Claimed, Counters, Delivery, Entry, Found, Options, Partition, QueueKey, Tag, Tid, Wake, format,
};
use crate::words::{Corrupt, Words, allocate};
use std::collections::BTreeMap;

pub(super) const NOW: i64 = 1_000_000_000;
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const OPTIONS: Options = Options {
    visibility_timeout: 30 * SECOND,
    max_attempts: 2,
    retry_backoff: 0,
    retry_backoff_max: 0,
    archive_for: 0,
    paused: false,
    max_in_flight: 0,
    max_rate: 0,
    rate_period: 0,
    durable_attempts: false,
    ack_async: false,
    group_limit: 1,
    group_rate: 0,
    group_rate_period: 0,
};

/// The tag of every row here that isn't said to be another.
pub(super) const TAG: Tag = Tag { sent: 7, writer: 9 };

pub(super) fn key(relation: u32) -> QueueKey {
    QueueKey { database: 1, relation }
}

pub(super) fn entry(msg_id: i64) -> Entry {
    let tid = Tid { block: 7, offset: 1 };
    Entry { msg_id, tid, priority: 0, attempts: 0, deliver_at: None, group: 0, tag: TAG }
}

/// A partition with some queues whose tables have been read to their end.
pub(super) fn fresh(words: Words<'_>, queues: u32) -> (Partition<'_>, Vec<u32>) {
    format(words, 7 << 40);
    let p = Partition::new(words);
    let slots = (1..=queues).map(|relation| p.attach(key(relation), OPTIONS).unwrap().unwrap()).collect::<Vec<_>>();
    for &slot in &slots {
        end_refill(&p, slot, i64::MAX, i64::MAX);
    }
    (p, slots)
}

fn end_refill(p: &Partition<'_>, slot: u32, frontier: i64, horizon: i64) {
    p.start_refill(slot, 1, NOW, None).unwrap().unwrap();
    p.end_refill(slot, 1, Some(frontier), Some(horizon), &mut Wake::default()).unwrap();
}

fn send(p: &Partition<'_>, slot: u32, ids: impl IntoIterator<Item = i64>) {
    for id in ids {
        p.sent(slot, &entry(id), NOW, &mut Wake::default()).unwrap();
    }
}

fn take(p: &Partition<'_>, slot: u32, now: i64, want: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(want);
    p.take(slot, 77, now, want, OPTIONS.visibility_timeout, &mut taken, &mut Wake::default()).unwrap();
    taken
}

fn expire(p: &Partition<'_>, now: i64) {
    let mut from = 0;
    while let Some((_, slot)) = p.key_from(from).unwrap() {
        p.expire(slot, now, p.records, &mut Wake::default()).unwrap();
        from = slot;
    }
}

pub(super) fn list(p: &Partition<'_>, slot: u32, id: i64) -> Option<usize> {
    walk(p)[&slot].messages.get(&id).map(|message| message.list)
}

#[test]
fn a_queue_is_detached_in_steps() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 2);
    send(&p, slots[0], 1..=10);
    send(&p, slots[1], 1..=10);
    let taken = take(&p, slots[0], NOW, 4);
    p.start_busy(slots[0], taken[0].msg_id, None, NOW).unwrap();
    p.release_with_backoff(slots[0], taken[1].msg_id, taken[1].lease, NOW, SECOND, &mut Wake::default()).unwrap();
    p.wait(slots[0], 5, NOW, i64::MAX).unwrap().unwrap();
    let mut wake = Wake::default();
    for left in (1..11).rev() {
        assert_eq!(p.detach(slots[0], 1, NOW, &mut wake), Ok(false));
        let holding = &walk(&p)[&slots[0]];
        assert_eq!(holding.messages.len() + holding.waiting.len(), left);
    }
    assert_eq!(p.detach(slots[0], 1, NOW, &mut wake), Ok(true));
    assert_eq!(wake.processes(), [5]);
    let shape = walk(&p);
    assert_eq!(shape.keys().collect::<Vec<_>>(), [&slots[1]]);
    assert_eq!(shape[&slots[1]].messages.len(), 10);
    assert_eq!(p.find(key(1)), Ok(None));
    // The next queue gets the slot and nothing of what was in it.
    let slot = p.attach(key(3), OPTIONS).unwrap().unwrap();
    assert_eq!(slot, slots[0]);
    assert_eq!(p.counters(slot).unwrap(), Counters::default());
    assert!(p.queue_state(slot, 1, NOW).unwrap().refill);
}

#[test]
fn there_is_room_for_so_many_queues() {
    let words = allocate(3 * 1024);
    let (p, slots) = fresh(&words, 3);
    assert_eq!(p.attach(key(4), OPTIONS), Ok(None));
    assert_eq!(p.attach(key(2), OPTIONS), Ok(Some(slots[1])));
    walk(&p);
}

/// What a message that comes due after `delay` wakes.
fn woken_by_delayed(p: &Partition<'_>, slot: u32, id: i64, delay: i64) -> Vec<u32> {
    let mut wake = Wake::default();
    p.sent(slot, &Entry { deliver_at: Some(NOW + delay), ..entry(id) }, NOW, &mut wake).unwrap();
    wake.processes().to_vec()
}

#[test]
fn a_timer_wakes_the_one_that_keeps_watch_in_its_own_queue() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 2);
    for (slot, process) in [(slots[0], 4), (slots[1], 5), (slots[1], 6)] {
        assert_eq!(p.wait(slot, process, NOW, NOW + 30 * SECOND).unwrap().unwrap().alarm, NOW + 30 * SECOND);
    }
    assert_eq!(woken_by_delayed(&p, slots[1], 1, 31 * SECOND), [], "it looks by itself before");
    assert_eq!(woken_by_delayed(&p, slots[1], 2, SECOND), [6], "it would sleep for longer");
    // It looks, and sleeps again: until then.
    assert_eq!(p.wait(slots[1], 6, NOW, NOW + 30 * SECOND).unwrap().unwrap().alarm, NOW + SECOND);
    assert_eq!(woken_by_delayed(&p, slots[1], 3, 2 * SECOND), []);
    assert_eq!(woken_by_delayed(&p, slots[0], 1, 2 * SECOND), [4]);
    // Others that come sleep until they are woken, and are woken before the one that keeps watch.
    assert_eq!(p.wait(slots[1], 7, NOW, NOW + 30 * SECOND).unwrap().unwrap().alarm, NOW + 30 * SECOND);
    assert_eq!(walk(&p)[&slots[1]].waiting, [5, 7, 6]);
}

#[test]
fn the_watch_is_handed_on() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    woken_by_delayed(&p, slot, 1, SECOND);
    let place = p.wait(slot, 5, NOW, i64::MAX).unwrap().unwrap();
    p.wait(slot, 6, NOW, i64::MAX).unwrap().unwrap();
    let watch = || {
        let mut wake = Wake::default();
        p.watch(slot, NOW, &mut wake).unwrap();
        wake.processes().to_vec()
    };
    assert_eq!(walk(&p)[&slot].waiting, [6, 5]);
    assert_eq!(watch(), []);
    assert_eq!(p.leave(slot, place.record, 5), Ok(true));
    assert_eq!(watch(), [6]);
    // A lease that is made shorter, and a timer that stood still.
    p.wait(slot, 7, NOW, NOW + SECOND / 2).unwrap().unwrap();
    send(&p, slot, [2]);
    let lease = take(&p, slot, NOW, 1)[0].lease;
    p.wait(slot, 7, NOW, NOW + SECOND / 2).unwrap().unwrap();
    let mut wake = Wake::default();
    p.extend(slot, 2, Some(lease), NOW, NOW + SECOND / 4, &mut wake).unwrap().unwrap();
    assert_eq!(wake.processes(), [7]);
    p.start_busy(slot, 2, Some(lease), NOW).unwrap();
    p.wait(slot, 8, NOW, NOW + SECOND / 2).unwrap().unwrap();
    let mut wake = Wake::default();
    p.end_busy(slot, 2, TAG, false, NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [8]);
    // Where the queue is paused nothing comes due.
    p.set_options(slot, Options { paused: true, ..OPTIONS }, NOW).unwrap();
    p.wait(slot, 9, NOW, i64::MAX).unwrap().unwrap();
    assert_eq!(watch(), []);
}

#[test]
fn what_a_full_wake_list_has_no_place_for_is_owed() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.invalidate_watermark(slot).unwrap();
    p.start_refill(slot, 1, NOW, None).unwrap().unwrap();
    for process in 0..70 {
        p.wait(slot, process, NOW, i64::MAX).unwrap().unwrap();
    }
    let mut wake = Wake::default();
    for id in 1..=70 {
        p.found(slot, &entry(id), NOW, &mut wake).unwrap();
    }
    p.end_refill(slot, 1, Some(i64::MAX), Some(i64::MAX), &mut wake).unwrap();
    assert_eq!(wake.processes().len(), 64);
    assert_eq!(take(&p, slot, NOW, 1).len(), 1);
    let mut wake = Wake::default();
    p.watch(slot, NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [65, 66, 67, 68, 69, 0], "the first of them keeps watch");
}

#[test]
fn who_keeps_watch_may_be_the_last_that_is_owed_a_wake_up() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    for process in 0..70 {
        p.wait(slot, process, NOW, i64::MAX).unwrap().unwrap();
    }
    let mut wake = Wake::default();
    for id in 1..=70 {
        p.sent(slot, &entry(id), NOW, &mut wake).unwrap();
    }
    assert_eq!((wake.processes().len(), take(&p, slot, NOW, 64).len()), (64, 64));
    let mut wake = Wake::default();
    p.watch(slot, NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [64, 65, 66, 67, 68, 69]);
    walk(&p);
}

#[test]
fn the_rate_lets_more_than_one_go_at_a_time() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_rate: 2, rate_period: SECOND, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, [1, 2, 3, 4]);
    assert_eq!(take(&p, slot, NOW, 4).len(), 2);
    let alarms = [5, 6].map(|process| p.wait(slot, process, NOW, i64::MAX).unwrap().unwrap().alarm);
    assert!(alarms[0] < i64::MAX && alarms[1] == i64::MAX, "one keeps watch: {alarms:?}");
    // It looks when the time has come, and takes one of the two that it is the time for.
    let later = NOW + 2 * SECOND;
    assert_eq!(take(&p, slot, later, 1).len(), 1);
    let mut wake = Wake::default();
    p.watch(slot, later, &mut wake).unwrap();
    assert_eq!(wake.processes().len(), 1);
}

#[test]
fn a_full_wake_list_delays_detaching() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    for process in 0..70 {
        p.wait(slots[0], process, NOW, i64::MAX).unwrap().unwrap();
    }
    let mut wake = Wake::default();
    assert_eq!(p.detach(slots[0], usize::MAX, NOW, &mut wake), Ok(false));
    assert_eq!(wake.processes(), (0..64).collect::<Vec<_>>());
    let mut wake = Wake::default();
    assert_eq!(p.detach(slots[0], usize::MAX, NOW, &mut wake), Ok(true));
    assert_eq!(wake.processes(), (64..70).collect::<Vec<_>>());
}

#[test]
fn a_full_wake_list_loses_nobody() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    for process in 0..70 {
        p.wait(slots[0], process, NOW, i64::MAX).unwrap().unwrap();
    }
    let mut wake = Wake::default();
    for id in 1..=70 {
        p.sent(slots[0], &entry(id), NOW, &mut wake).unwrap();
    }
    assert_eq!(wake.processes(), (0..64).collect::<Vec<_>>());
    assert_eq!(walk(&p)[&slots[0]].waiting, (64..70).collect::<Vec<_>>());
    let mut wake = Wake::default();
    p.forward_wakeup(slots[0], &mut wake).unwrap();
    assert_eq!(wake.processes(), [64]);
}

#[test]
fn timers_stop_at_a_full_wake_list_and_go_on() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    send(&p, slots[0], 1..=100);
    let count = take(&p, slots[0], NOW, 100).len();
    for process in 0..70 {
        p.wait(slots[0], process, NOW, i64::MAX).unwrap().unwrap();
    }
    let later = NOW + 31 * SECOND;
    let mut wake = Wake::default();
    p.expire(slots[0], later, 1000, &mut wake).unwrap();
    assert_eq!((wake.processes().len(), walk(&p)[&slots[0]].ready.len()), (64, 64));
    assert!(p.queue_state(slots[0], 1, later).unwrap().next.unwrap() <= later, "there are more");
    let mut wake = Wake::default();
    p.expire(slots[0], later, 1000, &mut wake).unwrap();
    assert_eq!((wake.processes().len(), walk(&p)[&slots[0]].ready.len()), (6, count));
}

#[test]
fn a_queue_without_room_takes_it_from_another() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 3);
    // The second takes what it may, the third most of the rest with leases, and sessions that wait the very last.
    let mut id = 0;
    while p.head(Head::FreeRecords).unwrap() > p.records as u64 / 8 {
        send(&p, slots[1], [id + 1]);
        send(&p, slots[2], [id + 1]);
        take(&p, slots[2], NOW, 1);
        id += 1;
    }
    while p.head(Head::FreeRecords).unwrap() > 0 {
        p.wait(slots[2], 3, NOW, i64::MAX).unwrap().unwrap();
    }
    let ready = p.queue_state(slots[1], 1, NOW).unwrap().ready;
    assert!(ready > 0);
    let others = walk(&p)[&slots[1]].ready.clone();
    send(&p, slots[0], [id + 1]);
    assert_eq!(list(&p, slots[0], id + 1), Some(0));
    let left = walk(&p)[&slots[1]].ready.clone();
    assert!(left.len() < others.len());
    assert_eq!(left, others[..left.len()], "the last ones have gone");
    let (frontier, _) = p.reach(slots[1]).unwrap();
    assert_eq!(frontier, others[left.len()] - 1, "and the table is read again from the first of them on");
}

#[test]
fn lease_numbers_never_repeat() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    send(&p, slots[0], [1]);
    let mut last = 0;
    for _ in 0..100 {
        let taken = take(&p, slots[0], NOW, 1)[0];
        assert!(taken.lease > last);
        last = taken.lease;
        p.undo_lease(slots[0], 1, taken.lease, NOW, &mut Wake::default()).unwrap();
    }
    // Nor when the memory was lost meanwhile, wherever the numbers start now.
    format(&words, 8 << 40);
    let slot = p.attach(key(1), OPTIONS).unwrap().unwrap();
    end_refill(&p, slot, i64::MAX, i64::MAX);
    send(&p, slot, [1]);
    let taken = take(&p, slot, NOW, 1)[0];
    assert_ne!(taken.lease, last);
    assert_eq!(p.start_busy(slot, 1, Some(last), NOW), Ok(Busy::Stale));
    assert_eq!(p.extend(slot, 1, Some(last), NOW, NOW + 9 * SECOND, &mut Wake::default()), Ok(None));
    for random in [0, 1, u64::MAX] {
        format(&words, random);
        let first = p.head(Head::NextLease).unwrap();
        assert!(first > 0 && first.checked_add(1 << 60).is_some_and(|later| i64::try_from(later).is_ok()), "{first}");
    }
}

#[test]
fn a_lease_stands_still_while_a_transaction_deletes() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    send(&p, slots[0], [1]);
    let lease = take(&p, slots[0], NOW, 1)[0].lease;
    let claimed =
        Claimed { tid: Tid { block: 7, offset: 1 }, tag: TAG, attempts: 1, find_next: false, ack_async: false };
    assert_eq!(p.start_busy(slots[0], 1, Some(lease), NOW), Ok(Busy::Yours(claimed)));
    let much_later = NOW + 3600 * SECOND;
    expire(&p, much_later);
    assert_eq!(list(&p, slots[0], 1), Some(BUSY));
    assert_eq!(take(&p, slots[0], much_later, 1), []);
    assert_eq!(p.start_busy(slots[0], 1, None, much_later), Ok(Busy::Others));
    assert_eq!(p.extend(slots[0], 1, None, much_later, much_later + SECOND, &mut Wake::default()), Ok(None));
    p.end_busy(slots[0], 1, TAG, false, NOW, &mut Wake::default()).unwrap();
    assert_eq!(list(&p, slots[0], 1), Some(LEASED));
    // It has run out in the meantime.
    assert_eq!(p.start_busy(slots[0], 1, Some(lease), much_later), Ok(Busy::Stale));
    expire(&p, much_later);
    assert_eq!(take(&p, slots[0], much_later, 1)[0].attempts, 2);
}

#[test]
fn what_was_set_aside_returns_to_where_it_was() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, 1..=3);
    let taken = take(&p, slot, NOW, 1)[0];
    p.release_with_backoff(slot, taken.msg_id, taken.lease, NOW, 5 * SECOND, &mut Wake::default()).unwrap();
    for id in [1, 2] {
        assert!(matches!(p.start_busy(slot, id, None, NOW), Ok(Busy::Yours(_))));
    }
    expire(&p, NOW + 60 * SECOND);
    assert_eq!((list(&p, slot, 1), list(&p, slot, 2)), (Some(BUSY), Some(BUSY)));
    for id in [1, 2] {
        p.end_busy(slot, id, TAG, false, NOW, &mut Wake::default()).unwrap();
    }
    assert_eq!(list(&p, slot, 1), Some(DELAYED));
    assert_eq!(walk(&p)[&slot].ready, [2, 3], "in front, where it was");
    expire(&p, NOW + 60 * SECOND);
    assert_eq!(walk(&p)[&slot].ready, [2, 3, 1], "what has rested goes behind those that wait");
}

#[test]
fn a_lease_that_ran_out_is_no_lease() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [1]);
    let lease = take(&p, slot, NOW, 1)[0].lease;
    let end = NOW + 30 * SECOND;
    let extend = |lease, now| -> Result<Option<i64>, Corrupt> {
        let extended = p.extend(slot, 1, lease, now, now + SECOND, &mut Wake::default())?;
        Ok(extended.map(|extended| extended.until))
    };
    // Before anyone has looked at the timers, and after.
    assert_eq!(extend(Some(lease), end), Ok(None));
    assert_eq!(p.start_busy(slot, 1, Some(lease), end), Ok(Busy::Stale));
    expire(&p, end);
    assert_eq!(extend(Some(lease), end), Ok(None));
    assert_eq!(extend(None, end), Ok(None));
    assert_eq!(p.start_busy(slot, 1, Some(lease), end), Ok(Busy::Stale));
    // Under the next one's lease the old one changes nothing.
    let next = take(&p, slot, end, 1)[0];
    p.release_with_backoff(slot, 1, lease, end, 0, &mut Wake::default()).unwrap();
    p.undo_lease(slot, 1, lease, NOW, &mut Wake::default()).unwrap();
    assert_eq!(extend(Some(lease), end), Ok(None));
    assert_eq!(p.start_busy(slot, 1, Some(lease), end), Ok(Busy::Stale));
    assert_eq!(list(&p, slot, 1), Some(LEASED));
    assert_eq!(extend(Some(next.lease), end), Ok(Some(end + SECOND)));
    assert_eq!(p.start_busy(slot, 9, None, end), Ok(Busy::Unknown));
    assert_eq!(p.start_busy(slot, 9, Some(lease), end), Ok(Busy::Unknown));
}

#[test]
fn deliveries_are_counted_to_the_last() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.sent(slot, &Entry { attempts: 1, ..entry(1) }, NOW, &mut Wake::default()).unwrap();
    let taken = take(&p, slot, NOW, 1)[0];
    assert_eq!(taken.attempts, 2);
    // As if it had not been read at all.
    p.undo_lease(slot, 1, taken.lease, NOW, &mut Wake::default()).unwrap();
    let taken = take(&p, slot, NOW, 1)[0];
    assert_eq!(taken.attempts, 2);
    p.release_with_backoff(slot, 1, taken.lease, NOW, SECOND, &mut Wake::default()).unwrap();
    for _ in 0..3 {
        // To be buried, and however often that fails, it isn't delivered any more.
        assert_eq!(list(&p, slot, 1), Some(USED_UP));
        assert_eq!(take(&p, slot, NOW, 1), []);
        let mut aside = Vec::with_capacity(3);
        p.set_used_up_aside(slot, &mut aside).unwrap();
        assert_eq!((aside.len(), aside[0].msg_id, aside[0].attempts), (1, 1, 2));
        p.end_busy(slot, 1, aside[0].tag, false, NOW, &mut Wake::default()).unwrap();
    }
}

#[test]
fn a_higher_priority_goes_in_from_beyond_the_frontier() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    end_refill(&p, slot, 5, i64::MAX);
    send(&p, slot, 4..=7);
    p.sent(slot, &Entry { priority: 3, ..entry(9) }, NOW, &mut Wake::default()).unwrap();
    assert_eq!(walk(&p)[&slot].ready, [9, 4, 5]);
    assert_eq!(p.reach(slot), Ok((5, i64::MAX)));
    let refill = p.start_refill(slot, 2, NOW, None).unwrap().unwrap();
    assert_eq!((refill.numbers.map(|range| range.after), refill.times), (Some(5), None));
    for found in [entry(6), entry(7), Entry { priority: 3, ..entry(9) }] {
        assert_ne!(p.found(slot, &found, NOW, &mut Wake::default()), Ok(Found::NoRoom));
    }
    p.end_refill(slot, 2, Some(i64::MAX), None, &mut Wake::default()).unwrap();
    assert_eq!(walk(&p)[&slot].ready, [9, 4, 5, 6, 7]);
}

#[test]
fn what_has_been_delivered_keeps_its_place_and_its_attempts() {
    let words = allocate(3000);
    let (p, slots) = fresh(&words, 1);
    send(&p, slots[0], 1..=200);
    let taken = take(&p, slots[0], NOW, 1)[0];
    // Rested, it is ready again behind all others.
    p.release_with_backoff(slots[0], taken.msg_id, taken.lease, NOW, SECOND, &mut Wake::default()).unwrap();
    expire(&p, NOW + SECOND);
    for id in 1001..1300 {
        p.sent(slots[0], &Entry { priority: 9, ..entry(id) }, NOW, &mut Wake::default()).unwrap();
    }
    let message = &walk(&p)[&slots[0]].messages[&taken.msg_id];
    assert_eq!((message.list, message.attempts), (0, 1), "its row doesn't know of the delivery");
}

#[test]
fn a_higher_priority_displaces_a_lower_one() {
    let words = allocate(6000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, 1..=1000);
    let full = p.queue_state(slot, 1, NOW).unwrap().ready;
    assert!(full < 1000, "the partition has no room for all");
    let last = *walk(&p)[&slot].ready.last().unwrap();
    p.sent(slot, &Entry { priority: 9, ..entry(1001) }, NOW, &mut Wake::default()).unwrap();
    assert_eq!(p.queue_state(slot, 1, NOW).unwrap().ready, full);
    assert_eq!(walk(&p)[&slot].ready[..2], [1001, 1]);
    assert_eq!(list(&p, slot, last), None);
    assert!(p.reach(slot).unwrap().0 < last);
    // Not one of its own priority.
    for id in 1002..1000 + 2 * full as i64 {
        p.sent(slot, &Entry { priority: 9, ..entry(id) }, NOW, &mut Wake::default()).unwrap();
    }
    assert_eq!(walk(&p)[&slot].ready, (1001..1001 + full as i64).collect::<Vec<_>>());
}

#[test]
fn delayed_messages_leave_room_and_are_counted() {
    let words = allocate(6000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let counting = p.start_counting(slot).unwrap();
    p.counted(slot, counting, [0; 4], 0, 0).unwrap();
    let delayed = |id| Entry { deliver_at: Some(NOW + SECOND * (1 + id / 100)), ..entry(id) };
    for id in 1..=1000 {
        p.sent(slot, &delayed(id), NOW, &mut Wake::default()).unwrap();
    }
    assert_eq!(p.counters(slot).unwrap().delayed, 1000);
    let (_, horizon) = p.reach(slot).unwrap();
    assert!(NOW < horizon && horizon < NOW + 11 * SECOND, "some are outside");
    assert!(!p.queue_state(slot, 1, horizon).unwrap().refill, "and not wanted yet");
    assert!(p.queue_state(slot, 1, horizon + 1).unwrap().refill);
    send(&p, slot, [2000]);
    assert_eq!(take(&p, slot, NOW, 10).len(), 1, "a ready one still goes in");
    p.drop_message(slot, 2000, TAG, NOW, &mut Wake::default()).unwrap();
    // All of them are had when their time comes, and none is counted as delayed then.
    let mut rows: BTreeMap<(i64, i64), Entry> =
        (1..=1000).map(delayed).map(|row| ((row.deliver_at.unwrap(), row.msg_id), row)).collect();
    let mut now = NOW;
    while !rows.is_empty() {
        now += SECOND;
        assert!(now < NOW + 1000 * SECOND, "{} are left", rows.len());
        expire(&p, now);
        if p.queue_state(slot, 1, now).unwrap().refill {
            let later = p.start_refill(slot, 1, now, None).unwrap().unwrap().times.unwrap().after;
            let mut left = rows.range((later + 1, 0)..);
            let refused = left.find(|(_, row)| p.found(slot, row, now, &mut Wake::default()) == Ok(Found::NoRoom));
            let reached = refused.map_or(i64::MAX, |((at, _), _)| at - 1);
            p.end_refill(slot, 1, None, Some(reached), &mut Wake::default()).unwrap();
        }
        for taken in take(&p, slot, now, 1000) {
            let at = delayed(taken.msg_id).deliver_at.unwrap();
            assert!(at <= now && rows.remove(&(at, taken.msg_id)).is_some());
            p.drop_message(slot, taken.msg_id, TAG, NOW, &mut Wake::default()).unwrap();
        }
    }
    assert_eq!(p.counters(slot).unwrap().delayed, 0);
}

#[test]
fn a_paused_queue_hands_out_nothing() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    p.set_options(slots[0], Options { paused: true, ..OPTIONS }, NOW).unwrap();
    send(&p, slots[0], [1]);
    assert_eq!(take(&p, slots[0], NOW, 1), []);
    assert!(p.queue_state(slots[0], 1, NOW).unwrap().paused);
    p.set_options(slots[0], OPTIONS, NOW).unwrap();
    assert_eq!(take(&p, slots[0], NOW, 1).len(), 1);
}

#[test]
fn a_message_left_out_wakes_whoever_waits() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let mut id = 0;
    while id == 0 || list(&p, slot, id).is_some() {
        id += 1;
        send(&p, slot, [id]);
        take(&p, slot, NOW, 1);
    }
    p.drop_message(slot, 1, TAG, NOW, &mut Wake::default()).unwrap();
    end_refill(&p, slot, i64::MAX, i64::MAX);
    send(&p, slot, [id]);
    take(&p, slot, NOW, 1);
    p.wait(slot, 3, NOW, i64::MAX).unwrap().unwrap();
    let mut wake = Wake::default();
    p.sent(slot, &entry(id + 1), NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [3]);
    assert!(p.queue_state(slot, 1, NOW).unwrap().refill);
}

#[test]
fn what_is_due_and_has_no_room_is_looked_for_now_and_then() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    // Leases as many as there is room for; what was left out is gone, and a refill has found nothing.
    let mut leases = Vec::new();
    while p.reach(slot).unwrap().0 == i64::MAX {
        send(&p, slot, [leases.len() as i64]);
        leases.extend(take(&p, slot, NOW, 1));
    }
    end_refill(&p, slot, i64::MAX, i64::MAX);
    let delayed = Entry { deliver_at: Some(NOW + SECOND), ..entry(1000) };
    p.sent(slot, &delayed, NOW, &mut Wake::default()).unwrap();
    assert_eq!(p.queue_state(slot, 1, NOW).unwrap().next, Some(NOW + SECOND), "it comes due");
    let now = NOW + 2 * SECOND;
    let queue_state = p.queue_state(slot, 1, now).unwrap();
    assert_eq!((queue_state.ready, queue_state.refill), (0, false));
    assert_eq!(queue_state.next, Some(now + SECOND), "nobody reads again at once for it");
    // One that waits looks again, and one is enough.
    assert_eq!(p.wait(slot, 3, now, i64::MAX).unwrap().unwrap().alarm, now + SECOND);
    assert_eq!(p.wait(slot, 4, now + 1, i64::MAX).unwrap().unwrap().alarm, i64::MAX);
    let mut wake = Wake::default();
    p.watch(slot, now + 2, &mut wake).unwrap();
    assert_eq!(wake.processes(), [], "not sooner");
    // While another session refills as well.
    p.start_refill(slot, 9, now, None).unwrap().unwrap();
    assert_eq!(p.queue_state(slot, 1, now).unwrap().next, Some(now + SECOND));
    // Then there is room.
    for lease in &leases[..9] {
        p.drop_message(slot, lease.msg_id, TAG, now, &mut Wake::default()).unwrap();
    }
    let queue_state = p.queue_state(slot, 1, now).unwrap();
    assert_eq!((queue_state.refill, queue_state.next), (true, Some(now + SECOND)), "another session is about it");
    p.end_refill(slot, 9, None, None, &mut Wake::default()).unwrap();
    let queue_state = p.queue_state(slot, 1, now).unwrap();
    assert_eq!((queue_state.refill, queue_state.next), (true, Some(NOW + SECOND)));
}

#[test]
fn a_place_is_left_once() {
    let words = allocate(1000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    // Process numbers begin with 0, as does what a record holds that isn't a place.
    let place = p.wait(slot, 0, NOW, i64::MAX).unwrap().unwrap().record;
    assert_eq!(p.leave(slot, place, 1), Ok(false), "another's");
    assert_eq!(p.leave(slot, place, 0), Ok(true));
    assert_eq!(p.leave(slot, place, 0), Ok(false));
    // The record is a message now.
    send(&p, slot, [1]);
    assert_eq!(walk(&p)[&slot].messages.len(), 1);
    assert_eq!(p.leave(slot, place, 0), Ok(false));
    assert_eq!(walk(&p)[&slot].messages.len(), 1);
    // Woken is left.
    let place = p.wait(slot, 0, NOW, i64::MAX).unwrap().unwrap().record;
    let mut wake = Wake::default();
    p.sent(slot, &entry(2), NOW, &mut wake).unwrap();
    assert_eq!(wake.processes(), [0]);
    assert_eq!(p.leave(slot, place, 0), Ok(false));
}
