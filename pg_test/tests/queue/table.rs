//! The queue's table is a plain table: what others do to it, and what they have put upon it.

use anyhow::{Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use postgres::Client;
use serde_json::json;

fn made() -> Result<(Database, Client, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    let other = database.client()?;
    Ok((database, client, other))
}

/// The main job: what goes in comes out, is redelivered and finished.
fn works(client: &mut Client, other: &mut Client) -> Result<()> {
    let mut sent = queue::send_numbers(client, "q", 5)?;
    sent.push(queue::send(other, "q", &json!({"k": "v"}))?);
    let read = queue::read(client, "q", 3)?;
    ensure!(queue::ids(&read) == sent[..3], "{read:?}");
    client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&sent[0]])?;
    let again = queue::read(other, "q", 1)?;
    ensure!(queue::ids(&again) == sent[..1] && again[0].attempts == 2, "{again:?}");
    ensure!(queue::delete(client, "q", sent[0], again[0].lease)?);
    ensure!(queue::delete(other, "q", sent[1], read[1].lease)?);
    ensure!(!queue::delete(other, "q", sent[1], read[1].lease)?);
    let rest = queue::receive(other, "queue_pop('q', 10)")?;
    ensure!(queue::ids(&rest) == sent[3..], "{rest:?}");
    let rows = client.query("SELECT * FROM enough.queue_delete_batch('q', $1)", &[&sent])?;
    ensure!(rows.len() == 1 && rows[0].get::<_, i64>(0) == sent[2]);
    ensure!(client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get::<_, i64>(0) == 0);
    Ok(())
}

/// How messages end otherwise: a key is sent once; a message fails, dies, is redriven and archived; a batch is archived.
fn ends(client: &mut Client, other: &mut Client) -> Result<()> {
    let send = "SELECT enough.queue_send('q', '\"once\"', group_key => 'g', dedup_key => 'k')";
    let sent: i64 = client.query_one(send, &[])?.get(0);
    ensure!(other.query_one(send, &[])?.get::<_, i64>(0) == sent);
    let read = queue::read(client, "q", 2)?;
    ensure!(queue::ids(&read) == [sent], "{read:?}");
    let fail = "SELECT enough.queue_fail('q', $1, 'no', '0', $2)";
    ensure!(other.query_one(fail, &[&sent, &read[0].lease])?.get::<_, &str>(0) == "retry");
    ensure!(other.query_one(fail, &[&sent, &read[0].lease])?.get::<_, Option<&str>>(0).is_none());
    let read = queue::read(client, "q", 2)?;
    ensure!(queue::ids(&read) == [sent] && read[0].attempts == 2, "{read:?}");
    client.batch_execute("SELECT enough.queue_alter('q', max_attempts => 2)")?;
    ensure!(other.query_one(fail, &[&sent, &read[0].lease])?.get::<_, &str>(0) == "dead");
    client.batch_execute("SELECT enough.queue_alter('q', max_attempts => 10)")?;
    ensure!(client.query_one("SELECT enough.queue_redrive('q')", &[])?.get::<_, i64>(0) == 1);
    let read = queue::read(other, "q", 2)?;
    ensure!(queue::ids(&read) == [sent] && read[0].attempts == 1, "{read:?}");
    let archive = "SELECT enough.queue_archive('q', $1, '\"result\"', $2)";
    ensure!(client.query_one(archive, &[&sent, &read[0].lease])?.get::<_, bool>(0));
    let kept = client.query_one("SELECT state, result FROM enough.queue_status('q', $1)", &[&sent])?;
    ensure!(kept.get::<_, &str>(0) == "done" && kept.get::<_, serde_json::Value>(1) == json!("result"));
    let batch = queue::send_numbers(client, "q", 5)?;
    let archived = other.query("SELECT enough.queue_archive_batch('q', $1)", &[&&batch[1..4]])?;
    ensure!(archived.len() == 3);
    ensure!(client.query_one("SELECT enough.queue_purge('q')", &[])?.get::<_, i64>(0) == 2);
    let stats = queue::stats(client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed, stats.dead) == (0, 0, 0, 0), "{stats:?}");
    Ok(())
}

#[test]
fn with_further_columns_indexes_and_constraints() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    works(&mut client, &mut other)?;
    ends(&mut client, &mut other)?;
    let changes = [
        "ALTER TABLE enough.q_q ADD COLUMN note text DEFAULT 'n'",
        "CREATE INDEX extra ON enough.q_q (priority, enqueued_at)",
        "CREATE INDEX payload ON enough.q_q USING gin (message)",
        "ALTER TABLE enough.q_q ADD COLUMN doubled bigint GENERATED ALWAYS AS (msg_id * 2) STORED",
        "ALTER TABLE enough.q_q ADD CHECK (message <> '\"bad\"')",
        "CREATE STATISTICS enough.stat ON priority, attempts FROM enough.q_q",
        "ALTER TABLE enough.q_q ALTER COLUMN message SET STORAGE EXTERNAL",
        "ALTER TABLE enough.q_q DROP COLUMN note",
        "ALTER TABLE enough.q_q SET UNLOGGED",
    ];
    for change in changes {
        client.batch_execute(change)?;
        works(&mut client, &mut other).map_err(|error| error.context(change))?;
        ends(&mut client, &mut other).map_err(|error| error.context(change))?;
    }
    refused(queue::send(&mut client, "q", &json!("bad")), "23514")?;
    client.batch_execute("CREATE UNIQUE INDEX ON enough.q_q (message)")?;
    queue::send(&mut client, "q", &json!("once"))?;
    refused(queue::send(&mut client, "q", &json!("once")), "23505")?;
    let doubled: bool = client.query_one("SELECT bool_and(doubled = 2 * msg_id) FROM enough.q_q", &[])?.get(0);
    ensure!(doubled, "the generated column wasn't computed");
    Ok(())
}

#[test]
fn with_triggers() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    client.batch_execute(
        "CREATE TABLE seen (what text); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN INSERT INTO seen VALUES (TG_OP); RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$; \
         CREATE TRIGGER note BEFORE INSERT OR DELETE ON enough.q_q FOR EACH ROW EXECUTE FUNCTION note()",
    )?;
    works(&mut client, &mut other)?;
    let counts = client.query("SELECT what, count(*) FROM seen GROUP BY 1 ORDER BY 1", &[])?;
    let counts: Vec<(String, i64)> = counts.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(counts == [("DELETE".to_owned(), 6), ("INSERT".to_owned(), 6)], "{counts:?}");
    ends(&mut client, &mut other)?;

    // One that changes what was sent, and one that refuses it.
    client.batch_execute(
        "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN IF NEW.message = '\"later\"' THEN NEW.deliver_at = clock_timestamp() + interval '1 hour'; END IF; \
         IF NEW.message = '\"urgent\"' THEN NEW.priority = 9; END IF; \
         IF NEW.message = '\"unwanted\"' THEN RETURN NULL; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER change BEFORE INSERT ON enough.q_q FOR EACH ROW EXECUTE FUNCTION change()",
    )?;
    queue::send(&mut client, "q", &json!("plain"))?;
    queue::send(&mut client, "q", &json!("later"))?;
    queue::send(&mut client, "q", &json!("urgent"))?;
    refused(queue::send(&mut client, "q", &json!("unwanted")), "55000")?;
    let read: Vec<_> = queue::read(&mut other, "q", 10)?.into_iter().map(|message| message.message).collect();
    ensure!(read == [json!("urgent"), json!("plain")], "{read:?}");
    Ok(())
}

#[test]
fn with_row_level_security() -> Result<()> {
    let (database, mut client, _) = made()?;
    let (ann, bob) = (database.role("ann"), database.role("bob"));
    client.batch_execute(&format!(
        "CREATE ROLE {ann} LOGIN; CREATE ROLE {bob} LOGIN; \
         GRANT SELECT, INSERT, DELETE ON enough.q_q TO {ann}, {bob}; \
         ALTER TABLE enough.q_q ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON enough.q_q USING (headers ->> 'for' = current_user) WITH CHECK (true)"
    ))?;
    let (mut as_ann, mut as_bob) = (database.client_as(&ann)?, database.client_as(&bob)?);
    for (to, number) in [(&ann, 1), (&bob, 2), (&ann, 3)] {
        client.execute(
            "SELECT enough.queue_send('q', to_jsonb($1::int), headers => jsonb_build_object('for', $2::text))",
            &[&number, to],
        )?;
    }
    let for_bob = queue::read(&mut as_bob, "q", 10)?;
    ensure!(for_bob.len() == 1 && for_bob[0].message == json!(2) && for_bob[0].attempts == 1, "{for_bob:?}");
    let for_ann = queue::read(&mut as_ann, "q", 10)?;
    ensure!(for_ann.len() == 2 && for_ann.iter().all(|message| message.attempts == 1), "{for_ann:?}");
    ensure!(!queue::delete(&mut as_bob, "q", for_ann[0].msg_id, for_ann[0].lease)?, "a policy was passed by");
    ensure!(queue::delete(&mut as_ann, "q", for_ann[0].msg_id, for_ann[0].lease)?);

    // The other ways to end one are its own, too; and so is what it can see of others' messages.
    let anns = for_ann[1].msg_id;
    let call = |client: &mut Client, call: &str| -> Result<Option<String>, postgres::Error> {
        Ok(client.query_one(&format!("SELECT (enough.{call})::text"), &[])?.get(0))
    };
    ensure!(call(&mut as_bob, &format!("queue_fail('q', {anns}, 'not his', '0')"))?.is_none());
    ensure!(call(&mut as_bob, &format!("queue_archive('q', {anns})"))?.as_deref() == Some("false"));
    ensure!(as_bob.query("SELECT enough.queue_archive_batch('q', ARRAY[$1::bigint])", &[&anns])?.is_empty());
    ensure!(as_bob.query("SELECT * FROM enough.queue_status('q', $1)", &[&for_bob[0].msg_id])?.len() == 1);
    // What became of it would be in the archive, which is its owner's to open.
    refused(as_bob.query("SELECT * FROM enough.queue_status('q', $1)", &[&anns]), "42501")?;
    refused(as_bob.query("SELECT enough.queue_dead('q')", &[]), "42501")?;
    ensure!(queue::ids(&queue::receive(&mut as_bob, "queue_peek('q', 10, 'leased')")?) == [for_bob[0].msg_id]);
    ensure!(call(&mut as_bob, "queue_purge('q')")?.as_deref() == Some("1"));
    let left = queue::receive(&mut as_ann, "queue_peek('q', 10, 'leased')")?;
    ensure!(queue::ids(&left) == [anns] && left[0].lease == for_ann[1].lease, "{left:?}");
    ensure!(call(&mut as_ann, &format!("queue_fail('q', {anns}, 'hers', '0')"))?.as_deref() == Some("retry"));
    ensure!(call(&mut as_ann, &format!("queue_archive('q', {anns}, '1')"))?.as_deref() == Some("true"));
    // A key is the queue's, whoever sees the message.
    let send = "queue_send('q', '1', dedup_key => 'k', headers => jsonb_build_object('for', current_user))";
    let first = call(&mut as_ann, send)?;
    ensure!(call(&mut as_bob, send)? == first);
    Ok(())
}

#[test]
fn emptied_rewritten_and_updated_by_hand() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    // TRUNCATE: what the memory knows of is gone, and places lie beyond the end.
    queue::send_numbers(&mut client, "q", 5_000)?;
    ensure!(queue::read(&mut other, "q", 10)?.len() == 10);
    client.batch_execute("TRUNCATE enough.q_q")?;
    ensure!(queue::read(&mut other, "q", 10)?.is_empty());
    works(&mut client, &mut other)?;

    // VACUUM FULL and a plain VACUUM after deletions: rows move, places are given to others.
    for vacuum in ["VACUUM FULL enough.q_q", "VACUUM enough.q_q", "CLUSTER enough.q_q USING i_q_key"] {
        let sent = queue::send_numbers(&mut client, "q", 2_000)?;
        let read = queue::read(&mut client, "q", 500)?;
        client.batch_execute("DELETE FROM enough.q_q WHERE msg_id % 2 = 0")?;
        client.batch_execute(vacuum)?;
        let extra = queue::send_numbers(&mut client, "q", 500)?;
        let odd = |range: &[i64]| -> Vec<i64> { range.iter().copied().filter(|msg_id| msg_id % 2 == 1).collect() };
        let rest = queue::read(&mut other, "q", 5_000)?;
        let expected: Vec<i64> = odd(&sent[500..]).into_iter().chain(extra).collect();
        ensure!(queue::ids(&rest) == expected, "{vacuum}: {} of {}", rest.len(), expected.len());
        for message in &read {
            let there = queue::delete(&mut other, "q", message.msg_id, message.lease)?;
            ensure!(there == (message.msg_id % 2 == 1), "{vacuum}: message {} deleted: {there}", message.msg_id);
        }
        client.batch_execute("DELETE FROM enough.q_q")?;
        ensure!(queue::read(&mut other, "q", 10)?.is_empty());
    }

    // UPDATE by hand: the payload that is there now comes; a priority or delay counts once maintain() has seen it.
    let sent = queue::send(&mut client, "q", &json!("old"))?;
    client.batch_execute("UPDATE enough.q_q SET message = '\"new\"'")?;
    let read = queue::read(&mut other, "q", 1)?;
    ensure!(queue::ids(&read) == [sent] && read[0].message == json!("new"), "{read:?}");
    client.execute("UPDATE enough.q_q SET msg_id = msg_id + 1000000", &[])?;
    ensure!(!queue::delete(&mut other, "q", sent, None)?);
    client.batch_execute("SELECT enough.maintain()")?;
    let read = queue::read(&mut other, "q", 1)?;
    ensure!(queue::ids(&read) == [sent + 1_000_000], "{read:?}");
    Ok(())
}

#[test]
fn what_came_in_behind_the_indexs_back_is_found_by_maintain() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    // The index believes that it has everything.
    queue::send(&mut client, "q", &json!(0))?;
    ensure!(queue::read(&mut client, "q", 10)?.len() == 1);
    ensure!(queue::read(&mut client, "q", 10)?.is_empty());
    {
        use std::io::Write;
        let mut copy = client.copy_in("COPY enough.q_q (priority, message) FROM STDIN")?;
        for number in 0..3_000 {
            writeln!(copy, "{}\t{{\"n\": {number}}}", number % 10)?;
        }
        copy.finish()?;
    }
    client.batch_execute(
        "INSERT INTO enough.q_q (message) VALUES ('\"inserted\"'); \
         INSERT INTO enough.q_q (message, deliver_at) VALUES ('\"due\"', now() - interval '1 minute'), ('\"not due\"', now() + interval '1 hour')",
    )?;
    let found: i64 = client
        .query_one("SELECT sum(items)::bigint FROM enough.maintain() WHERE task = 'queue_reconcile'", &[])?
        .get(0);
    ensure!(found > 0, "maintain() has found nothing");
    let read = queue::read(&mut other, "q", 10_000)?;
    ensure!(read.len() == 3_002, "{} messages", read.len());
    ensure!(read.iter().all(|message| message.attempts == 1));
    let stats = queue::stats(&mut client, "q")?;
    ensure!((stats.ready, stats.leased, stats.delayed) == (0, 3_003, 1), "{stats:?}");
    Ok(())
}

#[test]
fn a_table_without_its_columns_is_refused() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    queue::send(&mut client, "q", &json!(1))?;
    client.batch_execute("ALTER TABLE enough.q_q DROP COLUMN attempts")?;
    for client in [&mut client, &mut other] {
        let hint = refused(queue::receive(client, "queue_read('q')"), "55000")?;
        ensure!(hint.contains("columns"), "the hint: {hint}");
        client.simple_query("SELECT 1")?;
    }
    Ok(())
}

#[test]
fn tables_that_are_no_queues_are_left_alone() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("CREATE TABLE enough.q_other (msg_id bigint PRIMARY KEY, message jsonb)")?;
    let error = queue::receive(&mut client, "queue_read('other')").expect_err("that is no queue");
    ensure!(matches!(enough_pg_test::check::state(&error), "42704" | "55000"), "{error:?}");
    let error = queue::send(&mut client, "other", &json!(1)).expect_err("that is no queue");
    ensure!(matches!(enough_pg_test::check::state(&error), "42704" | "55000"), "{error:?}");
    Ok(())
}

#[test]
fn a_payload_that_is_null_is_delivered_as_null() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute(
        "ALTER TABLE enough.q_q ALTER message DROP NOT NULL, ALTER attempts DROP NOT NULL, ALTER priority DROP NOT NULL; \
         INSERT INTO enough.q_q (message, attempts, priority) VALUES (NULL, NULL, NULL)",
    )?;
    for call in ["queue_peek('q')", "queue_read('q')", "queue_pop('q')"] {
        let row = client.query_one(&format!("SELECT message, priority FROM enough.{call}"), &[])?;
        ensure!(row.get::<_, Option<serde_json::Value>>(0).is_none(), "{call}");
        client.batch_execute("SELECT enough.queue_extend('q', msg_id, '0') FROM enough.q_q")?;
    }
    Ok(())
}
