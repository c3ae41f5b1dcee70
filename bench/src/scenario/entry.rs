//! What a scenario is.

use crate::fixture::Fixture;
use crate::results::Results;
use anyhow::Result;

/// A measurement, selectable by its name.
#[derive(Debug)]
pub struct Scenario {
    /// On the command line and in the results.
    pub name: &'static str,
    /// What is measured, in a line.
    pub about: &'static str,
    /// Measures it.
    pub run: fn(&Fixture) -> Result<Results>,
}
