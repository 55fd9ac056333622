//! `apply`: the only code that turns one image into the next. It follows the command table of
//! ops/docs/REPLICATION.md row by row; each file here is a group of rows.
//!
//! ```text
//!   brokers     RegisterBroker  UnfenceBroker  FenceBroker  SetDraining  UnregisterBroker
//!   topics      CreateTopic  DeleteTopic  AddPartitions  AlterTopicConfigs (SetMinInsyncReplicas)
//!   partitions  AlterPartition  SetReplicas  SetReassignment
//!   election    ElectLeader  ReplicaDamaged, and "elect" itself
//!   groups      PutGeneration  PutAssignment  ReplaceMember  DeleteGroup
//!   consumer_groups  AlterConsumerGroup
//!   offsets     CommitOffsets  DeleteOffsets
//!   quotas      AlterQuotas
//! ```
//!
//! Invariants:
//! * a rejected command changes nothing but `Image::index`;
//! * the answer and the next image depend on the image, the index and the command only;
//! * every accepted command that names or changes a partition raises its partition epoch by exactly one,
//!   even if nothing else changes; a rejected one never does;
//! * whenever the ISR reaches the effective `min.insync.replicas` the ELR is empty (from then on the high
//!   watermark may pass what the ELR's members hold);
//! * [`Image::check_partition`] holds for every partition that was written.

mod brokers;
mod consumer_groups;
mod election;
mod groups;
mod offsets;
mod partitions;
mod quotas;
mod topics;

pub use groups::{MAX_GROUP_ID_BYTES, check_group_id};
pub use offsets::MAX_OFFSET_METADATA_BYTES;
pub use topics::{MAX_TOPIC_NAME_BYTES, MAX_TOPIC_PARTITIONS, altered_configs, check_topic_name};

use crate::command::{Command, Rejection, Response};
use crate::configs::TopicSettings;
use crate::image::{Delta, Image, Partition};
use std::sync::Arc;
use strandline_record::{PartitionEpoch, TopicPartition};

type Applied = Result<Response, Rejection>;

/// Largest block of producer ids that one command hands out.
pub const MAX_PRODUCER_ID_BLOCK: u32 = 1_000_000;

/// Applies the committed `command` of Raft entry `index`. What changed is added to `delta`.
///
/// The parts of a `Batch` are applied one after another under the same index, each with its own answer;
/// one that is rejected does not stop the others. A batch within a batch is rejected.
///
/// # Panics
/// If `index` is below the image's, or if an invariant of the image breaks: both are faults of our own.
pub fn apply(image: &mut Image, index: u64, command: &Command, delta: &mut Delta) -> Response {
    assert!(index >= image.index, "applied index went back from {} to {index}", image.index);
    image.index = index;
    match command {
        Command::Batch(commands) => {
            Response::Batch(commands.iter().map(|c| apply_one(image, index, c, delta)).collect())
        }
        command => apply_one(image, index, command, delta),
    }
}

fn apply_one(image: &mut Image, index: u64, command: &Command, delta: &mut Delta) -> Response {
    decide(image, index, command, delta).unwrap_or_else(Response::Rejected)
}

fn decide(image: &mut Image, index: u64, command: &Command, delta: &mut Delta) -> Applied {
    if let Command::FormCluster { cluster_id, now_ms } = command {
        if image.cluster_id.is_some() {
            return Err(Rejection::AlreadyFormed);
        }
        image.cluster_id = Some(*cluster_id);
        image.formed_at_ms = *now_ms;
        return Ok(Response::Done);
    }
    if image.cluster_id.is_none() {
        return Err(Rejection::NotFormed);
    }
    match command {
        Command::FormCluster { .. } => unreachable!("handled above"),
        Command::RegisterBroker { id, directory, cluster_id, endpoints, rack, clean_epoch } => {
            let registration = brokers::Registration { directory: *directory, endpoints, rack };
            brokers::register(image, index, *id, *cluster_id, registration, *clean_epoch, delta)
        }
        Command::UnfenceBroker { id, epoch } => brokers::unfence(image, *id, *epoch, delta),
        Command::FenceBroker { id, epoch } => brokers::fence(image, *id, *epoch, delta),
        Command::SetDraining { id, draining } => brokers::set_draining(image, *id, *draining, delta),
        Command::UnregisterBroker { id } => brokers::unregister(image, index, *id, delta),
        Command::CreateTopic { id, name, assignments, configs, now_ms } => {
            topics::create(image, *id, name, assignments, configs, *now_ms, delta)
        }
        Command::DeleteTopic { id } => topics::delete(image, *id, delta),
        Command::AddPartitions { topic, expected, assignments } => {
            topics::add_partitions(image, *topic, *expected, assignments, delta)
        }
        Command::AlterTopicConfigs { topic, set, unset } => {
            topics::alter_configs(image, *topic, set, unset, delta)
        }
        Command::AlterPartition { tp, requester, leader_epoch, partition_epoch, isr } => {
            partitions::alter(image, *tp, *requester, (*leader_epoch, *partition_epoch), isr, delta)
        }
        Command::ElectLeader { tp, kind } => election::elect_leader(image, *tp, *kind, delta),
        Command::ReplicaDamaged { id, epoch, tp, from } => {
            election::replica_damaged(image, *id, *epoch, *tp, *from, delta)
        }
        Command::SetReplicas { tp, partition_epoch, replicas } => {
            partitions::set_replicas(image, *tp, *partition_epoch, replicas, delta)
        }
        Command::SetReassignment { tp, target } => {
            partitions::set_reassignment(image, *tp, target.as_deref(), delta)
        }
        Command::AllocateProducerIds { count } => allocate_producer_ids(image, *count),
        Command::PutGeneration { group, expected, next } => {
            groups::put_generation(image, group, *expected, next, delta)
        }
        Command::CommitOffsets { group, member, offsets } => {
            offsets::commit(image, group, member.as_ref(), offsets, delta)
        }
        Command::DeleteOffsets { group, partitions } => offsets::delete(image, group, partitions, delta),
        Command::DeleteGroup { group } => groups::delete(image, group, delta),
        Command::PutAssignment { group, generation, assignments } => {
            groups::put_assignment(image, group, *generation, assignments, delta)
        }
        Command::ReplaceMember { group, generation, from, to, member } => {
            groups::replace_member(image, group, *generation, (from, to), member, delta)
        }
        Command::AlterQuotas { entity, changes } => quotas::alter(image, entity, changes, delta),
        Command::AlterConsumerGroup { group, expected, change } => {
            consumer_groups::alter(image, index, group, *expected, change, delta)
        }
        Command::Batch(_) => Err(Rejection::Invalid("a batch within a batch".to_owned())),
    }
}

fn allocate_producer_ids(image: &mut Image, count: u32) -> Applied {
    if count == 0 || count > MAX_PRODUCER_ID_BLOCK {
        return Err(Rejection::Invalid(format!("a block has 1 to {MAX_PRODUCER_ID_BLOCK} producer ids")));
    }
    let first = image.next_producer_id;
    image.next_producer_id = first
        .checked_add(i64::from(count))
        .ok_or_else(|| Rejection::Invalid("no producer ids are left".to_owned()))?;
    Ok(Response::ProducerIds { first, count })
}

/// The partition that a command names, to be changed and handed to [`put_partition`].
fn named_partition(image: &Image, tp: TopicPartition) -> Result<Partition, Rejection> {
    match image.partitions.get(&tp) {
        Some(partition) => Ok(Partition::clone(partition)),
        None if image.topics.get(&tp.topic).is_some() => Err(Rejection::UnknownPartition),
        None => Err(Rejection::UnknownTopic),
    }
}

/// Settings of the partition's topic, with the effective `min.insync.replicas` of this partition.
fn settings(image: &Image, tp: TopicPartition, partition: &Partition) -> TopicSettings {
    let topic = image.topics.get(&tp.topic).expect("a partition has a topic");
    TopicSettings::from_configs(&topic.configs, partition.target_replication())
}

/// Ends a command's change of one partition: empties the ELR where the ISR suffices, raises the partition
/// epoch, asserts the invariants and stores it.
fn put_partition(image: &mut Image, tp: TopicPartition, mut next: Partition, delta: &mut Delta) -> Partition {
    if next.isr.len() >= settings(image, tp, &next).min_insync_replicas {
        next.elr.clear();
    }
    if let Some(before) = image.partitions.get(&tp) {
        assert_eq!(next.partition_epoch, before.partition_epoch, "only put_partition raises the epoch");
        assert!(next.leader_epoch >= before.leader_epoch, "{tp}: leader epoch went back");
        let led_by_another = next.leader != before.leader;
        assert!(!led_by_another || next.leader_epoch > before.leader_epoch, "{tp}: two leaders in one epoch");
        next.partition_epoch = PartitionEpoch(before.partition_epoch.0 + 1);
    }
    image.check_partition(tp, &next).unwrap_or_else(|broken| panic!("{tp}: {broken}: {next:?}"));
    image.partitions.insert_mut(tp, Arc::new(next.clone()));
    delta.partitions.insert(tp);
    next
}
