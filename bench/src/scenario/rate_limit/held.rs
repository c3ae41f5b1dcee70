//! What becomes of a key's callers while a transaction that has used it stays open.

use super::check::{FIRST_KEY, OURS, check, load};
use crate::fixture::Fixture;
use crate::peers::limit_table::{self, UPSERT};
use crate::results::{Figure, Results, Series, Subject};
use crate::stats::Target;
use anyhow::{Context, Result, anyhow};
use std::thread;
use std::time::{Duration, Instant};

const TITLE: &str = "rate limit, one key that an open transaction has used";

/// Callers whose rate is taken.
const CLIENTS: usize = 8;

/// Seconds before the transaction begins, and after its end.
const AROUND: u64 = 3;

/// The longest that a caller may wait, in ms: a hundredth of the time that the transaction stays open. What is left of
/// a wait then is the machine's.
const LONGEST: f64 = 100.0;

/// The callers' rate in each second, and the longest that a single caller has to wait.
pub(super) fn open_transaction(fixture: &Fixture) -> Result<Results> {
    let open = Duration::from_secs(fixture.effort().either(10, 3));
    limit_table::create(fixture, FIRST_KEY, 1)?;
    let mut found = Results::default();
    let sides = [(OURS, check("'hot'"), Some(Target::AtMost(LONGEST))), (UPSERT, limit_table::upsert("'hot'"), None)];
    for (name, statement, target) in sides {
        let conditions = format!("open for {} s", open.as_secs());
        let subject = |what: &str, unit| Subject::new(&format!("{TITLE}, {what}"), &conditions, name, unit);
        let rates = rates(fixture, name, &statement, open)?;
        let points = (1..).map(f64::from).zip(rates).collect();
        let conditions = format!("{CLIENTS} clients; open from {AROUND} s to {} s", AROUND + open.as_secs());
        found.series.push(Series {
            subject: Subject::new(TITLE, &conditions, name, "calls/s"),
            along: "s".into(),
            points,
        });
        let longest = longest_wait(fixture, &statement, open)?;
        found.figures.push(Figure::counted(subject("longest wait of a caller", "ms"), longest, target));
    }
    Ok(found)
}

/// Calls in each second, while another session uses the key and then keeps its transaction open for a while.
fn rates(fixture: &Fixture, name: &str, statement: &str, open: Duration) -> Result<Vec<f64>> {
    let callers = load(fixture, name, statement, CLIENTS)?;
    let mut holder = fixture.client()?;
    thread::scope(|scope| {
        let held = scope.spawn(move || -> Result<()> {
            thread::sleep(Duration::from_secs(AROUND));
            let mut transaction = holder.transaction()?;
            transaction.batch_execute(statement)?;
            thread::sleep(open);
            Ok(transaction.commit()?)
        });
        let rates = callers.rates(2 * AROUND + open.as_secs());
        held.join().map_err(|_| anyhow!("the holder's thread panicked"))?.context("the open transaction failed")?;
        rates
    })
}

/// The longest call, in ms, of one session, alone with a transaction that has used the key.
fn longest_wait(fixture: &Fixture, statement: &str, open: Duration) -> Result<f64> {
    let (mut holder, mut caller) = (fixture.client()?, fixture.client()?);
    let mut transaction = holder.transaction()?;
    transaction.batch_execute(statement)?;
    let statement = caller.prepare(statement)?;
    thread::scope(|scope| {
        let calls = scope.spawn(move || -> Result<f64> {
            let (began, mut longest) = (Instant::now(), Duration::ZERO);
            while began.elapsed() < open {
                let called = Instant::now();
                caller.query(&statement, &[])?;
                longest = longest.max(called.elapsed());
            }
            Ok(longest.as_secs_f64() * 1e3)
        });
        thread::sleep(open);
        transaction.commit()?;
        calls.join().map_err(|_| anyhow!("the caller's thread panicked"))?.context("a call failed")
    })
}
