//! Dead letter queues.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{made, read, receive, send, stats};
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::{Value, json};

/// A queue `q` whose dead letters go to `dead`.
fn with_letters(options: &str) -> Result<(Database, Client, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(&format!(
        "SELECT enough.queue_create('dead'); SELECT enough.queue_create('q', dead_letter_queue => 'dead'{options})"
    ))?;
    let other = database.client()?;
    Ok((database, client, other))
}

fn fail(client: &mut Client, queue: &str, msg_id: i64, error: &str) -> Result<()> {
    Ok(client.batch_execute(&format!("SELECT enough.queue_fail('{queue}', {msg_id}, '{error}', dead => true)"))?)
}

/// What the dead letter queue holds: header and payload.
fn letters(client: &mut Client) -> Result<Vec<(Value, Value)>> {
    let messages = read(client, "dead", 100)?;
    Ok(messages.into_iter().map(|one| (one.headers.unwrap_or_default(), one.message)).collect())
}

#[test]
fn whatever_a_message_dies_of_its_letter_says_so() -> Result<()> {
    let (_database, mut client, mut worker) = with_letters(", max_attempts => 2, retry_backoff => '0'")?;
    let id: i64 = client
        .query_one(
            r#"SELECT enough.queue_send('q', '"a"', priority => 4, group_key => 'g', dedup_key => 'd', headers => '{"trace": 7}')"#,
            &[],
        )?
        .get(0);
    fail(&mut client, "q", id, "why")?;
    let row = client.query_one(
        "SELECT headers, message, priority, group_key, attempts, msg_id FROM enough.queue_read('dead')",
        &[],
    )?;
    let letter = json!({"source": "q", "msg_id": id, "error": "why", "attempts": 0, "dedup_key": "d"});
    ensure!(row.get::<_, Value>(0) == json!({"trace": 7, "dead_letter": letter}), "{:?}", row.get::<_, Value>(0));
    ensure!(row.get::<_, Value>(1) == json!("a") && row.get::<_, i16>(2) == 4 && row.get::<_, &str>(3) == "g");
    ensure!(row.get::<_, i32>(4) == 1);
    // By lease: a reader that comes by buries it. The archive has it as well.
    let id = send(&mut client, "q", &json!("b"))?;
    for _ in 0..2 {
        ensure!(receive(&mut worker, "queue_read('q', 1, '1 ms', wait => '10 s')")?.len() == 1);
    }
    enough_pg_test::check::eventually("it is buried", || {
        read(&mut client, "q", 1)?;
        Ok((stats(&mut client, "dead")?.ready == 1).then_some(()))
    })?;
    let got = letters(&mut client)?;
    let letter =
        json!({"source": "q", "msg_id": id, "error": "its last lease ran out", "attempts": 2, "dedup_key": null});
    ensure!(got == [(json!({"dead_letter": letter}), json!("b"))], "{got:?}");
    ensure!(stats(&mut client, "q")?.dead == 2);
    // What is done goes nowhere. Headers that are no object are kept.
    client.batch_execute("SELECT enough.queue_archive('q', enough.queue_send('q', '1'))")?;
    let id: i64 = client.query_one("SELECT enough.queue_send('q', '1', headers => '[1]')", &[])?.get(0);
    fail(&mut client, "q", id, "x")?;
    let got = letters(&mut client)?;
    ensure!(got.len() == 1 && got[0].0["headers"] == json!([1]) && got[0].0["dead_letter"]["error"] == "x", "{got:?}");
    Ok(())
}

#[test]
fn the_letter_comes_with_the_death_and_not_without() -> Result<()> {
    let (_database, mut client, mut other) = with_letters("")?;
    let ids = [send(&mut client, "q", &json!(1))?, send(&mut client, "q", &json!(2))?];
    client.batch_execute("BEGIN")?;
    fail(&mut client, "q", ids[0], "x")?;
    client.batch_execute("SAVEPOINT s")?;
    fail(&mut client, "q", ids[1], "x")?;
    client.batch_execute("ROLLBACK TO s")?;
    ensure!(stats(&mut other, "dead")?.ready == 0 && letters(&mut other)?.is_empty());
    client.batch_execute("COMMIT")?;
    let got = letters(&mut other)?;
    ensure!(got.len() == 1 && got[0].1 == json!(1), "{got:?}");
    ensure!(stats(&mut client, "q")?.ready == 1);
    Ok(())
}

const FAIL_ALL: &str =
    "SELECT enough.queue_fail_batch('q', array_agg(msg_id), dead => true) FROM enough.queue_read('q', 10000)";

#[test]
fn two_deaths_of_one_key_are_two_letters_and_thousands_are_thousands() -> Result<()> {
    let (_database, mut client, _) = with_letters("")?;
    for _ in 0..2 {
        client.batch_execute("SELECT enough.queue_send('q', '1', dedup_key => 'd')")?;
        client.batch_execute(FAIL_ALL)?;
    }
    ensure!(letters(&mut client)?.len() == 2);
    client.batch_execute("SELECT enough.queue_send('q', '1') FROM generate_series(1, 3000)")?;
    client.batch_execute(FAIL_ALL)?;
    ensure!(stats(&mut client, "dead")?.ready == 3000);
    Ok(())
}

/// Lets a message of `q` die; the WARNINGs that came.
fn death(database: &Database) -> Result<Vec<String>> {
    let warnings = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&warnings);
    let mut config = database.config().clone();
    config.notice_callback(move |notice| {
        if let Ok(mut heard) = heard.lock() {
            heard.push(format!("{} {}", notice.code().code(), notice.message()));
        }
    });
    let mut client = config.connect(postgres::NoTls)?;
    let id = send(&mut client, "q", &json!(1))?;
    fail(&mut client, "q", id, "x")?;
    let state: String = client.query_one("SELECT state FROM enough.queue_status('q', $1)", &[&id])?.get(0);
    ensure!(state == "dead", "{state}");
    drop(client);
    let warnings = warnings.lock().ok().context("a lock")?.clone();
    Ok(warnings)
}

#[test]
fn a_letter_that_can_not_be_sent_keeps_nothing_alive() -> Result<()> {
    let (database, mut client, _) = with_letters("")?;
    ensure!(death(&database)?.is_empty());
    client.batch_execute("ALTER TABLE enough.q_dead ADD CHECK (message <> '1') NOT VALID")?;
    let warnings = death(&database)?;
    ensure!(
        warnings.len() == 1 && warnings[0].starts_with("23514") && warnings[0].contains("dead letter"),
        "{warnings:?}"
    );
    // The tables have gone by hand.
    client.batch_execute("DROP TABLE enough.q_dead")?;
    let warnings = death(&database)?;
    ensure!(warnings.len() == 1 && warnings[0].contains("\"dead\""), "{warnings:?}");
    ensure!(stats(&mut client, "q")?.dead == 3);
    Ok(())
}

fn destination(client: &mut Client) -> Result<Option<String>> {
    Ok(client.query_one("SELECT dead_letter_queue FROM enough.queue_list() WHERE name = 'q'", &[])?.get(0))
}

#[test]
fn it_follows_its_queue_and_every_session_goes_by_it() -> Result<()> {
    let (database, mut client, mut worker) = with_letters("")?;
    let mut died = |client: &mut Client| -> Result<()> {
        let id = send(client, "q", &json!(1))?;
        fail(&mut worker, "q", id, "x")
    };
    died(&mut client)?;
    client.batch_execute("SELECT enough.queue_rename('dead', 'letters')")?;
    ensure!(destination(&mut client)?.as_deref() == Some("letters"));
    died(&mut client)?;
    ensure!(stats(&mut client, "letters")?.ready == 2);
    client.batch_execute(
        "SELECT enough.queue_create('third'); SELECT enough.queue_alter('q', dead_letter_queue => 'third')",
    )?;
    died(&mut client)?;
    ensure!(stats(&mut client, "letters")?.ready == 2 && stats(&mut client, "third")?.ready == 1);
    // Another option leaves it, a rollback too.
    client.batch_execute("SELECT enough.queue_alter('q', max_attempts => 7); BEGIN; SELECT enough.queue_alter('q', dead_letter_queue => ''); ROLLBACK")?;
    died(&mut client)?;
    ensure!(stats(&mut client, "third")?.ready == 2);
    client.batch_execute("SELECT enough.queue_alter('q', dead_letter_queue => '')")?;
    ensure!(destination(&mut client)?.is_none());
    died(&mut client)?;
    ensure!(stats(&mut client, "third")?.ready == 2);
    client.batch_execute(
        "SELECT enough.queue_alter('q', dead_letter_queue => 'third'); SELECT enough.queue_drop('third')",
    )?;
    ensure!(destination(&mut client)?.is_none());
    ensure!(death(&database)?.is_empty());
    Ok(())
}

#[test]
fn no_letter_comes_back_to_where_it_died() -> Result<()> {
    let (_database, mut client, _) = with_letters("")?;
    client.batch_execute(
        "SELECT enough.queue_create('last'); SELECT enough.queue_alter('dead', dead_letter_queue => 'last')",
    )?;
    for (queue, to) in [("q", "q"), ("dead", "q"), ("last", "q"), ("last", "dead")] {
        let call = format!("SELECT enough.queue_alter('{queue}', dead_letter_queue => '{to}')");
        refused(client.batch_execute(&call), "22023").with_context(|| call)?;
    }
    refused(client.batch_execute("SELECT enough.queue_create('new', dead_letter_queue => 'nope')"), "42704")?;
    refused(client.batch_execute("SELECT enough.queue_alter('q', dead_letter_queue => 'nope')"), "42704")?;
    // A chain is walked step by step.
    let id = send(&mut client, "q", &json!(1))?;
    fail(&mut client, "q", id, "first")?;
    let id = read(&mut client, "dead", 1)?[0].msg_id;
    fail(&mut client, "dead", id, "second")?;
    let headers = read(&mut client, "last", 1)?[0].headers.clone().unwrap_or_default();
    ensure!(headers["dead_letter"]["source"] == "dead" && headers["dead_letter"]["error"] == "second", "{headers}");
    Ok(())
}

#[test]
fn the_tables_owner_sends_them_whoever_the_consumer_is() -> Result<()> {
    let (database, mut client, _) = made("")?;
    let (owner, consumer) = (database.role("owner"), database.role("consumer"));
    client.batch_execute(&format!(
        "CREATE ROLE {owner} LOGIN; CREATE ROLE {consumer} LOGIN; SELECT enough.queue_create('dead');
         GRANT CREATE ON SCHEMA enough TO {owner}"
    ))?;
    let mut owns = database.client_as(&owner)?;
    let create = "SELECT enough.queue_create('own', dead_letter_queue => 'dead')";
    refused(owns.batch_execute(create), "42501")?;
    client.batch_execute(&format!("SELECT enough.queue_grant('dead', '{owner}', 'send')"))?;
    owns.batch_execute(&format!("{create}; SELECT enough.queue_grant('own', '{consumer}', 'consume')"))?;
    let id = send(&mut owns, "own", &json!(1))?;
    let mut consumes = database.client_as(&consumer)?;
    fail(&mut consumes, "own", id, "x")?;
    ensure!(letters(&mut client)?.len() == 1);
    // An operator's alteration is checked by the owner's right as well.
    client.batch_execute(&format!("SELECT enough.queue_revoke('dead', '{owner}', 'send')"))?;
    refused(client.batch_execute("SELECT enough.queue_alter('own', dead_letter_queue => 'dead')"), "42501")?;
    Ok(())
}
