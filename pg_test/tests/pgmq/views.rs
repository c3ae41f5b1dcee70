//! What clients know as a queue's tables.

use crate::common::{expect, made, refused_with_hint};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::refused;
use enough_pg_test::server::{Database, shared};
use std::io::Write as _;
use std::process::Stdio;

#[test]
fn a_queue_is_changed_through_its_view() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    client.batch_execute("SELECT pgmq.create('q'); SELECT pgmq.send_batch('q', '{1,2,3}')")?;
    expect(&mut other, &[("SELECT msg_id FROM pgmq.read('q', 3600, 1)", &["1"])])?;
    expect(
        &mut client,
        &[
            ("UPDATE pgmq.q_q SET vt = now() WHERE msg_id = 1 RETURNING msg_id", &["1"]),
            ("UPDATE pgmq.q_q SET vt = now() + interval '1 hour' WHERE message = '2' RETURNING msg_id", &["2"]),
            ("DELETE FROM pgmq.q_q WHERE msg_id = 3 RETURNING message", &["3"]),
            (
                "UPDATE pgmq.q_q SET message = '\"one\"', headers = '{}' WHERE msg_id = 1 RETURNING message",
                &["\"one\""],
            ),
            ("INSERT INTO pgmq.q_q (vt, message, headers) VALUES (now(), '4', NULL) RETURNING msg_id", &["4"]),
            ("SELECT msg_id, read_ct, message FROM pgmq.read('q', 0, 5) ORDER BY 1", &["1|2|\"one\"", "4|1|4"]),
            ("SELECT count(*) FROM pgmq.q_q", &["3"]),
            ("SELECT pgmq.archive('q', 4)", &["t"]),
            (
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'pgmq' AND table_name = 'q_q' \
           ORDER BY ordinal_position",
                &["msg_id", "read_ct", "enqueued_at", "last_read_at", "vt", "message", "headers"],
            ),
            (
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'pgmq' AND table_name = 'a_q' \
           ORDER BY ordinal_position",
                &["msg_id", "read_ct", "enqueued_at", "last_read_at", "archived_at", "vt", "message", "headers"],
            ),
            ("DELETE FROM pgmq.a_q RETURNING msg_id", &["4"]),
        ],
    )?;
    for column in ["read_ct = 5", "msg_id = 77", "last_read_at = now()"] {
        refused_with_hint(&mut client, &format!("UPDATE pgmq.q_q SET {column}"), "0A000")?;
    }
    Ok(())
}

#[test]
fn a_role_sees_through_the_view_what_it_may_see_of_the_queue() -> Result<()> {
    let (database, mut client, _) = made()?;
    let role = database.role("user");
    client.batch_execute(&format!(
        "CREATE ROLE {role} LOGIN; SELECT pgmq.create('q'); SELECT pgmq.send_batch('q', ARRAY['{{\"for\": \"{role}\"}}', '{{}}']::jsonb[]);
         GRANT USAGE ON SCHEMA pgmq TO {role}; GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA pgmq TO {role}"
    ))?;
    let mut user = database.client_as(&role)?;
    refused(user.simple_query("SELECT * FROM pgmq.q_q"), "42501")?;
    refused(user.simple_query("SELECT * FROM pgmq.read('q', 0, 1)"), "42501")?;
    client.batch_execute(&format!(
        "SELECT enough.queue_grant('q', '{role}', 'all'); ALTER TABLE enough.q_q ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON enough.q_q USING (message ->> 'for' = current_user)"
    ))?;
    expect(
        &mut user,
        &[
            ("SELECT msg_id FROM pgmq.q_q", &["1"]),
            ("SELECT msg_id FROM pgmq.read('q', 0, 10)", &["1"]),
            ("SELECT pgmq.delete('q', 2), pgmq.archive('q', 1)", &["f|t"]),
        ],
    )?;
    // A policy is also for what is sent.
    refused(user.simple_query("SELECT pgmq.send('q', '{}')"), "42501")?;
    expect(&mut client, &[("SELECT msg_id FROM pgmq.q_q", &["2"])])
}

#[test]
fn a_dump_brings_queues_back_for_an_owner_who_is_no_superuser() -> Result<()> {
    let (source, target) = {
        let server = shared()?;
        let source = Database::empty(&server)?;
        let owner = source.role("owner");
        let target = Database::empty(&server)?;
        server.client()?.batch_execute(&format!(
            "CREATE ROLE {owner} LOGIN; ALTER DATABASE {} OWNER TO {owner}; ALTER DATABASE {} OWNER TO {owner}",
            source.name, target.name
        ))?;
        (source, target)
    };
    let owner = source.role("owner");
    let mut client = source.client_as(&owner)?;
    client.batch_execute("CREATE EXTENSION pgmq CASCADE")?;
    client.batch_execute(
        "SELECT pgmq.create('My Queue'), pgmq.create('q'), pgmq.bind_topic('a.#', 'q'), pgmq.enable_notify_insert('q', 5);
         SELECT pgmq.send_batch('q', '{1,2,3}'); SELECT pgmq.send('q', '4', 3600); SELECT pgmq.send('My Queue', '5');
         SELECT pgmq.archive('q', 1); SELECT pgmq.set_vt('q', 2, 3600)",
    )?;
    let (dump, restored) = {
        let server = shared()?;
        let dump = server.command("pg_dump")?.args(["-U", &owner, &source.name]).output()?;
        ensure!(dump.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dump.stderr));
        let mut psql = server.command("psql")?;
        psql.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-U", &owner, "-d", &target.name]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        psql.stdin.take().context("psql has no input")?.write_all(&dump.stdout)?;
        (dump.stdout, psql.wait_with_output()?)
    };
    ensure!(restored.status.success(), "{}: {}", dump.len(), String::from_utf8_lossy(&restored.stderr));
    expect(
        &mut target.client_as(&owner)?,
        &[
            ("SELECT queue_name FROM pgmq.list_queues() ORDER BY 1", &["My Queue", "q"]),
            ("SELECT msg_id, vt > now() FROM pgmq.q_q ORDER BY 1", &["2|t", "3|f", "4|t"]),
            ("SELECT msg_id FROM pgmq.a_q", &["1"]),
            ("SELECT msg_id, read_ct FROM pgmq.read('q', 30, 10)", &["3|1"]),
            ("SELECT message FROM pgmq.read('my queue', 30, 10)", &["5"]),
            ("SELECT pgmq.send_topic('a.b', '6')", &["1"]),
            ("SELECT max(msg_id) FROM pgmq.q_q", &["5"]),
            ("SELECT pgmq.drop_queue('q'), pgmq.drop_queue('MY QUEUE')", &["t|t"]),
        ],
    )
}
