//! The unprivileged user that servers run as: `PostgreSQL` refuses to run as root.

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, geteuid};
use std::path::Path;

/// A user that servers run as.
#[derive(Debug, Clone)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's main group.
    pub gid: u32,
    /// Whether the present process runs as somebody else (as root) and has to switch.
    pub switch: bool,
}

impl Account {
    /// The own user; `postgres`, or else `nobody`, where the own user is root.
    pub fn for_servers() -> Result<Self> {
        let own = geteuid();
        let user = if own.is_root() {
            ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten())
        } else {
            User::from_uid(own).ok().flatten()
        };
        let user = user.context("found no user to run a server as: neither `postgres` nor `nobody` exists")?;
        if user.uid.is_root() {
            bail!("a server can't run as root, and `{}` is root", user.name);
        }
        Ok(Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), switch: own.is_root() })
    }

    /// Makes `path` this user's.
    pub fn own(&self, path: &Path) -> Result<()> {
        if self.switch {
            nix::unistd::chown(path, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
                .with_context(|| format!("can't give {} to {}", path.display(), self.name))?;
        }
        Ok(())
    }

    /// The arguments for `setpriv` that make the program which follows run as this user, with `death_signal` sent to
    /// it when its parent dies. `setpriv` replaces itself by the program, so the process keeps its number.
    pub fn setpriv_arguments(&self, death_signal: Option<&str>) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.switch {
            arguments.push(format!("--reuid={}", self.uid));
            arguments.push(format!("--regid={}", self.gid));
            arguments.push("--clear-groups".into());
        }
        if let Some(signal) = death_signal {
            arguments.push(format!("--pdeathsig={signal}"));
        }
        arguments.push("--".into());
        arguments
    }
}
