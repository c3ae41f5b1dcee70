//! The jobs that are made in `pg_cron`: whose they are, what becomes of them when their queue goes, and what is said where
//! there is none to be had.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::{Database, options, start};
use postgres::{Client, NoTls};
use std::sync::{Arc, Mutex};
use xtask::server::Server;

/// A server with `pg_cron` in the database `postgres`, whose jobs don't run.
pub(crate) fn with_cron() -> Result<Server> {
    let options =
        options()?.preload("pg_cron").conf("cron.database_name", "postgres").conf("cron.launch_active_jobs", "off");
    start(&options).or_else(|_| {
        // Before pg_cron 1.5 there is no such setting: the jobs below are due once a year.
        start(&enough_pg_test::server::options()?.preload("pg_cron").conf("cron.database_name", "postgres"))
    })
}

fn jobs(client: &mut Client) -> Result<Vec<(String, String, String)>> {
    let rows = client.query("SELECT jobname::text, username, command FROM cron.job ORDER BY 1, 2", &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// A session whose notices are kept.
fn with_notices(database: &Database, role: &str) -> Result<(Client, Arc<Mutex<Vec<String>>>)> {
    let notices = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&notices);
    let mut config = database.config().clone();
    config.user(role).notice_callback(move |notice| {
        if let Ok(mut kept) = kept.lock() {
            kept.push(format!("{} {}", notice.message(), notice.hint().unwrap_or_default()));
        }
    });
    Ok((config.connect(NoTls)?, notices))
}

#[test]
fn jobs_belong_to_their_role_and_end_with_their_queue() -> Result<()> {
    let server = with_cron()?;
    let database = Database::named(&server, "postgres");
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE EXTENSION pg_enough; CREATE EXTENSION pg_cron; CREATE ROLE app LOGIN; \
         GRANT CREATE ON SCHEMA enough TO app",
    )?;
    let mut app = database.client_as("app")?;
    app.batch_execute("SELECT enough.queue_create('q'), enough.queue_create('it')")?;

    // A role without rights on pg_cron is told what it lacks.
    for call in [
        "queue_schedule('tick', '0 0 1 1 *', 'q', '1')",
        "queue_unschedule('tick')",
        "queue_schedules()",
        "maintenance_schedule()",
        "maintenance_unschedule()",
    ] {
        let hint = refused(app.query(&format!("SELECT * FROM enough.{call}"), &[]), "42501").context(call)?;
        ensure!(hint.contains("GRANT USAGE ON SCHEMA cron"), "{call}: {hint}");
    }
    client.batch_execute("GRANT USAGE ON SCHEMA cron TO app")?;

    // Of jobs of one name, each role ends its own.
    let tick = "SELECT enough.queue_schedule('tick', '0 0 1 1 *', 'q', '1')";
    app.batch_execute(tick)?;
    client.batch_execute(tick)?;
    let ended = |client: &mut Client| -> Result<bool> {
        Ok(client.query_one("SELECT enough.queue_unschedule('tick')", &[])?.get(0))
    };
    ensure!(ended(&mut client)? && !ended(&mut client)?);
    let left = jobs(&mut client)?;
    ensure!(left.len() == 1 && left[0].1 == "app", "{left:?}");
    client.batch_execute(tick)?;

    // What the last run came to is shown with what the server said, and whose it is.
    client.batch_execute(
        "INSERT INTO cron.job_run_details (jobid, runid, database, username, command, status, return_message, start_time, end_time) \
         SELECT jobid, 1, database, username, command, 'failed', 'ERROR: no luck', now(), now() FROM cron.job WHERE username = 'app'",
    )?;
    let listed = client.query(
        "SELECT role, last_status, last_message FROM enough.queue_schedules() WHERE name = 'tick' ORDER BY role",
        &[],
    )?;
    ensure!(listed.len() == 2 && listed[0].get::<_, &str>(0) == "app", "{listed:?}");
    ensure!(listed[0].get::<_, Option<&str>>(2) == Some("ERROR: no luck"), "{listed:?}");
    ensure!(listed[1].get::<_, Option<&str>>(1).is_none(), "{listed:?}");

    // A rename takes along the schedules, the superuser's rename all of them; the caller's those of the caller.
    app.batch_execute("SELECT enough.queue_schedule('other', '0 0 1 1 *', 'it', '\"q\"')")?;
    client.batch_execute("SELECT enough.queue_rename('q', 'new')")?;
    let renamed = jobs(&mut client)?;
    ensure!(renamed.iter().filter(|job| job.2.contains("queue_send('new'")).count() == 2, "{renamed:?}");
    ensure!(renamed.iter().any(|job| job.2.contains("queue_send('it'") && job.2.contains("'\"q\"'")), "{renamed:?}");
    app.batch_execute("SELECT enough.queue_rename('new', 'q')")?;
    let back = jobs(&mut client)?;
    ensure!(back.iter().any(|job| job.1 == "app" && job.2.contains("queue_send('q'")), "{back:?}");
    client.batch_execute("SELECT enough.queue_unschedule('tick')")?;

    // Dropping a queue ends the schedules that send to it, and no others.
    client.batch_execute("BEGIN; SELECT enough.queue_drop('q'); ROLLBACK")?;
    ensure!(jobs(&mut client)?.len() == 2);
    app.batch_execute("SELECT enough.queue_drop('q')")?;
    let left = jobs(&mut client)?;
    ensure!(left.len() == 1 && left[0].0.ends_with("other"), "{left:?}");
    client.batch_execute("SELECT enough.queue_drop('it')")?;
    ensure!(jobs(&mut client)?.is_empty(), "the superuser's drop has left the job of another role");
    Ok(())
}

/// A role that may make queues may put functions into the schema, too. Jobs that run as others call the extension's own.
#[test]
fn no_function_of_anothers_is_called_by_a_job() -> Result<()> {
    let server = with_cron()?;
    let database = Database::named(&server, "postgres");
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE EXTENSION pg_enough; CREATE EXTENSION pg_cron; CREATE ROLE evil LOGIN; GRANT CREATE ON SCHEMA enough TO evil; \
         SELECT enough.queue_create('q')",
    )?;
    let mut evil = database.client_as("evil")?;
    evil.batch_execute(
        "CREATE FUNCTION enough.maintain() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$",
    )?;
    for types in [
        "text, text, text, text, text, text, text",
        "text, jsonb, interval, int, text, text, jsonb",
        "text, text, text, text, text, text, text, text",
        "text, jsonb, text, int, text, text, jsonb, timestamptz",
    ] {
        evil.batch_execute(&format!(
            "CREATE FUNCTION enough.queue_send({types}) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user; END $$"
        ))?;
    }
    client.batch_execute(
        "SELECT enough.maintenance_schedule('0 0 1 1 *'); SELECT enough.queue_schedule('tick', '0 0 1 1 *', 'q', '{\"n\": 1}', \
         delay => '1 ms', priority => 3, group_key => 'g', dedup_key => 'd', headers => '[2]')",
    )?;
    for (_, _, command) in jobs(&mut client)? {
        client.batch_execute(&command).with_context(|| command.clone())?;
    }
    let row = client.query_one(
        "SELECT message::text, priority, group_key, headers::text FROM enough.queue_read('q', wait => '10 s')",
        &[],
    )?;
    ensure!(row.get::<_, &str>(0) == "{\"n\": 1}" && row.get::<_, i16>(1) == 3, "{row:?}");
    ensure!(row.get::<_, &str>(2) == "g" && row.get::<_, &str>(3) == "[2]", "{row:?}");
    Ok(())
}

#[test]
fn notes_of_runs_are_trimmed_and_only_the_extensions_own() -> Result<()> {
    let server = with_cron()?;
    let database = Database::named(&server, "postgres");
    let mut client = database.client()?;
    client.batch_execute("CREATE EXTENSION pg_enough; CREATE EXTENSION pg_cron")?;
    client.batch_execute(
        "INSERT INTO cron.job_run_details (jobid, database, username, command, status, start_time, end_time) \
         SELECT 1, d, 'postgres', c, 'succeeded', t, t FROM unnest(ARRAY['SELECT enough.maintain()', \
                $$SELECT enough.queue_send('q', '1')$$, 'SELECT 1']) AS c, unnest(ARRAY['postgres', 'template1']) AS d, \
                generate_series(now() - interval '50 hours', now() - interval '1 hour', interval '7 hours') AS t",
    )?;
    let row = client.query_one("SELECT items, note FROM enough.maintain() WHERE task = 'cron_notes'", &[])?;
    ensure!(row.get::<_, i64>(0) == 8, "{row:?}");
    let left = client.query_one(
        "SELECT count(*), count(*) FILTER (WHERE end_time < now() - interval '1 day' AND database = 'postgres' \
                AND command LIKE '%enough%') FROM cron.job_run_details",
        &[],
    )?;
    ensure!((left.get::<_, i64>(0), left.get::<_, i64>(1)) == (40, 0), "{left:?}");
    Ok(())
}

#[test]
fn where_pg_cron_is_in_another_database_the_hint_has_the_statement() -> Result<()> {
    let server = with_cron()?;
    let mut postgres = Database::named(&server, "postgres").client()?;
    postgres.batch_execute("CREATE EXTENSION pg_cron")?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    for (call, command) in [
        ("maintenance_schedule('*/5 * * * *')", "SELECT enough.maintain("),
        ("queue_schedule('tick', '*/5 * * * *', 'q', '{\"it''s\": 1}')", "queue_send"),
    ] {
        let hint = refused(client.query(&format!("SELECT enough.{call}"), &[]), "55000")?;
        ensure!(hint.contains("\"postgres\"") && hint.contains(command), "{hint}");
        // It works as it stands there.
        let start = hint.find("SELECT cron.schedule_in_database").context(hint.clone())?;
        postgres.batch_execute(&hint[start..]).with_context(|| hint.clone())?;
    }
    let made = postgres.query("SELECT command FROM cron.job WHERE database = $1 ORDER BY jobid", &[&database.name])?;
    ensure!(made.len() == 2 && made[0].get::<_, &str>(0).starts_with("SELECT enough.maintain("), "{made:?}");
    // The statement sends the message, whatever is in it.
    client.batch_execute(made[1].get(0))?;
    let message: String = client.query_one("SELECT message::text FROM enough.queue_read('q')", &[])?.get(0);
    ensure!(message == "{\"it's\": 1}", "{message}");
    // A role that may not see the setting gets the general hint.
    let role = database.role("user");
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN"))?;
    let mut user = database.client_as(&role)?;
    let hint = refused(user.query("SELECT enough.maintenance_schedule()", &[]), "55000")?;
    ensure!(hint.contains("cron.database_name") && hint.contains("psql"), "{hint}");
    Ok(())
}

#[test]
fn dropping_the_extension_says_what_stays_and_ends_the_jobs() -> Result<()> {
    let server = with_cron()?;
    let database = Database::named(&server, "postgres");
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE EXTENSION pg_enough; CREATE EXTENSION pg_cron; CREATE EXTENSION pgcrypto; CREATE ROLE app LOGIN; \
         GRANT USAGE ON SCHEMA cron TO app; SELECT enough.queue_create('orders'), enough.queue_create('mails'); \
         SELECT enough.queue_grant('orders', 'app', 'send'); SELECT enough.maintenance_schedule('0 0 1 1 *'); \
         SELECT cron.schedule('mine', '0 0 1 1 *', 'SELECT 1'); \
         SET ROLE app; SELECT enough.queue_schedule('tick', '0 0 1 1 *', 'orders', '1'); RESET ROLE",
    )?;
    let (mut dropping, notices) = with_notices(&database, "postgres")?;
    let said = || notices.lock().map(|mut kept| std::mem::take(&mut *kept)).unwrap_or_default();
    dropping.batch_execute("DROP EXTENSION pgcrypto")?;
    ensure!(said().is_empty() && jobs(&mut client)?.len() == 3, "another extension was dropped");
    dropping.batch_execute("BEGIN; DROP EXTENSION pg_enough; ROLLBACK")?;
    ensure!(jobs(&mut client)?.len() == 3);
    said();
    dropping.batch_execute("DROP EXTENSION pg_enough")?;
    let notices = said();
    ensure!(
        notices.iter().any(|notice| notice.contains("mails, orders") && notice.contains("if_not_exists")),
        "{notices:?}"
    );
    let left = jobs(&mut client)?;
    ensure!(left.len() == 1 && left[0].0 == "mine", "{left:?}");

    // The same by a role that is no superuser, which may end its own jobs only.
    client.batch_execute(
        "DROP SCHEMA enough CASCADE; CREATE ROLE owner LOGIN; GRANT CREATE ON DATABASE postgres TO owner; \
         GRANT USAGE ON SCHEMA cron TO owner",
    )?;
    let (mut owner, notices) = with_notices(&database, "owner")?;
    owner.batch_execute(
        "CREATE EXTENSION pg_enough; SELECT enough.queue_create('orders'), enough.maintenance_schedule('0 0 1 1 *')",
    )?;
    client.batch_execute("SELECT enough.maintenance_schedule('0 0 1 1 *')")?;
    owner.batch_execute("DROP EXTENSION pg_enough")?;
    let said = notices.lock().map(|kept| kept.clone()).unwrap_or_default();
    ensure!(said.iter().any(|notice| notice.contains("orders")), "{said:?}");
    let left = jobs(&mut client)?;
    ensure!(left.iter().all(|job| job.1 == "postgres") && left.len() == 2, "{left:?}");
    Ok(())
}

#[test]
fn the_extension_can_be_dropped_where_its_library_is_gone() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    // As good as a library that is gone: no function of it can be loaded by a new session.
    client.batch_execute(
        "UPDATE pg_proc SET probin = '$libdir/pg_enough_that_is_gone' WHERE pronamespace = 'enough'::regnamespace AND probin IS NOT NULL",
    )?;
    let mut other = database.client()?;
    ensure!(other.batch_execute("SELECT enough.queue_stats()").is_err());
    other.batch_execute("DROP EXTENSION pg_enough")?;
    Ok(())
}
