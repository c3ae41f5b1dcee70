//! Statements that `pg_cron` runs: jobs by name, of the calling role, in this database.

use crate::error::Error;
use crate::segment::catalog;
use crate::segment::sql::{Parameter, each_row, run};

/// Fails where `pg_cron` isn't in this database; `command` is what the system's cron could do instead.
pub fn require(command: &str) -> Result<(), Error> {
    if catalog::extension_exists(c"pg_cron") {
        return Ok(());
    }
    Err(Error::NotReady {
        problem: "pg_cron is not installed in this database".into(),
        hint: format!(
            "CREATE EXTENSION pg_cron (in the database that cron.database_name names), or let the system's cron do it: \
             * * * * * psql -X -d DATABASE -c '{command}'"
        ),
    })
}

/// Makes a job, or changes the one of that name (`pg_cron` keys jobs by name and role); its number. `command` is an
/// expression that gives the job's statement, of the parameters from `$3` on.
pub fn schedule(job: &str, when: &str, command: &str, parameters: Vec<Parameter<'_>>) -> Result<i64, Error> {
    let mut all = vec![Parameter::Text(job), Parameter::Text(when)];
    all.extend(parameters);
    let mut number = None;
    each_row(&format!("SELECT cron.schedule($1, $2, {command})"), &all, |row| {
        number = row.get::<i64>(1)?;
        Ok(())
    })?;
    number.ok_or_else(|| Error::Internal { problem: "pg_cron gave no job number".into() })
}

/// Removes a job; false where there was none.
pub fn unschedule(job: &str) -> Result<bool, Error> {
    let removed = run(
        "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname::pg_catalog.text OPERATOR(pg_catalog.=) $1 \
         AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text",
        &[Parameter::Text(job)],
    )?;
    Ok(removed > 0)
}
