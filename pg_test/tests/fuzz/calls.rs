//! Statements that call a function, each in one of the ways in which a function can be called.

use crate::arguments::{Remembered, pick, value};
use anyhow::Result;
use fastrand::Rng;
use postgres::Client;

/// A function of the catalog.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Name and type of each argument.
    arguments: Vec<(String, String)>,
    /// How many of the last arguments have defaults.
    defaults: usize,
    returns_trigger: bool,
    returns_set: bool,
    /// Its result is of a type that belongs to the extension.
    pub(crate) returns_own_type: bool,
}

/// All that the schema has.
pub(crate) fn functions(client: &mut Client) -> Result<Vec<Function>> {
    let rows = client.query(
        "SELECT proname::text, coalesce(proargnames[1:pronargs], '{}'), \
                ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS a (t, n) ORDER BY n), \
                pronargdefaults, prorettype = 'trigger'::regtype, proretset, \
                (SELECT typnamespace = 'enough'::regnamespace FROM pg_type AS t WHERE t.oid = prorettype) \
         FROM pg_proc WHERE pronamespace = 'enough'::regnamespace AND prokind = 'f' ORDER BY proname, oid",
        &[],
    )?;
    let function = |row: &postgres::Row| {
        let (names, types): (Vec<String>, Vec<String>) = (row.get(1), row.get(2));
        Function {
            name: row.get(0),
            arguments: names.into_iter().zip(types).collect(),
            defaults: usize::try_from(row.get::<_, i16>(3)).unwrap_or(0),
            returns_trigger: row.get(4),
            returns_set: row.get(5),
            returns_own_type: row.get(6),
        }
    };
    Ok(rows.iter().map(function).collect())
}

/// A call of one of `functions`, as an expression; and whether it gives a set.
fn expression(rng: &mut Rng, functions: &[Function], remembered: Remembered) -> (String, bool) {
    // What works on queues is what DDL meets: half of the calls are of those.
    let queues: Vec<&Function> = functions.iter().filter(|function| function.name.contains("queue")).collect();
    let function = if rng.bool() && !queues.is_empty() {
        queues[rng.usize(..queues.len())]
    } else {
        &functions[rng.usize(..functions.len())]
    };
    let mut arguments = Vec::new();
    let first_default = function.arguments.len().saturating_sub(function.defaults);
    for (place, (name, kind)) in function.arguments.iter().enumerate() {
        if place >= first_default && rng.u8(..3) > 0 {
            continue;
        }
        arguments.push(format!("\"{name}\" => {}", value(rng, &function.name, name, kind, remembered)));
    }
    let set = function.returns_set && !function.returns_trigger;
    (format!("enough.{}({})", function.name, arguments.join(", ")), set)
}

/// A statement with a call in it.
pub(crate) fn statement(rng: &mut Rng, functions: &[Function], remembered: Remembered) -> String {
    let (call, set) = expression(rng, functions, remembered);
    match rng.u8(..40) {
        0 => format!("SELECT {call} FROM generate_series(1, 3)"),
        1 => format!("DO $fuzz$ BEGIN PERFORM {call}; EXCEPTION WHEN others THEN PERFORM 1; END $fuzz$"),
        2 => format!(
            "DO $fuzz$ BEGIN FOR i IN 1..3 LOOP BEGIN PERFORM {call}; RAISE EXCEPTION 'x'; \
             EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $fuzz$"
        ),
        3 => format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM {call}"),
        4 => format!("INSERT INTO t SELECT 1 FROM {call}"),
        5 => format!("SELECT * FROM {call} LIMIT 1"),
        6 => format!("SELECT * FROM t, LATERAL {call} LIMIT 5"),
        7 => format!("CREATE TEMP TABLE IF NOT EXISTS made AS SELECT * FROM {call}"),
        8 => {
            let other = expression(rng, functions, remembered).0;
            format!("SELECT {call}, {other}")
        }
        9 => format!("WITH x AS MATERIALIZED (SELECT * FROM {call}) SELECT count(*) FROM x"),
        10 => format!("SELECT 1 FROM t WHERE ({}) IS NOT NULL", if set { "SELECT 1".to_owned() } else { call }),
        11 => format!("DECLARE fuzz CURSOR FOR SELECT * FROM {call}; FETCH 1 FROM fuzz"),
        12 => format!("PREPARE fuzz_{} AS SELECT * FROM {call}", rng.u8(..4)),
        13 => format!("SELECT {call} FROM t_parallel"),
        _ => format!("SELECT * FROM {call}"),
    }
}

/// A statement of a session's own, without a call in it.
pub(crate) fn around(rng: &mut Rng) -> String {
    let number = rng.u8(..4);
    match rng.u8(..26) {
        0..3 => format!("EXECUTE fuzz_{number}"),
        3..7 => "BEGIN".to_owned(),
        7..10 => "COMMIT".to_owned(),
        10..12 => "ROLLBACK".to_owned(),
        12..14 => format!("SAVEPOINT s{number}"),
        14..16 => format!("ROLLBACK TO s{number}"),
        16 => format!("RELEASE s{number}"),
        17 => format!("BEGIN ISOLATION LEVEL {}", pick(rng, &["REPEATABLE READ", "SERIALIZABLE", "READ COMMITTED"])),
        18 => format!("SET LOCAL lock_timeout = '{} ms'", rng.u16(1..300)),
        19 => format!("SET statement_timeout = '{} ms'", rng.u16(1..800)),
        20 => format!("PREPARE TRANSACTION 'fuzz_{}'", rng.u64(..)),
        21 => pick(rng, &["DISCARD ALL", "DISCARD PLANS", "RESET ALL", "DEALLOCATE ALL", "CLOSE ALL"]).to_owned(),
        22 => pick(
            rng,
            &[
                "SET session_replication_role = replica",
                "SET session_replication_role = origin",
                "SET default_transaction_read_only = on",
                "SET default_transaction_read_only = off",
                "SET search_path = ''",
                "SET search_path = enough, pg_temp",
                "SET work_mem = '64kB'",
                "SET force_parallel_mode = on",
                "SET debug_parallel_query = on",
                "SET plan_cache_mode = force_generic_plan",
                "SET TimeZone = 'Asia/Kathmandu'",
                "SET row_security = off",
                // With debug5 the server itself takes a cancel where it may not: its message in CleanupSubTransaction.
                "SET client_min_messages = debug4",
            ],
        )
        .to_owned(),
        23 => pick(rng, &["SET ROLE fuzz_app", "RESET ROLE", "RESET ROLE"]).to_owned(),
        _ => "FETCH ALL FROM fuzz".to_owned(),
    }
}
