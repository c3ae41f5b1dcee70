//! Messages that prepared transactions have set aside, rule by rule.

use super::check::walk;
use super::rules::{NOW, OPTIONS, SECOND, TAG, entry, fresh};
use crate::queue::layout::{BUSY, DELAYED, LEASED, Partition};
use crate::queue::{Busy, Decided, Decision, Delivery, Doubt, Entry, Met, Options, Undecided, Wake};
use crate::words::allocate;

const TRANSACTION: u64 = 0x5_0000_004d;
const OTHER: u64 = 0x5_0000_004e;

fn send(p: &Partition<'_>, slot: u32, entries: impl IntoIterator<Item = Entry>) {
    for entry in entries {
        p.sent(slot, &entry, NOW, &mut Wake::default()).unwrap();
    }
}

fn take(p: &Partition<'_>, slot: u32, want: usize) -> Vec<Delivery> {
    let mut taken = Vec::with_capacity(want);
    p.take(slot, 77, NOW, want, OPTIONS.visibility_timeout, &mut taken, &mut Wake::default()).unwrap();
    walk(p);
    taken
}

fn ids(taken: &[Delivery]) -> Vec<i64> {
    taken.iter().map(|taken| taken.msg_id).collect()
}

fn note(p: &Partition<'_>, slot: u32, transaction: u64) {
    assert_eq!(p.doubt(slot, &Doubt::new(transaction), NOW, &mut Wake::default()), Ok(true));
}

fn leave(p: &Partition<'_>, slot: u32, msg_id: i64, transaction: u64, what: Undecided, read: bool) {
    assert!(matches!(p.start_busy(slot, msg_id, None, NOW), Ok(Busy::Yours(_))));
    p.leave_undecided(slot, msg_id, TAG, transaction, what, read).unwrap();
    walk(p);
}

fn rest(_: &Options, attempts: u32, _: u64) -> i64 {
    i64::from(attempts) * SECOND
}

fn decide(p: &Partition<'_>, slot: u32, transaction: u64, decision: Decision) -> Wake {
    let mut wake = Wake::default();
    assert_eq!(p.decided(slot, transaction, decision, NOW, &mut wake, rest), Ok(Decided::Done));
    walk(p);
    assert_eq!(p.decided(slot, transaction, decision, NOW, &mut Wake::default(), rest), Ok(Decided::Known));
    wake
}

#[test]
fn a_decision_is_about_the_messages_of_its_transaction_alone() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, (1..=9).map(entry));
    let leases = take(&p, slot, 6);
    note(&p, slot, TRANSACTION);
    note(&p, slot, OTHER);
    // Of an open transaction.
    p.start_busy(slot, 9, None, NOW).unwrap();
    for (msg_id, transaction) in [(1, TRANSACTION), (2, OTHER), (3, TRANSACTION), (7, OTHER), (8, TRANSACTION)] {
        leave(&p, slot, msg_id, transaction, Undecided::Ended, false);
    }
    // Nobody has it, and its lease doesn't run out.
    assert_eq!(p.start_busy(slot, 1, None, NOW), Ok(Busy::Others));
    p.expire(slot, NOW + 3600 * SECOND, 100, &mut Wake::default()).unwrap();
    let shape = walk(&p);
    assert_eq!([1, 2, 3, 7, 8, 9].map(|id| shape[&slot].messages[&id].list), [BUSY; 6]);
    decide(&p, slot, TRANSACTION, Decision::Committed);
    let shape = walk(&p);
    assert!([1, 3, 8].iter().all(|id| !shape[&slot].messages.contains_key(id)));
    assert_eq!([2, 7, 9].map(|id| shape[&slot].messages[&id].list), [BUSY; 3]);
    decide(&p, slot, OTHER, Decision::RolledBack);
    let shape = walk(&p);
    let two = &shape[&slot].messages[&2];
    assert_eq!((two.list, two.lease, two.due), (LEASED, leases[1].lease, leases[1].until));
    assert!(shape[&slot].messages[&7].is_ready());
    assert_eq!(shape[&slot].messages[&9].list, BUSY);
}

#[test]
fn what_was_read_in_the_transaction_rests_after_its_rollback_and_the_delivery_counts() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [entry(1), entry(2)]);
    take(&p, slot, 2);
    note(&p, slot, TRANSACTION);
    leave(&p, slot, 1, TRANSACTION, Undecided::Ended, true);
    leave(&p, slot, 2, TRANSACTION, Undecided::Ended, false);
    decide(&p, slot, TRANSACTION, Decision::RolledBack);
    let shape = walk(&p);
    let (one, two) = (&shape[&slot].messages[&1], &shape[&slot].messages[&2]);
    assert_eq!((one.list, one.due, one.attempts), (DELAYED, NOW + SECOND, 1));
    assert_eq!((two.list, two.attempts), (LEASED, 1));
}

#[test]
fn a_delivery_that_ended_comes_into_line_again_as_its_row_says() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [entry(1), entry(2), entry(3)]);
    take(&p, slot, 2);
    note(&p, slot, TRANSACTION);
    leave(&p, slot, 1, TRANSACTION, Undecided::Returned { attempts: 1 }, false);
    leave(&p, slot, 2, TRANSACTION, Undecided::Returned { attempts: 0 }, false);
    // As a reader that waits for a message has it.
    assert_eq!(ids(&take(&p, slot, 5)), [3]);
    p.wait(slot, 9, NOW, i64::MAX).unwrap();
    assert_eq!(decide(&p, slot, TRANSACTION, Decision::Committed).processes(), [9]);
    let again = take(&p, slot, 5);
    assert_eq!(ids(&again), [1, 2]);
    assert_eq!([again[0].attempts, again[1].attempts], [2, 1], "one that is released doesn't count");
}

#[test]
fn a_row_that_is_met_waits_for_its_transaction_and_stands_in_line_again() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let member = |id| Entry { group: 7, ..entry(id) };
    send(&p, slot, [entry(1), member(2), member(3)]);
    let taken = take(&p, slot, 5);
    assert_eq!(ids(&taken), [1, 2]);
    let meet = |one: &Delivery, transaction: u64| {
        let met = p.meet_undecided(slot, one.msg_id, one.lease, transaction as u32, NOW, &mut Wake::default());
        walk(&p);
        met.unwrap()
    };
    assert_eq!(meet(&taken[0], TRANSACTION), Met::Nothing, "no such transaction is prepared");
    note(&p, slot, TRANSACTION);
    assert_eq!(meet(&taken[0], OTHER), Met::Nothing);
    assert_eq!([meet(&taken[0], TRANSACTION), meet(&taken[1], TRANSACTION)], [Met::Aside; 2]);
    assert_eq!(meet(&taken[0], TRANSACTION), Met::Aside, "it isn't this reader's any more");
    assert_eq!(ids(&take(&p, slot, 5)), [] as [i64; 0], "its group waits as well");
    // Whatever was decided, its row says so.
    decide(&p, slot, TRANSACTION, Decision::Committed);
    let again = take(&p, slot, 5);
    assert_eq!((ids(&again), again[0].attempts, again[1].attempts), (vec![2, 1], 1, 1));
    // Where nobody knows which are prepared, all of it is looked at again and again.
    note(&p, slot, Doubt::ANY);
    assert_eq!([meet(&again[0], OTHER), meet(&again[1], OTHER)], [Met::Aside; 2]);
    assert_eq!(p.look_again(slot, NOW, &mut Wake::default()), Ok(true));
    walk(&p);
    assert_eq!(take(&p, slot, 5).len(), 2);
    decide(&p, slot, Doubt::ANY, Decision::Either);
}

#[test]
fn what_is_met_beyond_an_eighth_of_the_memory_is_left_to_a_refill() {
    let words = allocate(1024);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    let most = p.records as i64 / 8;
    send(&p, slot, (1..=most + 3).map(entry));
    note(&p, slot, TRANSACTION);
    for one in take(&p, slot, most as usize + 3) {
        let met = p.meet_undecided(slot, one.msg_id, one.lease, TRANSACTION as u32, NOW, &mut Wake::default());
        assert_eq!(met, Ok(Met::Aside));
        walk(&p);
    }
    assert_eq!(walk(&p)[&slot].messages.len(), most as usize);
    assert_eq!(p.reach(slot), Ok((i64::MAX, i64::MAX)), "nobody looks for them in vain");
    decide(&p, slot, TRANSACTION, Decision::RolledBack);
    assert_eq!(p.reach(slot), Ok((most, i64::MAX)));
    assert_eq!(ids(&take(&p, slot, 100)).len(), most as usize);
}

#[test]
fn many_are_ended_some_under_each_hold_of_the_lock() {
    let words = allocate(20_000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, (1..=500).map(entry));
    let taken = take(&p, slot, 500);
    note(&p, slot, TRANSACTION);
    for one in &taken {
        assert!(matches!(p.start_busy(slot, one.msg_id, None, NOW), Ok(Busy::Yours(_))));
        p.leave_undecided(slot, one.msg_id, TAG, TRANSACTION, Undecided::Ended, false).unwrap();
    }
    let mut holds = 1;
    while p.decided(slot, TRANSACTION, Decision::Committed, NOW, &mut Wake::default(), rest) == Ok(Decided::Partly) {
        walk(&p);
        holds += 1;
    }
    assert_eq!((holds, walk(&p)[&slot].messages.len()), (taken.len().div_ceil(256), 0));
    assert_eq!(p.in_doubt(slot), Ok(false));
}

#[test]
fn a_queue_that_goes_takes_what_is_undecided_with_it() {
    let words = allocate(4000);
    let (p, slots) = fresh(&words, 1);
    let slot = slots[0];
    send(&p, slot, [entry(1), entry(2), entry(3)]);
    note(&p, slot, TRANSACTION);
    for msg_id in 1..=3 {
        leave(&p, slot, msg_id, TRANSACTION, Undecided::Ended, false);
    }
    // The second of three goes by another's hand.
    p.drop_message(slot, 2, TAG, NOW, &mut Wake::default()).unwrap();
    walk(&p);
    while !p.detach(slot, 1, NOW, &mut Wake::default()).unwrap() {
        walk(&p);
    }
    assert!(walk(&p).is_empty());
}
