//! A client that is killed: it has asked for something and is gone before the answer comes, without a word.

use crate::server::Database;
use anyhow::{Context, Result};
use postgres::config::Host;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 3 << 16;

/// Connects to `database` as `application`, asks for `query` by the simple protocol, and after `patience` closes the
/// socket, as the kernel does for a process that is killed.
pub fn vanish(database: &Database, application: &str, query: &str, patience: Duration) -> Result<()> {
    let config = database.config();
    let (Some(Host::Unix(dir)), Some(port)) = (config.get_hosts().first(), config.get_ports().first()) else {
        anyhow::bail!("no socket to connect to");
    };
    let path = dir.join(format!(".s.PGSQL.{port}"));
    let mut socket = UnixStream::connect(&path).with_context(|| format!("can't connect to {}", path.display()))?;
    let mut startup = PROTOCOL.to_be_bytes().to_vec();
    for text in ["user", "postgres", "database", &database.name, "application_name", application, ""] {
        startup.extend(text.bytes().chain([0]));
    }
    let query: Vec<u8> = query.bytes().chain([0]).collect();
    // A message's length counts itself, but not its type.
    let framed =
        |bytes: &[u8]| -> Result<Vec<u8>> { Ok([&i32::try_from(bytes.len() + 4)?.to_be_bytes(), bytes].concat()) };
    socket.write_all(&[framed(&startup)?, b"Q".to_vec(), framed(&query)?].concat())?;
    sleep(patience);
    Ok(())
}
