//! Whatever changes a tagged table ends the entries with its tags: whoever writes, by whatever statement, in whatever role
//! of replication.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, healthy, refused};
use enough_pg_test::server::{self, Database};
use postgres::Client;

/// Whether the entry `key` is there.
fn there(client: &mut Client, key: &str) -> Result<bool> {
    Ok(client.query_one("SELECT enough.cache_exists($1)", &[&key])?.get(0))
}

/// Puts entries under `keys`, each tagged with its own name.
fn fill(client: &mut Client, keys: &[&str]) -> Result<()> {
    for key in keys {
        client.execute("SELECT enough.cache_set($1, '1', tags => ARRAY[$1])", &[key])?;
    }
    Ok(())
}

/// That `statement`, run by `writer`, ends the entries `gone` and leaves the entries `stay`.
fn ends(writer: &mut Client, reader: &mut Client, statement: &str, gone: &[&str], stay: &[&str]) -> Result<()> {
    fill(reader, gone)?;
    fill(reader, stay)?;
    writer.batch_execute(statement).with_context(|| statement.to_owned())?;
    for key in gone {
        ensure!(!there(reader, key)?, "{statement}: {key} is still there");
    }
    for key in stay {
        ensure!(there(reader, key)?, "{statement}: {key} is gone");
    }
    Ok(())
}

#[test]
fn every_kind_of_statement_ends_the_entries_also_as_a_replica() -> Result<()> {
    let database = Database::new()?;
    let (mut writer, mut reader) = (database.client()?, database.client()?);
    writer.batch_execute(
        "CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE t (id int PRIMARY KEY REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, v text);
         INSERT INTO parent SELECT generate_series(1, 100); INSERT INTO t SELECT 1, 'a'; INSERT INTO t VALUES (50, 'b');
         CREATE VIEW simple AS SELECT * FROM t;
         CREATE FUNCTION writes() RETURNS void LANGUAGE plpgsql AS
             $$ BEGIN UPDATE t SET v = 'f' WHERE id = 1; EXCEPTION WHEN division_by_zero THEN NULL; END $$;
         SELECT enough.cache_tag_table('t'), enough.cache_tag_table('t', 'other'), enough.cache_tag_table('t')",
    )?;
    let statements = [
        "INSERT INTO t VALUES (2, 'x')",
        "INSERT INTO t VALUES (2, 'y') ON CONFLICT (id) DO UPDATE SET v = excluded.v",
        "UPDATE t SET v = 'z' WHERE id = 2",
        "UPDATE simple SET v = 'v' WHERE id = 2",
        "MERGE INTO t USING (VALUES (2), (3)) AS s (id) ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = 'm' \
         WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'n')",
        "WITH gone AS (DELETE FROM t WHERE id = 3 RETURNING *) SELECT * FROM gone",
        "SELECT writes()",
        "DO $$ BEGIN EXECUTE 'UPDATE t SET v = v WHERE id = 1'; END $$",
        "DELETE FROM t WHERE id = 2",
        "TRUNCATE t",
    ];
    for role in ["origin", "replica", "local"] {
        writer.batch_execute(&format!("SET session_replication_role = {role}"))?;
        for statement in statements {
            ends(&mut writer, &mut reader, statement, &["t", "other"], &["apart"])?;
        }
        writer.batch_execute("INSERT INTO t VALUES (1, 'a'), (50, 'b')")?;
    }
    writer.batch_execute("SET session_replication_role = origin")?;
    // What another table's constraint does.
    ends(&mut writer, &mut reader, "UPDATE parent SET id = 101 WHERE id = 50", &["t", "other"], &[])?;
    ends(&mut writer, &mut reader, "DELETE FROM parent WHERE id = 101", &["t", "other"], &[])?;
    ends(&mut writer, &mut reader, "TRUNCATE parent CASCADE", &["t", "other"], &[])?;
    // COPY, as a dump is restored.
    for role in ["origin", "replica"] {
        writer.batch_execute(&format!("SET session_replication_role = {role}; INSERT INTO parent VALUES (7)"))?;
        fill(&mut reader, &["t", "other"])?;
        let mut copy = writer.copy_in("COPY t FROM STDIN")?;
        std::io::Write::write_all(&mut copy, b"7\tcopied\n")?;
        copy.finish()?;
        ensure!(!there(&mut reader, "t")? && !there(&mut reader, "other")?, "COPY as {role}");
        writer.batch_execute("DELETE FROM t; DELETE FROM parent WHERE id = 7")?;
    }
    writer.batch_execute("SET session_replication_role = origin; SELECT enough.cache_untag_table('t')")?;
    ends(&mut writer, &mut reader, "TRUNCATE t", &[], &["t", "other"])?;
    let left: i64 = reader
        .query_one("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass AND NOT tgisinternal", &[])?
        .get(0);
    ensure!(left == 0, "{left} triggers are left");
    Ok(())
}

#[test]
fn what_is_written_to_a_partition_ends_the_entries_of_the_whole() -> Result<()> {
    let database = Database::new()?;
    let (mut writer, mut reader) = (database.client()?, database.client()?);
    writer.batch_execute(
        "CREATE TABLE t (id int, v text) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         SELECT enough.cache_tag_table('t');
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         CREATE TABLE t3 (v text, unused int, id int); ALTER TABLE t3 DROP COLUMN unused;
         ALTER TABLE t ATTACH PARTITION t3 FOR VALUES FROM (20) TO (30)",
    )?;
    for role in ["origin", "replica"] {
        writer.batch_execute(&format!("SET session_replication_role = {role}"))?;
        for statement in [
            "INSERT INTO t VALUES (1, 'a')",
            "UPDATE t SET id = 11",
            "INSERT INTO t1 VALUES (2, 'b')",
            "UPDATE t1 SET v = 'c'",
            "INSERT INTO t2 VALUES (12, 'd')",
            "DELETE FROM t2 WHERE id = 12",
            "INSERT INTO t3 (id) VALUES (22)",
            "DELETE FROM t",
            "TRUNCATE t",
        ] {
            ends(&mut writer, &mut reader, statement, &["t"], &["apart"])?;
        }
    }
    // A partition may be tagged by itself, too, with the same tag or another.
    writer.batch_execute(
        "SET session_replication_role = origin; \
         SELECT enough.cache_tag_table('t1', 't'), enough.cache_tag_table('t1'), enough.cache_tag_table('t1')",
    )?;
    ends(&mut writer, &mut reader, "INSERT INTO t1 VALUES (2, 'b')", &["t", "t1"], &["apart"])?;
    ends(&mut writer, &mut reader, "TRUNCATE t1", &["t", "t1"], &["apart"])?;
    writer.batch_execute("SELECT enough.cache_untag_table('t1')")?;
    ends(&mut writer, &mut reader, "INSERT INTO t1 VALUES (2, 'b')", &["t"], &["t1"])?;
    writer.batch_execute("SELECT enough.cache_untag_table('t')")?;
    ends(&mut writer, &mut reader, "INSERT INTO t1 VALUES (3, 'b')", &[], &["t", "t1"])
}

#[test]
fn what_replication_writes_ends_the_entries() -> Result<()> {
    let publisher = server::start(&server::options()?.conf("wal_level", "logical"))?;
    let subscriber = server::start(&server::options()?)?;
    let (from, to) = (Database::empty(&publisher)?, Database::on(&subscriber)?);
    let (mut writer, mut reader) = (from.client()?, to.client()?);
    let tables = "CREATE TABLE t (id int PRIMARY KEY, v text);
                  CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
                  CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000)";
    writer.batch_execute(tables)?;
    writer.batch_execute("INSERT INTO t VALUES (1, 'copied'); CREATE PUBLICATION p FOR ALL TABLES")?;
    reader.batch_execute(tables)?;
    reader.batch_execute(
        "SELECT enough.cache_tag_table('t'), enough.cache_tag_table('p', 'parts'), enough.cache_tag_table('t', 'row:{id}')",
    )?;
    // The first rows are copied.
    fill(&mut reader, &["t", "parts", "row:1", "row:2"])?;
    reader.batch_execute(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={}' PUBLICATION p",
        publisher.port(),
        from.name
    ))?;
    eventually("the table is copied", || Ok((!there(&mut reader, "t")?).then_some(())))?;
    ensure!(!there(&mut reader, "row:1")? && there(&mut reader, "row:2")? && there(&mut reader, "parts")?);
    // Then changes follow, row by row.
    for (statement, gone, stay) in [
        ("INSERT INTO t VALUES (2, 'inserted')", ["t", "row:2"], ["row:1", "parts"]),
        ("UPDATE t SET v = 'updated' WHERE id = 1", ["t", "row:1"], ["row:2", "parts"]),
        ("UPDATE t SET id = 3 WHERE id = 2", ["row:2", "row:3"], ["row:1", "parts"]),
        ("DELETE FROM t WHERE id = 3", ["t", "row:3"], ["row:1", "parts"]),
        ("TRUNCATE t", ["t", "row:1"], ["apart", "parts?"]),
        ("INSERT INTO p VALUES (1, 'a')", ["parts", "parts"], ["t", "row:1"]),
        ("UPDATE p1 SET v = 'b'", ["parts", "parts"], ["t", "row:1"]),
    ] {
        fill(&mut reader, &gone)?;
        // Nothing else, or TRUNCATE of a table with tags by row would end it.
        for key in stay {
            reader.execute("SELECT enough.cache_set($1, '1', tags => ARRAY[$1])", &[&key])?;
        }
        writer.batch_execute(statement)?;
        eventually(&format!("{statement} has come"), || {
            Ok((!there(&mut reader, gone[0])? && !there(&mut reader, gone[1])?).then_some(()))
        })?;
        if !statement.starts_with("TRUNCATE") {
            ensure!(there(&mut reader, stay[0])? && there(&mut reader, stay[1])?, "{statement} ended too much");
        }
    }
    reader.batch_execute(
        "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    )?;
    healthy(&subscriber.log(), false)
}

#[test]
fn a_writer_needs_no_right_on_the_schema() -> Result<()> {
    let database = Database::new()?;
    let role = database.role("writer");
    let (mut owner, mut reader) = (database.client()?, database.client()?);
    owner.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; CREATE TABLE t (id int PRIMARY KEY, v text); \
         SELECT enough.cache_tag_table('t'), enough.cache_tag_table('t', 'row:{{id}}'); \
         GRANT INSERT, UPDATE (v), SELECT, DELETE, TRUNCATE ON t TO {role}; \
         REVOKE ALL ON SCHEMA enough FROM PUBLIC; REVOKE ALL ON ALL FUNCTIONS IN SCHEMA enough FROM PUBLIC"
    ))?;
    let mut writer = database.client_as(&role)?;
    refused(writer.simple_query("SELECT enough.cache_get('k')"), "42501")?;
    for statement in ["INSERT INTO t VALUES (1, 'a')", "UPDATE t SET v = 'b'", "DELETE FROM t", "TRUNCATE t"] {
        // TRUNCATE doesn't tell which rows, so whatever has tags goes.
        let stay: &[&str] = if statement == "TRUNCATE t" { &[] } else { &["apart"] };
        ends(&mut writer, &mut reader, statement, &["t", "row:1"], stay)?;
    }
    Ok(())
}

#[test]
fn a_tag_with_columns_ends_what_belongs_to_the_rows() -> Result<()> {
    let database = Database::new()?;
    let (mut writer, mut reader) = (database.client()?, database.client()?);
    writer.batch_execute(
        "CREATE TABLE t (\"Team\" text, id bigint, at date, unused int, v text); ALTER TABLE t DROP COLUMN unused;
         SELECT enough.cache_tag_table('t', 'user:{id}'), enough.cache_tag_table('t', '{Team}/{id}/{at}!'),
                enough.cache_tag_table('t', '{{id}}'), enough.cache_tag_table('t', 'user:{id}')",
    )?;
    let all = ["user:1", "user:2", "a/1/2026-01-02!", "//!", "user:", "user:{id}", "{id}"];
    let but = |gone: &[&str]| all.into_iter().filter(|key| !gone.contains(key)).collect::<Vec<_>>();
    for (statement, gone) in [
        // The template itself stands for the whole table.
        ("INSERT INTO t VALUES ('a', 1, '2026-01-02')", vec!["user:1", "a/1/2026-01-02!", "user:{id}", "{id}"]),
        ("UPDATE t SET id = 2", vec!["user:1", "user:2", "a/1/2026-01-02!", "user:{id}", "{id}"]),
        ("UPDATE t SET v = 'x'", vec!["user:2", "user:{id}", "{id}"]),
        ("UPDATE t SET v = 'x' WHERE id = 77", vec!["{id}"]),
        ("INSERT INTO t DEFAULT VALUES", vec!["//!", "user:", "user:{id}", "{id}"]),
        ("DELETE FROM t WHERE id = 2", vec!["user:2", "user:{id}", "{id}"]),
        // No entry can have so long a tag, so there is nothing to end, and nothing that fails.
        ("INSERT INTO t VALUES (repeat('x', 1000), 2)", vec!["user:2", "user:{id}", "{id}"]),
    ] {
        ends(&mut writer, &mut reader, statement, &gone, &but(&gone))?;
    }
    fill(&mut reader, &["user:9", "unrelated"])?;
    reader.batch_execute("SELECT enough.cache_set('untagged', '1')")?;
    writer.batch_execute("TRUNCATE t")?;
    ensure!(
        !there(&mut reader, "user:9")? && there(&mut reader, "untagged")?,
        "TRUNCATE ends what any row may have had"
    );
    // A column that has another name by now must not make writes fail.
    writer.batch_execute("ALTER TABLE t RENAME COLUMN id TO ident")?;
    fill(&mut reader, &["user:1"])?;
    writer.batch_execute("INSERT INTO t VALUES ('a', 1)")?;
    ensure!(!there(&mut reader, "user:1")?);
    for (call, code) in [
        ("cache_tag_table('t', 'user:{nope}')", "42703"),
        ("cache_tag_table('t', 'user:{unused}')", "42703"),
        ("cache_tag_table('t', 'user:{ctid}')", "42703"),
        ("cache_tag_table('t', 'user:{')", "22023"),
        ("cache_tag_table('t', 'user:}')", "22023"),
        ("cache_tag_table('t', 'user:{v')", "22023"),
        ("cache_tag_table('t', 'user:{}')", "22023"),
        ("cache_tag_table('t', 'user:{{v}')", "22023"),
    ] {
        let hint = refused(writer.simple_query(&format!("SELECT enough.{call}")), code).context(call)?;
        ensure!(!hint.is_empty(), "{call} has no hint");
    }
    Ok(())
}

/// What Citus' catalog says of its tables, without Citus: the columns that are looked at, and what it writes into them.
#[test]
fn a_table_in_shards_is_refused() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(
        "SET allow_system_table_mods = on; \
         CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod \"char\", colocationid int, repmodel \"char\"); \
         RESET allow_system_table_mods; \
         CREATE TABLE hashed (v int); CREATE TABLE reference (v int); CREATE TABLE one_shard (v int); \
         CREATE TABLE added (v int); CREATE TABLE plain (v int); \
         INSERT INTO pg_dist_partition VALUES \
             ('hashed', 'h', 1, 's'), ('reference', 'n', 2, 't'), ('one_shard', 'n', 3, 's'), ('added', 'n', 0, 's')",
    )?;
    for table in ["hashed", "reference", "one_shard", "added"] {
        let call = format!("SELECT enough.cache_tag_table('{table}')");
        let hint = refused(client.simple_query(&call), "0A000").context(table)?;
        ensure!(hint.contains("cache_invalidate()"), "{table}: {hint}");
    }
    client.batch_execute("SELECT enough.cache_tag_table('plain')")?;
    Ok(())
}

#[test]
fn many_rows_end_no_more_than_they_must_and_no_less() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let (mut writer, mut reader) = (database.client()?, database.client()?);
    writer.batch_execute("CREATE TABLE t (id int); SELECT enough.cache_tag_table('t', 'row:{id}')")?;
    reader.batch_execute(
        "SELECT count(enough.cache_set('row:' || i, '1', tags => ARRAY['row:' || i])) FROM generate_series(1, 20000) i; \
         SELECT enough.cache_set('untagged', '1')",
    )?;
    let left = |reader: &mut Client, from: i32, to: i32| -> Result<i64> {
        let query = "SELECT count(*) FROM generate_series($1::int, $2::int) i WHERE enough.cache_exists('row:' || i)";
        Ok(reader.query_one(query, &[&from, &to])?.get(0))
    };
    writer.batch_execute("INSERT INTO t SELECT generate_series(1, 100)")?;
    ensure!(left(&mut reader, 1, 100)? == 0);
    ensure!(left(&mut reader, 101, 20_000)? > 19_000, "others have gone with them");
    // More than there are records for.
    writer.batch_execute("INSERT INTO t SELECT generate_series(1, 20000)")?;
    ensure!(left(&mut reader, 1, 20_000)? == 0);
    ensure!(there(&mut reader, "untagged")?);
    Ok(())
}

#[test]
fn tagging_and_untagging_at_once_fail_in_words() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("CREATE TABLE t (id int)")?;
    let sessions = (0..6).map(|number| {
        let client = database.client();
        std::thread::spawn(move || -> Result<()> {
            let mut client = client?;
            for round in 0..30 {
                let call = match (number + round) % 3 {
                    0 => "SELECT enough.cache_tag_table('t')",
                    1 => "SELECT enough.cache_untag_table('t')",
                    _ => "SELECT enough.cache_tag_table('t', 'row:{id}')",
                };
                client.batch_execute(call).with_context(|| call.to_owned())?;
            }
            Ok(())
        })
    });
    for session in sessions.collect::<Vec<_>>() {
        session.join().map_err(|_| anyhow::anyhow!("a session panicked"))??;
    }
    client.batch_execute("SELECT enough.cache_untag_table('t')")?;
    // The table dropped while the call waits for it.
    let mut dropper = database.client()?;
    for call in ["cache_tag_table('t')", "cache_tag_table('t', 'row:{id}')", "cache_untag_table('t')"] {
        dropper.batch_execute("SELECT enough.cache_tag_table('t')")?;
        dropper.batch_execute("BEGIN; DROP TABLE t")?;
        let (mut other, statement) = (database.client()?, format!("SELECT enough.{call}"));
        let pid = server::backend(&mut other)?;
        let waiting = std::thread::spawn(move || other.batch_execute(&statement));
        eventually("the call waits", || {
            let query = "SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted";
            let waits: i64 = client.query_one(query, &[&i32::try_from(pid)?])?.get(0);
            Ok((waits > 0).then_some(()))
        })?;
        dropper.batch_execute("COMMIT")?;
        let outcome = waiting.join().map_err(|_| anyhow::anyhow!("the call panicked"))?;
        refused(outcome, "42P01").with_context(|| call.to_owned())?;
        dropper.batch_execute("CREATE TABLE t (id int)")?;
    }
    Ok(())
}

#[test]
fn triggers_fire_as_before_after_a_dump() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "CREATE TABLE t (id int); CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         SELECT enough.cache_tag_table('t'), enough.cache_tag_table('t', 'row:{id}'), enough.cache_tag_table('p')",
    )?;
    let triggers = "SELECT string_agg(concat_ws(' ', tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(oid)), E'\\n' \
                    ORDER BY tgrelid::regclass::text, tgname) FROM pg_trigger \
                    WHERE NOT tgisinternal AND tgrelid::regclass::text NOT LIKE 'enough.%'";
    let before: String = client.query_one(triggers, &[])?.get(0);
    ensure!(before.lines().count() == 7, "{before}");
    let dump = server.dir().join("dump.sql");
    let run = |mut command: std::process::Command| -> Result<()> {
        ensure!(command.status()?.success());
        Ok(())
    };
    let mut pg_dump = server.command("pg_dump")?;
    pg_dump.arg("--dbname").arg(&database.name).stdout(std::fs::File::create(&dump)?);
    run(pg_dump)?;
    let copy = Database::empty(&server)?;
    let mut restore = server.command("psql")?;
    restore.args(["-qX", "-v", "ON_ERROR_STOP=1", "--dbname", &copy.name, "-f"]).arg(&dump);
    restore.stdout(std::process::Stdio::null());
    run(restore)?;
    let after: String = copy.client()?.query_one(triggers, &[])?.get(0);
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    Ok(())
}
