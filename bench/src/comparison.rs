//! What a measurement is, and how two candidates take turns.
//!
//! A machine is never the same for two minutes: other work, the temperature, where the kernel puts a process. So the
//! two sides of a comparison run in turns, and it is the rounds that are compared, pair by pair. Who begins alternates
//! too (A B, B A, A B, …): whatever drifts in one direction then falls on both alike.

use crate::stats::{Estimate, Target, Verdict};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// One side of a comparison.
pub trait Candidate {
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
    /// The candidate's name.
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
pub fn compare(
    heading: &Heading,
    subject: &mut dyn Candidate,
    reference: &mut dyn Candidate,
    rounds: usize,
) -> Result<Comparison> {
    let target = heading.target;
    compare_all(heading, subject, &mut [(target, reference)], rounds)?.pop().context("no reference")
}

/// Lets `subject` and several references, each with what the relation to it should come to, take turns for `rounds`
/// rounds each.
pub fn compare_all(
    heading: &Heading,
    subject: &mut dyn Candidate,
    references: &mut [(Option<Target>, &mut dyn Candidate)],
    rounds: usize,
) -> Result<Vec<Comparison>> {
    ensure!(rounds > 0, "a comparison takes one round at the least");
    let mut sides: Vec<&mut dyn Candidate> = vec![subject];
    let mut targets = Vec::with_capacity(references.len());
    for (target, reference) in references {
        targets.push(*target);
        sides.push(&mut **reference);
    }
    for side in &mut sides {
        side.warm_up().with_context(|| format!("{}: {}", heading.title, side.name()))?;
    }
    let mut results = vec![Vec::with_capacity(rounds); sides.len()];
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let place = if round % 2 == 0 { turn } else { sides.len() - 1 - turn };
            let side = &mut sides[place];
            results[place].push(side.round().with_context(|| format!("{}: {}", heading.title, side.name()))?);
        }
        let shown = sides.iter().zip(&results);
        let shown: Vec<_> =
            shown.map(|(side, results)| format!("{} {}", side.name(), crate::number::number(results[round]))).collect();
        let (title, conditions) = (&heading.title, &heading.conditions);
        eprintln!("    {title} ({conditions}), round {} of {rounds}: {}", round + 1, shown.join(", "));
    }
    let mut sides = sides.iter().zip(results).map(|(side, rounds)| Side::new(side.name(), rounds));
    let first = sides.next().context("no subject")??;
    sides.zip(targets).map(|(side, target)| compared(heading, &first, side?, target)).collect()
}

fn compared(heading: &Heading, subject: &Side, reference: Side, target: Option<Target>) -> Result<Comparison> {
    let pairs = subject.rounds.iter().zip(&reference.rounds);
    let pairs: Vec<f64> = pairs.map(|(a, b)| heading.relation.of(*a, *b)).collect();
    let related = Estimate::of(&pairs).context("no rounds")?;
    Ok(Comparison {
        heading: Heading { target, ..heading.clone() },
        verdict: target.map(|target| target.judge(related)),
        subject: subject.clone(),
        reference,
        related,
        notes: Vec::new(),
    })
}

impl Comparison {
    /// Compares results, name and rounds, that two sides have brought along.
    pub fn of(heading: &Heading, subject: (String, Vec<f64>), reference: (String, Vec<f64>)) -> Result<Self> {
        let [subject, reference] = [subject, reference].map(|(name, rounds)| Side::new(&name, rounds));
        compared(heading, &subject?, reference?, heading.target)
    }
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

    impl Candidate for Replay<'_> {
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
        let result = compare(&heading(Relation::Ratio, Target::AtLeast(2.0)), &mut a, &mut b, 3)?;
        assert_eq!(*log.borrow(), "abbaab");
        assert_eq!(result.related, Estimate { median: 2.0, low: 2.0, high: 2.0 });
        assert_eq!(result.verdict, Some(Verdict::Met));
        assert_eq!(result.subject.rounds, [100.0, 50.0, 10.0]);
        assert_eq!(result.reference.rounds, [50.0, 25.0, 5.0]);
        Ok(())
    }

    #[test]
    fn several_references_share_the_subjects_rounds() -> Result<()> {
        let log = std::cell::RefCell::new(String::new());
        let mut a = Replay { name: "a", results: vec![6.0, 6.0].into_iter(), log: &log };
        let mut b = Replay { name: "b", results: vec![2.0, 2.0].into_iter(), log: &log };
        let mut c = Replay { name: "c", results: vec![3.0, 3.0].into_iter(), log: &log };
        let heading = heading(Relation::Ratio, Target::AtLeast(0.0));
        let found = compare_all(&heading, &mut a, &mut [(Some(Target::AtLeast(3.0)), &mut b), (None, &mut c)], 2)?;
        assert_eq!(*log.borrow(), "abccba");
        let found: Vec<_> = found.iter().map(|c| (c.reference.name.as_str(), c.related.median, c.verdict)).collect();
        assert_eq!(found, [("b", 3.0, Some(Verdict::Met)), ("c", 2.0, None)]);
        Ok(())
    }

    #[test]
    fn differences_are_the_subjects_surplus() -> Result<()> {
        let log = std::cell::RefCell::default();
        let mut a = Replay { name: "a", results: vec![0.5].into_iter(), log: &log };
        let mut b = Replay { name: "b", results: vec![0.25].into_iter(), log: &log };
        let result = compare(&heading(Relation::Difference, Target::AtMost(0.2)), &mut a, &mut b, 1)?;
        assert_eq!((result.related.median, result.verdict), (0.25, Some(Verdict::Missed)));
        Ok(())
    }
}
