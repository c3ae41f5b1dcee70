//! Sending, one by one and in batches, with every set of arguments.

use crate::common::{expect, made, refused_with_hint};
use anyhow::Result;

#[test]
fn every_form_of_send_stores_its_message_headers_and_time() -> Result<()> {
    let (_database, mut client, _) = made()?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.create('q')", &[""]),
            ("SELECT * FROM pgmq.send('q', '{\"a\": 1}')", &["1"]),
            ("SELECT * FROM pgmq.send('q', '2', '{\"h\": 1}'::jsonb)", &["2"]),
            ("SELECT * FROM pgmq.send('q', '3', 3600)", &["3"]),
            ("SELECT * FROM pgmq.send('q', '4', now() + interval '1 hour')", &["4"]),
            ("SELECT * FROM pgmq.send('q', '5', '{\"h\": 2}', 0)", &["5"]),
            (
                "SELECT * FROM pgmq.send(queue_name => 'q', msg => '6', headers => '{}', delay => '2020-01-01'::timestamptz)",
                &["6"],
            ),
            ("SELECT * FROM pgmq.send('q', '7', -5)", &["7"]),
            ("SELECT * FROM pgmq.send_batch('q', ARRAY['8', '9']::jsonb[])", &["8", "9"]),
            (
                "SELECT * FROM pgmq.send_batch('q', ARRAY['10', '11']::jsonb[], ARRAY['{\"h\": 3}', NULL]::jsonb[])",
                &["10", "11"],
            ),
            ("SELECT * FROM pgmq.send_batch('q', ARRAY['12']::jsonb[], 3600)", &["12"]),
            ("SELECT * FROM pgmq.send_batch('q', ARRAY['13']::jsonb[], now() + interval '1 hour')", &["13"]),
            ("SELECT * FROM pgmq.send_batch('q', ARRAY['14']::jsonb[], ARRAY['{\"h\": 4}']::jsonb[], 0)", &["14"]),
            ("SELECT * FROM pgmq.send_batch('q', ARRAY['15']::jsonb[], ARRAY['{}']::jsonb[], now())", &["15"]),
            (
                "SELECT msg_id, read_ct, message, headers, vt > clock_timestamp() FROM pgmq.q_q ORDER BY 1",
                &[
                    "1|0|{\"a\": 1}||f",
                    "2|0|2|{\"h\": 1}|f",
                    "3|0|3||t",
                    "4|0|4||t",
                    "5|0|5|{\"h\": 2}|f",
                    "6|0|6|{}|f",
                    "7|0|7||f",
                    "8|0|8||f",
                    "9|0|9||f",
                    "10|0|10|{\"h\": 3}|f",
                    "11|0|11||f",
                    "12|0|12||t",
                    "13|0|13||t",
                    "14|0|14|{\"h\": 4}|f",
                    "15|0|15|{}|f",
                ],
            ),
            (
                "SELECT queue_length, queue_visible_length, total_messages, newest_msg_age_sec, oldest_msg_age_sec, \
                 default_partition_length, queue_name FROM pgmq.metrics('q')",
                &["15|11|15|0|0||q"],
            ),
        ],
    )
}

#[test]
fn a_batch_is_refused_where_it_is_empty_or_its_headers_are_too_few() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('q')")?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.send_batch('q', '{}')", &["P0001 msgs cannot be NULL or empty"]),
            ("SELECT pgmq.send_batch('q', NULL)", &["P0001 msgs cannot be NULL or empty"]),
            (
                "SELECT pgmq.send_batch('q', '{1,2}', '{1}'::jsonb[])",
                &["P0001 headers array length (1) must match msgs array length (2)"],
            ),
            (
                "SELECT pgmq.send_batch('q', '{1,2}', '{}'::jsonb[])",
                &["P0001 headers array length (0) must match msgs array length (2)"],
            ),
        ],
    )?;
    refused_with_hint(&mut client, "SELECT pgmq.send_batch('q', '{}')", "P0001")?;
    // pgmq stores NULL; a message of pg_enough is not NULL.
    refused_with_hint(&mut client, "SELECT pgmq.send('q', NULL)", "22004")
}

#[test]
fn a_batch_of_any_size_is_sent_read_and_deleted() -> Result<()> {
    let (_database, mut client, _) = made()?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.create('q')", &[""]),
            (
                "SELECT count(*), min(id), max(id) FROM pgmq.send_batch('q', (SELECT array_agg(to_jsonb(n)) FROM \
              generate_series(1, 25000) AS n), (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 25000) AS n)) AS s(id)",
                &["25000|1|25000"],
            ),
            ("SELECT count(*), bool_and(message = headers) FROM pgmq.read('q', 100, NULL)", &["25000|t"]),
            ("SELECT count(*) FROM pgmq.set_vt('q', ARRAY(SELECT generate_series(1, 25001)), 0)", &["25000"]),
            ("SELECT count(*) FROM pgmq.archive('q', ARRAY(SELECT generate_series(1, 12000)))", &["12000"]),
            ("SELECT count(*) FROM pgmq.delete('q', ARRAY(SELECT generate_series(1, 25001)))", &["13000"]),
            ("SELECT queue_length, total_messages FROM pgmq.metrics('q')", &["0|25000"]),
        ],
    )
}
