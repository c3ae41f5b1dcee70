-- From 0.1.0. What other objects of the user depend on isn't dropped: then the upgrade fails, names them, and changes nothing.

-- Functions that have got further arguments or columns.
DROP FUNCTION enough.cache_incr(text, bigint, interval);
DROP FUNCTION enough.cache_set_bytes(text, bytea, interval, text[]);
DROP FUNCTION enough.cache_get_bytes(text);
DROP FUNCTION enough.cache_fetch(text, interval, text, jsonb, interval, text[]);
DROP FUNCTION enough.cache_stats();
DROP FUNCTION enough.rate_limit_stats();
DROP FUNCTION enough.rate_limit_enforce(text, integer, interval, integer, text, integer);
DROP FUNCTION enough.rate_limit_policy_set(text, integer, interval, text, integer, boolean);
DROP FUNCTION enough.queue_create(text, interval, integer, interval, interval, integer, integer, interval, interval, boolean, boolean);
DROP FUNCTION enough.queue_alter(text, interval, integer, interval, interval, integer, integer, interval, interval, boolean);
DROP FUNCTION enough.queue_list();
DROP FUNCTION enough.queue_schedules();
DROP FUNCTION enough.queue_fail(text, bigint, text, interval, bigint);
DROP FUNCTION enough.queue_send(text, jsonb, interval, integer, text, text, jsonb, timestamptz);
DROP FUNCTION enough.queue_send_batch(text, jsonb[], interval, integer, text[], text[], jsonb[], timestamptz);
DROP FUNCTION enough.queue_read(text, integer, interval, interval);
DROP FUNCTION enough.queue_peek(text, integer, text);
DROP FUNCTION enough.queue_redrive(text, bigint[]);
DROP FUNCTION enough.queue_delete_batch(text, bigint[]);
DROP FUNCTION enough.queue_archive_batch(text, bigint[]);

-- What queue_stats() returns has further columns.
ALTER TYPE enough.queue_statistics
    ADD ATTRIBUTE wait_p50 interval, ADD ATTRIBUTE wait_p99 interval, ADD ATTRIBUTE run_p50 interval,
    ADD ATTRIBUTE run_p99 interval, ADD ATTRIBUTE oldest_lease interval;

-- A queue may note every delivery, not wait for the disk when messages are finished, lease several of a group at a time, limit how
-- often those of one are delivered, send its dead letters to another one, tell listeners when it becomes ready, and take a dedup key
-- twice while its message is worked on, or for a time.
ALTER TABLE enough.queue
    ADD durable_attempts boolean NOT NULL DEFAULT false,
    ADD ack text NOT NULL DEFAULT 'durable',
    ADD group_limit integer NOT NULL DEFAULT 1,
    ADD dead_letter_queue text,
    ADD notify boolean NOT NULL DEFAULT false,
    ADD dedup text NOT NULL DEFAULT 'live',
    ADD dedup_for interval NOT NULL DEFAULT '5 minutes',
    ADD group_rate integer,
    ADD group_rate_period interval NOT NULL DEFAULT '1 second';

-- In some queues a dedup key stays taken for a while.
CREATE TABLE enough.queue_key (
    queue     text NOT NULL REFERENCES enough.queue (name) ON UPDATE CASCADE ON DELETE CASCADE,
    dedup_key text COLLATE pg_catalog."C" NOT NULL,
    msg_id    bigint NOT NULL,
    until     timestamptz NOT NULL,
    PRIMARY KEY (queue, dedup_key)
);
CREATE INDEX queue_key_until ON enough.queue_key (until);
SELECT pg_catalog.pg_extension_config_dump('enough.queue_key', '');

-- Queues subscribe to topics.
CREATE TABLE enough.topic_subscription (
    queue         text NOT NULL REFERENCES enough.queue (name) ON UPDATE CASCADE ON DELETE CASCADE,
    topic_pattern text COLLATE pg_catalog."C" NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (queue, topic_pattern)
);
GRANT SELECT ON enough.topic_subscription TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.topic_subscription', '');

-- A policy may have several rules.
ALTER TABLE enough.rate_limit_policy
    ALTER period DROP NOT NULL,
    ADD rule smallint NOT NULL DEFAULT 1,
    ADD calendar text,
    ADD time_zone text NOT NULL DEFAULT 'UTC',
    ADD since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    DROP CONSTRAINT rate_limit_policy_pkey,
    ADD PRIMARY KEY (name, rule);
CREATE TABLE enough.rate_limit_override (
    policy       text NOT NULL,
    key          text NOT NULL,
    max_requests integer,
    PRIMARY KEY (policy, key)
);
GRANT SELECT ON enough.rate_limit_override TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.rate_limit_override', '');

-- Spaces of the key-value store.
CREATE TABLE enough.space (
    name text PRIMARY KEY,
    gone bigint NOT NULL
);
GRANT SELECT ON enough.space TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('enough.space', '');
CREATE UNLOGGED TABLE enough.unlogged_space (
    name text PRIMARY KEY
);
CREATE TYPE enough.kv_change AS (
    version    bigint,
    value      jsonb,
    updated_at timestamptz
);

-- @functions@

-- The queues' own tables: leases are no longer kept in rows, messages have limits of their own, and an archive has an index by
-- the end of messages.
DO $$
DECLARE
    queue record;
BEGIN
    FOR queue IN
        SELECT q.name,
               pg_catalog.to_regclass(pg_catalog.format('enough.%I', 'q_' OPERATOR(pg_catalog.||) q.name)) AS live,
               pg_catalog.to_regclass(pg_catalog.format('enough.%I', 'a_' OPERATOR(pg_catalog.||) q.name)) AS archive
          FROM enough.queue AS q ORDER BY q.name
    LOOP
        IF queue.live IS NOT NULL THEN
            EXECUTE pg_catalog.format('ALTER TABLE %s DROP COLUMN IF EXISTS lease, ADD COLUMN IF NOT EXISTS expires_at timestamptz, ADD COLUMN IF NOT EXISTS max_attempts int', queue.live);
        END IF;
        IF queue.archive IS NOT NULL THEN
            EXECUTE pg_catalog.format('CREATE INDEX IF NOT EXISTS %I ON %s USING btree (finished_at) WHERE (outcome OPERATOR(pg_catalog.=) ''done''::pg_catalog.text)',
                                      pg_catalog.format('i_%s_done', queue.name), queue.archive);
        END IF;
    END LOOP;
END $$;

-- Triggers of cache_tag_table(): they fire now for replicated rows, too.
DO $$
DECLARE
    tagged record;
BEGIN
    FOR tagged IN
        SELECT t.tgrelid::pg_catalog.regclass AS relation, t.tgname AS name,
               -- Arguments end with a zero byte. Braces stand for columns now, unless they are doubled.
               pg_catalog.replace(pg_catalog.replace(pg_catalog.convert_from(
                   pg_catalog.substring(t.tgargs, 1, pg_catalog.position(t.tgargs, '\x00'::pg_catalog.bytea) OPERATOR(pg_catalog.-) 1),
                   pg_catalog.getdatabaseencoding()), '{', '{{'), '}', '}}') AS tag
          FROM pg_catalog.pg_trigger AS t
         WHERE t.tgfoid OPERATOR(pg_catalog.=) 'enough.cache_invalidate_by_trigger()'::pg_catalog.regprocedure
           AND t.tgparentid OPERATOR(pg_catalog.=) 0
    LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', tagged.name, tagged.relation);
        PERFORM enough.cache_tag_table(tagged.relation, tagged.tag);
    END LOOP;
END $$;
