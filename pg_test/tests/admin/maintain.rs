//! What `maintain()` sees to: it goes on where the last run stopped, cleans by indexes, moves sequences past what replication
//! has brought, names what it finds, and runs nothing with rights that its owner lacks.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, refused, sequential_scans, state};
use enough_pg_test::queue::{self, made};
use enough_pg_test::server::{Database, options, start};
use postgres::Client;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A task's items and note.
fn task(client: &mut Client, max_duration: &str, task: &str) -> Result<(i64, Option<String>)> {
    let sql = format!("SELECT items, note FROM enough.maintain('{max_duration}') WHERE task = $1");
    let row = client.query_one(&sql, &[&task])?;
    Ok((row.get(0), row.get(1)))
}

fn warnings(client: &mut Client) -> Result<String> {
    Ok(client.query_one("SELECT value FROM enough.status() WHERE item = 'warnings'", &[])?.get(0))
}

/// Puts rows into an archive that are over, or not.
fn archived(client: &mut Client, queue: &str, rows: i64, age: &str) -> Result<()> {
    client.batch_execute(&format!(
        "INSERT INTO enough.\"a_{queue}\" (msg_id, enqueued_at, attempts, priority, message, outcome, finished_at) \
         SELECT coalesce((SELECT max(msg_id) FROM enough.\"a_{queue}\"), 0) + n, now() - interval '90 days', 1, 0, '{{}}', \
                CASE WHEN n % 10 = 0 THEN 'dead' ELSE 'done' END, now() - interval '{age}' - n * interval '1 ms' \
         FROM generate_series(1, {rows}) AS n"
    ))?;
    Ok(())
}

fn count(client: &mut Client, table: &str) -> Result<i64> {
    Ok(client.query_one(&format!("SELECT count(*) FROM enough.{table}"), &[])?.get(0))
}

#[test]
fn short_runs_get_to_every_queue_and_to_the_end_of_each() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.queue_create('a_large_one', visibility_timeout => '1 hour'); \
         SELECT enough.queue_send('a_large_one', '1', group_key => 'g')",
    )?;
    ensure!(queue::read(&mut client, "a_large_one", 2)?.len() == 1);
    // The index knows how far the table goes, and then comes what it doesn't know.
    client.batch_execute(
        "SELECT enough.queue_create('z'); ALTER TABLE enough.q_a_large_one SET (autovacuum_enabled = off); \
         INSERT INTO enough.q_a_large_one (msg_id, group_key, message) SELECT -n, 'g' || n % 30, '1' FROM generate_series(1, 300000) AS n",
    )?;
    archived(&mut client, "z", 1000, "30 days")?;
    archived(&mut client, "a_large_one", 100_000, "30 days")?;
    let mut runs = 0;
    while count(&mut client, "a_z")? > 0 {
        runs += 1;
        ensure!(runs <= 20, "the second queue's archive isn't cleaned after {runs} short runs");
        client.batch_execute("SELECT enough.maintain('5 ms')")?;
    }
    // In the end all of the first one, too: its archive, and what had to be found in its table.
    // Counted, since in five milliseconds a busy machine does little.
    let mut runs = 0;
    while client
        .query("SELECT note FROM enough.maintain('5 ms') WHERE task LIKE 'queue%'", &[])?
        .iter()
        .any(|row| row.get::<_, Option<&str>>(0).is_some())
    {
        runs += 1;
        ensure!(runs <= 20_000, "short runs come to no end");
    }
    ensure!(count(&mut client, "a_a_large_one")? == 0);
    let stats = queue::stats(&mut client, "a_large_one")?;
    ensure!(stats.ready == 300_000, "{stats:?}");
    Ok(())
}

#[test]
fn archives_are_cleaned_and_shown_by_an_index() -> Result<()> {
    let (_database, mut client, _) = made(", archive_for => '1 day'")?;
    archived(&mut client, "q", 20_000, "1 hour")?;
    client.batch_execute("ANALYZE enough.a_q; SELECT enough.queue_stats()")?;
    let before = sequential_scans(&mut client, "a_q")?;
    ensure!(task(&mut client, "10 s", "queue_archive")? == (0, None));
    archived(&mut client, "q", 3_000, "2 days")?;
    client.batch_execute("ANALYZE enough.a_q")?;
    let before = sequential_scans(&mut client, "a_q")?.min(before + 1);
    ensure!(task(&mut client, "10 s", "queue_archive")? == (3_000, None));
    for state in ["done", "dead"] {
        let peeked = queue::receive(&mut client, &format!("queue_peek('q', 5, '{state}')"))?;
        ensure!(peeked.len() == 5);
    }
    ensure!(client.query("SELECT * FROM enough.queue_dead('q', 5)", &[])?.len() == 5);
    let after = sequential_scans(&mut client, "a_q")?;
    // One is the look at the greatest number that filling the table takes.
    ensure!(after <= before + 1, "{} sequential scans of the archive", after - before);
    ensure!(count(&mut client, "a_q")? == 20_000);
    Ok(())
}

#[test]
fn what_is_wrong_with_queues_is_named_with_the_cure() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let role = database.role("other");
    client.batch_execute(&format!(
        "CREATE ROLE {role}; CREATE TABLE enough.q_notes (line text); \
         SELECT enough.queue_create(n) FROM unnest('{{whole,rowless,tableless,archiveless,split,orphan}}'::text[]) AS n"
    ))?;
    ensure!(warnings(&mut client)? == "none" && task(&mut client, "10 s", "queue_check")? == (0, None));
    client.batch_execute(&format!(
        "DELETE FROM enough.queue WHERE name = 'rowless'; DROP TABLE enough.q_tableless, enough.a_tableless; \
         DROP TABLE enough.a_archiveless; ALTER TABLE enough.a_split OWNER TO {role}; \
         DROP TABLE enough.q_orphan; DELETE FROM enough.queue WHERE name = 'orphan'"
    ))?;
    let (items, note) = task(&mut client, "10 s", "queue_check")?;
    let note = note.context("no note")?;
    ensure!(items == 5, "{items}: {note}");
    for text in [note, warnings(&mut client)?] {
        for (queue, cure) in [
            ("rowless", "queue_create('rowless', if_not_exists => true)"),
            ("tableless", "queue_drop('tableless')"),
            ("archiveless", "queue_create('archiveless', if_not_exists => true)"),
            ("split", "OWNER TO"),
            ("orphan", "queue_drop('orphan')"),
        ] {
            ensure!(text.contains(&format!("\"{queue}\"")) && text.contains(cure), "{queue}: {text}");
        }
        ensure!(!text.contains("notes") && !text.contains("whole"), "{text}");
    }
    // What is said helps.
    client.batch_execute(
        "SELECT enough.queue_create('rowless', if_not_exists => true), enough.queue_drop('tableless'), \
                enough.queue_create('archiveless', if_not_exists => true), enough.queue_drop('orphan'); \
         ALTER TABLE enough.a_split OWNER TO postgres",
    )?;
    ensure!(warnings(&mut client)? == "none");
    Ok(())
}

#[test]
fn a_queue_whose_tables_have_different_owners_works_as_far_as_they_let_it() -> Result<()> {
    let (database, mut client, _) = made(", max_attempts => 1")?;
    let (one, two) = (database.role("one"), database.role("two"));
    client.batch_execute(&format!(
        "CREATE ROLE {one} LOGIN; CREATE ROLE {two} LOGIN; SELECT enough.queue_create('other'); \
         SELECT enough.queue_send('q', to_jsonb(n)) FROM generate_series(1, 6) AS n; SELECT enough.queue_archive('q', 1); \
         GRANT USAGE, CREATE ON SCHEMA enough TO {one}, {two}; \
         ALTER TABLE enough.q_q OWNER TO {one}; ALTER TABLE enough.a_q OWNER TO {two}"
    ))?;
    let mut owner = database.client_as(&one)?;
    for client in [&mut client, &mut owner] {
        let row = client.query_one("SELECT ready, archived FROM enough.queue_stats('q')", &[])?;
        ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (5, 1), "{row:?}");
    }
    ensure!(client.query("SELECT * FROM enough.queue_stats()", &[])?.len() == 2);
    for client in [&mut owner, &mut client] {
        let read = queue::read(client, "q", 1)?;
        client.execute("SELECT enough.queue_archive('q', $1)", &[&read[0].msg_id])?;
        let read = queue::read(client, "q", 1)?;
        client.execute("SELECT enough.queue_fail('q', $1, 'no')", &[&read[0].msg_id])?;
        ensure!(client.query("SELECT * FROM enough.queue_peek('q', state => 'done')", &[])?.len() >= 2);
        ensure!(!client.query("SELECT * FROM enough.queue_dead('q')", &[])?.is_empty());
    }
    let last: i64 = client.query_one("SELECT msg_id FROM enough.q_q", &[])?.get(0);
    ensure!(owner.query("SELECT * FROM enough.queue_archive_batch('q', ARRAY[$1::bigint])", &[&last])?.len() == 1);
    // What moves rows from one to the other with the rights of one owner says what it needs.
    let hint = refused(client.query("SELECT enough.queue_redrive('q')", &[]), "55000")?;
    ensure!(hint.contains("OWNER TO"), "{hint}");
    client.batch_execute(&format!("ALTER TABLE enough.a_q OWNER TO {one}; SELECT enough.queue_redrive('q')"))?;
    ensure!(count(&mut client, "q_q")? == 2);
    Ok(())
}

#[test]
fn numbers_that_replication_has_brought_are_not_given_again() -> Result<()> {
    let server = start(&options()?.conf("wal_level", "logical"))?;
    let (primary, subscriber) = (Database::on(&server)?, Database::on(&server)?);
    let (mut source, mut target) = (primary.client()?, subscriber.client()?);
    for client in [&mut source, &mut target] {
        client.batch_execute("SELECT enough.queue_create('q'), enough.queue_create('done')")?;
    }
    source.batch_execute("CREATE PUBLICATION p FOR TABLE enough.q_q, enough.a_q, enough.q_done, enough.a_done")?;
    source.batch_execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")?;
    target.batch_execute(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} port={} user=postgres dbname={}' PUBLICATION p \
         WITH (create_slot = false, slot_name = 's', copy_data = false)",
        server.socket_dir().display(),
        server.port(),
        primary.name
    ))?;
    source.batch_execute(
        "SELECT enough.queue_send('q', to_jsonb(n)) FROM generate_series(1, 20) AS n; \
         SELECT enough.queue_send('done', '1'), enough.queue_send('done', '2')",
    )?;
    source.batch_execute("SELECT enough.queue_archive('done', n) FROM generate_series(1, 2) AS n")?;
    eventually("the rows have arrived", || {
        Ok((count(&mut target, "q_q")? == 20 && count(&mut target, "a_done")? == 2).then_some(()))
    })?;
    // Promoted: what sends goes here now.
    target.batch_execute(
        "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    )?;
    refused(queue::send(&mut target, "q", &json!(1)), "23505")?;
    ensure!(task(&mut target, "10 s", "queue_numbers")? == (2, None));
    ensure!(task(&mut target, "10 s", "queue_numbers")? == (0, None));
    ensure!(queue::send(&mut target, "q", &json!("new"))? == 21);
    // An archived number isn't given again either, or its row would be replaced.
    ensure!(queue::send(&mut target, "done", &json!("new"))? == 3);
    let read = queue::sorted_ids(&queue::read(&mut target, "q", 100)?);
    ensure!(read == (1..=21).collect::<Vec<i64>>(), "{read:?}");
    source.batch_execute("SELECT pg_drop_replication_slot('s')")?;
    Ok(())
}

#[test]
fn a_sequence_never_goes_back_whoever_takes_numbers_meanwhile() -> Result<()> {
    let (database, mut client, mut sender) = made("")?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let done = &done;
        let sending = scope.spawn(move || -> Result<(i64, i64)> {
            let (mut sent, mut refused) = (0, 0);
            while !done.load(Relaxed) {
                match queue::send(&mut sender, "q", &json!(1)) {
                    Ok(_) => sent += 1,
                    // The row that the other session has put there.
                    Err(error) if state(&error) == "23505" => refused += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok((sent, refused))
        });
        let mut maintainer = database.client()?;
        let outcome = (0..60).try_for_each(|_| -> Result<()> {
            client.batch_execute(
                "INSERT INTO enough.q_q (msg_id, message) SELECT max(msg_id) + 50, '2' FROM enough.q_q HAVING max(msg_id) IS NOT NULL",
            )?;
            maintainer.batch_execute("SELECT enough.maintain()")?;
            Ok(())
        });
        done.store(true, Relaxed);
        let (sent, refused) = sending.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
        outcome?;
        // A number is refused at most once for each row that was put in its way.
        ensure!(sent > 60 && refused <= 60, "{sent} sent, {refused} refused");
        Ok(())
    })
}

/// Who owns a queue's tables may put anything on them; it runs with the owner's rights.
#[test]
fn maintenance_runs_what_is_on_the_tables_with_their_owners_rights() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let role = database.role("evil");
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA enough TO {role}; GRANT CREATE ON DATABASE {} TO {role}",
        database.name
    ))?;
    let mut evil = database.client_as(&role)?;
    evil.batch_execute(&format!(
        "SELECT enough.queue_create('q', archive_for => '1 day'); CREATE SCHEMA evil; CREATE TABLE evil.seen (who text, restricted text); \
         CREATE FUNCTION evil.run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO evil.seen SELECT current_user, 'no'; \
             BEGIN EXECUTE 'ALTER ROLE {role} SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END; \
             RETURN OLD; END $$; \
         CREATE TRIGGER run BEFORE DELETE ON enough.a_q FOR EACH ROW EXECUTE FUNCTION evil.run()"
    ))?;
    archived(&mut evil, "q", 3, "2 days")?;
    ensure!(task(&mut client, "10 s", "queue_archive")? == (3, None));
    let who: Vec<String> =
        client.query("SELECT DISTINCT who FROM evil.seen", &[])?.iter().map(|row| row.get(0)).collect();
    ensure!(who == [role.clone()], "the trigger ran as {who:?}");
    // What is deferred would run at the end of the transaction, with the rights of whoever has called.
    evil.batch_execute(
        "DROP TRIGGER run ON enough.a_q; CREATE CONSTRAINT TRIGGER run AFTER DELETE ON enough.a_q DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION evil.run()",
    )?;
    archived(&mut evil, "q", 3, "2 days")?;
    let _ = client.batch_execute("SELECT enough.maintain()");
    let who: i64 = client.query_one("SELECT count(*) FROM evil.seen WHERE who <> $1", &[&role])?.get(0);
    let superuser: bool = client.query_one("SELECT rolsuper FROM pg_roles WHERE rolname = $1", &[&role])?.get(0);
    ensure!(who == 0 && !superuser, "a deferred trigger ran with the caller's rights");
    Ok(())
}

#[test]
fn an_operator_maintains_all_queues_and_others_their_own() -> Result<()> {
    let (database, mut client, _) = made(", archive_for => '1 day'")?;
    let (operator, owner, stranger) = (database.role("operator"), database.role("owner"), database.role("stranger"));
    client.batch_execute(&format!(
        "CREATE ROLE {operator} LOGIN; CREATE ROLE {owner} LOGIN; CREATE ROLE {stranger} LOGIN; \
         SELECT enough.grant_to('{operator}', 'operator'); GRANT CREATE ON SCHEMA enough TO {owner}"
    ))?;
    let mut as_owner = database.client_as(&owner)?;
    as_owner.batch_execute("SELECT enough.queue_create('mine', archive_for => '1 day')")?;
    for (role, expected) in [(&stranger, 0), (&owner, 10), (&operator, 20)] {
        client.batch_execute("TRUNCATE enough.a_q, enough.a_mine")?;
        archived(&mut client, "q", 10, "2 days")?;
        archived(&mut client, "mine", 10, "2 days")?;
        let (items, _) = task(&mut database.client_as(role)?, "10 s", "queue_archive")?;
        ensure!(items == expected, "{role}: {items} of {expected}");
    }
    Ok(())
}

/// A queue that somebody has locked doesn't keep the others from being maintained.
#[test]
fn maintenance_waits_for_nobody() -> Result<()> {
    let (database, mut client, mut other) = made(", archive_for => '1 day'")?;
    client.batch_execute("SELECT enough.queue_create('r', archive_for => '1 day')")?;
    for queue in ["q", "r"] {
        archived(&mut client, queue, 10, "2 days")?;
    }
    client.batch_execute("BEGIN; LOCK TABLE enough.q_q, enough.a_q")?;
    other.batch_execute("SET statement_timeout = '20 s'")?;
    let (items, note) = task(&mut other, "10 s", "queue_archive")?;
    ensure!(items == 10 && note.as_ref().is_some_and(|note| note.contains("\"q\"")), "{items} {note:?}");
    client.batch_execute("ROLLBACK; BEGIN; SELECT FROM enough.a_q FOR UPDATE")?;
    let (items, _) = task(&mut other, "10 s", "queue_archive")?;
    ensure!(items == 0, "{items}");
    client.batch_execute("ROLLBACK")?;
    ensure!(task(&mut other, "10 s", "queue_archive")? == (10, None));
    drop(database);
    Ok(())
}

#[test]
fn many_runs_at_once_share_the_work() -> Result<()> {
    let (database, mut client, _) = made(", archive_for => '1 day'")?;
    client.batch_execute("SELECT enough.queue_create('r', archive_for => '1 day')")?;
    for queue in ["q", "r"] {
        archived(&mut client, queue, 20_000, "2 days")?;
    }
    let removed = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<i64> {
                    let mut client = database.client()?;
                    client.batch_execute("SET statement_timeout = '50 s'")?;
                    let mut removed = 0;
                    for _ in 0..3 {
                        removed += task(&mut client, "200 ms", "queue_archive")?.0;
                    }
                    Ok(removed)
                })
            })
            .collect();
        runs.into_iter().try_fold(0, |sum, run| match run.join() {
            Ok(removed) => Ok::<_, anyhow::Error>(sum + removed?),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let left = count(&mut client, "a_q")? + count(&mut client, "a_r")?;
    ensure!(removed + left == 40_000, "{removed} removed, {left} left of 40000");
    Ok(())
}
