//! The oracle: one property a file, each with where it comes from. It shares no code with the broker and believes
//! only what clients were told ([`crate::history`]) and what the nodes' state is seen to be ([`crate::observe`]).

use crate::history::Event;
use crate::observe::NodeView;
use std::collections::BTreeMap;
use std::fmt;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the invariant, as `ops/docs` and the table list it: `I1-durability`.
    pub invariant: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

pub type Check = Result<(), Violation>;

/// What a step left behind.
#[derive(Debug)]
pub struct Observation<'a> {
    pub now_us: u64,
    /// Nodes that run, by id.
    pub nodes: &'a BTreeMap<u64, NodeView>,
}

/// A property. Everything has a default that finds nothing wrong, so that each says only what it looks at.
pub trait Invariant {
    fn name(&self) -> &'static str;

    /// A client did something or was told something. Called in order, after the observation of the same step.
    fn event(&mut self, _event: &Event) -> Check {
        Ok(())
    }

    /// After every step.
    fn observe(&mut self, _seen: &Observation<'_>) -> Check {
        Ok(())
    }

    /// The run has healed and everything was read back.
    fn finish(&mut self, _seen: &Observation<'_>) -> Check {
        Ok(())
    }
}

/// Every invariant that a run is checked against.
pub fn all() -> Vec<Box<dyn Invariant>> {
    Vec::new()
}
