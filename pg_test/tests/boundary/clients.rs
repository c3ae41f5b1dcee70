//! Clients that are gone while a call of theirs waits: nothing is taken for them.

use anyhow::{Context, Result, bail, ensure};
use enough_pg_test::check::{eventually, healthy};
use enough_pg_test::pgbouncer::{self, Pooler};
use enough_pg_test::queue;
use enough_pg_test::server::{self, Database, backend, until_locked, until_waiting};
use postgres::Client;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use xtask::server::{SUPERUSER, Server, Signal, signal};

/// A connection by hand, which can be cut at any moment.
struct Raw {
    stream: TcpStream,
    pid: u32,
}

impl Raw {
    fn connect(port: u16, database: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut packet = vec![0, 3, 0, 0];
        for (name, value) in [("user", SUPERUSER), ("database", database)] {
            packet.extend(name.bytes().chain([0]).chain(value.bytes()).chain([0]));
        }
        packet.push(0);
        stream.write_all(&(u32::try_from(packet.len() + 4)?).to_be_bytes())?;
        stream.write_all(&packet)?;
        let mut raw = Self { stream, pid: 0 };
        loop {
            let (kind, body) = raw.receive()?;
            match kind {
                b'K' => raw.pid = u32::from_be_bytes(body[..4].try_into()?),
                b'Z' => return Ok(raw),
                b'E' => bail!("refused: {}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let len = u32::from_be_bytes(head[1..].try_into()?) as usize - 4;
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    /// Sends a statement and doesn't wait for the answer.
    fn send(&mut self, statement: &str) -> Result<()> {
        let mut packet = vec![b'Q'];
        packet.extend(u32::try_from(statement.len() + 5)?.to_be_bytes());
        packet.extend(statement.bytes().chain([0]));
        Ok(self.stream.write_all(&packet)?)
    }
}

/// How a client goes.
#[derive(Debug, Clone, Copy)]
enum Going {
    /// Its process ends, or its driver has had enough.
    Closes,
    /// As a driver does in good order.
    SaysGoodbye,
    /// It listens still, but has nothing more to say.
    ShutsDown,
}

impl Going {
    const ALL: [Self; 3] = [Self::Closes, Self::SaysGoodbye, Self::ShutsDown];

    /// The stream is kept where only one half of it is closed.
    fn go(self, mut raw: Raw) -> Result<Option<TcpStream>> {
        Ok(match self {
            Self::Closes => None,
            Self::SaysGoodbye => {
                raw.stream.write_all(&[b'X', 0, 0, 0, 4])?;
                None
            }
            Self::ShutsDown => {
                raw.stream.shutdown(Shutdown::Write)?;
                Some(raw.stream)
            }
        })
    }
}

/// Calls that wait. A message that they took would be gone, hidden for an hour, or come as a second delivery.
const WAITS: [&str; 3] = [
    "SELECT * FROM enough.queue_pop('q', wait => '30 s')",
    "SELECT * FROM enough.queue_read('q', visibility_timeout => '1 hour', wait => '30 s')",
    "BEGIN; SELECT * FROM enough.queue_read('q', 10, wait => '30 s')",
];

fn made(options: &str) -> Result<(Server, Database, Client)> {
    let server = server::start(&server::options()?)?;
    let database = Database::on(&server)?;
    let mut client = database.client()?;
    client.batch_execute(&format!("SELECT enough.queue_create('q'{options})"))?;
    ensure!(client.query_one("SHOW client_connection_check_interval", &[])?.get::<_, &str>(0) == "0");
    Ok((server, database, client))
}

/// The next message comes to `client`, as its first delivery.
fn next_comes_here(client: &mut Client, how: &str) -> Result<()> {
    let sent = queue::send(client, "q", &json!(how))?;
    let read = eventually("the message comes", || {
        let read = queue::receive(client, "queue_read('q')")?;
        Ok((!read.is_empty()).then_some(read))
    })?;
    ensure!(queue::ids(&read) == [sent] && read[0].attempts == 1, "{how}: {read:?}");
    ensure!(queue::delete(client, "q", sent, read[0].lease)?, "{how}");
    Ok(())
}

fn until_gone(client: &mut Client, pid: u32, how: &str) -> Result<()> {
    let began = Instant::now();
    eventually(how, || {
        let there = client.query_opt("SELECT 1 FROM pg_stat_activity WHERE pid = $1", &[&i32::try_from(pid)?])?;
        Ok(there.is_none().then_some(()))
    })?;
    ensure!(began.elapsed() < Duration::from_secs(10), "{how}: its session ended after {:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_message_that_comes_after_the_client_has_gone_is_another_ones() -> Result<()> {
    let (server, database, mut client) = made("")?;
    for wait in WAITS {
        for going in Going::ALL {
            let how = format!("{going:?} in {wait}");
            let mut raw = Raw::connect(server.port(), &database.name)?;
            let pid = raw.pid;
            raw.send(wait)?;
            until_waiting(&mut client, pid)?;
            // At once: whoever is woken by it finds its client gone.
            let rest = going.go(raw)?;
            next_comes_here(&mut client, &how)?;
            until_gone(&mut client, pid, &how)?;
            drop(rest);
            // Nobody sends anything: a session without a client doesn't stay for that.
            let mut raw = Raw::connect(server.port(), &database.name)?;
            let pid = raw.pid;
            raw.send(wait)?;
            until_waiting(&mut client, pid)?;
            let rest = going.go(raw)?;
            until_gone(&mut client, pid, &how)?;
            next_comes_here(&mut client, &how)?;
            drop(rest);
        }
    }
    healthy(&server.log(), false)
}

/// A semaphore that was taken for such a client would be held by nobody for its whole ttl.
#[test]
fn a_semaphore_is_not_taken_for_a_client_that_has_gone() -> Result<()> {
    let (server, database, mut client) = made("")?;
    let mut held: i64 = client.query_one("SELECT enough.semaphore_acquire('s', ttl => '1 hour')", &[])?.get(0);
    for begin in ["", "BEGIN; "] {
        for going in Going::ALL {
            let how = format!("{going:?} {begin}");
            let mut raw = Raw::connect(server.port(), &database.name)?;
            let pid = raw.pid;
            raw.send(&format!("{begin}SELECT enough.semaphore_acquire('s', wait => '30 s', ttl => '1 hour')"))?;
            until_waiting(&mut client, pid)?;
            // At once: who is woken by it finds its client gone.
            let rest = going.go(raw)?;
            let row = client.query_one("SELECT enough.semaphore_release('s', $1)", &[&held])?;
            ensure!(row.get::<_, bool>(0), "{how}");
            until_gone(&mut client, pid, &how)?;
            let row = client.query_one("SELECT enough.semaphore_acquire('s', ttl => '1 hour')", &[])?;
            held = row.get::<_, Option<i64>>(0).with_context(|| how.clone())?;
            drop(rest);
        }
    }
    healthy(&server.log(), false)
}

#[test]
fn a_client_that_is_killed_while_it_waits_takes_nothing() -> Result<()> {
    let (server, database, mut client) = made("")?;
    for wait in &WAITS[..2] {
        let url = format!("{}?application_name=killed", server.url_for(&database.name, SUPERUSER));
        let mut psql = server.command("psql")?;
        let mut psql = psql.args(["--no-psqlrc", "-d", &url, "-c", wait]).spawn()?;
        let pid = eventually("psql waits", || {
            let waiting =
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'killed' AND wait_event_type = 'Extension'";
            Ok(client.query_opt(waiting, &[])?.map(|row| row.get::<_, i32>(0)))
        })?;
        psql.kill()?;
        psql.wait()?;
        next_comes_here(&mut client, wait)?;
        until_gone(&mut client, u32::try_from(pid)?, wait)?;
    }
    healthy(&server.log(), false)
}

#[test]
fn a_client_behind_a_pooler_that_has_gone_takes_nothing() -> Result<()> {
    let (server, database, mut client) = made("")?;
    if !pgbouncer::is_there(&server) {
        eprintln!("no pgbouncer here");
        return Ok(());
    }
    for mode in ["session", "transaction", "statement"] {
        let pools = pgbouncer::database("app", &server, &database.name, "pool_size=1");
        let pooler = Pooler::start(&server, &pools, &format!("pool_mode = {mode}"))?;
        for wait in &WAITS[..2] {
            for going in [Going::Closes, Going::SaysGoodbye] {
                let how = format!("{going:?} in {wait} behind a pool of mode {mode}");
                let mut raw = Raw::connect(pooler.port(), "app")?;
                raw.send(wait)?;
                let pid = eventually("the reader sleeps", || {
                    let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                                   AND pid <> pg_backend_pid() AND wait_event_type = 'Extension'";
                    Ok(client.query_opt(waiting, &[])?.map(|row| row.get::<_, i32>(0)))
                })?;
                going.go(raw)?;
                // The pooler hears of it some moments later, and ends the server's connection.
                until_gone(&mut client, u32::try_from(pid)?, &how)?;
                next_comes_here(&mut client, &how)?;
            }
        }
    }
    healthy(&server.log(), false)
}

#[test]
fn a_client_that_has_gone_while_the_table_was_locked_takes_nothing() -> Result<()> {
    let (server, database, mut client) = made("")?;
    for call in ["queue_pop('q')", "queue_read('q', visibility_timeout => '1 hour')"] {
        let sent = queue::send(&mut client, "q", &json!(call))?;
        client.batch_execute("BEGIN; LOCK TABLE enough.q_q")?;
        let mut raw = Raw::connect(server.port(), &database.name)?;
        let pid = raw.pid;
        raw.send(&format!("SELECT * FROM enough.{call}"))?;
        let mut watch = database.client()?;
        until_locked(&mut watch, pid)?;
        drop(raw);
        std::thread::sleep(Duration::from_millis(100));
        client.batch_execute("COMMIT")?;
        until_gone(&mut client, pid, call)?;
        let read = queue::read(&mut client, "q", 10)?;
        ensure!(queue::ids(&read) == [sent] && read[0].attempts == 1, "{call}: {read:?}");
        ensure!(queue::delete(&mut client, "q", sent, read[0].lease)?);
    }
    // A send is another matter: it was wanted, and takes nothing from anybody.
    client.batch_execute("BEGIN; LOCK TABLE enough.q_q")?;
    let mut raw = Raw::connect(server.port(), &database.name)?;
    raw.send("SELECT enough.queue_send('q', '\"from a client that has gone\"')")?;
    std::thread::sleep(Duration::from_millis(200));
    drop(raw);
    client.batch_execute("COMMIT")?;
    eventually("the message is there", || Ok((queue::read(&mut client, "q", 10)?.len() == 1).then_some(())))?;
    healthy(&server.log(), false)
}

#[test]
fn waiting_goes_on_while_the_client_is_there() -> Result<()> {
    let (server, database, mut client) = made("")?;
    // By each kind of socket, and with more sent than the server reads before it has answered.
    let mut raw = Raw::connect(server.port(), &database.name)?;
    raw.send(WAITS[0])?;
    raw.send("SELECT 'next'")?;
    until_waiting(&mut client, raw.pid)?;
    std::thread::sleep(Duration::from_millis(1500));
    queue::send(&mut client, "q", &json!("for it"))?;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let (kind, body) = raw.receive()?;
        if kind == b'D' {
            answers.push(String::from_utf8_lossy(&body).into_owned());
        }
    }
    ensure!(answers[0].contains("for it") && answers[1].contains("next"), "{answers:?}");
    let mut by_socket = database.client()?;
    let pid = backend(&mut by_socket)?;
    let reader = std::thread::spawn(move || queue::receive(&mut by_socket, "queue_pop('q', wait => '30 s')"));
    until_waiting(&mut client, pid)?;
    queue::send(&mut client, "q", &json!(1))?;
    ensure!(reader.join().expect("the reader panicked")?.len() == 1);
    healthy(&server.log(), false)
}

/// How long a cancel may take on a busy machine; an unnoticed one takes until the next look for work, a second later.
const SOON: Duration = Duration::from_millis(600);

#[test]
fn a_cancel_is_noticed_at_once_whenever_it_comes() -> Result<()> {
    let (server, database, mut client) = made("")?;
    let mut busy = database.client()?;
    busy.batch_execute("SELECT enough.status()")?;
    let stopped = backend(&mut busy)?;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let over = std::sync::Arc::clone(&done);
    // Keeps the lock of the queue's memory busy, so that a reader that wakes may have to wait for it.
    let worker = std::thread::spawn(move || -> Result<()> {
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            busy.batch_execute("SELECT count(enough.queue_extend('q', n, '1 s')) FROM generate_series(1, 2000) AS n")?;
        }
        Ok(())
    });
    let (mut tried, mut late) = (0, Vec::new());
    let deadline = Instant::now() + Duration::from_secs(40);
    while tried < 12 && Instant::now() < deadline {
        let mut reader = database.client()?;
        let (pid, cancel) = (backend(&mut reader)?, reader.cancel_token());
        let thread = std::thread::spawn(move || {
            reader.simple_query("SELECT * FROM enough.queue_read('q', wait => '30 s')").err()
        });
        until_waiting(&mut client, pid)?;
        // It looks for work now and then; once in a while it meets the lock in the hands of the session that is stopped.
        let met = Instant::now() + Duration::from_secs(3);
        let mut waits = false;
        while !waits && Instant::now() < met {
            signal(stopped, Signal::SIGSTOP)?;
            std::thread::sleep(Duration::from_millis(30));
            waits = client
                .query_opt(
                    "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'LWLock'",
                    &[&i32::try_from(pid)?],
                )?
                .is_some();
            if !waits {
                signal(stopped, Signal::SIGCONT)?;
            }
        }
        cancel.cancel_query(postgres::NoTls)?;
        std::thread::sleep(Duration::from_millis(20));
        let began = Instant::now();
        if waits {
            signal(stopped, Signal::SIGCONT)?;
            tried += 1;
        }
        let error = thread.join().expect("the reader panicked").context("the reader wasn't cancelled")?;
        ensure!(enough_pg_test::check::state(&error) == "57014", "{error:?}");
        if began.elapsed() > SOON {
            late.push(began.elapsed());
        }
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    worker.join().expect("the worker panicked")?;
    ensure!(late.len() < 2, "{} cancels came late, where {tried} met the lock: {late:?}", late.len());
    healthy(&server.log(), false)
}
