//! The server that all of it runs on: private, durable, with the extension created and nothing preloaded.

use anyhow::{Context, Result};
use postgres::Client;
use std::fs;
use std::path::{Path, PathBuf};
use xtask::pg::Pg;
use xtask::server::{Server, ServerOptions, Shutdown};

/// The database with the extension.
pub const DATABASE: &str = "enough";

/// What differs from a stock server: room enough that no checkpoint falls into the middle of a round. Commits are
/// durable (`fsync` and `synchronous_commit` are on), as they are by default; so is autovacuum.
const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "30min")];

/// How much time a suite takes.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds of each side.
    pub rounds: usize,
    /// Seconds of a round that is a throughput.
    pub seconds: u64,
    /// Whether everything else is kept short, too: for trying out, not for quoting.
    pub quick: bool,
}

impl Effort {
    /// `full`, or where everything is kept short, `quick`.
    pub fn either<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// A running server with the extension in [`DATABASE`].
#[derive(Debug)]
pub struct Fixture {
    server: Server,
    dir: PathBuf,
    effort: Effort,
}

impl Fixture {
    /// Starts the server and creates the extension. The extension must be installed.
    pub fn start(pg: Pg, effort: Effort) -> Result<Self> {
        let options = SETTINGS.iter().fold(ServerOptions::new(pg), |options, (name, value)| options.conf(name, value));
        let server = Server::start(&options)?;
        let dir = server.dir().join("bench");
        fs::create_dir(&dir).with_context(|| format!("can't create {}", dir.display()))?;
        let fixture = Self { server, dir, effort };
        fixture.client_for("postgres")?.batch_execute(&format!("CREATE DATABASE {DATABASE}"))?;
        fixture.client()?.batch_execute("CREATE EXTENSION pg_enough")?;
        Ok(fixture)
    }

    /// Stops the server and starts it again: its caches are empty then, those of the operating system aren't.
    pub fn restart(&mut self) -> Result<()> {
        self.server.restart(Shutdown::Fast)
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// A directory for scripts and libraries, which goes with the server.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How much time is to be taken.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// Connects to [`DATABASE`] as superuser.
    pub fn client(&self) -> Result<Client> {
        self.client_for(DATABASE)
    }

    /// Connects to `database` as superuser.
    pub fn client_for(&self, database: &str) -> Result<Client> {
        self.server.client_for(database, xtask::server::SUPERUSER)
    }

    /// Writes out what earlier measurements have left to be written, so that the next one doesn't pay for it.
    pub fn settle(&self) -> Result<()> {
        self.client()?.batch_execute("CHECKPOINT").context("can't write a checkpoint")
    }
}
