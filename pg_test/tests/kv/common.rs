//! Calls by a driver.

use anyhow::Result;
use postgres::types::ToSql;
use postgres::{Client, Error};
use serde_json::Value;

pub(crate) fn set(client: &mut Client, key: &str, value: &Value) -> Result<i64, Error> {
    Ok(client.query_one("SELECT enough.kv_set($1, $2)", &[&key, value])?.get(0))
}

/// `kv_set` where the entry has that version.
pub(crate) fn set_if(client: &mut Client, key: &str, value: &Value, version: i64) -> Result<Option<i64>, Error> {
    Ok(client.query_one("SELECT enough.kv_set($1, $2, if_version => $3)", &[&key, value, &version])?.get(0))
}

pub(crate) fn get(client: &mut Client, key: &str) -> Result<Option<Value>, Error> {
    Ok(client.query_one("SELECT enough.kv_get($1)", &[&key])?.get(0))
}

pub(crate) fn delete(client: &mut Client, key: &str) -> Result<bool, Error> {
    Ok(client.query_one("SELECT enough.kv_delete($1)", &[&key])?.get(0))
}

/// The version of a key's entry.
pub(crate) fn version(client: &mut Client, key: &str) -> Result<Option<i64>, Error> {
    Ok(client.query_opt("SELECT version FROM enough.kv_entry($1)", &[&key])?.map(|row| row.get(0)))
}

/// The first column of all rows.
pub(crate) fn column(client: &mut Client, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<String>, Error> {
    Ok(client.query(sql, parameters)?.iter().map(|row| row.get(0)).collect())
}

/// Sets a key of a space to 1.
pub(crate) fn set_in(client: &mut Client, space: &str, key: &str) -> Result<i64, Error> {
    Ok(client.query_one("SELECT enough.kv_set($1, '1', space => $2)", &[&key, &space])?.get(0))
}

/// A row of `kv_watch`.
pub(crate) struct Change {
    pub key: Option<String>,
    pub value: Option<Value>,
    pub version: i64,
    pub deleted: bool,
}

impl Change {
    pub fn of(row: &postgres::Row) -> Self {
        Change { key: row.get(0), value: row.get(1), version: row.get(2), deleted: row.get(3) }
    }

    /// For comparing: what it says of which key.
    pub fn told(&self) -> String {
        match (&self.key, &self.value) {
            (None, _) => "nothing more".into(),
            (Some(key), Some(value)) => format!("{key}={value}"),
            (Some(key), None) => format!("{key} {}", if self.deleted { "deleted" } else { "without a value" }),
        }
    }
}

/// `kv_watch` without waiting.
pub(crate) fn watch(client: &mut Client, prefix: &str, since: i64) -> Result<Vec<Change>, Error> {
    Ok(client.query("SELECT * FROM enough.kv_watch($1, $2)", &[&prefix, &since])?.iter().map(Change::of).collect())
}

/// The version to go on from.
pub(crate) fn last(changes: &[Change]) -> i64 {
    changes.iter().map(|change| change.version).max().unwrap_or(0)
}

/// Runs `maintain()` until a query counts so many: other databases' transactions may hold it back.
pub(crate) fn maintained(client: &mut Client, query: &str, count: i64) -> anyhow::Result<()> {
    enough_pg_test::check::eventually("maintenance has done it", || {
        client.batch_execute("SELECT enough.maintain()")?;
        Ok((client.query_one(query, &[])?.get::<_, i64>(0) == count).then_some(()))
    })
}
