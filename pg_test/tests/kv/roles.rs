//! A space's privileges are its table's.

use crate::common::column;
use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::Database;

#[test]
fn who_has_no_privilege_on_the_table_can_do_nothing() -> Result<()> {
    let database = Database::new()?;
    let mut owner = database.client()?;
    let (reader, writer) = (database.role("reader"), database.role("writer"));
    owner.batch_execute(&format!(
        "CREATE ROLE {reader} LOGIN; CREATE ROLE {writer} LOGIN; SELECT enough.kv_create('s'), enough.kv_set('k', '1', space => 's')"
    ))?;
    let (mut reads, mut writes) = (database.client_as(&reader)?, database.client_as(&writer)?);
    let calls = [
        "kv_get('k', 's')",
        "kv_entry('k', 's')",
        "kv_has('k', 's')",
        "kv_mget('{k}', 's')",
        "kv_keys(space => 's')",
        "kv_find('1', space => 's')",
        "kv_watch('', 0, space => 's')",
        "kv_history('k', 's')",
        "kv_set('k', '1', space => 's')",
        "kv_set('k', '1', if_version => 1, space => 's')",
        "kv_mset('{\"k\": 1}', space => 's')",
        "kv_incr('k', space => 's')",
        "kv_merge('k', '{}', space => 's')",
        "kv_delete('k', space => 's')",
        "kv_drop('s')",
    ];
    for call in calls {
        refused(reads.query(&format!("SELECT * FROM enough.{call}"), &[]), "42501")?;
    }
    refused(reads.query("SELECT enough.kv_set('k', '1')", &[]), "42501")?;
    refused(reads.query("SELECT enough.kv_create('mine')", &[]), "42501")?;
    ensure!(column(&mut reads, "SELECT space FROM enough.kv_spaces()", &[])?.is_empty());
    owner.batch_execute(&format!(
        "GRANT SELECT ON enough.kv_s TO {reader}; GRANT SELECT, INSERT, UPDATE ON enough.kv_s TO {writer}"
    ))?;
    for (place, call) in calls.iter().enumerate() {
        let outcome = reads.query(&format!("SELECT * FROM enough.{call}"), &[]);
        if place < 8 {
            outcome?;
        } else {
            refused(outcome, "42501")?;
        }
        // The sequence of versions needs no grant of its own.
        if *call != "kv_drop('s')" {
            writes.query(&format!("SELECT * FROM enough.{call}"), &[])?;
            owner.batch_execute("SELECT enough.kv_set('k', '1', space => 's')")?;
        }
    }
    writes.batch_execute("UPDATE enough.kv_s SET value = '2'")?;
    refused(writes.query("SELECT enough.kv_drop('s')", &[]), "42501")?;
    ensure!(column(&mut reads, "SELECT space FROM enough.kv_spaces()", &[])? == ["s"]);
    Ok(())
}

#[test]
fn with_row_security_each_role_sees_its_rows() -> Result<()> {
    let database = Database::new()?;
    let mut owner = database.client()?;
    let role = database.role("tenant");
    owner.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE ON enough.kv_default TO {role}; \
         SELECT enough.kv_mset('{{\"own:a\": 1, \"other:a\": 2}}'); \
         ALTER TABLE enough.kv_default ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON enough.kv_default TO {role} USING (starts_with(key, 'own:'))"
    ))?;
    let mut tenant = database.client_as(&role)?;
    ensure!(column(&mut tenant, "SELECT enough.kv_keys()", &[])? == ["own:a"]);
    ensure!(tenant.query_one("SELECT enough.kv_get('other:a') IS NULL", &[])?.get::<_, bool>(0));
    ensure!(!tenant.query_one("SELECT enough.kv_delete('other:a')", &[])?.get::<_, bool>(0));
    refused(tenant.query("SELECT enough.kv_set('other:a', '3')", &[]), "42501")?;
    // The same session as another role, whose plans are others.
    owner.batch_execute("SELECT enough.kv_get('other:a')")?;
    owner.batch_execute(&format!("SET ROLE {role}"))?;
    ensure!(owner.query_one("SELECT enough.kv_get('other:a') IS NULL", &[])?.get::<_, bool>(0), "as the role before");
    Ok(())
}

/// Maintenance of a space runs as its owner, and is the owner's, and an operator's.
#[test]
fn who_may_not_delete_maintains_nothing() -> Result<()> {
    let database = Database::new()?;
    let mut owner = database.client()?;
    let role = database.role("stranger");
    owner.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; SELECT enough.kv_set('k', '1', '1 hour'); \
         UPDATE enough.kv_default SET expires_at = clock_timestamp()"
    ))?;
    let mut stranger = database.client_as(&role)?;
    let items = "SELECT items FROM enough.maintain() WHERE task = 'kv_expired'";
    ensure!(stranger.query_one(items, &[])?.get::<_, i64>(0) == 0);
    owner.batch_execute(&format!("SELECT enough.grant_to('{role}', 'operator')"))?;
    ensure!(stranger.query_one(items, &[])?.get::<_, i64>(0) == 1);
    Ok(())
}
