//! A queue's table that is changed while a session, which knows how it was, waits for it.

use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue;
use enough_pg_test::server::{Database, backend};
use postgres::Client;

/// Lets `work` meet a lock on the queue's table that is held while `change` is made to it.
fn meanwhile(
    database: &Database,
    change: &str,
    work: impl FnOnce(&mut Client) -> Result<()> + Send + 'static,
) -> Result<Client> {
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute("SELECT enough.queue_create('q', retry_backoff => '0')")?;
    // Both know the table as it is now.
    for session in [&mut client, &mut other] {
        let sent = queue::send_numbers(session, "q", 2)?;
        ensure!(queue::read(session, "q", 2)?.len() == 2);
        for id in sent {
            queue::delete(session, "q", id, None)?;
        }
    }
    client.batch_execute(&format!("BEGIN; {change}"))?;
    let pid = i32::try_from(backend(&mut other)?)?;
    let working = std::thread::spawn(move || work(&mut other).map(|()| other));
    eventually("the other session waits", || {
        let waits = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        Ok(client.query_opt(waits, &[&pid])?.map(drop))
    })?;
    client.batch_execute("COMMIT")?;
    working.join().expect("the other session's thread")?;
    Ok(client)
}

#[test]
fn further_columns_are_met_by_a_batch() -> Result<()> {
    let database = Database::new()?;
    let columns =
        "ALTER TABLE enough.q_q ADD COLUMN a int, ADD COLUMN b int, ADD COLUMN c int, ADD COLUMN d int DEFAULT 7";
    let mut client = meanwhile(&database, columns, |other| {
        ensure!(queue::send_numbers(other, "q", 300)?.len() == 300);
        Ok(())
    })?;
    let sevens: i64 = client.query_one("SELECT count(*) FROM enough.q_q WHERE d = 7", &[])?.get(0);
    ensure!(sevens == 300);
    ensure!(queue::read(&mut client, "q", 300)?.len() == 300);
    Ok(())
}

#[test]
fn a_further_index_has_what_was_sent_meanwhile() -> Result<()> {
    let database = Database::new()?;
    let mut client = meanwhile(&database, "CREATE INDEX further ON enough.q_q (priority)", |other| {
        queue::send_numbers(other, "q", 1).map(drop).map_err(Into::into)
    })?;
    client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
    let by_index: i64 = client.query_one("SELECT count(*) FROM enough.q_q WHERE priority = 0", &[])?.get(0);
    ensure!(by_index == 1);
    Ok(())
}

#[test]
fn a_policy_keeps_out_what_is_sent_meanwhile() -> Result<()> {
    let database = Database::new()?;
    let role = database.role("sender");
    let mut client = database.client()?;
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA enough TO {role}"))?;
    let as_role = format!("SET ROLE {role}");
    let change = format!("GRANT INSERT ON enough.q_q TO {role}; ALTER TABLE enough.q_q ENABLE ROW LEVEL SECURITY");
    meanwhile(&database, &change, move |other| {
        other.batch_execute(&as_role)?;
        ensure!(queue::send_numbers(other, "q", 1).is_err(), "row security lets nothing in");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_column_that_must_not_be_null_is_the_executors() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q'); ALTER TABLE enough.q_q ALTER headers SET NOT NULL")?;
    ensure!(queue::send_numbers(&mut client, "q", 1).is_err());
    client.batch_execute("SELECT enough.queue_send('q', '1', headers => '{}')")?;
    ensure!(queue::read(&mut client, "q", 1)?.len() == 1);
    Ok(())
}
