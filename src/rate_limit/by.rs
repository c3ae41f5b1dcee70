//! Asking by a policy: its rules are read from the table, then all of them are asked under one lock.
//!
//! A policy's keys are its own: a key under a policy and the same key without one, or under another, are known by
//! different hashes. No text holds a zero byte, so what is hashed for a policy, with a zero byte in it, is no plain key.

use super::arguments::{amount, key, row, valid};
use super::calendar;
use super::policy::{missing, note_of, tables_fit, valid_name};
use crate::error::Error;
use crate::pg::encoding::shown;
use crate::pg::fmgr::{Call, Time, Value};
use crate::pg::server;
use crate::pg::spi::{Parameter, read_rows_kept, text_bytes};
use crate::rate_limit::REGION;
use crate::shmem::segment;
use enough_engine::hash::KeyHash;
use enough_engine::limiter::table::{Question, Rule, Table};
use enough_engine::limiter::{Decision, Request};
use enough_engine::words::Corrupt;
use pgrx::spi::SpiHeapTupleData;

crate::export!(enough_rate_limit_by = rate_limit_by);

/// A policy as the calling statement sees it, for one key.
pub(super) struct Policy {
    /// Its name.
    pub name: Vec<u8>,
    /// What it allows that key; none where an override has left no rule.
    pub rules: Vec<Rule>,
    /// Whether it only counts what it would deny.
    pub shadow: bool,
}

/// With casts, so that columns which somebody has given another type are what is read here.
const FIND: &str = "SELECT p.rule::pg_catalog.int4, p.max_requests::pg_catalog.int4, \
        (EXTRACT(epoch FROM p.period) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, p.algorithm::pg_catalog.text, \
        p.burst::pg_catalog.int4, p.calendar::pg_catalog.text, p.time_zone::pg_catalog.text, p.shadow::pg_catalog.bool, \
        ((EXTRACT(epoch FROM p.since) OPERATOR(pg_catalog.-) 946684800) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, \
        o.policy IS NOT NULL, o.max_requests::pg_catalog.int4 \
    FROM enough.rate_limit_policy AS p LEFT JOIN enough.rate_limit_override AS o \
        ON p.rule OPERATOR(pg_catalog.=) 1 AND o.policy OPERATOR(pg_catalog.=) p.name AND o.key OPERATOR(pg_catalog.=) $2 \
    WHERE p.name OPERATOR(pg_catalog.=) $1 ORDER BY p.rule";

impl Policy {
    /// The policy of that name; an error where there is none.
    pub(super) fn find(name: &[u8], key: &[u8]) -> Result<Self, Error> {
        tables_fit()?;
        let mut policy = Policy { name: name.to_vec(), rules: Vec::new(), shadow: false };
        let rows = read_rows_kept(FIND, &[Parameter::Bytes(name), Parameter::Bytes(key)], |row| policy.add(row))?;
        if rows == 0 { Err(missing(name)) } else { Ok(policy) }
    }

    /// Adds the rule of a row.
    fn add(&mut self, row: &SpiHeapTupleData<'_>) -> Result<(), Error> {
        let unreadable = || Error::NotReady {
            problem: format!("a row of enough.rate_limit_policy for {} holds a NULL", shown(&self.name)),
            hint: "Define the policy again with enough.rate_limit_policy_set().".into(),
        };
        let number = row.get::<i32>(1)?.ok_or_else(unreadable)?.unsigned_abs();
        let shadow = row.get::<bool>(8)?.unwrap_or(false);
        let mut max_requests = row.get::<i32>(2)?.ok_or_else(unreadable)?;
        if row.get::<bool>(10)?.unwrap_or(false) {
            let Some(most) = row.get::<i32>(11)? else {
                // No limit: the rule isn't asked.
                self.shadow |= shadow;
                return Ok(());
            };
            max_requests = most;
        }
        let limit = if let Some(unit) = text_bytes(row, 6)? {
            let zone = text_bytes(row, 7)?.ok_or_else(unreadable)?;
            calendar::limit(u32::try_from(max_requests).unwrap_or(0), unit, zone)?
        } else {
            let period = Time::Micros(row.get::<i64>(3)?.ok_or_else(unreadable)?);
            let algorithm = super::arguments::algorithm(text_bytes(row, 4)?)?;
            valid(max_requests, period, algorithm, row.get::<i32>(5)?)?
        };
        self.shadow |= shadow;
        self.rules.push(Rule { number, limit, since: row.get::<i64>(9)?.unwrap_or(i64::MIN) });
        Ok(())
    }

    /// Answers a request of `key`; what it consumes is consumed for good.
    pub(super) fn request(&self, key: &[u8], request: Request) -> Result<Decision, Error> {
        let blocked = super::block_left(key)?;
        self.with_key(key, |table, hash, note, now| table.request_by(hash, &self.question(note, blocked), now, request))
    }

    /// What is asked of a key; `note` is what the counters are known by.
    pub(super) fn question(&self, note: KeyHash, blocked: u64) -> Question<'_> {
        Question { policy: note, rules: &self.rules, shadow: self.shadow, blocked }
    }

    /// Does `work` on the table that `key` belongs to; given are also the hashes of the key and of the policy, and the time.
    pub(super) fn with_key<R>(
        &self,
        key: &[u8],
        work: impl Fn(Table<'static>, KeyHash, KeyHash, i64) -> Result<R, Corrupt>,
    ) -> Result<R, Error> {
        let segment = segment()?;
        let policy = note_of(segment, &self.name);
        let hash = segment.hash(REGION, &[&self.name[..], &[0], key].concat());
        let partition = segment.partition_of(REGION, hash);
        partition.exclusive(|words| work(Table::open(words)?, hash, policy, server::now()))
    }
}

/// `(policy, key, cost)`
fn rate_limit_by(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "policy")?;
    let key = key(call, 1)?;
    let cost = amount(call, 2, "cost")?;
    let decision = Policy::find(name.payload(), key)?.request(key, Request::All(cost))?;
    call.row(&row(&decision))
}
