//! Messages whose rows other transactions hold locked while they are delivered again.

use anyhow::{Result, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};

/// What another transaction may be doing with a row.
const HELD: &[&str] = &[
    "SELECT FROM enough.q_q FOR UPDATE",
    "SELECT FROM enough.q_q FOR NO KEY UPDATE",
    "SELECT FROM enough.q_q FOR SHARE",
    "SELECT FROM enough.q_q FOR KEY SHARE",
    "SAVEPOINT a; SELECT FROM enough.q_q FOR KEY SHARE; SAVEPOINT b; SELECT FROM enough.q_q FOR UPDATE",
    "UPDATE enough.q_q SET last_error = 'changed'",
    "UPDATE enough.q_q SET msg_id = msg_id + 1000",
    "DELETE FROM enough.q_q",
];

#[test]
fn a_further_delivery_does_not_wait_for_who_holds_the_row() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let (mut client, mut other, mut third) = (database.client()?, database.client()?, database.client()?);
    for held in HELD {
        client.batch_execute(
            "SELECT enough.queue_drop('q', if_exists => true); SELECT enough.queue_create('q'); \
             SELECT enough.queue_send('q', '1')",
        )?;
        let first = queue::read(&mut client, "q", 1)?;
        client.batch_execute("SELECT enough.queue_extend('q', 1, '0')")?;
        // Several lockers at once, where they don't exclude each other.
        third.batch_execute("BEGIN; SELECT FROM enough.q_q FOR KEY SHARE")?;
        if held.contains("UPDATE enough") || held.contains("DELETE") || held.contains("FOR UPDATE") {
            third.batch_execute("ROLLBACK; BEGIN")?;
        }
        other.batch_execute(&format!("BEGIN; {held}"))?;
        client.batch_execute("SET statement_timeout = '5 s'")?;
        let second = queue::read(&mut client, "q", 1)?;
        ensure!(queue::ids(&second) == queue::ids(&first) && second[0].attempts == 2, "{held}: {second:?}");
        client.batch_execute("SELECT enough.queue_extend('q', 1, '0')")?;
        let batch = queue::read(&mut client, "q", 10)?;
        ensure!(batch.len() == 1 && batch[0].attempts == 3, "{held}: {batch:?}");
        other.batch_execute("ROLLBACK")?;
        third.batch_execute("ROLLBACK")?;
        // Once nobody holds it, the number is in the row.
        client.batch_execute("SELECT enough.queue_extend('q', 1, '0')")?;
        ensure!(queue::read(&mut client, "q", 1)?[0].attempts == 4, "{held}");
        let noted: i32 = client.query_one("SELECT attempts FROM enough.q_q", &[])?.get(0);
        ensure!(noted == 4, "{held}: {noted} in the row");
    }
    healthy(&server.log(), false)
}

#[test]
fn a_row_of_its_own_transaction_is_noted_too() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client
        .batch_execute("SELECT enough.queue_create('q', retry_backoff => '0'); SELECT enough.queue_send('q', '1')")?;
    // Locked, or changed, by this very transaction.
    for own in ["SELECT FROM enough.q_q FOR UPDATE", "UPDATE enough.q_q SET last_error = 'mine'"] {
        client.batch_execute("BEGIN")?;
        client.batch_execute(own)?;
        for _ in 0..3 {
            ensure!(queue::read(&mut client, "q", 1)?.len() == 1, "{own}");
            client.batch_execute("SELECT enough.queue_extend('q', 1, '0'); SAVEPOINT s")?;
        }
        client.batch_execute("COMMIT")?;
        let noted: i32 = client.query_one("SELECT attempts FROM enough.q_q", &[])?.get(0);
        let read = queue::read(&mut client, "q", 1)?;
        ensure!(read[0].attempts == noted + 1, "{own}: {noted} in the row, {read:?}");
        client.batch_execute("SELECT enough.queue_extend('q', 1, '0')")?;
    }
    healthy(&server.log(), false)
}
