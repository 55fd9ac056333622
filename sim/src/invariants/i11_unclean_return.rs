//! I11: after an unclean restart a replica leads or joins an ISR only once it has caught up. From HAZARDS.md (hazards
//! 6, 7, 8), KIP-841, KIP-903, KIP-966.
//!
//! Looks at: every replica at the moment at which the agreed state takes it into the ISR or makes it the leader. It
//! must have flushed what clients were told (see I8, which goes on from there) and, to join, what the leader's log held
//! when its epoch began.
//!
//! Sound, because a joiner is judged only while it runs under the registration that the agreed state names (it cannot
//! have lost anything since it was counted), and because the start of the leader's epoch is taken as the smaller of its
//! log ends just before and just after it was seen to lead.

use super::ledger::{Seen, Shared};
use super::{Check, Invariant, Observation, named};
use crate::history::Tp;
use crate::observe::{PartitionView, Role};
use std::collections::BTreeMap;
use std::sync::Arc;

named!("I11-unclean-exclusion");

pub struct UncleanReturn {
    ledger: Shared,
    agreed: BTreeMap<Tp, Arc<PartitionView>>,
    /// Life and log end of each replica when it was last looked at.
    ends: BTreeMap<(Tp, u64), (u64, i64)>,
    /// At least here began the newest epoch that was seen to be led.
    starts: BTreeMap<Tp, (i32, i64)>,
}

impl UncleanReturn {
    pub fn new(ledger: Shared) -> Self {
        UncleanReturn { ledger, agreed: BTreeMap::new(), ends: BTreeMap::new(), starts: BTreeMap::new() }
    }

    /// Notes where epochs begin.
    fn follow(&mut self, tp: &Tp, node: u64, seen: &Seen) {
        let now = (seen.life, seen.view.log_end);
        let before = self.ends.insert((tp.clone(), node), now).filter(|before| before.0 == now.0);
        if let Role::Leader { epoch } = seen.view.role
            && self.starts.get(tp).is_none_or(|start| start.0 < epoch)
        {
            let start = before.map_or(0, |before| before.1.min(now.1));
            self.starts.insert(tp.clone(), (epoch, start));
        }
    }
}

impl Invariant for UncleanReturn {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let shared = self.ledger.clone();
        let ledger = shared.borrow();
        for tp in &ledger.touched {
            let part = &ledger.parts[tp];
            for (node, seen) in part.live() {
                self.follow(tp, node, seen);
            }
            let Some(agreed) = &part.agreed else { continue };
            let before = self.agreed.insert(tp.clone(), agreed.clone());
            let Some(before) = before.filter(|before| before != agreed && !part.unclean.unsettled) else {
                continue;
            };
            for node in &agreed.isr {
                let joins = !before.isr.contains(node);
                let elected = agreed.leader == Some(*node) && before.leader != Some(*node);
                let registered = ledger.newest.brokers.get(node).map(|broker| broker.epoch);
                let judged = |seen: &&Seen| {
                    seen.live
                        && !seen.view.damaged
                        && seen.broker_epoch.is_some()
                        && seen.broker_epoch == registered
                };
                let Some(seen) = part.replicas.get(node).filter(judged).filter(|_| joins || elected) else {
                    continue;
                };
                let end = seen.view.flushed_end;
                let what = if elected { "is elected" } else { "joins the ISR" };
                if end < part.proven {
                    return violated(format!(
                        "{tp}: node {node} {what} with flushed end {end}, but {}; before {before:?}, now {agreed:?}",
                        part.proof
                    ));
                }
                let start = self.starts.get(tp).filter(|start| start.0 == agreed.leader_epoch);
                if let Some((epoch, start)) = start
                    && !elected
                    && before.leader_epoch == *epoch
                    && end < *start
                {
                    return violated(format!(
                        "{tp}: node {node} {what} with flushed end {end}, below {start}, where epoch {epoch} began; \
                         before {before:?}, now {agreed:?}"
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

    /// Node 3 has left the ISR; 5 records are acknowledged.
    fn bench() -> Bench {
        let mut bench = Bench::new(|ledger| Box::new(UncleanReturn::new(ledger)));
        bench.agree(|agreed| agreed.isr = [1, 2].into());
        bench.send(1).unwrap();
        bench.ends(&[(1, 5), (2, 5), (3, 2)]);
        bench.step().unwrap();
        bench.acked(1, 4).unwrap();
        bench
    }

    #[test]
    fn who_has_caught_up_may_join_and_lead() {
        let mut bench = bench();
        bench.ends(&[(3, 5)]);
        bench.agree(|agreed| agreed.isr = [1, 2, 3].into());
        bench.step().unwrap();
        bench.elect(3, 2);
        bench.step().unwrap();
    }

    #[test]
    fn who_has_not_may_not() {
        let mut bench = bench();
        bench.agree(|agreed| agreed.isr = [1, 2, 3].into());
        broken(bench.step(), "node 3 joins the ISR with flushed end 2, but Attempt(1)");
        let mut bench = self::bench();
        bench.agree(|agreed| agreed.isr = [1, 2, 3].into());
        bench.elect(3, 2);
        broken(bench.step(), "node 3 is elected with flushed end 2");
    }

    #[test]
    fn a_replica_below_the_start_of_the_epoch() {
        let mut bench = bench();
        bench.ends(&[(1, 9), (2, 9), (3, 7)]);
        bench.step().unwrap();
        bench.elect(2, 2);
        bench.step().unwrap();
        bench.agree(|agreed| agreed.isr = [1, 2, 3].into());
        broken(bench.step(), "below 9, where epoch 2 began");
    }
}
