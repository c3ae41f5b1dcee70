//! The steps that cargo runs, and how its tests are counted.

use super::Tally;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use xtask::install::Installation;
use xtask::pg::Pg;
use xtask::{paths, shell};

/// cargo on this machine, in the workspace.
pub(super) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(paths::workspace()).stdin(Stdio::null());
    command
}

/// The format of the whole workspace.
pub(super) fn fmt() -> Result<Tally> {
    held(cargo().args(["fmt", "--all", "--check"]))
}

/// The lints of the whole workspace; those of the extension alone with another version's headers than this machine's, since
/// nothing else depends on them.
pub(super) fn clippy(installation: &Installation) -> Result<Tally> {
    let mut command = installation.cargo()?;
    command.args(["clippy", "--quiet", "--all-targets", "--no-default-features"]);
    command.args(["--features", &installation.pg.feature()]);
    command.arg(if installation.pg.is_this_machines() { "--workspace" } else { "--package=pg_enough" });
    held(command.args(["--", "-D", "warnings"]))
}

/// The release of cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// What `deny.toml` says of the dependencies, as far as that needs no network. Installs cargo-deny where it isn't there,
/// which takes a few minutes, once.
pub(super) fn deny() -> Result<Tally> {
    let mut version = cargo();
    let installed = shell::output(version.args(["deny", "--version"])).unwrap_or_default();
    if installed.split_whitespace().last() != Some(CARGO_DENY) {
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY]);
        shell::timed("installing cargo-deny", || shell::run(&mut install))?;
    }
    // Also what other platforms would build, which nothing here has needed so far.
    shell::run(cargo().args(["fetch", "--quiet", "--locked"]))?;
    let mut command = cargo();
    command.args(["deny", "--offline", "--workspace", "--all-features", "--log-level", "error"]);
    held(command.args(["check", "licenses", "bans", "sources"]))
}

/// The tests of the data structures, and those of the extension that need no server, with that version's headers.
pub(super) fn units(installation: &Installation) -> Result<Tally> {
    let mut tally = count(cargo().args(["test", "--quiet", "--no-fail-fast", "--package", "enough_engine"]))?;
    let mut extension = installation.cargo()?;
    extension.args(["test", "--quiet", "--lib", "--package", "pg_enough", "--no-default-features"]);
    tally.add(count(extension.args(["--features", &installation.pg.feature()]))?);
    Ok(tally)
}

/// The package of the tests with servers, and the one of its programs that has those with clients.
const WITH_SERVERS: &str = "enough_pg_test";
const CLIENTS: &str = "drivers";

/// The tests of `pg_test/` with servers of `pg`: those with clients, or all others.
pub(super) fn tests_with_servers(clients: bool, pg: Pg) -> Result<Tally> {
    let mut chosen = vec!["--package".to_owned(), WITH_SERVERS.to_owned()];
    if clients {
        chosen.extend(["--test".to_owned(), CLIENTS.to_owned()]);
    } else {
        chosen.push("--lib".to_owned());
        let programs = paths::workspace().join("pg_test/tests");
        for program in std::fs::read_dir(&programs).with_context(|| format!("can't read {}", programs.display()))? {
            let program = program?;
            let name = program.file_name().to_string_lossy().into_owned();
            if name != CLIENTS && program.path().join("main.rs").exists() {
                chosen.extend(["--test".to_owned(), name]);
            }
        }
    }
    tests(&chosen.iter().map(String::as_str).collect::<Vec<_>>(), pg)
}

/// The tests that cargo runs with these arguments and that start servers of `pg`.
pub(super) fn tests(chosen: &[&str], pg: Pg) -> Result<Tally> {
    // A server is several processes: more tests at once than this only make each other slow.
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]).args(chosen);
    command.args(["--", "--test-threads", &threads.to_string()]);
    count(command.env("ENOUGH_PG", pg.to_string()))
}

/// The tests that take servers of all versions, and are ignored otherwise.
pub(super) fn pg_upgrade() -> Result<Tally> {
    let mut command = cargo();
    command.args(["test", "--package", "enough_pg_test", "--test", "moving", "--", "--ignored", "pg_upgrade::"]);
    count(command.args(["--test-threads", "2"]))
}

/// Runs one check whose exit status is the answer.
pub(super) fn held(command: &mut Command) -> Result<Tally> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("can't start `{}`", shell::line(command)))?;
    Ok(Tally::of(status.success()))
}

/// Runs a test program (or cargo with several), shows its output and counts its tests.
pub(super) fn count(command: &mut Command) -> Result<Tally> {
    let name = shell::line(command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("can't start `{name}`"))?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("no pipe to the tests")?).split(b'\n') {
        let line = line.with_context(|| format!("can't read the output of `{name}`"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(result) = result_line(&line) {
            tally.add(result);
        }
    }
    let status = child.wait().with_context(|| format!("lost `{name}`"))?;
    if !status.success() && tally.failed == 0 {
        // It didn't compile, or a test ended the whole program.
        println!("`{name}` ended with {status}");
        tally.failed = 1;
    }
    if status.success() && tally.passed == 0 {
        println!("`{name}` ran no test at all");
        tally.failed += 1;
    }
    Ok(tally)
}

/// The counts in the line by which Rust's test programs end: `test result: ok. 5 passed; 0 failed; …`.
fn result_line(line: &str) -> Option<Tally> {
    let counts = line.trim().strip_prefix("test result: ")?;
    let number =
        |what: &str| counts.split(['.', ';']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
    Some(Tally { passed: number(" passed")?, failed: number(" failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.12s";
        assert_eq!(result_line(line), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(result_line("test result::parses ... ok"), None);
        assert_eq!(result_line("running 3 tests"), None);
    }

    #[test]
    fn a_program_that_fails_or_tests_nothing_is_a_failure() -> Result<()> {
        let tally = |script: &str| count(Command::new("sh").args(["-c", script]));
        let ok = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'";
        assert_eq!(tally(ok)?, Tally { passed: 2, failed: 0 });
        assert_eq!(tally(&format!("{ok}; exit 101"))?, Tally { passed: 2, failed: 1 });
        assert_eq!(tally("exit 0")?, Tally { passed: 0, failed: 1 });
        Ok(())
    }
}
