//! Rate limits in tables, as people write them: a row a key, with the count of its window.
//!
//! Both tables are as favourable as a table can be: UNLOGGED, so that a commit waits for no disk, and with room on every
//! page for the next version of each row, so that an update touches no index.

use crate::fixture::Fixture;
use anyhow::Result;

/// What tables call the single statement.
pub const UPSERT: &str = "UNLOGGED upsert";
/// What tables call the transaction of two statements.
pub const FOR_UPDATE: &str = "SELECT FOR UPDATE";

/// Makes the tables `limits.upsert` and `limits.for_update` with `keys` keys each, from `first` on, and the key `hot`.
pub fn create(fixture: &Fixture, first: u64, keys: u32) -> Result<()> {
    let mut client = fixture.client()?;
    client.batch_execute("CREATE SCHEMA IF NOT EXISTS limits")?;
    for table in ["upsert", "for_update"] {
        client.batch_execute(&format!(
            "DROP TABLE IF EXISTS limits.{table};
             CREATE UNLOGGED TABLE limits.{table} (
                 key text PRIMARY KEY, window_start timestamptz NOT NULL, count int NOT NULL) WITH (fillfactor = 50);
             INSERT INTO limits.{table}
                 SELECT ({first} + i)::text, now(), 0 FROM generate_series(0, {keys} - 1) AS i;
             INSERT INTO limits.{table} VALUES ('hot', now(), 0)"
        ))?;
        client.batch_execute(&format!("VACUUM (FREEZE, ANALYZE) limits.{table}"))?;
    }
    Ok(())
}

/// A check as one statement: a row where it is allowed, none where it is denied. `key` is an expression.
pub fn upsert(key: &str) -> String {
    format!(
        "INSERT INTO limits.upsert AS l VALUES ({key}, now(), 1) ON CONFLICT (key) DO UPDATE SET \
         count = CASE WHEN l.window_start > now() - interval '1 minute' THEN l.count + 1 ELSE 1 END, \
         window_start = CASE WHEN l.window_start > now() - interval '1 minute' THEN l.window_start ELSE now() END \
         WHERE l.count < 1000000 OR l.window_start <= now() - interval '1 minute' RETURNING count;\n"
    )
}

/// A check as the usual transaction: the row is locked, looked at and written back. In pgbench's language.
pub fn for_update(key: &str) -> String {
    format!(
        "BEGIN;\n\
         SELECT count, (window_start <= now() - interval '1 minute')::int AS ended \
         FROM limits.for_update WHERE key = {key} FOR UPDATE \\gset\n\
         \\set next case when :ended = 1 then 1 else :count + 1 end\n\
         UPDATE limits.for_update SET count = :next, \
         window_start = CASE WHEN :ended = 1 THEN now() ELSE window_start END WHERE key = {key};\n\
         COMMIT;\n"
    )
}
