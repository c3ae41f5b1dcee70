//! A denied request as an error: PT429, which `PostgREST` turns into HTTP 429, or PGRST, whose JSON also carries the fields
//! of the response.
//!
//! The server's log doesn't get it: being denied is no fault, and a client that floods a limited function must not fill a disk.

use super::arguments::{amount, key, limit, seconds};
use super::by::Policy;
use super::headers::{self, Fields, push_string, to_json};
use super::policy::valid_name;
use crate::error::Error;
use crate::pg::fmgr::{Call, Time, Value};
use crate::pg::raise::Raised;
use enough_engine::limiter::{Decision, Limit, Request};

crate::export!(enough_rate_limit_enforce = rate_limit_enforce, enough_rate_limit_enforce_by = rate_limit_enforce_by);

/// What is said of a denial.
struct Denial {
    message: Vec<u8>,
    retry_after: Option<u64>,
    hint: &'static str,
}

impl Denial {
    /// Of a key, as `of` names it; the limit is told where there is one only.
    fn of(of: &[&[u8]], decision: &Decision, cost: u32, limit: Option<&Limit>) -> Self {
        let allowed = limit.map(|limit| {
            let period = Time::Micros(limit.period().cast_signed()).describe();
            format!("{} per {period}", limit.max_requests())
        });
        let (why, hint) = match (decision.retry_after, limit) {
            (None, Some(limit)) if limit.capacity() == 0 => {
                ("nothing is allowed".to_owned(), "A limit of 0 denies every call.")
            }
            (None, _) => (format!("{cost} is more than can ever be had at once"), "Ask for less at a time."),
            (Some(_), _) => {
                let of = allowed.map_or(String::new(), |allowed| format!(" of {allowed}"));
                (format!("{} left{of}", decision.remaining), "Retry after as many seconds as the detail says.")
            }
        };
        let mut message = b"rate limit".to_vec();
        for part in of {
            message.extend_from_slice(part);
        }
        message.extend_from_slice(format!(" exceeded: {why}").as_bytes());
        Denial { message, retry_after: decision.retry_after, hint }
    }

    /// When to come again, in whole seconds, rounded up.
    fn detail(&self) -> String {
        self.retry_after.map_or("never".to_owned(), |wait| seconds(wait).to_string())
    }

    fn plain(&self) -> Value<'static> {
        let raised = Raised::new(*b"PT429", &self.message, self.detail().as_bytes(), Some(self.hint.as_bytes()));
        Value::Raise(raised)
    }

    /// As `PostgREST` takes an error's response apart: the body in the message, status and fields in the detail.
    fn for_postgrest(&self, fields: &Fields) -> Value<'static> {
        let mut body = br#"{"code":"PT429","message":"#.to_vec();
        push_string(&mut body, &self.message);
        body.extend_from_slice(br#","details":"#);
        push_string(&mut body, self.detail().as_bytes());
        body.extend_from_slice(br#","hint":"#);
        push_string(&mut body, self.hint.as_bytes());
        body.push(b'}');
        let mut response = br#"{"status":429,"headers":"#.to_vec();
        response.extend_from_slice(&to_json(fields));
        response.push(b'}');
        Value::Raise(Raised::new(*b"PGRST", &body, &response, None))
    }
}

/// The fields of a response to a request of some cost, which may have to wait longer than one of cost 1.
fn with_retry(mut fields: Fields, retry_after: Option<u64>) -> Fields {
    fields.retain(|(name, _)| *name != "Retry-After");
    if let Some(wait) = retry_after {
        fields.push(("Retry-After", seconds(wait).to_string().into_bytes()));
    }
    fields
}

/// `(key, max_requests, period, cost, algorithm, burst, postgrest)`
fn rate_limit_enforce(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let (key, limit) = (key(call, 0)?, limit(call, 4)?);
    let cost = amount(call, 3, "cost")?;
    let decision = super::request(key, &limit, Request::All(cost))?;
    if decision.allowed {
        return Ok(Value::VOID);
    }
    let denial = Denial::of(&[b" of key \"", key, b"\""], &decision, cost, Some(&limit));
    if call.bool(6).unwrap_or(false) {
        let fields = with_retry(headers::of_key(key, &limit)?, denial.retry_after);
        return Ok(denial.for_postgrest(&fields));
    }
    Ok(denial.plain())
}

/// `(policy, key, cost, postgrest)`
fn rate_limit_enforce_by(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let name = valid_name(call, "policy")?;
    let key = key(call, 1)?;
    let cost = amount(call, 2, "cost")?;
    let policy = Policy::find(name.payload(), key)?;
    let decision = policy.request(key, Request::All(cost))?;
    if decision.allowed {
        return Ok(Value::VOID);
    }
    let limit = if let [rule] = &policy.rules[..] { Some(&rule.limit) } else { None };
    let denial = Denial::of(&[b" \"", name.payload(), b"\" of key \"", key, b"\""], &decision, cost, limit);
    if call.bool(3).unwrap_or(false) {
        let fields = with_retry(headers::of_policy(&policy, key)?, denial.retry_after);
        return Ok(denial.for_postgrest(&fields));
    }
    Ok(denial.plain())
}
