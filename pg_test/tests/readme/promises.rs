//! `docs/promises.md` has a row for each sentence of `docs/guarantees.md`, and every test that it names is there.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Text on one line, with single spaces.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The sentences under "What is promised" in the guarantees.
fn promised(guarantees: &str) -> Result<Vec<String>> {
    let section = guarantees.split_once("\n## What is promised\n").context("there are no promises")?.1;
    let section = section.split("\n## ").next().context("a section")?;
    let mut sentences = Vec::new();
    for item in section.split("\n- ").flat_map(|item| item.split("\n\n")).flat_map(|item| item.split("**")) {
        // Every second part of `**Cache.** …` is a heading, which ends with the full stop of its own.
        let item = plain(item);
        if ["Queue.", "Cache.", "Rate limit.", "Semaphores.", "Key-value store.", "All of it."].contains(&item.as_str())
        {
            continue;
        }
        let mut rest = item.trim_start_matches("- ").trim();
        while !rest.is_empty() {
            let begins = |c: char| c.is_uppercase() || c == '`';
            let mut ends = rest.match_indices(". ").map(|(at, _)| at + 1);
            let end = ends.find(|at| rest[at + 1..].starts_with(begins)).unwrap_or(rest.len());
            sentences.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
    }
    Ok(sentences)
}

/// A row of the list: how its promises begin, and the tests.
struct Row<'a> {
    quotes: Vec<String>,
    tests: &'a str,
}

fn rows(list: &str) -> Result<Vec<Row<'_>>> {
    let lines =
        list.lines().filter(|line| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit()));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
            ensure!(
                cells.len() == 4 && !cells[3].trim().is_empty(),
                "a row has number, promise, tests, and what was tried: {line}"
            );
            let quotes =
                cells[1].split("<br>").map(|quote| plain(quote.trim().trim_matches('"').trim_end_matches('…')));
            Ok(Row { quotes: quotes.collect(), tests: cells[2] })
        })
        .collect()
}

/// Where a test's file is.
fn file(workspace: &Path, name: &str) -> PathBuf {
    match name.split('/').next() {
        Some("engine") => workspace.join(name),
        Some("isolation" | "regress") => workspace.join("pg_test").join(name),
        _ => workspace.join("pg_test/tests").join(name),
    }
}

#[test]
fn every_promise_has_tests() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let list = fs::read_to_string(workspace.join("docs/promises.md"))?;
    let rows = rows(&list)?;
    for row in &rows {
        let promise = &row.quotes[0];
        let mut tests = 0;
        // `file` name, `file` name, …
        for test in row.tests.split(", ") {
            let (name, function) = test
                .trim()
                .strip_prefix('`')
                .and_then(|test| test.split_once('`'))
                .with_context(|| format!("{promise}: no test: {test}"))?;
            let text = fs::read_to_string(file(&workspace, name)).with_context(|| format!("{promise}: {name}"))?;
            let function = function.trim();
            let whole_file = Path::new(name).extension().is_none_or(|extension| extension != "rs");
            ensure!(
                whole_file == function.is_empty(),
                "{promise}: {test} names a function where the file is Rust, and only there"
            );
            ensure!(
                whole_file || text.contains(&format!("fn {function}(")),
                "{promise}: {name} has no test {function}"
            );
            tests += 1;
        }
        ensure!(tests > 0, "{promise} has no test");
    }
    let sentences = promised(&fs::read_to_string(workspace.join("docs/guarantees.md"))?)?;
    ensure!(sentences.len() > 30, "only {} promises were found", sentences.len());
    for sentence in &sentences {
        ensure!(
            rows.iter().flat_map(|row| &row.quotes).any(|quote| sentence.starts_with(quote.as_str())),
            "docs/promises.md has no row for the sentence: {sentence}"
        );
    }
    Ok(())
}

#[test]
fn each_sentence_is_a_promise_of_its_own() -> Result<()> {
    let guarantees = "# A\n\n## What is promised\n\n**Queue.**\n- One thing,\n  in 2.5 lines. `two` things.\n- Three.\n\n**Cache.** Four. Five e.g. this.\n\n## Not this\n\n- Six.\n";
    assert_eq!(
        promised(guarantees)?,
        ["One thing, in 2.5 lines.", "`two` things.", "Three.", "Four.", "Five e.g. this."]
    );
    Ok(())
}
