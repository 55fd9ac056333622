//! Why the broker refused or could not finish a request. Fronts turn these into their protocol's codes,
//! each in one exhaustive match; nothing here knows a wire type.

use strandline_core::consumer_group::ConsumerGroupError;
use strandline_core::group::GroupError;
use strandline_metadata::Rejection;
use strandline_record::{BrokerId, LeaderEpoch, Offset};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    #[error("there is no topic {0}")]
    UnknownTopic(String),
    #[error("there is no such partition here")]
    UnknownPartition,
    #[error("this node does not lead the partition")]
    NotLeader { leader: Option<BrokerId>, epoch: LeaderEpoch },
    #[error("leader epoch {asked} is over, {current} is current")]
    FencedLeaderEpoch { asked: LeaderEpoch, current: LeaderEpoch },
    #[error("leader epoch {asked} is not known here yet, {current} is")]
    UnknownLeaderEpoch { asked: LeaderEpoch, current: LeaderEpoch },
    #[error("{isr} in-sync replicas, min.insync.replicas is {min_isr}; nothing was appended")]
    NotEnoughReplicas { isr: usize, min_isr: usize },
    #[error("the partition holds offsets {log_start} to {end}")]
    OffsetOutOfRange { log_start: Offset, end: Offset },
    #[error("the new leader has not caught up with its own epoch yet")]
    OffsetNotAvailable,
    #[error("the batch has {size} bytes, max.message.bytes is {max}")]
    RecordTooLarge { size: usize, max: usize },
    #[error("the batch is damaged: {0}")]
    CorruptRecord(String),
    #[error("the batch is not valid: {0}")]
    InvalidRecord(String),
    #[error("{0}")]
    OutOfOrderSequence(String),
    #[error("the batch was appended before, too long ago to know where")]
    DuplicateSequence,
    #[error("{0}")]
    ProducerFenced(String),
    #[error("{0}")]
    UnknownProducerId(String),
    #[error("not durable on every in-sync replica in time; it may have been appended")]
    TimedOut,
    #[error(
        "leadership ended before the batch was durable on every in-sync replica; it may have been appended"
    )]
    Deposed,
    #[error("the disk is full: this node is read-only until space is free")]
    StorageFull,
    #[error(
        "the idempotency keys of this partition are still being read after a start; nothing was appended"
    )]
    KeysNotRead,
    #[error("this replica is damaged from offset {0} on and waits for repair")]
    Damaged(Offset),
    #[error("the log could not be read or written: {0}")]
    Storage(String),
    #[error("the partition's log could not be opened, which is tried again: {0}")]
    NotOpened(String),
    #[error("this node is shutting down")]
    ShuttingDown,
    #[error("too many bytes are in flight")]
    Throttled,
    #[error("the request is not valid: {0}")]
    InvalidRequest(String),
    #[error("{0}")]
    InvalidPartitions(String),
    #[error("{0}")]
    InvalidReplication(String),
    #[error("the cluster has no metadata leader at the moment: {0}")]
    ClusterNotReady(String),
    #[error("the metadata change may or may not have been made: {0}")]
    ProposalUnknown(String),
    #[error("{0}")]
    Rejected(Rejection),
    #[error("this node does not lead the metadata")]
    NotController(Option<BrokerId>),
    #[error("this node does not coordinate the group")]
    NotCoordinator(Option<BrokerId>),
    #[error("{0}")]
    Group(GroupError),
    /// A group of the consumer protocol (KIP-848).
    #[error("{0}")]
    ConsumerGroup(ConsumerGroupError),
}
