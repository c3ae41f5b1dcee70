//! Tests of the limiter: literal sequences, the arithmetic against logs of grants, the table against a model.

mod all;
mod arithmetic;
mod evict;
mod oracle;
mod policy;
mod sequences;
mod strict;
mod table;

use super::{Algorithm, Decision, Limit, Request, State};
use proptest::prelude::ProptestConfig;

pub(super) const SECOND: u64 = 1_000_000;

/// `count` random cases, unless the environment's `PROPTEST_CASES` asks for another number.
pub(super) fn cases(count: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { usual } else { ProptestConfig { cases: count, ..usual } }
}

/// A limit that is known to be valid.
pub(super) fn limit(algorithm: Algorithm, max_requests: u32, period: u64, burst: Option<u32>) -> Limit {
    Limit::new(algorithm, max_requests, period, burst).expect("a valid limit")
}

/// One key of one limit.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) limit: Limit,
    pub(super) state: Option<State>,
}

impl Key {
    pub(super) fn new(limit: Limit) -> Self {
        Key { limit, state: None }
    }

    pub(super) fn request(&mut self, now: i64, request: Request) -> Decision {
        let (decision, changed) = self.limit.decide(self.state.as_ref(), now, request);
        self.state = changed.or(self.state.map(|state| state.rebase(now)));
        decision
    }

    pub(super) fn check(&mut self, now: i64, cost: u32) -> Decision {
        self.request(now, Request::All(cost))
    }

    pub(super) fn peek(&self, now: i64, cost: u32) -> Decision {
        self.clone().request(now, Request::Peek(cost))
    }
}
