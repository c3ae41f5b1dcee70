//! Two-phase commit: `queue_stats` shows what is in the tables as soon as a transaction is decided, whoever decides, whether or not the
//! rows were counted before, and through restarts.

use anyhow::{Result, ensure};
use enough_pg_test::queue::{self, Stats};
use enough_pg_test::server::{self, Database};
use postgres::Client;
use xtask::server::Shutdown;

/// When `queue_stats` is called for the first time, which counts the rows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Counted {
    First,
    WhilePrepared,
    AfterTheDecision,
}

fn compare(client: &mut Client, what: &str) -> Result<()> {
    let stats = queue::stats(client, "q")?;
    let row = client.query_one(
        "SELECT (SELECT count(*) FROM enough.q_q), (SELECT count(*) FROM enough.a_q WHERE outcome = 'dead'), \
                (SELECT count(*) FROM enough.a_q WHERE outcome = 'done'), \
                (SELECT archived FROM enough.queue_stats('q'))",
        &[],
    )?;
    let (rows, dead, done, archived): (i64, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    let all = stats.ready + stats.leased + stats.delayed;
    ensure!(
        (all, stats.dead, archived) == (rows, dead, done),
        "{what}: {rows} rows, {dead} dead and {done} done, and yet: {stats:?}, {archived} archived"
    );
    Ok(())
}

#[test]
fn they_are_right_as_soon_as_it_is_decided() -> Result<()> {
    let mut server = server::start(&server::options()?)?;
    for counted in [Counted::First, Counted::WhilePrepared, Counted::AfterTheDecision] {
        for restarted in [false, true] {
            for (commit, by_other) in [(true, false), (true, true), (false, false), (false, true)] {
                let what = format!("counted: {counted:?}, restart {restarted}, commit {commit}, by another {by_other}");
                let database = Database::on(&server)?;
                let (mut client, mut other) = (database.client()?, database.client()?);
                client.batch_execute(
                    "SELECT enough.queue_create('q', visibility_timeout => '1 hour', retry_backoff => '0')",
                )?;
                queue::send_numbers(&mut client, "q", 10)?;
                if counted == Counted::First {
                    compare(&mut other, &what)?;
                }
                let gid = &database.name;
                client.batch_execute(&format!(
                    "BEGIN; SELECT count(*) FROM enough.queue_pop('q', 2); \
                     SELECT enough.queue_archive('q', msg_id) FROM enough.queue_read('q', 1); \
                     SELECT enough.queue_fail('q', msg_id, 'no', dead => true) FROM enough.queue_read('q', 1); \
                     SELECT enough.queue_send('q', '1'); SELECT enough.queue_send('q', '1', '1 hour'); PREPARE TRANSACTION '{gid}'"
                ))?;
                if counted == Counted::WhilePrepared {
                    compare(&mut other, &what)?;
                }
                if restarted {
                    server.restart(Shutdown::Immediate)?;
                    (client, other) = (database.client()?, database.client()?);
                    if counted == Counted::WhilePrepared {
                        compare(&mut other, &what)?;
                    }
                }
                let decider = if by_other { &mut other } else { &mut client };
                decider.batch_execute(&format!("{} PREPARED '{gid}'", if commit { "COMMIT" } else { "ROLLBACK" }))?;
                compare(&mut other, &what)?;
                let left = if commit { 7 } else { 10 };
                let popped = queue::receive(&mut other, &format!("queue_pop('q', {left})"))?;
                ensure!(popped.len() == left, "{what}: {popped:?}");
                compare(&mut client, &what)?;
                ensure!(queue::receive(&mut client, "queue_pop('q', 1)")?.is_empty());
                compare(&mut client, &what)?;
                let expected = Stats { ready: 0, leased: 0, delayed: i64::from(commit), dead: i64::from(commit) };
                ensure!(queue::stats(&mut client, "q")? == expected, "{what}");
            }
        }
    }
    Ok(())
}
