//! The report for people: tables of what was found.

use crate::comparison::{Comparison, Relation, Side};
use crate::number::number;
use crate::report::Report;
use crate::results::{Distribution, Figure, Series, Subject};
use crate::stats::{self, Estimate, Target, Verdict};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::fmt::Write;

/// Below this share of the median, a spread isn't worth a word.
const STEADY: f64 = 0.005;

/// Shares of a distribution that are printed.
const SHARES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// What is printed of a report.
pub fn of(report: &Report) -> String {
    let here = &report.environment;
    let versions: Vec<String> = here.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let range = if report.rounds < stats::ENOUGH_ROUNDS {
        "and all of their range"
    } else {
        "and the range in which they lie with 90 % confidence"
    };
    let mut text = format!(
        "{}, {} processors, {}, Linux {}\n{}\n{} rounds each, in turns: medians, {range}\n",
        here.machine.processor,
        here.machine.processors,
        here.machine.system,
        here.machine.kernel,
        versions.join(", "),
        report.rounds,
    );
    let all = || report.scenarios.iter().map(|measured| &measured.results);
    let rows = all().flat_map(|found| &found.comparisons).map(comparison).collect();
    table(&mut text, &["", "pg_enough", "compared with", "", "", "target", ""], rows);
    let rows = all().flat_map(|found| &found.figures).map(figure).collect();
    table(&mut text, &["", "", "", "target", ""], rows);
    let mut header = vec!["", ""];
    header.extend(SHARES.map(|(name, _)| name));
    table(&mut text, &header, all().flat_map(|found| &found.distributions).map(distribution).collect());
    let header = ["", "", "first", "last", "least", "median", "most"];
    table(&mut text, &header, all().flat_map(|found| &found.series).filter_map(series).collect());
    // Writing into a String can't fail.
    for found in all() {
        for comparison in &found.comparisons {
            for note in &comparison.notes {
                let _ = writeln!(text, "{}: {note}", comparison.heading.title);
            }
        }
        for note in &found.notes {
            let _ = writeln!(text, "{note}");
        }
    }
    text
}

/// A table; nothing where it would have no rows.
fn table(text: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in 1..header.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let _ = writeln!(text, "{table}");
}

fn comparison(comparison: &Comparison) -> Vec<String> {
    let heading = &comparison.heading;
    let side = |side: &Side| format!("{} {}{}", number(side.estimate.median), heading.unit, spread(side.estimate));
    let related = comparison.related;
    let relation = match heading.relation {
        Relation::Ratio => format!("× {:.2}", related.median),
        Relation::Difference => format!("{:+.2} {}", related.median, heading.unit),
    };
    vec![
        format!("{}\n  {}", heading.title, heading.conditions),
        side(&comparison.subject),
        format!("{}\n{}", side(&comparison.reference), comparison.reference.name),
        relation,
        format!("{:.2} … {:.2}", related.low, related.high),
        target(heading.target),
        verdict(comparison.verdict),
    ]
}

fn named(subject: &Subject) -> [String; 2] {
    [format!("{}\n  {}", subject.title, subject.conditions), subject.candidate.clone()]
}

fn figure(figure: &Figure) -> Vec<String> {
    let [name, candidate] = named(&figure.subject);
    let value = format!("{} {}{}", number(figure.value.median), figure.subject.unit, spread(figure.value));
    vec![name, candidate, value, target(figure.target), verdict(figure.verdict)]
}

fn distribution(distribution: &Distribution) -> Vec<String> {
    let [name, candidate] = named(&distribution.subject);
    let mut cells = vec![name, candidate];
    let unit = &distribution.subject.unit;
    cells.extend(SHARES.map(|(_, share)| format!("{} {unit}", number(distribution.quantile(share)))));
    cells
}

fn series(series: &Series) -> Option<Vec<String>> {
    let values: Vec<f64> = series.points.iter().map(|(_, value)| *value).collect();
    let unit = &series.subject.unit;
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    let shown = [*values.first()?, *values.last()?, least, Estimate::of(&values)?.median, most];
    let [name, candidate] = named(&series.subject);
    let mut cells = vec![name, candidate];
    cells.extend(shown.map(|value| format!("{} {unit}", number(value))));
    Some(cells)
}

fn target(target: Option<Target>) -> String {
    match target {
        Some(Target::AtLeast(wanted)) => format!("≥ {wanted}"),
        Some(Target::AtMost(wanted)) => format!("≤ {wanted}"),
        None => String::new(),
    }
}

fn verdict(verdict: Option<Verdict>) -> String {
    let text = match verdict {
        Some(Verdict::Met) => "met",
        Some(Verdict::Missed) => "MISSED",
        Some(Verdict::TooNoisy) => "too noisy to tell",
        None => "",
    };
    text.to_owned()
}

fn spread(estimate: Estimate) -> String {
    let spread = estimate.relative_spread();
    // Of a median of 0 there are no shares.
    if spread < STEADY || !spread.is_finite() { String::new() } else { format!(" ± {:.0} %", spread * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn everything_that_was_found_is_shown() {
        let text = of(&sample());
        for part in ["cache get", "8 clients", "no-op", "× 0.97", "0.96 … 0.98", "≥ 0.95", "met", "cache get: a note"]
        {
            assert!(text.contains(part), "{part} is missing from\n{text}");
        }
        for part in ["rate", "40.0 ms", "latency", "0.250 ms", "size", "72.0 ms", "≤ 100", "another note"] {
            assert!(text.contains(part), "{part} is missing from\n{text}");
        }
    }
}
