//! The protocols: as much of them as a get and a set take.

use super::{Operation, Protocol};
use crate::fixture;
use crate::noop::VALUE;
use anyhow::{Result, bail, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use xtask::server::SUPERUSER;

/// Where the first CR LF in `bytes` begins.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\r\n")
}

/// How many answers there are of a protocol of lines: `line` says of each whether it is an answer, and how many bytes
/// follow that belong to it.
fn answers(mut input: &[u8], line: impl Fn(&str) -> Result<(bool, usize)>) -> Result<usize> {
    let mut count = 0;
    while let Some(end) = line_end(input) {
        let (is_answer, more) = line(&String::from_utf8_lossy(&input[..end]))?;
        let Some(rest) = input.get(end + 2 + more..) else { break };
        input = rest;
        count += usize::from(is_answer);
    }
    Ok(count)
}

/// RESP, version 2. A batch is a pipeline.
#[derive(Debug)]
pub struct Redis;

impl Protocol for Redis {
    fn name(&self) -> &'static str {
        "Redis 7"
    }

    fn ask(&self, operation: Operation, keys: &[String], out: &mut Vec<u8>) {
        for key in keys {
            let (head, value) = match operation {
                Operation::Get => ("*2\r\n$3\r\nGET", String::new()),
                Operation::Set => ("*3\r\n$3\r\nSET", format!("${}\r\n{VALUE}\r\n", VALUE.len())),
            };
            out.extend_from_slice(format!("{head}\r\n${}\r\n{key}\r\n{value}", key.len()).as_bytes());
        }
    }

    fn is_answered(&self, input: &[u8], batch: usize) -> Result<bool> {
        let answered = answers(input, |line| {
            let Some(len) = line.strip_prefix('$') else {
                ensure!(line == "+OK", "{line}");
                return Ok((true, 0));
            };
            let Ok(len) = len.parse::<usize>() else { bail!("a key isn't there") };
            Ok((true, len + 2))
        })?;
        Ok(answered == batch)
    }
}

/// The text protocol. A batch of gets is one command for several keys, as it is meant: single ones are answered one packet
/// each.
#[derive(Debug)]
pub struct Memcached;

/// What ends the answer to gets.
const END: &[u8] = b"END\r\n";

impl Protocol for Memcached {
    fn name(&self) -> &'static str {
        "memcached"
    }

    fn ask(&self, operation: Operation, keys: &[String], out: &mut Vec<u8>) {
        match operation {
            Operation::Get => out.extend_from_slice(format!("get {}\r\n", keys.join(" ")).as_bytes()),
            Operation::Set => {
                for key in keys {
                    out.extend_from_slice(format!("set {key} 0 0 {}\r\n{VALUE}\r\n", VALUE.len()).as_bytes());
                }
            }
        }
    }

    fn is_answered(&self, input: &[u8], batch: usize) -> Result<bool> {
        let answered = answers(input, |line| {
            if line == "END" {
                return Ok((false, 0));
            }
            if !line.starts_with("VALUE ") {
                ensure!(line == "STORED", "{line}");
                return Ok((true, 0));
            }
            Ok((true, line.rsplit(' ').next().unwrap_or_default().parse::<usize>()? + 2))
        })?;
        let gets_end = input.ends_with(END);
        ensure!(!gets_end || answered == batch, "a key isn't there");
        Ok(answered == batch && (gets_end || input.starts_with(b"STORED")))
    }
}

/// `PostgreSQL`'s extended protocol with a statement that is prepared once; a batch is a pipeline with one Sync.
#[derive(Debug)]
pub struct Postgres {
    name: &'static str,
    /// How values are stored.
    pub kind: &'static str,
    get: &'static str,
    set: &'static str,
    /// Whether values travel as they are, not as text.
    binary: bool,
}

impl Postgres {
    /// Values as JSON, as text in both directions, which is how drivers send it.
    pub const JSON: Self = Self {
        name: "pg_enough",
        kind: "jsonb",
        get: "SELECT enough.cache_get($1)",
        set: "SELECT enough.cache_set($1, $2)",
        binary: false,
    };
    /// Values as bytes, of which the server knows no more than Redis and memcached do.
    pub const BYTES: Self = Self {
        name: "pg_enough",
        kind: "bytea",
        get: "SELECT enough.cache_get_bytes($1)",
        set: "SELECT enough.cache_set_bytes($1, $2)",
        binary: true,
    };
    /// The same with functions that do nothing: what the server's protocol, types and executor take.
    pub const NOOP_JSON: Self =
        Self { name: "no-op", get: "SELECT noop.cache_get($1)", set: "SELECT noop.cache_set($1, $2)", ..Self::JSON };
    /// And for bytes.
    pub const NOOP_BYTES: Self = Self {
        name: "no-op",
        get: "SELECT noop.cache_get_bytes($1)",
        set: "SELECT noop.cache_set_bytes($1, $2)",
        ..Self::BYTES
    };
}

/// Appends a message: its type (none for the first of a session), length and body.
fn message(kind: Option<u8>, body: &[u8], out: &mut Vec<u8>) {
    out.extend(kind);
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
}

/// Calls `each` with the types of the messages that are complete; an error where one is the server's.
fn each_message(mut input: &[u8], mut each: impl FnMut(u8)) -> Result<()> {
    while let Some((&kind, rest)) = input.split_first() {
        let Some(len) = rest.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize) else { break };
        let Some(body) = rest.get(4..len) else { break };
        if kind == b'E' {
            bail!("{}", String::from_utf8_lossy(body).replace('\0', " "));
        }
        // A row of one column whose length is -1.
        ensure!(kind != b'D' || body.get(2..6) != Some(&[0xff; 4]), "a key isn't there");
        each(kind);
        input = &rest[len..];
    }
    Ok(())
}

/// How many complete messages there are of that type.
fn count(input: &[u8], kind: u8) -> Result<usize> {
    let mut count = 0;
    each_message(input, |other| count += usize::from(other == kind))?;
    Ok(count)
}

impl Protocol for Postgres {
    fn name(&self) -> &'static str {
        self.name
    }

    fn greet(&self, stream: &mut TcpStream) -> Result<()> {
        let mut out = Vec::new();
        let version = 3_u32 << 16;
        let parameters = format!("user\0{SUPERUSER}\0database\0{}\0\0", fixture::DATABASE);
        message(None, &[&version.to_be_bytes(), parameters.as_bytes()].concat(), &mut out);
        for (name, statement) in [("get", self.get), ("set", self.set)] {
            message(Some(b'P'), format!("{name}\0{statement}\0\0\0").as_bytes(), &mut out);
        }
        message(Some(b'S'), &[], &mut out);
        stream.write_all(&out)?;
        let (mut input, mut piece) = (Vec::new(), [0; 4096]);
        // Ready once after the greeting, and once after the statements.
        while count(&input, b'Z')? < 2 {
            let read = stream.read(&mut piece)?;
            ensure!(read > 0, "the server has hung up");
            input.extend_from_slice(&piece[..read]);
        }
        Ok(())
    }

    fn ask(&self, operation: Operation, keys: &[String], out: &mut Vec<u8>) {
        for key in keys {
            let (name, parameters): (_, &[&str]) = match operation {
                Operation::Get => ("get", &[key]),
                Operation::Set => ("set", &[key, VALUE]),
            };
            let format = u8::from(self.binary);
            let mut bind = format!("\0{name}\0").into_bytes();
            // One format for all parameters: a text is the same in both.
            bind.extend_from_slice(&[0, 1, 0, format]);
            bind.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
            for parameter in parameters {
                bind.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
                bind.extend_from_slice(parameter.as_bytes());
            }
            // And for the result.
            bind.extend_from_slice(&[0, 1, 0, if operation == Operation::Get { format } else { 0 }]);
            message(Some(b'B'), &bind, out);
            message(Some(b'E'), &[0; 5], out);
        }
        message(Some(b'S'), &[], out);
    }

    fn is_answered(&self, input: &[u8], batch: usize) -> Result<bool> {
        let (mut answered, mut is_ready) = (0, false);
        each_message(input, |kind| {
            answered += usize::from(kind == b'C');
            // Only then may the next batch begin.
            is_ready = kind == b'Z';
        })?;
        Ok(is_ready && answered == batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_answered_when_all_of_it_is_there_and_a_miss_is_an_error() -> Result<()> {
        let values = b"VALUE k 0 5\r\nhello\r\nVALUE l 0 2\r\nEN\r\nEND\r\n";
        for (protocol, answer, miss) in [
            (&Redis as &dyn Protocol, &b"$5\r\nhello\r\n$2\r\n+O\r\n"[..], &b"$-1\r\n"[..]),
            (&Memcached, values, b"VALUE k 0 5\r\nhello\r\nEND\r\n"),
            (&Redis, b"+OK\r\n+OK\r\n", b"-ERR no\r\n"),
            (&Memcached, b"STORED\r\nSTORED\r\n", b"SERVER_ERROR no\r\n"),
        ] {
            for len in 0..=answer.len() {
                assert_eq!(protocol.is_answered(&answer[..len], 2)?, len == answer.len(), "{len} bytes");
            }
            assert!(protocol.is_answered(miss, 2).is_err());
        }
        let mut row = Vec::new();
        message(Some(b'D'), &[0, 1, 0, 0, 0, 1, b'1'], &mut row);
        message(Some(b'C'), b"SELECT 1\0", &mut row);
        assert!(!Postgres::JSON.is_answered(&row, 1)?);
        message(Some(b'Z'), b"I", &mut row);
        assert!(Postgres::JSON.is_answered(&row, 1)?);
        let mut null = Vec::new();
        message(Some(b'D'), &[0, 1, 0xff, 0xff, 0xff, 0xff], &mut null);
        assert!(Postgres::JSON.is_answered(&null, 1).is_err());
        Ok(())
    }
}
