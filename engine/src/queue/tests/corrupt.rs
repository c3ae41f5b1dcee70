//! Random words anywhere in a partition: every call still answers, with an error at the worst.

use super::rules::TAG;
use crate::queue::{
    Decision, Doubt, Entry, Options, Partition, QueueKey, State, Storage, Tag, Tid, Undecided, Wake, format,
};
use crate::words::{Corrupt, allocate};
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

const NOW: i64 = 1_000_000_000;
const RECORDS: usize = 300;

/// Words that do harm: small ones look like record numbers, halves of them like links, the large ones overflow.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..RECORDS as u64,
        4 => (0..RECORDS as u64, 0..RECORDS as u64).prop_map(|(upper, lower)| upper << 32 | lower),
        2 => any::<u64>(),
        1 => prop_oneof![Just(u64::MAX), Just(i64::MAX as u64), Just(i64::MIN as u64), Just(u64::MAX << 32)],
    ]
}

fn entry(msg_id: i64) -> Entry {
    let deliver_at = (msg_id % 3 == 0).then_some(NOW + msg_id % 7 - 3);
    Entry {
        msg_id,
        tid: Tid { block: 1, offset: 1 },
        priority: (msg_id % 10) as u8,
        attempts: 0,
        deliver_at,
        group: msg_id.unsigned_abs() % 3,
        tag: TAG,
    }
}

/// Those of prepared transactions, with a message that is set aside.
fn two_phase(p: &Partition<'_>, slot: u32, id: i64, msg_id: i64, lease: u64) -> Vec<Result<(), Corrupt>> {
    let (wake, transaction) = (&mut Wake::default(), id.unsigned_abs() + 1);
    let what = if id % 2 == 0 { Undecided::Ended } else { Undecided::Returned { attempts: 0 } };
    let mut answers = vec![
        p.doubt(slot, &Doubt::new(transaction), NOW, wake).map(drop),
        p.leave_undecided(slot, msg_id, TAG, transaction, what, id % 3 == 0),
        p.meet_undecided(slot, msg_id, lease, transaction as u32, NOW, wake).map(drop),
        p.look_again(slot, NOW, wake).map(drop),
        p.doubts(slot).map(drop),
    ];
    for how in [Decision::Committed, Decision::RolledBack, Decision::Either] {
        answers.push(p.decided(slot, transaction, how, NOW, wake, |_, _, _| 1).map(drop));
    }
    answers
}

/// Every call once.
#[allow(clippy::too_many_lines, reason = "a line a call")]
fn exercise(p: &Partition<'_>, slot: u32, id: i64, process: u32) -> Vec<Result<(), Corrupt>> {
    let wake = &mut Wake::default();
    let (mut taken, mut seen, mut aside) = (Vec::with_capacity(8), Vec::with_capacity(8), Vec::with_capacity(4));
    let key = QueueKey { database: 1, relation: slot };
    let mut answers = vec![
        p.find(key).map(drop),
        p.sent(slot, &entry(id), NOW, wake),
        p.queue_state(slot, 4, NOW).map(drop),
        p.take(slot, process, NOW, 8, 10, &mut taken, wake),
        p.counters(slot).map(drop),
        p.seen(slot, id, NOW).map(drop),
        p.look(slot, [State::Ready, State::Leased, State::Delayed, State::UsedUp][id as usize % 4], NOW, &mut seen),
        p.has_groups(slot).map(drop),
        p.heads(slot).map(drop),
    ];
    for taken in taken {
        answers.push(p.moved(slot, taken.msg_id, taken.lease, taken.tid));
        answers.push(p.start_probe(slot, entry(taken.msg_id).group, process).map(drop));
        answers.push(p.offer_next(slot, &entry(taken.msg_id.wrapping_add(3)), process, NOW, wake).map(drop));
        answers.push(p.end_probe(slot, entry(taken.msg_id).group, process, NOW, wake));
        answers.push(p.comes_first(slot, entry(taken.msg_id).group, taken.msg_id, NOW, wake));
        answers.push(
            p.yield_to(slot, taken.msg_id, taken.lease, &entry(taken.msg_id.wrapping_sub(3)), NOW, wake).map(drop),
        );
        answers.push(p.extend(slot, taken.msg_id, Some(taken.lease), NOW, NOW + taken.msg_id % 3, wake).map(drop));
        answers.push(p.release_with_backoff(slot, taken.msg_id, taken.lease, NOW, taken.msg_id % 2, wake));
        answers.push(p.drop_leased(
            slot,
            taken.msg_id,
            taken.lease.wrapping_add(taken.msg_id.cast_unsigned() % 2),
            NOW,
            wake,
        ));
        answers.push(p.take_next(slot, taken.msg_id, taken.lease, process, NOW, 10, wake).map(drop));
        answers.push(p.not_delivered_of_group(slot, taken.msg_id, taken.lease, NOW));
        answers.push(p.end_unused(slot, taken.msg_id, taken.lease, NOW, wake));
        answers.push(p.undo_lease(slot, taken.msg_id, taken.lease, NOW, wake));
        answers.push(p.start_busy(slot, taken.msg_id, None, NOW).map(drop));
        answers.extend(two_phase(p, slot, id, taken.msg_id, taken.lease));
        answers.push(p.end_busy(slot, taken.msg_id, TAG, taken.msg_id % 2 == 0, NOW, wake));
    }
    answers.extend([
        p.list_from(slot, id.unsigned_abs() as u32, &mut Vec::with_capacity(4)).map(drop),
        p.drop_vanished(slot, id, TAG, NOW, wake),
        p.wait(slot, process, NOW, i64::MAX).map(drop),
        p.leave(slot, (id.unsigned_abs() % RECORDS as u64) as u32, process).map(drop),
        p.forward_wakeup(slot, wake),
        p.await_end(slot, process, id, NOW).map(drop),
        p.await_end(slot, process, id + 1, NOW).map(drop),
        p.ended(slot, id, wake),
        p.leave_end(slot, (id.unsigned_abs() % RECORDS as u64) as u32, process),
        if id % 3 == 0 { p.all_ended(slot, wake).map(drop) } else { Ok(()) },
        p.start_refill(slot, process, NOW, None).map(drop),
        p.knows(slot, id).map(drop),
        p.reach(slot).map(drop),
        p.found(slot, &entry(id + 1), NOW, wake).map(drop),
        p.found(slot, &entry(id + 2), NOW, wake).map(drop),
        p.insert_or_leave_out(slot, &entry(id + 3), NOW, wake),
        p.reconcile(slot, &entry(id + 5), NOW, wake).map(drop),
        p.end_refill(slot, process, Some(id), Some(NOW), wake),
        p.start_busy(slot, id, None, NOW).map(drop),
        p.schedule_retry(slot, &entry(id), NOW, wake),
        p.end_busy(slot, id, TAG, false, NOW, wake),
        p.left_outside(slot, id + 2, id % 2 == 0, entry(id).group),
        p.end_purged(slot, id + 1, TAG, NOW, wake),
        p.schedule_retry(slot, &entry(id + 6), NOW, wake),
        p.redriven(slot, &entry(id + 7), NOW, wake),
        p.start_burial(slot, &Entry { attempts: 3, ..entry(id + 8) }, NOW, wake).map(drop),
        p.has_used_up(slot).map(drop),
        p.should_notify(slot, NOW).map(drop),
        p.should_remind(slot, NOW).map(drop),
        p.notified(slot, id),
        p.set_used_up_aside(slot, &mut aside),
        if id % 5 == 0 { p.set_all_aside(slot, &mut aside).map(drop) } else { Ok(()) },
        p.wake_all(slot, wake).map(drop),
        p.expire(slot, NOW + 5, 50, wake).map(drop),
        p.watch(slot, NOW, wake),
        p.forget_counts(slot, NOW + id, 8),
        p.drop_message(slot, id + 1, TAG, NOW, wake),
        p.invalidate_watermark(slot),
        p.delivered(slot, 1),
        p.not_delivered(slot, 1, NOW),
        p.set_aside(slot, &entry(id + 4), NOW).map(drop),
        p.end_busy(slot, id + 4, TAG, false, NOW, wake),
        p.finished(slot, 1),
        p.buried(slot, 1),
        p.archived(slot, 1),
        p.failed(slot, 1),
        p.purged(slot, 1, 1),
        p.forgotten(slot, 1, 1),
        p.options(slot).and_then(|options| {
            p.set_options(
                slot,
                Options {
                    rate_period: id,
                    max_attempts: 3 + id as u32 % 2,
                    group_limit: id as u32 % 4,
                    group_rate: id as u32 % 5,
                    group_rate_period: id % 3 * 1_000_000,
                    ..options
                },
                NOW,
            )
        }),
        p.should_count(slot, NOW).map(drop),
        p.start_counting(slot).and_then(|counting| p.counted(slot, counting, [1; 4], 0, 0)),
        p.sent(slot, &Entry { tag: Tag { sent: 1, writer: 1 }, ..entry(id + 2) }, NOW, wake),
        if id % 7 == 0 { p.set_storage(slot, Storage { file: process, toast: 1, empty: true }, wake) } else { Ok(()) },
        p.detach(slot, 20, NOW, wake).map(drop),
        p.attach(key, Options::default()).map(drop),
    ]);
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_call_returns(
        harm in proptest::collection::vec((any::<prop::sample::Index>(), word()), 1..40),
        calls in proptest::collection::vec((0..5_u32, 0..200_i64, 0..4_u32), 1..12),
        head_only in any::<bool>(),
    ) {
        let words = allocate(3100);
        format(&words, 7 << 40);
        let p = Partition::new(&words);
        let options = Options {
            visibility_timeout: 10,
            max_attempts: 3,
            max_in_flight: 50,
            max_rate: 100,
            rate_period: 1_000_000,
            group_rate: 2,
            group_rate_period: 1_000_000,
            ..Options::default()
        };
        for relation in 1..=3 {
            let slot = p.attach(QueueKey { database: 1, relation }, options).unwrap().unwrap();
            for id in 0..60 {
                p.sent(slot, &entry(id), NOW, &mut Wake::default()).unwrap();
            }
            p.take(slot, 1, NOW, 20, 5, &mut Vec::with_capacity(20), &mut Wake::default()).unwrap();
            p.wait(slot, relation, NOW, i64::MAX).unwrap();
        }
        for (at, word) in &harm {
            // The head and the queues are a small part of the words, and the one with the most consequences.
            words[at.index(if head_only { 250 } else { words.len() })].store(*word, Relaxed);
        }
        for (slot, id, process) in &calls {
            // Slot 4 is past the last one: always an error.
            let answers = exercise(&p, *slot, *id, *process);
            prop_assert!(*slot != 4 || answers.iter().any(Result::is_err));
        }
        // And formatting makes it whole.
        format(&words, 7 << 40);
        prop_assert_eq!(super::check::walk(&p).len(), 0);
    }
}

#[test]
fn a_partition_too_small_is_corrupt() {
    for len in [0, 1, 15, 16, 17, 80, 81, 82, 89] {
        let words = allocate(len);
        format(&words, 7 << 40);
        let p = Partition::new(&words);
        let attached = p.attach(QueueKey { database: 1, relation: 1 }, Options::default());
        let sent = p.sent(1, &entry(1), NOW, &mut Wake::default());
        assert!(attached.is_err() || sent.is_err() || p.records == 0, "{len}");
        assert_eq!(p.wait(1, 1, NOW, i64::MAX).unwrap_or(None), None, "{len}");
    }
}
