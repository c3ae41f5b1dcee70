//! Sizes that differ by five orders of magnitude, many times the memory: every value is taken, and memory is in use.

use anyhow::{Result, ensure};
use enough_pg_test::check;
use enough_pg_test::server::{self, Database};

/// Sets by each session in a round, most of them in transactions of their own.
const SETS: i32 = 2_500;
const SESSIONS: i32 = 3;
/// After each the live values are counted: what was evicted last for a value of a megabyte makes single counts differ.
const ROUNDS: i32 = 8;

/// Sizes of 10 bytes to 1 MB, as many in each decade. Every value is told apart by its first bytes, its key.
const CHURN: &str = "
    DO $$
    DECLARE filler bytea := convert_to(repeat('0123456789abcdef', 65536), 'UTF8'); key text;
    BEGIN
        FOR i IN <first> .. <last> LOOP
            key := '<session> ' || i;
            IF NOT enough.cache_set_bytes(key, convert_to(rpad(key, 10), 'UTF8')
                                               || substr(filler, 1, (10 ^ (1 + 4.99 * random()))::int - 10)) THEN
                RAISE 'set % was refused', key;
            END IF;
            IF i % 5 <> 0 THEN COMMIT; END IF;
        END LOOP;
    END $$";

/// All sessions set values at once.
fn churn(database: &Database, round: i32) -> Result<()> {
    let sessions = (0..SESSIONS).map(|session| {
        let (first, last) = (round * SETS + 1, (round + 1) * SETS);
        let churn = CHURN.replace("<first>", &first.to_string()).replace("<last>", &last.to_string());
        let churn = churn.replace("<session>", &session.to_string());
        let client = database.client();
        std::thread::spawn(move || Ok(client?.batch_execute(&churn)?))
    });
    let sessions: Vec<std::thread::JoinHandle<Result<()>>> = sessions.collect();
    for session in sessions {
        session.join().map_err(|_| anyhow::anyhow!("a session panicked"))??;
    }
    Ok(())
}

#[test]
fn churn_fails_no_set_and_keeps_most_of_the_memory_in_live_values() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    let mut shares = Vec::new();
    for round in 0..ROUNDS {
        churn(&database, round)?;
        let row = client.query_one(
            "SELECT sum(octet_length(v))::float8 / pg_size_bytes(current_setting('enough.cache_memory')),
                    bool_and(starts_with(convert_from(substr(v, 1, 10), 'UTF8'), k))
             FROM (SELECT k, enough.cache_get_bytes(k) AS v
                   FROM (SELECT s || ' ' || i AS k FROM generate_series(0, $1 - 1) AS s, generate_series(1, $2) AS i)
                            AS keys) AS live WHERE v IS NOT NULL",
            &[&SESSIONS, &((round + 1) * SETS)],
        )?;
        let (share, right): (f64, bool) = (row.get(0), row.get(1));
        ensure!(right, "a key has another's value");
        shares.push(share);
    }
    let mean = shares.iter().sum::<f64>() / f64::from(ROUNDS);
    ensure!(mean >= 0.85, "{mean} of the memory is in live values: {shares:?}");
    let sets: i64 = client.query_one("SELECT sets FROM enough.cache_stats()", &[])?.get(0);
    ensure!(sets == i64::from(ROUNDS * SETS * SESSIONS), "{sets} values were stored");
    check::healthy(&server.log(), false)
}
