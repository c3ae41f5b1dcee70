//! The protocols: as much of them as a get and a set take.

use super::{Operation, Protocol};
use crate::noop::VALUE;
use crate::stage;
use anyhow::{Result, bail, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use xtask::server::SUPERUSER;

/// Where the first CR LF in `bytes` begins.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n")
}

/// How many whole answers there are of a protocol in which each begins with a line, by which `after` says how many bytes
/// belong to it besides.
fn answers_by_line(mut input: &[u8], after: impl Fn(&str) -> Result<usize>) -> Result<usize> {
    let mut count = 0;
    while let Some(end) = line_end(input) {
        let more = after(&String::from_utf8_lossy(&input[..end]))?;
        let Some(rest) = input.get(end + 2 + more..) else { break };
        input = rest;
        count += 1;
    }
    Ok(count)
}

/// RESP, version 2.
#[derive(Debug)]
pub struct Redis;

impl Protocol for Redis {
    fn name(&self) -> &'static str {
        "Redis 7"
    }

    fn ask(&self, operation: Operation, key: &str, out: &mut Vec<u8>) {
        let request = match operation {
            Operation::Get => format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()),
            Operation::Set => format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{VALUE}\r\n", key.len(), VALUE.len()),
        };
        out.extend_from_slice(request.as_bytes());
    }

    fn answers(&self, input: &[u8]) -> Result<usize> {
        answers_by_line(input, |line| {
            let Some(len) = line.strip_prefix('$') else {
                ensure!(line == "+OK", "{line}");
                return Ok(0);
            };
            let Ok(len) = len.parse::<usize>() else { bail!("a key isn't there") };
            Ok(len + 2)
        })
    }
}

/// The text protocol.
#[derive(Debug)]
pub struct Memcached;

impl Protocol for Memcached {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn ask(&self, operation: Operation, key: &str, out: &mut Vec<u8>) {
        let request = match operation {
            Operation::Get => format!("get {key}\r\n"),
            Operation::Set => format!("set {key} 0 0 {}\r\n{VALUE}\r\n", VALUE.len()),
        };
        out.extend_from_slice(request.as_bytes());
    }

    fn answers(&self, input: &[u8]) -> Result<usize> {
        answers_by_line(input, |line| {
            if !line.starts_with("VALUE ") {
                ensure!(line == "STORED", "{line}");
                return Ok(0);
            }
            let len: usize = line.rsplit(' ').next().unwrap_or_default().parse()?;
            // The value, and the line that ends the answer.
            Ok(len + 2 + "END\r\n".len())
        })
    }
}

/// `PostgreSQL`'s extended protocol with a statement that is prepared once; a batch is a pipeline with one Sync.
#[derive(Debug)]
pub struct Postgres {
    get: String,
    set: String,
}

impl Postgres {
    /// The functions of the extension.
    pub fn new() -> Self {
        Self { get: "SELECT enough.cache_get($1)".into(), set: "SELECT enough.cache_set($1, $2)".into() }
    }
}

impl Default for Postgres {
    fn default() -> Self {
        Self::new()
    }
}

/// Appends a message: its type (none for the first of a session), length and body.
fn message(kind: Option<u8>, body: &[u8], out: &mut Vec<u8>) {
    out.extend(kind);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

/// The messages' types, as far as they are complete; an error where one is the server's.
fn kinds(mut input: &[u8]) -> Result<Vec<u8>> {
    let mut kinds = Vec::new();
    while let Some((&kind, rest)) = input.split_first() {
        let Some(len) = rest.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize) else { break };
        let Some(body) = rest.get(4..len) else { break };
        if kind == b'E' {
            bail!("{}", String::from_utf8_lossy(body).replace('\0', " "));
        }
        // A row of one column whose length is -1.
        ensure!(kind != b'D' || body.get(2..6) != Some(&[0xff; 4]), "a key isn't there");
        kinds.push(kind);
        input = &rest[len..];
    }
    Ok(kinds)
}

/// How many messages of that type there are.
fn count(kinds: &[u8], kind: u8) -> usize {
    kinds.iter().map(|&other| usize::from(other == kind)).sum()
}

impl Protocol for Postgres {
    fn name(&self) -> &'static str {
        "pg_enough"
    }

    fn greet(&self, stream: &mut TcpStream) -> Result<()> {
        let mut out = Vec::new();
        let version = 3_u32 << 16;
        let parameters = format!("user\0{SUPERUSER}\0database\0{}\0\0", stage::DATABASE);
        message(None, &[&version.to_be_bytes(), parameters.as_bytes()].concat(), &mut out);
        for (name, statement) in [("get", &self.get), ("set", &self.set)] {
            message(Some(b'P'), format!("{name}\0{statement}\0\0\0").as_bytes(), &mut out);
        }
        self.end(&mut out);
        stream.write_all(&out)?;
        let (mut input, mut piece) = (Vec::new(), [0; 4096]);
        // Ready once after the greeting, and once after the statements.
        while count(&kinds(&input)?, b'Z') < 2 {
            let read = stream.read(&mut piece)?;
            ensure!(read > 0, "the server has hung up");
            input.extend_from_slice(&piece[..read]);
        }
        Ok(())
    }

    fn ask(&self, operation: Operation, key: &str, out: &mut Vec<u8>) {
        let (name, parameters): (_, &[&str]) = match operation {
            Operation::Get => ("get", &[key]),
            Operation::Set => ("set", &[key, VALUE]),
        };
        // All parameters and results as text, as drivers send them unless told otherwise.
        let mut bind = format!("\0{name}\0\0\0").into_bytes();
        bind.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            bind.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
            bind.extend_from_slice(parameter.as_bytes());
        }
        bind.extend_from_slice(&[0, 0]);
        message(Some(b'B'), &bind, out);
        message(Some(b'E'), &[0; 5], out);
    }

    fn end(&self, out: &mut Vec<u8>) {
        message(Some(b'S'), &[], out);
    }

    fn answers(&self, input: &[u8]) -> Result<usize> {
        let kinds = kinds(input)?;
        // Only then may the next batch begin.
        Ok(if kinds.ends_with(b"Z") { count(&kinds, b'C') } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_when_they_are_complete_and_misses_are_errors() -> Result<()> {
        let value = b"VALUE k 0 5\r\nhello\r\nEND\r\n";
        for (protocol, answer, miss) in [
            (&Redis as &dyn Protocol, &b"$5\r\nhello\r\n"[..], &b"$-1\r\n"[..]),
            (&Memcached, value, b"END\r\n"),
            (&Redis, b"+OK\r\n", b"-ERR no\r\n"),
            (&Memcached, b"STORED\r\n", b"SERVER_ERROR no\r\n"),
        ] {
            let twice = answer.repeat(2);
            for len in 0..twice.len() {
                assert_eq!(protocol.answers(&twice[..len])?, usize::from(len >= answer.len()), "{len} bytes");
            }
            assert_eq!(protocol.answers(&twice)?, 2);
            assert!(protocol.answers(miss).is_err());
        }
        let mut row = Vec::new();
        message(Some(b'D'), &[0, 1, 0, 0, 0, 1, b'1'], &mut row);
        message(Some(b'C'), b"SELECT 1\0", &mut row);
        assert_eq!(Postgres::new().answers(&row)?, 0);
        message(Some(b'Z'), b"I", &mut row);
        assert_eq!(Postgres::new().answers(&row)?, 1);
        let mut null = Vec::new();
        message(Some(b'D'), &[0, 1, 0xff, 0xff, 0xff, 0xff], &mut null);
        assert!(Postgres::new().answers(&null).is_err());
        Ok(())
    }
}
