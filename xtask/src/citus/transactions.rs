//! Transactions of a message and a row on two nodes, whose sessions are killed: afterwards there are both or neither, but
//! where the page says that this isn't promised. That is looked at as well, so that each kill is known to hit.

use super::Tally;
use super::cluster::{COORDINATOR, Cluster};
use anyhow::{Context, Result, ensure};
use std::thread;

/// Which process is killed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    /// None.
    Nobody,
    /// Before COMMIT, what works for the session on this node.
    On(usize),
    /// The session's own, in COMMIT: when the other nodes have done what they do before it commits itself.
    Between,
}
use Killed::{Between, Nobody, On};

/// Messages and rows that are there afterwards.
type Due = (i64, i64);
const BOTH: Due = (1, 1);
const NEITHER: Due = (0, 0);
const ORDER_ALONE: Due = (0, 1);
const MESSAGE_ALONE: Due = (1, 0);

/// What a transaction does. The queue is the first worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Sends as `enough_citus.queue_send` does it, but for the UPDATE before it.
    SendUnmarked,
    /// Sends by `enough_citus.queue_send`.
    Send,
    /// Sends beside the order on the first worker.
    SendBeside,
    /// Sends to the queue of the session's own node.
    SendHere,
    /// Writes an order on the first worker.
    Near,
    /// Writes an order on the second.
    Far,
    /// Writes a table of the session's own node that Citus knows nothing of.
    Here,
    /// Asks for two phases.
    TwoPhase,
}
use Work::{Far, Here, Near, Send, SendBeside, SendHere, SendUnmarked, TwoPhase};

impl Work {
    fn sql(self, cluster: &Cluster) -> String {
        let (queue, [near, far]) = (&cluster.queues[0], cluster.orders);
        match self {
            SendUnmarked => format!(
                "DO $$ DECLARE s int := enough_citus._slot('{queue}'); BEGIN \
                 PERFORM enough.queue_send('{queue}', '1') FROM enough_citus.node WHERE slot = s; END $$"
            ),
            Send => format!("SELECT enough_citus.queue_send('{queue}', '1')"),
            SendBeside => format!("SELECT enough.queue_send('{queue}', '1') FROM orders WHERE id = {near}"),
            SendHere => format!("SELECT enough.queue_send('{queue}', '1')"),
            Near => format!("INSERT INTO orders VALUES ({near})"),
            Far => format!("INSERT INTO orders VALUES ({far})"),
            Here => "INSERT INTO told VALUES (1)".to_owned(),
            TwoPhase => "SELECT enough_citus.two_phase()".to_owned(),
        }
    }
}

/// The nodes that a session may be on.
const COORDINATOR_ALONE: &[usize] = &[COORDINATOR];
const WORKER_OF_QUEUE: &[usize] = &[1];
const ALL: &[usize] = &[COORDINATOR, 1, 2];
const OTHERS: &[usize] = &[COORDINATOR, 2];

/// Where the session is, what it does, who is killed, and what is due.
const CASES: [(&[usize], &[Work], Killed, Due); 31] = [
    // What the wrapper is for: without the UPDATE the message is lost, and COMMIT says nothing.
    (COORDINATOR_ALONE, &[SendUnmarked, Far], On(1), ORDER_ALONE),
    (COORDINATOR_ALONE, &[Far, SendUnmarked], On(1), ORDER_ALONE),
    (&[2], &[SendUnmarked, Far], On(1), ORDER_ALONE),
    (WORKER_OF_QUEUE, &[SendUnmarked, Far], Between, ORDER_ALONE),
    (OTHERS, &[Send, Far], On(1), NEITHER),
    (OTHERS, &[Far, Send], On(1), NEITHER),
    (COORDINATOR_ALONE, &[Send, Far], On(2), NEITHER),
    (COORDINATOR_ALONE, &[Far, Send], On(2), NEITHER),
    (WORKER_OF_QUEUE, &[Send, Far], On(2), NEITHER),
    (WORKER_OF_QUEUE, &[Far, Send], On(2), NEITHER),
    (ALL, &[Send, Far], Between, NEITHER),
    (ALL, &[Far, Send], Between, NEITHER),
    (ALL, &[Send, Far], Nobody, BOTH),
    (ALL, &[Far, Send], Nobody, BOTH),
    (ALL, &[Send, Near], Nobody, BOTH),
    (OTHERS, &[Send, Near], On(1), NEITHER),
    (OTHERS, &[Near, Send], On(1), NEITHER),
    // Beside the row: one node, so one commit.
    (ALL, &[Near, SendBeside], Nobody, BOTH),
    (OTHERS, &[Near, SendBeside], On(1), NEITHER),
    (WORKER_OF_QUEUE, &[Near, SendBeside], Between, NEITHER),
    (OTHERS, &[Near, SendBeside], Between, BOTH),
    // The session's own queue: two phases must be asked for.
    (COORDINATOR_ALONE, &[SendHere, Far], Between, ORDER_ALONE),
    (COORDINATOR_ALONE, &[SendHere, Far], On(2), NEITHER),
    (COORDINATOR_ALONE, &[SendHere, Near, Far], Between, NEITHER),
    (COORDINATOR_ALONE, &[TwoPhase, SendHere, Far], Between, NEITHER),
    (WORKER_OF_QUEUE, &[SendHere, TwoPhase, Far], Between, NEITHER),
    (&[COORDINATOR, 1], &[SendHere, TwoPhase, Far], Nobody, BOTH),
    // So it must where the row is what Citus knows nothing of.
    (OTHERS, &[Send, Here], Between, MESSAGE_ALONE),
    (OTHERS, &[TwoPhase, Send, Here], Between, NEITHER),
    (OTHERS, &[Here, Send, TwoPhase], Between, NEITHER),
    (ALL, &[Here, Send, TwoPhase], Nobody, BOTH),
];

/// Runs each where its session may be.
pub fn run(cluster: &mut Cluster, tally: &mut Tally) -> Result<()> {
    for (nodes, work, killed, due) in CASES {
        for node in nodes {
            let outcome = one(cluster, *node, work, killed).and_then(|there| {
                ensure!(there == due, "{there:?} messages and rows in place of {due:?}");
                Ok(())
            });
            tally.count(&format!("{work:?} on node {node}, killed: {killed:?}"), outcome);
            cluster.empty()?;
        }
    }
    tally.count("removals from the cache, killed before the commit", removal(cluster));
    cluster.empty()
}

/// A removal commits with what is written elsewhere, or neither does; and what was put there beside it is absent.
fn removal(cluster: &Cluster) -> Result<()> {
    let (key, far) = (&cluster.queues[0], cluster.orders[1]);
    let mut session = cluster.client(COORDINATOR)?;
    let found = format!("SELECT enough_citus.cache_exists('{key}')");
    let removals = ["cache_delete('{key}')", "cache_invalidate('tag')", "cache_clear()"];
    for removal in removals.map(|removal| removal.replace("{key}", key)) {
        for killed in [false, true] {
            // The one that was refused a value looks what is decided, and the next one is taken.
            Cluster::eventually("an entry is there", || {
                session.batch_execute(&format!("SELECT enough_citus.cache_set('{key}', '1', tags => ARRAY['tag'])"))?;
                Ok(session.query_one(&found, &[])?.get(0))
            })?;
            session.batch_execute("BEGIN")?;
            session.batch_execute(&format!("SELECT enough_citus.{removal}; INSERT INTO orders VALUES ({far})"))?;
            if killed {
                end_on(cluster, 1)?;
            }
            let committed = session.batch_execute("COMMIT").is_ok();
            let orders = session.execute("DELETE FROM orders", &[])?;
            let there: bool = cluster.client(COORDINATOR)?.query_one(&found, &[])?.get(0);
            ensure!(
                (orders == 1) == committed && (orders == 1) != killed && (!there || killed),
                "{removal}, killed: {killed}: {orders} orders, the entry is there: {there}"
            );
        }
    }
    Ok(())
}

/// Ends the sessions on a node that work for a transaction of another's.
fn end_on(cluster: &Cluster, node: usize) -> Result<()> {
    let end = "SELECT count(pg_terminate_backend(pid, 10000::bigint)) FROM pg_stat_activity \
               WHERE application_name LIKE 'citus_internal%' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()";
    let ended: i64 = cluster.client(node)?.query_one(end, &[])?.get(0);
    ensure!(ended > 0, "nobody was killed");
    Ok(())
}

/// Messages and rows that are there after a transaction, its session has ended and what it has prepared is decided.
fn one(cluster: &Cluster, node: usize, work: &[Work], killed: Killed) -> Result<Due> {
    let mut session = cluster.client(node)?;
    // The session's own commit begins with emptying this, which a lock can hold up.
    session.batch_execute("CREATE TEMP TABLE last (x int) ON COMMIT DELETE ROWS")?;
    session.batch_execute("BEGIN; INSERT INTO last VALUES (1)")?;
    let row = session.query_one("SELECT pg_backend_pid(), pg_current_xact_id()::xid::text", &[])?;
    let (pid, xid): (i32, String) = (row.get(0), row.get(1));
    for work in work {
        session.batch_execute(&work.sql(cluster)).with_context(|| format!("{work:?}"))?;
    }
    match killed {
        Nobody => session.batch_execute("COMMIT")?,
        On(there) => {
            end_on(cluster, there)?;
            // It may well say that it was committed.
            let _ = session.batch_execute("COMMIT");
        }
        Between => {
            let (mut other, mut watching) = (cluster.client(node)?, cluster.client(node)?);
            let table: String = session
                .query_one(
                    "SELECT quote_ident(nspname) || '.last' FROM pg_namespace WHERE oid = pg_my_temp_schema()",
                    &[],
                )?
                .get(0);
            other.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN ACCESS SHARE MODE"))?;
            let committing = thread::spawn(move || session.batch_execute("COMMIT"));
            let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')";
            Cluster::eventually("the session waits in its commit", || Ok(watching.query_one(waits, &[&pid])?.get(0)))?;
            watching.query_one("SELECT pg_terminate_backend($1::int)", &[&pid])?;
            // It removes its temporary table when its transaction has ended, and would wait for us once more.
            let runs =
                "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND backend_xid = $2::text::xid)";
            Cluster::eventually("the session's transaction has ended", || {
                Ok(watching.query_one(runs, &[&pid, &xid])?.get(0))
            })?;
            other.batch_execute("ROLLBACK")?;
            let outcome = committing.join().map_err(|_| anyhow::anyhow!("the thread of the session panicked"))?;
            ensure!(outcome.is_err(), "the killed session has committed");
        }
    }
    // What is left prepared is decided by the node that began it; a session that has just ended may still be named there.
    let mut recovery = cluster.client(node)?;
    let undecided =
        "SELECT coalesce(sum(result::int), 0) FROM run_command_on_all_nodes('SELECT count(*) FROM pg_prepared_xacts')";
    Cluster::eventually("everything prepared is decided", || {
        recovery.query_one("SELECT recover_prepared_transactions()", &[])?;
        Ok(recovery.query_one(undecided, &[])?.get::<_, i64>(0) == 0)
    })?;
    let rows = "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM told)";
    let rows: i64 = recovery.query_one(rows, &[])?.get(0);
    let here = if work.contains(&SendHere) { node } else { 1 };
    let mut messages = 0;
    for node in 0..cluster.nodes.len() {
        let there: i64 = cluster.messages_on(node)?.iter().sum();
        ensure!(there == 0 || node == here, "{there} messages on node {node}");
        messages += there;
    }
    Ok((messages, rows))
}
