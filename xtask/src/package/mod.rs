//! `cargo xtask package`: what an operator installs. For one version of `PostgreSQL`: a Debian package, another one with pgmq's
//! interface, and an image with
//! the extension's files alone (an OCI archive), as `CloudNativePG` mounts them as a volume. For all versions: the source
//! as PGXN takes it.

mod deb;
mod elf;
mod oci;
mod source;

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use xtask::install::{self, Installation};
use xtask::pg::Pg;
use xtask::{paths, shell};

/// The version of everything in the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the extension is, in a line.
const SUMMARY: &str = "message queue, cache and rate limiter inside PostgreSQL";

/// What it is, for people who read on.
const DESCRIPTION: &str = "Durable messages with visibility timeouts, delays and dead letters, a cache with a TTL, and exact rate limits, \
                           as SQL functions, after nothing but CREATE EXTENSION.";

/// Builds the extension for `pg` and packs it; returns the files.
pub fn run(pg: Pg) -> Result<Vec<PathBuf>> {
    ensure!(!pg.has_assertions(), "a server with assertions is for tests; package --pg {}", pg.major());
    let installation = crate::install(pg)?;
    installation.install_pgmq()?;
    let content = Content::of(&installation)?;
    let dir = paths::target().join("package");
    fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let pgmq = Content::of_pgmq(&installation)?;
    Ok(vec![
        deb::build(pg, &content, &dir)?,
        deb::build_pgmq(pg, &pgmq, &dir)?,
        oci::build(pg, &content, &dir)?,
        source::build(&dir)?,
    ])
}

/// An extension's files in an installation.
struct Content {
    /// The shared library; `None` of an extension without one.
    library: Option<PathBuf>,
    /// The control file and the scripts.
    extension: Vec<PathBuf>,
}

impl Content {
    fn of(installation: &Installation) -> Result<Self> {
        let dir = installation.extensions();
        let scripts = install::scripts(&dir)?;
        ensure!(!scripts.is_empty(), "the build left no install script in {}", dir.display());
        let extension = [vec![dir.join("pg_enough.control")], scripts].concat();
        Ok(Self { library: Some(installation.pkglib().join("pg_enough.so")), extension })
    }

    /// Those of pgmq's interface.
    fn of_pgmq(installation: &Installation) -> Result<Self> {
        Ok(Self { library: None, extension: install::pgmq_files(&installation.extensions())? })
    }

    /// Copies the library without its debugging information to `lib`, and the rest to `extension`, directories below
    /// `root`.
    fn place(&self, root: &Path, lib: &str, extension: &str) -> Result<()> {
        let (lib, extension) = (root.join(lib), root.join(extension));
        let make = |dir: &Path| fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()));
        make(&extension)?;
        if let Some(library) = &self.library {
            make(&lib)?;
            shell::output(
                Command::new("strip").arg("--strip-unneeded").arg("-o").arg(lib.join("pg_enough.so")).arg(library),
            )?;
        }
        for path in &self.extension {
            let name = path.file_name().context("a file without a name")?;
            fs::copy(path, extension.join(name)).with_context(|| format!("can't copy {}", path.display()))?;
        }
        // Whatever this user's mask is: files of packages are for everybody to read.
        shell::run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(root))
    }
}

/// A directory to put a tree together in.
fn tree() -> Result<TempDir> {
    tempfile::tempdir().context("can't make a temporary directory")
}

/// The architecture as Debian and OCI call it.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("packages are made for x86_64 and aarch64, and this is {other}"),
    }
}
