//! `PgQ`: queues that are read in batches, between two ticks of a clock, by every consumer that has registered.
//!
//! It comes from Debian's package, whose files go into the private copy of the server.

use crate::fixture::Fixture;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;
use xtask::shell;

/// The database that it's installed in.
pub const DATABASE: &str = "pgq";

/// Installs it into a database of its own, if it isn't there; returns what tables call it.
pub fn install(fixture: &Fixture) -> Result<String> {
    let known = "SELECT FROM pg_database WHERE datname = $1";
    if fixture.client()?.query_opt(known, &[&DATABASE])?.is_none() {
        let installation = fixture.server().installation();
        if !installation.share().join("extension/pgq.control").is_file() {
            fetch(fixture)?;
        }
        fixture.client()?.batch_execute(&format!("CREATE DATABASE {DATABASE}"))?;
        fixture.client_for(DATABASE)?.batch_execute("CREATE EXTENSION pgq")?;
    }
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'pgq'";
    Ok(format!("PgQ {}", fixture.client_for(DATABASE)?.query_one(version, &[])?.get::<_, String>(0)))
}

/// Downloads the package and copies its files to where the server looks for extensions.
fn fetch(fixture: &Fixture) -> Result<()> {
    let installation = fixture.server().installation();
    let pg = installation.pg;
    ensure!(pg.root().is_none(), "PgQ is compared with on this machine's own PostgreSQL only");
    let dir = fixture.dir().join("pgq");
    fs::create_dir(&dir)?;
    let package = format!("postgresql-{pg}-pgq3");
    shell::output(Command::new("apt-get").args(["-qq", "download", &package]).current_dir(&dir))
        .with_context(|| format!("can't download Debian's {package}"))?;
    for file in fs::read_dir(&dir)? {
        shell::output(Command::new("dpkg-deb").arg("--extract").arg(file?.path()).arg(dir.join("files")))?;
    }
    let usr = dir.join("files/usr");
    copy(&usr.join(format!("lib/postgresql/{pg}/lib")), &installation.pkglib(), "so")?;
    let (from, to) = (usr.join(format!("share/postgresql/{pg}/extension")), installation.share().join("extension"));
    copy(&from, &to, "sql")?;
    // Last: it says that the others are there.
    copy(&from, &to, "control")
}

/// Copies the files with that extension.
fn copy(from: &Path, to: &Path, extension: &str) -> Result<()> {
    for file in fs::read_dir(from).with_context(|| format!("no {}", from.display()))? {
        let path = file?.path();
        if path.extension().is_some_and(|other| other == extension)
            && let Some(name) = path.file_name()
        {
            fs::copy(&path, to.join(name)).with_context(|| format!("can't copy {}", path.display()))?;
        }
    }
    Ok(())
}
