//! Statements that `pg_cron` runs: jobs by name, of the calling role, in this database.
//!
//! `pg_cron` keeps its jobs in one database of the server. Only from there can they be made and seen by SQL; its tables
//! let a role see its own jobs, and a superuser all.
//!
//! Roles that may create queues may create functions in the schema, too. So a job's statement names each argument's type: no
//! other function of the same name fits it as well.

use crate::error::Error;
use crate::pg::catalog;
use crate::pg::guard::notice;
use crate::pg::savepoint::attempt;
use crate::pg::spi::{Parameter, as_owner_of, each_row, read_rows, run, text};
use pgrx::PgSqlErrorCode as Code;

/// What all statements begin with that send a message.
pub const SEND: &str = "SELECT enough.queue_send(";
/// The statement that runs maintenance, and what all statements begin with that do.
pub const MAINTAIN: &str = "SELECT enough.maintain('10 seconds'::pg_catalog.interval)";
const MAINTAINS: &str = "SELECT enough.maintain(";
/// The same for the system's cron, between a shell's quotes.
pub const MAINTAIN_IN_SHELL: &str = "SELECT enough.maintain()";

/// A statement that sends a message, whatever it is.
pub const SEND_ANY: &str = "SELECT enough.queue_send(...)";

/// How long what `pg_cron` has noted about a run is kept, as an interval.
const KEPT: &str = "1 day";
/// Notes removed by one statement.
const NOTES: i64 = 10_000;

/// What the system's cron would do instead, or `pg_cron` from its own database.
pub struct Instead<'i> {
    /// The job's name.
    pub job: &'i str,
    /// When it is to run.
    pub when: &'i str,
    /// The job's statement.
    pub command: &'i str,
    /// The statement as a shell takes it between single quotes.
    pub for_shell: &'i str,
}

/// Whether `pg_cron` is in this database.
pub fn is_here() -> bool {
    catalog::extension_exists(c"pg_cron")
}

/// Fails where `pg_cron` isn't in this database, or the role may not use it.
pub fn require(instead: &Instead<'_>) -> Result<(), Error> {
    if !is_here() {
        return Err(not_here(instead)?);
    }
    if may_use()? {
        return Ok(());
    }
    Err(Error::Denied {
        what: "schema cron".into(),
        hint:
            "pg_cron runs jobs of roles that may use its schema: as a superuser, GRANT USAGE ON SCHEMA cron TO <role>."
                .into(),
    })
}

/// Whether there are jobs that the role could see.
fn usable() -> Result<bool, Error> {
    Ok(is_here() && may_use()?)
}

fn may_use() -> Result<bool, Error> {
    let usage = "SELECT WHERE pg_catalog.has_schema_privilege('cron', 'USAGE')";
    Ok(read_rows(usage, &[], |_| Ok(()))? > 0)
}

/// The error where `pg_cron` isn't in this database: what to do depends on whether it is in another one.
fn not_here(instead: &Instead<'_>) -> Result<Error, Error> {
    let Instead { job, when, command, for_shell } = instead;
    let mut hint = format!(
        "CREATE EXTENSION pg_cron (in the database that cron.database_name names), or let the system's cron do it: \
         * * * * * psql -X -d DATABASE -c '{for_shell}'"
    );
    // A role that may not see the setting gets the general hint.
    read_rows(
        "SELECT s.setting, pg_catalog.format('SELECT cron.schedule_in_database(%L, %L, %L, %L)', \
                pg_catalog.concat($1, ' in ', pg_catalog.current_database()), $2, $3, pg_catalog.current_database()) \
         FROM pg_catalog.pg_settings AS s WHERE s.name OPERATOR(pg_catalog.=) 'cron.database_name' \
          AND s.setting OPERATOR(pg_catalog.<>) pg_catalog.current_database()::pg_catalog.text",
        &[Parameter::Text(job), Parameter::Text(when), Parameter::Text(command)],
        |row| {
            if let (Some(database), Some(statement)) = (text(row, 1)?, text(row, 2)?) {
                hint =
                    format!("pg_cron keeps its jobs in database \"{database}\". There, as a superuser: {statement};");
            }
            Ok(())
        },
    )?;
    Ok(Error::NotReady { problem: "pg_cron is not installed in this database".into(), hint })
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

/// Removes the role's own job of that name; false where there was none. Other roles may have jobs of the same name.
pub fn unschedule(job: &str) -> Result<bool, Error> {
    let removed = run(
        "SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname::pg_catalog.text OPERATOR(pg_catalog.=) $1 \
         AND username OPERATOR(pg_catalog.=) CURRENT_USER::pg_catalog.text \
         AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text",
        &[Parameter::Text(job)],
    )?;
    Ok(removed > 0)
}

/// A job that the role can see.
struct Job {
    number: i64,
    name: String,
    role: String,
    /// Whether it is the role's own.
    own: bool,
}

/// Jobs of this database whose statements begin so.
fn jobs(beginning: &str) -> Result<Vec<Job>, Error> {
    let mut jobs = Vec::new();
    read_rows(
        "SELECT jobid, coalesce(jobname::pg_catalog.text, ''), username, \
                username OPERATOR(pg_catalog.=) CURRENT_USER::pg_catalog.text \
         FROM cron.job WHERE pg_catalog.starts_with(command, $1) \
           AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text ORDER BY jobid",
        &[Parameter::Text(beginning)],
        |row| {
            if let (Some(number), Some(name), Some(role), Some(own)) =
                (row.get(1)?, text(row, 2)?, text(row, 3)?, row.get(4)?)
            {
                jobs.push(Job { number, name, role, own });
            }
            Ok(())
        },
    )?;
    Ok(jobs)
}

/// Does `work` with each job that the role can see and whose statement begins so. Says which ones it may not change: it may
/// drop or rename its queue nevertheless.
fn with_jobs(beginning: &str, work: impl Fn(&Job) -> Result<usize, Error>) -> Result<(), Error> {
    if !usable()? {
        return Ok(());
    }
    for job in jobs(beginning)? {
        match attempt(|| work(&job)) {
            Ok(_) => {}
            Err(failure) if failure.code() == Some(Code::ERRCODE_INSUFFICIENT_PRIVILEGE) => {
                let Job { name, role, .. } = &job;
                notice(&format!("job \"{name}\" of pg_cron stays as it is: it belongs to role \"{role}\""));
            }
            Err(failure) => return failure.pass_on(),
        }
    }
    Ok(())
}

/// What statements begin with that send to a queue.
fn sending_to(queue: &str) -> String {
    format!("{SEND}'{queue}'")
}

/// Ends the jobs that send to a queue, as far as the role may.
pub fn end_sending_to(queue: &str) -> Result<(), Error> {
    with_jobs(&sending_to(queue), |job| run("SELECT cron.unschedule($1)", &[Parameter::I64(job.number)]))
}

/// Lets the jobs that send to a queue send to another one, as far as the role may change them.
pub fn redirect(from: &str, to: &str) -> Result<(), Error> {
    let (from, to) = (sending_to(from), sending_to(to));
    // A role's own job is changed by scheduling it again; that of another one by a function which only superusers have.
    let change = |own: bool| {
        let call =
            if own { "cron.schedule(jobname::pg_catalog.text, schedule," } else { "cron.alter_job(jobid, command =>" };
        let rest = "pg_catalog.substr(command, pg_catalog.length($3) OPERATOR(pg_catalog.+) 1)";
        format!("SELECT {call} pg_catalog.concat($2, {rest})) FROM cron.job WHERE jobid OPERATOR(pg_catalog.=) $1")
    };
    with_jobs(&from, |job| {
        run(&change(job.own), &[Parameter::I64(job.number), Parameter::Text(&to), Parameter::Text(&from)])
    })
}

/// What `pg_cron` knows of the extension's own jobs in this database, whoever they belong to.
#[derive(Debug, Default)]
pub struct Health {
    /// Whether one of them runs maintenance.
    pub maintains: bool,
    /// The names of those whose last run failed.
    pub failing: Vec<String>,
}

/// How its jobs do; `None` where `pg_cron` isn't in this database. With the rights of the jobs' table's owner, because roles
/// see their own jobs alone; only names are told.
pub fn health() -> Result<Option<Health>, Error> {
    if !is_here() {
        return Ok(None);
    }
    let mut table = None;
    read_rows(
        "SELECT c.oid::pg_catalog.int8 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n \
           ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         WHERE n.nspname OPERATOR(pg_catalog.=) 'cron' AND c.relname OPERATOR(pg_catalog.=) 'job'",
        &[],
        |row| {
            table = row.get::<i64>(1)?.and_then(|oid| u32::try_from(oid).ok());
            Ok(())
        },
    )?;
    let Some(table) = table else { return Ok(None) };
    let mut health = Health::default();
    as_owner_of(table, || {
        read_rows(
            "SELECT coalesce(j.jobname::pg_catalog.text, j.jobid::pg_catalog.text), pg_catalog.starts_with(j.command, $1), \
                    r.status OPERATOR(pg_catalog.=) 'failed' \
             FROM cron.job AS j LEFT JOIN LATERAL ( \
                  SELECT d.status FROM cron.job_run_details AS d WHERE d.jobid OPERATOR(pg_catalog.=) j.jobid \
                     AND d.status OPERATOR(pg_catalog.=) ANY (ARRAY['failed', 'succeeded']) ORDER BY d.runid DESC LIMIT 1) AS r ON true \
             WHERE j.active AND (pg_catalog.starts_with(j.command, $1) OR pg_catalog.starts_with(j.command, $2)) \
               AND j.database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text ORDER BY j.jobid",
            &[Parameter::Text(MAINTAINS), Parameter::Text(SEND)],
            |row| {
                health.maintains |= row.get::<bool>(2)?.unwrap_or(false);
                if row.get::<bool>(3)?.unwrap_or(false) {
                    health.failing.extend(text(row, 1)?);
                }
                Ok(())
            },
        )
    })?;
    Ok(Some(health))
}

/// Removes what `pg_cron` has noted about runs of the extension's own jobs in this database more than a day ago, as far as
/// the role may see it; how much that was.
pub fn trim_notes() -> Result<i64, Error> {
    if !usable()? {
        return Ok(0);
    }
    let removed = run(
        &format!(
            "DELETE FROM cron.job_run_details WHERE runid OPERATOR(pg_catalog.=) ANY (ARRAY( \
             SELECT runid FROM cron.job_run_details \
             WHERE (pg_catalog.starts_with(command, $1) OR pg_catalog.starts_with(command, $2)) \
               AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text \
               AND end_time OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) interval '{KEPT}') LIMIT $3))"
        ),
        &[Parameter::Text(MAINTAINS), Parameter::Text(SEND), Parameter::I64(NOTES)],
    )?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}
