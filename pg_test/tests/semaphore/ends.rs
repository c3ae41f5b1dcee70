//! Waits that end early: whoever has left takes nothing, and keeps nobody waiting. And holders that are gone.

use crate::common::{Waiter, acquire, release, taken, tokens, waiters};
use anyhow::{Result, ensure};
use enough_pg_test::check::{eventually, is_lost, refused, state};
use enough_pg_test::server::{Database, backend, options, start};
use enough_pg_test::vanish::vanish;
use postgres::Client;
use std::time::Duration;
use xtask::server::Server;

const LONG: &str = "'s', wait => '1 hour', ttl => '1 hour'";

/// A server of the test's own, because the statistics are those of all its databases.
fn made() -> Result<(Server, Database, Client)> {
    let server = start(&options()?)?;
    let database = Database::on(&server)?;
    let client = database.client()?;
    Ok((server, database, client))
}

/// The transaction of a call that has failed is over: the server tells of the error before it ends it, and answers again after.
fn ended(session: &mut Client) -> Result<()> {
    Ok(session.batch_execute("SELECT 1")?)
}

#[test]
fn a_cancel_takes_it_out_of_the_line() -> Result<()> {
    let (_server, database, mut client) = made()?;
    let held = taken(&mut client, "'s', ttl => '1 hour'")?;
    let first = Waiter::start(&database, LONG)?;
    let second = Waiter::start(&database, LONG)?;
    client.execute("SELECT pg_cancel_backend($1)", &[&i32::try_from(first.pid)?])?;
    let (mut session, outcome) = first.end()?;
    refused(outcome, "57014")?;
    ended(&mut session)?;
    ensure!(waiters(&mut client)? == 1);
    ensure!(release(&mut client, "s", held)?);
    let held = second.token()?;
    // The session that was cancelled goes on.
    ensure!(acquire(&mut session, "'s'")?.is_none() && release(&mut session, "s", held)?);
    Ok(())
}

#[test]
fn a_statement_timeout_takes_it_out_of_the_line() -> Result<()> {
    let (_server, database, mut client) = made()?;
    let held = taken(&mut client, "'s', ttl => '1 hour'")?;
    let mut impatient = database.client()?;
    impatient.batch_execute("SET statement_timeout = '200 ms'")?;
    refused(acquire(&mut impatient, LONG), "57014")?;
    ended(&mut impatient)?;
    ensure!(waiters(&mut client)? == 0 && release(&mut client, "s", held)?);
    taken(&mut impatient, "'s'")?;
    Ok(())
}

#[test]
fn a_block_that_catches_the_cancel_has_left_the_line() -> Result<()> {
    let (_server, database, mut client) = made()?;
    let held = taken(&mut client, "'s', ttl => '1 hour'")?;
    let mut other = database.client()?;
    let pid = i32::try_from(backend(&mut other)?)?;
    let thread = std::thread::spawn(move || {
        let outcome = other.batch_execute(
            "DO $$ BEGIN BEGIN PERFORM enough.semaphore_acquire('s', wait => '1 hour'); \
                 EXCEPTION WHEN query_canceled THEN NULL; END; PERFORM pg_sleep(3600); END $$",
        );
        (other, outcome)
    });
    enough_pg_test::server::until_waiting(&mut client, u32::try_from(pid)?)?;
    client.execute("SELECT pg_cancel_backend($1)", &[&pid])?;
    // Its transaction is still open, and it sleeps for something else.
    eventually("it has left the line", || Ok((waiters(&mut client)? == 0).then_some(())))?;
    ensure!(release(&mut client, "s", held)?);
    taken(&mut client, "'s'")?;
    client.execute("SELECT pg_cancel_backend($1)", &[&pid])?;
    let (_, outcome) = thread.join().map_err(|_| anyhow::anyhow!("a session panicked"))?;
    refused(outcome, "57014")?;
    Ok(())
}

#[test]
fn a_terminated_session_leaves_the_line() -> Result<()> {
    let (_server, database, mut client) = made()?;
    let held = taken(&mut client, "'s', ttl => '1 hour'")?;
    let first = Waiter::start(&database, LONG)?;
    let second = Waiter::start(&database, LONG)?;
    client.execute("SELECT pg_terminate_backend($1)", &[&i32::try_from(first.pid)?])?;
    let error = first.end()?.1.expect_err("the session was terminated");
    ensure!(is_lost(&error), "{error:?}");
    eventually("it has left the line", || Ok((waiters(&mut client)? == 1).then_some(())))?;
    ensure!(release(&mut client, "s", held)?);
    second.token()?;
    Ok(())
}

/// Both come at nearly the same time: the first has got it before, or the second gets it.
#[test]
fn a_cancel_and_a_release_at_once_lose_nothing() -> Result<()> {
    let (_server, database, mut client) = made()?;
    let mut cancelled = 0;
    for round in 0..40 {
        let held = taken(&mut client, "'s', ttl => '1 hour'")?;
        let first = Waiter::start(&database, LONG)?;
        let second = Waiter::start(&database, LONG)?;
        let pid = i32::try_from(first.pid)?;
        let cancel = "pg_cancel_backend($1)";
        let end = "enough.semaphore_release('s', $2)";
        let statement =
            if round % 2 == 0 { format!("SELECT {cancel}, {end}") } else { format!("SELECT {end}, {cancel}") };
        client.query_one(&statement, &[&pid, &held])?;
        match first.end()?.1 {
            Ok(token) => ensure!(token.is_some_and(|token| token > held)),
            Err(error) => {
                ensure!(state(&error) == "57014", "{error:?}");
                cancelled += 1;
            }
        }
        // The statement may have failed when it had the token already: then that is in the list.
        let mut second = Some(second);
        let ended = eventually("the second has it", || {
            for token in tokens(&mut client, "s")? {
                let row = client.query_one("SELECT pid FROM enough.semaphore_holders('s') WHERE token = $1", &[&token]);
                if row.is_ok_and(|row| row.get::<_, i32>(0) == pid) {
                    release(&mut client, "s", token)?;
                }
            }
            Ok(second.take_if(|second| !second.waits()))
        })?;
        let token = ended.token()?;
        ensure!(release(&mut client, "s", token)?);
        ensure!(waiters(&mut client)? == 0);
    }
    ensure!(cancelled > 0, "no cancel came in time");
    Ok(())
}

#[test]
fn a_client_that_is_gone_takes_nothing() -> Result<()> {
    let (_server, database, mut client) = made()?;
    let held = taken(&mut client, "'s', ttl => '1 hour'")?;
    for _ in 0..3 {
        vanish(&database, "gone", &format!("SELECT enough.semaphore_acquire({LONG})"), Duration::from_millis(200))?;
    }
    let next = Waiter::start(&database, LONG)?;
    eventually("those that are gone have left", || Ok((waiters(&mut client)? == 1).then_some(())))?;
    ensure!(release(&mut client, "s", held)?);
    let token = next.token()?;
    let acquired: i64 = client.query_one("SELECT acquired FROM enough.semaphore_stats()", &[])?.get(0);
    ensure!(acquired == 2 && tokens(&mut client, "s")? == [token], "{acquired} tokens were given");
    Ok(())
}

/// What it holds ends with its ttl, and not before.
#[test]
fn a_holder_that_is_terminated_holds_it_to_the_end() -> Result<()> {
    let (_server, database, mut client) = made()?;
    let mut holder = database.client()?;
    let pid = i32::try_from(backend(&mut holder)?)?;
    let token = taken(&mut holder, "'s', ttl => '1 s'")?;
    client.execute("SELECT pg_terminate_backend($1)", &[&pid])?;
    eventually("the session is gone", || {
        Ok(client.query_opt("SELECT 1 FROM pg_stat_activity WHERE pid = $1", &[&pid])?.is_none().then_some(()))
    })?;
    let next = Waiter::start(&database, LONG)?.token()?;
    let row = client.query_one("SELECT since FROM enough.semaphore_holders('s')", &[])?;
    let since: std::time::SystemTime = row.get(0);
    // Tokens are made of the clock.
    let earliest = std::time::UNIX_EPOCH + Duration::from_hours(262_968) + Duration::from_micros(token.unsigned_abs());
    ensure!(since >= earliest + Duration::from_secs(1), "{token} was followed by {next} at {since:?}");
    Ok(())
}
