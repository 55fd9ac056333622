//! The agreed state, as one immutable value. Cloning is cheap (persistent maps, shared entries), so
//! every broker holds the image of the last applied index while the next one is being built.
//!
//! Invariants kept by `machine::apply` and asserted there:
//! * ISR and ELR are disjoint, both within `replicas`; a fenced broker is in no ISR;
//! * the leader, if any, is unfenced and in the ISR;
//! * leader epoch and partition epoch of a partition never decrease.

use rpds::RedBlackTreeMapSync as Map;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_record::{
    BrokerEpoch, BrokerId, Generation, LeaderEpoch, Offset, PartitionEpoch, TopicId, TopicPartition,
};
use uuid::Uuid;

/// Set keys and values of a topic, Kafka's names; what is absent has the default.
pub type TopicConfigs = BTreeMap<Arc<str>, Arc<str>>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Raft index of the last applied entry (of any kind).
    pub index: u64,
    pub cluster_id: Option<Uuid>,
    pub formed_at_ms: i64,
    pub brokers: Map<BrokerId, Arc<Broker>>,
    pub topics: Map<TopicId, Arc<Topic>>,
    pub topic_ids: Map<Arc<str>, TopicId>,
    pub partitions: Map<TopicPartition, Arc<Partition>>,
    pub next_producer_id: i64,
    pub groups: Map<Arc<str>, Arc<Group>>,
    /// Ordered by group, then partition: a range scan gives one group's offsets.
    pub offsets: Map<(Arc<str>, TopicPartition), CommittedOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    pub id: BrokerId,
    pub directory: Uuid,
    pub endpoints: BrokerEndpoints,
    pub rack: Option<Arc<str>>,
    pub epoch: BrokerEpoch,
    pub fenced: bool,
    pub draining: bool,
}

/// Advertised addresses, `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerEndpoints {
    pub peer: Arc<str>,
    pub grpc: Arc<str>,
    pub kafka: Option<Arc<str>>,
    pub http: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    pub id: TopicId,
    pub name: Arc<str>,
    /// Partitions are numbered 0..partitions.
    pub partitions: i32,
    pub configs: TopicConfigs,
    pub created_at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Ordered; the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    pub isr: BTreeSet<BrokerId>,
    /// Eligible leader replicas (KIP-966); never overlaps the ISR.
    pub elr: BTreeSet<BrokerId>,
    /// Leader epoch of the last unclean election; 0 when there was none (epochs start at 1).
    pub unclean_epoch: LeaderEpoch,
    /// Wanted final replicas while a reassignment is under way.
    pub reassignment: Option<Vec<BrokerId>>,
    /// Last ReplicaDamaged report applied for each replica: the broker epoch it came under. A damaged
    /// replica takes no role until it sees its own report here.
    pub damage_reports: BTreeMap<BrokerId, DamageReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageReport {
    pub broker_epoch: BrokerEpoch,
    pub from: Offset,
    /// The leader epoch that the report began.
    pub leader_epoch: LeaderEpoch,
}

/// A consumer group as agreed at the end of its last rebalance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub generation: Generation,
    /// `consumer` for consumers.
    pub protocol_type: Arc<str>,
    /// The assignor that all members know, e.g. `range`; empty when the group has no members.
    pub protocol: Arc<str>,
    pub leader: Option<Arc<str>>,
    /// By member id.
    pub members: BTreeMap<Arc<str>, GroupMember>,
    pub changed_at_ms: i64,
    /// False from the agreement on a generation's members until that on its assignments (`PutAssignment`).
    /// Commits with the generation are refused until then, as its partitions have no owners yet.
    /// Always true without members.
    pub assigned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub session_timeout_ms: u32,
    pub rebalance_timeout_ms: u32,
    /// Supported protocols with the member's metadata (Kafka's ConsumerProtocolSubscription bytes), in
    /// order of preference.
    pub protocols: Vec<(Arc<str>, Arc<[u8]>)>,
    /// Kafka's ConsumerProtocolAssignment bytes, as the group's leader (or the broker) assigned.
    pub assignment: Arc<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    pub offset: Offset,
    pub leader_epoch: Option<LeaderEpoch>,
    pub metadata: Option<Arc<str>>,
    pub commit_time_ms: i64,
}

/// What applying a run of entries changed: keys only, the values are in the new image. Work that follows
/// a delta is proportional to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Everything may have changed (first image, snapshot installed).
    pub full: bool,
    pub brokers: BTreeSet<BrokerId>,
    /// Created, changed configs or partition count, or deleted.
    pub topics: BTreeSet<TopicId>,
    pub partitions: BTreeSet<TopicPartition>,
    pub groups: BTreeSet<Arc<str>>,
    /// Groups of which committed offsets changed.
    pub offsets: BTreeSet<Arc<str>>,
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        *self == Delta::default()
    }

    pub fn merge(&mut self, other: Delta) {
        self.full |= other.full;
        self.brokers.extend(other.brokers);
        self.topics.extend(other.topics);
        self.partitions.extend(other.partitions);
        self.groups.extend(other.groups);
        self.offsets.extend(other.offsets);
    }
}

impl Image {
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    pub fn partition(&self, tp: TopicPartition) -> Option<&Arc<Partition>> {
        self.partitions.get(&tp)
    }

    pub fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    pub fn unfenced(&self, id: BrokerId, epoch: BrokerEpoch) -> bool {
        self.brokers.get(&id).is_some_and(|b| !b.fenced && b.epoch == epoch)
    }

    pub fn committed_offset(&self, group: &Arc<str>, tp: TopicPartition) -> Option<&CommittedOffset> {
        self.offsets.get(&(group.clone(), tp))
    }
}
