//! The oracle: one property a file, each with where it comes from. It shares no code with the broker and believes
//! only what clients were told ([`crate::history`]) and what the nodes' state is seen to be ([`crate::observe`]).

pub mod batch;
mod i01_durability;
mod i02_one_value;
mod i03_phantoms;
mod i04_order;
mod i05_visibility;
mod i06_exactly_once;
mod i07_log_matching;
mod i08_candidates;
mod i09_superset;
mod i10_leadership;
mod i11_unclean_return;
mod i12_raft;
mod i13_metadata;
mod i14_offsets;
mod i15_groups;
mod i16_client_view;
mod i17_integrity;
mod i18_resources;
pub mod i19_liveness;
pub mod ledger;
#[cfg(test)]
mod testkit;

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

/// Every invariant that a run is checked against. `README.md` beside this file has the table.
pub fn all() -> Vec<Box<dyn Invariant>> {
    let ledger = ledger::Shared::default();
    let shared = || ledger.clone();
    vec![
        Box::new(ledger::Keeper(shared())),
        Box::new(i01_durability::Durability::new(shared())),
        Box::new(i02_one_value::OneValue::new(shared())),
        Box::new(i03_phantoms::Phantoms::new(shared())),
        Box::new(i04_order::Order::new(shared())),
        Box::new(i05_visibility::Visibility::new(shared())),
        Box::new(i06_exactly_once::ExactlyOnce::new(shared())),
        Box::new(i07_log_matching::LogMatching::new(shared())),
        Box::new(i08_candidates::Candidates::new(shared())),
        Box::new(i09_superset::Superset::new(shared())),
        Box::new(i10_leadership::Leadership::new(shared())),
        Box::new(i11_unclean_return::UncleanReturn::new(shared())),
        Box::new(i12_raft::Raft::default()),
        Box::new(i13_metadata::Metadata::default()),
        Box::new(i14_offsets::Offsets::new(shared())),
        Box::new(i15_groups::Groups::new(shared())),
        Box::new(i16_client_view::ClientView::new(shared())),
        Box::new(i17_integrity::Integrity::new(shared())),
        Box::new(i18_resources::Resources::new(shared())),
    ]
}

/// The name with which violations are told, and how to make one.
macro_rules! named {
    ($name:literal) => {
        const NAME: &str = $name;

        fn violated(what: String) -> super::Check {
            Err(super::Violation { invariant: NAME, what })
        }
    };
}
use named;
