//! The heading of a comparison of queues, and the message that they all send.

use crate::comparison::{Heading, Relation};
use crate::stats::Target;

/// What tables call the extension.
pub(super) const OURS: &str = "pg_enough";

/// A message of common size.
pub(super) const MESSAGE: &str =
    r#"{"order": 4711, "kind": "order.paid", "customer": "ada@example.org", "amount": 4200, "currency": "EUR"}"#;

pub(super) fn heading(title: &str, clients: usize, durability: &str, target: f64) -> Heading {
    Heading {
        title: title.to_owned(),
        conditions: format!("{clients} clients, {durability}"),
        unit: "messages/s".to_owned(),
        relation: Relation::Ratio,
        target: Some(Target::AtLeast(target)),
    }
}
