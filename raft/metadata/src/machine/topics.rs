//! CreateTopic, DeleteTopic, AddPartitions, AlterTopicConfigs.

use super::{Applied, election, partitions, put_partition};
use crate::command::{Rejection, Response};
use crate::configs;
use crate::image::{Delta, Image, Partition, Topic, TopicConfigs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_record::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, TopicId, TopicPartition};

/// Longest topic name, in bytes (Kafka's limit: a directory name must hold it with a partition number).
pub const MAX_TOPIC_NAME_BYTES: usize = 249;
/// Most partitions that one topic may have.
pub const MAX_TOPIC_PARTITIONS: usize = 100_000;

/// Creating the same topic again (same id, same name: a repeated proposal) answers as the first time.
pub(super) fn create(
    image: &mut Image,
    id: TopicId,
    name: &Arc<str>,
    assignments: &[Vec<BrokerId>],
    configs: &TopicConfigs,
    now_ms: i64,
    delta: &mut Delta,
) -> Applied {
    if let Some(existing) = image.topics.get(&id) {
        return if existing.name == *name {
            Ok(Response::TopicCreated { id })
        } else {
            Err(Rejection::Invalid("the topic id is in use".to_owned()))
        };
    }
    check_topic_name(name).map_err(Rejection::InvalidName)?;
    if image.topic_ids.get(name).is_some() {
        return Err(Rejection::TopicExists(name.clone()));
    }
    configs::validate(configs)?;
    check_assignments(image, assignments, 0)?;
    if let [first, rest @ ..] = assignments
        && rest.iter().any(|a| a.len() != first.len())
    {
        return Err(Rejection::InvalidReplicas("partitions have different numbers of replicas".to_owned()));
    }
    let topic = Topic {
        id,
        name: name.clone(),
        partitions: count(assignments.len()),
        configs: configs.clone(),
        created_at_ms: now_ms,
    };
    image.topic_ids.insert_mut(name.clone(), id);
    put_topic(image, topic, delta);
    put_new_partitions(image, id, 0, assignments, delta);
    Ok(Response::TopicCreated { id })
}

/// Its partitions and every group's committed offsets for them go with it.
pub(super) fn delete(image: &mut Image, id: TopicId, delta: &mut Delta) -> Applied {
    let topic = image.topics.get(&id).cloned().ok_or(Rejection::UnknownTopic)?;
    for number in 0..topic.partitions {
        let tp = TopicPartition { topic: id, partition: PartitionId(number) };
        image.partitions.remove_mut(&tp);
        delta.partitions.insert(tp);
    }
    let offsets: Vec<_> = image.offsets.keys().filter(|(_, tp)| tp.topic == id).cloned().collect();
    for key in offsets {
        image.offsets.remove_mut(&key);
        delta.offset(&key.0, key.1);
    }
    image.topics.remove_mut(&id);
    image.topic_ids.remove_mut(&topic.name);
    delta.topics.insert(id);
    Ok(Response::Done)
}

pub(super) fn add_partitions(
    image: &mut Image,
    id: TopicId,
    expected: i32,
    assignments: &[Vec<BrokerId>],
    delta: &mut Delta,
) -> Applied {
    let topic = image.topics.get(&id).cloned().ok_or(Rejection::UnknownTopic)?;
    if topic.partitions != expected {
        return Err(Rejection::PartitionCountChanged(topic.partitions));
    }
    check_assignments(image, assignments, expected as usize)?;
    let partitions = expected + count(assignments.len());
    put_topic(image, Topic { partitions, ..Topic::clone(&topic) }, delta);
    put_new_partitions(image, id, expected, assignments, delta);
    Ok(Response::Done)
}

/// A command that names `min.insync.replicas` raises the partition epoch of every partition of the topic, and
/// empties the ELR wherever the ISR has the new minimum (`put_partition`).
pub(super) fn alter_configs(
    image: &mut Image,
    id: TopicId,
    set: &BTreeMap<Arc<str>, Arc<str>>,
    unset: &BTreeSet<Arc<str>>,
    delta: &mut Delta,
) -> Applied {
    let topic = image.topics.get(&id).cloned().ok_or(Rejection::UnknownTopic)?;
    let next = altered_configs(&topic.configs, set, unset)?;
    put_topic(image, Topic { configs: next, ..Topic::clone(&topic) }, delta);

    let min_insync = configs::MIN_INSYNC_REPLICAS;
    if set.contains_key(min_insync) || unset.contains(min_insync) {
        for number in 0..topic.partitions {
            let tp = TopicPartition { topic: id, partition: PartitionId(number) };
            let partition = Partition::clone(image.partitions.get(&tp).expect("a topic has its partitions"));
            put_partition(image, tp, partition, delta);
        }
    }
    Ok(Response::Done)
}

/// A topic's configurations after a change, or why it is refused.
pub fn altered_configs(
    configs: &TopicConfigs,
    set: &BTreeMap<Arc<str>, Arc<str>>,
    unset: &BTreeSet<Arc<str>>,
) -> Result<TopicConfigs, Rejection> {
    for key in unset {
        crate::configs::find(key)?;
        if set.contains_key(key) {
            return Err(Rejection::InvalidConfig {
                key: key.to_string(),
                reason: "it is set and unset at once".to_owned(),
            });
        }
    }
    let mut next = configs.clone();
    next.retain(|key, _| !unset.contains(key));
    next.extend(set.iter().map(|(k, v)| (k.clone(), v.clone())));
    crate::configs::validate(&next)?;
    check_flush_change(configs, &next)?;
    Ok(next)
}

/// What was acknowledged under `interval` or `os` may be missing after an unclean restart, so such a restart takes a
/// replica out of the ELR. Under `ack` it does not: the topic would promise for its old records what nobody kept.
/// Loosening is fine, tightening is refused.
fn check_flush_change(now: &TopicConfigs, next: &TopicConfigs) -> Result<(), Rejection> {
    let is_ack = |configs| configs::effective(configs, configs::FLUSH) == Some("ack");
    if is_ack(next) && !is_ack(now) {
        return Err(Rejection::InvalidConfig {
            key: configs::FLUSH.to_owned(),
            reason: "a topic that did not wait for the disk cannot begin to: its older records may not be on every disk; \
                     create another topic with flush=ack and copy them"
                .to_owned(),
        });
    }
    Ok(())
}

/// Kafka's rule: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() {
        Err("it is empty".to_owned())
    } else if name == "." || name == ".." {
        Err(format!("'{name}' is not a topic name"))
    } else if name.len() > MAX_TOPIC_NAME_BYTES {
        Err(format!("it is longer than {MAX_TOPIC_NAME_BYTES} characters"))
    } else if !name.bytes().all(allowed) {
        Err("only ASCII letters, digits, '.', '_' and '-' are allowed".to_owned())
    } else {
        Ok(())
    }
}

fn check_assignments(image: &Image, assignments: &[Vec<BrokerId>], present: usize) -> Result<(), Rejection> {
    if assignments.is_empty() {
        return Err(Rejection::Invalid("at least one partition is needed".to_owned()));
    }
    if present + assignments.len() > MAX_TOPIC_PARTITIONS {
        return Err(Rejection::Invalid(format!("a topic has at most {MAX_TOPIC_PARTITIONS} partitions")));
    }
    for replicas in assignments {
        partitions::check_replicas(image, replicas, &[])?;
        if replicas.iter().all(|b| image.brokers.get(b).is_none_or(|b| b.fenced)) {
            return Err(Rejection::NoEligibleReplica);
        }
    }
    Ok(())
}

/// New partitions hold nothing yet: every replica that is alive is in sync.
fn put_new_partitions(
    image: &mut Image,
    topic: TopicId,
    first: i32,
    assignments: &[Vec<BrokerId>],
    delta: &mut Delta,
) {
    for (number, replicas) in (first..).zip(assignments) {
        let alive = |b: &&BrokerId| image.brokers.get(*b).is_some_and(|b| !b.fenced);
        let mut partition = Partition {
            isr: replicas.iter().filter(alive).copied().collect(),
            replicas: replicas.clone(),
            leader: None,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(1),
            elr: BTreeSet::new(),
            unclean_epoch: LeaderEpoch(0),
            reassignment: None,
            damage_reports: BTreeMap::new(),
        };
        election::elect(image, &mut partition);
        put_partition(image, TopicPartition { topic, partition: PartitionId(number) }, partition, delta);
    }
}

fn put_topic(image: &mut Image, topic: Topic, delta: &mut Delta) {
    delta.topics.insert(topic.id);
    image.topics.insert_mut(topic.id, Arc::new(topic));
}

fn count(partitions: usize) -> i32 {
    i32::try_from(partitions).expect("bounded by MAX_TOPIC_PARTITIONS")
}
