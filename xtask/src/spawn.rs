//! Starting processes that must not outlive this one.
//!
//! The kernel's parent-death signal is sent when the *thread* that started the process ends, and every test runs in a
//! thread of its own. So one thread that lives as long as this process starts them all.

use anyhow::{Context, Result};
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex, mpsc};
use std::thread;

/// A command to start, and where the child goes.
type Request = (Command, mpsc::Sender<std::io::Result<Child>>);

static SPAWNER: LazyLock<Mutex<mpsc::Sender<Request>>> = LazyLock::new(|| {
    let (sender, requests) = mpsc::channel::<Request>();
    thread::spawn(move || {
        for (mut command, reply) in requests {
            // A caller that is gone has no use for the answer; its child ends with this process.
            let _ = reply.send(command.spawn());
        }
    });
    Mutex::new(sender)
});

/// Starts `command` from the thread that lives as long as this process.
pub fn spawn(command: Command) -> Result<Child> {
    let name = crate::shell::line(&command);
    let (reply, answer) = mpsc::channel();
    let sender = SPAWNER.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    sender.send((command, reply)).context("the thread that starts processes is gone")?;
    let child = answer.recv().context("the thread that starts processes is gone")?;
    child.with_context(|| format!("can't start `{name}`"))
}
