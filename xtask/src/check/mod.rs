//! `cargo xtask test`: everything that has to hold, step by step, each counted.
//!
//! A step that can't even run counts as one failure. The last line of output is the total.

mod cargo;
mod fuzz;
mod instructions;
mod memcheck;
mod regress;

use crate::install;
use anyhow::Result;
use clap::ValueEnum;
use std::process::ExitCode;
use std::time::Instant;
use xtask::install::Installation;
use xtask::pg::Pg;
use xtask::{provision, shell};

/// The steps in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// The format of the code.
    Fmt,
    /// The lints of the whole workspace.
    Clippy,
    /// Licences, versions and sources of what the project depends on.
    Deny,
    /// The data structures, by example and against models.
    Engine,
    /// The same under valgrind's memcheck.
    Memcheck,
    /// What the fuzzers do, on a few random bytes; the fuzzers themselves are compiled where a nightly compiler is there.
    FuzzTargets,
    /// How many instructions the hot paths take.
    Instructions,
    /// The private servers, and the tasks' and benchmarks' own parts.
    Xtask,
    /// PostgreSQL's regression driver.
    Regress,
    /// PostgreSQL's isolation driver.
    Isolation,
    /// The tests with a real driver, crashes, standbys.
    BlackBox,
    /// Clients, frameworks and poolers, of which none depends on the server's version.
    Clients,
    /// `pg_upgrade` among all versions, which are set up and installed for it. Only run where it is named.
    PgUpgrade,
}

impl Step {
    fn title(self) -> &'static str {
        match self {
            Self::Fmt => "format",
            Self::Clippy => "clippy",
            Self::Deny => "dependencies",
            Self::Engine => "unit tests",
            Self::Memcheck => "engine tests under valgrind",
            Self::FuzzTargets => "fuzz targets",
            Self::Instructions => "instruction counts of the hot paths",
            Self::Xtask => "tests of the tasks and benchmarks",
            Self::Regress => "regression tests",
            Self::Isolation => "isolation tests",
            Self::BlackBox => "black-box tests",
            Self::Clients => "tests with clients",
            Self::PgUpgrade => "pg_upgrade among all versions",
        }
    }

    /// Whether the step is among `steps`, or among those that are run with `pg` where none is named.
    fn is_chosen(self, steps: &[Self], pg: Pg) -> bool {
        if steps.is_empty() {
            return self != Self::PgUpgrade && !pg.has_assertions()
                || matches!(self, Self::Regress | Self::Isolation | Self::BlackBox | Self::Clients);
        }
        steps.contains(&self)
    }

    /// Whether the step needs the extension built and installed.
    fn needs_extension(self) -> bool {
        matches!(self, Self::Xtask | Self::Regress | Self::Isolation | Self::BlackBox | Self::Clients)
    }
}

/// How many tests passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and steps that couldn't run.
    pub failed: u64,
}

impl Tally {
    /// One check that either held or not.
    fn of(held: bool) -> Self {
        Self { passed: u64::from(held), failed: u64::from(!held) }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs `steps` with `pg`; where none is named, all, or those that need a server where that has assertions: the others
/// would only be done again. With `accept`, what regression and isolation tests print, and the
/// instruction counts, become what is expected of them.
pub fn run(pg: Pg, steps: &[Step], accept: bool) -> Result<ExitCode> {
    let chosen: Vec<Step> = Step::value_variants().iter().copied().filter(|step| step.is_chosen(steps, pg)).collect();
    provision::ensure(pg)?;
    provision::ensure_for_tests(pg)?;
    let installation = Installation::prepare(pg)?;
    let mut total = Tally::default();
    let mut failures = Vec::new();
    // Ok(false): not tried yet.
    let mut installed = Ok(false);
    for step in chosen {
        if step.needs_extension() && matches!(installed, Ok(false)) {
            installed = install(pg).map(|_| true);
        }
        shell::say(step.title());
        let began = Instant::now();
        let outcome = match (&installed, step.needs_extension()) {
            (Err(error), true) => Err(anyhow::anyhow!("{error:#}")),
            _ => one(step, &installation, accept),
        };
        let tally = outcome.unwrap_or_else(|error| {
            println!("{error:#}");
            Tally::of(false)
        });
        println!(
            "    {}: {} passed, {} failed ({:.0} s)",
            step.title(),
            tally.passed,
            tally.failed,
            began.elapsed().as_secs_f64()
        );
        if tally.failed > 0 {
            failures.push(step.title());
        }
        total.add(tally);
    }
    if !failures.is_empty() {
        println!("failed: {}", failures.join(", "));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(step: Step, installation: &Installation, accept: bool) -> Result<Tally> {
    match step {
        Step::Fmt => cargo::fmt(),
        Step::Clippy => cargo::clippy(installation),
        Step::Deny => cargo::deny(),
        Step::Engine => cargo::units(installation),
        Step::Memcheck => memcheck::engine(),
        Step::FuzzTargets => fuzz::targets(),
        Step::Instructions => instructions::compare(accept),
        Step::Xtask => cargo::tests(&["--package", "xtask", "--package", "enough_bench"], installation.pg),
        Step::Regress => regress::regress(installation, accept),
        Step::Isolation => regress::isolation(installation, accept),
        Step::BlackBox | Step::Clients => {
            provision::ensure_for_black_box(installation.pg)?;
            installation.install_pgmq()?;
            cargo::tests_with_servers(step == Step::Clients, installation.pg)
        }
        Step::PgUpgrade => {
            for pg in Pg::RELEASED {
                crate::install(pg)?;
                provision::ensure_for_tests(pg)?;
            }
            cargo::pg_upgrade()
        }
    }
}
