//! Keyed 128-bit hashes. Inside the segment a key is known by its hash alone.
//!
//! SipHash-1-3 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012) under a key
//! from strong random that never leaves the segment: a client that chooses keys can't aim for a collision, and two keys
//! collide by chance with a probability of n² / 2^129, 10^-20 at a billion keys.
//!
//! Written out here rather than taken from a crate, because what counts is its size: every call runs through it once,
//! after other sessions have used the processor's caches, and so pays for each line of code. One copy of the round in a
//! loop is a third of the lines of a general hasher, and a test compares the two.

/// What a key is known by inside the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash {
    /// Chooses the partition and the bucket, and is compared.
    pub high: u64,
    /// Compared.
    pub low: u64,
}

/// The state of SipHash.
struct Sip([u64; 4]);

impl Sip {
    #[inline(always)]
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v2 = v2.wrapping_add(*v3);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v1);
        *v0 = v0.wrapping_add(*v3);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.rotate_left(32);
    }
}

/// Hashes `key` of one database in one name space (each capability has its own) under the segment's secret.
pub fn key_hash(secret: [u64; 2], database: u32, space: u32, key: &[u8]) -> KeyHash {
    let [k0, k1] = secret;
    let mut sip = Sip([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    // The text is the name space, then the key; the last word holds what is left of it and its length.
    let (words, rest) = key.as_chunks::<8>();
    let length = (key.len() as u64 + 8) << 56;
    let last = rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)) | length;
    let mut words = words.iter();
    let mut word = u64::from(database) << 32 | u64::from(space);
    let mut ended = false;
    loop {
        sip.0[3] ^= word;
        sip.round();
        sip.0[0] ^= word;
        word = match words.next() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None if ended => break,
            None => {
                ended = true;
                last
            }
        };
    }
    let mut half = |index: usize, mark: u64| {
        sip.0[index] ^= mark;
        for _ in 0..3 {
            sip.round();
        }
        sip.0.iter().fold(0, |sum, word| sum ^ word)
    };
    KeyHash { high: half(2, 0xee), low: half(1, 0xdd) }
}

impl KeyHash {
    /// Which of `count` partitions the key belongs to. Uses the upper half of `high`; buckets use the lower.
    #[inline]
    pub fn partition(self, count: usize) -> usize {
        // The product of two 32-bit numbers shifted by 32 is below `count`, which came from a usize.
        (((self.high >> 32) * count as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::key_hash;
    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128, SipHasher13};
    use std::hash::Hasher;

    proptest! {
        #[test]
        fn it_is_siphash(secret: [u64; 2], database: u32, space: u32, key in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
            hasher.write_u64(u64::from(database) << 32 | u64::from(space));
            hasher.write(&key);
            let expected = hasher.finish128();
            let hash = key_hash(secret, database, space, &key);
            prop_assert_eq!((hash.high, hash.low), (expected.h1, expected.h2));
        }
    }
}
