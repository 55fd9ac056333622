//! Groups of the new consumer protocol (KIP-848), as agreed.
//!
//! The group epoch counts the changes that an assignment depends on: members, what they subscribe to, the
//! topics. Each has a target assignment. A member's own epoch is the group epoch whose target it has been
//! moved to; on the way there it first gives up what the target takes from it (`revoking`), at its old
//! epoch, so that it can still commit.
//!
//! Invariants, kept by `apply` and checked in snapshots ([`ConsumerGroup::check`]):
//! * a partition is in `assigned` or `revoking` of at most one member: it has at most one owner;
//! * member epoch ≤ target epoch ≤ group epoch, and none of them goes back;
//! * an instance id belongs to one member.

use crate::image::Image;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_record::{PartitionId, TopicId, TopicPartition};

/// A point in the life of a group: of the group itself, of its target, or of a member that has got there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupEpoch(pub i32);

impl std::fmt::Display for GroupEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of partitions, by topic. No topic without partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions(BTreeMap<TopicId, BTreeSet<PartitionId>>);

/// A group of the consumer protocol. A name belongs to one of these or to a classic [`crate::Group`], not to
/// both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroup {
    /// Raft index of the last change: what commands compare. Never the same again, also after deletion.
    pub version: u64,
    pub epoch: GroupEpoch,
    /// The group epoch that the members' targets were computed for.
    pub target_epoch: GroupEpoch,
    /// Of the subscribed topics as the targets were computed from them (names, ids, partition counts).
    pub topics_hash: u64,
    /// By member id. Shared, as a change touches few of them.
    pub members: BTreeMap<Arc<str>, Arc<ConsumerMember>>,
    pub changed_at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerMember {
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<Arc<str>>,
    pub rack: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub topics: BTreeSet<Arc<str>>,
    /// Topics whose whole name matches are subscribed as well.
    pub regex: Option<Arc<str>>,
    /// The assignor that the member asks for; the group takes the one that most ask for.
    pub assignor: Option<Arc<str>>,
    pub rebalance_timeout_ms: u32,
    /// A static member that left and said that it will be back. It owns nothing that it must give up first.
    pub away: bool,
    pub epoch: GroupEpoch,
    /// The epoch before this one: what the member knows if the answer that told it this one was lost.
    pub previous_epoch: GroupEpoch,
    /// What it may consume.
    pub assigned: Partitions,
    /// What it must stop consuming; nobody else gets these before it has confirmed.
    pub revoking: Partitions,
    pub target: Partitions,
}

/// What one command changes of a group. Members that are not named stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerGroupChange {
    pub epoch: GroupEpoch,
    pub target_epoch: GroupEpoch,
    pub topics_hash: u64,
    /// The member as it is from now on; `None` removes it.
    pub members: BTreeMap<Arc<str>, Option<Arc<ConsumerMember>>>,
    pub changed_at_ms: i64,
}

impl Partitions {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Partitions in the set.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    pub fn contains(&self, tp: &TopicPartition) -> bool {
        self.0.get(&tp.topic).is_some_and(|of| of.contains(&tp.partition))
    }

    /// Whether it was not in the set.
    pub fn insert(&mut self, tp: TopicPartition) -> bool {
        self.0.entry(tp.topic).or_default().insert(tp.partition)
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.0.iter().flat_map(|(topic, of)| {
            of.iter().map(|partition| TopicPartition { topic: *topic, partition: *partition })
        })
    }

    /// In order, each topic with its partitions (at least one).
    pub fn by_topic(&self) -> impl Iterator<Item = (TopicId, &BTreeSet<PartitionId>)> + '_ {
        self.0.iter().map(|(topic, of)| (*topic, of))
    }

    /// Those of which `keep` holds, and the others.
    pub fn split(&self, mut keep: impl FnMut(&TopicPartition) -> bool) -> (Partitions, Partitions) {
        self.iter().partition(|tp| keep(tp))
    }

    pub fn intersects(&self, other: &Partitions) -> bool {
        self.0.iter().any(|(topic, of)| other.0.get(topic).is_some_and(|others| !of.is_disjoint(others)))
    }

    pub fn is_subset(&self, other: &Partitions) -> bool {
        self.0.iter().all(|(topic, of)| other.0.get(topic).is_some_and(|others| of.is_subset(others)))
    }
}

impl Extend<TopicPartition> for Partitions {
    fn extend<I: IntoIterator<Item = TopicPartition>>(&mut self, partitions: I) {
        for tp in partitions {
            self.insert(tp);
        }
    }
}

impl FromIterator<TopicPartition> for Partitions {
    fn from_iter<I: IntoIterator<Item = TopicPartition>>(partitions: I) -> Self {
        let mut set = Partitions::default();
        set.extend(partitions);
        set
    }
}

impl ConsumerMember {
    /// What nobody else may have: consumed, or to be given up and not confirmed yet.
    pub fn owned(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.assigned.iter().chain(self.revoking.iter())
    }

    /// It has got where the target wants it, as far as others let it.
    pub fn is_at(&self, target_epoch: GroupEpoch) -> bool {
        self.epoch == target_epoch && self.revoking.is_empty() && self.assigned == self.target
    }
}

impl ConsumerGroup {
    /// The group after a change. Whether it may be is for [`ConsumerGroup::check`] to say.
    pub fn changed(&self, version: u64, change: &ConsumerGroupChange) -> ConsumerGroup {
        let mut members = self.members.clone();
        for (id, member) in &change.members {
            match member {
                Some(member) => members.insert(id.clone(), member.clone()),
                None => members.remove(id),
            };
        }
        ConsumerGroup {
            version,
            epoch: change.epoch,
            target_epoch: change.target_epoch,
            topics_hash: change.topics_hash,
            members,
            changed_at_ms: change.changed_at_ms,
        }
    }

    /// A group that nobody has joined yet.
    pub fn unborn() -> ConsumerGroup {
        ConsumerGroup {
            version: 0,
            epoch: GroupEpoch(0),
            target_epoch: GroupEpoch(0),
            topics_hash: 0,
            members: BTreeMap::new(),
            changed_at_ms: 0,
        }
    }

    /// Every member is where its target wants it.
    pub fn is_stable(&self) -> bool {
        self.target_epoch == self.epoch && self.members.values().all(|m| m.away || m.is_at(self.target_epoch))
    }

    /// Who owns what. `Err` names a partition with two owners.
    pub fn owners(&self) -> Result<BTreeMap<TopicPartition, &Arc<str>>, TopicPartition> {
        let mut owners = BTreeMap::new();
        for (id, member) in &self.members {
            for tp in member.owned() {
                if owners.insert(tp, id).is_some() {
                    return Err(tp);
                }
            }
        }
        Ok(owners)
    }

    /// The invariants. `Err` says which one is broken.
    pub fn check(&self) -> Result<(), String> {
        if self.target_epoch > self.epoch {
            return Err("the target is ahead of the group".to_owned());
        }
        let mut instances = BTreeSet::new();
        for (id, member) in &self.members {
            if member.epoch > self.target_epoch || member.previous_epoch > member.epoch {
                return Err(format!("member {id} is ahead of the target, or of itself"));
            }
            if member.instance_id.as_ref().is_some_and(|instance| !instances.insert(instance)) {
                return Err(format!("the instance of member {id} belongs to another as well"));
            }
            if member.away && member.instance_id.is_none() {
                return Err(format!("member {id} is away without an instance id"));
            }
        }
        self.owners().map_err(|tp| format!("partition {tp} has two owners"))?;
        Ok(())
    }
}

impl Image {
    /// The invariants of all groups of the consumer protocol.
    pub(crate) fn check_consumer_groups(&self) -> Result<(), String> {
        for (name, group) in self.consumer_groups.iter() {
            group.check().map_err(|broken| format!("group {name}: {broken}"))?;
            if group.version > self.index {
                return Err(format!("group {name} has a version to come"));
            }
            if self.groups.get(name).is_some() {
                return Err(format!("group {name} is of both protocols"));
            }
        }
        Ok(())
    }
}
