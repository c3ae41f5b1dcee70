//! Drivers of other languages, and a pooler: every block of `docs/drivers.md` and `docs/drivers/` is run, and so is every
//! program in `examples/`, behind pgbouncer; pgmq's own clients; and the tests of frameworks that examples are for.
//!
//! What isn't on this machine can't be tried: such a test is listed as ignored, never as passed. `cargo xtask test`
//! installs all of it first.

mod docs;
mod examples;
mod frameworks;
mod pgmq;
mod pooler;
mod program;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use xtask::provision::drivers;

/// The Rust in `docs/drivers/rust.md`, a function for each section.
#[allow(clippy::all, clippy::pedantic)]
mod rust_page {
    include!(concat!(env!("OUT_DIR"), "/rust_page.rs"));
}

/// A test that is ignored where something is `missing` for it.
fn trial(name: &str, missing: Option<&str>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let test = move || run().map_err(|error| Failed::from(format!("{error:#}")));
    match missing {
        None => Trial::test(name, test),
        Some(what) => Trial::test(format!("{name} (skipped: no {what})"), test).with_ignored_flag(true),
    }
}

fn trials() -> Result<Vec<Trial>> {
    let found = drivers::find()?;
    let trials = [
        docs::trials(&found)?,
        examples::trials(&found),
        frameworks::trials(&found),
        pgmq::trials(&found),
        pooler::trials()?,
    ];
    Ok(trials.into_iter().flatten().collect())
}

fn main() -> Result<ExitCode> {
    if let Ok(section) = std::env::var(program::RUST_SECTION) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(rust_page::run(&section))?;
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::from_args();
    let trials = trials().context("can't tell which tests there are")?;
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}
