//! I12: Raft: at most one leader per term; a new leader has everything committed before its term; term, commit index,
//! applied index, snapshot and purge never decrease; purged ≤ snapshot ≤ applied ≤ committed ≤ last. From the Raft
//! paper (figure 3) and HAZARDS.md (hazards 15, 16, 18, 19, 22–24).
//!
//! Looks at: what each node's Raft shows after each step.
//!
//! Sound, because *never decrease* is asked only within a life: what a process shows may not be on its disk yet, and
//! nothing was promised on it before it is. Across lives the promises are: no second leader in a term (a leader that
//! restarts may go on in its own), and leader completeness, asked when a term's leader is first seen, against what
//! nodes in smaller terms have shown as committed. State-machine safety is I13's, by content.

use super::{Check, Invariant, Observation, named};
use crate::observe::RaftView;
use std::collections::BTreeMap;

named!("I12-raft");

#[derive(Default)]
pub struct Raft {
    seen: BTreeMap<u64, (u64, RaftView)>,
    leaders: BTreeMap<u64, u64>,
    /// Term → the largest index shown as committed by a node in that term.
    committed: BTreeMap<u64, u64>,
}

fn check_order(node: u64, now: &RaftView) -> Check {
    let RaftView { purged, snapshot, applied, committed, last, .. } = *now;
    match purged <= snapshot && snapshot <= applied && applied <= committed && committed <= last {
        true => Ok(()),
        false => violated(format!(
            "node {node}: purged ≤ snapshot ≤ applied ≤ committed ≤ last does not hold: {now:?}"
        )),
    }
}

fn check_growth(node: u64, before: &RaftView, now: &RaftView) -> Check {
    let pairs = [
        ("term", before.term, now.term),
        ("commit index", before.committed, now.committed),
        ("applied index", before.applied, now.applied),
        ("snapshot", before.snapshot, now.snapshot),
        ("purged index", before.purged, now.purged),
    ];
    match pairs.iter().find(|(_, before, now)| now < before) {
        Some((what, before, now)) => {
            violated(format!("node {node}: its {what} went from {before} back to {now} within one life"))
        }
        None => Ok(()),
    }
}

impl Raft {
    fn lead(&mut self, node: u64, now: &RaftView) -> Check {
        if let Some(other) = self.leaders.get(&now.term) {
            return match *other == node {
                true => Ok(()),
                false => violated(format!("nodes {other} and {node} both lead term {}", now.term)),
            };
        }
        self.leaders.insert(now.term, node);
        let earlier = self.committed.range(..now.term).map(|(term, index)| (*index, *term)).max();
        match earlier.filter(|(index, _)| now.last < *index) {
            Some((index, term)) => violated(format!(
                "node {node} leads term {} with a log up to {}, but {index} was committed in term {term}",
                now.term, now.last
            )),
            None => Ok(()),
        }
    }
}

impl Invariant for Raft {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Check {
        for (node, view) in seen.nodes {
            let now = (view.life, view.raft);
            let before = self.seen.insert(*node, now);
            if before == Some(now) {
                continue;
            }
            check_order(*node, &view.raft)?;
            if let Some((life, before)) = before
                && life == view.life
            {
                check_growth(*node, &before, &view.raft)?;
            }
            if view.raft.leader {
                self.lead(*node, &view.raft)?;
            }
            let committed = self.committed.entry(view.raft.term).or_default();
            *committed = view.raft.committed.max(*committed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, broken};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::new(|_| Box::new(Raft::default()));
        for node in 1..=3 {
            *raft(&mut bench, node) = RaftView {
                term: 2,
                leader: node == 1,
                last: 9,
                committed: 8,
                applied: 7,
                snapshot: 5,
                purged: 3,
                ..RaftView::default()
            };
        }
        bench.step().unwrap();
        bench
    }

    fn raft(bench: &mut Bench, node: u64) -> &mut RaftView {
        &mut bench.nodes.get_mut(&node).unwrap().raft
    }

    #[test]
    fn elections_and_restarts() {
        let mut bench = bench();
        raft(&mut bench, 2).term = 3;
        raft(&mut bench, 2).leader = true;
        bench.step().unwrap();
        bench.start(1, 2);
        *raft(&mut bench, 1) = RaftView { term: 1, last: 9, committed: 5, applied: 5, ..RaftView::default() };
        bench.step().unwrap();
        raft(&mut bench, 1).term = 2;
        raft(&mut bench, 1).leader = true;
        bench.step().unwrap();
    }

    #[test]
    fn two_leaders_of_a_term() {
        let mut bench = bench();
        raft(&mut bench, 3).leader = true;
        broken(bench.step(), "nodes 1 and 3 both lead term 2");
    }

    #[test]
    fn a_leader_that_lacks_what_was_committed() {
        let mut bench = bench();
        let short =
            RaftView { term: 3, leader: true, last: 7, committed: 6, applied: 6, ..RaftView::default() };
        bench.start(3, 2);
        *raft(&mut bench, 3) = short;
        broken(bench.step(), "a log up to 7, but 8 was committed in term 2");
    }

    #[test]
    fn numbers_that_decrease_or_pass_each_other() {
        type Change = fn(&mut RaftView);
        let changes: [(Change, &str); 8] = [
            (|raft| raft.term = 1, "its term went from 2 back to 1"),
            (|raft| (raft.committed, raft.applied) = (7, 7), "its commit index"),
            (|raft| raft.applied = 6, "its applied index"),
            (|raft| raft.snapshot = 4, "its snapshot"),
            (|raft| raft.purged = 2, "its purged index"),
            (|raft| raft.applied = 9, "does not hold"),
            (|raft| raft.purged = 6, "does not hold"),
            (|raft| raft.committed = 10, "does not hold"),
        ];
        for (change, says) in changes {
            let mut bench = bench();
            change(raft(&mut bench, 2));
            broken(bench.step(), says);
        }
    }
}
