//! A rate over time, cost against a size, the distribution of a latency: a line a candidate.

use super::picture::{
    Area, BOTTOM, COLOURS, FAINT, GRID, INK, OURS, Picture, TOP, WIDTH, bold, done, picture, slug, text, write,
};
use super::scale::Scale;
use crate::report::Report;
use crate::results::{Distribution, Series, Subject};
use anyhow::Result;
use plotters::chart::ChartBuilder;
use plotters::element::{Circle, PathElement};
use plotters::series::LineSeries;
use plotters::style::Color;

const HEIGHT: i32 = 380;
/// Right of the plot, where the lines' names stand.
const LEGEND: u32 = 190;
/// How many points a line may have for each to be marked.
const MARKED: usize = 24;
/// From this ratio of the largest to the least value on, a cost is drawn on a logarithmic scale.
const WIDE: f64 = 30.0;

/// x and y.
type Points = Vec<(f64, f64)>;

/// The axes for all points of a chart.
type Scales = fn(&[(f64, f64)]) -> (Scale, Scale);

/// Lines with the same axes.
struct Chart<'a> {
    title: &'a str,
    conditions: &'a str,
    x: String,
    y: String,
    lines: Vec<(&'a str, Points)>,
    scales: Scales,
}

/// A picture for each title and conditions.
pub(super) fn draw(report: &Report) -> Result<Vec<Picture>> {
    let mut charts: Vec<Chart<'_>> = Vec::new();
    for found in report.scenarios.iter().map(|scenario| &scenario.results) {
        for series in &found.series {
            add(&mut charts, of_series(series));
        }
        for distribution in &found.distributions {
            add(&mut charts, of_distribution(distribution));
        }
    }
    for chart in &mut charts {
        // The extension first.
        chart.lines.sort_by_key(|(name, _)| *name != OURS);
    }
    charts.retain(|chart| chart.lines.iter().any(|(_, points)| !points.is_empty()));
    charts
        .iter()
        .map(|chart| {
            // The title is enough for a name where no other picture has it.
            let lone = charts.iter().filter(|other| other.title == chart.title).count() == 1;
            let name = if lone { slug(chart.title) } else { slug(&format!("{} {}", chart.title, chart.conditions)) };
            picture(report, name, (chart.title, chart.conditions), HEIGHT, |area| draw_chart(area, chart))
        })
        .collect()
}

/// Puts the lines of `chart` into the chart that they belong to.
fn add<'a>(charts: &mut Vec<Chart<'a>>, chart: Chart<'a>) {
    let axes = |chart: &Chart<'a>| (chart.title, chart.conditions, chart.x.clone(), chart.y.clone());
    match charts.iter_mut().find(|other| axes(other) == axes(&chart)) {
        Some(other) => other.lines.extend(chart.lines),
        None => charts.push(chart),
    }
}

fn of_series(series: &Series) -> Chart<'_> {
    let Subject { title, conditions, candidate, unit } = &series.subject;
    // Time passes evenly; whatever else an axis is, a depth or a number of clients, was chosen in multiples.
    let scales: Scales = if series.along == "s" { over_time } else { against_a_size };
    let (x, y, lines) = (series.along.clone(), unit.clone(), vec![(candidate.as_str(), series.points.clone())]);
    Chart { title, conditions, x, y, lines, scales }
}

fn of_distribution(distribution: &Distribution) -> Chart<'_> {
    let Subject { title, conditions, candidate, unit } = &distribution.subject;
    let points = distribution.quantiles.iter().map(|&(share, value)| (value, share)).collect();
    let y = "share of calls at or below".to_owned();
    let scales = |points: &[(f64, f64)]| (Scale::logarithmic(points.iter().map(|point| point.0)), Scale::shares());
    Chart { title, conditions, x: unit.clone(), y, lines: vec![(candidate, points)], scales }
}

fn over_time(points: &[(f64, f64)]) -> (Scale, Scale) {
    (Scale::linear(points.iter().map(|point| point.0)), Scale::linear(points.iter().map(|point| point.1)))
}

fn against_a_size(points: &[(f64, f64)]) -> (Scale, Scale) {
    let values = || points.iter().map(|point| point.1);
    let least = values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
    let wide = values().fold(0.0, f64::max) > least * WIDE;
    let y = if wide { Scale::logarithmic(values()) } else { Scale::linear(values()) };
    (Scale::logarithmic(points.iter().map(|point| point.0)), y)
}

fn draw_chart(area: &Area<'_>, chart: &Chart<'_>) -> Result<()> {
    let all: Vec<(f64, f64)> = chart.lines.iter().flat_map(|(_, points)| points.iter().copied()).collect();
    let (x, y) = (chart.scales)(&all);
    let inner = area.margin(TOP, BOTTOM, 10, LEGEND);
    let mut plot =
        done(ChartBuilder::on(&inner).margin(6).x_label_area_size(44).y_label_area_size(64).build_cartesian_2d(x, y))?;
    let mut mesh = plot.configure_mesh();
    mesh.x_desc(&chart.x).y_desc(&chart.y).x_labels(10).y_labels(8).max_light_lines(0);
    mesh.bold_line_style(GRID).axis_style(FAINT).label_style(text(12, FAINT)).axis_desc_style(text(13, INK));
    done(mesh.draw())?;
    let mut peers = COLOURS[1..].iter().cycle();
    let colours: Vec<_> = chart
        .lines
        .iter()
        .map(|(name, _)| if *name == OURS { COLOURS[0] } else { *peers.next().unwrap_or(&FAINT) })
        .collect();
    // Backwards, so that the extension's line lies above the others'.
    for at in (0..chart.lines.len()).rev() {
        let (name, points) = &chart.lines[at];
        let held: Vec<_> = points.iter().copied().filter(|point| x.holds(point.0) && y.holds(point.1)).collect();
        let stroke = colours[at].stroke_width(if *name == OURS { 3 } else { 2 });
        done(plot.draw_series(LineSeries::new(held.iter().copied(), stroke)))?;
        if held.len() <= MARKED {
            done(plot.draw_series(held.iter().map(|&point| Circle::new(point, 3, colours[at].filled()))))?;
        }
    }
    for (at, (name, _)) in chart.lines.iter().enumerate() {
        let (left, middle) = ((WIDTH - LEGEND).cast_signed() + 8, TOP + 20 + 22 * at as i32);
        let sample = [(left, middle), (left + 18, middle)];
        done(area.draw(&PathElement::new(sample, colours[at].stroke_width(3))))?;
        let style = if *name == OURS { bold(13, INK) } else { text(13, INK) };
        write(area, name, (left + 26, middle), &style)?;
    }
    Ok(())
}
