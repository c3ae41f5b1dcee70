//! Sessions that wait for the end of a message.

use super::check::walk;
use super::rules::{NOW, SECOND, TAG, entry, fresh};
use crate::queue::{Entry, Partition, Storage, Wake};
use crate::words::allocate;

fn woken(wake: &Wake) -> Vec<u32> {
    wake.processes().to_vec()
}

fn send(p: &Partition<'_>, slot: u32, entry: &Entry) {
    p.sent(slot, entry, NOW, &mut Wake::default()).unwrap();
}

#[test]
fn those_of_a_message_are_woken_and_no_others() {
    let words = allocate(16 * 1024);
    let (p, slots) = fresh(&words, 2);
    let slot = slots[0];
    for (slot, process, id) in [(slot, 1, 5), (slot, 2, 6), (slots[1], 3, 5), (slot, 4, 5), (slot, 5, -5)] {
        p.await_end(slot, process, id, NOW).unwrap().unwrap();
    }
    // A message of that number is another thing than a session that waits for its end.
    assert_eq!(p.knows(slot, 5), Ok(false));
    send(&p, slot, &entry(5));
    walk(&p);
    let mut wake = Wake::default();
    p.ended(slot, 5, &mut wake).unwrap();
    let mut processes = woken(&wake);
    processes.sort_unstable();
    assert_eq!(processes, [1, 4]);
    assert_eq!(p.knows(slot, 5), Ok(true));
    let shape = walk(&p);
    assert_eq!(shape[&slot].awaiting, [(6, 2), (-5, 5)]);
    assert_eq!(shape[&slots[1]].awaiting, [(5, 3)]);
    let mut wake = Wake::default();
    assert_eq!(p.all_ended(slot, &mut wake), Ok(true));
    assert_eq!(woken(&wake), [2, 5]);
    walk(&p);
}

#[test]
fn who_leaves_has_a_place_of_its_own_or_none() {
    let words = allocate(16 * 1024);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let place = p.await_end(slot, 1, 5, NOW).unwrap().unwrap();
    let free = |p: &Partition<'_>| walk(p)[&slot].awaiting.is_empty();
    // Another's, and one that is a reader's by now.
    p.leave_end(slot, place, 2).unwrap();
    assert!(!free(&p));
    assert_eq!(p.leave(slot, place, 1), Ok(false));
    assert!(!free(&p));
    p.leave_end(slot, place, 1).unwrap();
    assert!(free(&p));
    let waiting = p.wait(slot, 1, NOW, NOW + SECOND).unwrap().unwrap();
    p.leave_end(slot, waiting.record, 1).unwrap();
    assert_eq!(walk(&p)[&slot].waiting, [1]);
}

#[test]
fn a_last_delivery_that_ends_and_one_that_begins_wake_them() {
    let words = allocate(16 * 1024);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, &Entry { attempts: 1, ..entry(5) });
    p.await_end(slot, 1, 5, NOW).unwrap().unwrap();
    let (mut taken, mut wake) = (Vec::with_capacity(1), Wake::default());
    p.take(slot, 9, NOW, 1, SECOND, &mut taken, &mut wake).unwrap();
    assert_eq!(woken(&wake), [1], "it has to know when the lease ends");
    p.await_end(slot, 1, 5, NOW).unwrap().unwrap();
    let mut wake = Wake::default();
    p.expire(slot, NOW + 2 * SECOND, 9, &mut wake).unwrap();
    assert_eq!(p.has_used_up(slot), Ok(true));
    assert_eq!(woken(&wake), [1]);
    walk(&p);
}

#[test]
fn what_a_full_list_has_no_place_for_is_woken_by_the_others() {
    let words = allocate(64 * 1024);
    let (p, slots) = fresh(&words, 1);
    for process in 0..100 {
        p.await_end(slots[0], process, 5, NOW).unwrap().unwrap();
    }
    let (mut wake, mut next) = (Wake::default(), Wake::default());
    p.ended(slots[0], 5, &mut wake).unwrap();
    p.ended(slots[0], 5, &mut next).unwrap();
    let mut all = [woken(&wake), woken(&next)].concat();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    walk(&p);
}

#[test]
fn a_queue_or_a_table_that_goes_wakes_all() {
    let words = allocate(16 * 1024);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let mut wake = Wake::default();
    p.set_storage(slot, Storage { file: 1, toast: 1, empty: false }, &mut wake).unwrap();
    send(&p, slot, &Entry { tag: TAG, ..entry(5) });
    p.await_end(slot, 1, 5, NOW).unwrap().unwrap();
    p.set_storage(slot, Storage { file: 2, toast: 2, empty: true }, &mut wake).unwrap();
    assert_eq!(woken(&wake), [1]);
    p.await_end(slot, 2, 5, NOW).unwrap().unwrap();
    let mut wake = Wake::default();
    assert_eq!(p.detach(slot, 100, NOW, &mut wake), Ok(true));
    assert_eq!(woken(&wake), [2]);
    walk(&p);
}
