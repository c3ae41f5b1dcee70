//! A queue's table without the queue: what the server needs at the least for a durable row in, one look at it, and out
//! again.

use crate::fixture::Fixture;
use anyhow::Result;

/// What tables call it.
pub const NAME: &str = "raw INSERT, SELECT, DELETE";

/// Makes `raw.<queue>`, of the same shape as the table of that queue of ours, which must be there.
pub fn create(fixture: &Fixture, queue: &str) -> Result<()> {
    // LIKE takes over columns, defaults, constraints and indexes, but not the table's own settings.
    let statements = format!(
        "CREATE SCHEMA IF NOT EXISTS raw;
         CREATE TABLE raw.{queue} (LIKE enough.q_{queue} INCLUDING ALL);
         DO $do$ DECLARE option text; BEGIN
           FOR option IN SELECT unnest(reloptions) FROM pg_class WHERE oid = 'enough.q_{queue}'::regclass LOOP
             EXECUTE 'ALTER TABLE raw.{queue} SET (' || option || ')';
           END LOOP;
         END $do$"
    );
    Ok(fixture.client()?.batch_execute(&statements)?)
}

/// A message in, a transaction of its own.
pub fn insert(queue: &str) -> String {
    format!("INSERT INTO raw.{queue} (message) VALUES (:body)")
}

/// A message in, looked at and out again by its number: three statements, two of them durable, as many as the life of a
/// queue's message needs.
pub fn life(queue: &str) -> String {
    let by_number = format!("FROM raw.{queue} WHERE msg_id = :msg_id::bigint;\n");
    format!("{} RETURNING msg_id \\gset\nSELECT * {by_number}DELETE {by_number}", insert(queue))
}
