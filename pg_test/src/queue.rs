//! Sending and reading by a driver.

use crate::server::Database;
use anyhow::Result;
use postgres::{Client, Error, GenericClient, Row};
use serde_json::Value;

/// A message as `queue_read` and `queue_pop` give it. Times are in microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its number.
    pub msg_id: i64,
    /// Deliveries, this one included.
    pub attempts: i32,
    /// The number of the lease; `None` where the message is deleted already.
    pub lease: Option<i64>,
    /// When the lease ends.
    pub until: Option<i64>,
    /// 0 to 9.
    pub priority: i16,
    /// Optional.
    pub headers: Option<Value>,
    /// The payload.
    pub message: Value,
}

/// The columns that [`Message`] is made of.
pub const COLUMNS: &str = "msg_id, attempts, lease, (EXTRACT(EPOCH FROM leased_until) * 1000000)::bigint AS until, priority, headers, message";

impl From<&Row> for Message {
    fn from(row: &Row) -> Self {
        Message {
            msg_id: row.get("msg_id"),
            attempts: row.get("attempts"),
            lease: row.get("lease"),
            until: row.get("until"),
            priority: row.get("priority"),
            headers: row.get("headers"),
            message: row.get("message"),
        }
    }
}

/// A queue `q` in a database of its own, made with further arguments as they are written in SQL, and two sessions there.
pub fn made(options: &str) -> Result<(Database, Client, Client)> {
    let database = Database::new()?;
    let mut client = database.client()?;
    client.batch_execute(&format!("SELECT enough.queue_create('q'{options})"))?;
    let other = database.client()?;
    Ok((database, client, other))
}

/// Calls `queue_read` or `queue_pop` with `arguments` as they are written in SQL.
pub fn receive(client: &mut impl GenericClient, call: &str) -> Result<Vec<Message>, Error> {
    let rows = client.query(&format!("SELECT {COLUMNS} FROM enough.{call}"), &[])?;
    Ok(rows.iter().map(Message::from).collect())
}

/// Reads up to `qty` messages of `queue` by its own visibility timeout.
pub fn read(client: &mut impl GenericClient, queue: &str, qty: usize) -> Result<Vec<Message>, Error> {
    receive(client, &format!("queue_read('{queue}', {qty})"))
}

/// The numbers of messages.
pub fn ids(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| message.msg_id).collect()
}

/// The numbers of messages, in order.
pub fn sorted_ids(messages: &[Message]) -> Vec<i64> {
    let mut numbers = ids(messages);
    numbers.sort_unstable();
    numbers
}

/// Sends one message; its number.
pub fn send(client: &mut impl GenericClient, queue: &str, message: &Value) -> Result<i64, Error> {
    Ok(client.query_one("SELECT enough.queue_send($1, $2)", &[&queue, message])?.get(0))
}

/// Sends the numbers from 1 to `count` as messages, in one batch; the messages' numbers.
pub fn send_numbers(client: &mut impl GenericClient, queue: &str, count: i64) -> Result<Vec<i64>, Error> {
    let rows = client.query(
        "SELECT * FROM enough.queue_send_batch($1, (SELECT array_agg(to_jsonb(n) ORDER BY n) \
         FROM generate_series(1, $2::bigint) AS n))",
        &[&queue, &count],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Deletes a message, under `lease` where it is given.
pub fn delete(client: &mut impl GenericClient, queue: &str, msg_id: i64, lease: Option<i64>) -> Result<bool, Error> {
    Ok(client.query_one("SELECT enough.queue_delete($1, $2, $3)", &[&queue, &msg_id, &lease])?.get(0))
}

/// The counts of `queue_stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Ready now.
    pub ready: i64,
    /// Leased now.
    pub leased: i64,
    /// Not ready before a time.
    pub delayed: i64,
    /// Dead letters in the archive.
    pub dead: i64,
}

/// What `queue` holds.
pub fn stats(client: &mut impl GenericClient, queue: &str) -> Result<Stats, Error> {
    let row = client.query_one("SELECT ready, leased, delayed, dead FROM enough.queue_stats($1)", &[&queue])?;
    Ok(Stats { ready: row.get(0), leased: row.get(1), delayed: row.get(2), dead: row.get(3) })
}

/// Reads and deletes until the queue's table is empty; the messages, each as often as it came.
pub fn drain(client: &mut impl GenericClient, queue: &str) -> Result<Vec<Message>> {
    let mut all = Vec::new();
    crate::check::eventually(&format!("the queue {queue} is empty"), || {
        let some = receive(client, &format!("queue_pop('{queue}', 1000)"))?;
        all.extend(some);
        let left: bool = client.query_one(&format!("SELECT EXISTS (SELECT FROM enough.\"q_{queue}\")"), &[])?.get(0);
        Ok((!left).then_some(()))
    })?;
    Ok(all)
}
