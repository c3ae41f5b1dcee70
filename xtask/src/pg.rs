//! The supported major versions of `PostgreSQL`, and where each one's server is to be found: on this machine where its
//! Debian release carries that version, otherwise in a root of the release that does.

use crate::provision::root;
use crate::{paths, shell};
use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// Where Debian's programs are.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A major version of `PostgreSQL` that the extension supports and is tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pg {
    /// `PostgreSQL` 15, from Debian 12.
    Pg15,
    /// `PostgreSQL` 17, from Debian 13.
    Pg17,
    /// `PostgreSQL` 18, from Debian unstable.
    Pg18,
}

impl Pg {
    /// The major version's number.
    pub fn major(self) -> u32 {
        match self {
            Self::Pg15 => 15,
            Self::Pg17 => 17,
            Self::Pg18 => 18,
        }
    }

    /// The Debian release that carries this version.
    pub fn suite(self) -> &'static str {
        match self {
            Self::Pg15 => "bookworm",
            Self::Pg17 => "trixie",
            Self::Pg18 => "sid",
        }
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
        let on_host = Path::new("/usr/lib/postgresql").join(self.major().to_string()).join("bin/postgres").is_file()
            || host_suite().as_deref() == Some(self.suite());
        (!on_host).then(|| paths::cache().join(format!("root-{}", self.suite())))
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
        self.major().fmt(f)
    }
}

impl FromStr for Pg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim_start_matches("pg") {
            "15" => Ok(Self::Pg15),
            "17" => Ok(Self::Pg17),
            "18" => Ok(Self::Pg18),
            _ => bail!("`{text}` is none of the supported versions: 15, 17, 18"),
        }
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
