//! Deleting, archiving, setting the visibility.

use crate::common::{expect, made};
use anyhow::Result;

#[test]
fn any_message_is_deleted_or_archived_leased_or_not() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    client.batch_execute("SELECT pgmq.create('q'); SELECT pgmq.send_batch('q', '{1,2,3,4,5,6}')")?;
    expect(&mut other, &[("SELECT msg_id FROM pgmq.read('q', 3600, 3)", &["1", "2", "3"])])?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.delete('q', 1), pgmq.delete('q', 1), pgmq.delete('q', NULL::bigint)", &["t|f|f"]),
            ("SELECT * FROM pgmq.delete('q', ARRAY[4, 4, 999, NULL])", &["4"]),
            ("SELECT * FROM pgmq.delete('q', NULL::bigint[])", &[]),
            ("SELECT pgmq.archive('q', 2), pgmq.archive('q', 2), pgmq.archive('q', NULL::bigint)", &["t|f|f"]),
            ("SELECT * FROM pgmq.archive('q', ARRAY[5, 999, NULL])", &["5"]),
            ("SELECT * FROM pgmq.archive('q', '{}'::bigint[])", &[]),
            (
                "SELECT msg_id, read_ct, message, headers, archived_at <= now(), vt IS NOT NULL FROM pgmq.a_q ORDER BY 1",
                &["2|1|2||t|t", "5|0|5||t|t"],
            ),
            ("SELECT msg_id FROM pgmq.q_q ORDER BY 1", &["3", "6"]),
            ("SELECT queue_length, total_messages FROM pgmq.metrics('q')", &["2|6"]),
            ("SELECT queue_name, queue_length FROM pgmq.metrics_all()", &["q|2"]),
        ],
    )
}

#[test]
fn the_visibility_of_any_message_is_set() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    client.batch_execute("SELECT pgmq.create('q'); SELECT pgmq.send_batch('q', '{1,2,3}')")?;
    expect(
        &mut client,
        &[
            ("SELECT msg_id FROM pgmq.read('q', 3600, 1)", &["1"]),
            (
                "SELECT msg_id, read_ct, message, vt > now() + interval '59 minutes' FROM pgmq.set_vt('q', 2, 3600)",
                &["2|0|2|t"],
            ),
            ("SELECT msg_id, read_ct, vt <= now() FROM pgmq.set_vt('q', 1, -1)", &["1|1|t"]),
            ("SELECT msg_id, vt = '2020-01-01 UTC' FROM pgmq.set_vt('q', 1, '2020-01-01 UTC'::timestamptz)", &["1|t"]),
            ("SELECT * FROM pgmq.set_vt('q', 999, 5)", &[]),
        ],
    )?;
    expect(&mut other, &[("SELECT msg_id, read_ct FROM pgmq.read('q', 0, 3) ORDER BY 1", &["1|2", "3|1"])])?;
    expect(
        &mut client,
        &[
            ("SELECT msg_id FROM pgmq.set_vt('q', ARRAY[3, 1, 999, NULL], 3600) ORDER BY 1", &["1", "3"]),
            ("SELECT msg_id FROM pgmq.set_vt('q', ARRAY[2], now() + interval '1 hour')", &["2"]),
            ("SELECT count(*) FROM pgmq.read('q', 0, 3)", &["0"]),
            ("SELECT queue_length, queue_visible_length FROM pgmq.metrics('q')", &["3|0"]),
        ],
    )
}
