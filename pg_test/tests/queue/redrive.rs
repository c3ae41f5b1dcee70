//! Dead letters that are chosen, and that go to another queue.

use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue::{made, read, stats};
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::{Value, json};

/// A queue `q` with dead letters 1 to `count`, whose payloads are their numbers and whether they are even.
fn dead(count: i64) -> Result<(Database, Client)> {
    let (database, mut client, _) = made("")?;
    client.batch_execute(&format!(
        "SELECT enough.queue_send('q', jsonb_build_object('n', n, 'even', n % 2 = 0), priority => 3, group_key => 'g' || n,
                                  headers => '{{\"h\": 1}}', dedup_key => 'd' || n) FROM generate_series(1, {count}) AS n;
         SELECT enough.queue_fail_batch('q', array_agg(n), error => 'why', dead => true) FROM generate_series(1, {count}) AS n"
    ))?;
    Ok((database, client))
}

fn redrive(client: &mut Client, arguments: &str) -> Result<i64> {
    Ok(client.query_one(&format!("SELECT enough.queue_redrive('q', {arguments})"), &[])?.get(0))
}

fn left(client: &mut Client) -> Result<Vec<i64>> {
    let rows = client.query("SELECT msg_id FROM enough.a_q ORDER BY 1", &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[test]
fn those_that_fit_every_condition_come_back() -> Result<()> {
    let (_database, mut client) = dead(10)?;
    ensure!(redrive(&mut client, "max => 2")? == 2);
    ensure!(left(&mut client)? == [3, 4, 5, 6, 7, 8, 9, 10]);
    ensure!(redrive(&mut client, r#"matching => '{"even": true}', max => 2"#)? == 2);
    ensure!(left(&mut client)? == [3, 5, 7, 8, 9, 10]);
    ensure!(redrive(&mut client, r#"ARRAY[7, 8, 4], matching => '{"even": true}'"#)? == 1);
    ensure!(left(&mut client)? == [3, 5, 7, 9, 10]);
    client.batch_execute("UPDATE enough.a_q SET finished_at = '2020-01-01' WHERE msg_id IN (5, 9)")?;
    ensure!(redrive(&mut client, "died_before => '2021-01-01'")? == 2);
    ensure!(left(&mut client)? == [3, 7, 10]);
    ensure!(redrive(&mut client, "died_before => '2021-01-01'")? == 0);
    ensure!(stats(&mut client, "q")?.dead == 3 && stats(&mut client, "q")?.ready == 7);
    Ok(())
}

#[test]
fn to_another_queue_they_go_as_new_messages() -> Result<()> {
    let (_database, mut client) = dead(5)?;
    client.batch_execute(
        "SELECT enough.queue_create('other'); SELECT enough.queue_send('other', '0', dedup_key => 'd4')",
    )?;
    ensure!(redrive(&mut client, "to_queue => 'other', max => 2")? == 2);
    ensure!(redrive(&mut client, "to_queue => 'other'")? == 2, "one whose key is taken stays");
    ensure!(left(&mut client)? == [4]);
    ensure!(stats(&mut client, "q")?.dead == 1 && stats(&mut client, "other")?.ready == 5);
    let rows = client.query(
        "SELECT message->'n', priority, group_key, headers, attempts FROM enough.queue_read('other', 9) WHERE message <> '0'",
        &[],
    )?;
    let got: Vec<(Value, i16, String, Value, i32)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    ensure!(got == [1, 2, 3, 5].map(|n| (json!(n), 3, format!("g{n}"), json!({"h": 1}), 1)), "{got:?}");
    // Its own name is no other queue.
    ensure!(redrive(&mut client, "to_queue => 'q'")? == 1);
    ensure!(read(&mut client, "q", 9)?[0].msg_id == 4);
    Ok(())
}

#[test]
fn a_rollback_leaves_them_dead_and_the_other_queue_empty() -> Result<()> {
    let (_database, mut client) = dead(3)?;
    client.batch_execute("SELECT enough.queue_create('other'); BEGIN; SAVEPOINT s")?;
    ensure!(redrive(&mut client, "to_queue => 'other'")? == 3);
    client.batch_execute("ROLLBACK TO s; COMMIT")?;
    ensure!(left(&mut client)? == [1, 2, 3] && stats(&mut client, "q")?.dead == 3);
    ensure!(read(&mut client, "other", 9)?.is_empty());
    Ok(())
}

#[test]
fn it_needs_the_right_to_send_there() -> Result<()> {
    let (database, mut client) = dead(2)?;
    let role = database.role("driver");
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; SELECT enough.queue_create('other'); SELECT enough.queue_grant('q', '{role}', 'consume')"
    ))?;
    let mut driver = database.client_as(&role)?;
    let call = "SELECT enough.queue_redrive('q', to_queue => 'other')";
    refused(driver.batch_execute(call), "42501")?;
    client.batch_execute(&format!("SELECT enough.queue_grant('other', '{role}', 'send')"))?;
    driver.batch_execute(call)?;
    ensure!(left(&mut client)?.is_empty() && read(&mut client, "other", 9)?.len() == 2);
    Ok(())
}
