//! Making the segment: by which way, by many at once, in a transaction that rolls back.

use crate::common::{both_ways, file, fresh, get, preloaded, set, status, works};
use anyhow::{Result, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::server::{self, Database};
use serde_json::json;
use std::sync::Barrier;
use std::thread;

/// Sessions that ask for the segment at the same moment.
const SESSIONS: i64 = 24;

#[test]
fn a_plain_server_finds_it_by_the_registry() -> Result<()> {
    let (server, database) = fresh(&server::options()?)?;
    let (mut one, mut two) = (database.client()?, database.client()?);
    works(&mut one, &mut two, "main_job")?;
    let found = status(&mut two, "segment")?;
    ensure!(found.contains("by a registry in the main shared memory"), "it was found as {found}");
    healthy(&server.log(), false)
}

#[test]
fn a_preloaded_library_needs_no_dynamic_segment() -> Result<()> {
    let (server, database) = fresh(&preloaded()?)?;
    let (mut one, mut two) = (database.client()?, database.client()?);
    works(&mut one, &mut two, "main_job")?;
    let found = status(&mut two, "segment")?;
    ensure!(found.contains("shared_preload_libraries"), "it was found as {found}");
    ensure!(file(&mut one).is_err(), "there is a dynamic segment beside the preloaded one");
    healthy(&server.log(), false)
}

#[test]
fn sessions_that_make_it_at_once_share_one() -> Result<()> {
    for options in both_ways()? {
        let mut server = server::start(&options)?;
        // Several turns, each with memory that nobody has touched.
        for _ in 0..3 {
            let database = Database::on(&server)?;
            let barrier = Barrier::new(usize::try_from(SESSIONS)?);
            let mut sessions = thread::scope(|scope| {
                let threads: Vec<_> = (0..SESSIONS)
                    .map(|number| {
                        let (database, barrier) = (&database, &barrier);
                        scope.spawn(move || {
                            let client = database.client();
                            barrier.wait();
                            let mut client = client?;
                            set(&mut client, &format!("session {number}"), number)?;
                            Ok(client)
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().expect("a session panicked")).collect::<Result<Vec<_>>>()
            })?;
            for client in &mut sessions {
                for number in 0..SESSIONS {
                    let value = get(client, &format!("session {number}"))?;
                    ensure!(value == Some(json!(number)), "session {number} has another segment: {value:?}");
                }
            }
            drop(sessions);
            server.restart(xtask::server::Shutdown::Fast)?;
        }
        healthy(&server.log(), false)?;
    }
    Ok(())
}

#[test]
fn the_transaction_that_makes_it_may_roll_back() -> Result<()> {
    let (server, database) = fresh(&server::options()?)?;
    let (mut maker, mut other) = (database.client()?, database.client()?);
    let mut transaction = maker.transaction()?;
    transaction.execute("SELECT enough.cache_set('gone', '1')", &[])?;
    let used: bool = transaction.query_one("SELECT allowed FROM enough.rate_limit('kept', 1, '1 hour')", &[])?.get(0);
    ensure!(used);
    transaction.rollback()?;
    ensure!(get(&mut other, "gone")?.is_none(), "a write of the rolled back transaction shows");
    let again: bool = other.query_one("SELECT allowed FROM enough.rate_limit('kept', 1, '1 hour')", &[])?.get(0);
    ensure!(!again, "the segment went with the transaction that made it");
    works(&mut maker, &mut other, "after")?;
    drop(maker);
    works(&mut other, &mut database.client()?, "without_its_maker")?;

    // The same within a savepoint, and by a call that fails.
    let (server_2, database) = fresh(&server::options()?)?;
    let (mut maker, mut other) = (database.client()?, database.client()?);
    let mut transaction = maker.transaction()?;
    transaction.batch_execute("SAVEPOINT a; SELECT enough.cache_set('gone', '1'); ROLLBACK TO a")?;
    ensure!(
        transaction
            .query_one("SELECT 1 / (SELECT count(*) FROM enough.cache_get('gone') AS g WHERE g IS NOT NULL)", &[])
            .is_err()
    );
    drop(transaction);
    works(&mut maker, &mut other, "after")?;
    healthy(&server.log(), false)?;
    healthy(&server_2.log(), false)
}
