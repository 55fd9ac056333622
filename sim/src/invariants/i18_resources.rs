//! I18: memory, descriptors, tasks and queues stay within their configured bounds. From HAZARDS.md (hazards 45–47).
//!
//! Looks at what can be seen of that from outside of a process: the Raft log behind its snapshot (it is purged, or it
//! would grow for ever), the replicas that a node keeps (those agreed and no others, at the end), the committed offsets
//! (only of what somebody committed). Memory, descriptors and tasks of one of several nodes in one process cannot be
//! told apart; the node's own limits are tested beside them, and real processes by their soak.
//!
//! Sound, because a node may keep a replica for as long as it has not heard that it is gone, hence only at the end.

use super::ledger::Shared;
use super::{Check, Invariant, Observation, named};
use crate::history::{Event, Tp, What};
use std::collections::BTreeSet;
use std::sync::Arc;

named!("I18-resources");

/// Entries in a Raft log: twice the 5 000 after which a snapshot is taken, and as much again for one that is under way
/// and for those kept behind it.
const RAFT_LOG_MAX: u64 = 20_000;

pub struct Resources {
    ledger: Shared,
    committed: BTreeSet<(Arc<str>, Tp)>,
}

impl Resources {
    pub fn new(ledger: Shared) -> Self {
        Resources { ledger, committed: BTreeSet::new() }
    }
}

impl Invariant for Resources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        if let What::Commit { group, offsets, .. } = &event.what {
            self.committed.extend(offsets.keys().map(|tp| (group.clone(), tp.clone())));
        }
        Ok(())
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Check {
        for (node, view) in seen.nodes {
            let entries = view.raft.last.saturating_sub(view.raft.purged);
            if entries > RAFT_LOG_MAX {
                return violated(format!(
                    "node {node} keeps {entries} entries in its Raft log: {:?}",
                    view.raft
                ));
            }
        }
        Ok(())
    }

    fn finish(&mut self, seen: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for (node, view) in seen.nodes {
            let agreed = ledger.newest.partitions.iter().filter(|(_, agreed)| agreed.replicas.contains(node));
            let agreed: BTreeSet<&Tp> = agreed.map(|(tp, _)| tp).collect();
            if let Some(tp) = view.replicas.keys().find(|tp| !agreed.contains(tp)) {
                return violated(format!(
                    "node {node} keeps a replica of {tp}, which is not its own: {agreed:?}"
                ));
            }
        }
        match ledger.newest.offsets.keys().find(|key| !self.committed.contains(key)) {
            Some((group, tp)) => {
                violated(format!("group {group} has an offset for {tp} that nobody committed"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, broken, tp};
    use super::*;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(Resources::new(ledger)))
    }

    #[test]
    fn a_raft_log_is_purged() {
        let mut bench = bench();
        let raft = &mut bench.nodes.get_mut(&1).unwrap().raft;
        (raft.last, raft.purged) = (30_000, 15_000);
        bench.step().unwrap();
        bench.nodes.get_mut(&1).unwrap().raft.last = 40_000;
        broken(bench.step(), "node 1 keeps 25000 entries");
    }

    #[test]
    fn replicas_that_moved_away_are_gone_at_the_end() {
        let mut bench = bench();
        bench.finish().unwrap();
        bench.agree(|agreed| (agreed.replicas, agreed.isr) = (vec![1, 2], [1, 2].into()));
        bench.step().unwrap();
        broken(bench.finish(), "node 3 keeps a replica of t-0");
        bench.nodes.get_mut(&3).unwrap().replicas.clear();
        bench.step().unwrap();
        bench.finish().unwrap();
    }

    #[test]
    fn offsets_that_nobody_committed() {
        let mut bench = bench();
        bench.image.offsets.insert(("g".into(), tp()), 3);
        bench.publish();
        bench.step().unwrap();
        broken(bench.finish(), "group g has an offset for t-0");
        let what = What::Commit {
            session: super::super::testkit::WRITER,
            commit: 1,
            group: "g".into(),
            generation: None,
            offsets: [(tp(), 3)].into(),
        };
        bench.happen(what).unwrap();
        bench.finish().unwrap();
    }
}
