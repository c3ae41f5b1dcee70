//! Every example of the README, of the recipes and of the page on watching is run, in order and in one session each, and what `psql` prints, errors
//! included, is what is shown. Where a line shows `…`, anything may stand.

mod promises;
mod reference;
mod watching;

use anyhow::{Context, Result, ensure};
use enough_pg_test::markdown::{MARK, compare, examples};
use enough_pg_test::server::{Database, shared};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _, pipe};
use std::process::Stdio;

/// Documents whose examples are pasted into `psql` from their beginning to their end, in an empty database each.
const SESSIONS: [(&str, &str); 3] = [
    ("README.md", include_str!("../../../README.md")),
    ("docs/recipes.md", include_str!("../../../docs/recipes.md")),
    ("docs/watching.md", include_str!("../../../docs/watching.md")),
];

#[test]
fn examples_print_what_is_shown() -> Result<()> {
    SESSIONS.into_iter().try_for_each(|(document, text)| session(text).with_context(|| document))
}

/// Runs the examples of a document.
fn session(document: &str) -> Result<()> {
    let examples = examples(document, "sql");
    ensure!(examples.len() >= 4, "only {} examples were found", examples.len());
    let without_output = examples.iter().find(|example| example.output.is_none());
    ensure!(without_output.is_none(), "no block of text with its output follows {without_output:?}");
    let mut script = String::new();
    for example in &examples {
        write!(script, "\\echo {MARK}\n{}", example.code)?;
    }
    let server = shared()?;
    let database = Database::empty(&server)?;
    // Both streams into one, as a terminal has them: psql writes out what it has printed before it prints an error.
    let (mut reader, writer) = pipe()?;
    let mut psql = {
        let mut psql = server.command("psql")?;
        psql.args(["-X", "-d", &database.name]).stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        psql.spawn()?
    };
    // Taken out, so that it is closed before psql is waited for. The script is smaller than a pipe's buffer.
    psql.stdin.take().context("psql has no input")?.write_all(script.as_bytes())?;
    let mut printed = String::new();
    reader.read_to_string(&mut printed)?;
    let status = psql.wait()?;
    ensure!(status.success(), "psql failed: {status}");
    compare(&examples, &printed).map_err(anyhow::Error::msg)
}

/// Where a text's links and pictures lead to, those within the project.
fn targets(markdown: &str) -> impl Iterator<Item = &str> {
    let places = markdown.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    places.filter(|place| !place.is_empty() && !place.contains("://"))
}

#[test]
fn links_and_pictures_are_there() -> Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("SECURITY.md")];
    for dir in ["docs", "docs/drivers", "examples"] {
        for file in std::fs::read_dir(root.join(dir))? {
            documents.push(file?.path());
        }
    }
    let mut found = 0;
    for document in documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(document)?;
        let beside = document.parent().context("a document without a directory")?;
        for target in targets(&text) {
            ensure!(beside.join(target).exists(), "{} links to {target}, which isn't there", document.display());
            found += 1;
        }
    }
    ensure!(found > 5, "only {found} links were found");
    Ok(())
}

#[test]
fn the_readme_is_short_and_promises_what_is_guaranteed() -> Result<()> {
    let readme = include_str!("../../../README.md");
    let lines = readme.lines().count();
    ensure!(lines <= 250, "the README has {lines} lines");
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let guarantees = plain(include_str!("../../../docs/guarantees.md"));
    let table = readme.split("\n## ").find(|section| section.starts_with("What it promises")).context("no promises")?;
    let rows: Vec<&str> = table.lines().filter_map(|line| line.rsplit(" | ").next()?.strip_suffix(" |")).collect();
    ensure!(rows.len() > 10, "only {} promises", rows.len());
    let unknown = rows.iter().find(|row| !guarantees.contains(&plain(row)));
    ensure!(unknown.is_none(), "docs/guarantees.md doesn't say {unknown:?}");
    Ok(())
}
