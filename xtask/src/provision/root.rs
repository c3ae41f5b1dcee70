//! The root of another Debian release, for the versions of `PostgreSQL` that this machine's release doesn't carry:
//! making it, and running programs in it.
//!
//! It is made once with debootstrap and kept outside of the clone ([`paths::cache`]). A root that was being made when
//! something failed is made anew: only the finished one gets its name. A list of what was installed lies in it, so
//! that a longer list of packages is noticed.

use super::locked;
use crate::paths;
use crate::pg::Pg;
use crate::shell::{self, as_root};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the list of installed packages is kept inside the root.
const STAMP: &str = "etc/pg_enough.packages";

/// Inside the root: no server starts by itself, no cluster is made, and what is missing gets installed. debootstrap
/// leaves its package lists behind; they are only fetched anew once they no longer serve.
/// Arguments: the root, then the packages.
const FILL: &str = r#"
set -e
root=$1
shift
mkdir -p "$root/etc/postgresql-common"
echo 'create_main_cluster = false' > "$root/etc/postgresql-common/createcluster.conf"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
for dir in /proc /sys /dev; do mount --rbind "$dir" "$root$dir"; done
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
fill() { chroot "$root" apt-get -qq -y --no-install-recommends install "$@"; }
# Not `update && fill`: what fails before `&&` doesn't end the script.
fill "$@" || { chroot "$root" apt-get -qq update; fill "$@"; }
chroot "$root" apt-get clean
echo "$@" > "$root/etc/pg_enough.packages"
"#;

/// Ensures that `dir` is a root of the release `suite`, which carries `pg`, with `packages` in it.
pub fn ensure(pg: Pg, suite: &str, dir: &Path, packages: &[String]) -> Result<()> {
    let stamp = dir.join(STAMP);
    let complete = || fs::read_to_string(&stamp).is_ok_and(|text| text.trim() == packages.join(" "));
    if complete() {
        return Ok(());
    }
    let purpose = format!("set up a Debian {suite} for PostgreSQL {pg} in {}", dir.display());
    let cache = paths::cache();
    shell::run(as_root("mkdir", &purpose)?.arg("-p").arg(&cache))?;
    locked(&format!("root-{suite}"), || {
        if complete() {
            return Ok(());
        }
        if !dir.join("usr/bin/apt-get").is_file() {
            let what = format!("setting up Debian {suite} for PostgreSQL {pg} (a minute or two, once)");
            shell::timed(&what, || bootstrap(suite, dir, &purpose))?;
        }
        let mut command = as_root("unshare", &purpose)?;
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", FILL, "sh"]).arg(dir).args(packages);
        let what = format!("installing {} into {}", packages.join(" "), dir.display());
        shell::timed(&what, || shell::quiet(&format!("root-{suite}"), &mut command))
    })
}

/// Makes `dir` a root with nothing in it but the essential packages of `suite`.
fn bootstrap(suite: &str, dir: &Path, purpose: &str) -> Result<()> {
    let partial = dir.with_extension("partial");
    shell::run(as_root("rm", purpose)?.args(["-rf", "--one-file-system"]).arg(&partial))?;
    let mut command = as_root("debootstrap", purpose)?;
    command.args(["--variant=minbase", suite]).arg(&partial);
    shell::quiet(&format!("debootstrap-{suite}"), &mut command)?;
    shell::run(as_root("mv", purpose)?.arg(&partial).arg(dir))
}

/// Mounts, then the program. The mounts belong to the process's own mount namespace and vanish with it, however it
/// ends. Arguments: the root, the working directory, the number of mounts, the mounts, the program.
const ENTER: &str = r#"
set -e
root=$1 dir=$2 count=$3
shift 3
while [ "$count" -gt 0 ]; do
    mount --rbind "$1" "$root$1"
    count=$((count - 1))
    shift
done
exec chroot "$root" env -C "$dir" "$@"
"#;

/// What every program in a root gets from this machine: the kernel's file systems, the temporary directories, and the
/// users, so that a number means the same inside and outside.
const ALWAYS_SHARED: [&str; 7] = ["/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/etc/passwd", "/etc/group"];

/// A command that runs the program which the caller appends inside `root`, in the directory `dir`, with `shared` of
/// this machine at their own paths.
pub(crate) fn enter(root: &Path, dir: &Path, shared: &[PathBuf]) -> Result<Command> {
    let mut mounts: Vec<PathBuf> = ALWAYS_SHARED.map(PathBuf::from).to_vec();
    for path in shared {
        // A directory that lies below another mount is there already.
        if path.exists() && !mounts.iter().any(|mount| path.starts_with(mount)) {
            make_mount_point(root, path)?;
            mounts.push(path.clone());
        }
    }
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        // Without root, a user namespace gives the right to mount and to change the root, under the own number.
        command.args(["--map-current-user", "--keep-caps"]);
    }
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", ENTER, "sh"]);
    command.arg(root).arg(dir).arg(mounts.len().to_string()).args(&mounts);
    Ok(command)
}

/// Makes the empty directory in `root` that `path` is mounted upon; it stays.
fn make_mount_point(root: &Path, path: &Path) -> Result<()> {
    let point = root.join(path.strip_prefix("/").unwrap_or(path));
    if point.is_dir() {
        return Ok(());
    }
    shell::run(as_root("mkdir", &format!("make {}", point.display()))?.arg("-p").arg(&point))
}
