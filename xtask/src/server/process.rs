//! Signals, and the family of a postmaster's processes.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The kernel's number for a process. Linux's never exceed 2^22.
fn number(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// Sends `signal` to the process `pid`.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    kill(number(pid), signal).with_context(|| format!("can't send {signal} to process {pid}"))
}

/// The children of `pid`.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Kills a postmaster and all of its children, and waits until they are gone: as long as one of them lives, it holds
/// the shared memory and the next start fails.
pub(super) fn kill_family(postmaster: &mut Child) {
    let family = children(postmaster.id());
    // Errors mean that the process is gone, which is what is wanted.
    let _ = postmaster.kill();
    let _ = postmaster.wait();
    for pid in &family {
        let _ = kill(number(*pid), Signal::SIGKILL);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while family.iter().any(|pid| kill(number(*pid), None) != Err(Errno::ESRCH)) && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
}
