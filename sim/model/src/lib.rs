//! The replication rules (`ops/docs/REPLICATION.md`) under a model checker: one partition, three brokers, Raft as one
//! atomic state machine whose images lag, messages that are late, lost or answered late, power loss, damage, retention,
//! reassignment. `README.md` says what was explored, `RULES.md` which rule stands where in the page and in the code.
//!
//! ```text
//!   rules       each rule as a switch            mutants     where each is missed
//!   metadata    the agreed commands              scenarios   bounds
//!   replica     log, disk, role of one broker    properties  what must hold, what must be reached
//!   actions     what may happen next             search      all states, or random walks
//!   model       what it does; leader, follower: what they decide
//! ```
//!
//! "Committed" is everything that any leader's high watermark ever passed: what consumers may have seen and acks=all
//! producers may have been told.
//!
//! Left out, as it is safe without: the leader epoch in AlterPartition (whoever leads, and in which epoch, moves the
//! partition epoch, which is compared); the partition epoch in SetReplicas (`apply` looks at the ISR as it is);
//! UnfenceBroker's wait for the image (nobody takes a role before). Left out, as it is modelled elsewhere or has no
//! part in it: several partitions, torn writes and recovery (the storage's crash points), an image that goes back at a
//! restart, clean stops (a power loss that keeps everything), clocks (any time-out may fire at any time), producers'
//! sequence numbers, groups.

mod actions;
mod follower;
mod leader;
mod log;
mod metadata;
mod model;
pub mod mutants;
mod properties;
mod replica;
mod rules;
pub mod scenarios;
pub mod search;
mod state;

pub use properties::to_reach;
pub use rules::Rules;
