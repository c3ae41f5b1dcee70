//! Policies of several rules, their overrides, blocks, windows of the calendar, and what is counted by name.

use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{healthy, refused};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use std::sync::{Arc, Barrier};
use std::thread;

fn allowed(client: &mut Client, policy: &str, key: &str) -> Result<bool> {
    Ok(client.query_one("SELECT allowed FROM enough.rate_limit_by($1, $2)", &[&policy, &key])?.get(0))
}

/// Sessions at one key under two rules: exactly the stricter one is granted, and no rule has counted what another denied.
#[test]
fn several_rules_are_all_or_none() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.rate_limit_policy_set('two', 500, '366 days'), \
                enough.rate_limit_policy_add('two', 700, '366 days', 'fixed_window')",
    )?;
    let start = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| -> Result<_> {
            let (mut client, start) = (database.client()?, Arc::clone(&start));
            Ok(thread::spawn(move || -> Result<usize> {
                start.wait();
                let mut granted = 0;
                for _ in 0..100 {
                    granted += usize::from(allowed(&mut client, "two", "key")?);
                }
                Ok(granted)
            }))
        })
        .collect::<Result<_>>()?;
    let mut granted = 0;
    for thread in threads {
        granted += thread.join().expect("a session panicked")?;
    }
    ensure!(granted == 500, "{granted} of 500");
    client.batch_execute("SELECT enough.rate_limit_policy_override('two', 'key', NULL)")?;
    let left: i64 = client.query_one("SELECT remaining FROM enough.rate_limit_by('two', 'key', 0)", &[])?.get(0);
    ensure!(left == 200, "the second rule has {left} left of 700");
    Ok(())
}

/// The hour becomes a day and comes back beside it.
#[test]
fn a_rule_that_is_added_knows_what_was_consumed() -> Result<()> {
    let mut client = Database::new()?.client()?;
    client.batch_execute("SELECT enough.rate_limit_policy_set('p', 2, '1 hour')")?;
    ensure!(
        allowed(&mut client, "p", "ada")? && allowed(&mut client, "p", "ada")? && !allowed(&mut client, "p", "ada")?
    );
    client.batch_execute(
        "SELECT enough.rate_limit_policy_set('p', 100, '1 day'), enough.rate_limit_policy_add('p', 2, '1 hour')",
    )?;
    ensure!(!allowed(&mut client, "p", "ada")?, "a fresh allowance");
    ensure!(allowed(&mut client, "p", "grace")?);
    Ok(())
}

#[test]
fn statistics_are_by_policy_and_shadow_is_apart() -> Result<()> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(
        "SELECT enough.rate_limit_policy_set('trial', 2, '1 hour', shadow => true), \
                enough.rate_limit_policy_set('real', 3, '1 hour')",
    )?;
    for key in ["a", "b", "c"] {
        for _ in 0..5 {
            ensure!(allowed(&mut client, "trial", key)?, "a policy in shadow denies");
            allowed(&mut client, "real", key)?;
        }
    }
    client.batch_execute("SELECT enough.rate_limit('plain', 1, '1 hour') FROM generate_series(1, 4)")?;
    let mut counted = |policy: Option<&str>| -> Result<Vec<(Option<String>, [i64; 4])>> {
        let rows = client.query(
            "SELECT policy, allowed, denied, would_have_denied, keys FROM enough.rate_limit_stats($1)",
            &[&policy],
        )?;
        Ok(rows.iter().map(|row| (row.get(0), [1, 2, 3, 4].map(|column| row.get(column)))).collect())
    };
    let trial = (Some("trial".to_owned()), [6, 0, 9, 3]);
    let real = (Some("real".to_owned()), [9, 6, 0, 3]);
    ensure!(counted(Some("trial"))? == [trial.clone()] && counted(Some("real"))? == [real.clone()]);
    let all = counted(None)?;
    ensure!(all == [(None, [16, 9, 9, 7]), real, trial], "{all:?}");
    refused(client.query("SELECT * FROM enough.rate_limit_stats('nope')", &[]), "42704")?;
    // Another database's policies of the same name are others.
    let mut other = Database::on(&server)?.client()?;
    other.batch_execute("SELECT enough.rate_limit_policy_set('trial', 2, '1 hour')")?;
    let row = other.query_one("SELECT allowed, keys FROM enough.rate_limit_stats('trial')", &[])?;
    ensure!((row.get::<_, i64>(0), row.get::<_, i64>(1)) == (0, 0));
    healthy(&server.log(), false)
}

#[test]
fn a_block_denies_everything_of_a_key() -> Result<()> {
    let mut client = Database::new()?.client()?;
    client.batch_execute(
        "SELECT enough.rate_limit_policy_set('p', 5, '1 hour'), enough.rate_limit_block('ada', '1 hour')",
    )?;
    for call in [
        "rate_limit('ada', 5, '1 hour')",
        "rate_limit('ada', 5, '2 hours', 1, 'fixed_window')",
        "rate_limit('ada', 5, '1 hour', 1, 'token_bucket')",
        "rate_limit_peek('ada', 5, '1 hour')",
        "rate_limit_up_to('ada', 5, '1 hour', 3)",
        "rate_limit_all('{ada,grace}', '{5,5}', '{1 hour,1 hour}')",
        "rate_limit_by('p', 'ada')",
    ] {
        let sql = format!("SELECT allowed, retry_after BETWEEN '59 minutes' AND '1 hour' FROM enough.{call}");
        let row = client.query(&sql, &[])?.into_iter().next().context("no row")?;
        ensure!((row.get::<_, bool>(0), row.get::<_, bool>(1)) == (false, true), "{call}");
    }
    refused(client.batch_execute("SELECT enough.rate_limit_enforce('ada', 5, '1 hour')"), "PT429")?;
    refused(client.batch_execute("SELECT enough.rate_limit_enforce_by('p', 'ada')"), "PT429")?;
    let wait = "SELECT enough.rate_limit_reserve('ada', 5, '1 hour', max_wait => '30 minutes') IS NULL";
    ensure!(client.query_one(wait, &[])?.get::<_, bool>(0));
    ensure!(allowed(&mut client, "p", "grace")?, "another key");
    ensure!(client.query_one("SELECT enough.rate_limit_unblock('ada')", &[])?.get::<_, bool>(0));
    ensure!(!client.query_one("SELECT enough.rate_limit_unblock('ada')", &[])?.get::<_, bool>(0));
    ensure!(allowed(&mut client, "p", "ada")?);
    let row = client.query_one("SELECT remaining FROM enough.rate_limit('ada', 5, '1 hour')", &[])?;
    ensure!(row.get::<_, i64>(0) == 4, "what was denied has consumed something");
    Ok(())
}

/// In zones whose clocks are set: a day's window has 23 or 25 hours, windows follow one another without a gap, and each
/// holds the moment that it was asked for.
#[test]
fn windows_of_the_calendar_follow_one_another() -> Result<()> {
    let mut client = Database::new()?.client()?;
    // Midnight is skipped in Cairo and comes twice in Havana; Lord Howe's clocks are set by half an hour; Apia skipped a day.
    let zones = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Africa/Cairo",
        "America/Havana",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Asia/Kathmandu",
        "America/St_Johns",
    ];
    for zone in zones {
        for unit in ["day", "week", "month", "year"] {
            let row = client.query_one(
                "WITH moments AS (SELECT m FROM generate_series('2011-11-01'::timestamptz, '2012-02-01', '17 minutes') AS m \
                                  UNION ALL SELECT m FROM generate_series('2024-03-01'::timestamptz, '2024-05-01', '17 minutes') AS m \
                                  UNION ALL SELECT m FROM generate_series('2024-10-01'::timestamptz, '2024-12-01', '17 minutes') AS m), \
                      windows AS (SELECT m, w.* FROM moments, LATERAL enough._rate_limit_window($1, $2, m) AS w), \
                      following AS (SELECT *, lead(opens) OVER (ORDER BY m) AS next FROM windows) \
                 SELECT count(*) FILTER (WHERE NOT (opens <= m AND m < closes)), \
                        count(*) FILTER (WHERE next <> opens AND next <> closes AND next - opens < '100 days'), \
                        count(*) FILTER (WHERE closes <= opens) \
                 FROM following",
                &[&unit, &zone],
            )?;
            let wrong = [0, 1, 2].map(|column| row.get::<_, i64>(column));
            // Between the spans that are looked at lie months.
            ensure!(wrong[0] == 0 && wrong[1] <= 2 && wrong[2] == 0, "{zone} {unit}: {wrong:?}");
        }
    }
    let mut minutes = |zone: &str, moment: &str| -> Result<i64> {
        let sql = "SELECT (extract(epoch FROM closes - opens) / 60)::bigint FROM enough._rate_limit_window('day', $1, $2::text::timestamptz)";
        Ok(client.query_one(sql, &[&zone, &moment])?.get(0))
    };
    ensure!(minutes("Europe/Berlin", "2024-03-31 12:00+00")? == 23 * 60);
    ensure!(minutes("Europe/Berlin", "2024-10-27 12:00+00")? == 25 * 60);
    ensure!(minutes("America/Havana", "2024-11-03 04:30+00")? == 25 * 60);
    ensure!(minutes("Africa/Cairo", "2024-04-26 12:00+00")? == 23 * 60);
    ensure!(minutes("Australia/Lord_Howe", "2024-04-07 01:00+00")? == 24 * 60 + 30);
    Ok(())
}

/// Ten sessions each add a rule: eight fit, and nobody gets an error that isn't promised.
#[test]
fn rules_added_at_the_same_time() -> Result<()> {
    let database = Database::new()?;
    database.client()?.batch_execute("SELECT enough.rate_limit_policy_set('p', 1, '1 s')")?;
    let start = Arc::new(Barrier::new(10));
    let threads: Vec<_> = (0..10)
        .map(|_| -> Result<_> {
            let (mut client, start) = (database.client()?, Arc::clone(&start));
            Ok(thread::spawn(move || {
                start.wait();
                client.batch_execute("SELECT enough.rate_limit_policy_add('p', 1, '1 s')")
            }))
        })
        .collect::<Result<_>>()?;
    let mut added = 0;
    for thread in threads {
        match thread.join().expect("a session panicked") {
            Ok(()) => added += 1,
            error => drop(refused(error, "54000")?),
        }
    }
    ensure!(added == 7, "{added} were added to the first");
    Ok(())
}
