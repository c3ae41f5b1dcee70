//! What may not happen, collected by kind.

use crate::calls::Function;
use postgres::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// How much of a finding is shown.
const DETAILS: usize = 1200;

/// How often each SQLSTATE came; empty for success.
#[derive(Default)]
pub(crate) struct Answers(Mutex<BTreeMap<String, usize>>);

impl Answers {
    /// Counts one.
    pub(crate) fn count(&self, state: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(state.to_owned()).or_default() += 1;
    }

    /// How many calls were made, and how many succeeded.
    pub(crate) fn total(&self) -> (usize, usize) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (all.values().sum(), all.get("").copied().unwrap_or_default())
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "{all:?}")
    }
}

/// Findings by what they have in common, with the first of each and how many there are.
#[derive(Default)]
pub(crate) struct Findings {
    all: Mutex<BTreeMap<String, (usize, String)>>,
    /// Whether the round's DDL has dropped the extension.
    extension_dropped: AtomicBool,
    /// The functions whose results are of a type of the extension.
    with_a_type: Mutex<BTreeSet<String>>,
}

impl Findings {
    /// Notes that the extension has been dropped in this round, or, for a new one, not yet.
    pub(crate) fn extension_dropped(&self, dropped: bool) {
        self.extension_dropped.store(dropped, Relaxed);
    }

    /// Notes the functions that the round's sessions call.
    pub(crate) fn called(&self, functions: &[Function]) {
        let names = functions.iter().filter(|function| function.returns_own_type).map(|function| function.name.clone());
        *self.with_a_type.lock().unwrap_or_else(PoisonError::into_inner) = names.collect();
    }

    /// Adds one of the kind `kind`, which `details` describe.
    pub(crate) fn add(&self, kind: &str, details: &str) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(kind.to_owned()).or_insert_with(|| {
            let details: String = details.chars().take(DETAILS).collect();
            // At once: what comes next may end this process.
            println!("found: {kind}\n    {details}");
            (0, details)
        });
        entry.0 += 1;
    }

    /// All of them as text; empty where there is none.
    pub(crate) fn report(&self) -> String {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (kind, (count, details)) in &*all {
            // Writing into a String can't fail.
            let _ = writeln!(text, "{count} × {kind}\n    {details}");
        }
        text
    }

    /// Looks at the error that `statement` gave in the round `seed`: whatever else it is, it may not be an internal one.
    /// `ours`: the statement calls a function of the extension; what the server's own commands say is their affair.
    pub(crate) fn judge(&self, error: &Error, statement: &str, seed: u64, ours: bool) {
        let Some(error) = error.as_db_error() else { return };
        let text = format!(
            "{}\n{}\n{}",
            error.message(),
            error.detail().unwrap_or_default(),
            error.where_().unwrap_or_default()
        );
        let details = || format!("seed {seed}: {statement}\n    {error:?}");
        let internal = error.code().code().starts_with("XX")
            && !is_servers_own(&text)
            && !(self.extension_dropped.load(Relaxed) && self.is_about_a_type(&text, function(statement)));
        if ours && (internal || text.contains("bug in pg_enough")) {
            let kind = format!("{} {} {}", function(statement), error.code().code(), shape(error.message()));
            self.add(&kind, &details());
        }
        if ["backtrace", "panicked", ".rs:"].iter().any(|word| text.contains(word)) {
            self.add(&format!("a backtrace in an error {}", error.code().code()), &details());
        }
    }

    /// What the server says of a function whose row type is dropped between the parsing and the execution of a statement: a
    /// row type is a relation to it.
    fn is_about_a_type(&self, text: &str, function: &str) -> bool {
        let lost = ["could not open relation with OID", "cache lookup failed for type"];
        lost.into_iter().any(|lost| text.starts_with(lost))
            && self.with_a_type.lock().unwrap_or_else(PoisonError::into_inner).contains(function)
    }

    /// Looks at what the server's log says of the round `seed`.
    pub(crate) fn judge_log(&self, log: &str, seed: u64) {
        let lines: Vec<&str> = log.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if is_bad(line) {
                let message = line.split_once("] ").map_or(*line, |(_, rest)| rest);
                let context = surroundings(&lines, number);
                // A crash is told with the statement that it came by.
                let running = context.split_once("Failed process was running:").map_or("", |(_, rest)| function(rest));
                self.add(&format!("the log: {} {running}", shape(message)), &format!("seed {seed}: {context}"));
            }
        }
    }
}

/// What the log says around a line: what the same process said before, and what came next.
fn surroundings(lines: &[&str], number: usize) -> String {
    const BEFORE: usize = 4;
    const AFTER: usize = 4;
    let process =
        |line: &str| line.split_once(" [").and_then(|(_, rest)| rest.split_once(']')).map(|(pid, _)| pid.to_owned());
    let own = process(lines[number]);
    let before = lines[..number].iter().rev().filter(|line| own.is_some() && process(line) == own).take(BEFORE);
    let mut around: Vec<&str> = before.copied().collect();
    around.reverse();
    around.extend(&lines[number..lines.len().min(number + AFTER)]);
    around.join("\n    ")
}

/// What the server itself says when a function, or a table that an SQL function reads, is dropped between the parsing of a
/// statement and its planning, or the start of the function.
fn is_servers_own(text: &str) -> bool {
    let contexts =
        ["cache lookup failed for function", "during inlining", "SQL function \"queue_list\" during startup"];
    contexts.into_iter().any(|context| text.contains(context))
}

/// Lines of a log that no call may bring about.
fn is_bad(line: &str) -> bool {
    // What the server finds wrong with itself are warnings without a SQLSTATE of their own: leaks, memory that was
    // written past its end, states that shouldn't be. Those that are told to users have one, but for a few.
    const USUAL: [&str; 5] = [
        "skipping",
        "is not a PostgreSQL backend process",
        // Recovery replays the end of a database whose files are gone already.
        "could not open directory \"base/",
        "some useless files may be left behind",
        "could not remove file or directory \"base/",
    ];
    let warning = line.contains(" 01000 WARNING:") && !USUAL.iter().any(|usual| line.contains(usual));
    let words = [
        "PANIC:",
        "TRAP:",
        "was terminated by signal",
        "panicked at",
        "stack backtrace",
        "bug in pg_enough",
        "abnormal exit",
    ];
    // A program that COPY runs may be interrupted.
    let program = line.contains("child process was terminated by signal");
    warning || !program && words.iter().any(|word| line.contains(word))
}

/// The function that a statement calls first.
fn function(statement: &str) -> &str {
    let rest = statement.split_once("enough.").map_or("", |(_, rest)| rest);
    rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default()
}

/// A message without the numbers in it, and not too long.
fn shape(message: &str) -> String {
    let mut shape: String = message.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(160).collect();
    while shape.contains("##") {
        shape = shape.replace("##", "#");
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_judged_by_what_no_call_may_bring_about() {
        let findings = Findings::default();
        findings.judge_log(
            "2026-01-01 [1] 00000 LOG:  checkpoint starting\n\
             2026-01-01 [1] 42P01 ERROR:  relation \"q\" does not exist\n\
             2026-01-01 [1] 25P01 WARNING:  there is no transaction in progress",
            1,
        );
        assert_eq!(findings.report(), "");
        for line in [
            "[1] 01000 WARNING:  buffer refcount leak: [015] (rel=base/1/2, blockNum=0, flags=0x93800000, refcount=1 1)",
            "TRAP: FailedAssertion(\"a\", File: \"heapam.c\", Line: 1, PID: 2)",
            "[1] 00000 LOG:  server process (PID 17) was terminated by signal 11: Segmentation fault",
            "thread '<unnamed>' panicked at src/lib.rs:1:1:",
        ] {
            let findings = Findings::default();
            findings.judge_log(line, 1);
            assert_ne!(findings.report(), "", "{line}");
        }
    }

    #[test]
    fn findings_of_one_kind_are_counted_together() {
        let findings = Findings::default();
        findings.add(&shape("could not open relation with OID 16384"), "first");
        findings.add(&shape("could not open relation with OID 7"), "second");
        assert_eq!(findings.report(), "2 × could not open relation with OID #\n    first\n");
        assert_eq!(function("SELECT * FROM enough.queue_read(\"queue\" => 'a')"), "queue_read");
        assert_eq!(function("BEGIN"), "");
    }
}
