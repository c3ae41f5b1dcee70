//! `cargo xtask`: the project's tasks on the command line.

mod check;
mod citus;
mod demo;
mod package;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use xtask::install::Installation;
use xtask::pg::Pg;
use xtask::server::{Server, ServerOptions};
use xtask::{paths, provision, reference, scale, shell};

/// Sets up what is missing, then builds, shows, tests, measures or packages the extension.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Set up, then run the main job on every package record that apt knows.
    Demo {
        /// The PostgreSQL version: 15, 16, 17 or 18.
        #[arg(long, default_value_t = Pg::Pg15)]
        pg: Pg,
        /// Use these records, one JSON object a line, instead of apt's.
        #[arg(long, value_name = "FILE.jsonl")]
        input: Option<PathBuf>,
        /// Leave the server up and print how to connect.
        #[arg(long)]
        keep: bool,
    },
    /// One of the demo's workers.
    #[command(hide = true)]
    DemoWorker {
        #[arg(long)]
        url: String,
        #[arg(long)]
        number: i32,
    },
    /// Set up, then check everything; the last line is the total.
    Test {
        /// The PostgreSQL version: 15, 16, 17 or 18.
        #[arg(long, default_value_t = Pg::Pg15)]
        pg: Pg,
        /// Use a PostgreSQL 15 with assertions, built from Debian's source (some minutes, once); the same as
        /// `--pg 15-assert`.
        #[arg(long, conflicts_with = "pg")]
        assert: bool,
        /// Run only this step (may be given several times).
        #[arg(long, value_name = "STEP")]
        only: Vec<check::Step>,
        /// Make the output of failed regression and isolation tests, and the instruction counts, the expected ones.
        #[arg(long)]
        accept: bool,
    },
    /// Set up, then measure; what can be measured is listed by `bench --help`.
    #[command(disable_help_flag = true)]
    Bench {
        /// The PostgreSQL version: 15, 16, 17 or 18.
        #[arg(long, default_value_t = Pg::Pg15)]
        pg: Pg,
        /// What the benchmark program gets.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build what operators install: a Debian package, an image with the extension alone, and the source for PGXN.
    Package {
        /// The PostgreSQL version: 15, 16, 17 or 18.
        #[arg(long, default_value_t = Pg::Pg15)]
        pg: Pg,
    },
    /// Set up, then check what is said of Citus on a coordinator and two workers, where Citus is installed.
    Citus {
        /// The PostgreSQL version: 15, 16, 17 or 18.
        #[arg(long, default_value_t = Pg::Pg15)]
        pg: Pg,
        /// Only measure what a call costs by its way.
        #[arg(long)]
        measure: bool,
    },
    /// Write what is made from the catalog: the reference of all functions, and the functions for PL/Proxy and for Citus.
    Reference,
    /// Build the extension into a private PostgreSQL installation, or with `--pg-config` into yours.
    Install {
        /// The PostgreSQL version: 15, 16, 17 or 18.
        #[arg(long, default_value_t = Pg::Pg15, conflicts_with = "pg_config")]
        pg: Pg,
        /// Install into the server of this `pg_config`; nothing is set up.
        #[arg(long, value_name = "PROGRAM")]
        pg_config: Option<PathBuf>,
        /// Only build.
        #[arg(long, requires = "pg_config")]
        build_only: bool,
        /// Also install the extension `pgmq`, which gives the SQL interface of pgmq.
        #[arg(long, conflicts_with = "build_only")]
        with_pgmq: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            // Without the backtrace that anyhow would add: the chain says which step failed and why.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Demo { pg, input, keep } => demo::run(pg, input.as_deref(), keep),
        Task::DemoWorker { url, number } => demo::worker::run(&url, number).map(|()| ExitCode::SUCCESS),
        Task::Test { pg, assert, only, accept } => check::run(if assert { Pg::Pg15Assert } else { pg }, &only, accept),
        Task::Bench { pg, arguments } => bench(pg, &arguments),
        Task::Package { pg } => package::run(pg).map(|files| {
            for file in files {
                println!("{}", file.display());
            }
            ExitCode::SUCCESS
        }),
        Task::Citus { pg, measure } => citus::run(pg, measure),
        Task::Reference => write_reference().map(|()| ExitCode::SUCCESS),
        Task::Install { pg_config: Some(pg_config), build_only, with_pgmq, .. } => {
            xtask::install::install_into(&pg_config, build_only, with_pgmq).map(|()| ExitCode::SUCCESS)
        }
        Task::Install { pg, with_pgmq, .. } => {
            let installation = install(pg)?;
            if with_pgmq {
                installation.install_pgmq()?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn write_reference() -> Result<()> {
    let installation = install(Pg::Pg15)?;
    let server = Server::start(&ServerOptions::new(installation.pg))?;
    let mut client = server.client()?;
    client.batch_execute("CREATE EXTENSION pg_enough")?;
    let file = reference::file();
    fs::write(&file, reference::render(&mut client)?).with_context(|| format!("can't write {}", file.display()))?;
    let file = scale::plproxy::file();
    fs::write(&file, scale::plproxy::render(&mut client)?)
        .with_context(|| format!("can't write {}", file.display()))?;
    let file = scale::citus::file();
    fs::write(&file, scale::citus::render(&mut client)?).with_context(|| format!("can't write {}", file.display()))
}

/// Provisions and installs.
fn install(pg: Pg) -> Result<Installation> {
    provision::ensure(pg)?;
    let installation = Installation::prepare(pg)?;
    shell::timed(&format!("building the extension for PostgreSQL {pg}"), || installation.install())?;
    Ok(installation)
}

/// Sets up, then runs the benchmark program, a release build like what it measures. What only looks at saved results
/// needs nothing set up.
fn bench(pg: Pg, arguments: &[String]) -> Result<ExitCode> {
    if !matches!(arguments.first().map(String::as_str), Some("compare" | "plot")) {
        install(pg)?.install_pgmq()?;
    }
    let mut command = Command::new("cargo");
    command.args(["run", "--quiet", "--release", "--package", "enough_bench", "--"]).args(arguments);
    command.current_dir(paths::workspace()).env("ENOUGH_PG", pg.to_string());
    let status = command.status().context("can't start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
