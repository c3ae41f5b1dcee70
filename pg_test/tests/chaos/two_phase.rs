//! Prepared transactions: messages sent and ended in them, which another statement decides, after a while and maybe in another life of the
//! server. Until then nobody may get what they have ended.

use crate::ledger::{GROUP_OF, Ledger, Outcome, now};
use crate::producer::EACH;
use crate::session::{Broken, Session, broken, connect, recover};
use anyhow::Result;
use enough_pg_test::check::state;
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use fastrand::Rng;
use postgres::Error;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

/// How long a lease lasts, in microseconds.
const LEASE: i64 = 300_000;

/// What is in a transaction that is to be prepared.
#[derive(Default)]
struct Work {
    sent: Vec<i64>,
    /// Messages, each with its lease.
    ended: Vec<(i64, Option<i64>)>,
}

/// Works until `stop`, and then decides what is left.
pub(crate) fn run(database: &Database, ledger: &Ledger, number: i64, stop: &AtomicBool) -> Result<()> {
    let mut rng = Rng::new();
    let mut session = connect(database)?;
    let mut next = number * EACH;
    while !stop.load(Relaxed) {
        // One at a time: a second one might wait for DDL that waits for the first.
        let gid = format!("chaos_{next}");
        let (mut work, commit) = (Work::default(), rng.u8(0..3) > 0);
        let prepared = begin(&mut session, &mut rng, &mut next, ledger, &mut work)
            .and_then(|()| session.client.batch_execute(&format!("PREPARE TRANSACTION '{gid}'")));
        if let Err(error) = prepared {
            if state(&error) == "0A000" {
                ledger.count("transactions for which there was no room");
                ledger.sent(work.sent.iter().copied(), Outcome::RolledBack);
                continue;
            }
            let how = broken(&error, ledger)?;
            // It may be prepared all the same, where the session was lost.
            let outcome = if matches!(how, Broken::Lost) { Outcome::Unknown } else { Outcome::RolledBack };
            ledger.sent(work.sent.iter().copied(), outcome);
            recover(&mut session, how, database, ledger)?;
            if outcome == Outcome::Unknown {
                release(&work, 0, ledger);
                decide(&mut session, &gid, false, database, ledger)?;
            }
            continue;
        }
        // From now on nobody gets what it has ended.
        for (msg_id, _) in &work.ended {
            ledger.held(*msg_id);
        }
        sleep(Duration::from_millis(rng.u64(..300)));
        if !commit {
            release(&work, now(), ledger);
        }
        decide(&mut session, &gid, commit, database, ledger)?;
        ledger.sent(work.sent, if commit { Outcome::Committed } else { Outcome::RolledBack });
        ledger.count(if commit { "prepared and committed" } else { "prepared and rolled back" });
    }
    Ok(())
}

/// What the transaction has ended may be delivered from now on, if it was held, and its leases may be over since `at`.
fn release(work: &Work, at: i64, ledger: &Ledger) {
    for (msg_id, lease) in &work.ended {
        ledger.releasing(*msg_id, *lease, at);
        ledger.let_go(*msg_id);
    }
}

fn begin(session: &mut Session, rng: &mut Rng, next: &mut i64, ledger: &Ledger, work: &mut Work) -> Result<(), Error> {
    let client = &mut session.client;
    client.batch_execute("BEGIN")?;
    let asked = now();
    let qty = rng.u8(1..8);
    if rng.bool() {
        let popped = queue::receive(client, &format!("queue_pop('q', {qty})"))?;
        for message in &popped {
            ledger.received(message, asked, None, &session.life);
            work.ended.push((message.msg_id, None));
        }
    } else {
        let read = queue::receive(client, &format!("queue_read('q', {qty}, '{LEASE} microseconds')"))?;
        for message in &read {
            ledger.received(message, asked, Some(LEASE), &session.life);
            // Whatever comes, its end is not this session's to know.
            ledger.releasing(message.msg_id, message.lease, 0);
            if queue::delete(client, "q", message.msg_id, message.lease)? {
                work.ended.push((message.msg_id, message.lease));
            }
        }
    }
    for _ in 0..rng.u8(..4) {
        *next += 1;
        work.sent.push(*next);
        let send = format!(
            "SELECT enough.queue_send('q', to_jsonb(n), group_key => {GROUP_OF}) FROM (VALUES ($1::bigint)) AS v(n)"
        );
        client.execute(&send, &[&*next])?;
    }
    *next += 1;
    Ok(())
}

/// Decides a transaction, in whatever session there is, until it is decided.
pub(crate) fn decide(
    session: &mut Session,
    gid: &str,
    commit: bool,
    database: &Database,
    ledger: &Ledger,
) -> Result<()> {
    let how = if commit { "COMMIT" } else { "ROLLBACK" };
    loop {
        let Err(error) = session.client.batch_execute(&format!("{how} PREPARED '{gid}'")) else { return Ok(()) };
        match state(&error) {
            // It was decided by the last attempt, or not prepared.
            "42704" => return Ok(()),
            // The session that was lost still has it in hand.
            "55000" => sleep(Duration::from_millis(5)),
            _ => recover(session, broken(&error, ledger)?, database, ledger)?,
        }
    }
}
