//! What a transaction has done shows in it; what it hasn't committed has not been.

use crate::common::{expect, made};
use anyhow::Result;

#[test]
fn a_transaction_reads_what_it_has_sent() -> Result<()> {
    let (_database, mut client, mut other) = made()?;
    client.batch_execute("SELECT pgmq.create('q')")?;
    expect(
        &mut client,
        &[
            ("BEGIN", &[]),
            ("SELECT pgmq.send_batch('q', ARRAY['{\"n\": 1}', '{\"n\": 2}']::jsonb[])", &["1", "2"]),
            ("SELECT msg_id, read_ct, vt - last_read_at FROM pgmq.read('q', 3600, 1)", &["1|1|01:00:00"]),
            ("SELECT msg_id FROM pgmq.read_with_poll('q', 0, 1, 600)", &["2"]),
            ("SELECT msg_id, read_ct FROM pgmq.read('q', 0, 5, '{\"n\": 2}')", &["2|2"]),
            ("SELECT msg_id FROM pgmq.set_vt('q', 1, 0)", &["1"]),
            ("SELECT msg_id, read_ct FROM pgmq.read_grouped('q', 3600, 5)", &["1|2", "2|3"]),
            ("SELECT msg_id, read_ct, vt > now() FROM pgmq.q_q ORDER BY 1", &["1|2|t", "2|3|t"]),
        ],
    )?;
    expect(&mut other, &[("SELECT count(*) FROM pgmq.read('q', 0, 5)", &["0"])])?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.delete('q', 1)", &["t"]),
            ("COMMIT", &[]),
            ("SELECT queue_length, queue_visible_length FROM pgmq.metrics('q')", &["1|0"]),
            ("BEGIN", &[]),
            ("SELECT pgmq.send('q', '3')", &["3"]),
            ("SELECT msg_id, read_ct, message FROM pgmq.pop('q', 5)", &["3|0|3"]),
            ("COMMIT", &[]),
            ("SELECT queue_length FROM pgmq.metrics('q')", &["1"]),
        ],
    )
}

#[test]
fn a_read_that_is_rolled_back_has_not_been() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('q'); SELECT pgmq.send_batch('q', '{1,2}')")?;
    for call in [
        "read('q', 3600, 2)",
        "read_grouped('q', 3600, 2)",
        "read_grouped_rr('q', 3600, 2)",
        "read('q', 3600, 2, '1')",
        "pop('q', 2)",
    ] {
        let statement = format!("SELECT DISTINCT read_ct FROM pgmq.{call}");
        let expected: &[&str] = if call.starts_with("pop") { &["0"] } else { &["1"] };
        expect(&mut client, &[("BEGIN", &[]), (&statement, expected), ("ROLLBACK", &[])])?;
    }
    expect(
        &mut client,
        &[
            ("BEGIN", &[]),
            ("SELECT msg_id FROM pgmq.set_vt('q', 1, 3600)", &["1"]),
            ("SELECT pgmq.archive('q', 2)", &["t"]),
            ("SELECT pgmq.send('q', '3')", &["3"]),
            ("ROLLBACK", &[]),
            ("SELECT msg_id, read_ct FROM pgmq.read('q', 0, 5)", &["1|1", "2|1"]),
            ("BEGIN", &[]),
            ("SELECT pgmq.create('other')", &[""]),
            ("SELECT pgmq.send('other', '1')", &["1"]),
            ("SELECT message FROM pgmq.read('other', 0, 5)", &["1"]),
            ("ROLLBACK", &[]),
            ("SELECT queue_name FROM pgmq.list_queues()", &["q"]),
        ],
    )
}
