//! Acquiring: at once, or after waiting in line.
//!
//! A session that waits sleeps on its latch and on its client's socket. It is in line until it has a token or gives up, also while it
//! is awake: so a wake-up that it doesn't live to use is not lost, because the session that takes it out of the line wakes the next one.

use super::line;
use super::place::{hash, with_name};
use crate::error::Error;
use crate::pg::{latch, level, server};
use enough_engine::semaphore::{Answer, Ask, Wait};

/// What `pg_stat_activity` calls waiting for a semaphore.
static SLEEP: latch::Sleep = latch::Sleep::new(c"EnoughSemaphoreAcquire");

/// A client that has waited for so long may be gone.
const LONG: i64 = 50_000;

/// What a call asks for. Times are in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// At most so many holders.
    pub max: u32,
    pub ttl: i64,
    pub wait: i64,
}

/// A token, or none where by the end of the wait nobody has made room for another holder.
pub(super) fn acquire(name: &[u8], wish: Wish) -> Result<Option<i64>, Error> {
    let ask = Ask {
        max: wish.max,
        ttl: wish.ttl,
        process: latch::process(),
        pid: server::process_id(),
        role: level::current_role(),
    };
    if wish.wait == 0 {
        return token(with_name(name, |table, key, _| table.acquire(key, &ask, Wait::No))?);
    }
    if server::now().saturating_sub(server::statement_began()) > LONG {
        // It may have waited for something else, and its client have given up.
        latch::check_client();
    }
    wait(name, &ask, wish.wait)
}

/// Waits in line for `wait` microseconds at the most.
fn wait(name: &[u8], ask: &Ask, wait: i64) -> Result<Option<i64>, Error> {
    let hash = hash(name)?;
    // The ticket, once this session has one, and when its wait ends.
    let mut place: Option<(u64, i64)> = None;
    loop {
        // Before the look. Ends the call where the user or the server asks for it.
        latch::forget_wake_ups();
        let (mut now, mut until) = (0, 0);
        let answer = with_name(name, |table, key, at| {
            now = at;
            until = place.map_or(at.saturating_add(wait), |(_, until)| until);
            let how = place.map_or(Wait::Until(until), |(ticket, until)| Wait::Again(ticket, until));
            table.acquire(key, ask, how)
        });
        let Ok(Answer::Waits { ticket, alarm }) = answer else {
            line::left();
            return token(answer?);
        };
        line::stand(hash, ticket);
        place = Some((ticket, until));
        latch::sleep_as(alarm.saturating_sub(now).min(latch::patience(now)), &SLEEP);
    }
}

fn token(answer: Answer) -> Result<Option<i64>, Error> {
    match answer {
        Answer::Taken(token) => Ok(Some(token)),
        Answer::Denied | Answer::Waits { .. } => Ok(None),
        Answer::Full => Err(Error::SemaphoreMemory),
    }
}
