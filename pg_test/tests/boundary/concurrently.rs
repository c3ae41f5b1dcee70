//! Indexes that are built and replaced while the queue is in use, as CONCURRENTLY does it: without the locks by which a
//! session would notice.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{healthy, refused, state};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

/// What a session does all the time; in transactions of several calls, so that it doesn't look at the catalogs in between.
const WORK: &str = "
    BEGIN;
    SELECT enough.queue_send('q', '1', group_key => 'g' || (random() * 5)::int);
    SELECT enough.queue_send_batch('q', array_fill('2'::jsonb, ARRAY[20]), delay => '1 hour');
    SELECT enough.queue_send('q', '3', dedup_key => 'k' || (random() * 1000)::int);
    COMMIT;
    BEGIN;
    SELECT enough.queue_delete('q', msg_id) FROM enough.queue_read('q', 2);
    SELECT enough.queue_fail('q', msg_id, 'no', '1 hour') FROM enough.queue_read('q', 1);
    COMMIT";

const BUILDS: [&str; 7] = [
    "REINDEX INDEX CONCURRENTLY enough.i_q_key",
    "CREATE INDEX CONCURRENTLY further ON enough.q_q (priority, attempts)",
    "REINDEX TABLE CONCURRENTLY enough.q_q",
    "DROP INDEX CONCURRENTLY enough.further",
    "REINDEX INDEX CONCURRENTLY enough.i_q_due",
    "REINDEX INDEX CONCURRENTLY enough.i_q_group",
    "REINDEX INDEX CONCURRENTLY enough.i_q_dedup",
];

fn all_entries(client: &mut Client) -> Result<()> {
    let indexes = client.query(
        "SELECT indexrelid, indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'enough.q_q'::regclass",
        &[],
    )?;
    for index in indexes {
        let (oid, name, valid): (u32, String, bool) = (index.get(0), index.get(1), index.get(2));
        ensure!(valid, "{name} isn't valid");
        client.execute("SELECT bt_index_check($1::oid, true)", &[&oid]).with_context(|| name)?;
    }
    Ok(())
}

#[test]
fn an_index_that_is_built_meanwhile_has_all_entries() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE EXTENSION amcheck; SELECT enough.queue_create('q'); \
         SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[3000]))",
    )?;
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut client = database.client()?;
                    while !done.load(Relaxed) {
                        client.batch_execute(WORK)?;
                        rounds.fetch_add(1, Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let mut outcome = Ok(());
        for build in BUILDS.iter().cycle().take(3 * BUILDS.len()) {
            outcome = client.batch_execute(build).with_context(|| (*build).to_owned());
            outcome = outcome.and_then(|()| all_entries(&mut client).with_context(|| format!("after {build}")));
            if outcome.is_err() {
                break;
            }
        }
        done.store(true, Relaxed);
        for worker in workers {
            worker.join().expect("a worker panicked").context("in a session that uses the queue")?;
        }
        outcome
    })?;
    ensure!(rounds.load(Relaxed) > 20, "nobody used the queue: {rounds:?}");
    healthy(&server.log(), false)
}

#[test]
fn an_index_whose_building_has_failed_is_in_nobodys_way() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute("SELECT enough.queue_create('q')")?;
    queue::send_numbers(&mut client, "q", 2)?;
    queue::send(&mut other, "q", &json!(1))?;
    let failed = client.batch_execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON enough.q_q (message)");
    ensure!(failed.is_err_and(|error| state(&error) == "23505"));
    for session in [&mut client, &mut other] {
        queue::send(session, "q", &json!(1))?;
    }
    ensure!(queue::receive(&mut other, "queue_pop('q', 10)")?.len() == 5);
    // One that stands in for one of the queue's own, but isn't ready, is not taken for it.
    client.batch_execute("DROP INDEX enough.broken; DROP INDEX enough.i_q_dedup")?;
    client.batch_execute("ALTER TABLE enough.q_q DISABLE TRIGGER ALL; INSERT INTO enough.q_q (message, dedup_key) VALUES ('1', 'a'), ('1', 'a')")?;
    let failed = client.batch_execute(
        "CREATE UNIQUE INDEX CONCURRENTLY i_q_dedup ON enough.q_q (dedup_key) WHERE dedup_key IS NOT NULL",
    );
    ensure!(failed.is_err_and(|error| state(&error) == "23505"));
    for session in [&mut client, &mut other] {
        let hint = refused(queue::send(session, "q", &json!(1)), "55000")?;
        ensure!(hint.starts_with("CREATE UNIQUE INDEX"), "{hint}");
    }
    healthy(&server.log(), false)
}
