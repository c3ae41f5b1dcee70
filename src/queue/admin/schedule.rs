//! Messages sent by `pg_cron`: one job a schedule, whose statement is a `queue_send` by the role that made it.

use crate::cron::{self, Instead, SEND, SEND_ANY};
use crate::error::Error;
use crate::pg::catalog::Privilege;
use crate::pg::fmgr::{Jsonb, Rows, Text, Value};
use crate::pg::spi::{Parameter, column, read_rows, text};
use crate::queue::handle::Queue;

/// What a job's name begins with; the schedule's own follows.
const JOB: &str = "pg_enough send ";

/// The types of `queue_send`'s arguments, but for the last one, `deliver_at`.
const TYPES: [&str; 7] = ["text", "jsonb", "interval", "int4", "text", "text", "jsonb"];

/// What is to be sent, and when.
pub(in crate::queue) struct Schedule<'c> {
    pub name: &'c str,
    /// As `pg_cron` takes it.
    pub when: &'c str,
    pub message: Jsonb<'c>,
    /// In microseconds.
    pub delay: i64,
    pub priority: i32,
    pub group_key: Option<Text<'c>>,
    pub dedup_key: Option<Text<'c>>,
    pub headers: Option<Jsonb<'c>>,
}

/// Makes a schedule, or replaces the caller's of that name; the job's number.
pub(in crate::queue) fn schedule(queue: &Queue, schedule: &Schedule<'_>) -> Result<i64, Error> {
    queue.require(Privilege::Send)?;
    let delay = format!("{}.{:06} seconds", schedule.delay / 1_000_000, schedule.delay % 1_000_000);
    let quoted = |(place, kind): (usize, &str)| {
        format!("pg_catalog.quote_nullable(${}::pg_catalog.text), '::pg_catalog.{kind}, '", place + 3)
    };
    let arguments: Vec<String> = TYPES.into_iter().enumerate().map(quoted).collect();
    let command = format!("pg_catalog.concat('{SEND}', {}, 'NULL::pg_catalog.timestamptz)')", arguments.join(", "));
    let job = job(schedule.name);
    let parameters = || {
        vec![
            Parameter::Text(&queue.name),
            Parameter::Json(Some(schedule.message)),
            Parameter::Text(&delay),
            Parameter::I32(schedule.priority),
            Parameter::TextArgument(schedule.group_key),
            Parameter::TextArgument(schedule.dedup_key),
            Parameter::Json(schedule.headers),
        ]
    };
    if !cron::is_here() {
        // For the hint: the statement as pg_cron would run it from its own database.
        let mut statement = String::new();
        let all = [vec![Parameter::Text(&job), Parameter::Text(schedule.when)], parameters()].concat();
        read_rows(&format!("SELECT {command} WHERE $1 IS NOT NULL AND $2 IS NOT NULL"), &all, |row| {
            statement = text(row, 1)?.unwrap_or_default();
            Ok(())
        })?;
        cron::require(&Instead { job: &job, when: schedule.when, command: &statement, for_shell: SEND_ANY })?;
    }
    require()?;
    cron::schedule(&job, schedule.when, &command, parameters())
}

/// Fails where there is no `pg_cron` to look at.
fn require() -> Result<(), Error> {
    cron::require(&Instead { job: JOB.trim_end(), when: "* * * * *", command: SEND_ANY, for_shell: SEND_ANY })
}

/// Ends a schedule; false where there was none.
pub(in crate::queue) fn unschedule(name: &str) -> Result<bool, Error> {
    require()?;
    cron::unschedule(&job(name))
}

fn job(name: &str) -> String {
    format!("{JOB}{name}")
}

/// Adds the schedules that the role may see, with what has become of each one's last run.
pub(in crate::queue) fn list(rows: &mut Rows<'_>) -> Result<(), Error> {
    require()?;
    read_rows(
        "SELECT pg_catalog.substr(j.jobname::pg_catalog.text, pg_catalog.length($1) OPERATOR(pg_catalog.+) 1), j.schedule, \
                pg_catalog.substring(j.command, $re$queue_send\\('([^']+)'$re$), j.command, j.active, \
                r.start_time, r.status, r.return_message, j.username \
         FROM cron.job AS j LEFT JOIN LATERAL ( \
              SELECT d.start_time, d.status, d.return_message FROM cron.job_run_details AS d \
              WHERE d.jobid OPERATOR(pg_catalog.=) j.jobid ORDER BY d.runid DESC LIMIT 1) AS r ON true \
         WHERE pg_catalog.starts_with(j.jobname::pg_catalog.text, $1) \
           AND j.database OPERATOR(pg_catalog.=) pg_catalog.current_database()::pg_catalog.text ORDER BY 1, j.username",
        &[Parameter::Text(JOB)],
        |row| {
            let mut values = [Value::Null; 9];
            for (value, number) in values.iter_mut().zip(1..) {
                *value = column(row, number)?;
            }
            rows.push(&values)
        },
    )?;
    Ok(())
}
