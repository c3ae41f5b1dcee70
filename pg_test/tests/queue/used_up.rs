//! Messages that have been delivered as often as they may be, and whose last lease is over: they hold nothing.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, state};
use enough_pg_test::queue::{self, Message, ids, made, receive, send_numbers, stats};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};
use xtask::server::Shutdown;

/// A queue whose messages may be delivered once.
const ONCE: &str = ", max_attempts => 1, retry_backoff => '0'";

fn send(client: &mut Client, arguments: &str) -> Result<i64> {
    Ok(client.query_one(&format!("SELECT enough.queue_send('q', {arguments})"), &[])?.get(0))
}

/// Reads up to `qty` messages whose leases run out at once.
fn use_up(client: &mut Client, qty: usize) -> Result<Vec<Message>> {
    let read = receive(client, &format!("queue_read('q', {qty}, '1 millisecond')"))?;
    thread::sleep(Duration::from_millis(5));
    Ok(read)
}

fn numbers(client: &mut Client, statement: &str) -> Result<Vec<i64>> {
    Ok(client.query(statement, &[])?.iter().map(|row| row.get(0)).collect())
}

fn live(client: &mut Client) -> Result<Vec<i64>> {
    numbers(client, "SELECT msg_id FROM enough.q_q ORDER BY 1")
}

fn dead(client: &mut Client) -> Result<Vec<i64>> {
    numbers(client, "SELECT msg_id FROM enough.a_q WHERE outcome = 'dead' ORDER BY 1")
}

fn maintain(client: &mut Client) -> Result<i64> {
    let done = client.query_one("SELECT items FROM enough.maintain() WHERE task = 'queue_bury'", &[])?;
    Ok(done.get(0))
}

#[test]
fn a_dedup_key_is_free_for_the_next_message() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let first = send(&mut client, "'1', dedup_key => 'a'")?;
    let leased = receive(&mut client, "queue_read('q', 1, '150 milliseconds')")?;
    ensure!(ids(&leased) == [first]);
    ensure!(send(&mut client, "'2', dedup_key => 'a'")? == first, "while its last lease runs it is live");
    thread::sleep(Duration::from_millis(200));
    let second = send(&mut client, "'2', dedup_key => 'a'")?;
    ensure!(second > first);
    ensure!(live(&mut client)? == [second] && dead(&mut client)? == [first]);
    ensure!(send(&mut client, "'3', dedup_key => 'a'")? == second);
    ensure!(ids(&queue::read(&mut client, "q", 9)?) == [second]);
    ensure!(!queue::delete(&mut client, "q", first, leased[0].lease)?);
    Ok(())
}

#[test]
fn the_dedup_keys_of_a_batch_are_free() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let batch = "SELECT * FROM enough.queue_send_batch('q', ARRAY['1', '2', '3', '4', '5']::jsonb[], \
                 dedup_keys => ARRAY['a', NULL, 'b', 'a', 'c'])";
    let first = numbers(&mut client, batch)?;
    ensure!(first[0] == first[3]);
    ensure!(use_up(&mut client, 3)?.len() == 3);
    let second = numbers(&mut client, batch)?;
    ensure!(second[0] == second[3] && second[0] > first[4] && second[2] > first[4], "{second:?}");
    ensure!(second[4] == first[4], "this one was not delivered");
    ensure!(dead(&mut client)? == [first[0], first[2]], "the one without a key is for the next reader");
    ensure!(queue::sorted_ids(&queue::read(&mut client, "q", 9)?) == [first[4], second[0], second[1], second[2]]);
    ensure!(dead(&mut client)? == first[..3]);
    Ok(())
}

#[test]
fn the_next_of_a_group_comes_in_the_same_call() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let first = send(&mut client, "'1', group_key => 'g'")?;
    let second = send(&mut client, "'2', group_key => 'g'")?;
    ensure!(ids(&use_up(&mut client, 2)?) == [first]);
    let begun = Instant::now();
    ensure!(ids(&receive(&mut client, "queue_read('q', wait => '3 s')")?) == [second]);
    ensure!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    ensure!(dead(&mut client)? == [first]);
    Ok(())
}

#[test]
fn one_that_runs_out_while_a_reader_waits_lets_its_group_go_on() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let first = send(&mut client, "'1', group_key => 'g'")?;
    let second = send(&mut client, "'2', group_key => 'g'")?;
    ensure!(ids(&receive(&mut client, "queue_read('q', 2, '300 milliseconds')")?) == [first]);
    ensure!(ids(&receive(&mut client, "queue_pop('q', wait => '10 s')")?) == [second]);
    ensure!(dead(&mut client)? == [first] && live(&mut client)?.is_empty());
    Ok(())
}

#[test]
fn maintenance_buries_without_a_reader() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let sent = send_numbers(&mut client, "q", 400)?;
    stats(&mut client, "q")?;
    ensure!(use_up(&mut client, 300)?.len() == 300);
    let held = stats(&mut client, "q")?;
    ensure!((held.ready, held.leased, held.delayed, held.dead) == (100, 0, 0, 300), "{held:?}");
    let row = client.query_one("SELECT state, attempts, error FROM enough.queue_status('q', $1)", &[&sent[0]])?;
    ensure!((row.get::<_, &str>(0), row.get::<_, i32>(1)) == ("dead", 1), "{row:?}");
    ensure!(row.get::<_, &str>(2) == "its last lease ran out");
    let peeked = numbers(&mut client, "SELECT msg_id FROM enough.queue_peek('q', 1000)")?;
    ensure!(peeked == sent[300..], "{} are shown as ready", peeked.len());
    ensure!(maintain(&mut client)? == 300);
    ensure!(dead(&mut client)? == sent[..300] && live(&mut client)? == sent[300..]);
    ensure!(stats(&mut client, "q")? == held);
    ensure!(maintain(&mut client)? == 0);
    Ok(())
}

#[test]
fn a_redrive_takes_those_that_nobody_has_buried_yet() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let sent = send_numbers(&mut client, "q", 3)?;
    ensure!(use_up(&mut client, 2)?.len() == 2);
    let one = numbers(&mut client, &format!("SELECT enough.queue_redrive('q', ARRAY[{}]::bigint[])", sent[1]))?;
    ensure!(one == [1]);
    ensure!(dead(&mut client)? == sent[..1]);
    ensure!(numbers(&mut client, "SELECT enough.queue_redrive('q')")? == [1]);
    let now = stats(&mut client, "q")?;
    ensure!((now.ready, now.leased, now.dead) == (3, 0, 0), "{now:?}");
    let read = queue::read(&mut client, "q", 9)?;
    ensure!(queue::sorted_ids(&read) == sent && read.iter().all(|message| message.attempts == 1), "{read:?}");
    Ok(())
}

#[test]
fn however_many_stand_before_it_a_message_is_delivered() -> Result<()> {
    for (arguments, call) in [("", "queue_read('q')"), (", priority => 9", "queue_pop('q')")] {
        let (_database, mut client, _) = made(ONCE)?;
        let many = format!(
            "SELECT * FROM enough.queue_send_batch('q', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 1500) n){arguments})"
        );
        let used = numbers(&mut client, &many)?;
        ensure!(use_up(&mut client, 1500)?.len() == 1500);
        let good = send(&mut client, "'good'".replace("good", "1").as_str())?;
        ensure!(ids(&receive(&mut client, call)?) == [good], "{call}");
        eventually("all are buried, by readers", || {
            ensure!(queue::read(&mut client, "q", 1)?.is_empty());
            Ok((dead(&mut client)?.len() == used.len()).then_some(()))
        })?;
        let now = stats(&mut client, "q")?;
        ensure!((now.ready, now.dead) == (0, 1500), "{now:?}");
    }
    Ok(())
}

#[test]
fn every_group_goes_on_at_once() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let batch = "SELECT * FROM enough.queue_send_batch('q', (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 200) n), \
                 group_keys => (SELECT array_agg('g' || n % 50) FROM generate_series(1, 200) n))";
    let sent = numbers(&mut client, batch)?;
    for round in 0..4 {
        let read = use_up(&mut client, 200)?;
        let due = &sent[round * 50..(round + 1) * 50];
        ensure!(queue::sorted_ids(&read) == due, "round {round}: {:?}", queue::sorted_ids(&read));
    }
    ensure!(use_up(&mut client, 200)?.is_empty());
    ensure!(dead(&mut client)? == sent);
    Ok(())
}

#[test]
fn neither_a_pause_nor_a_limit_keeps_them() -> Result<()> {
    let (_database, mut client, _) = made(&format!("{ONCE}, max_in_flight => 1"))?;
    let first = send(&mut client, "'1', dedup_key => 'a'")?;
    let second = send(&mut client, "'2', dedup_key => 'b'")?;
    ensure!(ids(&use_up(&mut client, 9)?) == [first]);
    client.batch_execute("SELECT enough.queue_pause('q')")?;
    let third = send(&mut client, "'3', dedup_key => 'a'")?;
    ensure!(dead(&mut client)? == [first]);
    client.batch_execute("SELECT enough.queue_resume('q')")?;
    ensure!(ids(&use_up(&mut client, 9)?) == [second], "one in flight");
    client.batch_execute("SELECT enough.queue_pause('q')")?;
    ensure!(maintain(&mut client)? == 1 && dead(&mut client)? == [first, second]);
    client.batch_execute("SELECT enough.queue_resume('q')")?;
    ensure!(ids(&queue::read(&mut client, "q", 9)?) == [third]);
    Ok(())
}

#[test]
fn a_reader_that_must_not_write_goes_on_to_the_next() -> Result<()> {
    for begin in ["BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"] {
        let (_database, mut client, mut other) = made(ONCE)?;
        let first = send(&mut client, "'1', group_key => 'g'")?;
        let second = send(&mut client, "'2', group_key => 'g'")?;
        ensure!(ids(&use_up(&mut client, 9)?) == [first]);
        other.batch_execute(begin)?;
        let read = receive(&mut other, "queue_read('q', wait => '3 s')")?;
        ensure!(ids(&read) == [second], "{begin}");
        ensure!(receive(&mut other, "queue_read('q', wait => '20 milliseconds')")?.is_empty());
        other.batch_execute("COMMIT")?;
        ensure!(dead(&mut client)?.is_empty());
        ensure!(queue::read(&mut client, "q", 9)?.is_empty());
        ensure!(dead(&mut client)? == [first] && live(&mut client)? == [second], "{begin}");
    }
    Ok(())
}

#[test]
fn a_fixed_snapshot_buries_what_it_shows_and_leaves_the_rest() -> Result<()> {
    let (_database, mut client, mut other) = made(", max_attempts => 2, retry_backoff => '0'")?;
    let sent = send_numbers(&mut client, "q", 1)?;
    other.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM enough.q_q")?;
    // The second delivery makes another version of the row, which the old snapshot doesn't show.
    ensure!(use_up(&mut client, 1)?.len() == 1 && use_up(&mut client, 1)?.len() == 1);
    ensure!(receive(&mut other, "queue_read('q', wait => '20 milliseconds')")?.is_empty());
    other.batch_execute("COMMIT")?;
    ensure!(dead(&mut client)?.is_empty());
    other.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
    ensure!(queue::read(&mut other, "q", 9)?.is_empty());
    other.batch_execute("COMMIT")?;
    ensure!(dead(&mut client)? == sent);
    Ok(())
}

#[test]
fn a_row_that_another_transaction_has_locked_hinders_nobody() -> Result<()> {
    let (database, mut client, mut other) = made(ONCE)?;
    let first = send(&mut client, "'1', group_key => 'g', dedup_key => 'a'")?;
    let second = send(&mut client, "'2', group_key => 'g'")?;
    let third = send(&mut client, "'3'")?;
    ensure!(ids(&use_up(&mut client, 1)?) == [first]);
    let mut holder = database.client()?;
    holder.batch_execute(&format!("BEGIN; SELECT FROM enough.q_q WHERE msg_id = {first} FOR UPDATE"))?;
    other.batch_execute("SET lock_timeout = '2s'")?;
    ensure!(queue::sorted_ids(&queue::read(&mut other, "q", 9)?) == [second, third]);
    ensure!(maintain(&mut other)? == 0);
    let waits = other.query("SELECT enough.queue_send('q', '4', dedup_key => 'a')", &[]);
    ensure!(waits.is_err_and(|error| state(&error) == "55P03"), "the sender wants its key, and waits");
    holder.batch_execute("COMMIT")?;
    let fourth = send(&mut other, "'4', dedup_key => 'a'")?;
    ensure!(dead(&mut client)? == [first] && live(&mut client)? == [second, third, fourth]);
    Ok(())
}

#[test]
fn two_senders_at_once_bury_once() -> Result<()> {
    for commit in [true, false] {
        let (_database, mut client, mut other) = made(ONCE)?;
        let first = send(&mut client, "'1', dedup_key => 'a'")?;
        ensure!(use_up(&mut client, 1)?.len() == 1);
        client.batch_execute("BEGIN")?;
        let second = send(&mut client, "'2', dedup_key => 'a'")?;
        let waits = thread::spawn(move || -> Result<(i64, Client)> {
            let sent = send(&mut other, "'3', dedup_key => 'a'")?;
            Ok((sent, other))
        });
        thread::sleep(Duration::from_millis(100));
        client.batch_execute(if commit { "COMMIT" } else { "ROLLBACK" })?;
        let (third, _other) = waits.join().expect("the other sender's thread")?;
        ensure!((third == second) == commit, "{first} {second} {third}");
        ensure!(live(&mut client)? == [third] && dead(&mut client)? == [first]);
        let now = stats(&mut client, "q")?;
        ensure!((now.ready, now.leased, now.dead) == (1, 0, 1), "{now:?}");
        ensure!(ids(&queue::read(&mut client, "q", 9)?) == [third]);
    }
    Ok(())
}

#[test]
fn a_burial_that_is_rolled_back_comes_again() -> Result<()> {
    let (_database, mut client, mut other) = made(ONCE)?;
    let first = send(&mut client, "'1', group_key => 'g'")?;
    let second = send(&mut client, "'2', group_key => 'g'")?;
    stats(&mut client, "q")?;
    ensure!(ids(&use_up(&mut client, 9)?) == [first]);
    for _ in 0..3 {
        client.batch_execute("BEGIN; SAVEPOINT s")?;
        // Nothing but the first is used up yet, or else both are.
        let read = queue::read(&mut client, "q", 9)?;
        ensure!(read.is_empty() || ids(&read) == [second], "{read:?}");
        ensure!(dead(&mut client)?.contains(&first));
        ensure!(queue::read(&mut other, "q", 9)?.is_empty());
        client.batch_execute("ROLLBACK TO s; COMMIT")?;
        ensure!(dead(&mut client)?.is_empty());
        let now = stats(&mut client, "q")?;
        ensure!((now.ready, now.leased, now.dead) == (0, 0, 2), "{now:?}");
    }
    ensure!(queue::read(&mut other, "q", 9)?.is_empty());
    ensure!(dead(&mut client)? == [first, second]);
    Ok(())
}

#[test]
fn who_waits_holds_no_burial_open() -> Result<()> {
    let (_database, mut client, mut other) = made(ONCE)?;
    let first = send(&mut client, "'1', dedup_key => 'a'")?;
    ensure!(use_up(&mut client, 1)?.len() == 1);
    let waits = thread::spawn(move || receive(&mut other, "queue_read('q', wait => '20 s')"));
    thread::sleep(Duration::from_millis(200));
    client.batch_execute("SET lock_timeout = '2s'")?;
    let open: i64 = client
        .query_one(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_xid IS NOT NULL \
                    AND datname = current_database()",
            &[],
        )?
        .get(0);
    ensure!(open == 0, "the reader that waits has a transaction open that has written");
    let second = send(&mut client, "'2', dedup_key => 'a'")?;
    ensure!(ids(&waits.join().expect("the reader's thread")?) == [second]);
    ensure!(dead(&mut client)? == [first]);
    Ok(())
}

#[test]
fn a_reader_that_waits_in_vain_buries_before_it_leaves() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let first = send(&mut client, "'1'")?;
    ensure!(ids(&receive(&mut client, "queue_read('q', 1, '50 milliseconds')")?) == [first]);
    ensure!(receive(&mut client, "queue_read('q', wait => '200 milliseconds')")?.is_empty());
    ensure!(dead(&mut client)? == [first]);
    Ok(())
}

#[test]
fn a_sender_needs_no_more_than_its_right_to_send() -> Result<()> {
    let (database, mut client, _) = made(ONCE)?;
    let role = database.role("sender");
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA enough TO {role}; GRANT INSERT ON enough.q_q TO {role}"
    ))?;
    let first = send(&mut client, "'1', dedup_key => 'a'")?;
    ensure!(use_up(&mut client, 1)?.len() == 1);
    let mut sender = database.client_as(&role)?;
    let second = send(&mut sender, "'2', dedup_key => 'a'")?;
    ensure!(second > first && dead(&mut client)? == [first]);
    // The same where the executor has a say.
    client.batch_execute(
        "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(NEW, OLD); END'; \
         CREATE TRIGGER t BEFORE INSERT OR DELETE ON enough.q_q FOR EACH ROW EXECUTE FUNCTION t()",
    )?;
    ensure!(use_up(&mut client, 1)?.len() == 1);
    let third = send(&mut sender, "'3', dedup_key => 'a'")?;
    ensure!(third > second && dead(&mut client)? == [first, second]);
    Ok(())
}

#[test]
fn more_attempts_are_for_those_too_that_were_used_up() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let first = send(&mut client, "'1', group_key => 'g'")?;
    let second = send(&mut client, "'2'")?;
    ensure!(ids(&use_up(&mut client, 9)?) == [first, second]);
    ensure!(stats(&mut client, "q")?.dead == 2);
    client.batch_execute("SELECT enough.queue_alter('q', max_attempts => 2)")?;
    let now = stats(&mut client, "q")?;
    ensure!((now.ready, now.dead) == (2, 0), "{now:?}");
    let read = queue::read(&mut client, "q", 9)?;
    ensure!(queue::sorted_ids(&read) == [first, second] && read.iter().all(|one| one.attempts == 2), "{read:?}");
    // And fewer are for those that wait.
    client.batch_execute("SELECT enough.queue_extend('q', msg_id, '0') FROM enough.q_q")?;
    client.batch_execute("SELECT enough.queue_alter('q', max_attempts => 1)")?;
    ensure!(queue::read(&mut client, "q", 9)?.is_empty());
    ensure!(dead(&mut client)? == [first, second]);
    Ok(())
}

#[test]
fn a_last_attempt_that_is_rolled_back_needs_no_rest() -> Result<()> {
    let (_database, mut client, _) = made(", max_attempts => 1, retry_backoff => '1 hour'")?;
    let first = send(&mut client, "'1', group_key => 'g', dedup_key => 'a'")?;
    let second = send(&mut client, "'2', group_key => 'g'")?;
    client.batch_execute("BEGIN")?;
    ensure!(ids(&queue::read(&mut client, "q", 9)?) == [first]);
    client.batch_execute("ROLLBACK")?;
    ensure!(ids(&queue::read(&mut client, "q", 9)?) == [second]);
    ensure!(dead(&mut client)? == [first]);
    Ok(())
}

#[test]
fn what_the_table_alone_knows_is_used_up_as_well() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', max_attempts => 2, retry_backoff => '0')")?;
    let first = send(&mut client, "'1', group_key => 'g', dedup_key => 'a'")?;
    let second = send(&mut client, "'2', group_key => 'g', dedup_key => 'b'")?;
    let third = send(&mut client, "'3', group_key => 'g'")?;
    ensure!(ids(&use_up(&mut client, 9)?) == [first] && ids(&use_up(&mut client, 9)?) == [first]);
    drop(client);
    server.restart(Shutdown::Immediate)?;
    let mut client = database.client()?;
    // The sender is the first to meet it, before anything has been read.
    let fourth = send(&mut client, "'4', dedup_key => 'a'")?;
    ensure!(fourth > third && dead(&mut client)? == [first]);
    ensure!(ids(&use_up(&mut client, 1)?) == [second] && ids(&use_up(&mut client, 1)?) == [second]);
    drop(client);
    server.restart(Shutdown::Immediate)?;
    let mut client = database.client()?;
    let begun = Instant::now();
    ensure!(queue::sorted_ids(&receive(&mut client, "queue_read('q', 9, wait => '10 s')")?) == [third, fourth]);
    ensure!(begun.elapsed() < Duration::from_secs(5) && dead(&mut client)? == [first, second]);
    Ok(())
}

#[test]
fn an_archive_that_takes_nothing_keeps_no_message_from_its_reader() -> Result<()> {
    let (_database, mut client, _) = made(ONCE)?;
    let first = send(&mut client, "'1'")?;
    ensure!(use_up(&mut client, 1)?.len() == 1);
    client.batch_execute("ALTER TABLE enough.a_q ADD CONSTRAINT full_up CHECK (msg_id < 0)")?;
    let second = send(&mut client, "'2'")?;
    ensure!(ids(&queue::read(&mut client, "q", 9)?) == [second]);
    let row = client.query_one("SELECT note FROM enough.maintain() WHERE task = 'queue_bury'", &[])?;
    ensure!(row.get::<_, Option<&str>>(0).context("no note")?.contains("full_up"), "{row:?}");
    client.batch_execute("ALTER TABLE enough.a_q DROP CONSTRAINT full_up")?;
    ensure!(maintain(&mut client)? == 1 && dead(&mut client)? == [first]);
    Ok(())
}
