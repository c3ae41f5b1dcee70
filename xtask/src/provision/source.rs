//! A server with assertions, built from Debian's source package.
//!
//! Assertions tell when the server's own rules are broken before anybody is harmed, freed memory is overwritten, and
//! entries of the relation and catalog caches are thrown away as soon as nobody holds them: who uses one that it doesn't
//! hold is found at once. It takes some minutes and is kept outside of the clone ([`paths::cache`]).

use super::{ensure_packages, in_cache, locked};
use crate::pg::Pg;
use crate::{paths, shell};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What building takes on a Debian without anything.
const PACKAGES: [&str; 7] = ["gcc", "libc6-dev", "make", "perl", "zlib1g-dev", "bzip2", "debian-archive-keyring"];

/// The archives that may have the source: updates for security first, then the release itself. A mirror may have the
/// lists of the first and no longer its files.
const ARCHIVES: [&[&str]; 2] = [&["debian-security bookworm-security", "debian bookworm"], &["debian bookworm"]];

/// Arguments of configure. What the tests don't need isn't asked for, so that few packages are.
const CONFIGURE: [&str; 5] =
    ["--prefix=/usr", "--enable-cassert", "--enable-debug", "--without-readline", "--without-icu"];

/// Assertions bring `CLOBBER_FREED_MEMORY` and `MEMORY_CONTEXT_CHECKING` with them.
const COPT: &str = "-O1 -DRELCACHE_FORCE_RELEASE -DCATCACHE_FORCE_RELEASE";

/// Where the build for `pg` is: its files in `usr`, and the recipe that they were made by.
pub(crate) fn built(pg: Pg) -> PathBuf {
    paths::cache().join(format!("postgresql-{pg}"))
}

/// What the build depends on; another one is made when this changes.
fn recipe() -> String {
    format!("{} {COPT}\n", CONFIGURE.join(" "))
}

/// Ensures that the build for `pg` is there.
pub(super) fn ensure(pg: Pg) -> Result<()> {
    let dir = built(pg);
    let complete = || fs::read_to_string(dir.join("recipe")).is_ok_and(|text| text == recipe());
    if complete() {
        return Ok(());
    }
    ensure_packages(&PACKAGES.map(String::from))?;
    let purpose = format!("keep a PostgreSQL {pg} in {}", dir.display());
    locked(&format!("postgresql-{pg}"), || {
        if complete() {
            return Ok(());
        }
        let work = in_cache(&format!("postgresql-{pg}.partial"), &purpose)?;
        let tree = unpacked(pg, &work)?;
        shell::timed(&format!("building PostgreSQL {pg} (eight minutes or so on two cores, once)"), || {
            build(pg, &tree, &work)
        })?;
        fs::remove_dir_all(&tree).with_context(|| format!("can't remove {}", tree.display()))?;
        fs::write(work.join("recipe"), recipe())?;
        shell::run(shell::as_root("rm", &purpose)?.args(["-rf", "--one-file-system"]).arg(&dir))?;
        shell::run(shell::as_root("mv", &purpose)?.arg(&work).arg(&dir))
    })
}

/// Fetches the source into `work` and unpacks it; the directory of the source.
fn unpacked(pg: Pg, work: &Path) -> Result<PathBuf> {
    shell::say(&format!("fetching the source of PostgreSQL {}", pg.major()));
    let mut fetched = Err(anyhow::anyhow!("no archive was asked"));
    for archives in ARCHIVES {
        fetched = fetch(pg, work, archives);
        if fetched.is_ok() {
            break;
        }
    }
    fetched.context("can't fetch the source")?;
    let tree = work.join("source");
    fs::create_dir(&tree)?;
    let mut files = fs::read_dir(work)?.flatten().map(|entry| entry.path());
    let archive = files.find(|path| path.to_string_lossy().contains(".orig.tar"));
    let archive = archive.with_context(|| format!("no source in {}", work.display()))?;
    let mut tar = Command::new("tar");
    shell::output(
        tar.args(["--extract", "--strip-components=1", "--file"]).arg(archive).arg("--directory").arg(&tree),
    )?;
    Ok(tree)
}

/// Lets apt fetch the source package from `archives`, with lists of its own: the machine's configuration stays as it is.
fn fetch(pg: Pg, work: &Path, archives: &[&str]) -> Result<()> {
    let state = work.join("apt");
    fs::create_dir_all(state.join("lists/partial"))?;
    fs::create_dir_all(state.join("cache"))?;
    let mut sources = String::new();
    for archive in archives {
        let (path, suite) = archive.split_once(' ').context("an archive without a suite")?;
        let keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        writeln!(sources, "deb-src {keyring} http://deb.debian.org/{path} {suite} main")?;
    }
    fs::write(state.join("sources.list"), sources)?;
    let option = |name: &str, value: &Path| {
        let mut text = OsString::from(format!("{name}="));
        text.push(value);
        ["-o".into(), text]
    };
    let options = [
        option("Dir::Etc::sourcelist", &state.join("sources.list")),
        option("Dir::Etc::sourceparts", Path::new("-")),
        option("Dir::State::lists", &state.join("lists")),
        option("Dir::Cache", &state.join("cache")),
        // Files here are the own user's.
        option("APT::Sandbox::User", Path::new("root")),
    ];
    let apt = || {
        let mut command = Command::new("apt-get");
        command.arg("-qq").args(options.iter().flatten()).current_dir(work);
        command
    };
    shell::quiet("source-lists", apt().arg("update"))?;
    let package = format!("postgresql-{}", pg.major());
    shell::quiet("source", apt().args(["source", "--download-only", &package]))
}

fn build(pg: Pg, tree: &Path, work: &Path) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    shell::quiet(&format!("configure-{pg}"), Command::new("./configure").args(CONFIGURE).current_dir(tree))?;
    for (step, targets) in [("build", &["world-bin"][..]), ("install", &["install-world-bin"])] {
        let mut make = Command::new("make");
        // cargo's own job server isn't make's.
        make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("CARGO_MAKEFLAGS");
        make.arg("-s").arg(format!("-j{jobs}")).arg(format!("COPT={COPT}")).args(targets);
        make.arg(format!("DESTDIR={}", work.display())).current_dir(tree);
        shell::quiet(&format!("{step}-{pg}"), &mut make)?;
    }
    Ok(())
}
