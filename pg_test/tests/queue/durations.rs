//! What `queue_stats` says of waiting and running times.

use anyhow::{Context, Result, ensure};
use enough_pg_test::queue::{self, made};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use xtask::server::Shutdown;

/// The columns, in seconds: how long messages waited (half of them, 99 of 100), how long work took, the oldest lease.
fn times(client: &mut Client) -> Result<[Option<f64>; 5]> {
    let row = client.query_one(
        "SELECT extract(epoch FROM wait_p50)::float8, extract(epoch FROM wait_p99)::float8, \
                extract(epoch FROM run_p50)::float8, extract(epoch FROM run_p99)::float8, \
                extract(epoch FROM oldest_lease)::float8 FROM enough.queue_stats('q')",
        &[],
    )?;
    Ok(std::array::from_fn(|column| row.get(column)))
}

/// Whether a time is what it should be, but for the width of a bucket and what a busy machine adds.
fn near(time: Option<f64>, due: f64) -> bool {
    time.is_some_and(|time| time > due / 2.0 && time < 2.0 * due + 2.0)
}

#[test]
fn waiting_and_running_times_are_those_of_the_messages() -> Result<()> {
    let (_database, mut client, mut other) = made(", visibility_timeout => '1 hour'")?;
    ensure!(times(&mut client)? == [None; 5], "of an empty queue: {:?}", times(&mut client)?);
    // Two have waited for 100 seconds, one since it was due, one not at all.
    client.batch_execute(
        "SELECT enough.queue_send('q', '1') FROM generate_series(1, 2); \
         UPDATE enough.q_q SET enqueued_at = clock_timestamp() - interval '100 s'; \
         SELECT enough.queue_send('q', '2'); \
         INSERT INTO enough.q_q (message, enqueued_at, deliver_at) \
         VALUES ('3', clock_timestamp() - interval '1 day', clock_timestamp() - interval '100 s'); \
         SELECT enough.maintain()",
    )?;
    let read = queue::read(&mut other, "q", 9)?;
    ensure!(read.len() == 4, "{read:?}");
    let [p50, p99, run_p50, run_p99, oldest] = times(&mut client)?;
    ensure!(near(p50, 100.0) && near(p99, 100.0), "{p50:?} {p99:?}");
    ensure!(run_p50.is_none() && run_p99.is_none(), "nothing has ended yet");
    ensure!(oldest.is_some_and(|oldest| (0.0..60.0).contains(&oldest)), "{oldest:?}");
    // Deleted, archived, failed for good: each ends the work; a rollback doesn't, and a retry doesn't.
    std::thread::sleep(std::time::Duration::from_millis(300));
    other.batch_execute("BEGIN")?;
    queue::delete(&mut other, "q", read[0].msg_id, read[0].lease)?;
    other.batch_execute("ROLLBACK")?;
    other.execute("SELECT enough.queue_fail('q', $1, 'again')", &[&read[1].msg_id])?;
    ensure!(times(&mut client)?[2].is_none());
    ensure!(queue::delete(&mut other, "q", read[0].msg_id, read[0].lease)?);
    other.execute("SELECT enough.queue_archive('q', $1)", &[&read[2].msg_id])?;
    let [_, _, run_p50, run_p99, oldest] = times(&mut client)?;
    ensure!(near(run_p50, 0.3) && near(run_p99, 0.3), "{run_p50:?} {run_p99:?}");
    ensure!(oldest.is_some_and(|oldest| oldest >= 0.3), "{oldest:?}");
    // A further delivery isn't a first one.
    let before = times(&mut client)?;
    client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&read[3].msg_id])?;
    let again = client.query("SELECT msg_id FROM enough.queue_pop('q')", &[])?;
    ensure!(again.len() == 1 && again[0].get::<_, i64>(0) == read[3].msg_id, "{again:?}");
    ensure!(times(&mut client)?[..2] == before[..2], "{before:?} {:?}", times(&mut client)?);
    ensure!(times(&mut client)?[4].is_none(), "nothing is leased any more");
    Ok(())
}

#[test]
fn a_redriven_message_has_not_waited_since_it_was_sent() -> Result<()> {
    let (_database, mut client, _) = made(", max_attempts => 1")?;
    client.batch_execute("SELECT enough.queue_send('q', '1')")?;
    client.batch_execute("SELECT enough.queue_fail('q', msg_id, 'no') FROM enough.queue_read('q')")?;
    let moved = client.execute("UPDATE enough.a_q SET enqueued_at = now() - interval '10 days'", &[])?;
    ensure!(moved == 1, "not in the archive");
    let before = times(&mut client)?;
    client.batch_execute("SELECT enough.queue_redrive('q')")?;
    ensure!(queue::read(&mut client, "q", 1)?.len() == 1);
    let times = times(&mut client)?;
    ensure!(times[..2] == before[..2] && times[1].is_some_and(|wait| wait < 60.0), "{before:?} {times:?}");
    Ok(())
}

#[test]
fn nothing_is_known_after_a_restart() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    for statement in [
        "SELECT enough.queue_create('q')",
        "SELECT enough.queue_send('q', '1') FROM generate_series(1, 3)",
        "SELECT enough.queue_pop('q')",
        "SELECT enough.queue_read('q')",
    ] {
        client.batch_execute(statement)?;
    }
    let before = times(&mut client)?;
    ensure!(before.iter().all(Option::is_some), "{before:?}");
    server.restart(Shutdown::Fast)?;
    let mut client = Database::named(&server, &database.name).client().context("after the restart")?;
    ensure!(times(&mut client)? == [None; 5], "{:?}", times(&mut client)?);
    Ok(())
}

#[test]
fn a_message_that_was_delayed_has_waited_since_it_was_due() -> Result<()> {
    let (_database, mut client, _) = made("")?;
    client.batch_execute(
        "INSERT INTO enough.q_q (message, enqueued_at, deliver_at) \
         VALUES ('1', clock_timestamp() - interval '1 day', clock_timestamp() - interval '100 s')",
    )?;
    // A reader that gets it and gives it back: from then on the index knows it.
    client.batch_execute("SELECT enough.queue_extend('q', msg_id, '0') FROM enough.queue_read('q')")?;
    let row = client.query_one(
        "SELECT extract(epoch FROM oldest_ready)::float8, extract(epoch FROM wait_p99)::float8 FROM enough.queue_stats('q')",
        &[],
    )?;
    let (oldest, wait) = (row.get(0), row.get(1));
    ensure!(near(oldest, 100.0) && near(wait, 100.0), "{oldest:?} {wait:?}");
    Ok(())
}
