//! What a leader shows of itself: to its task, to `describe` and to metrics.

use super::{Deposed, Leader, LeaderEpoch, Offset};
use crate::partition::progress::{Progress, ReplicaState};
use std::collections::BTreeSet;
use strandline_record::{BrokerId, PartitionEpoch};

impl Leader {
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Log end when the epoch began.
    pub fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The epoch in which the high watermark was learnt; goes into the next role's start with it.
    pub fn high_watermark_epoch(&self) -> LeaderEpoch {
        self.high_watermark_epoch
    }

    pub fn truncations(&self) -> u64 {
        self.truncations
    }

    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    pub fn flushed_end(&self) -> Offset {
        self.flushed
    }

    /// Every replica has this much on its disk, the leader too. `None`: there is one that has acknowledged nothing in this
    /// epoch. (Compaction asks: a tombstone may go once nobody can miss it.)
    pub fn held_by_all(&self) -> Option<Offset> {
        let mut end = self.flushed;
        for progress in self.followers.values() {
            end = end.min(progress.ack()?.flushed);
        }
        Some(end)
    }

    pub fn deposed(&self) -> Option<Deposed> {
        self.deposed
    }

    pub fn committed_isr(&self) -> &BTreeSet<BrokerId> {
        self.isr.committed()
    }

    /// Committed ISR and every pending addition.
    pub fn maximal_isr(&self) -> BTreeSet<BrokerId> {
        self.isr.maximal().collect()
    }

    /// The partition epoch of the committed ISR.
    pub fn partition_epoch(&self) -> PartitionEpoch {
        self.isr.epoch()
    }

    pub fn under_min_isr(&self) -> bool {
        self.isr.committed().len() < self.rules.min_insync
    }

    /// Some replica is not in the committed ISR.
    pub fn under_replicated(&self) -> bool {
        self.isr.committed().len() < self.followers.len() + 1
    }

    /// An AlterPartition is without its final word.
    pub fn alter_is_pending(&self) -> bool {
        self.isr.is_pending()
    }

    /// All replicas, the leader first.
    pub fn replica_states(&self, now_ms: u64) -> Vec<ReplicaState> {
        let committed = self.isr.committed();
        let maximal = self.maximal_isr();
        let me = ReplicaState {
            broker: self.me,
            is_leader: true,
            in_isr: true,
            joining: false,
            log_end: Some(self.log_end),
            acknowledged_end: Some(self.own_end()),
            lag: Some(0),
            lag_ms: Some(0),
        };
        let follower = |(&broker, progress): (&BrokerId, &Progress)| {
            let end = self.acknowledged(broker);
            ReplicaState {
                broker,
                is_leader: false,
                in_isr: committed.contains(&broker),
                joining: maximal.contains(&broker) && !committed.contains(&broker),
                log_end: progress.ack().map(|ack| ack.next),
                acknowledged_end: end,
                lag: end.map(|end| (self.log_end.get() - end.get()).max(0)),
                lag_ms: progress.lag_ms(self.rules.durability, self.log_end, now_ms),
            }
        };
        std::iter::once(me).chain(self.followers.iter().map(follower)).collect()
    }
}
