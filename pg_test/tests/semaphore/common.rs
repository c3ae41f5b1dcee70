//! Acquiring and releasing by a driver, and sessions that wait.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::PATIENCE;
use enough_pg_test::server::{Database, backend, until_waiting};
use postgres::{Client, Error};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// `semaphore_acquire` with these arguments; the token.
pub(crate) fn acquire(client: &mut Client, arguments: &str) -> Result<Option<i64>, Error> {
    Ok(client.query_one(&format!("SELECT enough.semaphore_acquire({arguments})"), &[])?.get(0))
}

/// The same where it must succeed.
pub(crate) fn taken(client: &mut Client, arguments: &str) -> Result<i64> {
    acquire(client, arguments)?.with_context(|| format!("semaphore_acquire({arguments}) got nothing"))
}

pub(crate) fn release(client: &mut Client, name: &str, token: i64) -> Result<bool, Error> {
    Ok(client.query_one("SELECT enough.semaphore_release($1, $2)", &[&name, &token])?.get(0))
}

pub(crate) fn extend(client: &mut Client, name: &str, token: i64, ttl: &str) -> Result<bool, Error> {
    let statement = "SELECT enough.semaphore_extend($1, $2, $3::text::interval)";
    Ok(client.query_one(statement, &[&name, &token, &ttl])?.get(0))
}

/// The tokens of those that hold a name, the earliest first.
pub(crate) fn tokens(client: &mut Client, name: &str) -> Result<Vec<i64>> {
    let rows = client.query("SELECT token FROM enough.semaphore_holders($1) ORDER BY token", &[&name])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A session that waits for a semaphore.
pub(crate) struct Waiter {
    thread: JoinHandle<(Client, Result<Option<i64>, Error>)>,
    pub(crate) pid: u32,
}

impl Waiter {
    /// Begins to wait, and sleeps when this returns.
    pub(crate) fn start(database: &Database, arguments: &str) -> Result<Self> {
        let mut client = database.client()?;
        let pid = backend(&mut client)?;
        let arguments = arguments.to_owned();
        let thread = thread::spawn(move || {
            let outcome = acquire(&mut client, &arguments);
            (client, outcome)
        });
        until_waiting(&mut database.client()?, pid)?;
        Ok(Self { thread, pid })
    }

    pub(crate) fn waits(&self) -> bool {
        !self.thread.is_finished()
    }

    /// What has come of it, and its session. The wait is much longer than the patience, so that only a wake-up ends it.
    pub(crate) fn end(self) -> Result<(Client, Result<Option<i64>, Error>)> {
        let deadline = Instant::now() + PATIENCE;
        while self.waits() {
            ensure!(Instant::now() < deadline, "a session was never woken");
            thread::sleep(Duration::from_millis(5));
        }
        self.thread.join().map_err(|_| anyhow::anyhow!("a waiting session panicked"))
    }

    /// Its token.
    pub(crate) fn token(self) -> Result<i64> {
        self.end()?.1?.context("a wait has ended without a token")
    }
}

/// How many sessions wait, on a server of the test's own.
pub(crate) fn waiters(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT waiters FROM enough.semaphore_stats()", &[])?.get(0))
}
