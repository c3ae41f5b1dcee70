//! The queue's SQL functions: arguments in, rows out. Their SQL side, with defaults and comments, is `sql/queue.sql`.

use super::ack::Step;
use super::arguments::{
    DAY, HOUR, MILLISECOND, MINUTE, MOST, OnePerMessage, SECOND, TEN_YEARS, YEAR, check_batch, delay, delivery,
    duration, finite, key, limit, msg_ids, optional_duration, priority, quantity, whole,
};
use super::pending;
use super::send::{self, OnConflict};
use crate::error::{Error, required, required_elements};
use crate::export;
use crate::pg::catalog::Privilege;
use crate::pg::encoding::decode_start;
use crate::pg::fmgr::{Call, Time, Value};
use crate::pg::memory::PgVec;
use crate::pg::server;
use crate::queue::admin::{alter, create, grant, rename, schedule};
use crate::queue::consume::batch::Batch;
use crate::queue::consume::reader::ReadRequest;
use crate::queue::consume::{claim, fail, finish, purge, read, redrive, release};
use crate::queue::handle::Queue;
use crate::queue::heap::insert::{Limits, NewRow};
use crate::queue::inspect::{look, peek, result, stats};
use crate::queue::name::valid_name_of;
use std::rc::Rc;

export!(
    enough_queue_create = create,
    enough_queue_drop = drop_queue,
    enough_queue_rename = rename_queue,
    enough_queue_send = send_one,
    enough_queue_send_batch = send_batch,
    enough_queue_send_unique = send_unique,
    enough_queue_read = read_some,
    enough_queue_read_any = read_any,
    enough_queue_pop = pop,
    enough_queue_delete = delete,
    enough_queue_delete_batch = delete_batch,
    enough_queue_extend = extend,
    enough_queue_extend_batch = extend_batch,
    enough_queue_fail = fail_one,
    enough_queue_fail_batch = fail_batch,
    enough_queue_release = release_one,
    enough_queue_release_batch = release_batch,
    enough_queue_archive = archive,
    enough_queue_archive_batch = archive_batch,
    enough_queue_alter = alter_queue,
    enough_queue_pause = pause,
    enough_queue_resume = resume,
    enough_queue_purge = purge_queue,
    enough_queue_peek = peek,
    enough_queue_status = status,
    enough_queue_result = result_of,
    enough_queue_grant = grant_to,
    enough_queue_revoke = revoke_from,
    enough_queue_schedule = schedule_one,
    enough_queue_unschedule = unschedule,
    enough_queue_schedules = schedules,
    enough_queue_dead = dead,
    enough_queue_redrive = redrive_some,
    enough_queue_stats = describe,
    enough_in_transaction_block = in_transaction_block,
);

type Answer = Result<Value<'static>, Error>;

pub(super) fn queue(call: &Call<'_>) -> Result<Rc<Queue>, Error> {
    Queue::open(required(call.bytes(0), "queue")?)
}

/// The same, for a call that writes its table: locked until the transaction ends. Where nothing may be written, the call says so
/// later.
pub(super) fn queue_to_write(call: &Call<'_>) -> Result<Rc<Queue>, Error> {
    open_to_write(required(call.bytes(0), "queue")?)
}

fn open_to_write(name: &[u8]) -> Result<Rc<Queue>, Error> {
    if server::may_write() { Queue::open_locked(name, true) } else { Queue::open(name) }
}

fn name<'c>(call: &Call<'c>) -> Result<&'c [u8], Error> {
    required(call.bytes(0), "name")
}

fn create(call: &mut Call<'_>) -> Answer {
    let interval = |index: usize, argument: &'static str, default: i64, least: i64| {
        duration(call.interval(index).unwrap_or(Time::Micros(default)), argument, least, YEAR)
    };
    let archive_for = match call.interval(8) {
        None => Some(7 * DAY),
        Some(Time::Infinite) => None,
        Some(given) => Some(duration(given, "archive_for", 0, i64::MAX)?).filter(|&micros| micros > 0),
    };
    let new = create::NewQueue {
        visibility_timeout: interval(1, "visibility_timeout", 30 * SECOND, MILLISECOND)?,
        max_attempts: whole(call.i32(2).unwrap_or(10), "max_attempts", 0, 1_000_000)?,
        retry_backoff: interval(3, "retry_backoff", SECOND, 0)?,
        retry_backoff_max: interval(4, "retry_backoff_max", HOUR, 0)?,
        max_in_flight: limit(call.i32(5), "max_in_flight")?.filter(|&most| most > 0),
        max_rate: limit(call.i32(6), "max_rate")?.filter(|&most| most > 0),
        rate_period: interval(7, "rate_period", SECOND, MILLISECOND)?,
        archive_for,
        unlogged: call.bool(9).unwrap_or(false),
        if_not_exists: call.bool(10).unwrap_or(false),
        durable_attempts: call.bool(11).unwrap_or(false),
        ack: ack(call.bytes(12))?.unwrap_or("durable"),
        group_limit: limit(call.i32(13), "group_limit")?.unwrap_or(1),
        dead_letter_queue: call.bytes(14).unwrap_or_default(),
        notify: call.bool(15).unwrap_or(false),
        dedup: dedup(call.bytes(16))?.unwrap_or("live"),
        dedup_for: interval(17, "dedup_for", 5 * MINUTE, MILLISECOND)?,
        group_rate: limit(call.i32(18), "group_rate")?.filter(|&most| most > 0),
        group_rate_period: interval(19, "group_rate_period", SECOND, MILLISECOND)?,
    };
    Ok(Value::Bool(create::create(name(call)?, &new)?))
}

/// How messages are acknowledged, as `enough.queue` has it.
fn ack(given: Option<&[u8]>) -> Result<Option<&'static str>, Error> {
    match given {
        None => Ok(None),
        Some(b"durable") => Ok(Some("durable")),
        Some(b"async") => Ok(Some("async")),
        Some(other) => Err(Error::invalid("ack", decode_start(other, 20), "\"durable\" or \"async\"")),
    }
}

/// Which messages have their dedup key, as `enough.queue` has it.
fn dedup(given: Option<&[u8]>) -> Result<Option<&'static str>, Error> {
    match given {
        None => Ok(None),
        Some(b"live") => Ok(Some("live")),
        Some(b"waiting") => Ok(Some("waiting")),
        Some(b"window") => Ok(Some("window")),
        Some(other) => Err(Error::invalid("dedup", decode_start(other, 20), "\"live\", \"waiting\" or \"window\"")),
    }
}

fn drop_queue(call: &mut Call<'_>) -> Answer {
    let if_exists = call.bool(1).unwrap_or(false);
    Ok(Value::Bool(create::drop_queue(name(call)?, if_exists)?))
}

fn rename_queue(call: &mut Call<'_>) -> Answer {
    rename::rename(name(call)?, required(call.bytes(1), "new_name")?)?;
    Ok(Value::VOID)
}

/// A message's own limits: of arguments at these places, `expires_in` and `max_attempts`.
fn limits(call: &Call<'_>, at: (usize, usize), now: i64, deliver_at: Option<i64>) -> Result<Limits, Error> {
    let (expires_in, max_attempts) = (call.interval(at.0), call.i32(at.1));
    if expires_in.is_none() && max_attempts.is_none() {
        return Ok(Limits::default());
    }
    let expires_in = optional_duration(expires_in, "expires_in", MILLISECOND, TEN_YEARS)?;
    let expires_at = expires_in.map(|after| now.saturating_add(after));
    if let (Some(expires_at), Some(deliver_at), Some(after)) = (expires_at, deliver_at, expires_in)
        && expires_at <= deliver_at
    {
        let given = Time::Micros(after).describe();
        return Err(Error::invalid("expires_in", given, "longer than until the message may be delivered"));
    }
    let max_attempts = max_attempts.map(|most| whole(most, "max_attempts", 1, 1_000_000)).transpose()?;
    Ok(Limits { expires_at, max_attempts })
}

fn send_one(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let enqueued_at = server::now();
    let message = required(call.jsonb(1), "message")?;
    let deliver_at = delivery(call.interval(2), call.instant(7), enqueued_at)?;
    let row = NewRow {
        deliver_at,
        priority: priority(call.i32(3))?,
        group_key: key(call.raw_text(4), "the group key")?,
        dedup_key: key(call.raw_text(5), "the dedup key")?,
        headers: call.jsonb(6),
        limits: limits(call, (8, 9), enqueued_at, deliver_at)?,
        ..NewRow::new(enqueued_at, message)
    };
    let numbers = send::send(&queue, "queue_send", &[row])?;
    Ok(Value::or_null(numbers.first().copied(), Value::I64))
}

fn send_batch(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let enqueued_at = server::now();
    let deliver_at = call.instant(7);
    let for_all = (delivery(call.interval(2), deliver_at, enqueued_at)?, priority(call.i32(3))?);
    let limits = limits(call, (10, 11), enqueued_at, for_all.0)?;
    // As for `msg_ids`.
    let Some(messages) = call.jsonb_array(1) else { return all(call, &[]) };
    check_batch(messages.len())?;
    let groups = OnePerMessage::new(call.raw_text_array(4), "group_keys", messages.len())?;
    let dedups = OnePerMessage::new(call.raw_text_array(5), "dedup_keys", messages.len())?;
    let headers = OnePerMessage::new(call.jsonb_array(6), "headers", messages.len())?;
    let priorities = OnePerMessage::new(call.i32_array(8), "priorities", messages.len())?;
    let delays = OnePerMessage::new(call.interval_array(9), "delays", messages.len())?;
    let rows: PgVec<NewRow<'_>> = required_elements(messages.iter(), "messages")
        .enumerate()
        .map(|(place, message)| {
            let own_delivery = delays.get(place).map(|given| {
                let own = delay(Some(given)).map_err(|error| error.of_element("delays", place))?;
                delivery(Some(Time::Micros(own)), deliver_at, enqueued_at)
            });
            let own_priority = priorities.get(place).map(|given| priority(Some(given)));
            Ok(NewRow {
                enqueued_at,
                deliver_at: own_delivery.transpose()?.unwrap_or(for_all.0),
                priority: own_priority
                    .transpose()
                    .map_err(|error| error.of_element("priorities", place))?
                    .unwrap_or(for_all.1),
                group_key: key(groups.get(place), "the group key")
                    .map_err(|error| error.of_element("group_keys", place))?,
                dedup_key: key(dedups.get(place), "the dedup key")
                    .map_err(|error| error.of_element("dedup_keys", place))?,
                headers: headers.get(place),
                message: message?,
                limits,
            })
        })
        .collect::<Result<_, Error>>()?;
    let numbers = send::send(&queue, "queue_send_batch", &rows)?;
    all(call, &numbers)
}

fn send_unique(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let enqueued_at = server::now();
    let on_conflict = match call.text(3) {
        None => OnConflict::Keep,
        Some(given) => OnConflict::named(&given)
            .ok_or_else(|| Error::invalid("on_conflict", format!("\"{given}\""), "\"keep\" or \"replace\""))?,
    };
    let message = required(call.jsonb(1), "message")?;
    let row = NewRow {
        deliver_at: delivery(call.interval(4), call.instant(8), enqueued_at)?,
        priority: priority(call.i32(5))?,
        group_key: key(call.raw_text(6), "the group key")?,
        dedup_key: Some(required(key(call.raw_text(2), "the dedup key")?, "dedup_key")?),
        headers: call.jsonb(7),
        ..NewRow::new(enqueued_at, message)
    };
    let (msg_id, outcome) = send::send_unique(&queue, &row, on_conflict)?;
    let mut rows = call.rows()?;
    rows.push(&[Value::I64(msg_id), Value::Bytes(outcome.name().as_bytes())])?;
    Ok(rows.end())
}

pub(super) fn all(call: &mut Call<'_>, numbers: &[i64]) -> Answer {
    let mut answer = call.rows()?;
    for &number in numbers {
        answer.push(&[Value::I64(number)])?;
    }
    Ok(answer.end())
}

fn wait(given: Option<Time>) -> Result<i64, Error> {
    duration(given.unwrap_or(Time::Micros(0)), "wait", 0, HOUR)
}

fn read_some(call: &mut Call<'_>) -> Answer {
    let queue = queue(call)?;
    let wish = ReadRequest {
        qty: quantity(call.i32(1), 1)?,
        timeout: optional_duration(call.interval(2), "visibility_timeout", 0, YEAR)?,
        wait: wait(call.interval(3))?,
        delete: false,
        whole_groups: call.bool(4).unwrap_or(false),
        function: "queue_read",
    };
    let mut rows = call.rows()?;
    let step = Step::begin();
    read::read(&queue, &wish, &mut rows)?;
    if pending::waits() {
        step.has_read();
    }
    Ok(rows.end())
}

fn read_any(call: &mut Call<'_>) -> Answer {
    let given = call.text_array(0);
    let names = given.iter().flat_map(|names| required_elements(names.iter(), "queues"));
    let names: Vec<&[u8]> = names.collect::<Result<_, _>>()?;
    if names.len() > MOST as usize {
        let (size, limit, hint) = (names.len(), MOST as usize, "Split it into several calls.");
        return Err(Error::TooLarge { what: "the list".into(), size, limit, unit: "queues", hint });
    }
    let mut queues: Vec<Rc<Queue>> = Vec::with_capacity(names.len());
    for name in names {
        let queue = Queue::open(name)?;
        if !queues.iter().any(|other| other.name == queue.name) {
            queues.push(queue);
        }
    }
    let wish = ReadRequest {
        qty: quantity(call.i32(1), 1)?,
        timeout: optional_duration(call.interval(2), "visibility_timeout", 0, YEAR)?,
        wait: wait(call.interval(3))?,
        delete: false,
        whole_groups: call.bool(4).unwrap_or(false),
        function: "queue_read_any",
    };
    let mut rows = call.rows()?;
    if queues.is_empty() {
        return Ok(rows.end());
    }
    let step = Step::begin();
    read::read_any(&queues, &wish, &mut rows)?;
    if pending::waits() {
        step.has_read();
    }
    Ok(rows.end())
}

fn pop(call: &mut Call<'_>) -> Answer {
    let queue = queue(call)?;
    let wish = ReadRequest {
        qty: quantity(call.i32(1), 1)?,
        timeout: None,
        wait: wait(call.interval(2))?,
        delete: true,
        whole_groups: false,
        function: "queue_pop",
    };
    let mut rows = call.rows()?;
    read::read(&queue, &wish, &mut rows)?;
    Ok(rows.end())
}

fn lease(call: &Call<'_>, index: usize) -> Option<u64> {
    call.i64(index).map(i64::cast_unsigned)
}

fn delete(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let msg_id = required(call.i64(1), "msg_id")?;
    claim::require_consume(&queue, "queue_delete")?;
    let table = queue.open_table(true)?;
    Ok(Value::Bool(finish::delete(&queue, &table, msg_id, lease(call, 2))?))
}

/// The messages of a batch, each with the lease that its caller names.
fn batch(call: &Call<'_>) -> Result<Batch, Error> {
    let numbers = msg_ids(call.i64_array(1))?;
    let leases = OnePerMessage::new(call.i64_array(2), "leases", numbers.len())?;
    Ok(Batch::new(&numbers, &leases))
}

fn delete_batch(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let batch = batch(call)?;
    claim::require_consume(&queue, "queue_delete_batch")?;
    let table = queue.open_table(true)?;
    all(call, &batch.delete(&queue, &table)?.numbers())
}

fn archive(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let msg_id = required(call.i64(1), "msg_id")?;
    claim::require_consume(&queue, "queue_archive")?;
    let table = queue.open_table(true)?;
    Ok(Value::Bool(finish::archive(&queue, &table, msg_id, call.jsonb(2), lease(call, 3))?))
}

fn archive_batch(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let batch = batch(call)?;
    let results = OnePerMessage::new(call.jsonb_array(3), "results", batch.len())?;
    claim::require_consume(&queue, "queue_archive_batch")?;
    let table = queue.open_table(true)?;
    all(call, &batch.archive(&queue, &table, &results)?.numbers())
}

/// What is to become of a message that has failed.
fn then(retry_in: Option<Time>, dead: Option<bool>) -> Result<fail::Then, Error> {
    let retry_in = optional_duration(retry_in, "retry_in", 0, TEN_YEARS)?;
    match (dead.unwrap_or(false), retry_in) {
        (false, retry_in) => Ok(fail::Then::Retry(retry_in)),
        (true, None) => Ok(fail::Then::Die),
        (true, Some(_)) => Err(Error::invalid("retry_in", "given together with dead", "left out where dead is true")),
    }
}

fn fail_one(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let msg_id = required(call.i64(1), "msg_id")?;
    let then = then(call.interval(3), call.bool(5))?;
    claim::require_consume(&queue, "queue_fail")?;
    let table = queue.open_table(true)?;
    let fate = fail::fail(&queue, &table, msg_id, call.raw_text(2), then, lease(call, 4))?;
    Ok(Value::or_null(fate, |fate| match fate {
        fail::Fate::Retry => Value::Bytes(b"retry"),
        fail::Fate::Dead => Value::Bytes(b"dead"),
    }))
}

fn fail_batch(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let batch = batch(call)?;
    let then = then(call.interval(4), call.bool(5))?;
    claim::require_consume(&queue, "queue_fail_batch")?;
    let table = queue.open_table(true)?;
    all(call, &batch.fail(&queue, &table, call.raw_text(3), then)?.numbers())
}

fn release_one(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let msg_id = required(call.i64(1), "msg_id")?;
    let delay = delay(call.interval(2))?;
    claim::require_consume(&queue, "queue_release")?;
    let table = queue.open_table(true)?;
    Ok(Value::Bool(release::release(&queue, &table, msg_id, delay, lease(call, 3))?))
}

fn release_batch(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let batch = batch(call)?;
    let delay = delay(call.interval(3))?;
    claim::require_consume(&queue, "queue_release_batch")?;
    let table = queue.open_table(true)?;
    all(call, &batch.release(&queue, &table, delay)?.numbers())
}

fn alter_queue(call: &mut Call<'_>) -> Answer {
    let between = |index: usize, argument: &'static str, least: i64| {
        optional_duration(call.interval(index), argument, least, YEAR)
    };
    let archive_for = match call.interval(8) {
        None => None,
        Some(Time::Infinite) => Some(0),
        Some(given) => Some(duration(given, "archive_for", 0, i64::MAX)?),
    };
    let change = alter::Change {
        visibility_timeout: between(1, "visibility_timeout", MILLISECOND)?,
        max_attempts: call.i32(2).map(|most| whole(most, "max_attempts", 0, 1_000_000)).transpose()?,
        retry_backoff: between(3, "retry_backoff", 0)?,
        retry_backoff_max: between(4, "retry_backoff_max", 0)?,
        max_in_flight: limit(call.i32(5), "max_in_flight")?,
        max_rate: limit(call.i32(6), "max_rate")?,
        rate_period: between(7, "rate_period", MILLISECOND)?,
        archive_for,
        unlogged: call.bool(9),
        paused: None,
        durable_attempts: call.bool(10),
        ack: ack(call.bytes(11))?,
        group_limit: limit(call.i32(12), "group_limit")?,
        dead_letter_queue: call.bytes(13),
        notify: call.bool(14),
        dedup: dedup(call.bytes(15))?,
        dedup_for: between(16, "dedup_for", MILLISECOND)?,
        group_rate: limit(call.i32(17), "group_rate")?,
        group_rate_period: between(18, "group_rate_period", MILLISECOND)?,
    };
    alter::alter(name(call)?, "queue_alter", &change)?;
    Ok(Value::VOID)
}

fn pause(call: &mut Call<'_>) -> Answer {
    let change = alter::Change { paused: Some(true), ..alter::Change::default() };
    alter::alter(name(call)?, "queue_pause", &change)?;
    Ok(Value::VOID)
}

fn resume(call: &mut Call<'_>) -> Answer {
    let change = alter::Change { paused: Some(false), ..alter::Change::default() };
    alter::alter(name(call)?, "queue_resume", &change)?;
    Ok(Value::VOID)
}

fn purge_queue(call: &mut Call<'_>) -> Answer {
    let queue = open_to_write(name(call)?)?;
    Ok(Value::I64(purge::purge(&queue)?))
}

fn peek(call: &mut Call<'_>) -> Answer {
    let queue = queue(call)?;
    let qty = quantity(call.i32(1), 10)?;
    let state = call.text(2).unwrap_or_else(|| "ready".into());
    let wanted = peek::Wanted::named(&state).ok_or_else(|| {
        Error::invalid("state", format!("\"{state}\""), "\"ready\", \"leased\", \"delayed\", \"done\" or \"dead\"")
    })?;
    let filter = peek::Filter { after: call.i64(3), matching: call.jsonb(4), group_key: call.raw_text(5) };
    let mut rows = call.rows()?;
    peek::peek(&queue, qty, wanted, &filter, &mut rows)?;
    Ok(rows.end())
}

fn status(call: &mut Call<'_>) -> Answer {
    let queue = queue(call)?;
    let msg_id = required(call.i64(1), "msg_id")?;
    let mut rows = call.rows()?;
    look::status(&queue, msg_id, &mut rows)?;
    Ok(rows.end())
}

fn result_of(call: &mut Call<'_>) -> Answer {
    let queue = queue(call)?;
    let msg_id = required(call.i64(1), "msg_id")?;
    let wait = wait(call.interval(2))?;
    let mut rows = call.rows()?;
    result::result(&queue, msg_id, wait, &mut rows)?;
    Ok(rows.end())
}

fn dead(call: &mut Call<'_>) -> Answer {
    let queue = queue(call)?;
    let qty = quantity(call.i32(1), 100)?;
    let mut rows = call.rows()?;
    redrive::dead(&queue, qty as i64, &mut rows)?;
    Ok(rows.end())
}

fn redrive_some(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let numbers = call.i64_array(1).map(|given| msg_ids(Some(given))).transpose()?;
    let to = match call.bytes(2) {
        Some(to) if to != queue.name.as_bytes() => Some(open_to_write(to)?),
        _ => None,
    };
    let which = redrive::Which {
        numbers: numbers.as_deref(),
        died_before: call.instant(3).map(|at| finite(at, "died_before")).transpose()?,
        matching: call.jsonb(4),
        max: call.i32(5).map(|max| whole(max, "max", 1, i32::MAX)).transpose()?.map(i64::from),
    };
    claim::require_consume(&queue, "queue_redrive")?;
    if let Some(to) = &to {
        to.require(Privilege::Send)?;
    }
    Ok(Value::I64(redrive::redrive(&queue, &which, to.as_deref())?))
}

fn change_privileges(call: &Call<'_>, direction: grant::Direction) -> Answer {
    let queue = queue(call)?;
    let role = required(call.i32(1), "role")?.cast_unsigned();
    let what = required(call.text(2), "what")?;
    grant::change(&queue, direction, role, &what)?;
    Ok(Value::VOID)
}

fn grant_to(call: &mut Call<'_>) -> Answer {
    change_privileges(call, grant::Direction::Grant)
}

fn revoke_from(call: &mut Call<'_>) -> Answer {
    change_privileges(call, grant::Direction::Revoke)
}

fn schedule_one(call: &mut Call<'_>) -> Answer {
    let when = required(call.text(1), "schedule")?;
    if when.trim().is_empty() {
        return Err(Error::invalid("schedule", "an empty text", "a cron schedule such as '0 3 * * *'"));
    }
    let queue = Queue::open(required(call.bytes(2), "queue")?)?;
    let schedule = schedule::Schedule {
        name: valid_name_of("schedule", name(call)?)?,
        when: &when,
        message: required(call.jsonb(3), "message")?,
        delay: delay(call.interval(4))?,
        priority: priority(call.i32(5))?.into(),
        group_key: key(call.raw_text(6), "the group key")?,
        dedup_key: key(call.raw_text(7), "the dedup key")?,
        headers: call.jsonb(8),
    };
    Ok(Value::I64(schedule::schedule(&queue, &schedule)?))
}

fn unschedule(call: &mut Call<'_>) -> Answer {
    Ok(Value::Bool(schedule::unschedule(valid_name_of("schedule", name(call)?)?)?))
}

fn schedules(call: &mut Call<'_>) -> Answer {
    let mut rows = call.rows()?;
    schedule::list(&mut rows)?;
    Ok(rows.end())
}

fn extend(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let msg_id = required(call.i64(1), "msg_id")?;
    let timeout = duration(required(call.interval(2), "visibility_timeout")?, "visibility_timeout", 0, YEAR)?;
    require_extend(&queue, "queue_extend")?;
    let table = queue.open_table(server::may_write())?;
    Ok(Value::or_null(finish::extend(&queue, &table, msg_id, timeout, lease(call, 3))?, Value::Instant))
}

fn extend_batch(call: &mut Call<'_>) -> Answer {
    let queue = queue_to_write(call)?;
    let batch = batch(call)?;
    let timeout = optional_duration(call.interval(3), "visibility_timeout", 0, YEAR)?;
    require_extend(&queue, "queue_extend_batch")?;
    let timeout = match timeout {
        Some(timeout) => timeout,
        None => queue.index(|index, slot| index.options(slot))?.visibility_timeout,
    };
    let table = queue.open_table(server::may_write())?;
    all(call, &batch.extend(&queue, &table, timeout)?.numbers())
}

/// Fails where the role may not extend leases of the queue, or there are none on this server.
fn require_extend(queue: &Queue, function: &'static str) -> Result<(), Error> {
    queue.require(Privilege::Consume)?;
    if server::in_recovery() { Err(Error::ReadOnly { function }) } else { Ok(()) }
}

fn describe(call: &mut Call<'_>) -> Answer {
    // Locked: another session may be about to drop one.
    let queues: Vec<Rc<Queue>> = match call.bytes(0) {
        Some(name) => {
            stats::require_visible(&*Queue::open(name)?)?;
            vec![Queue::open_locked(name, false)?]
        }
        // Of all queues those that the role may see.
        None => stats::names()?
            .iter()
            .filter(|name| Queue::open(name.as_bytes()).is_ok_and(|queue| stats::visible(&queue)))
            .filter_map(|name| Queue::open_locked(name.as_bytes(), false).ok())
            .collect(),
    };
    let mut rows = call.rows()?;
    for queue in queues {
        stats::describe(&queue, &mut rows)?;
    }
    Ok(rows.end())
}

/// `_in_transaction_block`, for `queue_work`, which is written in SQL.
#[allow(clippy::unnecessary_wraps, reason = "as all functions that SQL calls")]
fn in_transaction_block(_call: &mut Call<'_>) -> Answer {
    Ok(Value::Bool(server::in_transaction_block()))
}
