//! The forms that a call has in SQL: each must run where its queue is, as often as SQL says, or be refused.

use super::Tally;
use super::cluster::{COORDINATOR, Cluster};
use anyhow::{Context, Result, ensure};

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// So many messages in the first worker's queue, and in the second's.
    Sent(i64, i64),
    /// An error of this SQLSTATE, and no message.
    Refused(&'static str),
}
use Due::{Refused, Sent};

/// A form, as it is called in a report; in its statements `{a}` and `{b}` are the queues, `{f}(` begins a send, and `{1}` is an order's number.
/// Where there is a parameter, it is prepared by the driver, and run so often that the plan is a generic one.
type Form = (&'static str, &'static str, Due);

/// A volatile function over rows in shards would have to ask other nodes from within a shard.
const NESTED: Due = Refused("XX000");

const FORMS: [Form; 52] = [
    ("select", "SELECT {f}('{a}', '1')", Sent(1, 0)),
    ("from", "SELECT * FROM {f}('{b}', '1')", Sent(0, 1)),
    ("two queues", "SELECT {f}('{a}', '1'), {f}('{b}', '1')", Sent(1, 1)),
    ("named arguments", "SELECT {f}(message => '1', queue => '{b}', priority => 1)", Sent(0, 1)),
    ("expression as key", "SELECT {f}(lower(upper('{a}')), '1')", Sent(1, 0)),
    ("values", "SELECT {f}(q, '1') FROM (VALUES ('{a}'), ('{b}'), ('{b}')) AS t(q)", Sent(1, 2)),
    ("values as rows", "VALUES ({f}('{a}', '1')), ({f}('{b}', '1'))", Sent(1, 1)),
    ("lateral", "SELECT x FROM (VALUES ('{a}'), ('{b}')) AS t(q), LATERAL {f}(q, '1') AS x", Sent(1, 1)),
    ("lateral of a subquery", "SELECT x FROM local, LATERAL (SELECT {f}('{a}', '1') AS x) AS s", Sent(1, 0)),
    ("cross join", "SELECT {f}('{a}', to_jsonb(n)) FROM generate_series(1, 3) AS n", Sent(3, 0)),
    ("rows from", "SELECT * FROM ROWS FROM ({f}('{a}', '1'), {f}('{b}', '1'))", Sent(1, 1)),
    ("with", "WITH s AS (SELECT {f}('{a}', '1') AS id) SELECT id FROM s", Sent(1, 0)),
    ("with, used twice", "WITH s AS MATERIALIZED (SELECT {f}('{a}', '1') AS id) SELECT * FROM s, s AS t", Sent(1, 0)),
    (
        "with recursive",
        "WITH RECURSIVE r(n, id) AS (SELECT 1, {f}('{a}', '1') UNION ALL SELECT n + 1, {f}('{b}', '1') FROM r WHERE n < 3) SELECT * FROM r",
        Sent(1, 2),
    ),
    ("subquery in from", "SELECT id FROM (SELECT {f}('{b}', '1') AS id OFFSET 0) AS s", Sent(0, 1)),
    ("scalar subquery", "SELECT (SELECT {f}('{b}', '1'))", Sent(0, 1)),
    ("exists", "SELECT EXISTS (SELECT {f}('{a}', '1') OFFSET 0)", Sent(1, 0)),
    ("where", "SELECT 1 FROM local WHERE {f}('{a}', '1') > 0", Sent(1, 0)),
    ("order by", "SELECT id FROM local ORDER BY {f}('{a}', '1')", Sent(1, 0)),
    ("group by and having", "SELECT count(*) FROM local GROUP BY id HAVING {f}('{a}', '1') > 0", Sent(1, 0)),
    ("case", "SELECT CASE WHEN id = 1 THEN {f}('{a}', '1') ELSE {f}('{b}', '1') END FROM local", Sent(1, 0)),
    ("coalesce", "SELECT coalesce({f}('{a}', '1'), {f}('{b}', '1'))", Sent(1, 0)),
    ("array", "SELECT ARRAY[{f}('{a}', '1'), {f}('{b}', '1')]", Sent(1, 1)),
    ("row", "SELECT ROW({f}('{a}', '1'), {f}('{b}', '1'))", Sent(1, 1)),
    ("union", "SELECT {f}('{a}', '1') UNION ALL SELECT {f}('{b}', '1')", Sent(1, 1)),
    ("aggregate", "SELECT sum({f}(q, '1')) FROM (VALUES ('{a}'), ('{b}')) AS t(q)", Sent(1, 1)),
    ("window", "SELECT count({f}('{a}', '1')) OVER () FROM local", Sent(1, 0)),
    ("distinct", "SELECT DISTINCT {f}('{a}', '1') FROM generate_series(1, 2)", Sent(2, 0)),
    ("limit", "SELECT {f}('{a}', '1') FROM generate_series(1, 5) LIMIT 2", Sent(2, 0)),
    ("insert of values", "INSERT INTO told VALUES ({f}('{a}', '1')), ({f}('{b}', '1'))", Sent(1, 1)),
    ("insert of a select", "INSERT INTO told SELECT {f}('{a}', '1') FROM generate_series(1, 2)", Sent(2, 0)),
    ("insert returning", "INSERT INTO told VALUES (1) RETURNING {f}('{b}', '1')", Sent(0, 1)),
    ("update", "UPDATE local SET id = 1 + 0 * {f}('{a}', '1')", Sent(1, 0)),
    ("delete", "DELETE FROM local WHERE {f}('{a}', '1') IS NULL", Sent(1, 0)),
    ("create table as", "CREATE TEMP TABLE made AS SELECT {f}('{a}', '1') AS id; DROP TABLE made", Sent(1, 0)),
    (
        "default of a column",
        "CREATE TEMP TABLE d (id bigint DEFAULT {f}('{b}', '1')); INSERT INTO d DEFAULT VALUES; DROP TABLE d",
        Sent(0, 1),
    ),
    ("view", "CREATE TEMP VIEW v AS SELECT {f}('{a}', '1') AS id; SELECT * FROM v; DROP VIEW v", Sent(1, 0)),
    (
        "trigger",
        "CREATE TEMP TABLE t (id bigint); \
         CREATE FUNCTION pg_temp.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {f}('{a}', '1'); RETURN NEW; END $$; \
         CREATE TRIGGER tell AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.tell(); \
         INSERT INTO t VALUES (1), (2); DROP TABLE t; DROP FUNCTION pg_temp.tell()",
        Sent(2, 0),
    ),
    (
        "prepared",
        "PREPARE p (text) AS SELECT {f}($1, '1'); EXECUTE p('{a}'); EXECUTE p('{b}'); DEALLOCATE p",
        Sent(1, 1),
    ),
    (
        "prepared, generic plan",
        "SET plan_cache_mode = force_generic_plan; PREPARE p (text) AS SELECT {f}($1, '1'); EXECUTE p('{a}'); EXECUTE p('{b}'); \
         DEALLOCATE p; RESET plan_cache_mode",
        Sent(1, 1),
    ),
    ("parameter of the driver", "SELECT {f}($1, '1')", Sent(7, 0)),
    ("do", "DO $$ BEGIN PERFORM {f}('{a}', '1'); END $$", Sent(1, 0)),
    (
        "assignment in a loop",
        "DO $$ DECLARE x bigint; BEGIN FOR n IN 1..7 LOOP x := {f}(CASE n % 2 WHEN 0 THEN '{a}' ELSE '{b}' END, '1'); END LOOP; END $$",
        Sent(3, 4),
    ),
    (
        "block that catches an error",
        "DO $$ BEGIN PERFORM {f}('{a}', '1'); BEGIN PERFORM {f}('{b}', '1'); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END; END $$",
        Sent(1, 0),
    ),
    (
        "function in SQL",
        "CREATE FUNCTION pg_temp.s(q text) RETURNS bigint LANGUAGE sql AS $$ SELECT {f}(q, '1') $$; SELECT pg_temp.s('{a}'); DROP FUNCTION pg_temp.s",
        Sent(1, 0),
    ),
    ("copy", "COPY (SELECT {f}('{a}', '1')) TO '/dev/null'", Sent(1, 0)),
    (
        "cursor",
        "BEGIN; DECLARE c CURSOR FOR SELECT {f}('{a}', '1') FROM generate_series(1, 5); FETCH 2 FROM c; COMMIT",
        Sent(2, 0),
    ),
    ("explain analyze", "EXPLAIN ANALYZE SELECT {f}('{a}', '1')", Sent(1, 0)),
    (
        "savepoint",
        "BEGIN; SELECT {f}('{a}', '1'); SAVEPOINT s; SELECT {f}('{b}', '1'); ROLLBACK TO s; COMMIT",
        Sent(1, 0),
    ),
    ("insert into shards", "INSERT INTO orders VALUES ({1}, {f}('{b}', '1'))", Sent(0, 1)),
    ("over rows in shards", "SELECT {f}('{a}', '1') FROM orders", NESTED),
    ("update of rows in shards", "UPDATE orders SET sent = {f}('{a}', '1') WHERE id = {1}", Refused("0A000")),
];

/// Runs each from the coordinator and from a worker.
pub fn run(cluster: &mut Cluster, tally: &mut Tally) -> Result<()> {
    for (node, place) in [(COORDINATOR, "from the coordinator"), (1, "from a worker")] {
        for form in &FORMS {
            tally.count(&format!("{} {place}", form.0), one(cluster, node, form));
            cluster.empty()?;
        }
    }
    Ok(())
}

fn one(cluster: &Cluster, node: usize, (_, sql, due): &Form) -> Result<()> {
    let [a, b] = &cluster.queues;
    let order = cluster.orders[0];
    let sql = sql.replace("{f}", "enough_citus.queue_send").replace("{a}", a).replace("{b}", b);
    let sql = sql.replace("{1}", &order.to_string());
    let mut client = cluster.client(node)?;
    // On a worker, Citus makes no objects, be they temporary, unless told that they are this node's alone.
    client.batch_execute("SET citus.enable_ddl_propagation = off")?;
    if matches!(due, Refused(_)) {
        cluster.client(COORDINATOR)?.execute("INSERT INTO orders SELECT generate_series(1, 100)", &[])?;
    }
    let outcome = if sql.contains("$1") && !sql.contains("PREPARE") {
        let statement = client.prepare(&sql)?;
        (0..7).try_for_each(|_| client.query(&statement, &[a]).map(drop))
    } else {
        client.batch_execute(&sql)
    };
    let sent = match (due, outcome) {
        (Sent(first, second), outcome) => {
            outcome?;
            [*first, *second]
        }
        (Refused(state), outcome) => {
            let error = outcome.err().context("it wasn't refused")?;
            let found = error.code().map_or("", |code| code.code());
            ensure!(found == *state, "{found} in place of {state}: {error:?}");
            [0, 0]
        }
    };
    let there = cluster.messages()?;
    ensure!(there == sent, "{there:?} messages in place of {sent:?}");
    Ok(())
}
