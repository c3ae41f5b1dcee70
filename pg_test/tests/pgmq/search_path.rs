//! The caller's search path has no say. Most functions set their own; what is called for each message only names the
//! schemas of what it uses, as that costs less.

use crate::common::{made, rows};
use anyhow::{Result, ensure};

/// Calls of every function that has no search path of its own, with what they answer one after the other.
const CALLS: [(&str, &[&str]); 23] = [
    ("SELECT pgmq.send('q', '1')", &["1"]),
    ("SELECT pgmq.send('q', '2', 0)", &["2"]),
    ("SELECT pgmq.send('q', '3', '2001-01-01'::timestamptz)", &["3"]),
    ("SELECT pgmq.send('q', '4', '{}'::jsonb)", &["4"]),
    ("SELECT pgmq.send('q', '5', '{}'::jsonb, 0)", &["5"]),
    ("SELECT pgmq.send('q', '6', '{}'::jsonb, '2001-01-01'::timestamptz)", &["6"]),
    ("SELECT pgmq.send_batch('q', '{7}'::jsonb[])", &["7"]),
    ("SELECT pgmq.send_batch('q', '{8}'::jsonb[], 0)", &["8"]),
    ("SELECT pgmq.send_batch('q', '{9}'::jsonb[], '2001-01-01'::timestamptz)", &["9"]),
    ("SELECT pgmq.send_batch('q', '{10}'::jsonb[], '{null}'::jsonb[])", &["10"]),
    ("SELECT pgmq.send_batch('q', '{11}'::jsonb[], '{null}'::jsonb[], 0)", &["11"]),
    ("SELECT pgmq.send_batch('q', '{12}'::jsonb[], '{null}'::jsonb[], '2001-01-01'::timestamptz)", &["12"]),
    ("SELECT msg_id FROM pgmq.read('q', 30, 2)", &["1", "2"]),
    ("SELECT msg_id FROM pgmq.read('q', 30, 1, '{}')", &["3"]),
    ("SELECT pgmq.delete('q', 1)", &["t"]),
    ("SELECT pgmq.delete('q', '{2}'::bigint[])", &["2"]),
    ("SELECT pgmq.archive('q', 3)", &["t"]),
    ("SELECT pgmq.archive('q', '{4}'::bigint[])", &["4"]),
    ("SELECT msg_id FROM pgmq.pop('q')", &["5"]),
    ("SELECT msg_id FROM pgmq.pop('q', 2)", &["6", "7"]),
    // More than there are: what the transaction itself has written is looked for, too.
    ("SELECT msg_id FROM pgmq.read('q', 30, 20)", &["8", "9", "10", "11", "12"]),
    ("SELECT pgmq.send('grouped', '1')", &["1"]),
    ("SELECT msg_id FROM pgmq.read_grouped_head('grouped', 30, 1)", &["1"]),
];

/// A schema with functions and operators that stand in for PostgreSQL's own where they are called without their schema,
/// and fail: all those of a name that stands in a function of pgmq, but for what takes or returns what only PostgreSQL's own
/// may.
const HOSTILE: &str = "
    CREATE SCHEMA hostile;
    DO $do$
    DECLARE
        made int := 0;
        one record;
        sources text := (SELECT string_agg(prosrc, '') FROM pg_catalog.pg_proc WHERE pronamespace = 'pgmq'::regnamespace);
    BEGIN
        FOR one IN
            SELECT p.oid, p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
              FROM pg_catalog.pg_proc AS p
             WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
               AND (strpos(sources, p.proname) > 0
                    OR EXISTS (SELECT FROM pg_catalog.pg_operator AS o WHERE o.oprcode = p.oid AND strpos(sources, o.oprname) > 0))
        LOOP
            BEGIN
                EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE ''captured''; END $$',
                    one.proname, one.arguments, one.result);
                made := made + 1;
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
        FOR one IN
            SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, p.proname
              FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_proc AS p ON p.oid = o.oprcode
             WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b'
               AND strpos(sources, o.oprname) > 0
        LOOP
            BEGIN
                EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.%I, LEFTARG = %s, RIGHTARG = %s)',
                    one.oprname, one.proname, one.l, one.r);
                made := made + 1;
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
        IF made < 500 THEN
            RAISE 'only % functions and operators could be made', made;
        END IF;
    END $do$;
    SET search_path = hostile, pg_catalog";

#[test]
fn the_callers_search_path_has_no_say() -> Result<()> {
    let (_database, mut client, _) = made()?;
    let open = rows(
        &mut client,
        "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace \
            AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql') \
            AND NOT 'search_path=pg_catalog, pg_temp' = ANY (coalesce(proconfig, '{}')) ORDER BY 1",
    );
    let called =
        ["_lease", "_quantity", "_queue", "_read_these", "_send_batch", "_validate_batch_params", "archive", "delete"];
    let called: Vec<&str> =
        called.into_iter().chain(["pop", "read", "read_grouped_head", "send", "send_batch"]).collect();
    ensure!(open == called, "these have no search path of their own, and others are called here: {open:?}");
    client.batch_execute("SELECT pgmq.create(queue) FROM unnest('{q, grouped, own}'::text[]) AS queue")?;
    client.batch_execute(HOSTILE)?;
    ensure!(client.query("SELECT 1 + 1", &[]).is_err(), "the search path captures nothing");
    ensure!(client.query("SELECT length('a'::text)", &[]).is_err(), "the search path captures nothing");
    for (call, expected) in CALLS {
        let found = rows(&mut client, call);
        ensure!(found == expected, "{call} answers {found:?} instead of {expected:?}");
    }
    client.batch_execute("BEGIN; SELECT pgmq.send('q', '13'), pgmq.send('own', '1')")?;
    let own = rows(&mut client, "SELECT msg_id FROM pgmq.read_grouped_head('own', 30, 2)");
    ensure!(own == ["1"], "{own:?}");
    let own = rows(&mut client, "SELECT msg_id FROM pgmq.pop('q', 2)");
    ensure!(own == ["13"], "{own:?}");
    Ok(())
}
