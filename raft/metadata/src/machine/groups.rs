//! PutGeneration, PutAssignment, ReplaceMember and DeleteGroup.
//!
//! ```text
//!   PutGeneration (members, assigned = false) ──► PutAssignment ──► assigned: commits are accepted
//!        ▲                                                              │ ReplaceMember (static members)
//!        └──────────────────────── next rebalance ──────────────────────┘
//! ```

use super::Applied;
use crate::command::{Rejection, Response};
use crate::image::{Delta, Group, GroupMember, Image};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_record::Generation;

/// Longest group id, in bytes.
pub const MAX_GROUP_ID_BYTES: usize = 1024;

/// Ends a rebalance: compare-and-set on the generation, which strictly increases.
pub(super) fn put_generation(
    image: &mut Image,
    id: &Arc<str>,
    expected: Option<Generation>,
    next: &Group,
    delta: &mut Delta,
) -> Applied {
    check_group_id(id).map_err(Rejection::InvalidName)?;
    let other = image.consumer_groups.get(id);
    if other.is_some_and(|group| !group.members.is_empty()) {
        return Err(Rejection::OtherGroupProtocol);
    }
    let current = image.groups.get(id).map(|g| g.generation);
    if current != expected {
        return Err(Rejection::StaleGeneration(current));
    }
    let floor = current.unwrap_or(Generation(-1));
    if next.generation <= floor {
        return Err(Rejection::Invalid(format!(
            "generation {} does not follow generation {floor}",
            next.generation
        )));
    }
    check_group(next).map_err(Rejection::Invalid)?;
    // An empty group may change its protocol.
    image.consumer_groups.remove_mut(id);
    put_group(image, id, next.clone(), delta);
    Ok(Response::Generation(next.generation))
}

/// Completes a rebalance. The first assignment of a generation wins; members not named get an empty one.
pub(super) fn put_assignment(
    image: &mut Image,
    id: &Arc<str>,
    generation: Generation,
    assignments: &BTreeMap<Arc<str>, Arc<[u8]>>,
    delta: &mut Delta,
) -> Applied {
    let mut group = of_generation(image, id, generation)?;
    if group.assigned {
        return Err(Rejection::AlreadyAssigned);
    }
    if assignments.keys().any(|member| !group.members.contains_key(member)) {
        return Err(Rejection::UnknownMember);
    }
    for (member_id, member) in &mut group.members {
        member.assignment = assignments.get(member_id).cloned().unwrap_or_default();
    }
    group.assigned = true;
    put_group(image, id, group, delta);
    Ok(Response::Generation(generation))
}

/// A static member (KIP-345) is back under a new member id: it takes over place, assignment and leadership.
pub(super) fn replace_member(
    image: &mut Image,
    id: &Arc<str>,
    generation: Generation,
    (from, to): (&Arc<str>, &Arc<str>),
    member: &GroupMember,
    delta: &mut Delta,
) -> Applied {
    let mut group = of_generation(image, id, generation)?;
    if !group.assigned {
        return Err(Rejection::RebalanceInProgress);
    }
    if group.members.contains_key(to) {
        return Err(Rejection::Invalid(format!("{to} is a member already")));
    }
    let same_instance = |m: &GroupMember| m.instance_id.is_some() && m.instance_id == member.instance_id;
    let Some(old) = group.members.get(from).filter(|m| same_instance(m)) else {
        return Err(Rejection::UnknownMember);
    };
    let assignment = old.assignment.clone();
    group.members.remove(from);
    group.members.insert(to.clone(), GroupMember { assignment, ..member.clone() });
    if group.leader.as_ref() == Some(from) {
        group.leader = Some(to.clone());
    }
    put_group(image, id, group, delta);
    Ok(Response::Generation(generation))
}

/// Only a group without members; its committed offsets go with it. A group that exists only by offsets
/// (simple consumers) can be deleted too.
pub(super) fn delete(image: &mut Image, id: &Arc<str>, delta: &mut Delta) -> Applied {
    let group = image.groups.get(id);
    let consumers = image.consumer_groups.get(id);
    if group.is_some_and(|g| !g.members.is_empty()) || consumers.is_some_and(|g| !g.members.is_empty()) {
        return Err(Rejection::GroupNotEmpty);
    }
    let offsets: Vec<_> = image.group_offsets(id).map(|(tp, _)| tp).collect();
    if group.is_none() && consumers.is_none() && offsets.is_empty() {
        return Err(Rejection::UnknownGroup);
    }
    for tp in offsets {
        image.offsets.remove_mut(&(id.clone(), tp));
        delta.offset(id, tp);
    }
    image.groups.remove_mut(id);
    image.consumer_groups.remove_mut(id);
    delta.groups.insert(id.clone());
    Ok(Response::Done)
}

fn of_generation(image: &Image, id: &Arc<str>, generation: Generation) -> Result<Group, Rejection> {
    match image.groups.get(id) {
        Some(group) if group.generation == generation => Ok(Group::clone(group)),
        group => Err(Rejection::StaleGeneration(group.map(|g| g.generation))),
    }
}

fn put_group(image: &mut Image, id: &Arc<str>, group: Group, delta: &mut Delta) {
    let key = image.shared_group_id(id);
    image.groups.insert_mut(key, Arc::new(group));
    delta.groups.insert(id.clone());
}

/// A group id is any text of 1 to [`MAX_GROUP_ID_BYTES`] bytes.
pub fn check_group_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        Err("a group id is not empty".to_owned())
    } else if id.len() > MAX_GROUP_ID_BYTES {
        Err(format!("a group id has at most {MAX_GROUP_ID_BYTES} bytes"))
    } else {
        Ok(())
    }
}

/// The leader is a member, an instance id belongs to one member, and a group without members has neither
/// leader nor protocol.
fn check_group(group: &Group) -> Result<(), String> {
    if group.leader.as_ref().is_some_and(|leader| !group.members.contains_key(leader)) {
        return Err("the group's leader is not a member".to_owned());
    }
    if group.members.is_empty() && !group.protocol.is_empty() {
        return Err("a group without members has no protocol".to_owned());
    }
    if group.members.is_empty() && !group.assigned {
        return Err("a group without members has nothing to assign".to_owned());
    }
    let mut instances = BTreeSet::new();
    for instance in group.members.values().filter_map(|m| m.instance_id.as_ref()) {
        if !instances.insert(instance) {
            return Err(format!("two members are instance {instance}"));
        }
    }
    Ok(())
}
