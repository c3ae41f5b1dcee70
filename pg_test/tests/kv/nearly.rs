//! Spaces whose tables are nearly as `kv_create` makes them: what is written past the executor is what the executor would have
//! written, and what it would refuse is refused.

use crate::common::Change;
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{indexes_agree, refused};
use enough_pg_test::server::{Database, backend, until_locked};
use postgres::Client;
use serde_json::{Value, json};
use std::thread;

const TABLE: &str = "enough.kv_s";

/// Changes of the table, and whether its rows are written past the executor after them.
const CHANGES: &[(&str, bool)] = &[
    ("SELECT 1", true),
    ("CREATE TRIGGER mine AFTER UPDATE ON enough.kv_s FOR EACH ROW EXECUTE FUNCTION noted()", false),
    ("ALTER TABLE enough.kv_s DISABLE TRIGGER kv_stamp", false),
    ("ALTER TABLE enough.kv_s ENABLE ALWAYS TRIGGER kv_changed", false),
    ("ALTER TABLE enough.kv_s ENABLE TRIGGER ALL", false),
    ("DROP TRIGGER kv_changed ON enough.kv_s", false),
    (
        "DROP TRIGGER kv_changed ON enough.kv_s; \
         CREATE TRIGGER kv_changed AFTER INSERT OR UPDATE OR DELETE ON enough.kv_s FOR EACH ROW EXECUTE FUNCTION noted()",
        false,
    ),
    ("CREATE INDEX ON enough.kv_s (updated_at)", false),
    ("CREATE INDEX ON enough.kv_s ((value ->> 'k'))", false),
    ("CREATE INDEX ON enough.kv_s USING gin (value)", false),
    ("DROP INDEX enough.k_s_version", true),
    ("DROP INDEX enough.k_s_version; CREATE INDEX ON enough.kv_s (version) INCLUDE (key)", false),
    ("DROP INDEX enough.k_s_expiry", false),
    ("DROP INDEX enough.k_s_expiry; CREATE INDEX ON enough.kv_s (expires_at)", false),
    ("ALTER TABLE enough.kv_s ADD mine text DEFAULT 'by default'", false),
    ("ALTER TABLE enough.kv_s ADD mine text GENERATED ALWAYS AS (key || '!') STORED", false),
    ("ALTER TABLE enough.kv_s ADD mine text; ALTER TABLE enough.kv_s DROP mine", true),
    ("ALTER TABLE enough.kv_s ADD CHECK (octet_length(key) < 100)", false),
    ("ALTER TABLE enough.kv_s DROP CONSTRAINT kv_s_key_check", false),
    (
        "ALTER TABLE enough.kv_s DROP CONSTRAINT kv_s_key_check, \
             ADD CHECK (octet_length(key) >= 1 AND octet_length(key) <= 100)",
        false,
    ),
    (
        "ALTER TABLE enough.kv_s DROP CONSTRAINT kv_s_key_check, ADD CHECK (length(key) >= 1 AND length(key) <= 512)",
        false,
    ),
    ("ALTER TABLE enough.kv_s REPLICA IDENTITY FULL", false),
    ("ALTER TABLE enough.kv_s SET (fillfactor = 50)", true),
    ("ALTER TABLE enough.kv_s SET UNLOGGED", true),
    ("ALTER TABLE enough.kv_s ALTER fence SET DEFAULT '3'", false),
    ("ALTER TABLE enough.kv_s ALTER updated_at SET DEFAULT now()", false),
    ("ALTER TABLE enough.kv_s ALTER value SET DEFAULT '1'", false),
    (
        "ALTER TABLE enough.kv_s ALTER version SET DEFAULT enough._kv_version('enough.k_default_versions'::text::regclass)",
        false,
    ),
    ("CREATE PUBLICATION p FOR TABLE enough.kv_s", true),
    ("CREATE TABLE others () INHERITS (enough.kv_s)", false),
    ("CREATE TABLE others (key text REFERENCES enough.kv_s)", false),
    ("ALTER TABLE enough.kv_s ENABLE ROW LEVEL SECURITY", false),
];

fn fresh(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "SET client_min_messages = error; DROP PUBLICATION IF EXISTS p; DROP TABLE IF EXISTS others; DROP TABLE IF EXISTS noted; \
         SELECT enough.kv_drop('s', if_exists => true); SELECT enough.kv_create('s'); \
         CREATE TABLE noted (key text); \
         CREATE OR REPLACE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ \
            BEGIN INSERT INTO noted VALUES (NEW.key); RETURN NEW; END $$",
    )?;
    Ok(())
}

fn number(client: &mut Client, sql: &str) -> Result<Option<i64>> {
    Ok(client.query_one(sql, &[])?.get(0))
}

/// How often a statement draws a version as the column's default, which it doesn't where it writes past the executor.
fn drawn_by_default(client: &mut Client, sql: &str) -> Result<i64> {
    let mut block = client.transaction()?;
    block.batch_execute("SET LOCAL track_functions = 'all'")?;
    let calls = "SELECT coalesce(pg_stat_get_xact_function_calls('enough._kv_version'::regproc), 0)";
    let before: i64 = block.query_one(calls, &[])?.get(0);
    block.query(sql, &[])?;
    let after: i64 = block.query_one(calls, &[])?.get(0);
    block.commit()?;
    Ok(after - before)
}

/// What an entry goes through, by every way that writes its row; another session reads along.
fn lives(client: &mut Client, other: &mut Client) -> Result<()> {
    let mut reads = |value: Value| -> Result<()> {
        // The second read may come from memory.
        for _ in 0..2 {
            let found: Option<Value> = other.query_one("SELECT enough.kv_get('k', 's')", &[])?.get(0);
            ensure!(found.clone().unwrap_or(Value::Null) == value, "{found:?} instead of {value}");
        }
        Ok(())
    };
    let first = number(client, "SELECT enough.kv_set('k', '1', space => 's')")?;
    reads(json!(1))?;
    let second = number(client, "SELECT enough.kv_set('k', '{\"k\": 2}', ttl => '1 hour', space => 's')")?;
    ensure!(first < second, "{second:?} after {first:?}");
    reads(json!({"k": 2}))?;
    let refused =
        number(client, &format!("SELECT enough.kv_set('k', '3', if_version => {}, space => 's')", first.unwrap_or(0)))?;
    ensure!(
        refused.is_none() && number(client, "SELECT enough.kv_set('k', '3', if_version => 0, space => 's')")?.is_none()
    );
    reads(json!({"k": 2}))?;
    let third = number(
        client,
        &format!("SELECT enough.kv_set('k', '3', if_version => {}, space => 's')", second.unwrap_or(0)),
    )?;
    ensure!(second < third, "{third:?} after {second:?}");
    reads(json!(3))?;
    let row = client.query_one(
        "SELECT key, value, version, updated_at > now() - interval '1 minute', expires_at IS NULL FROM enough.kv_s",
        &[],
    )?;
    ensure!(
        row.get::<_, &str>(0) == "k" && row.get::<_, Value>(1) == json!(3) && row.get::<_, Option<i64>>(2) == third
    );
    ensure!(row.get(3) && row.get(4), "when it was written and is over");
    ensure!(client.query_one("SELECT enough.kv_delete('k', space => 's')", &[])?.get::<_, bool>(0));
    reads(Value::Null)?;
    ensure!(!client.query_one("SELECT enough.kv_delete('k', space => 's')", &[])?.get::<_, bool>(0));
    let fourth = number(client, "SELECT enough.kv_set('k', '4', if_version => 0, space => 's')")?;
    ensure!(third < fourth, "{fourth:?} after {third:?}");
    reads(json!(4))?;
    // Twice in one statement, in a transaction that writes it by other ways as well, and in one that takes some of it back.
    client.batch_execute("SELECT enough.kv_set('k', '5', space => 's'), enough.kv_set('k', '6', space => 's')")?;
    reads(json!(6))?;
    client.batch_execute(
        "BEGIN; SELECT enough.kv_set('k', '7', space => 's'); SELECT enough.kv_incr('k', space => 's'); \
         SELECT enough.kv_set('k', to_jsonb((enough.kv_get('k', 's'))::int + 1), space => 's'); COMMIT",
    )?;
    reads(json!(9))?;
    client.batch_execute(
        "BEGIN; SELECT enough.kv_set('k', '10', space => 's'); SAVEPOINT a; SELECT enough.kv_set('k', '11', space => 's'); \
         SELECT enough.kv_delete('k', space => 's'); ROLLBACK TO a; COMMIT",
    )?;
    reads(json!(10))?;
    client.batch_execute("BEGIN; SELECT enough.kv_set('k', '12', space => 's'); ROLLBACK")?;
    reads(json!(10))?;
    // Larger than a page.
    let large = json!((0..3000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>());
    client.execute("SELECT enough.kv_set('k', $1, space => 's')", &[&large])?;
    reads(large)?;
    for i in 0..300 {
        client.batch_execute(&format!("SELECT enough.kv_set('k', '{i}', ttl => '1 day', space => 's')"))?;
    }
    reads(json!(299))?;
    let rows = number(client, "SELECT count(*) FROM enough.kv_s")?;
    ensure!(rows == Some(1), "{rows:?} rows");
    let told = number(other, "SELECT version FROM enough.kv_watch('', 0, space => 's') WHERE key = 'k'")?;
    ensure!(told == number(client, "SELECT version FROM enough.kv_s")?, "a watcher is told of {told:?}");
    Ok(())
}

#[test]
fn a_table_that_is_nearly_as_made_does_all_and_its_indexes_are_whole() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    client.batch_execute("CREATE EXTENSION amcheck")?;
    for &(change, direct) in CHANGES {
        fresh(&mut client)?;
        // Both sessions know how it was.
        for session in [&mut client, &mut other] {
            session
                .batch_execute("SELECT enough.kv_set('k', '0', space => 's'), enough.kv_set('k', '0', space => 's')")?;
        }
        client.batch_execute(change).with_context(|| format!("in {change}"))?;
        lives(&mut client, &mut other).with_context(|| format!("after {change}"))?;
        indexes_agree(&mut client, TABLE).with_context(|| format!("after {change}"))?;
        let set = "SELECT enough.kv_set('k', '1', space => 's')";
        for statement in [set, "SELECT enough.kv_delete('k', space => 's')"] {
            let drawn = drawn_by_default(&mut client, statement)?;
            ensure!((drawn == 0) == direct, "{statement}: {drawn} versions by default after {change}");
        }
        if change.contains("noted()") {
            client.batch_execute(&format!("DELETE FROM noted; {set}"))?;
            ensure!(number(&mut client, "SELECT count(*) FROM noted")? >= Some(1), "not fired after {change}");
        }
    }
    Ok(())
}

/// What the table's owner wants of rows, and the server's answer to one that isn't so.
const REFUSED: &[(&str, &str)] = &[
    ("ADD CHECK (value <> '\"bad\"')", "23514"),
    ("DROP CONSTRAINT kv_s_key_check, ADD CONSTRAINT kv_s_key_check CHECK (value <> '\"bad\"')", "23514"),
    (
        "DROP CONSTRAINT kv_s_key_check, ADD CHECK (octet_length(key) >= 2 AND octet_length(key) <= 512) NOT VALID",
        "23514",
    ),
    ("ADD CHECK (expires_at IS NOT NULL)", "23514"),
    ("ALTER expires_at SET NOT NULL", "23502"),
    ("ADD EXCLUDE USING btree (value WITH =)", "23P01"),
    ("ADD UNIQUE (value)", "23505"),
];

#[test]
fn what_the_executor_would_refuse_is_refused() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for (change, code) in REFUSED {
        fresh(&mut client)?;
        client.batch_execute(
            "SELECT enough.kv_set('k', '0', '1 hour', space => 's'), enough.kv_set('other', '\"bad\"', '1 hour', space => 's')",
        )?;
        if change.contains("bad") {
            client.batch_execute("SELECT enough.kv_set('other', '1', '1 hour', space => 's')")?;
        }
        client.batch_execute(&format!("ALTER TABLE enough.kv_s {change}"))?;
        refused(client.query("SELECT enough.kv_set('k', '\"bad\"', space => 's')", &[]), code)
            .with_context(|| (*change).to_owned())?;
    }
    // Published, and not to be known by its key.
    fresh(&mut client)?;
    client.batch_execute(
        "SELECT enough.kv_set('k', '0', space => 's'); CREATE PUBLICATION p FOR TABLE enough.kv_s WHERE (version > 3)",
    )?;
    refused(client.query("SELECT enough.kv_set('k', '1', space => 's')", &[]), "42P10")?;
    client.batch_execute("DROP PUBLICATION p")?;
    // Nor does a role write what it may not.
    let role = database.role("reader");
    client.batch_execute(&format!(
        "CREATE ROLE {role}; GRANT SELECT, INSERT ON enough.kv_s TO {role}; SET ROLE {role}"
    ))?;
    for call in ["kv_set('k', '1', space => 's')", "kv_delete('k', space => 's')"] {
        refused(client.query(&format!("SELECT enough.{call}"), &[]), "42501")?;
    }
    client.batch_execute("RESET ROLE")?;
    Ok(())
}

/// A session that draws several versions at once would give smaller ones than those that others have given meanwhile.
#[test]
fn a_sequence_that_gives_several_at_once_is_refused() -> Result<()> {
    let database = Database::new()?;
    let (mut client, mut other) = (database.client()?, database.client()?);
    fresh(&mut client)?;
    for session in [&mut client, &mut other] {
        session.batch_execute("SELECT enough.kv_set('k', '0', space => 's')")?;
    }
    client.batch_execute("ALTER SEQUENCE enough.k_s_versions CACHE 10")?;
    for session in [&mut client, &mut other] {
        for statement in [
            "SELECT enough.kv_set('k', '1', space => 's')",
            "SELECT enough.kv_set('new', '1', space => 's')",
            "SELECT enough.kv_delete('k', space => 's')",
            "UPDATE enough.kv_s SET value = '1'",
            "INSERT INTO enough.kv_s (key, value) VALUES ('new', '1')",
        ] {
            let hint = refused(session.query(statement, &[]), "55000").with_context(|| statement.to_owned())?;
            ensure!(hint == "ALTER SEQUENCE enough.\"k_s_versions\" CACHE 1;", "{hint}");
        }
    }
    client.batch_execute(
        "ALTER SEQUENCE enough.\"k_s_versions\" CACHE 1; SELECT enough.kv_set('k', '1', space => 's')",
    )?;
    Ok(())
}

/// What a writer that waits writes goes by the row that it meets, and a watcher is told of each.
#[test]
fn a_writer_that_waits_goes_by_the_row_that_it_meets() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut third) = (database.client()?, database.client()?);
    // What the first does, what the second does that waits for it, whether that does it, and the value then.
    let cases = [
        ("kv_set('k', '1')", "kv_set('k', '2')", true, json!(2)),
        ("kv_set('k', '1')", "kv_set('k', '2', if_version => $version)", false, json!(1)),
        ("kv_delete('k')", "kv_set('k', '2', if_version => $version)", false, Value::Null),
        ("kv_delete('k')", "kv_set('k', '2', if_version => 0)", true, json!(2)),
        ("kv_delete('k')", "kv_delete('k')", false, Value::Null),
        ("kv_incr('k')", "kv_delete('k')", true, Value::Null),
    ];
    for (first, second, done, value) in cases {
        for commits in [true, false] {
            let mut other = database.client()?;
            let pid = backend(&mut other)?;
            let version = number(&mut third, "SELECT enough.kv_set('k', '0')")?.context("no version")?;
            let mut block = one.transaction()?;
            block.batch_execute(&format!("SELECT enough.{first}"))?;
            let statement = format!("SELECT enough.{second}::text").replace("$version", &version.to_string());
            let waiting =
                thread::spawn(move || other.query_one(&statement, &[]).map(|row| row.get::<_, Option<String>>(0)));
            until_locked(&mut third, pid)?;
            if commits {
                block.commit()?;
            } else {
                block.rollback()?;
            }
            let answer = waiting.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
            let found: Option<Value> = third.query_one("SELECT enough.kv_get('k')", &[])?.get(0);
            let case = format!("{second} after {first}, {}", if commits { "committed" } else { "rolled back" });
            if commits {
                let answered = answer.is_some_and(|answer| answer != "false");
                ensure!((answered, found.clone().unwrap_or(Value::Null)) == (done, value.clone()), "{case}: {found:?}");
            } else {
                // It meets the row as it was.
                ensure!(answer.is_some() != second.contains("=> 0"), "{case}: {answer:?}");
            }
            let told: Vec<_> = third
                .query("SELECT * FROM enough.kv_watch('k', $1)", &[&version])?
                .iter()
                .map(Change::of)
                .filter(|change| change.key.is_some())
                .collect();
            let last = number(&mut third, "SELECT version FROM enough.kv_default WHERE key = 'k'")?;
            ensure!(told.last().map(|change| change.version) == last.filter(|&last| last > version), "{case}");
        }
    }
    Ok(())
}

/// And by the table: a trigger, or an index, that was made meanwhile.
#[test]
fn a_writer_that_waits_goes_by_the_table_that_it_meets() -> Result<()> {
    let database = Database::new()?;
    let (mut one, mut other) = (database.client()?, database.client()?);
    one.batch_execute(
        "CREATE EXTENSION amcheck;
         CREATE FUNCTION doubled() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.value := to_jsonb(2 * NEW.value::int); RETURN NEW; END'",
    )?;
    let changes = [
        ("CREATE TRIGGER doubled BEFORE UPDATE ON enough.kv_default FOR EACH ROW EXECUTE FUNCTION doubled()", json!(6)),
        ("ALTER TABLE enough.kv_default DISABLE TRIGGER doubled", json!(3)),
        ("CREATE INDEX ON enough.kv_default (updated_at)", json!(3)),
    ];
    let pid = backend(&mut other)?;
    for (change, value) in changes {
        // The one that will wait knows the table as it is before.
        other.batch_execute("SELECT enough.kv_set('k', '1'), enough.kv_set('k', '1')")?;
        let mut block = one.transaction()?;
        block.batch_execute(change)?;
        let waiting = thread::spawn(move || {
            let outcome = other.batch_execute("SELECT enough.kv_set('k', '3')");
            (other, outcome)
        });
        until_locked(&mut database.client()?, pid)?;
        block.commit()?;
        let (back, outcome) = waiting.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        outcome?;
        other = back;
        let found: Option<Value> = one.query_one("SELECT enough.kv_get('k')", &[])?.get(0);
        ensure!(found == Some(value), "{change}: {found:?}");
        indexes_agree(&mut one, "enough.kv_default")?;
    }
    Ok(())
}
