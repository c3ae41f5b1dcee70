//! pgmq's clients, by their public methods, and Celery, on the extension `pgmq` (`compat/pgmq`).

use crate::program::{Language, printed};
use crate::trial;
use anyhow::{Result, ensure};
use enough_pg_test::server::{Database, shared};
use libtest_mimic::Trial;
use std::fs;
use xtask::provision::drivers::Drivers;

/// The programs, and the lines that they end with when all has gone well.
const PROGRAMS: [(Language, &str, &[&str]); 3] = [
    (
        Language::Python,
        "pgmq.py",
        &[
            "heard",
            "sync every method",
            "sync_tx transactions",
            "async every method",
            "async_tx transactions",
            "alchemy every method",
            "alchemy_tx transactions",
            "alchemy_async every method",
            "alchemy_async_tx transactions",
        ],
    ),
    (Language::Python, "pgmq_celery.py", &["all sums"]),
    (Language::Node, "pgmq.mjs", &["every method"]),
];

pub(crate) fn trials(found: &Drivers) -> Vec<Trial> {
    let trials = PROGRAMS.into_iter().map(|(language, file, expected)| {
        let found = found.clone();
        trial(&format!("pgmq::{file}"), language.missing(&found), move || run(&found, language, file, expected))
    });
    trials.collect()
}

fn run(found: &Drivers, language: Language, file: &str, expected: &[&str]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join(file);
    fs::copy(xtask::paths::workspace().join("pg_test/tests/drivers").join(file), &copy)?;
    let mut command = language.interpreter(found, dir.path())?;
    let url = {
        let server = shared()?;
        // The clients make the extension themselves.
        server.url_for(&Database::empty(&server)?.name, "postgres")
    };
    let printed = printed(command.arg(&copy).env("DATABASE_URL", url), &dir.path().join("printed"))?;
    let lines: Vec<&str> = printed.lines().filter(|line| expected.contains(line)).collect();
    ensure!(lines == expected, "{file} printed\n{printed}");
    Ok(())
}
