//! `cargo xtask bench`: measures the extension against what it has to be compared with.
// Doc comments here are the help text, where backticks would only be noise.
#![allow(clippy::doc_markdown)]

use anyhow::{Result, anyhow};
use clap::Parser;
use enough_bench::fixture::{Effort, Fixture};
use enough_bench::machine::Environment;
use enough_bench::noop;
use enough_bench::report::Report;
use enough_bench::scenario::Suite;
use enough_bench::text;
use enough_bench::tool::Tool;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use xtask::pg::Pg;

/// Measures the extension side by side with what it has to be compared with, in turns, on one private server.
///
/// The server is of the PostgreSQL version in ENOUGH_PG (15 where it is unset); the extension must be installed for it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    tool: Option<Tool>,
    /// What to measure.
    #[arg(required = true)]
    suite: Option<Suite>,
    /// Measure only this scenario (may be given several times).
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,
    /// List the suite's scenarios and measure nothing.
    #[arg(long)]
    list: bool,
    /// Keep everything short: for trying out, not for quoting.
    #[arg(long)]
    quick: bool,
    /// Rounds of each side, three or more. From five on, medians have an interval of 90 % confidence; many short rounds
    /// tell more on a busy machine than a few long ones. [default: 16, or 3 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(3..))]
    rounds: Option<u16>,
    /// Seconds of a round.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Save the results to bench/results/.
    #[arg(long)]
    save: bool,
    /// Add the results to those of an earlier run on the same machine, in its file; scenarios measured again replace the
    /// earlier ones.
    #[arg(long, value_name = "FILE.json", conflicts_with = "save")]
    add_to: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (&arguments.tool, arguments.suite) {
        (Some(tool), _) => tool.run(),
        (None, Some(suite)) => run(suite, &arguments).map(|()| ExitCode::SUCCESS),
        (None, None) => Err(anyhow!("nothing to do")),
    };
    outcome.unwrap_or_else(|error| {
        // Without the backtrace that anyhow would add: the chain says which step failed and why.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(suite: Suite, arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for (suite, scenario) in suite.scenarios() {
            println!("{:<10} {:<16} {}", suite.name(), scenario.name, scenario.about);
        }
        return Ok(());
    }
    let scenarios = suite.select(&arguments.only)?;
    let rounds = arguments.rounds.map_or(if arguments.quick { 3 } else { 16 }, usize::from);
    let effort = Effort { rounds, seconds: arguments.seconds, quick: arguments.quick };
    let earlier = arguments.add_to.as_deref().map(Report::load).transpose()?;
    let fixture = Fixture::start(Pg::from_env()?, effort)?;
    noop::compile(&fixture)?;
    let environment = Environment::now(&fixture)?;
    let (measured, failure) = Suite::run(&fixture, &scenarios)?;
    let report = Report::new(suite.name(), (rounds, effort.seconds, effort.quick), environment, measured);
    println!("{}", text::of(&report));
    if let (Some(path), Some(earlier)) = (&arguments.add_to, earlier) {
        report.with(earlier)?.write(path)?;
        println!("added to {}", path.display());
    } else if arguments.save {
        let path = report.save(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results"))?;
        println!("saved to {}", path.display());
    }
    failure.map_or(Ok(()), Err)
}
