//! What must hold after every step (HAZARDS.md, invariants), and once faults have stopped.

use crate::world::{BROKERS, Node, Position, World};
use std::collections::BTreeSet;
use strandline_record::{BrokerId, LeaderEpoch};

type Check = Result<(), String>;

fn holds(condition: bool, broken: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(broken()) }
}

impl World {
    pub fn check(&mut self) -> Check {
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        let leaders = self.nodes.values().filter(|node| node.leader().is_some()).count();
        self.stats.two_leaders += u64::from(leaders > 1);
        if !self.profile.unclean {
            self.current_leaders_hold_everything()?;
            self.candidates_hold_everything()?;
            self.high_watermarks_are_true()?;
        }
        self.shells_agree_with_logs()?;
        self.logs_match()?;
        self.maximal_isr_is_a_superset()?;
        self.one_leader_per_epoch()
    }

    /// The first committed offset that the node lacks or has another value at, below `end`.
    fn lacks(&self, node: &Node, end: i64) -> Option<i64> {
        let differs = |&offset: &i64| {
            offset >= end || node.log.get(offset) != self.committed.get(offset as usize).copied()
        };
        (node.log.start..self.committed.len() as i64).find(differs)
    }

    /// I1: whoever may lead on has every acknowledged record.
    fn current_leaders_hold_everything(&self) -> Check {
        let epoch = self.partition().leader_epoch;
        for node in self.nodes.values() {
            if node.leader().is_some_and(|leader| leader.epoch() >= epoch) {
                let lacks = self.lacks(node, i64::MAX);
                holds(lacks.is_none(), || format!("I1: leader {} lacks {lacks:?}", node.id))?;
            }
            holds(node.log.start <= self.declared_start, || format!("I1: {} deleted too much", node.id))?;
        }
        Ok(())
    }

    /// I8: every member of ISR and ELR has every acknowledged record, on disk.
    fn candidates_hold_everything(&self) -> Check {
        let partition = self.partition();
        for id in partition.isr.iter().chain(&partition.elr) {
            let node = &self.nodes[id];
            let flush_later = self.profile.flush != "ack";
            let unreported = node.damage.is_some();
            // After a power loss it is live again once registered.
            let lost = node.registered != self.agreed().broker(*id).map(|broker| broker.epoch) || !node.up;
            if unreported || flush_later && lost {
                continue;
            }
            let lacks = self.lacks(node, if flush_later { i64::MAX } else { node.log.durable });
            holds(lacks.is_none(), || {
                format!("I8: {id} lacks {lacks:?} of {}, {partition:?}", self.committed.len())
            })?;
            let old = node.log.old.as_ref().filter(|_| !flush_later);
            let short = old.filter(|old| old.end() < self.committed.len() as i64);
            holds(short.is_none(), || format!("I8: on the disk of {id} is still {short:?}, {partition:?}"))?;
            let other = old.filter(|old| {
                let from = old.start.max(self.declared_start);
                (from..self.committed.len() as i64).any(|o| old.get(o) != Some(self.committed[o as usize]))
            });
            holds(other.is_none(), || format!("I8: on the disk of {id} is still {other:?}"))?;
        }
        Ok(())
    }

    /// I2 and I5: nothing below any high watermark is other than what was committed.
    fn high_watermarks_are_true(&self) -> Check {
        for node in self.nodes.values() {
            let (high_watermark, _) = node.high_watermark();
            let end = high_watermark.get();
            holds(end <= self.committed.len() as i64, || format!("I5: {} has {end}", node.id))?;
            let lacks = self.lacks(node, i64::MAX).filter(|&offset| offset < end);
            holds(lacks.is_none(), || format!("I2: {} differs at {lacks:?} below {end}", node.id))?;
        }
        Ok(())
    }

    /// The marks that the roles keep are those of the logs; nobody believes flushed what is not.
    fn shells_agree_with_logs(&self) -> Check {
        for node in self.nodes.values() {
            let (start, end, flushed) = match &node.position {
                Position::Idle => continue,
                Position::Leader(l) => (l.log_start(), l.log_end(), l.flushed_end()),
                Position::Follower(f) => (f.log_start(), f.log_end(), f.flushed_end()),
            };
            let log = (node.log.start, node.log.end());
            // A follower is not told of what its own retention deletes.
            let started = start.get() == log.0 || start.get() < log.0 && node.leader().is_none();
            holds(started && end.get() == log.1, || format!("marks: {} has {start}, {end}", node.id))?;
            holds(flushed.get() <= node.log.durable, || {
                format!("flush: {} believes {flushed}, {} is on disk", node.id, node.log.durable)
            })?;
        }
        Ok(())
    }

    /// I7: the same epoch at the same offset means the same records up to there.
    fn logs_match(&self) -> Check {
        for a in self.nodes.values() {
            for b in self.nodes.values().filter(|b| b.id > a.id) {
                let from = a.log.start.max(b.log.start);
                let epoch = |node: &Node, offset| node.log.get(offset).map(|record| record.epoch);
                let same = |&offset: &i64| epoch(a, offset) == epoch(b, offset);
                let Some(last) = (from..a.log.end().min(b.log.end())).rev().find(same) else { continue };
                let differs = (from..=last).find(|&offset| a.log.get(offset) != b.log.get(offset));
                holds(differs.is_none(), || format!("I7: {} and {} at {differs:?}", a.id, b.id))?;
            }
        }
        Ok(())
    }

    /// I9: the maximal ISR of the epoch's leader contains the agreed ISR.
    fn maximal_isr_is_a_superset(&self) -> Check {
        let partition = self.partition();
        for leader in self.nodes.values().filter_map(Node::leader) {
            let superset = partition.isr.is_subset(&leader.maximal_isr());
            holds(superset || leader.epoch() != partition.leader_epoch, || {
                format!("I9: {:?} is no superset of {:?}", leader.maximal_isr(), partition.isr)
            })?;
        }
        Ok(())
    }

    /// I10.
    fn one_leader_per_epoch(&self) -> Check {
        let mut epochs: BTreeSet<LeaderEpoch> = BTreeSet::new();
        for leader in self.nodes.values().filter_map(Node::leader) {
            holds(epochs.insert(leader.epoch()), || format!("I10: two leaders of {}", leader.epoch()))?;
        }
        Ok(())
    }

    /// I19: faults stop; everything that is under way arrives. Then there is a leader with a full ISR, and all
    /// replicas are the same and committed, unless more was lost than the protocol promises to bear.
    pub fn heal(&mut self) -> Check {
        self.trace.push("healing".to_owned());
        for _ in 0..40 {
            self.heal_once();
            self.check()?;
        }
        let partition = self.partition();
        let Some(leader) = partition.leader else {
            let bearable = !self.damage_happened && self.profile.flush == "ack";
            return holds(!bearable, || format!("I19: no leader: {partition:?}"));
        };
        let replicas: BTreeSet<BrokerId> = partition.replicas.iter().copied().collect();
        holds(partition.isr == replicas, || format!("I19: the ISR is not full: {partition:?}"))?;
        let end = self.nodes[&leader].log.end();
        for id in &replicas {
            let node = &self.nodes[id];
            let state = (node.log.end(), node.high_watermark().0.get());
            holds(state == (end, end), || format!("I19: {id} is at {state:?}, not at {end}"))?;
        }
        Ok(())
    }

    fn heal_once(&mut self) {
        self.now_ms += 150;
        for command in std::mem::take(&mut self.proposals) {
            let line = self.agree_on(command, true);
            self.trace.push(line);
        }
        while !self.answers.is_empty() {
            let line = self.answer_arrives(0);
            self.trace.push(line);
        }
        let last = self.history.len() - 1;
        for id in (1..=BROKERS).map(BrokerId) {
            let attended = self.attend_to(id, None, false);
            self.trace.extend(attended);
            if self.nodes[&id].up && self.nodes[&id].image < last {
                self.see_image(id, last);
            }
            self.flush_all(id);
            // Whoever has not been answered asks again.
            if let Position::Follower(follower) = &mut self.node(id).position {
                follower.disconnected();
            }
            self.request_of(id);
            self.tick_of(id);
        }
        for _ in 0..2 {
            for message in std::mem::take(&mut self.net) {
                self.deliver_message(message, usize::MAX);
            }
        }
    }
}
