//! The maintenance functions: arguments in, rows out. Their SQL side is `sql/maintenance.sql`.

use super::{schedule, status, tasks};
use crate::error::Error;
use crate::export;
use crate::pg::fmgr::{Call, Time, Value};

export!(
    enough_maintain = maintain,
    enough_status = status_rows,
    enough_maintenance_schedule = maintenance_schedule,
    enough_maintenance_unschedule = maintenance_unschedule,
);

type Answer = Result<Value<'static>, Error>;

fn maintain(call: &mut Call<'_>) -> Answer {
    // NULL is the default, as everywhere.
    let max_duration = match call.interval(0) {
        None => 10_000_000,
        Some(Time::Micros(micros)) if micros >= 0 => micros,
        Some(Time::Infinite) => i64::MAX,
        Some(other) => return Err(Error::invalid("max_duration", other.describe(), "an interval of 0 or more")),
    };
    let outcomes = tasks::run(max_duration)?;
    let mut rows = call.rows()?;
    for outcome in outcomes {
        rows.push(&[
            Value::Text(outcome.task),
            Value::I64(outcome.items),
            Value::Interval(outcome.elapsed),
            Value::or_null(outcome.note.as_deref(), Value::Text),
        ])?;
    }
    Ok(rows.end())
}

fn maintenance_schedule(call: &mut Call<'_>) -> Answer {
    let when = call.text(0).unwrap_or_else(|| "* * * * *".into());
    if when.trim().is_empty() {
        return Err(Error::invalid("schedule", "an empty text", "a cron schedule such as '* * * * *'"));
    }
    Ok(Value::I64(schedule::schedule(&when)?))
}

fn maintenance_unschedule(_: &mut Call<'_>) -> Answer {
    Ok(Value::Bool(schedule::unschedule()?))
}

fn status_rows(call: &mut Call<'_>) -> Answer {
    let items = status::items()?;
    let mut rows = call.rows()?;
    for (item, value) in items {
        rows.push(&[Value::Text(&item), Value::Text(&value)])?;
    }
    Ok(rows.end())
}
