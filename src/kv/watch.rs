//! Watching: what has changed after a version, in the order of the versions, and waiting for it.
//!
//! Only changes below which nothing is undecided are told, so that a watcher that passes the greatest version that it has seen misses nothing. A
//! session knows that of all versions up to that of a row
//!
//! * where all transactions below the row's fence have ended, by its snapshot; no other transaction of the server matters that began
//!   later, but one that is older holds this up, whatever it does and in which database;
//! * else where those that may have written to the space have: a transaction that has drawn a version holds the table's lock as a writer until it
//!   ends. They are looked for after one look at the table and before a second, which takes no version that the first didn't see. A
//!   smaller one was drawn before the first look, then; its transaction has ended by the second, or is found between them, and isn't
//!   below the fence.
//!
//! *Waiting:* where nothing is undecided a session sleeps until a transaction commits that has changed the space. Where something is, nothing that
//! is committed meanwhile can be told before its transaction has ended; so it waits for that end by the server's own lock. On a standby
//! nobody tells of commits, and it looks once a second.

use super::table::Space;
use super::{crash, history, version};
use crate::error::Error;
use crate::pg::fmgr::{Rows, Value};
use crate::pg::setting::by_index;
use crate::pg::spi::{Parameter, column, read_rows_in_parts};
use crate::pg::watchers::Watching;
use crate::pg::writers::{self, Writer};
use crate::pg::{catalog, latch, prepared, savepoint, server};
use pgrx::spi::SpiHeapTupleData;

/// What `pg_stat_activity` calls waiting for changes.
static SLEEP: latch::Sleep = latch::Sleep::new(c"EnoughKvWatch");

/// The most changes that an answer has, unless they begin at the beginning.
const PAGE: usize = 1000;
/// How long a session sleeps that nobody wakes, in microseconds.
const LOOKS_EVERY: i64 = 1_000_000;

/// What is asked for.
pub(super) struct Ask {
    /// What the keys begin with, as a pattern.
    pub pattern: Vec<u8>,
    /// The changes behind that version; 0 for all.
    pub since: i64,
    /// How long to wait for one, in microseconds.
    pub wait: i64,
}

/// What is known of undecided transactions from a look before.
struct Known {
    /// What is said holds up to that version.
    newest: i64,
    /// Those that have a smaller number than that have ended, or never drawn such a version; `None` for all.
    ended_below: Option<u64>,
}

/// What a look has found.
#[derive(Default)]
struct Seen {
    /// How many changes it has added.
    rows: usize,
    /// The version of the last of them.
    last: Option<i64>,
    /// Up to that version all is decided.
    decided: Option<i64>,
    /// The greatest version in the table, decided or not.
    newest: Option<i64>,
    /// Changes up to that version may be gone; so all up to it is decided, too.
    gone: Option<i64>,
}

impl Seen {
    /// Whether there is a change that can't be told yet.
    fn is_held_up(&self, since: i64) -> bool {
        self.newest > self.decided.max(self.gone).max(Some(since))
    }
}

/// Adds the changes to `rows`; where there are none, waits for one.
pub(super) fn watch(space: &Space, ask: &Ask, rows: &mut Rows<'_>) -> Result<(), Error> {
    if !crash::settle(space)? && ask.since > 0 {
        return Err(Error::Gone { space: space.name.clone(), since: ask.since, ahead: true });
    }
    let until = server::now().saturating_add(ask.wait);
    // Before the first look.
    let watching = (ask.wait > 0).then(|| Watching::begin(space.oid));
    let seen = loop {
        let prepared = if watching.is_some() {
            // Ends the call where the user or the server asks for it.
            latch::forget_wake_ups();
            prepared_now()?
        } else {
            Vec::new()
        };
        // A session that waits keeps no lock on the table: TRUNCATE and ALTER TABLE needn't wait for it.
        let found = if watching.is_some() {
            savepoint::look(|found: &Found| found.seen.rows > 0, || search(space, ask, rows))?
        } else {
            search(space, ask, rows)?
        };
        let Found { seen, writer, newer } = found;
        let left = until.saturating_sub(server::now());
        if seen.rows > 0 || left <= 0 {
            break seen;
        }
        // What came between the looks may be decided by now, whatever is at work.
        if !newer {
            rest(space, seen.is_held_up(ask.since), writer, &prepared, left)?;
        }
    };
    if let Some(watching) = watching {
        watching.end();
    }
    // Changes of other keys need not be looked at again, and what is gone isn't missed by a watcher that has just seen all that is there.
    let up_to = seen.decided.max(seen.gone);
    if seen.rows < page(ask.since) && up_to > seen.last.max(Some(ask.since)) {
        rows.push(&[Value::Null, Value::Null, Value::or_null(up_to, Value::I64), Value::Bool(false)])?;
    }
    Ok(())
}

/// What has been found, and what is in the way of more.
struct Found {
    seen: Seen,
    /// The transaction that holds up what is there, where something is held up.
    writer: Option<Writer>,
    /// Whether more has come meanwhile.
    newer: bool,
}

/// Looks at the table, and once more where something is held up. A watcher that begins at the beginning gets all that can be told, so only the
/// second look counts.
fn search(space: &Space, ask: &Ask, rows: &mut Rows<'_>) -> Result<Found, Error> {
    let newest = if ask.since == 0 && !server::in_recovery() {
        version::greatest(space)?
    } else {
        let seen = look(space, ask, None, rows)?;
        if seen.rows > 0 || !seen.is_held_up(ask.since) || server::in_recovery() {
            return Ok(Found { seen, writer: None, newer: false });
        }
        seen.newest
    };
    let writer = writers::oldest(space.oid)?;
    let known = Known { newest: newest.unwrap_or(0), ended_below: writer.map(|writer| writer.number) };
    let seen = look(space, ask, Some(&known), rows)?;
    let newer = seen.newest > newest;
    Ok(Found { seen, writer, newer })
}

/// The transactions that are prepared and not decided.
fn prepared_now() -> Result<Vec<u64>, Error> {
    if server::takes_prepared_transactions() { prepared::transactions() } else { Ok(Vec::new()) }
}

/// Sleeps until there may be something new, for `left` microseconds at the most. `writer`: the transaction that holds up what is there, where something is
/// held up. `before`: the transactions that were prepared before the look.
fn rest(space: &Space, held_up: bool, writer: Option<Writer>, before: &[u64], left: i64) -> Result<(), Error> {
    if server::in_recovery() {
        latch::sleep_as(left.min(LOOKS_EVERY), &SLEEP);
        return Ok(());
    }
    let writer = if held_up {
        writer
    } else if !before.is_empty() {
        // A session that commits a prepared transaction has changed nothing itself, and wakes nobody.
        let writer = writers::oldest(space.oid)?;
        if writer.is_none() && prepared_now()? != before {
            // One was decided meanwhile, maybe behind the look. One that is prepared from now on wakes this session.
            return Ok(());
        }
        writer
    } else {
        None
    };
    if let Some(Writer { number, own: false }) = writer {
        return writers::wait_for_end(number, left);
    }
    // What this session's own transaction holds up comes after its end.
    latch::sleep_as(left.min(latch::patience(server::now())), &SLEEP);
    Ok(())
}

/// The most changes of an answer: a watcher that begins at the beginning gets all, because what it has seen by then doesn't say whether it has
/// missed what is gone.
fn page(since: i64) -> usize {
    if since == 0 { usize::MAX } else { PAGE }
}

/// Looks at the table once, and adds the changes to `rows`.
fn look(space: &Space, ask: &Ask, known: Option<&Known>, rows: &mut Rows<'_>) -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let statement = statement(space, page(ask.since));
    let number = known.and_then(|known| known.ended_below).map(|number| number.to_string());
    let parameters = [
        Parameter::Bytes(&ask.pattern),
        Parameter::I64(ask.since),
        Parameter::Text(&space.name),
        Parameter::OptionalI64(known.map(|known| known.newest)),
        Parameter::OptionalText(number.as_deref()),
    ];
    let each = |row: &SpiHeapTupleData<'_>| {
        if seen.rows == 0 {
            (seen.decided, seen.newest, seen.gone) = (row.get(1)?, row.get(2)?, row.get(3)?);
        }
        let version: Option<i64> = row.get(6)?;
        if version.is_some() {
            seen.rows += 1;
            seen.last = version;
            rows.push(&[column(row, 4)?, column(row, 5)?, column(row, 6)?, column(row, 7)?])?;
        }
        Ok(())
    };
    if ask.since == 0 {
        read_rows_in_parts(&statement, &parameters, each)?;
    } else {
        by_index(|| read_rows_in_parts(&statement, &parameters, each))?;
    }
    // With policies others may see greater ones.
    let ahead = ask.since > 0 && Some(ask.since) > seen.newest.max(seen.gone) && !catalog::row_security(space.oid);
    if ahead || (ask.since > 0 && seen.gone > Some(ask.since)) {
        return Err(Error::Gone { space: space.name.clone(), since: ask.since, ahead });
    }
    Ok(seen)
}

/// The statement of a look. `$1`: the pattern of the keys; `$2`: the version to begin behind; `$3`: the space's name; `$4`, `$5`: what is
/// known of undecided transactions.
fn statement(space: &Space, page: usize) -> String {
    let table = &space.table;
    // A fence that is ahead of the server was restored from another.
    let decided = format!(
        "SELECT e.version FROM {table} AS e WHERE e.version OPERATOR(pg_catalog.>) $2 \
            AND (e.fence OPERATOR(pg_catalog.<=) pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) \
              OR e.fence OPERATOR(pg_catalog.>) enough._kv_fence() \
              OR (e.version OPERATOR(pg_catalog.<=) $4 \
                  AND ($5 IS NULL OR e.fence OPERATOR(pg_catalog.<=) $5::pg_catalog.xid8))) \
          ORDER BY e.version DESC LIMIT 1"
    );
    let limit = if page == usize::MAX { String::new() } else { format!("FETCH FIRST {page} ROWS WITH TIES") };
    let within = |version: &str| {
        format!("{version} OPERATOR(pg_catalog.>) $2 AND {version} OPERATOR(pg_catalog.<=) GREATEST(b.decided, b.gone)")
    };
    let changes = if space.has_history() {
        // A version of before may be told although the current one isn't decided yet.
        format!(
            "SELECT e.key, c.value, c.version, c.deleted \
               FROM {table} AS e CROSS JOIN LATERAL ({}) AS c(value, version, updated_at, deleted) \
              WHERE e.version OPERATOR(pg_catalog.>) $2 AND {} AND e.key OPERATOR(pg_catalog.~~) $1 \
              ORDER BY c.version {limit}",
            history::versions(space),
            within("c.version")
        )
    } else {
        format!(
            "SELECT e.key, c.value, e.version, c.deleted \
               FROM {table} AS e CROSS JOIN LATERAL ({}) AS c(value, version, updated_at, deleted) \
              WHERE {} AND e.key OPERATOR(pg_catalog.~~) $1 ORDER BY e.version {limit}",
            history::versions(space),
            within("e.version")
        )
    };
    format!(
        "WITH b AS MATERIALIZED (SELECT ({decided}) AS decided, (SELECT pg_catalog.max(e.version) FROM {table} AS e) AS newest, \
            (SELECT s.gone FROM enough.space AS s WHERE s.name OPERATOR(pg_catalog.=) $3) AS gone) \
         SELECT b.decided, b.newest, b.gone, c.key, c.value, c.version, c.deleted \
           FROM b LEFT JOIN LATERAL ({changes}) AS c ON true ORDER BY c.version"
    )
}
