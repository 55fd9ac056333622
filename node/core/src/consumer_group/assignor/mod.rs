//! Server-side assignors (KIP-848): who should have which partition. Pure functions.
//!
//! What holds for each:
//! * every partition of a topic that some member subscribes to goes to exactly one of those members;
//! * every member has an entry;
//! * the result depends on nothing but the arguments.

mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::Partitions;
use strandline_record::TopicId;

/// The assignors, under Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Balanced over all topics together, and moves little: `uniform`.
    Uniform,
    /// The same ranges of each topic to the same members, so that topics with equally many partitions are
    /// co-partitioned: `range`.
    Range,
}

/// What is to be assigned.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    /// Partition counts.
    pub topics: BTreeMap<TopicId, i32>,
    /// By member id.
    pub members: BTreeMap<Arc<str>, Assignee>,
}

#[derive(Clone, Debug, Default)]
pub struct Assignee {
    /// Of a static member, which keeps its place in the order when its member id changes.
    pub instance_id: Option<Arc<str>>,
    /// All among the problem's topics. Shared by members with equal subscriptions.
    pub subscribed: Arc<BTreeSet<TopicId>>,
    /// What it was assigned last.
    pub previous: Partitions,
}

impl Assignor {
    pub const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    pub fn assign(self, problem: &Problem) -> BTreeMap<Arc<str>, Partitions> {
        match self {
            Self::Uniform => uniform::assign(problem),
            Self::Range => range::assign(problem),
        }
    }
}

impl std::fmt::Display for Assignor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
