//! A candidate that is a statement in one session: what a call costs inside the server, without the protocol.
//!
//! The statement calls a function many times with changing arguments; what the loop around it costs is the same for
//! both sides and falls out of the difference. Time is the backend's own on a processor, as the kernel counts it, so
//! that being interrupted by others doesn't count; a lone session has nobody to wait for. Where the kernel doesn't
//! count, it is the time on the wall.

use crate::comparison::Candidate;
use crate::fixture::Fixture;
use anyhow::{Context, Result};
use postgres::Client;
use std::fs;
use std::time::{Duration, Instant};

/// How often a warm-up runs the statement.
const WARM_UPS: usize = 2;

/// A session with a statement to repeat.
pub struct Inside {
    name: String,
    client: Client,
    /// The server process of the session.
    backend: i32,
    statement: String,
    calls: u32,
    repeats: u32,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inside").field("name", &self.name).field("statement", &self.statement).finish_non_exhaustive()
    }
}

impl Inside {
    /// A session that runs `statement`, which makes `calls` calls, `repeats` times in a round.
    pub fn new(fixture: &Fixture, name: &str, statement: &str, calls: u32, repeats: u32) -> Result<Self> {
        let mut client = fixture.client()?;
        let backend = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        Ok(Self { name: name.to_owned(), client, backend, statement: statement.to_owned(), calls, repeats })
    }

    /// Runs the statement `repeats` times; the time spent, in µs.
    fn run(&mut self, repeats: u32) -> Result<f64> {
        let (counted, began) = (processor_time(self.backend), Instant::now());
        for _ in 0..repeats {
            self.client.simple_query(&self.statement)?;
        }
        let wall = began.elapsed();
        let spent = match (counted, processor_time(self.backend)) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => wall,
        };
        Ok(spent.as_secs_f64() * 1e6)
    }
}

/// What process `pid` has spent on a processor.
fn processor_time(pid: i32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Whether the kernel counts each process's time.
pub fn counts_processor_time() -> bool {
    i32::try_from(std::process::id()).ok().and_then(processor_time).is_some_and(|time| !time.is_zero())
}

impl Candidate for Inside {
    fn name(&self) -> &str {
        &self.name
    }

    /// µs a call.
    fn round(&mut self) -> Result<f64> {
        let spent = self.run(self.repeats).context("a session's statement failed")?;
        Ok(spent / f64::from(self.calls) / f64::from(self.repeats))
    }

    fn warm_up(&mut self) -> Result<()> {
        (0..WARM_UPS).try_for_each(|_| self.run(1).map(drop))
    }
}
