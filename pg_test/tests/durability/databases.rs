//! Databases of one server: keys, limits and queues of the same names are others.

use anyhow::{Result, ensure};
use enough_pg_test::queue;
use enough_pg_test::server::{Database, shared};
use serde_json::{Value, json};

#[test]
fn each_database_has_its_own() -> Result<()> {
    let (one, two) = (Database::new()?, Database::new()?);
    let (mut in_one, mut in_two) = (one.client()?, two.client()?);
    for (client, name) in [(&mut in_one, "one"), (&mut in_two, "two")] {
        client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
        client.execute("SELECT enough.cache_set('key', to_jsonb($1::text))", &[&name])?;
        let allowed: bool = client.query_one("SELECT allowed FROM enough.rate_limit('key', 1, '1 hour')", &[])?.get(0);
        ensure!(allowed, "the limit of another database counts");
        queue::send(client, "q", &json!(name))?;
    }
    for (client, name) in [(&mut in_one, "one"), (&mut in_two, "two")] {
        let value: Option<Value> = client.query_one("SELECT enough.cache_get('key')", &[])?.get(0);
        ensure!(value == Some(json!(name)), "{value:?}");
        let read = queue::read(client, "q", 10)?;
        ensure!(read.len() == 1 && read[0].message == json!(name), "{read:?}");
    }
    in_one.batch_execute("SELECT enough.cache_clear(); SELECT enough.rate_limit_reset('key')")?;
    let value: Option<Value> = in_two.query_one("SELECT enough.cache_get('key')", &[])?.get(0);
    ensure!(value == Some(json!("two")), "another database's cache was cleared");
    let allowed: bool = in_two.query_one("SELECT allowed FROM enough.rate_limit('key', 1, '1 hour')", &[])?.get(0);
    ensure!(!allowed, "another database's limit was reset");

    // A copy of a database is another one: its tables have the same OIDs, and its own leases.
    drop(in_one);
    let copy = {
        let server = shared()?;
        let name = format!("{}_copy", one.name);
        server.client()?.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {}", one.name))?;
        Database::named(&server, &name)
    };
    let mut in_copy = copy.client()?;
    ensure!(queue::read(&mut in_copy, "q", 10)?.len() == 1, "a lease of the original holds in the copy");
    ensure!(queue::read(&mut one.client()?, "q", 10)?.is_empty());
    drop(in_copy);

    // A dropped database is forgotten by maintain() in another.
    shared()?.client()?.batch_execute(&format!("DROP DATABASE {}", copy.name))?;
    let forgotten: i64 =
        in_two.query_one("SELECT sum(items)::bigint FROM enough.maintain() WHERE task = 'queue_forget'", &[])?.get(0);
    ensure!(forgotten >= 1, "the queue of a dropped database is still known");
    Ok(())
}
