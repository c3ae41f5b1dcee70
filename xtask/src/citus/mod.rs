//! `cargo xtask citus`: what `docs/scaling.md` says of Citus, on a coordinator and two workers.
//!
//! Citus is in no registry that the project uses, so this is no step of `cargo xtask test`: where Citus isn't installed it says
//! so, and nothing counts as passed.

mod calls;
mod cluster;
mod cost;
mod forms;
mod moving;
mod transactions;

use anyhow::Result;
use cluster::Cluster;
use std::process::ExitCode;
use xtask::pg::Pg;
use xtask::shell::say;

/// Checks of one subject.
type Checks = fn(&mut Cluster, &mut Tally) -> Result<()>;

/// What is looked at, in its order.
const SUBJECTS: [(&str, Checks); 4] = [
    ("the forms of a call", forms::run),
    ("calls", calls::run),
    ("transactions whose sessions are killed", transactions::run),
    ("shards that move", moving::run),
];

/// How many checks held, and which didn't.
#[derive(Debug, Default)]
pub struct Tally {
    passed: u32,
    failed: u32,
}

impl Tally {
    /// Counts a check, and says what was wrong with it.
    fn count(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                println!("    {name}: {error:#}");
            }
        }
    }
}

/// Runs all of it with `pg`, or with `measure` only measures what a call costs.
pub fn run(pg: Pg, measure: bool) -> Result<ExitCode> {
    let installation = crate::install(pg)?;
    let control = installation.extensions().join("citus.control");
    if !control.is_file() {
        println!("skipped: no citus.control in {}", installation.extensions().display());
        return Ok(ExitCode::SUCCESS);
    }
    say("starting a coordinator and two workers");
    let mut cluster = Cluster::start(pg)?;
    if measure {
        cost::measure(&mut cluster)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut total = Tally::default();
    for (title, check) in SUBJECTS {
        say(title);
        let mut tally = Tally::default();
        let outcome = check(&mut cluster, &mut tally);
        if let Err(error) = outcome {
            tally.count("the checks themselves", Err(error));
        }
        println!("    {title}: {} passed, {} failed", tally.passed, tally.failed);
        total.passed += tally.passed;
        total.failed += tally.failed;
    }
    total.count("the servers' logs", cluster.healthy());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
