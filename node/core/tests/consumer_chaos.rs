//! Random members, losses, time-outs and failovers of a group of the consumer protocol (KIP-848), under two
//! brokers that both take themselves for the coordinator all the time (hazards 27 to 29, 31; I14, I15).
//!
//! Checked after every step: a partition has at most one owner; a client whose commits would be accepted
//! consumes only what is agreed to be its own; nobody is told what was not agreed; epochs do not go back.
//! Afterwards the faults stop, and the group must converge.

mod consumer_world;

use consumer_world::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_core::consumer_group::*;
use strandline_core::group::{ProposalFailure, ReplyId};
use strandline_metadata::{
    Command, CommitMember, CommittedOffset, ConsumerGroup, ConsumerMember, Partitions, Response,
};
use strandline_record::{Generation, Offset, TopicPartition};

const SESSION_MS: u32 = 6_000;
const REBALANCE_MS: u32 = 8_000;
const HEARTBEAT_MS: u64 = 1_000;
/// A session of one that is gone, a revocation that is not confirmed, and the heartbeats of the walk.
const CONVERGE_MS: u64 = 2 * SESSION_MS as u64 + 2 * REBALANCE_MS as u64;

/// A client with one request under way at most, as on one connection.
#[derive(Debug)]
struct Client {
    name: usize,
    instance: Option<Arc<str>>,
    /// How often it was started: each process has a member id of its own.
    starts: usize,
    alive: bool,
    /// Which coordinator it talks to.
    at: usize,
    waiting: Option<Waiting>,
    epoch: i32,
    owned: Partitions,
    /// Told, and not carried out yet.
    pending: Option<Partitions>,
    /// Its next request says everything.
    full: bool,
}

#[derive(Clone, Debug)]
struct Waiting {
    reply: ReplyId,
    sent_to: usize,
    epoch: i32,
}

impl Client {
    fn member_id(&self) -> Arc<str> {
        format!("c{}-{}", self.name, self.starts).into()
    }

    /// It has lost its place and all its partitions.
    fn drop_all(&mut self) {
        self.epoch = JOIN;
        self.owned = Partitions::default();
        self.pending = None;
    }

    fn restart(&mut self) {
        self.starts += 1;
        self.waiting = None;
        self.drop_all();
    }
}

type Standing = (Arc<str>, i32, Vec<TopicPartition>);

struct Chaos {
    world: World,
    clients: Vec<Client>,
    /// Every state of the group that Raft has agreed on, in order.
    views: Vec<Option<Arc<ConsumerGroup>>>,
    /// How far each coordinator has seen them.
    seen: [usize; 2],
    /// Epoch and assignment of every member that were ever agreed.
    standings: BTreeSet<Standing>,
    /// Replies that a lost coordinator owed.
    orphaned: BTreeSet<ReplyId>,
    commits: Vec<(CommitMember, TopicPartition)>,
    accepted_commits: usize,
    partitions: i32,
}

fn standing(id: &Arc<str>, epoch: i32, assigned: &Partitions) -> Standing {
    (id.clone(), epoch, assigned.iter().collect())
}

impl Chaos {
    fn new(clients: usize) -> Self {
        let mut world = World::with_topics(&[("a", 3), ("b", 2)]);
        world.limits.propose_retry_ms = 700;
        world.limits.session_timeout_ms = SESSION_MS;
        world.coordinators.clear();
        world.adopt();
        world.adopt();
        let clients = (0..clients)
            .map(|name| Client {
                name,
                instance: (name % 3 == 2).then(|| format!("instance-{name}").into()),
                starts: 0,
                alive: true,
                at: 0,
                waiting: None,
                epoch: JOIN,
                owned: Partitions::default(),
                pending: None,
                full: true,
            })
            .collect();
        Self {
            world,
            clients,
            views: vec![None],
            seen: [0; 2],
            standings: BTreeSet::new(),
            orphaned: BTreeSet::new(),
            commits: Vec::new(),
            accepted_commits: 0,
            partitions: 3,
        }
    }

    fn step(&mut self, kind: u8, n: usize) {
        let client = n % self.clients.len();
        let coordinator = n % 2;
        match kind % 64 {
            0..=25 => self.act(client, n / self.clients.len()),
            26..=27 => self.calm(n),
            28..=39 => self.apply_proposal(n, false),
            40..=49 => self.show(coordinator, 1 + n / 2 % 4),
            50 => self.grow(coordinator),
            51 => self.apply_proposal(n, true),
            52 => self.lose_proposal(n),
            53 if n.is_multiple_of(4) => self.world.advance(n as u64 * 40),
            53..=55 => self.world.advance(n as u64 * 4),
            56..=58 => self.apply_commit(n),
            59 => self.clients[client].give_up(),
            60 if n.is_multiple_of(3) => {
                let to = n / self.clients.len() % 2;
                self.clients[client].move_to(to);
            }
            60 => self.clients.iter_mut().for_each(|c| c.move_to(coordinator)),
            61 if self.clients[client].alive && !n.is_multiple_of(3) => {}
            61 => self.crash_or_return(client),
            62 => self.leave(client, n),
            _ => self.lose_coordinator(coordinator, n / 2 % 4),
        }
        self.check();
    }

    /// For a moment everything arrives.
    fn calm(&mut self, n: usize) {
        for i in 0..self.clients.len() {
            self.act(i, n + i);
        }
        for _ in 0..50 {
            if self.world.proposals.is_empty() {
                break;
            }
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
        if let Some(waiting) = self.clients[i].waiting.clone() {
            if self.orphaned.remove(&waiting.reply) {
                self.clients[i].give_up();
            } else if let Some(answer) = self.world.take(waiting.reply) {
                self.clients[i].waiting = None;
                self.hear(i, answer, waiting.epoch);
            }
            return;
        }
        match n % 4 {
            // It takes its time to give up and to begin.
            0 if self.clients[i].pending.is_some() => {
                let client = &mut self.clients[i];
                client.owned = client.pending.take().expect("checked");
            }
            1 if !self.clients[i].owned.is_empty() => self.commit(i, n / 4),
            _ => self.beat(i, n),
        }
    }

    fn beat(&mut self, i: usize, n: usize) {
        let client = &self.clients[i];
        let full = client.full || client.epoch == JOIN || n.is_multiple_of(5);
        // One client in two does not care for topic b.
        let topics: &[&str] = if i.is_multiple_of(2) { &["a", "b"] } else { &["a"] };
        let mut request = match full {
            true => HeartbeatRequest { epoch: client.epoch, ..join(&client.member_id(), topics) },
            false => plain(&client.member_id(), client.epoch),
        };
        request.instance_id = client.instance.clone();
        request.rebalance_timeout_ms = request.rebalance_timeout_ms.map(|_| REBALANCE_MS);
        if full || n.is_multiple_of(2) {
            // What it has is what it consumes and has not given up yet.
            request.owned = Some(client.owned.clone());
        }
        self.send(i, request);
    }

    fn send(&mut self, i: usize, request: HeartbeatRequest) {
        let (at, epoch) = (self.clients[i].at, request.epoch);
        let reply = self.world.beat(at, request);
        self.clients[i].waiting = Some(Waiting { reply, sent_to: at, epoch });
        self.clients[i].full = false;
    }

    fn hear(&mut self, i: usize, answer: HeartbeatResult, asked_at: i32) {
        let client = &mut self.clients[i];
        match answer {
            Ok(answer) if answer.epoch < JOIN => {
                assert_eq!(answer.epoch, asked_at, "it leaves as it said");
            }
            Ok(answer) => {
                assert_eq!(*answer.member_id, *client.member_id());
                assert!(answer.epoch >= asked_at, "a member's epoch does not go back");
                client.epoch = answer.epoch;
                if let Some(assignment) = answer.assignment {
                    let told = standing(&answer.member_id, answer.epoch, &assignment);
                    assert!(self.standings.contains(&told), "told what was never agreed: {told:?}");
                    client.pending = Some(assignment);
                }
            }
            Err(ConsumerGroupError::NotCoordinator) => {
                client.at = 1 - client.at;
                client.full = true;
            }
            Err(ConsumerGroupError::FencedMemberEpoch | ConsumerGroupError::UnknownMemberId) => {
                client.drop_all()
            }
            Err(ConsumerGroupError::UnreleasedInstanceId) => client.full = true,
            Err(ConsumerGroupError::FencedInstanceId) => client.restart(),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, i: usize, n: usize) {
        let client = &self.clients[i];
        let owned: Vec<_> = client.owned.iter().collect();
        let member = CommitMember { generation: Generation(client.epoch), member_id: client.member_id() };
        self.commits.push((member, owned[n % owned.len()]));
    }

    fn apply_commit(&mut self, n: usize) {
        if self.commits.is_empty() {
            return;
        }
        let (member, tp) = self.commits.remove(n % self.commits.len());
        let offset =
            CommittedOffset { offset: Offset(1), leader_epoch: None, metadata: None, commit_time_ms: 0 };
        let offsets = vec![(tp, offset)];
        let command = Command::CommitOffsets { group: GROUP.into(), member: Some(member.clone()), offsets };
        if self.world.apply(&command) == Response::Done {
            let agreed = &self.world.agreed().expect("a group with members").members[&member.member_id];
            assert!(agreed.owned().any(|owned| owned == tp), "accepted from the owner only");
            self.accepted_commits += 1;
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
        if let Response::Rejected(rejection) = response {
            assert!(
                matches!(rejection, strandline_metadata::Rejection::StaleGroupVersion(_)),
                "a coordinator proposes nothing that contradicts itself: {rejection}"
            );
            if proposal.from < 2 && !n.is_multiple_of(3) {
                self.world.fail(proposal.from, proposal.id, ProposalFailure::Rejected(rejection));
            }
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
        let effects = self.world.coordinators[coordinator].image(view.as_ref(), &self.world.image, now);
        self.world.carry_out(coordinator, effects);
    }

    /// The topic has one more partition; one of the coordinators hears of it now.
    fn grow(&mut self, coordinator: usize) {
        if self.partitions < 6 {
            self.partitions += 1;
            self.world.set_topic("a", self.partitions);
        }
        self.world.tell_topics(coordinator);
    }

    /// The coordinator's process dies and comes back with an image that it has had, or a later one.
    fn lose_coordinator(&mut self, coordinator: usize, views: usize) {
        self.seen[coordinator] = (self.seen[coordinator] + views).min(self.views.len() - 1);
        let view = self.views[self.seen[coordinator]].clone();
        let (limits, now) = (self.world.limits.clone(), self.world.now());
        self.world.coordinators[coordinator] = ConsumerGroupState::adopt(GROUP.into(), view, limits, now);
        for proposal in &mut self.world.proposals {
            if proposal.from == coordinator {
                proposal.from = usize::MAX;
            }
        }
        for waiting in self.clients.iter().filter_map(|c| c.waiting.as_ref()) {
            if waiting.sent_to == coordinator && self.world.waits(waiting.reply) {
                self.orphaned.insert(waiting.reply);
            }
        }
    }

    fn crash_or_return(&mut self, i: usize) {
        let client = &mut self.clients[i];
        client.alive = !client.alive;
        client.restart();
        client.full = true;
    }

    fn leave(&mut self, i: usize, n: usize) {
        let client = &self.clients[i];
        if client.epoch == JOIN || !client.alive || client.waiting.is_some() {
            return;
        }
        let epoch = if client.instance.is_some() && n.is_multiple_of(2) { LEAVE_FOR_NOW } else { LEAVE };
        let request =
            HeartbeatRequest { instance_id: client.instance.clone(), ..plain(&client.member_id(), epoch) };
        // It has stopped by the time it says so.
        self.clients[i].drop_all();
        self.send(i, request);
        self.clients[i].alive = false;
    }

    /// Raft has applied something: is the agreed state sound?
    fn record(&mut self) {
        let now = self.world.agreed().cloned();
        let before = self.views.last().expect("never empty").clone();
        if now == before {
            return;
        }
        let group = now.as_ref().expect("no group is deleted here");
        group.check().unwrap();
        if let Some(before) = &before {
            assert!(group.epoch >= before.epoch && group.version > before.version);
            for (id, member) in &before.members {
                assert!(group.members.get(id).is_none_or(|m| m.epoch >= member.epoch));
            }
        }
        for (id, member) in &group.members {
            self.standings.insert(standing(id, member.epoch.0, &member.assigned));
        }
        self.views.push(now);
    }

    /// Whoever could commit consumes what is agreed to be its own, and nothing else. (One that was removed
    /// may not know yet; what it does counts for nothing.)
    fn check(&self) {
        let Some(group) = self.world.agreed() else { return };
        for client in &self.clients {
            let Some(member) = group.members.get(&client.member_id()) else { continue };
            if member.epoch.0 == client.epoch && !member.away {
                let stranger = client.owned.iter().find(|tp| !member.owned().any(|owned| owned == *tp));
                assert_eq!(stranger, None, "{} consumes another's", client.member_id());
            }
        }
    }

    /// No more faults: how long until everybody has its part, ms.
    fn converge(&mut self) -> u64 {
        for client in &mut self.clients {
            client.give_up();
            client.at = 0;
        }
        self.world.proposals.clear();
        self.show(0, usize::MAX / 2);
        let started = self.world.now_ms;
        loop {
            for _ in 0..20 {
                for i in 0..self.clients.len() {
                    // An answer, what it asks for, and the next request.
                    for n in [2, 0, 2] {
                        self.act(i, n);
                        self.clients[i].at = 0;
                    }
                }
                while !self.world.proposals.is_empty() {
                    self.apply_proposal(1, false);
                    self.show(0, usize::MAX / 2);
                    self.check();
                }
            }
            self.world.tell_topics(0);
            if self.is_converged() {
                return self.world.now_ms - started;
            }
            assert!(
                self.world.now_ms - started <= 4 * CONVERGE_MS,
                "it does not converge: {}; {:?}",
                self.world.summary(),
                self.clients.iter().filter(|c| c.alive).collect::<Vec<_>>(),
            );
            self.world.advance(HEARTBEAT_MS);
        }
    }

    fn is_converged(&self) -> bool {
        let alive: BTreeMap<_, _> =
            self.clients.iter().filter(|c| c.alive).map(|c| (c.member_id(), c)).collect();
        let Some(group) = self.world.agreed() else { return alive.is_empty() };
        let settled = |(id, member): (&Arc<str>, &Arc<ConsumerMember>)| {
            alive.get(id).is_some_and(|c| {
                c.owned == member.assigned && c.epoch == member.epoch.0 && member.is_at(group.target_epoch)
            })
        };
        let wanted = match (alive.is_empty(), alive.values().any(|c| c.name.is_multiple_of(2))) {
            (true, _) => 0,
            (false, true) => self.partitions as usize + 2,
            (false, false) => self.partitions as usize,
        };
        group.members.len() == alive.len()
            && group.members.iter().all(settled)
            && group.owners().unwrap().len() == wanted
    }
}

impl Client {
    fn give_up(&mut self) {
        if self.waiting.take().is_some() {
            self.full = true;
        }
    }

    fn move_to(&mut self, coordinator: usize) {
        self.give_up();
        self.at = coordinator;
        self.full = true;
    }
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
    let groups = || chaos.views.iter().flatten();
    let epochs = groups().map(|g| g.epoch).collect::<BTreeSet<_>>().len();
    let revoking = groups().filter(|g| g.members.values().any(|m| !m.revoking.is_empty())).count();
    let away = groups().filter(|g| g.members.values().any(|m| m.away)).count();
    let stable = groups().filter(|g| g.members.len() > 1 && g.is_stable()).count();
    assert!(epochs > 100 && revoking > 50 && away > 20 && stable > 30, "{epochs} {revoking} {away} {stable}");
    assert!(chaos.accepted_commits > 20, "{} commits", chaos.accepted_commits);
    chaos.converge();
}
