//! pgmq: message queues in PL/pgSQL, the nearest relative.
//!
//! Its SQL is part of the sources of the crate `pgmq`. Cargo fetches those and checks their digest; nothing of the crate
//! is compiled, which spares the workspace its many dependencies.

use crate::fixture::Fixture;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::shell;

/// Its version. The release of the crate that contains it is pinned in `peers/pgmq/Cargo.toml`.
pub const VERSION: &str = "1.13.0";

/// The database that it's installed in.
pub const DATABASE: &str = "pgmq";

/// What tables call it.
pub fn name() -> String {
    format!("pgmq {VERSION}")
}

/// Installs it into a database of its own, if it isn't there, as its installer without an extension does: by running its
/// script.
pub fn install(fixture: &Fixture) -> Result<()> {
    let known = "SELECT FROM pg_database WHERE datname = $1";
    if fixture.client()?.query_opt(known, &[&DATABASE])?.is_some() {
        return Ok(());
    }
    let embedded = sources()?.join("src/install/embedded");
    let control = fs::read_to_string(embedded.join("pgmq.control")).context("the crate `pgmq` has no control file")?;
    ensure!(control.contains(&format!("'{VERSION}'")), "the crate `pgmq` has another version:\n{control}");
    let script = fs::read_to_string(embedded.join("sql/pgmq.sql")).context("the crate `pgmq` has no script")?;
    fixture.client()?.batch_execute(&format!("CREATE DATABASE {DATABASE}"))?;
    fixture.client_for(DATABASE)?.batch_execute(&script).context("pgmq's script fails")
}

/// The sources of the crate, fetched if they aren't there.
fn sources() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/pgmq/Cargo.toml");
    let cargo = |subcommand: &str| {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args([subcommand, "--locked", "--quiet", "--manifest-path"]).arg(&manifest);
        command
    };
    let text = shell::output(cargo("metadata").args(["--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let package = packages.iter().find(|package| package["name"] == "pgmq");
    let path = package.and_then(|package| package["manifest_path"].as_str()).map(Path::new);
    let dir = path.and_then(Path::parent).context("cargo metadata doesn't know the crate `pgmq`")?;
    Ok(dir.to_path_buf())
}
