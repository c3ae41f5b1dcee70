//! Several keys at once, lists, counts, patches and documents.

use crate::common::{column, get, set, version};
use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::{Database, backend, until_locked};
use serde_json::{Value, json};
use std::thread;

#[test]
fn several_are_set_and_read_at_once() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let count: i32 =
        client.query_one("SELECT enough.kv_mset('{\"a\": 1, \"bb\": null, \"c\": {\"d\": []}}')", &[])?.get(0);
    ensure!(count == 3);
    let rows = client.query("SELECT * FROM enough.kv_mget(ARRAY['c', 'nope', 'a', 'bb'])", &[])?;
    let found: Vec<(String, Value)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(found == [("c".into(), json!({"d": []})), ("a".into(), json!(1)), ("bb".into(), Value::Null)], "{found:?}");
    ensure!(version(&mut client, "a")? == Some(rows[1].get(2)));
    for entries in ["[1]", "1", "null", "\"a\""] {
        refused(client.query(&format!("SELECT enough.kv_mset('{entries}')"), &[]), "22023")?;
    }
    refused(client.query("SELECT enough.kv_mset('{\"x\": 1, \"\": 2}')", &[]), "22023")?;
    refused(client.query("SELECT enough.kv_mset(jsonb_build_object('x', 1, repeat('y', 513), 2))", &[]), "54000")?;
    ensure!(get(&mut client, "x")?.is_none(), "a part of what was refused is there");
    ensure!(client.query_one("SELECT enough.kv_mset('{}')", &[])?.get::<_, i32>(0) == 0);
    ensure!(client.query("SELECT enough.kv_mget('{}'), enough.kv_mget(NULL)", &[])?.is_empty());
    Ok(())
}

/// Two that set the same keys, in other orders of their members, wait and don't deadlock.
#[test]
fn two_that_set_the_same_keys_wait_for_one_another() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other, mut third) = (database.client()?, database.client()?, database.client()?);
    let pid = backend(&mut other)?;
    let mut block = one.transaction()?;
    block.execute("SELECT enough.kv_set('aa', '1')", &[])?;
    // By length, as jsonb has its members, b would be first and held while it waits for the other key.
    let waiting = thread::spawn(move || other.execute("SELECT enough.kv_mset('{\"b\": 2, \"aa\": 2}')", &[]));
    until_locked(&mut third, pid)?;
    block.execute("SELECT enough.kv_mset('{\"b\": 1}')", &[])?;
    block.commit()?;
    ensure!(matches!(waiting.join(), Ok(Ok(_))));
    ensure!(get(&mut third, "aa")? == Some(json!(2)) && get(&mut third, "b")? == Some(json!(2)));
    Ok(())
}

#[test]
fn keys_come_in_byte_order_by_what_they_begin_with() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let all = ["a%b", "a_b", "aXb", "a\\b", "b", "B", "ab", "ä", "a\u{10ffff}", "a'b"];
    for key in all {
        set(&mut client, key, &json!(1))?;
    }
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    ensure!(column(&mut client, "SELECT enough.kv_keys()", &[])? == sorted);
    for prefix in ["a", "a%", "a_", "a\\", "a'", "ä", "B", "nope"] {
        let expected: Vec<&str> = sorted.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        let found = column(&mut client, "SELECT enough.kv_keys($1)", &[&prefix])?;
        ensure!(found == expected, "{prefix}: {found:?}");
    }
    // Page by page.
    let (mut paged, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = column(&mut client, "SELECT enough.kv_keys('', $1, 3)", &[&after])?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        paged.extend(page);
    }
    ensure!(paged == sorted);
    client.execute("SELECT enough.kv_delete('ab')", &[])?;
    ensure!(!column(&mut client, "SELECT enough.kv_keys('ab')", &[])?.contains(&"ab".to_owned()));
    Ok(())
}

fn incr(client: &mut postgres::Client, key: &str, by: i64) -> Result<i64, postgres::Error> {
    Ok(client.query_one("SELECT enough.kv_incr($1, $2)", &[&key, &by])?.get(0))
}

#[test]
fn counts_are_exact_whoever_counts() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    ensure!(incr(&mut client, "n", 5)? == 5 && incr(&mut client, "n", -7)? == -2);
    ensure!(client.query_one("SELECT enough.kv_incr('n')", &[])?.get::<_, i64>(0) == -1);
    let counters: Vec<_> = (0..4)
        .map(|_| {
            let mut client = database.client()?;
            Ok(thread::spawn(move || (0..50).try_for_each(|_| incr(&mut client, "shared", 1).map(|_| ()))))
        })
        .collect::<Result<_>>()?;
    for counter in counters {
        ensure!(matches!(counter.join(), Ok(Ok(()))));
    }
    ensure!(get(&mut client, "shared")? == Some(json!(200)));
    set(&mut client, "max", &json!(i64::MAX))?;
    refused(incr(&mut client, "max", 1), "22023")?;
    ensure!(incr(&mut client, "max", 0)? == i64::MAX && incr(&mut client, "max", i64::MIN)? == -1);
    for value in [json!("1"), json!(1.5), json!(null), json!({}), json!([1]), json!(true)] {
        set(&mut client, "other", &value)?;
        refused(incr(&mut client, "other", 1), "22023")?;
        ensure!(get(&mut client, "other")? == Some(value));
    }
    client.execute("SELECT enough.kv_set('huge', '1e400'), enough.kv_set('whole', '2.0')", &[])?;
    refused(incr(&mut client, "huge", 1), "22023")?;
    ensure!(incr(&mut client, "whole", 1)? == 3);
    Ok(())
}

fn merge(client: &mut postgres::Client, patch: &Value) -> Result<Value, postgres::Error> {
    Ok(client.query_one("SELECT enough.kv_merge('m', $1)", &[patch])?.get(0))
}

#[test]
fn a_patch_is_merged_member_by_member() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    ensure!(merge(&mut client, &json!({"a": {"b": 1, "c": null}}))? == json!({"a": {"b": 1}}));
    ensure!(merge(&mut client, &json!({"a": {"c": 2}, "d": [1]}))? == json!({"a": {"b": 1, "c": 2}, "d": [1]}));
    ensure!(merge(&mut client, &json!({"a": {"b": null}}))? == json!({"a": {"c": 2}, "d": [1]}));
    ensure!(get(&mut client, "m")? == Some(json!({"a": {"c": 2}, "d": [1]})));
    ensure!(merge(&mut client, &json!([1]))? == json!([1]));
    ensure!(merge(&mut client, &json!({"x": 1}))? == json!({"x": 1}), "what is no object is replaced");
    client.execute("SELECT enough.kv_delete('m')", &[])?;
    ensure!(merge(&mut client, &json!({"y": 1}))? == json!({"y": 1}), "of what was deleted nothing comes back");
    Ok(())
}

#[test]
fn documents_are_found_by_what_they_contain() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.execute("SELECT enough.kv_create('docs', indexed => true)", &[])?;
    client.execute(
        "SELECT enough.kv_set('d' || n, jsonb_build_object('kind', n % 3, 'tags', jsonb_build_array('t' || n % 2)), space => s) \
           FROM generate_series(1, 9) AS n, unnest(ARRAY['docs', 'default']) AS s",
        &[],
    )?;
    client.execute("SELECT enough.kv_delete('d3', space => s) FROM unnest(ARRAY['docs', 'default']) AS s", &[])?;
    for space in ["docs", "default"] {
        let mut found = |matching: Value, after: Option<&str>, max: i32| {
            column(&mut client, "SELECT key FROM enough.kv_find($1, $2, $3, $4)", &[&matching, &after, &max, &space])
        };
        ensure!(found(json!({"kind": 0}), None, 10)? == ["d6", "d9"], "{space}");
        ensure!(found(json!({"tags": ["t1"], "kind": 1}), None, 10)? == ["d1", "d7"]);
        ensure!(found(json!({"kind": 1}), Some("d1"), 1)? == ["d4"]);
        ensure!(found(json!({"kind": 7}), None, 10)?.is_empty() && found(json!({}), None, 10)?.len() == 8);
    }
    client.batch_execute("SET enable_seqscan = off; SET enable_indexscan = off")?;
    let plan = column(
        &mut client,
        "EXPLAIN SELECT key FROM enough.kv_docs AS e WHERE e.value @> '{\"kind\": 1}' ORDER BY key LIMIT 3",
        &[],
    )?;
    ensure!(plan.iter().any(|line| line.contains("k_docs_value")), "{plan:?}");
    Ok(())
}
