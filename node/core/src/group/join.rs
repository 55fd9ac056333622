//! JoinGroup: who becomes a member, and when that takes a rebalance.

use super::state::{GroupState, InitialDelay, JoinWait, Member, Phase, Replacement, metadata_for};
use super::types::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::{Command, Group, GroupMember};

impl GroupState {
    /// JoinGroup. The answer may come with a later event, once the next generation is agreed.
    pub fn join(&mut self, request: JoinRequest, reply: ReplyId, now: Now) -> Vec<Effect> {
        if let Err(error) = self.try_join(request, reply, now) {
            self.refuse(reply, error);
        }
        self.finish()
    }

    fn try_join(&mut self, request: JoinRequest, reply: ReplyId, now: Now) -> Result<(), GroupError> {
        self.check_join(&request)?;
        let wait = JoinWait { reply, can_skip_assignment: request.can_skip_assignment };
        let info = self.member_info(&request);
        if request.member_id.is_empty() {
            if let Some(instance) = &request.instance_id {
                if let Some(old) = self.instances.get(instance).cloned() {
                    self.check_space(Some(&old), &info)?;
                    self.replace_static(old, request.fresh_id, info, wait, now);
                    return Ok(());
                }
            } else if request.require_known_member_id {
                self.check_space(None, &info)?;
                self.pending_ids
                    .insert(request.fresh_id.clone(), now.mono_ms + u64::from(request.session_timeout_ms));
                return Err(GroupError::MemberIdRequired { member_id: request.fresh_id });
            }
            self.check_space(None, &info)?;
            self.join_new(request.fresh_id, info, request.protocol_type, false, wait, now);
            return Ok(());
        }
        if request.instance_id.is_none() && self.pending_ids.contains_key(&request.member_id) {
            self.check_space(Some(&request.member_id), &info)?;
            self.pending_ids.remove(&request.member_id);
            self.join_new(request.member_id, info, request.protocol_type, true, wait, now);
            return Ok(());
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        self.check_space(Some(&request.member_id), &info)?;
        self.rejoin(request.member_id, info, wait, now);
        Ok(())
    }

    fn check_join(&self, request: &JoinRequest) -> Result<(), GroupError> {
        let limits = &self.limits;
        let sessions = limits.session_timeout_min_ms..=limits.session_timeout_max_ms;
        if !sessions.contains(&request.session_timeout_ms) {
            let (min_ms, max_ms) = sessions.into_inner();
            return Err(GroupError::InvalidSessionTimeout { min_ms, max_ms });
        }
        if request.protocols.len() > limits.max_protocols {
            return Err(GroupError::InvalidRequest("too many protocols"));
        }
        if request.instance_id.as_ref().is_some_and(|i| i.is_empty()) {
            return Err(GroupError::InvalidRequest("group.instance.id is empty"));
        }
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if !self.members.is_empty() {
            // The member's own earlier protocols count as well, as in Kafka: a member cannot take away by
            // itself what the others rely on.
            let shared = self.shared_protocols();
            let fits = request.protocols.iter().any(|(name, _)| shared.contains_key(name));
            if request.protocol_type != self.protocol_type || !fits {
                return Err(GroupError::InconsistentGroupProtocol);
            }
        }
        Ok(())
    }

    /// Room for one more member, or for `replaced` with other data.
    fn check_space(&self, replaced: Option<&Arc<str>>, info: &GroupMember) -> Result<(), GroupError> {
        let limits = &self.limits;
        let size = member_bytes(info);
        if size > limits.max_member_bytes {
            return Err(GroupError::InvalidRequest("the member's metadata is too large"));
        }
        let others = self.members.iter().filter(|(id, _)| replaced != Some(id));
        let bytes: usize = others.map(|(_, m)| member_bytes(&m.info)).sum();
        if bytes + size > limits.max_group_bytes {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let known =
            replaced.is_some_and(|id| self.members.contains_key(id) || self.pending_ids.contains_key(id));
        if !known && self.members.len() + self.pending_ids.len() >= limits.max_members {
            return Err(GroupError::GroupMaxSizeReached);
        }
        Ok(())
    }

    fn member_info(&self, request: &JoinRequest) -> GroupMember {
        GroupMember {
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: request.session_timeout_ms,
            // 0: not given (JoinGroup 0 has no such field), then as Kafka does.
            rebalance_timeout_ms: match request.rebalance_timeout_ms {
                0 => request.session_timeout_ms,
                given => given.min(self.limits.rebalance_timeout_max_ms),
            },
            protocols: request.protocols.clone(),
            assignment: Arc::default(),
        }
    }

    fn join_new(
        &mut self,
        id: Arc<str>,
        info: GroupMember,
        protocol_type: Arc<str>,
        knows_id: bool,
        wait: JoinWait,
        now: Now,
    ) {
        if self.members.is_empty() {
            self.protocol_type = protocol_type;
        }
        self.add_member(id.clone(), info, knows_id, now);
        self.wait_for_join(&id, wait);
        if let Phase::Preparing { initial: Some(initial), .. } = &mut self.phase {
            initial.came_since = true;
        }
        self.rebalance(now);
    }

    /// A member that the coordinator knows joins again.
    fn rejoin(&mut self, id: Arc<str>, info: GroupMember, wait: JoinWait, now: Now) {
        let is_leader = self.agreed.as_ref().is_some_and(|g| g.leader.as_ref() == Some(&id));
        let member = self.members.get_mut(&id).expect("checked above");
        let same = member.info.protocols == info.protocols;
        // What is agreed of this member stays as it is until the next generation; the time-outs count now.
        member.info = info;
        member.knows_id = true;
        member.extend_session(now);
        let rebalance = match &self.phase {
            Phase::Empty => unreachable!("an empty group has no members"),
            Phase::Preparing { .. } | Phase::Agreeing { .. } => true,
            // The answer got lost, or the coordinator changed.
            Phase::Completing { .. } => !same,
            // A leader joins again when it wants another assignment, e.g. because topics changed.
            Phase::Stable { .. } => !same || is_leader,
        };
        if rebalance {
            self.wait_for_join(&id, wait);
            self.rebalance(now);
        } else {
            let member = self.members.get_mut(&id).expect("checked above");
            member.synced = false;
            if let Phase::Stable { sync_deadline } = &mut self.phase {
                let own = now.mono_ms + u64::from(member.info.rebalance_timeout_ms);
                *sync_deadline = Some(sync_deadline.map_or(own, |d| d.max(own)));
            }
            let answer = self.join_answer(&id, wait, None);
            self.reply(wait.reply, answer);
        }
    }

    /// A static member comes back without its member id, as after a restart (KIP-345).
    fn replace_static(&mut self, old: Arc<str>, to: Arc<str>, info: GroupMember, wait: JoinWait, now: Now) {
        if let Some(Replacement { wait: Some(earlier), .. }) = self.replacing.remove(&old) {
            self.refuse(earlier.reply, GroupError::FencedInstanceId);
        }
        let quiet = match (&self.phase, &self.agreed) {
            (Phase::Stable { .. }, Some(agreed)) => {
                let before = &self.members[&old].info;
                let same_topics = topics_of(before, &agreed.protocol) == topics_of(&info, &agreed.protocol);
                same_topics && self.select_protocol(Some((&old, &info))) == Some(agreed.protocol.clone())
            }
            _ => false,
        };
        if !quiet {
            self.rename_member(&old, &to, info, now);
            self.wait_for_join(&to, wait);
            self.rebalance(now);
            return;
        }
        self.propose_replacement(old, to, info, Some(wait), now);
    }

    pub(super) fn propose_replacement(
        &mut self,
        from: Arc<str>,
        to: Arc<str>,
        info: GroupMember,
        wait: Option<JoinWait>,
        now: Now,
    ) {
        let proposal = self.propose(Command::ReplaceMember {
            group: self.name.clone(),
            generation: self.generation(),
            from: from.clone(),
            to: to.clone(),
            member: info.clone(),
        });
        let retry_at = self.retry_at(now);
        self.replacing.insert(from, Replacement { to, info, wait, proposal, retry_at });
    }

    /// The member waits for the next generation. An earlier request of it is given up.
    fn wait_for_join(&mut self, id: &Arc<str>, wait: JoinWait) {
        let member = self.members.get_mut(id).expect("whoever waits is a member");
        member.joined = true;
        let earlier = member.join.replace(wait);
        if let Some(earlier) = earlier {
            self.refuse(earlier.reply, GroupError::RebalanceInProgress);
        }
    }

    /// A reason for a rebalance came up: starts one, or lets the one under way go on.
    pub(super) fn rebalance(&mut self, now: Now) {
        match &self.phase {
            // What is proposed cannot be taken back; the members are compared when its fate is known.
            Phase::Agreeing { .. } => return,
            Phase::Preparing { .. } => {}
            Phase::Empty | Phase::Completing { .. } | Phase::Stable { .. } => self.prepare(now),
        }
        self.try_complete_join(now);
    }

    fn prepare(&mut self, now: Now) {
        for (from, replacement) in std::mem::take(&mut self.replacing) {
            // The command may apply or not; in the next generation the new one takes part in any case.
            self.rename_member(&from, &replacement.to, replacement.info, now);
            self.members.get_mut(&replacement.to).expect("just renamed").join = replacement.wait;
        }
        self.assigning = None;
        let mut refused = Vec::new();
        for member in self.members.values_mut() {
            member.joined = member.join.is_some();
            if let Some(reply) = member.sync.take() {
                refused.push(reply);
                // Whoever waited counted as alive until now.
                member.extend_session(now);
            }
        }
        for reply in refused {
            self.refuse(reply, GroupError::RebalanceInProgress);
        }
        let whole = now.mono_ms + self.rebalance_timeout_ms();
        let delay = u64::from(self.limits.initial_rebalance_delay_ms);
        self.phase = if matches!(self.phase, Phase::Empty) && delay > 0 {
            let initial = InitialDelay { hard_deadline: whole, came_since: false };
            Phase::Preparing { deadline: whole.min(now.mono_ms + delay), initial: Some(initial) }
        } else {
            Phase::Preparing { deadline: whole, initial: None }
        };
    }

    /// Completes the join phase if nobody is missing.
    pub(super) fn try_complete_join(&mut self, now: Now) {
        let Phase::Preparing { initial, .. } = &self.phase else { return };
        if self.members.is_empty() {
            self.become_empty(now);
        } else if initial.is_none() && self.pending_ids.is_empty() && self.members.values().all(|m| m.joined)
        {
            self.complete_join(now);
        }
    }

    /// The deadline of Preparing has come.
    pub(super) fn join_deadline(&mut self, now: Now) {
        let delay = u64::from(self.limits.initial_rebalance_delay_ms);
        if let Phase::Preparing { deadline, initial: Some(initial) } = &mut self.phase
            && initial.came_since
            && *deadline < initial.hard_deadline
        {
            initial.came_since = false;
            *deadline = initial.hard_deadline.min(now.mono_ms + delay);
            return;
        }
        self.complete_join(now);
    }

    fn complete_join(&mut self, now: Now) {
        // Static members may stay away until their session ends.
        let missing: Vec<_> = self
            .members
            .iter()
            .filter(|(_, m)| !m.joined && !m.is_static())
            .map(|(id, _)| id.clone())
            .collect();
        for id in missing {
            self.remove_member(&id, GroupError::UnknownMemberId);
        }
        if self.members.is_empty() {
            return self.become_empty(now);
        }
        let Some(leader) = self.elect_leader() else {
            // Nobody is there to assign: wait until someone joins, or all sessions end.
            let deadline = now.mono_ms + self.rebalance_timeout_ms().max(1);
            self.phase = Phase::Preparing { deadline, initial: None };
            return;
        };
        let Some(protocol) = self.select_protocol(None) else {
            // Each join is checked against the others, so this takes a member that came in through another
            // coordinator. Those who join again are checked against it.
            let agreed = self.agreed.clone();
            return self.give_way(agreed.as_ref(), GroupError::RebalanceInProgress, now);
        };
        let members = self.members.iter().map(|(id, m)| (id.clone(), m.info.clone())).collect();
        self.propose_generation(protocol, Some(leader), members, now);
    }

    /// The last member is gone; that too is a generation, so that offsets may be set from outside.
    fn become_empty(&mut self, now: Now) {
        assert!(self.members.is_empty());
        if self.agreed.as_ref().is_some_and(|g| !g.members.is_empty()) {
            self.propose_generation(Arc::from(""), None, BTreeMap::new(), now);
        } else {
            self.phase = Phase::Empty;
        }
    }

    fn elect_leader(&self) -> Option<Arc<str>> {
        let before = self.agreed.as_ref().and_then(|g| g.leader.as_ref());
        let joined = || self.members.iter().filter(|(_, m)| m.joined);
        joined()
            .find(|(id, _)| Some(*id) == before)
            .or_else(|| joined().min_by_key(|(_, m)| m.seq))
            .map(|(id, _)| id.clone())
    }

    /// Protocols that every member knows, also those who are about to replace one.
    fn shared_protocols(&self) -> BTreeMap<Arc<str>, u32> {
        let coming = self.replacing.values().map(|r| &r.info);
        shared(self.members.values().map(|m| &m.info).chain(coming))
    }

    /// Each member votes for the first of its protocols that all know; of equally many votes the name
    /// that sorts first wins. `instead` stands for a member that comes back with other protocols.
    fn select_protocol(&self, instead: Option<(&Arc<str>, &GroupMember)>) -> Option<Arc<str>> {
        let infos: Vec<&GroupMember> = self
            .members
            .iter()
            .map(|(id, m)| match instead {
                Some((replaced, info)) if replaced == id => info,
                _ => &m.info,
            })
            .collect();
        let mut votes = shared(infos.iter().copied());
        for info in &infos {
            if let Some((name, _)) = info.protocols.iter().find(|(name, _)| votes.contains_key(name)) {
                *votes.get_mut(name).expect("found above") += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(name, count)| (*count, std::cmp::Reverse(name.clone())))
            .map(|(n, _)| n)
    }

    /// What a member of the agreed generation is told. `was`: the id of the member that it replaced.
    pub(super) fn join_answer(&self, id: &Arc<str>, wait: JoinWait, was: Option<&Arc<str>>) -> Answer {
        let agreed = self.agreed.as_ref().expect("only agreed generations are told");
        let leads = agreed.leader.as_ref() == Some(id);
        let leader = agreed.leader.clone().unwrap_or_default();
        // A leader that came back without a rebalance must not assign. Versions that cannot be told so
        // (KIP-814) hear that the member which it replaced leads.
        let (leader, skip_assignment) = match was {
            Some(was) if leads && !wait.can_skip_assignment => (was.clone(), false),
            Some(_) => (leader, leads),
            None => (leader, false),
        };
        let members = if leader == *id { joined_members(agreed) } else { Vec::new() };
        Answer::Join(JoinAnswer {
            generation: agreed.generation,
            protocol_type: agreed.protocol_type.clone(),
            protocol: agreed.protocol.clone(),
            leader,
            member_id: id.clone(),
            members,
            skip_assignment,
        })
    }
}

fn joined_members(group: &Group) -> Vec<JoinedMember> {
    group
        .members
        .iter()
        .map(|(id, member)| JoinedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: metadata_for(member, &group.protocol).unwrap_or_default(),
        })
        .collect()
}

/// Protocols that all of `members` know, each with no votes yet.
fn shared<'a>(members: impl Iterator<Item = &'a GroupMember>) -> BTreeMap<Arc<str>, u32> {
    let mut shared: Option<BTreeMap<Arc<str>, u32>> = None;
    for member in members {
        match &mut shared {
            None => shared = Some(member.protocols.iter().map(|(name, _)| (name.clone(), 0)).collect()),
            Some(shared) => shared.retain(|name, _| member.protocols.iter().any(|(n, _)| n == name)),
        }
    }
    shared.unwrap_or_default()
}

fn member_bytes(info: &GroupMember) -> usize {
    let protocols: usize = info.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum();
    protocols
        + info.client_id.len()
        + info.client_host.len()
        + info.instance_id.as_ref().map_or(0, |i| i.len())
}

/// The part of a ConsumerProtocolSubscription that names the topics: version (2 bytes), count (4), then a
/// length (2) and the name for each. The whole metadata where it does not read like one. What follows
/// (owned partitions, generation) changes at each restart and is no reason for a rebalance.
fn topics_of<'a>(info: &'a GroupMember, protocol: &str) -> Option<&'a [u8]> {
    let metadata: &[u8] = info.protocols.iter().find(|(name, _)| **name == *protocol).map(|(_, m)| &**m)?;
    let topics = || {
        let count = u32::from_be_bytes(metadata.get(2..6)?.try_into().ok()?);
        let mut end = 6;
        for _ in 0..count {
            let len = u16::from_be_bytes(metadata.get(end..end + 2)?.try_into().ok()?);
            end += 2 + usize::from(len);
        }
        metadata.get(2..end)
    };
    Some(topics().unwrap_or(metadata))
}

impl Member {
    /// The generation covers what the member last joined with.
    pub(super) fn is_covered_by(&self, group: &Group, id: &Arc<str>) -> bool {
        group.members.get(id).is_some_and(|m| m.protocols == self.info.protocols)
    }
}
