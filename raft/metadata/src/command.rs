//! What may be proposed to Raft, and what `machine::apply` answers. `ops/docs/REPLICATION.md` ("What is agreed")
//! gives the exact preconditions and effects; `apply` decides everything again, so a command may be
//! proposed by anyone, late, or twice.
//!
//! Times and identifiers arrive inside the command: `apply` has no clock and no random source.
//! The encoding is postcard, so variants and fields are only ever added at the end.

use crate::consumer_group::{ConsumerGroupChange, GroupEpoch};
use crate::image::{BrokerEndpoints, CommittedOffset, Group, Partition, TopicConfigs};
use crate::quotas::QuotaEntity;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_record::{
    BrokerEpoch, BrokerId, Generation, LeaderEpoch, PartitionEpoch, PartitionId, TopicId, TopicPartition,
};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// First command of a cluster. Refused when the cluster has an id already (forming twice).
    FormCluster {
        cluster_id: Uuid,
        now_ms: i64,
    },
    RegisterBroker {
        id: BrokerId,
        directory: Uuid,
        cluster_id: Uuid,
        endpoints: BrokerEndpoints,
        rack: Option<Arc<str>>,
        /// The broker epoch that a clean shutdown recorded in the data directory.
        clean_epoch: Option<BrokerEpoch>,
    },
    UnfenceBroker {
        id: BrokerId,
        epoch: BrokerEpoch,
    },
    FenceBroker {
        id: BrokerId,
        epoch: BrokerEpoch,
    },
    /// A broker being drained by `cluster remove-node`: gets no new replicas and no leadership.
    SetDraining {
        id: BrokerId,
        draining: bool,
    },
    /// Forgets a fenced broker that holds no replica. Its id may then be registered with another directory.
    UnregisterBroker {
        id: BrokerId,
    },
    CreateTopic {
        id: TopicId,
        name: Arc<str>,
        /// Replicas of partition 0, 1, …; the first of each is the preferred leader.
        assignments: Vec<Vec<BrokerId>>,
        configs: TopicConfigs,
        now_ms: i64,
    },
    DeleteTopic {
        id: TopicId,
    },
    AddPartitions {
        topic: TopicId,
        expected: i32,
        assignments: Vec<Vec<BrokerId>>,
    },
    /// Changing `min.insync.replicas` does what SetMinInsyncReplicas of ops/docs/REPLICATION.md says.
    AlterTopicConfigs {
        topic: TopicId,
        set: BTreeMap<Arc<str>, Arc<str>>,
        unset: BTreeSet<Arc<str>>,
    },
    AlterPartition {
        tp: TopicPartition,
        requester: BrokerId,
        leader_epoch: LeaderEpoch,
        partition_epoch: PartitionEpoch,
        isr: BTreeMap<BrokerId, BrokerEpoch>,
    },
    ElectLeader {
        tp: TopicPartition,
        kind: Election,
    },
    ReplicaDamaged {
        id: BrokerId,
        epoch: BrokerEpoch,
        tp: TopicPartition,
        from: strandline_record::Offset,
    },
    /// Compare-and-set of the replica list, for reassignment (grow, wait for the ISR, shrink).
    SetReplicas {
        tp: TopicPartition,
        partition_epoch: PartitionEpoch,
        replicas: Vec<BrokerId>,
    },
    /// Wanted final replicas of a partition (`None` cancels). The controller carries it out.
    SetReassignment {
        tp: TopicPartition,
        target: Option<Vec<BrokerId>>,
    },
    AllocateProducerIds {
        count: u32,
    },
    /// Compare-and-set on the group's generation (`None`: the group does not exist yet).
    /// `next.generation` must be higher. Members are agreed first, without assignments, so that every
    /// generation told to a member is agreed and unique; `PutAssignment` completes the rebalance.
    PutGeneration {
        group: Arc<str>,
        expected: Option<Generation>,
        next: Group,
    },
    CommitOffsets {
        group: Arc<str>,
        /// `None` only for an empty group (simple consumers, resets).
        member: Option<CommitMember>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    },
    DeleteOffsets {
        group: Arc<str>,
        partitions: Vec<TopicPartition>,
    },
    DeleteGroup {
        group: Arc<str>,
    },
    /// Applied one after another, each with its own response; one log entry.
    Batch(Vec<Command>),
    /// Assignments of the generation that a `PutGeneration` agreed on without them. The first one wins:
    /// `StaleGeneration` unless `generation` is the group's, `AlreadyAssigned` once it is assigned,
    /// `UnknownMember` if a name is no member of it. Members not named get an empty assignment.
    PutAssignment {
        group: Arc<str>,
        generation: Generation,
        assignments: BTreeMap<Arc<str>, Arc<[u8]>>,
    },
    /// A static member (KIP-345) came back under a new member id: `to` takes over `from`'s place,
    /// assignment and leadership within the same, assigned generation. `StaleGeneration` or
    /// `RebalanceInProgress` otherwise; `UnknownMember` unless `from` is a member with `member`'s instance
    /// id; `Invalid` if `to` is a member already. The assignment inside `member` is ignored.
    ReplaceMember {
        group: Arc<str>,
        generation: Generation,
        from: Arc<str>,
        to: Arc<str>,
        member: crate::image::GroupMember,
    },
    /// Sets (`Some`, bytes a second) and removes (`None`) quotas of one entity.
    AlterQuotas {
        entity: QuotaEntity,
        changes: BTreeMap<Arc<str>, Option<u64>>,
    },
    /// A change of a group of the consumer protocol (KIP-848), by compare-and-set on its version (`None`: the
    /// group does not exist, or is a classic one without members, which this replaces).
    /// `StaleGroupVersion` or `OtherGroupProtocol` otherwise; `Invalid` if an invariant of
    /// [`crate::ConsumerGroup`] would break.
    AlterConsumerGroup {
        group: Arc<str>,
        expected: Option<u64>,
        change: ConsumerGroupChange,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitMember {
    /// In a group of the consumer protocol: the member epoch.
    pub generation: Generation,
    pub member_id: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Election {
    /// Moves leadership to the first replica of the list, if it is in the ISR and unfenced.
    Preferred,
    /// Only where `unclean.leader.election.enable` and no ISR or ELR member is alive.
    Unclean,
    /// To a named replica, if it is in the ISR and unfenced (leadership hand-over at shutdown and draining).
    To(BrokerId),
}

/// Answer of `apply` to one command. Equal commands on equal states give equal answers on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    Done,
    Registered { epoch: BrokerEpoch },
    Partition(Partition),
    TopicCreated { id: TopicId },
    ProducerIds { first: i64, count: u32 },
    Generation(Generation),
    Batch(Vec<Response>),
    Rejected(Rejection),
}

/// Why a command had no effect. (A rejected AlterPartition ends nothing for its sender: an earlier copy
/// may still apply.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    #[error("the cluster has been formed already")]
    AlreadyFormed,
    #[error("the cluster has not been formed yet")]
    NotFormed,
    #[error("this broker belongs to cluster {0}")]
    WrongCluster(Uuid),
    #[error("broker {id} is registered with another data directory ({registered})")]
    WrongDirectory { id: BrokerId, registered: Uuid },
    #[error("broker {0} is not registered")]
    UnknownBroker(BrokerId),
    #[error("the broker epoch is stale (current: {current})")]
    StaleBrokerEpoch { current: BrokerEpoch },
    #[error("broker {0} is fenced")]
    BrokerFenced(BrokerId),
    #[error("broker {0} must be fenced first")]
    BrokerNotFenced(BrokerId),
    #[error("broker {id} still holds {replicas} replicas")]
    BrokerHoldsReplicas { id: BrokerId, replicas: u32 },
    #[error("topic {0} exists already")]
    TopicExists(Arc<str>),
    #[error("no such topic")]
    UnknownTopic,
    #[error("no such partition")]
    UnknownPartition,
    #[error(
        "the partition changed meanwhile (leader epoch {leader_epoch}, partition epoch {partition_epoch})"
    )]
    StalePartition { leader_epoch: LeaderEpoch, partition_epoch: PartitionEpoch },
    #[error("only the leader may ask this")]
    NotLeader,
    #[error("broker {0} is not a replica of the partition")]
    NotReplica(BrokerId),
    #[error("no eligible replica")]
    NoEligibleReplica,
    #[error("the partition count changed meanwhile (now {0})")]
    PartitionCountChanged(i32),
    #[error("the replica list is not valid: {0}")]
    InvalidReplicas(String),
    #[error("configuration {key}: {reason}")]
    InvalidConfig { key: String, reason: String },
    #[error("the name is not valid: {0}")]
    InvalidName(String),
    #[error("no such group")]
    UnknownGroup,
    #[error("the group changed meanwhile (generation {0:?})")]
    StaleGeneration(Option<Generation>),
    #[error("generation {current} is current")]
    IllegalGeneration { current: Generation },
    #[error("no such member in the current generation")]
    UnknownMember,
    #[error("the group has members")]
    GroupNotEmpty,
    #[error("the command is not valid: {0}")]
    Invalid(String),
    /// A commit (or replacement of a member) in a generation that is not assigned yet.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the generation is assigned already")]
    AlreadyAssigned,
    #[error("the group changed meanwhile (version {0:?})")]
    StaleGroupVersion(Option<u64>),
    #[error("the group has members of the other protocol")]
    OtherGroupProtocol,
    #[error("member epoch {current} is current")]
    StaleMemberEpoch { current: GroupEpoch },
}

impl Command {
    /// postcard encoding of the command.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a command has no value that postcard cannot encode")
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// Convenience for tests and callers: partition `number` of `topic`.
pub fn tp(topic: TopicId, number: i32) -> TopicPartition {
    TopicPartition { topic, partition: PartitionId(number) }
}
