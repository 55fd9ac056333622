//! Consumer groups: the coordinator's decisions (Kafka's classic group protocol), as a pure state machine.
//!
//! One [`GroupState`] lives at the broker that [`coordinator_for`] names. Events go in (requests, the
//! agreed image, time), [`Effect`]s come out (answers, commands to propose). It has no clock: time comes
//! with each event as [`Now`].
//!
//! ```text
//!              first join                all joined, or time is up
//!   Empty ──────────────────► Preparing ───────────────────────────► Agreeing
//!     ▲                         ▲    ▲                                  │ image shows the generation:
//!     │ last member gone        │    │ join, leave, expiry              ▼ JoinGroup is answered
//!     └── (Agreeing, empty) ◄───┤    └─────────────────────────── Completing
//!                               │                                       │ leader's SyncGroup → PutAssignment,
//!                               │ join, leave, expiry                   ▼ image shows it: SyncGroup is answered
//!                               └───────────────────────────────────── Stable
//! ```
//!
//! What is agreed lives in the metadata image; this is only the way to the next agreement. A rebalance is
//! two compare-and-set steps: `PutGeneration` agrees on the members, without assignments, **before** any
//! of them is told the generation; `PutAssignment` agrees on the assignments, the first one winning, before
//! any of them is told its own. Hence, whatever number of brokers take themselves for the coordinator
//! (hazard 29), and wherever one of them dies:
//! * a generation told to anyone is agreed, and is never told to another set of members;
//! * a generation has one assignment, so a partition has at most one owner in it (I15);
//! * generations increase (compare-and-set, checked in `apply`).
//!
//! The image is the only evidence of success. An accepted proposal is noticed by seeing it there; a failed
//! or lost one is sent again until the image shows its effect or another's. An image that shows a
//! generation which is not our proposal is another coordinator's work: everybody who waits is sent away
//! to ask again (`NotCoordinator`, retriable), and what was agreed is adopted.
//!
//! Adopting (after failover, or that) gives each agreed member a full session time-out and continues where
//! the agreement stands: an assigned generation is Stable, an unassigned one Completing; so failover alone
//! causes no rebalance. The old generation stays current while members rejoin, so that they can commit
//! what they processed before they give partitions up.
//!
//! Departures from Kafka, each towards refusing less or later: commits of members are judged by `apply`,
//! [`GroupState::commit_check`] only saves hopeless proposals; a static member whose subscribed topics
//! changed while it was away causes a rebalance (Kafka misses the change until the next one).

mod agree;
mod join;
mod liveness;
mod placement;
mod state;
mod sync;
mod types;

pub(crate) use placement::Fnv1a;
pub use placement::coordinator_for;
pub use state::GroupState;
pub use types::*;
