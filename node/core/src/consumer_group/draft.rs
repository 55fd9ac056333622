//! The next state of the group, as it is put together for one proposal.

use super::reconcile;
use super::subscription::{compile, preferred_assignor, resolve};
use super::types::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::{
    ConsumerGroup, ConsumerGroupChange, ConsumerMember, GroupEpoch, Image, Partitions,
};
use strandline_record::TopicPartition;

pub struct Draft {
    pub group: ConsumerGroup,
    /// Something that assignments depend on changed: a new target is needed.
    pub retarget: bool,
}

impl Draft {
    pub fn of(agreed: Option<&ConsumerGroup>) -> Self {
        Draft { group: agreed.cloned().unwrap_or_else(ConsumerGroup::unborn), retarget: false }
    }

    pub fn remove(&mut self, id: &Arc<str>) {
        self.retarget |= self.group.members.remove(id).is_some();
    }

    /// Takes a request in. What the member has told with it counts when [`Draft::reconcile`] comes to it.
    pub fn take(
        &mut self,
        request: &HeartbeatRequest,
        limits: &ConsumerGroupLimits,
    ) -> Result<(), ConsumerGroupError> {
        match request.epoch {
            JOIN => self.join(request, limits),
            LEAVE => {
                let id = find_own(&self.group, request)?.0.clone();
                self.remove(&id);
                Ok(())
            }
            LEAVE_FOR_NOW => self.leave_for_now(request),
            _ => {
                let member = check_epoch(&self.group, request)?;
                let next = updated(member, request, limits)?;
                self.put(request.member_id.clone(), next, limits)
            }
        }
    }

    fn join(
        &mut self,
        request: &HeartbeatRequest,
        limits: &ConsumerGroupLimits,
    ) -> Result<(), ConsumerGroupError> {
        let before = match &request.instance_id {
            Some(instance) => of_instance(&self.group, instance),
            None => self.group.members.get_key_value(&request.member_id),
        };
        let known = before.is_some() || self.group.members.contains_key(&request.member_id);
        if let Some((id, member)) = before
            && **id != *request.member_id
            && !member.away
        {
            return Err(ConsumerGroupError::UnreleasedInstanceId);
        }
        if before.is_none() && known {
            return Err(ConsumerGroupError::InvalidRequest("the member has no or another group.instance.id"));
        }
        if !known && self.group.members.len() >= limits.max_members {
            return Err(ConsumerGroupError::GroupMaxSizeReached);
        }
        let was = before.map(|(id, _)| id.clone());
        // Whoever joins has given up whatever it had.
        let fresh = match before {
            Some((_, member)) => ConsumerMember {
                assigned: Partitions::default(),
                revoking: Partitions::default(),
                away: false,
                client_id: request.client_id.clone(),
                client_host: request.client_host.clone(),
                ..ConsumerMember::clone(member)
            },
            None => newcomer(request),
        };
        let next = updated(&Arc::new(fresh), request, limits)?;
        let same = before.is_some_and(|(_, member)| same_subscription(member, &next));
        self.put(request.member_id.clone(), next, limits)?;
        // A static member's successor has its place and its target.
        if let Some(was) = was.filter(|was| **was != *request.member_id) {
            self.group.members.remove(&was);
        }
        self.retarget |= !same;
        Ok(())
    }

    fn leave_for_now(&mut self, request: &HeartbeatRequest) -> Result<(), ConsumerGroupError> {
        let (id, member) = find_own(&self.group, request)?;
        if member.instance_id.is_none() {
            return Err(ConsumerGroupError::InvalidRequest(
                "leaving for a while (epoch -2) takes a group.instance.id",
            ));
        }
        let (id, away) = (id.clone(), ConsumerMember { away: true, ..ConsumerMember::clone(member) });
        self.group.members.insert(id, Arc::new(away));
        Ok(())
    }

    fn put(
        &mut self,
        id: Arc<str>,
        next: Arc<ConsumerMember>,
        limits: &ConsumerGroupLimits,
    ) -> Result<(), ConsumerGroupError> {
        let before = self.group.members.get(&id);
        if before.is_some_and(|before| Arc::ptr_eq(before, &next)) {
            return Ok(());
        }
        let size = bytes_of(&id, &next);
        if size > limits.max_member_bytes {
            return Err(ConsumerGroupError::InvalidRequest("the member's subscription is too large"));
        }
        let others: usize =
            self.group.members.iter().filter(|(other, _)| **other != id).map(|(id, m)| bytes_of(id, m)).sum();
        if others + size > limits.max_group_bytes {
            return Err(ConsumerGroupError::GroupMaxSizeReached);
        }
        self.retarget |= before.is_some_and(|before| !same_subscription(before, &next));
        self.group.members.insert(id, next);
        Ok(())
    }

    /// A new target, if one is needed: the group epoch goes up with it.
    pub fn retarget(&mut self, image: &Image, limits: &ConsumerGroupLimits) {
        if self.group.members.is_empty() && !self.retarget {
            return;
        }
        let (problem, hash) = resolve(&self.group, image);
        if !self.retarget && hash == self.group.topics_hash {
            return;
        }
        let epoch = self.group.epoch.0.checked_add(1).expect("two thousand million changes of a group");
        self.group.epoch = GroupEpoch(epoch);
        self.group.target_epoch = GroupEpoch(epoch);
        self.group.topics_hash = hash;
        let mut targets = preferred_assignor(&self.group, &limits.assignors).assign(&problem);
        for (id, member) in &mut self.group.members {
            let target = targets.remove(id).expect("an assignor leaves nobody out");
            if member.target != target {
                Arc::make_mut(member).target = target;
            }
        }
    }

    /// A step for each member that asked, with what it said that it has, and for those that are away.
    pub fn reconcile(&mut self, asked: &BTreeMap<Arc<str>, Option<Partitions>>) {
        let target_epoch = self.group.target_epoch;
        let behind = |id: &Arc<str>, m: &ConsumerMember| {
            if m.away {
                !m.assigned.is_subset(&m.target) || !m.revoking.is_empty()
            } else {
                asked.contains_key(id) && !m.is_at(target_epoch)
            }
        };
        let todo: Vec<Arc<str>> =
            self.group.members.iter().filter(|(id, m)| behind(id, m)).map(|(id, _)| id.clone()).collect();
        if todo.is_empty() {
            return;
        }
        let mut owners: BTreeMap<TopicPartition, Arc<str>> = BTreeMap::new();
        for (id, member) in &self.group.members {
            owners.extend(member.owned().map(|tp| (tp, id.clone())));
        }
        for id in todo {
            let member = &self.group.members[&id];
            let next = match asked.get(&id).filter(|_| !member.away) {
                Some(owned) => {
                    let taken = |tp: &TopicPartition| owners.get(tp).is_some_and(|owner| *owner != id);
                    reconcile::step(member, target_epoch, owned.as_ref(), taken)
                }
                None => reconcile::step_of_absent(member),
            };
            for tp in member.owned() {
                owners.remove(&tp);
            }
            owners.extend(next.owned().map(|tp| (tp, id.clone())));
            self.group.members.insert(id, next);
        }
    }

    /// What is to be proposed; `None` if the agreed state is that already.
    pub fn change_from(&self, agreed: Option<&ConsumerGroup>, now_ms: i64) -> Option<ConsumerGroupChange> {
        let unborn = ConsumerGroup::unborn();
        let before = agreed.unwrap_or(&unborn);
        if same_content(before, &self.group) {
            return None;
        }
        let gone = before.members.keys().filter(|id| !self.group.members.contains_key(*id));
        let changed =
            self.group.members.iter().filter(|(id, member)| before.members.get(*id) != Some(member));
        Some(ConsumerGroupChange {
            epoch: self.group.epoch,
            target_epoch: self.group.target_epoch,
            topics_hash: self.group.topics_hash,
            members: gone
                .map(|id| (id.clone(), None))
                .chain(changed.map(|(id, member)| (id.clone(), Some(member.clone()))))
                .collect(),
            changed_at_ms: now_ms,
        })
    }
}

/// All but version and time.
pub fn same_content(a: &ConsumerGroup, b: &ConsumerGroup) -> bool {
    a.epoch == b.epoch
        && a.target_epoch == b.target_epoch
        && a.topics_hash == b.topics_hash
        && a.members == b.members
}

/// What can be said about a request without knowing the group.
pub fn check(request: &HeartbeatRequest, limits: &ConsumerGroupLimits) -> Result<(), ConsumerGroupError> {
    let invalid = |why| Err(ConsumerGroupError::InvalidRequest(why));
    if request.member_id.is_empty() {
        return invalid("the member id is empty");
    }
    if request.instance_id.as_ref().is_some_and(|i| i.is_empty()) {
        return invalid("group.instance.id is empty");
    }
    if request.rack.as_ref().is_some_and(|rack| rack.is_empty()) {
        return invalid("the rack is empty");
    }
    match request.epoch {
        JOIN => {
            if request.rebalance_timeout_ms.is_none() {
                return invalid("the first request gives the rebalance time-out");
            }
            if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return invalid("whoever joins has no partitions");
            }
            if request.topics.is_none() && request.regex.is_none() {
                return invalid("the first request gives the subscription");
            }
        }
        LEAVE_FOR_NOW if request.instance_id.is_none() => {
            return invalid("leaving for a while (epoch -2) takes a group.instance.id");
        }
        epoch if epoch < LEAVE_FOR_NOW => return invalid("no such member epoch"),
        _ => {}
    }
    if let Some(name) = &request.assignor
        && !limits.assignors.iter().any(|assignor| assignor.name() == &**name)
    {
        let offered: Vec<_> = limits.assignors.iter().map(|a| a.name()).collect();
        return Err(ConsumerGroupError::UnsupportedAssignor(offered.join(", ")));
    }
    match &request.regex {
        Some(pattern) if pattern.len() > limits.max_regex_bytes => {
            Err(ConsumerGroupError::InvalidRegularExpression("it is too long".to_owned()))
        }
        _ => Ok(()),
    }
}

/// The member that a request at an epoch comes from, if the epoch fits.
pub fn check_epoch<'a>(
    group: &'a ConsumerGroup,
    request: &HeartbeatRequest,
) -> Result<&'a Arc<ConsumerMember>, ConsumerGroupError> {
    let (_, member) = find_own(group, request)?;
    if request.epoch > member.epoch.0 && !member.away {
        // It knows more than we do: our image is behind.
        return Err(ConsumerGroupError::NotCoordinator);
    }
    let current = request.epoch == member.epoch.0;
    // The answer that told it the current epoch may have been lost. What it has must fit to that.
    let previous = request.epoch == member.previous_epoch.0
        && request.owned.as_ref().is_some_and(|owned| owned.is_subset(&member.assigned));
    if member.away || !(current || previous) {
        return Err(ConsumerGroupError::FencedMemberEpoch);
    }
    Ok(member)
}

fn find_own<'a>(
    group: &'a ConsumerGroup,
    request: &HeartbeatRequest,
) -> Result<(&'a Arc<str>, &'a Arc<ConsumerMember>), ConsumerGroupError> {
    if let Some(instance) = &request.instance_id {
        let (id, member) = of_instance(group, instance).ok_or(ConsumerGroupError::UnknownMemberId)?;
        return if **id == *request.member_id {
            Ok((id, member))
        } else {
            Err(ConsumerGroupError::FencedInstanceId)
        };
    }
    group.members.get_key_value(&request.member_id).ok_or(ConsumerGroupError::UnknownMemberId)
}

fn of_instance<'a>(
    group: &'a ConsumerGroup,
    instance: &str,
) -> Option<(&'a Arc<str>, &'a Arc<ConsumerMember>)> {
    group.members.iter().find(|(_, m)| m.instance_id.as_deref() == Some(instance))
}

fn newcomer(request: &HeartbeatRequest) -> ConsumerMember {
    ConsumerMember {
        instance_id: request.instance_id.clone(),
        rack: None,
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        topics: Default::default(),
        regex: None,
        assignor: None,
        rebalance_timeout_ms: 0,
        away: false,
        epoch: GroupEpoch(0),
        previous_epoch: GroupEpoch(0),
        assigned: Partitions::default(),
        revoking: Partitions::default(),
        target: Partitions::default(),
    }
}

/// The member with what the request says of it; the same one if that is nothing new.
pub fn updated(
    member: &Arc<ConsumerMember>,
    request: &HeartbeatRequest,
    limits: &ConsumerGroupLimits,
) -> Result<Arc<ConsumerMember>, ConsumerGroupError> {
    let mut next = ConsumerMember::clone(member);
    if let Some(rack) = &request.rack {
        next.rack = Some(rack.clone());
    }
    if let Some(timeout) = request.rebalance_timeout_ms {
        next.rebalance_timeout_ms = timeout.min(limits.rebalance_timeout_max_ms);
    }
    if let Some(topics) = &request.topics {
        next.topics = topics.clone();
    }
    if let Some(regex) = &request.regex {
        next.regex = (!regex.is_empty()).then(|| regex.clone());
    }
    if let Some(assignor) = &request.assignor {
        next.assignor = Some(assignor.clone());
    }
    if let Some(pattern) = next.regex.as_ref().filter(|_| next.regex != member.regex) {
        compile(pattern)?;
    }
    Ok(if next == **member { member.clone() } else { Arc::new(next) })
}

fn same_subscription(a: &ConsumerMember, b: &ConsumerMember) -> bool {
    a.topics == b.topics && a.regex == b.regex && a.assignor == b.assignor && a.rack == b.rack
}

fn bytes_of(id: &str, member: &ConsumerMember) -> usize {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
    id.len()
        + member.client_id.len()
        + member.client_host.len()
        + text(&member.instance_id)
        + text(&member.rack)
        + text(&member.regex)
        + text(&member.assignor)
        + member.topics.iter().map(|topic| topic.len()).sum::<usize>()
}
