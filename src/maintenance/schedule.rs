//! Running `maintain()` by `pg_cron`, one job a database.

use crate::error::Error;
use crate::segment::catalog;
use crate::segment::sql::{Parameter, each_row, run};

/// The job's name; `pg_cron` keys jobs by name and role.
const JOB: &str = "pg_enough maintenance";

/// Schedules the job, or changes its schedule; its number.
pub(super) fn schedule(when: &str) -> Result<i64, Error> {
    require_cron()?;
    let mut job = None;
    each_row(
        "SELECT cron.schedule($1, $2, $3)",
        &[Parameter::Text(JOB), Parameter::Text(when), Parameter::Text("SELECT enough.maintain()")],
        |row| {
            job = row.get::<i64>(1)?;
            Ok(())
        },
    )?;
    job.ok_or_else(|| Error::Internal { problem: "pg_cron gave no job number".into() })
}

/// Removes the job; false where there was none.
pub(super) fn unschedule() -> Result<bool, Error> {
    require_cron()?;
    let removed = run(
        "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname OPERATOR(pg_catalog.=) $1 \
         AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()",
        &[Parameter::Text(JOB)],
    )?;
    Ok(removed > 0)
}

fn require_cron() -> Result<(), Error> {
    if catalog::extension_exists(c"pg_cron") {
        return Ok(());
    }
    Err(Error::NotReady {
        problem: "pg_cron is not installed in this database".into(),
        hint: "CREATE EXTENSION pg_cron (in the database that cron.database_name names), or let the system's cron do \
               it: * * * * * psql -X -d DATABASE -c 'SELECT enough.maintain()'"
            .into(),
    })
}
