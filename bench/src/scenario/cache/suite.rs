//! The cache against functions that do nothing, tables, Redis and memcached.

use super::super::against_noop::{KEYS, NTH_KEY, PICK_KEY, REPEATS, in_one_statement};
use super::super::entry::Scenario;
use super::statements::{CALLS, CALLS_IN_TRANSACTIONS, fill, in_transactions};
use crate::comparison::{Candidate, Heading, Relation, compare, compare_all};
use crate::fixture::{self, Fixture};
use crate::inside::Inside;
use crate::noop::{self, Answer, VALUE};
use crate::peers::memory_server::MemoryServer;
use crate::pgbench::{Load, Pgbench};
use crate::results::{Figure, Results, Subject};
use crate::stats::Target;
use crate::wire::{Memcached, Operation, Postgres, Redis, Wire};
use anyhow::{Context, Result, ensure};
use postgres::{Client, SimpleQueryMessage};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;
use xtask::server::{Server, ServerOptions};

/// What the cache promises.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "clients", about: "get and set by 8 clients, against no-ops and a table", run: clients },
    Scenario { name: "inside", about: "get, set and mget inside the server", run: inside },
    Scenario { name: "servers", about: "get and set against Redis and memcached, single and pipelined", run: servers },
    Scenario { name: "invalidate", about: "a tag of a million entries against one of a single entry", run: invalidate },
    Scenario { name: "eviction", about: "hit rates on Zipf-distributed keys, against exact LRU", run: eviction },
];

const CLIENTS: usize = 8;
const OURS: &str = "pg_enough";

fn heading(title: &str, conditions: &str, unit: &str, relation: Relation) -> Heading {
    let (title, conditions, unit) = (title.to_owned(), conditions.to_owned(), unit.to_owned());
    Heading { title, conditions, unit, relation, target: None }
}

/// The usual table: UNLOGGED, with room on each page for the next version of a row.
fn table(fixture: &Fixture) -> Result<()> {
    let mut client = fixture.client()?;
    client.batch_execute(
        "CREATE SCHEMA IF NOT EXISTS cached;
         DROP TABLE IF EXISTS cached.entries;
         CREATE UNLOGGED TABLE cached.entries (key text PRIMARY KEY, value jsonb NOT NULL, expires_at timestamptz)
             WITH (fillfactor = 50)",
    )?;
    let rows = format!(
        "INSERT INTO cached.entries SELECT {NTH_KEY}, $1::text::jsonb, now() + interval '1 day' FROM generate_series(1, {KEYS}) AS i"
    );
    client.execute(&rows, &[&VALUE])?;
    Ok(client.batch_execute("VACUUM (FREEZE, ANALYZE) cached.entries")?)
}

fn clients(fixture: &Fixture) -> Result<Results> {
    noop::create(fixture, "cache_get", Answer::Json)?;
    noop::create(fixture, "cache_set", Answer::Boolean)?;
    fill(fixture)?;
    table(fixture)?;
    let variables = &[("body", VALUE)];
    let mut found = Results::default();
    let cases = [
        (
            "cache get",
            "SELECT enough.cache_get(:key);\n",
            "SELECT from a table",
            1.15,
            "SELECT value FROM cached.entries WHERE key = :key AND (expires_at IS NULL OR expires_at > now());\n",
        ),
        (
            "cache set",
            "SELECT enough.cache_set(:key, :body, '1 day');\n",
            "UNLOGGED upsert",
            2.0,
            "INSERT INTO cached.entries VALUES (:key, :body, now() + interval '1 day') \
          ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at;\n",
        ),
    ];
    for (title, call, peer, target, statement) in cases {
        let scripts = [call.to_owned(), call.replace("enough.", &format!("{}.", noop::SCHEMA)), statement.to_owned()];
        // Keys are texts: pgbench sends a number's digits, whose type the statement decides.
        let scripts = scripts.map(|script| format!("{PICK_KEY}{script}"));
        let load = |name, script| {
            let database = fixture::DATABASE;
            Pgbench::new(fixture, Load { name, database, script, variables, clients: CLIENTS, ..Load::default() })
        };
        let mut ours = load(OURS, &scripts[0])?;
        let (mut noop, mut table) = (load("no-op", &scripts[1])?, load(peer, &scripts[2])?);
        let references: &mut [(_, &mut dyn Candidate)] =
            &mut [(Some(Target::AtLeast(0.95)), &mut noop), (Some(Target::AtLeast(target)), &mut table)];
        let heading = heading(title, "8 clients, prepared", "calls/s", Relation::Ratio);
        found.comparisons.extend(compare_all(&heading, &mut ours, references, fixture.effort().rounds)?);
    }
    Ok(found)
}

fn inside(fixture: &Fixture) -> Result<Results> {
    /// Statements of a hundred keys each.
    const HUNDREDS: u32 = 2_000;
    noop::create(fixture, "cache_get", Answer::Json)?;
    noop::create(fixture, "cache_set", Answer::Boolean)?;
    fill(fixture)?;
    let value = VALUE.replace('\'', "''");
    let get = in_one_statement(&format!("enough.cache_get({NTH_KEY})"), CALLS);
    let set = in_transactions(&format!("enough.cache_set({NTH_KEY}, '{value}')"), 1);
    let mut found = Results::default();
    for (title, statement, calls, target) in
        [("cache get", &get, CALLS, 0.3), ("cache set", &set, CALLS_IN_TRANSACTIONS, 0.4)]
    {
        let mut ours = Inside::new(fixture, OURS, statement, calls, REPEATS)?;
        let theirs = statement.replace("enough.", &format!("{}.", noop::SCHEMA));
        let mut noop = Inside::new(fixture, "no-op", &theirs, calls, REPEATS)?;
        let heading = Heading {
            target: Some(Target::AtMost(target)),
            ..heading(&format!("{title}, inside the server"), "100 B", "µs/call", Relation::Difference)
        };
        found.comparisons.push(compare(&heading, &mut ours, &mut noop, fixture.effort().rounds)?);
    }
    let keys = "(SELECT array_agg((4000000000000000 + (j * 100 + i) % 10000)::text) FROM generate_series(1, 100) AS i)";
    let mget = |rows: &str| format!("SELECT count(m) FROM generate_series(1, {HUNDREDS}) AS j, LATERAL {rows} AS m");
    let mut ours = Inside::new(fixture, OURS, &mget(&format!("enough.cache_mget({keys})")), HUNDREDS, REPEATS)?;
    let theirs = mget(&format!("unnest({keys})"));
    let mut keys_alone = Inside::new(fixture, "unnest of the keys", &theirs, HUNDREDS, REPEATS)?;
    let heading = Heading {
        target: Some(Target::AtMost(25.0)),
        ..heading("cache mget of 100 keys, inside the server", "100 B", "µs/call", Relation::Difference)
    };
    found.comparisons.push(compare(&heading, &mut ours, &mut keys_alone, fixture.effort().rounds)?);
    Ok(found)
}

fn servers(fixture: &Fixture) -> Result<Results> {
    for (name, answer) in [
        ("cache_get", Answer::Json),
        ("cache_get_bytes", Answer::Bytes),
        ("cache_set", Answer::Boolean),
        ("cache_set_bytes", Answer::Boolean),
    ] {
        noop::create(fixture, name, answer)?;
    }
    fill(fixture)?;
    let (redis, memcached) = (MemoryServer::redis(fixture)?, MemoryServer::memcached(fixture)?);
    let effort = fixture.effort();
    let mut found = Results::default();
    for (batch, single) in [(1, true), (16, false)] {
        for (title, operation) in [("cache get", Operation::Get), ("cache set", Operation::Set)] {
            for (ours, nothing) in [(&Postgres::BYTES, &Postgres::NOOP_BYTES), (&Postgres::JSON, &Postgres::NOOP_JSON)]
            {
                let shape = (CLIENTS, batch, effort.seconds);
                let mut subject = Wire::new(ours, fixture.server().port(), operation, shape)?;
                let mut first = Wire::new(&Redis, redis.port, operation, shape)?;
                let mut second = Wire::new(&Memcached, memcached.port, operation, shape)?;
                // How much of the distance is the server's own: no function of a PostgreSQL is faster.
                let mut third = Wire::new(nothing, fixture.server().port(), operation, shape)?;
                let of_redis = if single { 0.75 } else { 0.45 };
                let references: &mut [(_, &mut dyn Candidate)] = &mut [
                    (Some(Target::AtLeast(of_redis)), &mut first),
                    (single.then_some(Target::AtLeast(0.75)), &mut second),
                    (None, &mut third),
                ];
                let conditions = format!("8 clients, TCP, {batch} a round trip, {}", ours.kind);
                let heading = heading(title, &conditions, "requests/s", Relation::Ratio);
                found.comparisons.extend(compare_all(&heading, &mut subject, references, effort.rounds)?);
            }
        }
    }
    Ok(found)
}

/// A session that fills the cache, gives some of its entries a tag, and invalidates that.
struct Invalidation {
    name: String,
    client: Client,
    /// In the cache.
    entries: u32,
    /// With the tag.
    tagged: u32,
    round: u32,
}

impl Candidate for Invalidation {
    fn name(&self) -> &str {
        &self.name
    }

    /// µs of the invalidation and its commit.
    fn round(&mut self) -> Result<f64> {
        let Self { client, entries, tagged, round, .. } = self;
        *round += 1;
        let tag = format!("{tagged} in {round}");
        let fill = format!(
            "SELECT count(enough.cache_set(i::text, '1', tags => ARRAY[CASE WHEN i <= {tagged} THEN '{tag}' ELSE 'other' END])) \
             FROM generate_series(1, {entries}) AS i"
        );
        let there = format!("SELECT count(enough.cache_get(i::text)) FROM generate_series(1, {entries}) AS i");
        client.batch_execute(&fill)?;
        let before: i64 = client.query_one(&there, &[])?.get(0);
        ensure!(before == i64::from(*entries), "only {before} of {entries} entries are there");
        // What a first call after so much else would wait for is not what tells the two apart.
        client.batch_execute("SELECT enough.cache_invalidate('nothing')")?;
        let began = Instant::now();
        client.batch_execute(&format!("SELECT enough.cache_invalidate('{tag}')"))?;
        let time = began.elapsed().as_secs_f64() * 1e6;
        let after: i64 = client.query_one(&there, &[])?.get(0);
        ensure!(after == before - i64::from(*tagged), "{after} entries are there after {tagged} were invalidated");
        Ok(time)
    }

    fn warm_up(&mut self) -> Result<()> {
        self.round().map(drop)
    }
}

/// A server whose cache has so much memory, with the extension in its database `postgres`.
fn roomy(fixture: &Fixture, memory: &str) -> Result<Server> {
    let pg = fixture.server().installation().pg;
    let server = Server::start(&ServerOptions::new(pg).conf("enough.cache_memory", memory))?;
    server.client()?.batch_execute("CREATE EXTENSION pg_enough")?;
    Ok(server)
}

fn invalidate(fixture: &Fixture) -> Result<Results> {
    let server = roomy(fixture, "512MB")?;
    let entries = fixture.effort().either(1_000_000, 50_000);
    let tag = |tagged: u32| -> Result<Invalidation> {
        Ok(Invalidation { name: format!("a tag of {tagged}"), client: server.client()?, entries, tagged, round: 0 })
    };
    let heading = Heading {
        target: Some(Target::AtMost(1.1)),
        ..heading(
            "cache invalidate",
            &format!("{entries} entries, one session, with its commit"),
            "µs",
            Relation::Ratio,
        )
    };
    Ok(vec![compare(&heading, &mut tag(entries)?, &mut tag(1)?, fixture.effort().rounds)?].into())
}

/// Exact LRU over a number of entries.
struct Lru {
    capacity: usize,
    clock: u64,
    last: HashMap<usize, u64>,
    order: BTreeMap<u64, usize>,
}

impl Lru {
    fn hit(&mut self, number: usize) -> bool {
        self.clock += 1;
        let before = self.last.insert(number, self.clock);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        self.order.insert(self.clock, number);
        if self.order.len() > self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.last.remove(&oldest);
        }
        before.is_some()
    }
}

/// Ranks by a Zipf distribution with s = 0.99, the same in every run.
#[expect(clippy::cast_precision_loss, reason = "small")]
fn zipf(keys: usize, count: usize) -> Vec<usize> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=keys)
        .map(|rank| {
            sum += (rank as f64).powf(-0.99);
            sum
        })
        .collect();
    let mut state = 7_u64;
    let ranks = (0..count).map(|_| {
        // A linear congruential generator by Knuth; its upper bits are good enough for this.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let point = (state >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        cumulative.partition_point(|&below| below < point)
    });
    ranks.collect()
}

#[expect(clippy::cast_precision_loss, reason = "rates")]
fn eviction(fixture: &Fixture) -> Result<Results> {
    /// What an entry takes: its head's 64 bytes and the value, in blocks of 64.
    const ENTRY: usize = 64 + VALUE.len().next_multiple_of(64);
    /// Keys of one call.
    const CALL: usize = 20_000;
    let server = roomy(fixture, "16MB")?;
    let mut client = server.client()?;
    client.batch_execute(
        "CREATE PROCEDURE read_through(keys int[], value jsonb, INOUT hits bigint) LANGUAGE plpgsql AS $$
         DECLARE key int;
         BEGIN
             FOREACH key IN ARRAY keys LOOP
                 IF enough.cache_get(key::text) IS NOT NULL THEN hits := hits + 1;
                 ELSE PERFORM enough.cache_set(key::text, value); COMMIT;
                 END IF;
             END LOOP;
         END $$",
    )?;
    let memory: i64 = client.query_one("SELECT bytes_max FROM enough.cache_stats()", &[])?.get(0);
    let capacity = usize::try_from(memory)? / ENTRY;
    let mut lru = Lru { capacity, clock: 0, last: HashMap::new(), order: BTreeMap::new() };
    let ranks = zipf(4 * capacity, fixture.effort().either(2_000_000, 400_000));
    let half = ranks.len() / 2;
    let (mut hits, mut exact) = (0, 0);
    for (number, keys) in ranks.chunks(CALL).enumerate() {
        let texts: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let call = format!("CALL read_through('{{{}}}', '{}', 0)", texts.join(","), VALUE.replace('\'', "''"));
        let row = client.simple_query(&call)?.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::parse::<u64>),
            _ => None,
        });
        let of_lru = keys.iter().filter(|&&key| lru.hit(key)).count();
        // The first half fills the memory.
        if number * CALL >= half {
            hits += row.context("no count of hits")??;
            exact += of_lru;
        }
    }
    let counted =
        ranks.chunks(CALL).enumerate().filter(|(number, _)| number * CALL >= half).map(|(_, keys)| keys.len());
    let counted = counted.sum::<usize>() as f64;
    let (ours, lru) = (hits as f64 / counted * 100.0, exact as f64 / counted * 100.0);
    let subject = |candidate| Subject::new("hit rate", "Zipf, s = 0.99, 4 × the memory", candidate, "%");
    Ok(Results {
        figures: vec![
            Figure::counted(subject(OURS), ours, Some(Target::AtLeast(lru - 3.0))),
            Figure::counted(subject("exact LRU"), lru, None),
        ],
        ..Results::default()
    })
}
