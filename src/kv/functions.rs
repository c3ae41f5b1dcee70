//! The SQL functions of `sql/kv.sql`: arguments in, rows out.

use super::arguments::{history, if_version, json, json_value, key, keys, max, since, space, ttl, wait};
use super::space::{NewSpace, create, drop_space};
use super::table::require_write;
use super::watch::Ask;
use super::{changed, memory, read, version, watch, write};
use crate::error::{Error, required};
use crate::pg::fmgr::{Call, Value};
use crate::pg::{jsonb, server};

type Answer = Result<Value<'static>, Error>;

crate::export!(
    enough_kv_create = kv_create,
    enough_kv_drop = kv_drop,
    enough_kv_set = kv_set,
    enough_kv_get = memory::get_fast | kv_get,
    enough_kv_entry = kv_entry,
    enough_kv_has = kv_has,
    enough_kv_mget = kv_mget,
    enough_kv_mset = kv_mset,
    enough_kv_delete = kv_delete,
    enough_kv_keys = kv_keys,
    enough_kv_incr = kv_incr,
    enough_kv_merge = kv_merge,
    enough_kv_find = kv_find,
    enough_kv_watch = kv_watch,
    enough_kv_history = kv_history,
    enough_kv_fence = kv_fence,
    enough_kv_version = version::draw,
    enough_kv_changed = changed::changed,
    enough_kv_merged = kv_merged,
    enough_kv_copies = memory::changed,
);

/// `(space, indexed, unlogged, history, if_not_exists)`
fn kv_create(call: &mut Call<'_>) -> Answer {
    let new = NewSpace {
        indexed: call.bool(1).unwrap_or(false),
        unlogged: call.bool(2).unwrap_or(false),
        history: history(call, 3)?,
        if_not_exists: call.bool(4).unwrap_or(false),
    };
    create(required(call.bytes(0), "space")?, &new).map(Value::Bool)
}

/// `(space, if_exists)`
fn kv_drop(call: &mut Call<'_>) -> Answer {
    drop_space(required(call.bytes(0), "space")?, call.bool(1).unwrap_or(false)).map(Value::Bool)
}

/// `(key, value, ttl, if_version, space)`
fn kv_set(call: &mut Call<'_>) -> Answer {
    let (key, value) = (key(call, 0)?, json(call, 1, "value")?);
    let (ttl, if_version, space) = (ttl(call, 2)?, if_version(call, 3)?, space(call, 4)?);
    require_write("kv_set")?;
    let version = write::set(&space, key, value, ttl, if_version)?;
    Ok(Value::or_null(version, Value::I64))
}

/// `(key, space)`
fn kv_get(call: &mut Call<'_>) -> Answer {
    let (key, space) = (key(call, 0)?, space(call, 1)?);
    memory::value(&space, key)
}

/// `(key, space)`
fn kv_entry(call: &mut Call<'_>) -> Answer {
    let (key, space) = (key(call, 0)?, space(call, 1)?);
    let mut rows = call.rows()?;
    memory::entry(&space, key, |row| rows.push(row))?;
    Ok(rows.end())
}

/// `(key, space)`
fn kv_has(call: &mut Call<'_>) -> Answer {
    let (key, space) = (key(call, 0)?, space(call, 1)?);
    memory::has(&space, key).map(Value::Bool)
}

/// `(keys, space)`
fn kv_mget(call: &mut Call<'_>) -> Answer {
    let (keys, space) = (keys(call, 0)?, space(call, 1)?);
    let mut rows = call.rows()?;
    if !keys.is_empty() {
        read::entries(&space, &keys, &mut rows)?;
    }
    Ok(rows.end())
}

/// `(entries, ttl, space)`
fn kv_mset(call: &mut Call<'_>) -> Answer {
    let (entries, ttl, space) = (json(call, 0, "entries")?, ttl(call, 1)?, space(call, 2)?);
    require_write("kv_mset")?;
    write::set_all(&space, entries, ttl).map(Value::I32)
}

/// `(key, if_version, space)`
fn kv_delete(call: &mut Call<'_>) -> Answer {
    let (key, if_version, space) = (key(call, 0)?, if_version(call, 1)?, space(call, 2)?);
    require_write("kv_delete")?;
    write::delete(&space, key, if_version).map(Value::Bool)
}

/// `(prefix, after, max, space)`
fn kv_keys(call: &mut Call<'_>) -> Answer {
    let (max, space) = (max(call, 2, 1000)?, space(call, 3)?);
    let mut rows = call.rows()?;
    read::keys(&space, call.bytes(0).unwrap_or_default(), call.raw_text(1), max, &mut rows)?;
    Ok(rows.end())
}

/// `(key, by, space)`
fn kv_incr(call: &mut Call<'_>) -> Answer {
    let (key, by, space) = (key(call, 0)?, call.i64(1).unwrap_or(1), space(call, 2)?);
    require_write("kv_incr")?;
    write::add(&space, key, by).map(Value::I64)
}

/// `(key, patch, space)`
fn kv_merge(call: &mut Call<'_>) -> Answer {
    let (key, patch, space) = (key(call, 0)?, json(call, 1, "patch")?, space(call, 2)?);
    require_write("kv_merge")?;
    Ok(owned(write::merge(&space, key, patch)?.as_ref()))
}

/// `(matching, after, max, space)`
fn kv_find(call: &mut Call<'_>) -> Answer {
    let (matching, max, space) = (json(call, 0, "matching")?, max(call, 2, 100)?, space(call, 3)?);
    let mut rows = call.rows()?;
    read::find(&space, matching, call.raw_text(1), max, &mut rows)?;
    Ok(rows.end())
}

/// `(prefix, since, wait, space)`
fn kv_watch(call: &mut Call<'_>) -> Answer {
    let (since, wait, space) = (since(call, 1)?, wait(call, 2)?, space(call, 3)?);
    let pattern = read::pattern(call.bytes(0).unwrap_or_default());
    let mut rows = call.rows()?;
    watch::watch(&space, &Ask { pattern, since, wait }, &mut rows)?;
    Ok(rows.end())
}

/// `(key, space)`
fn kv_history(call: &mut Call<'_>) -> Answer {
    let (key, space) = (key(call, 0)?, space(call, 1)?);
    let mut rows = call.rows()?;
    super::history::of(&space, key, &mut rows)?;
    Ok(rows.end())
}

/// `()`
#[allow(clippy::unnecessary_wraps, reason = "as all functions are declared")]
fn kv_fence(_: &mut Call<'_>) -> Answer {
    // Both are 64 bits, of which the server takes the unsigned ones.
    Ok(Value::I64(server::next_transaction().cast_signed()))
}

/// `(target, patch)`
fn kv_merged(call: &mut Call<'_>) -> Answer {
    let patch = json(call, 1, "patch")?;
    let target = call.jsonb(0).map(crate::pg::fmgr::Jsonb::payload);
    Ok(jsonb::merged(target, patch.payload()).into_value())
}

/// A `jsonb` in the memory of the call.
fn owned(value: Option<&Vec<u8>>) -> Value<'static> {
    Value::or_null(json_value(value).into_datum(), Value::Raw)
}
