-- The extension's own tables, and the types of rows that functions return: what an upgrade changes by hand, in
-- sql/upgrades/, while it takes all functions from the other files. New columns come last and have a default, so that the
-- data of a dump from an earlier version can be loaded.

CREATE TABLE enough.queue (
    name               text PRIMARY KEY,
    created_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    visibility_timeout interval NOT NULL,
    max_attempts       int NOT NULL,
    retry_backoff      interval NOT NULL,
    retry_backoff_max  interval NOT NULL,
    max_in_flight      int,
    max_rate           int,
    rate_period        interval NOT NULL,
    archive_for        interval,
    paused             boolean NOT NULL DEFAULT false,
    durable_attempts   boolean NOT NULL DEFAULT false,
    ack                text NOT NULL DEFAULT 'durable',
    group_limit        int NOT NULL DEFAULT 1,
    dead_letter_queue  text,
    notify             boolean NOT NULL DEFAULT false,
    dedup              text NOT NULL DEFAULT 'live',
    dedup_for          interval NOT NULL DEFAULT '5 minutes',
    group_rate         int,
    group_rate_period  interval NOT NULL DEFAULT '1 second'
);
COMMENT ON TABLE enough.queue IS
'The queues of this database and their options. Written by queue_create, queue_alter, queue_pause, queue_resume and queue_drop. NULL is no limit (archive_for: keeps the archive for ever); max_attempts 0 and group_limit 0 are no limit.';
-- A role that may use a queue has to know its options; payloads are in its own tables.
GRANT SELECT ON enough.queue TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.queue', '');

CREATE TABLE enough.queue_key (
    queue     text NOT NULL REFERENCES enough.queue (name) ON UPDATE CASCADE ON DELETE CASCADE,
    dedup_key text COLLATE pg_catalog."C" NOT NULL,
    msg_id    bigint NOT NULL,
    until     timestamptz NOT NULL,
    PRIMARY KEY (queue, dedup_key)
);
CREATE INDEX queue_key_until ON enough.queue_key (until);
COMMENT ON TABLE enough.queue_key IS
'Which dedup keys are taken until when in queues with dedup window, and by which message. Written by sends; maintain() removes what is over; follows the rows of enough.queue.';
SELECT pg_catalog.pg_extension_config_dump('enough.queue_key', '');

CREATE TABLE enough.topic_subscription (
    queue         text NOT NULL REFERENCES enough.queue (name) ON UPDATE CASCADE ON DELETE CASCADE,
    topic_pattern text COLLATE pg_catalog."C" NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (queue, topic_pattern)
);
COMMENT ON TABLE enough.topic_subscription IS
'Which queues get what is published to which topics. Written by topic_subscribe and topic_unsubscribe; follows the rows of enough.queue.';
GRANT SELECT ON enough.topic_subscription TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.topic_subscription', '');

CREATE TABLE enough.rate_limit_policy (
    name         text NOT NULL,
    max_requests integer NOT NULL,
    period       interval,
    algorithm    text NOT NULL,
    burst        integer,
    shadow       boolean NOT NULL,
    rule         smallint NOT NULL DEFAULT 1,
    calendar     text,
    time_zone    text NOT NULL DEFAULT 'UTC',
    since        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (name, rule)
);
COMMENT ON TABLE enough.rate_limit_policy IS
'The policies of rate_limit_by(), a row for each rule. Written by rate_limit_policy_set(), rate_limit_policy_add() and rate_limit_policy_drop(). burst NULL is max_requests; period is NULL where calendar is not; since is when the rule last got another algorithm or period.';

CREATE TABLE enough.rate_limit_override (
    policy       text NOT NULL,
    key          text NOT NULL,
    max_requests integer,
    PRIMARY KEY (policy, key)
);
COMMENT ON TABLE enough.rate_limit_override IS
'What single keys are allowed instead of the first rule''s max_requests; NULL: no limit. Written by rate_limit_policy_override() and rate_limit_policy_override_drop(); rate_limit_policy_drop() removes those of its policy.';

-- A role that asks by a policy has to read it; the right to write one is for the owner to grant.
GRANT SELECT ON enough.rate_limit_policy, enough.rate_limit_override TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.rate_limit_policy', '');
SELECT pg_catalog.pg_extension_config_dump('enough.rate_limit_override', '');

CREATE TABLE enough.space (
    name text PRIMARY KEY,
    gone bigint NOT NULL
);
COMMENT ON TABLE enough.space IS
'Up to which version a key-value space has lost changes: rows of keys that were deleted a day ago, what TRUNCATE took, all of a space that was dropped. Written by maintain(), kv_drop() and the triggers of the spaces'' tables; kv_watch() goes by it, and kv_create() begins behind it.';
GRANT SELECT ON enough.space TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.space', '');

CREATE UNLOGGED TABLE enough.unlogged_space (
    name text PRIMARY KEY
);
COMMENT ON TABLE enough.unlogged_space IS
'The unlogged key-value spaces that no crash has emptied since kv_create(), kv_watch() or maintain() last looked: a crash empties this table as well.';

CREATE TYPE enough.kv_change AS (
    version    bigint,
    value      jsonb,
    updated_at timestamptz
);
COMMENT ON TYPE enough.kv_change IS
'A version of before, in the column past of a space''s table where the space keeps them. value is NULL where the key was deleted.';

CREATE TYPE enough.queue_message AS (
    msg_id       bigint,
    attempts     int,
    enqueued_at  timestamptz,
    leased_until timestamptz,
    lease        bigint,
    priority     smallint,
    group_key    text,
    headers      jsonb,
    message      jsonb
);
COMMENT ON TYPE enough.queue_message IS
'A message as queue_read, queue_pop and queue_peek return it. attempts counts this delivery: 1 the first time. lease is the number that fences queue_delete, queue_archive, queue_fail, queue_release, queue_extend and their batches; NULL, like leased_until, where the message is deleted already.';

CREATE TYPE enough.queue_statistics AS (
    queue           text,
    ready           bigint,
    leased          bigint,
    delayed         bigint,
    dead            bigint,
    archived        bigint,
    oldest_ready    interval,
    sent_total      bigint,
    delivered_total bigint,
    finished_total  bigint,
    failed_total    bigint,
    paused          boolean,
    wait_p50        interval,
    wait_p99        interval,
    run_p50         interval,
    run_p99         interval,
    oldest_lease    interval
);
COMMENT ON TYPE enough.queue_statistics IS
'What a queue holds and has seen, as queue_stats returns it. (A type, because a result column may not be called like an argument.)';
