//! What must hold.

use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, Error};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a condition may take to come true: only a failure ever waits so long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value; an error that says `what` was waited for if it never does.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited in vain until {what}");
        }
        sleep(POLL);
    }
}

/// The SQLSTATE of an error; empty where it isn't the server's.
pub fn state(error: &Error) -> &str {
    error.code().map_or("", |code| code.code())
}

/// Whether the connection is lost, be it without a word or with the server's last one.
pub fn is_lost(error: &Error) -> bool {
    error.is_closed() || matches!(state(error), "" | "57P01" | "57P02" | "57P03")
}

/// Fails unless `outcome` is the server's error with that SQLSTATE; returns its hint (empty where it has none).
pub fn refused<T>(outcome: Result<T, Error>, expected: &str) -> Result<String> {
    let Err(error) = outcome else { bail!("no error, where {expected} was due") };
    let details = error.as_db_error().with_context(|| format!("not the server's error: {error}"))?;
    ensure!(details.code().code() == expected, "{expected} was due: {details:?}");
    Ok(details.hint().unwrap_or_default().to_owned())
}

/// Fails if a server's log speaks of a crash, of an internal error or of a step that failed at a transaction's end, or
/// holds a backtrace of Rust's.
/// `killed`: processes were killed on purpose.
pub fn healthy(log: &str, killed: bool) -> Result<()> {
    let bad = |line: &&str| {
        let crash = line.contains("was terminated by signal") && !(killed && line.contains("signal 9"));
        let failed = ["PANIC:", " XX0", "WARNING:  pg_enough", "pgrx_pg_sys::", "std::panicking"];
        crash || failed.iter().any(|words| line.contains(words))
    };
    let lines: Vec<&str> = log.lines().filter(bad).take(20).collect();
    ensure!(lines.is_empty(), "the server's log:\n{}", lines.join("\n"));
    Ok(())
}

/// How often a table of the schema `enough` has been read from end to end so far, by sessions that have said so, this one among them.
pub fn sequential_scans(client: &mut Client, table: &str) -> Result<i64> {
    // What a session has counted is told to others a little later.
    client.batch_execute("SELECT pg_stat_force_next_flush()")?;
    client.batch_execute("SELECT pg_stat_clear_snapshot()")?;
    let sql = "SELECT seq_scan FROM pg_stat_user_tables WHERE schemaname = 'enough' AND relname = $1";
    Ok(client.query_one(sql, &[&table])?.get(0))
}

/// How many rows of a table of the schema `enough` have been read so far, by whatever scans, as [`sequential_scans`] counts.
pub fn rows_read(client: &mut Client, table: &str) -> Result<i64> {
    sequential_scans(client, table)?;
    let sql = "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables \
                WHERE schemaname = 'enough' AND relname = $1";
    Ok(client.query_one(sql, &[&table])?.get(0))
}

/// Every index of a table has an entry for each row that it should have, and none besides.
pub fn indexes_agree(client: &mut Client, table: &str) -> Result<()> {
    let indexes = client.query(
        "SELECT i.indexrelid, i.indexrelid::regclass::text, a.amname = 'btree', \
                'SELECT count(*) FROM ONLY ' || $1 || coalesce(' WHERE ' || pg_get_expr(i.indpred, i.indrelid), '') \
         FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam \
         WHERE i.indrelid = $1::text::regclass",
        &[&table],
    )?;
    for index in indexes {
        let (oid, name, btree, rows): (u32, String, bool, String) =
            (index.get(0), index.get(1), index.get(2), index.get(3));
        if btree {
            let check = client.execute("SELECT bt_index_check($1::oid, true)", &[&oid]);
            check.with_context(|| format!("the index {name} lacks entries"))?;
        }
        // An entry too many: it would be found where a scan by it counts more than there are.
        client.batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off")?;
        let by_index: i64 = client.query_one(&rows, &[])?.get(0);
        client.batch_execute("RESET enable_seqscan; RESET enable_bitmapscan")?;
        client
            .batch_execute("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off")?;
        let by_table: i64 = client.query_one(&rows, &[])?.get(0);
        client.batch_execute("RESET enable_indexscan; RESET enable_indexonlyscan; RESET enable_bitmapscan")?;
        ensure!(by_index == by_table, "{name}: {by_index} entries for {by_table} rows");
    }
    Ok(())
}
