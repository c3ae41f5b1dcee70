//! Topics.

use crate::common::{expect, made, refused_with_hint};
use anyhow::Result;

#[test]
fn each_queue_whose_pattern_matches_gets_the_message_once() -> Result<()> {
    let (_database, mut client, _) = made()?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.create('a'), pgmq.create('b'), pgmq.create('C')", &["||"]),
            (
                "SELECT pgmq.bind_topic('logs.*', 'a'), pgmq.bind_topic('*.error', 'a'), pgmq.bind_topic('logs.*', 'a'), \
                 pgmq.bind_topic('logs.#', 'b'), pgmq.bind_topic('#', 'C')",
                &["||||"],
            ),
            (
                "SELECT * FROM pgmq.test_routing('logs.error')",
                &["#|C|^.*$", "*.error|a|^[^.]+\\.error$", "logs.#|b|^logs\\..*$", "logs.*|a|^logs\\.[^.]+$"],
            ),
            ("SELECT queue_name FROM pgmq.test_routing('logs.x.error')", &["C", "b"]),
            (
                "SELECT pattern, queue_name FROM pgmq.list_topic_bindings() ORDER BY 1",
                &["#|C", "*.error|a", "logs.#|b", "logs.*|a"],
            ),
            (
                "SELECT pattern, bound_at <= now(), compiled_regex FROM pgmq.list_topic_bindings('a')",
                &["*.error|t|^[^.]+\\.error$", "logs.*|t|^logs\\.[^.]+$"],
            ),
            (
                "SELECT pgmq.send_topic('logs.error', '1'), pgmq.send_topic('logs.error', '2', 5), \
                 pgmq.send_topic('logs.x.y', '3', '{\"h\": 1}', 0), pgmq.send_topic('else', '4')",
                &["3|3|2|1"],
            ),
            ("SELECT * FROM pgmq.send_batch_topic('a.error', '{5,6}')", &["C|5", "C|6", "a|3", "a|4"]),
            ("SELECT * FROM pgmq.send_batch_topic('else', '{7}', ARRAY['{\"h\": 2}']::jsonb[])", &["C|7"]),
            ("SELECT * FROM pgmq.send_batch_topic('else', '{8}', 3600)", &["C|8"]),
            ("SELECT * FROM pgmq.send_batch_topic('else', '{9}', now() + interval '1 hour')", &["C|9"]),
            ("SELECT * FROM pgmq.send_batch_topic('else', '{10}', ARRAY['{}']::jsonb[], 3600)", &["C|10"]),
            ("SELECT * FROM pgmq.send_batch_topic('else', '{11}', ARRAY['{}']::jsonb[], now())", &["C|11"]),
            (
                "SELECT message, headers, vt > now() FROM pgmq.q_c WHERE msg_id > 6 ORDER BY msg_id",
                &["7|{\"h\": 2}|f", "8||t", "9||t", "10|{}|t", "11|{}|f"],
            ),
            ("SELECT pgmq.unbind_topic('logs.*', 'a'), pgmq.unbind_topic('logs.*', 'a')", &["t|f"]),
            ("SELECT pgmq.drop_queue('a')", &["t"]),
            ("SELECT pattern FROM pgmq.list_topic_bindings() ORDER BY 1", &["#", "logs.#"]),
        ],
    )
}

#[test]
fn what_means_something_in_a_regular_expression_stands_for_itself() -> Result<()> {
    let (_database, mut client, _) = made()?;
    expect(
        &mut client,
        &[
            ("SELECT pgmq.create('a')", &[""]),
            (
                r"INSERT INTO pgmq.topic_bindings VALUES ('a.b[c](d){e}|f^g$h\i?+', 'a') RETURNING compiled_regex",
                &[r"^a\.b\[c\]\(d\)\{e\}\|f\^g\$h\\i\?\+$"],
            ),
        ],
    )
}

#[test]
fn keys_and_patterns_that_are_none_are_refused() -> Result<()> {
    let (_database, mut client, _) = made()?;
    client.batch_execute("SELECT pgmq.create('a')")?;
    let long = "a".repeat(256);
    let alphabet = "Only alphanumeric, dots, hyphens, and underscores are allowed";
    for (key, message) in [
        ("", "routing_key cannot be NULL or empty".to_owned()),
        (&long, "routing_key length cannot exceed 255 characters, got 256 characters".into()),
        ("a b", format!("routing_key contains invalid characters. {alphabet}. Got: a b")),
        ("a.*", format!("routing_key contains invalid characters. {alphabet}. Got: a.*")),
        (".a", "routing_key cannot start with a dot. Got: .a".into()),
        ("a.", "routing_key cannot end with a dot. Got: a.".into()),
        ("a..b", "routing_key cannot contain consecutive dots. Got: a..b".into()),
    ] {
        for call in [
            "validate_routing_key('{}')",
            "send_topic('{}', '1')",
            "test_routing('{}')",
            "send_batch_topic('{}', '{1}')",
        ] {
            let statement = format!("SELECT pgmq.{}", call.replacen("{}", key, 1));
            expect(&mut client, &[(&statement, &[&format!("P0001 {message}")])])?;
        }
    }
    let alphabet = "Only alphanumeric, dots, hyphens, underscores, *, and # are allowed";
    for (pattern, message) in [
        ("", "pattern cannot be NULL or empty".to_owned()),
        ("a b", format!("pattern contains invalid characters. {alphabet}. Got: a b")),
        (".a", "pattern cannot start with a dot. Got: .a".into()),
        ("a.**", "pattern cannot contain consecutive stars (**). Use # for multi-segment matching. Got: a.**".into()),
        (
            "##",
            "pattern cannot contain consecutive hashes (##). A single # already matches zero or more segments. Got: ##"
                .into(),
        ),
        (
            "a.*#",
            "pattern cannot contain adjacent wildcards (*# or #*). Separate wildcards with dots. Got: a.*#".into(),
        ),
    ] {
        for call in ["validate_topic_pattern('{}')", "bind_topic('{}', 'a')"] {
            let statement = format!("SELECT pgmq.{}", call.replacen("{}", pattern, 1));
            expect(&mut client, &[(&statement, &[&format!("P0001 {message}")])])?;
        }
    }
    expect(
        &mut client,
        &[
            ("SELECT pgmq.validate_routing_key('a-b_c.D.9'), pgmq.validate_topic_pattern('a-b_c.*.#')", &["t|t"]),
            (
                "SELECT pgmq.bind_topic('a', 'nope')",
                &["P0001 Queue \"nope\" does not exist. Create the queue first using pgmq.create()"],
            ),
            ("SELECT pgmq.bind_topic('a', '')", &["P0001 queue_name cannot be NULL or empty"]),
            ("SELECT pgmq.unbind_topic(NULL, 'a')", &["P0001 pattern cannot be NULL or empty"]),
            ("SELECT pgmq.send_topic('a', NULL)", &["P0001 msg cannot be NULL"]),
            ("SELECT pgmq.send_topic('a', '1', -1)", &["P0001 delay cannot be negative, got: -1"]),
            ("SELECT pgmq.send_batch_topic('a', '{}')", &["P0001 msgs cannot be NULL or empty"]),
        ],
    )?;
    refused_with_hint(&mut client, "SELECT pgmq.bind_topic('a', 'nope')", "P0001")
}
