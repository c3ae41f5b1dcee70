//! The measurements themselves, by suite.

mod against_noop;
mod cache;
mod entry;
mod kv;
mod queue;
mod rate_limit;
mod semaphore;
mod watching;

pub use entry::Scenario;

use crate::fixture::Fixture;
use crate::machine;
use crate::report::Measured;
use anyhow::{Error, Result, ensure};
use clap::ValueEnum;
use std::time::Instant;

/// A set of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// What the project promises, in a few minutes.
    Smoke,
    /// The queue.
    Queue,
    /// pgmq's interface.
    Pgmq,
    /// What stands beside a plain queue.
    Patterns,
    /// The cache.
    Cache,
    /// The key-value store.
    Kv,
    /// The rate limiter.
    #[value(name = "rate_limit")]
    RateLimit,
    /// The semaphores.
    Semaphore,
    /// No speed: what an operator sees.
    Watching,
    /// All of them but smoke, which is a part of them, and watching.
    All,
}

/// What the project promises.
const SMOKE: &[Scenario] = &[
    Scenario { name: "cache", about: "get and set against functions that do nothing", run: cache::smoke },
    Scenario { name: "rate_limit", about: "a check against a function that does nothing", run: rate_limit::smoke },
    Scenario { name: "queue", about: "sending against INSERT, a message's whole life against pgmq", run: queue::smoke },
];

impl Suite {
    /// Its name on the command line and in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Queue => "queue",
            Self::Pgmq => "pgmq",
            Self::Patterns => "patterns",
            Self::Cache => "cache",
            Self::Kv => "kv",
            Self::RateLimit => "rate_limit",
            Self::Semaphore => "semaphore",
            Self::Watching => "watching",
            Self::All => "all",
        }
    }

    /// What it consists of, and which suite each belongs to.
    pub fn scenarios(self) -> Vec<(Self, &'static Scenario)> {
        let own = match self {
            Self::Smoke => SMOKE,
            Self::Queue => queue::SCENARIOS,
            Self::Pgmq => queue::PGMQ,
            Self::Patterns => queue::PATTERNS,
            Self::Cache => cache::SCENARIOS,
            Self::Kv => kv::SCENARIOS,
            Self::RateLimit => rate_limit::SCENARIOS,
            Self::Semaphore => semaphore::SCENARIOS,
            Self::Watching => watching::SCENARIOS,
            Self::All => {
                return [
                    Self::Queue,
                    Self::Pgmq,
                    Self::Patterns,
                    Self::Cache,
                    Self::Kv,
                    Self::RateLimit,
                    Self::Semaphore,
                ]
                .into_iter()
                .flat_map(Self::scenarios)
                .collect();
            }
        };
        own.iter().map(|scenario| (self, scenario)).collect()
    }

    /// The scenarios of those names; all where none is given.
    pub fn select(self, names: &[String]) -> Result<Vec<(Self, &'static Scenario)>> {
        let mut chosen = self.scenarios();
        for name in names {
            let known = chosen.iter().any(|(_, scenario)| scenario.name == name);
            ensure!(known, "{} has no scenario {name}; --list shows those that it has", self.name());
        }
        chosen.retain(|(_, scenario)| names.is_empty() || names.iter().any(|name| name == scenario.name));
        Ok(chosen)
    }

    /// Runs `scenarios`: what was measured, and the first failure. What comes before one isn't lost by it, nor what comes behind it.
    pub fn run(fixture: &Fixture, scenarios: &[(Self, &Scenario)]) -> Result<(Vec<Measured>, Option<Error>)> {
        let (mut measured, mut failure) = (Vec::new(), None);
        for (suite, scenario) in scenarios {
            fixture.settle()?;
            eprintln!("{}: {}", scenario.name, scenario.about);
            let (at, load, began) = (machine::time(&mut fixture.client()?)?, machine::load(), Instant::now());
            let results = match (scenario.run)(fixture) {
                Ok(results) => results,
                Err(error) => {
                    let error = error.context(format!("scenario {}", scenario.name));
                    eprintln!("{error:#}");
                    failure.get_or_insert(error);
                    continue;
                }
            };
            measured.push(Measured {
                suite: suite.name().to_owned(),
                name: scenario.name.to_owned(),
                at,
                load,
                took: Some(began.elapsed().as_secs_f64().round()),
                results,
            });
        }
        Ok((measured, failure))
    }
}
