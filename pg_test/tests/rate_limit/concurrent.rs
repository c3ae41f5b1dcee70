//! Many sessions at the same keys: no more than the limit is granted, several keys are all or none, nobody waits.

use anyhow::{Context, Result, bail, ensure};
use enough_pg_test::check::PATIENCE;
use enough_pg_test::server::Database;
use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

const SESSIONS: usize = 32;

/// Lets each of [`SESSIONS`] do `work` on a connection of its own, all at the same time; what they return. A session
/// that waits for a lock of the segment can't be cancelled, so who waits for it does so for a limited time.
fn at_once<T: Send + 'static>(
    database: &Database,
    work: impl Fn(usize, &mut postgres::Client) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    let (work, start) = (Arc::new(work), Arc::new(Barrier::new(SESSIONS)));
    let (sender, receiver) = mpsc::channel();
    for number in 0..SESSIONS {
        let (work, start, sender) = (Arc::clone(&work), Arc::clone(&start), sender.clone());
        let mut client = database.client()?;
        thread::spawn(move || {
            start.wait();
            // Nobody listens any more where another session has failed.
            let _ = sender.send(work(number, &mut client));
        });
    }
    (0..SESSIONS).map(|_| receiver.recv_timeout(PATIENCE).context("a session hangs")?).collect()
}

/// Every call that consumes, by 32 sessions at one key: together exactly the limit, and no call that was denied took
/// anything. In this time a year's limit gets nothing back. So many calls, in a statement each, that sessions which didn't
/// exclude one another would meet.
#[test]
fn exactly_the_limit_is_granted() -> Result<()> {
    const LIMIT: i32 = 2_000_000;
    let database = Database::new()?;
    // The bucket gets its first token back after a year.
    for (algorithm, max_requests, burst) in
        [("fixed_window", LIMIT, "NULL"), ("sliding_window", LIMIT, "NULL"), ("token_bucket", 1, "2000000")]
    {
        let granted = at_once(&database, move |number, client| {
            // Calls of cost 2 and 3 and of as much as there is; rolled back by every other session.
            let call = |function: &str, cost: &str| {
                format!("enough.{function}('k', {max_requests}, '366 days', {cost}, '{algorithm}', {burst})")
            };
            let calls = format!(
                "SELECT coalesce(sum(2 * one.allowed::int + 3 * two.allowed::int + three.granted), 0)::bigint \
                 FROM generate_series(1, 20000) AS n, LATERAL {} AS one, LATERAL {} AS two, LATERAL {} AS three",
                call("rate_limit", "2 + 0 * n"),
                call("rate_limit", "3 + 0 * n"),
                call("rate_limit_up_to", "1 + n % 3"),
            );
            let mut transaction = client.transaction()?;
            let granted: i64 = transaction.query_one(&calls, &[])?.get(0);
            if number % 2 == 0 {
                transaction.rollback()?;
            } else {
                transaction.commit()?;
            }
            Ok(granted)
        })?;
        let total: i64 = granted.iter().sum();
        ensure!(total == i64::from(LIMIT), "{algorithm}: {total} of {LIMIT}");
        let peek = format!(
            "SELECT remaining FROM enough.rate_limit_peek('k', {max_requests}, '366 days', '{algorithm}', {burst})"
        );
        let left: i64 = database.client()?.query_one(&peek, &[])?.get(0);
        ensure!(left == 0, "{algorithm}: {left} left");
    }
    Ok(())
}

/// Refunds among the checks: in the end what was consumed less what was given back.
#[test]
fn refunds_and_checks_add_up() -> Result<()> {
    let database = Database::new()?;
    let consumed = at_once(&database, |_, client| {
        let mut consumed = 0_i64;
        for round in 0..40 {
            let allowed: bool =
                client.query_one("SELECT allowed FROM enough.rate_limit('k', 100, '366 days', 5)", &[])?.get(0);
            if allowed {
                consumed += 5;
                if round % 2 == 0 {
                    client.query_one("SELECT enough.rate_limit_refund('k', 100, '366 days', 4)", &[])?;
                    consumed -= 4;
                }
            }
        }
        Ok(consumed)
    })?;
    let total: i64 = consumed.iter().sum();
    let left: i64 =
        database.client()?.query_one("SELECT remaining FROM enough.rate_limit_peek('k', 100, '366 days')", &[])?.get(0);
    ensure!(total + left == 100 && left < 5, "{total} consumed, {left} left");
    Ok(())
}

/// Half of the sessions name the keys of a ring in one direction, the others in the other, each a part of it that
/// overlaps with its neighbours'; single calls go on beside them. Whoever took locks in the order of the keys would wait
/// in a circle; whoever consumed before all have agreed would leave a trace.
#[test]
fn several_keys_are_all_or_none_and_nobody_waits_in_a_circle() -> Result<()> {
    const KEYS: usize = 8;
    const SPAN: usize = 5;
    const LIMIT: i32 = 700;
    let database = Database::new()?;
    let consumed = at_once(&database, |number, client| {
        let mut keys: Vec<String> = (0..SPAN).map(|step| format!("key {}", (number + step) % KEYS)).collect();
        if number % 2 == 1 {
            keys.reverse();
        }
        let mut consumed = BTreeMap::<String, i64>::new();
        for round in 0..100 {
            let rows = client.query(
                "SELECT key, allowed FROM enough.rate_limit_all($1, array_fill($2::int, ARRAY[$3::int]), \
                 array_fill('366 days'::interval, ARRAY[$3::int]), 2)",
                &[&keys, &LIMIT, &i32::try_from(SPAN)?],
            )?;
            ensure!(rows.iter().map(|row| row.get::<_, &str>(0)).eq(&keys), "other keys, or another order");
            let granted = rows.iter().filter(|row| row.get(1)).count();
            ensure!(granted == 0 || granted == SPAN, "{granted} of {SPAN} keys allowed");
            if granted > 0 {
                for key in &keys {
                    *consumed.entry(key.clone()).or_default() += 2;
                }
            }
            let single = &keys[round % SPAN];
            let row =
                client.query_one("SELECT allowed FROM enough.rate_limit($1, $2, '366 days')", &[single, &LIMIT])?;
            if row.get(0) {
                *consumed.entry(single.clone()).or_default() += 1;
            }
        }
        Ok(consumed)
    })?;
    let mut client = database.client()?;
    let mut exhausted = 0;
    for key in (0..KEYS).map(|key| format!("key {key}")) {
        let total: i64 = consumed.iter().filter_map(|consumed| consumed.get(&key)).sum();
        let row = client
            .query_one("SELECT $2 - remaining FROM enough.rate_limit_peek($1, $2::int, '366 days')", &[&key, &LIMIT])?;
        let counted: i64 = row.get(0);
        if counted != total {
            bail!("{key}: {total} were granted, {counted} are counted");
        }
        exhausted += usize::from(total == i64::from(LIMIT));
    }
    // Else no call has met one key that refused and others that didn't.
    ensure!(exhausted > 0, "no key got to its limit");
    Ok(())
}
