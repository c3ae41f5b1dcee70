//! What is done with saved results.

use crate::{compare, plot, report::Report};
use anyhow::{Context, Result};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A task that measures nothing and needs no server.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Name what got worse, from one saved run to another, by more than the noise; fails if anything did.
    Compare {
        /// The run before.
        old: PathBuf,
        /// The run after.
        new: PathBuf,
    },
    /// Draw bench/plots/ from the newest results of each suite in bench/results/.
    Plot,
}

impl Tool {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Compare { old, new } => {
                let changes = compare::compare(&Report::load(old)?, &Report::load(new)?);
                println!("{}", changes.text());
                Ok(if changes.worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Self::Plot => {
                let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
                for path in plot::draw(&bench.join("results"), &bench.join("plots"))? {
                    println!("{}", path.strip_prefix(bench).context("a plot elsewhere")?.display());
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
