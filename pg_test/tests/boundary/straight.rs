//! Queues whose tables are nearly as `queue_create` makes them: what is written past the executor must be what the executor
//! would have written, and what it would refuse is refused.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{healthy, indexes_agree, refused};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database};
use postgres::Client;
use serde_json::json;
use xtask::server::Server;

/// Changes after which a queue does all that it did.
const CHANGES: &[&str] = &[
    "SELECT 1",
    // The key.
    "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key, ADD PRIMARY KEY (msg_id, priority)",
    "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key, ADD PRIMARY KEY (msg_id) INCLUDE (priority)",
    "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key, ADD PRIMARY KEY (msg_id) DEFERRABLE INITIALLY DEFERRED",
    "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key, ADD UNIQUE (msg_id)",
    "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key; CREATE INDEX ON enough.q_q (msg_id, message)",
    "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key, ADD PRIMARY KEY (priority, msg_id); \
     CREATE UNIQUE INDEX ON enough.q_q (msg_id)",
    // Delivery times.
    "DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q (deliver_at)",
    "DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q (deliver_at) INCLUDE (msg_id) WHERE deliver_at IS NOT NULL",
    "DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q (deliver_at, msg_id) WHERE deliver_at IS NOT NULL",
    "CREATE INDEX ON enough.q_q (deliver_at DESC) WHERE deliver_at IS NOT NULL",
    // Groups.
    "DROP INDEX enough.i_q_group; CREATE INDEX ON enough.q_q (group_key, msg_id)",
    "DROP INDEX enough.i_q_group; CREATE INDEX ON enough.q_q (group_key, msg_id, priority) WHERE group_key IS NOT NULL",
    "CREATE INDEX ON enough.q_q (group_key text_pattern_ops, msg_id) WHERE group_key IS NOT NULL",
    // Deduplication keys.
    "DROP INDEX enough.i_q_dedup; CREATE UNIQUE INDEX ON enough.q_q (dedup_key)",
    "DROP INDEX enough.i_q_dedup; CREATE UNIQUE INDEX ON enough.q_q (dedup_key) INCLUDE (msg_id) WHERE dedup_key IS NOT NULL",
    // Four, but not the same four; five.
    "DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q (deliver_at, enqueued_at)",
    "CREATE INDEX ON enough.q_q (deliver_at) WHERE deliver_at IS NOT NULL",
    "CREATE INDEX ON enough.q_q USING hash (priority)",
    "CREATE INDEX ON enough.q_q ((message ->> 'k'))",
    // The table.
    "ALTER TABLE enough.q_q ALTER msg_id SET GENERATED ALWAYS",
    "ALTER TABLE enough.q_q DROP CONSTRAINT q_q_priority_check",
    "ALTER TABLE enough.q_q REPLICA IDENTITY FULL",
    "ALTER TABLE enough.q_q REPLICA IDENTITY NOTHING",
    "ALTER TABLE enough.q_q SET (fillfactor = 50)",
    "CREATE PUBLICATION p FOR TABLE enough.q_q",
    "CREATE PUBLICATION p FOR TABLE enough.q_q WHERE (msg_id > 3)",
    "CREATE PUBLICATION p FOR TABLE enough.q_q WHERE (priority > 3) WITH (publish = insert)",
    "CREATE PUBLICATION p FOR ALL TABLES",
    "CREATE TABLE parent (LIKE enough.q_q); ALTER TABLE enough.q_q INHERIT parent",
];

/// A server with a database, and a session in it.
fn made() -> Result<(Server, Database, Client)> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute("CREATE EXTENSION amcheck; SET client_min_messages = error")?;
    Ok((server, database, client))
}

fn fresh(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "DROP PUBLICATION IF EXISTS p; SELECT enough.queue_drop('q', if_exists => true); DROP TABLE IF EXISTS parent; \
         SELECT enough.queue_create('q', retry_backoff => '0')",
    )?;
    Ok(())
}

/// What one message and another goes through, by every way that writes the table.
fn lives(client: &mut Client, other: &mut Client) -> Result<()> {
    client.batch_execute(
        "SELECT enough.queue_send('q', '{\"k\": 1}'); \
         SELECT enough.queue_send('q', '2', priority => 9, group_key => 'g', headers => '{}'); \
         SELECT enough.queue_send('q', '3', delay => '1 hour', group_key => 'g'); \
         SELECT enough.queue_send('q', '4', delay => '10 milliseconds'); \
         SELECT enough.queue_send('q', '5', dedup_key => 'k'); SELECT enough.queue_send('q', '5', dedup_key => 'k'); \
         SELECT enough.queue_send_batch('q', array_fill('{\"large\": 1}'::jsonb, ARRAY[400]), \
             group_keys => array_fill('h'::text, ARRAY[400])); \
         SELECT enough.queue_send_batch('q', array_fill('7'::jsonb, ARRAY[40]), delay => '1 hour'); \
         SELECT pg_sleep(0.02)",
    )?;
    let read = queue::read(other, "q", 10)?;
    ensure!(read.len() == 5 && read[0].message == json!(2), "{read:?}");
    for message in &read {
        client.execute("SELECT enough.queue_extend('q', $1, '0')", &[&message.msg_id])?;
    }
    // Further deliveries are noted in the rows; failures, ends and archives change them.
    let read = queue::read(client, "q", 10)?;
    ensure!(read.len() == 5 && read.iter().all(|message| message.attempts == 2), "{read:?}");
    let call = |client: &mut Client, call: &str, message: &queue::Message| {
        client.query_one(&format!("SELECT enough.{call}::text"), &[&message.msg_id, &message.lease])
    };
    call(client, "queue_fail('q', $1, 'no', '1 hour', $2)", &read[0])?;
    call(client, "queue_fail('q', $1, 'no', '0', $2)", &read[1])?;
    call(client, "queue_archive('q', $1, lease => $2)", &read[2])?;
    ensure!(queue::delete(client, "q", read[3].msg_id, read[3].lease)?);
    client.execute("SELECT enough.queue_delete_batch('q', ARRAY[$1::bigint])", &[&read[4].msg_id])?;
    let popped = queue::receive(client, "queue_pop('q', 10)")?;
    let again = popped.iter().find(|message| message.msg_id == read[1].msg_id);
    ensure!(again.is_some_and(|message| message.attempts == 3), "{popped:?}");
    let left: i64 = client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
    ensure!(left == 445 - 3 - popped.len() as i64, "{left} messages are left after {popped:?}");
    Ok(())
}

#[test]
fn a_table_that_is_nearly_as_made_does_all_and_its_indexes_are_whole() -> Result<()> {
    let (server, database, mut client) = made()?;
    let mut other = database.client()?;
    for change in CHANGES {
        fresh(&mut client)?;
        // Both sessions know how it was.
        queue::send(&mut other, "q", &json!(0))?;
        ensure!(queue::receive(&mut client, "queue_pop('q')")?.len() == 1);
        client.batch_execute(change).with_context(|| format!("in {change}"))?;
        // Other tables are published then as well.
        if change.contains("FOR ALL TABLES") {
            client.batch_execute("ALTER TABLE enough.a_q REPLICA IDENTITY FULL")?;
        }
        lives(&mut client, &mut other).with_context(|| format!("after {change}"))?;
        indexes_agree(&mut client, "enough.q_q").with_context(|| format!("after {change}"))?;
    }
    healthy(&server.log(), false)
}

/// Changes after which the queue can't be read, and a part of what the error's hint says.
const LOST: &[(&str, &str)] = &[
    ("ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key", "CREATE UNIQUE INDEX ON enough.\"q_q\" (msg_id);"),
    ("ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key, ADD PRIMARY KEY (priority, msg_id)", "(msg_id)"),
    (
        "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key; CREATE UNIQUE INDEX ON enough.q_q (msg_id DESC)",
        "CREATE UNIQUE INDEX",
    ),
    (
        "ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key; CREATE INDEX ON enough.q_q (msg_id) WHERE msg_id > 5",
        "(msg_id)",
    ),
    ("ALTER TABLE enough.q_q DROP CONSTRAINT i_q_key; CREATE INDEX ON enough.q_q USING hash (msg_id)", "(msg_id)"),
    (
        "DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q (deliver_at) WHERE deliver_at IS NOT NULL AND priority > 3",
        "CREATE INDEX ON enough.\"q_q\" (deliver_at) WHERE deliver_at IS NOT NULL;",
    ),
    ("DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q (deliver_at) WHERE deliver_at IS NULL", "(deliver_at)"),
    ("DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q (deliver_at) WHERE priority IS NOT NULL", "(deliver_at)"),
    ("DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q USING brin (deliver_at)", "(deliver_at)"),
    ("DROP INDEX enough.i_q_due; CREATE INDEX ON enough.q_q (deliver_at NULLS FIRST)", "(deliver_at)"),
    (
        "DROP INDEX enough.i_q_group; CREATE INDEX ON enough.q_q (msg_id, group_key)",
        "CREATE INDEX ON enough.\"q_q\" (group_key COLLATE \"C\", msg_id) WHERE group_key IS NOT NULL;",
    ),
    (
        "DROP INDEX enough.i_q_group; CREATE INDEX ON enough.q_q (group_key text_pattern_ops, msg_id)",
        "(group_key COLLATE \"C\", msg_id)",
    ),
    (
        "DROP INDEX enough.i_q_group; CREATE INDEX ON enough.q_q (group_key COLLATE \"POSIX\", msg_id)",
        "(group_key COLLATE \"C\", msg_id)",
    ),
    (
        "DROP INDEX enough.i_q_group; CREATE INDEX ON enough.q_q (lower(group_key), msg_id)",
        "(group_key COLLATE \"C\", msg_id)",
    ),
    (
        "DROP INDEX enough.i_q_dedup; CREATE INDEX ON enough.q_q (dedup_key) WHERE dedup_key IS NOT NULL",
        "CREATE UNIQUE INDEX ON enough.\"q_q\" (dedup_key COLLATE \"C\") WHERE dedup_key IS NOT NULL;",
    ),
    (
        "DROP INDEX enough.i_q_dedup; CREATE UNIQUE INDEX ON enough.q_q (dedup_key, priority)",
        "(dedup_key COLLATE \"C\")",
    ),
    (
        "DROP INDEX enough.i_q_dedup; ALTER TABLE enough.q_q ADD UNIQUE (dedup_key) DEFERRABLE",
        "(dedup_key COLLATE \"C\")",
    ),
    ("ALTER TABLE enough.q_q ALTER group_key TYPE text COLLATE \"default\"", "(group_key COLLATE \"C\", msg_id)"),
    ("ALTER TABLE enough.q_q RENAME message TO payload", "columns"),
    ("ALTER TABLE enough.q_q ALTER message TYPE json", "columns"),
    ("ALTER TABLE enough.q_q DROP COLUMN headers", "columns"),
];

#[test]
fn what_a_queue_needs_and_its_table_has_lost_is_named() -> Result<()> {
    let (server, database, mut client) = made()?;
    for (change, mends) in LOST {
        fresh(&mut client)?;
        let mut other = database.client()?;
        queue::send(&mut client, "q", &json!(0))?;
        client.batch_execute(change).with_context(|| format!("in {change}"))?;
        for session in [&mut client, &mut other] {
            for call in ["queue_read('q')", "queue_send('q', '1')", "queue_delete('q', 1)", "queue_stats('q')"] {
                let hint = refused(session.query(&format!("SELECT enough.{call}"), &[]), "55000")
                    .with_context(|| format!("{call} after {change}"))?;
                ensure!(hint.contains(mends), "{call} after {change}: {hint}");
                // What the hint says helps.
                if hint.starts_with("CREATE") && call.contains("stats") {
                    session.batch_execute(&hint).with_context(|| hint.clone())?;
                    session.batch_execute("SELECT enough.queue_send('q', '1'); SELECT enough.queue_pop('q', 10)")?;
                    fresh(session)?;
                    session.batch_execute("SELECT enough.queue_send('q', '1')")?;
                    session.batch_execute(change)?;
                }
            }
        }
    }
    healthy(&server.log(), false)
}

/// What the table's owner wants of rows, the statement that goes against it, and the server's answer.
const REFUSED: &[(&str, &str, &str)] = &[
    ("ADD CHECK (message <> '\"bad\"')", "queue_send('q', '\"bad\"')", "23514"),
    ("DROP CONSTRAINT q_q_priority_check, ADD CHECK (priority < 5)", "queue_send('q', '1', priority => 7)", "23514"),
    (
        "DROP CONSTRAINT q_q_priority_check, ADD CONSTRAINT q_q_priority_check CHECK (message <> '\"bad\"')",
        "queue_send_batch('q', ARRAY['1', '\"bad\"']::jsonb[])",
        "23514",
    ),
    (
        "DROP CONSTRAINT q_q_priority_check, ADD CHECK (priority >= 0 AND deliver_at IS NULL)",
        "queue_fail('q', 1)",
        "23514",
    ),
    ("DROP CONSTRAINT q_q_priority_check, ADD CHECK (priority >= 0 OR priority <= 9)", "", ""),
    (
        "DROP CONSTRAINT q_q_priority_check, ADD CHECK (priority >= 1 AND priority <= 9)",
        "queue_send('q', '1')",
        "23514",
    ),
    ("DROP CONSTRAINT q_q_priority_check, ADD CHECK (attempts >= 0 AND attempts <= 9)", "", ""),
    ("ALTER headers SET NOT NULL", "queue_send('q', '1')", "23502"),
    ("ALTER last_error SET DEFAULT 'none yet'", "", ""),
    ("ADD EXCLUDE USING btree (message WITH =)", "queue_send('q', '0')", "23P01"),
    ("ADD UNIQUE (message)", "queue_send('q', '0')", "23505"),
];

#[test]
fn what_the_executor_would_refuse_is_refused() -> Result<()> {
    let (server, _database, mut client) = made()?;
    for (change, call, code) in REFUSED {
        fresh(&mut client)?;
        queue::send(&mut client, "q", &json!(0))?;
        client.batch_execute(&format!(
            "UPDATE enough.q_q SET headers = '{{}}', priority = 3; ALTER TABLE enough.q_q {change}"
        ))?;
        if call.is_empty() {
            queue::send(&mut client, "q", &json!(1))?;
        } else {
            refused(client.query(&format!("SELECT enough.{call}"), &[]), code).with_context(|| (*change).to_owned())?;
        }
    }
    // What a column is by default, and how exact its times are.
    fresh(&mut client)?;
    client.batch_execute(
        "ALTER TABLE enough.q_q ALTER attempts SET DEFAULT 3, ALTER last_error SET DEFAULT 'none yet', \
             ALTER enqueued_at TYPE timestamptz(0); \
         SELECT enough.queue_send('q', '1'); SELECT enough.queue_send_batch('q', ARRAY['1', '2']::jsonb[])",
    )?;
    let row = client.query_one(
        "SELECT count(*), min(attempts), min(last_error), bool_and(enqueued_at = date_trunc('second', enqueued_at)) \
         FROM enough.q_q",
        &[],
    )?;
    ensure!((row.get::<_, i64>(0), row.get::<_, i32>(1), row.get::<_, &str>(2)) == (3, 3, "none yet"));
    ensure!(row.get::<_, bool>(3), "times are more exact than their column");
    ensure!(queue::read(&mut client, "q", 1)?[0].attempts == 4);
    // An operator of the user's own that looks like the server's.
    fresh(&mut client)?;
    client.batch_execute(
        "CREATE FUNCTION never(smallint, int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 100'; \
         CREATE OPERATOR public.>= (LEFTARG = smallint, RIGHTARG = int, FUNCTION = never); \
         SET search_path = public, pg_catalog; \
         ALTER TABLE enough.q_q DROP CONSTRAINT q_q_priority_check, ADD CHECK (priority >= 0 AND priority <= 9); \
         RESET search_path",
    )?;
    refused(queue::send(&mut client, "q", &json!(1)), "23514")?;
    healthy(&server.log(), false)
}

#[test]
fn a_publication_refuses_what_it_could_not_publish() -> Result<()> {
    let (server, _database, mut client) = made()?;
    let cases = [
        ("ALTER TABLE enough.q_q REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE enough.q_q", "55000"),
        ("CREATE PUBLICATION p FOR TABLE enough.q_q WHERE (priority >= 0)", "42P10"),
        ("CREATE PUBLICATION p FOR TABLE enough.q_q (priority)", "42P10"),
        ("CREATE PUBLICATION p FOR TABLE enough.q_q (priority) WITH (publish = 'insert')", ""),
    ];
    for (change, code) in cases {
        fresh(&mut client)?;
        let sent = queue::send_numbers(&mut client, "q", 4)?;
        // The second delivery would be noted.
        client.batch_execute("SELECT enough.queue_extend('q', msg_id, '0') FROM enough.queue_read('q', 4)")?;
        client.batch_execute(change)?;
        ensure!(queue::read(&mut client, "q", 4)?.len() == 4, "{change}");
        for call in [
            format!("queue_delete('q', {})", sent[0]),
            format!("queue_delete_batch('q', ARRAY[{}])", sent[0]),
            format!("queue_archive('q', {})", sent[1]),
            format!("queue_fail('q', {})", sent[2]),
        ] {
            let outcome = client.query(&format!("SELECT enough.{call}"), &[]);
            if code.is_empty() {
                outcome.with_context(|| format!("{call} after {change}"))?;
            } else {
                refused(outcome, code).with_context(|| format!("{call} after {change}"))?;
            }
        }
    }
    healthy(&server.log(), false)
}
