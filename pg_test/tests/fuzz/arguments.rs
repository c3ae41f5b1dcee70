//! Values for arguments: what a function expects by its name, and what its type can do to it.

use fastrand::Rng;

/// The queues that there are at the beginning of a round.
pub(crate) const QUEUES: [&str; 3] = ["a", "b", "c"];

/// What a session remembers of the last message that it read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Remembered {
    pub(crate) msg_id: i64,
    pub(crate) lease: i64,
}

/// Picks one.
pub(crate) fn pick<'a>(rng: &mut Rng, values: &[&'a str]) -> &'a str {
    values[rng.usize(..values.len())]
}

/// An SQL expression for the argument `name` of the type `kind` of `function`.
pub(crate) fn value(rng: &mut Rng, function: &str, name: &str, kind: &str, remembered: Remembered) -> String {
    if rng.u8(..100) < 80
        && let Some(expected) = expected(rng, function, name, kind, remembered)
    {
        return expected;
    }
    nasty(rng, kind)
}

/// What makes sense there, by the argument's name; `None` where that says nothing.
fn expected(rng: &mut Rng, function: &str, name: &str, kind: &str, remembered: Remembered) -> Option<String> {
    let of_queue = function.starts_with("queue") || function.starts_with("_queue");
    let text = match (name, kind) {
        ("queue", "text") => quoted(pick(rng, &QUEUES)),
        ("name", "text") if of_queue => quoted(pick(rng, &["a", "b", "c", "d"])),
        ("name", "text") if function.starts_with("semaphore") => quoted(pick(rng, &["s1", "s2"])),
        ("token", "bigint") => "(SELECT max(token) FROM enough.semaphore_holders())".to_owned(),
        ("space", "text") => quoted(pick(rng, &["default", "docs", "fresh"])),
        ("name" | "policy", "text") => quoted(pick(rng, &["p1", "p2"])),
        ("key", "text") => format!("'k{}'", rng.u8(..6)),
        ("group_key" | "dedup_key", "text") => pick(rng, &["NULL", "'g1'", "'g2'", "'g3'"]).to_owned(),
        ("keys", "text[]") => pick(rng, &["ARRAY['k1', 'k2']", "ARRAY['k3', 'k3', 'k4']", "ARRAY['k0']"]).to_owned(),
        ("tag", "text") => pick(rng, &["'t1'", "'t2'"]).to_owned(),
        ("tags", "text[]") => pick(rng, &["NULL", "ARRAY['t1']", "ARRAY['t1', 't2']", "'{}'"]).to_owned(),
        ("group_keys" | "dedup_keys", "text[]") => {
            pick(rng, &["NULL", "ARRAY['g1', 'g2']", "ARRAY['g1', NULL]", "ARRAY['g3', 'g3']"]).to_owned()
        }
        ("messages" | "headers", "jsonb[]") => {
            pick(rng, &["ARRAY['1', '2']::jsonb[]", "ARRAY['{\"a\": 1}', 'null']::jsonb[]", "ARRAY['[]']::jsonb[]"])
                .to_owned()
        }
        ("msg_id", "bigint") => {
            if rng.bool() {
                remembered.msg_id.to_string()
            } else {
                rng.i64(1..40).to_string()
            }
        }
        ("lease", "bigint") => {
            if rng.bool() {
                "NULL".to_owned()
            } else {
                remembered.lease.to_string()
            }
        }
        ("leases", "bigint[]") => pick(rng, &["NULL", "ARRAY[1, 2]::bigint[]"]).to_owned(),
        ("msg_ids", "bigint[]") => match rng.u8(..3) {
            0 => format!("ARRAY[{}, {}]::bigint[]", remembered.msg_id, rng.i64(1..40)),
            1 => format!("(SELECT array_agg(n) FROM generate_series({0}::bigint, {0} + 20) AS n)", rng.i64(1..40)),
            _ => format!("ARRAY[{0}, {0}]::bigint[]", rng.i64(1..40)),
        },
        ("wait", "interval") => pick(rng, &["'0'", "'20 ms'", "'200 ms'", "'1 s'"]).to_owned(),
        ("max_duration", "interval") => pick(rng, &["'0'", "'10 ms'", "'1 s'"]).to_owned(),
        (_, "interval") => {
            pick(rng, &["'0'", "'1 ms'", "'20 ms'", "'200 ms'", "'1 s'", "'1 hour'", "'7 days'", "NULL"]).to_owned()
        }
        ("periods", "interval[]") => {
            pick(rng, &["ARRAY['1 s', '1 hour']::interval[]", "ARRAY['1 s']::interval[]"]).to_owned()
        }
        (_, "integer[]") => pick(rng, &["ARRAY[5, 10]", "ARRAY[3]"]).to_owned(),
        ("priority", "integer") => rng.i32(0..10).to_string(),
        (_, "integer") => pick(rng, &["1", "2", "5", "20", "NULL"]).to_owned(),
        (_, "boolean") => pick(rng, &["true", "false"]).to_owned(),
        ("algorithm", _) => pick(rng, &["'sliding_window'", "'fixed_window'", "'token_bucket'"]).to_owned(),
        ("mode", _) => pick(rng, &["'always'", "'if_absent'", "'if_present'"]).to_owned(),
        ("state", _) => pick(rng, &["'ready'", "'leased'", "'delayed'", "'done'", "'dead'"]).to_owned(),
        ("what", _) => pick(rng, &["'send'", "'consume'", "'observe'", "'all'"]).to_owned(),
        ("role", "regrole") => pick(rng, &["'fuzz_app'::regrole", "current_user::text::regrole"]).to_owned(),
        ("query", "text") => pick(rng, QUERIES).to_owned(),
        ("args", "jsonb") => pick(rng, &["NULL", "'[1]'", "'{\"a\": 1}'", "'[]'"]).to_owned(),
        ("schedule", "text") => pick(rng, &["'* * * * *'", "'5 seconds'", "'never'"]).to_owned(),
        (_, "jsonb") => pick(rng, &["'1'", "'{\"a\": [1, 2]}'", "'null'", "'\"text\"'", "'{}'"]).to_owned(),
        (_, "regclass") => pick(rng, TABLES).to_owned(),
        _ => return None,
    };
    Some(text)
}

/// Queries for `cache_fetch`.
const QUERIES: &[&str] = &[
    "'SELECT 1'",
    "'SELECT pg_sleep(0.02)'",
    "'SELECT 1/0'",
    "'SELECT count(*) FROM t'",
    "'INSERT INTO t VALUES (1) RETURNING 1'",
    "'SELECT enough.cache_fetch(''k1'', ''1 s'', ''SELECT 2'')'",
    "'SELECT enough.cache_fetch(''k2'', ''1 s'', ''SELECT enough.cache_set(''''k1'''', ''''3'''')'')'",
    "'SELECT message FROM enough.queue_pop(''a'')'",
    "'SELECT to_jsonb(enough.queue_drop(''c''))'",
    "'SELECT enough.cache_clear()'",
    "'no query'",
    "''",
    "'SELECT 1; SELECT 2'",
    "'ROLLBACK'",
    "'COMMIT'",
    "'DO $$ BEGIN RAISE EXCEPTION ''x''; END $$'",
    "'SELECT $1'",
    "'SELECT $1, $2, $3'",
    "'TABLE enough.queue'",
    "'DROP TABLE IF EXISTS u; CREATE TABLE u ()'",
];

/// Tables, and what only looks like one.
const TABLES: &[&str] = &[
    "'t'::regclass",
    "'v'::regclass",
    "'pt'::regclass",
    "'enough.q_a'::regclass",
    "'enough.queue'::regclass",
    "'pg_class'::regclass",
    "'t_index'::regclass",
    "'t_sequence'::regclass",
    "to_regclass('u')",
    "0::oid::regclass",
    "4294967295::oid::regclass",
    "NULL",
];

/// What a type has at its edges, by the type's name.
const NASTY: &[(&str, &[&str])] = &[
    (
        "text",
        &[
            "NULL",
            "''",
            "' '",
            "'nope'",
            "'A'",
            "'q_a'",
            "repeat('x', 47)",
            "repeat('x', 48)",
            "repeat('x', 49)",
            "repeat('x', 513)",
            "repeat('x', 1000000)",
            "repeat('x', 60000000)",
            "repeat('ü', 40)",
            "chr(1)",
            "chr(10)",
            "'a' || chr(127)",
            "'a\"b'",
            "'a''b'",
            "'a\\b'",
            "'%s%n$1{}'",
            "'a;b--'",
            "'é'",
            "'日本語'",
            "chr(65535)",
            "chr(1114111)",
            "U&'\\202E\\0301'",
            "E'\\xff\\xfe'",
            "E'\\xe4'",
            "convert_from('\\xa4a2', 'EUC_JP')",
            "convert_from('\\xe9', 'LATIN1')",
            "'pg_catalog.now()'",
            "current_user::text",
            "(SELECT string_agg(chr(n), '') FROM generate_series(1, 55000) AS n)",
            "pg_read_file('PG_VERSION')",
        ],
    ),
    (
        "text[]",
        &[
            "NULL",
            "'{}'",
            "'{NULL}'",
            "'{{a,b},{c,d}}'",
            "'[-5:-4]={a,b}'",
            "array_fill('x'::text, ARRAY[10001])",
            "array_fill('x'::text, ARRAY[300000])",
            "ARRAY[repeat('x', 600), 'k1']",
            "ARRAY['', ' ', NULL]",
            "ARRAY(SELECT 'k' || n FROM generate_series(1, 101) AS n)",
        ],
    ),
    (
        "jsonb",
        &[
            "NULL",
            "'null'",
            "'1e400'",
            "to_jsonb(repeat('x', 1100000))",
            "to_jsonb(repeat('x', 20000000))",
            "(repeat('[', 6000) || repeat(']', 6000))::jsonb",
            "(SELECT jsonb_object_agg(n, n) FROM generate_series(1, 5000) AS n)",
            "'\"\\u00e9\\ud83d\\ude00\"'",
            "'{\"\": null, \" \": {}}'",
            "'-0.0000000000000000000000000000000000000000000000001'",
            "to_jsonb(9223372036854775807)",
        ],
    ),
    (
        "jsonb[]",
        &[
            "NULL",
            "'{}'",
            "'{NULL}'",
            "array_fill('1'::jsonb, ARRAY[2, 2])",
            "array_fill('1'::jsonb, ARRAY[10001])",
            "array_fill(to_jsonb(repeat('x', 100000)), ARRAY[200])",
            "array_fill('1'::jsonb, ARRAY[1000])",
            "'[-3:-2]={1,2}'::jsonb[]",
        ],
    ),
    ("integer", &["NULL", "0", "-1", "2147483647", "-2147483648", "10000", "10001", "1000000000", "1000000001"]),
    (
        "integer[]",
        &["NULL", "'{}'", "'{NULL,1}'", "'{{1,2},{3,4}}'", "array_fill(1, ARRAY[101])", "'{2147483647,-2147483648}'"],
    ),
    ("smallint", &["NULL", "0::smallint", "'-32768'::smallint", "32767::smallint"]),
    (
        "bigint",
        &[
            "NULL",
            "0",
            "-1",
            "9223372036854775807",
            "'-9223372036854775808'::bigint",
            "4294967296",
            "281474976710655",
            "281474976710656",
        ],
    ),
    (
        "bigint[]",
        &[
            "NULL",
            "'{}'",
            "'{NULL}'",
            "'{{1,2},{3,4}}'",
            "'{9223372036854775807,-9223372036854775808,0}'",
            "(SELECT array_agg(n) FROM generate_series(1::bigint, 10001) AS n)",
            "(SELECT array_agg(n) FROM generate_series(1::bigint, 10000) AS n)",
            "array_fill(1::bigint, ARRAY[9999])",
            "'[-3:-2]={1,2}'::bigint[]",
        ],
    ),
    ("boolean", &["NULL"]),
    (
        "bytea",
        &["NULL", "''", "'\\x00ff'", "convert_to(repeat('x', 1100000), 'UTF8')", "decode(repeat('00', 60000), 'hex')"],
    ),
    (
        "interval",
        &[
            "NULL",
            "'-1 microsecond'",
            "'1 microsecond'",
            "'178000000 years'",
            "'-178000000 years'",
            "'infinity'",
            "'-infinity'",
            "'1 mon -30 days'",
            "'1 day -24 hours'",
            "'2147483647 months'",
            "'2147483647 days'",
            "'9223372036854775807 microseconds'",
            "'-9223372036854775808 microseconds'",
            "'366 days'",
            "'3653 days'",
        ],
    ),
    (
        "interval[]",
        &["NULL", "'{}'", "'{NULL}'", "'{infinity,-infinity}'", "'{1 s,178000000 years}'", "'{{1 s,1 s},{1 s,1 s}}'"],
    ),
    (
        "timestamp with time zone",
        &[
            "NULL",
            "now()",
            "now() + interval '50 ms'",
            "'infinity'",
            "'-infinity'",
            "'4714-11-24 00:00 BC'",
            "'294276-12-31'",
            "'epoch'",
            "now() + interval '10 years'",
        ],
    ),
    (
        "regrole",
        &["NULL", "0::oid::regrole", "4294967295::oid::regrole", "'fuzz_gone'::regrole", "'pg_monitor'::regrole"],
    ),
    ("regclass", TABLES),
];

/// What a type has at its edges.
fn nasty(rng: &mut Rng, kind: &str) -> String {
    let values = NASTY.iter().find(|(name, _)| *name == kind).map_or(&["NULL"][..], |(_, values)| *values);
    let value = pick(rng, values);
    if value == "NULL" { format!("NULL::{kind}") } else { value.to_owned() }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
