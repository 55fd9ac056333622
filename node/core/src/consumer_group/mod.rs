//! Groups of the new consumer protocol (KIP-848): the coordinator's decisions, as a pure state machine.
//!
//! One [`ConsumerGroupState`] lives at the broker that [`crate::group::coordinator_for`] names. Events go in
//! (heartbeats, the agreed image, topics, time), [`Effect`]s come out (answers, commands to propose).
//!
//! ```text
//!   heartbeat ──► changes nothing: answered at once, nothing proposed
//!       │
//!       └──► queue ──► draft of the next agreed state ──► AlterConsumerGroup (compare-and-set)
//!   time: sessions, ──►  │  requests, removals, one new        │
//!   revocations          │  target if needed, one step         ▼
//!   topics ─────────────►┘  for each member that asks    image shows it: its requests are answered,
//!                                                        and the next draft is made of what came meanwhile
//! ```
//!
//! There is no leader and no barrier: each change of membership, subscription or topics raises the group
//! epoch and has a target assignment computed here, and every member walks to its target by itself, one
//! agreed step ([`reconcile`]) in a heartbeat of its own.
//!
//! Invariants:
//! * nothing is told that is not agreed: an answer is given from the image, after it shows what the answer
//!   rests on;
//! * a partition has at most one owner, counting those that still have to confirm that they gave it up. It is
//!   checked again in `apply`;
//! * one proposal at a time, a compare-and-set on the version that it was made from. So of several brokers that
//!   take themselves for the coordinator one makes the next change, and the others' fail; an image that is not
//!   what we proposed is adopted and everybody who waits is sent away to ask again (`NotCoordinator`);
//! * what a member says it has is believed only while it stands as it stood when it said so: a request that
//!   its client gave up and repeated, here or elsewhere, never counts as giving up what came meanwhile;
//! * a member's epoch moves only while it asks, so it learns of it at once, and its commits (checked against it
//!   in `apply`) are refused for one round trip at most.
//!
//! Adopting (after failover, or another's change) gives members full session and rebalance time-outs.
//!
//! Departures from Kafka: a member that asks to join (epoch 0) may, whatever epoch it had (Kafka refuses it
//! until its session ends); the partitions that a target takes from a static member that is away are free at
//! once; a member that confirms a revocation gets another epoch even if it has more to give up; a member that
//! knows a higher epoch than we do is sent to look for the coordinator, not fenced; the first answer of a coordinator to a member carries its assignment, so that no failover can leave
//! it with an old one.

pub mod assignor;
mod draft;
mod reconcile;
mod state;
mod subscription;
mod types;

pub use state::ConsumerGroupState;
pub use types::*;
