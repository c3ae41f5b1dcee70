//! A session that may be lost at any moment.

use crate::ledger::{Ledger, Outcome};
use anyhow::{Context, Result, bail};
use enough_pg_test::check::{PATIENCE, is_lost, state};
use enough_pg_test::server::Database;
use postgres::{Client, Error};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What the workers' sessions are called, so that they are found and hit.
pub(crate) const NAME: &str = "chaos";

/// A connection, and in which life of the server it was made.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) life: String,
}

/// Connects, again and again while the server recovers.
pub(crate) fn connect(database: &Database) -> Result<Session> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match attempt(database) {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(error).context("the server doesn't come back");
        }
        sleep(Duration::from_millis(20));
    }
}

fn attempt(database: &Database) -> Result<Session, Error> {
    let mut client = database.config().clone().application_name(NAME).connect(postgres::NoTls)?;
    // The checkpointer is started anew after each crash, while the postmaster lives on.
    let row = client.query_one(
        "SELECT pid || ' ' || backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer'",
        &[],
    )?;
    Ok(Session { life: row.get(0), client })
}

/// How a turn ended that didn't end well.
pub(crate) enum Broken {
    /// The session is gone.
    Lost,
    /// The server has cancelled a statement; the session goes on.
    Cancelled,
}

/// Tells a lost or cancelled session from what must not happen.
pub(crate) fn broken(error: &Error, ledger: &Ledger) -> Result<Broken> {
    if is_lost(error) {
        ledger.count("connections lost");
        return Ok(Broken::Lost);
    }
    match state(error) {
        "57014" => {
            ledger.count("statements cancelled");
            Ok(Broken::Cancelled)
        }
        // A transaction that has read from a table and then writes to it meets DDL that has locked the table and waits for
        // its index.
        "40P01" => {
            ledger.count("deadlocks with DDL");
            Ok(Broken::Cancelled)
        }
        other => bail!("SQLSTATE {other}: {error:?}"),
    }
}

/// Ends a transaction, and says what is known of it. `None` where the session is lost as well.
pub(crate) fn end(client: &mut Client, commit: bool, ledger: &Ledger) -> Result<(Outcome, Option<Broken>)> {
    let Err(error) = client.batch_execute(if commit { "COMMIT" } else { "ROLLBACK" }) else {
        return Ok((if commit { Outcome::Committed } else { Outcome::RolledBack }, None));
    };
    let broken = broken(&error, ledger)?;
    // A cancel that comes before the commit has begun aborts the transaction; after that it has no effect.
    let outcome = match broken {
        Broken::Lost if commit => Outcome::Unknown,
        Broken::Lost | Broken::Cancelled => Outcome::RolledBack,
    };
    Ok((outcome, Some(broken)))
}

/// A session that can go on: out of any transaction, or a new one.
pub(crate) fn recover(session: &mut Session, mut how: Broken, database: &Database, ledger: &Ledger) -> Result<()> {
    loop {
        match how {
            Broken::Lost => {
                *session = connect(database)?;
                return Ok(());
            }
            Broken::Cancelled => match session.client.batch_execute("ROLLBACK") {
                Ok(()) => return Ok(()),
                Err(error) => how = broken(&error, ledger)?,
            },
        }
    }
}
