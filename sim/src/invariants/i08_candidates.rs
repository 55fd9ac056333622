//! I8: every live member of ISR ∪ ELR has a flushed end at or above the true high watermark: whoever may be elected
//! cleanly holds everything that was promised. From HAZARDS.md (hazards 3, 6, 7, 8, 14), KIP-903, KIP-966.
//!
//! Looks at: the replicas of nodes that run under their agreed registration, against what clients were told
//! ([`super::ledger`]'s `proven`) and against the high watermark that the agreed leader shows.
//!
//! Sound, because what a client was told stays true for every later ISR and ELR (that is the rule), the agreed state is
//! the newest seen anywhere and removals precede it, a damaged replica is judged only once its report is agreed (and
//! then it is in neither), and so is a node that has not registered again. The leader's high watermark counts only
//! where its epoch is the agreed one: then the agreed ISR lies within its maximal ISR. After an unclean election nothing
//! is judged until it has settled.

use super::ledger::{Part, Seen, Shared};
use super::{Check, Invariant, Observation, named};
use crate::observe::Role;

named!("I8-candidate-completeness");

pub struct Candidates {
    ledger: Shared,
}

impl Candidates {
    pub fn new(ledger: Shared) -> Self {
        Candidates { ledger }
    }
}

/// The agreed leader's high watermark, if it runs and knows that it leads.
fn leaders_high_watermark(part: &Part) -> Option<(u64, i64)> {
    let agreed = part.agreed.as_ref()?;
    let leader = agreed.leader?;
    let seen = part.replicas.get(&leader).filter(|seen| seen.live)?;
    (seen.view.role == Role::Leader { epoch: agreed.leader_epoch })
        .then_some((leader, seen.view.high_watermark))
}

impl Invariant for Candidates {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        let current = |node: u64, seen: &Seen| {
            let registered = ledger.newest.brokers.get(&node).map(|broker| broker.epoch);
            seen.live && !seen.view.damaged && seen.broker_epoch.is_some() && seen.broker_epoch == registered
        };
        for tp in &ledger.touched {
            let part = &ledger.parts[tp];
            let Some(agreed) = part.agreed.as_ref().filter(|_| !part.unclean.unsettled) else { continue };
            let shown = leaders_high_watermark(part);
            for node in agreed.isr.iter().chain(&agreed.elr) {
                let Some(seen) = part.replicas.get(node).filter(|seen| current(*node, seen)) else {
                    continue;
                };
                let end = seen.view.flushed_end;
                if end < part.proven {
                    return violated(format!(
                        "{tp}: node {node} could be elected, but has flushed only up to {end}, and {}; agreed: {agreed:?}",
                        part.proof
                    ));
                }
                if let Some((leader, high_watermark)) = shown
                    && agreed.isr.contains(node)
                    && end < high_watermark
                {
                    return violated(format!(
                        "{tp}: node {node} is in the ISR, but has flushed only up to {end}, and the high watermark on \
                         the leader, node {leader}, is {high_watermark}; agreed: {agreed:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, broken, tp};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::new(|ledger| Box::new(Candidates::new(ledger)));
        bench.send(1).unwrap();
        bench.commit_to(3);
        bench.acked(1, 2).unwrap();
        bench
    }

    #[test]
    fn members_that_hold_everything_and_others_that_do_not_are_fine() {
        let mut bench = bench();
        bench.agree(|agreed| (agreed.isr, agreed.elr) = ([1].into(), [2].into()));
        bench.ends(&[(3, 1)]);
        bench.step().unwrap();
    }

    #[test]
    fn a_candidate_that_lacks_what_was_acknowledged() {
        for elr in [false, true] {
            let mut bench = bench();
            (1..=3).for_each(|node| bench.replica(node).high_watermark = 0);
            bench.ends(&[(2, 2)]);
            if elr {
                bench.agree(|agreed| (agreed.isr, agreed.elr) = ([1].into(), [2].into()));
            }
            broken(bench.step(), "node 2 could be elected, but has flushed only up to 2, and Attempt(1)");
        }
    }

    #[test]
    fn a_member_behind_the_leaders_high_watermark() {
        let mut bench = bench();
        bench.ends(&[(1, 5), (2, 5), (3, 4)]);
        bench.replica(1).high_watermark = 5;
        broken(bench.step(), "node 3 is in the ISR, but has flushed only up to 4");
        bench.agree(|agreed| agreed.isr = [1, 2].into());
        bench.step().unwrap();
    }

    #[test]
    fn damaged_or_not_yet_registered_ones_are_not_judged() {
        let mut bench = bench();
        bench.ends(&[(2, 0)]);
        bench.replica(2).damaged = true;
        bench.step().unwrap();
        bench.start(3, 2);
        bench.nodes.get_mut(&3).unwrap().broker_epoch = None;
        bench.step().unwrap();
        bench.nodes.get_mut(&3).unwrap().broker_epoch = Some(1);
        broken(bench.step(), "node 3");
    }

    #[test]
    fn an_unclean_election_voids_what_was_promised() {
        let mut bench = bench();
        bench.elect(2, 2);
        bench.agree(|agreed| (agreed.isr, agreed.unclean_epoch) = ([2].into(), 2));
        bench.ends(&[(2, 0)]);
        bench.replica(2).high_watermark = 0;
        bench.step().unwrap();
        assert_eq!(bench.ledger.borrow().part(&tp()).unwrap().proven, 0);
    }
}
