//! Every example of the README is run, in order and in one session, and what `psql` prints, errors included, is what the
//! README shows. Where a line shows `…`, anything may stand.

mod promises;
mod reference;

use anyhow::{Context, Result, ensure};
use enough_pg_test::markdown::{MARK, compare, examples};
use enough_pg_test::server::{Database, shared};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _, pipe};
use std::process::Stdio;

#[test]
fn examples_print_what_the_readme_shows() -> Result<()> {
    let examples = examples(include_str!("../../../README.md"), "sql");
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
    let mut documents = vec![root.join("README.md")];
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
