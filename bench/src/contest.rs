//! What a measurement is, and how two contenders take turns.
//!
//! A machine is never the same for two minutes: other work, the temperature, where the kernel puts a process. So the
//! two sides of a comparison run in turns, and it is the rounds that are compared, pair by pair. Who begins alternates
//! too (A B, B A, A B, …): whatever drifts in one direction then falls on both alike.

use crate::stats::{Estimate, Target, Verdict};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// One side of a comparison.
pub trait Contender {
    /// What the table calls it.
    fn name(&self) -> &str;

    /// Runs one round and returns what was measured, in the comparison's unit.
    fn round(&mut self) -> Result<f64>;

    /// A shorter round, whose result doesn't count: caches fill, relations and memory get their size.
    fn warm_up(&mut self) -> Result<()>;
}

/// What is made of a pair of rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// The first divided by the second.
    Ratio,
    /// The first less the second.
    Difference,
}

/// The heading of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heading {
    /// What is compared, e.g. `cache get`.
    pub title: String,
    /// The conditions, e.g. `8 clients`.
    pub conditions: String,
    /// The unit of the rounds' results.
    pub unit: String,
    /// What is made of a pair of rounds.
    pub relation: Relation,
    /// What that should come to, if there is a promise.
    pub target: Option<Target>,
}

/// What one side has done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The contender's name.
    pub name: String,
    /// Every round, in the order in which they ran.
    pub rounds: Vec<f64>,
    /// What they come to.
    pub estimate: Estimate,
}

/// A finished comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What was compared, and how.
    #[serde(flatten)]
    pub heading: Heading,
    /// The side in question.
    pub subject: Side,
    /// The side that it is compared with.
    pub reference: Side,
    /// The ratio or difference of the rounds, pair by pair.
    pub related: Estimate,
    /// Whether the target is met, where there is one.
    pub verdict: Option<Verdict>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

/// Lets `subject` and `reference` take turns for `rounds` rounds each.
pub fn hold(
    heading: Heading,
    subject: &mut dyn Contender,
    reference: &mut dyn Contender,
    rounds: usize,
) -> Result<Comparison> {
    ensure!(rounds > 0, "a comparison takes one round at the least");
    subject.warm_up().with_context(|| format!("{}: {}", heading.title, subject.name()))?;
    reference.warm_up().with_context(|| format!("{}: {}", heading.title, reference.name()))?;
    let (mut first, mut second) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds {
        let mut subjects_turn = round % 2 == 0;
        for _ in 0..2 {
            let (contender, results): (&mut dyn Contender, _) =
                if subjects_turn { (&mut *subject, &mut first) } else { (&mut *reference, &mut second) };
            results.push(contender.round().with_context(|| format!("{}: {}", heading.title, contender.name()))?);
            subjects_turn = !subjects_turn;
        }
        eprintln!(
            "    {} ({}), round {} of {rounds}: {} {}, {} {}",
            heading.title,
            heading.conditions,
            round + 1,
            subject.name(),
            crate::report::number(first[round]),
            reference.name(),
            crate::report::number(second[round]),
        );
    }
    let pairs: Vec<f64> = first.iter().zip(&second).map(|(a, b)| heading.relation.of(*a, *b)).collect();
    let related = Estimate::of(&pairs).context("no rounds")?;
    Ok(Comparison {
        verdict: heading.target.map(|target| target.judge(related)),
        subject: Side::new(subject.name(), first)?,
        reference: Side::new(reference.name(), second)?,
        related,
        heading,
        notes: Vec::new(),
    })
}

impl Side {
    fn new(name: &str, rounds: Vec<f64>) -> Result<Self> {
        let estimate = Estimate::of(&rounds).context("no rounds")?;
        Ok(Self { name: name.to_owned(), rounds, estimate })
    }
}

impl Relation {
    fn of(self, subject: f64, reference: f64) -> f64 {
        match self {
            Self::Ratio => subject / reference,
            Self::Difference => subject - reference,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replays what it was given and logs whose turn it was.
    struct Replay<'a> {
        name: &'static str,
        results: std::vec::IntoIter<f64>,
        log: &'a std::cell::RefCell<String>,
    }

    impl Contender for Replay<'_> {
        fn name(&self) -> &str {
            self.name
        }

        fn round(&mut self) -> Result<f64> {
            self.log.borrow_mut().push_str(self.name);
            self.results.next().context("too many rounds")
        }

        fn warm_up(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn heading(relation: Relation, target: Target) -> Heading {
        Heading { title: "t".into(), conditions: "c".into(), unit: "calls/s".into(), relation, target: Some(target) }
    }

    /// While the machine slows down to a tenth, the ratio of what ran side by side stays what it is.
    #[test]
    fn rounds_are_compared_in_pairs_and_turns_alternate() -> Result<()> {
        let log = std::cell::RefCell::new(String::new());
        let mut a = Replay { name: "a", results: vec![100.0, 50.0, 10.0].into_iter(), log: &log };
        let mut b = Replay { name: "b", results: vec![50.0, 25.0, 5.0].into_iter(), log: &log };
        let result = hold(heading(Relation::Ratio, Target::AtLeast(2.0)), &mut a, &mut b, 3)?;
        assert_eq!(*log.borrow(), "abbaab");
        assert_eq!(result.related, Estimate { median: 2.0, low: 2.0, high: 2.0 });
        assert_eq!(result.verdict, Some(Verdict::Met));
        assert_eq!(result.subject.rounds, [100.0, 50.0, 10.0]);
        assert_eq!(result.reference.rounds, [50.0, 25.0, 5.0]);
        Ok(())
    }

    #[test]
    fn differences_are_the_subjects_surplus() -> Result<()> {
        let log = std::cell::RefCell::default();
        let mut a = Replay { name: "a", results: vec![0.5].into_iter(), log: &log };
        let mut b = Replay { name: "b", results: vec![0.25].into_iter(), log: &log };
        let result = hold(heading(Relation::Difference, Target::AtMost(0.2)), &mut a, &mut b, 1)?;
        assert_eq!((result.related.median, result.verdict), (0.25, Some(Verdict::Missed)));
        Ok(())
    }
}
