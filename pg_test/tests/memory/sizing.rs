//! The numbers of `docs/sizing.md`, measured; and that raising a size loses nothing durable.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, state};
use enough_pg_test::markdown::{blocks, sections};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use xtask::server::{Server, Shutdown};

const PAGE: &str = include_str!("../../../docs/sizing.md");

/// The number in the row of the page that begins so.
fn stated(what: &str) -> Result<f64> {
    let row = PAGE
        .lines()
        .find(|line| line.starts_with(&format!("| {what} |")))
        .with_context(|| format!("no row `{what}`"))?;
    let cell = row.split(" | ").nth(1).context("a second column")?;
    let number: String = cell.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    number.parse().with_context(|| format!("no number in {cell}"))
}

/// Fails unless the page says what was measured, to within a twentieth.
fn says(what: &str, measured: f64) -> Result<()> {
    let stated = stated(what)?;
    ensure!(
        (stated - measured).abs() <= measured / 20.0,
        "{what}: docs/sizing.md says {stated}, measured are {measured:.1}"
    );
    Ok(())
}

fn on(options: &[(&str, &str)]) -> Result<(Server, Database, Client)> {
    let options = options.iter().fold(server::options()?, |all, (name, value)| all.conf(name, value));
    let server = server::start(&options)?;
    let database = Database::on(&server)?;
    let client = database.client()?;
    Ok((server, database, client))
}

fn number(client: &mut Client, sql: &str) -> Result<f64> {
    Ok(client.query_one(&format!("SELECT ({sql})::float8"), &[])?.get(0))
}

#[test]
fn a_message_in_flight_and_a_queue_take_what_the_page_says() -> Result<()> {
    let (_server, _, mut client) = on(&[("enough.queue_memory", "1MB")])?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    for _ in 0..2 {
        queue::send_numbers(&mut client, "q", 8000)?;
    }
    let mut leased = 0_u32;
    loop {
        match queue::read(&mut client, "q", 100) {
            Ok(messages) => leased += u32::try_from(messages.len())?,
            Err(error) if state(&error) == "53400" => break,
            Err(error) => return Err(error.into()),
        }
        ensure!(leased < 16_000, "{leased} leases fit");
    }
    let message = says("a message in flight", f64::from(1 << 20) / f64::from(leased));
    // As many queues as fit. Each has a place of its own, however many messages there are.
    let mut queues = 1;
    loop {
        client.batch_execute(&format!("SELECT enough.queue_create('q{queues}')"))?;
        match client.batch_execute(&format!("SELECT enough.queue_send('q{queues}', '1')")) {
            Ok(()) => queues += 1,
            Err(error) if state(&error) == "55000" => break,
            Err(error) => return Err(error.into()),
        }
        ensure!(queues < 1000, "{queues} queues fit");
    }
    says("a queue", f64::from(1 << 20) / f64::from(queues))?;
    message
}

#[test]
fn an_entry_of_the_cache_takes_what_the_page_says() -> Result<()> {
    let (_server, _, mut client) = on(&[])?;
    let mut wrong = Vec::new();
    for (what, bytes, tags) in [
        ("an entry of 10 bytes", 10, "NULL"),
        ("an entry of 100 bytes", 100, "NULL"),
        ("an entry of 1000 bytes", 1000, "NULL"),
        ("an entry of 100 bytes with a tag", 100, "ARRAY['tag']"),
    ] {
        client.batch_execute("SELECT enough.cache_clear()")?;
        client.batch_execute("SELECT enough.maintain()")?;
        let before = number(&mut client, "SELECT bytes_used FROM enough.cache_stats()")?;
        client.batch_execute(&format!(
            "SELECT enough.cache_set_bytes('key' || n, convert_to(repeat('x', {bytes}), 'UTF8'), tags => {tags}) FROM generate_series(1, 1000) AS n"
        ))?;
        let after = number(&mut client, "SELECT bytes_used FROM enough.cache_stats()")?;
        wrong.extend(says(what, (after - before) / 1000.0).err().map(|error| error.to_string()));
    }
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

#[test]
fn a_key_of_the_limiter_takes_what_the_page_says() -> Result<()> {
    let (_server, _, mut client) = on(&[("enough.rate_limit_memory", "1MB")])?;
    client.batch_execute(
        "SELECT count(*) FROM generate_series(1, 40000) AS n, enough.rate_limit('key' || n, 1, '1 hour')",
    )?;
    // What of the memory holds nothing else, with all places taken.
    let sql = "SELECT bytes_max::float8 / keys FROM enough.rate_limit_stats() WHERE policy IS NULL AND evictions > 0";
    says("a key of the limiter", number(&mut client, sql)?)
}

#[test]
fn a_semaphore_takes_what_the_page_says() -> Result<()> {
    let (_server, _, mut client) = on(&[])?;
    let mut grows = |name: &str, holders: i32| -> Result<f64> {
        let used = "SELECT bytes_used::float8 FROM enough.semaphore_stats()";
        let before = number(&mut client, used)?;
        client.batch_execute(&format!(
            "SELECT enough.semaphore_acquire({name}, {holders}, '1 hour') FROM generate_series(1, 100) AS n"
        ))?;
        Ok((number(&mut client, used)? - before) / 100.0)
    };
    says("a semaphore with one holder", grows("'a name of usual length ' || n", 1)?)?;
    // Only the first of these gets it; then 100 more do.
    grows("'shared'", 1)?;
    says("a further holder, or one that waits", grows("'shared'", 101)?)
}

#[test]
fn all_of_the_defaults_take_what_the_page_says() -> Result<()> {
    let (_server, _, mut client) = on(&[])?;
    let bytes = number(&mut client, "SELECT value::float8 FROM enough.status() WHERE item = 'segment_bytes'")?;
    says("all of the defaults", bytes / f64::from(1 << 20))
}

/// The statements under "Raising a size", run as they are shown: what is durable is there afterwards.
#[test]
fn raising_a_size_loses_nothing_durable() -> Result<()> {
    let (mut server, database, mut client) =
        on(&[("enough.queue_memory", "64kB"), ("enough.rate_limit_memory", "64kB")])?;
    client.batch_execute(
        "SELECT enough.queue_create('q', visibility_timeout => '1 hour', max_attempts => 1, archive_for => '1 day'); \
         SELECT enough.rate_limit_policy_set('p', 7, '1 hour'); SELECT enough.topic_subscribe('a.#', 'q')",
    )?;
    queue::send_numbers(&mut client, "q", 3000)?;
    let read = queue::read(&mut client, "q", 3)?;
    client.execute("SELECT enough.queue_archive('q', $1)", &[&read[0].msg_id])?;
    client.execute("SELECT enough.queue_fail('q', $1, 'no')", &[&read[1].msg_id])?;
    client.batch_execute("SELECT enough.queue_send('q', '1', delay => '1 hour')")?;
    let kept = "SELECT ready + leased + delayed || ' ' || delayed || ' ' || dead || ' ' || archived || ' ' || \
                (SELECT max_requests FROM enough.rate_limit_policy) || (SELECT topic_pattern FROM enough.topic_subscription) \
                FROM enough.queue_stats('q')";
    let before: String = client.query_one(kept, &[])?.get(0);
    let (_, section) =
        sections(PAGE).into_iter().find(|(title, _)| *title == "Raising a size").context("no section")?;
    let statements: Vec<String> =
        blocks(section).into_iter().filter(|(tag, _)| *tag == "sql").map(|(_, sql)| sql).collect();
    ensure!(statements.len() == 2, "what to do before the restart, and what shows afterwards that it has worked");
    for statement in statements[0].lines() {
        client.batch_execute(statement).with_context(|| statement.to_owned())?;
    }
    // It says what waits for the restart.
    eventually("the settings were read", || {
        let waits: String =
            client.query_one("SELECT value FROM enough.status() WHERE item = 'pending_restart'", &[])?.get(0);
        Ok((waits == "enough.queue_memory, enough.rate_limit_memory").then_some(()))
    })?;
    server.restart(Shutdown::Fast)?;
    let mut client = Database::named(&server, &database.name).client()?;
    let shown = client.query(&statements[1], &[])?;
    let shown: Vec<(&str, &str)> = shown.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(
        shown
            == [
                ("rate_limit_memory_bytes", "33554432"),
                ("queue_memory_bytes", "67108864"),
                ("pending_restart", "none")
            ]
            || shown
                == [
                    ("queue_memory_bytes", "67108864"),
                    ("rate_limit_memory_bytes", "33554432"),
                    ("pending_restart", "none")
                ],
        "{shown:?}"
    );
    let after: String = client.query_one(kept, &[])?.get(0);
    ensure!(after == before, "{before} became {after}");
    // All of it can be read now, in one transaction: more than the former size held.
    ensure!(queue::read(&mut client, "q", 2998)?.len() == 2998, "the messages");
    Ok(())
}
