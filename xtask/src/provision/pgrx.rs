//! cargo-pgrx, the build tool of the extension, at the version that the extension is pinned to.

use crate::{paths, shell};
use anyhow::Result;
use std::process::Command;

/// The same version as in the workspace's `Cargo.toml`: cargo-pgrx refuses to build with another.
const VERSION: &str = "0.18.1";

/// Ensures that cargo-pgrx is there.
pub fn ensure() -> Result<()> {
    let there = Command::new(program()).args(["pgrx", "--version"]).output();
    let there = there.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(VERSION));
    if there {
        return Ok(());
    }
    shell::say(&format!("installing cargo-pgrx {VERSION} (a few minutes, once)"));
    let mut command = Command::new("cargo");
    command.args(["install", "cargo-pgrx", "--locked", "--version", &format!("={VERSION}")]);
    // Run by cargo, this process has its environment; the tool is a build of its own.
    shell::run(command.env_remove("CARGO_TARGET_DIR").current_dir("/"))
}

/// Where `cargo install` puts it, so that a home that isn't on the path works too.
fn program() -> std::path::PathBuf {
    let own = paths::cargo_home().join("bin/cargo-pgrx");
    if own.is_file() { own } else { "cargo-pgrx".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_pinned_to_the_same_version() -> Result<()> {
        let manifest = std::fs::read_to_string(paths::workspace().join("Cargo.toml"))?;
        let pin = format!("\"={VERSION}\"");
        assert!(manifest.lines().any(|line| line.starts_with("pgrx = ") && line.contains(&pin)), "not {pin}");
        Ok(())
    }
}
