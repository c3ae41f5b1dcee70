//! The extension made, dropped and made again within one session, and errors that a session survives many times.

use anyhow::{Result, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::server::{self, Database};

/// Everything once.
const USE: &str = "
    SELECT enough.queue_create('q');
    SELECT enough.queue_send('q', '1', group_key => 'g', dedup_key => 'k');
    SELECT enough.queue_archive('q', 1);
    SELECT enough.queue_send('q', '2');
    SELECT enough.queue_read('q');
    SELECT enough.queue_stats(), enough.status();
    SELECT enough.cache_set('k', '1', tags => ARRAY['t']), enough.cache_get('k');
    SELECT enough.rate_limit_policy_set('p', 10, '1 hour');
    SELECT enough.rate_limit_by('p', 'k');
    SELECT enough.maintain()";

#[test]
fn an_extension_that_is_made_again_works_in_the_same_session() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::empty(&server)?;
    let mut client = database.client()?;
    for round in 0..3 {
        // Rolled back with all that it was used for; then with a savepoint.
        client.batch_execute(&format!("BEGIN; CREATE EXTENSION pg_enough; {USE}; ROLLBACK"))?;
        client.batch_execute("BEGIN; SAVEPOINT s")?;
        client.batch_execute(&format!("CREATE EXTENSION pg_enough; {USE}; ROLLBACK TO s; COMMIT"))?;
        client.batch_execute("CREATE EXTENSION pg_enough")?;
        client.batch_execute(USE)?;
        let count: i64 = client.query_one("SELECT count(*) FROM enough.a_q", &[])?.get(0);
        ensure!(count == 1, "round {round}: {count} messages in the archive");
        client.batch_execute(
            "DROP TABLE enough.q_q, enough.a_q; DROP EXTENSION pg_enough CASCADE; DROP SCHEMA IF EXISTS enough CASCADE",
        )?;
    }
    healthy(&server.log(), false)
}

#[test]
fn thousands_of_caught_errors_leave_a_session_as_it_was() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.queue_create('q'); \
         CREATE FUNCTION trying(statement text) RETURNS text LANGUAGE plpgsql AS $$ \
         BEGIN EXECUTE statement; RETURN 'none'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$",
    )?;
    let memory = "SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts";
    let mut before = 0;
    for round in 0..3 {
        let rows = client.query(
            "SELECT DISTINCT trying(format(statement, n)) AS code FROM generate_series(1, 3000) AS n, unnest(ARRAY[ \
                 $s$SELECT enough.cache_fetch('k%s', NULL, 'SELECT 1 / 0')$s$, \
                 $s$SELECT enough.cache_fetch('k%s', NULL, 'nonsense')$s$, \
                 $s$SELECT enough.queue_send('none%s', '1')$s$, \
                 $s$SELECT enough.queue_send('q', '1', priority => 10 + %s)$s$]) AS statement ORDER BY 1",
            &[],
        )?;
        let codes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        ensure!(codes == ["22012", "22023", "42601", "42704"], "{codes:?}");
        let now: i64 = client.query_one(memory, &[])?.get(0);
        ensure!(round < 2 || now < before + (1 << 20), "{before} bytes became {now}");
        before = now;
    }
    client.batch_execute("SELECT enough.queue_send('q', '1'); SELECT enough.queue_pop('q')")?;
    healthy(&server.log(), false)
}
