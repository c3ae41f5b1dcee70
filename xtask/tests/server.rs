//! The private servers themselves: what the other tests build upon has to hold first.
//!
//! Needs an installation, as `cargo xtask install` leaves it; `ENOUGH_PG` chooses the version.

use anyhow::{Context, Result};
use postgres::Client;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use xtask::server::{Server, ServerOptions, Shutdown};

/// Set in the copy of this test binary that is to be killed.
const VICTIM: &str = "ENOUGH_TEST_VICTIM";

fn start() -> Result<Server> {
    Server::start(&ServerOptions::from_env()?)
}

fn text(client: &mut Client, query: &str) -> Result<String> {
    Ok(client.query_one(query, &[])?.get(0))
}

fn rows(server: &Server) -> Result<i64> {
    Ok(server.client()?.query_one("SELECT count(*) FROM t", &[])?.get(0))
}

fn is_alive(pid: u32) -> bool {
    // A zombie has ended; only its parent hasn't looked yet.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Whether `condition` comes true before a deadline that only a failure reaches.
fn eventually(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

#[test]
fn a_server_is_of_the_asked_version_durable_and_takes_settings() -> Result<()> {
    let server = Server::start(&ServerOptions::from_env()?.conf("work_mem", "5MB"))?;
    let mut client = server.client()?;
    assert!(text(&mut client, "SHOW server_version")?.starts_with(&server.pg().to_string()));
    assert_eq!(text(&mut client, "SHOW fsync")?, "on");
    assert_eq!(text(&mut client, "SHOW work_mem")?, "5MB");
    assert_eq!(server.psql(&["-Atc", "SHOW work_mem"])?.trim(), "5MB");
    let mut by_tcp = Client::connect(&server.url(), postgres::NoTls)?;
    assert_eq!(text(&mut by_tcp, "SHOW port")?, server.port().to_string());
    Ok(())
}

#[test]
fn a_dropped_server_leaves_nothing() -> Result<()> {
    let server = start()?;
    let (pid, dir) = (server.pid()?, server.dir().to_path_buf());
    assert!(is_alive(pid) && dir.exists());
    drop(server);
    assert!(!is_alive(pid) && !dir.exists());
    Ok(())
}

#[test]
fn a_killed_backend_makes_the_server_recover_with_what_was_committed() -> Result<()> {
    let mut server = start()?;
    let mut client = server.client()?;
    client.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")?;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    server.backend_kill9(u32::try_from(pid)?)?;
    server.wait_until_up()?;
    assert!(client.simple_query("SELECT 1").is_err(), "the killed session lives");
    assert_eq!(rows(&server)?, 1);
    assert!(server.backend_kill9(std::process::id()).is_err(), "only its own backends may be killed");
    Ok(())
}

#[test]
fn a_server_starts_again_after_each_way_of_stopping() -> Result<()> {
    let mut server = start()?;
    server.client()?.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")?;
    server.restart(Shutdown::Fast)?;
    server.client()?.batch_execute("INSERT INTO t VALUES (2)")?;
    server.restart(Shutdown::Immediate)?;
    server.client()?.batch_execute("INSERT INTO t VALUES (3)")?;
    server.crash()?;
    assert!(server.client().is_err());
    server.launch()?;
    assert_eq!(rows(&server)?, 3);
    Ok(())
}

#[test]
fn a_standby_follows_and_a_restored_backup_goes_its_own_way() -> Result<()> {
    let server = start()?;
    server.client()?.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")?;
    let standby = server.standby(&ServerOptions::from_env()?)?;
    let copy = server.from_backup(&ServerOptions::from_env()?)?;
    server.client()?.batch_execute("INSERT INTO t VALUES (2)")?;
    assert!(eventually(|| rows(&standby).is_ok_and(|rows| rows == 2)), "the standby doesn't follow");
    let recovering: bool = standby.client()?.query_one("SELECT pg_is_in_recovery()", &[])?.get(0);
    assert!(recovering);
    assert_eq!(rows(&copy)?, 1);
    copy.client()?.batch_execute("INSERT INTO t VALUES (3), (4)")?;
    assert_eq!(rows(&copy)?, 3);
    assert_eq!(rows(&server)?, 2);
    Ok(())
}

#[test]
fn a_server_outlives_the_thread_but_not_the_process_that_started_it() -> Result<()> {
    if std::env::var_os(VICTIM).is_some() {
        let server = thread::spawn(start).join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        server.client()?.simple_query("SELECT 1")?;
        println!("\nvictim {} {}", server.pid()?, server.dir().display());
        loop {
            thread::park();
        }
    }
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_server_outlives_the_thread_but_not_the_process_that_started_it", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(victim.stdout.take().context("no pipe")?);
    let mut lines = output.lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.strip_prefix("victim ").map(str::to_owned));
    victim.kill()?;
    victim.wait()?;
    let line = line.context("the victim had no server")?;
    let (pid, dir) = line.split_once(' ').context("no directory")?;
    let pid = pid.parse()?;
    let ended = eventually(|| !is_alive(pid));
    // Nobody was left to remove the files.
    assert!(Path::new(dir).starts_with(xtask::paths::runs()));
    std::fs::remove_dir_all(dir)?;
    assert!(ended, "the postmaster lives on");
    Ok(())
}
