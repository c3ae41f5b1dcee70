//! Many at once: readers on the last few messages, and queues in one small memory.

use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue;
use enough_pg_test::server::{Database, options, start};
use postgres::Client;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use xtask::server::Shutdown;

/// Rounds of the readers, where the environment doesn't ask for more.
const ROUNDS: usize = 300;

/// As many readers as there are ready messages, each reading one: nobody goes away with nothing, and no two get the same.
/// `ENOUGH_ROUNDS` says how often (10,000 is a matter of minutes).
#[test]
fn as_many_readers_as_messages_all_get_one() -> Result<()> {
    const READERS: usize = 64;
    let rounds = std::env::var("ENOUGH_ROUNDS").map_or(Ok(ROUNDS), |text| text.parse())?;
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    let readers = (0..READERS).map(|_| database.client()).collect::<Result<Vec<Client>>>()?;
    let (together, stop) = (Barrier::new(READERS + 1), AtomicBool::new(false));
    let got: Mutex<Vec<Result<Option<i64>, postgres::Error>>> = Mutex::default();
    let take = || std::mem::take(&mut *got.lock().unwrap_or_else(PoisonError::into_inner));
    thread::scope(|scope| {
        for mut reader in readers {
            let (together, stop, got) = (&together, &stop, &got);
            scope.spawn(move || {
                loop {
                    together.wait();
                    if stop.load(Relaxed) {
                        return;
                    }
                    let read = queue::read(&mut reader, "q", 1).map(|read| read.first().map(|message| message.msg_id));
                    got.lock().unwrap_or_else(PoisonError::into_inner).push(read);
                    together.wait();
                }
            });
        }
        let mut round = |number: usize| -> Result<()> {
            let sent = queue::send_numbers(&mut client, "q", READERS as i64);
            // In step with the readers, whatever happens.
            together.wait();
            together.wait();
            let read = take().into_iter().collect::<Result<Vec<_>, _>>()?;
            let read: BTreeSet<i64> = read.into_iter().flatten().collect();
            let sent = sent?;
            ensure!(
                read == sent.iter().copied().collect(),
                "round {number}: {} of {READERS} readers got a message of their own",
                read.len()
            );
            let deleted = client.query("SELECT enough.queue_delete_batch('q', $1)", &[&sent])?;
            ensure!(deleted.len() == READERS, "round {number}: {} were deleted", deleted.len());
            Ok(())
        };
        let outcome = (1..=rounds).try_for_each(&mut round);
        stop.store(true, Relaxed);
        together.wait();
        outcome
    })
}

/// A thousand queues, each with a message that is ready, one that is leased and one that is delayed, in the default memory.
/// After a restart, when nobody has used them, they take none of it: a single queue then has room for as many messages as if
/// it were alone.
#[test]
fn a_thousand_queues_work_and_cost_nothing_while_they_are_idle() -> Result<()> {
    const QUEUES: i64 = 1_000;
    let mut server = start(&options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('alone', visibility_timeout => '1 hour')")?;
    for _ in 0..15 {
        queue::send_numbers(&mut client, "alone", 10_000)?;
    }
    let processes = "SELECT count(*) FROM pg_stat_activity WHERE backend_type <> 'autovacuum worker'";
    let alone = held(&mut client)?;
    ensure!(alone > 0);
    drop(client);
    // Else the index would keep those that were given back, for their attempts.
    server.restart(Shutdown::Fast)?;
    let mut client = database.client()?;
    let before: i64 = client.query_one(processes, &[])?.get(0);

    // In portions, because a transaction holds a lock on each table that it makes.
    for portion in 0..QUEUES / 50 {
        client.batch_execute(&format!(
            "SELECT count(enough.queue_create('q' || n, visibility_timeout => '1 hour')) \
             FROM generate_series({} + 1, {} + 50) AS n",
            portion * 50,
            portion * 50
        ))?;
    }
    let all = |statement: &str| statement.replace("ALL", &format!("generate_series(1, {QUEUES}) AS n"));
    client.batch_execute(&all("SELECT count(enough.queue_send('q' || n, to_jsonb(n))) FROM ALL"))?;
    let read = all("SELECT count(*), count(DISTINCT r.message) FROM ALL, LATERAL enough.queue_read('q' || n) AS r");
    let row = client.query_one(&read, &[])?;
    ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (QUEUES, QUEUES), "{row:?}");
    client.batch_execute(&all("SELECT count(enough.queue_send('q' || n, '0')) FROM ALL"))?;
    client.batch_execute(&all("SELECT count(enough.queue_send('q' || n, '1', delay => '1 hour')) FROM ALL"))?;
    let stats = "SELECT count(*), sum(ready)::bigint, sum(leased)::bigint, sum(delayed)::bigint \
                 FROM enough.queue_stats() WHERE queue <> 'alone'";
    let row = client.query_one(stats, &[])?;
    let counts: [i64; 4] = std::array::from_fn(|column| row.get(column));
    ensure!(counts == [QUEUES; 4], "queues, ready, leased, delayed: {counts:?}");
    let delete = all("SELECT count(*) FILTER (WHERE enough.queue_delete('q' || n, 1)) FROM ALL");
    ensure!(client.query_one(&delete, &[])?.get::<_, i64>(0) == QUEUES);
    ensure!(client.query_one(&read, &[])?.get::<_, i64>(0) == QUEUES, "the second messages don't come");

    // Nobody works for them in the background either.
    let after: i64 = client.query_one(processes, &[])?.get(0);
    ensure!(before == after, "{before} processes before, {after} with {QUEUES} queues");

    drop(client);
    server.restart(Shutdown::Fast)?;
    let mut client = database.client()?;
    let among_idle = held(&mut client)?;
    ensure!(
        among_idle == alone,
        "{alone} messages of one queue find room alone, {among_idle} among {QUEUES} idle queues"
    );
    let sent = queue::send(&mut client, "q1000", &json!("last"))?;
    let read = queue::sorted_ids(&queue::read(&mut client, "q1000", 10)?);
    ensure!(read.last() == Some(&sent), "{read:?}");
    Ok(())
}

/// How many messages of the queue `alone` can be leased at the same time. All are given back.
fn held(client: &mut Client) -> Result<i64> {
    let read = "SELECT count(*) FROM enough.queue_read('alone', 100)";
    let mut transaction = client.transaction()?;
    let mut leases = 0;
    loop {
        match transaction.query_one(read, &[]) {
            Ok(row) => {
                let some: i64 = row.get(0);
                ensure!(some > 0, "all of {leases} messages found room: the test needs more of them");
                leases += some;
            }
            full => {
                refused(full, "53400")?;
                transaction.rollback()?;
                return Ok(leases);
            }
        }
    }
}
