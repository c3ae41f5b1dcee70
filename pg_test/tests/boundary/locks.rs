//! Waiting for the locks of the shared memory, as `pg_stat_activity` shows it.

use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::server::{self, Database, backend};
use postgres::Client;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Sessions that do the same to the same key.
const SESSIONS: usize = 6;

#[test]
fn each_capability_waits_under_a_name_of_its_own() -> Result<()> {
    let calls = [
        (
            "EnoughRateLimit",
            "SELECT count(enough.rate_limit('k', 1000000000, '1 hour')) FROM generate_series(1, 20000)",
        ),
        ("EnoughCache", "SELECT count(enough.cache_incr('k')) FROM generate_series(1, 20000)"),
        ("EnoughQueue", "SELECT count(enough.queue_extend('q', n, '1 s')) FROM generate_series(1, 20000) AS n"),
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
        database.client()?.batch_execute("SELECT enough.queue_create('q')")?;
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
    let stopped = backend(&mut clients[0])?;
    thread::scope(|scope| {
        for mut client in clients {
            let done = &done;
            scope.spawn(move || -> Result<()> {
                while !done.load(Relaxed) {
                    client.batch_execute(call)?;
                }
                Ok(())
            });
        }
        let seen = eventually("sessions wait for one another", || {
            // A session that is stopped now and then holds the lock at that moment; the others wait for it.
            signal(stopped, "STOP")?;
            thread::sleep(Duration::from_millis(20));
            let row = watch.query_opt(
                "SELECT wait_event FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'LWLock' AND wait_event ~ '^(Enough|pg_enough|extension)' LIMIT 1",
                &[],
            );
            signal(stopped, "CONT")?;
            Ok(row?.map(|row| row.get::<_, String>(0)))
        });
        done.store(true, Relaxed);
        seen
    })
}

fn signal(process: u32, which: &str) -> Result<()> {
    let status = Command::new("kill").args([format!("-{which}"), process.to_string()]).status()?;
    ensure!(status.success(), "can't stop a session");
    Ok(())
}
