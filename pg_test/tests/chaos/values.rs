//! Key-value spaces in the same storms: writers, each of keys of its own, by calls, by hand and in prepared transactions; readers, who must never
//! get what was before a commit; watchers, who must be told of each key's last change.

use crate::ledger::{Outcome, none};
use crate::others::{Storm, Workers};
use crate::session::{Session, connect};
use crate::two_phase::decide;
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use postgres::{Client, Error};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, sleep};
use std::time::Duration;

/// One with the straight way to its table, and one that keeps what was before.
const SPACES: [&str; 2] = ["v", "h"];

/// The spaces.
pub(crate) const CREATE: &str = "SELECT enough.kv_create('v'), enough.kv_create('h', history => 3)";

/// Statements on a space that must not lose a value, nor let anybody see an old one.
pub(crate) const HARMLESS: &[&str] = &[
    "ALTER TABLE enough.kv_v ADD COLUMN extra int DEFAULT 5",
    "ALTER TABLE enough.kv_v DROP COLUMN IF EXISTS extra",
    "ALTER TABLE enough.kv_v ADD CONSTRAINT odd_v CHECK (version > 0)",
    "ALTER TABLE enough.kv_v DROP CONSTRAINT IF EXISTS odd_v",
    "CREATE INDEX other_v ON enough.kv_v (updated_at)",
    "DROP INDEX IF EXISTS enough.other_v",
    "BEGIN; DROP INDEX enough.k_v_version; SELECT pg_sleep(0.01); ROLLBACK",
    "CREATE OR REPLACE TRIGGER seen AFTER INSERT OR UPDATE OR DELETE ON enough.kv_v FOR EACH ROW EXECUTE FUNCTION seen()",
    "DROP TRIGGER IF EXISTS seen ON enough.kv_v",
    "ALTER TABLE enough.kv_v ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE enough.kv_v DISABLE ROW LEVEL SECURITY",
    "VACUUM FULL enough.kv_v",
    "REINDEX TABLE enough.kv_v",
    "VACUUM enough.kv_v, enough.kv_h",
    "BEGIN; TRUNCATE enough.kv_v; SELECT pg_sleep(0.01); ROLLBACK",
    "BEGIN; UPDATE enough.kv_v SET value = '0'; SELECT pg_sleep(0.01); ROLLBACK",
    "BEGIN; SELECT enough.kv_drop('h'); SELECT pg_sleep(0.01); ROLLBACK",
];

const WRITERS: i64 = 3;
const KEYS: i64 = 4;

/// What a writer has done to a key; the value is the number of the step.
#[derive(Debug, Clone, Copy)]
struct Step {
    deletes: bool,
    /// `None` while its transaction is open.
    outcome: Option<Outcome>,
}

impl Step {
    /// Whether others may see it.
    fn may_be(self) -> bool {
        self.outcome != Some(Outcome::RolledBack)
    }
}

/// The steps of one key, by their numbers, which grow.
type Steps = BTreeMap<i64, Step>;

/// The last step that others see for sure; 0 for none.
fn last_for_sure(steps: &Steps) -> i64 {
    let sure = steps.iter().filter(|(_, step)| step.outcome == Some(Outcome::Committed));
    sure.map(|(number, _)| *number).next_back().unwrap_or(0)
}

#[derive(Default)]
struct Book {
    /// By the key.
    steps: BTreeMap<String, Steps>,
    /// What readers and watchers have found: the key, the step that was known by then, and what its value was.
    found: Vec<(String, i64, Option<i64>)>,
    violations: Vec<String>,
}

impl Book {
    /// Whether a key may be as it was found by somebody who looked after the step `since` was known to have been committed.
    fn may_have(&self, key: &str, since: i64, found: Option<i64>) -> bool {
        let Some(steps) = self.steps.get(key) else { return found.is_none() };
        match found {
            Some(number) => number >= since && steps.get(&number).is_some_and(|step| !step.deletes && step.may_be()),
            None => since == 0 || steps.range(since..).any(|(_, step)| step.deletes && step.may_be()),
        }
    }
}

/// What is known of the spaces, and what the watcher of each has been told.
#[derive(Default)]
pub(crate) struct Values(Mutex<Book>, [Mutex<Told>; SPACES.len()]);

/// A change that a watcher is told of: the key, the value, the version.
type Change = (Option<String>, Option<i64>, i64);

/// What a watcher has been told.
#[derive(Default)]
struct Told {
    values: BTreeMap<String, i64>,
    since: i64,
}

/// The space in which a writer has its keys.
fn space(writer: i64) -> &'static str {
    SPACES[usize::from(writer + 1 == WRITERS)]
}

impl Values {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, space: &str) -> MutexGuard<'_, Told> {
        self.1[usize::from(space == SPACES[1])].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions.
    pub(crate) fn spawn<'s>(&'s self, scope: &'s Scope<'s, '_>, storm: Storm<'s>) -> Workers<'s> {
        let writers = (0..WRITERS).map(|writer| scope.spawn(move || self.write(storm, writer)));
        let readers = (0..2).map(|_| scope.spawn(move || self.read(storm)));
        let watchers = SPACES.map(|space| scope.spawn(move || self.watch(storm, space)));
        writers.chain(readers).collect::<Vec<_>>().into_iter().chain(watchers).collect()
    }

    fn write(&self, storm: Storm<'_>, writer: i64) -> Result<()> {
        let (mut rng, mut session, mut next) = (Rng::new(), connect(storm.database)?, 0);
        while !storm.is_over() {
            let first: i64 = rng.i64(0..KEYS);
            let steps: Vec<(String, i64, bool)> = (0..rng.i64(1..=2))
                .map(|more| (format!("k{writer}_{}", (first + more) % KEYS), next + 1 + more, rng.u8(..5) == 0))
                .collect();
            next += 2;
            for (key, number, deletes) in &steps {
                let step = Step { deletes: *deletes, outcome: None };
                self.book().steps.entry(key.clone()).or_default().insert(*number, step);
            }
            let statements: Vec<String> = steps
                .iter()
                .map(|(key, number, deletes)| statement(&mut rng, space(writer), key, *number, *deletes))
                .collect();
            let work = |client: &mut Client| client.batch_execute(&statements.join("; "));
            let outcome = if rng.u8(..4) == 0 {
                let gid = format!("values_{writer}_{next}");
                prepare(storm, &mut session, &gid, &mut rng, work)?
            } else {
                storm.transact(&mut session, rng.u8(..5) > 0, work)?.0
            };
            let mut book = self.book();
            for (key, number, _) in &steps {
                if let Some(step) = book.steps.get_mut(key).and_then(|steps| steps.get_mut(number)) {
                    step.outcome = Some(outcome);
                }
            }
            drop(book);
            storm.ledger.count("changes of values");
            sleep(Duration::from_millis(rng.u64(..4)));
        }
        Ok(())
    }

    fn known(&self, key: &str) -> i64 {
        self.book().steps.get(key).map_or(0, last_for_sure)
    }

    fn found(&self, key: &str, since: i64, value: Option<i64>) {
        let mut book = self.book();
        if !book.may_have(key, since, value) {
            let steps = book.steps.get(key).map(|steps| steps.range(since..).collect::<Vec<_>>());
            let violation = format!("{key} is {value:?} after {since}: {steps:?}");
            book.violations.push(violation);
        }
        book.found.push((key.to_owned(), since, value));
    }

    fn read(&self, storm: Storm<'_>) -> Result<()> {
        let (mut rng, mut session) = (Rng::new(), connect(storm.database)?);
        while !storm.is_over() {
            let (writer, several) = (rng.i64(0..WRITERS), rng.u8(..4) == 0);
            let chosen = rng.i64(0..KEYS);
            let keys: Vec<String> =
                (0..KEYS).filter(|key| several || *key == chosen).map(|key| format!("k{writer}_{key}")).collect();
            let known: Vec<i64> = keys.iter().map(|key| self.known(key)).collect();
            let answer = storm.attempt(&mut session, |client| {
                if several {
                    let rows =
                        client.query("SELECT key, value FROM enough.kv_mget($1, $2)", &[&keys, &space(writer)])?;
                    return Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect());
                }
                let row = client.query_one("SELECT enough.kv_get($1, $2)", &[&keys[0], &space(writer)])?;
                let value: Option<Value> = row.get(0);
                Ok(value.map(|value| (keys[0].clone(), value)).into_iter().collect::<BTreeMap<String, Value>>())
            })?;
            let Some(values) = answer else { continue };
            for (key, since) in keys.iter().zip(known) {
                self.found(key, since, values.get(key).and_then(Value::as_i64));
            }
            storm.ledger.count("reads of values");
        }
        Ok(())
    }

    /// Looks for changes.
    fn watch(&self, storm: Storm<'_>, space: &'static str) -> Result<()> {
        let mut session = connect(storm.database)?;
        while !storm.is_over() {
            let since = self.told(space).since;
            let changes = storm.attempt(&mut session, |client| changes(client, space, since, "200 milliseconds"))?;
            for (key, value) in self.told(space).take(changes.unwrap_or_default())? {
                // It may be an old one by now, but none that was rolled back.
                self.found(&key, 0, value);
            }
        }
        Ok(())
    }

    /// Looks until there is nothing more: what the watcher has been told is what is there.
    fn judge_watcher(&self, client: &mut Client, space: &'static str, there: &BTreeMap<String, i64>) -> Result<()> {
        let mut told = self.told(space);
        loop {
            let changes = changes(client, space, told.since, "0")?;
            if changes.is_empty() {
                break;
            }
            told.take(changes)?;
        }
        ensure!(told.values == *there, "a watcher of {space} was told {:?}, where {there:?} is there", told.values);
        Ok(())
    }

    /// The verdict, once all is over.
    pub(crate) fn judge(&self, client: &mut Client) -> Result<()> {
        for space in SPACES {
            let rows = client
                .query(&format!("SELECT key, value::bigint FROM enough.kv_{space} WHERE value IS NOT NULL"), &[])?;
            let there = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            self.judge_watcher(client, space, &there)?;
            for (key, value) in there {
                self.found(&key, self.known(&key), Some(value));
            }
        }
        let keys: Vec<String> = self.book().steps.keys().cloned().collect();
        for key in &keys {
            let writer: i64 = key[1..2].parse()?;
            let row = client.query_one("SELECT enough.kv_get($1, $2)", &[key, &space(writer)])?;
            self.found(key, self.known(key), row.get::<_, Option<Value>>(0).as_ref().and_then(Value::as_i64));
        }
        self.verdict()
    }

    fn verdict(&self) -> Result<()> {
        let mut book = self.book();
        let mut violations = std::mem::take(&mut book.violations);
        // What has become of each step is known by now.
        let wrong = book.found.iter().filter(|(key, since, value)| !book.may_have(key, *since, *value));
        violations.extend(
            wrong.map(|(key, since, value)| format!("{key} was {value:?} after {since}, which nobody has committed")),
        );
        println!("{} values found", book.found.len());
        none(&violations)?;
        ensure!(!book.found.is_empty(), "nobody has looked");
        Ok(())
    }
}

impl Told {
    /// Notes changes; each key's value.
    fn take(&mut self, changes: Vec<Change>) -> Result<Vec<(String, Option<i64>)>> {
        let mut found = Vec::new();
        for (key, value, version) in changes {
            ensure!(version > self.since, "version {version} is told after {}", self.since);
            self.since = version;
            let Some(key) = key else { continue };
            match value {
                Some(value) => drop(self.values.insert(key.clone(), value)),
                None => drop(self.values.remove(&key)),
            }
            found.push((key, value));
        }
        Ok(found)
    }
}

fn changes(client: &mut Client, space: &str, since: i64, wait: &str) -> Result<Vec<Change>, Error> {
    let call = format!("SELECT key, value::bigint, version FROM enough.kv_watch('', $1, '{wait}', $2)");
    Ok(client.query(&call, &[&since, &space])?.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

fn statement(rng: &mut Rng, space: &str, key: &str, number: i64, deletes: bool) -> String {
    match (deletes, rng.u8(..4)) {
        (true, 0) => format!("DELETE FROM enough.kv_{space} WHERE key = '{key}'"),
        (true, _) => format!("SELECT enough.kv_delete('{key}', space => '{space}')"),
        (false, 0) => format!(
            "INSERT INTO enough.kv_{space} (key, value) VALUES ('{key}', '{number}') \
             ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value"
        ),
        (false, 1) => format!("SELECT enough.kv_mset('{{\"{key}\": {number}}}', space => '{space}')"),
        (false, _) => format!("SELECT enough.kv_set('{key}', '{number}', space => '{space}')"),
    }
}

/// Does `work` in a transaction that is prepared and decided a while later.
fn prepare(
    storm: Storm<'_>,
    session: &mut Session,
    gid: &str,
    rng: &mut Rng,
    work: impl FnOnce(&mut Client) -> Result<(), Error>,
) -> Result<Outcome> {
    let prepared = storm.attempt(session, |client| {
        client.batch_execute("BEGIN")?;
        work(client)?;
        client.batch_execute(&format!("PREPARE TRANSACTION '{gid}'"))
    })?;
    let commit = prepared.is_some() && rng.u8(..3) > 0;
    if prepared.is_some() {
        sleep(Duration::from_millis(rng.u64(..100)));
    }
    // Where the session was lost it may be prepared all the same.
    decide(session, gid, commit, storm.database, storm.ledger).context("a transaction is to be decided")?;
    Ok(if commit { Outcome::Committed } else { Outcome::RolledBack })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Values {
        let values = Values::default();
        let of = |deletes, outcome| Step { deletes, outcome: Some(outcome) };
        let steps = [
            (1, of(false, Outcome::Committed)),
            (3, of(true, Outcome::Unknown)),
            (5, of(false, Outcome::Committed)),
            (7, of(false, Outcome::RolledBack)),
            (9, of(true, Outcome::RolledBack)),
        ];
        values.book().steps.insert("k0_0".into(), steps.into());
        values
    }

    #[test]
    fn what_may_be_found_passes() -> Result<()> {
        let values = steps();
        for (since, value) in [(0, None), (0, Some(1)), (1, Some(1)), (1, None), (1, Some(5)), (5, Some(5))] {
            values.found("k0_0", since, value);
        }
        values.verdict()
    }

    #[test]
    fn what_is_stale_lost_or_was_rolled_back_is_seen() {
        for (since, value) in [(5, Some(1)), (5, None), (0, Some(7)), (0, Some(3)), (0, Some(8))] {
            let values = steps();
            values.found("k0_0", since, value);
            assert!(values.verdict().is_err(), "{value:?} after {since} passes");
        }
    }

    #[test]
    fn versions_grow() {
        let mut told = Told::default();
        assert!(told.take(vec![(Some("k0_0".into()), Some(1), 5), (None, None, 7)]).is_ok());
        assert!(told.take(vec![(Some("k0_0".into()), None, 7)]).is_err());
    }
}
