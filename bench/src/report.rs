//! The table that is printed and the JSON that is saved.

use crate::contest::{Comparison, Relation, Side};
use crate::machine::Circumstances;
use crate::stats::{self, Estimate, Target, Verdict};
use anyhow::{Context, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The version of the files' format.
const FORMAT: u32 = 1;

/// Below this share of the median, a spread isn't worth a word.
const STEADY: f64 = 0.005;

/// What a run of a suite has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format.
    pub format: u32,
    /// The suite's name.
    pub suite: String,
    /// Rounds of each side.
    pub rounds: usize,
    /// Seconds of a round that is a throughput.
    pub seconds: u64,
    /// Where and when.
    #[serde(flatten)]
    pub circumstances: Circumstances,
    /// The measurements.
    pub comparisons: Vec<Comparison>,
}

impl Report {
    /// A report in the present format.
    pub fn new(
        suite: &str,
        rounds: usize,
        seconds: u64,
        circumstances: Circumstances,
        comparisons: Vec<Comparison>,
    ) -> Self {
        Self { format: FORMAT, suite: suite.to_owned(), rounds, seconds, circumstances, comparisons }
    }

    /// Reads a saved report.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        let report: Self = serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
        anyhow::ensure!(report.format == FORMAT, "{} has format {}, not {FORMAT}", path.display(), report.format);
        Ok(report)
    }

    /// Saves the report in `dir`, under a name made of the suite and the time; returns the path.
    pub fn save(&self, dir: &Path) -> Result<PathBuf> {
        let at: String = self.circumstances.at.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let path = dir.join(format!("{}-{at}.json", self.suite));
        fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        Ok(path)
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "pg_enough", "compared with", "", "", "target", ""]);
        for comparison in &self.comparisons {
            table.add_row(row(comparison));
        }
        for column in [1, 2, 3, 4, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let here = &self.circumstances;
        let versions: Vec<String> = here.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let range = if self.rounds < stats::ENOUGH_ROUNDS {
            "and all of their range"
        } else {
            "and the range in which they lie with 90 % confidence"
        };
        let mut text = format!(
            "{}, {} processors, {}, Linux {}\n{}\n{} rounds each, in turns: medians, {range}\n{table}\n",
            here.machine.processor,
            here.machine.processors,
            here.machine.system,
            here.machine.kernel,
            versions.join(", "),
            self.rounds,
        );
        for (comparison, note) in self.comparisons.iter().flat_map(|c| c.notes.iter().map(move |note| (c, note))) {
            // Writing into a String can't fail.
            let _ = writeln!(text, "{}: {note}", comparison.heading.title);
        }
        text
    }
}

fn row(comparison: &Comparison) -> [String; 7] {
    let heading = &comparison.heading;
    let side = |side: &Side| format!("{} {}{}", number(side.estimate.median), heading.unit, spread(side.estimate));
    let related = comparison.related;
    let relation = match heading.relation {
        Relation::Ratio => format!("× {:.2}", related.median),
        Relation::Difference => format!("{:+.2} {}", related.median, heading.unit),
    };
    let target = match heading.target {
        Some(Target::AtLeast(wanted)) => format!("≥ {wanted}"),
        Some(Target::AtMost(wanted)) => format!("≤ {wanted}"),
        None => String::new(),
    };
    let verdict = match comparison.verdict {
        Some(Verdict::Met) => "met",
        Some(Verdict::Missed) => "MISSED",
        Some(Verdict::TooNoisy) => "too noisy to tell",
        None => "",
    };
    [
        format!("{}\n  {}", heading.title, heading.conditions),
        side(&comparison.subject),
        format!("{}\n{}", side(&comparison.reference), comparison.reference.name),
        relation,
        format!("{:.2} … {:.2}", related.low, related.high),
        target,
        verdict.to_owned(),
    ]
}

fn spread(estimate: Estimate) -> String {
    let spread = estimate.relative_spread();
    if spread < STEADY { String::new() } else { format!(" ± {:.0} %", spread * 100.0) }
}

/// A number with about three significant digits, and whole ones grouped by thousands.
pub fn number(value: f64) -> String {
    if value.abs() < 10.0 {
        return format!("{value:.3}");
    }
    if value.abs() < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Heading;
    use crate::machine::Machine;

    #[test]
    fn numbers_are_readable() {
        for (value, text) in [(0.1234, "0.123"), (42.24, "42.2"), (999.4, "999.4"), (91234.4, "91,234")] {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(-1_234_567.0), "-1,234,567");
        assert_eq!(number(123_456.0), "123,456");
    }

    fn sample() -> Report {
        let estimate = Estimate { median: 2.0, low: 1.0, high: 3.0 };
        let side = |name: &str| Side { name: name.to_owned(), rounds: vec![1.0, 2.0, 3.0], estimate };
        let comparison = Comparison {
            heading: Heading {
                title: "cache get".into(),
                conditions: "8 clients".into(),
                unit: "calls/s".into(),
                relation: Relation::Ratio,
                target: Some(Target::AtLeast(0.95)),
            },
            subject: side("pg_enough"),
            reference: side("no-op"),
            related: Estimate { median: 0.97, low: 0.96, high: 0.98 },
            verdict: Some(Verdict::Met),
            notes: vec!["a note".into()],
        };
        let circumstances = Circumstances {
            at: "2026-01-02T03:04:05Z".into(),
            commit: None,
            machine: Machine {
                processor: "p".into(),
                processors: 2,
                memory_mib: 1,
                system: "s".into(),
                kernel: "k".into(),
                counts_processor_time: true,
            },
            load: "0.00 0.00 0.00".into(),
            versions: [("PostgreSQL".to_owned(), "15.0".to_owned())].into(),
            settings: [("fsync".to_owned(), "on".to_owned())].into(),
        };
        Report::new("smoke", 3, 1, circumstances, vec![comparison])
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("enough_bench-{}", std::process::id()));
        let path = sample().save(&dir)?;
        let loaded = Report::load(&path);
        let other = fs::read_to_string(&path)?.replacen("\"format\": 1", "\"format\": 0", 1);
        fs::write(&path, other)?;
        let refused = Report::load(&path);
        fs::remove_dir_all(&dir)?;
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some("smoke-20260102T030405Z.json"));
        assert_eq!(loaded?, sample());
        assert!(refused.is_err(), "another format was taken for this one");
        Ok(())
    }

    #[test]
    fn the_table_tells_both_sides_the_ratio_and_the_verdict() {
        let text = sample().text();
        for part in ["cache get", "8 clients", "no-op", "× 0.97", "0.96 … 0.98", "≥ 0.95", "met", "cache get: a note"]
        {
            assert!(text.contains(part), "{part} is missing from\n{text}");
        }
    }
}
