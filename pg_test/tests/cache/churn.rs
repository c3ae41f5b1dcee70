//! Sizes that differ by five orders of magnitude, many times the memory: every value is taken, and memory is in use.

use anyhow::{Result, ensure};
use enough_pg_test::check;
use enough_pg_test::server::{self, Database};

/// Sets by each session, most of them in transactions of their own.
const SETS: i32 = 20_000;
const SESSIONS: i32 = 3;

/// Sizes of 10 bytes to 1 MB, as many in each decade. Every value is told apart by its first bytes, its key.
const CHURN: &str = "
    DO $$
    DECLARE filler bytea := convert_to(repeat('0123456789abcdef', 65536), 'UTF8'); key text;
    BEGIN
        FOR i IN 1 .. <sets> LOOP
            key := '<session> ' || i;
            IF NOT enough.cache_set_bytes(key, convert_to(rpad(key, 10), 'UTF8')
                                               || substr(filler, 1, (10 ^ (1 + 4.99 * random()))::int - 10)) THEN
                RAISE 'set % was refused', key;
            END IF;
            IF i % 5 <> 0 THEN COMMIT; END IF;
        END LOOP;
    END $$";

#[test]
fn churn_fails_no_set_and_keeps_most_of_the_memory_in_live_values() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let sessions = (0..SESSIONS).map(|session| {
        let churn = CHURN.replace("<sets>", &SETS.to_string()).replace("<session>", &session.to_string());
        let client = database.client();
        std::thread::spawn(move || Ok(client?.batch_execute(&churn)?))
    });
    let sessions: Vec<std::thread::JoinHandle<Result<()>>> = sessions.collect();
    for session in sessions {
        session.join().map_err(|_| anyhow::anyhow!("a session panicked"))??;
    }
    let mut client = database.client()?;
    let row = client.query_one(
        "SELECT sum(octet_length(v))::float8 / pg_size_bytes(current_setting('enough.cache_memory')),
                bool_and(starts_with(convert_from(substr(v, 1, 10), 'UTF8'), k)), sum(octet_length(v))::bigint
         FROM (SELECT k, enough.cache_get_bytes(k) AS v
               FROM (SELECT s || ' ' || i AS k FROM generate_series(0, $1 - 1) AS s, generate_series(1, $2) AS i) AS keys
              ) AS live WHERE v IS NOT NULL",
        &[&SESSIONS, &SETS],
    )?;
    let (share, right): (f64, bool) = (row.get(0), row.get(1));
    ensure!(right, "a key has another's value");
    ensure!(share >= 0.85, "{share} of the memory is in live values");
    let sets: i64 = client.query_one("SELECT sets FROM enough.cache_stats()", &[])?.get(0);
    ensure!(sets == i64::from(SETS * SESSIONS), "{sets} values were stored");
    check::healthy(&server.log(), false)
}
