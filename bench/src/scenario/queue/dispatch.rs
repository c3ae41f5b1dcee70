//! How soon a waiting reader has a message, and how many readers one message wakes.

use super::heading::{MESSAGE, OURS};
use crate::fixture::{self, Fixture};
use crate::peers::pgmq;
use crate::results::{Distribution, Figure, Results, Subject};
use crate::stats::Target;
use anyhow::{Context, Result, ensure};
use postgres::Client;
use std::fs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a reader gets to fall asleep again.
const FALL_ASLEEP: Duration = Duration::from_millis(3);
/// Readers that wait on one queue.
const READERS: usize = 50;

/// From a send to the row at a reader that waits; the machine should have nothing else to do.
pub(super) fn latency(fixture: &Fixture) -> Result<Results> {
    pgmq::install(fixture)?;
    fixture.client()?.batch_execute("SELECT enough.queue_create('dispatch')")?;
    fixture.client_for(pgmq::DATABASE)?.batch_execute("SELECT pgmq.create('dispatch')")?;
    let send = format!("SELECT enough.queue_send('dispatch', '{MESSAGE}')");
    let ours = Waiting {
        send: &send,
        read: "SELECT msg_id, message::text FROM enough.queue_read('dispatch', wait => '1 minute')",
        delete: "SELECT enough.queue_delete('dispatch', $1)",
    };
    let send = format!("SELECT * FROM pgmq.send('dispatch', '{MESSAGE}'::jsonb)");
    let theirs = Waiting {
        send: &send,
        // The last argument is its default, in milliseconds.
        read: "SELECT msg_id, message::text FROM pgmq.read_with_poll('dispatch', 30, 1, 60, 100)",
        delete: "SELECT pgmq.delete('dispatch', $1::bigint)",
    };
    let mut found = Results::default();
    let (count, count_of_pgmq) = fixture.effort().either((3_000, 200), (300, 20));
    let sides =
        [(OURS.to_owned(), fixture::DATABASE, ours, count), (pgmq::name(), pgmq::DATABASE, theirs, count_of_pgmq)];
    for (name, database, waiting, count) in sides {
        let (sender, reader) = (fixture.client_for(database)?, fixture.client_for(database)?);
        let (from_call, from_commit) = waiting.measure(sender, reader, count)?;
        for (title, samples) in [
            ("queue dispatch, from the call of send to the reader's row", from_call),
            ("queue dispatch, from the sender's answer, its commit, to the reader's row", from_commit),
        ] {
            let subject = Subject::new(title, "one sender, one waiting reader, durable, idle machine", &name, "ms");
            let distribution = Distribution::of(subject, samples).context("no samples")?;
            if name == OURS {
                found.figures.push(distribution.figure(0.5, Some(Target::AtMost(0.5))));
                found.figures.push(distribution.figure(0.99, Some(Target::AtMost(3.0))));
            }
            found.distributions.push(distribution);
        }
    }
    found.notes.push(
        "dispatch: where the reader's row is there before the sender's answer, the time from the latter is below 0"
            .into(),
    );
    Ok(found)
}

/// A sender's and a waiting reader's statements.
struct Waiting<'a> {
    send: &'a str,
    read: &'a str,
    delete: &'a str,
}

impl Waiting<'_> {
    /// Times in milliseconds from the call of send, and from its answer, to the reader's row.
    fn measure(&self, mut sender: Client, reader: Client, count: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let (tell, told) = channel();
        let (mut from_call, mut from_commit) = (Vec::with_capacity(count), Vec::with_capacity(count));
        thread::scope(|scope| {
            let reading = scope.spawn(move || self.receive(reader, count, &tell));
            let send = sender.prepare(self.send)?;
            for _ in 0..count {
                thread::sleep(FALL_ASLEEP);
                let called = Instant::now();
                sender.execute(&send, &[])?;
                let answered = Instant::now();
                let received: Instant = told.recv_timeout(Duration::from_mins(1)).context("a message never came")?;
                let since = |start: Instant| {
                    let early = start.saturating_duration_since(received);
                    (received.saturating_duration_since(start).as_secs_f64() - early.as_secs_f64()) * 1e3
                };
                from_call.push(since(called));
                from_commit.push(since(answered));
                // The reader has deleted the message and goes to read the next one.
                told.recv_timeout(Duration::from_mins(1)).context("the reader didn't go on")?;
            }
            reading.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
        })?;
        Ok((from_call, from_commit))
    }

    /// Tells twice of each message: when its row has come, and when it's deleted.
    fn receive(&self, mut client: Client, count: usize, tell: &Sender<Instant>) -> Result<()> {
        let (read, delete) = (client.prepare(self.read)?, client.prepare(self.delete)?);
        for _ in 0..count {
            let row = client.query_one(&read, &[])?;
            tell.send(Instant::now())?;
            client.execute(&delete, &[&row.get::<_, i64>(0)])?;
            tell.send(Instant::now())?;
        }
        Ok(())
    }
}

/// Many readers on one queue: each message goes to one of them and wakes no other.
pub(super) fn wake_ups(fixture: &Fixture) -> Result<Results> {
    let count = fixture.effort().either(1_000, 100);
    let mut sender = fixture.client()?;
    sender.batch_execute("SELECT enough.queue_create('wake', visibility_timeout => '1 hour')")?;
    let send = sender.prepare(&format!("SELECT enough.queue_send('wake', '{MESSAGE}')"))?;
    let (tell, told) = channel();
    let mut processes = Vec::with_capacity(READERS);
    let mut readers = Vec::with_capacity(READERS);
    for _ in 0..READERS {
        let mut client = fixture.client()?;
        processes.push(client.query_one("SELECT pg_backend_pid()", &[])?.get::<_, i32>(0));
        let tell = tell.clone();
        readers.push(thread::spawn(move || read_until_stop(&mut client, &tell)));
    }
    thread::sleep(Duration::from_millis(200));
    let (mut awake, mut anyway) = (0, 0);
    for _ in 0..count {
        // As long a time without a message: a waiting session looks up once a second by itself.
        let before = turns(&processes)?;
        thread::sleep(FALL_ASLEEP);
        let idle = turns(&processes)?;
        sender.execute(&send, &[])?;
        received(&told)?;
        thread::sleep(FALL_ASLEEP);
        let after = turns(&processes)?;
        anyway += changed(&before, &idle);
        awake += changed(&idle, &after);
    }
    let stop = "SELECT count(*) FROM enough.queue_send_batch('wake', array_fill('\"stop\"'::jsonb, ARRAY[$1::int]))";
    sender.query_one(stop, &[&(READERS as i32)])?;
    let mut deliveries = 0;
    for reader in readers {
        deliveries += reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
    }
    ensure!(deliveries == count, "{deliveries} deliveries of {count} messages");
    let conditions = format!("{READERS} sessions wait on one queue, {count} messages one by one");
    let subject = |title| Subject::new(title, &conditions, OURS, "a message");
    let mean = |total: usize| {
        #[allow(clippy::cast_precision_loss, reason = "small counts")]
        let mean = total as f64 / count as f64;
        mean
    };
    let woken = Figure::counted(
        subject("sessions that run, less those that run in as long without a message"),
        mean(awake) - mean(anyway),
        Some(Target::AtMost(1.1)),
    );
    let mut found = Results::default();
    found.figures.push(woken);
    found.figures.push(Figure::counted(subject("deliveries"), mean(deliveries), Some(Target::AtMost(1.0))));
    sender.batch_execute("SELECT enough.queue_drop('wake')")?;
    Ok(found)
}

fn received(told: &Receiver<()>) -> Result<()> {
    told.recv_timeout(Duration::from_mins(1)).context("a message never came")
}

/// How many messages came before the one that ends it.
fn read_until_stop(client: &mut Client, tell: &Sender<()>) -> Result<usize> {
    let read = client.prepare("SELECT message::text FROM enough.queue_read('wake', wait => '1 hour')")?;
    let mut count = 0;
    while client.query_one(&read, &[])?.get::<_, String>(0) != "\"stop\"" {
        count += 1;
        tell.send(())?;
    }
    Ok(count)
}

/// How often each process has been given a processor.
fn turns(processes: &[i32]) -> Result<Vec<u64>> {
    let turns = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).context("the kernel doesn't count turns")?;
        let count = text.split_whitespace().nth(2).and_then(|number| number.parse().ok());
        count.context("the kernel doesn't count turns")
    };
    processes.iter().map(turns).collect()
}

fn changed(before: &[u64], after: &[u64]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}
