//! The private copy of a server's files, and the stamp that tells what it was made from.

use crate::shell;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

/// A file or directory of a server, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Where it is.
    pub(super) from: PathBuf,
    /// Where it goes, below the copy.
    pub(super) to: PathBuf,
}

/// Copies `parts` below `usr`, unless the copy there is of the same files, and makes `links` (name and target) in it.
/// Returns whether it copied.
///
/// The stamp beside `usr` lists every file that was copied with its size and time, so any package that adds, removes or
/// replaces one (an extension, an update of the server) makes a new copy due.
pub(super) fn refresh(usr: &Path, parts: &[Part], links: &[(&str, &str)]) -> Result<bool> {
    let wanted = inventory(parts)?;
    let stamp = usr.with_file_name("copied");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(false);
    }
    shell::say(&format!("copying the server to {}", usr.display()));
    if stamp.exists() {
        // From here to the end there is no copy, whatever interrupts this.
        fs::remove_file(&stamp).with_context(|| format!("can't remove {}", stamp.display()))?;
    }
    if usr.exists() {
        fs::remove_dir_all(usr).with_context(|| format!("can't replace {}", usr.display()))?;
    }
    for part in parts {
        let to = usr.join(&part.to);
        let parent = to.parent().context("a part without a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("can't create {}", parent.display()))?;
        // -L: whatever is a link outside must be a file here, because a program finds its installation by resolving its
        // own path.
        shell::run(Command::new("cp").args(["-RLT", "--preserve=mode,timestamps"]).arg(&part.from).arg(&to))?;
    }
    for (name, target) in links {
        symlink(target, usr.join(name)).with_context(|| format!("can't make the link {name} in {}", usr.display()))?;
    }
    fs::write(&stamp, wanted).with_context(|| format!("can't write {}", stamp.display()))?;
    Ok(true)
}

/// Every file of `parts` with its size and the time of its last change, a line each, in order. Links count as what they
/// lead to, as they are copied.
fn inventory(parts: &[Part]) -> Result<String> {
    let mut lines = Vec::new();
    let mut pending: Vec<PathBuf> = parts.iter().map(|part| part.from.clone()).collect();
    while let Some(path) = pending.pop() {
        let metadata = fs::metadata(&path).with_context(|| format!("no server: {} is missing", path.display()))?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).with_context(|| format!("can't read {}", path.display()))? {
                pending.push(entry?.path());
            }
        } else {
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            lines.push(format!("{} {} {}\n", path.display(), metadata.len(), modified.as_nanos()));
        }
    }
    lines.sort_unstable();
    Ok(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    /// A source of two parts, one with a link in it, and where its copy goes.
    fn source() -> Result<(tempfile::TempDir, PathBuf, PathBuf, Vec<Part>)> {
        let dir = tempfile::tempdir()?;
        let (from, usr) = (dir.path().join("from"), dir.path().join("to/usr"));
        fs::create_dir_all(from.join("lib/15/bin"))?;
        fs::create_dir_all(from.join("share/15/extension"))?;
        fs::write(from.join("lib/15/bin/postgres"), "server")?;
        fs::write(from.join("outside"), "linked")?;
        std::os::unix::fs::symlink(from.join("outside"), from.join("share/15/link"))?;
        let parts = ["lib/15", "share/15"].map(|part| Part { from: from.join(part), to: part.into() }).to_vec();
        Ok((dir, from, usr, parts))
    }

    #[test]
    fn a_copy_of_the_same_files_stays() -> Result<()> {
        let (_dir, _from, usr, parts) = source()?;
        assert!(refresh(&usr, &parts, &[])?);
        assert_eq!(fs::read_to_string(usr.join("share/15/link"))?, "linked");
        assert!(!fs::symlink_metadata(usr.join("share/15/link"))?.is_symlink());
        fs::write(usr.join("share/15/extension/pg_enough.control"), "installed here")?;
        assert!(!refresh(&usr, &parts, &[])?);
        assert!(usr.join("share/15/extension/pg_enough.control").exists());
        Ok(())
    }

    #[test]
    fn whatever_is_added_replaced_or_removed_is_copied() -> Result<()> {
        let (_dir, from, usr, parts) = source()?;
        refresh(&usr, &parts, &[])?;
        // Another package brings an extension: the server is the same.
        let control = from.join("share/15/extension/pg_cron.control");
        fs::write(&control, "cron")?;
        assert!(refresh(&usr, &parts, &[])?, "an added file");
        assert!(usr.join("share/15/extension/pg_cron.control").exists());
        // An update of the same size, told by its time alone.
        fs::write(&control, "CRON")?;
        File::options().write(true).open(&control)?.set_modified(SystemTime::now() - Duration::from_hours(1))?;
        assert!(refresh(&usr, &parts, &[])?, "a replaced file");
        assert_eq!(fs::read_to_string(usr.join("share/15/extension/pg_cron.control"))?, "CRON");
        fs::write(from.join("outside"), "linked elsewhere")?;
        assert!(refresh(&usr, &parts, &[])?, "the target of a link");
        fs::remove_file(&control)?;
        assert!(refresh(&usr, &parts, &[])?, "a removed file");
        assert!(!usr.join("share/15/extension/pg_cron.control").exists());
        Ok(())
    }
}
