//! A candidate that is a script for pgbench: throughput as clients see it, by the Unix socket, with prepared statements.

use crate::comparison::Candidate;
use crate::fixture::Fixture;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use xtask::shell;

/// Threads of pgbench itself: enough not to be what is measured, on the two cores of a small machine.
const THREADS: usize = 2;

/// A script and how it is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load<'a> {
    /// What the table calls it. Unique within a comparison.
    pub name: &'a str,
    /// The database.
    pub database: &'a str,
    /// The script, in pgbench's language.
    pub script: &'a str,
    /// Variables of the script, which travel as parameters of the statements.
    pub variables: &'a [(&'a str, &'a str)],
    /// Sessions.
    pub clients: usize,
    /// Settings of the sessions that differ from the server's.
    pub settings: &'a [(&'a str, &'a str)],
    /// End a round after so many runs of the script by each client, instead of by the time.
    pub times: Option<u32>,
}

/// A script that is ready to run.
#[derive(Debug)]
pub struct Pgbench<'a> {
    fixture: &'a Fixture,
    load: Load<'a>,
    path: PathBuf,
}

impl<'a> Pgbench<'a> {
    /// Writes the script where pgbench will find it.
    pub fn new(fixture: &'a Fixture, load: Load<'a>) -> Result<Self> {
        let file: String = load.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let path = fixture.dir().join(format!("{file}.pgbench"));
        fs::write(&path, load.script).with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self { fixture, load, path })
    }

    fn command(&self) -> Result<Command> {
        let mut command = self.fixture.server().command("pgbench")?;
        command.args(["--no-vacuum", "--protocol=prepared"]);
        command.arg(format!("--client={}", self.load.clients));
        command.arg(format!("--jobs={}", THREADS.min(self.load.clients)));
        command.arg(format!("--file={}", self.path.display()));
        for (name, value) in self.load.variables {
            command.arg(format!("--define={name}={value}"));
        }
        let settings = self.load.settings.iter().map(|(name, value)| format!("-c {name}={value}"));
        command.env("PGOPTIONS", settings.collect::<Vec<_>>().join(" "));
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// What pgbench prints as its result, and what it prints on the way.
    fn output(&self, mut command: Command) -> Result<(String, String)> {
        command.arg(self.load.database);
        let output = command.output().context("can't start pgbench")?;
        // pgbench warns of an aborted client on stderr, and some versions still end with success.
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() || errors.contains("aborted") {
            bail!("`{}` failed: {}\n{}", shell::line(&command), output.status, errors.trim_end());
        }
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), errors))
    }

    /// Runs for `seconds`, or as often as the load says, and returns the scripts completed in a second, the time to
    /// connect left out.
    fn run(&self, seconds: u64) -> Result<f64> {
        let mut command = self.command()?;
        command.arg(self.load.times.map_or(format!("--time={seconds}"), |times| format!("--transactions={times}")));
        parse(&self.output(command)?.0)
    }

    /// Runs for `seconds` and returns how often the script was completed.
    pub fn completed(&self, seconds: u64) -> Result<u64> {
        let mut command = self.command()?;
        command.arg(format!("--time={seconds}"));
        let (report, _) = self.output(command)?;
        parse(&report)?;
        let count = value(&report, "number of transactions actually processed:");
        // With --transactions pgbench says how many were asked for, too.
        let count = count.and_then(|text| text.split('/').next()?.parse().ok());
        count.with_context(|| format!("pgbench reports no number of transactions:\n{report}"))
    }

    /// Runs for `seconds` and returns the rate in each of them.
    pub fn rates(&self, seconds: u64) -> Result<Vec<f64>> {
        let mut command = self.command()?;
        command.arg(format!("--time={seconds}")).arg("--progress=1");
        let (report, progress) = self.output(command)?;
        parse(&report)?;
        Ok(rates(&progress))
    }
}

/// The rates in pgbench's reports of its progress.
fn rates(progress: &str) -> Vec<f64> {
    let reports = progress.lines().filter_map(|line| line.strip_prefix("progress: "));
    reports.filter_map(|line| line.split(", ").nth(1)?.strip_suffix(" tps")?.parse().ok()).collect()
}

/// What the line with that label says.
fn value<'r>(report: &'r str, label: &str) -> Option<&'r str> {
    report.lines().find_map(|line| line.strip_prefix(label)).map(str::trim)
}

/// The rate in pgbench's report.
fn parse(report: &str) -> Result<f64> {
    if let Some(failed) = value(report, "number of failed transactions:") {
        ensure!(failed.starts_with("0 "), "pgbench reports failed transactions: {failed}");
    }
    let rate = value(report, "tps =").and_then(|rest| rest.split(' ').next());
    let rate = rate.with_context(|| format!("pgbench reports no rate:\n{report}"))?;
    rate.parse().with_context(|| format!("pgbench reports a rate of {rate}"))
}

impl Candidate for Pgbench<'_> {
    fn name(&self) -> &str {
        self.load.name
    }

    fn round(&mut self) -> Result<f64> {
        self.run(self.fixture.effort().seconds)
    }

    fn warm_up(&mut self) -> Result<()> {
        self.run(1).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
transaction type: x.pgbench
number of transactions actually processed: 181522
number of failed transactions: 0 (0.000%)
latency average = 0.088 ms
initial connection time = 14.196 ms
tps = 90772.107313 (without initial connection time)
";

    #[test]
    fn the_rate_is_read() -> Result<()> {
        assert!((parse(REPORT)? - 90_772.107_313).abs() < 1e-6);
        // PostgreSQL 14 and older don't count failures.
        let older: Vec<&str> = REPORT.lines().filter(|line| !line.contains("failed")).collect();
        assert!(parse(&older.join("\n")).is_ok());
        Ok(())
    }

    #[test]
    fn rates_are_read_from_the_progress() {
        let progress = "pgbench (15.20)\n\
            progress: 1.0 s, 8612.7 tps, lat 0.921 ms stddev 0.310, 0 failed\n\
            progress: 2.0 s, 8700.0 tps, lat 0.912 ms stddev 0.300, 0 failed\n";
        assert_eq!(rates(progress), [8612.7, 8700.0]);
    }

    #[test]
    fn failures_and_other_texts_are_errors() {
        assert!(parse(&REPORT.replace("failed transactions: 0", "failed transactions: 7")).is_err());
        assert!(parse("tps = fast").is_err());
        assert!(parse("").is_err());
    }
}
