//! A number that comes again is another message: nothing that is known of the old one acts on it.

use anyhow::{Context, Result, ensure};
use enough_pg_test::queue::{self, Message, made, read, receive, stats};
use postgres::Client;
use serde_json::json;

/// What the index knows of message 1 when its row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Ready,
    Leased,
    Delayed,
    /// Failed, and resting.
    Resting,
    /// Given back by a rollback.
    GivenBack,
    /// Delivered as often as it may be.
    UsedUp,
    /// Leased, with another of its group behind it.
    Head,
    /// Behind another of its group, which is leased.
    Follower,
}

const KNOWN: [Known; 8] = [
    Known::Ready,
    Known::Leased,
    Known::Delayed,
    Known::Resting,
    Known::GivenBack,
    Known::UsedUp,
    Known::Head,
    Known::Follower,
];

/// How another row gets the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Truncated,
    SequenceSetBack,
    /// Deleted by hand, and inserted by hand.
    Inserted,
    /// Copied from before, after TRUNCATE.
    RestoredAfterTruncate,
    /// Copied from before, after DELETE.
    RestoredAfterDelete,
    /// All in one transaction.
    RestoredAtOnce,
    /// Finished by the queue, and inserted by hand.
    Finished,
}

const AGAIN: [Again; 7] = [
    Again::Truncated,
    Again::SequenceSetBack,
    Again::Inserted,
    Again::RestoredAfterTruncate,
    Again::RestoredAfterDelete,
    Again::RestoredAtOnce,
    Again::Finished,
];

/// Brings message `id` into a state; the number of its lease, where it has or had one.
fn bring(client: &mut Client, known: Known) -> Result<(i64, Option<i64>)> {
    let group = if matches!(known, Known::Head | Known::Follower) { ", group_key => 'g'" } else { "" };
    let delay = if known == Known::Delayed { ", delay => '1 hour'" } else { "" };
    client.batch_execute(&format!(
        "SELECT enough.queue_send('q', '\"old\"'{group}{delay}); SELECT enough.queue_send('q', '\"old\"'{group}{delay})"
    ))?;
    let lease = |messages: Vec<Message>| -> Result<(i64, Option<i64>)> {
        let message = messages.first().context("nothing came")?;
        Ok((message.msg_id, message.lease))
    };
    Ok(match known {
        Known::Ready | Known::Delayed => (1, None),
        Known::Leased | Known::Head => lease(receive(client, "queue_read('q', 1, '1 hour')")?)?,
        Known::Follower => {
            receive(client, "queue_read('q', 1, '1 hour')")?;
            (2, None)
        }
        Known::Resting => {
            let leased = lease(receive(client, "queue_read('q', 1, '1 hour')")?)?;
            client.batch_execute("SELECT enough.queue_fail('q', 1, 'no', '1 hour')")?;
            leased
        }
        Known::GivenBack => {
            client.batch_execute("BEGIN")?;
            let leased = lease(receive(client, "queue_read('q', 1, '1 hour')")?)?;
            client.batch_execute("ROLLBACK")?;
            leased
        }
        Known::UsedUp => {
            let leased = lease(receive(client, "queue_read('q', 1, '1 ms')")?)?;
            client.batch_execute("SELECT pg_sleep(0.01); SELECT enough.queue_peek('q')")?;
            leased
        }
    })
}

/// Gives another row the number.
fn come_again(client: &mut Client, id: i64, again: Again) -> Result<()> {
    const SAVE: &str = "CREATE TEMP TABLE saved AS SELECT * FROM enough.q_q";
    const RESTORE: &str = "UPDATE saved SET message = '\"new\"', deliver_at = NULL, group_key = NULL, attempts = 0; \
                           INSERT INTO enough.q_q SELECT * FROM saved; DROP TABLE saved";
    let insert = format!("INSERT INTO enough.q_q (msg_id, message) VALUES ({id}, '\"new\"')");
    let statements = match again {
        Again::Truncated => format!(
            "TRUNCATE enough.q_q RESTART IDENTITY; \
             SELECT enough.queue_send_batch('q', array_fill('\"new\"'::jsonb, ARRAY[{id}]))"
        ),
        Again::SequenceSetBack => format!(
            "DELETE FROM enough.q_q; SELECT setval('enough.s_q', {id}, false); SELECT enough.queue_send('q', '\"new\"')"
        ),
        Again::Inserted => format!("DELETE FROM enough.q_q; {insert}"),
        Again::RestoredAfterTruncate => format!("{SAVE}; TRUNCATE enough.q_q; {RESTORE}"),
        Again::RestoredAfterDelete => format!("{SAVE}; DELETE FROM enough.q_q; {RESTORE}"),
        Again::RestoredAtOnce => format!("BEGIN; {SAVE}; TRUNCATE enough.q_q; {RESTORE}; COMMIT"),
        Again::Finished => {
            format!("SELECT enough.queue_delete('q', msg_id) FROM enough.q_q ORDER BY msg_id; {insert}")
        }
    };
    // One by one, as a user would.
    for statement in statements.split("; ") {
        client.batch_execute(statement).with_context(|| statement.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_number_that_comes_again_is_another_message() -> Result<()> {
    let (_database, mut client, mut other) = made(", retry_backoff => '1 hour'")?;
    client.batch_execute("SELECT enough.queue_drop('q')")?;
    for known in KNOWN {
        for again in AGAIN {
            let most = if known == Known::UsedUp { 1 } else { 5 };
            client.batch_execute(&format!(
                "SELECT enough.queue_create('q', max_attempts => {most}, retry_backoff => '1 hour')"
            ))?;
            comes_again(&mut client, &mut other, known, again).with_context(|| format!("{known:?}, {again:?}"))?;
            client.batch_execute("SELECT enough.queue_drop('q')")?;
        }
    }
    Ok(())
}

fn comes_again(client: &mut Client, other: &mut Client, known: Known, again: Again) -> Result<()> {
    let (id, lease) = bring(client, known)?;
    come_again(client, id, again)?;
    if !matches!(again, Again::Truncated | Again::SequenceSetBack) {
        client.batch_execute("SELECT enough.maintain()")?;
    }
    let fenced = lease.unwrap_or(1);
    let refused = |client: &mut Client| -> Result<bool> {
        let row = client.query_one(
            "SELECT enough.queue_delete('q', $1, $2), enough.queue_archive('q', $1, NULL, $2), \
                    enough.queue_fail('q', $1, 'no', '0', $2) IS NULL, enough.queue_extend('q', $1, '1 hour', $2) IS NULL",
            &[&id, &fenced],
        )?;
        Ok((row.get::<_, bool>(0), row.get::<_, bool>(1), row.get::<_, bool>(2), row.get::<_, bool>(3))
            == (false, false, true, true))
    };
    ensure!(refused(client)?, "the old lease acts on the new row");
    let state: String = client.query_one("SELECT state FROM enough.queue_status('q', $1)", &[&id])?.get(0);
    ensure!(state == "ready", "the new row is {state}");
    let came = read(other, "q", 10)?;
    let new = came.iter().find(|message| message.msg_id == id).context("the new row isn't delivered")?;
    ensure!(new.message == json!("new") && new.attempts == 1, "{new:?}");
    ensure!(new.lease != lease);
    ensure!(refused(client)?, "the old lease acts on the new row, which is leased");
    for message in &came {
        ensure!(message.message == json!("new"), "{came:?}");
        ensure!(queue::delete(client, "q", message.msg_id, message.lease)?, "{message:?}");
    }
    ensure!(read(other, "q", 10)?.is_empty());
    client.batch_execute("SELECT enough.maintain()")?;
    let left = stats(client, "q")?;
    ensure!((left.ready, left.leased, left.delayed) == (0, 0, 0), "{left:?}");
    Ok(())
}

#[test]
fn an_old_lease_finds_the_new_row_before_anybody_else_does() -> Result<()> {
    // Nobody has looked at the table since: the call itself has to see that the row is another one.
    for call in [
        "delete('q', 1, $1)",
        "archive('q', 1, NULL, $1)",
        "fail('q', 1, 'no', '0', $1)",
        "extend('q', 1, '1 hour', $1)",
    ] {
        let (_database, mut client, mut other) = made("")?;
        queue::send(&mut client, "q", &json!("old"))?;
        let lease = receive(&mut client, "queue_read('q', 1, '1 hour')")?[0].lease;
        client
            .batch_execute("DELETE FROM enough.q_q; INSERT INTO enough.q_q (msg_id, message) VALUES (1, '\"new\"')")?;
        let answer: Option<String> =
            client.query_one(&format!("SELECT (enough.queue_{call})::text"), &[&lease])?.get(0);
        ensure!(answer.is_none_or(|answer| answer == "false"), "{call}");
        let came = read(&mut other, "q", 10)?;
        ensure!(came.len() == 1 && came[0].message == json!("new") && came[0].attempts == 1, "{call}: {came:?}");
    }
    Ok(())
}

#[test]
fn a_message_is_the_same_after_its_table_was_rewritten_or_its_row_changed() -> Result<()> {
    let rewrites = [
        "VACUUM FULL enough.q_q",
        "CLUSTER enough.q_q USING i_q_key",
        "ALTER TABLE enough.q_q ADD COLUMN twice bigint GENERATED ALWAYS AS (msg_id * 2) STORED",
        "SELECT enough.queue_alter('q', unlogged => true)",
        "SELECT enough.queue_alter('q', unlogged => false)",
        "UPDATE enough.q_q SET headers = '1'",
        "UPDATE enough.q_q SET headers = '2'; VACUUM enough.q_q; UPDATE enough.q_q SET headers = '3'",
        "BEGIN; TRUNCATE enough.q_q; SELECT count(*) FROM enough.queue_read('q', 10); ROLLBACK",
    ];
    for rewrite in rewrites {
        let (_database, mut client, mut other) = made(", retry_backoff => '1 hour'")?;
        queue::send_numbers(&mut client, "q", 3)?;
        client.batch_execute("SELECT enough.queue_send('q', '4', delay => '1 hour')")?;
        let leased = receive(&mut client, "queue_read('q', 2, '1 hour')")?;
        for statement in rewrite.split("; ") {
            client.batch_execute(statement).with_context(|| statement.to_owned())?;
        }
        let ready = receive(&mut other, "queue_read('q', 10, '1 hour')")?;
        ensure!(queue::ids(&ready) == [3], "{rewrite}: {ready:?}");
        client.batch_execute("SELECT enough.maintain()")?;
        ensure!(read(&mut other, "q", 10)?.is_empty(), "{rewrite}");
        for message in leased.iter().chain(&ready) {
            ensure!(queue::delete(&mut other, "q", message.msg_id, message.lease)?, "{rewrite}: {message:?}");
        }
    }
    Ok(())
}
