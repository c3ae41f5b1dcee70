//! Every example of the README is run, in order and in one session, and what `psql` prints is what the README shows.

use anyhow::{Context, Result, ensure};
use enough_pg_test::server::{Database, shared};
use std::fmt::Write as _;
use std::io::Write as _;
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
    let mut psql = server.command("psql")?;
    psql.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", &database.name]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut psql = psql.spawn()?;
    // Taken out, so that it is closed before psql is waited for. The script is smaller than a pipe's buffer.
    psql.stdin.take().context("psql has no input")?.write_all(script.as_bytes())?;
    let output = psql.wait_with_output()?;
    ensure!(output.status.success(), "psql failed: {}", output.status);
    let printed = String::from_utf8(output.stdout)?;
    let printed: Vec<&str> = printed.split(MARK).skip(1).collect();
    ensure!(printed.len() == examples.len(), "psql ended early:\n{printed:#?}");
    for (example, printed) in examples.iter().zip(printed) {
        let (shown, printed) = (comparable(&example.output), comparable(printed));
        ensure!(shown == printed, "the README shows\n{shown}\nbut psql prints\n{printed}\nfor\n{}", example.sql);
    }
    Ok(())
}
