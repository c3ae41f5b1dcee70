//! `pg_dump` into an empty database: messages, options, rights, and numbers that go on.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::queue;
use enough_pg_test::server::{Database, shared};
use postgres::Client;
use serde_json::json;
use std::io::Write;
use std::process::Stdio;

/// A queue with keys, a failure and its rest, an archived result, paused.
fn unusual_jobs(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "SELECT enough.queue_create('jobs'); \
         SELECT enough.queue_send_batch('jobs', ARRAY['1', '2', '3']::jsonb[], dedup_keys => ARRAY['a', 'b', NULL], \
                group_keys => ARRAY['g', NULL, 'g']); \
         SELECT enough.queue_fail('jobs', 1, 'no luck', '1 hour'), enough.queue_archive('jobs', 2, '{\"r\": 1}'); \
         SELECT enough.queue_pause('jobs'); \
         SELECT enough.queue_create('once', dedup => 'window', dedup_for => '1 day'), enough.queue_send('once', '1', dedup_key => 'k'); \
         SELECT enough.queue_purge('once'); \
         SELECT enough.topic_subscribe('done.#', 'jobs'), enough.topic_subscribe('#.odd', 'Odd-Name.1'); \
         CREATE TABLE source (id int, \"a b\" text); CREATE TABLE parts (id int) PARTITION BY LIST (id); \
         CREATE TABLE part PARTITION OF parts DEFAULT; \
         SELECT enough.queue_send_on('source', 'Odd-Name.1', '{insert,delete}', '{\"a b\"}'), enough.queue_send_on('parts', 'Odd-Name.1'); \
         INSERT INTO source VALUES (1, 'x'); INSERT INTO part VALUES (1)",
    )?;
    Ok(())
}

fn unusual_jobs_are_there(restored: &mut Client) -> Result<()> {
    ensure!(queue::read(restored, "jobs", 10)?.is_empty(), "the pause was lost");
    restored.batch_execute("SELECT enough.queue_resume('jobs')")?;
    let status = |client: &mut Client, msg_id: i64| -> Result<(String, Option<String>, Option<String>)> {
        let row =
            client.query_one("SELECT state, error, result::text FROM enough.queue_status('jobs', $1)", &[&msg_id])?;
        Ok((row.get(0), row.get(1), row.get(2)))
    };
    ensure!(status(restored, 1)? == ("delayed".into(), Some("no luck".into()), None));
    ensure!(status(restored, 2)? == ("done".into(), None, Some("{\"r\": 1}".into())));
    // The failed message holds up its group, and its key is taken.
    ensure!(queue::read(restored, "jobs", 10)?.is_empty(), "the third message has overtaken the first");
    let again = restored.query_one("SELECT enough.queue_send('jobs', '9', dedup_key => 'a')", &[])?;
    ensure!(again.get::<_, i64>(0) == 1);
    restored.batch_execute("SELECT enough.queue_fail('jobs', 1, retry_in => '0')")?;
    ensure!(queue::ids(&queue::read(restored, "jobs", 10)?) == [1]);
    let once = restored.query_one("SELECT enough.queue_send('once', '1', dedup_key => 'k')", &[])?;
    ensure!(once.get::<_, i64>(0) == 1 && queue::read(restored, "once", 1)?.is_empty(), "its key is free");
    let published = restored.query_one("SELECT enough.topic_publish('done.x', '1')", &[])?;
    ensure!(published.get::<_, i32>(0) == 1, "the subscription was lost");
    // What the restore has written into tables has sent nothing, and what is written now is sent.
    let sources = "SELECT count(*) FROM enough.\"q_Odd-Name.1\" WHERE message ? 'event'";
    let before: i64 = restored.query_one(sources, &[])?.get(0);
    ensure!(before == 2, "{before}");
    restored.batch_execute(
        "INSERT INTO source VALUES (2, 'y'); UPDATE source SET id = 3; INSERT INTO part VALUES (2); \
         SET session_replication_role = replica; DELETE FROM source WHERE id = 3; RESET session_replication_role",
    )?;
    let after: i64 = restored.query_one(sources, &[])?.get(0);
    ensure!(after == before + 4, "{after}");
    restored.execute("DELETE FROM enough.\"q_Odd-Name.1\" WHERE message ? 'event'", &[])?;
    Ok(())
}

#[test]
fn a_dump_brings_everything_back() -> Result<()> {
    let source = Database::new()?;
    let user = source.role("user");
    let mut client = source.client()?;
    client.batch_execute(&format!(
        "CREATE ROLE {user} LOGIN; \
         SELECT enough.queue_create('q', visibility_timeout => '2 hours', max_attempts => 2, \
                retry_backoff => '3 seconds', retry_backoff_max => '4 minutes', max_in_flight => 9999, max_rate => 1000000, \
                rate_period => '2 minutes', archive_for => '0', group_limit => 3, group_rate => 7, \
                group_rate_period => '3 minutes'); \
         SELECT enough.queue_create('Odd-Name.1', unlogged => true); SELECT enough.queue_create('empty'); \
         GRANT INSERT ON enough.q_q TO {user}; \
         SELECT enough.queue_send('Odd-Name.1', '\"odd\"'); \
         SELECT enough.rate_limit_policy_set('calls', 3, '90 minutes'), \
                enough.rate_limit_policy_set('bucket', 1, '1.5 seconds', 'token_bucket', 7, shadow => true)"
    ))?;
    let sent = queue::send_numbers(&mut client, "q", 1_500)?;
    client.batch_execute("SELECT enough.queue_send('q', '\"urgent\"', priority => 9, headers => '{\"h\": 1}')")?;
    client.batch_execute("SELECT enough.queue_send('q', '\"late\"', delay => '1 hour')")?;
    // One is dead, one has been delivered twice, the rest of the read ones are leased.
    let urgent = queue::read(&mut client, "q", 1)?;
    for message in queue::read(&mut client, "q", 2)? {
        client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&message.msg_id])?;
    }
    let twice = queue::read(&mut client, "q", 2)?;
    ensure!(twice.len() == 2 && twice.iter().all(|message| message.attempts == 2));
    client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&twice[0].msg_id])?;
    queue::read(&mut client, "q", 1)?;
    let dead: i64 = client.query_one("SELECT msg_id FROM enough.a_q", &[])?.get(0);

    unusual_jobs(&mut client)?;
    let (dump, mut restore, target) = {
        let server = shared()?;
        let dump = server.command("pg_dump")?.arg(&source.name).output()?;
        let target = Database::empty(&server)?;
        let mut restore = server.command("psql")?;
        restore.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-d", &target.name]);
        (dump, restore, target)
    };
    ensure!(dump.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dump.stderr));
    let mut psql = restore.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    psql.stdin.take().context("psql has no input")?.write_all(&dump.stdout)?;
    let output = psql.wait_with_output()?;
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));

    let mut restored = target.client()?;
    for table in [
        "rate_limit_policy",
        "queue",
        "topic_subscription",
        "queue_key",
        "q_q",
        "a_q",
        "q_jobs",
        "a_jobs",
        "\"q_Odd-Name.1\"",
        "q_empty",
    ] {
        let rows = format!(
            "SELECT jsonb_agg(t ORDER BY t)::text FROM (SELECT to_jsonb(r) AS t FROM enough.{table} AS r) AS s"
        );
        let of = |client: &mut postgres::Client| -> Result<Option<String>> { Ok(client.query_one(&rows, &[])?.get(0)) };
        ensure!(of(&mut client)? == of(&mut restored)?, "{table} differs");
    }
    let unlogged: bool =
        restored.query_one("SELECT relpersistence = 'u' FROM pg_class WHERE relname = 'q_Odd-Name.1'", &[])?.get(0);
    ensure!(unlogged);

    // The queue works, by its options and rights. What was delivered twice before has no attempt left.
    let all = queue::read(&mut restored, "q", 10_000)?;
    ensure!(all.len() == 1_499, "{} messages", all.len());
    ensure!(!all.iter().any(|message| message.msg_id == twice[1].msg_id));
    ensure!(all[0].msg_id == urgent[0].msg_id && all[0].headers == Some(json!({"h": 1})));
    ensure!(!all.iter().any(|message| message.msg_id == dead), "a dead message came back");
    let attempts = |msg_id: i64| all.iter().find(|message| message.msg_id == msg_id).map(|message| message.attempts);
    ensure!(attempts(sent[1_000]) == Some(1));
    let row = restored.query_one("SELECT dead, delayed, leased FROM enough.queue_stats('q')", &[])?;
    let counts: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    ensure!(counts == [2, 1, 1_499], "{counts:?}");
    let until: bool = restored
        .query_one(
            "SELECT $1::bigint > EXTRACT(EPOCH FROM now() + interval '119 minutes') * 1000000",
            &[&all[0].until],
        )?
        .get(0);
    ensure!(until, "the queue's visibility timeout was lost");
    let mut as_user = target.client_as(&user)?;
    let next = queue::send(&mut as_user, "q", &json!("new"))?;
    ensure!(all.iter().all(|message| message.msg_id < next), "a number was given twice");
    refused(queue::read(&mut as_user, "q", 1), "42501")?;
    unusual_jobs_are_there(&mut restored)?;
    ensure!(queue::read(&mut restored, "Odd-Name.1", 10)?.len() == 1);
    ensure!(queue::read(&mut restored, "empty", 10)?.is_empty());
    restored.batch_execute("SELECT enough.queue_drop('q'), enough.queue_create('q')")?;
    // Its policies count from the start: what was consumed is in the memory of a server, not in a dump.
    for left in [2, 1] {
        let row = restored.query_one("SELECT allowed, remaining FROM enough.rate_limit_by('calls', 'key')", &[])?;
        ensure!(row.get::<_, bool>(0) && row.get::<_, i64>(1) == left, "{row:?}");
    }
    let shadow = restored.query_one("SELECT allowed, remaining FROM enough.rate_limit_by('bucket', 'key', 8)", &[])?;
    ensure!(shadow.get::<_, bool>(0) && shadow.get::<_, i64>(1) == 7, "{shadow:?}");
    // The source is as it was.
    ensure!(queue::stats(&mut client, "q")?.dead == 1);
    Ok(())
}
