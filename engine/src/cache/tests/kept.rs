//! Values that are kept for a while after their time is over.

use super::super::{Item, MAX_TAGS, NEVER, Partition, Progress, Reservation, Tags};
use super::{Random, formatted, get, item, key, reserve, set, value};
use crate::words::allocate;

fn keep(partition: &Partition<'_>, number: u64, bytes: &[u8], tags: Tags, over: u64, until: u64) {
    let mut request = Reservation::kept(bytes.len(), tags, Some(over));
    while partition.reserve(&mut request, 0) == Ok(Progress::More) {}
    assert_eq!(partition.fill(&request, bytes), Ok(true));
    assert_eq!(partition.publish(&mut request, &item(number, until)), Ok(true));
}

fn kept(partition: &Partition<'_>, number: u64, now: u64) -> Option<Vec<u8>> {
    let found = partition.find_kept(key(number), now).expect("sound")?;
    let mut out = vec![0; found.len];
    partition.copy(found, &mut out).expect("sound");
    Some(out)
}

#[test]
fn it_is_found_until_it_is_over_and_kept_until_it_goes() {
    const TICK: u64 = 1 << 20;
    let words = allocate(1 << 16);
    let partition = formatted(&words);
    for (len, tags) in [(0, 0), (1, 1), (56, 2), (5000, MAX_TAGS as u64)] {
        let bytes = value(1, len as u64, len);
        let mut hashes = Tags::default();
        (1..=tags).for_each(|tag| assert!(hashes.push(Random(tag).next())));
        keep(&partition, 1, &bytes, hashes, 5 * TICK, 9 * TICK);
        let found = partition.find(key(1), 0).expect("sound").expect("there");
        assert_eq!((found.expiry, partition.tags(found)), (5 * TICK, Ok(hashes)));
        assert_eq!(get(&partition, key(1), 5 * TICK - 1), Ok(Some(bytes.clone())));
        assert_eq!(get(&partition, key(1), 5 * TICK), Ok(None));
        // Nothing that looks for what has expired takes it before it goes.
        while partition.expire(9 * TICK - 1, 100).expect("sound") {}
        while partition.sweep(&mut 0, 9 * TICK - 1, 1000).expect("sound") {}
        assert_eq!(kept(&partition, 1, 9 * TICK - 1), Some(bytes.clone()));
        partition.check().expect("sound");
        assert_eq!(kept(&partition, 1, 9 * TICK), None);
        if tags > 0 {
            partition.invalidate(Random(tags).next()).expect("sound");
            assert_eq!(kept(&partition, 1, 0), None, "what is invalidated isn't kept");
        }
        partition.remove(key(1), 0).expect("sound");
        assert_eq!(kept(&partition, 1, 0), None);
        assert_eq!(partition.check().expect("sound").entries, 0);
    }
}

#[test]
fn a_new_end_or_a_new_value_ends_the_keeping() {
    let words = allocate(1 << 16);
    let partition = formatted(&words);
    keep(&partition, 1, b"value", Tags::default(), 50, 90);
    let found = partition.find(key(1), 0).expect("sound").expect("there");
    assert_eq!(partition.slide(found, 70), Ok(false), "two ends aren't moved under the shared lock");
    assert_eq!(partition.touch(key(1), 0, 70), Ok(true));
    assert_eq!(get(&partition, key(1), 69), Ok(Some(b"value".to_vec())));
    assert_eq!(kept(&partition, 1, 70), None);
    assert_eq!(partition.touch(key(1), 0, NEVER), Ok(true));
    assert_eq!(get(&partition, key(1), NEVER - 1), Ok(Some(b"value".to_vec())));
    keep(&partition, 1, b"value", Tags::default(), 50, 90);
    let plain = Item { ..item(1, 60) };
    assert_eq!(partition.overwrite(&plain, None, b"other"), Ok(false), "its value lies elsewhere");
    assert_eq!(set(&partition, &plain, b"other", 0), Ok(true));
    assert_eq!((get(&partition, key(1), 59), kept(&partition, 1, 60)), (Ok(Some(b"other".to_vec())), None));
    partition.check().expect("sound");
}

#[test]
fn it_is_whole_where_every_run_is_a_single_block() {
    let words = allocate(1 << 14);
    let partition = formatted(&words);
    let mut small = Vec::new();
    while let Ok(Some(request)) = reserve(&partition, 0, 0) {
        small.push(request);
    }
    for request in small.iter_mut().step_by(2) {
        partition.release(request).expect("sound");
    }
    let (bytes, mut tags) = (value(1, 1, 300), Tags::default());
    assert!(tags.push(4711));
    keep(&partition, 1, &bytes, tags, 50, 90);
    assert_eq!(get(&partition, key(1), 49), Ok(Some(bytes.clone())));
    assert_eq!((get(&partition, key(1), 50), kept(&partition, 1, 50)), (Ok(None), Some(bytes)));
    partition.check().expect("sound");
    partition.invalidate(4711).expect("sound");
    assert_eq!(kept(&partition, 1, 0), None);
}
