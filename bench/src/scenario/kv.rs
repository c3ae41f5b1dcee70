//! The key-value store beside the cache, and beside a table that is read and written by hand.

use super::against_noop::{KEYS, NTH_KEY, PICK_KEY};
use super::entry::Scenario;
use crate::comparison::{Candidate, Heading, Relation, compare_all};
use crate::fixture::{self, Fixture};
use crate::noop::VALUE;
use crate::pgbench::{Load, Pgbench};
use crate::results::Results;
use crate::stats::Target;
use anyhow::{Result, ensure};

/// What the key-value store promises.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "get", about: "get by 8 clients, against the cache and a SELECT by primary key", run: get },
    Scenario { name: "set", about: "set by 8 clients, against an upsert by hand", run: set },
];

const CLIENTS: usize = 8;
const OURS: &str = "pg_enough";

/// A space, the cache and a table by hand, each with all keys.
fn fill(fixture: &Fixture) -> Result<()> {
    let mut client = fixture.client()?;
    client.batch_execute(
        "CREATE SCHEMA IF NOT EXISTS stored;
         DROP TABLE IF EXISTS stored.entries;
         CREATE TABLE stored.entries (key text COLLATE \"C\" PRIMARY KEY, value jsonb NOT NULL, version bigint NOT NULL DEFAULT 1,
                                      updated_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz)
             WITH (fillfactor = 80)",
    )?;
    let keys = format!("FROM generate_series(1, {KEYS}) AS i");
    client.execute(
        &format!("INSERT INTO stored.entries (key, value) SELECT {NTH_KEY}, $1::text::jsonb {keys}"),
        &[&VALUE],
    )?;
    client.batch_execute(
        "SELECT enough.kv_create('unwatched', if_not_exists => true); DROP INDEX IF EXISTS enough.k_unwatched_version",
    )?;
    for (set, rest) in [("kv_set", ""), ("kv_set", ", space => 'unwatched'"), ("cache_set", "")] {
        client.query_one(&format!("SELECT count(enough.{set}({NTH_KEY}, $1::text::jsonb{rest})) {keys}"), &[&VALUE])?;
    }
    client.batch_execute("VACUUM (FREEZE, ANALYZE) stored.entries, enough.kv_default, enough.kv_unwatched")?;
    for get in ["kv_get", "cache_get"] {
        // Until each is in frequent use.
        for _ in 0..5 {
            let found: i64 = client.query_one(&format!("SELECT count(enough.{get}({NTH_KEY})) {keys}"), &[])?.get(0);
            ensure!(found == i64::from(KEYS), "{get} finds {found} of {KEYS} keys");
        }
    }
    Ok(())
}

fn heading(title: &str, conditions: &str) -> Heading {
    Heading {
        title: title.to_owned(),
        conditions: format!("{CLIENTS} clients, prepared{conditions}"),
        unit: "calls/s".to_owned(),
        relation: Relation::Ratio,
        target: None,
    }
}

fn get(fixture: &Fixture) -> Result<Results> {
    fill(fixture)?;
    let [ours, cache, table] = [
        "SELECT enough.kv_get(:key)",
        "SELECT enough.cache_get(:key)",
        "SELECT value FROM stored.entries WHERE key = :key AND (expires_at IS NULL OR expires_at > clock_timestamp())",
    ]
    .map(|statement| format!("{PICK_KEY}{statement};\n"));
    let load = |name, script| {
        Pgbench::new(fixture, Load { name, database: fixture::DATABASE, script, clients: CLIENTS, ..Load::default() })
    };
    let mut ours = load(OURS, &ours)?;
    let (mut cache, mut table) = (load("cache_get", &cache)?, load("SELECT by key", &table)?);
    let references: &mut [(_, &mut dyn Candidate)] =
        &mut [(Some(Target::AtLeast(0.9)), &mut cache), (Some(Target::AtLeast(1.15)), &mut table)];
    Ok(compare_all(&heading("kv get", ""), &mut ours, references, fixture.effort().rounds)?.into())
}

fn set(fixture: &Fixture) -> Result<Results> {
    let mut found = Results::default();
    let [ours, unwatched] = ["default", "unwatched"]
        .map(|space| format!("{PICK_KEY}SELECT enough.kv_set(:key, :body, space => '{space}');\n"));
    let by_hand = format!(
        "{PICK_KEY}INSERT INTO stored.entries AS e (key, value) VALUES (:key, :body) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = e.version + 1, updated_at = now(), expires_at = NULL \
         RETURNING version;\n"
    );
    let variables = &[("body", VALUE)];
    for (conditions, settings) in [("", &[][..]), (", synchronous_commit off", &[("synchronous_commit", "off")][..])] {
        fill(fixture)?;
        let load = |name, script| {
            let database = fixture::DATABASE;
            Pgbench::new(
                fixture,
                Load { name, database, script, variables, clients: CLIENTS, settings, ..Load::default() },
            )
        };
        let mut table = load("upsert by hand", &by_hand)?;
        for (title, script) in [("kv set", &ours), ("kv set, a space without the index for watching", &unwatched)] {
            let mut ours = load(OURS, script)?;
            let references: &mut [(_, &mut dyn Candidate)] = &mut [(Some(Target::AtLeast(0.9)), &mut table)];
            let heading = heading(title, conditions);
            found.comparisons.extend(compare_all(&heading, &mut ours, references, fixture.effort().rounds)?);
        }
    }
    Ok(found)
}
