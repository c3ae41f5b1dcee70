//! Tables as sources: each change of a row is one message, whatever statement makes it and whoever does, and what follows from
//! renames, partitions and rights.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database, backend, until_locked, until_waiting};
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;

fn made(sql: &str) -> Result<(Database, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q')")?;
    client.batch_execute(sql)?;
    Ok((database, client))
}

/// The messages that the queue holds, in their order, which are gone then.
fn sent_to(client: &mut Client, queue: &str) -> Result<Vec<Value>> {
    let sql = format!(
        "WITH gone AS (DELETE FROM enough.\"q_{queue}\" RETURNING msg_id, message) SELECT message FROM gone ORDER BY msg_id"
    );
    Ok(client.query(&sql, &[])?.iter().map(|row| row.get(0)).collect())
}

fn sent(client: &mut Client) -> Result<Vec<Value>> {
    sent_to(client, "q")
}

/// The changes that a statement sends: event, and the `id` of the row before and after.
fn changes(client: &mut Client, statement: &str) -> Result<Vec<String>> {
    client.batch_execute(statement).with_context(|| statement.to_owned())?;
    let change = |message: &Value| {
        let id = |row: &str| message[row].get("id").map_or_else(|| "-".to_owned(), ToString::to_string);
        format!("{} {} {}", message["event"].as_str().unwrap_or("?"), id("old"), id("new"))
    };
    Ok(sent(client)?.iter().map(change).collect())
}

#[track_caller]
fn expect(client: &mut Client, statement: &str, expected: &[&str]) -> Result<()> {
    let found = changes(client, statement)?;
    ensure!(found == expected, "{statement}: {found:?}, not {expected:?}");
    Ok(())
}

#[test]
fn a_message_has_the_row_before_and_after() -> Result<()> {
    let (_database, mut client) = made(
        "CREATE SCHEMA \"Odd one\"; \
         CREATE TABLE \"Odd one\".t (id int PRIMARY KEY, gone int, \"a b\" text, j jsonb, at timestamptz, span interval, \
             bytes bytea, twice int GENERATED ALWAYS AS (id * 2) STORED, n numeric, f float8); \
         ALTER TABLE \"Odd one\".t DROP COLUMN gone; \
         SELECT enough.queue_send_on('\"Odd one\".t', 'q')",
    )?;
    // Texts of values are the same whatever the session's settings are.
    client.batch_execute(
        "SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape'; SET DateStyle = 'German'; \
         SET extra_float_digits = -10; SET search_path = \"Odd one\"; \
         INSERT INTO t VALUES (1, 'x''\"\\', '{\"k\": [1, null]}', '2026-01-02 03:04:05+09', '1 day', '\\x00ff', DEFAULT, 1.50, 0.1)",
    )?;
    let row = json!({"id": 1, "a b": "x'\"\\", "j": {"k": [1, null]}, "at": "2026-01-01T18:04:05+00:00", "span": "1 day",
        "bytes": "\\x00ff", "twice": 2, "n": 1.50, "f": 0.1});
    ensure!(
        sent(&mut client)? == [json!({"event": "insert", "schema": "Odd one", "table": "t", "old": null, "new": row})]
    );
    client.batch_execute("UPDATE t SET id = 2, \"a b\" = NULL")?;
    let mut new = row.clone();
    (new["id"], new["twice"], new["a b"]) = (json!(2), json!(4), json!(null));
    ensure!(
        sent(&mut client)? == [json!({"event": "update", "schema": "Odd one", "table": "t", "old": row, "new": new})]
    );
    client.batch_execute("DELETE FROM t")?;
    ensure!(
        sent(&mut client)? == [json!({"event": "delete", "schema": "Odd one", "table": "t", "old": new, "new": null})]
    );
    // A value out of line is whole, also where an update doesn't touch it.
    client.batch_execute(
        "ALTER TABLE t ALTER \"a b\" SET STORAGE EXTERNAL; INSERT INTO t VALUES (1, repeat('x', 100000)); UPDATE t SET id = 2",
    )?;
    let messages = sent(&mut client)?;
    ensure!(messages.len() == 2 && messages[1]["new"]["a b"].as_str().map(str::len) == Some(100_000));
    // A new column, and the table's new name and schema, are in the next message.
    client.batch_execute(
        "ALTER TABLE t ADD c int DEFAULT 7; ALTER TABLE t RENAME TO u; ALTER TABLE u SET SCHEMA public; DELETE FROM public.u",
    )?;
    let messages = sent(&mut client)?;
    ensure!(messages.len() == 1 && messages[0]["old"]["c"] == json!(7), "{messages:?}");
    ensure!(messages[0]["schema"] == "public" && messages[0]["table"] == "u");
    Ok(())
}

/// What all kinds of statements send, for a table with rows 1 and 2 and for one with partitions.
fn every_kind(client: &mut Client) -> Result<()> {
    client.batch_execute("INSERT INTO t VALUES (1, 'a'), (2, 'a')")?;
    sent(client)?;
    expect(client, "INSERT INTO t VALUES (3, 'a'), (4, 'b')", &["insert - 3", "insert - 4"])?;
    expect(client, "UPDATE t SET v = 'c' WHERE id > 2", &["update 3 3", "update 4 4"])?;
    expect(client, "UPDATE t SET v = 'c' WHERE id > 9", &[])?;
    expect(client, "COPY t FROM PROGRAM 'printf \"5\\tx\\n6\\ty\\n\"'", &["insert - 5", "insert - 6"])?;
    expect(
        client,
        "INSERT INTO t VALUES (6, 'z'), (7, 'z') ON CONFLICT (id) DO UPDATE SET v = 'z'",
        &["insert - 7", "update 6 6"],
    )
    .or_else(|_| {
        client.batch_execute("UPDATE t SET v = 'y' WHERE id = 6; DELETE FROM t WHERE id = 7")?;
        sent(client)?;
        let upsert = "INSERT INTO t VALUES (6, 'z'), (7, 'z') ON CONFLICT (id) DO UPDATE SET v = 'z'";
        expect(client, upsert, &["update 6 6", "insert - 7"])
    })?;
    expect(client, "INSERT INTO t VALUES (6, 'z') ON CONFLICT DO NOTHING", &[])?;
    let merge = "MERGE INTO t USING (VALUES (1), (7), (8)) AS s (id) ON t.id = s.id \
                 WHEN MATCHED AND t.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 'm' WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'm')";
    let mut merged = changes(client, merge)?;
    merged.sort();
    ensure!(merged == ["delete 1 -", "insert - 8", "update 7 7"], "{merged:?}");
    let twice = "WITH d AS (DELETE FROM t WHERE id = 8 RETURNING id) INSERT INTO t SELECT id + 1, 'w' FROM d";
    let mut both = changes(client, twice)?;
    both.sort();
    ensure!(both == ["delete 8 -", "insert - 9"], "{both:?}");
    expect(client, "BEGIN; DELETE FROM t WHERE id = 9; ROLLBACK", &[])?;
    expect(
        client,
        "BEGIN; INSERT INTO t VALUES (10); SAVEPOINT s; INSERT INTO t VALUES (11); ROLLBACK TO s; INSERT INTO t VALUES (12); COMMIT",
        &["insert - 10", "insert - 12"],
    )?;
    // A row trigger that suppresses a row, or changes it.
    client.batch_execute(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.id % 2 = 1 THEN RETURN NULL; END IF; new.v := 'odd'; \
             RETURN new; END $$; \
         CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION odd()",
    )?;
    client.batch_execute("INSERT INTO t VALUES (20, 'x'), (21, 'x')")?;
    let messages = sent(client)?;
    ensure!(messages.len() == 1 && messages[0]["new"] == json!({"id": 20, "v": "odd"}), "{messages:?}");
    client.batch_execute("DROP TRIGGER a ON t; DROP FUNCTION odd()")?;
    expect(client, "TRUNCATE t", &["truncate - -"])
}

#[test]
fn every_kind_of_statement_sends_each_change_once() -> Result<()> {
    for kind in ["", "PARTITION BY RANGE (id)"] {
        let (_database, mut client) = made(&format!("CREATE TABLE t (id int PRIMARY KEY, v text) {kind}"))?;
        if !kind.is_empty() {
            client.batch_execute(
                "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (5); CREATE TABLE rest (v text, id int NOT NULL); \
                 ALTER TABLE t ATTACH PARTITION rest DEFAULT",
            )?;
        }
        client.batch_execute("SELECT enough.queue_send_on('t', 'q', '{insert,update,delete,truncate}')")?;
        for role in ["origin", "replica", "local"] {
            client.batch_execute(&format!("SET session_replication_role = {role}"))?;
            if role == "replica" {
                // The suppressing trigger of the test is an ordinary one.
                expect(&mut client, "INSERT INTO t VALUES (1, 'r'), (7, 'r')", &["insert - 1", "insert - 7"])?;
                expect(&mut client, "UPDATE t SET v = 's'", &["update 1 1", "update 7 7"])?;
                expect(&mut client, "DELETE FROM t", &["delete 1 -", "delete 7 -"])?;
                expect(&mut client, "COPY t FROM PROGRAM 'printf \"5\\tx\\n\"'", &["insert - 5"])?;
                expect(&mut client, "TRUNCATE t", &["truncate - -"])?;
            } else {
                every_kind(&mut client).with_context(|| format!("{role} {kind}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn foreign_keys_that_cascade_send_what_they_change() -> Result<()> {
    let (_database, mut client) = made(
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE t (id int, p int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE); \
         INSERT INTO parent SELECT generate_series(1, 3); INSERT INTO t SELECT n, 1 + n % 3 FROM generate_series(1, 9) AS n; \
         SELECT enough.queue_send_on('t', 'q')",
    )?;
    let mut updated = changes(&mut client, "UPDATE parent SET id = id + 10 WHERE id < 3")?;
    updated.sort();
    ensure!(
        updated == ["update 1 1", "update 3 3", "update 4 4", "update 6 6", "update 7 7", "update 9 9"],
        "{updated:?}"
    );
    let mut deleted = changes(&mut client, "DELETE FROM parent")?;
    deleted.sort();
    ensure!(deleted.len() == 9 && deleted.iter().collect::<std::collections::BTreeSet<_>>().len() == 9, "{deleted:?}");
    Ok(())
}

#[test]
fn columns_say_what_is_sent_and_which_updates_are() -> Result<()> {
    let (_database, mut client) = made(
        "CREATE TABLE t (id int PRIMARY KEY, secret text, \"V v\" text, n numeric); INSERT INTO t VALUES (1, 's', 'v', 1.0); \
         SELECT enough.queue_send_on('t', 'q', columns => '{\"V v\",id,n}')",
    )?;
    expect(&mut client, "UPDATE t SET secret = 'other'", &[])?;
    expect(&mut client, "UPDATE t SET id = id, \"V v\" = 'v'", &[])?;
    client.batch_execute("UPDATE t SET \"V v\" = 'w', secret = 'x'")?;
    let messages = sent(&mut client)?;
    ensure!(messages[0]["old"] == json!({"id": 1, "V v": "v", "n": 1.0}), "{messages:?}");
    ensure!(messages[0]["new"] == json!({"id": 1, "V v": "w", "n": 1.0}) && messages.len() == 1, "{messages:?}");
    // Without columns each row that is touched is sent.
    client.batch_execute("SELECT enough.queue_send_on('t', 'q', NULL)")?;
    expect(&mut client, "UPDATE t SET id = id", &["update 1 1"])?;
    // A second call replaces the first, with fewer events too.
    client.batch_execute("SELECT enough.queue_send_on('t', 'q', '{delete,delete}', '{id}')")?;
    expect(
        &mut client,
        "INSERT INTO t VALUES (2); UPDATE t SET id = id + 10; DELETE FROM t WHERE id = 12",
        &["delete 12 -"],
    )?;
    let left: i64 = client.query_one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass", &[])?.get(0);
    ensure!(left == 2, "{left} triggers");
    // Of the rest of a large update, many rows are passed over at once.
    client.batch_execute(
        "SELECT enough.queue_send_on('t', 'q', columns => '{n}'); INSERT INTO t SELECT n, 's', 'v', n FROM generate_series(100, 5099) AS n",
    )?;
    ensure!(sent(&mut client)?.len() == 5_000);
    client.batch_execute("UPDATE t SET n = CASE WHEN id % 2000 = 0 THEN -n ELSE n END")?;
    let messages = sent(&mut client)?;
    ensure!(messages.len() == 2 && messages[1]["new"] == json!({"n": -4000}), "{messages:?}");
    // A column that is gone is named, and nothing is written without its message.
    client.batch_execute("ALTER TABLE t RENAME n TO m")?;
    let hint = refused(client.batch_execute("UPDATE t SET m = 1"), "42703")?;
    ensure!(hint.contains("queue_send_on"), "{hint}");
    client
        .batch_execute("SELECT enough.queue_send_on('t', 'q', columns => '{m}'); UPDATE t SET m = 1 WHERE id = 100")?;
    ensure!(sent(&mut client)?.len() == 1);
    Ok(())
}

#[test]
fn partitions_and_children_send_each_row_once() -> Result<()> {
    let (_database, mut client) = made(
        "CREATE TABLE t (id int, v text) PARTITION BY LIST (v); CREATE TABLE a PARTITION OF t FOR VALUES IN ('a'); \
         CREATE TABLE b PARTITION OF t FOR VALUES IN ('b') PARTITION BY RANGE (id); \
         CREATE TABLE b1 PARTITION OF b FOR VALUES FROM (0) TO (10); SELECT enough.queue_send_on('t', 'q')",
    )?;
    client.batch_execute(
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO a VALUES (3, 'a'); INSERT INTO b1 VALUES (4, 'b')",
    )?;
    let messages = sent(&mut client)?;
    ensure!(messages.len() == 4 && messages.iter().all(|message| message["table"] == "t"), "{messages:?}");
    // What moves is deleted and inserted.
    expect(&mut client, "UPDATE t SET v = 'b' WHERE id = 1", &["delete 1 -", "insert - 1"])?;
    // A partition that comes sends at once, one that goes no more.
    client.batch_execute(
        "CREATE TABLE b2 PARTITION OF b FOR VALUES FROM (10) TO (20); ALTER TABLE t DETACH PARTITION a",
    )?;
    expect(&mut client, "INSERT INTO t VALUES (11, 'b'); INSERT INTO a VALUES (5, 'a')", &["insert - 11"])?;
    for one in ["b", "b1"] {
        let hint = refused(client.batch_execute(&format!("SELECT enough.queue_send_on('{one}', 'q')")), "42710")?;
        ensure!(hint.contains("queue_send_off('public.t', 'q')"), "{hint}");
        client.batch_execute(&format!("SELECT enough.queue_send_off('{one}')"))?;
    }
    expect(&mut client, "INSERT INTO b1 VALUES (6, 'b')", &["insert - 6"])?;
    // One that sends by itself, and then the whole table.
    client.batch_execute("SELECT enough.queue_send_off('t', 'q'); SELECT enough.queue_send_on('b1', 'q')")?;
    let hint = refused(client.batch_execute("SELECT enough.queue_send_on('t', 'q')"), "42710")?;
    ensure!(hint.contains("queue_send_off('public.b1', 'q')"), "{hint}");
    expect(&mut client, "INSERT INTO t VALUES (7, 'b'), (12, 'b')", &["insert - 7"])?;
    // A table that sends by statements can't come into a place where other statements write it, unnoticed.
    client.batch_execute("SELECT enough.queue_send_on('a', 'q')")?;
    for statement in [
        "ALTER TABLE t ATTACH PARTITION a FOR VALUES IN ('a')",
        "CREATE TABLE p (id int, v text); ALTER TABLE a INHERIT p",
    ] {
        let error = client.batch_execute(statement).err().context("attached")?;
        ensure!(error.as_db_error().is_some_and(|error| error.message().contains("enough_send_q_r")), "{error:?}");
    }
    client.batch_execute(
        "SELECT enough.queue_send_off('a'); ALTER TABLE t ATTACH PARTITION a FOR VALUES IN ('a'); SELECT enough.queue_send_on('a', 'q')",
    )?;
    expect(&mut client, "INSERT INTO t VALUES (8, 'a')", &["insert - 8"])?;

    // Each table of an inheritance sends its own rows, whatever the statement was on.
    client.batch_execute(
        "CREATE TABLE parent (id int); CREATE TABLE child (extra int) INHERITS (parent); \
         SELECT enough.queue_send_on('parent', 'q'), enough.queue_send_on('child', 'q')",
    )?;
    expect(
        &mut client,
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 2)",
        &["insert - 1", "insert - 2"],
    )?;
    let mut both = changes(&mut client, "UPDATE parent SET id = id + 10")?;
    both.sort();
    ensure!(both == ["update 1 11", "update 2 12"], "{both:?}");
    client.batch_execute("SELECT enough.queue_send_off('parent')")?;
    expect(&mut client, "DELETE FROM parent", &["delete 12 -"])?;
    // A child that comes later, of a table that sends by statements.
    client.batch_execute(
        "CREATE TABLE alone (id int); SELECT enough.queue_send_on('alone', 'q'); CREATE TABLE late () INHERITS (alone)",
    )?;
    let hint = refused(client.batch_execute("SELECT enough.queue_send_on('late', 'q')"), "42710")?;
    ensure!(hint.contains("queue_send_off('public.alone', 'q')"), "{hint}");
    Ok(())
}

#[test]
fn the_owner_of_the_table_sends_and_a_writer_needs_no_right() -> Result<()> {
    let (database, mut client) = made("SELECT enough.queue_create('other')")?;
    let [owner, writer] = ["owner", "writer"].map(|what| database.role(what));
    client.batch_execute(&format!(
        "CREATE ROLE {owner} LOGIN; CREATE ROLE {writer} LOGIN; CREATE TABLE t (id int); ALTER TABLE t OWNER TO {owner}; \
         GRANT INSERT, TRIGGER ON t TO {writer}; SELECT enough.queue_grant('other', '{writer}', 'all')"
    ))?;
    let mut as_owner = database.client_as(&owner)?;
    let mut as_writer = database.client_as(&writer)?;
    // The table is not the sender's, or the queue is not the owner's to send to; a superuser learns that at once, too.
    let hint = refused(as_writer.batch_execute("SELECT enough.queue_send_on('t', 'other')"), "42501")?;
    ensure!(hint.contains("owner"), "{hint}");
    for session in [&mut as_owner, &mut client] {
        let hint = refused(session.batch_execute("SELECT enough.queue_send_on('t', 'q')"), "42501")?;
        ensure!(hint.contains("queue_grant('q', <role>, 'send')"), "{hint}");
    }
    client.batch_execute(&format!(
        "SELECT enough.queue_grant('q', '{owner}', 'send'); REVOKE USAGE ON SCHEMA enough FROM PUBLIC"
    ))?;
    client.batch_execute(&format!("GRANT USAGE ON SCHEMA enough TO {owner}"))?;
    as_owner.batch_execute("SELECT enough.queue_send_on('t', 'q')")?;
    as_writer.batch_execute("INSERT INTO t VALUES (1)")?;
    ensure!(sent(&mut client)?.len() == 1);
    refused(as_writer.batch_execute("SELECT enough.queue_send_off('t')"), "42501")?;
    // As long as the owner may send, the queue can't be dropped; without that right, writing fails.
    let hint = refused(client.batch_execute("SELECT enough.queue_drop('q')"), "2BP01")?;
    ensure!(hint.contains("queue_send_off('public.t', 'q')"), "{hint}");
    client.batch_execute(&format!("SELECT enough.queue_revoke('q', '{owner}', 'send')"))?;
    refused(as_writer.batch_execute("INSERT INTO t VALUES (2)"), "42501")?;
    client.batch_execute("SELECT enough.queue_drop('q')")?;
    let hint = refused(as_writer.batch_execute("INSERT INTO t VALUES (2)"), "42704")?;
    ensure!(hint.contains("queue_send_off('public.t', 'q')") && hint.contains("queue_create"), "{hint}");
    // Nothing to send asks for nothing.
    as_writer.batch_execute("INSERT INTO t SELECT 1 WHERE false")?;
    as_owner.batch_execute("SELECT enough.queue_send_off('t', 'q'); INSERT INTO t VALUES (3)")?;
    refused(client.batch_execute("SELECT enough.queue_send_on('enough.q_other', 'other')"), "22023")?;
    refused(client.batch_execute("CREATE VIEW v AS SELECT 1; SELECT enough.queue_send_on('v', 'other')"), "42809")?;
    Ok(())
}

#[test]
fn renames_of_the_queue_are_followed() -> Result<()> {
    let (database, mut client) = made(
        "CREATE TABLE t (id int); CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT; \
         CREATE TABLE d (id int); \
         SELECT enough.queue_send_on('t', 'q', '{insert,truncate}', '{id}'), enough.queue_send_on('p', 'q', '{insert,delete}'), \
                enough.queue_send_on('d', 'q'); \
         ALTER TABLE d DISABLE TRIGGER ALL",
    )?;
    let role = database.role("queues");
    // The queue's owner needs no right on the tables.
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; SELECT enough.grant_to('{role}', 'admin'); \
         ALTER TABLE enough.q_q OWNER TO {role}; ALTER TABLE enough.a_q OWNER TO {role}"
    ))?;
    let mut owner = database.client_as(&role)?;
    owner.batch_execute("SELECT enough.queue_rename('q', 'new')")?;
    client.batch_execute(
        "SELECT enough.queue_create('q'); INSERT INTO t VALUES (1); TRUNCATE t; INSERT INTO p VALUES (2); INSERT INTO p1 VALUES (3); \
         UPDATE p SET id = id; DELETE FROM p WHERE id = 3; INSERT INTO d VALUES (4)",
    )?;
    let events: Vec<_> = sent_to(&mut client, "new")?.iter().map(|message| message["event"].clone()).collect();
    ensure!(events == ["insert", "truncate", "insert", "insert", "delete"], "{events:?}");
    ensure!(sent(&mut client)?.is_empty(), "another queue has the old name");
    // Both may be sent to.
    client.batch_execute("SELECT enough.queue_send_on('t', 'q'); INSERT INTO t VALUES (5)")?;
    ensure!(sent(&mut client)?.len() == 1 && sent_to(&mut client, "new")?.len() == 1);
    client.batch_execute("SELECT enough.queue_send_off('t', 'new'); INSERT INTO t VALUES (5)")?;
    ensure!(sent(&mut client)?.len() == 1 && sent_to(&mut client, "new")?.is_empty());
    // The longest name that a queue has leaves room for those of triggers.
    client.batch_execute(
        "SELECT enough.queue_rename('q', repeat('x', 48)); SELECT enough.queue_send_off('t'); \
         SELECT enough.queue_send_on('t', repeat('x', 48)); UPDATE t SET id = 1",
    )?;
    ensure!(sent_to(&mut client, &"x".repeat(48))?.len() == 2);
    Ok(())
}

#[test]
fn a_statement_that_waits_for_a_rename_sends_to_the_queue_as_it_is_then() -> Result<()> {
    let (database, mut client) = made("CREATE TABLE t (id int); SELECT enough.queue_send_on('t', 'q')")?;
    let mut writer = database.client()?;
    let mut reader = database.client()?;
    writer.batch_execute("INSERT INTO t VALUES (1)")?;
    let pid = backend(&mut writer)?;
    let mut transaction = client.transaction()?;
    transaction.batch_execute("SELECT enough.queue_rename('q', 'new')")?;
    thread::scope(|scope| {
        let writing = scope.spawn(|| writer.batch_execute("INSERT INTO t VALUES (2)"));
        until_locked(&mut reader, pid)?;
        transaction.commit()?;
        writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?.map_err(anyhow::Error::from)
    })?;
    ensure!(queue::read(&mut reader, "new", 10)?.len() == 2);
    // A reader that waits gets what a statement sends.
    let pid = backend(&mut reader)?;
    let got = thread::scope(|scope| {
        let waiting = scope.spawn(|| queue::receive(&mut reader, "queue_read('new', 1, '1 hour', '1 minute')"));
        until_waiting(&mut client, pid)?;
        client.batch_execute("INSERT INTO t VALUES (3)")?;
        Ok::<_, anyhow::Error>(waiting.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??)
    })?;
    ensure!(got.len() == 1 && got[0].message["new"] == json!({"id": 3}), "{got:?}");
    Ok(())
}

/// A number below `most` of a sequence that is the same in every run.
fn next(state: &mut u64, most: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % most
}

#[test]
fn what_is_sent_makes_a_copy_of_the_table() -> Result<()> {
    for kind in ["", "PARTITION BY HASH (id)"] {
        let (_database, mut client) = made(&format!("CREATE TABLE t (id int PRIMARY KEY, v int) {kind}"))?;
        if !kind.is_empty() {
            for part in 0..3 {
                client.batch_execute(&format!(
                    "CREATE TABLE t{part} PARTITION OF t FOR VALUES WITH (MODULUS 3, REMAINDER {part})"
                ))?;
            }
        }
        client.batch_execute("SELECT enough.queue_send_on('t', 'q', '{insert,update,delete,truncate}')")?;
        let (mut state, mut copy) = (7, BTreeMap::new());
        for step in 0..150 {
            let (a, b) = (next(&mut state, 40), 40 + next(&mut state, 40));
            let statement = match next(&mut state, 8) {
                0 => format!(
                    "INSERT INTO t SELECT n, {step} FROM generate_series({a}, {b}) AS n ON CONFLICT (id) DO UPDATE SET v = t.v + 1"
                ),
                1 => {
                    format!("INSERT INTO t SELECT n, {step} FROM generate_series({a}, {b}) AS n ON CONFLICT DO NOTHING")
                }
                2 => format!("UPDATE t SET v = v + 1 WHERE id BETWEEN {a} AND {b}"),
                3 => format!(
                    "UPDATE t SET id = id + 1000 WHERE id = {a} AND NOT EXISTS (SELECT FROM t WHERE id = {a} + 1000)"
                ),
                4 => format!("DELETE FROM t WHERE id % 7 = {a} % 7"),
                5 => format!(
                    "MERGE INTO t USING generate_series({a}, {b}) AS s (id) ON t.id = s.id WHEN MATCHED AND s.id % 3 = 0 THEN DELETE \
                     WHEN MATCHED THEN UPDATE SET v = -v WHEN NOT MATCHED AND s.id % 2 = 0 THEN INSERT VALUES (s.id, {step})"
                ),
                6 => format!(
                    "BEGIN; DELETE FROM t WHERE id < {b}; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; UPDATE t SET v = 0 WHERE id < 90; COMMIT"
                ),
                _ if a < 4 => "TRUNCATE t".into(),
                _ => format!(
                    "BEGIN; SET LOCAL session_replication_role = replica; UPDATE t SET v = v * 2 WHERE id > {a}; COMMIT"
                ),
            };
            client.batch_execute(&statement).with_context(|| statement.clone())?;
            for message in sent(&mut client)? {
                let key = |row: &str| message[row]["id"].as_i64();
                match message["event"].as_str() {
                    Some("truncate") => copy.clear(),
                    event => {
                        if let Some(id) = key("old") {
                            ensure!(
                                copy.remove(&id).as_ref() == Some(&message["old"]),
                                "{event:?} of {id}: {statement}"
                            );
                        }
                        if let Some(id) = key("new") {
                            ensure!(
                                copy.insert(id, message["new"].clone()).is_none(),
                                "{event:?} of {id}: {statement}"
                            );
                        }
                    }
                }
            }
            let rows = client.query("SELECT id::int8, to_jsonb(t) FROM t", &[])?;
            let rows: BTreeMap<i64, Value> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            ensure!(rows == copy, "step {step}: {statement}");
        }
    }
    Ok(())
}

#[test]
fn rows_that_replication_applies_are_sent() -> Result<()> {
    let publisher = server::start(&server::options()?.conf("wal_level", "logical"))?;
    let subscriber = server::start(&server::options()?)?;
    let (from, to) = (Database::on(&publisher)?, Database::on(&subscriber)?);
    let (mut writer, mut client) = (from.client()?, to.client()?);
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v text); \
                  CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p DEFAULT";
    writer.batch_execute(tables)?;
    writer.batch_execute("CREATE PUBLICATION p FOR TABLE t, p; INSERT INTO t VALUES (1, 'first')")?;
    client.batch_execute(tables)?;
    client.batch_execute(
        "SELECT enough.queue_create('q'); \
         SELECT enough.queue_send_on('t', 'q', '{insert,update,delete,truncate}', '{id,v}'), enough.queue_send_on('p', 'q')",
    )?;
    client.batch_execute(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={}' PUBLICATION p",
        publisher.port(),
        from.name
    ))?;
    let wait = |what: &str, expected: &[&str]| {
        let mut found = Vec::new();
        let mut session = to.client()?;
        eventually(what, || {
            found
                .extend(sent(&mut session)?.iter().map(|m| format!("{} {} {}", m["event"], m["table"], m["new"]["v"])));
            Ok((found.len() >= expected.len()).then_some(()))
        })?;
        ensure!(found == expected, "{found:?}, not {expected:?}");
        Ok(())
    };
    wait("the first copy is sent", &["\"insert\" \"t\" \"first\""])?;
    eventually("both tables are copied", || {
        let open = "SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r'";
        Ok(client.query(open, &[])?.is_empty().then_some(()))
    })?;
    writer.batch_execute(
        "INSERT INTO t VALUES (2, 'second'); UPDATE t SET v = 'third' WHERE id = 2; DELETE FROM t WHERE id = 1; \
         INSERT INTO p VALUES (1, 'p'); TRUNCATE t",
    )?;
    wait(
        "the changes are sent",
        &[
            "\"insert\" \"t\" \"second\"",
            "\"update\" \"t\" \"third\"",
            "\"delete\" \"t\" null",
            "\"insert\" \"p\" \"p\"",
            "\"truncate\" \"t\" null",
        ],
    )?;
    client.batch_execute(
        "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    )?;
    Ok(())
}
