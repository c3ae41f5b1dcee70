//! What must hold.

use anyhow::{Context, Result, bail, ensure};
use postgres::Error;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a condition may take to come true: only a failure ever waits so long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value; an error that says `what` was waited for if it never does.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited in vain until {what}");
        }
        sleep(POLL);
    }
}

/// The SQLSTATE of an error; empty where it isn't the server's.
pub fn state(error: &Error) -> &str {
    error.code().map_or("", |code| code.code())
}

/// Whether the connection is lost, be it without a word or with the server's last one.
pub fn is_lost(error: &Error) -> bool {
    error.is_closed() || matches!(state(error), "" | "57P01" | "57P02" | "57P03")
}

/// Fails unless `outcome` is the server's error with that SQLSTATE; returns its hint (empty where it has none).
pub fn refused<T>(outcome: Result<T, Error>, expected: &str) -> Result<String> {
    let Err(error) = outcome else { bail!("no error, where {expected} was due") };
    let details = error.as_db_error().with_context(|| format!("not the server's error: {error}"))?;
    ensure!(details.code().code() == expected, "{expected} was due: {details:?}");
    Ok(details.hint().unwrap_or_default().to_owned())
}

/// Fails if a server's log speaks of a crash, of an internal error or of a step that failed at a transaction's end, or
/// holds a backtrace of Rust's.
/// `killed`: processes were killed on purpose.
pub fn healthy(log: &str, killed: bool) -> Result<()> {
    let bad = |line: &&str| {
        let crash = line.contains("was terminated by signal") && !(killed && line.contains("signal 9"));
        let failed = ["PANIC:", " XX0", "WARNING:  pg_enough", "pgrx_pg_sys::", "std::panicking"];
        crash || failed.iter().any(|words| line.contains(words))
    };
    let lines: Vec<&str> = log.lines().filter(bad).take(20).collect();
    ensure!(lines.is_empty(), "the server's log:\n{}", lines.join("\n"));
    Ok(())
}
