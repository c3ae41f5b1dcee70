//! Rounds until the time is over.

use crate::findings::{Answers, Findings};
use crate::round::{self, Done};
use anyhow::{Context, Result, ensure};
use enough_pg_test::server;
use std::time::{Duration, Instant};

/// How long the test goes on where `ENOUGH_FUZZ_SECONDS` doesn't say.
const SECONDS: u64 = 20;

/// The seed of the first round.
const FIRST: u64 = 1;

fn variable(name: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    Ok(Some(text.parse().with_context(|| format!("{name} isn't a number"))?))
}

#[test]
fn nothing_that_is_called_meanwhile_harms_the_server() -> Result<()> {
    let length = Duration::from_secs(variable("ENOUGH_FUZZ_SECONDS")?.unwrap_or(SECONDS));
    let seed = variable("ENOUGH_FUZZ_SEED")?;
    let options = server::options()?
        .conf("max_prepared_transactions", "50")
        .conf("deadlock_timeout", "100ms")
        .conf("log_min_messages", "warning")
        .conf("max_wal_size", "2GB")
        .conf("autovacuum_naptime", "1s")
        // What is told to clients mustn't depend on it.
        .env("RUST_BACKTRACE", "1");
    let mut server = server::start(&options)?;
    server.client()?.batch_execute("CREATE ROLE fuzz_app LOGIN")?;
    let (findings, answers) = (Findings::default(), Answers::default());
    let end = Instant::now() + length;
    let mut total = Done::default();
    let mut rounds = 0;
    let mut next = seed.or(variable("ENOUGH_FUZZ_FROM")?).unwrap_or(FIRST);
    loop {
        let done = round::run(&mut server, next, &findings, &answers)
            .with_context(|| format!("in the round of seed {next}"))?;
        total = Done { ddl: total.ddl + done.ddl, hits: total.hits + done.hits };
        rounds += 1;
        next += 1;
        if seed.is_some() || Instant::now() > end {
            break;
        }
    }
    println!("{rounds} rounds: {total:?}, calls by SQLSTATE: {answers}");
    let report = findings.report();
    ensure!(report.is_empty(), "again: ENOUGH_FUZZ_SEED=<seed>\n{report}");
    let (calls, succeeded) = answers.total();
    ensure!(succeeded * 4 > calls && total.ddl > 5 * rounds && total.hits > rounds, "too little happened: {total:?}");
    Ok(())
}
