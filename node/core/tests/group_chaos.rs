//! Random members, losses, time-outs and failovers, under two brokers that both take themselves for the
//! coordinator all the time (hazards 27 to 29, 31; I14, I15).
//!
//! Checked after every step: generations increase; a generation has one set of members and one assignment;
//! nobody is told what is not agreed; a partition has at most one owner in a generation; a commit is accepted
//! only from the owner in the agreed generation. Afterwards the faults stop, and the group must converge.

mod group_world;

use group_world::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_core::group::*;
use strandline_metadata::{Command, CommitMember, CommittedOffset, Group, Response, command::tp};
use strandline_record::{Generation, Offset, TopicId};
use uuid::Uuid;

const PARTITIONS: u8 = 5;
const SESSION_MS: u32 = 6_000;
const REBALANCE_MS: u32 = 8_000;
/// Twice the session time-out (hazard 31), and the rebalance time-out that the last expiry may have to wait.
const CONVERGE_MS: u64 = 2 * SESSION_MS as u64 + REBALANCE_MS as u64;

struct Client {
    instance: Option<Arc<str>>,
    alive: bool,
    /// Which coordinator it talks to.
    at: usize,
    /// Which one owes it the answer that it waits for.
    sent_to: usize,
    member_id: Arc<str>,
    generation: i32,
    state: State,
}

#[derive(Clone, PartialEq)]
enum State {
    Out,
    Joining(ReplyId),
    Syncing(ReplyId),
    Member { owned: Vec<u8> },
}

/// Who asked, to check an answer when it is given.
struct Asked {
    member_id: Arc<str>,
    instance: Option<Arc<str>>,
    generation: i32,
}

struct Commit {
    member: CommitMember,
    partition: u8,
}

struct Chaos {
    world: World,
    clients: Vec<Client>,
    /// Every state of the group that Raft has agreed on, in order.
    views: Vec<Option<Arc<Group>>>,
    /// How far each coordinator has seen them.
    seen: [usize; 2],
    asked: BTreeMap<ReplyId, Asked>,
    /// Replies that a lost coordinator owed.
    orphaned: BTreeSet<ReplyId>,
    commits: Vec<Commit>,
    /// (generation, partition) → instance or member, as told.
    owners: BTreeMap<(i32, u8), Arc<str>>,
    checked: usize,
    accepted_commits: usize,
}

impl Chaos {
    fn new(clients: usize) -> Self {
        let mut world = World::new();
        world.limits.propose_retry_ms = 700;
        world.coordinators.clear();
        world.adopt();
        world.adopt();
        let clients = (0..clients)
            .map(|n| Client {
                instance: (n % 3 == 2).then(|| format!("instance-{n}").into()),
                alive: true,
                at: 0,
                sent_to: 0,
                member_id: "".into(),
                generation: -1,
                state: State::Out,
            })
            .collect();
        Self {
            world,
            clients,
            views: vec![None],
            seen: [0; 2],
            asked: BTreeMap::new(),
            orphaned: BTreeSet::new(),
            commits: Vec::new(),
            owners: BTreeMap::new(),
            checked: 0,
            accepted_commits: 0,
        }
    }

    fn step(&mut self, kind: u8, n: usize) {
        let client = n % self.clients.len();
        let coordinator = n % 2;
        match kind % 64 {
            0..=25 => self.act(client, n / self.clients.len()),
            26..=27 => self.calm(n),
            28..=39 => self.apply_proposal(n, false),
            40..=50 => self.show(coordinator, 1 + n / 2 % 4),
            51 => self.apply_proposal(n, true),
            52 => self.lose_proposal(n),
            53 if n.is_multiple_of(4) => self.world.advance(n as u64 * 40),
            53..=55 => self.world.advance(n as u64 * 4),
            56..=58 => self.apply_commit(n),
            59 => self.give_up_waiting(client, n.is_multiple_of(3)),
            60 if n.is_multiple_of(3) => self.clients[client].at = n / self.clients.len() % 2,
            60 => self.clients.iter_mut().for_each(|c| c.at = coordinator),
            61 if self.clients[client].alive && !n.is_multiple_of(3) => {}
            61 => self.crash_or_return(client),
            62 => self.leave(client),
            _ => self.lose_coordinator(coordinator, n / 2 % 4),
        }
        self.check();
    }

    /// For a moment everything arrives.
    fn calm(&mut self, n: usize) {
        for i in 0..self.clients.len() {
            self.act(i, n + i);
        }
        while !self.world.proposals.is_empty() {
            self.apply_proposal(n, false);
            self.show(0, usize::MAX / 2);
            self.show(1, usize::MAX / 2);
        }
    }

    /// The client goes on from where it stands.
    fn act(&mut self, i: usize, n: usize) {
        if !self.clients[i].alive {
            return;
        }
        match self.clients[i].state.clone() {
            State::Joining(reply) | State::Syncing(reply) if self.orphaned.remove(&reply) => {
                self.clients[i].state = State::Out;
            }
            State::Out => self.join(i),
            State::Joining(reply) => match self.world.take(reply) {
                None => {}
                Some(Answer::Join(answer)) => self.sync(i, answer, n),
                Some(Answer::Error(error)) => self.refused(i, error),
                Some(other) => panic!("{other:?}"),
            },
            State::Syncing(reply) => match self.world.take(reply) {
                None => {}
                Some(Answer::Sync(answer)) => {
                    self.clients[i].state = State::Member { owned: answer.assignment.to_vec() }
                }
                Some(Answer::Error(error)) => self.refused(i, error),
                Some(other) => panic!("{other:?}"),
            },
            State::Member { owned } => self.work(i, &owned, n),
        }
    }

    fn join(&mut self, i: usize) {
        let client = &self.clients[i];
        let request = JoinRequest {
            instance_id: client.instance.clone(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            can_skip_assignment: i.is_multiple_of(2),
            ..dynamic(&client.member_id)
        };
        let reply = self.world.join(client.at, request);
        self.clients[i].sent_to = self.clients[i].at;
        self.clients[i].state = State::Joining(reply);
    }

    fn sync(&mut self, i: usize, answer: JoinAnswer, n: usize) {
        let client = &mut self.clients[i];
        client.member_id = answer.member_id.clone();
        client.generation = answer.generation.get();
        let mut assignments = Vec::new();
        if answer.leader == answer.member_id && !answer.skip_assignment {
            // Dealt out from a place that differs each time, so that two assignments are rarely the same.
            let mut hands = vec![Vec::new(); answer.members.len()];
            for partition in 0..PARTITIONS {
                hands[(usize::from(partition) + n) % answer.members.len()].push(partition);
            }
            let ids = answer.members.iter().map(|m| m.member_id.clone());
            assignments = ids.zip(hands.into_iter().map(Arc::from)).collect();
        }
        let (at, member, instance, generation) =
            (client.at, client.member_id.clone(), client.instance.clone(), client.generation);
        let reply = self.world.sync_as(at, &member, instance.as_deref(), generation, assignments);
        self.asked.insert(reply, Asked { member_id: member, instance, generation });
        self.clients[i].sent_to = at;
        self.clients[i].state = State::Syncing(reply);
    }

    fn work(&mut self, i: usize, owned: &[u8], n: usize) {
        let client = &self.clients[i];
        let (member, instance) = (client.member_id.clone(), client.instance.clone());
        let (generation, now) = (Generation(client.generation), self.world.now());
        let coordinator = &mut self.world.coordinators[client.at];
        let result = if n.is_multiple_of(2) && !owned.is_empty() {
            let partition = owned[n / 2 % owned.len()];
            coordinator.commit_check(&member, instance.as_deref(), Some(generation), now).map(|member| {
                let member = member.expect("a member's commit");
                self.commits.push(Commit { member, partition });
            })
        } else {
            coordinator.heartbeat(&member, instance.as_deref(), generation, now)
        };
        if let Err(error) = result {
            self.refused(i, error);
        }
    }

    fn refused(&mut self, i: usize, error: GroupError) {
        let client = &mut self.clients[i];
        client.state = State::Out;
        match error {
            GroupError::MemberIdRequired { member_id } => client.member_id = member_id,
            GroupError::UnknownMemberId | GroupError::FencedInstanceId => client.member_id = "".into(),
            GroupError::NotCoordinator => client.at = 1 - client.at,
            GroupError::IllegalGeneration | GroupError::RebalanceInProgress => {}
            other => panic!("{other:?}"),
        }
    }

    fn apply_proposal(&mut self, n: usize, keep_a_copy: bool) {
        if self.world.proposals.is_empty() {
            return;
        }
        let proposal = self.world.proposals.remove(n % self.world.proposals.len());
        let response = self.world.apply(&proposal.command);
        self.record();
        if keep_a_copy {
            let copy = Proposal { from: usize::MAX, id: proposal.id, command: proposal.command };
            self.world.proposals.push(copy);
        }
        if let Response::Rejected(rejection) = response
            && proposal.from < 2
            && !n.is_multiple_of(3)
        {
            self.world.fail(proposal.from, proposal.id, ProposalFailure::Rejected(rejection));
        }
    }

    fn lose_proposal(&mut self, n: usize) {
        if self.world.proposals.is_empty() {
            return;
        }
        let proposal = self.world.proposals.remove(n % self.world.proposals.len());
        if proposal.from < 2 && !n.is_multiple_of(3) {
            self.world.fail(proposal.from, proposal.id, ProposalFailure::Unknown);
        }
    }

    fn show(&mut self, coordinator: usize, views: usize) {
        self.seen[coordinator] = (self.seen[coordinator] + views).min(self.views.len() - 1);
        let (view, now) = (self.views[self.seen[coordinator]].clone(), self.world.now());
        let effects = self.world.coordinators[coordinator].image(view.as_ref(), now);
        self.world.carry_out(coordinator, effects);
    }

    /// The coordinator's process dies and comes back with an image that it has had, or a later one.
    fn lose_coordinator(&mut self, coordinator: usize, views: usize) {
        self.seen[coordinator] = (self.seen[coordinator] + views).min(self.views.len() - 1);
        let view = self.views[self.seen[coordinator]].clone();
        let state = GroupState::adopt(GROUP.into(), view, self.world.limits, self.world.now());
        self.world.coordinators[coordinator] = state;
        for proposal in &mut self.world.proposals {
            if proposal.from == coordinator {
                proposal.from = usize::MAX;
            }
        }
        for client in self.clients.iter().filter(|c| c.sent_to == coordinator) {
            if let State::Joining(reply) | State::Syncing(reply) = client.state
                && self.world.waits(reply)
            {
                self.orphaned.insert(reply);
            }
        }
    }

    fn give_up_waiting(&mut self, i: usize, noticed: bool) {
        let client = &mut self.clients[i];
        let (State::Joining(reply) | State::Syncing(reply)) = client.state else { return };
        client.state = State::Out;
        let at = client.sent_to;
        if self.world.take(reply).is_none() && noticed {
            let now = self.world.now();
            let effects = self.world.coordinators[at].abandon(reply, now);
            self.world.carry_out(at, effects);
        }
    }

    fn crash_or_return(&mut self, i: usize) {
        self.clients[i].alive = !self.clients[i].alive;
        self.clients[i].member_id = "".into();
        self.clients[i].state = State::Out;
    }

    fn leave(&mut self, i: usize) {
        let client = &self.clients[i];
        let (member, at) = (client.member_id.clone(), client.at);
        if matches!(client.state, State::Member { .. }) {
            let _ = self.world.leave(at, &member);
            self.crash_or_return(i);
        }
    }

    fn apply_commit(&mut self, n: usize) {
        if self.commits.is_empty() {
            return;
        }
        let Commit { member, partition } = self.commits.remove(n % self.commits.len());
        let offset =
            CommittedOffset { offset: Offset(1), leader_epoch: None, metadata: None, commit_time_ms: 0 };
        let offsets = vec![(tp(TopicId(Uuid::from_u128(7)), i32::from(partition)), offset)];
        let command = Command::CommitOffsets { group: GROUP.into(), member: Some(member.clone()), offsets };
        if self.world.apply(&command) == Response::Done {
            let agreed = self.world.agreed().expect("a group with members");
            assert_eq!(agreed.generation, member.generation, "accepted in the agreed generation only");
            let owned = &agreed.members[&member.member_id].assignment;
            assert!(owned.contains(&partition), "accepted from the owner only");
            self.accepted_commits += 1;
        }
    }

    /// Raft has applied something: is the agreed state sound?
    fn record(&mut self) {
        let now = self.world.agreed().cloned();
        let before = self.views.last().expect("never empty").clone();
        if now == before {
            return;
        }
        let group = now.as_ref().expect("no group is deleted here");
        if let Some(before) = &before {
            if before.generation == group.generation {
                assert_eq!(identities(before), identities(group), "one generation, one set of members");
                assert!(
                    !before.assigned || assignment(before) == assignment(group),
                    "one generation, one assignment"
                );
            } else {
                assert!(group.generation > before.generation, "generations increase");
            }
        }
        self.views.push(now);
    }

    fn check(&mut self) {
        while let Some((reply, answer)) = self.world.log.get(self.checked).cloned() {
            self.checked += 1;
            match answer {
                Answer::Error(_) => {}
                Answer::Join(answer) => {
                    let mut agreed = self.of_generation(answer.generation);
                    assert!(
                        agreed.any(|g| g.members.contains_key(&answer.member_id)),
                        "{} was told generation {} without being agreed in it",
                        answer.member_id,
                        answer.generation
                    );
                }
                Answer::Sync(answer) => {
                    let asked = &self.asked[&reply];
                    let told = |g: &Arc<Group>| {
                        let part = g.members.get(&asked.member_id);
                        g.assigned && part.is_some_and(|m| m.assignment == answer.assignment)
                    };
                    let agreed = self.of_generation(Generation(asked.generation)).any(told);
                    assert!(agreed, "{} was told an assignment that is not agreed", asked.member_id);
                    let who = asked.instance.clone().unwrap_or(asked.member_id.clone());
                    for partition in answer.assignment.iter() {
                        let key = (asked.generation, *partition);
                        let owner = self.owners.entry(key).or_insert_with(|| who.clone());
                        assert_eq!(*owner, who, "one owner of {partition} in generation {}", key.0);
                    }
                }
            }
        }
    }

    fn of_generation(&self, generation: Generation) -> impl Iterator<Item = &Arc<Group>> {
        self.views.iter().flatten().filter(move |g| g.generation == generation)
    }

    /// Faults stop: one coordinator, everything arrives. Returns after how long the group had converged for
    /// good.
    fn converge(&mut self) -> u64 {
        // What was on its way still arrives, as does what the other coordinator has to say.
        while !self.world.proposals.is_empty() {
            self.apply_proposal(0, false);
        }
        self.world.coordinators.truncate(1);
        self.show(0, usize::MAX / 2);
        for client in &mut self.clients {
            if let State::Joining(reply) | State::Syncing(reply) = client.state
                && (client.sent_to == 1 || self.orphaned.contains(&reply))
                && !self.world.answers.contains_key(&reply)
            {
                client.state = State::Out;
            }
            client.at = 0;
        }
        let start = self.world.now_ms;
        let mut converged = None;
        while self.world.now_ms - start < CONVERGE_MS + 2 * u64::from(SESSION_MS) {
            for i in 0..self.clients.len() {
                self.act(i, 1);
                self.clients[i].at = 0;
            }
            while !self.world.proposals.is_empty() {
                self.apply_proposal(0, false);
                self.show(0, usize::MAX / 2);
            }
            self.check();
            // A member that synced with the other coordinator may still be taken for late here.
            converged = self.is_converged().then(|| converged.unwrap_or(self.world.now_ms - start));
            self.world.advance(100);
        }
        converged.unwrap_or_else(|| panic!("not converged: {:#?}", self.world.describe(0)))
    }

    fn is_converged(&self) -> bool {
        let alive: BTreeSet<_> =
            self.clients.iter().filter(|c| c.alive).map(|c| c.member_id.clone()).collect();
        let Some(group) = self.world.agreed() else { return alive.is_empty() };
        let settled = self.clients.iter().filter(|c| c.alive).all(|c| {
            c.generation == group.generation.get()
                && matches!(&c.state, State::Member { owned } if **owned == *group.members[&c.member_id].assignment)
        });
        let members: BTreeSet<_> = group.members.keys().cloned().collect();
        let stable = matches!(self.world.describe(0).phase, GroupPhase::Stable | GroupPhase::Empty);
        stable
            && members == alive
            && settled
            && (alive.is_empty() || assignment(group).len() == usize::from(PARTITIONS))
    }
}

/// Partition → instance or member id.
fn assignment(group: &Group) -> BTreeMap<u8, Arc<str>> {
    let mut owners = BTreeMap::new();
    for (id, member) in &group.members {
        for partition in member.assignment.iter() {
            let before = owners.insert(*partition, member.instance_id.clone().unwrap_or(id.clone()));
            assert_eq!(before, None, "{partition} is assigned twice");
        }
    }
    owners
}

fn identities(group: &Group) -> BTreeSet<Arc<str>> {
    group.members.iter().map(|(id, m)| m.instance_id.clone().unwrap_or(id.clone())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_group_keeps_its_promises_under_two_coordinators_and_converges_when_quiet(
        clients in 1..6usize,
        steps in prop::collection::vec((any::<u8>(), 0..256usize), 0..400),
    ) {
        let mut chaos = Chaos::new(clients);
        for (kind, n) in steps {
            chaos.step(kind, n);
        }
        let took = chaos.converge();
        prop_assert!(took <= CONVERGE_MS, "converged only after {took} ms");
    }
}

#[test]
fn the_chaos_reaches_what_it_is_there_for() {
    // A fixed sequence, long enough to see that the test above is not about groups that never form.
    let mut chaos = Chaos::new(5);
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        chaos.step((x >> 32) as u8, (x >> 40) as usize % 256);
    }
    let generations = chaos.views.iter().flatten().map(|g| g.generation).collect::<BTreeSet<_>>().len();
    let assigned = chaos.views.iter().flatten().filter(|g| g.assigned && !g.members.is_empty()).count();
    assert!(generations > 100 && assigned > 60, "{generations} generations, {assigned} assigned");
    assert!(chaos.accepted_commits > 20, "{} commits", chaos.accepted_commits);
    chaos.converge();
}
