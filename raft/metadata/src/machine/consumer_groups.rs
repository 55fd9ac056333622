//! AlterConsumerGroup: any change of a group of the consumer protocol (KIP-848).
//!
//! One compare-and-set on the group's version, which the next change of it never has again. A coordinator
//! that did not see the last change can thus not make another; so whatever number of brokers take themselves
//! for the coordinator, a partition is given away only after its owner was agreed to have let go of it.

use super::{Applied, groups};
use crate::command::{Rejection, Response};
use crate::consumer_group::{ConsumerGroup, ConsumerGroupChange};
use crate::image::{Delta, Image};
use std::sync::Arc;

pub(super) fn alter(
    image: &mut Image,
    index: u64,
    id: &Arc<str>,
    expected: Option<u64>,
    change: &ConsumerGroupChange,
    delta: &mut Delta,
) -> Applied {
    groups::check_group_id(id).map_err(Rejection::InvalidName)?;
    if image.groups.get(id).is_some_and(|classic| !classic.members.is_empty()) {
        return Err(Rejection::OtherGroupProtocol);
    }
    let present = image.consumer_groups.get(id);
    let version = present.map(|group| group.version);
    if version != expected {
        return Err(Rejection::StaleGroupVersion(version));
    }
    let unborn = ConsumerGroup::unborn();
    let before = present.map_or(&unborn, |group| group);
    let next = before.changed(index, change);
    check_step(before, change, &next).map_err(Rejection::Invalid)?;
    let key = image.shared_group_id(id);
    // An empty group may change its protocol.
    image.groups.remove_mut(id);
    image.consumer_groups.insert_mut(key, Arc::new(next));
    delta.groups.insert(id.clone());
    Ok(Response::Done)
}

fn check_step(
    before: &ConsumerGroup,
    change: &ConsumerGroupChange,
    next: &ConsumerGroup,
) -> Result<(), String> {
    if next.epoch < before.epoch || next.target_epoch < before.target_epoch {
        return Err("an epoch of the group would go back".to_owned());
    }
    for (id, member) in &change.members {
        match (before.members.get(id), member) {
            (None, None) => return Err(format!("{id} is no member")),
            (Some(before), Some(after)) if after.epoch < before.epoch => {
                return Err(format!("the epoch of member {id} would go back"));
            }
            _ => {}
        }
    }
    next.check()
}
