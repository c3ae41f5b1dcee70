//! The tasks of `maintain()`. Each stops at the deadline and says whether it came to its end; many sessions may run them
//! at once. None holds a lock of the segment for longer than a batch of rows.
//!
//! Queues come in turns (`queue/upkeep/maintain.rs`), those first that have waited longest, each for its share of the time. What isn't
//! about single queues gets an eighth of the time each, so that no number of queues keeps it from being done.

use crate::capability::{self, Task};
use crate::error::Error;
use crate::pg::server;
use crate::queue::upkeep::maintain::{self, Unfinished, Work};
use crate::{cron, kv, queue};

/// What a task did.
pub(super) struct Outcome {
    /// Its name.
    pub task: &'static str,
    /// How many rows, entries or queues it removed or found.
    pub items: i64,
    /// How long it took, in microseconds.
    pub elapsed: i64,
    /// What an administrator may want to know.
    pub note: Option<String>,
}

/// The least time for a queue, in microseconds: shorter shares would go into beginning.
const SHARE: i64 = 1000;
/// What is said where there was no time.
const STOPPED: &str = "stopped at max_duration; the next run goes on";
/// The most queues, or findings, that a note names.
const NAMED: usize = 10;

/// What isn't about single queues: the tasks of the capabilities, and these.
const OWN: [Task; 2] = [("cron_notes", |_| cron::trim_notes().map(|items| (items, true))), ("kv_expired", kv::expire)];

/// Runs them all, for `max_duration` microseconds at the most.
pub(super) fn run(max_duration: i64) -> Result<Vec<Outcome>, Error> {
    let deadline = server::now().saturating_add(max_duration);
    let tasks: Vec<Task> = capability::all().iter().flat_map(|one| one.tasks).copied().chain(OWN).collect();
    let mut others = Vec::with_capacity(tasks.len());
    for &(task, work) in &tasks {
        let started = server::now();
        let share = started.saturating_add(max_duration / 8).min(deadline);
        let (items, whole) = if started > share || max_duration == 0 { (0, false) } else { work(share)? };
        server::check_for_interrupts();
        let note = (!whole).then(|| STOPPED.into());
        others.push(Outcome { task, items, elapsed: server::now().saturating_sub(started), note });
    }
    let mut outcomes = visit_queues(deadline)?;
    outcomes.push(check()?);
    // What had more to do than its share, if there is time left.
    for (outcome, (_, work)) in others.iter_mut().zip(&tasks).filter(|(outcome, _)| outcome.note.is_some()) {
        let started = server::now();
        if started < deadline {
            let (items, whole) = work(deadline)?;
            outcome.items = outcome.items.saturating_add(items);
            outcome.elapsed = outcome.elapsed.saturating_add(server::now().saturating_sub(started));
            outcome.note = (!whole).then(|| STOPPED.into());
        }
    }
    outcomes.extend(others);
    Ok(outcomes)
}

fn visit_queues(deadline: i64) -> Result<Vec<Outcome>, Error> {
    let [mut reconciled, mut buried, mut archived, mut numbers] = [Work::default(); 4];
    let mut notes = Vec::new();
    let mut due = maintain::queues()?;
    // Where time is left, those that weren't done in their share get another one.
    while !due.is_empty() && server::now() < deadline {
        let mut again = Vec::new();
        for (place, name) in due.iter().enumerate() {
            let now = server::now();
            if now >= deadline {
                again.extend_from_slice(&due[place..]);
                break;
            }
            let share = (deadline.saturating_sub(now) / (due.len() - place) as i64).max(SHARE);
            let Some(visit) = maintain::visit(name, now.saturating_add(share).min(deadline))? else { continue };
            add(&mut reconciled, visit.reconciled);
            add(&mut buried, visit.buried);
            add(&mut archived, visit.archived);
            add(&mut numbers, visit.numbers);
            match visit.unfinished {
                None => {}
                Some(Unfinished::Time) => again.push(name.clone()),
                Some(Unfinished::Locked) => notes.push(format!("queue \"{name}\" is locked by another session")),
                Some(Unfinished::Failed(message)) => notes.push(format!("queue \"{name}\": {message}")),
            }
            server::check_for_interrupts();
        }
        due = again;
    }
    if !due.is_empty() {
        let names: Vec<String> = due.iter().map(|name| format!("\"{name}\"")).collect();
        notes.push(format!("{STOPPED} with {}", shortened(names, ", ")));
    }
    let note = (!notes.is_empty()).then(|| shortened(notes, "; "));
    let tasks = [
        ("queue_reconcile", reconciled),
        ("queue_bury", buried),
        ("queue_archive", archived),
        ("queue_numbers", numbers),
    ];
    Ok(tasks.map(|(task, work)| Outcome { task, items: work.items, elapsed: work.elapsed, note: note.clone() }).into())
}

fn add(sum: &mut Work, work: Work) {
    sum.items = sum.items.saturating_add(work.items);
    sum.elapsed = sum.elapsed.saturating_add(work.elapsed);
}

/// The first of them, and how many there are besides.
fn shortened(mut texts: Vec<String>, between: &str) -> String {
    let more = texts.len().saturating_sub(NAMED);
    texts.truncate(NAMED);
    let text = texts.join(between);
    if more > 0 { format!("{text} and {more} more") } else { text }
}

/// What is wrong with queues; it changes nothing.
fn check() -> Result<Outcome, Error> {
    let started = server::now();
    let findings = queue::check::findings()?;
    let items = i64::try_from(findings.len()).unwrap_or(i64::MAX);
    let note = (!findings.is_empty()).then(|| shortened(findings, "; "));
    Ok(Outcome { task: "queue_check", items, elapsed: server::now().saturating_sub(started), note })
}
