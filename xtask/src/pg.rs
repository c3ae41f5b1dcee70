//! The supported major versions of `PostgreSQL`, and where each one's server is to be found: on this machine where its
//! Debian release carries that version, otherwise in a root of the release that does.

use crate::provision::root;
use crate::{paths, shell};
use anyhow::{Context, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// Where Debian's programs are.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A `PostgreSQL` that the extension supports and is tested with: a major version, and for one of them a build with
/// assertions beside the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pg {
    /// `PostgreSQL` 15, from Debian 12.
    Pg15,
    /// `PostgreSQL` 15, built from Debian's source with assertions; see [`crate::provision`].
    Pg15Assert,
    /// `PostgreSQL` 16, from `PyPI`.
    Pg16,
    /// `PostgreSQL` 17, from Debian 13.
    Pg17,
    /// `PostgreSQL` 18, from Debian unstable.
    Pg18,
}

/// Where a server's files come from, and so how they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The packages of a Debian release.
    Debian {
        /// The release's code name.
        suite: &'static str,
    },
    /// A build of our own.
    Source,
    /// A package on `PyPI` with a server in it.
    Wheel,
}

impl Pg {
    /// All of them, by the names that [`Pg::from_str`] takes.
    const ALL: [(&str, Self); 5] = [
        ("15", Self::Pg15),
        ("15-assert", Self::Pg15Assert),
        ("16", Self::Pg16),
        ("17", Self::Pg17),
        ("18", Self::Pg18),
    ];

    /// The versions as their projects release them, from the oldest to the newest.
    pub const RELEASED: [Self; 4] = [Self::Pg15, Self::Pg16, Self::Pg17, Self::Pg18];

    /// The major version's number.
    pub fn major(self) -> u32 {
        match self {
            Self::Pg15 | Self::Pg15Assert => 15,
            Self::Pg16 => 16,
            Self::Pg17 => 17,
            Self::Pg18 => 18,
        }
    }

    /// Where its files come from.
    pub fn origin(self) -> Origin {
        match self {
            Self::Pg15 => Origin::Debian { suite: "bookworm" },
            Self::Pg15Assert => Origin::Source,
            Self::Pg16 => Origin::Wheel,
            Self::Pg17 => Origin::Debian { suite: "trixie" },
            Self::Pg18 => Origin::Debian { suite: "sid" },
        }
    }

    /// Whether it is that of this machine's Debian.
    pub fn is_this_machines(self) -> bool {
        matches!(self.origin(), Origin::Debian { .. }) && self.root().is_none()
    }

    /// Whether the server checks its own assertions.
    pub fn has_assertions(self) -> bool {
        matches!(self, Self::Pg15Assert)
    }

    /// The cargo feature of the extension for this version.
    pub fn feature(self) -> String {
        format!("pg{}", self.major())
    }

    /// The version that `ENOUGH_PG` names, 15 where it is unset.
    pub fn from_env() -> Result<Self> {
        std::env::var("ENOUGH_PG").map_or(Ok(Self::Pg15), |text| text.parse())
    }

    /// The root of the other Debian release that this version lives in; `None` where it lives on this machine.
    pub fn root(self) -> Option<PathBuf> {
        let Origin::Debian { suite } = self.origin() else { return None };
        let on_host = Path::new("/usr/lib/postgresql").join(self.major().to_string()).join("bin/postgres").is_file()
            || host_suite().as_deref() == Some(suite);
        (!on_host).then(|| paths::cache().join(format!("root-{suite}")))
    }

    /// A command that runs `program` where this version lives, in the directory `dir`. Paths are the same inside and
    /// outside.
    pub fn command(self, program: &Path, dir: &Path) -> Result<Command> {
        self.wrapped(program, dir, &shared_paths())
    }

    /// Like [`Pg::command`], with this machine's Rust toolchain at hand.
    pub fn command_with_rust(self, program: &Path, dir: &Path) -> Result<Command> {
        if self.root().is_none() {
            return self.command(program, dir);
        }
        let (sysroot, cargo_home) = (sysroot()?, paths::cargo_home());
        let programs = [sysroot.join("bin"), cargo_home.join("bin")];
        let search = programs.into_iter().chain(std::env::split_paths(SYSTEM_PATH));
        let search = std::env::join_paths(search).context("a directory of the toolchain contains a colon")?;
        let mut command = self.wrapped(program, dir, &[shared_paths(), vec![sysroot, cargo_home]].concat())?;
        command.env("PATH", search);
        Ok(command)
    }

    fn wrapped(self, program: &Path, dir: &Path, shared: &[PathBuf]) -> Result<Command> {
        let Some(root) = self.root() else {
            let mut command = Command::new(program);
            command.current_dir(dir);
            return Ok(command);
        };
        let mut command = root::enter(&root, dir, shared)?;
        command.arg(program).env("PATH", SYSTEM_PATH).env("LC_ALL", "C.UTF-8").env_remove("LD_LIBRARY_PATH");
        Ok(command)
    }
}

impl fmt::Display for Pg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, pg)| pg == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Pg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.trim_start_matches("pg");
        let found = Self::ALL.iter().find(|(name, _)| *name == wanted).map(|(_, pg)| *pg);
        found.with_context(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            format!("`{text}` is none of the supported versions: {names}")
        })
    }
}

/// The code name of the Debian release on this machine.
fn host_suite() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// The directory of the active Rust toolchain.
pub fn sysroot() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = shell::output(Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(text.trim()))
}

/// What of this machine is also to be seen from inside a root.
fn shared_paths() -> Vec<PathBuf> {
    vec![paths::workspace(), paths::target(), paths::runs()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_it_is_written() -> Result<()> {
        for (name, pg) in Pg::ALL {
            assert_eq!(pg.to_string(), name);
            assert_eq!(name.parse::<Pg>()?, pg);
            assert_eq!(format!("pg{name}").parse::<Pg>()?, pg);
        }
        assert!("14".parse::<Pg>().is_err_and(|error| error.to_string().contains("15, ")));
        Ok(())
    }
}
