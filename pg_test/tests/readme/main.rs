//! Every example of the README is run, in order and in one session, and what `psql` prints, errors included, is what the
//! README shows. Where a line shows `…`, anything may stand.

mod reference;

use anyhow::{Context, Result, ensure};
use enough_pg_test::server::{Database, shared};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _, pipe};
use std::process::Stdio;

/// A block of SQL and the output that stands behind it.
struct Example {
    sql: String,
    output: String,
}

/// The fenced blocks of a Markdown text: their language and their content.
fn blocks(markdown: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(language), None) => open = Some((language, String::new())),
            (None, Some((language, mut text))) => {
                text.push_str(line);
                text.push('\n');
                open = Some((language, text));
            }
            (None, None) => {}
        }
    }
    blocks
}

fn examples(markdown: &str) -> Result<Vec<Example>> {
    let blocks = blocks(markdown);
    let sql = blocks.iter().enumerate().filter(|(_, (language, _))| *language == "sql");
    sql.map(|(place, (_, sql))| {
        let (language, output) = blocks.get(place + 1).context("an example without output")?;
        ensure!(*language == "text", "behind an example stands its output, as a block of text:\n{sql}");
        Ok(Example { sql: sql.clone(), output: output.clone() })
    })
    .collect()
}

/// Whether `printed` is `shown`, line by line, with anything for `…`.
fn matches(shown: &str, printed: &str) -> bool {
    let line = |(shown, printed): (&str, &str)| match shown.split_once('…') {
        Some((start, end)) => {
            printed.len() >= start.len() + end.len() && printed.starts_with(start) && printed.ends_with(end)
        }
        None => shown == printed,
    };
    shown.lines().count() == printed.lines().count() && shown.lines().zip(printed.lines()).all(line)
}

/// What lines say, whatever space stands at their ends, and without empty lines at the end.
fn comparable(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[test]
fn examples_print_what_the_readme_shows() -> Result<()> {
    const MARK: &str = "=== the next example ===";
    let examples = examples(include_str!("../../../README.md"))?;
    ensure!(examples.len() >= 4, "only {} examples were found", examples.len());
    let mut script = String::new();
    for example in &examples {
        write!(script, "\\echo {MARK}\n{}", example.sql)?;
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
    let printed: Vec<&str> = printed.split(MARK).skip(1).collect();
    ensure!(printed.len() == examples.len(), "psql ended early:\n{printed:#?}");
    for (example, printed) in examples.iter().zip(printed) {
        let (shown, printed) = (comparable(&example.output), comparable(printed));
        ensure!(
            matches(&shown, &printed),
            "the README shows\n{shown}\nbut psql prints\n{printed}\nfor\n{}",
            example.sql
        );
    }
    Ok(())
}

#[test]
fn only_what_is_left_out_may_differ() {
    assert!(matches("a\nwait 59.… s", "a\nwait 59.98 s"));
    assert!(!matches("a\nwait 59.… s", "a\nwait 58.98 s"));
    assert!(!matches("a", "a\nERROR:  b"));
    assert!(!matches("a b", "a c"));
}

/// Where a text's links and pictures lead to, those within the project.
fn targets(markdown: &str) -> impl Iterator<Item = &str> {
    let places = markdown.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    places.filter(|place| !place.is_empty() && !place.contains("://"))
}

#[test]
fn links_and_pictures_are_there() -> Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = vec![root.join("README.md")];
    for file in std::fs::read_dir(root.join("docs"))? {
        documents.push(file?.path());
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
