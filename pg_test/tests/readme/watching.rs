//! `docs/watching.md` has a row for each warning of `status()` and for each alert, and no other.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/watching.md");
const STATUS: &str = include_str!("../../../sql/maintenance.sql");
const ALERTS: &str = include_str!("../../../ops/prometheus/alerts.yml");

/// The names in the first column of the page's tables that begin so.
fn rows(beginning: &str) -> BTreeSet<&str> {
    let cells = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.filter(|name| name.starts_with(beginning)).collect()
}

/// The warnings, as the comment on `status()` names them.
fn warnings() -> Result<BTreeSet<String>> {
    let names = STATUS.split_once("The names: ").context("no names")?.1.lines().next().context("a line")?;
    let words = names.split([' ', ',', ')']).map(|word| word.trim_end_matches('.'));
    let name = |word: &&str| word.contains('_') && word.chars().all(|c| c == '_' || c.is_ascii_lowercase());
    let names = words.filter(name).filter(|word| *word != "pg_cron");
    Ok(names.map(|word| format!("warning_{word}")).collect())
}

#[test]
fn every_warning_and_alert_has_a_row() -> Result<()> {
    let warnings = warnings()?;
    let found: BTreeSet<String> = rows("warning_").into_iter().map(str::to_owned).collect();
    ensure!(warnings.len() > 10 && warnings == found, "status() has {warnings:?}, the page {found:?}");
    let alerts: BTreeSet<&str> = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let found = rows("PgEnough");
    ensure!(alerts.len() > 3 && alerts == found, "alerts.yml has {alerts:?}, the page {found:?}");
    Ok(())
}
