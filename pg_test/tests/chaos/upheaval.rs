//! What people do to queues that are in use: DDL on the busy one, and another one that is dropped and made again.

use crate::ledger::Ledger;
use crate::session::{Session, broken, connect, recover};
use crate::values;
use anyhow::{Result, bail};
use enough_pg_test::check::{is_lost, state};
use enough_pg_test::server::Database;
use enough_pg_test::vanish;
use fastrand::Rng;
use postgres::{Client, Error};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

/// Statements on the queue `q` that must not lose, delay for good or repeat a message of it.
const HARMLESS: &[&str] = &[
    "SELECT enough.queue_alter('q', retry_backoff => '10 milliseconds')",
    "SELECT enough.queue_alter('q', max_in_flight => 7)",
    "SELECT enough.queue_alter('q', max_in_flight => 0)",
    "SELECT enough.queue_alter('q', max_rate => 200)",
    "SELECT enough.queue_alter('q', max_rate => 0)",
    // Never more than the ledger knows of.
    "SELECT enough.queue_alter('q', group_limit => 1)",
    "SELECT enough.queue_alter('q', group_limit => 2)",
    "SELECT enough.queue_alter('q', group_rate => 20)",
    "SELECT enough.queue_alter('q', group_rate => 30)",
    "SELECT enough.queue_pause('q'); SELECT pg_sleep(0.02); SELECT enough.queue_resume('q')",
    "SELECT enough.maintain('1 second')",
    "ALTER TABLE enough.q_q ADD COLUMN extra int DEFAULT 5",
    "ALTER TABLE enough.q_q DROP COLUMN IF EXISTS extra",
    "ALTER TABLE enough.q_q ADD CONSTRAINT odd CHECK (attempts >= 0)",
    "ALTER TABLE enough.q_q DROP CONSTRAINT IF EXISTS odd",
    "CREATE INDEX other ON enough.q_q (enqueued_at)",
    "DROP INDEX IF EXISTS enough.other",
    "CREATE OR REPLACE TRIGGER seen AFTER INSERT OR DELETE ON enough.q_q FOR EACH ROW EXECUTE FUNCTION seen()",
    "DROP TRIGGER IF EXISTS seen ON enough.q_q",
    "ALTER TABLE enough.q_q ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE enough.q_q DISABLE ROW LEVEL SECURITY",
    "VACUUM FULL enough.q_q",
    "CLUSTER enough.q_q USING i_q_key",
    "REINDEX TABLE enough.q_q",
    "VACUUM enough.q_q",
    "BEGIN; ALTER TABLE enough.q_q RENAME TO elsewhere; ALTER TABLE enough.elsewhere RENAME TO q_q; COMMIT",
    "BEGIN; LOCK TABLE enough.q_q; SELECT pg_sleep(0.03); ROLLBACK",
    "BEGIN; TRUNCATE enough.q_q; SELECT pg_sleep(0.01); ROLLBACK",
    "BEGIN; SELECT enough.queue_drop('q'); SELECT pg_sleep(0.01); ROLLBACK",
];

/// What [`HARMLESS`] needs.
pub(crate) const NEEDED: &str = "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";

/// What clients ask for that are killed then. None commits what it takes.
const LAST_WORDS: &[&str] = &[
    "BEGIN; SELECT enough.queue_pop('q', 5, wait => '500 milliseconds'); SELECT pg_sleep(0.3)",
    "BEGIN; SELECT enough.queue_read('q', 5); SELECT pg_sleep(0.3)",
    "SELECT enough.queue_read('q', 5, '300 milliseconds', wait => '500 milliseconds')",
    "BEGIN; SELECT enough.queue_send('q', '\"never committed\"'); SELECT pg_sleep(0.3)",
];

/// Does one of them, or lets a client vanish.
pub(crate) fn strike(session: &mut Session, database: &Database, rng: &mut Rng, ledger: &Ledger) -> Result<()> {
    if rng.u8(..3) == 0 {
        let patience = Duration::from_millis(rng.u64(1..60));
        // While the server restarts it can't be reached.
        if vanish::vanish(database, "killed", LAST_WORDS[rng.usize(..LAST_WORDS.len())], patience).is_ok() {
            ledger.count("clients killed");
        }
        return Ok(());
    }
    let harmless = if rng.bool() { HARMLESS } else { values::HARMLESS };
    let statement = harmless[rng.usize(..harmless.len())];
    // Each by itself: VACUUM wants no transaction around it.
    for text in statement.split("; ") {
        let Err(error) = session.client.batch_execute(text) else { continue };
        // A column or an index that is there already, or waiting that another's lock made too long.
        if matches!(state(&error), "42701" | "42710" | "42P07" | "40P01" | "25P02") {
            session.client.batch_execute("ROLLBACK").ok();
            ledger.count("DDL refused");
            return Ok(());
        }
        let how = broken(&error, ledger)?;
        return recover(session, how, database, ledger);
    }
    ledger.count("DDL");
    Ok(())
}

/// The queue that is dropped and made again: no one may get a message of one that is gone.
#[derive(Default)]
pub(crate) struct Reborn {
    /// A moment before the queue that is there now was visible to anybody, in microseconds since the Unix epoch by the
    /// server's clock.
    born: AtomicI64,
}

/// The server's clock.
const CLOCK: &str = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint";

impl Reborn {
    /// Drops it and makes it again until `stop`.
    pub(crate) fn replace(&self, database: &Database, ledger: &Ledger, stop: &AtomicBool) -> Result<()> {
        let mut rng = Rng::new();
        let mut session = connect(database)?;
        while !stop.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(rng.u64(5..60)));
            match replace(&mut session.client, rng.bool()) {
                Ok(born) => {
                    self.born.store(born, SeqCst);
                    ledger.count("queues replaced");
                }
                Err(error) => survive(&mut session, &error, database)?,
            }
        }
        Ok(())
    }

    /// Sends to it and reads from it until `stop`.
    pub(crate) fn work(&self, database: &Database, ledger: &Ledger, stop: &AtomicBool) -> Result<()> {
        const SEND: [&str; 2] = [
            "SELECT enough.queue_send('reborn', '1', delay => '3 milliseconds')",
            "SELECT enough.queue_send_batch('reborn', array_fill('1'::jsonb, ARRAY[20]), group_keys => array_fill('g'::text, ARRAY[20]))",
        ];
        const RECEIVE: [&str; 2] = [
            "queue_read('reborn', 5, '50 milliseconds', wait => '20 milliseconds')",
            "queue_pop('reborn', 5, wait => '20 milliseconds')",
        ];
        let mut rng = Rng::new();
        let mut session = connect(database)?;
        while !stop.load(SeqCst) {
            let outcome = if rng.bool() {
                session.client.execute(SEND[rng.usize(..2)], &[]).map(|_| ledger.count("sends to a replaced queue"))
            } else {
                let born = self.born.load(SeqCst);
                let query = format!(
                    "SELECT (EXTRACT(EPOCH FROM enqueued_at) * 1000000)::bigint FROM enough.{}",
                    RECEIVE[rng.usize(..2)]
                );
                session.client.query(&query, &[]).map(|rows| {
                    for row in rows {
                        ledger.count("messages of a replaced queue");
                        let sent: i64 = row.get(0);
                        if sent < born {
                            ledger
                                .violated(&format!("a message of a queue that was dropped {} µs before", born - sent));
                        }
                    }
                })
            };
            if let Err(error) = outcome {
                survive(&mut session, &error, database)?;
            }
        }
        Ok(())
    }
}

/// Drops the queue and makes it again, in one transaction if `at_once`; a moment before it could be seen.
fn replace(client: &mut Client, at_once: bool) -> Result<i64, Error> {
    client.batch_execute(if at_once { "BEGIN" } else { "" })?;
    client.batch_execute("SELECT enough.queue_drop('reborn', if_exists => true)")?;
    let born = client.query_one(&format!("SELECT {CLOCK}, enough.queue_create('reborn')"), &[])?.get(0);
    client.batch_execute(if at_once { "COMMIT" } else { "" })?;
    Ok(born)
}

/// What may come of a queue that is dropped meanwhile: none of that name, or one already; a lost connection, a cancel, a
/// deadlock. Then the session goes on, or a new one does.
fn survive(session: &mut Session, error: &Error, database: &Database) -> Result<()> {
    let usual = is_lost(error) || matches!(state(error), "42704" | "42710" | "57014" | "40P01");
    if !usual {
        bail!("SQLSTATE {} with a queue that is replaced: {error:?}", state(error));
    }
    if session.client.batch_execute("ROLLBACK").is_err() {
        *session = connect(database)?;
    }
    Ok(())
}
