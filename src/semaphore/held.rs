//! Ending and prolonging what a token stands for. Tokens follow the clock, so one can be guessed: that a role knows a token doesn't
//! make it its own. It counts for the role that acquired it, for those that have that role's rights, and for operators.

use super::place::with_name;
use crate::error::Error;
use crate::pg::encoding::shown;
use crate::pg::level;
use enough_engine::semaphore::{Changed, Key, Table};
use enough_engine::words::Corrupt;

/// Has a token last for `ttl` microseconds from now on; false where it isn't held any more.
pub(super) fn extend(name: &[u8], token: i64, ttl: i64) -> Result<bool, Error> {
    by_token(name, token, |table, key, role| table.extend(key.hash, token, ttl, Some(role)))
}

/// Ends what a token stands for; false where it isn't held any more.
pub(super) fn release(name: &[u8], token: i64) -> Result<bool, Error> {
    by_token(name, token, |table, key, role| table.release(key.hash, token, Some(role)))
}

/// Does `work`, which answers false where the token isn't held by the role that it is given: for the current role, and where
/// another one holds it and this one may, for that one. What may fail is between the sections under the lock.
fn by_token(
    name: &[u8],
    token: i64,
    work: impl Fn(&Table<'static>, &Key<'_>, u32) -> Result<Changed<bool>, Corrupt>,
) -> Result<bool, Error> {
    let own = level::current_role();
    if with_name(name, |table, key, _| work(table, key, own))? {
        return Ok(true);
    }
    let holder =
        with_name(name, |table, key, _| table.role_of(key.hash, token).map(|answer| Changed { answer, wake: None }))?;
    match holder {
        None => Ok(false),
        Some(role) if may_act_for(role) => with_name(name, |table, key, _| work(table, key, role)),
        Some(_) => Err(Error::Denied {
            what: format!("what another role holds of semaphore {}", shown(name)),
            hint: "The role that has acquired it may do that, and operators (enough.grant_to()).".into(),
        }),
    }
}

/// Whether the current role may do as it likes with what `role` holds.
pub(super) fn may_act_for(role: u32) -> bool {
    level::has_rights_of(role) || level::is_operator()
}
