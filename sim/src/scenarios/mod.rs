//! Hazards provoked on purpose: each a short play on the stage of a run, which ends with the same healing and the same
//! judgement as every other run, and fails if what it is about did not happen.

use crate::draw::Cast;
use crate::stage::Stage;
use crate::world::Failure;

/// One hazard, provoked.
#[derive(Debug)]
pub struct Scenario {
    /// As the list of hazards names it.
    pub name: &'static str,
    /// Its number in that list.
    pub hazard: u8,
    /// One line for `list`.
    pub about: &'static str,
    /// Changes who takes part.
    pub cast: fn(&mut Cast),
    /// The phase with faults.
    pub play: fn(&mut Stage<'_>) -> Result<(), Failure>,
}

/// Every scenario, by hazard.
pub fn all() -> &'static [Scenario] {
    &[]
}

pub fn named(name: &str) -> Option<&'static Scenario> {
    all().iter().find(|scenario| scenario.name == name)
}
