//! A private installation of `PostgreSQL` with the extension in it.
//!
//! `PostgreSQL` finds its libraries and its share directory relative to the program that runs, so a copy of Debian's
//! two version directories is a complete installation of its own. The extension goes there: nothing is written into
//! the system's directories, root isn't needed for it, and clones don't disturb each other.

mod copy;

use crate::account::Account;
use crate::pg::Pg;
use crate::{paths, shell};
use anyhow::{Context, Result, ensure};
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
        Ok(Self { pg, usr: base.join(format!("pg{pg}/usr")) })
    }

    /// The installation for `pg` of this clone, as an earlier [`Installation::prepare`] and [`Installation::install`]
    /// left it. An error where there is none.
    pub fn locate(pg: Pg) -> Result<Self> {
        let installation = Self::planned(pg)?;
        let control = installation.share().join("extension/pg_enough.control");
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
        let source = pg.root().unwrap_or_else(|| PathBuf::from("/")).join("usr");
        let parts = ["lib", "share"].map(|part| Path::new(part).join("postgresql").join(pg.to_string()));
        // The headers are only read; in a root this names the root's own, since it is resolved there.
        copy::refresh(&source, &installation.usr, &parts, &[("include", "/usr/include")])?;
        Ok(installation)
    }

    /// Builds a release of the extension and puts it into the installation.
    pub fn install(&self) -> Result<()> {
        if self.pg.root().is_some() {
            shell::run(Command::new("cargo").args(["fetch", "--locked"]).current_dir(paths::workspace()))?;
        }
        let mut cargo = self.cargo()?;
        cargo.args(["pgrx", "install", "--release", "--pg-config"]).arg(self.bin("pg_config"));
        cargo.args(["--no-default-features", "--features", &self.pg.feature()]);
        // What cargo-pgrx says of itself is coloured, terminal or not; cargo's own lines are the progress.
        let of_cargo = |line: &str| !line.contains('\x1b');
        shell::filtered(&format!("install-pg{}", self.pg), &mut cargo, of_cargo).context("can't build the extension")
    }

    /// `cargo`, run in the workspace where this installation's headers are, with pgrx pointed at them.
    pub fn cargo(&self) -> Result<Command> {
        let mut command = self.pg.command_with_rust(Path::new("cargo"), &paths::workspace())?;
        command.env("PGRX_PG_CONFIG_PATH", self.bin("pg_config"));
        command.env("PGRX_HOME", self.pgrx_home()?);
        if self.pg.root().is_some() {
            // Another release's C library and clang: nothing that was built outside may be mixed with it. And the
            // root has neither the registry's certificates nor its index.
            command.env("CARGO_TARGET_DIR", paths::target().join(format!("pg{}/build", self.pg)));
            command.env("CARGO_NET_OFFLINE", "true");
        }
        Ok(command)
    }

    /// cargo-pgrx insists on a home, and its build script on the file in it: while that is missing, every build starts
    /// from the bindings again.
    fn pgrx_home(&self) -> Result<PathBuf> {
        let home = self.usr.with_file_name("pgrx-home");
        let path = home.join("config.toml");
        let text = format!("[configs]\n{} = '{}'\n", self.pg.feature(), self.bin("pg_config").display());
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(home);
        }
        fs::create_dir_all(&home).with_context(|| format!("can't create {}", home.display()))?;
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        Ok(home)
    }

    /// One of the installation's programs: `postgres`, `psql`, `pgbench`, …
    pub fn bin(&self, program: &str) -> PathBuf {
        self.lib().join("bin").join(program)
    }

    /// `PostgreSQL`'s directory of programs and libraries.
    fn lib(&self) -> PathBuf {
        self.usr.join("lib/postgresql").join(self.pg.to_string())
    }

    /// The directory of shared objects, `pg_config --pkglibdir`.
    pub fn pkglib(&self) -> PathBuf {
        self.lib().join("lib")
    }

    /// `pg_config --sharedir`.
    pub fn share(&self) -> PathBuf {
        self.usr.join("share/postgresql").join(self.pg.to_string())
    }

    /// A test driver that Debian ships with the server's headers: `regress/pg_regress` or
    /// `isolation/pg_isolation_regress`.
    pub fn test_driver(&self, name: &str) -> PathBuf {
        self.pkglib().join("pgxs/src/test").join(name)
    }

    /// A command for one of the installation's programs, in the directory `dir`.
    pub fn command(&self, program: &Path, dir: &Path) -> Result<Command> {
        self.pg.command(program, dir)
    }
}
