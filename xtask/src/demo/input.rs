//! The demo's real input: every package record that apt knows on this machine, or a file of JSON lines.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use xtask::{provision, shell};

/// The fields of a package record that become part of the message.
const FIELDS: [&str; 8] =
    ["Package", "Version", "Architecture", "Maintainer", "Section", "Size", "Installed-Size", "Description"];

/// Who is responsible where a record doesn't say.
const NOBODY: &str = "nobody";

/// The records of `file`, or apt's where there is none.
pub(super) fn records(file: Option<&Path>) -> Result<Vec<Value>> {
    let Some(path) = file else { return known_to_apt() };
    let reader = BufReader::new(File::open(path).with_context(|| format!("can't open {}", path.display()))?);
    let records = json_lines(reader).with_context(|| format!("can't use {}", path.display()))?;
    ensure!(!records.is_empty(), "{} has no records", path.display());
    Ok(records)
}

/// Who maintains what the record is about.
pub(super) fn maintainer(record: &Value) -> &str {
    ["Maintainer", "maintainer"].iter().find_map(|field| record.get(field)?.as_str()).unwrap_or(NOBODY)
}

fn known_to_apt() -> Result<Vec<Value>> {
    provision::ensure_package_lists()?;
    let mut command = Command::new("apt-cache");
    command.arg("dumpavail").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("can't start `{}`", shell::line(&command)))?;
    let records = paragraphs(BufReader::new(child.stdout.take().context("no pipe to apt-cache")?))?;
    let status = child.wait()?;
    ensure!(status.success(), "`{}` failed: {status}", shell::line(&command));
    ensure!(!records.is_empty(), "apt knows no packages here: run `apt-get update`, or give a file with --input");
    Ok(records)
}

/// One JSON value a line; empty lines don't count.
fn json_lines(reader: impl BufRead) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    for (number, line) in reader.lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            records.push(serde_json::from_str(&line).with_context(|| format!("line {} is not JSON", number + 1))?);
        }
    }
    Ok(records)
}

/// Debian's control format (deb822): paragraphs separated by empty lines, `Field: value`, and continuation lines that
/// begin with a space, of which only the first line of the value is taken.
fn paragraphs(mut reader: impl BufRead) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    let mut record = Map::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let end = reader.read_until(b'\n', &mut line).context("can't read the package records")? == 0;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            if record.contains_key("Package") {
                records.push(Value::Object(std::mem::take(&mut record)));
            }
            record.clear();
        } else if let Some((name, value)) = text.split_once(':')
            && !text.starts_with([' ', '\t'])
            && let Some(field) = FIELDS.iter().find(|field| field.eq_ignore_ascii_case(name))
        {
            record.insert((*field).to_owned(), typed(field, value.trim()));
        }
        if end {
            return Ok(records);
        }
    }
}

/// Sizes are numbers, everything else is text.
fn typed(field: &str, value: &str) -> Value {
    let number = field.ends_with("Size").then(|| value.parse::<u64>().ok()).flatten();
    number.map_or_else(|| Value::from(value), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn control_paragraphs_become_records() -> Result<()> {
        let text = "\n\nPackage: a\nVersion: 1:2.0-1\nSize: 12\nTag: x::y,\n z: not a field\nMaintainer: Ann <a@b>\n\n\n\
                    Origin: a paragraph about no package\n\npackage: b\nSize: many\nDescription: of: b\n  Package: no";
        assert_eq!(
            paragraphs(text.as_bytes())?,
            [
                json!({"Package": "a", "Version": "1:2.0-1", "Size": 12, "Maintainer": "Ann <a@b>"}),
                json!({"Package": "b", "Size": "many", "Description": "of: b"}),
            ]
        );
        Ok(())
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() -> Result<()> {
        let records = paragraphs(&b"Package: \xe9t\xe9\n"[..])?;
        assert_eq!(records, [json!({"Package": "\u{fffd}t\u{fffd}"})]);
        Ok(())
    }

    #[test]
    fn json_lines_are_read_and_a_bad_one_is_named() -> Result<()> {
        assert_eq!(json_lines("{\"a\": 1}\n\n[2]\n".as_bytes())?, [json!({"a": 1}), json!([2])]);
        let error = json_lines("{}\n{\n".as_bytes()).expect_err("half an object was taken");
        assert_eq!(error.to_string(), "line 2 is not JSON");
        Ok(())
    }

    #[test]
    fn a_record_without_a_maintainer_has_a_name_for_that() {
        assert_eq!(maintainer(&json!({"Maintainer": "Ann"})), "Ann");
        assert_eq!(maintainer(&json!({"maintainer": "Bo"})), "Bo");
        assert_eq!(maintainer(&json!({"Maintainer": 7})), NOBODY);
        assert_eq!(maintainer(&json!([1])), NOBODY);
    }
}
