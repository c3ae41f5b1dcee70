//! Failing, purging and looking, rule by rule.

use super::check::{Group, walk};
use super::rules::{NOW, OPTIONS, SECOND, TAG, entry, fresh, key, list};
use crate::queue::layout::{BUSY, DELAYED, LEASED, Partition};
use crate::queue::{Busy, Delivery, Entry, Fence, Options, Seen, State, Tid, Wake, format};
use crate::words::allocate;

fn send(p: &Partition<'_>, slot: u32, entries: impl IntoIterator<Item = Entry>) {
    for entry in entries {
        p.sent(slot, &entry, NOW, &mut Wake::default()).unwrap();
    }
}

fn member(msg_id: i64) -> Entry {
    Entry { group: 7, ..entry(msg_id) }
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

/// What a failure writes: a new row, due at that time.
fn failed(msg_id: i64, at: i64) -> Entry {
    Entry { tid: Tid { block: 8, offset: 2 }, attempts: 1, deliver_at: Some(at), ..entry(msg_id) }
}

fn rest(p: &Partition<'_>, slot: u32, entry: &Entry) -> Wake {
    let mut wake = Wake::default();
    p.schedule_retry(slot, entry, NOW, &mut wake).unwrap();
    walk(p);
    wake
}

fn look(p: &Partition<'_>, slot: u32, state: State, most: usize) -> Vec<i64> {
    let mut seen: Vec<Seen> = Vec::with_capacity(most);
    p.look(slot, state, NOW, &mut seen).unwrap();
    assert!(seen.iter().all(|one| one.state == state), "{seen:?}");
    seen.iter().map(|one| one.msg_id).collect()
}

#[test]
fn what_is_due_by_now_takes_no_room_of_those_that_rest() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    for (msg_id, at) in [(1, NOW + 1), (2, NOW + SECOND), (3, NOW + 1)] {
        rest(&p, slot, &failed(msg_id, at));
    }
    let mut seen = Vec::with_capacity(1);
    p.look(slot, State::Delayed, NOW + 2, &mut seen).unwrap();
    assert_eq!(seen.iter().map(|one| one.msg_id).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_failed_message_rests_and_comes_back_as_its_row_says() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [entry(1), entry(2)]);
    let lease = take(&p, slot, NOW)[0].lease;
    assert!(matches!(p.start_busy(slot, 1, Some(lease), NOW), Ok(Busy::Yours(_))));
    rest(&p, slot, &failed(1, NOW + SECOND));
    let message = &walk(&p)[&slot].messages[&1];
    assert_eq!((message.list, message.lease, message.attempts, message.timed), (DELAYED, 0, 1, true));
    assert_eq!(p.start_busy(slot, 1, Some(lease), NOW), Ok(Busy::Stale), "its lease is over");
    assert_eq!(ids(&take(&p, slot, NOW)), [] as [i64; 0]);
    p.expire(slot, NOW + SECOND, 10, &mut Wake::default()).unwrap();
    let again = take(&p, slot, NOW + SECOND);
    assert_eq!((again[0].msg_id, again[0].attempts, again[0].tid), (1, 2, Tid { block: 8, offset: 2 }));
    assert_eq!(p.counters(slot).unwrap().failed, 0, "one that is released rests the same way");
    p.failed(slot, 1).unwrap();
    assert_eq!(p.counters(slot).unwrap().failed, 1);
}

#[test]
fn a_failed_message_that_is_due_comes_before_those_that_wait_and_wakes_a_reader() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [entry(1)]);
    take(&p, slot, NOW);
    p.start_busy(slot, 1, None, NOW).unwrap();
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    assert_eq!(rest(&p, slot, &failed(1, NOW)).processes(), [9]);
    send(&p, slot, [entry(2)]);
    assert_eq!(ids(&take(&p, slot, NOW)), [1, 2]);
}

#[test]
fn a_message_that_the_index_does_not_know_rests_too() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    rest(&p, slot, &failed(5, NOW + SECOND));
    assert_eq!(walk(&p)[&slot].messages[&5].list, DELAYED);
}

#[test]
fn a_failed_message_keeps_its_place_in_its_group() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [member(1), member(2), member(3)]);
    take(&p, slot, NOW);
    // One that waits fails by hand, then the one that is out.
    p.set_aside(slot, &member(2), NOW).unwrap();
    rest(&p, slot, &Entry { group: 7, ..failed(2, NOW + SECOND) });
    assert_eq!(walk(&p)[&slot].groups[&7], Group { head: 1, next: Some(2), known: false, first: true, late: false });
    p.start_busy(slot, 1, None, NOW).unwrap();
    rest(&p, slot, &Entry { group: 7, ..failed(1, NOW + SECOND) });
    assert_eq!(walk(&p)[&slot].groups[&7].head, 1, "its group has gone on without it");
    p.start_probe(slot, 7, 3).unwrap();
    let next = Entry { group: 7, ..failed(2, NOW + SECOND) };
    p.offer_next(slot, &next, 3, NOW, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take(&p, slot, NOW)), [] as [i64; 0]);
    p.expire(slot, NOW + SECOND, 10, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take(&p, slot, NOW + SECOND)), [1]);
    p.drop_message(slot, 1, TAG, NOW, &mut Wake::default()).unwrap();
    p.expire(slot, NOW + SECOND, 10, &mut Wake::default()).unwrap();
    assert_eq!(ids(&take(&p, slot, NOW + SECOND)), [2], "it was due, too");
}

#[test]
fn a_failure_lands_what_was_in_flight() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_in_flight: 1, ..OPTIONS }, NOW).unwrap();
    send(&p, slot, [entry(1), entry(2)]);
    assert_eq!(ids(&take(&p, slot, NOW)), [1]);
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    p.start_busy(slot, 1, None, NOW).unwrap();
    assert_eq!(ids(&take(&p, slot, NOW)), [] as [i64; 0], "it is in flight until its failure is committed");
    assert_eq!(rest(&p, slot, &failed(1, NOW + SECOND)).processes(), [9]);
    assert_eq!(ids(&take(&p, slot, NOW)), [2]);
}

#[test]
fn all_of_a_queue_is_set_aside_in_steps_and_is_what_it_was_when_that_ends() {
    let words = allocate(8000);
    let (p, slots) = fresh(&words, 2);
    let [slot, other] = [slots[0], slots[1]];
    send(&p, other, [entry(1)]);
    send(&p, slot, (1..=6).map(entry));
    send(&p, slot, (10..=14).map(member));
    send(&p, slot, [Entry { deliver_at: Some(NOW + SECOND), ..entry(20) }]);
    assert_eq!(ids(&take(&p, slot, NOW)), [1, 2, 3, 4, 5, 6, 10]);
    send(&p, slot, (30..=32).map(entry));
    let before = walk(&p);
    let mut aside = Vec::new();
    loop {
        let mut step = Vec::with_capacity(4);
        let more = p.set_all_aside(slot, &mut step).unwrap();
        walk(&p);
        aside.append(&mut step);
        if !more {
            break;
        }
    }
    let mut numbers: Vec<i64> = aside.iter().map(|one| one.msg_id).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 10, 20, 30, 31, 32]);
    assert!(aside.iter().all(|one| one.timed == (one.msg_id == 20)));
    assert!(walk(&p)[&slot].messages.values().all(|message| message.list == BUSY));
    assert_eq!(ids(&take(&p, slot, NOW)), [] as [i64; 0]);
    assert_eq!(walk(&p)[&other], before[&other]);
    // Given up: as before, but for which is first among the ready.
    for one in aside.iter().rev() {
        p.end_busy(slot, one.msg_id, TAG, false, NOW, &mut Wake::default()).unwrap();
        walk(&p);
    }
    let after = walk(&p);
    let places = |shape: &super::check::Shape| -> Vec<(i64, usize, u64)> {
        shape[&slot].messages.iter().map(|(&id, message)| (id, message.list, message.lease)).collect()
    };
    assert_eq!(places(&after), places(&before));
    assert_eq!(after[&slot].groups, before[&slot].groups);
}

#[test]
fn a_look_changes_nothing_and_sees_what_there_is() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [entry(1), entry(2)]);
    take(&p, slot, NOW);
    send(&p, slot, [entry(3), Entry { priority: 5, ..entry(4) }, entry(5)]);
    send(&p, slot, [Entry { deliver_at: Some(NOW + SECOND), ..entry(6) }, member(7), member(8)]);
    p.start_busy(slot, 5, None, NOW).unwrap();
    let before = walk(&p);
    assert_eq!(look(&p, slot, State::Ready, 10), [4, 3, 7]);
    assert_eq!(look(&p, slot, State::Ready, 2), [4, 3]);
    assert_eq!(look(&p, slot, State::Leased, 10), [1, 2, 5]);
    assert_eq!(look(&p, slot, State::Delayed, 10), [6]);
    let seen = p.seen(slot, 1, NOW).unwrap().unwrap();
    assert_eq!((seen.state, seen.attempts, seen.due), (State::Leased, 1, Some(NOW + OPTIONS.visibility_timeout)));
    assert_eq!(p.seen(slot, 1, NOW + OPTIONS.visibility_timeout).unwrap().unwrap().state, State::Ready);
    let busy = p.seen(slot, 5, NOW).unwrap().unwrap();
    assert_eq!((busy.state, busy.due, busy.lease), (State::Leased, None, None));
    assert_eq!(p.seen(slot, 8, NOW), Ok(None), "it is behind another of its group");
    assert_eq!(p.has_groups(slot), Ok(true));
    assert_eq!(p.seen(slot, 99, NOW), Ok(None));
    assert_eq!(walk(&p), before);
    assert_eq!(list(&p, slot, 1), Some(LEASED));
}

#[test]
fn a_delayed_message_that_was_not_read_yet_is_counted_once_whatever_becomes_of_it() {
    let words = allocate(4000);
    format(&words, 7 << 40);
    let p = Partition::new(&words);
    let slot = p.attach(key(1), OPTIONS).unwrap().unwrap();
    let delayed = |msg_id| Entry { deliver_at: Some(NOW + SECOND), ..member(msg_id) };
    let outside = || p.counters(slot).unwrap().delayed;
    send(&p, slot, (1..=3).map(delayed));
    assert_eq!(outside(), 3);
    assert!(matches!(p.set_aside(slot, &delayed(1), NOW), Ok(Busy::Yours(_))));
    assert_eq!(outside(), 2);
    p.end_busy(slot, 1, TAG, false, NOW, &mut Wake::default()).unwrap();
    assert_eq!(outside(), 3, "it is what it was");
    p.set_aside(slot, &delayed(1), NOW).unwrap();
    rest(&p, slot, &Entry { group: 7, ..failed(1, NOW + SECOND) });
    assert_eq!(outside(), 3, "it has failed");
    p.set_aside(slot, &delayed(1), NOW).unwrap();
    p.end_busy(slot, 1, TAG, true, NOW, &mut Wake::default()).unwrap();
    assert_eq!(outside(), 2, "it is gone");
}

#[test]
fn what_was_set_aside_before_an_earlier_message_of_its_group_came_gives_way_to_that() {
    let words = allocate(4000);
    // Undone; failed, and due at once; failed, and resting. As where a transaction sends two and fails the second.
    for due in [None, Some(NOW), Some(NOW + SECOND)] {
        let (p, slots) = fresh(&words, 1);
        let slot = slots[0];
        assert!(matches!(p.set_aside(slot, &member(2), NOW), Ok(Busy::Yours(_))));
        send(&p, slot, [member(1)]);
        match due {
            None => p.end_busy(slot, 2, TAG, false, NOW, &mut Wake::default()).unwrap(),
            Some(due) => {
                rest(&p, slot, &Entry { group: 7, attempts: 0, ..failed(2, due) });
            }
        }
        assert_eq!(walk(&p)[&slot].groups[&7], Group { head: 1, next: Some(2), known: true, first: true, late: false });
        assert_eq!(ids(&take(&p, slot, NOW)), [1]);
    }
}

#[test]
fn a_lease_that_was_given_back_serves_to_fail_as_long_as_the_message_rests() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [entry(1)]);
    let first = take(&p, slot, NOW)[0].lease;
    p.release_with_backoff(slot, 1, first, NOW, SECOND, &mut Wake::default()).unwrap();
    assert_eq!(p.start_busy(slot, 1, Some(first), NOW), Ok(Busy::Stale), "it isn't running");
    assert_eq!(p.start_busy(slot, 1, Fence::Last(first + 1), NOW), Ok(Busy::Stale), "it is another one");
    assert!(matches!(p.start_busy(slot, 1, Fence::Last(first), NOW), Ok(Busy::Yours(_))));
    p.end_busy(slot, 1, entry(1).tag, false, NOW, &mut Wake::default()).unwrap();
    p.expire(slot, NOW + SECOND, 10, &mut Wake::default()).unwrap();
    assert_eq!(p.start_busy(slot, 1, Fence::Last(first), NOW + SECOND), Ok(Busy::Stale), "it is ready again");
    let second = take(&p, slot, NOW + SECOND)[0].lease;
    assert_eq!(p.start_busy(slot, 1, Fence::Last(first), NOW + SECOND), Ok(Busy::Stale), "another has it");
    p.release_with_backoff(slot, 1, second, NOW + SECOND, SECOND, &mut Wake::default()).unwrap();
    assert_eq!(p.start_busy(slot, 1, Fence::Last(first), NOW + SECOND), Ok(Busy::Stale), "another had it");
    walk(&p);
}
