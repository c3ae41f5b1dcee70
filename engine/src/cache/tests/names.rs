//! Names of entries, and listing them.

use super::super::{MAX_NAME, MAX_TAGS, NEVER, Partition, Progress, Reservation, Tags};
use super::{Random, formatted, get, item, key, rounds, set, value};
use crate::words::allocate;
use std::collections::BTreeMap;

/// A name that differs by number and length.
fn name(number: u64, len: usize) -> Vec<u8> {
    let mut name = value(number, 99, len);
    name.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
    name
}

fn put(
    partition: &Partition<'_>,
    number: u64,
    name: Option<&[u8]>,
    bytes: &[u8],
    tags: Tags,
    ends: (u64, Option<u64>),
) {
    let item = item(number, ends.0);
    if tags.hashes().is_empty() && ends.1.is_none() && partition.overwrite(&item, name, bytes) == Ok(true) {
        return;
    }
    let mut request = Reservation::kept(bytes.len(), tags, ends.1);
    request.keep_name(name);
    while partition.reserve(&mut request, 0) == Ok(Progress::More) {}
    assert_eq!(partition.fill_named(&request, name, bytes), Ok(true));
    assert_eq!(partition.publish(&mut request, &item), Ok(true));
}

/// All names, with the length of their values and when they are over.
fn listed(partition: &Partition<'_>, now: u64) -> BTreeMap<Vec<u8>, (usize, u64)> {
    let mut listed = BTreeMap::new();
    let mut bucket = 0;
    while partition
        .names(bucket, now, &mut |named| {
            let before = listed.insert(named.name.to_vec(), (named.len, named.expiry));
            assert_eq!(before, None, "listed twice");
        })
        .expect("sound")
    {
        bucket += 1;
    }
    listed
}

#[test]
fn names_and_values_of_every_length_are_whole_even_scattered() {
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
    let mut tags = Tags::default();
    assert!(tags.push(Random(7).next()));
    for name_len in [0, 1, 7, 8, 9, 56, 63, 64, 65, MAX_NAME] {
        for len in [0, 1, 8, 55, 56, 64, 120, 1000] {
            for (tags, ends) in [(Tags::default(), (NEVER, None)), (tags, (90, None)), (tags, (90, Some(50)))] {
                let (name, bytes) = (name(1, name_len), value(1, len as u64, len));
                put(&partition, 1, Some(&name), &bytes, tags, ends);
                assert_eq!(get(&partition, key(1), 0), Ok(Some(bytes)), "{name_len}, {len}");
                let found = partition.find(key(1), 0).expect("sound").expect("there");
                assert_eq!(partition.tags(found), Ok(tags));
                let over = ends.1.unwrap_or(ends.0);
                assert_eq!(listed(&partition, 0), BTreeMap::from([(name.clone(), (len, over))]));
                assert!(over == NEVER || listed(&partition, over).is_empty(), "what is over isn't listed");
                partition.check().expect("sound");
            }
        }
    }
    let whole = (0..MAX_TAGS as u64).all(|_| tags.push(1));
    assert!(!whole);
}

/// Values with names and without, written over each other, against a map.
#[test]
fn a_random_history_lists_what_a_map_has() {
    let words = allocate(1 << 16);
    let partition = formatted(&words);
    let mut random = Random(3);
    let mut model: BTreeMap<u64, (Option<Vec<u8>>, Vec<u8>)> = BTreeMap::new();
    for version in 0..rounds(20_000) {
        let number = random.below(60);
        // The same key has the same name, if it has one.
        let named = name(number, (number % 30) as usize * 2 + 8);
        let bytes = value(number, version, random.below(4) as usize * 50);
        match random.below(10) {
            0 => {
                partition.remove(key(number), 0).expect("sound");
                model.remove(&number);
            }
            1..3 => {
                put(&partition, number, None, &bytes, Tags::default(), (NEVER, None));
                model.insert(number, (None, bytes));
            }
            3 => {
                set(&partition, &item(number, NEVER), &bytes, 0).expect("sound");
                model.insert(number, (None, bytes));
            }
            _ => {
                put(&partition, number, Some(&named), &bytes, Tags::default(), (NEVER, None));
                model.insert(number, (Some(named), bytes));
            }
        }
        let number = random.below(60);
        let expected = model.get(&number).map(|(_, bytes)| bytes.clone());
        assert_eq!(get(&partition, key(number), 0), Ok(expected));
        if version % 100 == 0 {
            let all = model.values().filter_map(|(name, bytes)| Some((name.clone()?, (bytes.len(), NEVER)))).collect();
            assert_eq!(listed(&partition, 0), all);
            partition.check().expect("sound");
        }
    }
}

#[test]
fn a_name_that_isnt_the_reservations_is_refused() {
    let words = allocate(1 << 15);
    let partition = formatted(&words);
    let mut request = Reservation::new(1);
    request.keep_name(Some(b"name"));
    assert_eq!(partition.reserve(&mut request, 0), Ok(Progress::Ready));
    for other in [None, Some(&b"nam"[..]), Some(b"names")] {
        assert_eq!(partition.fill_named(&request, other, b"x"), Ok(false));
    }
    assert_eq!(partition.fill(&request, b"x"), Ok(false));
    assert_eq!(partition.fill_named(&request, Some(b"name"), b"x"), Ok(true));
    assert_eq!(partition.names(usize::MAX, 0, &mut |_| ()), Ok(false));
}
