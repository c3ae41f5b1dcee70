//! Private clusters, on the loopback interface and a socket of their own.
//!
//! A server belongs to its [`Server`]: dropping that ends it and removes its files, and if the process that holds it
//! is killed, the kernel tells the postmaster to stop at once. Servers run as the unprivileged user of
//! [`crate::account`], and where the version lives in another release's root, inside that, at the same paths.

mod crash;
mod leftovers;
mod options;
mod process;

pub use nix::sys::signal::Signal;
pub use options::ServerOptions;
pub use process::signal;

use crate::account::Account;
use crate::install::Installation;
use crate::pg::Pg;
use crate::shell;
use crate::spawn::spawn;
use anyhow::{Context, Result, bail, ensure};
use postgres::{Client, Config, NoTls};
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The superuser of every private cluster.
pub const SUPERUSER: &str = "postgres";

/// How long a server may take to come up; recovery under a memory checker is slow.
const START_TIMEOUT: Duration = Duration::from_mins(3);

/// How long a fast shutdown may take before it becomes an immediate one.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

/// How many ports are tried.
const ATTEMPTS: usize = 5;

/// Between two attempts at the port of a server that has run before.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// Between two looks at something that should happen within milliseconds.
const POLL: Duration = Duration::from_millis(10);

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Roll back what runs, write a checkpoint: a clean end.
    Fast,
    /// No checkpoint: the next start recovers from the WAL, as after a crash.
    Immediate,
}

/// A private cluster and its server.
#[derive(Debug)]
pub struct Server {
    installation: Installation,
    account: Account,
    /// Holds `data`, `s` (the socket) and `log`. `None` once the server has been left running.
    dir: Option<TempDir>,
    base: PathBuf,
    port: u16,
    dies_with_us: bool,
    env: Vec<(String, String)>,
    /// `None` while the server is stopped.
    child: Option<Child>,
    /// How long the log was when a process was last killed; recovery shows after that.
    killed_at: Cell<Option<usize>>,
}

impl Server {
    /// Makes a cluster and starts it. The extension is installed for it but not created in any database.
    pub fn start(options: &ServerOptions) -> Result<Self> {
        let server = Self::make(options, |server| server.initdb(options))?;
        server.configure(&options.conf_text())?;
        server.launched()
    }

    /// Makes a standby of this server by streaming replication and starts it. `options` come on top of what the
    /// base backup brings.
    pub fn standby(&self, options: &ServerOptions) -> Result<Self> {
        let server = self.restored_backup(options, true)?;
        server.launched()
    }

    /// Makes a server from a base backup of this one, on a timeline of its own, and starts it.
    pub fn from_backup(&self, options: &ServerOptions) -> Result<Self> {
        let server = self.restored_backup(options, false)?;
        server.launched()
    }

    fn restored_backup(&self, options: &ServerOptions, standby: bool) -> Result<Self> {
        let server = Self::make(options, |server| {
            let mut backup = server.unprivileged("pg_basebackup", None)?;
            backup.args(["--no-sync", "--checkpoint=fast", "--dbname", &self.url(), "--pgdata"]).arg(server.data());
            if standby {
                backup.arg("--write-recovery-conf");
            }
            shell::output(&mut backup).map(drop)
        })?;
        server.configure(&options.conf_text())?;
        Ok(server)
    }

    fn make(options: &ServerOptions, fill: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let installation = Installation::locate(options.pg)?;
        let account = Account::for_servers()?;
        let runs = crate::paths::runs();
        leftovers::sweep(&runs);
        let dir = tempfile::Builder::new()
            .prefix(&leftovers::prefix())
            .tempdir_in(&runs)
            .with_context(|| format!("can't make a directory in {}", runs.display()))?;
        let base = dir.path().to_path_buf();
        let server = Self {
            installation,
            account,
            dir: Some(dir),
            base,
            port: 0,
            dies_with_us: !options.outlives,
            env: options.env.clone(),
            child: None,
            killed_at: Cell::new(None),
        };
        server.account.own(&server.base)?;
        fs::set_permissions(&server.base, fs::Permissions::from_mode(0o755))?;
        fs::create_dir(server.socket_dir())?;
        server.account.own(&server.socket_dir())?;
        fill(&server)?;
        Ok(server)
    }

    fn launched(mut self) -> Result<Self> {
        self.launch()?;
        Ok(self)
    }

    fn initdb(&self, options: &ServerOptions) -> Result<()> {
        let mut initdb = self.unprivileged("initdb", None)?;
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", SUPERUSER]);
        initdb.args(&options.initdb_args).arg("--pgdata").arg(self.data());
        shell::output(&mut initdb).map(drop)
    }

    /// Appends `text` to the configuration. It counts from the next start on (or reload, where a setting allows that).
    pub fn configure(&self, text: &str) -> Result<()> {
        use std::io::Write;
        let path = self.data().join("postgresql.conf");
        let file = OpenOptions::new().append(true).open(&path);
        let mut file = file.with_context(|| format!("can't open {}", path.display()))?;
        writeln!(file, "\n{text}").with_context(|| format!("can't write {}", path.display()))
    }

    /// Starts the server again after [`Server::stop`] or a crash, and returns when it accepts connections.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server is running already");
        for attempt in 1..=ATTEMPTS {
            // Clients know the port of a server that has run before.
            let fresh = self.port == 0;
            if fresh {
                self.port = free_port()?;
            }
            let before = self.log().len();
            let error = match self.launch_once() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if attempt == ATTEMPTS || !self.log()[before..].contains("Address already in use") {
                return Err(error);
            }
            if fresh {
                // Whoever else looked for a free port may have found the same one.
                self.port = 0;
            } else {
                sleep(BETWEEN_ATTEMPTS);
            }
        }
        unreachable!("the last attempt returns")
    }

    fn launch_once(&mut self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let death_signal = self.dies_with_us.then_some("QUIT");
        let mut command = self.unprivileged("postgres", death_signal)?;
        command.arg("-D").arg(self.data()).arg("-c").arg(format!("port={}", self.port));
        command.arg("-c").arg(format!("unix_socket_directories={}", self.socket_dir().display()));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        {
            use std::os::unix::process::CommandExt;
            // A terminal's Ctrl-C is for the task, which then stops the server in its own way.
            command.process_group(0);
        }
        self.child = Some(spawn(command)?);
        self.wait_for_connection(START_TIMEOUT).inspect_err(|_| self.end())
    }

    /// Stops the server; its files stay for [`Server::launch`].
    pub fn stop(&mut self, how: Shutdown) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let signal = match how {
            Shutdown::Fast => Signal::SIGINT,
            Shutdown::Immediate => Signal::SIGQUIT,
        };
        process::signal(child.id(), signal)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                process::kill_family(&mut child);
                bail!("the server didn't stop within {STOP_TIMEOUT:?}; the end of its log:\n{}", self.log_end());
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// [`Server::stop`] and [`Server::launch`].
    pub fn restart(&mut self, how: Shutdown) -> Result<()> {
        self.stop(how)?;
        self.launch()
    }

    /// Ends the server by all means, without an answer.
    fn end(&mut self) {
        if self.stop(Shutdown::Immediate).is_err()
            && let Some(mut child) = self.child.take()
        {
            process::kill_family(&mut child);
        }
    }

    /// Leaves the server running and its files in place when this process ends; only for servers whose options say
    /// [`ServerOptions::outlives`]. Returns the directory.
    pub fn leave(mut self) -> PathBuf {
        self.child = None;
        self.dir.take().map(TempDir::keep);
        self.base.clone()
    }

    fn wait_for_connection(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let error = match self.client() {
                Ok(mut client) => match client.simple_query("SELECT 1") {
                    Ok(_) => return Ok(()),
                    Err(error) => error.into(),
                },
                Err(error) => error,
            };
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                self.child = None;
                bail!("the server ended: {status}; the end of its log:\n{}", self.log_end());
            }
            if Instant::now() > deadline {
                return Err(error.context(format!("the server isn't up; the end of its log:\n{}", self.log_end())));
            }
            sleep(POLL);
        }
    }

    /// The major version.
    pub fn pg(&self) -> Pg {
        self.installation.pg
    }

    /// The installation that the server runs from.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.base.join("data")
    }

    /// The directory of the Unix socket.
    pub fn socket_dir(&self) -> PathBuf {
        self.base.join("s")
    }

    /// A directory that belongs to the server's user: it may write and read files here, and it goes with the server.
    pub fn dir(&self) -> &Path {
        &self.base
    }

    /// The TCP port on 127.0.0.1, also the number in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process number; an error while the server is stopped.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context("the server is stopped")
    }

    /// The URL of the database `postgres` for the superuser, by TCP.
    pub fn url(&self) -> String {
        self.url_for("postgres", SUPERUSER)
    }

    /// The URL of `database` for `user`, by TCP.
    pub fn url_for(&self, database: &str, user: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// The driver's configuration for the database `postgres` as superuser, by the Unix socket.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.host_path(self.socket_dir()).port(self.port).user(SUPERUSER).dbname("postgres");
        config.connect_timeout(Duration::from_secs(30)).application_name("xtask");
        config
    }

    /// Connects to the database `postgres` as superuser.
    pub fn client(&self) -> Result<Client> {
        self.client_for("postgres", SUPERUSER)
    }

    /// Connects to `database` as `user`.
    pub fn client_for(&self, database: &str, user: &str) -> Result<Client> {
        let client = self.config().dbname(database).user(user).connect(NoTls);
        client.with_context(|| format!("can't connect to {database} as {user}"))
    }

    /// A command for one of the installation's programs, with the environment that leads a client to this server.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = self.installation.command(&self.bin(program), &crate::paths::workspace())?;
        command.env("PGHOST", self.socket_dir()).env("PGPORT", self.port.to_string());
        command.env("PGUSER", SUPERUSER).env("PGDATABASE", "postgres");
        Ok(command)
    }

    /// A command by which bash runs `script` in the directory `dir`, as the servers' user and with the installation's programs on
    /// its path. It ends at the first command that fails.
    pub fn bash(&self, dir: &Path, script: &str) -> Result<Command> {
        let mut command = self.installation.command(Path::new("setpriv"), dir)?;
        command.args(self.account.setpriv_arguments(None)).args(["bash", "-euo", "pipefail", "-c", script]);
        let bin = self.bin("postgres");
        let programs = bin.parent().context("a program without a directory")?.to_path_buf();
        let system = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        command.env("PATH", std::env::join_paths(std::iter::once(programs).chain(system))?);
        command.env("HOME", dir).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        Ok(command)
    }

    /// The path of one of the installation's programs. Where the version lives in another release's root, it can only
    /// be run by [`Server::command`].
    pub fn bin(&self, program: &str) -> PathBuf {
        self.installation.bin(program)
    }

    /// Runs `psql` without a start-up file, stopping at the first error, and returns its output.
    pub fn psql<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String> {
        shell::output(self.command("psql")?.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1"]).args(args))
    }

    /// The psql that a person on this machine can use: the installation's, or, where that only runs in another
    /// release's root, whatever the path has.
    pub fn psql_program(&self) -> PathBuf {
        if self.pg().root().is_some() { "psql".into() } else { self.bin("psql") }
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Where the log is.
    pub fn log_path(&self) -> PathBuf {
        self.base.join("log")
    }

    fn log_end(&self) -> String {
        const LINES: usize = 30;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// A command for one of the installation's programs, run as the servers' user in the server's directory.
    fn unprivileged(&self, program: &str, death_signal: Option<&str>) -> Result<Command> {
        let mut command = self.installation.command(Path::new("setpriv"), &self.base)?;
        command.args(self.account.setpriv_arguments(death_signal)).arg(self.bin(program));
        // Messages are compared and searched for, so they must not depend on the machine's language.
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        // Whatever it says, no backtrace of ours may reach a client or the log.
        command.env("RUST_BACKTRACE", "1").env("RUST_LIB_BACKTRACE", "1");
        Ok(command)
    }
}

/// A port that nobody listens on, below those that the kernel gives to clients: a client of whoever could have that of a
/// server that is just restarting.
fn free_port() -> Result<u16> {
    const LOWEST: u64 = 10_240;
    const PORTS: u64 = 32_768 - LOWEST;
    static TRIED: AtomicU64 = AtomicU64::new(0);
    let start = u64::from(std::process::id()) * 7_919;
    for _ in 0..PORTS {
        let number = start + TRIED.fetch_add(1, Relaxed) * 31;
        let port = u16::try_from(LOWEST + number % PORTS)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
