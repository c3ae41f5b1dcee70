//! How messages end, and what comes of them: failing, archiving, dying, coming back, purging.

use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn made(options: &str) -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(&format!("SELECT enough.queue_create('q'{options})"))?;
    Ok((database, client))
}

/// In microseconds.
const SECOND: i64 = 1_000_000;

fn number(client: &mut Client, query: &str) -> Result<i64> {
    Ok(client.query_one(query, &[])?.get(0))
}

#[test]
fn failures_rest_twice_as_long_each_time_scattered_and_capped() -> Result<()> {
    let (_database, mut client) =
        made(", max_attempts => 100, retry_backoff => '100 seconds', retry_backoff_max => '300 seconds'")?;
    queue::send_numbers(&mut client, "q", 50)?;
    // What the n-th failure is to rest, in seconds; a tenth less and more, but never more than the most.
    for (least, most) in [(90, 110), (180, 220), (270, 300), (270, 300)] {
        let (least, most) = (least * SECOND, most * SECOND);
        let read = queue::read(&mut client, "q", 50)?;
        ensure!(read.len() == 50);
        let mut rests = BTreeSet::new();
        for message in &read {
            let before: i64 = number(&mut client, "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint")?;
            let fate: String = client
                .query_one("SELECT enough.queue_fail('q', $1, 'no', lease => $2)", &[&message.msg_id, &message.lease])?
                .get(0);
            ensure!(fate == "retry");
            let row = client.query_one(
                "SELECT (EXTRACT(EPOCH FROM deliver_at) * 1000000)::bigint, \
                        (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint, attempts \
                 FROM enough.q_q WHERE msg_id = $1",
                &[&message.msg_id],
            )?;
            let (at, after): (i64, i64) = (row.get(0), row.get(1));
            ensure!(row.get::<_, i32>(2) == message.attempts, "the attempts aren't durable");
            let (longest, shortest) = (at - before, at - after);
            ensure!(longest >= least && shortest <= most, "attempt {}: {shortest} to {longest}", message.attempts);
            rests.insert(at - before);
        }
        let spread = rests.last().unwrap_or(&0) - rests.first().unwrap_or(&0);
        ensure!(spread > (most - least) / 2, "50 rests lie within {spread} µs");
        ensure!(queue::read(&mut client, "q", 50)?.is_empty());
        for message in &read {
            client.execute("SELECT enough.queue_fail('q', $1, retry_in => '0')", &[&message.msg_id])?;
        }
    }
    Ok(())
}

#[test]
fn a_rest_outlives_the_segment() -> Result<()> {
    let (_database, mut client) = made("")?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    queue::read(&mut client, "q", 1)?;
    client.execute("SELECT enough.queue_fail('q', $1, 'boom', '1 hour')", &[&sent])?;
    // A new table of the same rows: the index knows nothing of it.
    client.batch_execute(
        "CREATE TABLE kept AS TABLE enough.q_q; SELECT enough.queue_drop('q'), enough.queue_create('q'); \
         INSERT INTO enough.q_q SELECT * FROM kept",
    )?;
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    let row = client.query_one("SELECT state, attempts, error FROM enough.queue_status('q', $1)", &[&sent])?;
    ensure!(row.get::<_, &str>(0) == "delayed" && row.get::<_, i32>(1) == 1 && row.get::<_, &str>(2) == "boom");
    client.execute("SELECT enough.queue_fail('q', $1, retry_in => '0')", &[&sent])?;
    let read = queue::read(&mut client, "q", 10)?;
    ensure!(queue::ids(&read) == [sent] && read[0].attempts == 2, "{read:?}");
    Ok(())
}

#[test]
fn thousands_of_dead_letters_come_back_at_once() -> Result<()> {
    let (_database, mut client) = made(", max_attempts => 1, visibility_timeout => '1 hour'")?;
    let sent = queue::send_numbers(&mut client, "q", 2_500)?;
    ensure!(queue::read(&mut client, "q", 10_000)?.len() == 2_500);
    let dead = number(
        &mut client,
        "SELECT count(*) FROM enough.q_q, LATERAL enough.queue_fail('q', msg_id, 'all is lost') AS fate WHERE fate = 'dead'",
    )?;
    ensure!(dead == 2_500);
    ensure!(queue::stats(&mut client, "q")?.dead == 2_500);
    ensure!(number(&mut client, "SELECT count(*) FROM enough.queue_dead('q', 10000)")? == 2_500);
    ensure!(
        number(&mut client, "SELECT enough.queue_redrive('q', ARRAY(SELECT msg_id FROM enough.queue_dead('q', 300)))")?
            == 300
    );
    ensure!(number(&mut client, "SELECT enough.queue_redrive('q')")? == 2_200);
    let read = queue::read(&mut client, "q", 10_000)?;
    ensure!(queue::sorted_ids(&read) == sent && read.iter().all(|message| message.attempts == 1));
    let stats = queue::stats(&mut client, "q")?;
    ensure!(stats.dead == 0 && stats.leased == 2_500, "{stats:?}");
    Ok(())
}

#[test]
fn a_batch_of_ten_thousand_is_archived() -> Result<()> {
    let (_database, mut client) = made(", visibility_timeout => '1 hour'")?;
    let mut sent = queue::send_numbers(&mut client, "q", 10_000)?;
    ensure!(queue::read(&mut client, "q", 5_000)?.len() == 5_000);
    sent.reverse();
    let rows = client.query("SELECT * FROM enough.queue_archive_batch('q', $1)", &[&sent])?;
    let archived: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    ensure!(archived == sent, "{} of 10,000, or in another order", archived.len());
    let attempts =
        number(&mut client, "SELECT sum(attempts) FROM enough.a_q WHERE outcome = 'done' AND error IS NULL")?;
    ensure!(attempts == 5_000, "{attempts} attempts of 5,000");
    ensure!(queue::read(&mut client, "q", 1)?.is_empty());
    let counts =
        client.query_one("SELECT archived, finished_total, ready, leased FROM enough.queue_stats('q')", &[])?;
    let counts: [i64; 4] = [counts.get(0), counts.get(1), counts.get(2), counts.get(3)];
    ensure!(counts == [10_000, 10_000, 0, 0], "{counts:?}");
    Ok(())
}

#[test]
fn one_of_many_senders_of_a_key_stores_its_message() -> Result<()> {
    let (database, mut client) = made("")?;
    let senders: Vec<_> = (0..6)
        .map(|sender| -> Result<_> {
            let mut client = database.client()?;
            Ok(thread::spawn(move || -> Result<Vec<i64>> {
                (0..100)
                    .map(|key: i32| {
                        let call = "SELECT enough.queue_send('q', $1, dedup_key => $2)";
                        Ok(client.query_one(call, &[&json!(sender), &format!("k{key}")])?.get(0))
                    })
                    .collect()
            }))
        })
        .collect::<Result<_>>()?;
    let mut answers = Vec::new();
    for sender in senders {
        answers.push(sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??);
    }
    ensure!(answers.iter().all(|answer| *answer == answers[0]), "the senders were told different numbers");
    let distinct: BTreeSet<i64> = answers[0].iter().copied().collect();
    ensure!(distinct.len() == 100);
    let read = queue::read(&mut client, "q", 1_000)?;
    ensure!(queue::sorted_ids(&read) == distinct.into_iter().collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_purge_takes_what_was_sent_before_and_nothing_else() -> Result<()> {
    let (database, mut client) = made(", visibility_timeout => '1 hour'")?;
    // More than the index takes in one go, some of it delayed, some leased.
    queue::send_numbers(&mut client, "q", 6_000)?;
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[100]), delay => '1 hour'); \
         SELECT count(*) FROM enough.queue_read('q', 50)",
    )?;
    ensure!(number(&mut client, "SELECT enough.queue_purge('q')")? == 6_100);
    let stats = queue::stats(&mut client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed) == (0, 0, 0), "{stats:?}");

    // Among senders: what isn't purged is delivered.
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..3)
        .map(|_| -> Result<_> {
            let (mut client, stop) = (database.client()?, std::sync::Arc::clone(&stop));
            Ok(thread::spawn(move || -> Result<i64> {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    sent += queue::send_numbers(&mut client, "q", 20)?.len() as i64;
                }
                Ok(sent)
            }))
        })
        .collect::<Result<_>>()?;
    let mut purged = 0;
    let mut read = 0;
    for _ in 0..30 {
        read += queue::receive(&mut client, "queue_pop('q', 7)")?.len() as i64;
        purged += number(&mut client, "SELECT enough.queue_purge('q')")?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for sender in senders {
        sent += sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
    }
    let ready = queue::stats(&mut client, "q")?.ready;
    let rest = queue::drain(&mut client, "q")?.len() as i64;
    ensure!(purged + read + rest == sent, "{purged} purged, {read} + {rest} read of {sent}");
    ensure!(ready == rest, "{ready} were counted, {rest} there");
    Ok(())
}

#[test]
fn a_look_shows_more_than_the_index_holds() -> Result<()> {
    let (_database, mut client) = made(", visibility_timeout => '1 hour'")?;
    let sent = queue::send_numbers(&mut client, "q", 9_000)?;
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', array_fill('\"late\"'::jsonb, ARRAY[500]), delay => '1 hour')",
    )?;
    let shown = |client: &mut Client, call: &str| queue::receive(client, &format!("queue_peek('q', {call})"));
    ensure!(queue::ids(&shown(&mut client, "10000")?) == sent);
    ensure!(queue::ids(&shown(&mut client, "5")?) == sent[..5]);
    ensure!(shown(&mut client, "10000, 'delayed'")?.len() == 500);
    ensure!(shown(&mut client, "10000, 'leased'")?.is_empty());
    let read = queue::read(&mut client, "q", 1_000)?;
    ensure!(queue::ids(&shown(&mut client, "10000")?) == sent[1_000..]);
    let leased = shown(&mut client, "10000, 'leased'")?;
    ensure!(leased == read, "leased messages are shown otherwise than they were read");
    ensure!(queue::read(&mut client, "q", 10_000)?.len() == 8_000, "a look has taken something");
    Ok(())
}

#[test]
fn an_alteration_reaches_every_session_when_it_commits() -> Result<()> {
    let (database, mut client) = made(", visibility_timeout => '1 hour', max_attempts => 5")?;
    let mut other = database.client()?;
    queue::send_numbers(&mut client, "q", 10)?;
    let lasts = |client: &mut Client| -> Result<f64> {
        let row = client.query_one(
            "SELECT EXTRACT(EPOCH FROM leased_until - clock_timestamp())::float8 FROM enough.queue_read('q')",
            &[],
        )?;
        Ok(row.get(0))
    };
    ensure!(lasts(&mut other)? > 3_000.0);
    client.batch_execute("BEGIN; SELECT enough.queue_alter('q', visibility_timeout => '10 minutes')")?;
    ensure!(lasts(&mut other)? > 3_000.0, "an open transaction's option is in force");
    client.batch_execute("ROLLBACK")?;
    ensure!(lasts(&mut other)? > 3_000.0, "a rolled back option is in force");
    client.batch_execute("SELECT enough.queue_alter('q', visibility_timeout => '10 minutes')")?;
    let now = lasts(&mut other)?;
    ensure!((500.0..=600.0).contains(&now), "{now}");
    // Two at once: the second one's options hold the first one's.
    client.batch_execute("BEGIN; SELECT enough.queue_alter('q', max_attempts => 1)")?;
    let waits = thread::spawn(move || -> Result<Client> {
        other.batch_execute("SELECT enough.queue_alter('q', visibility_timeout => '5 minutes')")?;
        Ok(other)
    });
    client.batch_execute("COMMIT")?;
    let mut other = waits.join().map_err(|_| anyhow::anyhow!("a session panicked"))??;
    let read = queue::read(&mut other, "q", 1)?;
    let fate: String = other.query_one("SELECT enough.queue_fail('q', $1)", &[&read[0].msg_id])?.get(0);
    ensure!(fate == "dead", "max_attempts is what it was");
    let now = lasts(&mut client)?;
    ensure!((200.0..=300.0).contains(&now), "{now}");
    Ok(())
}

#[test]
fn a_paused_queue_keeps_its_readers_waiting() -> Result<()> {
    let (database, mut client) = made(", visibility_timeout => '1 hour'")?;
    client.batch_execute("SELECT enough.queue_pause('q')")?;
    let sent = queue::send_numbers(&mut client, "q", 5)?;
    let readers: Vec<_> =
        (0..5).map(|_| crate::wait::sleeper(&database, "queue_read('q', wait => '1 hour')")).collect::<Result<_>>()?;
    client.batch_execute("BEGIN; SELECT enough.queue_resume('q'); ROLLBACK")?;
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    client.batch_execute("SELECT enough.queue_resume('q')")?;
    let mut read = Vec::new();
    for (reader, _) in readers {
        read.extend(reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??);
    }
    ensure!(queue::sorted_ids(&read) == sent, "{read:?}");
    // What is leased can be finished while the queue is paused.
    client.batch_execute("SELECT enough.queue_pause('q')")?;
    ensure!(queue::delete(&mut client, "q", read[0].msg_id, read[0].lease)?);
    Ok(())
}

#[test]
fn expired_archives_are_counted_out() -> Result<()> {
    let (_database, mut client) = made(", archive_for => '1 day', max_attempts => 1")?;
    let sent = queue::send_numbers(&mut client, "q", 4)?;
    queue::read(&mut client, "q", 4)?;
    client.execute("SELECT enough.queue_archive_batch('q', $1)", &[&&sent[..3]])?;
    client.execute("SELECT enough.queue_fail('q', $1)", &[&sent[3]])?;
    client.execute("UPDATE enough.a_q SET finished_at = now() - interval '2 days' WHERE msg_id <> $1", &[&sent[0]])?;
    let counts = |client: &mut Client| -> Result<[i64; 2]> {
        let row = client.query_one("SELECT archived, dead FROM enough.queue_stats('q')", &[])?;
        Ok([row.get(0), row.get(1)])
    };
    ensure!(counts(&mut client)? == [3, 1]);
    client.batch_execute("SELECT enough.maintain()")?;
    ensure!(counts(&mut client)? == [1, 0]);
    Ok(())
}

#[test]
fn whatever_stands_in_the_archive_a_message_can_end() -> Result<()> {
    let (_database, mut client) = made(", max_attempts => 1")?;
    let sent = queue::send_numbers(&mut client, "q", 3)?;
    client.batch_execute(
        "INSERT INTO enough.a_q (msg_id, enqueued_at, attempts, priority, message, outcome, finished_at) \
         SELECT msg_id, enqueued_at, 7, 0, '\"by hand\"', 'done', now() FROM enough.q_q",
    )?;
    let read = queue::receive(&mut client, "queue_read('q', 3, '20 milliseconds')")?;
    ensure!(read.len() == 3);
    let archived: bool = client.query_one("SELECT enough.queue_archive('q', $1, '\"new\"')", &[&sent[0]])?.get(0);
    let fate: String = client.query_one("SELECT enough.queue_fail('q', $1, 'new')", &[&sent[1]])?.get(0);
    ensure!(archived && fate == "dead");
    eventually("the third has died of its lease", || {
        ensure!(queue::read(&mut client, "q", 3)?.is_empty());
        Ok((number(&mut client, "SELECT count(*) FROM enough.q_q")? == 0).then_some(()))
    })?;
    let rows = client.query("SELECT attempts, message, outcome FROM enough.a_q ORDER BY msg_id", &[])?;
    let rows: Vec<(i32, Value, String)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected: Vec<_> = [("done", 1), ("dead", 2), ("dead", 3)]
        .iter()
        .map(|&(outcome, number)| (1, json!(number), outcome.to_owned()))
        .collect();
    ensure!(rows == expected, "{rows:?}");
    Ok(())
}

#[test]
fn above_read_committed_a_change_of_what_is_not_seen_is_refused() -> Result<()> {
    let (database, mut client) = made("")?;
    let mut other = database.client()?;
    for call in [
        "queue_fail('q', $1)::text",
        "queue_archive('q', $1)::text",
        "queue_archive_batch('q', ARRAY[$1::bigint])::text",
    ] {
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM enough.q_q")?;
        let sent = queue::send(&mut other, "q", &json!(1))?;
        refused(client.query(&format!("SELECT enough.{call}"), &[&sent]), "40001")?;
        client.batch_execute("ROLLBACK")?;
        ensure!(queue::ids(&queue::receive(&mut other, "queue_pop('q', 10)")?) == [sent]);
    }
    Ok(())
}

#[test]
fn a_group_waits_for_its_failed_message_and_goes_on_after_its_death() -> Result<()> {
    let (_database, mut client) = made(", visibility_timeout => '1 hour', max_attempts => 2")?;
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', ARRAY['1', '2', '3', '4']::jsonb[], group_keys => ARRAY['g', 'g', 'g', 'g']); \
         SELECT enough.queue_send('q', '\"free\"')",
    )?;
    let fail = |client: &mut Client, msg_id: i64, rest: &str| -> Result<Option<String>> {
        let call = format!("SELECT enough.queue_fail('q', $1, 'no', '{rest}')");
        Ok(client.query_one(&call, &[&msg_id])?.get(0))
    };
    let read = queue::read(&mut client, "q", 10)?;
    ensure!(queue::ids(&read) == [1, 5], "{read:?}");
    // While it rests nobody of its group is delivered; nor while its failure isn't committed.
    ensure!(fail(&mut client, 1, "1 hour")?.as_deref() == Some("retry"));
    ensure!(queue::read(&mut client, "q", 10)?.is_empty(), "a message has overtaken the failed one");
    ensure!(fail(&mut client, 1, "0")?.as_deref() == Some("retry"));
    let read = queue::read(&mut client, "q", 10)?;
    ensure!(queue::ids(&read) == [1] && read[0].attempts == 2, "{read:?}");
    // One that waits may be failed too, and finds its place again.
    ensure!(fail(&mut client, 3, "0")?.as_deref() == Some("retry"));
    ensure!(fail(&mut client, 2, "0")?.as_deref() == Some("retry"));
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    client.batch_execute("BEGIN")?;
    ensure!(fail(&mut client, 1, "0")?.as_deref() == Some("dead"));
    ensure!(queue::read(&mut client, "q", 10)?.is_empty(), "the death isn't committed yet");
    client.batch_execute("ROLLBACK")?;
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    ensure!(fail(&mut client, 1, "0")?.as_deref() == Some("dead"));
    let read = queue::read(&mut client, "q", 10)?;
    ensure!(queue::ids(&read) == [2], "{read:?}");
    // Redriven it comes first again, though not before the one that is out.
    client.batch_execute("SELECT enough.queue_redrive('q')")?;
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    client.batch_execute("SELECT enough.queue_archive('q', 2)")?;
    for expected in [1, 3, 4] {
        let read = queue::read(&mut client, "q", 10)?;
        ensure!(queue::ids(&read) == [expected], "{read:?}, where {expected} was due");
        let shown = queue::receive(&mut client, "queue_peek('q', 10)")?;
        ensure!(shown.iter().all(|message| message.msg_id > expected), "{shown:?}");
        ensure!(shown.len() as i64 == if expected == 1 { 2 } else { 4 - expected }, "{shown:?}");
        ensure!(queue::delete(&mut client, "q", expected, read[0].lease)?);
    }
    Ok(())
}

#[test]
fn a_purge_takes_groups_too() -> Result<()> {
    let (_database, mut client) = made(", visibility_timeout => '1 hour'")?;
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', array_fill('1'::jsonb, ARRAY[500]), group_keys => \
                ARRAY(SELECT 'g' || n % 3 FROM generate_series(1, 500) AS n)); \
         SELECT enough.queue_send('q', '1', group_key => 'g0', delay => '1 hour')",
    )?;
    ensure!(queue::read(&mut client, "q", 2)?.len() == 2);
    client.batch_execute("BEGIN")?;
    ensure!(number(&mut client, "SELECT enough.queue_purge('q')")? == 501);
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    client.batch_execute("ROLLBACK")?;
    let stats = queue::stats(&mut client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed) == (498, 2, 1), "{stats:?}");
    ensure!(queue::read(&mut client, "q", 10)?.len() == 1, "the third group was free");
    ensure!(number(&mut client, "SELECT enough.queue_purge('q')")? == 501);
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    let stats = queue::stats(&mut client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed) == (0, 0, 0), "{stats:?}");
    client.batch_execute("SELECT enough.queue_send('q', '1', group_key => 'g1')")?;
    ensure!(queue::read(&mut client, "q", 10)?.len() == 1);
    Ok(())
}

#[test]
fn after_a_rollback_the_worker_still_says_why() -> Result<()> {
    let (database, mut client) = made(", max_attempts => 2, retry_backoff => '1 hour'")?;
    let mut other = database.client()?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let fail = "SELECT enough.queue_fail('q', $1, $2, $3::text::interval, $4)";
    let fate = |client: &mut Client, error: &str, rest: Option<&str>, lease: Option<i64>| -> Result<Option<String>> {
        Ok(client.query_one(fail, &[&sent, &error, &rest, &lease])?.get(0))
    };
    // The work fails, and takes the transaction with it; by a savepoint, or as a whole.
    client.batch_execute("BEGIN")?;
    let first = queue::read(&mut client, "q", 1)?;
    refused(client.batch_execute("SELECT 1 / 0"), "22012")?;
    client.batch_execute("ROLLBACK")?;
    ensure!(!queue::delete(&mut client, "q", sent, first[0].lease)?, "it has been given back");
    ensure!(fate(&mut other, "no", None, Some(first[0].lease.unwrap_or(0) + 1))?.is_none(), "not that lease's");
    ensure!(fate(&mut client, "22012", Some("0"), first[0].lease)?.as_deref() == Some("retry"));
    ensure!(fate(&mut client, "again", None, first[0].lease)?.is_none(), "a failure ends the lease");
    let row = client.query_one("SELECT attempts, last_error FROM enough.q_q", &[])?;
    ensure!(row.get::<_, i32>(0) == 1 && row.get::<_, &str>(1) == "22012", "{row:?}");
    client.batch_execute("BEGIN; SAVEPOINT s")?;
    let second = queue::read(&mut client, "q", 1)?;
    ensure!(second[0].attempts == 2);
    client.batch_execute("ROLLBACK TO s")?;
    ensure!(fate(&mut client, "the end", None, second[0].lease)?.as_deref() == Some("dead"));
    client.batch_execute("COMMIT")?;
    let dead = client.query_one("SELECT attempts, error FROM enough.queue_dead('q')", &[])?;
    ensure!(dead.get::<_, i32>(0) == 2 && dead.get::<_, &str>(1) == "the end", "{dead:?}");
    // The failures are counted once each.
    let counts =
        client.query_one("SELECT failed_total, ready + leased + delayed, dead FROM enough.queue_stats('q')", &[])?;
    ensure!([0, 1, 2].map(|column| counts.get::<_, i64>(column)) == [2, 0, 1], "{counts:?}");
    Ok(())
}

#[test]
fn a_lease_that_another_has_followed_fails_nothing() -> Result<()> {
    let (database, mut client) = made(", retry_backoff => '20 milliseconds', visibility_timeout => '1 hour'")?;
    let mut other = database.client()?;
    let sent = queue::send(&mut client, "q", &json!(1))?;
    let fail = "SELECT enough.queue_fail('q', $1, 'late', lease => $2)";
    client.batch_execute("BEGIN")?;
    let first = queue::read(&mut client, "q", 1)?;
    client.batch_execute("ROLLBACK")?;
    // Read again: whether the new reader is at work, has given the message back or has rolled back itself.
    let again = queue::receive(&mut other, "queue_read('q', wait => '10 s')")?;
    let late = |client: &mut Client| -> Result<Option<String>> {
        Ok(client.query_one(fail, &[&sent, &first[0].lease])?.get(0))
    };
    ensure!(late(&mut client)?.is_none(), "another has it");
    client.execute("SELECT enough.queue_extend('q', $1, '0', $2)", &[&sent, &again[0].lease])?;
    ensure!(late(&mut client)?.is_none(), "another had it");
    other.batch_execute("BEGIN")?;
    ensure!(queue::read(&mut other, "q", 1)?.len() == 1);
    other.batch_execute("ROLLBACK")?;
    ensure!(late(&mut client)?.is_none(), "another had it, and it rests");
    // And neither does one that ran out.
    let short = queue::receive(&mut other, "queue_read('q', 1, '1 ms', '10 s')")?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    ensure!(client.query_one(fail, &[&sent, &short[0].lease])?.get::<_, Option<&str>>(0).is_none(), "it ran out");
    Ok(())
}

#[test]
fn a_failure_for_good_is_dead_at_once() -> Result<()> {
    let (_database, mut client) = made("")?;
    let sent = queue::send_numbers(&mut client, "q", 3)?;
    queue::read(&mut client, "q", 3)?;
    let fate: String =
        client.query_one("SELECT enough.queue_fail('q', $1, 'no such user', dead => true)", &[&sent[0]])?.get(0);
    ensure!(fate == "dead");
    client.execute("SELECT enough.queue_fail_batch('q', $1, error => 'gone', dead => true)", &[&&sent[1..]])?;
    let dead = "SELECT msg_id, attempts, error FROM enough.queue_dead('q') ORDER BY msg_id";
    let dead: Vec<(i64, i32, String)> =
        client.query(dead, &[])?.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected: Vec<_> =
        sent.iter().zip(["no such user", "gone", "gone"]).map(|(id, why)| (*id, 1, why.to_owned())).collect();
    ensure!(dead == expected, "{dead:?}");
    ensure!(queue::read(&mut client, "q", 9)?.is_empty());
    Ok(())
}
