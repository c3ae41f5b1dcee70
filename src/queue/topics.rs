//! Topics: queues subscribe by patterns (`enough_engine::topic`), and what is published goes to every queue that a pattern
//! matches, over the way that all messages go.
//!
//! The subscriptions are rows of `enough.topic_subscription`. Each session keeps them in its own memory; triggers of the table
//! invalidate what the server's sessions know of it, by which they learn of every change, by whichever session. A foreign key to
//! `enough.queue` makes subscriptions follow their queue.

use super::admin::alter::permitted;
use super::admin::ddl::lock_name;
use super::arguments::{delivery, key, priority};
use super::handle::{Queue, require_write};
use super::heap::insert::NewRow;
use super::send::send;
use crate::error::{Error, required};
use crate::export;
use crate::pg::catalog::{self, Privilege, watched_epoch};
use crate::pg::encoding::shown;
use crate::pg::fmgr::{Call, Value};
use crate::pg::savepoint::attempt;
use crate::pg::spi::{Parameter, as_owner_of, read_rows, run, text_bytes};
use crate::pg::{own, server};
use enough_engine::topic::{is_pattern, is_topic, matches};
use pgrx::PgSqlErrorCode as Code;
use std::cell::RefCell;
use std::rc::Rc;

export!(
    enough_topic_subscribe = subscribe,
    enough_topic_unsubscribe = unsubscribe,
    enough_topic_publish = publish,
    enough_topic_subscription_changed = changed,
);

type Answer = Result<Value<'static>, Error>;

/// A queue's subscriptions.
struct Subscriber {
    queue: Vec<u8>,
    patterns: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Known {
    /// How far the table's invalidations were before it was read; `None` where it hasn't been read.
    epoch: Option<u64>,
    subscribers: Rc<Vec<Subscriber>>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// How often the subscriptions are looked at again because they were changed while queues were locked.
const TRIES: usize = 100;

/// The table's OID.
fn table() -> Result<u32, Error> {
    own::check(c"topic_subscription", &own::TOPIC_SUBSCRIPTION)?;
    catalog::relation_named(c"topic_subscription").ok_or(Error::NoExtension)
}

/// All subscribers by name, as far as they are committed or this transaction's own; and [`watched_epoch`] as it was before.
fn subscribers() -> Result<(Rc<Vec<Subscriber>>, u64), Error> {
    catalog::see_committed();
    let known =
        KNOWN.with_borrow(|known| (known.epoch == Some(watched_epoch())).then(|| Rc::clone(&known.subscribers)));
    match known {
        Some(subscribers) => Ok((subscribers, watched_epoch())),
        None => load(),
    }
}

#[cold]
fn load() -> Result<(Rc<Vec<Subscriber>>, u64), Error> {
    let table = table()?;
    catalog::watch(table);
    let epoch = watched_epoch();
    let mut subscribers: Vec<Subscriber> = Vec::new();
    as_owner_of(table, || {
        read_rows(
            "SELECT queue, topic_pattern FROM enough.topic_subscription ORDER BY queue COLLATE pg_catalog.\"C\"",
            &[],
            |row| {
                let (Some(queue), Some(pattern)) = (text_bytes(row, 1)?, text_bytes(row, 2)?) else { return Ok(()) };
                match subscribers.last_mut() {
                    Some(last) if last.queue == queue => last.patterns.push(pattern.to_vec()),
                    _ => subscribers.push(Subscriber { queue: queue.to_vec(), patterns: vec![pattern.to_vec()] }),
                }
                Ok(())
            },
        )
    })?;
    let subscribers = Rc::new(subscribers);
    KNOWN.set(Known { epoch: Some(epoch), subscribers: Rc::clone(&subscribers) });
    Ok((subscribers, epoch))
}

/// The queues that are subscribed to a topic, in the order of their names, locked for writing until the transaction ends.
fn subscribed(topic: &[u8]) -> Result<Vec<Rc<Queue>>, Error> {
    for _ in 0..TRIES {
        let (subscribers, epoch) = subscribers()?;
        let queues = subscribers
            .iter()
            .filter(|subscriber| subscriber.patterns.iter().any(|pattern| matches(pattern, topic)))
            .map(|subscriber| Queue::open_locked(&subscriber.queue, true))
            .collect();
        // While this session waited for a lock, the queue may have been renamed or dropped.
        if watched_epoch() == epoch {
            return queues;
        }
    }
    Err(Error::Conflict { what: "the subscriptions of queues to topics".into() })
}

/// `(topic, message, delay, priority, group_key, headers)`
fn publish(call: &mut Call<'_>) -> Answer {
    let topic = required(call.bytes(0), "topic")?;
    if !is_topic(topic) {
        return Err(Error::invalid(
            "topic",
            shown(topic),
            "at most 255 bytes long: words of letters, digits, _ and -, separated by dots; wildcards are for patterns",
        ));
    }
    let enqueued_at = server::now();
    let message = required(call.jsonb(1), "message")?;
    let row = NewRow {
        deliver_at: delivery(call.interval(2), None, enqueued_at)?,
        priority: priority(call.i32(3))?,
        group_key: key(call.raw_text(4), "the group key")?,
        headers: call.jsonb(5),
        ..NewRow::new(enqueued_at, message)
    };
    require_write("topic_publish")?;
    let queues = subscribed(topic)?;
    for queue in &queues {
        queue.require(Privilege::Send)?;
    }
    for queue in &queues {
        send(queue, "topic_publish", std::slice::from_ref(&row))?;
    }
    Ok(Value::I32(i32::try_from(queues.len()).unwrap_or(i32::MAX)))
}

/// The arguments of both functions below: a pattern, and a queue whose subscriptions the caller may change, so that no other
/// session makes, renames or drops it before the transaction ends.
fn subscription<'c>(call: &Call<'c>, function: &'static str) -> Result<(&'c [u8], Rc<Queue>), Error> {
    let pattern = required(call.bytes(0), "topic_pattern")?;
    let name = required(call.bytes(1), "queue")?;
    if !is_pattern(pattern) {
        return Err(Error::invalid(
            "topic_pattern",
            shown(pattern),
            "at most 255 bytes long: words of letters, digits, _ and -, separated by dots; in the place of a whole word, * \
             stands for one, and # for any number of them",
        ));
    }
    let queue = permitted(name, function, false)?;
    lock_name(&queue.name);
    Ok((pattern, permitted(name, function, false)?))
}

/// `(topic_pattern, queue)`
fn subscribe(call: &mut Call<'_>) -> Answer {
    let (pattern, queue) = subscription(call, "topic_subscribe")?;
    let table = table()?;
    let insert = || {
        as_owner_of(table, || {
            run(
                "INSERT INTO enough.topic_subscription (topic_pattern, queue) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                &[Parameter::Bytes(pattern), Parameter::Text(&queue.name)],
            )
        })
    };
    match attempt(insert) {
        Ok(added) => Ok(Value::Bool(added > 0)),
        // The queue's row went by hand, or came after this transaction's snapshot was taken.
        Err(failure) if failure.code() == Some(Code::ERRCODE_FOREIGN_KEY_VIOLATION) => {
            Err(Error::Conflict { what: format!("the options of queue \"{}\"", queue.name) })
        }
        Err(failure) => failure.pass_on(),
    }
}

/// `(topic_pattern, queue)`
fn unsubscribe(call: &mut Call<'_>) -> Answer {
    let (pattern, queue) = subscription(call, "topic_unsubscribe")?;
    let removed = as_owner_of(table()?, || {
        run(
            "DELETE FROM enough.topic_subscription \
             WHERE topic_pattern OPERATOR(pg_catalog.=) $1 AND queue OPERATOR(pg_catalog.=) $2",
            &[Parameter::Bytes(pattern), Parameter::Text(&queue.name)],
        )
    })?;
    Ok(Value::Bool(removed > 0))
}

/// `_topic_subscription_changed`
fn changed(call: &mut Call<'_>) -> Answer {
    let hint = "It is for the triggers of enough.topic_subscription.";
    call.required_trigger("_topic_subscription_changed", hint)?.invalidate_relation();
    Ok(Value::VOID)
}
