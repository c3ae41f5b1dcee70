//! Reading from several queues at once.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::send_numbers;
use enough_pg_test::server::{self, Database, backend, until_waiting};
use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

/// What a read of these queues returns: queue and number.
fn read(client: &mut Client, queues: &[&str], rest: &str) -> Result<Vec<(String, i64)>> {
    let statement = format!("SELECT queue, msg_id FROM enough.queue_read_any($1{rest})");
    Ok(client.query(&statement, &[&queues])?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn made(queues: &[&str]) -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for queue in queues {
        client.execute("SELECT enough.queue_create($1)", &[queue])?;
    }
    Ok((database, client))
}

#[test]
fn an_earlier_queue_is_served_first_and_the_rest_from_the_later_ones() -> Result<()> {
    let (_database, mut client) = made(&["a", "b", "c"])?;
    let [a, b, c] = ["a", "b", "c"].map(|queue| (queue, send_numbers(&mut client, queue, 2)));
    let (a, b, c) = ((a.0.to_owned(), a.1?), (b.0.to_owned(), b.1?), (c.0.to_owned(), c.1?));
    let got = read(&mut client, &["c", "a", "b", "c"], ", 3")?;
    let expected = [(&c, 0), (&c, 1), (&a, 0)].map(|(queue, at)| (queue.0.clone(), queue.1[at]));
    ensure!(got == expected, "{got:?}");
    let got = read(&mut client, &["a", "b"], ", 9")?;
    ensure!(got == [(a.0.clone(), a.1[1]), (b.0.clone(), b.1[0]), (b.0.clone(), b.1[1])], "{got:?}");
    ensure!(read(&mut client, &["a", "b", "c"], "")?.is_empty());
    // All that queue_read tells, and the lease holds.
    client.batch_execute("SELECT enough.queue_send('b', '7', priority => 3, group_key => 'g', headers => '{}')")?;
    let row = client.query_one(
        "SELECT enough.queue_delete(queue, msg_id, lease), attempts, priority, group_key, headers::text, message::text, \
                leased_until > clock_timestamp() + interval '50 minutes' \
           FROM enough.queue_read_any('{a,b}', visibility_timeout => '1 hour')",
        &[],
    )?;
    ensure!(row.get::<_, bool>(0) && row.get::<_, bool>(6));
    ensure!((row.get::<_, i32>(1), row.get::<_, i16>(2)) == (1, 3));
    ensure!([3, 4, 5].map(|column| row.get::<_, String>(column)) == ["g", "{}", "7"]);
    Ok(())
}

/// Lets a session wait for the queues, does something when it waits, and what the session got then.
fn waiting(
    database: &Database,
    queues: &[&str],
    then: impl FnOnce(&mut Client) -> Result<()>,
) -> Result<Vec<(String, i64)>> {
    let (mut waiter, mut client) = (database.client()?, database.client()?);
    let pid = backend(&mut waiter)?;
    let began = Instant::now();
    let got = thread::scope(|scope| {
        let reader = scope.spawn(|| read(&mut waiter, queues, ", wait => '20 s'"));
        until_waiting(&mut client, pid)?;
        then(&mut client)?;
        reader.join().ok().context("the reader panicked")?
    })?;
    ensure!(began.elapsed() < Duration::from_secs(15), "it wasn't woken");
    Ok(got)
}

#[test]
fn a_message_in_any_of_them_wakes_the_reader() -> Result<()> {
    let names: Vec<String> = (0..200).map(|n| format!("q{n}")).collect();
    let queues: Vec<&str> = names.iter().map(String::as_str).collect();
    let (database, _client) = made(&queues)?;
    for queue in ["q0", "q77", "q199"] {
        let got = waiting(&database, &queues, |client| {
            send_numbers(client, queue, 1)?;
            Ok(())
        })?;
        ensure!(got.len() == 1 && got[0].0 == queue, "{got:?}");
    }
    // What comes due, a queue that goes on, a lease that ends.
    let got = waiting(&database, &queues, |client| {
        Ok(client.batch_execute("SELECT enough.queue_send('q5', '1', delay => '300 ms')")?)
    })?;
    ensure!(got[0].0 == "q5", "{got:?}");
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_pause('q6'); SELECT enough.queue_send('q6', '1')")?;
    let got = waiting(&database, &queues, |client| Ok(client.batch_execute("SELECT enough.queue_resume('q6')")?))?;
    ensure!(got[0].0 == "q6", "{got:?}");
    Ok(())
}

#[test]
fn a_wake_up_that_is_not_needed_is_passed_on() -> Result<()> {
    let (database, mut client) = made(&["a", "b"])?;
    let (mut both, mut other) = (database.client()?, database.client()?);
    let pids = [backend(&mut both)?, backend(&mut other)?];
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| read(&mut both, &["a", "b"], ", wait => '20 s'"));
        until_waiting(&mut client, pids[0])?;
        let second = scope.spawn(|| read(&mut other, &["b"], ", wait => '20 s'"));
        until_waiting(&mut client, pids[1])?;
        // The first in both lists is woken for the one, and perhaps for the other, before it has left that list.
        client
            .batch_execute("BEGIN; SELECT enough.queue_send('a', '1'); SELECT enough.queue_send('b', '1'); COMMIT")?;
        let joined = |reader: thread::ScopedJoinHandle<'_, Result<Vec<(String, i64)>>>| {
            reader.join().ok().context("a reader panicked")?
        };
        Ok::<_, anyhow::Error>((joined(first)?, joined(second)?))
    })?;
    let mut queues = [first[0].0.clone(), second[0].0.clone()];
    queues.sort();
    ensure!((first.len(), second.len(), &queues) == (1, 1, &["a".into(), "b".into()]), "{first:?} {second:?}");
    Ok(())
}

#[test]
fn a_wait_that_is_cancelled_or_over_leaves_nothing_behind() -> Result<()> {
    let (database, mut client) = made(&["a", "b"])?;
    let mut waiter = database.client()?;
    waiter.batch_execute("SET statement_timeout = '300 ms'")?;
    let cancelled = waiter.query("SELECT FROM enough.queue_read_any('{a,b}', wait => '20 s')", &[]);
    refused(cancelled.map(drop), "57014")?;
    ensure!(read(&mut client, &["a", "b"], ", wait => '50 ms'")?.is_empty());
    // A message for each still wakes who waits.
    for queue in ["a", "b"] {
        let got = waiting(&database, &[queue], |client| {
            send_numbers(client, queue, 1)?;
            Ok(())
        })?;
        ensure!(got.len() == 1);
    }
    Ok(())
}

#[test]
fn arguments_and_privileges_are_those_of_each_queue() -> Result<()> {
    let (database, mut client) = made(&["a", "b"])?;
    send_numbers(&mut client, "a", 1)?;
    for (call, state) in [
        ("'{a,nope}'", "42704"),
        ("'{a,NULL}'", "22004"),
        ("'{a}', 0", "22023"),
        ("'{a}', wait => '2 hours'", "22023"),
        ("array_fill('a'::text, ARRAY[10001])", "54000"),
    ] {
        let error = client.query(&format!("SELECT FROM enough.queue_read_any({call})"), &[]);
        refused(error.map(drop), state).context(call)?;
    }
    for nothing in ["'{}'", "NULL"] {
        ensure!(client.query(&format!("SELECT FROM enough.queue_read_any({nothing})"), &[])?.is_empty());
    }
    let role = database.role("reader");
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN; SELECT enough.queue_grant('a', '{role}', 'consume')"))?;
    let mut other = database.client_as(&role)?;
    refused(other.query("SELECT FROM enough.queue_read_any('{b,a}')", &[]).map(drop), "42501")?;
    ensure!(read(&mut other, &["a"], "")?.len() == 1);
    Ok(())
}

/// A worker for all of a thousand tenants, each with a queue of its own.
#[test]
fn a_thousand_queues_are_served_and_awaited_in_one_read() -> Result<()> {
    // A server of its own: the memory of the shared one has room for the queues of all other tests.
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    // Each in a transaction of its own: the locks on what is made have room for so many only.
    client.batch_execute(
        "CREATE PROCEDURE make_queues() LANGUAGE plpgsql AS \
         $$ BEGIN FOR n IN 0..999 LOOP PERFORM enough.queue_create('t' || n); COMMIT; END LOOP; END $$",
    )?;
    client.batch_execute("CALL make_queues()")?;
    let names: Vec<String> = (0..1000).map(|n| format!("t{n}")).collect();
    let queues: Vec<&str> = names.iter().map(String::as_str).collect();
    ensure!(read(&mut client, &queues, ", 10")?.is_empty());
    // One message in each: all of them in one read, in the order of the array.
    client.batch_execute("SELECT enough.queue_send('t' || n, '1') FROM generate_series(999, 0, -1) AS n")?;
    let got = read(&mut client, &queues, ", 10000")?;
    ensure!(got.iter().map(|(queue, _)| queue).eq(&names), "{} messages", got.len());
    ensure!(read(&mut client, &queues, ", 10000")?.is_empty(), "they are leased");
    // The first, the last and one between wake who waits for all, and who did before has left no list in a wrong state.
    for queue in ["t0", "t999", "t500", "t999"] {
        let got = waiting(&database, &queues, |client| {
            send_numbers(client, queue, 1)?;
            Ok(())
        })?;
        ensure!(got.len() == 1 && got[0].0 == queue, "{got:?}");
    }
    // One that is dropped meanwhile ends the wait: the name is no queue's any more.
    let mut waiter = database.client()?;
    let pid = backend(&mut waiter)?;
    let statement = "SELECT FROM enough.queue_read_any($1, wait => '20 s')";
    thread::scope(|scope| {
        let reader = scope.spawn(|| waiter.query(statement, &[&queues]));
        until_waiting(&mut client, pid)?;
        client.batch_execute("SELECT enough.queue_drop('t998')")?;
        refused(reader.join().ok().context("the reader panicked")?.map(drop), "42704").map(drop)
    })
}
