//! Maintenance: what `maintain()` does, and the real `pg_cron` calling it.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::server::{Database, options, start};
use postgres::Client;
use serde_json::json;
use std::time::{Duration, Instant};
use xtask::server::{Server, ServerOptions};

/// An archive with one row that is past its time and one that isn't.
fn archive(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "SELECT enough.queue_create('old', archive_for => '1 day');
         INSERT INTO enough.a_old (msg_id, enqueued_at, attempts, priority, message, outcome, finished_at)
         VALUES (1, now() - interval '3 days', 1, 0, '1', 'dead', now() - interval '2 days'),
                (2, now() - interval '3 hours', 1, 0, '2', 'dead', now() - interval '2 hours')",
    )?;
    Ok(())
}

fn archived(client: &mut Client) -> Result<Vec<i64>> {
    let rows = client.query("SELECT msg_id FROM enough.a_old ORDER BY msg_id", &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[test]
fn maintain_cleans_archives_and_forgets_what_was_dropped() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    archive(&mut client)?;
    client.batch_execute(
        "SELECT enough.queue_create('gone');
         SELECT enough.queue_send('gone', '1');
         DROP TABLE enough.q_gone",
    )?;
    // The archive that was left stands in the way of a new queue, which is said.
    let hint = refused(client.query("SELECT enough.queue_create('gone')", &[]), "42710")?;
    ensure!(hint.contains("left over"), "{hint}");
    client.batch_execute("DROP TABLE enough.a_gone")?;
    let tasks = client.query("SELECT task, items, note FROM enough.maintain()", &[])?;
    let items = |name: &str| {
        let task = tasks.iter().find(|row| row.get::<_, &str>(0) == name);
        task.map(|row| (row.get::<_, i64>(1), row.get::<_, Option<String>>(2)))
    };
    ensure!(items("queue_archive") == Some((1, None)), "{tasks:?}");
    ensure!(items("queue_forget").is_some_and(|(items, _)| items >= 1), "{tasks:?}");
    ensure!(archived(&mut client)? == [2]);
    // What is left of the dropped queue is in no one's way.
    client.batch_execute("SELECT enough.queue_create('gone'); SELECT enough.queue_send('gone', '2')")?;
    Ok(())
}

#[test]
fn maintain_stops_when_its_time_is_up() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    archive(&mut client)?;
    let notes = client.query("SELECT note FROM enough.maintain('0') WHERE items = 0 AND note IS NOT NULL", &[])?;
    ensure!(!notes.is_empty(), "a run without time came to its end");
    Ok(())
}

#[test]
fn without_pg_cron_scheduling_is_refused_with_a_way_out() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for call in ["maintenance_schedule()", "maintenance_unschedule()"] {
        let hint = refused(client.query(&format!("SELECT enough.{call}"), &[]), "55000")?;
        ensure!(hint.contains("psql") && hint.contains("enough.maintain()"), "{hint}");
    }
    Ok(())
}

/// A server with `pg_cron` in it, which calls through background workers, so that it needs no way to log in.
fn with_cron() -> Result<Server> {
    let options: ServerOptions = options()?
        .preload("pg_cron")
        .conf("cron.database_name", "postgres")
        .conf("cron.use_background_workers", "on")
        .conf("max_worker_processes", "20");
    start(&options)
}

#[test]
fn pg_cron_runs_maintenance() -> Result<()> {
    let server = with_cron()?;
    let mut client = Database::named(&server, "postgres").client()?;
    client.batch_execute("CREATE EXTENSION pg_enough; CREATE EXTENSION pg_cron")?;
    archive(&mut client)?;
    let job: i64 = client.query_one("SELECT enough.maintenance_schedule('0 0 1 1 *')", &[])?.get(0);
    // A second call changes the schedule of the one job.
    let again: i64 = client.query_one("SELECT enough.maintenance_schedule()", &[])?.get(0);
    ensure!(job == again, "jobs {job} and {again}");
    let jobs = client.query("SELECT schedule, command, database FROM cron.job", &[])?;
    ensure!(jobs.len() == 1 && jobs[0].get::<_, &str>(0) == "* * * * *", "{jobs:?}");
    // Messages by cron; whatever is in them arrives as it is.
    client.batch_execute("SELECT enough.queue_create('ticks')")?;
    let message = json!({"it's": "a \\ \"tick\" $1 %s"});
    let schedule =
        "SELECT enough.queue_schedule('tick', $1, 'ticks', $2, delay => '1 second', priority => 3, group_key => $3)";
    let first: i64 = client.query_one(schedule, &[&"0 0 1 1 *", &message, &"g'\\"])?.get(0);
    let second: i64 = client.query_one(schedule, &[&"* * * * *", &message, &"g'\\"])?.get(0);
    ensure!(first == second, "jobs {first} and {second}");
    refused(client.query(schedule, &[&"at noon", &message, &"g"]), "22023")?;
    let listed = client
        .query_one("SELECT name, schedule, queue, active, last_run IS NULL FROM enough.queue_schedules()", &[])?;
    ensure!(listed.get::<_, &str>(0) == "tick" && listed.get::<_, &str>(1) == "* * * * *");
    ensure!(listed.get::<_, &str>(2) == "ticks" && listed.get::<_, bool>(3) && listed.get::<_, bool>(4));
    // pg_cron looks at the clock's minutes: a run is due within one, and may take a while to be noticed.
    let deadline = Instant::now() + Duration::from_mins(3);
    loop {
        let waited = eventually("the archive is cleaned", || Ok((archived(&mut client)? == [2]).then_some(())));
        match waited {
            Ok(()) => break,
            Err(error) if Instant::now() > deadline => return Err(error.context(server.log())),
            Err(_) => {}
        }
    }
    eventually("the run is recorded as succeeded", || {
        Ok(client.query_opt("SELECT 1 FROM cron.job_run_details WHERE status = 'succeeded' LIMIT 1", &[])?.map(drop))
    })?;
    let read = "SELECT message, priority, group_key FROM enough.queue_read('ticks', wait => '20 seconds')";
    let tick = eventually("the message is sent", || Ok(client.query_opt(read, &[])?))?;
    ensure!(tick.get::<_, serde_json::Value>(0) == message && tick.get::<_, i16>(1) == 3, "{tick:?}");
    ensure!(tick.get::<_, &str>(2) == "g'\\");
    eventually("its run is seen", || {
        let ran = "SELECT 1 FROM enough.queue_schedules() WHERE last_status = 'succeeded' AND last_run <= now()";
        Ok(client.query_opt(ran, &[])?.map(drop))
    })?;
    let ended = client.query_one("SELECT enough.queue_unschedule('tick')", &[])?.get::<_, bool>(0);
    let twice = client.query_one("SELECT enough.queue_unschedule('tick')", &[])?.get::<_, bool>(0);
    ensure!(ended && !twice && client.query("SELECT * FROM enough.queue_schedules()", &[])?.is_empty());
    let removed: bool = client.query_one("SELECT enough.maintenance_unschedule()", &[])?.get(0);
    let twice: bool = client.query_one("SELECT enough.maintenance_unschedule()", &[])?.get(0);
    ensure!(removed && !twice);
    ensure!(client.query("SELECT 1 FROM cron.job", &[])?.is_empty());
    Ok(())
}
