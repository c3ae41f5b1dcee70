//! The reference of all functions, types and settings, written from what the installed extension says of itself: the
//! comments in the catalogs are the only place where it is told.

use anyhow::{Context, Result, ensure};
use postgres::{Client, Row};
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::paths;

/// Chapters, and how the names in them begin; the first that fits takes a name.
const CHAPTERS: [(&str, &[&str]); 8] = [
    ("Queue", &["queue"]),
    ("Topics", &["topic"]),
    ("Cache", &["cache"]),
    ("Key-value store", &["kv"]),
    ("Rate limit", &["rate_limit"]),
    ("Semaphores", &["semaphore"]),
    ("Maintenance", &["maintain", "maintenance", "status"]),
    ("Access", &["grant_to", "revoke_from"]),
];

/// Public functions in the order in which they were made, with their comments.
const FUNCTIONS: &str = "\
SELECT p.proname::text, CASE p.prokind WHEN 'p' THEN substr(replace(', ' || pg_get_function_arguments(p.oid), ', IN ', ', '), 3)
                             ELSE pg_get_function_arguments(p.oid) END,
       CASE p.prokind WHEN 'p' THEN 'a procedure' ELSE pg_get_function_result(p.oid) END, obj_description(p.oid, 'pg_proc')
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE p.pronamespace = 'enough'::regnamespace AND p.proname NOT LIKE '\\_%'
ORDER BY p.oid";

/// Row types of results.
const TYPES: &str = "\
SELECT t.typname::text,
       (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0),
       obj_description(t.oid, 'pg_type')
FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace = 'enough'::regnamespace AND c.relkind = 'c'
ORDER BY t.oid";

const SETTINGS: &str = "\
SELECT name::text, current_setting(name), short_desc::text, extra_desc::text
FROM pg_settings WHERE name LIKE 'enough.%' ORDER BY name";

/// Where it is kept.
pub fn file() -> PathBuf {
    paths::workspace().join("docs/reference.md")
}

/// Writes it from a database that has the extension in it, with settings as they are by default.
pub fn render(client: &mut Client) -> Result<String> {
    let mut text =
        "# Reference\n\nEverything here is what the database says of itself (`\\df+ enough.*`, `\\dT+ enough.*`); \
                    `cargo xtask reference` writes this file. NULL stands for the default of every argument that has one. An \
                    argument without a default must not be NULL.\n"
            .to_owned();
    // The settings are there when the library is.
    client.batch_execute("LOAD 'pg_enough'")?;
    let functions = client.query(FUNCTIONS, &[])?;
    overview(&mut text, &functions)?;
    let mut written = 0;
    for (title, prefixes) in CHAPTERS {
        write!(text, "\n## {title}\n")?;
        for row in &functions {
            let name: &str = row.get(0);
            if !belongs(name, prefixes) {
                continue;
            }
            written += 1;
            let (arguments, result): (&str, &str) = (row.get(1), row.get(2));
            let comment: Option<&str> = row.get(3);
            let comment = comment.with_context(|| format!("{name} has no comment"))?;
            write!(text, "\n### {name}\n\n{}\n\n{}\n", signature(name, arguments, result), paragraphs(comment))?;
        }
    }
    ensure!(written == functions.len(), "{} functions belong to no chapter", functions.len() - written);
    text.push_str("\n## Types\n");
    for row in client.query(TYPES, &[])? {
        let (name, columns): (&str, &str) = (row.get(0), row.get(1));
        let comment: Option<&str> = row.get(2);
        let comment = comment.with_context(|| format!("the type {name} has no comment"))?;
        write!(text, "\n### enough.{name}\n\n{}\n\n`({columns})`\n", paragraphs(comment))?;
    }
    text.push_str("\n## Settings\n\n| name | default | meaning |\n|---|---|---|\n");
    for row in client.query(SETTINGS, &[])? {
        let (name, value, short): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let long: Option<&str> = row.get(3);
        writeln!(text, "| `{name}` | {value} | {short} {} |", long.unwrap_or_default())?;
    }
    Ok(text)
}

/// Whether a function belongs to the chapter of these prefixes.
fn belongs(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// A list of all functions, each with the first sentence of its comment.
fn overview(text: &mut String, functions: &[Row]) -> Result<()> {
    for (title, prefixes) in CHAPTERS {
        write!(text, "\n| {title} | |\n|---|---|\n")?;
        for row in functions {
            let (name, comment): (&str, Option<&str>) = (row.get(0), row.get(3));
            let line = comment.and_then(|comment| comment.lines().next()).unwrap_or_default();
            let first = line.split_once(". ").map_or_else(|| line.to_owned(), |(sentence, _)| format!("{sentence}."));
            if belongs(name, prefixes) {
                writeln!(text, "| [`{name}`](#{name}) | {} |", first.replace('|', "\\|"))?;
            }
        }
    }
    Ok(())
}

/// How a function is called, an argument a line where it has several.
fn signature(name: &str, arguments: &str, result: &str) -> String {
    // A comma between arguments is followed by a space; one within a type's or a default's brackets isn't written so.
    let arguments: Vec<&str> = arguments.split(", ").filter(|argument| !argument.is_empty()).collect();
    let arguments = match arguments.as_slice() {
        [] | [_] => arguments.concat(),
        several => format!("\n    {}\n", several.join(",\n    ")),
    };
    format!("```text\nenough.{name}({arguments}) → {result}\n```")
}

/// A comment's lines as paragraphs.
fn paragraphs(comment: &str) -> String {
    comment.lines().collect::<Vec<_>>().join("\n\n")
}
