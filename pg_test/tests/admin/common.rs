//! What these tests share.

use anyhow::Result;
use enough_pg_test::check::eventually;
use enough_pg_test::server::{Database, backend};
use postgres::{Client, Error};
use std::thread::JoinHandle;

/// A call in a session of its own.
pub struct Call {
    thread: JoinHandle<Result<u64, Error>>,
    pid: i32,
}

impl Call {
    /// Starts `statement` as `role` and returns when it has ended or waits for a lock.
    pub fn start(database: &Database, role: &str, statement: &str) -> Result<Self> {
        let mut client = database.client_as(role)?;
        let pid = i32::try_from(backend(&mut client)?)?;
        let statement = statement.to_owned();
        let thread = std::thread::spawn(move || client.execute(&statement, &[]));
        let call = Self { thread, pid };
        let mut observer = database.client()?;
        eventually("the call waits for a lock, or ends", || {
            Ok((call.thread.is_finished() || call.waits(&mut observer)?).then_some(()))
        })?;
        Ok(call)
    }

    /// Whether it waits for a lock.
    pub fn waits(&self, observer: &mut Client) -> Result<bool> {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        Ok(observer.query_one(sql, &[&self.pid])?.get::<_, i64>(0) > 0)
    }

    /// What it came to: how many rows, or the error.
    pub fn outcome(self) -> Result<u64, Error> {
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
