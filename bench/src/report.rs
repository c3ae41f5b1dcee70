//! The JSON that is saved. What is printed of it is in `text.rs`.

use crate::machine::Environment;
use crate::results::Results;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The version of the files' format.
const FORMAT: u32 = 2;

/// What a run of a suite has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format.
    pub format: u32,
    /// The suite's name.
    pub suite: String,
    /// Rounds of each side of a comparison.
    pub rounds: usize,
    /// Seconds of a round that is a throughput.
    pub seconds: u64,
    /// Whether everything was kept short.
    #[serde(default)]
    pub quick: bool,
    /// Where and when.
    #[serde(flatten)]
    pub environment: Environment,
    /// The measurements.
    pub scenarios: Vec<Measured>,
}

/// A scenario that has run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The scenario's suite.
    pub suite: String,
    /// Its name.
    pub name: String,
    /// When it began, in UTC.
    pub at: String,
    /// The kernel's load averages when it began: 1, 5 and 15 minutes.
    pub load: String,
    /// How long it took, in seconds, where that was noted.
    pub took: Option<f64>,
    /// What it found.
    #[serde(flatten)]
    pub results: Results,
}

impl Report {
    /// A report in the present format.
    pub fn new(
        suite: &str,
        (rounds, seconds, quick): (usize, u64, bool),
        environment: Environment,
        scenarios: Vec<Measured>,
    ) -> Self {
        Self { format: FORMAT, suite: suite.to_owned(), rounds, seconds, quick, environment, scenarios }
    }

    /// Reads a saved report.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        let report: Self = serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))?;
        ensure!(report.format == FORMAT, "{} has format {}, not {FORMAT}", path.display(), report.format);
        Ok(report)
    }

    /// Takes over the scenarios of another run on the same machine with the same versions and settings; those of this
    /// run replace the other's of the same name.
    pub fn with(mut self, earlier: Self) -> Result<Self> {
        let facts = |report: &Self| {
            let here = &report.environment;
            (report.suite.clone(), report.quick, here.machine.clone(), here.versions.clone(), here.settings.clone())
        };
        ensure!(
            facts(&self) == facts(&earlier),
            "the earlier report is of another suite, machine, version or setting: their results don't belong together"
        );
        let mut scenarios = earlier.scenarios;
        for measured in std::mem::take(&mut self.scenarios) {
            let same = |other: &Measured| (&other.suite, &other.name) == (&measured.suite, &measured.name);
            match scenarios.iter().position(same) {
                Some(place) => scenarios[place] = measured,
                None => scenarios.push(measured),
            }
        }
        self.scenarios = scenarios;
        Ok(self)
    }

    /// Saves the report in `dir`, under a name made of the suite and the time; returns the path.
    pub fn save(&self, dir: &Path) -> Result<PathBuf> {
        let at: String = self.environment.at.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let path = dir.join(format!("{}-{at}.json", self.suite));
        fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
        self.write(&path)?;
        Ok(path)
    }

    /// Saves the report as `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::comparison::{Comparison, Heading, Relation, Side};
    use crate::machine::Machine;
    use crate::results::{Distribution, Figure, Series, Subject};
    use crate::stats::{Estimate, Target, Verdict};

    pub(crate) fn sample() -> Report {
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
        let subject = |title| Subject::new(title, "8 clients", "pg_enough", "ms");
        let results = Results {
            comparisons: vec![comparison],
            series: vec![Series {
                subject: subject("rate"),
                along: "s".into(),
                points: vec![(1.0, 50.0), (2.0, 40.0), (3.0, 60.0)],
            }],
            distributions: Distribution::of(subject("latency"), vec![0.25, 0.5]).into_iter().collect(),
            figures: vec![Figure::counted(subject("size"), 72.0, Some(Target::AtMost(100.0)))],
            notes: vec!["another note".into()],
        };
        let environment = Environment {
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
        let measured = Measured {
            suite: "smoke".into(),
            name: "cache".into(),
            at: environment.at.clone(),
            load: environment.load.clone(),
            took: Some(1.5),
            results,
        };
        Report::new("smoke", (3, 1, false), environment, vec![measured])
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("enough_bench-{}", std::process::id()));
        let path = sample().save(&dir)?;
        let loaded = Report::load(&path);
        let other = fs::read_to_string(&path)?.replacen("\"format\": 2", "\"format\": 0", 1);
        fs::write(&path, other)?;
        let refused = Report::load(&path);
        fs::remove_dir_all(&dir)?;
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some("smoke-20260102T030405Z.json"));
        assert_eq!(loaded?, sample());
        assert!(refused.is_err(), "another format was taken for this one");
        Ok(())
    }

    #[test]
    fn a_later_run_adds_scenarios_and_replaces_its_own() -> Result<()> {
        let mut later = sample();
        later.scenarios[0].took = Some(2.5);
        let mut other = later.scenarios[0].clone();
        other.name = "queue".into();
        later.scenarios.push(other);
        let both = later.clone().with(sample())?;
        let found: Vec<_> = both.scenarios.iter().map(|measured| (measured.name.as_str(), measured.took)).collect();
        assert_eq!(found, [("cache", Some(2.5)), ("queue", Some(2.5))]);
        later.environment.settings.insert("fsync".into(), "off".into());
        assert!(later.with(sample()).is_err(), "results of another setting were taken over");
        Ok(())
    }

    /// The results in the repository are read by plots and by comparisons.
    #[test]
    fn the_saved_results_can_be_loaded() -> Result<()> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let mut count = 0;
        for file in fs::read_dir(&dir)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                ensure!(!Report::load(&path)?.scenarios.is_empty(), "{} is empty", path.display());
                count += 1;
            }
        }
        ensure!(count > 0, "no results in {}", dir.display());
        Ok(())
    }
}
