//! What is due before another message was sent comes before it.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, entry, fresh};
use crate::queue::layout::DELAYED;
use crate::queue::{Entry, Options, Partition, Wake};
use crate::words::allocate;

fn send(p: &Partition<'_>, slot: u32, entry: &Entry, now: i64) {
    p.sent(slot, entry, now, &mut Wake::default()).unwrap();
}

fn delayed(id: i64, due: i64) -> Entry {
    Entry { deliver_at: Some(due), ..entry(id) }
}

/// What a reader gets at `now` that asks for `want`, and its leases, of a minute.
fn read(p: &Partition<'_>, slot: u32, now: i64, want: usize) -> Vec<(i64, u64)> {
    let mut taken = Vec::with_capacity(want);
    while !p.expire(slot, now, 100, &mut Wake::default()).unwrap() {}
    p.take(slot, 1, now, want, 60 * SECOND, &mut taken, &mut Wake::default()).unwrap();
    taken.iter().map(|taken| (taken.msg_id, taken.lease)).collect()
}

fn numbers(p: &Partition<'_>, slot: u32, now: i64, want: usize) -> Vec<i64> {
    read(p, slot, now, want).into_iter().map(|(id, _)| id).collect()
}

#[test]
fn what_is_due_comes_before_what_is_sent_after_that_though_nobody_has_read() {
    let words = allocate(8000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    // A delay, a lease that runs out, a rest after a failure, and one after a rollback; each before another message.
    let mut id = 10;
    let mut now = NOW;
    let mut round = |make: &dyn Fn(i64)| {
        make(now);
        now += 100 * SECOND;
        send(&p, slot, &entry(id), now);
        id += 1;
        now += SECOND;
        let got = numbers(&p, slot, now, 9);
        for &id in &got {
            p.drop_message(slot, id, entry(id).tag, now, &mut Wake::default()).unwrap();
        }
        got
    };
    assert_eq!(round(&|now| send(&p, slot, &delayed(1, now + SECOND), now)), [1, 10]);
    assert_eq!(
        round(&|now| {
            send(&p, slot, &entry(2), now);
            read(&p, slot, now, 1);
        }),
        [2, 11]
    );
    assert_eq!(
        round(&|now| {
            send(&p, slot, &entry(3), now);
            read(&p, slot, now, 1);
            p.schedule_retry(slot, &Entry { attempts: 1, ..delayed(3, now + SECOND) }, now, &mut Wake::default())
                .unwrap();
        }),
        [3, 12]
    );
    assert_eq!(
        round(&|now| {
            send(&p, slot, &entry(4), now);
            let (_, lease) = read(&p, slot, now, 1)[0];
            p.release_with_backoff(slot, 4, lease, now, SECOND, &mut Wake::default()).unwrap();
        }),
        [4, 13]
    );
    assert_eq!(round(&|now| send(&p, slot, &delayed(5, now + 100 * SECOND), now)), [5, 14], "due at that very moment");
    assert_eq!(round(&|now| send(&p, slot, &delayed(6, now + 100 * SECOND + 1), now)), [15, 6], "due a moment later");
}

#[test]
fn where_more_is_due_than_one_send_lets_run_out_the_order_is_the_same() {
    let words = allocate(1 << 17);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    // In any order, several at each time.
    for at in 0..3000_i64 {
        let id = at * 1201 % 3000;
        send(&p, slot, &delayed(id, NOW + 1 + id / 3), NOW);
    }
    let now = NOW + 1000;
    for id in 3000..3010 {
        send(&p, slot, &entry(id), now + id);
    }
    let holding = &walk(&p)[&slot];
    let waiting = holding.messages.values().filter(|message| message.list == DELAYED).count();
    assert!(waiting > 2500, "one send does a little of the work, {waiting} are left");
    // Due after those.
    send(&p, slot, &delayed(4000, now + 3020), now);
    send(&p, slot, &entry(4001), now + 3030);
    assert_eq!(p.seen(slot, 3009, now + 3031).unwrap().unwrap().state, crate::queue::State::Ready);
    let expected: Vec<i64> = (0..3010).chain([4000, 4001]).collect();
    assert_eq!(numbers(&p, slot, now + 3031, 5000), expected);
}

#[test]
fn leases_that_run_out_together_come_back_in_the_order_of_their_messages() {
    let words = allocate(1 << 14);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    for id in 1..=300 {
        send(&p, slot, &entry(id), NOW);
    }
    assert_eq!(numbers(&p, slot, NOW, 200).len(), 200);
    send(&p, slot, &entry(301), NOW + 61 * SECOND);
    assert_eq!(numbers(&p, slot, NOW + 62 * SECOND, 400), (1..=301).collect::<Vec<_>>());
}

#[test]
fn what_a_reader_does_not_see_goes_back_to_its_place() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    for id in 1..=3 {
        send(&p, slot, &entry(id), NOW);
    }
    let first = read(&p, slot, NOW, 1)[0];
    let hidden = read(&p, slot, NOW, 2);
    for (id, lease) in hidden.into_iter().rev() {
        p.undo_lease(slot, id, lease, NOW, &mut Wake::default()).unwrap();
    }
    // Behind one that was delivered and comes back.
    p.extend(slot, first.0, Some(first.1), NOW, NOW, &mut Wake::default()).unwrap();
    assert_eq!(numbers(&p, slot, NOW, 9), [1, 2, 3]);
}

#[test]
fn a_message_waits_for_what_is_due_and_not_in_the_index() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    // The partition has no room for all that is delayed.
    let mut id = 0;
    while p.reach(slot).unwrap().1 == i64::MAX {
        id += 1;
        send(&p, slot, &delayed(id, NOW + id), NOW);
    }
    let now = NOW + SECOND;
    for later in [entry(id + 1), Entry { group: 7, ..entry(id + 2) }] {
        send(&p, slot, &later, now);
        assert_eq!(p.knows(slot, later.msg_id), Ok(false), "a refill brings what is due before it");
    }
    let higher = Entry { priority: 9, ..entry(id + 3) };
    send(&p, slot, &higher, now);
    assert_eq!(p.knows(slot, higher.msg_id), Ok(true), "lower ones that are ready would go before it");
    assert!(p.queue_state(slot, 1, now).unwrap().refill);
}

#[test]
fn what_makes_room_for_a_higher_priority_or_another_queue_is_the_last_in_line() {
    // Of the queue itself, for a higher priority; of another queue, which takes one room at a time.
    for (higher, others) in [(1, 0), (20, 0), (0, 1), (0, 20)] {
        let words = allocate(3000);
        let (p, slots) = fresh(&words, 2);
        let (slot, other) = (slots[0], slots[1]);
        // As many are ready as the queue may have.
        let mut id = 0;
        while id < 64 || id < p.records as i64 / 4 {
            id += 1;
            send(&p, slot, &entry(id), NOW);
        }
        let full = id;
        numbers(&p, slot, NOW, 10);
        let due: Vec<i64> = (id + 1..id + 11).collect();
        for &id in &due {
            send(&p, slot, &delayed(id, NOW + SECOND), NOW);
            assert_eq!(p.knows(slot, id), Ok(true), "there is room for message {id}");
        }
        // Behind what is due, which has not all run out.
        let later = id + 11;
        send(&p, slot, &entry(later), NOW + SECOND);
        assert_eq!((p.knows(slot, full), p.knows(slot, later)), (Ok(true), Ok(true)), "there is room for all");
        if others > 0 {
            let mut filled = 0;
            while p.head(crate::queue::layout::Head::FreeRecords).unwrap() > 0 {
                filled += 1;
                assert!(p.wait(other, filled, NOW + SECOND, i64::MAX).unwrap().is_some());
            }
            for more in 1..=others {
                assert!(p.wait(other, filled + more, NOW + SECOND, i64::MAX).unwrap().is_some());
            }
        }
        for at in 0..higher {
            send(&p, slot, &Entry { priority: 5, ..entry(later + 1 + at) }, NOW + SECOND);
        }
        let known = |id: &i64| p.knows(slot, *id).unwrap();
        assert!(!known(&later), "{higher} {others}: the last in line makes room");
        walk(&p);
    }
}

#[test]
fn a_refill_puts_what_is_due_where_it_belongs_by_time() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.invalidate_watermark(slot).unwrap();
    p.start_refill(slot, 1, NOW, None).unwrap().unwrap();
    let found = |entry: &Entry, sent| p.found(slot, entry, sent, &mut Wake::default()).unwrap();
    for (id, due) in [(1, 30), (2, 10), (3, 50)] {
        found(&delayed(id, NOW + due), NOW + 100);
    }
    for (id, sent) in [(4, 5), (5, 10), (6, 29), (7, 31), (8, 60)] {
        found(&entry(id), NOW + sent);
    }
    p.end_refill(slot, 1, Some(i64::MAX), Some(i64::MAX), &mut Wake::default()).unwrap();
    assert_eq!(numbers(&p, slot, NOW + 100, 9), [4, 2, 5, 6, 1, 7, 3, 8]);
}

#[test]
fn the_next_of_thousands_of_groups_come_at_once_when_their_first_are_used_up() {
    let words = allocate(1 << 17);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    p.set_options(slot, Options { max_attempts: 1, ..OPTIONS }, NOW).unwrap();
    let groups = 2000_i64;
    for id in 0..2 * groups {
        send(&p, slot, &Entry { group: 1 + (id % groups).cast_unsigned(), ..entry(id) }, NOW);
    }
    let taken = read(&p, slot, NOW, 5000);
    assert_eq!(taken.len(), groups as usize);
    for id in groups..2 * groups {
        let next = Entry { group: 1 + (id % groups).cast_unsigned(), ..entry(id) };
        p.offer_next(slot, &next, 1, NOW, &mut Wake::default()).unwrap();
    }
    assert_eq!(numbers(&p, slot, NOW + 60 * SECOND, 5000), (groups..2 * groups).collect::<Vec<_>>());
}

#[test]
fn a_tree_of_timers_is_shallow_whatever_the_order() {
    let words = allocate(273_000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    for id in 0..9000 {
        send(&p, slot, &delayed(id, NOW + 1 + id), NOW);
    }
    let depth = p.depth_of_timers(slot);
    assert!((10..60).contains(&depth), "{depth}");
    assert_eq!(walk(&p)[&slot].messages.len(), 9000);
}
