//! A producer: single messages and batches, at once and delayed, committed and rolled back.

use crate::ledger::{GROUP_OF, Ledger, Outcome};
use crate::session::{Broken, Session, broken, connect, end, recover};
use anyhow::Result;
use enough_pg_test::server::Database;
use fastrand::Rng;
use postgres::{Client, Error};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Payloads of one producer: no two have the same.
pub(crate) const EACH: i64 = 1_000_000_000;

/// Works until `stop`.
pub(crate) fn run(database: &Database, ledger: &Ledger, number: i64, stop: &AtomicBool) -> Result<()> {
    let mut rng = Rng::new();
    let mut session = connect(database)?;
    let mut next = number * EACH;
    while !stop.load(Relaxed) {
        let count = if rng.bool() { 1 } else { rng.i64(1..30) };
        let payloads = next..next + count;
        next += count;
        if let Some(how) = turn(&mut session, &payloads, &mut rng, ledger)? {
            recover(&mut session, how, database, ledger)?;
        }
        // About as fast as the consumers, so that queues run empty and fill.
        std::thread::sleep(std::time::Duration::from_millis(rng.u64(10..150)));
    }
    Ok(())
}

fn turn(session: &mut Session, payloads: &Range<i64>, rng: &mut Rng, ledger: &Ledger) -> Result<Option<Broken>> {
    let client = &mut session.client;
    let commit = rng.u8(0..5) > 0;
    if let Err(error) = client.batch_execute("BEGIN").and_then(|()| send(client, payloads, rng)) {
        ledger.sent(payloads.clone(), Outcome::RolledBack);
        return broken(&error, ledger).map(Some);
    }
    let (outcome, broken) = end(client, commit, ledger)?;
    ledger.sent(payloads.clone(), outcome);
    ledger.count(match outcome {
        Outcome::Committed => "sends committed",
        Outcome::RolledBack => "sends rolled back",
        Outcome::Unknown => "sends of unknown outcome",
    });
    Ok(broken)
}

fn send(client: &mut Client, payloads: &Range<i64>, rng: &mut Rng) -> Result<(), Error> {
    let delay = if rng.u8(0..4) == 0 { format!("{} milliseconds", rng.u32(1..400)) } else { "0".to_owned() };
    let priority = if rng.u8(0..4) == 0 { rng.i32(0..10) } else { 0 };
    if payloads.end - payloads.start == 1 {
        client.execute(
            &format!(
                "SELECT enough.queue_send('q', to_jsonb(n), delay => '{delay}', priority => {priority}, group_key => {GROUP_OF}) \
                 FROM (VALUES ($1::bigint)) AS v(n)"
            ),
            &[&payloads.start],
        )?;
    } else {
        client.execute(
            &format!(
                "SELECT enough.queue_send_batch('q', array_agg(to_jsonb(n) ORDER BY n), delay => '{delay}', priority => {priority}, \
                 group_keys => array_agg({GROUP_OF} ORDER BY n)) FROM generate_series($1::bigint, $2::bigint) AS n"
            ),
            &[&payloads.start, &(payloads.end - 1)],
        )?;
    }
    if rng.u8(0..6) == 0 {
        // Something that a savepoint takes back: a payload that no one may ever get.
        client.batch_execute("SAVEPOINT s; SELECT enough.queue_send('q', '\"taken back\"'); ROLLBACK TO s")?;
    }
    Ok(())
}
