//! A running node seen from inside, without touching it: what the simulation's oracle reads between two steps.
//!
//! Values, not references: nothing that is read here can change the node, and nobody who reads waits for it
//! longer than a partition's short lock.

use crate::broker::Broker;
use crate::context::Context;
use crate::error::ServeError;
use std::sync::Arc;
use strandline_metadata::Image;
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};

pub use strandline_raft::Metrics as RaftMarks;

/// What [`crate::env::Env::started`] gets. Holding it keeps the node's memory alive, not the node.
#[derive(Clone, Debug)]
pub struct Inspect {
    context: Arc<Context>,
    broker: Arc<Broker>,
}

/// What one replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleMarks {
    Idle,
    Leader { epoch: LeaderEpoch },
    Follower { leader: BrokerId, epoch: LeaderEpoch },
}

/// One replica's offsets. `log_start ≤ high_watermark ≤ log_end` and `flushed_end ≤ log_end` hold in each role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMarks {
    pub tp: TopicPartition,
    pub role: RoleMarks,
    /// First offset kept.
    pub log_start: Offset,
    /// Next offset to be written.
    pub log_end: Offset,
    /// Everything below is durable here (in the topic's flush mode).
    pub flushed_end: Offset,
    /// Everything below is visible, as far as this replica knows.
    pub high_watermark: Offset,
    /// Of a leader: the committed ISR and every member of a pending one. Empty otherwise.
    pub maximal_isr: Vec<BrokerId>,
    /// The log is marked as damaged from some offset on.
    pub damaged: bool,
}

impl Inspect {
    pub(crate) fn new(context: Arc<Context>, broker: Arc<Broker>) -> Self {
        Inspect { context, broker }
    }

    /// What the node shows to Prometheus, with at most `limit` series for topics, partitions and groups each. Does not
    /// keep it alive.
    pub fn metrics(&self, limit: usize) -> crate::metrics::NodeMetrics {
        crate::metrics::NodeMetrics::new(&self.context, &self.broker, limit)
    }

    pub fn node(&self) -> BrokerId {
        self.context.id
    }

    /// The epoch of this process's registration, once it is agreed.
    pub fn broker_epoch(&self) -> Option<BrokerEpoch> {
        self.context.broker_epoch()
    }

    /// The newest metadata that this node has applied.
    pub fn image(&self) -> Arc<Image> {
        self.context.image()
    }

    /// Who votes on the metadata and who learns it, as this node has it.
    pub fn membership(&self) -> strandline_raft::Membership {
        self.context.raft.membership()
    }

    /// Changes when that does, and costs nothing to ask for.
    pub fn membership_marks(&self) -> strandline_raft::MembershipMarks {
        self.context.raft.membership_marks()
    }

    pub fn raft(&self) -> RaftMarks {
        self.context.raft.metrics()
    }

    /// Every replica that this node holds, in the order of [`TopicPartition`].
    pub fn partitions(&self) -> Vec<PartitionMarks> {
        self.broker.partitions().iter().map(|partition| partition.marks()).collect()
    }

    /// This node's replica from `from` on, whether visible or not: at most `max_bytes` of whole stored batches (at
    /// least one), nothing at the log end. Where to read on lies in the last batch's header.
    ///
    /// # Errors
    /// No such replica here; and what reading its log says.
    pub fn read_log(
        &self,
        tp: TopicPartition,
        from: Offset,
        max_bytes: usize,
    ) -> Result<bytes::Bytes, ServeError> {
        match self.broker.partition(tp) {
            Some(partition) => partition.read_own_log(from, max_bytes),
            None => Err(ServeError::UnknownPartition),
        }
    }
}
