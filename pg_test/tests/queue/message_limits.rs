//! Messages with limits of their own: a time after which they aren't delivered, and how often they are.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue::{made, read, receive, stats};
use postgres::Client;

fn send(client: &mut Client, rest: &str) -> Result<i64> {
    Ok(client.query_one(&format!("SELECT enough.queue_send('q', '1', {rest})"), &[])?.get(0))
}

/// State and error of a message.
fn status(client: &mut Client, msg_id: i64) -> Result<(String, Option<String>)> {
    let row = client.query_one("SELECT state, error FROM enough.queue_status('q', $1)", &[&msg_id])?;
    Ok((row.get(0), row.get(1)))
}

fn died(error: &str) -> (String, Option<String>) {
    ("dead".into(), Some(error.into()))
}

/// Waits until the message's time is over.
fn until_expired(client: &mut Client, msg_id: i64) -> Result<()> {
    eventually("it has expired", || {
        let row = client
            .query_opt("SELECT FROM enough.q_q WHERE msg_id = $1 AND expires_at <= clock_timestamp()", &[&msg_id])?;
        Ok(row.map(drop))
    })
}

fn archived(client: &mut Client) -> Result<Vec<(i64, i32, String)>> {
    let rows = client.query("SELECT msg_id, attempts, error FROM enough.a_q ORDER BY 1", &[])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

#[test]
fn what_was_not_delivered_in_time_is_dead() -> Result<()> {
    let (_database, mut client, mut reader) = made("")?;
    let late = send(&mut client, "expires_in => '1 ms'")?;
    let early = send(&mut client, "expires_in => '1 hour'")?;
    let plain = send(&mut client, "priority => 0")?;
    until_expired(&mut client, late)?;
    // Also before anybody has looked.
    ensure!(status(&mut client, late)? == died("expired"));
    ensure!(read(&mut reader, "q", 9)?.iter().map(|one| one.msg_id).eq([early, plain]));
    ensure!(archived(&mut client)? == [(late, 0, "expired".to_owned())], "{:?}", archived(&mut client)?);
    ensure!(status(&mut client, late)? == died("expired"));
    let counts = stats(&mut client, "q")?;
    ensure!((counts.ready, counts.leased, counts.dead) == (0, 2, 1), "{counts:?}");
    // One that is delivered in time may be worked on for longer.
    client.batch_execute(&format!("UPDATE enough.q_q SET expires_at = '2020-01-01' WHERE msg_id = {early}"))?;
    ensure!(status(&mut client, early)?.0 == "leased");
    client.batch_execute(&format!("SELECT enough.queue_archive('q', {early})"))?;
    ensure!(status(&mut client, early)?.0 == "done");
    Ok(())
}

#[test]
fn a_retry_that_comes_too_late_is_not_made() -> Result<()> {
    let (_database, mut client, mut reader) = made(", retry_backoff => '0'")?;
    let id = send(&mut client, "expires_in => '1 hour'")?;
    ensure!(read(&mut reader, "q", 1)?.len() == 1);
    client.batch_execute(&format!(
        "SELECT enough.queue_fail('q', {id}, 'why', '0'); UPDATE enough.q_q SET expires_at = clock_timestamp()"
    ))?;
    ensure!(read(&mut reader, "q", 1)?.is_empty());
    ensure!(archived(&mut client)? == [(id, 1, "expired".to_owned())], "{:?}", archived(&mut client)?);
    Ok(())
}

#[test]
fn a_reader_that_waits_passes_over_what_has_expired() -> Result<()> {
    let (_database, mut client, mut reader) = made("")?;
    let id = send(&mut client, "expires_in => '1 ms', group_key => 'g', dedup_key => 'd'")?;
    until_expired(&mut client, id)?;
    ensure!(receive(&mut reader, "queue_pop('q', 5, '100 ms')")?.is_empty());
    ensure!(archived(&mut client)?.len() == 1);
    // It held nothing: neither its group nor its key.
    let id = send(&mut client, "expires_in => '1 ms', group_key => 'g', dedup_key => 'd'")?;
    let next = send(&mut client, "group_key => 'g'")?;
    until_expired(&mut client, id)?;
    let same_key = send(&mut client, "dedup_key => 'd'")?;
    ensure!(same_key != id, "its key was not free");
    let mut got: Vec<i64> = read(&mut reader, "q", 9)?.iter().map(|one| one.msg_id).collect();
    got.sort_unstable();
    ensure!(got == [next, same_key], "{got:?}");
    ensure!(archived(&mut client)?.iter().all(|(_, _, error)| error == "expired"));
    Ok(())
}

#[test]
fn a_read_only_transaction_delivers_none_and_moves_none() -> Result<()> {
    let (_database, mut client, mut reader) = made("")?;
    let id = send(&mut client, "expires_in => '1 ms'")?;
    until_expired(&mut client, id)?;
    reader.batch_execute("BEGIN READ ONLY")?;
    ensure!(read(&mut reader, "q", 1)?.is_empty());
    reader.batch_execute("COMMIT")?;
    ensure!(archived(&mut client)?.is_empty() && status(&mut client, id)? == died("expired"));
    client.batch_execute("SELECT * FROM enough.maintain()")?;
    ensure!(archived(&mut client)?.len() == 1);
    // A rollback of the reader's leaves it to the next one.
    let id = send(&mut client, "expires_in => '1 ms'")?;
    until_expired(&mut client, id)?;
    reader.batch_execute("BEGIN")?;
    ensure!(read(&mut reader, "q", 1)?.is_empty());
    reader.batch_execute("ROLLBACK")?;
    ensure!(read(&mut reader, "q", 1)?.is_empty());
    ensure!(status(&mut client, id)? == died("expired") && archived(&mut client)?.len() == 2);
    Ok(())
}

#[test]
fn the_lesser_number_of_deliveries_counts() -> Result<()> {
    let (_database, mut client, mut reader) = made(", max_attempts => 3, retry_backoff => '0'")?;
    // By failures.
    for (own, deliveries) in [(2, 2), (5, 3), (1, 1)] {
        let id = send(&mut client, &format!("max_attempts => {own}"))?;
        for delivery in 1..=deliveries {
            ensure!(read(&mut reader, "q", 1)?.len() == 1, "{own}: delivery {delivery}");
            let fate: String =
                client.query_one(&format!("SELECT enough.queue_fail('q', {id}, 'no', '0')"), &[])?.get(0);
            ensure!(fate == if delivery == deliveries { "dead" } else { "retry" }, "{own}: {delivery} {fate}");
        }
        ensure!(status(&mut client, id)? == died("no"));
    }
    // By leases that run out, and by rollbacks.
    let id = send(&mut client, "max_attempts => 1")?;
    ensure!(receive(&mut reader, "queue_read('q', 1, '1 ms')")?.len() == 1);
    eventually("it is buried", || {
        ensure!(read(&mut reader, "q", 1)?.is_empty());
        Ok((!archived(&mut client)?.iter().all(|one| one.0 != id)).then_some(()))
    })?;
    ensure!(archived(&mut client)?.last() == Some(&(id, 1, "its last lease ran out".to_owned())));
    let id = send(&mut client, "max_attempts => 1")?;
    reader.batch_execute("BEGIN")?;
    ensure!(read(&mut reader, "q", 1)?.len() == 1);
    reader.batch_execute("ROLLBACK")?;
    ensure!(read(&mut reader, "q", 1)?.is_empty() && archived(&mut client)?.last().is_some_and(|one| one.0 == id));
    // What comes back has no limits any more.
    client.batch_execute(&format!("SELECT enough.queue_redrive('q', ARRAY[{id}::bigint])"))?;
    for _ in 0..3 {
        ensure!(read(&mut reader, "q", 1)?.len() == 1);
        client.batch_execute(&format!("SELECT enough.queue_fail('q', {id}, 'no', '0')"))?;
    }
    ensure!(status(&mut client, id)? == died("no"));
    Ok(())
}

#[test]
fn a_batch_has_them_for_all_and_a_caller_is_told() -> Result<()> {
    let (_database, mut client, mut reader) = made("")?;
    client.batch_execute(
        "SELECT enough.queue_send_batch('q', ARRAY['1', '2']::jsonb[], expires_in => '1 ms', dedup_keys => ARRAY['a', NULL]);
         SELECT enough.queue_send_batch('q', ARRAY['1', '2']::jsonb[], max_attempts => 1)",
    )?;
    until_expired(&mut client, 2)?;
    ensure!(read(&mut reader, "q", 9)?.len() == 2);
    client.batch_execute("SELECT enough.queue_fail_batch('q', ARRAY[3, 4])")?;
    let dead: Vec<i64> = archived(&mut client)?.iter().map(|one| one.0).collect();
    ensure!(dead == [1, 2, 3, 4], "{dead:?}");
    // Nobody reads, and who waits for the result is told all the same.
    let id = send(&mut client, "expires_in => '300 ms'")?;
    let row = client.query_one("SELECT state, error FROM enough.queue_result('q', $1, '20 s')", &[&id])?;
    ensure!((row.get(0), row.get(1)) == ("dead", "expired"));
    for wrong in
        ["expires_in => '1 hour', delay => '1 hour'", "expires_in => '1 s', deliver_at => now() + interval '1 day'"]
    {
        refused(client.batch_execute(&format!("SELECT enough.queue_send('q', '1', {wrong})")), "22023")
            .context(wrong)?;
    }
    Ok(())
}

/// The table as an earlier version made it.
#[test]
fn a_table_of_an_earlier_version_works_and_gets_its_columns() -> Result<()> {
    let (database, mut client, _) = made("")?;
    client.batch_execute(
        "ALTER TABLE enough.q_q DROP expires_at, DROP max_attempts; SELECT enough.queue_send('q', '1')",
    )?;
    ensure!(read(&mut client, "q", 1)?.len() == 1);
    let hint = refused(client.batch_execute("SELECT enough.queue_send('q', '1', max_attempts => 1)"), "55000")?;
    ensure!(hint.contains("if_not_exists"), "{hint}");
    // For those who may not alter it, it is whole enough.
    let role = database.role("worker");
    client.batch_execute(&format!("CREATE ROLE {role} LOGIN"))?;
    let made = |client: &mut Client| -> Result<bool> {
        Ok(client.query_one("SELECT enough.queue_create('q', if_not_exists => true)", &[])?.get(0))
    };
    ensure!(!made(&mut database.client_as(&role)?)?);
    ensure!(made(&mut client)? && !made(&mut client)?);
    let id = send(&mut client, "max_attempts => 1")?;
    ensure!(read(&mut client, "q", 1)?.len() == 1);
    client.batch_execute(&format!("SELECT enough.queue_fail('q', {id}, 'no')"))?;
    ensure!(status(&mut client, id)? == died("no"));
    Ok(())
}

/// A message that replaces another has no limits of that one.
#[test]
fn what_is_replaced_takes_its_limits_with_it() -> Result<()> {
    let (_database, mut client, mut reader) = made("")?;
    send(&mut client, "dedup_key => 'd', expires_in => '1 hour', max_attempts => 1")?;
    client.batch_execute("SELECT enough.queue_send_unique('q', '2', 'd', 'replace')")?;
    let row = client.query_one("SELECT expires_at IS NULL AND max_attempts IS NULL FROM enough.q_q", &[])?;
    ensure!(row.get::<_, bool>(0) && read(&mut reader, "q", 1)?.len() == 1);
    Ok(())
}
