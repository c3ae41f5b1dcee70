//! The programs in `examples/`: one scenario for all of them, behind pgbouncer in transaction mode with small pools.

use crate::program::{Language, jdbc};
use crate::trial;
use anyhow::{Context, Result, bail, ensure};
use enough_pg_test::check::{PATIENCE, eventually};
use enough_pg_test::pgbouncer::{self, Pooler, TRANSACTION_MODE};
use enough_pg_test::queue::{self, Stats};
use enough_pg_test::server::{Database, shared};
use libtest_mimic::Trial;
use postgres::Client;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use xtask::provision::drivers::Drivers;
use xtask::server::{Signal, signal};

/// How long a lease of the workers is.
const LEASE: f64 = 2.0;

/// The longest that an example may be.
const LINES: usize = 120;

pub(crate) fn trials(found: &Drivers) -> Vec<Trial> {
    let languages = [
        (Language::Python, "python/app.py"),
        (Language::Node, "node/app.mjs"),
        (Language::Java, "java/App.java"),
        (Language::Rust, "rust/src/main.rs"),
    ];
    let trials = languages.into_iter().map(|(language, file)| {
        let found = found.clone();
        let no_pooler = shared().is_ok_and(|server| !pgbouncer::is_there(&server)).then_some("pgbouncer");
        trial(&format!("examples::{file}"), language.missing(&found).or(no_pooler), move || {
            let source = xtask::paths::workspace().join("examples").join(file);
            let lines = fs::read_to_string(&source)?.lines().count();
            ensure!(lines < LINES, "{file} has {lines} lines");
            Scenario::new(&App::new(language, &found, &source)?)?.play()
        })
    });
    trials.collect()
}

/// An example that is ready to run.
struct App {
    language: Language,
    found: Drivers,
    dir: TempDir,
    /// What is run, by the language's interpreter where it has one.
    file: PathBuf,
}

impl App {
    fn new(language: Language, found: &Drivers, source: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = match language {
            // An import of Node's is looked for where the file is.
            Language::Node => {
                let copy = dir.path().join("app.mjs");
                fs::copy(source, &copy)?;
                copy
            }
            Language::Java => {
                let mut javac = Command::new("javac");
                javac.arg("-d").arg(dir.path()).arg(source);
                xtask::shell::output(&mut javac)?;
                "App".into()
            }
            Language::Rust => {
                let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                cargo.args(["build", "--quiet", "--locked", "--package", "enough_example"]);
                xtask::shell::output(cargo.current_dir(xtask::paths::workspace()))?;
                xtask::paths::target().join("debug/enough_example")
            }
            Language::Python | Language::Sql => source.to_path_buf(),
        };
        Ok(Self { language, found: found.clone(), dir, file })
    }

    /// Starts it in a role, `web` or `worker`.
    fn start(&self, pooler: &Pooler, role: &str, port: u16) -> Result<Process> {
        let mut command = match self.language {
            Language::Python => Command::new(self.found.python.as_ref().context("no Python")?),
            Language::Rust => Command::new(&self.file),
            language => language.interpreter(&self.found, self.dir.path())?,
        };
        let mut url = format!("postgresql://postgres@127.0.0.1:{}/app", pooler.port());
        let mut poll_url = url.clone() + "_waiting";
        match self.language {
            Language::Rust => {}
            Language::Java => {
                url = jdbc(&url) + "&prepareThreshold=0";
                poll_url = jdbc(&poll_url) + "&prepareThreshold=0";
                let jar = self.found.jdbc.as_ref().context("no driver for Java")?;
                command = Command::new("java");
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
                command.arg(format!("{}:{}", jar.display(), self.dir.path().display())).arg(&self.file);
                command.env("JDBC_URL", &url);
            }
            _ => {
                command.arg(&self.file);
            }
        }
        command.env("DATABASE_URL", url).env("POLL_URL", poll_url);
        command.env("LEASE_SECONDS", LEASE.to_string()).env("PORT", port.to_string());
        command.arg(role).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Process(command.spawn().with_context(|| format!("can't start {}", xtask::shell::line(&command)))?))
    }
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Process {
    /// Tells it to stop, and waits until it has.
    fn stop(mut self) -> Result<ExitStatus> {
        signal(self.0.id(), Signal::SIGTERM)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "it doesn't stop");
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An answer by HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<u32>,
    body: Option<Value>,
}

/// Asks for a number's square as `user`; `None` while nobody listens.
fn get(port: u16, n: i32, user: &str) -> Result<Option<Answer>> {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Ok(None) };
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /squares/{n} HTTP/1.1\r\nHost: localhost\r\nX-User: {user}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim())
    };
    let retry_after = header("retry-after").and_then(|value| value.parse().ok());
    // Node sends chunks: what stands between the braces is the object either way.
    let object = body.find('{').zip(body.rfind('}')).map(|(start, end)| &body[start..=end]);
    Ok(Some(Answer { status, retry_after, body: object.map(serde_json::from_str).transpose()? }))
}

struct Scenario<'a> {
    app: &'a App,
    pooler: Pooler,
    client: Client,
}

impl<'a> Scenario<'a> {
    fn new(app: &'a App) -> Result<Self> {
        let server = shared()?;
        let database = Database::empty(&server)?;
        let pool = |name: &str| pgbouncer::database(name, &server, &database.name, "pool_size=2");
        let databases = pool("app") + &pool("app_waiting");
        let pooler = Pooler::start(&server, &databases, TRANSACTION_MODE)?;
        let mut client = database.client()?;
        client.batch_execute(include_str!("../../../examples/setup.sql"))?;
        client.batch_execute("SELECT enough.queue_alter('squares', max_attempts => 2, retry_backoff => '100 ms')")?;
        Ok(Self { app, pooler, client })
    }

    fn play(mut self) -> Result<()> {
        self.a_service_limits_and_caches()?;
        self.workers_do_what_is_queued()?;
        self.a_worker_that_stops_finishes_first()?;
        self.what_a_killed_worker_had_is_done_by_another()
    }

    fn worker(&self) -> Result<Process> {
        self.app.start(&self.pooler, "worker", 0)
    }

    fn send(&mut self, message: &Value) -> Result<i64> {
        Ok(queue::send(&mut self.client, "squares", message)?)
    }

    fn until(&mut self, what: &str, wanted: impl Fn(Stats) -> bool) -> Result<()> {
        eventually(what, || Ok(wanted(queue::stats(&mut self.client, "squares")?).then_some(())))
    }

    /// The square of `n`, and how often it was delivered, once it is there; it is there once.
    fn square(&mut self, n: i32) -> Result<(i64, i32)> {
        eventually(&format!("the square of {n} is there"), || {
            let rows = self.client.query("SELECT square, attempts FROM squares WHERE n = $1", &[&n])?;
            ensure!(rows.len() < 2, "{n} was done twice");
            Ok(rows.first().map(|row| (row.get(0), row.get(1))))
        })
    }

    fn a_service_limits_and_caches(&mut self) -> Result<()> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let service = self.app.start(&self.pooler, "web", port)?;
        let first = eventually("the service answers", || get(port, 12, "ada"))?;
        ensure!(first.status == 200 && first.body == Some(json!({"square": 144, "cached": false})), "{first:?}");
        for _ in 0..4 {
            let next = get(port, 12, "ada")?.context("nobody listens")?;
            ensure!(next.status == 200 && next.body == Some(json!({"square": 144, "cached": true})), "{next:?}");
        }
        let limited = get(port, 12, "ada")?.context("nobody listens")?;
        ensure!(limited.status == 429 && limited.retry_after.is_some_and(|s| (1..=120).contains(&s)), "{limited:?}");
        let other = get(port, 12, "grace")?.context("nobody listens")?;
        ensure!(other.status == 200, "{other:?}");
        // What is in the cache was queued once.
        self.until("one message is queued", |stats| stats.ready == 1)?;
        self.graceful(service)
    }

    fn workers_do_what_is_queued(&mut self) -> Result<()> {
        let workers = [self.worker()?, self.worker()?];
        ensure!(self.square(12)? == (144, 1));
        // Longer than a lease, with another worker waiting: the heartbeat keeps it.
        self.send(&json!({"n": 5, "seconds": 1.5 * LEASE}))?;
        let failing = self.send(&json!({"n": -1}))?;
        ensure!(self.square(5)? == (25, 1));
        self.until("the negative one is dead", |stats| stats.dead == 1)?;
        let row =
            self.client.query_one("SELECT attempts, error FROM enough.queue_status('squares', $1)", &[&failing])?;
        let (attempts, error): (i32, String) = (row.get(0), row.get(1));
        ensure!(attempts == 2 && error.contains("n is negative"), "{attempts} {error}");
        self.until("nothing is left", |stats| (stats.ready, stats.leased, stats.delayed) == (0, 0, 0))?;
        // One that is told before it has begun knows nothing of signals yet.
        eventually("both workers wait", || {
            let waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                           AND wait_event_type = 'Extension'";
            Ok((self.client.query(waiting, &[])?.len() == 2).then_some(()))
        })?;
        let [first, second] = workers;
        self.graceful(first)?;
        self.graceful(second)
    }

    fn a_worker_that_stops_finishes_first(&mut self) -> Result<()> {
        let worker = self.worker()?;
        self.send(&json!({"n": 7, "seconds": 1}))?;
        self.until("the worker is at it", |stats| stats.leased == 1)?;
        self.graceful(worker)?;
        ensure!(self.square(7)? == (49, 1));
        let stats = queue::stats(&mut self.client, "squares")?;
        ensure!((stats.ready, stats.leased) == (0, 0), "{stats:?}");
        Ok(())
    }

    fn what_a_killed_worker_had_is_done_by_another(&mut self) -> Result<()> {
        let worker = self.worker()?;
        self.send(&json!({"n": 8, "seconds": 1}))?;
        self.until("the worker is at it", |stats| stats.leased == 1)?;
        drop(worker);
        let other = self.worker()?;
        ensure!(self.square(8)? == (64, 2));
        self.graceful(other)
    }

    /// Told to stop, it ends by itself. Java's exit status tells the signal even so.
    fn graceful(&self, process: Process) -> Result<()> {
        let status = process.stop()?;
        match (status.code(), self.app.language) {
            (Some(0), _) | (Some(143), Language::Java) => Ok(()),
            _ => bail!("it ended with {status}"),
        }
    }
}
