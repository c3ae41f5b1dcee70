//! What a scenario has found, in the shapes that a result can have.
//!
//! | shape | for |
//! |---|---|
//! | [`Comparison`] | two sides in turns: medians, the ratio or difference and its interval |
//! | [`Series`] | one side over time, or over some other quantity such as a queue's depth |
//! | [`Distribution`] | how the single samples of one side lie, such as latencies |
//! | [`Figure`] | one number, such as bytes a message |
//!
//! All of them are told apart by title, conditions and candidate.

use crate::comparison::Comparison;
use crate::stats::{Estimate, Target, Verdict};
use serde::{Deserialize, Serialize};

/// What a scenario has found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Results {
    /// Two sides each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Comparison>,
    /// Curves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
    /// Distributions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distributions: Vec<Distribution>,
    /// Single numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// What else a reader should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Whose result it is, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What was measured, e.g. `dispatch latency`.
    pub title: String,
    /// The conditions, e.g. `8 clients`.
    pub conditions: String,
    /// Who was measured, e.g. `pg_enough`.
    #[serde(alias = "contender")]
    pub candidate: String,
    /// The unit of the values.
    pub unit: String,
}

/// Values along an axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Whose, and of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// What the axis is, with its unit, e.g. `s` or `messages ready`.
    pub along: String,
    /// Place on the axis, and value. Where a value counts over a stretch, the place is the stretch's end.
    pub points: Vec<(f64, f64)>,
}

/// How samples lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Whose, and of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// How many samples there were.
    pub samples: usize,
    /// A share of the samples, from 0 to 1, and the value that so many don't exceed: the points of the cumulative
    /// distribution.
    pub quantiles: Vec<(f64, f64)>,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Whose, and of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// The number; with an interval where it is a median.
    pub value: Estimate,
    /// What it should come to, if there is a promise.
    pub target: Option<Target>,
    /// Whether the target is met, where there is one.
    pub verdict: Option<Verdict>,
}

impl Results {
    /// Takes in what another measurement of the same scenario has found.
    pub fn extend(&mut self, more: Results) {
        self.comparisons.extend(more.comparisons);
        self.series.extend(more.series);
        self.distributions.extend(more.distributions);
        self.figures.extend(more.figures);
        self.notes.extend(more.notes);
    }
}

impl From<Vec<Comparison>> for Results {
    fn from(comparisons: Vec<Comparison>) -> Self {
        Self { comparisons, ..Self::default() }
    }
}

impl Subject {
    /// Whose result, and of what.
    pub fn new(title: &str, conditions: &str, candidate: &str, unit: &str) -> Self {
        let [title, conditions, candidate, unit] = [title, conditions, candidate, unit].map(str::to_owned);
        Self { title, conditions, candidate, unit }
    }
}

impl Distribution {
    /// The distribution of `samples`; `None` without any.
    pub fn of(subject: Subject, mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let last = samples.len().checked_sub(1)?;
        let shares = (0..=99_u32).map(|percent| f64::from(percent) / 100.0);
        let shares = shares.chain([0.995, 0.999, 0.9999, 1.0]);
        // The smallest sample that so many don't exceed.
        #[allow(clippy::cast_precision_loss, reason = "nobody takes 2⁵³ samples")]
        let at = |share: f64| samples[((share * samples.len() as f64).ceil() as usize).saturating_sub(1).min(last)];
        Some(Self { subject, samples: samples.len(), quantiles: shares.map(|share| (share, at(share))).collect() })
    }

    /// The value that a share of the samples doesn't exceed: of the points that are kept, the first at or above it.
    pub fn quantile(&self, share: f64) -> f64 {
        self.quantiles.iter().find(|(at, _)| *at >= share).map_or(f64::NAN, |(_, value)| *value)
    }

    /// A quantile as a number of its own, with what it should come to.
    pub fn figure(&self, share: f64, target: Option<Target>) -> Figure {
        let title = format!("{}, p{}", self.subject.title, share * 100.0);
        Figure::counted(Subject { title, ..self.subject.clone() }, self.quantile(share), target)
    }
}

impl Figure {
    /// A number that was counted, not sampled.
    pub fn counted(subject: Subject, value: f64, target: Option<Target>) -> Self {
        Self::estimated(subject, Estimate { median: value, low: value, high: value }, target)
    }

    /// A median.
    pub fn estimated(subject: Subject, value: Estimate, target: Option<Target>) -> Self {
        Self { subject, value, target, verdict: target.map(|target| target.judge(value)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject::new("latency", "idle", "pg_enough", "ms")
    }

    #[test]
    fn quantiles_are_samples() {
        let samples = (1..=1000).rev().map(f64::from).collect();
        let found = Distribution::of(subject(), samples).map(|d| [0.0, 0.5, 0.99, 0.999, 1.0].map(|p| d.quantile(p)));
        assert_eq!(found, Some([1.0, 500.0, 990.0, 999.0, 1000.0]));
        assert_eq!(Distribution::of(subject(), Vec::new()), None);
        let lone = Distribution::of(subject(), vec![7.0]);
        assert_eq!(lone.map(|d| (d.quantile(0.0), d.quantile(0.5), d.quantile(1.0))), Some((7.0, 7.0, 7.0)));
    }

    #[test]
    fn a_quantile_is_judged() {
        let found = Distribution::of(subject(), vec![1.0, 2.0, 3.0, 4.0]);
        let figure = found.map(|d| d.figure(0.5, Some(Target::AtMost(1.5))));
        let figure = figure.map(|f| (f.subject.title, f.value.median, f.verdict));
        assert_eq!(figure, Some(("latency, p50".to_owned(), 2.0, Some(Verdict::Missed))));
    }
}
