//! The state of one group at its coordinator, and what all its events share.
//!
//! Invariants:
//! * every id in `instances` is a member with that instance id, and every static member is in there;
//! * in Completing and Stable, `members` are exactly the agreed generation's;
//! * whoever waits for JoinGroup or SyncGroup is a member, or is about to replace one (`replacing`).

use super::types::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::{Command, Group, GroupMember};
use strandline_record::Generation;

pub struct GroupState {
    pub(super) name: Arc<str>,
    pub(super) limits: GroupLimits,
    /// The group as the image last showed it.
    pub(super) agreed: Option<Arc<Group>>,
    /// Highest generation ever seen agreed, which outlives the group's deletion here.
    pub(super) highest: Generation,
    pub(super) phase: Phase,
    /// Kafka's `consumer`, as the first member said.
    pub(super) protocol_type: Arc<str>,
    /// By member id.
    pub(super) members: BTreeMap<Arc<str>, Member>,
    /// Static members: `group.instance.id` → member id.
    pub(super) instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids handed out with MEMBER_ID_REQUIRED and when they lapse.
    pub(super) pending_ids: BTreeMap<Arc<str>, u64>,
    /// Static members of a Stable group coming back under a new id, by their old id. Entered when
    /// `ReplaceMember` is proposed.
    pub(super) replacing: BTreeMap<Arc<str>, Replacement>,
    /// The leader's assignments, proposed with `PutAssignment` (Completing only).
    pub(super) assigning: Option<Assigning>,
    next_member_seq: u64,
    next_proposal: u64,
    effects: Vec<Effect>,
    /// Not later than the next moment at which `tick` has something to do.
    deadline: Option<u64>,
}

pub(super) enum Phase {
    /// No members, here or agreed.
    Empty,
    /// Members join. The agreed generation is still current: its members may heartbeat and commit.
    Preparing { deadline: u64, initial: Option<InitialDelay> },
    /// The next generation is proposed; it is what joined until then. Joins that come now wait for it,
    /// and start another rebalance after it if they are not covered by it.
    Agreeing { next: Arc<Group>, proposal: ProposalId, retry_at: u64 },
    /// The generation is agreed, its assignments are not. By the deadline each member must have synced.
    Completing { sync_deadline: u64 },
    /// Assigned. Members that have not asked for their assignment by the deadline are removed.
    Stable { sync_deadline: Option<u64> },
}

/// The first rebalance of an empty group waits a little for others to come.
pub(super) struct InitialDelay {
    /// The waiting ends here even if members keep coming.
    pub hard_deadline: u64,
    pub came_since: bool,
}

pub(super) struct Member {
    /// Order of arrival; the leader is the first.
    pub seq: u64,
    /// What will be agreed; its assignment is not kept here (always empty).
    pub info: GroupMember,
    pub session_deadline: u64,
    /// The client knows its member id. A dynamic member that does not, and gives up, is a ghost.
    pub knows_id: bool,
    /// Has joined the rebalance under way (Preparing, Agreeing), waiting or not.
    pub joined: bool,
    pub join: Option<JoinWait>,
    pub sync: Option<ReplyId>,
    /// Has asked for this generation's assignment.
    pub synced: bool,
}

#[derive(Clone, Copy)]
pub(super) struct JoinWait {
    pub reply: ReplyId,
    pub can_skip_assignment: bool,
}

pub(super) struct Replacement {
    pub to: Arc<str>,
    pub info: GroupMember,
    pub wait: Option<JoinWait>,
    pub proposal: ProposalId,
    pub retry_at: u64,
}

pub(super) struct Assigning {
    pub assignments: BTreeMap<Arc<str>, Arc<[u8]>>,
    pub proposal: ProposalId,
    pub retry_at: u64,
}

impl Member {
    /// A client that waits for an answer is alive as far as anyone can tell.
    pub fn waits(&self) -> bool {
        self.join.is_some() || self.sync.is_some()
    }

    pub fn is_static(&self) -> bool {
        self.info.instance_id.is_some()
    }

    pub fn extend_session(&mut self, now: Now) {
        self.session_deadline = now.mono_ms + u64::from(self.info.session_timeout_ms);
    }
}

impl GroupState {
    /// The coordinator's state for a group as the image shows it. Members get full session time-outs:
    /// failover alone is no reason to rebalance.
    pub fn adopt(name: Arc<str>, agreed: Option<Arc<Group>>, limits: GroupLimits, now: Now) -> Self {
        let mut state = Self {
            name,
            limits,
            agreed: None,
            highest: Generation(0),
            phase: Phase::Empty,
            protocol_type: Arc::from(""),
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending_ids: BTreeMap::new(),
            replacing: BTreeMap::new(),
            assigning: None,
            next_member_seq: 0,
            next_proposal: 0,
            effects: Vec::new(),
            deadline: None,
        };
        state.adopt_agreed(agreed, now);
        state.recompute_deadline();
        state
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// When [`Self::tick`] is due (`Now::mono_ms`). May be early, never late.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Nothing is remembered here that the image does not know: the state may be dropped and adopted
    /// again when the group is next asked for.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Empty) && self.pending_ids.is_empty()
    }

    /// The broker is not the coordinator any more: everybody who waits is sent away to ask again.
    pub fn unload(mut self) -> Vec<Effect> {
        self.refuse_all(&GroupError::NotCoordinator);
        std::mem::take(&mut self.effects)
    }

    /// Whether the group may be deleted, or its offsets be set from outside; `apply` decides.
    pub fn check_empty(&self) -> Result<(), GroupPhase> {
        match self.kafka_phase() {
            GroupPhase::Empty | GroupPhase::Dead => Ok(()),
            other => Err(other),
        }
    }

    pub fn kafka_phase(&self) -> GroupPhase {
        match &self.phase {
            Phase::Empty if self.agreed.is_none() => GroupPhase::Dead,
            Phase::Empty => GroupPhase::Empty,
            Phase::Agreeing { next, .. } if next.members.is_empty() && self.members.is_empty() => {
                GroupPhase::Empty
            }
            Phase::Preparing { .. } | Phase::Agreeing { .. } => GroupPhase::PreparingRebalance,
            Phase::Completing { .. } => GroupPhase::CompletingRebalance,
            Phase::Stable { .. } => GroupPhase::Stable,
        }
    }

    pub fn describe(&self) -> GroupDescription {
        let agreed = self.agreed.as_deref();
        let protocol = agreed.map(|g| g.protocol.clone()).unwrap_or_default();
        let members = self
            .members
            .iter()
            .map(|(id, member)| {
                let part = agreed.and_then(|g| g.members.get(id));
                MemberDescription {
                    member_id: id.clone(),
                    instance_id: member.info.instance_id.clone(),
                    client_id: member.info.client_id.clone(),
                    client_host: member.info.client_host.clone(),
                    metadata: part.and_then(|m| metadata_for(m, &protocol)).unwrap_or_default(),
                    assignment: part.map(|m| m.assignment.clone()).unwrap_or_default(),
                }
            })
            .collect();
        GroupDescription {
            phase: self.kafka_phase(),
            generation: self.generation(),
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader: agreed.and_then(|g| g.leader.clone()),
            members,
        }
    }

    /// The agreed generation; 0 before the first.
    pub(super) fn generation(&self) -> Generation {
        self.agreed.as_ref().map_or(Generation(0), |g| g.generation)
    }

    /// `members` and `phase` as agreed; everything else forgotten. Nobody may be waiting.
    pub(super) fn adopt_agreed(&mut self, agreed: Option<Arc<Group>>, now: Now) {
        assert!(!self.members.values().any(Member::waits), "whoever waits must be answered first");
        self.members.clear();
        self.instances.clear();
        self.replacing.clear();
        self.assigning = None;
        self.set_agreed(agreed);
        let Some(group) = self.agreed.clone() else {
            self.phase = Phase::Empty;
            return;
        };
        self.protocol_type = group.protocol_type.clone();
        for (id, info) in &group.members {
            self.add_member(id.clone(), info.clone(), true, now);
            self.members.get_mut(id).expect("just added").synced = group.assigned;
        }
        self.phase = if group.members.is_empty() {
            Phase::Empty
        } else if group.assigned {
            Phase::Stable { sync_deadline: None }
        } else {
            Phase::Completing { sync_deadline: now.mono_ms + self.rebalance_timeout_ms() }
        };
    }

    pub(super) fn set_agreed(&mut self, agreed: Option<Arc<Group>>) {
        self.agreed = agreed;
        self.highest = self.highest.max(self.generation());
    }

    pub(super) fn add_member(&mut self, id: Arc<str>, mut info: GroupMember, knows_id: bool, now: Now) {
        info.assignment = Arc::default();
        if let Some(instance) = &info.instance_id {
            let before = self.instances.insert(instance.clone(), id.clone());
            assert!(before.is_none(), "an instance id belongs to one member");
        }
        let session_deadline = now.mono_ms + u64::from(info.session_timeout_ms);
        let member = Member {
            seq: self.next_member_seq,
            info,
            session_deadline,
            knows_id,
            joined: false,
            join: None,
            sync: None,
            synced: false,
        };
        self.next_member_seq += 1;
        let before = self.members.insert(id, member);
        assert!(before.is_none(), "a member is added once");
    }

    /// Takes a member out and answers what it waits for. The caller starts the rebalance.
    pub(super) fn remove_member(&mut self, id: &Arc<str>, error: GroupError) {
        if let Some(Replacement { wait: Some(wait), .. }) = self.replacing.remove(id) {
            self.refuse(wait.reply, error.clone());
        }
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.info.instance_id {
            let mapped = self.instances.remove(instance);
            assert_eq!(mapped.as_ref(), Some(id), "an instance id belongs to its member");
        }
        self.refuse_waits(&member, &error);
    }

    /// A static member goes on under another id, here only. Keeps its order of arrival.
    pub(super) fn rename_member(&mut self, from: &Arc<str>, to: &Arc<str>, mut info: GroupMember, now: Now) {
        let mut member = self.members.remove(from).expect("the replaced member is a member");
        let instance = info.instance_id.clone().expect("only static members are replaced");
        assert_eq!(member.info.instance_id.as_ref(), Some(&instance), "one instance is replaced by itself");
        self.refuse_waits(&member, &GroupError::FencedInstanceId);
        info.assignment = Arc::default();
        member.info = info;
        member.join = None;
        member.sync = None;
        member.knows_id = true;
        member.extend_session(now);
        self.instances.insert(instance, to.clone());
        let before = self.members.insert(to.clone(), member);
        assert!(before.is_none(), "the new member id is fresh");
    }

    fn refuse_waits(&mut self, member: &Member, error: &GroupError) {
        for reply in member.join.map(|w| w.reply).into_iter().chain(member.sync) {
            self.refuse(reply, error.clone());
        }
    }

    /// Answers everybody who waits with `error`.
    pub(super) fn refuse_all(&mut self, error: &GroupError) {
        let mut replies = Vec::new();
        for member in self.members.values_mut() {
            replies.extend(member.join.take().map(|w| w.reply));
            replies.extend(member.sync.take());
        }
        replies.extend(self.replacing.values_mut().filter_map(|r| r.wait.take()).map(|w| w.reply));
        for reply in replies {
            self.refuse(reply, error.clone());
        }
    }

    /// The member behind an id, told apart from one that another has replaced (KIP-345).
    pub(super) fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if **current != *id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// Its session ends if nothing is heard of it. A static member that is being replaced is back already.
    pub(super) fn can_expire(&self, id: &Arc<str>, member: &Member) -> bool {
        !member.waits() && !self.replacing.contains_key(id)
    }

    /// A rebalance waits as long as its slowest member may take.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        self.members.values().map(|m| u64::from(m.info.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    pub(super) fn reply(&mut self, id: ReplyId, answer: Answer) {
        self.effects.push(Effect::Reply { id, answer });
    }

    pub(super) fn refuse(&mut self, id: ReplyId, error: GroupError) {
        self.reply(id, Answer::Error(error));
    }

    pub(super) fn propose(&mut self, command: Command) -> ProposalId {
        let id = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        self.effects.push(Effect::Propose { id, command });
        id
    }

    pub(super) fn retry_at(&self, now: Now) -> u64 {
        now.mono_ms + u64::from(self.limits.propose_retry_ms)
    }

    /// Ends an event.
    pub(super) fn finish(&mut self) -> Vec<Effect> {
        self.recompute_deadline();
        self.check_invariants();
        std::mem::take(&mut self.effects)
    }

    fn check_invariants(&self) {
        assert!(
            self.instances.iter().all(|(instance, id)| self.members.get(id).is_some_and(|m| m
                .info
                .instance_id
                .as_ref()
                == Some(instance))),
            "static members and their instance ids agree"
        );
        match &self.phase {
            Phase::Completing { .. } | Phase::Stable { .. } => {
                let agreed = self.agreed.as_ref().expect("a generation with members is agreed");
                assert!(
                    agreed.members.keys().eq(self.members.keys()),
                    "the members are those of the agreed generation"
                );
                assert_eq!(agreed.assigned, matches!(self.phase, Phase::Stable { .. }));
            }
            Phase::Empty => assert!(self.members.is_empty(), "an empty group has no members"),
            Phase::Preparing { .. } | Phase::Agreeing { .. } => {}
        }
    }

    fn recompute_deadline(&mut self) {
        let phase = match &self.phase {
            Phase::Empty => None,
            Phase::Preparing { deadline, .. } => Some(*deadline),
            Phase::Agreeing { retry_at, .. } => Some(*retry_at),
            Phase::Completing { sync_deadline } => Some(*sync_deadline),
            Phase::Stable { sync_deadline } => *sync_deadline,
        };
        self.deadline = phase
            .into_iter()
            .chain(
                self.members.iter().filter(|(id, m)| self.can_expire(id, m)).map(|(_, m)| m.session_deadline),
            )
            .chain(self.pending_ids.values().copied())
            .chain(self.replacing.values().map(|r| r.retry_at))
            .chain(self.assigning.iter().map(|a| a.retry_at))
            .min();
    }
}

/// The member's metadata for one protocol.
pub(super) fn metadata_for(member: &GroupMember, protocol: &str) -> Option<Arc<[u8]>> {
    member.protocols.iter().find(|(name, _)| **name == *protocol).map(|(_, metadata)| metadata.clone())
}
