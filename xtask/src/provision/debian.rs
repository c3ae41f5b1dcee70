//! Debian's packages on this machine.

use crate::shell::{self, as_root, say};
use anyhow::{Context, Result};
use std::process::Command;

/// Ensures that `packages` are installed; asks for root only when some are missing.
pub fn ensure_packages(packages: &[String]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let purpose = format!("install Debian's {names}");
    shell::timed(&format!("installing {names}"), || {
        if install(&missing, &purpose).is_ok() {
            return Ok(());
        }
        // The usual reason for a failure: lists that are absent, or so old that the mirror has moved on.
        update()?;
        install(&missing, &purpose)
    })
}

/// Ensures that apt's package lists are there.
pub fn ensure_package_lists() -> Result<()> {
    let known = shell::output(Command::new("apt-cache").arg("stats"))?;
    let total = known.lines().find_map(|line| line.trim().strip_prefix("Total package names:"));
    let total = total.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    // A machine without lists still knows the packages that are installed, some hundreds to a few thousand.
    let listed = std::fs::read_dir("/var/lib/apt/lists").is_ok_and(|mut dir| {
        dir.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
    });
    if listed && total.is_some_and(|total| total > 0) {
        return Ok(());
    }
    update()
}

/// Which of `packages` are not installed.
fn missing(packages: &[String]) -> Result<Vec<String>> {
    // dpkg-query fails when it doesn't know a name; what it prints is what counts.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\\n"])
        .args(packages)
        .output()
        .context("can't start dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let there = |name: &str| text.lines().any(|line| line.strip_prefix(name) == Some(" installed"));
    Ok(packages.iter().filter(|name| !there(name)).cloned().collect())
}

fn install(packages: &[String], purpose: &str) -> Result<()> {
    let mut command = as_root("env", purpose)?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "--no-install-recommends", "install"]);
    shell::quiet("apt-install", command.args(packages))
}

fn update() -> Result<()> {
    say("fetching the package lists");
    shell::quiet("apt-update", as_root("apt-get", "fetch Debian's package lists")?.args(["-qq", "update"]))
}
