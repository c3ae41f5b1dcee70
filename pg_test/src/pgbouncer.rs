//! pgbouncer before a server, on the loopback interface. It runs where the server runs, as the server's user.

use crate::check;
use anyhow::{Context, Result, ensure};
use postgres::{Client, Config, NoTls, SimpleQueryMessage};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use xtask::account::Account;
use xtask::server::{SUPERUSER, Server};

/// Where Debian's package puts it.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// The first version that knows prepared statements in transaction mode (`max_prepared_statements`).
pub const PREPARES_SINCE: (u32, u32) = (1, 21);

/// Transaction mode, for all drivers: some send that setting as they connect.
pub const TRANSACTION_MODE: &str = "pool_mode = transaction\nignore_startup_parameters = extra_float_digits\n";

/// A pooler that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Pooler {
    child: Child,
    /// Its configuration and its log.
    dir: TempDir,
    port: u16,
}

/// Whether there is a pooler where the server of this version comes from.
pub fn is_there(server: &Server) -> bool {
    let root = server.pg().root().unwrap_or_else(|| PathBuf::from("/"));
    root.join(PROGRAM.trim_start_matches('/')).is_file()
}

/// The line of `[databases]` that leads `name` to `database` of `server`, with `options` (`pool_size=2`).
pub fn database(name: &str, server: &Server, database: &str, options: &str) -> String {
    format!("{name} = host=127.0.0.1 port={} dbname={database} {options}\n", server.port())
}

impl Pooler {
    /// Starts a pooler before `server`. `databases` are the lines of that section, `settings` those of `[pgbouncer]`.
    pub fn start(server: &Server, databases: &str, settings: &str) -> Result<Self> {
        let account = Account::for_servers()?;
        let dir = tempfile::tempdir_in(server.dir())?;
        account.own(dir.path())?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let at = dir.path().display();
        let text = format!(
            "[databases]\n{databases}\n[pgbouncer]\n{settings}\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {at}/users\nadmin_users = {SUPERUSER}\nlogfile = {at}/log\n"
        );
        fs::write(dir.path().join("pgbouncer.ini"), text)?;
        fs::write(dir.path().join("users"), format!("\"{SUPERUSER}\" \"\"\n"))?;
        let mut command = server.installation().command(Path::new("setpriv"), dir.path())?;
        command.args(account.setpriv_arguments(Some("KILL"))).arg(PROGRAM).arg(dir.path().join("pgbouncer.ini"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("can't start pgbouncer")?;
        let mut pooler = Self { child, dir, port };
        check::eventually("pgbouncer answers", || {
            if let Some(status) = pooler.child.try_wait()? {
                anyhow::bail!("pgbouncer ended, {status}:\n{}", pooler.log());
            }
            Ok(pooler.config("pgbouncer").connect(NoTls).ok().map(drop))
        })?;
        Ok(pooler)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The driver's configuration for one of its databases, as superuser.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(SUPERUSER).dbname(database);
        config.connect_timeout(Duration::from_secs(30));
        config
    }

    /// Connects to one of its databases as superuser.
    pub fn client(&self, database: &str) -> Result<Client> {
        self.config(database).connect(NoTls).with_context(|| format!("can't connect to {database} through pgbouncer"))
    }

    /// Its version.
    pub fn version(&self) -> Result<(u32, u32)> {
        let rows = self.client("pgbouncer")?.simple_query("SHOW VERSION")?;
        let text = rows.iter().find_map(|row| match row {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        let text = text.context("pgbouncer doesn't tell its version")?;
        let mut numbers = text.trim_start_matches("PgBouncer ").split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
            _ => anyhow::bail!("pgbouncer's version is {text:?}"),
        }
    }

    /// How many clients wait for a server connection to `database`.
    pub fn queued(&self, database: &str) -> Result<u32> {
        let rows = self.client("pgbouncer")?.simple_query("SHOW POOLS")?;
        let queued = rows.iter().filter_map(|row| match row {
            SimpleQueryMessage::Row(row) if row.get("database") == Some(database) => row.get("cl_waiting"),
            _ => None,
        });
        let queued: Vec<&str> = queued.collect();
        ensure!(!queued.is_empty(), "pgbouncer has no pool {database}");
        Ok(queued.iter().filter_map(|count| count.parse::<u32>().ok()).sum())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
