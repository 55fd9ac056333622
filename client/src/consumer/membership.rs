//! What a group member does, in which order, when the group rebalances. Pure: causes and assignments in, steps
//! out. The order is Kafka's (ConsumerCoordinator), with KIP-429 for cooperative assignors.
//!
//! ```text
//!  eager        prepare: Gate, Commit all, Revoked all, Open          complete: Gate, Assigned all, Open
//!  cooperative  prepare: Commit all (goes on reading)                 complete: Gate, Commit taken, Revoked taken,
//!                                                                               Assigned new, Open, Rejoin if taken
//!  lost         prepare: Gate, Lost all, Open  (no commit: the partitions may be someone else's already)
//! ```
//!
//! Invariants
//! - Every Commit comes before the Revoked of the same partitions, and both before the next join.
//! - Nothing is handed to the user between a Gate and its Open, so a Commit behind a Gate covers everything that
//!   the user was given.
//! - A partition is Assigned once and then either Revoked or Lost once.

use crate::types::TopicPartition;
use std::collections::BTreeSet;
use strandline_wire::assign::RebalanceProtocol;

pub(crate) type Partitions = BTreeSet<TopicPartition>;

/// Why the member joins (again).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The group rebalances, or the subscription changed; the member is still one.
    Rebalance,
    /// The group has given the member up: it owns nothing any more.
    Lost,
}

/// One step of a rebalance, to be finished before the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Stop handing out records and wait until the user asks for one: what was handed out counts as processed.
    Gate,
    /// Commit the processed positions of these, where automatic commit is on.
    Commit(Partitions),
    /// Tell the listener, then stop reading these.
    Revoked(Partitions),
    /// Tell the listener, then stop reading these.
    Lost(Partitions),
    /// Begin to read these, and tell the listener.
    Assigned(Partitions),
    /// Hand out records again.
    Open,
    /// Join again at once, so that others get what was given up (KIP-429).
    Rejoin,
}

#[derive(Debug)]
pub(crate) struct Membership {
    protocol: RebalanceProtocol,
    owned: Partitions,
}

impl Membership {
    pub(crate) fn new(protocol: RebalanceProtocol) -> Self {
        Membership { protocol, owned: Partitions::new() }
    }

    pub(crate) fn owned(&self) -> &Partitions {
        &self.owned
    }

    /// Before joining. `subscribed` tells whether a topic is still wanted.
    pub(crate) fn prepare(&mut self, cause: Cause, subscribed: impl Fn(&str) -> bool) -> Vec<Step> {
        if self.owned.is_empty() {
            return Vec::new();
        }
        match (cause, self.protocol) {
            (Cause::Lost, _) => vec![Step::Gate, Step::Lost(std::mem::take(&mut self.owned)), Step::Open],
            (Cause::Rebalance, RebalanceProtocol::Eager) => {
                let all = std::mem::take(&mut self.owned);
                vec![Step::Gate, Step::Commit(all.clone()), Step::Revoked(all), Step::Open]
            }
            (Cause::Rebalance, RebalanceProtocol::Cooperative) => {
                let (kept, unwanted): (Partitions, Partitions) =
                    std::mem::take(&mut self.owned).into_iter().partition(|tp| subscribed(&tp.topic));
                let mut steps = Vec::new();
                if !kept.is_empty() {
                    steps.push(Step::Commit(kept.clone()));
                }
                if !unwanted.is_empty() {
                    steps.extend([
                        Step::Gate,
                        Step::Commit(unwanted.clone()),
                        Step::Revoked(unwanted),
                        Step::Open,
                    ]);
                }
                self.owned = kept;
                steps
            }
        }
    }

    /// After the assignment has come.
    pub(crate) fn complete(&mut self, assignment: Partitions) -> Vec<Step> {
        let taken: Partitions = self.owned.difference(&assignment).cloned().collect();
        let new: Partitions = assignment.difference(&self.owned).cloned().collect();
        self.owned = assignment;
        let mut steps = vec![Step::Gate];
        let gave_up = !taken.is_empty();
        if gave_up {
            steps.extend([Step::Commit(taken.clone()), Step::Revoked(taken)]);
        }
        steps.extend([Step::Assigned(new), Step::Open]);
        if gave_up {
            steps.push(Step::Rejoin);
        }
        steps
    }

    /// The group has given the member up: everything is lost, in whatever state a rebalance was.
    pub(crate) fn lose(&mut self) -> Vec<Step> {
        let all = std::mem::take(&mut self.owned);
        if all.is_empty() { Vec::new() } else { vec![Step::Lost(all)] }
    }

    /// Before leaving for good.
    pub(crate) fn close(&mut self) -> Vec<Step> {
        let all = std::mem::take(&mut self.owned);
        if all.is_empty() { Vec::new() } else { vec![Step::Commit(all.clone()), Step::Revoked(all)] }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
