//! A candidate that asks a server over TCP: the same client for every protocol, so that what differs is the server.
//!
//! Each client is a thread with a connection of its own, which sends a batch of requests, waits for all their answers,
//! and sends the next.

mod protocol;

pub use protocol::{Memcached, Postgres, Redis};

use crate::comparison::Candidate;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A value by its key. That it isn't there is an error: a miss is cheaper than a hit.
    Get,
    /// A value to be stored.
    Set,
}

/// How a server is spoken to.
pub trait Protocol: Sync {
    /// What tables call the server.
    fn name(&self) -> &str;
    /// Begins a session.
    fn greet(&self, _stream: &mut TcpStream) -> Result<()> {
        Ok(())
    }
    /// Appends a batch of requests, in the way that the server is best asked for several things at once.
    fn ask(&self, operation: Operation, keys: &[String], out: &mut Vec<u8>);
    /// Whether a batch of so many requests has been answered completely; an error where one was refused, or found nothing.
    fn is_answered(&self, input: &[u8], batch: usize) -> Result<bool>;
}

/// Keys in use: those of the other measurements.
const KEYS: u64 = 10_000;

/// The keys, in an order that jumps about.
fn key(number: u64) -> String {
    format!("{}", 4_000_000_000_000_000 + number.wrapping_mul(7919) % KEYS)
}

/// So many connections to a server, and what is asked on them.
pub struct Wire<'p> {
    protocol: &'p dyn Protocol,
    operation: Operation,
    batch: usize,
    seconds: u64,
    connections: Vec<TcpStream>,
}

impl std::fmt::Debug for Wire<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("server", &self.protocol.name())
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

impl<'p> Wire<'p> {
    /// Connects `clients` times, and gives every key its value.
    pub fn new(
        protocol: &'p dyn Protocol,
        port: u16,
        operation: Operation,
        (clients, batch, seconds): (usize, usize, u64),
    ) -> Result<Self> {
        let connections = (0..clients).map(|_| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            protocol.greet(&mut stream)?;
            Ok(stream)
        });
        let connections = connections.collect::<Result<Vec<_>>>();
        let mut connections = connections.with_context(|| format!("can't connect to {}", protocol.name()))?;
        for number in 0..KEYS {
            exchange(protocol, connections.first_mut().context("no clients")?, Operation::Set, number, 1)?;
        }
        Ok(Self { protocol, operation, batch, seconds, connections })
    }

    /// Requests answered in a second.
    fn run(&mut self, time: Duration) -> Result<f64> {
        let (protocol, operation, batch) = (self.protocol, self.operation, self.batch);
        let began = Instant::now();
        let counts = std::thread::scope(|scope| {
            let clients = self.connections.iter_mut().enumerate().map(|(client, stream)| {
                scope.spawn(move || {
                    let mut number = client as u64 * 1_000_003;
                    let mut count = 0;
                    while began.elapsed() < time {
                        exchange(protocol, stream, operation, number, batch)?;
                        number += batch as u64;
                        count += batch;
                    }
                    Ok(count)
                })
            });
            let clients: Vec<_> = clients.collect();
            let joined =
                clients.into_iter().map(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
            joined.collect::<Result<Vec<usize>>>()
        })?;
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        Ok(counts.into_iter().sum::<usize>() as f64 / began.elapsed().as_secs_f64())
    }
}

/// One batch, from the first request to the last answer.
fn exchange(
    protocol: &dyn Protocol,
    stream: &mut TcpStream,
    operation: Operation,
    first: u64,
    batch: usize,
) -> Result<()> {
    let mut out = Vec::with_capacity(256 * batch);
    let keys: Vec<String> = (first..first + batch as u64).map(key).collect();
    protocol.ask(operation, &keys, &mut out);
    stream.write_all(&out)?;
    let (mut input, mut piece) = (Vec::with_capacity(256 * batch), [0; 16384]);
    while !protocol.is_answered(&input, batch).with_context(|| protocol.name().to_owned())? {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "{} has hung up", protocol.name());
        input.extend_from_slice(&piece[..read]);
    }
    Ok(())
}

impl Candidate for Wire<'_> {
    fn name(&self) -> &str {
        self.protocol.name()
    }

    fn round(&mut self) -> Result<f64> {
        self.run(Duration::from_secs(self.seconds))
    }

    fn warm_up(&mut self) -> Result<()> {
        self.run(Duration::from_millis(500)).map(drop)
    }
}
