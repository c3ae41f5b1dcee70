//! Tests of a partition, alone and against naive models.

mod barrier;
mod basics;
mod corruption;
mod kept;
mod model;
mod names;
mod quality;
mod tags;
mod undecided;

use super::{Item, Kind, LogicalTime, Partition, Progress, Reservation};
use crate::hash::{KeyHash, key_hash};
use crate::words::{Corrupt, Words};
use proptest::test_runner::Config as ProptestConfig;

/// `count` random cases, unless the environment's `PROPTEST_CASES` asks for another number.
pub(super) fn cases(count: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    if is_hurried() { usual } else { ProptestConfig { cases: count, ..usual } }
}

/// `full` rounds of a test that isn't proptest's, or a twentieth where that is asked for few cases.
pub(super) fn rounds(full: u64) -> u64 {
    if is_hurried() { full / 20 } else { full }
}

fn is_hurried() -> bool {
    std::env::var_os("PROPTEST_CASES").is_some()
}

pub(super) const DATABASE: u32 = 16384;

pub(super) fn key(number: u64) -> KeyHash {
    key_hash([1, 2], DATABASE, 0, &number.to_le_bytes())
}

pub(super) fn item(number: u64, expiry: u64) -> Item {
    Item { key: key(number), database: DATABASE, expiry, kind: Kind::Json }
}

/// A value that differs by key and version in every byte position that matters.
pub(super) fn value(number: u64, version: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (number.wrapping_mul(31) ^ version.wrapping_mul(17) ^ i ^ i >> 8).to_le_bytes()[0])
        .collect()
}

pub(super) fn formatted(words: Words<'_>) -> Partition<'_> {
    Partition::format(words, LogicalTime::default()).expect("the slice is large enough")
}

/// Reserves with as many calls as it takes; `None` where it's full.
pub(super) fn reserve(partition: &Partition<'_>, len: usize, now: u64) -> Result<Option<Reservation>, Corrupt> {
    let mut request = Reservation::new(len);
    for _ in 0..100_000 {
        match partition.reserve(&mut request, now)? {
            Progress::Ready => return Ok(Some(request)),
            Progress::Full => return Ok(None),
            Progress::More => {}
        }
    }
    panic!("reserve makes no progress");
}

pub(super) fn set(partition: &Partition<'_>, item: &Item, value: &[u8], now: u64) -> Result<bool, Corrupt> {
    let Some(mut reservation) = reserve(partition, value.len(), now)? else { return Ok(false) };
    Ok(partition.fill(&reservation, value)? && partition.publish(&mut reservation, item)?)
}

pub(super) fn get(partition: &Partition<'_>, key: KeyHash, now: u64) -> Result<Option<Vec<u8>>, Corrupt> {
    let seen = partition.read_optimistic(key, || now).map(|seen| {
        let mut out = vec![0; seen.len];
        seen.copy(&mut out);
        out
    });
    let Some(found) = partition.find(key, now)? else {
        assert_eq!(seen, None, "seen without the lock, not found with it");
        return Ok(None);
    };
    let mut out = vec![0; found.len];
    partition.copy(found, &mut out)?;
    assert!(seen.is_none_or(|seen| seen == out), "another value without the lock than with it");
    Ok(Some(out))
}

/// Pseudo-random numbers that are the same on every run (Steele, Lea and Flood's `SplitMix64`).
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// In 0..1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
