//! Locks in a table, as people write them: a row a name, taken where its time is over.
//!
//! As favourable as a table can be: with room on every page for the next version of each row, so that an update touches no
//! index; and once UNLOGGED, so that a commit waits for no disk.

use crate::fixture::Fixture;
use anyhow::Result;

/// A table of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockTable {
    /// As it is made without another word.
    Durable,
    /// UNLOGGED
    Unlogged,
}

impl LockTable {
    /// What tables of results call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Durable => "SKIP LOCKED",
            Self::Unlogged => "UNLOGGED SKIP LOCKED",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Durable => "locks.durable",
            Self::Unlogged => "locks.unlogged",
        }
    }

    /// Makes the table with `names` names, from `first` on.
    pub fn create(self, fixture: &Fixture, first: u64, names: u32) -> Result<()> {
        let (table, unlogged) = (self.table(), if self == Self::Unlogged { "UNLOGGED" } else { "" });
        let mut client = fixture.client()?;
        client.batch_execute(&format!(
            "CREATE SCHEMA IF NOT EXISTS locks;
             DROP TABLE IF EXISTS {table};
             CREATE {unlogged} TABLE {table} (
                 name text PRIMARY KEY, token bigint NOT NULL, expires_at timestamptz NOT NULL) WITH (fillfactor = 50);
             INSERT INTO {table} SELECT ({first} + i)::text, 0, '-infinity' FROM generate_series(0, {names} - 1) AS i"
        ))?;
        Ok(client.batch_execute(&format!("VACUUM (FREEZE, ANALYZE) {table}"))?)
    }

    /// Takes and releases a name in two transactions, in pgbench's language. `name` is an expression.
    pub fn take_and_release(self, name: &str) -> String {
        let table = self.table();
        format!(
            "UPDATE {table} SET token = token + 1, expires_at = now() + interval '30 seconds' WHERE name = (\
             SELECT name FROM {table} WHERE name = {name} AND expires_at < now() FOR UPDATE SKIP LOCKED) \
             RETURNING token \\gset\n\
             UPDATE {table} SET expires_at = '-infinity' WHERE name = {name} AND token = :token;\n"
        )
    }
}
