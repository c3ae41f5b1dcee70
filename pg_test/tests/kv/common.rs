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
