//! Tables of which the planner knows nothing: filled since the last VACUUM, or VACUUM is held back. No call reads a whole one for that.

use anyhow::{Result, ensure};
use enough_pg_test::check::{rows_read, sequential_scans};
use enough_pg_test::queue;
use enough_pg_test::server::Database;
use postgres::Client;

/// Rows: many more than any call is to look at.
const ROWS: i64 = 20_000;

/// The queue's table and archive, and two spaces.
const TABLES: [&str; 4] = ["q_q", "a_q", "kv_v", "kv_h"];

/// What a call may look at: a page of a thousand changes, and what it takes to find where it begins.
const MOST: i64 = 1_500;

/// How many rows have been read, of all of them.
fn rows(client: &mut Client, tables: &[&str]) -> Result<i64> {
    tables.iter().map(|table| rows_read(client, table)).sum()
}

/// How often each of some tables has been read from end to end.
fn scans(client: &mut Client, tables: &[&str]) -> Result<Vec<i64>> {
    tables.iter().map(|table| sequential_scans(client, table)).collect()
}

#[test]
fn no_call_reads_a_whole_table_for_want_of_statistics() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.queue_create('q', archive_for => '1 hour'), enough.kv_create('v'), enough.kv_create('h', history => 2)",
    )?;
    for table in TABLES {
        client.batch_execute(&format!("ALTER TABLE enough.{table} SET (autovacuum_enabled = off)"))?;
    }
    let first = queue::send_numbers(&mut client, "q", ROWS / 2)?[0];
    queue::send_numbers(&mut client, "q", ROWS / 2)?;
    client.batch_execute(&format!(
        "INSERT INTO enough.a_q (msg_id, enqueued_at, attempts, priority, message, outcome, finished_at)
         SELECT -n, now(), 1, 0, '0', CASE WHEN n % 2 = 0 THEN 'done' ELSE 'dead' END, now() - n * interval '0.1 seconds'
           FROM generate_series(1, {ROWS}) AS n;
         INSERT INTO enough.kv_v (key, value) SELECT 'k' || n, '0' FROM generate_series(1, {ROWS}) AS n;
         INSERT INTO enough.kv_h (key, value) SELECT 'k' || n, '0' FROM generate_series(1, {ROWS}) AS n;
         INSERT INTO enough.kv_v (key, value, expires_at) VALUES ('later', '0', now() + interval '1 hour')",
    ))?;
    client.batch_execute("SELECT enough.queue_send('q', '0', delay => '1 hour')")?;
    let calls = [
        "SELECT enough.queue_peek('q', 10)".to_owned(),
        "SELECT enough.queue_peek('q', 10, state => 'leased')".to_owned(),
        "SELECT enough.queue_peek('q', 10, state => 'delayed')".to_owned(),
        "SELECT enough.queue_peek('q', 10, state => 'dead')".to_owned(),
        "SELECT enough.queue_peek('q', 10, state => 'done')".to_owned(),
        format!("SELECT enough.queue_peek('q', 10, after => {})", first + 5000),
        "SELECT enough.queue_peek('q', 1, matching => '700')".to_owned(),
        "SELECT enough.queue_dead('q', 10)".to_owned(),
        format!("SELECT enough.queue_read_these('q', ARRAY[{}, {}])", first + 9, first + 10),
        format!("SELECT enough.queue_reschedule('q', ARRAY[{}, {}], now())", first + 11, first + 12),
        format!("SELECT enough.queue_archive_batch('q', ARRAY[{}, {}])", first + 13, first + 14),
        format!("SELECT enough.queue_delete_batch('q', ARRAY[{}, {}])", first + 15, first + 16),
        format!("SELECT enough.queue_fail('q', {}, 'no', dead => true)", first + 17),
        format!("SELECT enough.queue_result('q', {})", first + 13),
        "SELECT enough.queue_send_unique('q', '0', 'key', 'replace') FROM generate_series(1, 2)".to_owned(),
        "SELECT enough.kv_keys('k77', space => 'v')".to_owned(),
        "SELECT enough.kv_mget(ARRAY['k1', 'k2'], 'v')".to_owned(),
        "SELECT enough.kv_set('k1', '1', space => 'v'), enough.kv_set('new', '1', space => 'v')".to_owned(),
        "SELECT enough.kv_set('k1', '1', space => 'h'), enough.kv_merge('k2', '{\"a\": 1}', 'h')".to_owned(),
        "SELECT enough.kv_mset('{\"k1\": 1, \"k2\": 2}', space => 'h')".to_owned(),
        "SELECT enough.kv_history('k1', 'h')".to_owned(),
        "SELECT enough.kv_watch('', max(version), space => 'v') FROM (SELECT version FROM enough.kv_v WHERE key = 'k19000') AS v".to_owned(),
        "SELECT enough.kv_watch('', max(version), space => 'h') FROM (SELECT version FROM enough.kv_h WHERE key = 'k19000') AS h".to_owned(),
        "SELECT enough.kv_delete('k3', space => 'v')".to_owned(),
    ];
    let untouched = scans(&mut client, &TABLES)?;
    for call in calls {
        let before = rows(&mut client, &TABLES)?;
        client.batch_execute(&call)?;
        let read = rows(&mut client, &TABLES)? - before;
        ensure!(read <= MOST, "{call} reads {read} rows of {TABLES:?}");
    }
    // In the order of their numbers, of all that are dead.
    let before = rows(&mut client, &TABLES)?;
    client.batch_execute("SELECT enough.queue_redrive('q', max => 10)")?;
    let read = rows(&mut client, &TABLES)? - before;
    ensure!(read <= ROWS / 2 + MOST, "queue_redrive() reads {read} rows");
    // What looks for more than there is goes through all of it, by the index as well.
    client.batch_execute(&format!("SELECT enough.queue_peek('q', 10, matching => '{}')", ROWS / 2 - 7))?;
    let after = scans(&mut client, &TABLES)?;
    ensure!(after == untouched, "{untouched:?}, {after:?} of {TABLES:?}");
    client.batch_execute("INSERT INTO enough.kv_v (key, value, expires_at) VALUES ('over', '0', now())")?;
    // What counts a queue's rows reads them all.
    let before = rows(&mut client, &TABLES[2..])?;
    client.batch_execute("SELECT enough.maintain()")?;
    let read = rows(&mut client, &TABLES[2..])? - before;
    let after = scans(&mut client, &TABLES[2..])?;
    ensure!(read <= MOST && after == untouched[2..], "maintain() reads {read} rows: {untouched:?}, {after:?}");
    Ok(())
}
