//! I19: once faults stop, everything comes right again: leaders, full ISRs, replicas identical. From HAZARDS.md and the
//! rule that a fault within the tolerance costs time only.
//!
//! No [`super::Invariant`], for it does not hold after every step: the run asks [`converged`] after healing, and
//! [`identical`] when nobody writes any more, again and again until its time is up, and says what was missing last.
//! That acknowledgements resume, clients end and everything can be read back is for the run itself to try.

use crate::history::Tp;
use crate::observe::{NodeView, PartitionView, Role};
use std::collections::BTreeMap;

/// The name under which violations are told.
pub const NAME: &str = "I19-liveness";

/// All of these nodes run, are registered and not fenced, and one of them leads Raft; every partition is led by whom
/// the newest image names, with every replica in the ISR, healthy and in the role agreed. Holds under load as well.
///
/// # Errors
/// The first thing that is not so.
pub fn converged(views: &BTreeMap<u64, NodeView>, nodes: usize) -> Result<(), String> {
    let newest = views.values().max_by_key(|view| view.image.index).ok_or("no node runs")?;
    if views.len() != nodes {
        return Err(format!("{} of {nodes} nodes run", views.len()));
    }
    let leads = views.values().filter(|view| view.raft.leader && view.raft.term >= newest.raft.term).count();
    if leads != 1 {
        return Err(format!("{leads} nodes lead Raft"));
    }
    let leader = views.values().find(|view| view.raft.leader && view.raft.term >= newest.raft.term);
    if let Some(raft) = leader.map(|view| view.raft)
        && (raft.changing || raft.voters.count_ones() != voters_of(nodes))
    {
        return Err(format!("who votes on the metadata is not settled: {raft:?}"));
    }
    for view in views.values() {
        let broker = newest.image.brokers.get(&view.node);
        match broker {
            Some(broker) if !broker.fenced && view.broker_epoch == Some(broker.epoch) => {}
            _ => return Err(format!("node {} is not registered, or fenced: {broker:?}", view.node)),
        }
    }
    for (tp, agreed) in &newest.image.partitions {
        settled(views, tp, agreed)?;
    }
    Ok(())
}

/// An odd number as soon as there are three, five at most.
fn voters_of(nodes: usize) -> u32 {
    match nodes {
        0..=2 => nodes as u32,
        3 | 4 => 3,
        _ => 5,
    }
}

/// Everybody has the newest image, every log ends where its leader's does, all of it visible, and groups have settled
/// on their assignments: once nobody writes, this is so for good.
///
/// # Errors
/// The first thing that is not so.
pub fn identical(views: &BTreeMap<u64, NodeView>) -> Result<(), String> {
    let newest = views.values().max_by_key(|view| view.image.index).ok_or("no node runs")?;
    if let Some(view) = views.values().find(|view| view.image.index != newest.image.index) {
        return Err(format!("node {} is at index {} of {}", view.node, view.image.index, newest.image.index));
    }
    for (tp, agreed) in &newest.image.partitions {
        let replica = |node: &u64| Some((*node, views.get(node)?.replicas.get(tp)?));
        let ends = |node: &u64| replica(node).map(|(_, r)| (r.log_end, r.flushed_end, r.high_watermark));
        let wanted = agreed.leader.as_ref().and_then(replica).map(|(_, r)| r.log_end);
        let wanted = wanted.map(|end| (end, end, end));
        if let Some(node) = agreed.replicas.iter().find(|node| ends(node).is_none() || ends(node) != wanted) {
            return Err(format!("{tp} on node {node}: {:?} instead of {wanted:?}", ends(node)));
        }
    }
    match newest.image.groups.iter().find(|(_, group)| !group.assigned) {
        Some((name, group)) => Err(format!("group {name}: generation {} is not assigned", group.generation)),
        None => Ok(()),
    }
}

fn settled(views: &BTreeMap<u64, NodeView>, tp: &Tp, agreed: &PartitionView) -> Result<(), String> {
    let Some(leader) = agreed.leader else { return Err(format!("{tp} has no leader")) };
    if agreed.isr.len() != agreed.replicas.len() {
        return Err(format!("{tp}: ISR {:?} of {:?}", agreed.isr, agreed.replicas));
    }
    for node in &agreed.replicas {
        let Some(replica) = views.get(node).and_then(|view| view.replicas.get(tp)) else {
            return Err(format!("{tp} is not on node {node}"));
        };
        let wanted = match *node == leader {
            true => Role::Leader { epoch: agreed.leader_epoch },
            false => Role::Follower { leader, epoch: agreed.leader_epoch },
        };
        if replica.role != wanted {
            return Err(format!("{tp} on node {node}: {:?} instead of {wanted:?}", replica.role));
        }
        if replica.damaged {
            return Err(format!("{tp} on node {node} is damaged"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Keeper;
    use super::super::testkit::{Bench, tp};
    use super::*;
    use std::sync::Arc;

    fn bench() -> Bench {
        let mut bench = Bench::new(|ledger| Box::new(Keeper(ledger)));
        bench.commit_to(3);
        bench.nodes.get_mut(&2).unwrap().raft.leader = true;
        bench
    }

    #[test]
    fn a_whole_cluster_has_converged() {
        converged(&bench().nodes, 3).unwrap();
    }

    #[test]
    fn whatever_is_missing_is_said() {
        type Change = fn(&mut Bench);
        let changes: [(Change, &str); 11] = [
            (|bench| bench.nodes.get_mut(&2).unwrap().raft.changing = true, "who votes on the metadata"),
            (|bench| bench.nodes.get_mut(&2).unwrap().raft.voters = 0b110, "who votes on the metadata"),
            (|bench| drop(bench.nodes.remove(&3)), "2 of 3 nodes run"),
            (|bench| bench.nodes.clear(), "no node runs"),
            (|bench| bench.nodes.get_mut(&2).unwrap().raft.leader = false, "0 nodes lead Raft"),
            (|bench| bench.nodes.get_mut(&1).unwrap().broker_epoch = None, "node 1 is not registered"),
            (|bench| bench.agree(|agreed| agreed.leader = None), "t-0 has no leader"),
            (|bench| bench.agree(|agreed| agreed.isr = [1, 2].into()), "t-0: ISR {1, 2}"),
            (|bench| bench.replica(2).role = Role::Idle, "t-0 on node 2: Idle instead of"),
            (|bench| bench.replica(2).damaged = true, "t-0 on node 2 is damaged"),
            (|bench| drop(bench.nodes.get_mut(&3).unwrap().replicas.remove(&tp())), "t-0 is not on node 3"),
        ];
        for (change, says) in changes {
            let mut bench = bench();
            change(&mut bench);
            let missing = converged(&bench.nodes, 3).unwrap_err();
            assert!(missing.contains(says), "{missing} does not say {says:?}");
        }
    }

    #[test]
    fn replicas_that_are_not_identical() {
        identical(&bench().nodes).unwrap();
        type Change = fn(&mut Bench);
        let changes: [(Change, &str); 4] = [
            (|bench| bench.nodes.get_mut(&1).unwrap().image = Arc::default(), "node 1 is at index 0 of 10"),
            (|bench| bench.ends(&[(3, 2)]), "t-0 on node 3: Some((2, 2, 3)) instead of Some((3, 3, 3))"),
            (|bench| bench.replica(2).high_watermark = 2, "t-0 on node 2: Some((3, 3, 2))"),
            (
                |bench| {
                    bench.put_group("g", 1, &[("m", b"")]);
                    bench.image.groups.get_mut("g").unwrap().assigned = false;
                    bench.publish();
                },
                "group g: generation 1",
            ),
        ];
        for (change, says) in changes {
            let mut bench = bench();
            change(&mut bench);
            let missing = identical(&bench.nodes).unwrap_err();
            assert!(missing.contains(says), "{missing} does not say {says:?}");
        }
    }
}
