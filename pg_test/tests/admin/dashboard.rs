//! The dashboard in `ops/grafana`: what each panel asks for is in a real scrape of the exporter, and Prometheus finds a value for it.

use crate::exporter::{are_exported, promtool, scraped, selected};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

const FILE: &str = include_str!("../../../ops/grafana/dashboard.json");

/// A panel that shows something: all but the headings of rows.
struct Panel {
    title: String,
    json: Value,
    expressions: Vec<String>,
}

fn list<'a>(value: &'a Value, place: &str) -> Result<&'a Vec<Value>> {
    value.pointer(place).and_then(Value::as_array).with_context(|| format!("no list {place} in {value}"))
}

fn text(value: &Value, place: &str) -> Result<String> {
    let text = value.pointer(place).and_then(Value::as_str).filter(|text| !text.is_empty());
    Ok(text.with_context(|| format!("no {place} in {value}"))?.to_owned())
}

fn dashboard() -> Result<(Value, Vec<Panel>)> {
    let dashboard: Value = serde_json::from_str(FILE)?;
    let mut panels = Vec::new();
    for json in list(&dashboard, "/panels")?.iter().filter(|panel| panel["type"] != "row") {
        let expressions = list(json, "/targets")?.iter().map(|target| text(target, "/expr")).collect::<Result<_>>()?;
        panels.push(Panel { title: text(json, "/title")?, json: json.clone(), expressions });
    }
    ensure!(panels.len() > 15, "only {} panels", panels.len());
    Ok((dashboard, panels))
}

/// What a query's `$name` is while nobody has chosen anything.
fn chosen(expression: &str, host: &str, database: &str) -> String {
    let fixed = [("$__rate_interval", "5m"), ("$host", host), ("$database", database), ("$queue", ".*")];
    fixed.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[test]
fn each_panel_says_what_it_shows_and_from_where() -> Result<()> {
    let (dashboard, panels) = dashboard()?;
    let variables: Vec<String> =
        list(&dashboard, "/templating/list")?.iter().map(|variable| text(variable, "/name")).collect::<Result<_>>()?;
    // One of the dashboard's own: an exported ${DS_…} is known to nobody where the file is provisioned.
    ensure!(dashboard["templating"]["list"][0]["type"] == "datasource" && variables[0] == "datasource");
    for variable in &list(&dashboard, "/templating/list")?[1..] {
        ensure!(text(variable, "/datasource/uid")? == "${datasource}", "of another data source: {variable}");
    }
    let mut titles = BTreeSet::new();
    for Panel { title, json, expressions } in &panels {
        ensure!(titles.insert(title), "two panels are called {title}");
        text(json, "/description")?;
        text(json, "/fieldConfig/defaults/unit")?;
        let asked = std::iter::once(json).chain(list(json, "/targets")?);
        for place in asked {
            ensure!(text(place, "/datasource/uid")? == "${datasource}", "{title} has a datasource of its own: {place}");
        }
        for expression in expressions {
            // Servers and databases of the same exporter or Prometheus aren't mixed.
            let metrics = expression.matches("sql_pg_enough_").count();
            let of_one = expression.matches("{host=\"$host\", database=\"$database\"").count();
            ensure!(metrics > 0 && metrics == of_one, "{title} is of more than one database: {expression}");
        }
    }
    for query in variables.iter().filter(|name| *name != "datasource") {
        ensure!(
            panels.iter().any(|panel| panel.json.to_string().contains(&format!("${query}"))),
            "{query} is not used"
        );
    }
    Ok(())
}

#[test]
fn panels_have_places_of_their_own() -> Result<()> {
    let (dashboard, _) = dashboard()?;
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "/panels")? {
        let title = text(panel, "/title")?;
        ensure!(ids.insert(panel["id"].as_u64().context("no id")?), "another panel has the id of {title}");
        let side = |name: &str| panel["gridPos"][name].as_u64().with_context(|| format!("{title} has no {name}"));
        let (x, y, width, height) = (side("x")?, side("y")?, side("w")?, side("h")?);
        ensure!(width > 0 && height > 0 && x + width <= 24, "{title} is not on the grid");
        for place in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            ensure!(taken.insert(place), "{title} covers another panel at {place:?}");
        }
    }
    Ok(())
}

/// The value of a label in a line of a scrape.
fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(&format!("{name}=\""))?.1.split('"').next()
}

#[test]
fn each_panel_has_a_value_by_a_real_scrape() -> Result<()> {
    let (dashboard, panels) = dashboard()?;
    let expressions: Vec<&str> = panels.iter().flat_map(|panel| &panel.expressions).map(String::as_str).collect();
    are_exported(selected(&expressions.join("\n")))?;
    let Some(scrape) = scraped()? else { return Ok(()) };
    let lines: Vec<&str> = scrape.lines().filter(|line| line.starts_with("sql_pg_enough_")).collect();
    let (host, database) = lines
        .first()
        .and_then(|line| Some((label(line, "host")?, label(line, "database")?)))
        .with_context(|| scrape.clone())?;
    for variable in &list(&dashboard, "/templating/list")?[1..] {
        let (metric, name) = text(variable, "/query/query")?
            .strip_prefix("label_values(")
            .and_then(|query| query.strip_suffix(')')?.rsplit_once(", "))
            .map(|(metric, name)| (metric.split('{').next().unwrap_or_default().to_owned(), name.to_owned()))
            .with_context(|| format!("{variable} has no label_values"))?;
        let there = |line: &&str| line.starts_with(&format!("{metric}{{")) && label(line, &name).is_some();
        ensure!(lines.iter().any(there), "{metric} has no label {name}");
    }

    // The scrape again and again, each value one more than before, and what each panel asks for evaluated by Prometheus.
    let mut test = String::from("evaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n");
    for line in &lines {
        let (series, value) = line.rsplit_once(' ').with_context(|| (*line).to_owned())?;
        let value: f64 = value.parse().with_context(|| (*line).to_owned())?;
        writeln!(test, "  - series: '{}'\n    values: '{value}+1x20'", series.replace('\'', "''"))?;
    }
    test.push_str("  promql_expr_test:\n");
    for expression in expressions {
        let expression = chosen(expression, host, database);
        ensure!(!expression.contains('$'), "what stands for a name in {expression}?");
        let any = format!("count({expression}) > bool 0").replace('\'', "''");
        writeln!(test, "  - expr: '{any}'\n    eval_time: 15m\n    exp_samples: [{{labels: '{{}}', value: 1}}]")?;
    }
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("dashboard_test.yml"), test)?;
    promtool(["test", "rules", "dashboard_test.yml"], dir.path())
}
