//! The functions and types of pgmq 1.13.0, with their arguments' names, types and defaults: what its clients call.

use crate::common::{made, rows};
use anyhow::{Result, ensure};

const FUNCTIONS: [&str; 76] = [
    "_belongs_to_pgmq(table_name text) boolean",
    "_create_fifo_index_if_not_exists(queue_name text) void",
    "_ensure_pg_partman_installed() void",
    "_extension_exists(extension_name text) boolean",
    "_get_partition_col(partition_interval text) text",
    "_get_pg_partman_major_version() integer",
    "_get_pg_partman_schema() text",
    "_send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamp with time zone) SETOF bigint",
    "_validate_batch_params(msgs jsonb[], headers jsonb[]) void",
    "acquire_queue_lock(queue_name text) void",
    "archive(queue_name text, msg_id bigint) boolean",
    "archive(queue_name text, msg_ids bigint[]) SETOF bigint",
    "bind_topic(pattern text, queue_name text) void",
    "convert_archive_partitioned(table_name text, partition_interval text DEFAULT '10000'::text, retention_interval text DEFAULT '100000'::text, leading_partition integer DEFAULT 10) void",
    "create(queue_name text) void",
    "create_fifo_index(queue_name text) void",
    "create_fifo_indexes_all() void",
    "create_non_partitioned(queue_name text) void",
    "create_partitioned(queue_name text, partition_interval text DEFAULT '10000'::text, retention_interval text DEFAULT '100000'::text, premake integer DEFAULT 4) void",
    "create_unlogged(queue_name text) void",
    "delete(queue_name text, msg_id bigint) boolean",
    "delete(queue_name text, msg_ids bigint[]) SETOF bigint",
    "detach_archive(queue_name text) void",
    "disable_notify_insert(queue_name text) void",
    "drop_queue(queue_name text) boolean",
    "drop_queue(queue_name text, partitioned boolean) boolean",
    "enable_notify_insert(queue_name text, throttle_interval_ms integer DEFAULT 250) void",
    "format_table_name(queue_name text, prefix text) text",
    "list_notify_insert_throttles() TABLE(queue_name text, throttle_interval_ms integer, last_notified_at timestamp with time zone)",
    "list_queues() SETOF pgmq.queue_record",
    "list_topic_bindings() TABLE(pattern text, queue_name text, bound_at timestamp with time zone, compiled_regex text)",
    "list_topic_bindings(queue_name text) TABLE(pattern text, queue_name text, bound_at timestamp with time zone, compiled_regex text)",
    "metrics(queue_name text) pgmq.metrics_result",
    "metrics_all() SETOF pgmq.metrics_result",
    "notify_queue_listeners() trigger",
    "pop(queue_name text, qty integer DEFAULT 1) SETOF pgmq.message_record",
    "purge_queue(queue_name text) bigint",
    "read(queue_name text, vt integer, qty integer, conditional jsonb DEFAULT '{}'::jsonb) SETOF pgmq.message_record",
    "read_grouped(queue_name text, vt integer, qty integer) SETOF pgmq.message_record",
    "read_grouped_head(queue_name text, vt integer, qty integer) SETOF pgmq.message_record",
    "read_grouped_head_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100) SETOF pgmq.message_record",
    "read_grouped_rr(queue_name text, vt integer, qty integer) SETOF pgmq.message_record",
    "read_grouped_rr_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100) SETOF pgmq.message_record",
    "read_grouped_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100) SETOF pgmq.message_record",
    "read_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100, conditional jsonb DEFAULT '{}'::jsonb) SETOF pgmq.message_record",
    "send(queue_name text, msg jsonb) SETOF bigint",
    "send(queue_name text, msg jsonb, delay integer) SETOF bigint",
    "send(queue_name text, msg jsonb, delay timestamp with time zone) SETOF bigint",
    "send(queue_name text, msg jsonb, headers jsonb) SETOF bigint",
    "send(queue_name text, msg jsonb, headers jsonb, delay integer) SETOF bigint",
    "send(queue_name text, msg jsonb, headers jsonb, delay timestamp with time zone) SETOF bigint",
    "send_batch(queue_name text, msgs jsonb[]) SETOF bigint",
    "send_batch(queue_name text, msgs jsonb[], delay integer) SETOF bigint",
    "send_batch(queue_name text, msgs jsonb[], delay timestamp with time zone) SETOF bigint",
    "send_batch(queue_name text, msgs jsonb[], headers jsonb[]) SETOF bigint",
    "send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay integer) SETOF bigint",
    "send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamp with time zone) SETOF bigint",
    "send_batch_topic(routing_key text, msgs jsonb[]) TABLE(queue_name text, msg_id bigint)",
    "send_batch_topic(routing_key text, msgs jsonb[], delay integer) TABLE(queue_name text, msg_id bigint)",
    "send_batch_topic(routing_key text, msgs jsonb[], delay timestamp with time zone) TABLE(queue_name text, msg_id bigint)",
    "send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[]) TABLE(queue_name text, msg_id bigint)",
    "send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[], delay integer) TABLE(queue_name text, msg_id bigint)",
    "send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[], delay timestamp with time zone) TABLE(queue_name text, msg_id bigint)",
    "send_topic(routing_key text, msg jsonb) integer",
    "send_topic(routing_key text, msg jsonb, delay integer) integer",
    "send_topic(routing_key text, msg jsonb, headers jsonb, delay integer) integer",
    "set_vt(queue_name text, msg_id bigint, vt integer) SETOF pgmq.message_record",
    "set_vt(queue_name text, msg_id bigint, vt timestamp with time zone) SETOF pgmq.message_record",
    "set_vt(queue_name text, msg_ids bigint[], vt integer) SETOF pgmq.message_record",
    "set_vt(queue_name text, msg_ids bigint[], vt timestamp with time zone) SETOF pgmq.message_record",
    "test_routing(routing_key text) TABLE(pattern text, queue_name text, compiled_regex text)",
    "unbind_topic(pattern text, queue_name text) boolean",
    "update_notify_insert(queue_name text, throttle_interval_ms integer) void",
    "validate_queue_name(queue_name text) void",
    "validate_routing_key(routing_key text) boolean",
    "validate_topic_pattern(pattern text) boolean",
];

/// Types, with their fields in order.
const TYPES: [&str; 3] = [
    "message_record|msg_id bigint, read_ct integer, enqueued_at timestamp with time zone, last_read_at timestamp with time zone, vt timestamp with time zone, message jsonb, headers jsonb",
    "metrics_result|queue_name text, queue_length bigint, newest_msg_age_sec integer, oldest_msg_age_sec integer, total_messages bigint, scrape_time timestamp with time zone, queue_visible_length bigint, default_partition_length bigint",
    "queue_record|queue_name character varying, is_partitioned boolean, is_unlogged boolean, created_at timestamp with time zone",
];

#[test]
fn every_function_and_type_is_there() -> Result<()> {
    let (_database, mut client, _) = made()?;
    let there = rows(
        &mut client,
        "SELECT proname || '(' || pg_get_function_arguments(oid) || ') ' || pg_get_function_result(oid) FROM pg_proc \
         WHERE pronamespace = 'pgmq'::regnamespace",
    );
    for function in FUNCTIONS {
        ensure!(there.iter().any(|one| one == function), "there is no {function} among {there:#?}");
    }
    let types = rows(
        &mut client,
        "SELECT t.typname, string_agg(a.attname || ' ' || format_type(a.atttypid, NULL), ', ' ORDER BY a.attnum) \
           FROM pg_type AS t JOIN pg_class AS c ON c.oid = t.typrelid JOIN pg_attribute AS a ON a.attrelid = c.oid \
          WHERE c.relkind = 'c' AND t.typnamespace = 'pgmq'::regnamespace GROUP BY 1 ORDER BY 1",
    );
    ensure!(types == TYPES, "{types:#?}");
    Ok(())
}

#[test]
fn every_function_that_callers_see_says_what_it_does() -> Result<()> {
    let (_database, mut client, _) = made()?;
    let silent = rows(
        &mut client,
        "SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace AND NOT starts_with(proname, '_') \
            AND obj_description(oid, 'pg_proc') IS NULL",
    );
    ensure!(silent.is_empty(), "{silent:#?}");
    Ok(())
}
