//! A group, its coordinators and the agreed state, for the tests of `core::group`: the real
//! `machine::apply` under coordinators that see its images when the test says so.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_core::group::*;
use strandline_metadata::command::tp;
use strandline_metadata::{Command, CommittedOffset, Delta, Group, Image, Rejection, Response, machine};
use strandline_record::{Generation, Offset, TopicId};
use uuid::Uuid;

pub const GROUP: &str = "g";

pub struct Proposal {
    /// Which coordinator made it.
    pub from: usize,
    pub id: ProposalId,
    pub command: Command,
}

pub struct World {
    pub image: Image,
    pub now_ms: u64,
    pub limits: GroupLimits,
    pub coordinators: Vec<GroupState>,
    /// On their way to Raft.
    pub proposals: Vec<Proposal>,
    /// Answers that nobody has looked at yet.
    pub answers: BTreeMap<ReplyId, Answer>,
    /// Every answer ever given, in order.
    pub log: Vec<(ReplyId, Answer)>,
    answered: BTreeSet<ReplyId>,
    next_reply: u64,
    next_member: u64,
}

impl World {
    pub fn new() -> Self {
        let mut image = Image::default();
        let form = Command::FormCluster { cluster_id: Uuid::from_u128(1), now_ms: 0 };
        assert_eq!(machine::apply(&mut image, 1, &form, &mut Delta::default()), Response::Done);
        let mut world = Self {
            image,
            now_ms: 1_000,
            limits: GroupLimits::default(),
            coordinators: Vec::new(),
            proposals: Vec::new(),
            answers: BTreeMap::new(),
            log: Vec::new(),
            answered: BTreeSet::new(),
            next_reply: 0,
            next_member: 0,
        };
        world.adopt();
        world
    }

    pub fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: 1_700_000_000_000 + self.now_ms as i64 }
    }

    pub fn agreed(&self) -> Option<&Arc<Group>> {
        self.image.groups.get(GROUP)
    }

    /// Another coordinator takes up the group as the image shows it now. Returns its place.
    pub fn adopt(&mut self) -> usize {
        let state = GroupState::adopt(GROUP.into(), self.agreed().cloned(), self.limits, self.now());
        self.coordinators.push(state);
        self.coordinators.len() - 1
    }

    pub fn carry_out(&mut self, from: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { id, answer } => {
                    assert!(self.answered.insert(id), "a request is answered once");
                    self.log.push((id, answer.clone()));
                    self.answers.insert(id, answer);
                }
                Effect::Propose { id, command } => self.proposals.push(Proposal { from, id, command }),
            }
        }
    }

    pub fn reply_id(&mut self) -> ReplyId {
        self.next_reply += 1;
        ReplyId(self.next_reply)
    }

    pub fn fresh_id(&mut self) -> Arc<str> {
        self.next_member += 1;
        format!("m{}", self.next_member).into()
    }

    pub fn join(&mut self, at: usize, mut request: JoinRequest) -> ReplyId {
        let reply = self.reply_id();
        if request.member_id.is_empty() {
            request.fresh_id = self.fresh_id();
        }
        let now = self.now();
        let effects = self.coordinators[at].join(request, reply, now);
        self.carry_out(at, effects);
        reply
    }

    pub fn sync(
        &mut self,
        at: usize,
        member: &str,
        generation: i32,
        assignments: &[(&str, &[u8])],
    ) -> ReplyId {
        let assignments = assignments.iter().map(|(id, bytes)| ((*id).into(), (*bytes).into())).collect();
        self.sync_as(at, member, None, generation, assignments)
    }

    pub fn sync_as(
        &mut self,
        at: usize,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        assignments: Vec<(Arc<str>, Arc<[u8]>)>,
    ) -> ReplyId {
        let reply = self.reply_id();
        let request = SyncRequest {
            member_id: member.into(),
            instance_id: instance.map(Into::into),
            generation: Generation(generation),
            protocol_type: None,
            protocol: None,
            assignments,
        };
        let now = self.now();
        let effects = self.coordinators[at].sync(request, reply, now);
        self.carry_out(at, effects);
        reply
    }

    pub fn heartbeat(&mut self, at: usize, member: &str, generation: i32) -> Result<(), GroupError> {
        let now = self.now();
        self.coordinators[at].heartbeat(member, None, Generation(generation), now)
    }

    pub fn leave(&mut self, at: usize, member: &str) -> Result<(), GroupError> {
        let now = self.now();
        let (result, effects) = self.coordinators[at].leave(&member.into(), None, now);
        self.carry_out(at, effects);
        result
    }

    /// A commit as `apply` judges it, whatever a coordinator would have said.
    pub fn commit(&mut self, member: Option<(&str, i32)>) -> Response {
        let member = member.map(|(member_id, generation)| strandline_metadata::CommitMember {
            generation: Generation(generation),
            member_id: member_id.into(),
        });
        let offset =
            CommittedOffset { offset: Offset(1), leader_epoch: None, metadata: None, commit_time_ms: 0 };
        let offsets = vec![(tp(TopicId(Uuid::from_u128(7)), 0), offset)];
        self.apply(&Command::CommitOffsets { group: GROUP.into(), member, offsets })
    }

    pub fn apply(&mut self, command: &Command) -> Response {
        let encoded = Command::decode(&command.encode()).expect("a command reads back");
        let index = self.image.index + 1;
        machine::apply(&mut self.image, index, &encoded, &mut Delta::default())
    }

    /// The coordinator sees the image as it is now.
    pub fn show(&mut self, to: usize) {
        let group = self.agreed().cloned();
        let now = self.now();
        let effects = self.coordinators[to].image(group.as_ref(), now);
        self.carry_out(to, effects);
    }

    /// Raft takes the oldest proposal; the coordinators do not hear of it yet.
    pub fn agree_one(&mut self) -> Response {
        let proposal = self.proposals.remove(0);
        self.apply(&proposal.command)
    }

    /// Raft takes whatever is proposed, and everyone sees it, until nothing is left to do.
    pub fn settle(&mut self) {
        while !self.proposals.is_empty() {
            let proposal = self.proposals.remove(0);
            let response = self.apply(&proposal.command);
            for coordinator in 0..self.coordinators.len() {
                self.show(coordinator);
            }
            if let Response::Rejected(rejection) = response {
                self.fail(proposal.from, proposal.id, ProposalFailure::Rejected(rejection));
            }
        }
    }

    pub fn fail(&mut self, coordinator: usize, id: ProposalId, failure: ProposalFailure) {
        let now = self.now();
        let effects = self.coordinators[coordinator].proposal_failed(id, failure, now);
        self.carry_out(coordinator, effects);
    }

    /// Time passes at all coordinators.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        loop {
            let due = self.coordinators.iter().filter_map(GroupState::next_deadline).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now_ms = self.now_ms.max(due);
            let now = self.now();
            for at in 0..self.coordinators.len() {
                let effects = self.coordinators[at].tick(now);
                self.carry_out(at, effects);
                let next = self.coordinators[at].next_deadline();
                assert!(next.is_none_or(|next| next > self.now_ms), "a tick leaves nothing due");
            }
        }
        self.now_ms = end;
    }

    pub fn describe(&self, at: usize) -> GroupDescription {
        self.coordinators[at].describe()
    }

    /// `Stable 3: m1 m2`
    pub fn summary(&self, at: usize) -> String {
        let d = self.describe(at);
        let members: Vec<_> = d.members.iter().map(|m| &*m.member_id).collect();
        format!("{} {}: {}", d.phase.as_str(), d.generation, members.join(" "))
    }

    pub fn take(&mut self, reply: ReplyId) -> Option<Answer> {
        self.answers.remove(&reply)
    }

    pub fn waits(&self, reply: ReplyId) -> bool {
        !self.answers.contains_key(&reply)
    }

    pub fn joined(&mut self, reply: ReplyId) -> JoinAnswer {
        match self.take(reply) {
            Some(Answer::Join(answer)) => answer,
            other => panic!("not a join answer: {other:?}"),
        }
    }

    pub fn synced(&mut self, reply: ReplyId) -> Vec<u8> {
        match self.take(reply) {
            Some(Answer::Sync(answer)) => answer.assignment.to_vec(),
            other => panic!("not a sync answer: {other:?}"),
        }
    }

    pub fn refused(&mut self, reply: ReplyId) -> GroupError {
        match self.take(reply) {
            Some(Answer::Error(error)) => error,
            other => panic!("not an error: {other:?}"),
        }
    }

    /// A dynamic member that has got its id.
    pub fn introduce(&mut self, at: usize) -> Arc<str> {
        let reply = self.join(at, dynamic(""));
        match self.refused(reply) {
            GroupError::MemberIdRequired { member_id } => member_id,
            other => panic!("{other:?}"),
        }
    }

    /// A stable group of so many dynamic members; the first leads, and `m1`'s assignment is `m1`.
    pub fn stable(members: usize) -> (Self, Vec<Arc<str>>) {
        let mut world = Self::new();
        let ids: Vec<_> = (0..members).map(|_| world.introduce(0)).collect();
        let requests: Vec<_> = ids.iter().map(|id| dynamic(id)).collect();
        world.stabilize(requests);
        (world, ids)
    }

    /// All of `requests` join at the first coordinator, and the leader assigns. Returns the join answers.
    pub fn stabilize(&mut self, requests: Vec<JoinRequest>) -> Vec<JoinAnswer> {
        let joins: Vec<_> = requests.into_iter().map(|request| self.join(0, request)).collect();
        self.advance(1_000);
        self.settle();
        let answers: Vec<_> = joins.into_iter().map(|reply| self.joined(reply)).collect();
        self.assign(&answers);
        answers
    }

    /// Everyone syncs; each member is assigned its own name.
    pub fn assign(&mut self, answers: &[JoinAnswer]) {
        let leader = answers.iter().find(|a| a.leader == a.member_id).expect("the leader is among them");
        let assignments: Vec<(Arc<str>, Arc<[u8]>)> =
            leader.members.iter().map(|m| (m.member_id.clone(), m.member_id.as_bytes().into())).collect();
        let syncs: Vec<_> = answers
            .iter()
            .map(|a| {
                let brought = if a.member_id == a.leader { assignments.clone() } else { Vec::new() };
                self.sync_as(0, &a.member_id, None, a.generation.get(), brought)
            })
            .collect();
        self.settle();
        for (answer, sync) in answers.iter().zip(syncs) {
            assert_eq!(self.synced(sync), answer.member_id.as_bytes());
        }
        assert_eq!(self.describe(0).phase, GroupPhase::Stable);
    }
}

pub fn dynamic(member_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: member_id.into(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/10.0.0.1".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription("topic", b""))],
        require_known_member_id: true,
        can_skip_assignment: false,
        fresh_id: "".into(),
    }
}

pub fn static_member(instance: &str, member_id: &str) -> JoinRequest {
    JoinRequest { instance_id: Some(instance.into()), ..dynamic(member_id) }
}

/// Bytes that begin like a ConsumerProtocolSubscription for one topic, and go on with `rest`.
pub fn subscription(topic: &str, rest: &[u8]) -> Arc<[u8]> {
    let mut bytes = vec![0, 3, 0, 0, 0, 1, 0, topic.len() as u8];
    bytes.extend(topic.as_bytes());
    bytes.extend(rest);
    bytes.into()
}

pub fn rejected(rejection: Rejection) -> Response {
    Response::Rejected(rejection)
}
