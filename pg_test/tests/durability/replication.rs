//! Rows that logical replication writes into a queue's table.

use anyhow::{Result, ensure};
use enough_pg_test::check::eventually;
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use postgres::Client;

fn rows(client: &mut Client) -> Result<i64> {
    Ok(client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0))
}

#[test]
fn what_is_replicated_into_a_queue_is_delivered_after_maintain() -> Result<()> {
    let publisher = server::start(&server::options()?.conf("wal_level", "logical"))?;
    let subscriber = server::start(&server::options()?)?;
    let (from, to) = (Database::on(&publisher)?, Database::on(&subscriber)?);
    let (mut sender, mut reader) = (from.client()?, to.client()?);
    for client in [&mut sender, &mut reader] {
        client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    }
    let first = queue::send_numbers(&mut sender, "q", 100)?;
    sender.batch_execute("CREATE PUBLICATION p FOR TABLE enough.q_q")?;
    // From here on the reader's index knows that there is nothing.
    ensure!(queue::read(&mut reader, "q", 10)?.is_empty());
    reader.batch_execute(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={}' PUBLICATION p",
        publisher.port(),
        from.name
    ))?;
    // The first rows are copied, by a process of their own.
    eventually("the table is copied", || Ok((rows(&mut reader)? == 100).then_some(())))?;
    reader.batch_execute("SELECT enough.maintain()")?;
    let read = queue::read(&mut reader, "q", 1_000)?;
    ensure!(queue::sorted_ids(&read) == first, "{} of {} were read", read.len(), first.len());

    // Then changes follow: rows that come, rows that go while they are leased, and rows that go before anybody reads them.
    let second = queue::send_numbers(&mut sender, "q", 20)?;
    sender.execute("DELETE FROM enough.q_q WHERE msg_id <= $1", &[&first[49]])?;
    eventually("the changes have come", || Ok((rows(&mut reader)? == 70).then_some(())))?;
    reader.batch_execute("SELECT enough.maintain()")?;
    sender.execute("DELETE FROM enough.q_q WHERE msg_id = ANY ($1)", &[&&second[..10]])?;
    eventually("the deletes have come", || Ok((rows(&mut reader)? == 60).then_some(())))?;
    ensure!(queue::sorted_ids(&queue::read(&mut reader, "q", 1_000)?) == second[10..]);
    ensure!(
        !queue::delete(&mut reader, "q", read[0].msg_id, read[0].lease)?,
        "a row that replication deleted is there"
    );
    reader.batch_execute(
        "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    )?;
    Ok(())
}
