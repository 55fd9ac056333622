//! What this replica looks like to metrics.

use super::{Partition, RoleState};
use crate::metrics::TopicMeters;
use std::sync::Arc;
use strandline_record::{BrokerId, LeaderEpoch, Offset, TopicPartition};

/// One replica at one moment.
#[derive(Clone, Debug)]
pub struct PartitionReading {
    pub tp: TopicPartition,
    pub topic: Arc<str>,
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub log_end: Offset,
    /// Of its role; `None` without one.
    pub leader_epoch: Option<LeaderEpoch>,
    pub size_bytes: u64,
    pub damaged: bool,
    pub leading: Option<LeadingReading>,
}

/// What only a leader knows.
#[derive(Clone, Debug)]
pub struct LeadingReading {
    pub isr: usize,
    pub replicas: usize,
    pub min_insync: usize,
    /// Records that each follower lacks on its disk; `None` of one that has acknowledged nothing in this epoch.
    pub followers: Vec<(BrokerId, Option<i64>)>,
}

impl Partition {
    pub fn meters(&self) -> &Arc<TopicMeters> {
        &self.meters
    }

    pub fn reading(&self) -> PartitionReading {
        let marks = self.marks();
        let (leader_epoch, leading) = {
            let state = self.state.lock();
            match &state.role {
                RoleState::Idle(_) => (None, None),
                RoleState::Follower(following) => (Some(following.core.epoch()), None),
                RoleState::Leader(leading) => {
                    let states = leading.core.replica_states(self.context.now_ms());
                    let followers = states.iter().filter(|replica| !replica.is_leader);
                    let reading = LeadingReading {
                        isr: leading.core.committed_isr().len(),
                        replicas: states.len(),
                        min_insync: state.settings.min_insync_replicas,
                        followers: followers.map(|replica| (replica.broker, replica.lag)).collect(),
                    };
                    (Some(leading.core.epoch()), Some(reading))
                }
            }
        };
        PartitionReading {
            tp: self.tp,
            topic: self.topic.clone(),
            log_start: marks.log_start,
            high_watermark: marks.high_watermark,
            log_end: marks.log_end,
            leader_epoch,
            size_bytes: self.log.size_bytes(),
            damaged: marks.damaged,
            leading,
        }
    }
}
