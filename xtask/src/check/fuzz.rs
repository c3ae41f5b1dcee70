//! The fuzz targets. They are a workspace of their own, because libFuzzer needs a nightly compiler; what they do is a library
//! that any compiler takes.

use super::Tally;
use super::cargo::{cargo, count, held};
use anyhow::Result;
use std::process::Command;
use xtask::{paths, shell};

/// Random inputs of each target: enough to reach every call, not to find what the fuzzers are for.
const RUNS: &str = "60";

/// cargo in the targets' workspace, by the compiler of that name or by the one of the checks.
fn cargo_fuzz(compiler: Option<&str>, what: &str) -> Command {
    let mut command = cargo();
    command.args(compiler.map(|name| format!("+{name}"))).args([what, "--quiet", "--locked"]);
    command.args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"]).arg(paths::workspace().join("target/fuzz"));
    command
}

/// Lints the targets and runs them on a few inputs; compiles them for libFuzzer where there is a nightly compiler.
pub(super) fn targets() -> Result<Tally> {
    let mut tally = held(cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    tally.add(held(cargo_fuzz(None, "clippy").args(["--all-targets", "--", "-D", "warnings"]))?);
    tally.add(count(cargo_fuzz(None, "test").args(["--lib"]).env("FUZZ_RUNS", RUNS))?);
    if shell::output(Command::new("cargo").args(["+nightly", "--version"])).is_err() {
        println!(
            "skipped: the targets for libFuzzer, which need a nightly compiler (rustup toolchain install nightly)"
        );
        return Ok(tally);
    }
    let mut check = cargo_fuzz(Some("nightly"), "check");
    tally.add(held(check.args(["--bins"]).env("RUSTFLAGS", "--cfg fuzzing"))?);
    Ok(tally)
}
