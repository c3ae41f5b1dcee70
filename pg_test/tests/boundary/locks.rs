//! Waiting for the locks of the shared memory, as `pg_stat_activity` shows it.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::server::{self, Database, backend};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use xtask::server::{Signal, signal};

/// Sessions that do the same to the same key.
const SESSIONS: usize = 6;

#[test]
fn each_capability_waits_under_a_name_of_its_own() -> Result<()> {
    // Each spends much of its time under one lock.
    let calls = [
        (
            "EnoughRateLimit",
            "SELECT count(enough.rate_limit('k', 1000000000, '1 hour')) FROM generate_series(1, 20000)",
        ),
        (
            "EnoughSemaphore",
            "SELECT count(enough.semaphore_acquire('s' || n % 2, 1, '1 ms')) FROM generate_series(1, 20000) AS n",
        ),
        (
            "EnoughCache",
            "SELECT enough.cache_mset((SELECT jsonb_object_agg('k' || n, n) FROM generate_series(1, 2000) AS n))",
        ),
        ("EnoughQueue", "BEGIN; SELECT count(*) FROM enough.queue_read('q', 2000); ROLLBACK"),
    ];
    for preload in [false, true] {
        let options = if preload { server::options()?.preload("pg_enough") } else { server::options()? };
        let server = server::start(&options)?;
        let database = Database::on(&server)?;
        let mut watch = database.client()?;
        if !preload {
            // A session knows the names once it has used the extension.
            watch.batch_execute("SELECT enough.status()")?;
        }
        database.client()?.batch_execute(
            "SELECT enough.queue_create('q', retry_backoff => '0'); \
             SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[10000]))",
        )?;
        for (name, call) in calls {
            let seen = waited_for(&database, &mut watch, call)?;
            ensure!(seen == name, "{call} waits for {seen}");
        }
    }
    Ok(())
}

/// Lets many sessions do the same; what they wait for.
fn waited_for(database: &Database, watch: &mut Client, call: &str) -> Result<String> {
    let done = AtomicBool::new(false);
    let mut clients = (0..SESSIONS).map(|_| database.client()).collect::<Result<Vec<_>>>()?;
    let stopped = clients.iter_mut().skip(1).map(backend).collect::<Result<Vec<_>>>()?;
    let work = |mut client: Client| -> Result<()> {
        while !done.load(Relaxed) {
            client.batch_execute(call)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let sessions: Vec<_> = clients
            .into_iter()
            .map(|client| {
                let work = &work;
                scope.spawn(move || work(client))
            })
            .collect();
        let seen = eventually("sessions wait for one another", || {
            // All but one are stopped. Now and then one of them holds the lock at that moment: the last one waits for it.
            stopped.iter().try_for_each(|&pid| signal(pid, Signal::SIGSTOP))?;
            thread::sleep(Duration::from_millis(5));
            let row = watch.query_opt(
                "SELECT wait_event FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'LWLock' AND wait_event ~ '^(Enough|pg_enough|extension)' LIMIT 1",
                &[],
            );
            stopped.iter().try_for_each(|&pid| signal(pid, Signal::SIGCONT))?;
            Ok(row?.map(|row| row.get::<_, String>(0)))
        });
        done.store(true, Relaxed);
        for session in sessions {
            session.join().expect("a session's thread").with_context(|| format!("in {call}"))?;
        }
        seen
    })
}
