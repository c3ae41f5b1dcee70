//! The control file and the install script, as `cargo pgrx install` would write them.
//!
//! The SQL is written by hand, in `sql/`. Which files make up the script, and in which order, is said in one place: the
//! `extension_sql_file!` lines of `src/lib.rs`, which cargo-pgrx reads, too.
//!
//! The script that upgrades from a release is that release's file in `sql/upgrades/`, with all functions of this version in
//! the place of its line `-- @functions@`. The scripts of releases, in `sql/releases/`, are there for those who want to
//! make the extension as it was.

use crate::paths;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes both into `dir`, a server's directory of extensions, with the scripts that upgrade from released versions.
/// Other scripts of the extension are removed.
pub(super) fn write(dir: &Path) -> Result<()> {
    let workspace = paths::workspace();
    for path in scripts(dir)? {
        fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let control = read(&workspace.join("pg_enough.control"))?.replace("@CARGO_VERSION@", version);
    put(&dir.join("pg_enough.control"), &control)?;
    let (mut script, mut functions) = (String::new(), String::new());
    for file in sources(&read(&workspace.join("src/lib.rs"))?)? {
        let text = read(&workspace.join("src").join(&file))?;
        script.push_str(&text);
        script.push('\n');
        if MADE_ONCE.iter().any(|name| file.ends_with(name)) {
            functions.push_str(&comments(&text));
        } else {
            functions.push_str(&replacing(&text));
        }
        functions.push('\n');
    }
    put(&dir.join(format!("pg_enough--{version}.sql")), &script)?;
    for path in scripts(&workspace.join("sql/releases"))? {
        let name = path.file_name().context("a script without a name")?;
        put(&dir.join(name), &read(&path)?)?;
        let from = name.to_string_lossy().replace("pg_enough--", "").replace(".sql", "");
        let upgrade = upgrade(&read(&workspace.join(format!("sql/upgrades/{from}.sql")))?, &functions)?;
        put(&dir.join(format!("pg_enough--{from}--{version}.sql")), &upgrade)?;
    }
    Ok(())
}

/// What is made with the extension and not again when it is upgraded.
const MADE_ONCE: [&str; 2] = ["/schema.sql", "/tables.sql"];

/// The statements of a file such that they replace the functions that are there.
fn replacing(text: &str) -> String {
    let kinds = ["CREATE FUNCTION ", "CREATE PROCEDURE ", "CREATE TRIGGER "];
    let line = |line: &str| match kinds.iter().find(|&&kind| line.starts_with(kind)) {
        Some(_) => format!("CREATE OR REPLACE{}\n", &line["CREATE".len()..]),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The statements of a file that comment on a table or a type.
fn comments(text: &str) -> String {
    let mut comments = String::new();
    for (start, _) in text.match_indices("COMMENT ON T") {
        let rest = &text[start..];
        let end = rest.find("';\n").map_or(rest.len(), |end| end + 3);
        comments.push_str(&rest[..end]);
    }
    comments
}

fn upgrade(by_hand: &str, functions: &str) -> Result<String> {
    let (before, after) =
        by_hand.split_once("-- @functions@\n").context("an upgrade without the line -- @functions@")?;
    Ok([before, functions, after].concat())
}

/// The extension's scripts in `dir`: `pg_enough--….sql`.
pub fn scripts(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("pg_enough--") && path.extension().is_some_and(|extension| extension == "sql") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The files that `extension_sql_file!` names, relative to the source that has the lines, in the order of the lines.
/// cargo-pgrx sorts by what each requires, so an error unless each requires the one before and nothing else.
fn sources(code: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut before: Option<String> = None;
    for line in code.lines().filter_map(|line| line.trim().strip_prefix("extension_sql_file!(")) {
        let file = quoted(line).with_context(|| format!("no file in `{line}`"))?;
        let (_, rest) = line.split_once("name = ").with_context(|| format!("no name in `{line}`"))?;
        let name = quoted(rest).with_context(|| format!("no name in `{line}`"))?;
        let requires = line.split_once("requires = [").and_then(|(_, rest)| quoted(rest));
        ensure!(requires == before, "{file} has to require {before:?}, the one before, and requires {requires:?}");
        ensure!(before.is_some() || line.contains("bootstrap"), "{file} is the first and has to say `bootstrap`");
        files.push(file);
        before = Some(name);
    }
    ensure!(!files.is_empty(), "no `extension_sql_file!` in src/lib.rs");
    Ok(files)
}

/// What stands between the first two quotation marks.
fn quoted(text: &str) -> Option<String> {
    text.split('"').nth(1).map(str::to_owned)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_sql_is_in_the_script() -> Result<()> {
        let files = sources(&read(&paths::workspace().join("src/lib.rs"))?)?;
        let named: Vec<String> = files.iter().map(|file| file.trim_start_matches("../sql/").to_owned()).collect();
        let mut there = Vec::new();
        for entry in fs::read_dir(paths::workspace().join("sql"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|extension| extension == "sql") {
                there.push(name);
            }
        }
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(named), sorted(there));
        Ok(())
    }

    #[test]
    fn an_upgrade_replaces_functions_and_makes_no_table() -> Result<()> {
        let dir = tempfile::tempdir()?;
        write(dir.path())?;
        let version = env!("CARGO_PKG_VERSION");
        let releases = scripts(&paths::workspace().join("sql/releases"))?;
        assert!(!releases.is_empty());
        for release in releases {
            let from = release.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let script = read(&dir.path().join(format!("{from}--{version}.sql")))?;
            assert!(script.contains("CREATE OR REPLACE FUNCTION enough.queue_send("));
            assert!(!script.contains("\nCREATE FUNCTION") && !script.contains("\nCREATE TABLE enough.queue ("));
        }
        assert_eq!(replacing("-- f\nCREATE FUNCTION f()\nAS"), "-- f\nCREATE OR REPLACE FUNCTION f()\nAS\n");
        assert_eq!(
            comments("CREATE TABLE t ();\nCOMMENT ON TABLE t IS\n'It''s; a';\nGRANT"),
            "COMMENT ON TABLE t IS\n'It''s; a';\n"
        );
        assert!(upgrade("no line", "").is_err());
        assert_eq!(upgrade("a\n-- @functions@\nc", "b\n")?, "a\nb\nc");
        Ok(())
    }

    #[test]
    fn the_script_is_ascii_so_that_every_encoding_takes_it() -> Result<()> {
        let dir = tempfile::tempdir()?;
        write(dir.path())?;
        for path in scripts(dir.path())?.into_iter().chain([dir.path().join("pg_enough.control")]) {
            let text = read(&path)?;
            let other: Vec<&str> = text.lines().filter(|line| !line.is_ascii()).collect();
            assert!(other.is_empty(), "{}: {other:#?}", path.display());
        }
        Ok(())
    }

    #[test]
    fn an_order_that_cargo_pgrx_would_not_keep_is_refused() {
        let line =
            |file: &str, name: &str, rest: &str| format!("extension_sql_file!(\"{file}\", name = \"{name}\"{rest});\n");
        let first = line("a.sql", "a", ", bootstrap");
        let second = line("b.sql", "b", ", requires = [\"a\"]");
        assert_eq!(sources(&(first.clone() + &second)).ok(), Some(vec!["a.sql".to_owned(), "b.sql".to_owned()]));
        assert!(sources(&(second.clone() + &first)).is_err());
        assert!(sources(&(first.clone() + &line("b.sql", "b", ""))).is_err());
        assert!(sources(&(first + &second + &line("c.sql", "c", ", requires = [\"a\"]"))).is_err());
        assert!(sources("").is_err());
    }

    #[test]
    fn a_script_replaces_those_of_other_versions() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("pg_enough--0.0.1.sql"), "")?;
        fs::write(dir.path().join("pg_cron--1.0.sql"), "")?;
        write(dir.path())?;
        assert!(!dir.path().join("pg_enough--0.0.1.sql").exists() && dir.path().join("pg_cron--1.0.sql").exists());
        let version = env!("CARGO_PKG_VERSION");
        let script = read(&dir.path().join(format!("pg_enough--{version}.sql")))?;
        let (cache, queue) = (script.find("FUNCTION enough.cache_get("), script.find("FUNCTION enough.queue_create("));
        assert!(cache.is_some() && cache < queue);
        let control = read(&dir.path().join("pg_enough.control"))?;
        assert!(control.contains(&format!("default_version = '{version}'")) && !control.contains('@'), "{control}");
        Ok(())
    }
}
