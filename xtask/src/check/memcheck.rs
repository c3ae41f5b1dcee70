//! The engine's tests under valgrind's memcheck: reads of memory that was never written, and accesses out of bounds in
//! whatever the engine depends on. The model of the sequence lock is left out: it explores orderings, on stacks of its own.

use super::Tally;
use super::cargo::{cargo, count};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;
use xtask::{paths, shell};

/// How many cases of each random test: valgrind is some thirty times slower than the processor, and it looks at
/// accesses, which don't get more various with more cases.
const CASES: &str = "12";

/// Exit status by which valgrind says that it found errors; a failed test exits with 101.
const FOUND: &str = "99";

/// Runs the engine's test programs under valgrind.
pub(super) fn engine() -> Result<Tally> {
    let mut total = Tally::default();
    for program in programs()? {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--leak-check=no", &format!("--error-exitcode={FOUND}")]);
        command.arg(&program).args(["--quiet", "--test-threads=1"]);
        command.env("PROPTEST_CASES", CASES).current_dir(paths::workspace().join("engine"));
        total.add(count(&mut command)?);
    }
    Ok(total)
}

/// Builds the test programs, optimised a little, with all checks on, and names them.
fn programs() -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--quiet", "--package", "enough_engine", "--lib"]);
    command.args(["--config", "profile.memcheck.inherits='dev'", "--config", "profile.memcheck.opt-level=1"]);
    command.args(["--profile", "memcheck", "--message-format", "json"]);
    let messages = shell::output(&mut command).context("can't build the engine's tests")?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(messages.filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?))).collect())
}
