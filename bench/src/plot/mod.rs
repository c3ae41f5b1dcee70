//! Pictures of saved results, as SVG.
//!
//! | module | picture |
//! |---|---|
//! | [`bars`] | throughput against peers: one picture a suite |
//! | [`lines`] | a rate over time, cost against a size, a distribution: one picture a title |
//! | [`scale`] | the axes of lines |
//!
//! What is drawn is whatever the newest results of each suite hold. The same results give the same bytes.

mod bars;
mod lines;
mod scale;

use crate::report::Report;
use anyhow::{Context, Result, anyhow};
use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::Text;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontStyle, IntoFont, RGBColor, TextStyle, WHITE};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Everything is drawn on this.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A picture: what its file is called and its content.
struct Picture {
    name: String,
    svg: String,
}

/// Pixels.
const WIDTH: u32 = 860;
/// Room for the title above, and for where the numbers come from below.
const TOP: i32 = 50;
const BOTTOM: i32 = 26;

const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const FAINT: RGBColor = RGBColor(0x6e, 0x77, 0x81);
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xeb);
/// The extension, then its peers.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x6f, 0xeb),
    RGBColor(0xe3, 0x6d, 0x09),
    RGBColor(0x6f, 0x42, 0xc1),
    RGBColor(0x2d, 0x8a, 0x4e),
    RGBColor(0xb0, 0x24, 0x5c),
    RGBColor(0x57, 0x60, 0x6a),
];

/// What the extension is called in results.
const OURS: &str = "pg_enough";

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
            let newer = newest.get(&part.suite).is_none_or(|known| known.circumstances.at < part.circumstances.at);
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

/// A picture of `height` pixels with a title and, below, where its numbers come from; `content` draws the rest.
fn picture(
    report: &Report,
    name: String,
    (title, conditions): (&str, &str),
    height: i32,
    content: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<Picture> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height.cast_unsigned())).into_drawing_area();
        done(area.fill(&WHITE))?;
        write(&area, title, (20, 20), &bold(17, INK))?;
        write(&area, conditions, (20, 40), &text(13, FAINT))?;
        write(&area, &origin(report), (20, height - 12), &text(11, FAINT))?;
        content(&area)?;
        done(area.present())?;
    }
    Ok(Picture { name, svg })
}

/// Where the numbers come from.
fn origin(report: &Report) -> String {
    let here = &report.circumstances;
    let day = here.at.split('T').next().unwrap_or_default();
    let version = here.versions.get("PostgreSQL").map_or("", String::as_str);
    let version = version.split(' ').next().unwrap_or_default();
    let (processor, processors) = (&here.machine.processor, here.machine.processors);
    format!("PostgreSQL {version}, {processor}, {processors} processors, {day}. cargo xtask bench {}", report.suite)
}

/// What a drawing operation came to, in this crate's errors.
fn done<T, E: std::error::Error + Send + Sync>(
    outcome: Result<T, plotters::drawing::DrawingAreaErrorKind<E>>,
) -> Result<T> {
    outcome.map_err(|error| anyhow!("can't draw: {error}"))
}

/// Text whose place is its left end, at half of its height.
fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    styled(("sans-serif", size).into_font(), colour)
}

fn bold(size: u32, colour: RGBColor) -> TextStyle<'static> {
    styled(("sans-serif", size).into_font().style(FontStyle::Bold), colour)
}

fn styled(font: FontDesc<'static>, colour: RGBColor) -> TextStyle<'static> {
    let place = Pos::new(HPos::Left, VPos::Center);
    TextStyle { color: colour.to_backend_color(), ..TextStyle::from(font).pos(place) }
}

/// The same, by its right end.
fn to_the_left(style: &TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Right, VPos::Center))
}

fn write<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    what: &str,
    place: (i32, i32),
    style: &TextStyle<'static>,
) -> Result<()>
where
    B::ErrorType: Send + Sync,
{
    done(area.draw(&Text::new(what.to_owned(), place, style.clone())))
}

/// A name for a file.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for part in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&part.to_ascii_lowercase());
    }
    slug
}

/// A number in few characters: `48.9k`, `1.2M`, `0.25`.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
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
        report.scenarios[0].findings.comparisons[0].reference.name = "pg_enough, an hour before".to_owned();
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
        (quick.quick, quick.circumstances.at) = (true, "2027-01-01T00:00:00Z".to_owned());
        quick.save(&results)?;
        let mut newer = sample();
        newer.circumstances.at = "2026-06-01T00:00:00Z".to_owned();
        newer.scenarios[0].findings.distributions.clear();
        let mut other = sample().scenarios.remove(0);
        other.suite = "queue".to_owned();
        other.findings.series.clear();
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
