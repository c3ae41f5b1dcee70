//! What `cache_fetch` has computed ends with the tagged tables that its query has read, in whatever way it has.

use anyhow::{Context, Result, ensure};
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::Value;

fn fetch(client: &mut Client, query: &str) -> Result<()> {
    client.query("SELECT enough.cache_fetch('key', NULL, $1)", &[&query]).with_context(|| query.to_owned())?;
    Ok(())
}

fn there(client: &mut Client) -> Result<bool> {
    Ok(client.query_one("SELECT enough.cache_exists('key')", &[])?.get(0))
}

/// Whether what `query` says ends with `change`.
fn ends(client: &mut Client, query: &str, change: &str) -> Result<bool> {
    client.batch_execute("SELECT enough.cache_delete('key')")?;
    fetch(client, query)?;
    ensure!(there(client)?, "{query}: it is not stored");
    client.batch_execute(change).with_context(|| change.to_owned())?;
    Ok(!there(client)?)
}

const SETUP: &str = "
    CREATE TABLE t AS SELECT 1 AS id, 1 AS v;
    CREATE TABLE u (LIKE t);
    CREATE TABLE rows AS TABLE t;
    CREATE VIEW seen AS SELECT sum(v) AS v FROM t;
    CREATE VIEW over_it AS TABLE seen;
    CREATE FUNCTION inlined() RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT v FROM t';
    CREATE FUNCTION apart() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT v FROM t LIMIT 1';
    CREATE FUNCTION folded() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT v FROM t LIMIT 1';
    CREATE FUNCTION within() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT max(v) FROM t); END';
    CREATE FUNCTION text_of(statement text) RETURNS int LANGUAGE plpgsql AS
        'DECLARE v int; BEGIN EXECUTE statement INTO v; RETURN v; EXCEPTION WHEN division_by_zero THEN RETURN 0; END';
    CREATE FUNCTION gone() RETURNS int LANGUAGE plpgsql AS
        'DECLARE x int; BEGIN CREATE TEMP TABLE short AS TABLE t; SELECT v FROM short INTO x; DROP TABLE short; RETURN x; END';
    CREATE FUNCTION caught() RETURNS int LANGUAGE plpgsql AS
        'BEGIN RETURN (SELECT 1 / (v - v) FROM t); EXCEPTION WHEN division_by_zero THEN RETURN 0; END';
    CREATE TABLE whole (id int, v int) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF whole FOR VALUES FROM (0) TO (10);
    CREATE TABLE high PARTITION OF whole FOR VALUES FROM (10) TO (20);
    CREATE TABLE pieces (id int, v int) PARTITION BY RANGE (id);
    CREATE TABLE piece PARTITION OF pieces FOR VALUES FROM (0) TO (10);
    CREATE TABLE parent (v int);
    CREATE TABLE child () INHERITS (parent);
    INSERT INTO child VALUES (1);
    SELECT enough.cache_tag_table('t'), enough.cache_tag_table('rows', 'row:{id}'), enough.cache_tag_table('whole'),
           enough.cache_tag_table('piece', '{{p}}'), enough.cache_tag_table('child')";

#[test]
fn a_value_ends_with_every_tagged_table_that_its_query_reads() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(SETUP)?;
    for query in [
        "SELECT sum(v) FROM t",
        "SELECT count(*) FROM u LEFT JOIN t USING (id)",
        "SELECT 1 WHERE EXISTS (SELECT FROM t)",
        "WITH w AS MATERIALIZED (TABLE t) SELECT max(v) FROM w",
        "SELECT v FROM t WHERE false",
        "SELECT * FROM over_it",
        "SELECT max(i) FROM inlined() AS i",
        "SELECT apart()",
        "SELECT folded()",
        "SELECT within()",
        "SELECT text_of('SELECT v FROM t LIMIT 1')",
        "SELECT text_of('SELECT within()')",
        "SELECT gone()",
        "SELECT caught()",
        "SELECT enough.cache_fetch('inner', NULL, 'SELECT max(v) FROM t')",
    ] {
        for change in ["UPDATE t SET v = v + 1", "INSERT INTO t VALUES (2, 2)", "DELETE FROM t WHERE id = 2"] {
            ensure!(ends(&mut client, query, change)?, "{query}: it is still there after {change}");
        }
        ensure!(!ends(&mut client, query, "INSERT INTO u VALUES (1, 1)")?, "{query}: it has gone with another table");
        ensure!(!ends(&mut client, query, "UPDATE rows SET v = v")?, "{query}: it has gone with another tagged table");
    }
    for (query, change) in [
        ("SELECT v FROM rows WHERE id = 1", "UPDATE rows SET v = v + 1"),
        ("SELECT v FROM rows WHERE id = 1", "INSERT INTO rows VALUES (7, 7)"),
        ("SELECT max(v) FROM rows", "TRUNCATE rows"),
        ("SELECT max(v) FROM whole", "INSERT INTO whole VALUES (1, 1)"),
        ("SELECT max(v) FROM whole", "INSERT INTO high VALUES (11, 1)"),
        ("SELECT max(v) FROM low", "UPDATE whole SET v = v + 1"),
        ("SELECT max(v) FROM low", "INSERT INTO low VALUES (2, 2)"),
        ("SELECT max(v) FROM low", "TRUNCATE whole"),
        ("SELECT max(v) FROM pieces", "INSERT INTO piece VALUES (1, 1)"),
        ("SELECT max(v) FROM pieces", "INSERT INTO pieces VALUES (1, 2)"),
        ("SELECT max(v) FROM piece", "UPDATE pieces SET v = v + 1"),
        ("SELECT max(v) FROM piece", "SELECT enough.cache_invalidate('{p}')"),
        ("SELECT max(v) FROM parent", "UPDATE parent SET v = v + 1"),
        ("SELECT max(v) FROM parent", "DELETE FROM child"),
    ] {
        ensure!(ends(&mut client, query, change)?, "{query}: it is still there after {change}");
    }
    ensure!(!ends(&mut client, "SELECT max(v) FROM low WHERE id = 1", "UPDATE t SET v = v")?);
    Ok(())
}

#[test]
fn a_value_with_more_tags_than_an_entry_can_have_is_not_stored() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for table in 1..=9 {
        client.batch_execute(&format!("CREATE TABLE t{table} (v int); SELECT enough.cache_tag_table('t{table}')"))?;
    }
    let all = |tables: i32| {
        let tables: Vec<_> = (1..=tables).map(|table| format!("SELECT v FROM t{table}")).collect();
        format!("SELECT count(*) FROM ({}) AS a", tables.join(" UNION ALL "))
    };
    ensure!(ends(&mut client, &all(8), "INSERT INTO t8 VALUES (1)")?);
    client.batch_execute("INSERT INTO t9 VALUES (1)")?;
    fetch(&mut client, &all(9))?;
    ensure!(!there(&mut client)?, "nine tables are more than an entry can tell of");
    let tagged = "SELECT enough.cache_fetch('key', NULL, $1, tags => ARRAY[$2])";
    client.query(tagged, &[&all(8), &"own"])?;
    ensure!(!there(&mut client)?, "the caller's own tags count, too");
    let value: Value = client.query_one(tagged, &[&all(8), &"t3"])?.get(0);
    ensure!(value == 1, "{value}");
    ensure!(there(&mut client)?, "a tag counts once");
    Ok(())
}

#[test]
fn tables_that_are_tagged_later_or_no_longer() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute("CREATE TABLE t AS SELECT 1 AS v")?;
    let query = "SELECT v FROM t";
    ensure!(!ends(&mut client, query, "UPDATE t SET v = 2")?);
    // In one transaction, whose lock on the table is older than the tag.
    client.batch_execute("BEGIN; SELECT enough.cache_delete('key'); COMMIT; BEGIN; SELECT FROM t")?;
    other.batch_execute("SELECT enough.cache_tag_table('t')")?;
    fetch(&mut client, query)?;
    client.batch_execute("COMMIT")?;
    other.batch_execute("UPDATE t SET v = 3")?;
    ensure!(!there(&mut client)?, "it was computed when the table had its tag");
    ensure!(ends(&mut client, query, "UPDATE t SET v = 4")?);
    // What an old snapshot says of a table that was changed, then tagged, is refused.
    client.batch_execute("SELECT enough.cache_untag_table('t'); SELECT enough.cache_delete('key')")?;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM t")?;
    other.batch_execute("UPDATE t SET v = 5")?;
    other.batch_execute("SELECT enough.cache_tag_table('t')")?;
    fetch(&mut client, query)?;
    client.batch_execute("COMMIT")?;
    ensure!(!there(&mut client)?, "it is older than the table's tag");
    client.batch_execute("SELECT enough.cache_untag_table('t')")?;
    ensure!(!ends(&mut client, query, "UPDATE t SET v = 6")?);
    Ok(())
}
