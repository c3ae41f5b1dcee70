//! `PostgreSQL`'s own regression and isolation drivers on our files.
//!
//! The list of tests is the list of files: a script without an expected output is a failure, and so is an expected
//! output without a script. Each test gets a database of its own with the extension in it, on one plain server that
//! preloads nothing.

use super::Tally;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use xtask::install::Installation;
use xtask::paths;
use xtask::server::{SUPERUSER, Server, ServerOptions};

/// One of the two drivers.
struct Driver<'a> {
    installation: &'a Installation,
    /// Its program below the directory of test drivers.
    program: &'a str,
    /// Where the files are, below the workspace.
    dir: &'a str,
    /// The subdirectory and the ending of the scripts.
    scripts: (&'a str, &'a str),
    accept: bool,
}

/// The regression tests.
pub(super) fn regress(installation: &Installation, accept: bool) -> Result<Tally> {
    let scripts = ("sql", "sql");
    run(&Driver { installation, program: "regress/pg_regress", dir: "pg_test/regress", scripts, accept })
}

/// The isolation tests.
pub(super) fn isolation(installation: &Installation, accept: bool) -> Result<Tally> {
    let (program, scripts) = ("isolation/pg_isolation_regress", ("specs", "spec"));
    run(&Driver { installation, program, dir: "pg_test/isolation", scripts, accept })
}

fn run(driver: &Driver<'_>) -> Result<Tally> {
    let dir = paths::workspace().join(driver.dir);
    let scripts = stems(&dir.join(driver.scripts.0), driver.scripts.1)?;
    let expected = stems(&dir.join("expected"), "out")?;
    let mut tally = Tally::default();
    for stem in expected.iter().filter(|stem| !belongs(stem, &scripts)) {
        println!("not ok {stem}: an expected output without a script");
        tally.add(Tally::of(false));
    }
    // Off by default, and there is something to be said about two-phase commit.
    let options = ServerOptions::new(driver.installation.pg).conf("max_prepared_transactions", "10");
    let server = Server::start(&options)?;
    for stem in &scripts {
        let expected_path = dir.join("expected").join(stem).with_extension("out");
        if driver.accept && !expected_path.exists() {
            fs::create_dir_all(dir.join("expected"))?;
            fs::write(&expected_path, "")?;
        }
        let held = if expected_path.exists() {
            one(driver, &server, &dir, stem)?
        } else {
            println!("not ok {stem}: {} is missing", expected_path.display());
            false
        };
        tally.add(Tally::of(held));
    }
    if scripts.is_empty() {
        println!("no tests in {}", dir.display());
        tally.add(Tally::of(false));
    }
    Ok(tally)
}

/// Runs one test. On a difference, shows it.
fn one(driver: &Driver<'_>, server: &Server, dir: &Path, stem: &str) -> Result<bool> {
    let results =
        paths::target().join("xtask").join(format!("pg{}", driver.installation.pg)).join(driver.dir).join(stem);
    if results.exists() {
        fs::remove_dir_all(&results).with_context(|| format!("can't empty {}", results.display()))?;
    }
    fs::create_dir_all(&results).with_context(|| format!("can't create {}", results.display()))?;
    let program = driver.installation.test_driver(driver.program);
    let psql = driver.installation.bin("psql");
    let bindir = psql.parent().context("psql has no directory")?;
    let mut command = driver.installation.command(&program, &results)?;
    command.arg("--inputdir").arg(dir).arg("--outputdir").arg(&results).arg("--bindir").arg(bindir);
    command.arg("--host").arg(server.socket_dir()).args(["--port", &server.port().to_string()]);
    command.args(["--user", SUPERUSER, "--dbname", &format!("regress_{stem}"), "--load-extension", "pg_enough", stem]);
    if driver.installation.pg.major() >= 16 {
        // Since 16 the expected files have a directory option of their own.
        command.arg("--expecteddir").arg(dir);
    }
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {}", program.display()))?;
    let held = output.status.success();
    let new = results.join("results").join(stem).with_extension("out");
    if !held && driver.accept && new.exists() {
        fs::copy(&new, dir.join("expected").join(stem).with_extension("out"))?;
        println!("accepted {stem}");
        return Ok(true);
    }
    println!("{} {stem}", if held { "ok" } else { "not ok" });
    if !held {
        let diff = fs::read(results.join("regression.diffs")).unwrap_or_default();
        println!("{}", String::from_utf8_lossy(&diff));
        if diff.is_empty() {
            println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(held)
}

/// The names, without their ending, of the files in `dir` that end in `.extension`.
fn stems(dir: &Path, extension: &str) -> Result<BTreeSet<String>> {
    let mut stems = BTreeSet::new();
    if !dir.exists() {
        return Ok(stems);
    }
    for entry in fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))? {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|found| found == extension)
            && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
        {
            stems.insert(stem.to_owned());
        }
    }
    Ok(stems)
}

/// Whether an expected output has its script; `name_1` … `name_9` are alternatives to `name`.
fn belongs(expected: &str, scripts: &BTreeSet<String>) -> bool {
    let main = expected.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix('_');
    scripts.contains(expected) || main.is_some_and(|main| scripts.contains(main))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expected_output_belongs_to_its_script_or_is_an_alternative() {
        let scripts = BTreeSet::from(["queue".to_owned(), "cache_2".to_owned()]);
        assert!(belongs("queue", &scripts) && belongs("queue_1", &scripts));
        assert!(belongs("cache_2", &scripts) && belongs("cache_2_1", &scripts));
        assert!(!belongs("queue_more", &scripts) && !belongs("cache", &scripts) && !belongs("queue1", &scripts));
    }
}
