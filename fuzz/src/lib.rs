//! What the fuzz targets do with their bytes. The first byte chooses: memory with random words in it, where every call
//! must return, or a history of calls that is compared with a model in plain collections.

#![forbid(unsafe_code)]

pub mod cache;
pub mod limiter;
pub mod queue;
pub mod semaphore;

use enough_engine::words::Words;
use std::sync::atomic::Ordering::Relaxed;

/// The bytes of one run, taken one number after the other.
pub struct Input<'a>(&'a [u8]);

impl Input<'_> {
    /// The next byte; `None` at the end, which ends a history.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `limit` (at most 65,536).
    pub fn below(&mut self, limit: usize) -> Option<usize> {
        let number = usize::from(self.byte()?) | usize::from(self.byte()?) << 8;
        Some(number % limit.max(1))
    }

    /// A word that does harm: a small number, two of them, or anything.
    pub fn word(&mut self) -> Option<u64> {
        let kind = self.byte()?;
        let small = self.below(1024)? as u64;
        Some(match kind % 4 {
            0 => small,
            1 => small << 32 | self.below(1024)? as u64,
            2 => u64::MAX << (small % 64),
            _ => {
                let mut word = 0;
                for _ in 0..8 {
                    word = word << 8 | u64::from(self.byte()?);
                }
                word
            }
        })
    }

    /// Overwrites up to 32 words.
    pub fn damage(&mut self, words: Words<'_>) -> Option<()> {
        for _ in 0..=self.byte()? % 32 {
            let at = self.below(words.len())?;
            words[at].store(self.word()?, Relaxed);
        }
        Some(())
    }
}

/// Whether the words are to be damaged, and the rest of the input.
fn start(data: &[u8]) -> (bool, Input<'_>) {
    let mut input = Input(data);
    (input.byte().is_some_and(|first| first % 3 == 0), input)
}

#[cfg(test)]
mod tests {
    /// The targets on bytes of a generator (xorshift64*), for machines without a nightly compiler. `FUZZ_RUNS` says how many.
    fn random_runs(target: fn(&[u8])) {
        let runs = std::env::var("FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3_000);
        for seed in 1..=runs {
            let mut state = u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15);
            let mut next = || {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
            };
            let data: Vec<u8> = (0..1500).map(|_| next()).collect();
            target(&data);
        }
    }

    #[test]
    fn queue() {
        random_runs(crate::queue::run);
    }

    #[test]
    fn cache() {
        random_runs(crate::cache::run);
    }

    #[test]
    fn limiter() {
        random_runs(crate::limiter::run);
    }

    #[test]
    fn semaphore() {
        random_runs(crate::semaphore::run);
    }
}
