//! From end to end: sessions that send one message a transaction, and one consumer that works through them in batches, as
//! `PgQ` is meant to be used.

use super::heading::{MESSAGE, OURS};
use crate::comparison::{Candidate, Heading, Relation, compare_all};
use crate::fixture::{self, Fixture};
use crate::peers::{pgmq, pgq};
use crate::pgbench::{Load, Pgbench};
use crate::results::Results;
use anyhow::{Context, Result, ensure};
use postgres::Client;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Sessions that send.
const SENDERS: usize = 8;
/// The most that the consumer asks for at once; also what `PgQ` makes a batch of by default.
const BATCH: i32 = 500;
/// How long a consumer that found nothing rests where it can't wait for a message.
const REST: Duration = Duration::from_millis(1);

/// Against `PgQ` and pgmq.
pub(super) fn end_to_end(fixture: &Fixture) -> Result<Results> {
    let pgq_name = pgq::install(fixture)?;
    pgmq::install(fixture)?;
    fixture.client()?.batch_execute("SELECT enough.queue_create('pipeline')")?;
    fixture.client_for(pgmq::DATABASE)?.batch_execute("SELECT pgmq.create('pipeline')")?;
    // By default a batch that isn't full is closed after three seconds; the others would idle for as long at the end of
    // each round.
    fixture.client_for(pgq::DATABASE)?.batch_execute(
        "SELECT pgq.create_queue('pipeline');
         SELECT pgq.set_queue_config('pipeline', 'ticker_max_lag', '50 milliseconds');
         SELECT pgq.register_consumer('pipeline', 'worker');",
    )?;
    let pgmq_name = pgmq::name();
    let senders = |name, database, script| {
        let load =
            Load { name, database, script, variables: &[("body", MESSAGE)], clients: SENDERS, ..Load::default() };
        Pgbench::new(fixture, load)
    };
    let mut ours = Pipeline {
        name: OURS,
        senders: senders(OURS, fixture::DATABASE, "SELECT enough.queue_send('pipeline', :body);\n")?,
        client: fixture.client()?,
        consume: enough,
        fixture,
    };
    let mut pgq = Pipeline {
        name: &pgq_name,
        senders: senders(&pgq_name, pgq::DATABASE, "SELECT pgq.insert_event('pipeline', 'order', :body);\n")?,
        client: fixture.client_for(pgq::DATABASE)?,
        consume: pgqs,
        fixture,
    };
    let mut pgmq = Pipeline {
        name: &pgmq_name,
        senders: senders(&pgmq_name, pgmq::DATABASE, "SELECT pgmq.send('pipeline', :body);\n")?,
        client: fixture.client_for(pgmq::DATABASE)?,
        consume: pgmqs,
        fixture,
    };
    let heading = Heading {
        title: "queue from end to end".into(),
        conditions: format!("{SENDERS} senders of one each, a consumer of up to {BATCH}, durable"),
        unit: "messages/s".into(),
        relation: Relation::Ratio,
        target: None,
    };
    let references: &mut [(_, &mut dyn Candidate)] = &mut [(None, &mut pgq), (None, &mut pgmq)];
    Ok(compare_all(&heading, &mut ours, references, fixture.effort().rounds)?.into())
}

/// Senders and a consumer. A round lasts from the first send until the last message is consumed.
struct Pipeline<'a> {
    name: &'a str,
    fixture: &'a Fixture,
    senders: Pgbench<'a>,
    client: Client,
    /// Consumes what there is, up to a batch; how many that were.
    consume: fn(&mut Client) -> Result<u64>,
}

impl Pipeline<'_> {
    fn run(&mut self, seconds: u64) -> Result<f64> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let sent = AtomicU64::new(u64::MAX);
        let (senders, client, consume) = (&self.senders, &mut self.client, self.consume);
        let began = Instant::now();
        thread::scope(|scope| {
            let consumer = scope.spawn(|| -> Result<u64> {
                let mut consumed = 0;
                while consumed < sent.load(Relaxed) {
                    let some = consume(client)?;
                    consumed += some;
                    if some == 0 {
                        thread::sleep(REST);
                    }
                    ensure!(began.elapsed() < Duration::from_secs(seconds) + PATIENCE, "messages are missing");
                }
                Ok(consumed)
            });
            let all = senders.completed(seconds);
            // Where the senders failed the consumer must end, too.
            sent.store(*all.as_ref().unwrap_or(&0), Relaxed);
            let consumed = consumer.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))??;
            let all = all?;
            ensure!(consumed == all, "{consumed} of {all} messages were consumed");
            #[allow(clippy::cast_precision_loss, reason = "nobody sends 2⁵³ messages")]
            Ok(consumed as f64 / began.elapsed().as_secs_f64())
        })
    }
}

impl Candidate for Pipeline<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self) -> Result<f64> {
        self.run(self.fixture.effort().seconds)
    }

    fn warm_up(&mut self) -> Result<()> {
        self.run(1).map(drop)
    }
}

fn enough(client: &mut Client) -> Result<u64> {
    let read = "SELECT msg_id, message::text FROM enough.queue_read('pipeline', $1, wait => '10 milliseconds')";
    finish(client, read, "SELECT count(*) FROM enough.queue_delete_batch('pipeline', $1)")
}

fn pgmqs(client: &mut Client) -> Result<u64> {
    let read = "SELECT msg_id, message::text FROM pgmq.read('pipeline', 30, $1)";
    finish(client, read, "SELECT count(*) FROM pgmq.delete('pipeline', $1::bigint[])")
}

fn finish(client: &mut Client, read: &str, delete: &str) -> Result<u64> {
    let numbers: Vec<i64> = client.query(read, &[&BATCH])?.iter().map(|row| row.get(0)).collect();
    if numbers.is_empty() {
        return Ok(0);
    }
    let deleted: i64 = client.query_one(delete, &[&numbers])?.get(0);
    ensure!(deleted == numbers.len() as i64, "{deleted} of {} messages were deleted", numbers.len());
    Ok(deleted as u64)
}

/// The ticker, which is a process of its own otherwise, runs in the consumer's session.
fn pgqs(client: &mut Client) -> Result<u64> {
    client.execute("SELECT pgq.ticker('pipeline')", &[])?;
    let batch: Option<i64> = client.query_one("SELECT pgq.next_batch('pipeline', 'worker')", &[])?.get(0);
    let Some(batch) = batch else { return Ok(0) };
    let events = client.query("SELECT ev_id, ev_data FROM pgq.get_batch_events($1)", &[&batch])?;
    client.execute("SELECT pgq.finish_batch($1)", &[&batch])?;
    u64::try_from(events.len()).context("too many events")
}
