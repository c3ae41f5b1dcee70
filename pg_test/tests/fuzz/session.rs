//! A session that calls whatever its seed says, and goes on whatever the answer.

use crate::arguments::{Remembered, pick};
use crate::calls::{Function, around, statement};
use crate::findings::{Answers, Findings};
use anyhow::{Context, Result, bail};
use enough_pg_test::check::{PATIENCE, is_lost, state};
use enough_pg_test::server::Database;
use enough_pg_test::vanish;
use fastrand::Rng;
use postgres::{Client, NoTls, SimpleQueryMessage};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What the sessions are called, so that they are found and hit.
pub(crate) const NAME: &str = "fuzz";

/// How long a statement may take by the server's own clock.
const STATEMENT_TIMEOUT: &str = "2s";

/// How often a session is asked for its last answer.
const ANSWERS: usize = 10;

/// Connects, again and again while the server restarts.
pub(crate) fn connect(database: &Database, role: &str) -> Result<Client> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let options = format!("-c statement_timeout={STATEMENT_TIMEOUT}");
        let config = database.config().clone().user(role).application_name(NAME).options(&options).connect(NoTls);
        match config {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() > deadline => return Err(error).context("the server doesn't come back"),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}

/// What all sessions of a round have.
pub(crate) struct Surroundings<'a> {
    pub(crate) database: &'a Database,
    pub(crate) functions: &'a [Function],
    pub(crate) findings: &'a Findings,
    pub(crate) answers: &'a Answers,
    pub(crate) seed: u64,
}

/// Executes `statements` statements; those of the session `number`.
pub(crate) fn run(around_it: &Surroundings<'_>, number: u64, statements: usize) -> Result<()> {
    let mut rng = Rng::with_seed(around_it.seed.wrapping_mul(1000) + number);
    // One of the four may do only what it was granted.
    let role = if number == 3 { "fuzz_app" } else { "postgres" };
    let mut client = connect(around_it.database, role)?;
    let mut remembered = Remembered::default();
    for _ in 0..statements {
        let calls = rng.u8(..5) > 0;
        let text = if calls { statement(&mut rng, around_it.functions, remembered) } else { around(&mut rng) };
        let outcome = client.simple_query(&text);
        if calls {
            around_it.answers.count(outcome.as_ref().err().map_or("", |error| state(error)));
        }
        match outcome {
            Ok(answer) => remember(&answer, &mut remembered),
            Err(error) => {
                around_it.findings.judge(&error, &text, around_it.seed, true);
                if is_lost(&error) {
                    client = connect(around_it.database, role)?;
                } else if rng.u8(..4) > 0 {
                    // Not always at once: what is called in a transaction that has failed matters, too.
                    end(&mut client);
                }
            }
        }
    }
    end(&mut client);
    // A session that was ended by somebody else is no finding, nor is an answer that was cancelled; one that doesn't come is.
    let mut last = None;
    for _ in 0..ANSWERS {
        match client.simple_query("RESET statement_timeout; SELECT 1") {
            Err(error) if !is_lost(&error) => last = Some(error),
            _ => return Ok(()),
        }
    }
    bail!("the session doesn't answer after its last statement: {last:?}")
}

fn end(client: &mut Client) {
    // The session may be lost; the next statement sees that.
    let _ = client.simple_query("ROLLBACK");
}

/// Keeps the last message that a call has returned.
fn remember(answer: &[SimpleQueryMessage], remembered: &mut Remembered) {
    for message in answer {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let number = |name: &str| row.try_get(name).ok().flatten().and_then(|text| text.parse().ok());
        if let Some(msg_id) = number("msg_id") {
            *remembered = Remembered { msg_id, lease: number("lease").unwrap_or_default() };
        }
    }
}

/// A client that sends a call and is gone before the answer comes.
pub(crate) fn vanish(database: &Database, rng: &mut Rng) -> Result<()> {
    let call = pick(
        rng,
        &[
            "SELECT enough.queue_read('a', 5, wait => '1 s')",
            "SELECT enough.queue_pop('b', 5, wait => '1 s')",
            "BEGIN; SELECT enough.queue_pop('a', 5); SELECT pg_sleep(0.2)",
            "SELECT enough.cache_fetch('k1', '1 s', 'SELECT pg_sleep(0.2)')",
            "SELECT enough.queue_send('c', '1') FROM generate_series(1, 1000)",
            "SELECT enough.maintain()",
        ],
    );
    vanish::vanish(database, NAME, call, Duration::from_millis(rng.u64(5..150)))
}
