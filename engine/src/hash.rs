//! Keyed 128-bit hashes. Inside the segment a key is known by its hash alone.
//!
//! SipHash-1-3 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012) under a key
//! from strong random that never leaves the segment: whoever chooses keys can't aim for a collision, and two keys
//! collide by chance with a probability of n² / 2^129, 10^-20 at a billion keys.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// What a key is known by inside the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash {
    /// Chooses the partition and the bucket, and is compared.
    pub high: u64,
    /// Compared.
    pub low: u64,
}

/// Hashes `key` of one database in one name space (each capability has its own) under the segment's secret.
#[inline]
pub fn key_hash(secret: [u64; 2], database: u32, space: u32, key: &[u8]) -> KeyHash {
    let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
    hasher.write_u64((u64::from(database) << 32) | u64::from(space));
    hasher.write(key);
    let hash = hasher.finish128();
    KeyHash { high: hash.h1, low: hash.h2 }
}

impl KeyHash {
    /// Which of `count` partitions the key belongs to. Uses the upper half of `high`; buckets use the lower.
    #[inline]
    pub fn partition(self, count: usize) -> usize {
        // The product of two 32-bit numbers shifted by 32 is below `count`, which came from a usize.
        (((self.high >> 32) * count as u64) >> 32) as usize
    }
}
