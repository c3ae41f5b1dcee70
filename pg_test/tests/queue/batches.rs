//! Batches: their leases, their order, and what two of them do to one another.

use anyhow::{Result, anyhow, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{self, Message, made};
use enough_pg_test::server::{Database, backend, until_locked};
use postgres::Client;
use serde_json::json;
use std::thread;

/// The batch functions, and what each is called with behind the numbers and the leases.
const BATCHES: [(&str, &str); 5] = [
    ("queue_delete_batch", ""),
    ("queue_archive_batch", ""),
    ("queue_extend_batch", ", '1 hour'"),
    ("queue_fail_batch", ", 'no', '0'"),
    ("queue_release_batch", ""),
];

/// Those that change rows.
fn writing() -> impl Iterator<Item = (&'static str, &'static str)> {
    BATCHES.into_iter().filter(|(function, _)| *function != "queue_extend_batch")
}

fn call(
    client: &mut Client,
    (function, more): (&str, &str),
    numbers: &[i64],
    leases: &[Option<i64>],
) -> Result<Vec<i64>, postgres::Error> {
    let rows = client.query(&format!("SELECT enough.{function}('q', $1, $2{more})"), &[&numbers, &leases])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn leases(read: &[Message]) -> Vec<Option<i64>> {
    read.iter().map(|message| message.lease).collect()
}

/// Runs both calls, each in a session of its own, while `held` holds what is in the middle of both.
fn at_the_same_time(database: &Database, held: &str, calls: [String; 2]) -> Result<[Vec<i64>; 2]> {
    let (mut holder, mut observer) = (database.client()?, database.client()?);
    holder.batch_execute(&format!("BEGIN; {held}"))?;
    let mut sessions = Vec::new();
    for call in calls {
        let mut client = database.client()?;
        let pid = backend(&mut client)?;
        sessions.push(thread::spawn(move || -> Result<Vec<i64>> {
            Ok(client.query(&call, &[])?.iter().map(|row| row.get(0)).collect())
        }));
        until_locked(&mut observer, pid)?;
    }
    holder.batch_execute("ROLLBACK")?;
    let mut answers = sessions.into_iter().map(|session| session.join().map_err(|_| anyhow!("a session panicked"))?);
    let mut next = || answers.next().ok_or_else(|| anyhow!("two sessions"))?;
    Ok([next()?, next()?])
}

fn list(numbers: impl IntoIterator<Item = i64>) -> String {
    let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    format!("'{{{}}}'::bigint[]", numbers.join(","))
}

#[test]
fn two_batches_over_the_same_messages_in_opposite_order_wait_for_one_another() -> Result<()> {
    for (function, _) in writing() {
        for indexed in [true, false] {
            if function == "queue_release_batch" && !indexed {
                // There is nothing to be released.
                continue;
            }
            let (database, mut client, _) = made(", visibility_timeout => '1 hour', retry_backoff => '0'")?;
            let sent = queue::send_numbers(&mut client, "q", 700)?;
            if indexed {
                ensure!(queue::read(&mut client, "q", 700)?.len() == 700);
            }
            let calls = [list(sent.iter().copied()), list(sent.iter().rev().copied())]
                .map(|numbers| format!("SELECT enough.{function}('q', {numbers})"));
            let middle = format!("SELECT FROM enough.q_q WHERE msg_id = {} FOR UPDATE", sent[350]);
            let [forth, back] = at_the_same_time(&database, &middle, calls)
                .map_err(|error| error.context(format!("{function}, read before: {indexed}")))?;
            ensure!(forth.is_sorted_by(|a, b| a < b), "{function}: not in the caller's order");
            ensure!(back.is_sorted_by(|a, b| a > b), "{function}: not in the caller's order");
            if function == "queue_delete_batch" || function == "queue_archive_batch" {
                let mut all = [forth, back].concat();
                all.sort_unstable();
                ensure!(all == sent, "{function}: {} of 700 were done, each once", all.len());
            }
        }
    }
    Ok(())
}

#[test]
fn batches_of_different_kinds_wait_for_one_another() -> Result<()> {
    for (one, _) in writing() {
        for (other, _) in writing() {
            let (database, mut client, _) = made(", visibility_timeout => '1 hour', retry_backoff => '0'")?;
            let sent = queue::send_numbers(&mut client, "q", 9)?;
            queue::read(&mut client, "q", 9)?;
            let calls = [
                format!("SELECT enough.{one}('q', {})", list(sent.iter().copied())),
                format!("SELECT enough.{other}('q', {})", list(sent.iter().rev().copied())),
            ];
            let middle = format!("SELECT FROM enough.q_q WHERE msg_id = {} FOR UPDATE", sent[4]);
            at_the_same_time(&database, &middle, calls)
                .map_err(|error| error.context(format!("{one} beside {other}")))?;
        }
    }
    Ok(())
}

#[test]
fn two_batches_of_the_same_dedup_keys_in_opposite_order_wait_for_one_another() -> Result<()> {
    // Of the second kind, messages with a key are between others without.
    for (held, keys, expected) in [("k50", "'k' || i", 300), ("m50", "CASE WHEN i % 3 > 0 THEN 'm' || i END", 400)] {
        let (database, mut client, _) = made("")?;
        let send = |order: &str| {
            format!(
                "SELECT enough.queue_send_batch('q', array_agg(to_jsonb(i) ORDER BY {order}), \
                        dedup_keys => array_agg({keys} ORDER BY {order})) FROM generate_series(1, 300) AS i"
            )
        };
        let middle = format!("SELECT enough.queue_send('q', '0', dedup_key => '{held}')");
        let [forth, back] = at_the_same_time(&database, &middle, [send("i"), send("-i")])?;
        for (answer, forward) in [(&forth, true), (&back, false)] {
            let named: i64 = client
                .query_one(
                    "SELECT count(*) FROM unnest($1::bigint[]) WITH ORDINALITY AS a(id, place) \
                     JOIN enough.q_q AS q ON q.msg_id = a.id \
                     WHERE q.message = to_jsonb(CASE WHEN $2 THEN place ELSE 301 - place END)",
                    &[answer, &forward],
                )?
                .get(0);
            ensure!(named == 300, "{named} of 300 answers name the message that was sent");
        }
        let rows: i64 = client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
        ensure!(rows == expected, "{rows} rows instead of {expected}");
    }
    Ok(())
}

#[test]
fn a_batch_with_dedup_keys_numbers_its_messages_in_its_order() -> Result<()> {
    let (_database, mut client, _) = made("")?;
    let send = "SELECT enough.queue_send_batch('q', ARRAY['0', '1', '2', '3', '4', '5']::jsonb[], \
                       dedup_keys => ARRAY['z', NULL, 'a', 'z', NULL, 'm'])";
    let numbers: Vec<i64> = client.query(send, &[])?.iter().map(|row| row.get(0)).collect();
    ensure!(numbers[3] == numbers[0], "the second of a key is the first one: {numbers:?}");
    let mut stored = numbers.clone();
    stored.remove(3);
    ensure!(stored.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let read = queue::read(&mut client, "q", 10)?;
    ensure!(queue::ids(&read) == stored, "delivered in the order of the batch: {read:?}");
    let messages: Vec<_> = read.iter().map(|message| message.message.clone()).collect();
    ensure!(messages == [json!(0), json!(1), json!(2), json!(4), json!(5)], "{messages:?}");
    Ok(())
}

#[test]
fn a_batch_leaves_alone_what_another_has_leased_since() -> Result<()> {
    for batch in BATCHES {
        let (_database, mut client, mut other) = made(", visibility_timeout => '1 hour'")?;
        queue::send_numbers(&mut client, "q", 6)?;
        let read = queue::read(&mut client, "q", 6)?;
        let (ids, mine) = (queue::ids(&read), leases(&read));
        // Two leases are lost: one message is given back and read by another session, one is ready.
        for lost in [1, 4] {
            client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&ids[lost]])?;
        }
        let again = queue::read(&mut other, "q", 1)?;
        ensure!(again.len() == 1);
        let kept = [ids[0], ids[2], ids[3], ids[5]];
        ensure!(call(&mut client, batch, &ids, &mine)? == kept, "{batch:?}");
        let lost: Vec<i64> = [1, 4].iter().map(|&lost| ids[lost]).collect();
        let state = "SELECT state, attempts FROM enough.queue_status('q', $1)";
        let states: Vec<String> =
            lost.iter().map(|id| Ok(client.query_one(state, &[id])?.get(0))).collect::<Result<_, postgres::Error>>()?;
        ensure!(states.contains(&"leased".into()) && states.contains(&"ready".into()), "{batch:?}: {states:?}");
        // The other session's lease is what it was.
        ensure!(call(&mut other, batch, &queue::ids(&again), &leases(&again))?.len() == 1, "{batch:?}");
    }
    Ok(())
}

#[test]
fn an_element_without_a_lease_is_changed_without_one() -> Result<()> {
    for batch in BATCHES {
        let (_database, mut client, _) = made(", visibility_timeout => '1 hour'")?;
        queue::send_numbers(&mut client, "q", 4)?;
        let read = queue::read(&mut client, "q", 4)?;
        let ids = queue::ids(&read);
        let wrong = read[2].lease.map(|lease| lease + 1_000_000);
        let done = call(&mut client, batch, &ids, &[None, read[1].lease, wrong, None])?;
        ensure!(done == [ids[0], ids[1], ids[3]], "{batch:?}: {done:?}");
        // And without any lease at all, in an array of two dimensions, whose elements come one after the other.
        let (function, more) = batch;
        let all =
            format!("SELECT enough.{function}('q', ARRAY[[{}, 77], [{}, {}]], NULL{more})", ids[2], ids[2], ids[2]);
        let done: Vec<i64> = client.query(&all, &[])?.iter().map(|row| row.get(0)).collect();
        ensure!(done.first() == Some(&ids[2]) && !done.contains(&77), "{batch:?}: {done:?}");
    }
    Ok(())
}

#[test]
fn leases_belong_to_messages_one_by_one() -> Result<()> {
    let (_database, mut client, _) = made("")?;
    for (function, more) in BATCHES {
        let mut refusal = |ids: &str, leases: &str, expected: &str| -> Result<String> {
            let query = format!("SELECT enough.{function}('q', {ids}, {leases}{more})");
            refused(client.query(&query, &[]), expected)
        };
        for leases in ["'{}'", "'{1}'", "'{1,2,3}'", "'{{1,2},{3,4}}'"] {
            let hint = refusal("'{1,2}'", leases, "22023")?;
            ensure!(hint == "It must be an array of 2 elements, one for each message.", "{function}: {hint}");
        }
        refusal("'{1,NULL}'", "'{1,2}'", "22004")?;
        let much = "array_fill(1::bigint, ARRAY[100000])";
        refusal(much, much, "54000")?;
        refusal(much, "NULL", "54000")?;
        for (ids, leases) in [
            ("'{}'", "'{}'"),
            ("'{}'", "NULL"),
            ("NULL", "NULL"),
            ("NULL", "'{}'"),
            ("'{1,2}'", "'{NULL,NULL}'"),
            ("'{{1,2}}'", "'{5,6}'"),
        ] {
            let query = format!("SELECT enough.{function}('q', {ids}, {leases}{more})");
            ensure!(client.query(&query, &[])?.is_empty(), "{query}");
        }
    }
    Ok(())
}

#[test]
fn a_message_that_is_named_twice_is_treated_as_by_two_calls() -> Result<()> {
    for batch in BATCHES {
        let (_database, mut client, _) = made(", visibility_timeout => '1 hour'")?;
        queue::send_numbers(&mut client, "q", 3)?;
        let read = queue::read(&mut client, "q", 3)?;
        let ids = queue::ids(&read);
        let twice = [ids[2], ids[0], ids[2], ids[0], ids[1]];
        let (stale, own) = (Some(-1), |place: usize| read[place].lease);
        let done = call(&mut client, batch, &twice, &[own(2), stale, own(2), own(0), own(1)])?;
        // A lease ends with its message's end; it doesn't by being extended.
        let expected: &[i64] =
            if batch.0 == "queue_extend_batch" { &[ids[2], ids[2], ids[0], ids[1]] } else { &[ids[2], ids[0], ids[1]] };
        ensure!(done == expected, "{batch:?}: {done:?}");
    }
    Ok(())
}

#[test]
fn a_failure_in_the_same_transaction_ends_the_lease_and_keeps_the_attempts() -> Result<()> {
    let (_database, mut client, _) = made(", visibility_timeout => '1 hour', max_attempts => 4")?;
    queue::send(&mut client, "q", &json!(1))?;
    for _ in 0..2 {
        let read = queue::read(&mut client, "q", 1)?;
        client.execute(
            "SELECT enough.queue_fail('q', $1, retry_in => '0', lease => $2)",
            &[&read[0].msg_id, &read[0].lease],
        )?;
    }
    let read = queue::read(&mut client, "q", 1)?;
    let (id, lease) = (read[0].msg_id, read[0].lease);
    ensure!(read[0].attempts == 3);
    client.batch_execute("BEGIN")?;
    let fail = "SELECT enough.queue_fail('q', $1, 'one', '0', $2)";
    ensure!(client.query_one(fail, &[&id, &lease])?.get::<_, Option<&str>>(0) == Some("retry"));
    ensure!(client.query_one(fail, &[&id, &lease])?.get::<_, Option<&str>>(0).is_none(), "the lease has ended");
    ensure!(!queue::delete(&mut client, "q", id, lease)?, "the lease has ended");
    let unfenced: Option<String> = client.query_one("SELECT enough.queue_fail('q', $1, 'two', '0')", &[&id])?.get(0);
    ensure!(unfenced.as_deref() == Some("retry"));
    client.batch_execute("COMMIT")?;
    let row = client.query_one("SELECT attempts, last_error FROM enough.q_q", &[])?;
    ensure!(row.get::<_, i32>(0) == 3 && row.get::<_, &str>(1) == "two", "{row:?}");
    let read = queue::read(&mut client, "q", 1)?;
    ensure!(read.len() == 1 && read[0].attempts == 4, "{read:?}");
    Ok(())
}

#[test]
fn a_batch_that_is_rolled_back_leaves_all_as_it_was() -> Result<()> {
    for batch in writing() {
        for savepoint in [false, true] {
            let (_database, mut client, mut other) = made(", visibility_timeout => '1 hour'")?;
            queue::send_numbers(&mut client, "q", 600)?;
            let read = queue::read(&mut client, "q", 500)?;
            let (ids, mine) = (queue::ids(&read), leases(&read));
            client.batch_execute(if savepoint { "BEGIN; SAVEPOINT s" } else { "BEGIN" })?;
            ensure!(call(&mut client, batch, &ids, &mine)? == ids);
            ensure!(queue::read(&mut other, "q", 600)?.len() == 100, "nobody gets what an open transaction changes");
            client.batch_execute(if savepoint { "ROLLBACK TO s; COMMIT" } else { "ROLLBACK" })?;
            ensure!(queue::read(&mut other, "q", 600)?.is_empty(), "{batch:?}: the leases go on");
            ensure!(call(&mut client, batch, &ids, &mine)? == ids, "{batch:?}");
        }
        // An error in the statement undoes it, too.
        let (_database, mut client, _) = made(", visibility_timeout => '1 hour'")?;
        queue::send_numbers(&mut client, "q", 10)?;
        let read = queue::read(&mut client, "q", 10)?;
        let (ids, mine) = (queue::ids(&read), leases(&read));
        let (function, more) = batch;
        let failing = format!("SELECT 1 / (count(*) - 10) FROM enough.{function}('q', $1, $2{more})");
        refused(client.query(&failing, &[&ids, &mine]), "22012")?;
        ensure!(call(&mut client, batch, &ids, &mine)? == ids, "{batch:?}");
    }
    Ok(())
}

#[test]
fn results_of_a_batch_go_to_the_archive_in_their_places() -> Result<()> {
    let (_database, mut client, _) = made("")?;
    // Bodies that are stored out of line, and keys and headers that are there or not.
    client.batch_execute(
        "SELECT enough.queue_send('q', jsonb_build_object('i', i, 'body', repeat(md5(i::text), 20000)), \
                group_key => CASE WHEN i % 2 = 0 THEN 'g' || i END, dedup_key => CASE WHEN i % 3 = 0 THEN 'd' || i END, \
                headers => CASE WHEN i % 5 = 0 THEN jsonb_build_object('h', i) END) FROM generate_series(1, 60) AS i; \
         CREATE TABLE before AS TABLE enough.q_q",
    )?;
    let read = queue::read(&mut client, "q", 60)?;
    ensure!(read.len() == 60);
    let archived = client.query(
        "SELECT enough.queue_archive_batch('q', array_agg(msg_id ORDER BY msg_id DESC), \
                results => array_agg(CASE WHEN msg_id % 4 > 0 THEN to_jsonb(msg_id) END ORDER BY msg_id DESC)) FROM before",
        &[],
    )?;
    ensure!(archived.len() == 60);
    let same: i64 = client
        .query_one(
            "SELECT count(*) FROM before AS b JOIN enough.a_q AS a USING (msg_id, enqueued_at, priority, message) \
             WHERE a.group_key IS NOT DISTINCT FROM b.group_key AND a.dedup_key IS NOT DISTINCT FROM b.dedup_key \
               AND a.headers IS NOT DISTINCT FROM b.headers AND a.attempts = 1 AND a.outcome = 'done' AND a.error IS NULL \
               AND a.result IS NOT DISTINCT FROM CASE WHEN msg_id % 4 > 0 THEN to_jsonb(msg_id) END",
            &[],
        )?
        .get(0);
    ensure!(same == 60, "{same} of 60");
    let hint = refused(client.query("SELECT enough.queue_archive_batch('q', '{1}', NULL, '{}')", &[]), "22023")?;
    ensure!(hint == "It must be an array of 1 element, one for each message.", "{hint}");
    Ok(())
}

#[test]
fn what_is_released_comes_again_as_if_it_had_not_been_delivered() -> Result<()> {
    let (_database, mut client, mut other) = made(", visibility_timeout => '1 hour', max_attempts => 2")?;
    let sent = queue::send_numbers(&mut client, "q", 3)?;
    for round in 0..5 {
        let read = queue::read(&mut client, "q", 3)?;
        ensure!(queue::sorted_ids(&read) == sent, "round {round}: {read:?}");
        ensure!(read.iter().all(|message| message.attempts == 1), "round {round}: {read:?}");
        ensure!(call(&mut client, ("queue_release_batch", ""), &queue::ids(&read), &leases(&read))?.len() == 3);
    }
    let failed = "SELECT ready, leased, failed_total FROM enough.queue_stats('q')";
    let row = client.query_one(failed, &[])?;
    ensure!([0, 1, 2].map(|column| row.get::<_, i64>(column)) == [3, 0, 0], "{row:?}");
    // From the second delivery on the attempt is in the row, and is taken back there.
    let read = queue::read(&mut client, "q", 1)?;
    client.execute("SELECT enough.queue_fail('q', $1, 'once', '0')", &[&read[0].msg_id])?;
    let read = queue::read(&mut client, "q", 3)?;
    let again = read.iter().find(|message| message.attempts == 2).ok_or_else(|| anyhow!("{read:?}"))?;
    let release = "SELECT enough.queue_release('q', $1, '1 hour', $2)";
    ensure!(client.query_one(release, &[&again.msg_id, &again.lease])?.get::<_, bool>(0));
    let status = "SELECT state, attempts, error FROM enough.queue_status('q', $1)";
    let row = client.query_one(status, &[&again.msg_id])?;
    ensure!(row.get::<_, &str>(0) == "delayed" && row.get::<_, i32>(1) == 1 && row.get::<_, &str>(2) == "once");
    let attempts: i32 = client.query_one("SELECT attempts FROM enough.q_q WHERE msg_id = $1", &[&again.msg_id])?.get(0);
    ensure!(attempts == 1, "{attempts}");
    // What isn't leased, or not by that lease, can't be given back.
    ensure!(!client.query_one(release, &[&again.msg_id, &again.lease])?.get::<_, bool>(0));
    ensure!(!client.query_one("SELECT enough.queue_release('q', $1)", &[&again.msg_id])?.get::<_, bool>(0));
    ensure!(!client.query_one("SELECT enough.queue_release('q', 4711)", &[])?.get::<_, bool>(0));
    // Within a transaction nobody gets it until that commits.
    let one = read.iter().find(|message| message.attempts == 1).ok_or_else(|| anyhow!("{read:?}"))?;
    client.batch_execute("BEGIN")?;
    ensure!(client.query_one("SELECT enough.queue_release('q', $1)", &[&one.msg_id])?.get::<_, bool>(0));
    ensure!(queue::read(&mut other, "q", 3)?.is_empty());
    client.batch_execute("COMMIT")?;
    ensure!(queue::ids(&queue::read(&mut other, "q", 3)?) == [one.msg_id]);
    Ok(())
}

#[test]
fn a_heartbeat_of_many_keeps_their_leases() -> Result<()> {
    let (_database, mut client, mut other) = made(", visibility_timeout => '300 milliseconds'")?;
    queue::send_numbers(&mut client, "q", 300)?;
    let read = queue::read(&mut client, "q", 300)?;
    let (ids, mine) = (queue::ids(&read), leases(&read));
    let until = |client: &mut Client| -> Result<i64> {
        let far = "SELECT count(*) FROM unnest($1::bigint[]) AS id, LATERAL enough.queue_status('q', id) AS s \
                   WHERE s.leased_until > clock_timestamp() + interval '50 minutes'";
        Ok(client.query_one(far, &[&ids])?.get(0))
    };
    // Takes effect at once, also where the transaction is rolled back.
    client.batch_execute("BEGIN")?;
    ensure!(call(&mut client, ("queue_extend_batch", ", '1 hour'"), &ids, &mine)? == ids);
    client.batch_execute("ROLLBACK")?;
    ensure!(until(&mut client)? == 300);
    ensure!(queue::read(&mut other, "q", 300)?.is_empty());
    // Without a time, by the queue's own.
    let rows = client.query("SELECT enough.queue_extend_batch('q', $1)", &[&ids])?;
    ensure!(rows.len() == 300 && until(&mut client)? == 0);
    // With none, they are given back.
    ensure!(call(&mut client, ("queue_extend_batch", ", '0'"), &ids, &mine)?.len() == 300);
    ensure!(queue::read(&mut other, "q", 300)?.len() == 300);
    Ok(())
}
