//! CommitOffsets and DeleteOffsets. The generation and the member are compared here, at apply, so that a
//! member that was replaced meanwhile cannot move a group's progress.

use super::{Applied, groups};
use crate::command::{CommitMember, Rejection, Response};
use crate::consumer_group::ConsumerGroup;
use crate::image::{CommittedOffset, Delta, Group, Image};
use std::sync::Arc;
use strandline_record::{Offset, TopicPartition};

/// Longest metadata text of a committed offset, in bytes (Kafka's `offset.metadata.max.bytes`).
pub const MAX_OFFSET_METADATA_BYTES: usize = 4096;

/// With a member: it must be one of the agreed generation, and that assigned; in a group of the consumer
/// protocol, at its current epoch. Without: the group has no members.
///
/// Partitions that do not exist (any more) are passed over: it is as if the topic had been deleted just
/// after the commit, and the commit's other partitions must not suffer for it.
pub(super) fn commit(
    image: &mut Image,
    id: &Arc<str>,
    member: Option<&CommitMember>,
    offsets: &[(TopicPartition, CommittedOffset)],
    delta: &mut Delta,
) -> Applied {
    groups::check_group_id(id).map_err(Rejection::InvalidName)?;
    if let Some(group) = image.consumer_groups.get(id) {
        check_consumer(group, member)?;
    } else {
        check_classic(image.groups.get(id), member)?;
    }
    check_offsets(offsets)?;
    // Equal keys share their text: the one of the group, or of its first offset.
    let key = image.shared_group_id(id);
    for (tp, offset) in offsets {
        if image.partitions.get(tp).is_some() {
            image.offsets.insert_mut((key.clone(), *tp), offset.clone());
            delta.offset(&key, *tp);
        }
    }
    Ok(Response::Done)
}

fn check_classic(group: Option<&Arc<Group>>, member: Option<&CommitMember>) -> Result<(), Rejection> {
    match (group, member) {
        (None, Some(_)) => return Err(Rejection::UnknownGroup),
        (Some(group), Some(member)) => {
            if !group.members.contains_key(&member.member_id) {
                return Err(Rejection::UnknownMember);
            }
            if group.generation != member.generation {
                return Err(Rejection::IllegalGeneration { current: group.generation });
            }
            if !group.assigned {
                return Err(Rejection::RebalanceInProgress);
            }
        }
        (Some(group), None) if !group.members.is_empty() => return Err(Rejection::GroupNotEmpty),
        (_, None) => {}
    }
    Ok(())
}

/// A member commits with its own epoch (KIP-848). One that was told to give partitions up keeps its epoch
/// until it has, so it can commit what it did with them.
fn check_consumer(group: &ConsumerGroup, member: Option<&CommitMember>) -> Result<(), Rejection> {
    let Some(member) = member else {
        return if group.members.is_empty() { Ok(()) } else { Err(Rejection::GroupNotEmpty) };
    };
    let known = group.members.get(&member.member_id).ok_or(Rejection::UnknownMember)?;
    // What one that is away had may be another's already, at the same epoch.
    if known.epoch.0 == member.generation.0 && !known.away {
        Ok(())
    } else {
        Err(Rejection::StaleMemberEpoch { current: known.epoch })
    }
}

fn check_offsets(offsets: &[(TopicPartition, CommittedOffset)]) -> Result<(), Rejection> {
    for (tp, offset) in offsets {
        if offset.offset < Offset::ZERO {
            return Err(Rejection::Invalid(format!("offset {} of partition {tp}", offset.offset)));
        }
        if offset.metadata.as_ref().is_some_and(|m| m.len() > MAX_OFFSET_METADATA_BYTES) {
            return Err(Rejection::Invalid(format!(
                "metadata of more than {MAX_OFFSET_METADATA_BYTES} bytes for partition {tp}"
            )));
        }
    }
    Ok(())
}

/// Only while the group has no members.
pub(super) fn delete(
    image: &mut Image,
    id: &Arc<str>,
    partitions: &[TopicPartition],
    delta: &mut Delta,
) -> Applied {
    let group = image.groups.get(id);
    let consumers = image.consumer_groups.get(id);
    if group.is_some_and(|g| !g.members.is_empty()) || consumers.is_some_and(|g| !g.members.is_empty()) {
        return Err(Rejection::GroupNotEmpty);
    }
    if group.is_none() && consumers.is_none() && image.group_offsets(id).next().is_none() {
        return Err(Rejection::UnknownGroup);
    }
    for tp in partitions {
        if image.offsets.remove_mut(&(id.clone(), *tp)) {
            delta.offset(id, *tp);
        }
    }
    Ok(Response::Done)
}
