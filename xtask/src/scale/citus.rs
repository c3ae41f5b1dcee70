//! `ops/citus/enough_citus.sql`: the functions by their own names in a schema beside the extension's, each of which Citus
//! runs on the node of its key.
//!
//! Citus routes rows, so there is a table of slots in shards: a call is a query of the slot of its key, and runs where that
//! row is. In PL/pgSQL, because the slot must reach Citus as a parameter: an expression isn't routed under a generic plan.

use super::places::{Place, Together};
use super::{Function, functions};
use crate::paths;
use anyhow::Result;
use postgres::Client;
use std::fmt::Write as _;
use std::path::PathBuf;

/// What comes before the functions.
const HEAD: &str = "\
-- pg_enough on Citus: the functions by their own names, each on the node of its key or queue.
-- Written by `cargo xtask reference`; docs/scaling.md says how it is used, and what it doesn't promise.
-- To be run on the coordinator, in a database with the extensions citus and pg_enough; again after pg_enough was updated:
-- the slots, and so the places of keys, stay.

\\set ON_ERROR_STOP on
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL citus.multi_shard_modify_mode = 'sequential';
SET LOCAL citus.enable_schema_based_sharding = off;
-- With a copy of a slot on another node, what a call does would be done there as well, or instead.
SET LOCAL citus.shard_replication_factor = 1;
CREATE SCHEMA IF NOT EXISTS enough_citus;
GRANT USAGE ON SCHEMA enough_citus TO PUBLIC;

-- A key belongs to a slot, and a slot to the node that has its row. No row is ever marked: an UPDATE of the marked ones tells
-- Citus that the transaction writes there, so that it commits in two phases where it writes on another node, too.
CREATE TABLE IF NOT EXISTS enough_citus.node (slot integer PRIMARY KEY, mark boolean NOT NULL DEFAULT false CHECK (NOT mark));
SELECT create_distributed_table('enough_citus.node', 'slot', colocate_with => 'none', shard_count => 32)
WHERE NOT EXISTS (SELECT FROM pg_dist_partition AS p WHERE p.logicalrelid = 'enough_citus.node'::regclass);
INSERT INTO enough_citus.node (slot) SELECT generate_series(0, 255) ON CONFLICT (slot) DO NOTHING;
GRANT SELECT, UPDATE ON enough_citus.node TO PUBLIC;

-- What an older version of this has made.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc AS p WHERE p.pronamespace = 'enough_citus'::regnamespace LOOP
        EXECUTE format('DROP FUNCTION %s', one.name);
    END LOOP;
    FOR one IN SELECT c.relname AS name FROM pg_class AS c WHERE c.relnamespace = 'enough_citus'::regnamespace AND c.relkind = 'c' LOOP
        EXECUTE format('DROP TYPE enough_citus.%I', one.name);
    END LOOP;
END $$;

-- NULL goes to some node, which says what is wrong with it.
CREATE FUNCTION enough_citus._slot(key text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT coalesce(hashtext($1), 0) & 255';

-- A slot of each node that has any.
CREATE FUNCTION enough_citus._slots() RETURNS TABLE(slot integer, node integer)
LANGUAGE sql STABLE AS $$
SELECT min(n), p.groupid
FROM generate_series(0, 255) AS n
JOIN pg_dist_placement AS p ON p.shardid = get_shard_id_for_distribution_column('enough_citus.node', n)
GROUP BY p.groupid
ORDER BY p.groupid
$$;

-- The node on which a key is: a client that is connected to it needs no hop.
CREATE FUNCTION enough_citus.where_is(key text, OUT node_name text, OUT node_port integer)
LANGUAGE sql STABLE AS $$
SELECT n.nodename, n.nodeport
FROM pg_dist_placement AS p
JOIN pg_dist_node AS n ON n.groupid = p.groupid AND n.noderole = 'primary'
WHERE p.shardid = get_shard_id_for_distribution_column('enough_citus.node', enough_citus._slot($1))
$$;

-- Makes this transaction commit in two phases: for a message that is sent to a queue of the session's own node, by the
-- extension's own function, and rows that are written on one other.
CREATE FUNCTION enough_citus.two_phase() RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
    _here constant integer := (SELECT l.groupid FROM pg_dist_local_group AS l);
    _slots integer[] := ARRAY(SELECT s.slot FROM enough_citus._slots() AS s WHERE s.node = _here);
    _slot integer;
BEGIN
    -- What is written here is enough; elsewhere it takes two nodes, since for one Citus sees no need.
    IF _slots = '{}' THEN
        _slots := ARRAY(SELECT s.slot FROM enough_citus._slots() AS s LIMIT 2);
        IF cardinality(_slots) < 2 THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = 'one node alone has slots, and it is another',
                HINT = 'Send to a queue by enough_citus.queue_send().';
        END IF;
    END IF;
    FOREACH _slot IN ARRAY _slots LOOP
        UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;
    END LOOP;
END $$;
";

/// The functions whose calls leave nothing that must commit with the transaction: what they read, or what they change at
/// once, whatever becomes of it. Whatever isn't named here is taken for one that does.
const AT_ONCE: [&str; 13] = [
    "maintain",
    "queue_attempts",
    "queue_dead",
    "queue_list",
    "queue_peek",
    "queue_read",
    "queue_read_own",
    "queue_read_these",
    "queue_result",
    "queue_stats",
    "queue_status",
    "queue_visible_at",
    "status",
];

/// The same for all functions whose names begin so, but for the policies, which are rows, and for [`REMOVALS`]. What puts
/// entries into the cache, because in two phases nothing would be put there.
const AT_ONCE_FAMILIES: [&str; 3] = ["cache_", "rate_limit", "semaphore_"];

/// What must not be lost of the cache: an older entry would stay.
const REMOVALS: [&str; 3] = ["cache_clear", "cache_delete", "cache_invalidate"];

/// Tells Citus that there is something to commit on the slot's node.
const MARK: &str = "UPDATE enough_citus.node SET mark = false WHERE node.slot = _slot AND node.mark;";

const SEVERAL_KEYS: &str = "its keys are on several nodes: call the function for one key, or this where the rows are";

/// Where it is kept.
pub fn file() -> PathBuf {
    paths::workspace().join("ops/citus/enough_citus.sql")
}

/// Writes it from a database that has the extension in it.
pub fn render(client: &mut Client) -> Result<String> {
    let mut text = HEAD.to_owned();
    let mut absent = String::new();
    for function in functions(client)? {
        match place(&function) {
            Place::Nowhere(why) => writeln!(absent, "--   {}: {why}", function.name)?,
            place => define(&mut text, &function, place)?,
        }
    }
    write!(text, "\n-- Not here:\n{absent}\nCOMMIT;\n")?;
    Ok(text)
}

/// Where calls belong, as for other servers, but for what a transaction over several calls changes.
fn place(function: &Function) -> Place {
    match function.place {
        _ if function.name == "queue_read_own" => Place::One(0),
        Place::Each(_) => Place::Nowhere(SEVERAL_KEYS),
        place => place,
    }
}

/// Whether a call has something to lose until it is committed.
fn waits_for_commit(name: &str) -> bool {
    let family =
        AT_ONCE_FAMILIES.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with("rate_limit_policy_");
    REMOVALS.contains(&name) || !family && !AT_ONCE.contains(&name)
}

/// One function: what it declares, and what it does with the slot of its key, or with that of each node.
fn define(text: &mut String, function: &Function, place: Place) -> Result<()> {
    let Function { name, arguments, .. } = function;
    let together = match place {
        Place::All(together) => together,
        _ => Together::Rows,
    };
    // PL/pgSQL has no argument and result of one name, so a row of those is a type.
    let (arguments, result) = match arguments.split_once(", OUT ") {
        Some((arguments, row))
            if !arguments.starts_with("OUT ")
                && arguments.split(", ").any(|argument| {
                    let name = argument.split(' ').next().unwrap_or_default();
                    function.outputs.iter().any(|output| output == name)
                }) =>
        {
            write!(text, "\nCREATE TYPE enough_citus.{name}_row AS ({});\n", row.replace(", OUT ", ", "))?;
            (arguments, format!("SETOF enough_citus.{name}_row"))
        }
        _ => (arguments.as_str(), function.result.clone()),
    };
    // One row of each node is several.
    let result = match (place, result.as_str()) {
        (Place::All(_), "record") => "SETOF record",
        (_, result) => result,
    };
    let given: Vec<String> = (1..=function.inputs.len()).map(|number| format!("${number}")).collect();
    let call = format!("enough.{name}({})", given.join(", "));
    let (declared, action, end) = action(function, together, result, &call);
    let mut body = String::new();
    if waits_for_commit(name) {
        body = format!("    {MARK}\n");
    }
    writeln!(body, "    {action}")?;
    let slots = match place {
        Place::OneOrAll => Some(
            "SELECT enough_citus._slot($1) WHERE $1 IS NOT NULL UNION ALL SELECT s.slot FROM enough_citus._slots() AS s WHERE $1 IS NULL",
        ),
        Place::All(_) => Some("SELECT s.slot FROM enough_citus._slots() AS s"),
        _ => None,
    };
    let slot = match (place, slots) {
        (Place::One(key), _) => format!("_slot constant integer := enough_citus._slot(${})", key + 1),
        (_, Some(slots)) => {
            body = format!("    FOR _slot IN {slots} LOOP\n{}    END LOOP;\n", indented(&body));
            "_slot integer".to_owned()
        }
        _ => "_slot constant integer := 0".to_owned(),
    };
    write!(
        text,
        "\nCREATE FUNCTION enough_citus.{name}({arguments}) RETURNS {result}\n\
         LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$\n\
         DECLARE\n    {slot};\n{declared}BEGIN\n{body}{end}END $$;\n"
    )?;
    Ok(())
}

/// What a call with this result takes: declarations, the statement that runs it at a slot, and what comes after the last.
fn action(function: &Function, together: Together, result: &str, call: &str) -> (String, String, String) {
    let nothing = String::new;
    let at_slot = "FROM enough_citus.node WHERE node.slot = _slot";
    if together == Together::Nothing || result == "void" {
        return (nothing(), format!("PERFORM {call} {at_slot};"), nothing());
    }
    // Never `(call).*`, which would call once for each column.
    let from = format!("FROM enough_citus.node, {call} AS _answers WHERE node.slot = _slot");
    if result.starts_with("SETOF ") || result.starts_with("TABLE(") {
        return (nothing(), format!("RETURN QUERY SELECT _answers.* {from};"), nothing());
    }
    if result == "record" {
        return (
            nothing(),
            format!("SELECT _answers.* INTO STRICT {} {from};", function.outputs.join(", ")),
            nothing(),
        );
    }
    let one = format!("SELECT {call} INTO STRICT _answer {at_slot};");
    let declared = format!("    _answer {result};\n");
    let (start, more) = match together {
        Together::Sum => ("0", "coalesce(_all + _answer, _all)"),
        Together::Either => ("false", "coalesce(_all OR _answer, _all)"),
        Together::Rows | Together::Nothing => return (declared, one, "    RETURN _answer;\n".to_owned()),
    };
    let declared = format!("{declared}    _all {result} := {start};\n");
    (declared, format!("{one}\n    _all := {more};"), "    RETURN _all;\n".to_owned())
}

/// The lines of a loop's body.
fn indented(body: &str) -> String {
    body.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_function_does_waits_for_the_commit() {
        assert!(["queue_new", "queue_send", "queue_delete", "rate_limit_policy_set"].into_iter().all(waits_for_commit));
        assert!(!["cache_set", "rate_limit", "semaphore_acquire", "queue_read"].into_iter().any(waits_for_commit));
    }
}
