//! The agreed state, as one immutable value. Cloning is cheap (persistent maps, shared entries), so
//! every broker holds the image of the last applied index while the next one is being built.
//!
//! Invariants kept by `machine::apply` and asserted there:
//! * ISR and ELR are disjoint, both within `replicas`; a fenced broker is in no ISR;
//! * the leader, if any, is unfenced and in the ISR;
//! * leader epoch and partition epoch of a partition never decrease.

use crate::consumer_group::ConsumerGroup;
use crate::quotas::{QuotaEntity, QuotaValues};
use rpds::RedBlackTreeMapSync as Map;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_record::{
    BrokerEpoch, BrokerId, Generation, LeaderEpoch, Offset, PartitionEpoch, PartitionId, TopicId,
    TopicPartition,
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
    /// No entity without a value.
    pub quotas: Map<QuotaEntity, Arc<QuotaValues>>,
    /// Groups of the consumer protocol (KIP-848); `groups` has the classic ones.
    pub consumer_groups: Map<Arc<str>, Arc<ConsumerGroup>>,
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
    /// Of either protocol.
    pub groups: BTreeSet<Arc<str>>,
    /// Groups of which committed offsets changed.
    pub offsets: BTreeSet<Arc<str>>,
    /// The committed offsets that changed or went.
    pub offset_keys: BTreeSet<(Arc<str>, TopicPartition)>,
    /// Some quota changed.
    pub quotas: bool,
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        *self == Delta::default()
    }

    pub(crate) fn offset(&mut self, group: &Arc<str>, tp: TopicPartition) {
        self.offsets.insert(group.clone());
        self.offset_keys.insert((group.clone(), tp));
    }

    pub fn merge(&mut self, other: Delta) {
        self.full |= other.full;
        self.brokers.extend(other.brokers);
        self.topics.extend(other.topics);
        self.partitions.extend(other.partitions);
        self.groups.extend(other.groups);
        self.offsets.extend(other.offsets);
        self.offset_keys.extend(other.offset_keys);
        self.quotas |= other.quotas;
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

impl Partition {
    /// The replica count that `min.insync.replicas` is measured against: while a reassignment is under way,
    /// the smaller of the present and the wanted one (growing must not make the partition refuse writes that
    /// the target would accept).
    pub fn target_replication(&self) -> usize {
        let target = self.reassignment.as_ref().map_or(usize::MAX, Vec::len);
        self.replicas.len().min(target)
    }
}

impl Image {
    /// Committed offsets of one group, by partition.
    pub fn group_offsets<'a>(
        &'a self,
        group: &Arc<str>,
    ) -> impl Iterator<Item = (TopicPartition, &'a CommittedOffset)> + use<'a> {
        let group = group.clone();
        let first = TopicPartition { topic: TopicId(Uuid::nil()), partition: PartitionId(i32::MIN) };
        self.offsets
            .range((group.clone(), first)..)
            .take_while(move |((g, _), _)| *g == group)
            .map(|((_, tp), offset)| (*tp, offset))
    }

    /// A group id as it is in the image already, if it is, so that equal ones share their text.
    pub fn shared_group_id(&self, group: &str) -> Arc<str> {
        if let Some((key, _)) = self.groups.get_key_value(group) {
            return key.clone();
        }
        if let Some((key, _)) = self.consumer_groups.get_key_value(group) {
            return key.clone();
        }
        let group: Arc<str> = group.into();
        let first = TopicPartition { topic: TopicId(Uuid::nil()), partition: PartitionId(i32::MIN) };
        match self.offsets.range((group.clone(), first)..).next() {
            Some(((key, _), _)) if *key == group => key.clone(),
            _ => group,
        }
    }

    /// The invariants of one partition, against the brokers of this image. `Err` says which one is broken.
    pub fn check_partition(&self, tp: TopicPartition, partition: &Partition) -> Result<(), String> {
        let Partition { replicas, leader, isr, elr, .. } = partition;
        let known = self.topics.get(&tp.topic).is_some_and(|t| (0..t.partitions).contains(&tp.partition.0));
        if !known {
            return Err("the partition is not one of a topic".to_owned());
        }
        if replicas.is_empty() || replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
            return Err("the replicas are not a list of distinct brokers".to_owned());
        }
        if let Some(b) = replicas.iter().find(|b| self.brokers.get(b).is_none()) {
            return Err(format!("replica {b} is not a registered broker"));
        }
        if let Some(b) = isr.iter().chain(elr).find(|b| !replicas.contains(b)) {
            return Err(format!("{b} is in the ISR or ELR but not a replica"));
        }
        if let Some(b) = isr.intersection(elr).next() {
            return Err(format!("{b} is in the ISR and the ELR"));
        }
        if let Some(b) = isr.iter().find(|b| self.brokers.get(b).is_none_or(|b| b.fenced)) {
            return Err(format!("{b} is fenced and in the ISR"));
        }
        match leader {
            Some(leader) if !isr.contains(leader) => {
                return Err(format!("leader {leader} is not in the ISR"));
            }
            None if !isr.is_empty() => return Err("the ISR has members but there is no leader".to_owned()),
            _ => {}
        }
        if partition.unclean_epoch > partition.leader_epoch {
            return Err("the unclean epoch is above the leader epoch".to_owned());
        }
        if let Some(b) = partition.damage_reports.keys().find(|b| !replicas.contains(b)) {
            return Err(format!("a damage report of {b}, which is not a replica"));
        }
        if partition.reassignment.as_ref().is_some_and(Vec::is_empty) {
            return Err("the reassignment wants no replica".to_owned());
        }
        Ok(())
    }

    /// The invariants of the whole image: what [`Image::check_partition`] says of each partition, and that the
    /// maps agree with each other and with the table of configurations.
    pub fn check(&self) -> Result<(), String> {
        if self.topics.size() != self.topic_ids.size() {
            return Err("topics and topic names do not match".to_owned());
        }
        let mut partitions = 0;
        for (id, topic) in self.topics.iter() {
            if topic.id != *id || self.topic_ids.get(&topic.name) != Some(id) {
                return Err(format!("topic {id} and its name {} do not match", topic.name));
            }
            if topic.partitions < 1 {
                return Err(format!("topic {id} has no partitions"));
            }
            crate::configs::validate(&topic.configs).map_err(|e| format!("topic {}: {e}", topic.name))?;
            partitions += topic.partitions as usize;
        }
        if partitions != self.partitions.size() {
            return Err("topics and partitions do not match".to_owned());
        }
        for (tp, partition) in self.partitions.iter() {
            self.check_partition(*tp, partition).map_err(|broken| format!("partition {tp}: {broken}"))?;
        }
        if let Some((id, _)) = self.brokers.iter().find(|(id, b)| b.id != **id || b.epoch.0 > self.index) {
            return Err(format!("broker {id} is stored under another id or has an epoch to come"));
        }
        if let Some((_, tp)) = self.offsets.keys().find(|(_, tp)| self.partitions.get(tp).is_none()) {
            return Err(format!("a committed offset of {tp}, which does not exist"));
        }
        self.check_consumer_groups()
    }
}
