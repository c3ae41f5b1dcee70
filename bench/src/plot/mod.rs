//! Pictures of saved results, as SVG.
//!
//! | module | picture |
//! |---|---|
//! | [`bars`] | throughput against peers: one picture a suite |
//! | [`lines`] | a rate over time, cost against a size, a distribution: one picture a title |
//! | [`scale`] | the axes of lines |
//! | [`picture`] | what all have in common |
//!
//! What is drawn is whatever the newest results of each suite hold. The same results give the same bytes.

mod bars;
mod lines;
mod picture;
mod scale;

use crate::report::Report;
use anyhow::{Context, Result};
use picture::{Picture, slug};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Draws the newest results of each suite in `results` into `plots`, and removes what is there otherwise. The pictures.
pub fn draw(results: &Path, plots: &Path) -> Result<Vec<PathBuf>> {
    let mut drawn = Vec::new();
    fs::create_dir_all(plots).with_context(|| format!("can't create {}", plots.display()))?;
    for report in newest(results)?.values() {
        for picture in pictures(report)? {
            // Most titles begin by what the suite is about.
            let suite = slug(&report.suite);
            let stem =
                if picture.name.starts_with(&suite) { picture.name } else { format!("{suite}-{}", picture.name) };
            let path = plots.join(stem + ".svg");
            fs::write(&path, picture.svg).with_context(|| format!("can't write {}", path.display()))?;
            drawn.push(path);
        }
    }
    for file in fs::read_dir(plots)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "svg") && !drawn.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    Ok(drawn)
}

/// The newest results of each suite, be it from a run of that suite alone or of all; what was kept short isn't worth a
/// picture.
fn newest(results: &Path) -> Result<BTreeMap<String, Report>> {
    let mut newest: BTreeMap<String, Report> = BTreeMap::new();
    for file in fs::read_dir(results).with_context(|| format!("can't read {}", results.display()))? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let report = Report::load(&path)?;
        for part in by_suite(&report) {
            let newer = newest.get(&part.suite).is_none_or(|known| known.environment.at < part.environment.at);
            if newer && !part.quick {
                newest.insert(part.suite.clone(), part);
            }
        }
    }
    Ok(newest)
}

/// A report for each suite that a report has scenarios of.
fn by_suite(report: &Report) -> Vec<Report> {
    let suites: BTreeSet<&String> = report.scenarios.iter().map(|scenario| &scenario.suite).collect();
    let part = |suite: &String| {
        let mut part = report.clone();
        part.suite.clone_from(suite);
        part.scenarios.retain(|scenario| &scenario.suite == suite);
        part
    };
    suites.into_iter().map(part).collect()
}

fn pictures(report: &Report) -> Result<Vec<Picture>> {
    let mut all: Vec<Picture> = bars::draw(report)?.into_iter().collect();
    all.extend(lines::draw(report)?);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::picture::short;
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn numbers_and_names_are_short() {
        let numbers = [(0.0, "0"), (0.25, "0.25"), (9.0, "9"), (48_912.0, "48.9k"), (999.6, "1000"), (1.2e6, "1.2M")];
        for (value, text) in numbers {
            assert_eq!(short(value), text);
        }
        assert_eq!(slug("Rate limit, one hot key (32)"), "rate-limit-one-hot-key-32");
    }

    #[test]
    fn bars_are_for_contenders() -> Result<()> {
        let mut report = sample();
        report.scenarios[0].results.comparisons[0].reference.name = "pg_enough, an hour before".to_owned();
        assert!(bars::draw(&report)?.is_none());
        Ok(())
    }

    /// The sample has a comparison, a series and a distribution: a picture each, with what they are of in it.
    #[test]
    fn everything_that_can_be_drawn_is() -> Result<()> {
        let drawn = pictures(&sample())?;
        let names: Vec<&str> = drawn.iter().map(|picture| picture.name.as_str()).collect();
        assert_eq!(names, ["throughput", "rate", "latency"]);
        for (picture, parts) in
            drawn.iter().zip([["cache get", "no-op"], ["rate", "pg_enough"], ["latency", "pg_enough"]])
        {
            for part in parts {
                assert!(picture.svg.contains(part), "{part} is missing from\n{}", picture.svg);
            }
        }
        assert_eq!(drawn[0].svg, pictures(&sample())?[0].svg, "another drawing of the same results differs");
        Ok(())
    }

    #[test]
    fn the_newest_results_are_drawn_and_nothing_else_is_left() -> Result<()> {
        let dir = std::env::temp_dir().join(format!("enough_plot-{}", std::process::id()));
        let (results, plots) = (dir.join("results"), dir.join("plots"));
        fs::create_dir_all(&plots)?;
        fs::write(plots.join("gone-throughput.svg"), "")?;
        sample().save(&results)?;
        let mut quick = sample();
        (quick.quick, quick.environment.at) = (true, "2027-01-01T00:00:00Z".to_owned());
        quick.save(&results)?;
        let mut newer = sample();
        newer.environment.at = "2026-06-01T00:00:00Z".to_owned();
        newer.scenarios[0].results.distributions.clear();
        let mut other = sample().scenarios.remove(0);
        other.suite = "queue".to_owned();
        other.results.series.clear();
        newer.scenarios.push(other);
        newer.suite = "all".to_owned();
        newer.save(&results)?;
        let drawn = draw(&results, &plots)?;
        let left = fs::read_dir(&plots)?.count();
        fs::remove_dir_all(&dir)?;
        let names: Vec<_> = drawn.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        let expected = ["queue-throughput.svg", "queue-latency.svg", "smoke-throughput.svg", "smoke-rate.svg"];
        assert_eq!(names, expected);
        assert_eq!(left, expected.len());
        Ok(())
    }

    /// What the README shows is drawn from the results beside it.
    #[test]
    fn the_plots_in_the_repository_are_those_of_its_results() -> Result<()> {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = std::env::temp_dir().join(format!("enough_plots-{}", std::process::id()));
        let drawn = draw(&bench.join("results"), &dir)?;
        let mut stale = Vec::new();
        for path in &drawn {
            let kept = bench.join("plots").join(path.file_name().context("a plot without a name")?);
            if fs::read(&kept).ok() != Some(fs::read(path)?) {
                stale.push(kept);
            }
        }
        fs::remove_dir_all(&dir)?;
        assert!(!drawn.is_empty() && stale.is_empty(), "draw anew with `cargo xtask bench plot`: {stale:?}");
        Ok(())
    }
}
