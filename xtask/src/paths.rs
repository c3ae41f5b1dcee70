//! The places in the file system that tasks use.
//!
//! Each can be moved by an environment variable: `CARGO_TARGET_DIR` (what is built), `ENOUGH_CACHE` (what outlives a
//! clone: the roots of other Debian releases) and `ENOUGH_RUN` (clusters, on a short path because a socket's path is
//! limited to 107 bytes).

use crate::account::Account;
use anyhow::{Context, Result};
use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The workspace's root: the clone that this was compiled in.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// What is kept across clones.
pub fn cache() -> PathBuf {
    env::var_os("ENOUGH_CACHE").map_or_else(|| PathBuf::from("/var/cache/pg_enough"), PathBuf::from)
}

/// Where clusters are made.
pub fn runs() -> PathBuf {
    env::var_os("ENOUGH_RUN").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

/// Cargo's home, where `cargo install` puts its programs.
pub fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cargo"),
        PathBuf::from,
    )
}

/// A directory for private installations that `account` can reach: below the target directory, or, where the clone
/// lies in a home that is closed to others, below `/var/tmp`.
pub fn installations(account: &Account) -> Result<PathBuf> {
    let target = target();
    std::fs::create_dir_all(&target).with_context(|| format!("can't create {}", target.display()))?;
    if reachable(&target, account) {
        return Ok(target);
    }
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    let own = nix::unistd::geteuid().as_raw();
    let dir = PathBuf::from(format!("/var/tmp/pg_enough-{own}-{:016x}", hasher.finish()));
    std::fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let metadata = std::fs::symlink_metadata(&dir)?;
    // Anybody may create names in /var/tmp, so what is there already is only trusted if it is ours.
    anyhow::ensure!(metadata.is_dir() && metadata.uid() == own, "{} belongs to somebody else", dir.display());
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Whether `account` may enter `path` and each directory above it.
fn reachable(path: &Path, account: &Account) -> bool {
    path.ancestors().all(|dir| {
        std::fs::metadata(dir).is_ok_and(|metadata| {
            let needed = if metadata.uid() == account.uid { 0o100 } else { 0o001 };
            metadata.mode() & needed != 0
        })
    })
}
