//! How well memory is used: what share of it holds values under churn, and what eviction keeps.

use super::super::{NEVER, Partition};
use super::{Random, formatted, get, item, key, reserve, rounds, set, value};
use crate::words::allocate;
use std::collections::{BTreeMap, HashMap};

const MEGABYTE: usize = 1 << 20;

/// Sizes of 10 B to 1 MB, as many in each decade.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 10 and 1e6")]
fn log_uniform(random: &mut Random) -> usize {
    10_f64.powf(1.0 + 5.0 * random.fraction()) as usize
}

/// The share of `words` in live values, averaged over the second half of the churn.
#[expect(clippy::cast_precision_loss, reason = "a share")]
fn churn(sets: u64, keys: u64, mut size: impl FnMut(&mut Random) -> usize) -> (f64, f64) {
    // 4 MiB: a quarter of the default memory, which is what a partition gets with values of up to 1 MB.
    let words = allocate(4 * MEGABYTE / 8);
    let partition = formatted(&words);
    let mut random = Random(1);
    let (mut sum, mut samples) = (0.0, 0.0);
    for number in 0..sets {
        let len = size(&mut random);
        let number_of_key = random.below(keys);
        // What the values hold doesn't matter here, so nothing is copied.
        let mut reservation = reserve(&partition, len, 0).expect("sound").expect("never refused");
        assert_eq!(partition.publish(&mut reservation, &item(number_of_key, NEVER)), Ok(true), "set {number}");
        if number.is_multiple_of(5) && number > sets / 2 {
            sum += partition.stats().expect("sound").value_bytes as f64;
            samples += 1.0;
        }
    }
    let report = partition.check().expect("sound");
    (sum / samples / (4 * MEGABYTE) as f64, report.runs as f64 / report.entries as f64)
}

#[test]
fn churn_keeps_most_of_the_memory_in_live_values() {
    let (live, runs) = churn(rounds(1_000_000), 1 << 40, log_uniform);
    assert!(live >= 0.85, "log-uniform: {live} in live values");
    assert!(runs < 20.0, "log-uniform: {runs} runs a value");
    let (live, runs) =
        churn(rounds(3000).max(600), 1 << 40, |random| 10 + usize::try_from(random.below(999_990)).expect("small"));
    assert!(live >= 0.85, "uniform: {live} in live values");
    assert!(runs < 20.0, "uniform: {runs} runs a value");
    // The same keys again and again: what is replaced must not pile up.
    let (live, _) = churn(rounds(60_000), 3000, log_uniform);
    assert!(live >= 0.85, "replacing: {live} in live values");
}

/// Ranks by a Zipf distribution.
struct Zipf(Vec<f64>);

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    fn new(keys: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=keys).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self(cumulative.collect())
    }

    fn next(&self, random: &mut Random) -> u64 {
        let point = random.fraction() * self.0.last().copied().unwrap_or(0.0);
        self.0.partition_point(|&sum| sum < point) as u64
    }
}

/// Exact LRU over a number of entries.
struct Lru {
    capacity: usize,
    clock: u64,
    last: HashMap<u64, u64>,
    order: BTreeMap<u64, u64>,
}

impl Lru {
    fn hit(&mut self, number: u64) -> bool {
        self.clock += 1;
        let before = self.last.insert(number, self.clock);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, number);
        if self.order.len() > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.last.remove(&oldest);
        }
        before.is_some()
    }
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "rates")]
fn eviction_is_nearly_as_good_as_lru() {
    let words = allocate(2 * MEGABYTE / 8);
    let partition = formatted(&words);
    let mut random = Random(3);
    let capacity = usize::try_from(partition.capacity() / 192).expect("small");
    let zipf = Zipf::new(4 * capacity, 0.99);
    let mut lru = Lru { capacity, clock: 0, last: HashMap::new(), order: BTreeMap::new() };
    let (mut hits, mut lru_hits, half) = (0_u64, 0_u64, rounds(400_000));
    for round in 0..2 * half {
        let number = zipf.next(&mut random);
        let hit = get(&partition, key(number), 0).expect("sound").is_some();
        if !hit {
            assert_eq!(set(&partition, &item(number, NEVER), &value(number, 0, 100), 0), Ok(true));
        }
        let lru_hit = lru.hit(number);
        if round >= half {
            hits += u64::from(hit);
            lru_hits += u64::from(lru_hit);
        }
    }
    let (rate, lru_rate) = (hits as f64 / half as f64, lru_hits as f64 / half as f64);
    assert!(rate >= lru_rate - 0.03, "hit rate {rate}, exact LRU {lru_rate}");
    partition.check().expect("sound");
}

#[test]
fn a_scan_of_values_read_once_does_not_drive_out_what_is_read_often() {
    let words = allocate(MEGABYTE / 8);
    let partition: Partition<'_> = formatted(&words);
    for round in 0..rounds(200) {
        for number in 0..100 {
            if get(&partition, key(number), 0).expect("sound").is_none() {
                assert_eq!(set(&partition, &item(number, NEVER), &value(number, 0, 100), 0), Ok(true));
            }
        }
        for number in 0..1000 {
            let once = 1_000_000 + round * 1000 + number;
            assert_eq!(set(&partition, &item(once, NEVER), &value(once, 0, 100), 0), Ok(true));
        }
    }
    let kept = (0..100).filter(|&number| get(&partition, key(number), 0).expect("sound").is_some()).count();
    assert_eq!(kept, 100);
}
