//! A session in a thread of its own, so that one may wait, or be blocked, while others go on.

use anyhow::{Context, Result, anyhow};
use enough_pg_test::server::{Database, backend};
use postgres::{Error, SimpleQueryMessage};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long an answer may take: only a failure ever does.
const PATIENCE: Duration = Duration::from_mins(1);

/// This machine's clock, which is also the server's, in microseconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Between these two moments, both included, the server did what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// A row, as text.
pub(crate) type Row = Vec<Option<String>>;

/// What came of a statement.
pub(crate) struct Reply {
    pub(crate) span: Span,
    pub(crate) rows: Result<Vec<Row>, Error>,
}

/// A connection, which does one statement after the other.
pub(crate) struct Session {
    requests: Sender<String>,
    replies: Receiver<Reply>,
    /// The number of its process.
    pub(crate) pid: u32,
}

impl Session {
    pub(crate) fn open(database: &Database) -> Result<Self> {
        let mut client = database.client()?;
        // Nothing may hang for ever; what waits on purpose is told for how long.
        client.batch_execute("SET statement_timeout = '45 s'; SET client_min_messages = error")?;
        let pid = backend(&mut client)?;
        let (requests, inbox) = channel::<String>();
        let (outbox, replies) = channel();
        thread::spawn(move || {
            for statement in inbox {
                let from = now();
                let answer = client.simple_query(&statement);
                if answer.is_err() {
                    // The error comes before the server has rolled back; the answer to the next statement after it.
                    let _ = client.simple_query("");
                }
                let span = Span { from, to: now() };
                let rows = answer.map(|messages| messages.into_iter().filter_map(row).collect());
                if outbox.send(Reply { span, rows }).is_err() {
                    break;
                }
            }
        });
        Ok(Self { requests, replies, pid })
    }

    /// Starts a statement without waiting for its answer.
    pub(crate) fn start(&self, statement: &str) -> Result<()> {
        self.requests.send(statement.to_owned()).map_err(|_| anyhow!("the session's thread is gone"))
    }

    /// The answer of the statement that was started, if it is there by `patience`.
    pub(crate) fn answer(&self, patience: Duration) -> Result<Option<Reply>> {
        match self.replies.recv_timeout(patience) {
            Ok(reply) => Ok(Some(reply)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the session's thread is gone")),
        }
    }

    /// Waits for the answer of the statement that was started.
    pub(crate) fn finish(&self) -> Result<Reply> {
        self.answer(PATIENCE)?.context("no answer")
    }

    /// Does a statement.
    pub(crate) fn run(&self, statement: &str) -> Result<Reply> {
        self.start(statement)?;
        self.finish()
    }
}

fn row(message: SimpleQueryMessage) -> Option<Row> {
    match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    }
}
