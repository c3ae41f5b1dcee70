//! The Debian packages `postgresql-NN-pg-enough` and `postgresql-NN-pg-enough-pgmq`: for Debian's and for the `PostgreSQL`
//! project's own servers, which put their files in the same places.

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
    let library = content.library.as_ref().context("a library")?;
    let depends = format!("postgresql-{major}, libc6 (>= {}), libgcc-s1", elf::needed_libc(library)?);
    let package = Package {
        name: format!("postgresql-{major}-pg-enough"),
        architecture: architecture()?,
        relations: format!("Depends: {depends}\nSuggests: postgresql-{major}-cron\n"),
        summary: SUMMARY,
        description: DESCRIPTION,
        documents: &[("LICENSE", "copyright"), ("CHANGELOG.md", "CHANGELOG.md"), ("README.md", "README.md")],
    };
    package.build(major, content, dir)
}

/// Builds the package of pgmq's interface into `dir`: it has the files that pgmq's own package has.
pub(super) fn build_pgmq(pg: Pg, content: &Content, dir: &Path) -> Result<PathBuf> {
    let major = pg.major();
    let theirs = format!("postgresql-{major}-pgmq");
    let package = Package {
        name: format!("postgresql-{major}-pg-enough-pgmq"),
        architecture: "all",
        relations: format!(
            "Depends: postgresql-{major}-pg-enough (= {VERSION}-1)\nConflicts: {theirs}\nProvides: {theirs}\n"
        ),
        summary: "pgmq's SQL interface on pg_enough",
        description: "The extension pgmq, with the functions and types of pgmq 1.13.0, on queues of pg_enough.",
        documents: &[("LICENSE", "copyright"), ("docs/pgmq.md", "README.md")],
    };
    package.build(major, content, dir)
}

/// What a package says of itself.
struct Package {
    name: String,
    architecture: &'static str,
    /// The lines that say which other packages it needs, and which it can't lie beside.
    relations: String,
    summary: &'static str,
    description: &'static str,
    /// Files of the workspace, and what they are called in the package.
    documents: &'static [(&'static str, &'static str)],
}

impl Package {
    fn build(&self, major: u32, content: &Content, dir: &Path) -> Result<PathBuf> {
        let tree = tree()?;
        let root = tree.path();
        let docs = root.join("usr/share/doc").join(&self.name);
        fs::create_dir_all(&docs)?;
        for (from, to) in self.documents {
            let from = paths::workspace().join(from);
            fs::copy(&from, docs.join(to)).with_context(|| format!("can't copy {}", from.display()))?;
        }
        content.place(
            root,
            &format!("usr/lib/postgresql/{major}/lib"),
            &format!("usr/share/postgresql/{major}/extension"),
        )?;
        let control = root.join("DEBIAN");
        fs::create_dir(&control)?;
        fs::write(control.join("control"), self.control(&installed_size(root)?)?)?;
        let package = dir.join(format!("{}_{VERSION}-1_{}.deb", self.name, self.architecture));
        let mut build = Command::new("dpkg-deb");
        shell::output(build.args(["--build", "--root-owner-group", "-Zxz"]).arg(root).arg(&package))?;
        Ok(package)
    }

    fn control(&self, size: &str) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "Package: {}", self.name)?;
        writeln!(text, "Version: {VERSION}-1")?;
        writeln!(text, "Architecture: {}", self.architecture)?;
        writeln!(text, "Maintainer: {MAINTAINER}")?;
        writeln!(text, "Installed-Size: {size}")?;
        write!(text, "{}", self.relations)?;
        writeln!(text, "Section: database\nPriority: optional")?;
        writeln!(text, "Description: {}\n {}", self.summary, self.description)?;
        Ok(text)
    }
}

/// Kibibytes that the files below `root` take.
fn installed_size(root: &Path) -> Result<String> {
    let text =
        shell::output(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1024"]).arg(root))?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
