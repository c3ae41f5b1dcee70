//! Sessions that take and wait, of which some are cancelled, terminated, or leave without a word, and a ledger with which every
//! token must agree: never more at once than allowed, tokens only grow, and nobody waits for one that is gone.
//!
//! The ledger knows for certain that a token stands from when the call has returned to when its release is sent, or to when the
//! ttl is over that has begun after the call was sent. What a killed call may have taken is not in it.

use crate::common::{acquire, extend, release, waiters};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{eventually, healthy, is_lost, state};
use enough_pg_test::server::{self, Database, backend};
use enough_pg_test::vanish::vanish;
use fastrand::Rng;
use postgres::Client;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const SESSIONS: usize = 10;
/// How many may hold each name.
const LIMITS: [usize; 3] = [1, 2, 4];

/// What is known of a token.
#[derive(Debug, Clone, Copy)]
struct Grant {
    name: usize,
    token: i64,
    sent: Instant,
    returned: Instant,
    /// Until when it stands for certain.
    until: Instant,
}

#[derive(Default)]
struct Ledger(Mutex<Vec<Grant>>);

impl Ledger {
    fn note(&self, grant: Grant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(grant);
    }

    fn check(self) -> Result<usize> {
        let grants = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (name, &limit) in LIMITS.iter().enumerate() {
            let mut own: Vec<Grant> = grants.iter().copied().filter(|grant| grant.name == name).collect();
            own.sort_by_key(|grant| grant.returned);
            for (at, grant) in own.iter().enumerate() {
                let together = own[..=at].iter().filter(|other| other.until > grant.returned).count();
                ensure!(together <= limit, "{together} hold s{name} at once, of at most {limit}: {grant:?}");
                let earlier = own[..at].iter().filter(|other| other.returned < grant.sent);
                let greatest = earlier.map(|other| other.token).max();
                ensure!(greatest.is_none_or(|token| token < grant.token), "{grant:?} came after {greatest:?}");
            }
            ensure!(own.len() > 20, "s{name} was taken {} times", own.len());
        }
        Ok(grants.len())
    }
}

/// What one session does until `over`; it connects again where it was terminated.
fn session(database: &Database, pid: &AtomicI32, seed: u64, ledger: &Ledger, over: &AtomicBool) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    while !over.load(Relaxed) {
        let mut client = database.client()?;
        pid.store(i32::try_from(backend(&mut client)?)?, Relaxed);
        match turns(&mut client, &mut rng, ledger, over) {
            Err(error) if is_lost(&error) => {}
            other => other.context("a session")?,
        }
    }
    pid.store(0, Relaxed);
    Ok(())
}

fn turns(client: &mut Client, rng: &mut Rng, ledger: &Ledger, over: &AtomicBool) -> Result<(), postgres::Error> {
    while !over.load(Relaxed) {
        let name = rng.usize(..LIMITS.len());
        let ttl = Duration::from_millis(rng.u64(5..400));
        let wait = [0, 5, 50, 10_000][rng.usize(..4)];
        let block = rng.u8(..4) == 0;
        let sent = Instant::now();
        let outcome = if block { client.batch_execute("BEGIN") } else { Ok(()) }.and_then(|()| {
            let limit = LIMITS[name];
            let ttl = ttl.as_millis();
            acquire(client, &format!("'s{name}', {limit}, '{ttl} ms', '{wait} ms'"))
        });
        let returned = Instant::now();
        match outcome {
            Err(error) if state(&error) == "57014" => {}
            Err(error) => return Err(error),
            Ok(None) => {}
            Ok(Some(token)) => {
                let mut grant = Grant { name, token, sent, returned, until: sent + ttl };
                let outcome = hold(client, rng, &mut grant);
                ledger.note(grant);
                match outcome {
                    Err(error) if state(&error) == "57014" => {}
                    other => other?,
                }
            }
        }
        if block {
            client.batch_execute(if rng.bool() { "ROLLBACK" } else { "COMMIT" }).or_else(|error| {
                if state(&error) == "57014" { client.batch_execute("ROLLBACK") } else { Err(error) }
            })?;
        }
    }
    Ok(())
}

/// Works while it holds a token, and ends it in one way or another.
fn hold(client: &mut Client, rng: &mut Rng, grant: &mut Grant) -> Result<(), postgres::Error> {
    let name = format!("s{}", grant.name);
    thread::sleep(Duration::from_millis(rng.u64(..20)));
    if rng.u8(..4) == 0 {
        // What an extension that fails has done isn't known; what it may have shortened isn't certain any more.
        let before = grant.until;
        let sent = Instant::now();
        grant.until = before.min(sent);
        if extend(client, &name, grant.token, "100 ms")? {
            grant.until = sent + Duration::from_millis(100);
        } else {
            grant.until = before.min(sent);
        }
    }
    if rng.u8(..4) > 0 {
        grant.until = grant.until.min(Instant::now());
        release(client, &name, grant.token)?;
    }
    // Else it is left to its ttl.
    Ok(())
}

/// Cancels and terminates sessions, and lets clients vanish, until `over`; how many.
fn upheaval(database: &Database, pids: &[AtomicI32], over: &AtomicBool) -> Result<usize> {
    let mut rng = Rng::with_seed(77);
    let mut client = database.client()?;
    let mut hits = 0;
    while !over.load(Relaxed) {
        thread::sleep(Duration::from_millis(rng.u64(..15)));
        let pid = pids[rng.usize(..pids.len())].load(Relaxed);
        match rng.u8(..10) {
            0 => {
                let name = rng.usize(..LIMITS.len());
                let limit = LIMITS[name];
                let query = format!("SELECT enough.semaphore_acquire('s{name}', {limit}, '50 ms', '1 hour')");
                hits += usize::from(vanish(database, "gone", &query, Duration::from_millis(rng.u64(..30))).is_ok());
            }
            1..3 => hits += usize::from(client.execute("SELECT pg_terminate_backend($1)", &[&pid]).is_ok()),
            _ => hits += usize::from(client.execute("SELECT pg_cancel_backend($1)", &[&pid]).is_ok()),
        }
    }
    Ok(hits)
}

#[test]
fn no_more_hold_it_than_allowed_whoever_is_killed() -> Result<()> {
    let length = std::env::var("ENOUGH_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let (ledger, over) = (Ledger::default(), AtomicBool::new(false));
    let pids: Vec<AtomicI32> = (0..SESSIONS).map(|_| AtomicI32::new(0)).collect();
    let hits = thread::scope(|scope| -> Result<usize> {
        let sessions: Vec<_> = pids
            .iter()
            .zip(1..)
            .map(|(pid, seed)| {
                let (database, ledger, over) = (&database, &ledger, &over);
                scope.spawn(move || session(database, pid, seed, ledger, over))
            })
            .collect();
        let killer = scope.spawn(|| upheaval(&database, &pids, &over));
        let end = Instant::now() + Duration::from_secs(length);
        while Instant::now() < end && !sessions.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Relaxed);
        let hits = killer.join().expect("the killer's thread")?;
        for session in sessions {
            session.join().expect("a session's thread")?;
        }
        Ok(hits)
    })?;
    ensure!(hits > 20, "only {hits} sessions were hit");
    let mut client = database.client()?;
    eventually("nobody waits any more", || Ok((waiters(&mut client)? == 0).then_some(())))?;
    for (name, limit) in LIMITS.iter().enumerate() {
        eventually("what was left to its ttl has ended", || {
            let row = client.query_one("SELECT count(*) FROM enough.semaphore_holders($1)", &[&format!("s{name}")])?;
            Ok((row.get::<_, i64>(0) == 0).then_some(()))
        })?;
        for _ in 0..*limit {
            ensure!(acquire(&mut client, &format!("'s{name}', {limit}, '1 hour'"))?.is_some(), "s{name}");
        }
        ensure!(acquire(&mut client, &format!("'s{name}', {limit}"))?.is_none(), "s{name}");
    }
    let grants = ledger.check()?;
    eprintln!("{grants} tokens, {hits} hits");
    healthy(&server.log(), false)
}
