//! Removing the files of clusters whose owner was killed: the kernel ends the server, but nobody is left to clean up.
//!
//! A cluster's directory carries the number of the process that made it. It is left over when that process is gone
//! and no postmaster runs in it (a server that was left running on purpose has one).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Once;

const PREFIX: &str = "enough-";

/// How the names of this process's clusters begin.
pub(super) fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Removes what is left over in `runs`, once in a process's life.
pub(super) fn sweep(runs: &Path) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let entries = fs::read_dir(runs).into_iter().flatten().flatten();
        for dir in entries.map(|entry| entry.path()).filter(|dir| is_left_over(dir)) {
            // Somebody else may be sweeping too.
            let _ = fs::remove_dir_all(dir);
        }
    });
}

fn is_left_over(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
    let owner = name.and_then(|name| name.split_once('-')).and_then(|(pid, _)| pid.parse::<u32>().ok());
    let Some(owner) = owner else { return false };
    // Where everybody may make files, only a directory with a cluster's inside is taken for one.
    let is_cluster = fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.is_dir() && metadata.mode() & 0o022 == 0)
        && dir.join("s").is_dir();
    let postmaster = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap_or_default();
    let postmaster = postmaster.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
    is_cluster && !is_running(owner) && !postmaster.is_some_and(is_running)
}

fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
