//! Memory that holds anything at all: every call ends, without a panic, with an answer or with `Corrupt`.

use super::super::{LogicalTime, Partition, Removal, Reservation, Tags};
use super::{Random, cases, formatted, item, key, reserve, rounds, set, value};
use crate::words::{Corrupt, Words, allocate};
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

/// Every call there is, a few times; stops at the first that finds the damage.
fn exercise(partition: &Partition<'_>, random: &mut Random, held: Option<Reservation>) -> Result<(), Corrupt> {
    for round in 0..8 {
        let number = random.below(20);
        let now = random.next() >> random.below(64);
        if let Some(seen) = partition.read_optimistic(key(number), || now) {
            seen.copy(&mut vec![0; seen.len.min(1 << 20)]);
        }
        if let Some(found) = partition.find(key(number), now)? {
            let mut out = vec![0; found.len.min(1 << 20)];
            if out.len() == found.len {
                partition.copy(found, &mut out)?;
            }
        }
        set(partition, &item(number, now), &value(number, round, 500), now)?;
        partition.touch(key(random.below(20)), now, random.next())?;
        partition.remove(key(random.below(20)), now)?;
        partition.expire(now, 50)?;
        partition.sweep(&mut 0, now, 50)?;
        partition.clear(super::DATABASE)?;
        let barrier = partition.barrier_of(Removal::Key(key(number)));
        let epoch = partition.raise(barrier)?;
        partition.refuses(key(number), super::DATABASE, &Tags::default(), LogicalTime::default(), |_| false)?;
        partition.lower(barrier, epoch, Some(LogicalTime { time: now, ended: random.next() }))?;
        partition.stats()?;
        let mut request = Reservation::new(3000);
        partition.reserve(&mut request, now)?;
        partition.release(&mut request)?;
        partition.count_hit(3);
    }
    if let Some(mut held) = held {
        partition.fill(&held, &[1; 1000])?;
        partition.publish(&mut held, &item(1, 5))?;
    }
    Ok(())
}

fn fill(words: Words<'_>) -> Option<Reservation> {
    let partition = formatted(words);
    for number in 0..20 {
        let expiry = 1000 * 1000 * (number + 1);
        set(&partition, &item(number, expiry), &value(number, 0, 300), 0).expect("sound");
    }
    reserve(&partition, 1000, 0).expect("sound")
}

/// Random memory whose structure is right often enough to be walked: the magic stands, words are small numbers.
#[test]
fn random_words_never_panic_or_loop() {
    let words = allocate(4096);
    let mut found = 0;
    let seeds = rounds(3000);
    for seed in 0..seeds {
        let mut random = Random(seed);
        formatted(&words);
        let mask = [u64::MAX, 0xff, 0x1ff_0000_01ff, 0x2800_00ff][usize::try_from(seed % 4).expect("small")];
        for word in words.iter().skip(1) {
            word.store(random.next() & mask, Relaxed);
        }
        let partition = Partition::open(&words).expect("the magic stands");
        found += u32::from(exercise(&partition, &mut random, None).is_err());
        assert!(partition.check().is_err(), "the walk takes noise for a partition");
    }
    assert!(u64::from(found) * 3 > seeds, "{found} of {seeds}: hardly anything noticed");
}

proptest! {
    #![proptest_config(cases(2000))]

    /// A sound partition with a few words overwritten.
    #[test]
    fn a_few_wrong_words_never_panic_or_loop(
        seed in any::<u64>(),
        hits in prop::collection::vec((1..4096_usize, prop_oneof![any::<u64>(), 0..600_u64, (0..600_u64).prop_map(|n| n << 32)]), 1..6),
    ) {
        let words = allocate(4096);
        let held = fill(&words);
        for (at, value) in hits {
            words[at].store(value, Relaxed);
        }
        let partition = Partition::open(&words).expect("the magic stands");
        let _ = exercise(&partition, &mut Random(seed), held);
        let _ = partition.check();
    }
}
