//! Barriers: which values they refuse, alone and against a model that remembers every removal.

use super::super::{LogicalTime, Partition, Removal, Tags};
use super::{DATABASE, Random, formatted, key, rounds};
use crate::words::allocate;

fn at(time: u64) -> LogicalTime {
    LogicalTime { time, ended: time }
}

fn refuses(partition: &Partition<'_>, number: u64, tags: &[u64], since: LogicalTime) -> bool {
    let mut hashes = Tags::default();
    for &tag in tags {
        assert!(hashes.push(Random(tag).next()));
    }
    partition.refuses(key(number), DATABASE, &hashes, since, |_| false).expect("sound").is_some()
}

fn raise(partition: &Partition<'_>, removal: Removal) -> (u32, u64) {
    let barrier = partition.barrier_of(removal);
    (barrier, partition.raise(barrier).expect("sound"))
}

fn tag(number: u64) -> Removal {
    Removal::Tag(Random(number).next())
}

#[test]
fn a_raised_barrier_refuses_everything_and_a_lowered_one_what_is_older() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    for removal in [Removal::Key(key(1)), tag(7), Removal::Everything(DATABASE)] {
        let base = partition_time(&partition);
        assert!(!refuses(&partition, 1, &[7], at(base + 1)));
        let (barrier, epoch) = raise(&partition, removal);
        assert!(refuses(&partition, 1, &[7], at(base + 1000)), "{removal:?}: held");
        assert_eq!(partition.lower(barrier, epoch, Some(at(base + 10))), Ok(true));
        assert!(refuses(&partition, 1, &[7], at(base + 9)), "{removal:?}: older");
        assert!(refuses(&partition, 1, &[7], at(base + 10)), "{removal:?}: of that microsecond");
        assert!(!refuses(&partition, 1, &[7], at(base + 11)), "{removal:?}: younger");
        // A snapshot that lacks what the remover did is older, whatever the clock says; one that has it may be, too.
        assert!(refuses(&partition, 1, &[7], LogicalTime { time: base + 11, ended: base + 9 }));
        assert!(!refuses(&partition, 1, &[7], LogicalTime { time: base + 11, ended: base + 10 }));
        assert!(refuses(&partition, 1, &[7], LogicalTime { time: base + 9, ended: base + 10 }));
    }
}

/// A time after everything that the test above has done to one partition.
fn partition_time(partition: &Partition<'_>) -> u64 {
    (0..).step_by(100).find(|&time| !refuses(partition, 1, &[7], at(time + 1))).expect("some time is free")
}

#[test]
fn a_removal_that_did_not_come_to_be_leaves_no_trace() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    let (barrier, epoch) = raise(&partition, Removal::Key(key(1)));
    assert_eq!(partition.lower(barrier, epoch, None), Ok(true));
    assert!(!refuses(&partition, 1, &[], at(1)));
}

#[test]
fn a_session_is_not_refused_by_its_own_barrier() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    let (barrier, epoch) = raise(&partition, Removal::Key(key(1)));
    let own = |since| {
        let refused = partition.refuses(key(1), DATABASE, &Tags::default(), since, |own| own == barrier);
        refused.expect("sound").is_some()
    };
    assert!(!own(at(5)));
    let (_, other) = raise(&partition, Removal::Key(key(1)));
    assert!(own(at(5)));
    assert_eq!(partition.lower(barrier, other, Some(at(7))), Ok(true));
    assert!(own(at(5)), "what the other has removed is gone for this one, too");
    assert!(!own(at(8)));
    assert_eq!(partition.lower(barrier, epoch, Some(at(9))), Ok(true));
    assert!(refuses(&partition, 1, &[], at(8)));
}

#[test]
fn a_formatted_partition_refuses_what_is_older_than_its_formatting() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    let (barrier, epoch) = raise(&partition, Removal::Key(key(1)));
    let partition = Partition::format(&words, at(50)).expect("large enough");
    assert!(refuses(&partition, 2, &[], at(50)));
    assert!(!refuses(&partition, 1, &[], at(51)), "the hold is forgotten, which its holder is told");
    assert_eq!(partition.lower(barrier, epoch, Some(at(60))), Ok(false));
    assert!(refuses(&partition, 1, &[], at(60)));
    assert!(!refuses(&partition, 1, &[], at(61)));
}

/// Never a stale value let in; and seldom a fresh one refused, by a barrier that it shares.
#[test]
fn barriers_refuse_at_least_what_exact_records_would() {
    let words = allocate(1 << 19);
    let partition = formatted(&words);
    let (mut random, mut removed) = (Random(11), std::collections::HashMap::new());
    let (mut needless, mut fresh) = (0_u64, 0_u64);
    for now in 1..rounds(200_000) {
        let number = random.below(100_000);
        let (barrier, epoch) = raise(&partition, Removal::Key(key(number)));
        assert_eq!(partition.lower(barrier, epoch, Some(at(now))), Ok(true));
        removed.insert(number, now);
        let asked = random.below(100_000);
        // Of a transaction that began up to 10 removals ago.
        let since = now.saturating_sub(random.below(10));
        let stale = removed.get(&asked).is_some_and(|&at| since <= at);
        let refused = refuses(&partition, asked, &[], at(since));
        assert!(refused || !stale, "a value of {since} was let in over a removal at {:?}", removed.get(&asked));
        fresh += u64::from(!stale);
        needless += u64::from(refused && !stale);
    }
    assert!(needless * 100 < fresh, "{needless} of {fresh} fresh values were refused");
}
