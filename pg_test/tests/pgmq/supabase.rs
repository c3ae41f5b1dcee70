//! The schema that Supabase puts before pgmq: six functions that roles of `PostgREST` call by the names of their arguments.

use crate::common::{expect, made};
use anyhow::Result;
use enough_pg_test::check::refused;

/// What each function is called with and gives back as Supabase has it, with a body of one call of pgmq's.
const FUNCTIONS: [(&str, &str); 6] = [
    ("pop(queue_name text) RETURNS SETOF pgmq.message_record", "pgmq.pop(queue_name := queue_name)"),
    (
        "send(queue_name text, message jsonb, sleep_seconds integer DEFAULT 0) RETURNS SETOF bigint",
        "pgmq.send(queue_name := queue_name, msg := message, delay := sleep_seconds)",
    ),
    (
        "send_batch(queue_name text, messages jsonb[], sleep_seconds integer DEFAULT 0) RETURNS SETOF bigint",
        "pgmq.send_batch(queue_name := queue_name, msgs := messages, delay := sleep_seconds)",
    ),
    (
        "archive(queue_name text, message_id bigint) RETURNS SETOF boolean",
        "pgmq.archive(queue_name := queue_name, msg_id := message_id)",
    ),
    (
        "delete(queue_name text, message_id bigint) RETURNS SETOF boolean",
        "pgmq.delete(queue_name := queue_name, msg_id := message_id)",
    ),
    (
        "read(queue_name text, sleep_seconds integer, n integer) RETURNS SETOF pgmq.message_record",
        "pgmq.read(queue_name := queue_name, vt := sleep_seconds, qty := n)",
    ),
];

#[test]
fn its_six_functions_work_under_row_security() -> Result<()> {
    let (database, mut client, _) = made()?;
    let (anon, user) = (database.role("anon"), database.role("authenticated"));
    client.batch_execute(&format!(
        "CREATE ROLE {anon} LOGIN; CREATE ROLE {user} LOGIN; CREATE SCHEMA pgmq_public;
         GRANT USAGE ON SCHEMA pgmq_public, pgmq TO {anon}, {user}; SELECT pgmq.create('todos')"
    ))?;
    for (head, call) in FUNCTIONS {
        client.batch_execute(&format!(
            "CREATE FUNCTION pgmq_public.{head} LANGUAGE plpgsql SET search_path = ''
             AS $$ BEGIN RETURN QUERY SELECT * FROM {call}; END $$"
        ))?;
    }
    client.batch_execute(&format!(
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgmq_public TO {anon}, {user};
         GRANT SELECT ON pgmq.q_todos TO {user}; SELECT enough.queue_grant('todos', '{user}', 'all');
         ALTER TABLE enough.q_todos ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON enough.q_todos TO {user} USING (message ->> 'of' = current_user);
         ALTER TABLE enough.a_todos ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON enough.a_todos TO {user} USING (message ->> 'of' = current_user);
         SELECT pgmq.send('todos', '{{\"of\": \"somebody else\"}}')"
    ))?;
    let mut anon = database.client_as(&anon)?;
    for call in [
        "pop('todos')",
        "send('todos', '{}')",
        "send_batch('todos', ARRAY['{}'::jsonb])",
        "archive('todos', 1)",
        "delete('todos', 1)",
        "read('todos', 0, 1)",
    ] {
        refused(anon.simple_query(&format!("SELECT * FROM pgmq_public.{call}")), "42501")?;
    }
    let mine = format!("{{\"of\": \"{user}\"}}");
    let mut user = database.client_as(&user)?;
    let send = format!("SELECT pgmq_public.send(queue_name => 'todos', message => '{mine}')");
    let batch = format!(
        "SELECT pgmq_public.send_batch(queue_name => 'todos', messages => ARRAY['{mine}', '{mine}', '{mine}']::jsonb[])"
    );
    expect(
        &mut user,
        &[
            (&send, &["2"]),
            (&batch, &["3", "4", "5"]),
            ("SELECT msg_id, read_ct FROM pgmq_public.pop(queue_name => 'todos')", &["2|0"]),
            (
                "SELECT msg_id, read_ct FROM pgmq_public.read(queue_name => 'todos', sleep_seconds => 30, n => 10)",
                &["3|1", "4|1", "5|1"],
            ),
            ("SELECT pgmq_public.archive(queue_name => 'todos', message_id => 3)", &["t"]),
            ("SELECT pgmq_public.delete(queue_name => 'todos', message_id => 4)", &["t"]),
            // Another's message is there, and not for this role.
            ("SELECT pgmq_public.delete('todos', 1), pgmq_public.archive('todos', 1)", &["f|f"]),
            ("SELECT msg_id FROM pgmq.q_todos", &["5"]),
        ],
    )?;
    refused(user.simple_query("SELECT pgmq_public.send('todos', '{\"of\": \"somebody else\"}')"), "42501")?;
    refused(
        user.simple_query("SELECT pgmq_public.send_batch('todos', ARRAY['{\"of\": \"somebody else\"}']::jsonb[])"),
        "42501",
    )?;
    expect(&mut client, &[("SELECT msg_id FROM pgmq.q_todos ORDER BY 1", &["1", "5"])])
}
