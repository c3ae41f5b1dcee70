//! The measurements themselves, by suite.

mod cache;
mod queue;
mod rate_limit;

use crate::contest::{Comparison, Heading, Relation, hold};
use crate::findings::Findings;
use crate::inside::Inside;
use crate::machine;
use crate::noop;
use crate::pgbench::{Load, Pgbench};
use crate::report::Measured;
use crate::stage::{self, Stage};
use crate::stats::Target;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::time::Instant;

/// A set of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// What the project promises, in a few minutes.
    Smoke,
    /// The queue.
    Queue,
    /// The cache.
    Cache,
    /// The rate limiter.
    #[value(name = "rate_limit")]
    RateLimit,
    /// All of them but smoke, which is a part of them.
    All,
}

/// A measurement, selectable by its name.
#[derive(Debug)]
pub struct Scenario {
    /// On the command line and in the results.
    pub name: &'static str,
    /// What is measured, in a line.
    pub about: &'static str,
    /// Measures it.
    pub run: fn(&Stage) -> Result<Findings>,
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
            Self::Cache => "cache",
            Self::RateLimit => "rate_limit",
            Self::All => "all",
        }
    }

    /// What it consists of, and which suite each belongs to.
    pub fn scenarios(self) -> Vec<(Self, &'static Scenario)> {
        let own = match self {
            Self::Smoke => SMOKE,
            Self::Queue => queue::SCENARIOS,
            Self::Cache => cache::SCENARIOS,
            Self::RateLimit => rate_limit::SCENARIOS,
            Self::All => {
                return [Self::Queue, Self::Cache, Self::RateLimit].into_iter().flat_map(Self::scenarios).collect();
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

    /// Runs `scenarios`.
    pub fn run(stage: &Stage, scenarios: &[(Self, &Scenario)]) -> Result<Vec<Measured>> {
        let mut results = Vec::new();
        for (suite, scenario) in scenarios {
            stage.settle()?;
            eprintln!("{}: {}", scenario.name, scenario.about);
            let (at, load, began) = (machine::time(&mut stage.client()?)?, machine::load(), Instant::now());
            let findings = (scenario.run)(stage).with_context(|| format!("scenario {}", scenario.name))?;
            results.push(Measured {
                suite: suite.name().to_owned(),
                name: scenario.name.to_owned(),
                at,
                load,
                took: Some(began.elapsed().as_secs_f64().round()),
                findings,
            });
        }
        Ok(results)
    }
}

/// Keys in use. Together with their 16 digits: what fits into the caches of a processor only in part.
const KEYS: u32 = 10_000;

/// pgbench's line that picks a key.
const PICK_KEY: &str = "\\set key 4000000000000000 + random(0, 9999)\n";

/// The key of the i-th call in SQL, another one each time.
const NTH_KEY: &str = "(4000000000000000 + i % 10000)::text";

/// How often a statement inside the server is repeated in a round.
const REPEATS: u32 = 2;

/// A function of the extension and its no-op, called in the same way by 8 clients.
fn against_noop(stage: &Stage, title: &str, call: &str, variables: &[(&str, &str)]) -> Result<Comparison> {
    const CLIENTS: usize = 8;
    let ours = format!("{PICK_KEY}{call};\n");
    let theirs = ours.replace("enough.", &format!("{}.", noop::SCHEMA));
    let load = Load {
        name: "pg_enough",
        database: stage::DATABASE,
        script: &ours,
        variables,
        clients: CLIENTS,
        ..Load::default()
    };
    let mut ours = Pgbench::new(stage, load)?;
    let mut noop = Pgbench::new(stage, Load { name: "no-op", script: &theirs, ..load })?;
    let heading = Heading {
        title: title.to_owned(),
        conditions: format!("{CLIENTS} clients, prepared"),
        unit: "calls/s".to_owned(),
        relation: Relation::Ratio,
        target: Some(Target::AtLeast(0.95)),
    };
    hold(&heading, &mut ours, &mut noop, stage.effort().rounds)
}

/// A statement that makes `calls` calls to a function of the extension, and the same with the no-op.
fn inside(stage: &Stage, title: &str, conditions: &str, statement: &str, calls: u32) -> Result<Comparison> {
    let mut ours = Inside::new(stage, "pg_enough", statement, calls, REPEATS)?;
    let theirs = statement.replace("enough.", &format!("{}.", noop::SCHEMA));
    let mut noop = Inside::new(stage, "no-op", &theirs, calls, REPEATS)?;
    let heading = Heading {
        title: format!("{title}, inside the server"),
        conditions: conditions.to_owned(),
        unit: "µs/call".to_owned(),
        relation: Relation::Difference,
        target: Some(Target::AtMost(0.3)),
    };
    hold(&heading, &mut ours, &mut noop, stage.effort().rounds)
}

/// A statement that calls `call`, which may use [`NTH_KEY`], `calls` times.
fn in_one_statement(call: &str, calls: u32) -> String {
    // A volatile function of a changing argument is called for every row: nothing is folded or remembered.
    format!("SELECT count({call}) FROM generate_series(1, {calls}) AS i")
}
