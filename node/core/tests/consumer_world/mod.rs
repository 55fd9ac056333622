//! A group of the consumer protocol, its coordinators and the agreed state, for the tests of
//! `core::consumer_group`: the real `machine::apply` under coordinators that see its images when the test
//! says so.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_core::consumer_group::*;
use strandline_core::group::{Now, ProposalFailure, ProposalId, ReplyId};
use strandline_metadata::command::tp;
use strandline_metadata::{
    Command, CommitMember, CommittedOffset, ConsumerGroup, Delta, Image, Partitions, Response, Topic, machine,
};
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
    pub limits: ConsumerGroupLimits,
    pub coordinators: Vec<ConsumerGroupState>,
    /// On their way to Raft.
    pub proposals: Vec<Proposal>,
    /// Answers that nobody has looked at yet.
    pub answers: BTreeMap<ReplyId, HeartbeatResult>,
    answered: BTreeSet<ReplyId>,
    next_reply: u64,
    pub proposed: usize,
}

/// A topic's id: its name, of up to 16 bytes.
pub fn topic(name: &str) -> TopicId {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    TopicId(Uuid::from_bytes(bytes))
}

fn name_of(topic: TopicId) -> String {
    topic.0.as_bytes().iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect()
}

/// `set("a", &[0, 2])`: partitions 0 and 2 of topic `a`.
pub fn set(name: &str, numbers: &[i32]) -> Partitions {
    numbers.iter().map(|n| tp(topic(name), *n)).collect()
}

/// The first request of a member.
pub fn join(member: &str, topics: &[&str]) -> HeartbeatRequest {
    HeartbeatRequest {
        member_id: member.into(),
        epoch: JOIN,
        instance_id: None,
        rack: None,
        client_id: "client".into(),
        client_host: "/10.0.0.1".into(),
        rebalance_timeout_ms: Some(20_000),
        topics: Some(topics.iter().map(|name| Arc::from(*name)).collect()),
        regex: None,
        assignor: None,
        owned: Some(Partitions::default()),
    }
}

pub fn join_static(member: &str, instance: &str, topics: &[&str]) -> HeartbeatRequest {
    HeartbeatRequest { instance_id: Some(instance.into()), ..join(member, topics) }
}

/// Nothing new.
pub fn plain(member: &str, epoch: i32) -> HeartbeatRequest {
    HeartbeatRequest { epoch, rebalance_timeout_ms: None, topics: None, owned: None, ..join(member, &[]) }
}

/// With what it has.
pub fn owning(member: &str, epoch: i32, owned: Partitions) -> HeartbeatRequest {
    HeartbeatRequest { owned: Some(owned), ..plain(member, epoch) }
}

impl World {
    pub fn new() -> Self {
        let mut image = Image::default();
        let form = Command::FormCluster { cluster_id: Uuid::from_u128(1), now_ms: 0 };
        assert_eq!(machine::apply(&mut image, 1, &form, &mut Delta::default()), Response::Done);
        let mut world = Self {
            image,
            now_ms: 1_000,
            limits: ConsumerGroupLimits::default(),
            coordinators: Vec::new(),
            proposals: Vec::new(),
            answers: BTreeMap::new(),
            answered: BTreeSet::new(),
            next_reply: 0,
            proposed: 0,
        };
        world.adopt();
        world
    }

    /// With topics of so many partitions.
    pub fn with_topics(topics: &[(&str, i32)]) -> Self {
        let mut world = Self::new();
        for (name, partitions) in topics {
            world.set_topic(name, *partitions);
        }
        world
    }

    /// Creates a topic, grows it, or (0) deletes it. The coordinators do not hear of it.
    pub fn set_topic(&mut self, name: &str, partitions: i32) {
        let id = topic(name);
        if partitions == 0 {
            self.image.topics.remove_mut(&id);
            self.image.topic_ids.remove_mut(name);
            return;
        }
        let topic = Topic { id, name: name.into(), partitions, configs: BTreeMap::new(), created_at_ms: 0 };
        self.image.topic_ids.insert_mut(name.into(), id);
        self.image.topics.insert_mut(id, Arc::new(topic));
    }

    pub fn tell_topics(&mut self, to: usize) {
        let now = self.now();
        let effects = self.coordinators[to].topics_changed(&self.image, now);
        self.carry_out(to, effects);
    }

    pub fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, wall_ms: 1_700_000_000_000 + self.now_ms as i64 }
    }

    pub fn agreed(&self) -> Option<&Arc<ConsumerGroup>> {
        self.image.consumer_groups.get(GROUP)
    }

    /// Another coordinator takes up the group as the image shows it now. Returns its place.
    pub fn adopt(&mut self) -> usize {
        let agreed = self.agreed().cloned();
        let state = ConsumerGroupState::adopt(GROUP.into(), agreed, self.limits.clone(), self.now());
        self.coordinators.push(state);
        self.coordinators.len() - 1
    }

    pub fn carry_out(&mut self, from: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { id, answer } => {
                    assert!(self.answered.insert(id), "a request is answered once");
                    self.answers.insert(id, answer);
                }
                Effect::Propose { id, command } => {
                    self.proposed += 1;
                    self.proposals.push(Proposal { from, id, command });
                }
            }
        }
    }

    /// Sends a request to a coordinator.
    pub fn beat(&mut self, at: usize, request: HeartbeatRequest) -> ReplyId {
        self.next_reply += 1;
        let (reply, now) = (ReplyId(self.next_reply), self.now());
        let effects = self.coordinators[at].heartbeat(request, reply, &self.image, now);
        self.carry_out(at, effects);
        reply
    }

    /// Sends a request to the first coordinator and lets Raft do its part.
    pub fn ask(&mut self, request: HeartbeatRequest) -> HeartbeatResult {
        let reply = self.beat(0, request);
        self.settle();
        self.answers.remove(&reply).expect("answered once Raft has done its part")
    }

    /// Like [`World::ask`]; the member's epoch and assignment.
    pub fn told(&mut self, request: HeartbeatRequest) -> (i32, Option<Partitions>) {
        let answer = self.ask(request).unwrap();
        (answer.epoch, answer.assignment)
    }

    pub fn refused(&mut self, request: HeartbeatRequest) -> ConsumerGroupError {
        self.ask(request).unwrap_err()
    }

    pub fn take(&mut self, reply: ReplyId) -> Option<HeartbeatResult> {
        self.answers.remove(&reply)
    }

    pub fn waits(&self, reply: ReplyId) -> bool {
        !self.answers.contains_key(&reply)
    }

    /// A commit as `apply` judges it.
    pub fn commit(&mut self, member: &str, epoch: i32) -> Response {
        let member = CommitMember { generation: Generation(epoch), member_id: member.into() };
        let offset =
            CommittedOffset { offset: Offset(1), leader_epoch: None, metadata: None, commit_time_ms: 0 };
        let offsets = vec![(tp(topic("a"), 0), offset)];
        self.apply(&Command::CommitOffsets { group: GROUP.into(), member: Some(member), offsets })
    }

    pub fn apply(&mut self, command: &Command) -> Response {
        let command = Command::decode(&command.encode()).expect("a command reads back");
        let index = self.image.index + 1;
        machine::apply(&mut self.image, index, &command, &mut Delta::default())
    }

    /// The coordinator sees the image as it is now.
    pub fn show(&mut self, to: usize) {
        let (group, now) = (self.agreed().cloned(), self.now());
        let effects = self.coordinators[to].image(group.as_ref(), &self.image, now);
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
            let due = self.coordinators.iter().filter_map(ConsumerGroupState::next_deadline).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now_ms = self.now_ms.max(due);
            let now = self.now();
            for at in 0..self.coordinators.len() {
                let effects = self.coordinators[at].tick(&self.image, now);
                self.carry_out(at, effects);
                let next = self.coordinators[at].next_deadline();
                assert!(next.is_none_or(|next| next > self.now_ms), "a tick leaves nothing due");
            }
        }
        self.now_ms = end;
    }

    /// `7/7 Stable: m1@7 a[0,1]; m2@7 a[2] -a[3]`: epochs of group and target, then for each member its epoch,
    /// what it has, and what it is to give up.
    pub fn summary(&self) -> String {
        let d = self.coordinators[0].describe();
        let list = |partitions: &Partitions, sign: &str| -> String {
            partitions
                .by_topic()
                .map(|(id, of)| {
                    let name = name_of(id);
                    let numbers: Vec<_> = of.iter().map(|p| p.0.to_string()).collect();
                    format!(" {sign}{name}[{}]", numbers.join(","))
                })
                .collect()
        };
        let members: Vec<_> = d
            .members
            .iter()
            .map(|(id, m)| {
                let away = if m.away { " away" } else { "" };
                format!("{id}@{}{}{}{away}", m.epoch, list(&m.assigned, ""), list(&m.revoking, "-"))
            })
            .collect();
        format!("{}/{} {}: {}", d.epoch, d.target_epoch, d.phase.as_str(), members.join("; "))
    }

    /// Everybody asks until nothing changes, each reporting what it was told.
    pub fn converge(&mut self) {
        for _ in 0..10 {
            let group = self.agreed().cloned().expect("a group with members");
            for (id, member) in &group.members {
                if !member.away {
                    let _ = self.ask(owning(id, member.epoch.0, member.assigned.clone()));
                }
            }
            if self.agreed().is_some_and(|group| group.is_stable()) {
                return;
            }
        }
        panic!("the group does not come to rest: {}", self.summary());
    }

    /// Members of these names, subscribed to these topics, each with its part.
    pub fn stable(topics: &[(&str, i32)], members: &[&str]) -> Self {
        let mut world = Self::with_topics(topics);
        let names: Vec<_> = topics.iter().map(|(name, _)| *name).collect();
        for member in members {
            world.ask(join(member, &names)).unwrap();
        }
        world.converge();
        world
    }

    pub fn epoch_of(&self, member: &str) -> i32 {
        self.agreed().unwrap().members[member].epoch.0
    }

    pub fn assigned(&self, member: &str) -> Partitions {
        self.agreed().unwrap().members[member].assigned.clone()
    }
}
