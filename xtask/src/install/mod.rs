//! A private installation of `PostgreSQL` with the extension in it.
//!
//! `PostgreSQL` finds its libraries and its share directory relative to the program that runs, so a copy of a server's
//! directories is a complete installation of its own. The extension goes there: nothing is written into the system's
//! directories, root isn't needed for it, and clones don't disturb each other.

mod copy;
mod pgmq;
mod script;

pub use pgmq::files as pgmq_files;
pub use script::scripts;

use crate::account::Account;
use crate::pg::{Origin, Pg};
use crate::provision::{source, wheel};
use crate::{paths, shell};
use anyhow::{Context, Result, ensure};
use copy::Part;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A private installation.
#[derive(Debug, Clone)]
pub struct Installation {
    /// Its major version.
    pub pg: Pg,
    /// The directory that stands for `/usr`.
    pub usr: PathBuf,
}

impl Installation {
    /// The installation for `pg` of this clone, whether or not it is there yet.
    fn planned(pg: Pg) -> Result<Self> {
        let base = paths::installations(&Account::for_servers()?)?;
        let base = base.join(format!("pg{pg}"));
        // Programs from a wheel find its libraries three directories up.
        Ok(Self { pg, usr: if pg.origin() == Origin::Wheel { base.join("wheel/usr") } else { base.join("usr") } })
    }

    /// The installation for `pg` of this clone, as an earlier [`Installation::prepare`] and [`Installation::install`]
    /// left it. An error where there is none.
    pub fn locate(pg: Pg) -> Result<Self> {
        let installation = Self::planned(pg)?;
        let control = installation.extensions().join("pg_enough.control");
        ensure!(
            installation.bin("postgres").is_file() && control.is_file(),
            "no PostgreSQL {pg} with pg_enough in {}: run `cargo xtask install --pg {pg}`",
            installation.usr.display()
        );
        Ok(installation)
    }

    /// Copies the server, unless a copy of the same files is there.
    pub fn prepare(pg: Pg) -> Result<Self> {
        let installation = Self::planned(pg)?;
        match pg.origin() {
            Origin::Debian { .. } => {
                let usr = pg.root().unwrap_or_else(|| PathBuf::from("/")).join("usr");
                let part = |name: &str| {
                    let place = Path::new(name).join("postgresql").join(pg.major().to_string());
                    Part { from: usr.join(&place), to: place }
                };
                // The headers are only read; in a root this names the root's own, since it is resolved there.
                copy::refresh(&installation.usr, &["lib", "share"].map(part), &[("include", "/usr/include")])?;
            }
            Origin::Source => {
                let usr = source::built(pg).join("usr");
                let part = |name: &str| Part { from: usr.join(name), to: name.into() };
                let mut parts = ["bin", "lib", "share", "include"].map(part).to_vec();
                parts.extend(installation.borrowed_cron()?);
                copy::refresh(&installation.usr, &parts, &[])?;
            }
            Origin::Wheel => {
                let server = wheel::server(pg);
                let part = |name: &str| Part { from: server.join(name), to: name.into() };
                let mut parts = ["bin", "lib", "share", "include"].map(part).to_vec();
                parts.push(Part { from: wheel::libraries(pg), to: Path::new("../..").join(wheel::LIBRARIES) });
                copy::refresh(&installation.usr, &parts, &[])?;
            }
        }
        Ok(installation)
    }

    /// `pg_cron` of this machine's Debian, if it is there, for a build of our own of the same major version.
    fn borrowed_cron(&self) -> Result<Vec<Part>> {
        let major = self.pg.major().to_string();
        let library = Path::new("/usr/lib/postgresql").join(&major).join("lib/pg_cron.so");
        if !library.is_file() {
            return Ok(Vec::new());
        }
        let relative = |path: PathBuf| path.strip_prefix(&self.usr).map(Path::to_path_buf);
        let mut parts = vec![Part { from: library, to: relative(self.pkglib().join("pg_cron.so"))? }];
        for entry in fs::read_dir(Path::new("/usr/share/postgresql").join(&major).join("extension"))? {
            let from = entry?.path();
            let name = from.file_name().unwrap_or_default().to_owned();
            if name.to_string_lossy().starts_with("pg_cron") {
                parts.push(Part { from, to: relative(self.extensions().join(name))? });
            }
        }
        Ok(parts)
    }

    /// Builds a release of the extension and puts it into the installation.
    pub fn install(&self) -> Result<()> {
        if self.pg.root().is_some() {
            shell::run(Command::new("cargo").args(["fetch", "--locked"]).current_dir(paths::workspace()))?;
        }
        let library = build(self.cargo()?, &self.pg.feature(), &format!("install-pg{}", self.pg), &self.target())?;
        put(&library, &self.pkglib(), &self.extensions())
    }

    /// Puts the SQL interface of pgmq beside it, which is an extension of its own.
    pub fn install_pgmq(&self) -> Result<()> {
        pgmq::write(&self.extensions())
    }

    /// Where cargo puts what it builds for this installation.
    fn target(&self) -> PathBuf {
        if self.pg.is_this_machines() { paths::target() } else { paths::target().join(format!("pg{}/build", self.pg)) }
    }

    /// `cargo`, run in the workspace where this installation's headers are, with pgrx pointed at them.
    pub fn cargo(&self) -> Result<Command> {
        let mut command = self.pg.command_with_rust(Path::new("cargo"), &paths::workspace())?;
        command.env("PGRX_PG_CONFIG_PATH", self.bin("pg_config"));
        let home = self.usr.with_file_name("pgrx-home");
        command.env("PGRX_HOME", pgrx_home(home, &self.pg.feature(), &self.bin("pg_config"))?);
        // Another release's C library and clang, or a server with other structures: nothing that was built with other
        // headers may be mixed with it.
        command.env("CARGO_TARGET_DIR", self.target());
        if self.pg.root().is_some() {
            // The root has neither the registry's certificates nor its index.
            command.env("CARGO_NET_OFFLINE", "true");
        }
        if self.pg.has_assertions() {
            command.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
            command.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
        }
        Ok(command)
    }

    /// One of the installation's programs: `postgres`, `psql`, `pgbench`, …
    pub fn bin(&self, program: &str) -> PathBuf {
        let dir = match self.pg.origin() {
            Origin::Debian { .. } => self.usr.join("lib/postgresql").join(self.pg.major().to_string()).join("bin"),
            Origin::Source | Origin::Wheel => self.usr.join("bin"),
        };
        dir.join(program)
    }

    /// The directory of shared objects, `pg_config --pkglibdir`.
    pub fn pkglib(&self) -> PathBuf {
        match self.pg.origin() {
            Origin::Debian { .. } => self.usr.join("lib/postgresql").join(self.pg.major().to_string()).join("lib"),
            Origin::Source | Origin::Wheel => self.usr.join("lib/postgresql"),
        }
    }

    /// `pg_config --sharedir`.
    pub fn share(&self) -> PathBuf {
        match self.pg.origin() {
            Origin::Debian { .. } => self.usr.join("share/postgresql").join(self.pg.major().to_string()),
            Origin::Source | Origin::Wheel => self.usr.join("share/postgresql"),
        }
    }

    /// Where control files and scripts of extensions are.
    pub fn extensions(&self) -> PathBuf {
        self.share().join("extension")
    }

    /// A test driver that comes with the server's headers: `regress/pg_regress` or `isolation/pg_isolation_regress`.
    pub fn test_driver(&self, name: &str) -> PathBuf {
        self.pkglib().join("pgxs/src/test").join(name)
    }

    /// A command for one of the installation's programs, in the directory `dir`.
    pub fn command(&self, program: &Path, dir: &Path) -> Result<Command> {
        self.pg.command(program, dir)
    }
}

/// Builds a release of the extension for the server of `pg_config`, and puts it there unless `build_only`. Nothing else of
/// that server is touched, but for pgmq's interface where that is asked for; who calls this needs to be allowed to write into its directories.
pub fn install_into(pg_config: &Path, build_only: bool, with_pgmq: bool) -> Result<()> {
    let ask =
        |what: &str| -> Result<String> { Ok(shell::output(Command::new(pg_config).arg(what))?.trim().to_owned()) };
    // "PostgreSQL 15.18 (Debian …)", "PostgreSQL 19beta1".
    let version = ask("--version")?;
    let major = version.split_whitespace().nth(1).unwrap_or_default();
    let major = major.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let pg: Pg = major.parse().with_context(|| format!("{} is of {version}", pg_config.display()))?;
    let target = paths::target().join(format!("pg_config-{pg}"));
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::workspace()).env("CARGO_TARGET_DIR", &target).env("PGRX_PG_CONFIG_PATH", pg_config);
    cargo.env("PGRX_HOME", pgrx_home(target.join("pgrx-home"), &pg.feature(), pg_config)?);
    let library = build(cargo, &pg.feature(), &format!("install-{pg}"), &target)?;
    if build_only {
        return Ok(());
    }
    let extensions = Path::new(&ask("--sharedir")?).join("extension");
    put(&library, Path::new(&ask("--pkglibdir")?), &extensions)?;
    if with_pgmq { pgmq::write(&extensions) } else { Ok(()) }
}

/// Lets `cargo` build the extension; the library that comes of it, below `target`. `log`: what cargo's output is kept as.
fn build(mut cargo: Command, feature: &str, log: &str, target: &Path) -> Result<PathBuf> {
    cargo.args([
        "build",
        "--release",
        "--lib",
        "--package",
        "pg_enough",
        "--no-default-features",
        "--features",
        feature,
    ]);
    shell::filtered(log, &mut cargo, |_| true).context("can't build the extension")?;
    Ok(target.join("release").join(format!("{DLL_PREFIX}pg_enough{DLL_SUFFIX}")))
}

/// Puts a server's `library` of the extension, its control file and its scripts where they belong.
fn put(library: &Path, pkglib: &Path, extensions: &Path) -> Result<()> {
    let place = pkglib.join("pg_enough.so");
    // Put in place as a whole, under a new inode: a server that runs has the old one mapped.
    let partial = place.with_extension("new");
    fs::copy(library, &partial)
        .with_context(|| format!("can't copy {} to {}", library.display(), partial.display()))?;
    fs::rename(&partial, &place).with_context(|| format!("can't replace {}", place.display()))?;
    script::write(extensions)
}

/// A home for pgrx in `home`: while its build script misses the file in it, every build starts from the bindings again.
fn pgrx_home(home: PathBuf, feature: &str, pg_config: &Path) -> Result<PathBuf> {
    let path = home.join("config.toml");
    let text = format!("[configs]\n{feature} = '{}'\n", pg_config.display());
    if fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(home);
    }
    fs::create_dir_all(&home).with_context(|| format!("can't create {}", home.display()))?;
    fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    Ok(home)
}
