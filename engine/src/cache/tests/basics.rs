//! One behaviour a test.

use super::super::{Found, Item, Kind, LogicalTime, NEVER, Partition, Progress, Reservation};
use super::{DATABASE, formatted, get, item, key, reserve, set, value};
use crate::words::{Corrupt, allocate};

const SECOND: u64 = 1_000_000;

#[test]
fn a_value_comes_back_whatever_its_length() {
    let words = allocate(1 << 16);
    let partition = formatted(&words);
    for len in (0..300).chain([4095, 4096, 100_000]) {
        let bytes = value(1, len as u64, len);
        assert_eq!(set(&partition, &item(1, NEVER), &bytes, 0), Ok(true));
        assert_eq!(get(&partition, key(1), 0), Ok(Some(bytes)));
        assert_eq!(get(&partition, key(2), 0), Ok(None));
        partition.check().expect("sound");
    }
}

#[test]
fn unformatted_or_short_memory_is_refused() {
    let words = allocate(1 << 12);
    assert_eq!(Partition::open(&words).err(), Some(Corrupt));
    formatted(&words);
    assert!(Partition::open(&words).is_ok());
    let short = allocate(Partition::MIN_WORDS - 1);
    assert_eq!(Partition::format(&short, LogicalTime::default()).err(), Some(Corrupt));
    let least = allocate(Partition::MIN_WORDS);
    formatted(&least).check().expect("sound");
}

#[test]
fn the_kind_is_kept() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    for kind in [Kind::Json, Kind::Bytes] {
        let item = Item { kind, ..item(1, NEVER) };
        assert_eq!(set(&partition, &item, b"x", 0), Ok(true));
        assert_eq!(partition.find(key(1), 0).expect("sound").map(|found| found.kind), Some(kind));
    }
}

#[test]
fn an_expired_entry_is_a_miss_from_its_very_microsecond() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    assert_eq!(set(&partition, &item(1, 5 * SECOND), b"x", 0), Ok(true));
    assert!(get(&partition, key(1), 5 * SECOND - 1).expect("sound").is_some());
    assert_eq!(get(&partition, key(1), 5 * SECOND), Ok(None));
    assert_eq!(partition.remove(key(1), 5 * SECOND), Ok(false));
    assert_eq!(partition.stats().map(|stats| (stats.entries, stats.expirations, stats.deletes)), Ok((0, 1, 0)));
}

#[test]
fn expire_frees_what_is_over_and_nothing_else() {
    let words = allocate(1 << 17);
    let partition = formatted(&words);
    for number in 0..1000 {
        let expiry = if number % 4 == 0 { NEVER } else { number * SECOND + 1 };
        assert_eq!(set(&partition, &item(number, expiry), b"value", 0), Ok(true));
    }
    for now in [0, 1, 70_000, 499 * SECOND, 500 * SECOND, 2000 * SECOND] {
        while partition.expire(now, 10).expect("sound") {
            partition.check().expect("sound");
        }
        // A tick of 65 ms may pass between the end and its notice.
        let over = |number: u64, by: u64| !number.is_multiple_of(4) && number * SECOND + 1 + by <= now;
        let least = (0..1000).filter(|&number| over(number, 65_536)).count() as u64;
        let most = (0..1000).filter(|&number| over(number, 0)).count() as u64;
        let expired = partition.stats().expect("sound").expirations;
        assert!((least..=most).contains(&expired), "{expired} expired of {least}..={most}");
    }
    assert_eq!(partition.stats().expect("sound").entries, 250);
}

#[test]
fn a_clock_set_back_hurts_nothing() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    while partition.expire(1000 * SECOND, 10).expect("sound") {}
    assert_eq!(set(&partition, &item(1, 20 * SECOND), b"x", 10 * SECOND), Ok(true));
    assert!(get(&partition, key(1), 10 * SECOND).expect("sound").is_some());
    while partition.expire(10 * SECOND, 10).expect("sound") {}
    partition.check().expect("sound");
}

/// By a touch as by a new value in the entry's place: from each expiry to each other.
#[test]
fn an_expiry_moves_both_ways() {
    let words = allocate(1 << 14);
    assert_eq!(formatted(&words).touch(key(1), 0, NEVER), Ok(false));
    let ends = [2 * SECOND, 3 * SECOND, 50 * SECOND, 100 * SECOND, NEVER];
    for (overwritten, first, second) in ends.iter().flat_map(|&a| ends.map(|b| [(false, a, b), (true, a, b)])).flatten()
    {
        let partition = formatted(&words);
        assert_eq!(set(&partition, &item(1, SECOND), b"x", 0), Ok(true));
        for (now, expiry) in [(0, first), (SECOND * 3 / 2, second)] {
            while partition.expire(now, 10).expect("sound") {}
            let moved = if overwritten {
                partition.overwrite(&item(1, expiry), None, b"y")
            } else {
                partition.touch(key(1), now, expiry)
            };
            assert_eq!(moved, Ok(true));
            assert_eq!(partition.find(key(1), now).expect("sound").map(|found: Found| found.expiry), Some(expiry));
            partition.check().expect("sound");
        }
        let last = second.min(1000 * SECOND);
        for now in (2..last / SECOND).chain([last / SECOND + 1]).map(|second| second * SECOND) {
            while partition.expire(now, 10).expect("sound") {}
            partition.check().expect("sound");
            let there = now < second;
            assert_eq!(get(&partition, key(1), now).expect("sound").is_some(), there, "{first} → {second} at {now}");
            assert_eq!(partition.stats().expect("sound").entries, u64::from(there), "{first} → {second} at {now}");
        }
    }
}

#[test]
fn sliding_moves_the_expiry_without_the_exclusive_lock() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    assert_eq!(set(&partition, &item(1, SECOND), b"x", 0), Ok(true));
    for second in 1..100 {
        let found = partition.find(key(1), second * SECOND - 1).expect("sound").expect("still there");
        assert_eq!(partition.slide(found, (second + 1) * SECOND), Ok(true));
        while partition.expire(second * SECOND, 10).expect("sound") {}
        partition.check().expect("sound");
    }
    assert_eq!(get(&partition, key(1), 100 * SECOND), Ok(None));
    while partition.expire(101 * SECOND, 10).expect("sound") {}
    assert_eq!(partition.stats().expect("sound").entries, 0);
    assert_eq!(set(&partition, &item(1, NEVER), b"x", 0), Ok(true));
    let found = partition.find(key(1), 0).expect("sound").expect("there");
    assert_eq!(partition.slide(found, SECOND), Ok(false));
    assert_eq!(get(&partition, key(1), SECOND), Ok(Some(b"x".to_vec())));
}

#[test]
fn expired_entries_go_before_live_ones() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    let bytes = value(1, 1, 1000);
    let mut number = 0;
    while partition.stats().expect("sound").evictions == 0 {
        let expiry = if number % 2 == 0 { SECOND } else { NEVER };
        assert_eq!(set(&partition, &item(number, expiry), &bytes, 0), Ok(true));
        number += 1;
    }
    let before = partition.stats().expect("sound");
    // As many as have expired fit without anything live giving way.
    for more in 0..before.entries / 2 - 1 {
        assert_eq!(set(&partition, &item(1_000_000 + more, NEVER), &bytes, 2 * SECOND), Ok(true));
    }
    assert_eq!(partition.stats().expect("sound").evictions, before.evictions);
}

#[test]
fn clearing_ends_what_was_there_and_nothing_later() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    for number in 0..10 {
        assert_eq!(set(&partition, &item(number, NEVER), b"x", 0), Ok(true));
    }
    let other = Item { database: DATABASE + 1, ..item(100, NEVER) };
    assert_eq!(set(&partition, &other, b"other", 0), Ok(true));
    partition.clear(DATABASE).expect("sound");
    assert_eq!(set(&partition, &item(3, NEVER), b"new", 0), Ok(true));
    for number in 0..10 {
        let expected = (number == 3).then(|| b"new".to_vec());
        assert_eq!(get(&partition, key(number), 0), Ok(expected));
    }
    assert_eq!(get(&partition, other.key, 0), Ok(Some(b"other".to_vec())));
    let mut passed = 0;
    while partition.sweep(&mut passed, 0, 3).expect("sound") {
        partition.check().expect("sound");
    }
    assert_eq!(partition.stats().expect("sound").entries, 2);
}

#[test]
fn a_scattered_value_is_whole_and_frees_everything() {
    let words = allocate(1 << 16);
    let partition = formatted(&words);
    let empty = partition.check().expect("sound");
    // Every second small reservation released leaves holes of three blocks, nothing larger.
    let mut kept = Vec::new();
    while let Some(small) = reserve(&partition, 100, 0).expect("sound") {
        kept.push(small);
    }
    let number = kept.len();
    let holes: Vec<_> = kept.into_iter().enumerate().fold(Vec::new(), |mut rest, (index, mut reservation)| {
        if index % 2 == 0 {
            partition.release(&mut reservation).expect("sound");
        } else {
            rest.push(reservation);
        }
        rest
    });
    let bytes = value(1, 2, number * 60);
    assert_eq!(set(&partition, &item(1, NEVER), &bytes, 0), Ok(true));
    assert!(partition.check().expect("sound").runs > number as u64 / 3, "not scattered");
    assert_eq!(get(&partition, key(1), 0), Ok(Some(bytes)));
    assert_eq!(partition.remove(key(1), 0), Ok(true));
    assert!(partition.check().expect("sound").doomed_blocks > 0, "freed at once, however many runs");
    for mut hole in holes {
        partition.release(&mut hole).expect("sound");
    }
    while partition.expire(0, 1).expect("sound") {}
    assert_eq!(partition.check(), Ok(empty));
}

#[test]
fn what_cannot_fit_is_full_and_leaves_no_trace() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    assert!(
        reserve(&partition, partition.largest_value(), 0)
            .is_ok_and(|request| { request.is_some_and(|mut request| partition.release(&mut request).is_ok()) })
    );
    let too_large = usize::try_from(partition.capacity()).expect("fits") - 63;
    assert!(reserve(&partition, too_large, 0).expect("sound").is_none());
    let mut whole = reserve(&partition, too_large - 1, 0).expect("sound").expect("fits exactly");
    assert!(reserve(&partition, 0, 0).expect("sound").is_none());
    assert_eq!(partition.check().expect("sound").free_blocks, 0);
    partition.release(&mut whole).expect("sound");
    let report = partition.check().expect("sound");
    assert_eq!((report.free_blocks * 64, report.reservations), (partition.capacity(), 0));
}

#[test]
fn a_reservation_from_before_formatting_is_void() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    let mut stale = reserve(&partition, 10, 0).expect("sound").expect("room");
    let mut released = reserve(&partition, 10, 0).expect("sound").expect("room");
    let partition = formatted(&words);
    assert_eq!(set(&partition, &item(1, NEVER), b"older", 0), Ok(true));
    assert_eq!(partition.fill(&stale, &[7; 10]), Ok(false));
    assert_eq!(partition.stats().expect("sound").evictions, 0);
    assert_eq!(partition.publish(&mut stale, &item(1, NEVER)), Ok(false));
    assert_eq!(get(&partition, key(1), 0), Ok(None), "an older value must not outlive a newer write");
    assert_eq!(partition.stats().expect("sound").evictions, 1);
    partition.release(&mut released).expect("sound");
    partition.check().expect("sound");
}

#[test]
fn an_unfinished_reservation_can_be_published_or_released() {
    let words = allocate(1 << 16);
    let partition = formatted(&words);
    for number in 0..2000 {
        assert_eq!(set(&partition, &item(number, NEVER), &value(number, 0, 100), 0), Ok(true));
    }
    let len = usize::try_from(partition.capacity() - 64).expect("fits");
    for publish in [true, false] {
        let mut request = Reservation::new(len);
        assert_eq!(partition.reserve(&mut request, 0), Ok(Progress::More));
        if publish {
            assert_eq!(partition.publish(&mut request, &item(7, NEVER)), Ok(false));
        } else {
            partition.release(&mut request).expect("sound");
        }
        assert_eq!(partition.check().expect("sound").reservations, 0);
    }
}

#[test]
fn counters_count() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    for stripe in 0..20 {
        partition.count_hit(stripe);
        partition.count_hit(stripe);
        partition.count_miss(stripe);
    }
    assert_eq!(set(&partition, &item(1, NEVER), b"12345", 0), Ok(true));
    assert_eq!(set(&partition, &item(1, NEVER), b"123", 0), Ok(true));
    assert_eq!(set(&partition, &item(2, NEVER), b"1", 0), Ok(true));
    assert_eq!(partition.remove(key(2), 0), Ok(true));
    assert_eq!(partition.remove(key(2), 0), Ok(false));
    let stats = partition.stats().expect("sound");
    assert_eq!((stats.hits, stats.misses, stats.sets, stats.deletes), (40, 20, 3, 1));
    assert_eq!((stats.entries, stats.value_bytes, stats.bytes_used), (1, 3, 128));
}

/// What [`Partition::read_optimistic`] shows of a key at `now`.
fn read_optimistic(partition: &Partition<'_>, number: u64, now: u64) -> Option<(Vec<u8>, Kind)> {
    let seen = partition.read_optimistic(key(number), || now)?;
    let mut out = vec![0; seen.len];
    seen.copy(&mut out);
    Some((out, seen.kind))
}

#[test]
fn the_plain_case_is_seen_without_the_lock_once_it_is_in_frequent_use() {
    let words = allocate(4096);
    let partition = formatted(&words);
    let content = value(1, 1, 150);
    set(&partition, &Item { kind: Kind::Bytes, ..item(1, 1000) }, &content, 0).expect("sound");
    assert_eq!(read_optimistic(&partition, 1, 10), None, "it has yet to be marked as used");
    for _ in 0..3 {
        assert_eq!(get(&partition, key(1), 10), Ok(Some(content.clone())));
    }
    assert_eq!(read_optimistic(&partition, 1, 10), Some((content.clone(), Kind::Bytes)));
    assert_eq!(read_optimistic(&partition, 1, 1000), None, "it is over");
    assert_eq!(read_optimistic(&partition, 2, 10), None);
    partition.clear(DATABASE + 1).expect("sound");
    assert_eq!(read_optimistic(&partition, 1, 10), None, "a clearing may have ended it");
    assert_eq!(get(&partition, key(1), 10), Ok(Some(content)));
}
