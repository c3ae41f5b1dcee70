//! Several keys at once: either each of them grants the cost, or none does.

use super::limit::{Decision, Limit, Request};
use super::table::Table;
use crate::hash::KeyHash;
use crate::words::{Corrupt, Words};

/// What is asked of one key.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Which of the partitions the key belongs to.
    pub partition: usize,
    /// The key.
    pub key: KeyHash,
    /// Its limit. Claims on one state, that is of the same key, algorithm and period, have the same.
    pub limit: Limit,
    /// How many claims on the same state there are before this one in the list.
    pub before: u32,
}

/// Consumes `cost` for each of `claims`, or nothing. `answers`, as many as there are claims, then are those of the
/// requests one after the other; or else, of each claim, what it would have found if those before it had been granted.
/// A cost of 0 is a peek of 1.
///
/// The caller holds the locks of all `partitions`, and has read `now` after it took them.
pub fn request_all(
    partitions: &[Words<'_>],
    claims: &[Claim],
    now: i64,
    cost: u32,
    answers: &mut [Decision],
) -> Result<bool, Corrupt> {
    let table = |claim: &Claim| Table::open(partitions.get(claim.partition).ok_or(Corrupt)?);
    let mut all = true;
    for (claim, answer) in claims.iter().zip(answers.iter_mut()) {
        // What can't be counted is above every capacity.
        let sum = cost.max(1).saturating_mul(claim.before.saturating_add(1));
        *answer = table(claim)?.request(claim.key, &claim.limit, now, Request::Peek(sum))?;
        all &= answer.allowed;
    }
    if cost == 0 {
        return Ok(all);
    }
    for (claim, answer) in claims.iter().zip(answers) {
        if all {
            *answer = table(claim)?.request(claim.key, &claim.limit, now, Request::All(cost))?;
        } else if !answer.allowed {
            table(claim)?.count_denied()?;
        }
    }
    Ok(all)
}
