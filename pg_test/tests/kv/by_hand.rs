//! Rows that are deleted by hand: they leave a row without a value behind, as those that `kv_delete` deletes.

use crate::common::{column, get, maintained, set, version};
use anyhow::{Result, ensure};
use enough_pg_test::server::Database;
use serde_json::json;

#[test]
fn what_is_deleted_by_hand_is_remembered() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let first = set(&mut client, "k", &json!(1))?;
    set(&mut client, "l", &json!(1))?;
    let gone = client.execute("DELETE FROM enough.kv_default WHERE key = 'k'", &[])?;
    ensure!(gone == 1 && get(&mut client, "k")?.is_none() && version(&mut client, "k")?.is_none());
    let left: bool = client
        .query_one(
            "SELECT value IS NULL AND version > $1 AND fence > '0' AND expires_at - clock_timestamp() BETWEEN '23 hours' AND '1 day' \
               FROM enough.kv_default WHERE key = 'k'",
            &[&first],
        )?
        .get(0);
    ensure!(left);
    // What is without a value already is deleted once more, so that it is remembered for a day from now on.
    let before: i64 = client.query_one("SELECT version FROM enough.kv_default WHERE key = 'k'", &[])?.get(0);
    ensure!(client.execute("DELETE FROM enough.kv_default", &[])? == 2);
    ensure!(client.query_one("SELECT version FROM enough.kv_default WHERE key = 'k'", &[])?.get::<_, i64>(0) > before);
    ensure!(set(&mut client, "k", &json!(2))? > before, "it has come again");
    // The one that is rolled back has not been.
    client.batch_execute("BEGIN; DELETE FROM enough.kv_default; ROLLBACK")?;
    ensure!(get(&mut client, "k")? == Some(json!(2)));
    client.batch_execute("BEGIN; SAVEPOINT s; DELETE FROM enough.kv_default; ROLLBACK TO s; COMMIT")?;
    ensure!(get(&mut client, "k")? == Some(json!(2)));
    client.batch_execute(
        "MERGE INTO enough.kv_default AS e USING (VALUES ('k')) AS v(key) ON e.key = v.key WHEN MATCHED THEN DELETE",
    )?;
    ensure!(
        get(&mut client, "k")?.is_none()
            && column(&mut client, "SELECT key FROM enough.kv_default ORDER BY 1", &[])? == ["k", "l"]
    );
    Ok(())
}

/// What maintenance removes is gone.
#[test]
fn what_maintenance_removes_leaves_nothing() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.kv_create('s', history => 2)")?;
    for space in ["default", "s"] {
        client.execute("SELECT enough.kv_set('k', '1', space => $1), enough.kv_delete('k', space => $1)", &[&space])?;
        client.batch_execute(&format!("UPDATE enough.kv_{space} SET expires_at = clock_timestamp()"))?;
        maintained(&mut client, &format!("SELECT count(*) FROM enough.kv_{space}"), 0)?;
        // And what is deleted afterwards isn't.
        client.execute("SELECT enough.kv_set('k', '1', space => $1)", &[&space])?;
        client.batch_execute(&format!("DELETE FROM enough.kv_{space}"))?;
        ensure!(client.query_one(&format!("SELECT count(*) FROM enough.kv_{space}"), &[])?.get::<_, i64>(0) == 1);
    }
    Ok(())
}

/// Who may delete needs no right to insert for that; and a row that refers to it goes on doing so.
#[test]
fn who_may_delete_needs_no_other_right() -> Result<()> {
    let database = Database::new()?;
    let mut owner = database.client()?;
    let role = database.role("deletes");
    owner.batch_execute(&format!(
        "SELECT enough.kv_create('s'); CREATE ROLE {role} LOGIN; GRANT DELETE ON enough.kv_s TO {role}; \
         SELECT enough.kv_set('k', '1', space => 's'); ALTER TABLE enough.kv_s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; \
         CREATE POLICY all_of_it ON enough.kv_s FOR DELETE USING (true)"
    ))?;
    let mut deletes = database.client_as(&role)?;
    ensure!(deletes.execute("DELETE FROM enough.kv_s", &[])? == 1);
    let left = column(&mut owner, "SELECT key FROM enough.kv_s WHERE value IS NULL", &[])?;
    ensure!(left == ["k"], "{left:?}");
    Ok(())
}
