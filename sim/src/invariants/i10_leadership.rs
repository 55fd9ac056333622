//! I10: at most one leader per (partition, epoch); epochs strictly increase; a fenced broker is in no ISR. From
//! HAZARDS.md (hazards 4, 5), KIP-497 and REPLICATION.md's table of commands; that a leadership which has ended is not
//! taken up again in its epoch comes from `ops/docs/decisions/replication-repairs.md`, 7.
//!
//! Looks at: the role of every replica, and each newest agreed state: leader in ISR, ISR and ELR apart and within the
//! replicas, nobody fenced in an ISR, a new leader only with a higher epoch, every change with a higher partition epoch.
//!
//! Sound, because roles are taken from what a node itself says it is, and a node says so only after it has seen its
//! appointment; agreed states are totally ordered by their index. A partition whose epochs begin anew with another
//! topic of its name would have to be told to the oracle first; nothing deletes topics yet.

use super::ledger::Shared;
use super::{Check, Invariant, Observation, named};
use crate::history::Tp;
use crate::observe::{ImageView, PartitionView, Role};
use std::collections::BTreeMap;
use std::sync::Arc;

named!("I10-leadership");

/// Who led an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reign {
    node: u64,
    life: u64,
    over: bool,
}

pub struct Leadership {
    ledger: Shared,
    reigns: BTreeMap<(Tp, i32), Reign>,
    /// Who was appointed for an epoch, where an image with it was seen.
    appointed: BTreeMap<(Tp, i32), Option<u64>>,
    agreed: BTreeMap<Tp, Arc<PartitionView>>,
    /// Epochs that the nodes lead now.
    leading: BTreeMap<(Tp, u64), i32>,
}

impl Leadership {
    pub fn new(ledger: Shared) -> Self {
        Leadership {
            ledger,
            reigns: BTreeMap::new(),
            appointed: BTreeMap::new(),
            agreed: BTreeMap::new(),
            leading: BTreeMap::new(),
        }
    }

    fn appoint(&mut self, tp: &Tp, agreed: &Arc<PartitionView>) -> Check {
        let before = self.agreed.insert(tp.clone(), agreed.clone());
        self.appointed.insert((tp.clone(), agreed.leader_epoch), agreed.leader);
        let Some(before) = before.filter(|before| before != agreed) else { return Ok(()) };
        let broken = match () {
            () if agreed.partition_epoch <= before.partition_epoch => "the partition epoch does not rise",
            () if agreed.leader_epoch < before.leader_epoch => "the leader epoch falls",
            () if agreed.leader_epoch == before.leader_epoch && agreed.leader != before.leader => {
                "the leader changes within its epoch"
            }
            () => return Ok(()),
        };
        violated(format!("{tp}: {broken}: from {before:?} to {agreed:?}"))
    }

    fn lead(&mut self, tp: &Tp, node: u64, life: u64, epoch: i32) -> Check {
        if let Some(Some(leader)) = self.appointed.get(&(tp.clone(), epoch))
            && *leader != node
        {
            return violated(format!(
                "{tp}: node {node} leads epoch {epoch}, for which {leader} was elected"
            ));
        }
        let reign = Reign { node, life, over: false };
        let known = *self.reigns.entry((tp.clone(), epoch)).or_insert(reign);
        if known == reign {
            return Ok(());
        }
        violated(format!(
            "{tp}: node {node} in its life {life} leads epoch {epoch}, which was led by {known:?}"
        ))
    }

    fn stop_leading(&mut self, tp: &Tp, node: u64) {
        if let Some(epoch) = self.leading.remove(&(tp.clone(), node))
            && let Some(reign) = self.reigns.get_mut(&(tp.clone(), epoch))
            && reign.node == node
        {
            reign.over = true;
        }
    }
}

fn check_image(image: &ImageView) -> Check {
    for (tp, agreed) in &image.partitions {
        let PartitionView { replicas, leader, isr, elr, .. } = &**agreed;
        let fenced = |node: &&u64| image.brokers.get(node).is_none_or(|broker| broker.fenced);
        let broken = if let Some(node) = isr.iter().find(fenced) {
            format!("{node} is fenced and in the ISR")
        } else if let Some(node) = isr.intersection(elr).next() {
            format!("{node} is in the ISR and in the ELR")
        } else if let Some(node) = isr.union(elr).find(|node| !replicas.contains(node)) {
            format!("{node} is no replica")
        } else if leader.is_some_and(|leader| !isr.contains(&leader)) {
            "the leader is not in the ISR".to_owned()
        } else {
            continue;
        };
        return violated(format!("{tp} at index {}: {broken}: {agreed:?}", image.index));
    }
    Ok(())
}

impl Invariant for Leadership {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let shared = self.ledger.clone();
        let ledger = shared.borrow();
        if ledger.newer {
            check_image(&ledger.newest)?;
        }
        for tp in &ledger.touched {
            let part = &ledger.parts[tp];
            if let Some(agreed) = &part.agreed {
                self.appoint(tp, agreed)?;
            }
            for (node, seen) in &part.replicas {
                match seen.view.role {
                    Role::Leader { epoch } if seen.live => {
                        if self.leading.get(&(tp.clone(), *node)).is_some_and(|leading| *leading != epoch) {
                            self.stop_leading(tp, *node);
                        }
                        self.lead(tp, *node, seen.life, epoch)?;
                        self.leading.insert((tp.clone(), *node), epoch);
                    }
                    _ => self.stop_leading(tp, *node),
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
        Bench::new(|ledger| Box::new(Leadership::new(ledger)))
    }

    #[test]
    fn one_leader_after_the_other() {
        let mut bench = bench();
        bench.elect(2, 2);
        bench.step().unwrap();
        bench.elect(1, 3);
        bench.step().unwrap();
        // The old one has not heard of it.
        bench.elect(3, 4);
        bench.lead(1, 3);
        bench.step().unwrap();
    }

    #[test]
    fn two_leaders_of_one_epoch() {
        let mut bench = bench();
        bench.agree(|agreed| (agreed.leader, agreed.leader_epoch) = (None, 7));
        bench.step().unwrap();
        bench.lead(2, 1);
        broken(bench.step(), "for which 1 was elected");
        let mut bench = bench_without_appointment();
        bench.lead(2, 3);
        bench.step().unwrap();
        bench.lead(3, 3);
        broken(bench.step(), "was led by Reign { node: 2");
    }

    fn bench_without_appointment() -> Bench {
        let mut bench = bench();
        bench.agree(|agreed| (agreed.leader, agreed.leader_epoch) = (None, 2));
        bench.step().unwrap();
        bench
    }

    #[test]
    fn a_leadership_taken_up_again() {
        for restarts in [false, true] {
            let mut bench = bench();
            match restarts {
                true => bench.start(1, 2),
                false => bench.replica(1).role = Role::Idle,
            }
            bench.step().unwrap();
            bench.lead(1, 1);
            broken(bench.step(), "leads epoch 1, which was led by");
        }
    }

    #[test]
    fn agreed_states_that_cannot_be() {
        type Change = fn(&mut PartitionView);
        let changes: [(Change, &str); 6] = [
            (|agreed| agreed.leader = Some(2), "the leader changes within its epoch"),
            (|agreed| (agreed.leader_epoch, agreed.leader) = (0, Some(2)), "the leader epoch falls"),
            (
                |agreed| (agreed.isr, agreed.partition_epoch) = ([1].into(), 0),
                "the partition epoch does not rise",
            ),
            (|agreed| agreed.isr = [2].into(), "the leader is not in the ISR"),
            (|agreed| agreed.elr = [2].into(), "2 is in the ISR and in the ELR"),
            (|agreed| agreed.replicas = vec![1, 2], "3 is no replica"),
        ];
        for (change, says) in changes {
            let mut bench = bench();
            bench.agree(change);
            broken(bench.step(), says);
        }
        let mut bench = bench();
        bench.image.brokers.get_mut(&2).unwrap().fenced = true;
        bench.publish();
        broken(bench.step(), "2 is fenced and in the ISR");
    }
}
