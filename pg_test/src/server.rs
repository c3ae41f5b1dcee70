//! A server that the tests of one program share, and databases in it.
//!
//! The shared server lies in a static, which is never dropped: the kernel tells it to stop when the test program ends,
//! and the next one removes its files.

use crate::check;
use anyhow::{Context, Result};
use postgres::{Client, Config, NoTls};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use xtask::server::{SUPERUSER, Server, ServerOptions};

/// How a test server is set up; it isn't told of the extension. The log says the SQLSTATE of each error, for
/// [`check::healthy`].
pub fn options() -> Result<ServerOptions> {
    Ok(ServerOptions::from_env()?
        .conf("log_line_prefix", "%m [%p] %e ")
        .conf("max_prepared_transactions", "60")
        // Thousands of commits in many tests at once: what a test needs of durability survives the server's crash
        // without it.
        .conf("fsync", "off"))
}

/// Starts a server of the test's own.
pub fn start(options: &ServerOptions) -> Result<Server> {
    Server::start(options)
}

/// The server that the tests of this program share.
pub fn shared() -> Result<MutexGuard<'static, Server>> {
    static SHARED: OnceLock<Mutex<Server>> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let server = if let Some(server) = SHARED.get() {
        server
    } else {
        let server = start(&options()?)?;
        SHARED.get_or_init(|| Mutex::new(server))
    };
    Ok(server.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A database with the extension in it.
#[derive(Debug, Clone)]
pub struct Database {
    config: Config,
    /// Its name.
    pub name: String,
}

impl Database {
    /// A new database on the shared server.
    pub fn new() -> Result<Self> {
        Self::on(&*shared()?)
    }

    /// A new database on `server`.
    pub fn on(server: &Server) -> Result<Self> {
        let database = Self::empty(server)?;
        database.client()?.batch_execute("CREATE EXTENSION pg_enough")?;
        Ok(database)
    }

    /// A new database on `server`, without the extension.
    pub fn empty(server: &Server) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Relaxed));
        server.client()?.batch_execute(&format!("CREATE DATABASE {name}"))?;
        Ok(Self::named(server, &name))
    }

    /// A database that is there, on `server`.
    pub fn named(server: &Server, name: &str) -> Self {
        Self::at(server.config(), name)
    }

    /// A database that is there, on the server that `config` leads to.
    pub fn at(mut config: Config, name: &str) -> Self {
        config.dbname(name).application_name("pg_test");
        Self { config, name: name.to_owned() }
    }

    /// Connects as superuser.
    pub fn client(&self) -> Result<Client> {
        self.client_as(SUPERUSER)
    }

    /// Connects as `role`.
    pub fn client_as(&self, role: &str) -> Result<Client> {
        let client = self.config.clone().user(role).connect(NoTls);
        client.with_context(|| format!("can't connect to {} as {role}", self.name))
    }

    /// The driver's configuration, as superuser.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A name that no other test has used for a role, which belong to the whole server.
    pub fn role(&self, what: &str) -> String {
        format!("{}_{what}", self.name)
    }
}

/// The number of the server process behind a connection.
pub fn backend(client: &mut Client) -> Result<u32> {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    Ok(u32::try_from(pid)?)
}

/// Waits until the session `pid` sleeps in a call of this extension.
pub fn until_waiting(client: &mut Client, pid: u32) -> Result<()> {
    check::eventually("a reader sleeps", || {
        let row = client.query_opt(
            "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND wait_event_type = 'Extension'",
            &[&i32::try_from(pid)?],
        )?;
        Ok(row.map(drop))
    })
}

/// Waits until a session waits for a lock of another's.
pub fn until_locked(client: &mut Client, pid: u32) -> Result<()> {
    let waits = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
    check::eventually("a session waits for a lock", || Ok(client.query_opt(waits, &[&i32::try_from(pid)?])?.map(drop)))
}
