//! What `status()` warns of, each by a name, and that a healthy server has no warning.

use crate::cron::with_cron;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue::{self, read};
use enough_pg_test::server::{self, Database, until_waiting};
use postgres::Client;
use serde_json::json;
use xtask::server::{Server, Shutdown};

/// The names of the warnings, and all their texts as the item `warnings` has them.
fn warned(client: &mut Client) -> Result<(Vec<String>, String)> {
    let rows = client.query("SELECT item, value FROM enough.status()", &[])?;
    let named =
        rows.iter().filter_map(|row| Some((row.get::<_, &str>(0).strip_prefix("warning_")?, row.get::<_, &str>(1))));
    let (names, texts): (Vec<&str>, Vec<&str>) = named.unzip();
    let all =
        rows.iter().find(|row| row.get::<_, &str>(0) == "warnings").context("no item `warnings`")?.get::<_, String>(1);
    ensure!(all == if texts.is_empty() { "none".to_owned() } else { texts.join("; ") }, "{all}: {texts:?}");
    Ok((names.iter().map(|&name| name.to_owned()).collect(), all))
}

/// Fails unless there is no warning.
fn healthy(client: &mut Client, when: &str) -> Result<()> {
    let (names, texts) = warned(client)?;
    ensure!(names.is_empty(), "{when}: {texts}");
    Ok(())
}

/// Fails unless the only warning has that name and says that.
fn only(client: &mut Client, name: &str, says: &str) -> Result<()> {
    let (names, texts) = warned(client)?;
    ensure!(names == [name] && texts.contains(says), "{names:?}: {texts}");
    Ok(())
}

/// Waits for that warning.
fn comes(client: &mut Client, name: &str, says: &str) -> Result<()> {
    eventually(&format!("there is the warning {name}"), || {
        let (names, _) = warned(client)?;
        Ok(names.iter().any(|found| found == name).then_some(()))
    })?;
    only(client, name, says)
}

fn on(options: &[(&str, &str)]) -> Result<(Server, Database, Client)> {
    let options = options.iter().fold(server::options()?, |all, (name, value)| all.conf(name, value));
    let server = server::start(&options)?;
    let database = Database::on(&server)?;
    let client = database.client()?;
    Ok((server, database, client))
}

#[test]
fn a_server_in_use_has_none() -> Result<()> {
    let (mut server, database, mut client) = on(&[])?;
    healthy(&mut client, "nothing was done yet")?;
    client.batch_execute(
        "SELECT enough.queue_create('q'), enough.queue_create('paused'), enough.cache_set('k', '1'), \
                enough.rate_limit('k', 1, '1 hour'), enough.rate_limit('k', 1, '1 hour'); \
         SELECT enough.queue_send('q', '1') FROM generate_series(1, 100)",
    )?;
    ensure!(read(&mut client, "q", 10)?.len() == 10);
    client.batch_execute("SELECT enough.queue_pause('paused'); SELECT enough.maintain()")?;
    healthy(&mut client, "in use")?;
    server.restart(Shutdown::Fast)?;
    healthy(&mut Database::named(&server, &database.name).client()?, "after a restart")
}

#[test]
fn a_queue_that_nobody_reads_is_named() -> Result<()> {
    const NAME: &str = "queue_without_consumers";
    let (mut server, database, mut client) = on(&[("enough.warn_unread_after", "1ms")])?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    healthy(&mut client, "the queue is empty")?;
    queue::send(&mut client, "q", &json!(1))?;
    comes(&mut client, NAME, "queue \"q\"")?;

    // One that is paused, or at work.
    client.batch_execute("SELECT enough.queue_pause('q')")?;
    healthy(&mut client, "it is paused")?;
    client.batch_execute("SELECT enough.queue_resume('q')")?;
    comes(&mut client, NAME, "queue \"q\"")?;
    let leased = read(&mut client, "q", 1)?;
    queue::send(&mut client, "q", &json!(2))?;
    healthy(&mut client, "a consumer works on a message")?;
    // The consumer is gone, and its lease has run out.
    client.execute("SELECT enough.queue_extend('q', $1, '1 ms')", &[&leased[0].msg_id])?;
    comes(&mut client, NAME, "queue \"q\"")?;

    // Who may not see the queue isn't told of it; a monitor is.
    let (user, monitor) = (database.role("user"), database.role("monitor"));
    client.batch_execute(&format!(
        "CREATE ROLE {user} LOGIN; CREATE ROLE {monitor} LOGIN; GRANT pg_monitor TO {monitor}"
    ))?;
    healthy(&mut database.client_as(&user)?, "a role without rights")?;
    only(&mut database.client_as(&monitor)?, NAME, "queue \"q\"")?;

    // It waits for no lock.
    let mut other = database.client()?;
    let mut locked = other.transaction()?;
    locked.batch_execute("LOCK TABLE enough.q_q")?;
    client.batch_execute("SET lock_timeout = '10 s'")?;
    healthy(&mut client, "its table is locked")?;
    locked.rollback()?;

    // What is delayed isn't ready; what has come due is, also where nothing of the memory is left.
    client.batch_execute("SELECT enough.queue_purge('q'); SELECT enough.queue_send('q', '1', delay => '1 hour')")?;
    healthy(&mut client, "all is delayed")?;
    client.batch_execute("UPDATE enough.q_q SET deliver_at = clock_timestamp() - interval '2 hours'")?;
    server.restart(Shutdown::Fast)?;
    let database = Database::named(&server, &database.name);
    let mut client = database.client()?;
    comes(&mut client, NAME, "waited for 72")?;

    // A table that is no longer as it was made is another warning's.
    client.batch_execute("ALTER TABLE enough.q_q RENAME deliver_at TO later")?;
    let (names, texts) = warned(&mut client)?;
    ensure!(!names.iter().any(|name| name == NAME), "{texts}");
    client.batch_execute("ALTER TABLE enough.q_q RENAME later TO deliver_at")?;
    server.configure("enough.warn_unread_after = 0")?;
    client.query("SELECT pg_reload_conf()", &[])?;
    eventually("the warning is switched off", || Ok(warned(&mut client)?.0.is_empty().then_some(())))
}

#[test]
fn a_session_that_waits_is_a_consumer() -> Result<()> {
    let (_server, database, mut client) = on(&[("enough.warn_unread_after", "1ms")])?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    let mut waiting = database.client()?;
    let pid = i32::try_from(server::backend(&mut waiting)?)?;
    let cancel = waiting.cancel_token();
    let reader =
        std::thread::spawn(move || waiting.batch_execute("SELECT enough.queue_read('q', wait => '10 minutes')"));
    until_waiting(&mut client, pid.cast_unsigned())?;
    // Nobody wakes the reader for what gets in by hand.
    client.batch_execute("INSERT INTO enough.q_q (message) VALUES ('1')")?;
    let seen = healthy(&mut client, "a session waits");
    cancel.cancel_query(postgres::NoTls)?;
    ensure!(reader.join().is_ok_and(|read| read.is_err()), "it was not cancelled");
    seen
}

#[test]
fn memory_that_is_nearly_full_is_named() -> Result<()> {
    let (_server, _, mut client) = on(&[
        ("enough.queue_memory", "64kB"),
        ("enough.cache_memory", "1MB"),
        ("enough.cache_max_value", "16kB"),
        ("enough.rate_limit_memory", "64kB"),
        ("enough.semaphore_memory", "64kB"),
    ])?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    queue::send_numbers(&mut client, "q", 2000)?;
    healthy(&mut client, "the queue's memory holds what it should")?;
    let mut leased = Vec::new();
    while warned(&mut client)?.0.is_empty() {
        let more = read(&mut client, "q", 20)?;
        ensure!(!more.is_empty(), "no warning with all of it leased");
        leased.extend(more);
    }
    only(&mut client, "queue_memory_nearly_full", "enough.queue_memory")?;
    client.batch_execute("SELECT enough.queue_purge('q')")?;
    healthy(&mut client, "the queue is empty")?;

    // A cache that is full and serves is as it should be.
    let fill = "SELECT enough.cache_set('k' || n, to_jsonb(repeat('x', 2000))) FROM generate_series(1, $1::int) AS n";
    client.execute(fill, &[&3000])?;
    client.batch_execute("SELECT enough.cache_get('k3000') FROM generate_series(1, 3000)")?;
    healthy(&mut client, "the cache serves")?;
    client
        .batch_execute("SELECT enough.cache_get('k' || n) FROM generate_series(1, 2000) AS n, generate_series(1, 3)")?;
    only(&mut client, "cache_memory_too_small", "enough.cache_memory")?;
    client.batch_execute("SELECT enough.cache_get('k3000') FROM generate_series(1, 9000)")?;

    let hold = "SELECT count(enough.semaphore_acquire('s' || n, ttl => '2 s')) FROM generate_series(1, $1::int) AS n";
    client.execute(hold, &[&100])?;
    healthy(&mut client, "semaphores are held")?;
    client.execute(hold, &[&320])?;
    only(&mut client, "semaphore_memory_nearly_full", "enough.semaphore_memory")?;
    eventually("they have expired", || Ok(warned(&mut client)?.0.is_empty().then_some(())))?;

    let ask = "SELECT count(*) FROM generate_series(1, $1::int) AS n, enough.rate_limit('k' || n, $2, '1 hour')";
    client.execute(ask, &[&200, &2])?;
    healthy(&mut client, "limits are in use")?;
    client.execute(ask, &[&20_000, &2])?;
    only(&mut client, "rate_limit_memory_nearly_full", "enough.rate_limit_memory")?;
    client.execute(ask, &[&20_000, &1])?;
    let (names, texts) = warned(&mut client)?;
    ensure!(names == ["rate_limit_memory_nearly_full", "rate_limit_exhausted_evicted"], "{texts}");
    Ok(())
}

#[test]
fn settings_that_wait_and_tables_that_are_lost_are_named() -> Result<()> {
    let (server, _, mut client) = on(&[])?;
    client.batch_execute("SELECT enough.queue_create('q'); DROP TABLE enough.a_q")?;
    only(&mut client, "queue_tables", "has lost its archive")?;
    client.batch_execute("SELECT enough.queue_create('q', if_not_exists => true)")?;
    server.configure("enough.cache_memory = '20MB'")?;
    client.query("SELECT pg_reload_conf()", &[])?;
    comes(&mut client, "pending_restart", "enough.cache_memory")
}

#[test]
fn jobs_of_pg_cron_that_fail_or_are_missing_are_named() -> Result<()> {
    let server = with_cron()?;
    let database = Database::named(&server, "postgres");
    let mut client = database.client()?;
    client.batch_execute("CREATE EXTENSION pg_enough; CREATE ROLE watcher LOGIN IN ROLE pg_monitor")?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    healthy(&mut client, "there is no pg_cron here")?;
    client.batch_execute("CREATE EXTENSION pg_cron")?;
    only(&mut client, "maintenance_not_scheduled", "enough.maintenance_schedule()")?;
    client.batch_execute(
        "SELECT enough.maintenance_schedule('0 0 1 1 *'); SELECT enough.queue_schedule('tick', '0 0 1 1 *', 'q', '1')",
    )?;
    // Roles don't see one another's jobs in pg_cron; that there is one is no secret.
    for role in ["postgres", "watcher"] {
        healthy(&mut database.client_as(role)?, role)?;
    }
    let ends = |client: &mut Client, status: &str| {
        client.batch_execute(&format!(
            "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time) \
             SELECT jobid, (SELECT coalesce(max(runid), 0) FROM cron.job_run_details) + jobid, database, username, command, '{status}', \
                    'a secret', now(), now() FROM cron.job"
        ))
    };
    ends(&mut client, "failed")?;
    // One that runs at this moment has not ended.
    ends(&mut client, "running")?;
    for role in ["postgres", "watcher"] {
        let (mut names, texts) = warned(&mut database.client_as(role)?)?;
        names.sort();
        ensure!(names == ["maintenance_failing", "schedule_failing"] && texts.contains("tick"), "{role}: {texts}");
        ensure!(!texts.contains("a secret"), "{texts}");
    }
    ends(&mut client, "succeeded")?;
    healthy(&mut client, "the last runs succeeded")?;
    client.batch_execute("UPDATE cron.job SET active = false")?;
    only(&mut client, "maintenance_not_scheduled", "enough.maintenance_schedule()")
}
