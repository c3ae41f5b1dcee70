//! How a key stands, in fields of HTTP: `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-11, a
//! list with an item for each rule; and `Retry-After` of RFC 9110 where a call would be denied.
//!
//! An item's `t` is "the number of seconds within which the client can use no more than the available quota": until more
//! than `r` is available, which where `r` is 0 is when to retry. It is 0 where nothing has been consumed.

use super::arguments::{key, limit, seconds};
use super::by::Policy;
use super::policy::valid_name;
use crate::error::Error;
use crate::pg::fmgr::{Call, Value};
use crate::pg::jsonb;
use enough_engine::limiter::table::{MAX_RULES, Rule};
use enough_engine::limiter::{Limit, Request};
use std::io::Write;

crate::export!(enough_rate_limit_headers = rate_limit_headers, enough_rate_limit_headers_by = rate_limit_headers_by);

/// Names and values of fields.
pub(super) type Fields = Vec<(&'static str, Vec<u8>)>;

/// How a key stands under one limit.
struct Item {
    limit: Limit,
    remaining: u32,
    /// Microseconds until there is more; none where there never is.
    more_after: Option<u64>,
}

impl Item {
    /// `more_after` of nothing consumed is none, because there is never more.
    fn of(limit: &Limit, remaining: u32, more_after: Option<u64>, blocked: u64) -> Self {
        let untouched = remaining >= limit.capacity() && limit.capacity() > 0;
        let more_after = if untouched { Some(0) } else { more_after };
        Item { limit: *limit, remaining, more_after: more_after.map(|after| after.max(blocked)) }
    }

    /// The time in which the quota is allowed, in whole seconds. A token bucket of another capacity than its rate is, in
    /// the terms of the fields, that quota in the time that refills it.
    fn window(&self) -> u64 {
        let (capacity, rate) = (u128::from(self.limit.capacity()), u128::from(self.limit.max_requests()));
        let period = u128::from(self.limit.period());
        let micros = (period * capacity).checked_div(rate).unwrap_or(period);
        seconds(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// The fields for a plain key.
pub(super) fn of_key(key: &[u8], limit: &Limit) -> Result<Fields, Error> {
    let (found, after, blocked) = super::with_key(key, |table, hash, now| {
        let found = table.request(hash, limit, now, Request::Peek(1))?;
        let after = table.more_after(hash, None, limit, now, found.remaining)?;
        Ok((found, after, table.block_left(hash, now)?))
    })?;
    let item = Item::of(limit, found.remaining, after, blocked);
    Ok(fields(b"default", &[(1, item)], found.retry_after.filter(|_| !found.allowed)))
}

/// The fields for a key of a policy.
pub(super) fn of_policy(policy: &Policy, key: &[u8]) -> Result<Fields, Error> {
    let blocked = super::block_left(key)?;
    let (found, standing) = policy.with_key(key, |table, hash, note, now| {
        let question = policy.question(note, blocked);
        let found = table.request_by(hash, &question, now, Request::Peek(1))?;
        // What is left of each rule, and how long until there is more.
        let mut standing = [(0, None); MAX_RULES as usize];
        for (place, rule) in standing.iter_mut().zip(&policy.rules) {
            let remaining = table.remaining(hash, rule, now)?;
            *place = (remaining, table.more_after(hash, Some(rule), &rule.limit, now, remaining)?);
        }
        Ok((found, standing))
    })?;
    let item = |(rule, (remaining, after)): (&Rule, (u32, Option<u64>))| {
        let remaining = if blocked > 0 { 0 } else { remaining };
        (rule.number, Item::of(&rule.limit, remaining, after, blocked))
    };
    let items: Vec<_> = policy.rules.iter().zip(standing).map(item).collect();
    Ok(fields(&policy.name, &items, found.retry_after.filter(|_| !found.allowed)))
}

/// The fields of some items; none but `Retry-After` where there are none, because an empty list is no field.
fn fields(policy: &[u8], items: &[(u32, Item)], retry_after: Option<u64>) -> Fields {
    let mut fields = Fields::new();
    let (mut limits, mut policies) = (Vec::new(), Vec::new());
    for (number, item) in items {
        if !limits.is_empty() {
            limits.push(b',');
            policies.push(b',');
        }
        let name = name_of_rule(policy, *number);
        limits.extend_from_slice(&name);
        policies.extend_from_slice(&name);
        // Writing to memory doesn't fail.
        let _ = write!(limits, ";r={}", item.remaining);
        if let Some(after) = item.more_after {
            let _ = write!(limits, ";t={}", seconds(after));
        }
        let _ = write!(policies, ";q={};w={}", item.limit.capacity(), item.window());
    }
    if !items.is_empty() {
        fields.push(("RateLimit", limits));
        fields.push(("RateLimit-Policy", policies));
    }
    if let Some(wait) = retry_after {
        fields.push(("Retry-After", seconds(wait).to_string().into_bytes()));
    }
    fields
}

/// What a rule's item is called: the first as the policy, the others with their number behind it. As a string of
/// structured fields (RFC 9651), which is ASCII: other bytes are written in hexadecimal behind a percent sign.
fn name_of_rule(policy: &[u8], number: u32) -> Vec<u8> {
    let mut name = vec![b'"'];
    for &byte in policy {
        match byte {
            b'"' | b'\\' => name.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => name.push(byte),
            _ => {
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    if number > 1 {
        let _ = write!(name, ".{number}");
    }
    name.push(b'"');
    name
}

/// The fields as an object of JSON.
pub(super) fn to_json(fields: &Fields) -> Vec<u8> {
    let mut json = vec![b'{'];
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        push_string(&mut json, name.as_bytes());
        json.push(b':');
        push_string(&mut json, value);
    }
    json.push(b'}');
    json
}

/// Writes a string of JSON, in whatever encoding `text` has.
pub(super) fn push_string(json: &mut Vec<u8>, text: &[u8]) {
    json.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => json.extend_from_slice(&[b'\\', byte]),
            0..b' ' => {
                let _ = write!(json, "\\u{byte:04x}");
            }
            _ => json.push(byte),
        }
    }
    json.push(b'"');
}

/// `(key, max_requests, period, algorithm, burst)`
fn rate_limit_headers(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let (key, limit) = (key(call, 0)?, limit(call, 3)?);
    Ok(jsonb::parse(&to_json(&of_key(key, &limit)?)))
}

/// `(policy, key)`
fn rate_limit_headers_by(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "policy")?;
    let key = key(call, 1)?;
    let policy = Policy::find(name.payload(), key)?;
    Ok(jsonb::parse(&to_json(&of_policy(&policy, key)?)))
}
