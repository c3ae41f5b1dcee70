//! How many instructions the engine's hot paths take, compared with the numbers kept in `engine/instructions.json`.
//!
//! A count doesn't depend on how busy a machine is. For it to be the same on every machine of one architecture, too,
//! `engine/examples/hot_paths.rs` gives its paths the same input every time, it is built by a profile of its own that
//! no environment variable changes, and what runs in other objects isn't counted: the C library copies memory by other
//! instructions on other processors. (Under QEMU's Nehalem, Haswell and EPYC-Rome, the first without AVX, not one
//! instruction differed.)

use super::Tally;
use super::cargo::cargo;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::{paths, shell};

/// Calls of each path that are counted.
const CALLS: u64 = 4_000;

/// A path may grow by less than this, in percent.
const TOO_MUCH: u64 = 10;

/// How to make the numbers of now the kept ones.
const ACCEPT: &str = "cargo xtask test --only instructions --accept";

/// The numbers of one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    /// What compiled the paths when they were counted.
    compiler: String,
    /// Instructions a call, by path.
    instructions: BTreeMap<String, u64>,
}

/// Counts every path and compares; with `accept`, what was counted becomes what is kept.
pub(super) fn compare(accept: bool) -> Result<Tally> {
    let program = build()?;
    let compiler = shell::output(Command::new("rustc").arg("--version"))?;
    let compiler = compiler.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let mut now = Counts { compiler, instructions: BTreeMap::new() };
    for path in shell::output(&mut Command::new(&program))?.lines() {
        now.instructions.insert(path.to_owned(), count(&program, path)?);
    }
    let file = paths::workspace().join("engine/instructions.json");
    let mut kept: BTreeMap<String, Counts> = match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("can't understand {}", file.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
    };
    if accept {
        kept.insert(ARCH.to_owned(), now.clone());
        let text = serde_json::to_string_pretty(&kept)? + "\n";
        fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
    }
    let nothing = Counts { compiler: "no compiler".to_owned(), instructions: BTreeMap::new() };
    let kept = kept.get(ARCH).unwrap_or(&nothing);
    let mut tally = Tally::default();
    for (held, line) in judge(kept, &now) {
        println!("    {line}");
        tally.add(Tally::of(held));
    }
    if tally.failed > 0 && kept.compiler != now.compiler {
        println!(
            "    The kept numbers are those of {}, this is {}: they may differ for that alone.",
            kept.compiler, now.compiler
        );
    }
    Ok(tally)
}

/// What is to be said of each path, and whether it holds.
fn judge(kept: &Counts, now: &Counts) -> Vec<(bool, String)> {
    let paths =
        now.instructions.keys().chain(kept.instructions.keys().filter(|path| !now.instructions.contains_key(*path)));
    let line = |path: &String| match (kept.instructions.get(path), now.instructions.get(path)) {
        (Some(&before), Some(&after)) => {
            let held = (after * 100) < before * (100 + TOO_MUCH);
            let change = format!("{path}: {before} → {after} instructions");
            match after.cmp(&before) {
                std::cmp::Ordering::Equal => (true, format!("{path}: {after} instructions")),
                std::cmp::Ordering::Less => (true, format!("{change}: less; keep that with `{ACCEPT}`")),
                std::cmp::Ordering::Greater if held => (true, change),
                std::cmp::Ordering::Greater => {
                    (false, format!("{change}: {TOO_MUCH} % more, or above; if that is worth it, `{ACCEPT}`"))
                }
            }
        }
        (None, Some(after)) => (false, format!("{path}: {after} instructions, not kept yet; `{ACCEPT}`")),
        (_, None) => (false, format!("{path}: there is no such path any more; `{ACCEPT}`")),
    };
    paths.map(line).collect()
}

/// Builds the program that runs the paths.
fn build() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", "enough_engine", "--example", "hot_paths", "--profile", "counted"]);
    for setting in [
        "inherits='release'",
        "opt-level=3",
        "lto='off'",
        "codegen-units=1",
        "debug='line-tables-only'",
        "panic='unwind'",
    ] {
        command.args(["--config", &format!("profile.counted.{setting}")]);
    }
    // Would let the compiler use what other machines don't have.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    shell::output(&mut command).context("can't build the engine's hot paths")?;
    Ok(paths::target().join("counted/examples/hot_paths"))
}

/// Instructions of a call of `path`.
fn count(program: &Path, path: &str) -> Result<u64> {
    let profile = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted*"]);
    command.arg(format!("--callgrind-out-file={}", profile.path().display()));
    shell::output(command.arg(program).arg(path).arg(CALLS.to_string()))?;
    let text = fs::read_to_string(profile.path()).context("can't read callgrind's profile")?;
    let total = own(&text, &program.to_string_lossy()).with_context(|| format!("in the profile of {path}"))?;
    ensure!(total >= CALLS, "nothing was counted of {path}");
    Ok((total + CALLS / 2) / CALLS)
}

/// The instructions of the object `program` alone, in a profile of callgrind's.
///
/// Its lines set the object (`ob=(7) /path`, later `ob=(7)`), or hold a place and a cost; the one behind `calls=` is
/// what was called, whose cost stands in its own place, too.
fn own(profile: &str, program: &str) -> Result<u64> {
    let mut ours = None;
    let (mut inside, mut called, mut total) = (false, false, 0);
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=").or(line.strip_prefix("cob=")) {
            let (number, name) = object.split_once(' ').unwrap_or((object, ""));
            if name == program {
                ours = Some(number);
            }
            if line.starts_with("ob=") {
                inside = ours == Some(number);
            }
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            if inside && !called {
                let cost = line.split(' ').nth(1).with_context(|| format!("no cost in `{line}`"))?;
                total += cost.parse::<u64>().with_context(|| format!("no number in `{line}`"))?;
            }
            called = false;
        }
    }
    ensure!(ours.is_some(), "{program} isn't in it");
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(paths: &[(&str, u64)]) -> Counts {
        let instructions = paths.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect();
        Counts { compiler: "rustc 1".to_owned(), instructions }
    }

    #[test]
    fn growth_by_a_tenth_fails_and_less_is_to_be_kept() {
        let kept = counts(&[("same", 100), ("less", 100), ("more", 100), ("too much", 100), ("gone", 100)]);
        let now = counts(&[("same", 100), ("less", 80), ("more", 109), ("too much", 110), ("new", 5)]);
        let said = judge(&kept, &now);
        let of = |path: &str| {
            said.iter().find(|(_, line)| line.starts_with(path)).map(|(held, line)| (*held, line.contains(ACCEPT)))
        };
        assert_eq!(of("same"), Some((true, false)));
        assert_eq!(of("less"), Some((true, true)));
        assert_eq!(of("more"), Some((true, false)));
        assert_eq!(of("too much"), Some((false, true)));
        assert_eq!(of("new"), Some((false, true)));
        assert_eq!(of("gone"), Some((false, true)));
        assert_eq!(said.len(), 6);
    }

    #[test]
    fn only_the_programs_own_instructions_are_counted() -> Result<()> {
        let profile = "version: 1\npositions: line\nevents: Ir\nsummary: 260\n\n\
            ob=(3) /lib/libc.so.6\nfn=(1) main_of_libc\n0 5\ncob=(6) /target/hot_paths\ncfn=(2) main\ncalls=1 0\n0 250\n\
            ob=(6)\nfn=(2)\n12 100\n+1 20\ncob=(3)\ncfn=(4) memcpy\ncalls=2 0\n* 50\n* 7\n-3 80\n\
            ob=(3)\nfn=(4)\n0 50\n\ntotals: 260\n";
        assert_eq!(own(profile, "/target/hot_paths")?, 207);
        assert!(own(profile, "/target/another").is_err());
        Ok(())
    }
}
