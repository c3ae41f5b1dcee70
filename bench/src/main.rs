//! `cargo xtask bench`: measures the extension against what it has to be compared with.
// Doc comments here are the help text, where backticks would only be noise.
#![allow(clippy::doc_markdown)]

use anyhow::Result;
use clap::Parser;
use enough_bench::machine::Circumstances;
use enough_bench::report::Report;
use enough_bench::scenario::{Part, Suite};
use enough_bench::stage::{Effort, Stage};
use std::path::Path;
use std::process::ExitCode;
use xtask::pg::Pg;

/// Measures the extension side by side with what it has to be compared with, in turns, on one private server.
///
/// The server is of the PostgreSQL version in ENOUGH_PG (15 where it is unset); the extension must be installed for it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version)]
struct Arguments {
    /// What to measure.
    suite: Suite,
    /// Measure only this part (may be given several times).
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Rounds of each side, three or more. From five on, medians have an interval of 90 % confidence; many short rounds
    /// tell more on a busy machine than a few long ones.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(3..))]
    rounds: u16,
    /// Seconds of a round.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Save the results to bench/results/.
    #[arg(long)]
    save: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that anyhow would add: the chain says which step failed and why.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let effort = Effort { rounds: usize::from(arguments.rounds), seconds: arguments.seconds };
    let stage = Stage::start(Pg::from_env()?, effort)?;
    let circumstances = Circumstances::now(&stage)?;
    let comparisons = arguments.suite.run(&stage, &arguments.only)?;
    let report = Report::new(arguments.suite.name(), effort.rounds, effort.seconds, circumstances, comparisons);
    println!("{}", report.text());
    if arguments.save {
        let path = report.save(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results"))?;
        println!("saved to {}", path.display());
    }
    Ok(())
}
