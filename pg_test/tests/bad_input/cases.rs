//! The functions, with arguments that are good and what is bad in place of each.

use crate::arguments::{
    ALGORITHM, BURST, BYTES, Bad, CALENDAR, COST, DELAY, DELIVER_AT, KEY, KEYS, LEASE, LEASES, LIMIT, MAX_REQUESTS,
    MSG_IDS, NEGATIVE, NEW_QUEUE, NOT_NEGATIVE, NOT_NULL, NULL, OPTIONAL_KEY, OPTIONAL_KEYS, PERIOD, POLICY, PRIORITY,
    QTY, QUEUE, SCHEDULE, SEMAPHORE, TAG, TAGS, TIME_ZONE, TOO_LONG, TTL, VALUE, WAIT, WORDS, YEAR,
};

/// An argument: its name, what is good for it, and what is bad.
pub(crate) struct Argument(pub &'static str, pub &'static str, pub &'static [&'static [Bad]]);

/// A function. A call with all good arguments succeeds where it is rolled back.
pub(crate) struct Function {
    pub name: &'static str,
    pub arguments: &'static [Argument],
    /// Calls that are wrong as a whole.
    pub calls: &'static [Bad],
    /// What a good call gives; empty for success.
    pub good: &'static str,
}

const fn function(name: &'static str, arguments: &'static [Argument], calls: &'static [Bad]) -> Function {
    Function { name, arguments, calls, good: "" }
}

/// The functions of `pg_cron`, which isn't there.
const fn without_cron(name: &'static str, arguments: &'static [Argument]) -> Function {
    Function { name, arguments, calls: &[], good: "55000" }
}

const KEY_OF_CACHE: Argument = Argument("key", "'key'", &[KEY]);
const TTL_OF_CACHE: Argument = Argument("ttl", "'1 hour'", &[TTL]);
const TAGS_OF_CACHE: Argument = Argument("tags", "ARRAY['tag']", &[TAGS]);
const OF_QUEUE: Argument = Argument("queue", "'q'", &[QUEUE]);
const BATCH: Argument = Argument("msg_ids", "ARRAY[1]", &[MSG_IDS]);
const BATCH_LEASES: Argument = Argument("leases", "NULL", &[LEASES]);
const NAMED: Argument = Argument("name", "'q'", &[QUEUE]);
const GRANTED: &[Argument] = &[
    OF_QUEUE,
    Argument(
        "role",
        "current_user::text::regrole",
        &[&[NULL, ("999999::oid::regrole", "42704"), ("0::oid::regrole", "42704")]],
    ),
    Argument("what", "'consume'", &[&[NULL, ("''", "22023"), ("'SEND'", "22023"), ("'select'", "22023")]]),
];
const LEVELS: &[Argument] = &[
    Argument(
        "role",
        "current_user::text::regrole",
        &[&[NULL, ("999999::oid::regrole", "42704"), ("0::oid::regrole", "42704")]],
    ),
    Argument("what", "'operator'", &[&[NULL, ("''", "22023"), ("'ADMIN'", "22023"), ("'owner'", "22023")]]),
];
const SPACE_NAME: &[Bad] =
    &[NULL, ("''", "22023"), ("'1st'", "22023"), ("'a b'", "22023"), ("'ü'", "22023"), ("repeat('x', 49)", "22023")];
const NO_SPACE: &[Bad] = &[("'nope'", "42704"), ("'KV'", "42704")];
const IN_SPACE: Argument =
    Argument("space", "'kv'", &[&[("''", "22023"), ("'a b'", "22023"), ("repeat('x', 49)", "22023")], NO_SPACE]);
const AFTER: Argument = Argument("after", "'a'", &[]);
const KV_KEY: Argument = Argument("key", "'good'", &[SEMAPHORE]);
const KV_TTL: Argument = Argument("ttl", "'1 hour'", &[NEGATIVE, SHORT, TOO_LONG]);
const IF_VERSION: Argument = Argument("if_version", "1", &[&[("-1", "22023"), ("-9223372036854775808", "22023")]]);
const KV_MAX: Argument =
    Argument("max", "5", &[&[("0", "22023"), ("-1", "22023"), ("10001", "22023"), ("-2147483648", "22023")]]);
const ACK: &[Bad] = &[("'sometimes'", "22023"), ("''", "22023")];
const DEDUP: &[Bad] = &[("'sometimes'", "22023"), ("''", "22023")];
const EXPIRES_IN: Argument = Argument("expires_in", "'1 hour'", &[DELAY, TOO_LONG, NEGATIVE, SHORT]);
const SHORT: &[Bad] = &[("'0'::interval", "22023"), ("'999 microseconds'::interval", "22023")];
const OWN_ATTEMPTS: Argument =
    Argument("max_attempts", "5", &[&[("0", "22023"), ("-1", "22023"), ("1000001", "22023")]]);
const DEAD_LETTER_QUEUE: &[Bad] = &[("'nope'", "42704"), ("' '", "22023"), ("repeat('x', 49)", "22023")];
const LIMIT_KEY: Argument = Argument("key", "'fresh'", &[KEY]);
const LIMIT_MOST: Argument = Argument("max_requests", "10", &[MAX_REQUESTS]);
const LIMIT_PERIOD: Argument = Argument("period", "'1 hour'", &[PERIOD]);
const LIMIT_COST: Argument = Argument("cost", "1", &[COST]);
const LIMIT_ALGORITHM: Argument = Argument("algorithm", "'sliding_window'", &[ALGORITHM]);
const LIMIT_BURST: Argument = Argument("burst", "NULL", &[BURST]);

const OF_SEMAPHORE: Argument = Argument("name", "'fresh'", &[SEMAPHORE]);
const TOKEN: Argument = Argument("token", "1", &[NOT_NULL]);

const LIMIT_CALENDAR: Argument = Argument("calendar", "NULL", &[CALENDAR]);
const LIMIT_ZONE: Argument = Argument("time_zone", "'Europe/Berlin'", &[TIME_ZONE]);
const POSTGREST: Argument = Argument("postgrest", "true", &[]);
const MISSING: &[Bad] = &[("'nope'", "42704"), ("'Strict'", "42704")];
const OF_POLICY: Argument = Argument("policy", "'strict'", &[POLICY, MISSING]);

/// What makes no sense together.
const CALENDARS: &[Bad] = &[
    ("'strict', 10, NULL", "22004"),
    ("'strict', 10, '1 day', calendar => 'day'", "22023"),
    ("'strict', 10, NULL, 'token_bucket', calendar => 'day'", "22023"),
    ("'strict', 10, NULL, burst => 5, calendar => 'day'", "22023"),
    ("'strict', -1, NULL, calendar => 'day'", "22023"),
    ("'strict', NULL, NULL, calendar => 'day'", "22004"),
];

/// A burst that is out of range where one may be given.
const BUCKETS: &[Bad] = &[
    ("'fresh', 10, '1 hour', algorithm => 'token_bucket', burst => 0", "22023"),
    ("'fresh', 10, '1 hour', algorithm => 'token_bucket', burst => -1", "22023"),
    ("'fresh', 10, '1 hour', algorithm => 'token_bucket', burst => 1000000001", "22023"),
    ("'fresh', 10, '1 hour', algorithm => 'fixed_window', burst => 10", "22023"),
];

pub(crate) const FUNCTIONS: &[Function] = &[
    function(
        "cache_set",
        &[
            KEY_OF_CACHE,
            Argument("value", "'1'", &[VALUE]),
            TTL_OF_CACHE,
            Argument("mode", "'always'", &[&[("''", "22023"), ("'ALWAYS'", "22023"), ("'nx'", "22023")]]),
            TAGS_OF_CACHE,
            Argument("keep_ttl", "false", &[]),
        ],
        &[],
    ),
    function("cache_get", &[KEY_OF_CACHE, Argument("slide_ttl", "'1 hour'", &[TTL])], &[("'bytes'", "22023")]),
    function("cache_mget", &[Argument("keys", "ARRAY['key']", &[KEYS])], &[]),
    function(
        "cache_mset",
        &[
            Argument(
                "entries",
                "'{\"a\": 1}'",
                &[&[
                    NULL,
                    ("'1'", "22023"),
                    ("'[]'", "22023"),
                    ("'null'", "22023"),
                    ("'\"a\"'", "22023"),
                    ("jsonb_build_object('new', 1, repeat('x', 513), 1)", "54000"),
                    ("jsonb_build_object('new', 1, 'large', repeat('x', 1100000))", "54000"),
                ]],
            ),
            TTL_OF_CACHE,
            TAGS_OF_CACHE,
        ],
        &[],
    ),
    function("cache_delete", &[KEY_OF_CACHE], &[]),
    function("cache_mdelete", &[Argument("keys", "ARRAY['key']", &[KEYS])], &[]),
    function("cache_take", &[KEY_OF_CACHE], &[("'bytes'", "22023")]),
    function("cache_exists", &[KEY_OF_CACHE], &[]),
    function("cache_expires_at", &[KEY_OF_CACHE], &[]),
    function("cache_touch", &[KEY_OF_CACHE, TTL_OF_CACHE], &[]),
    function(
        "cache_compare_and_set",
        &[
            KEY_OF_CACHE,
            Argument("expected", "'\"value\"'", &[NOT_NULL]),
            Argument("value", "'1'", &[VALUE]),
            TTL_OF_CACHE,
        ],
        &[],
    ),
    function(
        "cache_incr",
        &[
            Argument("key", "'good'", &[KEY]),
            Argument("by", "1", &[]),
            TTL_OF_CACHE,
            Argument("mode", "'always'", &[&[("'if_absent'", "22023"), ("''", "22023")]]),
        ],
        &[
            ("'key'", "22023"),
            ("'bytes'", "22023"),
            ("'good', 9223372036854775807", "22023"),
            ("'negative', -9223372036854775808", "22023"),
        ],
    ),
    function(
        "cache_set_bytes",
        &[
            KEY_OF_CACHE,
            Argument("value", "'\\x00'", &[BYTES]),
            TTL_OF_CACHE,
            TAGS_OF_CACHE,
            Argument("mode", "'always'", &[&[("''", "22023"), ("'nx'", "22023")]]),
            Argument("keep_ttl", "false", &[]),
        ],
        &[],
    ),
    function("cache_delete_if", &[KEY_OF_CACHE, Argument("expected", "'1'", &[NOT_NULL])], &[]),
    function(
        "cache_merge",
        &[
            KEY_OF_CACHE,
            Argument(
                "patch",
                "'{\"a\": 1}'",
                &[&[NULL, ("jsonb_build_object('large', repeat('x', 1100000))", "54000")]],
            ),
            TTL_OF_CACHE,
        ],
        &[("'bytes', '{}'", "22023")],
    ),
    function("cache_mget_bytes", &[Argument("keys", "ARRAY['key']", &[KEYS])], &[]),
    function(
        "cache_mset_bytes",
        &[
            Argument("keys", "ARRAY['new']", &[KEYS, &[NULL]]),
            Argument(
                "values",
                "ARRAY['x'::bytea]",
                &[&[
                    NULL,
                    ("ARRAY['x'::bytea, 'y']", "22023"),
                    ("'{}'::bytea[]", "22023"),
                    ("ARRAY[NULL]::bytea[]", "22004"),
                    ("ARRAY[convert_to(repeat('x', 1100000), 'UTF8')]", "54000"),
                ]],
            ),
            TTL_OF_CACHE,
            TAGS_OF_CACHE,
        ],
        &[],
    ),
    function("cache_take_bytes", &[Argument("key", "'bytes'", &[KEY])], &[("'key'", "22023")]),
    function(
        "cache_compare_and_set_bytes",
        &[
            Argument("key", "'bytes'", &[KEY]),
            Argument("expected", "'\\x00ff'", &[NOT_NULL]),
            Argument("value", "'\\x01'", &[BYTES]),
            TTL_OF_CACHE,
        ],
        &[],
    ),
    function(
        "cache_fetch",
        &[
            Argument("key", "'fetched'", &[KEY]),
            TTL_OF_CACHE,
            Argument(
                "query",
                "'SELECT 1'",
                &[&[NULL, ("''", "22023"), ("'SELECT 1, 2'", "22023"), ("'COMMIT'", "22023")]],
            ),
            Argument("args", "'{}'", &[]),
            Argument("stale_for", "'0'", &[&[("'-1 second'", "22023"), ("'292270 years'", "22023")]]),
            TAGS_OF_CACHE,
            Argument("stale_if_error", "'0'", &[&[("'-1 second'", "22023"), ("'292270 years'", "22023")]]),
        ],
        &[("'bytes', NULL, 'SELECT 1'", "22023")],
    ),
    function("cache_invalidate", &[Argument("tag", "'tag'", &[TAG])], &[]),
    Function { name: "cache_invalidate_by_trigger", arguments: &[], calls: &[], good: "42804" },
    function(
        "cache_tag_table",
        &[
            Argument(
                "tbl",
                "'good_table'",
                &[&[NULL, ("999999::regclass", "42704"), ("'good_index'::regclass", "42809")]],
            ),
            Argument(
                "tag",
                "'tag'",
                &[&[
                    ("repeat('x', 129)", "54000"),
                    ("'{nope}'", "42703"),
                    ("'{'", "22023"),
                    ("'}'", "22023"),
                    ("'{}'", "22023"),
                    ("'{a}{'", "22023"),
                ]],
            ),
        ],
        &[],
    ),
    function("cache_untag_table", &[Argument("tbl", "'good_table'", &[NOT_NULL])], &[]),
    function(
        "cache_get_bytes",
        &[Argument("key", "'bytes'", &[KEY]), Argument("slide_ttl", "'1 hour'", &[TTL])],
        &[("'key'", "22023")],
    ),
    Function {
        name: "cache_keys",
        arguments: &[
            Argument("prefix", "'k'", &[&[NULL, ("repeat('x', 513)", "54000")]]),
            Argument("after", "''", &[]),
            Argument("max", "10", &[&[("0", "22023"), ("-1", "22023"), ("10001", "22023")]]),
        ],
        calls: &[],
        good: "55000",
    },
    Function {
        name: "cache_delete_prefix",
        arguments: &[Argument("prefix", "'k'", &[&[NULL, ("repeat('x', 513)", "54000")]])],
        calls: &[],
        good: "55000",
    },
    function("cache_clear", &[], &[]),
    function("cache_stats", &[], &[]),
    function("rate_limit", &[LIMIT_KEY, LIMIT_MOST, LIMIT_PERIOD, LIMIT_COST, LIMIT_ALGORITHM, LIMIT_BURST], BUCKETS),
    function("rate_limit_peek", &[LIMIT_KEY, LIMIT_MOST, LIMIT_PERIOD, LIMIT_ALGORITHM, LIMIT_BURST], BUCKETS),
    function(
        "rate_limit_refund",
        &[LIMIT_KEY, LIMIT_MOST, LIMIT_PERIOD, Argument("amount", "1", &[COST]), LIMIT_ALGORITHM, LIMIT_BURST],
        BUCKETS,
    ),
    function(
        "rate_limit_up_to",
        &[LIMIT_KEY, LIMIT_MOST, LIMIT_PERIOD, LIMIT_COST, LIMIT_ALGORITHM, LIMIT_BURST],
        BUCKETS,
    ),
    function(
        "rate_limit_enforce",
        &[LIMIT_KEY, LIMIT_MOST, LIMIT_PERIOD, LIMIT_COST, LIMIT_ALGORITHM, LIMIT_BURST, POSTGREST],
        BUCKETS,
    ),
    function("rate_limit_enforce_by", &[OF_POLICY, LIMIT_KEY, LIMIT_COST, POSTGREST], &[]),
    function("rate_limit_headers_by", &[OF_POLICY, LIMIT_KEY], &[]),
    function("rate_limit_block", &[LIMIT_KEY, Argument("duration", "'1 hour'", &[PERIOD])], &[]),
    function("rate_limit_unblock", &[LIMIT_KEY], &[]),
    function(
        "rate_limit_reserve",
        &[
            LIMIT_KEY,
            LIMIT_MOST,
            LIMIT_PERIOD,
            LIMIT_COST,
            Argument("burst", "5", &[&[("0", "22023"), ("-1", "22023"), ("1000000001", "22023")]]),
            Argument(
                "max_wait",
                "'1 minute'",
                &[NEGATIVE, &[("'367 days'::interval", "22023"), ("'infinity'::interval", "22023")]],
            ),
        ],
        &[],
    ),
    function(
        "rate_limit_all",
        &[
            Argument("keys", "ARRAY['fresh', 'other']", &[KEYS, &[NULL, ("ARRAY['fresh']", "22023")]]),
            Argument(
                "max_requests",
                "ARRAY[10, 20]",
                &[&[
                    NULL,
                    ("ARRAY[10]", "22023"),
                    ("ARRAY[10, 20, 30]", "22023"),
                    ("ARRAY[10, NULL]", "22004"),
                    ("ARRAY[-1, 10]", "22023"),
                ]],
            ),
            Argument(
                "periods",
                "ARRAY['1 hour', '1 day']::interval[]",
                &[&[
                    NULL,
                    ("ARRAY['1 hour']::interval[]", "22023"),
                    ("ARRAY['1 hour', NULL]::interval[]", "22004"),
                    ("ARRAY['1 hour', '0']::interval[]", "22023"),
                    ("ARRAY['1 hour', '-1 day']::interval[]", "22023"),
                    ("ARRAY['1 hour', 'infinity']::interval[]", "22023"),
                ]],
            ),
            LIMIT_COST,
            LIMIT_ALGORITHM,
        ],
        &[],
    ),
    function(
        "rate_limit_policy_set",
        &[
            Argument("name", "'new'", &[POLICY]),
            LIMIT_MOST,
            LIMIT_PERIOD,
            LIMIT_ALGORITHM,
            LIMIT_BURST,
            Argument("shadow", "false", &[]),
            LIMIT_CALENDAR,
            LIMIT_ZONE,
        ],
        CALENDARS,
    ),
    function(
        "rate_limit_policy_add",
        &[
            Argument("name", "'strict'", &[POLICY, MISSING]),
            LIMIT_MOST,
            LIMIT_PERIOD,
            LIMIT_ALGORITHM,
            LIMIT_BURST,
            LIMIT_CALENDAR,
            LIMIT_ZONE,
        ],
        CALENDARS,
    ),
    function(
        "rate_limit_policy_override",
        &[
            Argument("name", "'strict'", &[POLICY, MISSING]),
            LIMIT_KEY,
            Argument("max_requests", "10", &[&[("-1", "22023"), ("1000000001", "22023"), ("-2147483648", "22023")]]),
        ],
        &[],
    ),
    function("rate_limit_policy_override_drop", &[Argument("name", "'strict'", &[POLICY]), LIMIT_KEY], &[]),
    function("rate_limit_policy_drop", &[Argument("name", "'strict'", &[POLICY])], &[]),
    function("rate_limit_policies", &[], &[]),
    function("rate_limit_by", &[OF_POLICY, LIMIT_KEY, LIMIT_COST], &[]),
    function("rate_limit_headers", &[LIMIT_KEY, LIMIT_MOST, LIMIT_PERIOD, LIMIT_ALGORITHM, LIMIT_BURST], BUCKETS),
    function("rate_limit_reset", &[LIMIT_KEY], &[]),
    function(
        "rate_limit_stats",
        &[Argument("policy", "'strict'", &[&[("''", "22023"), ("repeat('x', 64)", "22023")], MISSING])],
        &[],
    ),
    function(
        "semaphore_acquire",
        &[
            OF_SEMAPHORE,
            Argument(
                "max_holders",
                "5",
                &[&[("0", "22023"), ("-1", "22023"), ("1000001", "22023"), ("2147483647", "22023")]],
            ),
            Argument("ttl", "'1 hour'", &[NEGATIVE, LEASE, TOO_LONG]),
            Argument("wait", "'1 millisecond'", &[NEGATIVE, WAIT, TOO_LONG]),
        ],
        &[],
    ),
    function(
        "semaphore_extend",
        &[OF_SEMAPHORE, TOKEN, Argument("ttl", "'1 hour'", &[NOT_NEGATIVE, LEASE, TOO_LONG])],
        &[],
    ),
    function("semaphore_release", &[OF_SEMAPHORE, TOKEN], &[]),
    function(
        "semaphore_holders",
        &[Argument("name", "'held'", &[&[("''", "22023"), ("repeat('x', 513)", "54000")]])],
        &[],
    ),
    function("semaphore_stats", &[], &[]),
    function(
        "kv_create",
        &[
            Argument("space", "'fresh'", &[SPACE_NAME, &[("'default'", "42710")]]),
            Argument("indexed", "true", &[]),
            Argument("unlogged", "false", &[]),
            Argument("history", "3", &[&[("-1", "22023"), ("101", "22023"), ("2147483647", "22023")]]),
            Argument("if_not_exists", "false", &[]),
        ],
        &[],
    ),
    function(
        "kv_drop",
        &[Argument("space", "'kv'", &[SPACE_NAME, NO_SPACE]), Argument("if_exists", "false", &[])],
        &[("'default'", "2BP01")],
    ),
    function("kv_spaces", &[], &[]),
    function("kv_set", &[KV_KEY, Argument("value", "'1'", &[&[NULL]]), KV_TTL, IF_VERSION, IN_SPACE], &[]),
    function("kv_get", &[KV_KEY, IN_SPACE], &[]),
    function("kv_entry", &[KV_KEY, IN_SPACE], &[]),
    function("kv_has", &[KV_KEY, IN_SPACE], &[]),
    function("kv_mget", &[Argument("keys", "ARRAY['good']", &[KEYS, &[("ARRAY['']", "22023")]]), IN_SPACE], &[]),
    function(
        "kv_mset",
        &[
            Argument(
                "entries",
                "'{\"good\": 1}'",
                &[&[
                    NULL,
                    ("'[]'", "22023"),
                    ("'null'", "22023"),
                    ("'{\"a\": 1, \"\": 2}'", "22023"),
                    ("jsonb_build_object('a', 1, repeat('x', 513), 2)", "54000"),
                ]],
            ),
            KV_TTL,
            IN_SPACE,
        ],
        &[],
    ),
    function("kv_delete", &[KV_KEY, IF_VERSION, IN_SPACE], &[]),
    function("kv_keys", &[Argument("prefix", "'g'", &[]), AFTER, KV_MAX, IN_SPACE], &[]),
    function("kv_incr", &[KV_KEY, Argument("by", "2", &[]), IN_SPACE], &[]),
    function("kv_merge", &[KV_KEY, Argument("patch", "'{}'", &[&[NULL]]), IN_SPACE], &[]),
    function(
        "kv_watch",
        &[
            Argument("prefix", "'g'", &[]),
            Argument(
                "since",
                "0",
                &[&[("-1", "22023"), ("-9223372036854775808", "22023"), ("9223372036854775807", "55000")]],
            ),
            Argument("wait", "'0'", &[NEGATIVE, WAIT, TOO_LONG]),
            IN_SPACE,
        ],
        &[],
    ),
    function("kv_history", &[KV_KEY, IN_SPACE], &[]),
    function("kv_find", &[Argument("matching", "'{}'", &[&[NULL]]), AFTER, KV_MAX, IN_SPACE], &[]),
    function(
        "queue_create",
        &[
            Argument("name", "'new'", &[NEW_QUEUE]),
            Argument("visibility_timeout", "'30 seconds'", &[NOT_NEGATIVE, LEASE, TOO_LONG]),
            Argument("max_attempts", "10", &[&[NULL, ("-1", "22023"), ("2147483647", "22023")]]),
            Argument("retry_backoff", "'1 second'", &[NOT_NEGATIVE, YEAR, TOO_LONG]),
            Argument("retry_backoff_max", "'1 hour'", &[NOT_NEGATIVE, YEAR, TOO_LONG]),
            Argument("max_in_flight", "5", &[LIMIT]),
            Argument("max_rate", "5", &[LIMIT]),
            Argument("rate_period", "'1 second'", &[NOT_NEGATIVE, LEASE, TOO_LONG]),
            // 0 keeps the archive for ever.
            Argument(
                "archive_for",
                "'7 days'",
                &[&[("'-1 second'::interval", "22023"), ("'-infinity'::interval", "22023")]],
            ),
            Argument("unlogged", "false", &[NOT_NULL]),
            Argument("if_not_exists", "false", &[NOT_NULL]),
            Argument("durable_attempts", "false", &[NOT_NULL]),
            Argument("ack", "'async'", &[NOT_NULL, ACK]),
            Argument("group_limit", "5", &[NOT_NULL, LIMIT]),
            Argument("dead_letter_queue", "NULL", &[DEAD_LETTER_QUEUE]),
            Argument("notify", "true", &[NOT_NULL]),
            Argument("dedup", "'waiting'", &[NOT_NULL, DEDUP]),
            Argument("dedup_for", "'5 minutes'", &[NOT_NEGATIVE, LEASE, TOO_LONG]),
            Argument("group_rate", "5", &[LIMIT]),
            Argument("group_rate_period", "'1 second'", &[NOT_NEGATIVE, LEASE, TOO_LONG]),
        ],
        &[("'q', max_attempts => -1, if_not_exists => true", "22023")],
    ),
    function("queue_drop", &[Argument("name", "'q'", &[QUEUE]), Argument("if_exists", "false", &[NOT_NULL])], &[]),
    function(
        "queue_send",
        &[
            OF_QUEUE,
            Argument("message", "'1'", &[NOT_NULL]),
            Argument("delay", "'0'", &[NOT_NEGATIVE, DELAY, TOO_LONG]),
            Argument("priority", "0", &[PRIORITY]),
            Argument("group_key", "'group'", &[OPTIONAL_KEY]),
            Argument("dedup_key", "'fresh'", &[OPTIONAL_KEY]),
            Argument("headers", "NULL", &[]),
            Argument("deliver_at", "NULL", &[DELIVER_AT]),
            EXPIRES_IN,
            OWN_ATTEMPTS,
        ],
        &[
            ("'q', '1', delay => '1 second', deliver_at => now()", "22023"),
            ("'q', '1', delay => '1 second', expires_in => '1 second'", "22023"),
        ],
    ),
    function(
        "queue_send_batch",
        &[
            OF_QUEUE,
            Argument(
                "messages",
                "ARRAY['1', '2']::jsonb[]",
                &[&[
                    ("ARRAY['1', NULL]::jsonb[]", "22004"),
                    ("ARRAY[NULL, '1']::jsonb[]", "22004"),
                    ("array_fill('1'::jsonb, ARRAY[10001])", "54000"),
                ]],
            ),
            Argument("delay", "'0'", &[NOT_NEGATIVE, DELAY, TOO_LONG]),
            Argument("priority", "0", &[PRIORITY]),
            Argument("group_keys", "ARRAY['group', NULL]", &[OPTIONAL_KEYS]),
            Argument("dedup_keys", "ARRAY[NULL, 'fresh']", &[OPTIONAL_KEYS]),
            Argument(
                "headers",
                "ARRAY['1', NULL]::jsonb[]",
                &[&[
                    ("ARRAY[]::jsonb[]", "22023"),
                    ("ARRAY['1']::jsonb[]", "22023"),
                    ("ARRAY['1', '2', '3']::jsonb[]", "22023"),
                ]],
            ),
            Argument("deliver_at", "NULL", &[DELIVER_AT]),
            Argument(
                "priorities",
                "ARRAY[1, NULL]",
                &[&[("ARRAY[1]", "22023"), ("ARRAY[1, 10]", "22023"), ("ARRAY[1, -1]", "22023")]],
            ),
            Argument(
                "delays",
                "ARRAY['0', NULL]::interval[]",
                &[&[
                    ("ARRAY['0']::interval[]", "22023"),
                    ("ARRAY['0', '-1 s']::interval[]", "22023"),
                    ("ARRAY['0', '11 years']::interval[]", "22023"),
                ]],
            ),
            EXPIRES_IN,
            OWN_ATTEMPTS,
        ],
        &[("'q', ARRAY['1']::jsonb[], delay => '1 second', deliver_at => now()", "22023")],
    ),
    function(
        "queue_send_unique",
        &[
            OF_QUEUE,
            Argument("message", "'1'", &[NOT_NULL]),
            Argument("dedup_key", "'fresh'", &[NOT_NULL, OPTIONAL_KEY]),
            Argument("on_conflict", "'keep'", &[&[("''", "22023"), ("'Replace'", "22023"), ("'ignore'", "22023")]]),
            Argument("delay", "'0'", &[NOT_NEGATIVE, DELAY, TOO_LONG]),
            Argument("priority", "0", &[PRIORITY]),
            Argument("group_key", "'group'", &[OPTIONAL_KEY]),
            Argument("headers", "NULL", &[]),
            Argument("deliver_at", "NULL", &[DELIVER_AT]),
        ],
        &[("'q', '1', 'k', delay => '1 second', deliver_at => now()", "22023")],
    ),
    function(
        "queue_read",
        &[
            OF_QUEUE,
            Argument("qty", "1", &[QTY]),
            Argument("visibility_timeout", "NULL", &[YEAR, TOO_LONG, &[("'-1 second'::interval", "22023")]]),
            Argument("wait", "'0'", &[NOT_NEGATIVE, WAIT, TOO_LONG]),
            Argument("whole_groups", "true", &[NOT_NULL]),
        ],
        &[],
    ),
    function(
        "queue_read_any",
        &[
            Argument("queues", "'{q}'", &[&[("'{nope}'", "42704"), ("'{q,NULL}'", "22004")]]),
            Argument("qty", "1", &[QTY]),
            Argument("visibility_timeout", "NULL", &[YEAR, TOO_LONG, &[("'-1 second'::interval", "22023")]]),
            Argument("wait", "'0'", &[NOT_NEGATIVE, WAIT, TOO_LONG]),
            Argument("whole_groups", "true", &[NOT_NULL]),
        ],
        &[],
    ),
    function(
        "queue_read_these",
        &[
            OF_QUEUE,
            BATCH,
            Argument("visibility_timeout", "NULL", &[YEAR, TOO_LONG, &[("'-1 second'::interval", "22023")]]),
        ],
        &[],
    ),
    function(
        "queue_read_own",
        &[
            OF_QUEUE,
            Argument("qty", "1", &[QTY]),
            Argument("visibility_timeout", "NULL", &[YEAR, TOO_LONG, &[("'-1 second'::interval", "22023")]]),
            Argument("msg_ids", "NULL", &[MSG_IDS]),
        ],
        &[],
    ),
    function("queue_reschedule", &[OF_QUEUE, BATCH, Argument("deliver_at", "now()", &[NOT_NULL, DELIVER_AT])], &[]),
    function("queue_attempts", &[OF_QUEUE, Argument("msg_id", "1", &[NOT_NULL])], &[]),
    function("queue_visible_at", &[OF_QUEUE, Argument("msg_id", "1", &[NOT_NULL])], &[]),
    function(
        "queue_pop",
        &[OF_QUEUE, Argument("qty", "1", &[QTY]), Argument("wait", "'0'", &[NOT_NEGATIVE, WAIT, TOO_LONG])],
        &[],
    ),
    function("queue_delete", &[OF_QUEUE, Argument("msg_id", "1", &[NOT_NULL]), Argument("lease", "NULL", &[])], &[]),
    function("queue_delete_batch", &[OF_QUEUE, BATCH, BATCH_LEASES], &[]),
    function(
        "queue_extend",
        &[
            OF_QUEUE,
            Argument("msg_id", "1", &[NOT_NULL]),
            Argument("visibility_timeout", "'1 hour'", &[NOT_NEGATIVE, YEAR, TOO_LONG]),
            Argument("lease", "NULL", &[]),
        ],
        &[],
    ),
    function(
        "queue_extend_batch",
        &[
            OF_QUEUE,
            BATCH,
            BATCH_LEASES,
            Argument("visibility_timeout", "NULL", &[&[("'-1 second'::interval", "22023")], YEAR, TOO_LONG]),
        ],
        &[],
    ),
    function(
        "queue_fail",
        &[
            OF_QUEUE,
            Argument("msg_id", "1", &[NOT_NULL]),
            Argument("error", "'boom'", &[]),
            Argument("retry_in", "NULL", &[DELAY, TOO_LONG, NEGATIVE]),
            Argument("lease", "NULL", &[]),
            Argument("dead", "false", &[]),
        ],
        &[("'q', 1, retry_in => '1 s', dead => true", "22023")],
    ),
    function(
        "queue_fail_batch",
        &[
            OF_QUEUE,
            BATCH,
            BATCH_LEASES,
            Argument("error", "'boom'", &[]),
            Argument("retry_in", "NULL", &[DELAY, TOO_LONG, NEGATIVE]),
            Argument("dead", "false", &[]),
        ],
        &[],
    ),
    function(
        "queue_release",
        &[
            OF_QUEUE,
            Argument("msg_id", "1", &[NOT_NULL]),
            Argument("delay", "'0'", &[DELAY, TOO_LONG, NEGATIVE]),
            Argument("lease", "NULL", &[]),
        ],
        &[],
    ),
    function(
        "queue_release_batch",
        &[OF_QUEUE, BATCH, BATCH_LEASES, Argument("delay", "'0'", &[DELAY, TOO_LONG, NEGATIVE])],
        &[],
    ),
    function(
        "queue_archive",
        &[
            OF_QUEUE,
            Argument("msg_id", "1", &[NOT_NULL]),
            Argument("result", "NULL", &[]),
            Argument("lease", "NULL", &[]),
        ],
        &[],
    ),
    function(
        "queue_archive_batch",
        &[OF_QUEUE, BATCH, BATCH_LEASES, Argument("results", "NULL", &[&[("'{}'::jsonb[]", "22023")]])],
        &[],
    ),
    function("queue_status", &[OF_QUEUE, Argument("msg_id", "1", &[NOT_NULL])], &[]),
    function(
        "queue_result",
        &[OF_QUEUE, Argument("msg_id", "-1", &[NOT_NULL]), Argument("wait", "'0'", &[NOT_NEGATIVE, WAIT, TOO_LONG])],
        &[],
    ),
    function(
        "queue_peek",
        &[
            OF_QUEUE,
            Argument("qty", "1", &[QTY]),
            Argument("state", "'leased'", &[&[NULL, ("''", "22023"), ("'LEASED'", "22023"), ("'deleted'", "22023")]]),
            Argument("after", "0", &[]),
            Argument("matching", "NULL", &[]),
            Argument("group_key", "'g'", &[]),
        ],
        &[],
    ),
    function("queue_dead", &[OF_QUEUE, Argument("qty", "1", &[QTY])], &[]),
    // NULL: all dead letters.
    function(
        "queue_redrive",
        &[
            OF_QUEUE,
            Argument("msg_ids", "ARRAY[1]", &[MSG_IDS]),
            Argument("to_queue", "'q'", &[QUEUE]),
            Argument("died_before", "now()", &[&[("'infinity'", "22023"), ("'-infinity'", "22023")]]),
            Argument("matching", "'{}'", &[]),
            Argument("max", "1", &[&[("0", "22023"), ("-1", "22023")]]),
        ],
        &[],
    ),
    function("queue_purge", &[NAMED], &[]),
    function("queue_pause", &[NAMED], &[]),
    function("queue_resume", &[NAMED], &[]),
    function("queue_list", &[], &[]),
    function(
        "queue_rename",
        &[NAMED, Argument("new_name", "'renamed'", &[NEW_QUEUE])],
        &[("'nope', 'renamed'", "42704")],
    ),
    function("grant_to", LEVELS, &[]),
    function("revoke_from", LEVELS, &[]),
    function("queue_grant", GRANTED, &[]),
    function("queue_revoke", GRANTED, &[]),
    without_cron(
        "queue_schedule",
        &[
            Argument("name", "'tick'", &[SCHEDULE]),
            Argument("schedule", "'* * * * *'", &[&[NULL, ("''", "22023"), ("'  '", "22023")]]),
            OF_QUEUE,
            Argument("message", "'1'", &[NOT_NULL]),
            Argument("delay", "'0'", &[NOT_NEGATIVE, DELAY, TOO_LONG]),
            Argument("priority", "0", &[PRIORITY]),
            Argument("group_key", "'group'", &[OPTIONAL_KEY]),
            Argument("dedup_key", "'fresh'", &[OPTIONAL_KEY]),
            Argument("headers", "NULL", &[]),
        ],
    ),
    without_cron("queue_unschedule", &[Argument("name", "'tick'", &[SCHEDULE])]),
    without_cron("queue_schedules", &[]),
    // NULL leaves an option as it is.
    function(
        "queue_alter",
        &[
            NAMED,
            Argument("visibility_timeout", "'1 hour'", &[LEASE, TOO_LONG, NEGATIVE]),
            Argument("max_attempts", "10", &[&[("-1", "22023"), ("2147483647", "22023")]]),
            Argument("retry_backoff", "'1 second'", &[YEAR, TOO_LONG, NEGATIVE]),
            Argument("retry_backoff_max", "'1 hour'", &[YEAR, TOO_LONG, NEGATIVE]),
            Argument("max_in_flight", "5", &[LIMIT]),
            Argument("max_rate", "5", &[LIMIT]),
            Argument("rate_period", "'1 second'", &[LEASE, TOO_LONG, NEGATIVE]),
            Argument("archive_for", "'7 days'", &[NEGATIVE]),
            Argument("unlogged", "NULL", &[]),
            Argument("durable_attempts", "false", &[]),
            Argument("ack", "'async'", &[ACK]),
            Argument("group_limit", "5", &[LIMIT]),
            Argument("dead_letter_queue", "''", &[DEAD_LETTER_QUEUE, &[("'q'", "22023")]]),
            Argument("notify", "true", &[]),
            Argument("dedup", "'waiting'", &[DEDUP]),
            Argument("dedup_for", "'5 minutes'", &[LEASE, TOO_LONG, NEGATIVE]),
            Argument("group_rate", "5", &[LIMIT]),
            Argument("group_rate_period", "'1 second'", &[LEASE, TOO_LONG, NEGATIVE]),
        ],
        &[],
    ),
    // NULL: all queues.
    function(
        "queue_stats",
        &[Argument("queue", "'q'", &[QUEUE.split_first_chunk::<1>().expect("has NULL first").1])],
        &[],
    ),
    Function {
        name: "queue_import_pgmq",
        arguments: &[Argument("queue", "'q'", &[&[NULL]]), Argument("to_queue", "NULL", &[])],
        calls: &[],
        // Nothing of pgmq is there.
        good: "42704",
    },
    Function { name: "queue_send_by_trigger", arguments: &[], calls: &[], good: "42804" },
    function(
        "queue_send_on",
        &[
            Argument(
                "tbl",
                "'good_table'",
                &[&[
                    NULL,
                    ("999999::regclass", "42704"),
                    ("'good_index'::regclass", "42809"),
                    ("'enough.q_q'", "22023"),
                ]],
            ),
            OF_QUEUE,
            Argument(
                "events",
                "'{insert,truncate}'",
                &[&[
                    ("'{}'", "22023"),
                    ("'{insert,NULL}'", "22004"),
                    ("'{INSERT}'", "22023"),
                    ("'{\"\"}'", "22023"),
                    ("ARRAY[repeat('x', 1000000)]", "22023"),
                ]],
            ),
            Argument(
                "columns",
                "'{a}'",
                &[&[
                    ("'{}'", "22023"),
                    ("'{NULL}'", "22004"),
                    ("'{a,nope}'", "42703"),
                    ("'{A}'", "42703"),
                    ("'{ctid}'", "42703"),
                    ("ARRAY[repeat('x', 1000000)]", "42703"),
                ]],
            ),
        ],
        &[],
    ),
    function("queue_send_off", &[Argument("tbl", "'good_table'", &[NOT_NULL]), Argument("queue", "'q'", &[])], &[]),
    function("topic_subscribe", &[Argument("topic_pattern", "'a.#'", &[WORDS]), OF_QUEUE], &[]),
    function("topic_unsubscribe", &[Argument("topic_pattern", "'a.#'", &[WORDS]), OF_QUEUE], &[]),
    function("topic_subscriptions", &[], &[]),
    function(
        "topic_publish",
        &[
            Argument("topic", "'a.b'", &[WORDS, &[("'*'", "22023"), ("'a.#'", "22023")]]),
            Argument("message", "'1'", &[NOT_NULL]),
            Argument("delay", "'0'", &[NOT_NEGATIVE, DELAY, TOO_LONG]),
            Argument("priority", "0", &[PRIORITY]),
            Argument("group_key", "'group'", &[OPTIONAL_KEY]),
            Argument("headers", "NULL", &[]),
        ],
        &[],
    ),
    function("maintain", &[Argument("max_duration", "'10 seconds'", &[NOT_NEGATIVE])], &[]),
    function("status", &[], &[]),
    without_cron(
        "maintenance_schedule",
        &[Argument("schedule", "'* * * * *'", &[&[NULL, ("''", "22023"), ("'  '", "22023")]])],
    ),
    without_cron("maintenance_unschedule", &[]),
];

/// Calls that are right although they look odd: `SELECT enough.<call>` succeeds.
pub(crate) const GOOD: &[&str] = &[
    "queue_create('_')",
    "queue_create(repeat('x', 48))",
    "queue_create('A.b-c_1')",
    "queue_create('new', visibility_timeout => '1 millisecond', max_attempts => 1, retry_backoff => '0', \
     retry_backoff_max => '0', archive_for => '0')",
    "queue_create('new', visibility_timeout => '366 days', retry_backoff => '366 days', archive_for => '0')",
    "queue_create('q', if_not_exists => true)",
    "queue_create('new', max_in_flight => NULL, max_rate => NULL)",
    "queue_create('new', max_in_flight => 0, max_rate => 2147483647, rate_period => '366 days')",
    "queue_create('new', dedup => 'window', dedup_for => '366 days')",
    "queue_create('new', group_limit => 0)",
    "queue_create('new', group_limit => 2147483647)",
    "queue_create('new', group_rate => 0)",
    "queue_create('new', group_rate => 2147483647, group_rate_period => '366 days')",
    "queue_alter('q')",
    "queue_alter('q', group_limit => 0)",
    "queue_alter('q', max_attempts => 0, max_in_flight => 0, max_rate => 0, archive_for => '0')",
    "queue_send('q', '1', group_key => '', dedup_key => repeat('x', 512))",
    "queue_send_batch('q', ARRAY['1', '2']::jsonb[], dedup_keys => ARRAY['', ''])",
    "queue_fail('q', -1, '', '10 years', -1)",
    "queue_archive('q', 9223372036854775807, 'null', -9223372036854775808)",
    "queue_archive_batch('q', ARRAY[-9223372036854775808, 9223372036854775807])",
    "queue_status('q', -1)",
    "queue_peek('q', 10000, 'done')",
    "queue_peek('q', 1, 'ready', -9223372036854775808, 'null', '')",
    "queue_result('q', -1, '1 hour')",
    "queue_redrive('q', NULL, 'q', '1970-01-01', '[]', 2147483647)",
    "queue_redrive('q')",
    "queue_redrive('q', ARRAY[-1])",
    "queue_drop('nope', if_exists => true)",
    "queue_send('q', 'null')",
    "queue_send('q', '1', delay => '10 years', priority => 9)",
    "queue_send('q', '1', deliver_at => '1970-01-01')",
    "queue_send('q', '1', deliver_at => '4700-01-01 BC'::timestamptz)",
    "queue_read('q', 10000, '366 days')",
    "queue_read('q', wait => '1 hour')",
    "queue_read('q', visibility_timeout => '0')",
    "queue_read_these('q', ARRAY[-1, 9223372036854775807], '366 days')",
    "queue_read_own('q', 10000, '0', '{}')",
    "queue_reschedule('q', ARRAY[-1], '4700-01-01 BC'::timestamptz)",
    "queue_create('new', max_attempts => 0)",
    "queue_delete('q', -1)",
    "queue_delete('q', 9223372036854775807, -9223372036854775808)",
    "queue_delete_batch('q', ARRAY[-9223372036854775808, 9223372036854775807])",
    "queue_delete_batch('q', ARRAY[1, -1], ARRAY[-9223372036854775808, NULL])",
    "queue_archive_batch('q', ARRAY[1, -1], NULL, ARRAY['null', NULL]::jsonb[])",
    "queue_extend('q', -1, '0')",
    "queue_extend_batch('q', ARRAY[-1], NULL, '0')",
    "queue_fail_batch('q', ARRAY[-1], ARRAY[0], '', '10 years')",
    "queue_release('q', -1, '10 years', 0)",
    "queue_release_batch('q', ARRAY[9223372036854775807], ARRAY[NULL]::bigint[], '10 years')",
    "cache_set(repeat('x', 512), '1')",
    "cache_set('', 'null')",
    "cache_set('key', '1', ttl => NULL, mode => NULL, tags => NULL, keep_ttl => NULL)",
    "cache_incr('good', NULL, NULL)",
    "cache_fetch('fetched', NULL, 'SELECT 1', NULL, NULL, NULL, NULL)",
    "cache_mget(ARRAY['key', 'bytes'])",
    "cache_mdelete(ARRAY[]::text[])",
    "cache_set('key', '1', ttl => '1 microsecond')",
    "cache_touch('key', NULL)",
    "cache_mget(ARRAY[]::text[])",
    "cache_mset('{}')",
    "cache_set('ü' || chr(128512) || chr(1) || '''\";--', '1')",
    "rate_limit(repeat('x', 512), 1000000000, '366 days', 1000000000)",
    "rate_limit('', 1, '1 millisecond', 0)",
    "rate_limit('fresh', 1, '366 days', 1000000000, 'token_bucket', 1000000000)",
    "semaphore_acquire(repeat('x', 512), 1000000, '366 days')",
    "semaphore_acquire('ü' || chr(128512) || chr(1) || '''\";--', 1, '1 millisecond')",
    "semaphore_acquire('good', NULL, NULL, NULL)",
    "semaphore_acquire('good', 1, '1 hour', '1 microsecond')",
    "semaphore_extend('good', -9223372036854775808, '1 millisecond')",
    "semaphore_release('good', 9223372036854775807)",
    "semaphore_release('good', 0)",
    "semaphore_holders(repeat('x', 512))",
    "kv_set('key', 'null', NULL, NULL, NULL)",
    "kv_set(repeat('x', 512), '[]', '1 millisecond', 0)",
    "kv_set('ü' || chr(128512) || chr(1), '1', '36525 days')",
    "kv_set('key', '1', if_version => 9223372036854775807)",
    "kv_get(repeat('x', 512))",
    "kv_delete('nope', NULL, NULL)",
    "kv_keys(NULL, NULL, NULL, NULL)",
    "kv_keys(repeat('%', 10000), repeat('x', 10000), 10000)",
    "kv_incr('fresh', -9223372036854775808)",
    "kv_merge('merged', 'null')",
    "kv_mget(NULL)",
    "kv_mset('{}')",
    "kv_find('{}', NULL, NULL)",
    "kv_watch(NULL, NULL, NULL, NULL)",
    "kv_watch(repeat('%', 10000), 0, '0')",
    "kv_history(repeat('x', 512))",
    "kv_drop('nope', true)",
    "maintain('0')",
    "cache_set('key', '1', tags => ARRAY[]::text[])",
    "cache_set('key', '1', tags => ARRAY[repeat('x', 128), 'b', 'c', 'd', 'e', 'f', 'g', 'h'])",
    "cache_invalidate('no such tag')",
    "cache_incr('fresh', -9223372036854775808)",
    "cache_compare_and_set('nope', '1', '2')",
    "cache_tag_table('good_table', repeat('x', 128))",
    "cache_untag_table('pg_class')",
    "rate_limit_policy_drop('nope')",
    "rate_limit_by('strict', '')",
];
