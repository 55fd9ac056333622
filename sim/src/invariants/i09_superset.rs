//! I9: the leader's maximal ISR contains the controller's ISR. From HAZARDS.md (hazard 5), KIP-497.
//!
//! Looks at: every leader that runs and whose epoch is the newest one agreed, against the ISR agreed there.
//!
//! Sound, because within one leader epoch the agreed ISR grows only by the leader's own proposals, which it counts as
//! pending from before they are sent; others only take members out. A leader of an older epoch is not judged.

use super::ledger::Shared;
use super::{Check, Invariant, Observation, named};
use crate::observe::Role;

named!("I9-superset");

pub struct Superset {
    ledger: Shared,
}

impl Superset {
    pub fn new(ledger: Shared) -> Self {
        Superset { ledger }
    }
}

impl Invariant for Superset {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for tp in &ledger.touched {
            let part = &ledger.parts[tp];
            let Some(agreed) = &part.agreed else { continue };
            for (node, seen) in part.live() {
                if agreed.leader != Some(node)
                    || seen.view.role != (Role::Leader { epoch: agreed.leader_epoch })
                {
                    continue;
                }
                if let Some(missing) =
                    agreed.isr.iter().find(|member| !seen.view.maximal_isr.contains(member))
                {
                    return violated(format!(
                        "{tp}: node {node} leads epoch {} with the maximal ISR {:?}, but {missing} is in the agreed ISR \
                         {:?} (partition epoch {})",
                        agreed.leader_epoch, seen.view.maximal_isr, agreed.isr, agreed.partition_epoch
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, broken};
    use super::*;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(Superset::new(ledger)))
    }

    #[test]
    fn more_than_agreed_is_fine_and_so_is_a_leader_of_the_past() {
        let mut bench = bench();
        bench.agree(|agreed| agreed.isr = [1, 2].into());
        bench.step().unwrap();
        bench.replica(1).maximal_isr = vec![1];
        bench.agree(|agreed| (agreed.leader, agreed.leader_epoch) = (Some(2), 2));
        bench.step().unwrap();
    }

    #[test]
    fn a_leader_that_leaves_out_a_member() {
        let mut bench = bench();
        bench.replica(1).maximal_isr = vec![1, 2];
        broken(bench.step(), "3 is in the agreed ISR {1, 2, 3}");
    }
}
