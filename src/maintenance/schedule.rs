//! Running `maintain()` by `pg_cron`, one job a database.

use crate::cron;
use crate::error::Error;
use crate::segment::sql::Parameter;

const JOB: &str = "pg_enough maintenance";
const COMMAND: &str = "SELECT enough.maintain()";

/// Schedules the job, or changes its schedule; its number.
pub(super) fn schedule(when: &str) -> Result<i64, Error> {
    cron::require(COMMAND)?;
    cron::schedule(JOB, when, "$3", vec![Parameter::Text(COMMAND)])
}

/// Removes the job; false where there was none.
pub(super) fn unschedule() -> Result<bool, Error> {
    cron::require(COMMAND)?;
    cron::unschedule(JOB)
}
