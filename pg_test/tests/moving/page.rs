//! The commands of `docs/moving-data.md`, section by section.

use anyhow::{Context, Result, ensure};
use enough_pg_test::markdown::{blocks, sections};
use std::collections::BTreeSet;
use std::path::Path;
use xtask::server::Server;
use xtask::shell;

const PAGE: &str = include_str!("../../../docs/moving-data.md");

/// What a section's commands find in their environment.
pub type Variables<'a> = &'a [(&'a str, String)];

/// The commands of the section with that heading.
pub fn commands(title: &str) -> Result<Vec<String>> {
    let found = sections(PAGE).into_iter().find(|(heading, _)| *heading == title);
    let (_, section) = found.with_context(|| format!("no section {title:?}"))?;
    let commands: Vec<String> =
        blocks(section).into_iter().filter(|(language, _)| *language == "sh").map(|(_, text)| text).collect();
    ensure!(!commands.is_empty(), "no commands under {title:?}");
    Ok(commands)
}

/// Runs `script` in the directory `dir` with the programs of `server`, as its user. An error says what it printed.
pub fn run(server: &Server, dir: &Path, script: &str, variables: Variables<'_>) -> Result<String> {
    let mut bash = server.bash(dir, script)?;
    bash.envs(variables.iter().map(|(name, value)| (name, value)));
    shell::output(&mut bash).with_context(|| format!("running\n{script}"))
}

/// A directory of the server's user, which goes with the server.
pub fn directory(server: &Server) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir_in(server.dir())?;
    xtask::account::Account::for_servers()?.own(dir.path())?;
    Ok(dir)
}

/// The sections that the other modules run, each by its heading.
const TESTED: [&str; 12] = [
    "Dump, in one file",
    "Dump, in parallel",
    "Dump, as SQL",
    "Schema first, data later",
    "The schema enough",
    "One queue",
    "The messages of one queue, into one that is there",
    "Schedules",
    "Without the schedules, by an owner",
    "Base backup",
    "Standby, and its promotion",
    "Logical replication",
];

#[test]
fn every_section_with_commands_is_run() -> Result<()> {
    let with_commands = sections(PAGE).into_iter().filter(|(_, section)| section.contains("```"));
    let headings: BTreeSet<&str> = with_commands.map(|(heading, _)| heading).collect();
    ensure!(headings == TESTED.into_iter().chain(["pg_upgrade"]).collect(), "{headings:?}");
    Ok(())
}
