//! What has become slower, or larger, between two saved runs, by more than the noise.
//!
//! Of a comparison it is the ratio (or difference) of its sides that counts: both ran in turns, so that a machine that
//! was slower that day isn't mistaken for a slower extension. What has one side only counts as it is, and only where
//! both runs were made on the same machine with the same settings.
//!
//! Noise is what the saved intervals say: two values differ where their intervals of 90 % confidence don't overlap.

use crate::comparison::{Comparison, Relation};
use crate::number::number;
use crate::report::Report;
use crate::results::{Distribution, Figure, Series, Subject};
use crate::stats::{Estimate, Target};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The share by which a number that was counted once, and so has no interval, has to differ.
const WITHOUT_INTERVAL: f64 = 0.1;

/// Shares of a distribution that are compared.
const SHARES: [(&str, f64); 2] = [("median", 0.5), ("p99", 0.99)];

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// What got worse, a line each.
    pub worse: Vec<String>,
    /// What got better.
    pub better: Vec<String>,
    /// What the old run has and the new one hasn't.
    pub gone: Vec<String>,
    /// How many values differ by no more than the noise.
    pub same: usize,
    /// Whether only comparisons were looked at, because the machines or their settings differ.
    pub ratios_only: bool,
}

/// A value of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measure {
    value: Estimate,
    higher_is_better: bool,
}

/// Compares `new` with `old`.
pub fn compare(old: &Report, new: &Report) -> Changes {
    let here = |report: &Report| (report.environment.machine.clone(), report.environment.settings.clone());
    let ratios_only = here(old) != here(new);
    let (before, after) = (measures(old, ratios_only), measures(new, ratios_only));
    let mut changes = Changes { ratios_only, ..Changes::default() };
    for (name, old) in &before {
        let Some(new) = after.get(name) else {
            changes.gone.push(name.clone());
            continue;
        };
        let (old_range, new_range) = (range(old.value), range(new.value));
        let line = || format!("{name}: {} → {}", shown(old.value), shown(new.value));
        let (higher, lower) = (new_range.0 > old_range.1, new_range.1 < old_range.0);
        match (higher, lower, new.higher_is_better) {
            (false, false, _) => changes.same += 1,
            (true, _, true) | (_, true, false) => changes.better.push(line()),
            _ => changes.worse.push(line()),
        }
    }
    changes
}

impl Changes {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (what, lines) in [("worse", &self.worse), ("better", &self.better), ("no longer measured", &self.gone)] {
            for line in lines {
                // Writing into a String can't fail.
                let _ = writeln!(text, "{what}: {line}");
            }
        }
        let (worse, better) = (self.worse.len(), self.better.len());
        let _ = write!(text, "{worse} worse, {better} better, {} the same within the noise", self.same);
        if self.ratios_only {
            text.push_str("; of another machine or with other settings, so that only ratios were compared");
        }
        text
    }
}

/// Everything that can be compared, by its name.
fn measures(report: &Report, ratios_only: bool) -> BTreeMap<String, Measure> {
    let mut all = BTreeMap::new();
    for scenario in &report.scenarios {
        let found = &scenario.results;
        all.extend(found.comparisons.iter().map(of_comparison));
        if !ratios_only {
            all.extend(found.figures.iter().map(of_figure));
            all.extend(found.distributions.iter().flat_map(of_distribution));
            all.extend(found.series.iter().filter_map(of_series));
        }
    }
    all
}

fn of_comparison(comparison: &Comparison) -> (String, Measure) {
    let heading = &comparison.heading;
    let relation = match heading.relation {
        Relation::Ratio => "×",
        Relation::Difference => "over",
    };
    let name = format!("{} ({}) {relation} {}", heading.title, heading.conditions, comparison.reference.name);
    let higher_is_better = higher_is_better(&heading.unit, heading.target);
    (name, Measure { value: comparison.related, higher_is_better })
}

fn named(subject: &Subject, what: &str) -> String {
    let Subject { title, conditions, candidate, unit } = subject;
    format!("{title} ({conditions}), {candidate}{what}, in {unit}")
}

fn of_figure(figure: &Figure) -> (String, Measure) {
    let higher_is_better = higher_is_better(&figure.subject.unit, figure.target);
    (named(&figure.subject, ""), Measure { value: figure.value, higher_is_better })
}

/// A quantile's interval, too, lies between quantiles: of n samples, the number that lies below the true p-quantile has
/// a standard deviation of √(n·p·(1−p)).
fn of_distribution(distribution: &Distribution) -> impl Iterator<Item = (String, Measure)> {
    /// Standard deviations to either side that 90 % of a normal distribution lie in.
    const DEVIATIONS: f64 = 1.645;
    SHARES.into_iter().map(|(what, share)| {
        let samples = f64::from(distribution.samples as u32).max(1.0);
        let margin = DEVIATIONS * (share * (1.0 - share) / samples).sqrt();
        let at = |share: f64| distribution.quantile(share.clamp(0.0, 1.0));
        let value = Estimate { median: at(share), low: at(share - margin), high: at(share + margin) };
        let higher_is_better = higher_is_better(&distribution.subject.unit, None);
        (named(&distribution.subject, &format!(", {what}")), Measure { value, higher_is_better })
    })
}

fn of_series(series: &Series) -> Option<(String, Measure)> {
    let values: Vec<f64> = series.points.iter().map(|(_, value)| *value).collect();
    let higher_is_better = higher_is_better(&series.subject.unit, None);
    let name = named(&series.subject, &format!(", median along {}", series.along));
    Some((name, Measure { value: Estimate::of(&values)?, higher_is_better }))
}

/// What is promised says so; else a rate is good and anything else a cost.
fn higher_is_better(unit: &str, target: Option<Target>) -> bool {
    match target {
        Some(Target::AtLeast(_)) => true,
        Some(Target::AtMost(_)) => false,
        None => unit.ends_with("/s"),
    }
}

/// What a value may be by chance.
#[allow(clippy::float_cmp, reason = "a number that was counted has both ends at itself")]
fn range(value: Estimate) -> (f64, f64) {
    if value.low == value.high {
        let margin = value.median.abs() * WITHOUT_INTERVAL / 2.0;
        return (value.median - margin, value.median + margin);
    }
    (value.low, value.high)
}

#[allow(clippy::float_cmp, reason = "a number that was counted has both ends at itself")]
fn shown(value: Estimate) -> String {
    if value.low == value.high {
        return number(value.median);
    }
    format!("{} ({} … {})", number(value.median), number(value.low), number(value.high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn estimate(low: f64, high: f64) -> Estimate {
        Estimate { median: f64::midpoint(low, high), low, high }
    }

    /// The sample, its only ratio set to that.
    fn with_ratio(low: f64, high: f64) -> Report {
        let mut report = sample();
        report.scenarios[0].results.comparisons[0].related = estimate(low, high);
        report
    }

    #[test]
    fn a_run_is_the_same_as_itself() {
        let changes = compare(&sample(), &sample());
        assert_eq!((&changes.worse, &changes.better, &changes.gone), (&vec![], &vec![], &vec![]));
        // A ratio, a series, two shares of a distribution and a figure.
        assert_eq!(changes.same, 5);
    }

    #[test]
    fn only_intervals_that_lie_apart_count() {
        let old = with_ratio(0.9, 0.95);
        for (low, high, worse, better) in [(0.8, 0.91, 0, 0), (0.8, 0.89, 1, 0), (0.96, 0.99, 0, 1), (0.94, 0.99, 0, 0)]
        {
            let changes = compare(&old, &with_ratio(low, high));
            assert_eq!((changes.worse.len(), changes.better.len()), (worse, better), "{low} to {high}");
        }
        let worse = compare(&old, &with_ratio(0.8, 0.89)).worse;
        assert!(worse[0].contains("cache get (8 clients) × no-op: 0.925 (0.900 … 0.950) → 0.845"), "{worse:?}");
    }

    #[test]
    fn costs_get_worse_by_growing_and_counts_by_a_tenth() {
        let old = sample();
        let mut new = sample();
        let found = &mut new.scenarios[0].results;
        found.figures[0].value = estimate(75.0, 75.0);
        assert!(compare(&old, &new).worse.is_empty(), "72 and 75 bytes differ by less than a tenth");
        let found = &mut new.scenarios[0].results;
        found.figures[0].value = estimate(80.0, 80.0);
        found.distributions[0].quantiles.iter_mut().for_each(|(_, value)| *value *= 0.5);
        found.series[0].points.iter_mut().for_each(|(_, value)| *value *= 2.0);
        let changes = compare(&old, &new);
        let names =
            |lines: &[String]| lines.iter().map(|line| line.split(' ').next().map(str::to_owned)).collect::<Vec<_>>();
        // The sample's series is in ms: twice as many is worse.
        assert_eq!(names(&changes.worse), [Some("rate".to_owned()), Some("size".to_owned())]);
        assert!(changes.better.iter().all(|line| line.starts_with("latency")), "{changes:?}");
    }

    #[test]
    fn another_machine_leaves_the_ratios() {
        let (old, mut new) = (with_ratio(0.9, 0.95), with_ratio(0.5, 0.6));
        new.environment.machine.processors = 64;
        new.scenarios[0].results.figures[0].value = estimate(700.0, 700.0);
        let changes = compare(&old, &new);
        assert!(changes.ratios_only);
        assert_eq!((changes.worse.len(), changes.same), (1, 0));
        new.scenarios[0].results.comparisons.clear();
        assert_eq!(compare(&old, &new).gone.len(), 1);
    }
}
