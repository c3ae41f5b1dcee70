//! A segment that somebody has written to, or removed: sessions stay alive, and messages arrive.

use crate::common::{file, fresh, get, set, status, works};
use anyhow::{Context, Result, ensure};
use enough_pg_test::check::{healthy, refused};
use enough_pg_test::queue;
use enough_pg_test::segment::{Field, Part, SegmentFile};
use enough_pg_test::server::{self, Database};
use fastrand::Rng;
use postgres::Client;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use xtask::server::{Server, Shutdown};

/// A session that comes too late for the segment is told so by every function, and lives; time limits hold in it. Those
/// that have the segment go on with it, and nobody has another one. A restart mends it.
fn only_a_restart_helps(server: &mut Server, database: &Database, old: &mut Client, sent: &[i64]) -> Result<()> {
    let mut new = database.client()?;
    for _ in 0..2 {
        for call in ["cache_get('key')", "cache_set('key', '2')", "rate_limit('key', 1, '1 s')", "queue_read('q')"] {
            let hint = refused(new.query(&format!("SELECT enough.{call}"), &[]), "55000")?;
            ensure!(hint.contains("Restart the server"), "the hint: {hint}");
        }
        new.batch_execute("BEGIN; SAVEPOINT a")?;
        refused(new.query("SELECT enough.queue_send('q', '1')", &[]), "55000")?;
        new.batch_execute("ROLLBACK TO a; COMMIT")?;
        new.batch_execute("SET statement_timeout = '300 ms'")?;
        let began = Instant::now();
        refused(new.simple_query("SELECT pg_sleep(5)"), "57014")?;
        ensure!(began.elapsed() < Duration::from_secs(3), "a time limit came after {:?}", began.elapsed());
        new.batch_execute("RESET statement_timeout")?;
    }
    ensure!(get(old, "key")? == Some(json!(1)), "a session lost the segment that it had");
    let read = queue::drain(old, "q")?;
    ensure!(queue::sorted_ids(&read) == sent);
    healthy(&server.log(), false)?;
    server.restart(Shutdown::Fast)?;
    let database = Database::named(server, &database.name);
    works(&mut database.client()?, &mut database.client()?, "after_a_restart")
}

/// A server whose segment has something of everything in it, and the session that made it.
fn in_use() -> Result<(Server, Database, Client, Vec<i64>)> {
    let (server, database) = fresh(&server::options()?)?;
    let mut old = database.client()?;
    old.batch_execute("SELECT enough.queue_create('q', visibility_timeout => '1 hour')")?;
    let sent = queue::send_numbers(&mut old, "q", 20)?;
    set(&mut old, "key", 1)?;
    Ok((server, database, old, sent))
}

#[test]
fn another_segment_behind_the_handle_is_not_used() -> Result<()> {
    for field in [Field::Magic, Field::Nonce] {
        let (mut server, database, mut old, sent) = in_use()?;
        file(&mut old)?.set_word(field, 0x0123_4567_89ab_cdef)?;
        only_a_restart_helps(&mut server, &database, &mut old, &sent)?;
    }
    Ok(())
}

#[test]
fn another_layout_is_refused_and_sessions_that_know_theirs_go_on() -> Result<()> {
    let (server, database) = fresh(&server::options()?)?;
    let (mut old, mut older) = (database.client()?, database.client()?);
    works(&mut old, &mut older, "before")?;
    let segment = file(&mut old)?;
    let layout = segment.word(Field::Layout)?;
    segment.set_word(Field::Layout, layout + 1)?;
    for _ in 0..2 {
        let mut new = database.client()?;
        for call in ["cache_get('key')", "rate_limit('key', 1, '1 s')", "queue_read('before')"] {
            let hint = refused(new.query(&format!("SELECT enough.{call}"), &[]), "55000")?;
            ensure!(hint.contains("Restart the server"), "the hint: {hint}");
        }
        let warning = status(&mut new, "warning_segment_of_another_version")?;
        ensure!(warning.contains("restart the server"), "{warning}");
    }
    works(&mut old, &mut older, "meanwhile")?;
    segment.set_word(Field::Layout, layout)?;
    works(&mut database.client()?, &mut old, "after")?;
    healthy(&server.log(), false)
}

#[test]
fn a_segment_whose_file_was_removed_is_not_made_anew() -> Result<()> {
    let (mut server, database, mut old, sent) = in_use()?;
    let segment = file(&mut old)?;
    // As a logout does to a user's files there, where systemd is set to.
    std::fs::remove_file(&segment.path).with_context(|| format!("can't remove {}", segment.path.display()))?;
    only_a_restart_helps(&mut server, &database, &mut old, &sent)
}

#[test]
fn a_segment_whose_file_is_another_one_is_not_used() -> Result<()> {
    for len in [0, 100, 4096, 1 << 20] {
        let (mut server, database, mut old, sent) = in_use()?;
        let segment = file(&mut old)?;
        let head = segment.head(len)?;
        std::fs::remove_file(&segment.path)?;
        std::fs::write(&segment.path, head)?;
        std::os::unix::fs::chown(&segment.path, Some(segment.owner()?), None)?;
        only_a_restart_helps(&mut server, &database, &mut old, &sent).with_context(|| format!("{len} bytes"))?;
    }
    Ok(())
}

/// How a part is damaged.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// All of it is something else.
    Whole,
    /// So many words in a row, somewhere.
    Run(u64),
    /// So many words, scattered.
    Scattered(u64),
}

/// Words as a bug would leave them: anything, or what looks like a link or a length.
fn garbage(rng: &mut Rng) -> u64 {
    match rng.u8(0..6) {
        0 => 0,
        1 => u64::MAX,
        2 => rng.u64(0..100_000),
        3 => rng.u64(0..100_000) << 32 | rng.u64(0..100_000),
        4 => u64::from(rng.u32(..)),
        _ => rng.u64(..),
    }
}

fn damage(segment: &SegmentFile, part: Part, how: Damage, rng: &mut Rng) -> Result<()> {
    let words = part.len / 8;
    let run = |rng: &mut Rng, first: u64, count: u64| {
        let bytes: Vec<u8> = (0..count).flat_map(|_| garbage(rng).to_ne_bytes()).collect();
        segment.write(part.offset + first * 8, &bytes)
    };
    match how {
        Damage::Whole => run(rng, 0, words),
        Damage::Run(count) => {
            // More often near the beginning, where heads and tables are.
            let end = if rng.bool() { (words / 16).max(count + 1) } else { words };
            let first = rng.u64(0..=end.saturating_sub(count));
            run(rng, first, count.min(words))
        }
        Damage::Scattered(count) => (0..count).try_for_each(|_| {
            let first = rng.u64(0..words);
            run(rng, first, 1)
        }),
    }
}

/// Calls of every kind (with bytes in the cache, because any bytes are a value while not all are JSON); what they answer
/// is of no interest, if only the session lives. 55000 says that memory was damaged and has been reset, 22023 that a
/// cached value's kind was overwritten.
fn use_everything(client: &mut Client, rng: &mut Rng) -> Result<()> {
    let key = rng.u32(0..40);
    let calls = [
        format!("SELECT enough.cache_set_bytes('key {key}', convert_to(repeat('x', {}), 'UTF8'))", rng.u32(0..20_000)),
        format!("SELECT enough.cache_get_bytes('key {key}')"),
        format!("SELECT enough.cache_touch('key {key}', '1 minute')"),
        format!("SELECT enough.cache_delete('key {key}')"),
        "SELECT count(enough.cache_get_bytes('key ' || n)) FROM generate_series(0, 40) AS n".to_owned(),
        "SELECT * FROM enough.cache_stats()".to_owned(),
        format!("SELECT * FROM enough.rate_limit('key {key}', 10, '1 minute', algorithm => 'token_bucket')"),
        format!("SELECT * FROM enough.rate_limit('key {key}', 10, '1 minute')"),
        format!("SELECT enough.rate_limit_reset('key {key}')"),
        "SELECT * FROM enough.rate_limit_stats()".to_owned(),
        format!("SELECT enough.semaphore_acquire('key {key}', 3, '100 ms', '5 ms')"),
        format!("SELECT enough.semaphore_release('key {key}', token) FROM enough.semaphore_holders('key {key}')"),
        format!("SELECT enough.semaphore_extend('key {key}', token, '1 s') FROM enough.semaphore_holders('key {key}')"),
        "SELECT * FROM enough.semaphore_holders()".to_owned(),
        "SELECT * FROM enough.semaphore_stats()".to_owned(),
        "SELECT * FROM enough.queue_stats()".to_owned(),
        "SELECT * FROM enough.queue_send('other', '1', delay => '1 second')".to_owned(),
        "SELECT * FROM enough.queue_send('other', '2', priority => 5)".to_owned(),
        "SELECT enough.queue_delete('other', msg_id, lease) FROM enough.queue_read('other', 3)".to_owned(),
        "SELECT * FROM enough.maintain()".to_owned(),
    ];
    for call in rng.choose_multiple(calls.iter(), 10) {
        match client.simple_query(call) {
            Err(error) if !matches!(enough_pg_test::check::state(&error), "55000" | "22023") => {
                return Err(error).with_context(|| format!("in {call}"));
            }
            _ => {}
        }
    }
    client.simple_query("SELECT 1")?;
    Ok(())
}

/// Every message that is in the table comes out, or is kept as dead where the number of its attempts was overwritten.
/// After `maintain()`, because a mark that was overwritten may say that the index has everything.
fn all_are_delivered(database: &Database, sent: &[i64]) -> Result<()> {
    let mut client = database.client()?;
    let mut seen = BTreeSet::new();
    enough_pg_test::check::eventually("all messages have come after the damage", || {
        for call in ["SELECT enough.maintain()", "SELECT enough.queue_stats('q')"] {
            if let Err(error) = client.simple_query(call) {
                ensure!(enough_pg_test::check::state(&error) == "55000", "{call}: {error}");
            }
        }
        match queue::receive(&mut client, "queue_pop('q', 1000)") {
            Ok(some) => seen.extend(queue::ids(&some)),
            Err(error) => ensure!(enough_pg_test::check::state(&error) == "55000", "{error:?}"),
        }
        let left: i64 = client.query_one("SELECT count(*) FROM enough.q_q", &[])?.get(0);
        Ok((left == 0).then_some(()))
    })?;
    for row in client.query("SELECT msg_id FROM enough.a_q WHERE outcome = 'dead'", &[])? {
        seen.insert(row.get(0));
    }
    ensure!(seen.iter().copied().eq(sent.iter().copied()), "{} of {} messages", seen.len(), sent.len());
    Ok(())
}

fn round(server: &xtask::server::Server, seed: u64, how: &[Damage]) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let database = Database::on(server)?;
    let mut client = database.client()?;
    client.batch_execute("SELECT enough.queue_create('q', max_attempts => 1000000), enough.queue_create('other')")?;
    let sent = queue::send_numbers(&mut client, "q", 300)?;
    let segment = file(&mut client)?;
    let parts = segment.parts()?;
    let mut idle = database.client()?;
    for _ in 0..4 {
        for _ in 0..4 {
            use_everything(&mut client, &mut rng)?;
            use_everything(&mut idle, &mut rng)?;
        }
        // Some of the messages are leased for a moment when it happens.
        if let Err(error) = queue::receive(&mut client, "queue_read('q', 50, '100 milliseconds')") {
            ensure!(enough_pg_test::check::state(&error) == "55000", "{error:?}");
        }
        for part in &parts {
            if rng.u8(0..4) > 0 {
                let how = how[rng.usize(0..how.len())];
                damage(&segment, *part, how, &mut rng)?;
            }
        }
        for _ in 0..4 {
            use_everything(&mut idle, &mut rng)?;
            use_everything(&mut client, &mut rng)?;
            use_everything(&mut database.client()?, &mut rng)?;
        }
    }
    all_are_delivered(&database, &sent)
}

/// Seeds from `ENOUGH_DAMAGE_SEEDS` (`first..last`), or a few that are always the same.
fn seeds() -> Vec<u64> {
    let range = std::env::var("ENOUGH_DAMAGE_SEEDS").unwrap_or_default();
    let ends = range.split_once("..").and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match ends {
        Some((first, last)) => (first..last).collect(),
        None => (0..4).collect(),
    }
}

fn damaged(how: &[Damage]) -> Result<()> {
    let server = server::start(&server::options()?)?;
    for seed in seeds() {
        let outcome = round(&server, seed, how).and_then(|()| healthy(&server.log(), false));
        outcome.with_context(|| format!("damage {how:?} by seed {seed} (ENOUGH_DAMAGE_SEEDS)"))?;
    }
    Ok(())
}

#[test]
fn parts_full_of_garbage_are_reset() -> Result<()> {
    let server = server::start(&server::options()?)?;
    for seed in seeds() {
        round(&server, seed, &[Damage::Whole]).with_context(|| format!("by seed {seed} (ENOUGH_DAMAGE_SEEDS)"))?;
    }
    let mut client = server.client()?;
    client.batch_execute("CREATE EXTENSION pg_enough")?;
    let mut resets = 0;
    for region in ["queue", "cache", "rate_limit", "semaphore"] {
        resets += status(&mut client, &format!("{region}_resets"))?.parse::<u64>()?;
    }
    ensure!(resets > 0, "nothing was found damaged");
    let warnings = client.query("SELECT FROM enough.status() WHERE item = 'warning_memory_damaged'", &[])?;
    ensure!(!warnings.is_empty(), "and nobody is warned");
    healthy(&server.log(), false)
}

#[test]
fn stretches_of_garbage_take_no_session_down() -> Result<()> {
    damaged(&[Damage::Run(1), Damage::Run(20), Damage::Run(500), Damage::Run(5000)])
}

#[test]
fn scattered_garbage_takes_no_session_down() -> Result<()> {
    damaged(&[Damage::Scattered(1), Damage::Scattered(30), Damage::Scattered(1000), Damage::Scattered(20_000)])
}
