//! Everything that can go wrong, in one type, and the one place where each gets its SQLSTATE, message, detail and hint.
//!
//! Every function of the extension returns `Result<_, Error>`; where it goes back to SQL (`pg/guard.rs`), the error
//! becomes a report.

use enough_engine::words::Corrupt;
use pgrx::PgSqlErrorCode as Code;
use std::borrow::Cow;

/// What can go wrong. Fields are what the message names: the object and the value that was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// NULL for an argument where it has no meaning.
    Null { argument: &'static str },
    /// NULL for an element of an array argument, counted from 1.
    NullElement { argument: &'static str, index: usize },
    /// NULL for an argument where it has a meaning, but not on a standby.
    NullOnStandby { argument: &'static str },
    /// An argument outside of what it may be.
    Invalid { argument: Cow<'static, str>, value: String, expected: String },
    /// A name that isn't one.
    Name { what: &'static str, name: String, expected: &'static str },
    /// No object of that kind has that name.
    Missing { what: &'static str, name: String, hint: &'static str },
    /// A queue's table is there, but no row of `enough.queue`.
    Unregistered { queue: String },
    /// A queue's row of `enough.queue` is there, but no table.
    WithoutTable { queue: String },
    /// A queue is gone to which a table's changes are sent.
    SourceWithoutQueue { table: String, queue: String },
    /// A column is gone that is sent with a table's changes.
    SourceWithoutColumn { table: String, column: String, queue: String },
    /// A queue can't be dropped, because a table's changes are sent to it.
    HasSource { table: String, queue: String },
    /// The extension isn't in this database, or has just been dropped.
    NoExtension,
    /// An object of that kind has that name already.
    Exists { what: &'static str, name: String, hint: Cow<'static, str> },
    /// Other sessions use a queue's tables, and a lock that shuts them out can't be had in time.
    InUse { queue: String },
    /// Other sessions keep changing what this one must change.
    Conflict { what: String },
    /// The role lacks a privilege.
    Denied { what: String, hint: String },
    /// A key, value or batch above its limit.
    TooLarge { what: Cow<'static, str>, size: usize, limit: usize, unit: &'static str, hint: &'static str },
    /// Leases fill the queues' memory.
    QueueMemory,
    /// Holders of semaphores and sessions that wait for them fill the memory.
    SemaphoreMemory,
    /// The call must write a table and can't, in this transaction or on this server.
    ReadOnly { function: &'static str },
    /// The call is made in a parallel worker, or uses a queue while there are such workers.
    Parallel { what: String },
    /// `PREPARE TRANSACTION` after calls whose effect waits for the commit.
    Prepared { what: &'static str },
    /// `PREPARE TRANSACTION` after changing a queue that as many prepared transactions have changed as it has room for.
    InDoubt { queue: String },
    /// `PREPARE TRANSACTION` after removing more of the cache than there is room to remember.
    CacheInDoubt,
    /// The shared segment can't be had.
    NoSegment { reason: String, hint: String },
    /// The shared segment was laid out by another version.
    OtherLayout { found: u64, known: u64 },
    /// What the call needs isn't there.
    NotReady { problem: String, hint: String },
    /// Changes behind a version of a space can't be told any more; or the version is ahead of all that the space has.
    Gone { space: String, since: i64, ahead: bool },
    /// A row changed under a transaction whose snapshot forbids to go on.
    Serialization { queue: String, msg_id: i64 },
    /// A part of the segment was damaged twice in a row; it has been reset.
    Damaged { region: &'static str },
    /// The server refused something that can't be refused; a bug in `pg_enough`.
    Internal { problem: String },
}

impl From<Corrupt> for Error {
    fn from(_: Corrupt) -> Self {
        Error::Damaged { region: "shared" }
    }
}

impl Error {
    /// An argument out of its range.
    #[allow(clippy::needless_pass_by_value, reason = "called with numbers and texts alike, most of them made for it")]
    pub fn invalid(argument: impl Into<Cow<'static, str>>, value: impl ToString, expected: impl Into<String>) -> Self {
        Error::Invalid { argument: argument.into(), value: value.to_string(), expected: expected.into() }
    }

    /// A column of the project's own tables has another type than it was made with, or is gone.
    #[cold]
    pub fn altered() -> Self {
        Error::NotReady {
            problem: "a table that pg_enough works on has other columns than it was made with".into(),
            hint: "Give the columns back the names and types that queue_create() and CREATE EXTENSION give them."
                .into(),
        }
    }

    /// An array argument of `found` elements that needs one for each of so many things.
    pub fn length(argument: &'static str, found: usize, things: usize, thing: &str) -> Self {
        let array = |count| format!("an array of {count} element{}", if count == 1 { "" } else { "s" });
        Self::invalid(argument, array(found), format!("{}, one for each {thing}", array(things)))
    }

    /// The same, where what is too large or out of range is the element of an array argument at that place, counted from 0.
    #[must_use]
    pub fn of_element(self, argument: &'static str, place: usize) -> Self {
        match self {
            Error::TooLarge { size, limit, unit, hint, .. } => {
                Error::TooLarge { what: format!("{argument}[{}]", place + 1).into(), size, limit, unit, hint }
            }
            Error::Invalid { value, expected, .. } => {
                Error::Invalid { argument: format!("{argument}[{}]", place + 1).into(), value, expected }
            }
            other => other,
        }
    }

    /// As it is reported.
    pub fn report(self) -> Report {
        let (code, message, detail, hint) = describe(self);
        Report { code, message, detail, hint }
    }
}

/// An error in the words of the report that the client gets.
pub struct Report {
    /// The SQLSTATE.
    pub code: Code,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// SQLSTATE, message, detail and hint of an error.
#[allow(clippy::too_many_lines, reason = "one entry a variant")]
fn describe(error: Error) -> (Code, String, Option<String>, Option<String>) {
    match error {
        Error::Null { argument } => (
            Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{argument}\" must not be NULL"),
            None,
            Some("It has no default: pass a value.".into()),
        ),
        Error::NullElement { argument, index } => (
            Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{argument}[{index}]\" must not be NULL"),
            None,
            Some("Leave the element out of the array, or give it a value.".into()),
        ),
        Error::NullOnStandby { argument } => (
            Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{argument}\" must not be NULL on a standby"),
            Some("A standby's cache is not told of what the primary changes.".into()),
            Some("Pass a time to live; it counts as enough.cache_standby_ttl where it is longer.".into()),
        ),
        Error::Invalid { argument, value, expected } => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("invalid value for argument \"{argument}\": {value}"),
            None,
            Some(format!("It must be {expected}.")),
        ),
        Error::Name { what, name, expected } => (
            Code::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("invalid {what} name: \"{name}\""),
            None,
            Some(format!("It must be {expected}.")),
        ),
        Error::Missing { what, name, hint } => {
            (Code::ERRCODE_UNDEFINED_OBJECT, format!("{what} \"{name}\" does not exist"), None, Some(hint.into()))
        }
        Error::Unregistered { queue } => (
            Code::ERRCODE_UNDEFINED_OBJECT,
            format!("queue \"{queue}\" has a table but no row in enough.queue"),
            Some("It was restored without that row, renamed by hand, or the extension was dropped and created anew.".into()),
            Some(format!(
                "Take it up, with its messages, with enough.queue_create('{queue}', if_not_exists => true); where its \
                 table was renamed by hand, enough.queue_rename() keeps the options, too."
            )),
        ),
        Error::WithoutTable { queue } => (
            Code::ERRCODE_UNDEFINED_OBJECT,
            format!("queue \"{queue}\" has a row in enough.queue but no table"),
            Some("Its table was renamed or dropped by hand, or not restored.".into()),
            Some(format!(
                "Where it was renamed, finish that with enough.queue_rename('{queue}', <new name>); make it anew with \
                 enough.queue_create('{queue}'), or remove what is left with enough.queue_drop('{queue}')."
            )),
        ),
        Error::SourceWithoutQueue { table, queue } => (
            Code::ERRCODE_UNDEFINED_OBJECT,
            format!("queue \"{queue}\" does not exist, and changes of table {table} are sent to it"),
            None,
            Some(format!(
                "Create it with enough.queue_create('{queue}'), or end that with enough.queue_send_off('{}', '{queue}').",
                table.replace('\'', "''")
            )),
        ),
        Error::SourceWithoutColumn { table, column, queue } => (
            Code::ERRCODE_UNDEFINED_COLUMN,
            format!("column \"{column}\" of table {table} does not exist, and is to be sent to queue \"{queue}\""),
            Some("It was renamed or dropped since enough.queue_send_on() was called.".into()),
            Some("Call enough.queue_send_on() again, with the columns as they are now.".into()),
        ),
        Error::HasSource { table, queue } => (
            Code::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
            format!("cannot drop queue \"{queue}\" because changes of table {table} are sent to it"),
            None,
            Some(format!(
                "End that with enough.queue_send_off('{}', '{queue}'), or take INSERT on the queue from the table's owner.",
                table.replace('\'', "''")
            )),
        ),
        Error::NoExtension => (
            Code::ERRCODE_UNDEFINED_OBJECT,
            "extension \"pg_enough\" does not exist in this database".into(),
            None,
            Some("CREATE EXTENSION pg_enough;".into()),
        ),
        Error::Exists { what, name, hint } => {
            (Code::ERRCODE_DUPLICATE_OBJECT, format!("{what} \"{name}\" already exists"), None, Some(hint.into_owned()))
        }
        Error::InUse { queue } => (
            Code::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("queue \"{queue}\" is in use"),
            Some("Other sessions hold locks on its tables; senders and readers would have to wait behind this call.".into()),
            Some(
                "Try again when their transactions have ended, or SET lock_timeout to what senders and readers may wait."
                    .into(),
            ),
        ),
        Error::Conflict { what } => (
            Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("{what} were changed by other sessions at the same time"),
            None,
            Some("Retry the transaction.".into()),
        ),
        Error::Denied { what, hint } => {
            (Code::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for {what}"), None, Some(hint))
        }
        Error::TooLarge { what, size, limit, unit, hint } => (
            Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("{what} is too large: {size} {unit}, where at most {limit} are allowed"),
            None,
            Some(hint.into()),
        ),
        Error::QueueMemory => (
            Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "no memory is left for another lease".into(),
            Some("Each message that is leased takes a place in enough.queue_memory until it is finished.".into()),
            Some(
                "Finish messages, shorten their visibility timeout, limit the queue's max_in_flight, or raise \
                 enough.queue_memory and restart the server."
                    .into(),
            ),
        ),
        Error::SemaphoreMemory => (
            Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "no memory is left for another holder of a semaphore".into(),
            Some(
                "Each name, and each that holds one or waits for it, takes a place in enough.semaphore_memory; a name belongs to a \
                 part of it."
                    .into(),
            ),
            Some(
                "Release what isn't needed, shorten the ttl, or raise enough.semaphore_memory and restart the server.".into(),
            ),
        ),
        Error::ReadOnly { function } => (
            Code::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            format!("cannot execute {function}() in a read-only transaction or on a standby"),
            None,
            Some("Call it on the primary, in a transaction that may write.".into()),
        ),
        Error::Parallel { what } => (
            Code::ERRCODE_INVALID_TRANSACTION_STATE,
            format!("cannot {what} during a parallel operation"),
            Some(
                "What it does belongs to the transaction of the session, of which a parallel worker has only a copy."
                    .into(),
            ),
            Some("Mark the function that calls it PARALLEL UNSAFE, as all functions of pg_enough are.".into()),
        ),
        Error::Prepared { what } => (
            Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("cannot PREPARE a transaction that has used {what}"),
            Some("Its effect on the shared memory of this server waits for the commit.".into()),
            Some("Use COMMIT.".into()),
        ),
        Error::InDoubt { queue } => (
            Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("cannot PREPARE another transaction that has changed queue \"{queue}\""),
            Some("The memory has room for a few that are neither committed nor rolled back.".into()),
            Some("COMMIT PREPARED or ROLLBACK PREPARED some of them; pg_prepared_xacts lists them.".into()),
        ),
        Error::CacheInDoubt => (
            Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot PREPARE another transaction that has changed so much of the cache".into(),
            Some(
                "The memory has room for the keys and tags of a few that are neither committed nor rolled back.".into(),
            ),
            Some("COMMIT PREPARED or ROLLBACK PREPARED some of them; pg_prepared_xacts lists them.".into()),
        ),
        Error::NoSegment { reason, hint } => (
            Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pg_enough's shared memory is not available".into(),
            Some(reason),
            Some(hint),
        ),
        Error::OtherLayout { found, known } => (
            Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pg_enough's shared memory is not available".into(),
            Some(format!("It was laid out by another version of pg_enough (layout {found}; this library's is {known}).")),
            Some("Restart the server, so that the installed version makes it anew.".into()),
        ),
        Error::NotReady { problem, hint } => {
            (Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, problem, None, Some(hint))
        }
        Error::Gone { space, since, ahead } => (
            Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            if ahead {
                format!("version {since} is ahead of all that space \"{space}\" has")
            } else {
                format!("what has changed in space \"{space}\" after version {since} is not known any more")
            },
            Some(
                if ahead {
                    "A crash has emptied the space, or it was restored, or somebody has deleted its rows."
                } else {
                    "Rows of keys that were deleted go after a day, and TRUNCATE takes all."
                }
                .into(),
            ),
            Some("Begin anew with since => 0, and go on from the greatest version that it returns.".into()),
        ),
        Error::Serialization { queue, msg_id } => (
            Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
            format!("message {msg_id} of queue \"{queue}\" was changed by a concurrent transaction"),
            None,
            Some("Retry the transaction.".into()),
        ),
        Error::Damaged { region } => (
            Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("pg_enough's {region} memory was damaged and has been reset"),
            Some("Nothing durable is lost: the tables hold it.".into()),
            Some("Call again.".into()),
        ),
        Error::Internal { problem } => (
            Code::ERRCODE_INTERNAL_ERROR,
            format!("pg_enough: {problem}"),
            None,
            Some("This is a bug in pg_enough; please report it.".into()),
        ),
    }
}

/// `argument`, or the error that names it.
#[inline]
pub fn required<T>(argument: Option<T>, name: &'static str) -> Result<T, Error> {
    match argument {
        Some(argument) => Ok(argument),
        None => Err(Error::Null { argument: name }),
    }
}

/// The elements of an array argument, or the error that names the one that is NULL.
pub fn required_elements<T>(
    elements: impl Iterator<Item = Option<T>>,
    name: &'static str,
) -> impl Iterator<Item = Result<T, Error>> {
    elements.zip(1..).map(move |(element, index)| element.ok_or(Error::NullElement { argument: name, index }))
}
