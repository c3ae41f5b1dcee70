//! Queues in which a dedup key stays taken for a while after the send, whatever becomes of the message: `dedup` is `window`.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue::{self, ids, made};
use enough_pg_test::server::{self, Database, backend, until_locked};
use postgres::Client;
use std::collections::BTreeSet;
use std::thread;
use xtask::server::Shutdown;

const WINDOW: &str = ", dedup => 'window', dedup_for => '1 hour', visibility_timeout => '1 hour', retry_backoff => '0'";

/// Sends a message with a key.
fn send(client: &mut Client, key: &str) -> Result<i64, postgres::Error> {
    Ok(client.query_one("SELECT enough.queue_send('q', '1', dedup_key => $1)", &[&key])?.get(0))
}

fn unique(client: &mut Client, on_conflict: &str) -> Result<(i64, String)> {
    let call = "SELECT * FROM enough.queue_send_unique('q', '2', 'k', $1)";
    let row = client.query_one(call, &[&on_conflict])?;
    Ok((row.get(0), row.get(1)))
}

/// Lets the time of all keys be over.
fn run_out(client: &mut Client) -> Result<()> {
    client.batch_execute("UPDATE enough.queue_key SET until = now() - interval '1 hour'")?;
    Ok(())
}

fn keys(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT count(*) FROM enough.queue_key", &[])?.get(0))
}

#[test]
fn a_key_stays_taken_whatever_becomes_of_the_message() -> Result<()> {
    for ending in [
        "queue_delete('q', 1)",
        "queue_archive('q', 1)",
        "queue_fail('q', 1, 'no', dead => true)",
        "queue_purge('q')",
        "queue_read('q')",
        "queue_pop('q')",
    ] {
        let (_database, mut client, mut other) = made(WINDOW)?;
        ensure!(send(&mut client, "k")? == 1);
        client.batch_execute(&format!("SELECT enough.{ending}"))?;
        ensure!(send(&mut client, "k")? == 1 && send(&mut other, "k")? == 1, "{ending}");
        ensure!(queue::read(&mut client, "q", 9)?.is_empty(), "{ending}: nothing was stored");
        ensure!(unique(&mut other, "keep")? == (1, "kept".into()), "{ending}");
        ensure!(unique(&mut other, "replace")? == (1, "kept".into()), "{ending}");
        ensure!(send(&mut other, "other")? > 1, "another key is free");
        run_out(&mut client)?;
        let again = send(&mut client, "k")?;
        ensure!((again > 1) == (ending != "queue_read('q')"), "{ending}: a live message has its key still");
        ensure!(send(&mut other, "k")? == again);
    }
    Ok(())
}

#[test]
fn after_its_time_a_key_is_free_again() -> Result<()> {
    let (_database, mut client, _) = made(", dedup => 'window', dedup_for => '300 ms'")?;
    let first = send(&mut client, "k")?;
    client.batch_execute("SELECT enough.queue_delete('q', 1)")?;
    let second = eventually("the key is free", || {
        let sent = send(&mut client, "k")?;
        Ok((sent != first).then_some(sent))
    })?;
    let row = client.query_one("SELECT msg_id FROM enough.queue_key", &[])?;
    ensure!(row.get::<_, i64>(0) == second);
    Ok(())
}

#[test]
fn a_send_that_stores_nothing_does_not_prolong_the_time() -> Result<()> {
    let (_database, mut client, _) = made(WINDOW)?;
    send(&mut client, "k")?;
    client.batch_execute("SELECT enough.queue_delete('q', 1)")?;
    let until = "SELECT until::text FROM enough.queue_key";
    let before: String = client.query_one(until, &[])?.get(0);
    ensure!(send(&mut client, "k")? == 1 && unique(&mut client, "replace")? == (1, "kept".into()));
    ensure!(client.query_one(until, &[])?.get::<_, String>(0) == before);
    Ok(())
}

#[test]
fn one_of_two_senders_at_once_sends_also_where_a_key_is_over() -> Result<()> {
    for over in [false, true] {
        for (ending, comes) in [("COMMIT", false), ("ROLLBACK", true), ("ROLLBACK TO a; COMMIT", true)] {
            let (database, mut client, mut other) = made(WINDOW)?;
            if over {
                send(&mut client, "k")?;
                client.batch_execute("SELECT enough.queue_delete('q', 1)")?;
                run_out(&mut client)?;
            }
            other.batch_execute("BEGIN; SAVEPOINT a")?;
            let first = send(&mut other, "k")?;
            ensure!(send(&mut other, "k")? == first, "its own");
            let mut sender = database.client()?;
            let pid = backend(&mut sender)?;
            let sent = thread::spawn(move || send(&mut sender, "k"));
            until_locked(&mut client, pid)?;
            other.batch_execute(ending)?;
            let second = sent.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
            ensure!((second != first) == comes, "{over}, {ending}: {first}, {second}");
            ensure!(ids(&queue::read(&mut client, "q", 9)?) == [second], "{over}, {ending}");
        }
    }
    Ok(())
}

#[test]
fn who_finds_a_key_taken_waits_for_nobody_and_holds_up_nobody() -> Result<()> {
    let (database, mut client, mut other) = made(WINDOW)?;
    let first = send(&mut client, "k")?;
    client.batch_execute("SELECT enough.queue_delete('q', 1); BEGIN")?;
    other.batch_execute("SET lock_timeout = '1 s'; BEGIN")?;
    ensure!(send(&mut client, "k")? == first && send(&mut other, "k")? == first);
    // Nor maintenance, whose statement a sender's open transaction is no obstacle to.
    let mut third = database.client()?;
    third.batch_execute("SET lock_timeout = '1 s'; SELECT enough.maintain(); SELECT enough.queue_pause('q')")?;
    Ok(())
}

#[test]
fn a_prepared_transaction_has_its_keys() -> Result<()> {
    for (ending, comes) in [("COMMIT", false), ("ROLLBACK", true)] {
        let (database, mut client, mut other) = made(WINDOW)?;
        let gid = format!("{}_{ending}", database.name);
        other.batch_execute("BEGIN")?;
        let first = send(&mut other, "k")?;
        other.batch_execute(&format!("PREPARE TRANSACTION '{gid}'"))?;
        let mut sender = database.client()?;
        let pid = backend(&mut sender)?;
        let sent = thread::spawn(move || send(&mut sender, "k"));
        until_locked(&mut client, pid)?;
        other.batch_execute(&format!("{ending} PREPARED '{gid}'"))?;
        let second = sent.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
        ensure!((second != first) == comes, "{ending}");
    }
    Ok(())
}

#[test]
fn many_senders_and_consumers_at_once_deliver_one_a_key() -> Result<()> {
    let (database, mut client, _) = made(WINDOW)?;
    let workers: Vec<_> = (0..6)
        .map(|_| {
            let mut session = database.client()?;
            Ok(thread::spawn(move || -> Result<(Vec<(String, i64)>, usize)> {
                let (mut sent, mut popped) = (Vec::new(), 0);
                for round in 0..60 {
                    let key = format!("k{}", round % 20);
                    sent.push((key.clone(), send(&mut session, &key)?));
                    popped += queue::receive(&mut session, "queue_pop('q', 2)")?.len();
                }
                Ok((sent, popped))
            }))
        })
        .collect::<Result<_>>()?;
    let (mut numbers, mut delivered) = (BTreeSet::new(), 0);
    for worker in workers {
        let (sent, popped) = worker.join().map_err(|_| anyhow::anyhow!("a session has panicked"))??;
        numbers.extend(sent);
        delivered += popped;
    }
    delivered += queue::receive(&mut client, "queue_pop('q', 100)")?.len();
    ensure!(numbers.len() == 20 && delivered == 20, "{delivered} deliveries of {numbers:?}");
    Ok(())
}

#[test]
fn batches_and_the_executor_take_keys_too() -> Result<()> {
    let (_database, mut client, mut other) = made(WINDOW)?;
    let batch = "SELECT enough.queue_send_batch('q', ARRAY['1', '2', '3', '4']::jsonb[], dedup_keys => ARRAY['b', 'a', 'b', NULL])";
    let sent = |client: &mut Client| -> Result<Vec<i64>> {
        Ok(client.query(batch, &[])?.iter().map(|row| row.get(0)).collect())
    };
    let first = sent(&mut client)?;
    ensure!(first[0] == first[2] && first.iter().collect::<BTreeSet<_>>().len() == 3, "{first:?}");
    client.batch_execute("SELECT enough.queue_purge('q')")?;
    let second = sent(&mut other)?;
    ensure!(second[..3] == first[..3] && second[3] > first[3], "{second:?}");
    // A table that numbers its messages otherwise.
    client.batch_execute(
        "CREATE FUNCTION pg_temp.other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.msg_id := NEW.msg_id + 1000; RETURN NEW; END $$; \
         CREATE TRIGGER other BEFORE INSERT ON enough.q_q FOR EACH ROW EXECUTE FUNCTION pg_temp.other()",
    )?;
    let number = send(&mut client, "k")?;
    ensure!(number > 1000);
    client.batch_execute("SELECT enough.queue_purge('q')")?;
    ensure!(send(&mut client, "k")? == number);
    Ok(())
}

#[test]
fn above_read_committed_a_concurrent_send_is_an_error_and_never_a_second_message() -> Result<()> {
    let (_database, mut client, mut other) = made(WINDOW)?;
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1"))?;
        send(&mut other, isolation)?;
        other.batch_execute("SELECT enough.queue_purge('q')")?;
        refused(send(&mut client, isolation), "40001")?;
        client.batch_execute("ROLLBACK")?;
    }
    Ok(())
}

#[test]
fn keys_follow_their_queue() -> Result<()> {
    let (_database, mut client, mut other) = made(WINDOW)?;
    let first = send(&mut client, "k")?;
    client.batch_execute("SELECT enough.queue_purge('q'), enough.queue_rename('q', 'r')")?;
    let again = "SELECT enough.queue_send('r', '1', dedup_key => 'k')";
    ensure!(other.query_one(again, &[])?.get::<_, i64>(0) == first);
    // Of another queue of the name nothing is known.
    client.batch_execute("SELECT enough.queue_drop('r')")?;
    ensure!(keys(&mut client)? == 0);
    client.batch_execute("SELECT enough.queue_create('r', dedup => 'window')")?;
    ensure!(other.query_one(again, &[])?.get::<_, i64>(0) == 1);
    ensure!(keys(&mut client)? == 1);
    Ok(())
}

#[test]
fn a_rename_by_an_old_snapshot_leaves_no_key_behind() -> Result<()> {
    let (_database, mut client, mut other) = made(WINDOW)?;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")?;
    let first = send(&mut other, "k")?;
    other.batch_execute("SELECT enough.queue_purge('q')")?;
    let renamed = client.batch_execute("SELECT enough.queue_rename('q', 'r')");
    let name = if let Err(error) = renamed {
        refused(Err::<(), _>(error), "40001")?;
        client.batch_execute("ROLLBACK")?;
        "q"
    } else {
        client.batch_execute("COMMIT")?;
        "r"
    };
    let again = format!("SELECT enough.queue_send('{name}', '1', dedup_key => 'k')");
    ensure!(other.query_one(&again, &[])?.get::<_, i64>(0) == first, "{name}");
    Ok(())
}

#[test]
fn maintenance_removes_what_is_over_and_nothing_else() -> Result<()> {
    let (_database, mut client, mut other) = made(WINDOW)?;
    client.batch_execute(
        "SELECT enough.queue_send('q', '1', dedup_key => 'k' || i) FROM generate_series(1, 2500) AS i",
    )?;
    run_out(&mut client)?;
    let last = send(&mut client, "last")?;
    client.batch_execute("SELECT enough.queue_purge('q')")?;
    // One that a sender is taking over is left to it.
    other.batch_execute("BEGIN")?;
    let taken = send(&mut other, "k7")?;
    ensure!(taken > last);
    let done = "SELECT items FROM enough.maintain() WHERE task = 'queue_keys'";
    ensure!(client.query_one(done, &[])?.get::<_, i64>(0) == 2499 && keys(&mut client)? == 2);
    other.batch_execute("COMMIT")?;
    ensure!(send(&mut client, "last")? == last && send(&mut client, "k7")? == taken);
    client.batch_execute("BEGIN READ ONLY; SELECT enough.maintain(); COMMIT")?;
    Ok(())
}

#[test]
fn keys_are_the_same_after_a_restart_and_a_crash() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(&format!(
        "SELECT enough.queue_create('q'{WINDOW}); SELECT enough.queue_create('u'{WINDOW}, unlogged => true)"
    ))?;
    let first = send(&mut client, "k")?;
    client.batch_execute(
        "SELECT enough.queue_send('u', '1', dedup_key => 'k'); SELECT enough.queue_pop('q'); CHECKPOINT",
    )?;
    drop(client);
    let all = "SELECT array_agg(queue || ' ' || dedup_key || ' ' || msg_id || ' ' || until ORDER BY queue) FROM enough.queue_key";
    let before: Vec<String> = database.client()?.query_one(all, &[])?.get(0);
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        server.restart(how)?;
        let mut client = database.client()?;
        ensure!(client.query_one(all, &[])?.get::<_, Vec<String>>(0) == before, "{how:?}");
        ensure!(send(&mut client, "k")? == first && queue::read(&mut client, "q", 9)?.is_empty(), "{how:?}");
    }
    // The crash has emptied the unlogged queue and left its keys; another dedup frees them.
    let mut client = database.client()?;
    let again = "SELECT enough.queue_send('u', '2', dedup_key => 'k')";
    client.query_one(again, &[])?;
    ensure!(queue::read(&mut client, "u", 9)?.is_empty());
    client.batch_execute(
        "SELECT enough.queue_alter('u', dedup => 'live'); SELECT enough.queue_alter('u', dedup => 'window')",
    )?;
    client.query_one(again, &[])?;
    ensure!(queue::read(&mut client, "u", 9)?.len() == 1);
    Ok(())
}

#[test]
fn who_may_only_send_takes_keys_and_sees_none() -> Result<()> {
    let (database, mut client, _): (Database, _, _) = made(WINDOW)?;
    let role = database.role("sender");
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN; SELECT enough.queue_grant('q', '{role}', 'send')"))?;
    let mut sender = database.client_as(&role)?;
    let first = send(&mut sender, "k")?;
    client.batch_execute("SELECT enough.queue_purge('q')")?;
    ensure!(send(&mut sender, "k")? == first);
    refused(sender.batch_execute("SELECT FROM enough.queue_key"), "42501")?;
    refused(sender.batch_execute("DELETE FROM enough.queue_key"), "42501")?;
    Ok(())
}

#[test]
fn what_comes_back_from_the_dead_is_no_second_send() -> Result<()> {
    let (_database, mut client, mut other) = made(WINDOW)?;
    let first = send(&mut client, "k")?;
    client.batch_execute("SELECT enough.queue_fail('q', 1, dead => true); SELECT enough.queue_redrive('q')")?;
    ensure!(send(&mut other, "k")? == first && ids(&queue::read(&mut client, "q", 9)?) == [first]);
    Ok(())
}

#[test]
fn the_option_is_listed_and_altered_and_every_session_goes_by_it() -> Result<()> {
    let (_database, mut client, mut other) = made("")?;
    let listed = |client: &mut Client| -> Result<(String, String)> {
        let row = client.query_one("SELECT dedup, dedup_for::text FROM enough.queue_list()", &[])?;
        Ok((row.get(0), row.get(1)))
    };
    ensure!(listed(&mut client)? == ("live".into(), "00:05:00".into()));
    let before = send(&mut client, "k")?;
    other.batch_execute("SELECT enough.queue_alter('q', dedup => 'window', dedup_for => '1 day')")?;
    ensure!(listed(&mut client)? == ("window".into(), "1 day".into()));
    ensure!(send(&mut client, "k")? == before && keys(&mut client)? == 0, "the live message's");
    client.batch_execute("SELECT enough.queue_purge('q')")?;
    let first = send(&mut client, "k")?;
    ensure!(first > before);
    client.batch_execute("SELECT enough.queue_purge('q')")?;
    ensure!(send(&mut client, "k")? == first);
    let day = "SELECT until > now() + interval '23 hours' FROM enough.queue_key";
    ensure!(client.query_one(day, &[])?.get::<_, bool>(0));
    other.batch_execute("SELECT enough.queue_alter('q', dedup => 'live')")?;
    let second = send(&mut client, "k")?;
    ensure!(second > first && keys(&mut client)? == 0);
    other.batch_execute("SELECT enough.queue_purge('q'), enough.queue_alter('q', dedup => 'window')")?;
    ensure!(send(&mut client, "k")? > second, "the keys of before are free");
    Ok(())
}
