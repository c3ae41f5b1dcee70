//! The extension `pgmq`, which gives pgmq's SQL interface on `pg_enough`: its control file and its script, made of the files
//! of `compat/pgmq/`.

use crate::paths;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// The files that make up the script, in their order.
const FILES: [&str; 10] = [
    "tables.sql",
    "names.sql",
    "queues.sql",
    "send.sql",
    "read.sql",
    "grouped.sql",
    "finish.sql",
    "topics.sql",
    "notify.sql",
    "moving.sql",
];

fn source() -> PathBuf {
    paths::workspace().join("compat/pgmq")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

/// Writes both into `dir`, a server's directory of extensions. Refuses where another extension of that name is there.
pub(super) fn write(dir: &Path) -> Result<()> {
    let control = read(&source().join("pgmq.control"))?;
    let place = dir.join("pgmq.control");
    ensure!(
        !place.exists() || read(&place)? == control || read(&place)?.contains("requires = 'pg_enough'"),
        "{} is there already and is pgmq's own: remove that extension from the server first",
        place.display()
    );
    let mut script = String::from("\\echo Use \"CREATE EXTENSION pgmq CASCADE\" to load this file. \\quit\n");
    for file in FILES {
        script.push_str(&read(&source().join("sql").join(file))?);
        script.push('\n');
    }
    let [script_place, _] = places(dir, &control)?;
    for (path, text) in [(script_place, &script), (place, &control)] {
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn places(dir: &Path, control: &str) -> Result<[PathBuf; 2]> {
    Ok([dir.join(format!("pgmq--{}.sql", version(control)?)), dir.join("pgmq.control")])
}

/// The script and the control file in `dir`, where they have been written.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(places(dir, &read(&source().join("pgmq.control"))?)?.to_vec())
}

fn version(control: &str) -> Result<&str> {
    let line = control.lines().find(|line| line.starts_with("default_version"));
    line.and_then(|line| line.split('\'').nth(1)).context("no default_version in pgmq.control")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_script_and_it_is_ascii() -> Result<()> {
        let dir = tempfile::tempdir()?;
        write(dir.path())?;
        // A second time over its own.
        write(dir.path())?;
        let script = read(&dir.path().join("pgmq--1.13.0.sql"))?;
        assert!(script.is_ascii());
        for entry in fs::read_dir(source().join("sql"))? {
            let text = read(&entry?.path())?;
            assert!(script.contains(&text));
        }
        Ok(())
    }

    #[test]
    fn another_extension_of_the_name_is_left_alone() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("pgmq.control"), "comment = 'A lightweight message queue.'\n")?;
        assert!(write(dir.path()).is_err());
        assert!(!dir.path().join("pgmq--1.13.0.sql").exists());
        Ok(())
    }
}
