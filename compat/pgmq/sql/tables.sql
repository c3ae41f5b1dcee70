-- Tables and types. Their columns, and the order of those, are pgmq's: drivers read rows by position.

CREATE TABLE pgmq.meta (
    queue_name     varchar NOT NULL UNIQUE,
    is_partitioned boolean NOT NULL,
    is_unlogged    boolean NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgmq.meta IS
'The queues that pgmq.create() and its siblings have made, by the names that they were given. The queue itself is one of pg_enough.';

CREATE UNLOGGED TABLE pgmq.notify_insert_throttle (
    queue_name           varchar NOT NULL UNIQUE
        CONSTRAINT notify_insert_throttle_meta_queue_name_fk REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
    throttle_interval_ms integer NOT NULL DEFAULT 0,
    last_notified_at     timestamptz NOT NULL DEFAULT to_timestamp(0)
);
COMMENT ON TABLE pgmq.notify_insert_throttle IS
'Queues that notify their listeners of inserts: at most once in so many milliseconds, 0 for each insert. Written by pgmq.enable_notify_insert() and by senders.';

CREATE TABLE pgmq.topic_bindings (
    pattern        text NOT NULL,
    queue_name     text NOT NULL
        CONSTRAINT topic_bindings_meta_queue_name_fk REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
    bound_at       timestamptz NOT NULL DEFAULT now(),
    -- * is one word, # any number of words; all else that means something in a regular expression stands for itself.
    compiled_regex text GENERATED ALWAYS AS (
        '^' || replace(replace(regexp_replace(pattern, '([].+?(){}|\\^$[])', '\\\1', 'g'), '*', '[^.]+'), '#', '.*') || '$'
    ) STORED,
    CONSTRAINT topic_bindings_unique_pattern_queue UNIQUE (pattern, queue_name)
);
COMMENT ON TABLE pgmq.topic_bindings IS
'Which queues get what is sent to which topics. Written by pgmq.bind_topic() and pgmq.unbind_topic().';

SELECT pg_extension_config_dump('pgmq.meta', '');
SELECT pg_extension_config_dump('pgmq.notify_insert_throttle', '');
SELECT pg_extension_config_dump('pgmq.topic_bindings', '');

CREATE TYPE pgmq.message_record AS (
    msg_id       bigint,
    read_ct      integer,
    enqueued_at  timestamptz,
    last_read_at timestamptz,
    vt           timestamptz,
    message      jsonb,
    headers      jsonb
);
CREATE TYPE pgmq.queue_record AS (
    queue_name     varchar,
    is_partitioned boolean,
    is_unlogged    boolean,
    created_at     timestamptz
);
CREATE TYPE pgmq.metrics_result AS (
    queue_name               text,
    queue_length             bigint,
    newest_msg_age_sec       integer,
    oldest_msg_age_sec       integer,
    total_messages           bigint,
    scrape_time              timestamptz,
    queue_visible_length     bigint,
    default_partition_length bigint
);

GRANT USAGE ON SCHEMA pgmq TO pg_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA pgmq TO pg_monitor;
ALTER DEFAULT PRIVILEGES IN SCHEMA pgmq GRANT SELECT ON TABLES TO pg_monitor;
