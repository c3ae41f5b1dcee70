//! Dumps: whole ones in each format, and parts.

use crate::contents::{Contents, Lost, NOTHING};
use crate::page::{commands, directory, run};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{healthy, refused};
use enough_pg_test::queue;
use enough_pg_test::server::{Database, options, shared, start};
use postgres::Client;
use serde_json::json;

/// Runs commands with `$OLD` and `$NEW` as the two databases, both on the shared server.
fn between(old: &Database, new: &Database, scripts: &[String]) -> Result<()> {
    let server = shared()?;
    let dir = directory(&server)?;
    let url = |database: &Database| server.url_for(&database.name, "postgres");
    for script in scripts {
        run(&server, dir.path(), script, &[("OLD", url(old)), ("NEW", url(new))])?;
    }
    Ok(())
}

/// A database with everything in it.
fn full() -> Result<(Database, Contents)> {
    let database = Database::new()?;
    let contents = Contents::make(&database)?;
    Ok((database, contents))
}

fn empty() -> Result<Database> {
    Database::empty(&*shared()?)
}

#[test]
fn a_whole_database_in_every_format() -> Result<()> {
    let (old, contents) = full()?;
    for title in ["Dump, in one file", "Dump, in parallel", "Dump, as SQL"] {
        let new = empty()?;
        between(&old, &new, &commands(title)?).context(title)?;
        contents.have_moved_to(&new, NOTHING).context(title)?;
    }
    healthy(&shared()?.log(), false)
}

#[test]
fn the_schema_first_and_the_data_later() -> Result<()> {
    let (old, contents) = full()?;
    let new = empty()?;
    let scripts = commands("Schema first, data later")?;
    let (schema, data) = scripts.split_at(1);
    between(&old, &new, schema)?;
    // In between, the queues' tables are there and have no options: named with the cure.
    let mut client = new.client()?;
    let warnings: String = client.query_one("SELECT value FROM enough.status() WHERE item = 'warnings'", &[])?.get(0);
    ensure!(warnings.contains("jobs") && warnings.contains("if_not_exists"), "{warnings}");
    let hint = refused(queue::send(&mut client, "jobs", &json!(1)), "42704")?;
    ensure!(hint.contains("if_not_exists"), "{hint}");
    between(&old, &new, data)?;
    contents.have_moved_to(&new, NOTHING)
}

/// A trigger that sends a message for each new row sends once more for each restored row, unless it is off.
#[test]
fn a_trigger_that_sends_is_off_while_data_is_restored() -> Result<()> {
    let (old, _) = full()?;
    let new = empty()?;
    let scripts = commands("Schema first, data later")?;
    ensure!(scripts[1].contains("--disable-triggers"));
    let unguarded: Vec<String> = scripts.iter().map(|script| script.replace("--disable-triggers", "")).collect();
    // The queue's row comes after the table of orders or before it: the trigger either fails or sends.
    let mut client = new.client()?;
    let doubled = between(&old, &new, &unguarded).is_err()
        || client.query_one("SELECT count(*) FROM enough.q_orders", &[])?.get::<_, i64>(0) > 1;
    ensure!(doubled, "the option isn't needed");
    Ok(())
}

#[test]
fn the_schema_enough_alone() -> Result<()> {
    let (old, contents) = full()?;
    let new = empty()?;
    between(&old, &new, &commands("The schema enough")?)?;
    contents.have_moved_to(&new, Lost { other_schemas: true, ..NOTHING })
}

fn state(client: &mut Client, msg_id: i64) -> Result<String> {
    Ok(client.query_one("SELECT state FROM enough.queue_status('jobs', $1)", &[&msg_id])?.get(0))
}

#[test]
fn one_queue_alone() -> Result<()> {
    let (old, _) = full()?;
    let new = Database::new()?;
    between(&old, &new, &commands("One queue")?)?;
    let mut client = new.client()?;
    ensure!(queue::sorted_ids(&queue::read(&mut client, "jobs", 100)?) == [1, 2, 9]);
    for (msg_id, expected) in [(3, "delayed"), (4, "dead"), (5, "done"), (8, "ready"), (10, "dead")] {
        let found = state(&mut client, msg_id)?;
        ensure!(found == expected, "{msg_id} is {found}");
    }
    ensure!(queue::send(&mut client, "jobs", &json!(1))? > 10, "a number was given twice");
    let attempts: i32 =
        client.query_one("SELECT max_attempts FROM enough.queue_list() WHERE name = 'jobs'", &[])?.get(0);
    ensure!(attempts == 3, "the option that the page names is {attempts}");
    // No other queue has come along.
    let queues: i64 = client.query_one("SELECT count(*) FROM enough.queue_list()", &[])?.get(0);
    ensure!(queues == 1, "{queues} queues");
    Ok(())
}

#[test]
fn the_messages_of_one_queue_into_another_servers() -> Result<()> {
    let (old, _) = full()?;
    let new = Database::new()?;
    let mut client = new.client()?;
    client.batch_execute("SELECT enough.queue_create('jobs', max_attempts => 3)")?;
    // Readers there know that the queue is empty.
    ensure!(queue::read(&mut client, "jobs", 1)?.is_empty());
    between(&old, &new, &commands("The messages of one queue, into one that is there")?)?;
    let read = queue::sorted_ids(&queue::read(&mut client, "jobs", 100)?);
    ensure!(read == [1, 2, 9], "{read:?}");
    ensure!(state(&mut client, 5)? == "done");
    ensure!(queue::send(&mut client, "jobs", &json!(1))? > 10, "a number was given twice");
    Ok(())
}

/// Columns that an upgrade has added are the last ones there, and elsewhere in a new installation.
#[test]
fn a_dump_of_an_upgraded_database() -> Result<()> {
    let old = empty()?;
    old.client()?.batch_execute("CREATE EXTENSION pg_enough VERSION '0.1.0'; ALTER EXTENSION pg_enough UPDATE")?;
    let contents = Contents::make(&old)?;
    let new = empty()?;
    between(&old, &new, &commands("Dump, as SQL")?)?;
    contents.have_moved_to(&new, NOTHING)
}

/// A job of `pg_cron` names the server's port and the database, and so runs on the old server, until it is changed.
#[test]
fn schedules_come_along_and_are_pointed_at_the_new_server() -> Result<()> {
    let cron = || -> Result<_> {
        let options = options()?.preload("pg_cron").conf("cron.database_name", "app").conf("wal_level", "logical");
        let server = start(&options)?;
        server.client()?.batch_execute("CREATE DATABASE app")?;
        Ok(server)
    };
    let (old, new) = (cron()?, cron()?);
    let (source, target) = (Database::named(&old, "app"), Database::named(&new, "app"));
    source.client()?.batch_execute(
        "CREATE EXTENSION pg_enough; CREATE EXTENSION pg_cron; SELECT enough.queue_create('jobs'), \
         enough.queue_schedule('tick', '0 0 1 1 *', 'jobs', '1'), enough.maintenance_schedule('0 0 1 1 *')",
    )?;
    let dir = directory(&old)?;
    let urls = [("OLD", old.url_for("app", "postgres")), ("NEW", new.url_for("app", "postgres"))];
    for script in [commands("Dump, as SQL")?, commands("Schedules")?].concat() {
        run(&old, dir.path(), &script, &urls)?;
    }
    let mut client = target.client()?;
    let jobs: Vec<(String, i32)> = client
        .query("SELECT jobname::text, nodeport FROM cron.job WHERE database = 'app' ORDER BY 1", &[])?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    ensure!(jobs.len() == 2 && jobs.iter().all(|(_, port)| *port == i32::from(new.port())), "{jobs:?}");
    let listed: Vec<String> =
        client.query("SELECT name FROM enough.queue_schedules()", &[])?.iter().map(|row| row.get(0)).collect();
    ensure!(listed == ["tick"], "{listed:?}");
    // Further jobs get numbers of their own.
    client.batch_execute(
        "SELECT enough.queue_schedule('tock', '0 0 1 1 *', 'jobs', '1'), enough.maintenance_unschedule()",
    )?;
    Ok(())
}

/// The owner of a database with `pg_cron` in it, who is no superuser, may not read other roles' jobs.
#[test]
fn the_owner_dumps_without_the_schedules() -> Result<()> {
    let server = start(&options()?.preload("pg_cron").conf("cron.database_name", "app"))?;
    for statement in ["ROLE owner LOGIN", "DATABASE app OWNER owner", "DATABASE other OWNER owner"] {
        server.client()?.batch_execute(&format!("CREATE {statement}"))?;
    }
    let app = Database::named(&server, "app");
    app.client()?.batch_execute("CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO owner")?;
    app.client_as("owner")?.batch_execute(
        "CREATE EXTENSION pg_enough; SELECT enough.queue_create('jobs'), enough.queue_send('jobs', '1'), \
         enough.queue_schedule('tick', '0 0 1 1 *', 'jobs', '1')",
    )?;
    let dir = directory(&server)?;
    let urls = [("OLD", server.url_for("app", "owner")), ("NEW", server.url_for("other", "owner"))];
    let refused = run(&server, dir.path(), &commands("Dump, as SQL")?[0], &urls).err().context("a whole dump works")?;
    ensure!(format!("{refused:#}").contains("row-level security"), "{refused:#}");
    for script in commands("Without the schedules, by an owner")? {
        run(&server, dir.path(), &script, &urls)?;
    }
    let mut client = Database::named(&server, "other").client_as("owner")?;
    ensure!(queue::ids(&queue::read(&mut client, "jobs", 10)?) == [1]);
    Ok(())
}
