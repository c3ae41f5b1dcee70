//! What is bad for each kind of argument: SQL, and the SQLSTATE that it has to give.

/// An expression, and its SQLSTATE. An expression whose own evaluation fails in one version (an infinite interval
/// before 17) isn't tried in it.
pub(crate) type Bad = (&'static str, &'static str);

pub(crate) const NULL: Bad = ("NULL", "22004");

/// A queue's name where the queue has to be there.
pub(crate) const QUEUE: &[Bad] = &[
    NULL,
    ("'nope'", "42704"),
    ("repeat('x', 48)", "42704"),
    ("'Q'", "42704"),
    ("'a_q'", "42704"),
    ("''", "22023"),
    ("' '", "22023"),
    ("' q'", "22023"),
    ("'q '", "22023"),
    ("repeat('x', 49)", "22023"),
    ("repeat('x', 100000)", "22023"),
    ("'1q'", "22023"),
    ("'-q'", "22023"),
    ("'.q'", "22023"),
    ("'q\"'", "22023"),
    ("'q''; DROP TABLE enough.queue; --'", "22023"),
    ("'q\"; DROP TABLE enough.queue; --'", "22023"),
    ("'q;'", "22023"),
    ("'q\\'", "22023"),
    ("'q/..'", "22023"),
    ("'q' || chr(10)", "22023"),
    ("'q' || chr(1)", "22023"),
    ("'ü'", "22023"),
    ("'q' || chr(128512)", "22023"),
    ("'%'", "22023"),
    ("'$1'", "22023"),
    ("'enough.q_q'", "42704"),
];

/// A name for a queue that is to be made.
pub(crate) const NEW_QUEUE: &[Bad] = &[
    NULL,
    ("'q'", "42710"),
    ("''", "22023"),
    ("repeat('x', 49)", "22023"),
    ("'1q'", "22023"),
    ("'q\"; DROP TABLE enough.queue; --'", "22023"),
    ("'q''x'", "22023"),
    ("'ü'", "22023"),
    ("'a b'", "22023"),
];

/// An interval that may be zero.
pub(crate) const NOT_NEGATIVE: &[Bad] = &[
    NULL,
    ("'-1 microsecond'::interval", "22023"),
    ("'-1 day'::interval", "22023"),
    ("'1 day -25 hours'::interval", "22023"),
    ("'-178000000 years'::interval", "22023"),
    ("'-infinity'::interval", "22023"),
];

/// What is beyond every limit.
pub(crate) const TOO_LONG: &[Bad] = &[("'178000000 years'::interval", "22023"), ("'infinity'::interval", "22023")];

/// An interval from a millisecond to 366 days.
pub(crate) const LEASE: &[Bad] =
    &[("'0'::interval", "22023"), ("'999 microseconds'::interval", "22023"), ("'367 days'::interval", "22023")];

pub(crate) const YEAR: &[Bad] = &[("'367 days'::interval", "22023")];

/// A time to live: NULL means for ever.
pub(crate) const TTL: &[Bad] = &[
    ("'0'::interval", "22023"),
    ("'-1 second'::interval", "22023"),
    ("'-178000000 years'::interval", "22023"),
    ("'178000000 years'::interval", "22023"),
    ("'infinity'::interval", "22023"),
    ("'-infinity'::interval", "22023"),
];

/// A number from 1 to 10,000.
pub(crate) const QTY: &[Bad] =
    &[NULL, ("0", "22023"), ("-1", "22023"), ("10001", "22023"), ("2147483647", "22023"), ("-2147483648", "22023")];

pub(crate) const PRIORITY: &[Bad] = &[NULL, ("-1", "22023"), ("10", "22023"), ("2147483647", "22023")];

/// A name of a schedule.
pub(crate) const SCHEDULE: &[Bad] = &[NULL, ("''", "22023"), ("'a b'", "22023"), ("repeat('x', 49)", "22023")];

/// An interval below zero, where NULL has a meaning.
pub(crate) const NEGATIVE: &[Bad] = &[("'-1 microsecond'::interval", "22023"), ("'-infinity'::interval", "22023")];

/// A limit: NULL means none.
pub(crate) const LIMIT: &[Bad] = &[("-1", "22023"), ("-2147483648", "22023")];

/// A key where none may be given.
pub(crate) const OPTIONAL_KEY: &[Bad] =
    &[("repeat('x', 513)", "54000"), ("repeat('ü', 257)", "54000"), ("repeat('x', 10000000)", "54000")];

/// The same for two messages.
pub(crate) const OPTIONAL_KEYS: &[Bad] = &[
    ("ARRAY[]::text[]", "22023"),
    ("ARRAY['a']", "22023"),
    ("ARRAY['a', 'b', 'c']", "22023"),
    ("ARRAY['a', repeat('x', 513)]", "54000"),
];

pub(crate) const DELAY: &[Bad] = &[("'3654 days'::interval", "22023"), ("'10 years 1 microsecond'::interval", "22023")];

pub(crate) const DELIVER_AT: &[Bad] = &[
    ("'infinity'::timestamptz", "22023"),
    ("'-infinity'::timestamptz", "22023"),
    ("'294276-12-31'::timestamptz", "22023"),
    ("clock_timestamp() + interval '3660 days'", "22023"),
];

pub(crate) const WAIT: &[Bad] = &[("'1 hour 1 microsecond'::interval", "22023"), ("'1 year'::interval", "22023")];

/// A key of the cache or of the limiter.
pub(crate) const KEY: &[Bad] =
    &[NULL, ("repeat('x', 513)", "54000"), ("repeat('ü', 257)", "54000"), ("repeat('x', 10000000)", "54000")];

/// The name of a semaphore.
pub(crate) const SEMAPHORE: &[Bad] = &[
    NULL,
    ("''", "22023"),
    ("repeat('x', 513)", "54000"),
    ("repeat('ü', 257)", "54000"),
    ("repeat('x', 10000000)", "54000"),
];

/// An array of keys.
pub(crate) const KEYS: &[Bad] =
    &[("ARRAY['good', NULL]", "22004"), ("ARRAY[NULL, 'good']", "22004"), ("ARRAY['good', repeat('x', 513)]", "54000")];

pub(crate) const VALUE: &[Bad] = &[NULL, ("to_jsonb(repeat('x', 1100000))", "54000")];

pub(crate) const BYTES: &[Bad] = &[NULL, ("convert_to(repeat('x', 1100000), 'UTF8')", "54000")];

pub(crate) const MSG_IDS: &[Bad] = &[
    ("ARRAY[1, NULL]::bigint[]", "22004"),
    ("(SELECT array_agg(n) FROM generate_series(1::bigint, 10001) AS n)", "54000"),
];

/// Leases of a batch of one message.
pub(crate) const LEASES: &[Bad] =
    &[("'{}'::bigint[]", "22023"), ("ARRAY[1, 2]", "22023"), ("ARRAY[[1, NULL]]", "22023")];

pub(crate) const MAX_REQUESTS: &[Bad] = &[NULL, ("-1", "22023"), ("1000000001", "22023"), ("-2147483648", "22023")];

pub(crate) const PERIOD: &[Bad] = &[
    NULL,
    ("'0'::interval", "22023"),
    ("'999 microseconds'::interval", "22023"),
    ("'-1 second'::interval", "22023"),
    ("'366 days 1 microsecond'::interval", "22023"),
    ("'178000000 years'::interval", "22023"),
    ("'-178000000 years'::interval", "22023"),
    ("'infinity'::interval", "22023"),
    ("'-infinity'::interval", "22023"),
];

pub(crate) const COST: &[Bad] = &[("-1", "22023"), ("1000000001", "22023"), ("-2147483648", "22023")];

pub(crate) const ALGORITHM: &[Bad] = &[
    ("''", "22023"),
    ("'gcra'", "22023"),
    ("'SLIDING_WINDOW'", "22023"),
    ("'sliding_window '", "22023"),
    ("repeat('x', 1000000)", "22023"),
];

/// Beside an algorithm that has none, any burst is wrong.
pub(crate) const BURST: &[Bad] = &[("1", "22023"), ("0", "22023"), ("-1", "22023"), ("1000000001", "22023")];

pub(crate) const CALENDAR: &[Bad] =
    &[("''", "22023"), ("'fortnight'", "22023"), ("'Day'", "22023"), ("'day'", "22023")];

pub(crate) const TIME_ZONE: &[Bad] =
    &[("''", "22023"), ("'Mars'", "22023"), ("'../zoneinfo/UTC'", "22023"), ("repeat('x', 1000)", "22023")];

pub(crate) const NOT_NULL: &[Bad] = &[NULL];

/// A tag of cache entries.
pub(crate) const TAG: &[Bad] = &[NULL, ("repeat('x', 129)", "54000"), ("repeat('ü', 65)", "54000")];

/// The tags of an entry; NULL and none at all are none.
pub(crate) const TAGS: &[Bad] = &[
    ("ARRAY['tag', NULL]", "22004"),
    ("ARRAY[repeat('x', 129)]", "54000"),
    ("ARRAY['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i']", "54000"),
];

/// The name of a policy.
pub(crate) const POLICY: &[Bad] =
    &[NULL, ("''", "22023"), ("repeat('x', 64)", "22023"), ("repeat('x', 1000000)", "22023")];

/// A topic, or a pattern.
pub(crate) const WORDS: &[Bad] = &[
    NULL,
    ("''", "22023"),
    ("'.'", "22023"),
    ("'a.'", "22023"),
    ("'.a'", "22023"),
    ("'a..b'", "22023"),
    ("'a b'", "22023"),
    ("'a/b'", "22023"),
    ("'a.>'", "22023"),
    ("'a.b*'", "22023"),
    ("'**'", "22023"),
    ("'a#'", "22023"),
    ("'ü'", "22023"),
    ("'a' || chr(10)", "22023"),
    ("repeat('x', 256)", "22023"),
    ("repeat('a.', 1000000) || 'a'", "22023"),
];
