//! Medians, how far they can be trusted, and whether a target is met.
//!
//! Nothing is assumed about how measurements scatter: on a shared machine they don't do so normally. The interval
//! around a median comes from the order of the samples alone.

use serde::{Deserialize, Serialize};

/// How sure one can be that the true median lies in an [`Estimate`]'s interval, with [`ENOUGH_ROUNDS`].
const CONFIDENCE: f64 = 0.9;

/// Samples from which on an interval has that confidence: the true median lies outside of the range of n samples with
/// probability 2·½ⁿ. With fewer, the interval is their whole range.
pub const ENOUGH_ROUNDS: usize = 5;

/// A median and the interval around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The middle sample, or the mean of the two in the middle.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// The median of `samples` with its distribution-free confidence interval: between the k-th smallest and the k-th
    /// largest sample the true median lies with probability 1 − 2·P(Binomial(n, ½) < k). `None` without samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let median = f64::midpoint(*sorted.get(count.checked_sub(1)? / 2)?, *sorted.get(count / 2)?);
        let skipped = trimmed(count);
        Some(Self { median, low: sorted[skipped], high: sorted[count - 1 - skipped] })
    }

    /// Half of the interval's width as a share of the median.
    pub fn relative_spread(self) -> f64 {
        (self.high - self.low) / 2.0 / self.median.abs()
    }
}

/// How many of `count` sorted samples may be left out at either end without falling below [`CONFIDENCE`].
fn trimmed(count: usize) -> usize {
    let total = f64::from(count as u32);
    let mut left_out = 0.0;
    // P(Binomial(count, ½) = left_out), and ≤ left_out.
    let mut term = 0.5_f64.powf(total);
    let mut tail = term;
    for skipped in 0..count {
        term *= (total - left_out) / (left_out + 1.0);
        tail += term;
        left_out += 1.0;
        if 1.0 - 2.0 * tail < CONFIDENCE {
            return skipped;
        }
    }
    0
}

/// What a measurement should come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// Whether a target is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is, and the whole interval says so.
    Met,
    /// It isn't, and the whole interval says so.
    Missed,
    /// The target lies inside the interval.
    TooNoisy,
}

impl Target {
    /// Compares an estimate with the target.
    pub fn judge(self, estimate: Estimate) -> Verdict {
        let (met, missed) = match self {
            Self::AtLeast(wanted) => (estimate.low >= wanted, estimate.high < wanted),
            Self::AtMost(wanted) => (estimate.high <= wanted, estimate.low > wanted),
        };
        match (met, missed) {
            (true, _) => Verdict::Met,
            (_, true) => Verdict::Missed,
            _ => Verdict::TooNoisy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[3.0]).map(|e| e.median), Some(3.0));
        assert_eq!(Estimate::of(&[9.0, 1.0, 2.0]).map(|e| e.median), Some(2.0));
        assert_eq!(Estimate::of(&[9.0, 1.0, 2.0, 4.0]).map(|e| e.median), Some(3.0));
    }

    /// The well-known table of ranks: 1 of 5, 1 of 7, 2 of 8, 3 of 11, 6 of 18 at 90 %.
    #[test]
    fn intervals_keep_their_confidence() {
        for (count, rank) in [(1, 1), (2, 1), (4, 1), (5, 1), (7, 1), (8, 2), (11, 3), (18, 6)] {
            assert_eq!(trimmed(count) + 1, rank, "of {count} samples");
        }
        let samples: Vec<f64> = (1..=8).map(f64::from).collect();
        assert_eq!(Estimate::of(&samples), Some(Estimate { median: 4.5, low: 2.0, high: 7.0 }));
    }

    #[test]
    fn a_target_inside_the_interval_is_no_answer() {
        let estimate = Estimate { median: 0.97, low: 0.94, high: 0.99 };
        assert_eq!(Target::AtLeast(0.95).judge(estimate), Verdict::TooNoisy);
        assert_eq!(Target::AtLeast(0.90).judge(estimate), Verdict::Met);
        assert_eq!(Target::AtLeast(1.00).judge(estimate), Verdict::Missed);
        assert_eq!(Target::AtMost(0.98).judge(estimate), Verdict::TooNoisy);
        assert_eq!(Target::AtMost(1.00).judge(estimate), Verdict::Met);
        assert_eq!(Target::AtMost(0.90).judge(estimate), Verdict::Missed);
    }
}
