//! `cargo xtask package`: an archive of the extension's files, to be unpacked at `/` of a Debian with the same
//! version of `PostgreSQL`.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use xtask::pg::Pg;
use xtask::{install, paths, shell};

/// Builds the extension for `pg` and packs it; returns the archive.
pub fn run(pg: Pg) -> Result<PathBuf> {
    let installation = crate::install(pg)?;
    // The private installation stands for /usr, so what lies in it has the names that it has there.
    let root = installation.usr.parent().context("the installation is at the root")?;
    let extension = installation.extensions();
    let mut files = vec![installation.pkglib().join("pg_enough.so"), extension.join("pg_enough.control")];
    files.extend(install::scripts(&extension)?);
    ensure!(files.len() > 2, "the build left no install script in {}", extension.display());
    files.sort();
    let version = env!("CARGO_PKG_VERSION");
    let archive = paths::target().join(format!("pg_enough-{version}-pg{pg}-{}-linux.tar.gz", std::env::consts::ARCH));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX", "--file"]);
    tar.arg(&archive).arg("--directory").arg(root);
    for file in &files {
        tar.arg(file.strip_prefix(root)?);
    }
    shell::run(&mut tar)?;
    Ok(archive)
}
