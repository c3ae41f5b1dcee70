//! Crashing a private server, and waiting until it has recovered.

use super::{POLL, START_TIMEOUT, Server, process};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::thread::sleep;
use std::time::Instant;

impl Server {
    /// Kills the backend `pid` with SIGKILL, upon which the postmaster ends all others and recovers.
    /// [`Server::wait_until_up`] waits for that. An error if `pid` isn't a process of this server.
    pub fn backend_kill9(&self, pid: u32) -> Result<()> {
        ensure!(process::children(self.pid()?).contains(&pid), "process {pid} isn't a backend of this server");
        let before = self.log().len();
        process::signal(pid, Signal::SIGKILL)?;
        self.killed_at.set(Some(before));
        Ok(())
    }

    /// Lets one of its processes stand still; it can still be killed.
    pub fn pause(&self, pid: u32) -> Result<()> {
        ensure!(process::children(self.pid()?).contains(&pid), "process {pid} isn't one of this server's");
        process::signal(pid, Signal::SIGSTOP)
    }

    /// Waits until the server accepts connections: after [`Server::backend_kill9`], only once it has gone down for
    /// recovery and come back.
    pub fn wait_until_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        if let Some(before) = self.killed_at.take() {
            loop {
                let log = self.log();
                let since = log.get(before..).unwrap_or_default();
                let down = since.find("all server processes terminated; reinitializing");
                if down.is_some_and(|at| since[at..].contains("ready to accept")) {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("the server didn't recover; the end of its log:\n{}", self.log_end());
                }
                sleep(POLL);
            }
        }
        self.wait_for_connection(deadline.saturating_duration_since(Instant::now()))
    }

    /// Kills the postmaster and all of its processes with SIGKILL, as if the machine had lost power (but for what the
    /// kernel has already in its cache). [`Server::launch`] starts it again.
    pub fn crash(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server is stopped")?;
        process::kill_family(&mut child);
        Ok(())
    }
}
