//! Messages whose consumers take the server down.

use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{self, made, read, receive, send_numbers};
use enough_pg_test::server::{self, Database, backend};
use postgres::Client;
use xtask::server::Server;

/// Reads the message, and takes the server down by its consumer; how many attempts the message said it had, `None` where
/// none came.
fn deliver_and_crash(server: &mut Server, database: &Database, within: &str) -> Result<Option<i32>> {
    let mut client = database.client()?;
    client.batch_execute(within)?;
    let read = read(&mut client, "q", 1)?;
    server.backend_kill9(backend(&mut client)?)?;
    server.wait_until_up()?;
    Ok(read.first().map(|message| message.attempts))
}

fn dead(client: &mut Client) -> Result<Vec<(i64, i32)>> {
    let rows = client.query("SELECT msg_id, attempts FROM enough.a_q WHERE outcome = 'dead' ORDER BY 1", &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[test]
fn attempts_outlive_a_crash_where_the_queue_notes_them() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    // Also where the executor has a say.
    let trigger = "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END'; \
                   CREATE TRIGGER t BEFORE UPDATE ON enough.q_q FOR EACH ROW EXECUTE FUNCTION t()";
    for extra in ["", trigger] {
        let database = Database::on(&server)?;
        let mut client = database.client()?;
        client.batch_execute("SELECT enough.queue_create('q', max_attempts => 3, durable_attempts => true)")?;
        client.batch_execute(extra)?;
        let sent = send_numbers(&mut client, "q", 2)?;
        drop(client);
        for attempt in 1..=3 {
            ensure!(deliver_and_crash(&mut server, &database, "")? == Some(attempt), "attempt {attempt}");
        }
        // It is dead, and the other one has its turn.
        let mut client = database.client()?;
        ensure!(queue::ids(&read(&mut client, "q", 9)?) == sent[1..]);
        ensure!(dead(&mut client)? == [(sent[0], 3)], "{:?}", dead(&mut client)?);
    }
    Ok(())
}

/// What the documents say of all others.
#[test]
fn elsewhere_the_first_delivery_is_forgotten_and_only_that() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', max_attempts => 3)")?;
    send_numbers(&mut client, "q", 1)?;
    drop(client);
    for _ in 0..3 {
        ensure!(deliver_and_crash(&mut server, &database, "")? == Some(1));
    }
    // A consumer that is at work in the reader's transaction takes the count with it, option or not.
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_alter('q', durable_attempts => true)")?;
    drop(client);
    for _ in 0..3 {
        ensure!(deliver_and_crash(&mut server, &database, "BEGIN")? == Some(1));
    }
    // From the second delivery on it counts.
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_alter('q', durable_attempts => false)")?;
    receive(&mut client, "queue_read('q', 1, '1 millisecond')")?;
    std::thread::sleep(std::time::Duration::from_millis(5));
    drop(client);
    ensure!(deliver_and_crash(&mut server, &database, "")? == Some(2));
    ensure!(deliver_and_crash(&mut server, &database, "")? == Some(3));
    let mut client = database.client()?;
    ensure!(read(&mut client, "q", 1)?.is_empty() && dead(&mut client)? == [(1, 3)]);
    Ok(())
}

#[test]
fn each_delivery_is_in_the_row() -> Result<()> {
    let (database, mut client, mut other) = made(", durable_attempts => true, retry_backoff => '0'")?;
    let sent = send_numbers(&mut client, "q", 3)?;
    let attempts = |client: &mut Client| -> Result<Vec<i32>> {
        let rows = client.query("SELECT attempts FROM enough.q_q ORDER BY msg_id", &[])?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    };
    client.batch_execute("BEGIN")?;
    let message = read(&mut client, "q", 1)?.remove(0);
    ensure!(attempts(&mut other)? == [0, 0, 0], "not before the reader commits");
    client.batch_execute("COMMIT")?;
    ensure!(attempts(&mut other)? == [1, 0, 0]);
    ensure!(queue::delete(&mut client, "q", sent[0], message.lease)?);
    // What somebody else is changing can't be noted, so it isn't delivered; and nobody waits.
    let mut holder = database.client()?;
    holder.batch_execute(&format!("BEGIN; SELECT FROM enough.q_q WHERE msg_id = {} FOR UPDATE", sent[1]))?;
    ensure!(queue::ids(&read(&mut client, "q", 9)?) == sent[2..]);
    holder.batch_execute("COMMIT")?;
    ensure!(queue::ids(&read(&mut client, "q", 9)?) == sent[1..2]);
    ensure!(attempts(&mut other)? == [1, 1]);
    client.batch_execute("BEGIN READ ONLY")?;
    refused(read(&mut client, "q", 1), "25006")?;
    client.batch_execute("ROLLBACK")?;
    let listed = "SELECT durable_attempts FROM enough.queue_list()";
    ensure!(client.query_one(listed, &[])?.get::<_, bool>(0));
    client.batch_execute("SELECT enough.queue_alter('q', durable_attempts => false)")?;
    ensure!(!client.query_one(listed, &[])?.get::<_, bool>(0));
    send_numbers(&mut client, "q", 1)?;
    read(&mut client, "q", 1)?;
    ensure!(attempts(&mut other)? == [1, 1, 0]);
    Ok(())
}
