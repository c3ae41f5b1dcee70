//! No room for the segment: a clear error, and nothing broken once there is room.

use crate::common::works;
use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, healthy, refused};
use enough_pg_test::server::{self, Database};
use std::time::{Duration, Instant};

#[test]
fn too_little_shared_memory_is_an_error_that_a_setting_mends() -> Result<()> {
    for memory in ["1000GB", "2147483647kB"] {
        too_little(memory)?;
    }
    Ok(())
}

fn too_little(memory: &str) -> Result<()> {
    let server = server::start(&server::options()?.conf("enough.cache_memory", memory))?;
    let database = Database::on(&server)?;
    let (mut one, mut two) = (database.client()?, database.client()?);
    for _ in 0..3 {
        for client in [&mut one, &mut two] {
            let hint = refused(client.query("SELECT enough.cache_set('key', '1')", &[]), "55000")?;
            ensure!(hint.contains("enough.cache_memory") && hint.contains("/dev/shm"), "the hint: {hint}");
            client.batch_execute("SET statement_timeout = '200 ms'")?;
            let began = Instant::now();
            refused(client.simple_query("SELECT pg_sleep(5)"), "57014")?;
            ensure!(began.elapsed() < Duration::from_secs(3), "a time limit came after {:?}", began.elapsed());
            client.batch_execute("RESET statement_timeout")?;
        }
    }
    // In a transaction, by each capability, and with work of its own that must stand.
    let mut transaction = one.transaction()?;
    transaction.batch_execute("CREATE TABLE kept (a int)")?;
    for call in ["cache_get('key')", "rate_limit('key', 1, '1 s')", "cache_stats()", "status()", "maintain()"] {
        let mut savepoint = transaction.savepoint("s")?;
        refused(savepoint.query(&format!("SELECT enough.{call}"), &[]), "55000")?;
        savepoint.rollback()?;
    }
    transaction.commit()?;
    one.batch_execute("TABLE kept")?;

    server.configure("enough.cache_memory = '4MB'")?;
    two.query("SELECT pg_reload_conf()", &[])?;
    eventually("the setting has been read", || {
        let new: bool = one.query_one("SELECT current_setting('enough.cache_memory') = '4MB'", &[])?.get(0);
        Ok(new.then_some(()))
    })?;
    works(&mut one, &mut two, "sessions_that_failed")?;
    works(&mut database.client()?, &mut one, "new_session")?;
    healthy(&server.log(), false)
}
