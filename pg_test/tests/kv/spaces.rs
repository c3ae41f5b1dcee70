//! Making, listing and dropping spaces.

use crate::common::{column, set};
use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::Database;
use serde_json::json;

#[test]
fn a_space_is_made_listed_and_dropped() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let listed = "SELECT concat_ws(' ', space, indexed, unlogged) FROM enough.kv_spaces()";
    ensure!(column(&mut client, listed, &[])? == ["default f f"]);
    client.batch_execute(
        "SELECT enough.kv_create('Odd-Name.1', indexed => true); SELECT enough.kv_create('fast', unlogged => true)",
    )?;
    ensure!(column(&mut client, listed, &[])? == ["Odd-Name.1 t f", "default f f", "fast f t"]);
    refused(client.query("SELECT enough.kv_create('fast')", &[]), "42710")?;
    ensure!(!client.query_one("SELECT enough.kv_create('fast', if_not_exists => true)", &[])?.get::<_, bool>(0));
    client.batch_execute("SELECT enough.kv_set('k', '1', space => 'Odd-Name.1')")?;
    ensure!(client.query_one("SELECT enough.kv_get('k') IS NULL", &[])?.get::<_, bool>(0), "another space has it");
    ensure!(client.query_one("SELECT enough.kv_drop('Odd-Name.1')", &[])?.get::<_, bool>(0));
    refused(client.query("SELECT enough.kv_get('k', 'Odd-Name.1')", &[]), "42704")?;
    refused(client.query("SELECT enough.kv_drop('Odd-Name.1')", &[]), "42704")?;
    ensure!(!client.query_one("SELECT enough.kv_drop('Odd-Name.1', true)", &[])?.get::<_, bool>(0));
    // It is the extension's.
    refused(client.query("SELECT enough.kv_drop('default')", &[]), "2BP01")?;
    client.batch_execute("SELECT enough.kv_create('Odd-Name.1'), enough.kv_create(repeat('x', 48))")?;
    ensure!(client.query_one("SELECT enough.kv_get('k', 'Odd-Name.1') IS NULL", &[])?.get::<_, bool>(0), "it is there");
    Ok(())
}

/// What the session has planned for a space doesn't outlive it.
#[test]
fn a_space_that_is_made_anew_is_used_at_once() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    for round in 0..3 {
        one.batch_execute("SELECT enough.kv_create('s')")?;
        for client in [&mut one, &mut other] {
            client.batch_execute(&format!("SELECT enough.kv_set('k', '{round}', space => 's')"))?;
            let found: String = client.query_one("SELECT enough.kv_get('k', 's')::text", &[])?.get(0);
            ensure!(found == round.to_string());
        }
        other.batch_execute("SELECT enough.kv_drop('s')")?;
    }
    Ok(())
}

/// An operator of the user's own, in front on the search path, has no part in it.
#[test]
fn nothing_on_the_search_path_is_used() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE SCHEMA evil; \
         CREATE FUNCTION evil.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'; \
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes); \
         CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT 'infinity'::timestamptz$$; \
         SET search_path = evil, pg_catalog; SELECT enough.kv_create('s')",
    )?;
    set(&mut client, "a", &json!(1))?;
    client.batch_execute("SELECT enough.kv_set('b', '2', '1 hour'), enough.kv_incr('c'), enough.kv_merge('d', '{}'), enough.kv_mset('{\"e\": 1}')")?;
    ensure!(client.query_one("SELECT enough.kv_get('b')::text", &[])?.get::<_, String>(0) == "2");
    ensure!(client.query_one("SELECT enough.kv_delete('b')", &[])?.get::<_, bool>(0));
    ensure!(column(&mut client, "SELECT enough.kv_keys()", &[])? == ["a", "c", "d", "e"]);
    Ok(())
}
