//! Throughput against peers: for each thing that was measured, a bar for the extension and one for each peer.
//!
//! Each group has its own scale, from nothing to the fastest in it: what matters is how the bars of a group compare, and
//! the numbers stand beside them.

use super::picture::{
    Area, BOTTOM, COLOURS, FAINT, INK, OURS, Picture, TOP, bold, done, picture, short, text, to_the_left, write,
};
use crate::comparison::{Comparison, Relation, Side};
use crate::report::Report;
use crate::stats::Estimate;
use anyhow::Result;
use plotters::element::{PathElement, Rectangle};
use plotters::style::{Color, RGBColor};

/// Pixels of a row, and between two groups.
const ROW: i32 = 22;
const GAP: i32 = 14;
/// Where bars start, and the longest one ends.
const LEFT: i32 = 190;
const RIGHT: i32 = 690;

/// The colours of a peer: one that is slower, one that is faster, and a function that does nothing, which no work can
/// be faster than.
const SLOWER: RGBColor = RGBColor(0xa8, 0xb1, 0xbb);
const FASTER: RGBColor = COLOURS[1];
const NOTHING: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
const DOES_NOTHING: &str = "no-op";

/// All sides that were measured under one heading.
struct Group<'a> {
    title: &'a str,
    conditions: &'a str,
    unit: &'a str,
    ours: &'a Side,
    /// With how many times as fast as they we are.
    peers: Vec<(&'a Side, Estimate)>,
}

/// The picture of all throughputs; none where there are none.
pub(super) fn draw(report: &Report) -> Result<Option<Picture>> {
    let groups = groups(report);
    if groups.is_empty() {
        return Ok(None);
    }
    let rows: usize = groups.iter().map(|group| group.peers.len() + 2).sum();
    let height = TOP + BOTTOM + ROW * (rows + 1) as i32 + GAP * groups.len() as i32;
    let title = format!("{}: throughput, side by side", report.suite.replace('_', " "));
    let about = "medians of rounds in turns, with their intervals of 90 % confidence; orange: faster than pg_enough; \
        no-op: a function that does nothing";
    picture(report, "throughput".to_owned(), (&title, about), height, |area| {
        let mut y = TOP + GAP;
        for group in &groups {
            y = draw_group(area, group, y)? + GAP;
        }
        Ok(())
    })
    .map(Some)
}

/// The comparisons of rates, those of one heading together.
fn groups(report: &Report) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let all = report.scenarios.iter().flat_map(|scenario| &scenario.results.comparisons);
    for comparison in all.filter(|comparison| is_rate(comparison)) {
        let heading = &comparison.heading;
        let peer = (&comparison.reference, comparison.related);
        let same = |group: &&mut Group<'_>| group.title == heading.title && group.conditions == heading.conditions;
        match groups.iter_mut().find(same) {
            Some(group) => group.peers.push(peer),
            None => groups.push(Group {
                title: &heading.title,
                conditions: &heading.conditions,
                unit: &heading.unit,
                ours: &comparison.subject,
                peers: vec![peer],
            }),
        }
    }
    groups
}

/// Whether two candidates' rates are compared; the extension under two conditions is for lines.
fn is_rate(comparison: &Comparison) -> bool {
    let heading = &comparison.heading;
    let peers = comparison.subject.name == OURS && !comparison.reference.name.starts_with(OURS);
    heading.relation == Relation::Ratio && heading.unit.ends_with("/s") && peers
}

/// Draws a group from `y` on; where it ends.
fn draw_group(area: &Area<'_>, group: &Group<'_>, mut y: i32) -> Result<i32> {
    let heading = format!("{}, {} ({})", group.title, group.conditions, group.unit);
    write(area, &heading, (20, y + ROW / 2), &bold(13, INK))?;
    y += ROW;
    let sides = || std::iter::once(group.ours).chain(group.peers.iter().map(|(peer, _)| *peer));
    let most = sides().map(|side| side.estimate.high).fold(f64::MIN_POSITIVE, f64::max);
    let place = |value: f64| LEFT + (value / most * f64::from(RIGHT - LEFT)).round() as i32;
    let mut row = |side: &Side, colour: RGBColor, label: &str| -> Result<()> {
        let (middle, estimate) = (y + ROW / 2, side.estimate);
        let style = if side.name == OURS { bold(13, INK) } else { text(13, INK) };
        write(area, &side.name, (LEFT - 8, middle), &to_the_left(&style))?;
        let corners = [(LEFT, y + 3), (place(estimate.median), y + ROW - 3)];
        done(area.draw(&Rectangle::new(corners, colour.filled())))?;
        let whisker = [(place(estimate.low), middle), (place(estimate.high), middle)];
        done(area.draw(&PathElement::new(whisker, INK.stroke_width(1))))?;
        write(area, label, (place(estimate.high.max(estimate.median)) + 8, middle), &style)?;
        y += ROW;
        Ok(())
    };
    let rate = |side: &Side| short(side.estimate.median);
    row(group.ours, COLOURS[0], &rate(group.ours))?;
    for (peer, ratio) in &group.peers {
        let colour = match ratio.median {
            _ if peer.name == DOES_NOTHING => NOTHING,
            ..1.0 => FASTER,
            _ => SLOWER,
        };
        row(peer, colour, &format!("{} (pg_enough × {:.2})", rate(peer), ratio.median))?;
    }
    let line = [(20, y + GAP / 2), (RIGHT + 180, y + GAP / 2)];
    done(area.draw(&PathElement::new(line, FAINT.mix(0.2))))?;
    Ok(y)
}
