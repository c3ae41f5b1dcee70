//! A consumer: reads, pops, deletes under its lease, extends, forgets, rolls back.

use crate::ledger::{Ledger, Outcome, now};
use crate::session::{Broken, Session, broken, connect, end, recover};
use anyhow::Result;
use enough_pg_test::queue::{self, Message};
use enough_pg_test::server::Database;
use fastrand::Rng;
use postgres::Error;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How long a lease lasts, in microseconds: short, so that many run out.
const LEASE: i64 = 300_000;

/// Works until `stop`.
pub(crate) fn run(database: &Database, ledger: &Ledger, stop: &AtomicBool) -> Result<()> {
    let mut rng = Rng::new();
    let mut session = connect(database)?;
    while !stop.load(Relaxed) {
        let outcome = match rng.u8(0..10) {
            0..3 => pop(&mut session, &mut rng, ledger),
            3..5 => read_in_transaction(&mut session, &mut rng, ledger),
            _ => read(&mut session, &mut rng, ledger),
        }?;
        if let Some(how) = outcome {
            recover(&mut session, how, database, ledger)?;
        }
    }
    Ok(())
}

/// Works in turns until the queue's table is empty and `ledger` misses nothing.
pub(crate) fn drain(database: &Database, ledger: &Ledger) -> Result<()> {
    let mut session = connect(database)?;
    // What the limits would make wait is to be read in one go.
    session.client.batch_execute("SELECT enough.queue_alter('q', group_limit => 0, group_rate => 0)")?;
    enough_pg_test::check::eventually("the queue is empty", || {
        let asked = now();
        let popped = queue::receive(&mut session.client, "queue_pop('q', 1000, wait => '50 milliseconds')")?;
        for message in &popped {
            ledger.received(message, asked, None, &session.life);
        }
        for message in &popped {
            ledger.deleted(message.msg_id);
        }
        let left: i64 = session.client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
        Ok((left == 0 && ledger.missing() == 0).then_some(()))
    })
    .map_err(|error| error.context(format!("{} messages are missing", ledger.missing())))?;
    let archive = session.client.query("SELECT msg_id, result::bigint FROM enough.a_q", &[])?;
    ledger.judge_archive(&archive.iter().map(|row| (row.get(0), row.get(1))).collect())
}

type Turn = Result<Option<Broken>>;

/// What a lost or cancelled call means for the turn.
fn give_up<T>(outcome: Result<T, Error>, ledger: &Ledger) -> Result<Result<T, Broken>> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(error) => broken(&error, ledger).map(Err),
    }
}

fn wait(rng: &mut Rng) -> &'static str {
    if rng.bool() { "0" } else { "200 milliseconds" }
}

fn pop(session: &mut Session, rng: &mut Rng, ledger: &Ledger) -> Turn {
    let commit = rng.u8(0..4) > 0;
    let asked = now();
    let call = format!("queue_pop('q', {}, wait => '{}')", rng.u8(1..12), wait(rng));
    // In a transaction, so that whatever it deletes has been received before.
    let popped = session.client.batch_execute("BEGIN").and_then(|()| queue::receive(&mut session.client, &call));
    let popped = match give_up(popped, ledger)? {
        Ok(popped) => popped,
        Err(broken) => return Ok(Some(broken)),
    };
    for message in &popped {
        ledger.received(message, asked, None, &session.life);
    }
    let (outcome, broken) = end(&mut session.client, commit, ledger)?;
    if outcome == Outcome::Committed {
        for message in &popped {
            ledger.deleted(message.msg_id);
        }
        ledger.count("pops");
    }
    Ok(broken)
}

fn receive(session: &mut Session, rng: &mut Rng, ledger: &Ledger) -> Result<Result<Vec<Message>, Broken>> {
    let asked = now();
    let call = format!("queue_read('q', {}, '{LEASE} microseconds', wait => '{}')", rng.u8(1..12), wait(rng));
    let outcome = give_up(queue::receive(&mut session.client, &call), ledger)?;
    if let Ok(messages) = &outcome {
        for message in messages {
            ledger.received(message, asked, Some(LEASE), &session.life);
        }
    }
    Ok(outcome)
}

/// Reading with a commit of its own: the lease stands whatever comes then.
fn read(session: &mut Session, rng: &mut Rng, ledger: &Ledger) -> Turn {
    let messages = match receive(session, rng, ledger)? {
        Ok(messages) => messages,
        Err(broken) => return Ok(Some(broken)),
    };
    for message in messages {
        let broken = match rng.u8(0..12) {
            // Forgotten: its lease runs out.
            0 => None,
            1 => give_back(session, &message, ledger)?,
            2 => {
                let broken = extend(session, &message, ledger)?;
                if broken.is_some() { broken } else { delete(session, &message, rng, ledger)? }
            }
            // Too late, maybe: then the fence must hold.
            4 => archive(session, &message, rng, ledger)?,
            3 => {
                std::thread::sleep(std::time::Duration::from_micros(rng.u64(0..400_000)));
                delete(session, &message, rng, ledger)?
            }
            _ => delete(session, &message, rng, ledger)?,
        };
        if broken.is_some() {
            return Ok(broken);
        }
    }
    Ok(None)
}

fn delete(session: &mut Session, message: &Message, rng: &mut Rng, ledger: &Ledger) -> Turn {
    let commit = rng.u8(0..6) > 0;
    let client = &mut session.client;
    let deleted =
        client.batch_execute("BEGIN").and_then(|()| queue::delete(client, "q", message.msg_id, message.lease));
    let deleted = match give_up(deleted, ledger)? {
        Ok(deleted) => deleted,
        Err(broken) => return Ok(Some(broken)),
    };
    ledger.ending(message.msg_id, message.lease);
    let (outcome, broken) = end(client, commit, ledger)?;
    if outcome == Outcome::Committed && deleted {
        ledger.deleted(message.msg_id);
    }
    ledger.count(match (outcome, deleted) {
        (_, false) => "deletes fenced off",
        (Outcome::Committed, true) => "deletes",
        (Outcome::RolledBack, true) => "deletes rolled back",
        (Outcome::Unknown, true) => "deletes of unknown outcome",
    });
    Ok(broken)
}

/// The end with a result, which is the payload.
fn archive(session: &mut Session, message: &Message, rng: &mut Rng, ledger: &Ledger) -> Turn {
    let commit = rng.u8(0..6) > 0;
    let client = &mut session.client;
    let call = "SELECT enough.queue_archive('q', $1, $2, $3)";
    let archived = client
        .batch_execute("BEGIN")
        .and_then(|()| client.query_one(call, &[&message.msg_id, &message.message, &message.lease]));
    let archived: bool = match give_up(archived, ledger)? {
        Ok(row) => row.get(0),
        Err(broken) => return Ok(Some(broken)),
    };
    ledger.ending(message.msg_id, message.lease);
    let (outcome, broken) = end(client, commit, ledger)?;
    if outcome == Outcome::Committed && archived {
        ledger.deleted(message.msg_id);
        if let Some(result) = message.message.as_i64() {
            ledger.archived(message.msg_id, result);
        }
        ledger.count("messages archived");
    }
    Ok(broken)
}

fn extend(session: &mut Session, message: &Message, ledger: &Ledger) -> Turn {
    let asked = session.client.query_one(
        "SELECT (EXTRACT(EPOCH FROM enough.queue_extend('q', $1, '500 milliseconds', $2)) * 1000000)::bigint",
        &[&message.msg_id, &message.lease],
    );
    match give_up(asked, ledger)? {
        Ok(row) => {
            if let Some(until) = row.get(0) {
                ledger.extended(message.msg_id, message.lease, until);
                ledger.count("leases extended");
            }
            Ok(None)
        }
        // It may have been extended, which claims nothing.
        Err(broken) => Ok(Some(broken)),
    }
}

fn give_back(session: &mut Session, message: &Message, ledger: &Ledger) -> Turn {
    ledger.releasing(message.msg_id, message.lease, now());
    let outcome =
        session.client.execute("SELECT enough.queue_extend('q', $1, '0', $2)", &[&message.msg_id, &message.lease]);
    ledger.count("leases given back");
    Ok(give_up(outcome, ledger)?.err())
}

/// Reading and deleting in one transaction, which may roll back: then all of it is given back.
fn read_in_transaction(session: &mut Session, rng: &mut Rng, ledger: &Ledger) -> Turn {
    let commit = rng.u8(0..3) > 0;
    let begun = session.client.batch_execute("BEGIN");
    if let Err(broken) = give_up(begun, ledger)? {
        return Ok(Some(broken));
    }
    let messages = match receive(session, rng, ledger)? {
        Ok(messages) => messages,
        Err(broken) => return Ok(Some(broken)),
    };
    let mut deleted = Vec::new();
    for message in &messages {
        // An error from here on rolls everything back.
        let outcome = queue::delete(&mut session.client, "q", message.msg_id, message.lease);
        match give_up(outcome, ledger)? {
            Ok(true) => deleted.push(message.msg_id),
            Ok(false) => ledger.count("deletes fenced off"),
            Err(broken) => {
                // The server may have rolled back some time before this was heard.
                for message in &messages {
                    ledger.releasing(message.msg_id, message.lease, 0);
                }
                return Ok(Some(broken));
            }
        }
    }
    for msg_id in &deleted {
        let lease = messages.iter().find(|message| message.msg_id == *msg_id).and_then(|message| message.lease);
        ledger.ending(*msg_id, lease);
    }
    if !commit {
        let at = now();
        for message in &messages {
            ledger.releasing(message.msg_id, message.lease, at);
        }
    }
    let (outcome, broken) = end(&mut session.client, commit, ledger)?;
    if outcome == Outcome::Committed {
        for msg_id in &deleted {
            ledger.deleted(*msg_id);
        }
        ledger.count("transactions of a read and deletes");
    } else if commit {
        for message in &messages {
            ledger.releasing(message.msg_id, message.lease, 0);
        }
    }
    Ok(broken)
}
