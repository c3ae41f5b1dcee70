//! The job table that people copy from blog posts: rows with a status, taken with `FOR UPDATE SKIP LOCKED`.

use crate::fixture::Fixture;
use anyhow::Result;

/// What tables call it.
pub const NAME: &str = "SKIP LOCKED table";

/// Makes an empty one, `jobs.<name>`, in the fixture's database.
pub fn create(fixture: &Fixture, name: &str) -> Result<()> {
    let statements = format!(
        "CREATE SCHEMA IF NOT EXISTS jobs;
         CREATE TABLE jobs.{name} (
             id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             status text NOT NULL DEFAULT 'ready',
             run_at timestamptz NOT NULL DEFAULT now(),
             locked_until timestamptz,
             attempts int NOT NULL DEFAULT 0,
             payload jsonb NOT NULL);
         CREATE INDEX ON jobs.{name} (run_at, id) WHERE status = 'ready';"
    );
    Ok(fixture.client()?.batch_execute(&statements)?)
}

/// A statement that takes up to `count` jobs and returns them.
pub fn take(name: &str, count: u32) -> String {
    format!(
        "UPDATE jobs.{name} SET status = 'running', locked_until = now() + interval '30 seconds', attempts = attempts + 1 \
         WHERE id IN (SELECT id FROM jobs.{name} WHERE status = 'ready' AND run_at <= now() \
                      ORDER BY run_at, id LIMIT {count} FOR UPDATE SKIP LOCKED) \
         RETURNING id, payload"
    )
}
