//! What prepared transactions have removed: refused until they are decided, and where nobody knows what it is.

use super::super::layout::RECORDS;
use super::super::{LogicalTime, Partition, Removal, Tags, Trust};
use super::{DATABASE, Random, formatted, key, rounds};
use crate::words::allocate;
use std::collections::HashMap;

fn at(time: u64) -> LogicalTime {
    LogicalTime { time, ended: time }
}

fn refuses(partition: &Partition<'_>, number: u64, since: LogicalTime) -> bool {
    partition.refuses(key(number), DATABASE, &Tags::default(), since, |_| false).expect("sound").is_some()
}

/// Removes a key by a transaction that is prepared; whether there was room.
fn prepare(partition: &Partition<'_>, transaction: u64, removal: Removal) -> bool {
    let barrier = partition.barrier_of(removal);
    let epoch = partition.raise(barrier).expect("sound");
    let kept = partition.keep_raised(transaction, barrier, epoch).expect("sound");
    if !kept {
        assert_eq!(partition.lower(barrier, epoch, None), Ok(true));
    }
    kept
}

#[test]
fn a_key_is_refused_until_the_decision_and_what_is_older_than_that_for_ever() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    assert!(prepare(&partition, 7, Removal::Key(key(1))));
    assert!(prepare(&partition, 8, Removal::Key(key(1))));
    assert_eq!(partition.is_undecided(), Ok(true));
    let mut seen = Vec::new();
    partition.undecided(|transaction| seen.push(transaction)).expect("sound");
    assert_eq!(seen, [7, 8]);
    assert_eq!(partition.removal_decided(9, Some(at(5))), Ok(()), "nobody knows of it");
    assert!(refuses(&partition, 1, at(1000)));
    assert_eq!(partition.removal_decided(7, Some(at(10))), Ok(()));
    assert!(refuses(&partition, 1, at(1000)), "the other one isn't decided");
    assert_eq!(partition.removal_decided(8, None), Ok(()));
    assert_eq!(partition.is_undecided(), Ok(false));
    assert!(refuses(&partition, 1, at(10)) && !refuses(&partition, 1, at(11)));
    partition.check().expect("sound");
}

#[test]
fn there_is_room_for_as_many_as_there_are_records() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    for transaction in 1..=RECORDS as u64 {
        assert!(prepare(&partition, transaction, Removal::Key(key(transaction))));
    }
    assert!(!prepare(&partition, 99, Removal::Key(key(99))));
    assert_eq!(partition.raise_for_unknown(99, DATABASE), Ok(false));
    assert!(!refuses(&partition, 99, at(1)), "what there was no room for holds nothing up");
    assert_eq!(partition.forget_undecided(3), Ok(()));
    assert_eq!(partition.raise_for_unknown(99, DATABASE), Ok(true));
    assert!(refuses(&partition, 12345, at(1000)), "all of the database");
    partition.check().expect("sound");
}

#[test]
fn a_partition_that_is_not_trusted_takes_nothing_until_somebody_has_looked() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    partition.distrust().expect("sound");
    partition.distrust().expect("sound");
    assert!(refuses(&partition, 1, at(1000)) && partition.is_undecided() == Ok(true));
    partition.trust_on_standby().expect("sound");
    assert_eq!(partition.trust(), Ok(Trust::OnStandby));
    assert!(!refuses(&partition, 1, at(1000)) && partition.is_undecided() == Ok(false));
    assert_eq!(partition.raise_for_unknown(5, DATABASE), Ok(true));
    partition.restore_trust(at(50)).expect("sound");
    partition.restore_trust(at(60)).expect("sound");
    assert!(refuses(&partition, 1, at(1000)));
    partition.removal_decided(5, None).expect("sound");
    assert!(refuses(&partition, 1, at(50)), "it may have been decided before somebody looked");
    assert!(!refuses(&partition, 1, at(51)), "nothing is to be known from the second time on");
}

#[test]
fn a_partition_that_was_emptied_has_no_records_of_before() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    let barrier = partition.barrier_of(Removal::Key(key(1)));
    let epoch = partition.raise(barrier).expect("sound");
    let partition = Partition::format(&words, at(20)).expect("large enough");
    partition.distrust().expect("sound");
    assert_eq!(partition.keep_raised(7, barrier, epoch), Ok(true));
    partition.restore_trust(at(30)).expect("sound");
    assert_eq!(partition.is_undecided(), Ok(false));
    assert!(!refuses(&partition, 1, at(31)));
}

/// Against a model that knows who has removed what, and when it was decided.
#[test]
fn nothing_older_than_a_decision_is_let_in() {
    let words = allocate(1 << 15);
    let partition = formatted(&words);
    let (mut random, mut open) = (Random(5), HashMap::<u64, Vec<u64>>::new());
    let mut removed = HashMap::<u64, u64>::new();
    for now in 1..rounds(20_000) {
        match random.below(4) {
            0 if open.len() < 8 => {
                let numbers: Vec<u64> = (0..=random.below(3)).map(|_| random.below(50)).collect();
                for &number in &numbers {
                    assert!(prepare(&partition, now, Removal::Key(key(number))));
                }
                open.insert(now, numbers);
            }
            1 => {
                let Some(&transaction) = open.keys().min() else { continue };
                let commit = random.below(2) == 0;
                partition.removal_decided(transaction, commit.then_some(at(now))).expect("sound");
                for number in open.remove(&transaction).unwrap_or_default() {
                    if commit {
                        removed.insert(number, now);
                    }
                }
            }
            _ => {
                let (number, since) = (random.below(50), now.saturating_sub(random.below(10)));
                let stale = open.values().flatten().any(|&other| other == number)
                    || removed.get(&number).is_some_and(|&at| since <= at);
                assert!(!stale || refuses(&partition, number, at(since)), "{number} of {since} was let in at {now}");
            }
        }
        if now % 64 == 0 {
            partition.check().expect("sound");
        }
    }
    for transaction in open.into_keys() {
        partition.removal_decided(transaction, None).expect("sound");
    }
    assert!((0..50).all(|number| !refuses(&partition, number, at(1 << 40))), "something holds for ever");
}
