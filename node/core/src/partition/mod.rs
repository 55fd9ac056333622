//! One replica of one partition: what it may do as leader and as follower. `ops/docs/REPLICATION.md` ("Leader
//! of epoch e", "Follower in epoch e") is the specification; `sim/model/` checked it, and every decision here
//! is the model's.
//!
//! ```text
//!                 image: I lead epoch e
//!      ┌────────┐ ────────────────────▶ ┌────────┐   produce, flush, follower fetch, tick
//!      │  idle  │                       │ Leader │ ─▶ Effects {high watermark, AlterPartition, deposed}
//!      └────────┘ ◀──────────────────── └────────┘
//!       ▲      │    epoch above e seen
//!       │      │  image: another leads   ┌──────────┐  request ─▶ answer
//!       │      └───────────────────────▶ │ Follower │ ─▶ Action {append, truncate, reset, …}
//!       └─────────────────────────────── └──────────┘
//!         ([`desired_role`] decides; a new epoch is a new Leader or Follower value)
//! ```
//!
//! # The ordering law
//!
//! On each replica: log start ≤ high watermark ≤ log end, and flushed end ≤ log end. All four are
//! exclusive ends (positions of the next record). The leader's high watermark never passes the smallest
//! flushed end in its *maximal* ISR, and never decreases within an epoch. Only truncation (decided by epoch
//! and end offset, never by a high watermark) or damage lowers a log end.

mod flush;
mod follower;
mod high_watermark;
mod isr;
mod leader;
mod progress;
mod role;

pub use flush::{Durability, FlushToken};
pub use follower::{Action, Answer, Follower, FollowerRequest, FollowerStart, Learned, Outcome, Truncation};
pub use leader::{
    Acks, Deposed, Effects, FetchDecision, FollowerAck, FollowerFetch, Leader, LeaderConfig, LeaderStart,
    ProduceRefusal, ReadCheck, Refusal,
};
pub use progress::ReplicaState;
pub use role::{Damage, IdleReason, Role, damage_reported, desired_role};

/// Looks up a leader epoch in a log's epoch cache: the largest epoch at or below the one asked, and the
/// offset where it ends (the start of the next epoch, or the log end). `None`: no epoch that small.
pub trait EpochLookup: Fn(strandline_record::LeaderEpoch) -> EpochEnd {}
impl<F: Fn(strandline_record::LeaderEpoch) -> EpochEnd> EpochLookup for F {}

/// What an [`EpochLookup`] answers.
pub type EpochEnd = Option<(strandline_record::LeaderEpoch, strandline_record::Offset)>;
