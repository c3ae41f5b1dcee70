//! The Debian package `postgresql-NN-pg-enough`: for Debian's and for the PostgreSQL project's own servers, which put their
//! files in the same places.

use super::{Content, DESCRIPTION, SUMMARY, VERSION, architecture, elf, tree};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::pg::Pg;
use xtask::{paths, shell};

/// Who answers for the package.
const MAINTAINER: &str = "The pg_enough contributors <maintainers@pg-enough.invalid>";

/// Builds the package into `dir`.
pub(super) fn build(pg: Pg, content: &Content, dir: &Path) -> Result<PathBuf> {
    let major = pg.major();
    let name = format!("postgresql-{major}-pg-enough");
    let tree = tree()?;
    let root = tree.path();
    let docs = root.join("usr/share/doc").join(&name);
    fs::create_dir_all(&docs)?;
    for (from, to) in [("LICENSE", "copyright"), ("CHANGELOG.md", "CHANGELOG.md"), ("README.md", "README.md")] {
        let from = paths::workspace().join(from);
        fs::copy(&from, docs.join(to)).with_context(|| format!("can't copy {}", from.display()))?;
    }
    content.place(
        root,
        &format!("usr/lib/postgresql/{major}/lib"),
        &format!("usr/share/postgresql/{major}/extension"),
    )?;
    let libc = elf::needed_libc(&content.library)?;
    let control = root.join("DEBIAN");
    fs::create_dir(&control)?;
    fs::write(control.join("control"), control_text(&name, major, &libc, &installed_size(root)?)?)?;
    let package = dir.join(format!("{name}_{VERSION}-1_{}.deb", architecture()?));
    let mut build = Command::new("dpkg-deb");
    shell::output(build.args(["--build", "--root-owner-group", "-Zxz"]).arg(root).arg(&package))?;
    Ok(package)
}

/// Kibibytes that the files below `root` take.
fn installed_size(root: &Path) -> Result<String> {
    let text =
        shell::output(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1024"]).arg(root))?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

fn control_text(name: &str, major: u32, libc: &str, size: &str) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "Package: {name}")?;
    writeln!(text, "Version: {VERSION}-1")?;
    writeln!(text, "Architecture: {}", architecture()?)?;
    writeln!(text, "Maintainer: {MAINTAINER}")?;
    writeln!(text, "Installed-Size: {size}")?;
    writeln!(text, "Depends: postgresql-{major}, libc6 (>= {libc}), libgcc-s1")?;
    writeln!(text, "Suggests: postgresql-{major}-cron")?;
    writeln!(text, "Section: database\nPriority: optional")?;
    writeln!(text, "Description: {SUMMARY}\n {DESCRIPTION}")?;
    Ok(text)
}
