//! Which partitions need attention, kept up to date from deltas so that a decision does not look at all.

use super::placement::wanted;
use std::collections::{BTreeMap, BTreeSet};
use strandline_metadata::{Delta, Image, Partition};
use strandline_record::{BrokerId, TopicPartition};

#[derive(Debug, Default)]
pub(super) struct Index {
    leaders: BTreeMap<TopicPartition, BrokerId>,
    led_by: BTreeMap<BrokerId, BTreeSet<TopicPartition>>,
    /// A reassignment is under way.
    pub reassigning: BTreeSet<TopicPartition>,
    /// A replica is on a draining broker, and no reassignment takes it from there.
    pub draining: BTreeSet<TopicPartition>,
    /// No leader, since when.
    pub leaderless: BTreeMap<TopicPartition, u64>,
    /// Led by another replica than it should be although that one could, since when.
    pub misled: BTreeMap<TopicPartition, u64>,
}

impl Index {
    pub fn rebuild(&mut self, image: &Image, now_ms: u64) {
        let known: Vec<TopicPartition> = self.leaders.keys().copied().collect();
        let others = self.reassigning.iter().chain(&self.draining).chain(self.leaderless.keys());
        let gone: BTreeSet<TopicPartition> =
            known.iter().chain(others).copied().filter(|tp| image.partition(*tp).is_none()).collect();
        for tp in gone {
            self.forget(tp);
        }
        for (&tp, partition) in image.partitions.iter() {
            self.classify(image, tp, partition, now_ms);
        }
    }

    pub fn update(&mut self, image: &Image, delta: &Delta, now_ms: u64) {
        // Whether a leader is the wrong one depends on the brokers too.
        if delta.full || !delta.brokers.is_empty() {
            return self.rebuild(image, now_ms);
        }
        for &tp in &delta.partitions {
            match image.partition(tp) {
                Some(partition) => self.classify(image, tp, partition, now_ms),
                None => self.forget(tp),
            }
        }
    }

    pub fn led_by(&self, id: BrokerId) -> impl Iterator<Item = TopicPartition> + '_ {
        self.led_by.get(&id).into_iter().flatten().copied()
    }

    fn forget(&mut self, tp: TopicPartition) {
        self.set_leader(tp, None);
        self.reassigning.remove(&tp);
        self.draining.remove(&tp);
        self.leaderless.remove(&tp);
        self.misled.remove(&tp);
    }

    fn classify(&mut self, image: &Image, tp: TopicPartition, partition: &Partition, now_ms: u64) {
        self.set_leader(tp, partition.leader);
        // One that is moving towards a draining broker would wait for it: that one may be dead.
        let to_draining = wanted(partition).iter().any(|&id| image.broker(id).is_some_and(|b| b.draining));
        set(&mut self.reassigning, tp, partition.reassignment.is_some());
        set(&mut self.draining, tp, to_draining);
        set_since(&mut self.leaderless, tp, partition.leader.is_none(), now_ms);
        set_since(&mut self.misled, tp, better_leader(image, partition).is_some(), now_ms);
    }

    fn set_leader(&mut self, tp: TopicPartition, leader: Option<BrokerId>) {
        let before = self.leaders.get(&tp).copied();
        if before == leader {
            return;
        }
        if let Some(led) = before.and_then(|before| self.led_by.get_mut(&before)) {
            led.remove(&tp);
        }
        match leader {
            Some(leader) => {
                self.leaders.insert(tp, leader);
                self.led_by.entry(leader).or_default().insert(tp);
            }
            None => {
                self.leaders.remove(&tp);
            }
        }
    }
}

/// Who should lead in place of the present leader: the first replica in assignment order that is in the ISR,
/// unfenced and not draining, if it is the preferred one or the present leader is draining.
pub(super) fn better_leader(image: &Image, partition: &Partition) -> Option<BrokerId> {
    let leader = partition.leader?;
    let can = |&&id: &&BrokerId| {
        partition.isr.contains(&id) && image.broker(id).is_some_and(|b| !b.fenced && !b.draining)
    };
    let best = *partition.replicas.iter().find(can)?;
    let leader_drains = image.broker(leader).is_some_and(|b| b.draining);
    // While replicas move, the preferred one may be about to go.
    let preferred = partition.replicas.first() == Some(&best) && partition.reassignment.is_none();
    (best != leader && (preferred || leader_drains)).then_some(best)
}

fn set(class: &mut BTreeSet<TopicPartition>, tp: TopicPartition, member: bool) {
    match member {
        true => class.insert(tp),
        false => class.remove(&tp),
    };
}

fn set_since(class: &mut BTreeMap<TopicPartition, u64>, tp: TopicPartition, member: bool, now_ms: u64) {
    match member {
        true => {
            class.entry(tp).or_insert(now_ms);
        }
        false => {
            class.remove(&tp);
        }
    }
}
