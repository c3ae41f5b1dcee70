//! Tags: what an invalidation ends, and what it doesn't.

use super::super::{MAX_TAGS, NEVER, Partition, Progress, Reservation, Tags};
use super::{Random, formatted, get, item, key, rounds, value};
use crate::words::allocate;
use std::collections::HashMap;

fn tags(hashes: impl IntoIterator<Item = u64>) -> Tags {
    let mut tags = Tags::default();
    for hash in hashes {
        // Spread as the hashes of real tags are.
        assert!(tags.push(Random(hash).next()));
    }
    tags
}

fn hash(tag: u64) -> u64 {
    Random(tag).next()
}

fn set(partition: &Partition<'_>, number: u64, bytes: &[u8], tags: Tags) {
    let mut request = Reservation::tagged(bytes.len(), tags);
    while partition.reserve(&mut request, 0) == Ok(Progress::More) {}
    assert_eq!(partition.fill(&request, bytes), Ok(true));
    assert_eq!(partition.publish(&mut request, &item(number, NEVER)), Ok(true));
}

#[test]
fn an_invalidation_ends_what_carries_the_tag_and_nothing_later() {
    let words = allocate(1 << 15);
    let partition = formatted(&words);
    set(&partition, 1, b"one", tags([1]));
    set(&partition, 2, b"both", tags([1, 2]));
    set(&partition, 3, b"two", tags([2]));
    set(&partition, 4, b"none", Tags::default());
    partition.invalidate(hash(1)).expect("sound");
    set(&partition, 5, b"later", tags([1]));
    let found = |number| get(&partition, key(number), 0).expect("sound").is_some();
    assert_eq!([1, 2, 3, 4, 5].map(found), [false, false, true, true, true]);
    partition.invalidate(hash(2)).expect("sound");
    assert_eq!([1, 2, 3, 4, 5].map(found), [false, false, false, true, true]);
    while partition.sweep(&mut 0, 0, 1000).expect("sound") {}
    assert_eq!(partition.check().expect("sound").entries, 2);
}

#[test]
fn tags_and_values_of_every_length_are_whole_even_scattered() {
    let words = allocate(1 << 15);
    let partition = formatted(&words);
    // Single free blocks between reservations: nothing fits into one run.
    let mut small = Vec::new();
    loop {
        let mut request = Reservation::new(0);
        if partition.reserve(&mut request, 0) != Ok(Progress::Ready) {
            break;
        }
        small.push(request);
    }
    for request in small.iter_mut().step_by(2) {
        partition.release(request).expect("sound");
    }
    for count in 0..=MAX_TAGS {
        for len in [0, 1, 7, 8, 9, 55, 56, 57, 63, 64, 65, 111, 112, 113, 1000] {
            let all = tags(0..count as u64);
            let bytes = value(1, len as u64, len);
            set(&partition, 1, &bytes, all);
            assert_eq!(get(&partition, key(1), 0), Ok(Some(bytes)), "{count} tags, {len} bytes");
            let found = partition.find(key(1), 0).expect("sound").expect("there");
            assert_eq!(partition.tags(found), Ok(all));
            partition.check().expect("sound");
            if let Some(last) = count.checked_sub(1) {
                partition.invalidate(hash(last as u64)).expect("sound");
                assert_eq!(get(&partition, key(1), 0), Ok(None));
            }
        }
    }
    assert!(!tags(0..MAX_TAGS as u64).clone().push(9), "one tag too many");
}

/// Far more tags are invalidated than there are records: an entry may end too early, but never stays too long.
#[test]
fn more_invalidations_than_records_end_too_much_rather_than_too_little() {
    let words = allocate(1 << 15);
    let partition = formatted(&words);
    let mut random = Random(5);
    let mut model: HashMap<u64, [u64; 2]> = HashMap::new();
    let mut kept = 0;
    let all = rounds(20_000);
    for _ in 0..all {
        let (number, one, two) = (random.below(50), random.below(400), random.below(400));
        set(&partition, number, b"x", tags([one, two]));
        model.insert(number, [one, two]);
        let tag = random.below(400);
        partition.invalidate(hash(tag)).expect("sound");
        model.retain(|_, tags| !tags.contains(&tag));
        let probe = random.below(50);
        let found = get(&partition, key(probe), 0).expect("sound").is_some();
        assert!(!found || model.contains_key(&probe), "an invalidated entry was found");
        kept += u32::from(found);
    }
    assert!(u64::from(kept) * 20 > all, "only {kept} of {all} were ever found");
}

#[test]
fn clearing_what_is_tagged_ends_what_has_any_tag_and_nothing_else() {
    let words = allocate(1 << 15);
    let partition = formatted(&words);
    let records = Partition::tag_records(words.len()) as u64;
    assert!(records > 10);
    partition.invalidate(hash(3)).expect("sound");
    for number in 0..2 * records {
        set(&partition, number, b"x", tags([number]));
    }
    set(&partition, 2 * records, b"x", Tags::default());
    partition.clear_tagged(super::DATABASE + 1).expect("sound");
    assert_eq!(get(&partition, key(0), 0), Ok(Some(b"x".to_vec())), "another database's");
    partition.clear_tagged(super::DATABASE).expect("sound");
    set(&partition, 2 * records + 1, b"x", tags([3, 4]));
    let found = |number| get(&partition, key(number), 0).expect("sound").is_some();
    assert!((0..2 * records).all(|number| !found(number)), "an entry outlived its tag");
    assert!(found(2 * records) && found(2 * records + 1));
    partition.invalidate(hash(4)).expect("sound");
    assert!(!found(2 * records + 1));
    partition.check().expect("sound");
}
