//! The types that openraft is instantiated with.
//!
//! Standard Raft leader ids: at most one leader in a term. All of openraft's randomness (election timeouts)
//! comes from a seed, see [`scope`].

use bytes::Bytes;
use openraft::alias;
use openraft::impls::leader_id_std;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use strandline_metadata::{Command, Response};

/// Tokio with seeded randomness: whatever openraft spawns must be spawned within [`scope`].
pub type Runtime = openraft_rt::deterministic_rng::DeterministicRng<openraft::impls::TokioRuntime>;

openraft::declare_raft_types!(
    pub TypeConfig:
        D = Proposal,
        R = Response,
        NodeId = u64,
        Node = openraft::BasicNode,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

pub type LogId = alias::LogIdOf<TypeConfig>;
pub type Entry = alias::EntryOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = alias::SnapshotOf<TypeConfig, Bytes>;
pub type StreamAppendResult = openraft::raft::StreamAppendResult<TypeConfig>;

/// A command as it lies in the log: encoded once, by the proposer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Bytes);

impl Proposal {
    pub fn new(command: &Command) -> Self {
        Proposal(command.encode().into())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Runs `future` with a seed for everything that openraft draws or spawns in it. Code outside this crate
/// does not need it: [`RaftHandle`](crate::RaftHandle) enters it by itself.
pub fn scope<F: Future>(seed: u64, future: F) -> openraft_rt::task_local::TaskLocalFuture<Cell<u64>, F> {
    Runtime::scope(seed, future)
}
