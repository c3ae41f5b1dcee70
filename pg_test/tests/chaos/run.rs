//! The storms: one that crashes the server, one that only ends sessions and statements, and one of DDL, restarts and
//! killed clients.

use crate::fates::{self, Fates};
use crate::ledger::{GROUP_LIMIT, GROUP_PERIOD, GROUP_RATE, Ledger};
use crate::others::{self, Others, Storm, Workers};
use crate::session::{NAME, connect};
use crate::upheaval::{NEEDED, Reborn, strike};
use crate::values::{self, Values};
use crate::{consumer, producer, two_phase};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, healthy};
use enough_pg_test::server::{self, Database};
use enough_pg_test::{queue, segment};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};
use xtask::server::{Server, Shutdown};

const PRODUCERS: i64 = 8;
const CONSUMERS: i64 = 8;
const PREPARERS: i64 = 2;
/// Between two kills.
const KILL_EVERY: Duration = Duration::from_secs(2);
/// Between two restarts.
const RESTART_EVERY: Duration = Duration::from_secs(5);
/// Between two milder blows.
const HIT_EVERY: Duration = Duration::from_millis(15);

fn length() -> Duration {
    let seconds = std::env::var("ENOUGH_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

fn start() -> Result<(Server, Database)> {
    // Commits are as durable as they are by default.
    let server = server::start(&server::options()?.conf("fsync", "on"))?;
    let database = Database::on(&server)?;
    // A message may be delivered as often as it takes.
    database.client()?.batch_execute(&format!(
        "SELECT enough.queue_create('q', visibility_timeout => '300 milliseconds', max_attempts => 1000000, \
         retry_backoff => '20 milliseconds', retry_backoff_max => '200 milliseconds', group_limit => {GROUP_LIMIT}, \
         group_rate => {GROUP_RATE}, group_rate_period => '{GROUP_PERIOD} microseconds'); {}; {}; {}",
        others::CREATE,
        values::CREATE,
        fates::create()
    ))?;
    Ok((server, database))
}

/// What is known of all that isn't the queue `q`.
#[derive(Default)]
struct Beside {
    others: Others,
    values: Values,
    fates: Fates,
}

impl Beside {
    /// The sessions.
    fn spawn<'s>(&'s self, scope: &'s Scope<'s, '_>, storm: Storm<'s>) -> Workers<'s> {
        let mut all = self.others.spawn(scope, storm);
        all.extend(self.values.spawn(scope, storm));
        all.extend(self.fates.spawn(scope, storm));
        all
    }

    /// The verdict, once all is over.
    fn judge(&self, database: &Database) -> Result<()> {
        self.others.judge(database)?;
        self.fates.judge(database)?;
        self.values.judge(&mut database.client()?)
    }
}

/// Lets all of them work while `storm` rages; `storm` returns when the time is over.
fn rage(database: &Database, ledger: &Ledger, beside: &Beside, storm: impl FnOnce() -> Result<()>) -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let producers = (0..PRODUCERS).map(|number| {
            let stop = &stop;
            scope.spawn(move || producer::run(database, ledger, number, stop))
        });
        let consumers = (0..CONSUMERS).map(|_| scope.spawn(|| consumer::run(database, ledger, &stop)));
        let preparers = (0..PREPARERS).map(|number| {
            let stop = &stop;
            scope.spawn(move || two_phase::run(database, ledger, PRODUCERS + number, stop))
        });
        let others = beside.spawn(scope, Storm { database, ledger, stop: &stop });
        let workers: Vec<_> = producers.chain(consumers).chain(preparers).chain(others).collect();
        let storm = storm();
        stop.store(true, Relaxed);
        for worker in workers {
            worker.join().expect("a worker panicked")?;
        }
        storm
    })
}

/// The process of a worker's session, picked at random.
fn victim(client: &mut Client) -> Result<Option<i32>> {
    let row = client.query_opt(
        "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY state <> 'active', random() LIMIT 1",
        &[&NAME],
    )?;
    Ok(row.map(|row| row.get(0)))
}

#[test]
fn killing_a_random_backend_every_two_seconds() -> Result<()> {
    let (mut server, database) = start()?;
    let (ledger, beside) = (Ledger::default(), Beside::default());
    let end = Instant::now() + length();
    let mut crashes = 0;
    rage(&database, &ledger, &beside, || {
        loop {
            thread::sleep(KILL_EVERY.min(end.saturating_duration_since(Instant::now())));
            if Instant::now() >= end {
                return Ok(());
            }
            let mut watcher = database.client()?;
            let pid = eventually("there is a session to kill", || victim(&mut watcher))?;
            if server.backend_kill9(u32::try_from(pid)?).is_ok() {
                crashes += 1;
            }
            server.wait_until_up()?;
        }
    })?;
    server.wait_until_up()?;
    consumer::drain(&database, &ledger)?;
    println!("{crashes} crashes");
    ledger.judge()?;
    beside.judge(&database)?;
    ensure!(length() < 2 * KILL_EVERY || crashes > 0, "nothing was killed");
    healthy(&server.log(), true)
}

#[test]
fn altering_and_dropping_queues_beside_restarts_and_killed_clients() -> Result<()> {
    let (mut server, database) = start()?;
    database.client()?.batch_execute(NEEDED)?;
    let (ledger, beside) = (Ledger::default(), Beside::default());
    let (reborn, stop) = (Reborn::default(), AtomicBool::new(false));
    let end = Instant::now() + length();
    let mut restarts = 0;
    thread::scope(|scope| -> Result<()> {
        let mut sessions = vec![scope.spawn(|| reborn.replace(&database, &ledger, &stop))];
        sessions.extend((0..3).map(|_| scope.spawn(|| reborn.work(&database, &ledger, &stop))));
        let alter = scope.spawn(|| -> Result<()> {
            let mut rng = fastrand::Rng::new();
            let mut session = connect(&database)?;
            while !stop.load(Relaxed) {
                strike(&mut session, &database, &mut rng, &ledger)?;
                thread::sleep(Duration::from_millis(rng.u64(..40)));
            }
            Ok(())
        });
        let outcome = rage(&database, &ledger, &beside, || {
            while Instant::now() + RESTART_EVERY < end {
                thread::sleep(RESTART_EVERY);
                // A planned restart, or one of those that nobody has planned.
                if fastrand::u8(..4) > 0 {
                    server.restart(Shutdown::Fast)?;
                } else {
                    server.crash()?;
                    server.launch()?;
                }
                restarts += 1;
            }
            thread::sleep(end.saturating_duration_since(Instant::now()));
            Ok(())
        });
        stop.store(true, Relaxed);
        for session in sessions.into_iter().chain([alter]) {
            session.join().expect("a session panicked")?;
        }
        outcome
    })?;
    println!("{restarts} restarts");
    // Whatever it was altered to last, the rest is to be read in one go.
    database
        .client()?
        .batch_execute("SELECT enough.queue_alter('q', max_in_flight => 0, max_rate => 0), enough.queue_resume('q')")?;
    consumer::drain(&database, &ledger)?;
    ledger.judge()?;
    beside.judge(&database)?;
    ensure!(length() < 2 * RESTART_EVERY || restarts > 0, "nothing was restarted");
    healthy(&server.log(), false)
}

#[test]
fn terminating_sessions_and_cancelling_statements() -> Result<()> {
    let (server, database) = start()?;
    let (ledger, beside) = (Ledger::default(), Beside::default());
    let end = Instant::now() + length() / 2;
    let mut hits = [0_u64; 2];
    rage(&database, &ledger, &beside, || {
        let mut watcher = database.client()?;
        while Instant::now() < end {
            thread::sleep(HIT_EVERY);
            let Some(pid) = victim(&mut watcher)? else { continue };
            let terminate = fastrand::u8(0..4) == 0;
            let function = if terminate { "pg_terminate_backend" } else { "pg_cancel_backend" };
            watcher.execute(&format!("SELECT {function}($1)"), &[&pid])?;
            hits[usize::from(terminate)] += 1;
        }
        Ok(())
    })?;
    println!("{hits:?} statements cancelled and sessions terminated");
    let mut client = database.client()?;
    // No crash has tidied up: what the memory knows must be what is there. The last sessions may still be ending.
    eventually("the counts agree with the table", || {
        let stats = queue::stats(&mut client, "q")?;
        let rows: i64 = client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
        let counted = stats.ready + stats.leased + stats.delayed;
        Ok((counted == rows && stats.dead == 0).then_some(()))
    })
    .with_context(|| format!("{:?}", database.client().map(|mut client| queue::stats(&mut client, "q"))))?;
    consumer::drain(&database, &ledger)?;
    ledger.judge()?;
    beside.judge(&database)?;
    let stats = queue::stats(&mut client, "q")?;
    ensure!(
        stats == queue::Stats { ready: 0, leased: 0, delayed: 0, dead: 0 },
        "the queue is empty, and yet: {stats:?}"
    );
    let resets: String = client.query_one("SELECT value FROM enough.status() WHERE item = 'queue_resets'", &[])?.get(0);
    ensure!(resets == "0", "the queues' memory was damaged {resets} times");
    // The memory is the one from the beginning.
    ensure!(segment::SegmentFile::of_process(server::backend(&mut client)?)?.is_some());
    healthy(&server.log(), false)
}
