//! One of the demo's workers: a process with a session of its own, so that it can be killed like one.
//!
//! It takes messages with a visibility timeout, looks each one's maintainer up through the cache, asks the limiter
//! whether that maintainer may have another one now, and deletes what it has done in the same transaction that records
//! it. Messages of a maintainer who has had enough are kept until the time that the limiter names, and their leases
//! renewed before they run out.
//!
//! After each step a line of counters goes to the parent; when the parent closes the worker's input, it ends.

use super::input::maintainer;
use super::{MAINTAINER_LIMIT, MAINTAINER_PERIOD, QUEUE, VISIBILITY};
use anyhow::{Context, Result};
use postgres::{Client, NoTls, Statement};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Messages in one read.
const BATCH: i32 = 100;

/// So many messages that have to wait for the limiter are kept; with more, the worker reads no new ones.
const KEPT: usize = 2000;

/// What a worker has counted so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Messages read, again and again included.
    pub(super) read: u64,
    /// Messages deleted and recorded.
    pub(super) done: u64,
    /// Lookups that the cache answered.
    pub(super) hits: u64,
    /// Lookups that went to the table.
    pub(super) misses: u64,
    /// Checks that the limiter allowed.
    pub(super) allowed: u64,
    /// Checks that it denied.
    pub(super) denied: u64,
}

impl Counters {
    /// Adds another worker's.
    pub(super) fn add(&mut self, other: Self) {
        self.read += other.read;
        self.done += other.done;
        self.hits += other.hits;
        self.misses += other.misses;
        self.allowed += other.allowed;
        self.denied += other.denied;
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, done, hits, misses, allowed, denied } = self;
        write!(f, "{read} {done} {hits} {misses} {allowed} {denied}")
    }
}

impl FromStr for Counters {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [read, done, hits, misses, allowed, denied] = numbers[..] else { anyhow::bail!("not six numbers: {line}") };
        Ok(Self { read, done, hits, misses, allowed, denied })
    }
}

/// A kept message's lease is renewed when it has no more than this left.
const RENEW_BEFORE: Duration = Duration::from_secs(2);

/// A message that this worker holds the lease of.
struct Message {
    id: i64,
    attempts: i32,
    maintainer: String,
    /// When the lease runs out, by this process's clock: a little late, which [`RENEW_BEFORE`] makes up for.
    leased_until: Instant,
}

/// A worker and its prepared calls.
struct Worker {
    client: Client,
    number: i32,
    read: Statement,
    get: Statement,
    resolve: Statement,
    set: Statement,
    limit: Statement,
    extend: Statement,
    finish: Statement,
    counters: Counters,
    /// What waits for the limiter.
    kept: VecDeque<Message>,
    /// Until when a maintainer has had enough.
    closed: HashMap<String, Instant>,
}

/// Works until the standard input is closed.
pub fn run(url: &str, number: i32) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let closed = Arc::clone(&stop);
    thread::spawn(move || {
        // Whether the parent closes the pipe or is gone, there is nobody left to work for.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        closed.store(true, Ordering::Relaxed);
    });
    let mut worker = Worker::connect(url, number)?;
    while !stop.load(Ordering::Relaxed) {
        worker.round()?;
    }
    Ok(())
}

impl Worker {
    fn connect(url: &str, number: i32) -> Result<Self> {
        let mut client = Client::connect(url, NoTls).context("a worker can't connect")?;
        let visibility = VISIBILITY.as_secs();
        let read = client.prepare(&format!(
            "SELECT msg_id, attempts, message::text FROM enough.queue_read('{QUEUE}', $1, \
             '{visibility} seconds', wait => $2::text::interval)"
        ))?;
        let get = client.prepare("SELECT enough.cache_get($1)::text")?;
        let resolve = client.prepare("SELECT to_jsonb(m)::text FROM maintainers m WHERE address = $1")?;
        let set = client.prepare("SELECT enough.cache_set($1, $2::text::jsonb, ttl => '1 minute')")?;
        let limit = client.prepare(&format!(
            "SELECT allowed, extract(epoch FROM retry_after)::float8 \
             FROM enough.rate_limit($1, {MAINTAINER_LIMIT}, '{MAINTAINER_PERIOD}')"
        ))?;
        let extend = client
            .prepare(&format!("SELECT enough.queue_extend('{QUEUE}', $1, '{visibility} seconds') IS NOT NULL"))?;
        // One statement, one transaction: what is deleted is recorded and what isn't is not, whoever dies when.
        let finish = client.prepare(&format!(
            "INSERT INTO delivered (msg_id, worker, attempts) SELECT d.msg_id, $3, i.attempts \
             FROM enough.queue_delete_batch('{QUEUE}', $1) AS d(msg_id) \
             JOIN unnest($1::bigint[], $2::int[]) AS i(msg_id, attempts) USING (msg_id)"
        ))?;
        let (counters, kept, closed) = (Counters::default(), VecDeque::new(), HashMap::new());
        Ok(Self { client, number, read, get, resolve, set, limit, extend, finish, counters, kept, closed })
    }

    /// Reads a batch and works through it and through what was kept and is due.
    fn round(&mut self) -> Result<()> {
        let now = Instant::now();
        self.closed.retain(|_, until| *until > now);
        let mut batch: Vec<Message> = Vec::new();
        for _ in 0..self.kept.len() {
            let Some(message) = self.kept.pop_front() else { break };
            if self.closed.contains_key(&message.maintainer) {
                self.keep(message)?;
            } else {
                batch.push(message);
            }
        }
        if self.kept.len() < KEPT {
            // With something due there is no reason to wait for something new.
            let wait = if batch.is_empty() { "50 milliseconds" } else { "0" };
            let leased_until = Instant::now() + VISIBILITY;
            for row in self.client.query(&self.read, &[&BATCH, &wait])? {
                let record: Value = serde_json::from_str(row.get(2)).context("a message isn't JSON")?;
                let maintainer = maintainer(&record).to_owned();
                batch.push(Message { id: row.get(0), attempts: row.get(1), maintainer, leased_until });
                self.counters.read += 1;
            }
        } else if batch.is_empty() {
            thread::sleep(Duration::from_millis(10));
        }
        self.report()?;
        self.work(batch)?;
        self.report()
    }

    fn work(&mut self, batch: Vec<Message>) -> Result<()> {
        let (mut ids, mut attempts) = (Vec::new(), Vec::new());
        for message in batch {
            if self.closed.contains_key(&message.maintainer) {
                self.keep(message)?;
                continue;
            }
            let who = self.look_up(&message.maintainer)?;
            let row = self.client.query_one(&self.limit, &[&format!("maintainer/{who}")])?;
            if row.get::<_, bool>(0) {
                self.counters.allowed += 1;
                ids.push(message.id);
                attempts.push(message.attempts);
                continue;
            }
            self.counters.denied += 1;
            let seconds: f64 = row.get(1);
            let until = Instant::now() + Duration::from_secs_f64(seconds.max(0.0));
            self.closed.insert(message.maintainer.clone(), until);
            self.keep(message)?;
        }
        if !ids.is_empty() {
            self.counters.done += self.client.execute(&self.finish, &[&ids, &attempts, &self.number])?;
        }
        Ok(())
    }

    /// Keeps a message for later. If its lease has run out meanwhile, it belongs to whoever reads it next.
    fn keep(&mut self, mut message: Message) -> Result<()> {
        let now = Instant::now();
        if message.leased_until.saturating_duration_since(now) < RENEW_BEFORE {
            if !self.client.query_one(&self.extend, &[&message.id])?.get::<_, bool>(0) {
                return Ok(());
            }
            message.leased_until = now + VISIBILITY;
        }
        self.kept.push_back(message);
        Ok(())
    }

    /// The maintainer's name: from the cache, or from the table and then into the cache.
    fn look_up(&mut self, address: &str) -> Result<String> {
        let key = format!("maintainer/{address}");
        // A key is at most 512 bytes, and some maintainer fields list a whole team.
        let key = &key[..key.floor_char_boundary(512)];
        let cached: Option<String> = self.client.query_one(&self.get, &[&key])?.get(0);
        let text = if let Some(text) = cached {
            self.counters.hits += 1;
            text
        } else {
            self.counters.misses += 1;
            let text: String = self.client.query_one(&self.resolve, &[&address])?.get(0);
            self.client.query_one(&self.set, &[&key, &text])?;
            text
        };
        let value: Value = serde_json::from_str(&text).context("a cached value isn't JSON")?;
        Ok(value.get("name").and_then(Value::as_str).context("a cached maintainer has no name")?.to_owned())
    }

    fn report(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", self.counters)?;
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_survive_the_pipe() -> Result<()> {
        let counters = Counters { read: 1, done: 2, hits: 3, misses: 4, allowed: 5, denied: 6 };
        assert_eq!(counters.to_string().parse::<Counters>()?, counters);
        assert!("1 2 3".parse::<Counters>().is_err() && "1 2 3 4 5 x".parse::<Counters>().is_err());
        Ok(())
    }
}
