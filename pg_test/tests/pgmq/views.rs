//! What clients know as a queue's tables.

use crate::common::{expect, made, refused_with_hint};
use anyhow::Result;
use enough_pg_test::check::refused;

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
fn a_dump_brings_queues_back() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('q'); SELECT pgmq.send('q', '1')")?;
    expect(
        &mut client,
        &[
            // What pg_dump takes along: the views and their triggers are no members of the extension, its tables' rows are data.
            (
                "SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND objid IN ('pgmq.q_q'::regclass, 'pgmq.a_q'::regclass)",
                &["0"],
            ),
            (
                "SELECT t::regclass FROM pg_extension, unnest(extconfig) AS t WHERE extname = 'pgmq' ORDER BY 1::text",
                &["pgmq.meta", "pgmq.notify_insert_throttle", "pgmq.topic_bindings"],
            ),
        ],
    )
}
