//! What the demo shows: one line of progress, then a short table.

use super::worker::Counters;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where the line can't be overwritten, a new one comes only so often.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// A line that counts up.
pub(super) struct Progress {
    verb: &'static str,
    total: u64,
    began: Instant,
    shown: Option<Instant>,
    overwrites: bool,
}

impl Progress {
    /// Counts to `total`.
    pub(super) fn new(verb: &'static str, total: u64) -> Self {
        Self { verb, total, began: Instant::now(), shown: None, overwrites: std::io::stdout().is_terminal() }
    }

    /// Shows that `count` are done.
    pub(super) fn show(&mut self, count: u64) {
        if self.overwrites {
            print!("\r{}", self.line(count));
        } else if self.shown.is_none_or(|shown| shown.elapsed() >= LINE_EVERY) {
            println!("{}", self.line(count));
            self.shown = Some(Instant::now());
        }
        // Nobody reading the progress is no reason to stop.
        let _ = std::io::stdout().flush();
    }

    /// Shows a line of its own in between.
    pub(super) fn note(&self, text: &str) {
        println!("{}    {text}", if self.overwrites { "\r\x1b[K" } else { "" });
    }

    /// Shows the last count.
    pub(super) fn end(&mut self, count: u64) {
        println!("{}{}", if self.overwrites { "\r" } else { "" }, self.line(count));
    }

    fn line(&self, count: u64) -> String {
        let rate = per_second(count, self.began.elapsed());
        format!("    {count:>7} of {} {} ({rate:.0}/s)  ", self.total, self.verb)
    }
}

/// The demo's outcome.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) redelivered: u64,
    pub(super) lost: u64,
    /// Messages still in the queue's table.
    pub(super) left: u64,
    pub(super) sending: Duration,
    pub(super) draining: Duration,
    pub(super) counters: Counters,
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counters { hits, misses, allowed, denied, .. } = self.counters;
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<16} {value}");
        row("sent", format!("{:>8}   {:.0}/s", self.sent, per_second(self.sent, self.sending)))?;
        row("delivered", format!("{:>8}   each deleted and recorded in one transaction", self.delivered))?;
        row("redelivered", format!("{:>8}   after the killed worker's leases ran out", self.redelivered))?;
        row("lost", format!("{:>8}   {} left in the queue", self.lost, self.left))?;
        row("messages/s", format!("{:>8.0}", per_second(self.delivered, self.draining)))?;
        row("cache hit rate", format!("{:>7.1}%   {hits} hits, {misses} misses", percent(hits, hits + misses)))?;
        row("rate limit", format!("{allowed:>8}   allowed, {denied} denied and delivered later"))
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display, and far below 2^52")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-3)
}

#[expect(clippy::cast_precision_loss, reason = "for display, and far below 2^52")]
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / (whole as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_was_counted() {
        let counters = Counters { read: 110, done: 100, hits: 90, misses: 10, allowed: 100, denied: 7 };
        let (sending, draining) = (Duration::from_secs(1), Duration::from_secs(2));
        let results =
            Results { sent: 100, delivered: 99, redelivered: 3, lost: 1, left: 1, sending, draining, counters };
        let text = results.to_string();
        let row = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_default().trim();
        assert!(row("sent").starts_with("100   100/s"), "{text}");
        assert!(row("delivered").starts_with("99 "), "{text}");
        assert!(row("redelivered").starts_with("3 "), "{text}");
        assert!(row("lost").starts_with("1   1 left"), "{text}");
        assert_eq!(row("messages/s"), "50");
        assert_eq!(row("cache hit rate"), "90.0%   90 hits, 10 misses");
        assert!(row("rate limit").starts_with("100   allowed, 7 denied"), "{text}");
    }

    #[test]
    fn nothing_in_no_time_is_no_error() {
        assert!(percent(0, 0).abs() < f64::EPSILON && per_second(0, Duration::ZERO).abs() < f64::EPSILON);
    }
}
