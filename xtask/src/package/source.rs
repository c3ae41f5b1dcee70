//! The source, as PGXN takes it: what git has of the present commit, with `META.json` at its head.

use super::VERSION;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::{paths, shell};

/// Builds the archive into `dir`.
pub(super) fn build(dir: &Path) -> Result<PathBuf> {
    let archive = dir.join(format!("pg_enough-{VERSION}.zip"));
    let mut git = Command::new("git");
    git.args(["archive", "--format=zip", &format!("--prefix=pg_enough-{VERSION}/"), "--output"])
        .arg(&archive)
        .arg("HEAD");
    shell::output(git.current_dir(paths::workspace()))?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_meta_data_is_of_this_version_and_names_what_is_there() -> Result<()> {
        let workspace = paths::workspace();
        let meta: Value = serde_json::from_slice(&std::fs::read(workspace.join("META.json"))?)?;
        // What PGXN's specification demands.
        for field in ["name", "version", "abstract", "maintainer", "license", "provides", "meta-spec"] {
            assert!(!meta[field].is_null(), "no {field}");
        }
        assert_eq!(meta["name"], "pg_enough");
        assert_eq!(meta["version"], VERSION);
        let provided = &meta["provides"]["pg_enough"];
        assert_eq!(provided["version"], VERSION);
        for field in ["file", "docfile"] {
            let file = provided[field].as_str().unwrap_or_default();
            assert!(workspace.join(file).is_file(), "{field}: there is no {file}");
        }
        assert!(workspace.join("Makefile").is_file(), "PGXN's client runs make");
        Ok(())
    }
}
