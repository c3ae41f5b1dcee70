//! Reading with `wait`: who waits gets what comes, at once and each something else.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::PATIENCE;
use enough_pg_test::queue::{self, Message};
use enough_pg_test::server::{Database, backend, until_waiting};
use postgres::Client;
use serde_json::json;
use std::collections::BTreeSet;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A reader at work, and what it will have read.
type Reader = JoinHandle<Result<Vec<Message>, postgres::Error>>;

/// A reader in a thread of its own that sleeps already, and its server process.
pub(crate) fn sleeper(database: &Database, call: &str) -> Result<(Reader, u32)> {
    let mut client = database.client()?;
    let pid = backend(&mut client)?;
    let call = call.to_owned();
    let thread = thread::spawn(move || queue::receive(&mut client, &call));
    until_waiting(&mut database.client()?, pid)?;
    Ok((thread, pid))
}

fn made(options: &str) -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(&format!("SELECT enough.queue_create('q'{options})"))?;
    Ok((database, client))
}

/// Waits for a thread. The wait it was in is an hour, so that only a wake-up can end it in this time, or one of the looks that a
/// sleeper has now and then.
fn join<T>(thread: JoinHandle<T>) -> Result<T> {
    join_by(thread, Instant::now() + PATIENCE)
}

fn join_by<T>(thread: JoinHandle<T>, deadline: Instant) -> Result<T> {
    while !thread.is_finished() {
        ensure!(Instant::now() < deadline, "a reader was never woken");
        thread::sleep(Duration::from_millis(5));
    }
    thread.join().map_err(|_| anyhow::anyhow!("a reader panicked"))
}

#[test]
fn a_commit_wakes_a_waiting_reader() -> Result<()> {
    let (database, mut client) = made("")?;
    // For all of them: readers that looked by themselves would come to this in the third round at the latest.
    let deadline = Instant::now() + PATIENCE;
    for round in 0..20 {
        for call in ["queue_read('q', wait => '1 hour')", "queue_pop('q', wait => '1 hour')"] {
            let (reader, _) = sleeper(&database, call)?;
            let mut transaction = client.transaction()?;
            let sent = queue::send(&mut transaction, "q", &json!(round))?;
            transaction.commit()?;
            let read = join_by(reader, deadline)??;
            ensure!(queue::ids(&read) == [sent], "the reader got {read:?}");
        }
    }
    Ok(())
}

#[test]
fn a_message_that_rolls_back_reaches_nobody() -> Result<()> {
    let (database, mut client) = made("")?;
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    let mut transaction = client.transaction()?;
    let gone = queue::send(&mut transaction, "q", &json!("gone"))?;
    transaction.rollback()?;
    let sent = queue::send(&mut client, "q", &json!("comes"))?;
    ensure!(sent != gone);
    ensure!(queue::ids(&join(reader)??) == [sent]);
    Ok(())
}

#[test]
fn fifty_waiting_readers_get_one_message_each() -> Result<()> {
    const READERS: usize = 50;
    let (database, mut client) = made("")?;
    for batch in [true, false] {
        let readers = (0..READERS)
            .map(|_| sleeper(&database, "queue_read('q', wait => '1 hour')"))
            .collect::<Result<Vec<_>>>()?;
        if batch {
            queue::send_numbers(&mut client, "q", 50)?;
        } else {
            for number in 0..READERS {
                queue::send(&mut client, "q", &json!(number))?;
            }
        }
        let mut seen = BTreeSet::new();
        for (reader, _) in readers {
            let read = join(reader)??;
            ensure!(read.len() == 1, "a reader asked for one message and got {read:?}");
            ensure!(seen.insert(read[0].msg_id), "message {} went to two readers", read[0].msg_id);
        }
        ensure!(seen.len() == READERS);
    }
    ensure!(queue::stats(&mut client, "q")?.ready == 0);
    Ok(())
}

#[test]
fn a_reader_waits_for_what_becomes_due() -> Result<()> {
    let (database, mut client) = made(", retry_backoff => '200 milliseconds'")?;
    // A delay that ends.
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    client.batch_execute("SELECT enough.queue_send('q', '\"delayed\"', delay => '300 milliseconds')")?;
    let delayed = join(reader)??;
    ensure!(delayed.len() == 1 && delayed[0].attempts == 1, "{delayed:?}");
    ensure!(queue::delete(&mut client, "q", delayed[0].msg_id, delayed[0].lease)?);

    // A lease that runs out.
    let sent = queue::send(&mut client, "q", &json!("leased"))?;
    let first = queue::receive(&mut client, "queue_read('q', 1, '300 milliseconds')")?;
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    let second = join(reader)??;
    ensure!(queue::ids(&first) == [sent] && queue::ids(&second) == [sent] && second[0].attempts == 2, "{second:?}");

    // A lease that is given up, and one whose transaction rolls back.
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&sent])?;
    ensure!(join(reader)??[0].attempts == 3);
    client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&sent])?;
    let mut transaction = client.transaction()?;
    ensure!(queue::read(&mut transaction, "q", 1)?[0].attempts == 4);
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    transaction.rollback()?;
    ensure!(join(reader)??[0].attempts == 5);
    Ok(())
}

#[test]
fn a_delete_that_rolls_back_wakes_a_reader() -> Result<()> {
    let (database, mut client) = made("")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let mut transaction = client.transaction()?;
    ensure!(queue::delete(&mut transaction, "q", sent, None)?);
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    transaction.rollback()?;
    ensure!(queue::ids(&join(reader)??) == [sent]);
    Ok(())
}

#[test]
fn a_wait_that_ends_returns_no_rows() -> Result<()> {
    let (_, mut client) = made("")?;
    for call in ["queue_read('q', wait => '50 milliseconds')", "queue_pop('q', wait => '1 microsecond')"] {
        ensure!(queue::receive(&mut client, call)?.is_empty());
    }
    Ok(())
}

#[test]
fn waiting_readers_of_one_queue_do_not_see_another_ones_messages() -> Result<()> {
    let (database, mut client) = made("")?;
    client.batch_execute("SELECT enough.queue_create('other')")?;
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    queue::send(&mut client, "other", &json!(1))?;
    let sent = queue::send(&mut client, "q", &json!(2))?;
    ensure!(queue::ids(&join(reader)??) == [sent]);
    ensure!(queue::read(&mut client, "other", 10)?.len() == 1);
    Ok(())
}

#[test]
fn the_table_is_free_while_a_reader_waits() -> Result<()> {
    let (database, mut client) = made("")?;
    let (reader, _) = sleeper(&database, "queue_read('q', wait => '1 hour')")?;
    client.batch_execute("SET lock_timeout = '20 s'")?;
    client.batch_execute("VACUUM FULL enough.q_q")?;
    client.batch_execute(
        "TRUNCATE enough.q_q; ALTER TABLE enough.q_q ADD COLUMN note text; CREATE INDEX ON enough.q_q (priority)",
    )?;
    let sent = queue::send(&mut client, "q", &json!(1)).context("sending after the table was altered")?;
    ensure!(queue::ids(&join(reader)??) == [sent]);
    Ok(())
}

/// A statement sees other tables as of its start, however long it waits, so a row that comes with the message isn't there yet;
/// for the next statement it is.
#[test]
fn a_row_that_comes_with_the_message_is_there_for_the_next_statement() -> Result<()> {
    let (_database, mut client, mut reader) = queue::made(", visibility_timeout => '1 hour'")?;
    client.batch_execute("CREATE TABLE job (id int, title text); INSERT INTO job VALUES (0, 'old')")?;
    let pid = backend(&mut reader)?;
    for (id, call, rows) in [
        (1, "SELECT title FROM enough.queue_read('q', wait => '1 minute') AS m JOIN job ON id = m.message::int", 0),
        (2, "SELECT message FROM enough.queue_read('q', wait => '1 minute') AS m", 1),
    ] {
        let read = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| reader.query(call, &[]));
            until_waiting(&mut client, pid)?;
            client.batch_execute(&format!(
                "BEGIN; INSERT INTO job VALUES ({id}, 'new'); SELECT enough.queue_send('q', '{id}'); COMMIT"
            ))?;
            Ok::<_, anyhow::Error>(waiting.join().expect("the reader's thread")?)
        })?;
        ensure!(read.len() == rows, "{call}: {} rows", read.len());
        // Returned or not, the message is leased.
        ensure!(queue::stats(&mut client, "q")?.leased == id, "{call}");
    }
    let titles = reader.query("SELECT title FROM job WHERE id = 2", &[])?;
    ensure!(titles.len() == 1);
    Ok(())
}
