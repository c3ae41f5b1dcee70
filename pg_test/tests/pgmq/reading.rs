//! Reading: timeouts, quantities, conditions, waiting, popping.

use crate::common::{expect, made, refused_with_hint, rows};
use anyhow::{Result, anyhow, ensure};
use enough_pg_test::server::{backend, until_waiting};

#[test]
fn a_message_is_invisible_for_its_timeout_and_counted() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.create('q')", &[""]),
            ("SELECT count(*) FROM pgmq.send_batch('q', '{1,2,3}')", &["3"]),
            (
                "SELECT msg_id, read_ct, message, headers, enqueued_at <= last_read_at, vt - last_read_at \
            FROM pgmq.read('q', 3600, 2)",
                &["1|1|1||t|01:00:00", "2|1|2||t|01:00:00"],
            ),
            ("SELECT msg_id, read_ct FROM pgmq.read('q', 0, 2)", &["3|1"]),
            ("SELECT msg_id, read_ct FROM pgmq.read('q', 0, 2)", &["3|2"]),
            ("SELECT msg_id, read_ct FROM pgmq.read('q', -5, 2)", &["3|3"]),
            ("SELECT msg_id, read_ct, vt > now() FROM pgmq.q_q ORDER BY 1", &["1|1|t", "2|1|t", "3|3|f"]),
            ("SELECT msg_id FROM pgmq.set_vt('q', 2, 0)", &["2"]),
            ("SELECT msg_id, read_ct FROM pgmq.read('q', 3600, 1)", &["2|2"]),
            ("SELECT queue_length, queue_visible_length FROM pgmq.metrics('q')", &["3|1"]),
        ],
    )?;
    expect(&mut other, &[("SELECT msg_id FROM pgmq.read('q', 3600, 10)", &["3"])])
}

#[test]
fn quantities_at_the_edges() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('q'); SELECT pgmq.send_batch('q', '{1,2,3}')")?;
    expect(
        &mut client,
        &[
            ("SELECT count(*) FROM pgmq.read('q', 0, 0)", &["0"]),
            ("SELECT count(*) FROM pgmq.read('q', 0, NULL)", &["3"]),
            ("SELECT count(*) FROM pgmq.read('q', 0, 2147483647)", &["3"]),
            ("SELECT count(*) FROM pgmq.read('q', 2147483647, 1)", &["1"]),
            ("SELECT count(*) FROM pgmq.pop('q', 0)", &["0"]),
            ("SELECT count(*) FROM pgmq.pop('q', NULL)", &["2"]),
            ("SELECT count(*) FROM pgmq.read_with_poll('q', 0, 0, 0)", &["0"]),
        ],
    )?;
    refused_with_hint(&mut client, "SELECT pgmq.read('q', 0, -1)", "2201W")?;
    refused_with_hint(&mut client, "SELECT pgmq.read('q', NULL, 1)", "23502")?;
    refused_with_hint(&mut client, "SELECT pgmq.set_vt('q', 1, NULL::int)", "23502")
}

#[test]
fn a_condition_chooses_among_the_visible_ones() -> Result<()> {
    let (_database, mut client, _) = made()?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.create('q')", &[""]),
            (
                "SELECT count(*) FROM pgmq.send_batch('q', (SELECT array_agg(jsonb_build_object('n', n, 'even', n % 2 = 0) \
              ORDER BY n) FROM generate_series(1, 10) AS n))",
                &["10"],
            ),
            ("SELECT msg_id FROM pgmq.read('q', 3600, 2, '{\"even\": true}')", &["2", "4"]),
            ("SELECT msg_id FROM pgmq.read('q', 3600, 2, '{\"even\": true}')", &["6", "8"]),
            ("SELECT msg_id FROM pgmq.read('q', 3600, 5, '{\"n\": 2}')", &[]),
            ("SELECT msg_id FROM pgmq.read('q', 3600, 5, '{\"n\": 99}')", &[]),
            ("SELECT msg_id FROM pgmq.read('q', 3600, 1, '{}')", &["1"]),
            ("SELECT msg_id FROM pgmq.read('q', 3600, 1, NULL)", &["3"]),
            ("SELECT msg_id FROM pgmq.read_with_poll('q', 0, 5, 1, 10, '{\"n\": 5}')", &["5"]),
            ("SELECT msg_id FROM pgmq.read_with_poll('q', 0, 5, 1, 10, '{\"n\": 1}')", &[]),
        ],
    )
}

#[test]
fn a_poll_is_woken_by_the_message() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    client.batch_execute("SELECT pgmq.create('q')")?;
    expect(
        &mut client,
        &[
            ("SELECT * FROM pgmq.read_with_poll('q', 0, 1, 0)", &[]),
            ("SELECT * FROM pgmq.read_with_poll('q', 0, 1, 1, 10)", &[]),
        ],
    )?;
    let pid = backend(&mut other)?;
    let reader = std::thread::spawn(move || {
        rows(&mut other, "SELECT msg_id, read_ct FROM pgmq.read_with_poll('q', 30, 5, 600)")
    });
    until_waiting(&mut client, pid)?;
    client.batch_execute("SELECT pgmq.send('q', '1')")?;
    let read = reader.join().map_err(|_| anyhow!("panicked"))?;
    ensure!(read == ["1|1"], "{read:?}");
    Ok(())
}

#[test]
fn popped_messages_are_gone() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('q'); SELECT pgmq.send_batch('q', '{1,2,3,4}')")?;
    expect(
        &mut client,
        &[
            ("SELECT msg_id, read_ct, message, last_read_at, vt <= now() FROM pgmq.pop('q')", &["1|0|1||t"]),
            ("SELECT msg_id, read_ct FROM pgmq.read('q', 0, 1)", &["2|1"]),
            ("SELECT msg_id, read_ct FROM pgmq.pop('q', 2)", &["2|1", "3|0"]),
            ("SELECT msg_id FROM pgmq.q_q", &["4"]),
            ("SELECT count(*) FROM pgmq.a_q", &["0"]),
        ],
    )
}
