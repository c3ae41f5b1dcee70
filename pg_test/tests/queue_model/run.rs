//! Many histories one after the other.

use crate::history::{History, Kind, Stage};
use anyhow::{Context, Result, anyhow, ensure};
use enough_pg_test::check::healthy;
use enough_pg_test::server::{self, Database};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use xtask::server::{Server, Shutdown};

const SESSIONS: usize = 5;

fn variable(name: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    Ok(Some(text.parse().with_context(|| format!("{name} isn't a number: {text}"))?))
}

/// Does `one` with one seed after the other until the time is over, or with the one that is asked for.
fn each_seed(test: &str, mut one: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let asked = variable("ENOUGH_MODEL_SEED")?;
    let length = Duration::from_secs(variable("ENOUGH_MODEL_SECONDS")?.unwrap_or(10));
    let end = Instant::now() + length;
    let first = asked.or(variable("ENOUGH_MODEL_FROM")?).unwrap_or(1);
    let mut seed = first;
    while seed == first || (asked.is_none() && Instant::now() < end) {
        one(seed).with_context(|| format!("the history of seed {seed}; again: ENOUGH_MODEL_SEED={seed} and {test}"))?;
        seed += 1;
    }
    println!("{test}: {} histories", seed - first);
    Ok(())
}

/// What befalls the server in the midst of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    None,
    /// A backend is killed, and all of them with it.
    Crash,
    /// A clean stop and a start.
    Restart,
}

/// Many histories on a server with so much memory for the queues.
fn histories(test: &str, kind: Kind, memory: &str, blows: bool) -> Result<()> {
    let mut server = server::start(&server::options()?.conf("enough.queue_memory", memory))?;
    let database = Database::on(&server)?;
    let mut stage = Stage::new(&database, SESSIONS)?;
    each_seed(test, |seed| {
        let blow = if blows { [Blow::Crash, Blow::Crash, Blow::Restart][seed as usize % 3] } else { Blow::None };
        let mut history = History::new(&mut stage, kind, seed)?;
        let done = catch_unwind(AssertUnwindSafe(|| live(&mut history, &mut server, blow)));
        let done = done.unwrap_or_else(|_| Err(anyhow!("the model panicked")));
        done.with_context(|| format!("{:?}\n{}", history.model.options, history.log))
    })?;
    ensure!(stage.resets()? == 0 || blows, "the memory was damaged");
    healthy(&server.log(), blows)
}

fn live(history: &mut History<'_, '_>, server: &mut Server, blow: Blow) -> Result<()> {
    if history.kind == Kind::Tiny {
        let count = history.rng.i64(50..800);
        history.send(0, count, 0, (0, None))?;
    }
    let steps = history.rng.usize(30..120);
    let strike = history.rng.usize(0..steps);
    for step in 0..steps {
        history.step().with_context(|| format!("step {step}"))?;
        if step == strike && blow != Blow::None {
            let victim = history.blow()?;
            if blow == Blow::Restart {
                server.restart(Shutdown::Fast)?;
            } else {
                server.backend_kill9(victim)?;
                server.wait_until_up()?;
            }
            history.recover()?;
        }
    }
    history.conclude()
}

#[test]
fn everything_fits_into_the_memory() -> Result<()> {
    histories("everything_fits_into_the_memory", Kind::Roomy, "8MB", false)
}

#[test]
fn more_messages_than_the_memory_holds() -> Result<()> {
    histories("more_messages_than_the_memory_holds", Kind::Tiny, "16kB", false)
}

#[test]
fn the_server_crashes_and_restarts() -> Result<()> {
    histories("the_server_crashes_and_restarts", Kind::Tiny, "16kB", true)
}
