//! Redis and memcached, from Debian's packages, whose files go into a directory of the bench's own.

use crate::fixture::Fixture;
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use xtask::shell;

/// The packages of the servers and of what Debian's base system lacks for them.
const PACKAGES: [&str; 9] = [
    "redis-server",
    "redis-tools",
    "memcached",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "libhiredis0.14",
    "lua-cjson",
    "libevent-2.1-7",
];

/// A server that listens on the loopback interface; it ends with this.
#[derive(Debug)]
pub struct MemoryServer {
    child: Child,
    /// Its port.
    pub port: u16,
}

impl Drop for MemoryServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl MemoryServer {
    /// Redis without persistence.
    pub fn redis(fixture: &Fixture) -> Result<Self> {
        Self::start(fixture, "redis-server", |port| vec!["--port".into(), port, "--save".into(), String::new()])
    }

    /// memcached with its default memory, and one thread for each of two processors.
    pub fn memcached(fixture: &Fixture) -> Result<Self> {
        Self::start(fixture, "memcached", |port| {
            ["-u", "nobody", "-l", "127.0.0.1", "-t", "2", "-p"].map(String::from).into_iter().chain([port]).collect()
        })
    }

    fn start(fixture: &Fixture, program: &str, arguments: impl Fn(String) -> Vec<String>) -> Result<Self> {
        let dir = fixture.dir().join("memory_servers");
        let files = dir.join("files");
        if !files.is_dir() {
            fs::create_dir_all(&dir)?;
            let download =
                shell::output(Command::new("apt-get").args(["-qq", "download"]).args(PACKAGES).current_dir(&dir));
            download.context("can't download Debian's packages of Redis and memcached")?;
            for file in fs::read_dir(&dir)? {
                shell::output(Command::new("dpkg-deb").arg("--extract").arg(file?.path()).arg(&files))?;
            }
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new(files.join("usr/bin").join(program));
        let machine = std::env::consts::ARCH;
        command.env("LD_LIBRARY_PATH", files.join(format!("usr/lib/{machine}-linux-gnu")));
        command.args(arguments(port.to_string())).current_dir(&dir).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("can't start {program}"))?;
        let mut server = Self { child, port };
        for _ in 0..100 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{program} ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{program} doesn't listen")
    }
}
