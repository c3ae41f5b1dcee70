//! Running `maintain()` by `pg_cron`, one job a database and role.

use crate::cron::{self, Instead, MAINTAIN, MAINTAIN_IN_SHELL};
use crate::error::Error;
use crate::pg::spi::Parameter;

/// The name of the job.
pub(super) const JOB: &str = "pg_enough maintenance";

fn require(when: &str) -> Result<(), Error> {
    cron::require(&Instead { job: JOB, when, command: MAINTAIN, for_shell: MAINTAIN_IN_SHELL })
}

/// Schedules the job, or changes its schedule; its number.
pub(super) fn schedule(when: &str) -> Result<i64, Error> {
    require(when)?;
    cron::schedule(JOB, when, "$3", vec![Parameter::Text(MAINTAIN)])
}

/// Removes the job; false where there was none.
pub(super) fn unschedule() -> Result<bool, Error> {
    require("* * * * *")?;
    cron::unschedule(JOB)
}
