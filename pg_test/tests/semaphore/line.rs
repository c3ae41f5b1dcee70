//! Waiting: in order, woken and not polling.

use crate::common::{Waiter, acquire, extend, release, taken, tokens, waiters};
use anyhow::{Context, Result, ensure};
use enough_pg_test::server::{Database, options, start};
use std::fs;
use std::thread::sleep;
use std::time::Duration;

const LONG: &str = "'s', wait => '1 hour', ttl => '1 hour'";

#[test]
fn those_who_wait_are_served_in_their_order() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let mut held = taken(&mut client, "'s', ttl => '1 hour'")?;
    let waiting = (0..6).map(|_| Waiter::start(&database, LONG)).collect::<Result<Vec<_>>>()?;
    let mut rest = waiting.into_iter();
    while let Some(next) = rest.next() {
        ensure!(release(&mut client, "s", held)?);
        let token = next.token()?;
        ensure!(token > held, "{token} after {held}");
        ensure!(tokens(&mut client, "s")? == [token]);
        ensure!(rest.as_slice().iter().all(Waiter::waits), "another one was served");
        held = token;
    }
    Ok(())
}

#[test]
fn nobody_passes_those_who_wait() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for limit in [1, 3] {
        let name = format!("s{limit}");
        let held = (0..limit)
            .map(|_| taken(&mut client, &format!("'{name}', {limit}, '1 hour'")))
            .collect::<Result<Vec<_>>>()?;
        let waiter = Waiter::start(&database, &format!("'{name}', {limit}, '1 hour', '1 hour'"))?;
        // In one statement: before the one that waits is awake.
        let row = client.query_one(
            "SELECT enough.semaphore_release($1, $2), enough.semaphore_acquire($1, $3)",
            &[&name, &held[0], &limit],
        )?;
        ensure!(row.get::<_, bool>(0) && row.get::<_, Option<i64>>(1).is_none(), "{row:?}");
        waiter.token()?;
        // Also where it asks for more holders than the one that waits.
        let waiter = Waiter::start(&database, &format!("'{name}', {limit}, '1 hour', '1 hour'"))?;
        ensure!(acquire(&mut client, &format!("'{name}', {}", limit + 1))?.is_none());
        for token in tokens(&mut client, &name)? {
            release(&mut client, &name, token)?;
        }
        waiter.token()?;
    }
    Ok(())
}

#[test]
fn the_end_of_a_ttl_wakes_the_first_that_waits() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let held = taken(&mut client, "'s', ttl => '300 ms'")?;
    let first = Waiter::start(&database, "'s', wait => '1 hour', ttl => '300 ms'")?;
    let second = Waiter::start(&database, "'s', wait => '1 hour', ttl => '1 hour'")?;
    let (first, second) = (first.token()?, second.token()?);
    ensure!(held < first && first < second, "{held}, {first}, {second}");
    ensure!(tokens(&mut client, "s")? == [second]);
    Ok(())
}

#[test]
fn a_ttl_that_is_made_shorter_wakes_and_one_made_longer_does_not() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    let held = taken(&mut client, "'s', ttl => '200 ms'")?;
    let waiter = Waiter::start(&database, LONG)?;
    ensure!(extend(&mut client, "s", held, "1 hour")?, "it has expired meanwhile");
    sleep(Duration::from_millis(400));
    ensure!(waiter.waits() && tokens(&mut client, "s")? == [held]);
    ensure!(extend(&mut client, "s", held, "100 ms")?);
    ensure!(waiter.token()? > held);
    Ok(())
}

#[test]
fn two_ends_at_once_serve_two() -> Result<()> {
    let database = Database::new()?;
    let mut client = database.client()?;
    for round in 0..20 {
        let name = format!("s{round}");
        let held = [taken(&mut client, &format!("'{name}', 2"))?, taken(&mut client, &format!("'{name}', 2"))?];
        let waiting = [0, 1].map(|_| Waiter::start(&database, &format!("'{name}', 2, '1 hour', '1 hour'")));
        client.query_one(
            "SELECT enough.semaphore_release($1, $2), enough.semaphore_release($1, $3)",
            &[&name, &held[0], &held[1]],
        )?;
        for waiter in waiting {
            waiter?.token()?;
        }
        ensure!(tokens(&mut client, &name)?.len() == 2);
    }
    Ok(())
}

#[test]
fn a_wait_that_ends_returns_null_and_leaves_nothing() -> Result<()> {
    let server = start(&options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    let held = taken(&mut client, "'s', ttl => '1 hour'")?;
    for wait in ["1 microsecond", "50 ms"] {
        ensure!(acquire(&mut client, &format!("'s', wait => '{wait}'"))?.is_none(), "{wait}");
        ensure!(waiters(&mut client)? == 0, "{wait}");
    }
    // Whoever was behind it is the first now.
    let second = Waiter::start(&database, LONG)?;
    let mut impatient = database.client()?;
    ensure!(acquire(&mut impatient, "'s', wait => '50 ms'")?.is_none());
    ensure!(release(&mut client, "s", held)?);
    second.token()?;
    Ok(())
}

/// How often a process has gone to sleep.
fn sleeps(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).context("a count")?;
    Ok(line.split_whitespace().last().context("a number")?.parse()?)
}

#[test]
fn those_who_wait_sleep_until_it_is_their_turn() -> Result<()> {
    // Of its own: on a shared one the server itself wakes all sessions now and then.
    let server = start(&options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    let mut held = taken(&mut client, "'s', ttl => '1 hour'")?;
    let waiting = (0..10).map(|_| Waiter::start(&database, LONG)).collect::<Result<Vec<_>>>()?;
    let pids: Vec<u32> = waiting.iter().map(|waiter| waiter.pid).collect();
    let count = |pids: &[u32]| pids.iter().map(|&pid| sleeps(pid)).sum::<Result<u64>>();
    let before = count(&pids)?;
    // Others come and go, and other names are used.
    for _ in 0..200 {
        ensure!(acquire(&mut client, "'s'")?.is_none());
        let other = taken(&mut client, "'other', 9, '1 ms'")?;
        release(&mut client, "other", other)?;
        ensure!(extend(&mut client, "s", held, "2 hours")?);
    }
    let woken = count(&pids)? - before;
    ensure!(woken <= 10, "10 sessions that wait for one semaphore woke up {woken} times");
    // A release wakes its first, and that one the next, which has to know when it may come.
    let mut rest = waiting.into_iter();
    let first = rest.next().context("ten wait")?;
    ensure!(release(&mut client, "s", held)?);
    held = first.token()?;
    let woken = count(&pids[1..])?.saturating_sub(before);
    ensure!(woken <= 14, "one release woke them {woken} times");
    for waiter in rest {
        ensure!(release(&mut client, "s", held)?);
        held = waiter.token()?;
    }
    Ok(())
}
