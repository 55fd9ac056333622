//! The cluster: brokers, the agreed history, and everything under way between them.

use crate::log::{Log, Record};
use crate::profile::Profile;
use std::collections::BTreeMap;
use strandline_core::partition::{
    Answer, Damage, Effects, Follower, FollowerAck, FollowerRequest, FollowerStart, Leader, LeaderConfig,
    LeaderStart, Role, desired_role,
};
use strandline_metadata::{BrokerEndpoints, Command, Delta, Image, Partition, Rejection, Response, machine};
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, TopicId, TopicPartition};
use uuid::Uuid;

pub const BROKERS: u64 = 4;
pub const TP: TopicPartition =
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: PartitionId(0) };

pub struct World {
    pub profile: &'static Profile,
    pub now_ms: u64,
    /// The agreed history; the last is what is agreed now.
    pub history: Vec<Image>,
    pub nodes: BTreeMap<BrokerId, Node>,
    pub net: Vec<Message>,
    pub proposals: Vec<Command>,
    pub answers: Vec<(BrokerId, Result<Partition, Rejection>)>,
    /// Everything that was ever below some leader's high watermark: visible, and acknowledged. By offset.
    pub committed: Vec<Record>,
    /// A high watermark passed an offset that had another value already.
    pub broken: Option<String>,
    /// The highest log start that a leader has declared.
    pub declared_start: i64,
    pub next_value: u64,
    pub high_watermarks: BTreeMap<(BrokerId, LeaderEpoch), Offset>,
    pub damage_happened: bool,
    pub stats: Stats,
    pub trace: Vec<String>,
}

pub struct Node {
    pub id: BrokerId,
    pub up: bool,
    pub log: Log,
    pub image: usize,
    pub registered: Option<BrokerEpoch>,
    /// Recorded on disk by a clean stop, erased by the next start.
    pub clean_epoch: Option<BrokerEpoch>,
    pub position: Position,
    // What goes from one role of this process to the next.
    pub flushed: i64,
    pub high_watermark: Offset,
    pub high_watermark_epoch: LeaderEpoch,
    pub truncations: u64,
    pub number: u64,
    pub last_led: LeaderEpoch,
    pub damage: Option<Damage>,
    /// Requests that wait at this leader for data: number and position.
    pub waiting: BTreeMap<BrokerId, (u64, Offset)>,
}

#[derive(Debug)]
pub enum Position {
    Idle,
    Leader(Leader),
    Follower(Follower),
}

#[derive(Clone, Debug)]
pub enum Message {
    Fetch { from: BrokerId, to: BrokerId, request: FollowerRequest },
    Ack { to: BrokerId, ack: FollowerAck },
    Answer { to: BrokerId, answer: Answer, records: Vec<Record> },
}

impl Node {
    pub fn leader(&self) -> Option<&Leader> {
        match &self.position {
            Position::Leader(leader) if leader.deposed().is_none() => Some(leader),
            _ => None,
        }
    }

    pub fn high_watermark(&self) -> (Offset, LeaderEpoch) {
        match &self.position {
            Position::Idle => (self.high_watermark, self.high_watermark_epoch),
            Position::Leader(leader) => (leader.high_watermark(), leader.high_watermark_epoch()),
            Position::Follower(follower) => (follower.high_watermark(), follower.high_watermark_epoch()),
        }
    }

    /// Keeps what the next role starts from.
    pub fn leave_role(&mut self) {
        (self.high_watermark, self.high_watermark_epoch) = self.high_watermark();
        if let Position::Follower(follower) = &self.position {
            self.number = follower.last_number();
            self.truncations = follower.truncations();
        }
        self.position = Position::Idle;
        self.waiting.clear();
    }

    /// The process is gone, and with it everything that is not on disk.
    pub fn stop(&mut self) {
        self.up = false;
        self.position = Position::Idle;
        self.waiting.clear();
        self.log.flushes.clear();
        self.registered = None;
        self.high_watermark = Offset(self.log.start);
        self.high_watermark_epoch = LeaderEpoch(0);
        self.truncations = 0;
        self.number = 0;
        self.flushed = self.log.durable;
    }

    pub fn cut(&mut self, end: i64) {
        self.log.truncate(end);
        self.flushed = self.flushed.min(end);
        self.high_watermark = self.high_watermark.min(Offset(end));
        self.truncations += 1;
    }
}

impl World {
    pub fn new(profile: &'static Profile) -> Self {
        let mut world = World {
            profile,
            now_ms: 1_000,
            history: vec![Image::default()],
            nodes: BTreeMap::new(),
            net: vec![],
            proposals: vec![],
            answers: vec![],
            committed: vec![],
            broken: None,
            declared_start: 0,
            next_value: 0,
            high_watermarks: BTreeMap::new(),
            damage_happened: false,
            stats: Stats::default(),
            trace: vec![],
        };
        world.apply(&Command::FormCluster { cluster_id: Uuid::nil(), now_ms: 0 });
        for id in (1..=BROKERS).map(BrokerId) {
            world.nodes.insert(id, Node::new(id));
            world.register(id, None);
            let epoch = world.nodes[&id].registered.expect("registered");
            world.apply(&Command::UnfenceBroker { id, epoch });
        }
        let mut configs = BTreeMap::new();
        configs.insert("flush".into(), profile.flush.into());
        configs.insert("min.insync.replicas".into(), "2".into());
        if profile.unclean {
            configs.insert("unclean.leader.election.enable".into(), "true".into());
        }
        world.apply(&Command::CreateTopic {
            id: TP.topic,
            name: "t".into(),
            assignments: vec![(1..=3).map(BrokerId).collect()],
            configs,
            now_ms: 0,
        });
        if profile.joins {
            let (id, epoch) = (BrokerId(3), world.nodes[&BrokerId(3)].registered.expect("registered"));
            world.apply(&Command::FenceBroker { id, epoch });
            world.apply(&Command::UnfenceBroker { id, epoch });
        }
        for id in (1..=BROKERS).map(BrokerId) {
            world.see_image(id, world.history.len() - 1);
        }
        world
    }

    pub fn agreed(&self) -> &Image {
        self.history.last().expect("there always is one")
    }

    pub fn partition(&self) -> &Partition {
        self.agreed().partition(TP).expect("never deleted")
    }

    pub fn image(&self, id: BrokerId) -> &Image {
        &self.history[self.nodes[&id].image]
    }

    pub fn node(&mut self, id: BrokerId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a broker")
    }

    /// Raft agrees on a command.
    pub fn apply(&mut self, command: &Command) -> Response {
        let mut next = self.agreed().clone();
        let index = next.index + 1;
        let before = next.partition(TP).cloned();
        let response = machine::apply(&mut next, index, command, &mut Delta::default());
        if let (Some(before), Some(after)) = (before, next.partition(TP)) {
            self.stats.see_partition(&before, after, command);
        }
        self.history.push(next);
        response
    }

    pub fn register(&mut self, id: BrokerId, clean_epoch: Option<BrokerEpoch>) {
        let response = self.apply(&Command::RegisterBroker {
            id,
            directory: Uuid::from_u64_pair(1, id.get()),
            cluster_id: Uuid::nil(),
            endpoints: BrokerEndpoints::default(),
            rack: None,
            clean_epoch,
        });
        let Response::Registered { epoch } = response else { panic!("refused: {response:?}") };
        self.node(id).registered = Some(epoch);
    }

    /// The broker's image moves on, and it does what that asks for.
    pub fn see_image(&mut self, id: BrokerId, to: usize) {
        self.node(id).image = to;
        self.take_role(id);
    }

    pub fn take_role(&mut self, id: BrokerId) {
        let now_ms = self.now_ms;
        let node = self.nodes.get_mut(&id).expect("a broker");
        if !node.up {
            return;
        }
        let image = self.history[node.image].clone();
        let role = desired_role(id, node.registered, &image, TP, node.damage);
        let mut effects = Effects::default();
        match (role, &mut node.position) {
            // A leader is told of everything, its own end included.
            (role, Position::Leader(leader)) if role.epoch().is_none_or(|epoch| epoch == leader.epoch()) => {
                if matches!(role, Role::Leader { .. }) {
                    effects = leader.image(&image, now_ms);
                } else {
                    node.leave_role();
                }
            }
            (Role::Follower { epoch, .. }, Position::Follower(follower)) if follower.epoch() == epoch => {}
            (Role::Idle(_), _) => node.leave_role(),
            (Role::Leader { epoch }, _) => {
                node.leave_role();
                node.repair();
                assert!(epoch > node.last_led, "{id} would lead epoch {epoch} again");
                node.last_led = epoch;
                let leader = Leader::new(LeaderStart {
                    me: id,
                    tp: TP,
                    image: &image,
                    config: LeaderConfig { lag_max_ms: 1_000, resend_ms: 100 },
                    log_start: Offset(node.log.start),
                    log_end: Offset(node.log.end()),
                    flushed: Offset(node.flushed),
                    high_watermark: node.high_watermark,
                    high_watermark_epoch: node.high_watermark_epoch,
                    truncations: node.truncations,
                    now_ms,
                });
                effects.high_watermark = Some(leader.high_watermark());
                self.stats.leaders += 1;
                self.stats.restarted_leaders += u64::from(node.registered > Some(BrokerEpoch(9)));
                node.position = Position::Leader(leader);
            }
            (Role::Follower { leader, epoch }, _) => {
                node.leave_role();
                node.repair();
                let partition = image.partition(TP).expect("it has a role in it");
                let mut start = FollowerStart {
                    tp: TP,
                    leader,
                    epoch,
                    broker_epoch: node.registered.expect("it has a role"),
                    unclean_epoch: partition.unclean_epoch,
                    log_start: Offset(node.log.start),
                    log_end: Offset(node.log.end()),
                    last_epoch: node.log.last_epoch(),
                    flushed: Offset(node.flushed),
                    high_watermark: node.high_watermark,
                    high_watermark_epoch: node.high_watermark_epoch,
                    truncations: node.truncations,
                    last_number: node.number,
                };
                if start.begins_again() {
                    node.log.reset(0);
                    node.flushed = 0;
                    start = start.begun_again();
                }
                node.position = Position::Follower(Follower::new(start));
            }
        }
        let holds_nothing = role == Role::Idle(strandline_core::partition::IdleReason::NotReplica);
        if holds_nothing {
            let node = self.node(id);
            node.log.reset(0);
            (node.flushed, node.high_watermark) = (0, Offset(0));
            node.truncations += 1;
            node.damage = None;
        }
        self.carry_out(id, effects);
    }

    /// What a leader's decisions do.
    pub fn carry_out(&mut self, id: BrokerId, effects: Effects) {
        if let Some(command) = effects.alter {
            if self.nodes[&id].leader().is_some_and(|leader| leader.maximal_isr() != *leader.committed_isr())
            {
                self.stats.proposals_again += 1;
            }
            self.proposals.push(command);
        }
        if let Some(high_watermark) = effects.high_watermark {
            self.passed(id, high_watermark);
        }
    }

    /// A leader's high watermark: everything below is visible and acknowledged from now on.
    fn passed(&mut self, id: BrokerId, high_watermark: Offset) {
        let node = &self.nodes[&id];
        let leader = node.leader().expect("only a leader's high watermark advances");
        let seen = self.high_watermarks.insert((id, leader.epoch()), high_watermark);
        if seen.is_some_and(|seen| seen > high_watermark) {
            self.broken = Some(format!("high watermark went back: {id} in epoch {}", leader.epoch()));
        }
        for offset in node.log.start..high_watermark.get() {
            let record = node.log.get(offset).expect("below the high watermark");
            let known = self.committed.get(offset as usize);
            match known {
                Some(known) if *known == record => {}
                Some(known) if !self.profile.unclean => {
                    self.broken = Some(format!("two values: {known:?} and {record:?} at {offset} on {id}"));
                }
                Some(_) => self.committed[offset as usize] = record,
                None if offset as usize == self.committed.len() => {
                    self.stats.commits += 1;
                    self.stats.committed_later += u64::from(leader.epoch() > LeaderEpoch(1));
                    self.committed.push(record);
                }
                None => {
                    self.broken = Some(format!("a gap: {offset} committed after {}", self.committed.len()));
                    return;
                }
            }
        }
    }
}

impl Node {
    fn new(id: BrokerId) -> Self {
        Node {
            id,
            up: true,
            log: Log::default(),
            image: 0,
            registered: None,
            clean_epoch: None,
            position: Position::Idle,
            flushed: 0,
            high_watermark: Offset(0),
            high_watermark_epoch: LeaderEpoch(0),
            truncations: 0,
            number: 0,
            last_led: LeaderEpoch(0),
            damage: None,
            waiting: BTreeMap::new(),
        }
    }

    /// The report is in the image (else there would be no role): what was damaged is gone already here.
    fn repair(&mut self) {
        self.damage = None;
    }
}

/// What the walks have been through.
#[derive(Debug, Default)]
pub struct Stats {
    pub commits: u64,
    pub committed_later: u64,
    pub truncations: u64,
    pub resets: u64,
    pub leaders: u64,
    pub restarted_leaders: u64,
    pub two_leaders: u64,
    pub isr_shrinks: u64,
    pub isr_grows: u64,
    pub elr_elections: u64,
    pub rejected_alters: u64,
    pub proposals_again: u64,
    pub lost_tails: u64,
    pub late_flushes: u64,
    pub not_enough_replicas: u64,
    pub ignored: u64,
    pub acks: u64,
    pub damages: u64,
    pub repaired: u64,
    pub replicas_added: u64,
    pub replicas_removed: u64,
    pub deletions: u64,
    pub unclean: u64,
}

impl Stats {
    fn see_partition(&mut self, before: &Partition, after: &Partition, command: &Command) {
        if let Command::AlterPartition { .. } = command {
            self.rejected_alters += u64::from(before.partition_epoch == after.partition_epoch);
            self.isr_grows += u64::from(after.isr.len() > before.isr.len());
            self.isr_shrinks += u64::from(after.isr.len() < before.isr.len());
            let back = |id: &BrokerId| before.damage_reports.contains_key(id);
            self.repaired += after.isr.difference(&before.isr).filter(|id| back(id)).count() as u64;
        }
        let elected = after.leader.filter(|_| after.leader_epoch > before.leader_epoch);
        self.elr_elections += u64::from(elected.is_some_and(|leader| before.elr.contains(&leader)));
        self.unclean += u64::from(after.unclean_epoch > before.unclean_epoch);
        self.replicas_added += u64::from(after.replicas.len() > before.replicas.len());
        self.replicas_removed += u64::from(after.replicas.len() < before.replicas.len());
    }

    pub fn add(&mut self, other: &Stats) {
        self.commits += other.commits;
        self.committed_later += other.committed_later;
        self.truncations += other.truncations;
        self.resets += other.resets;
        self.leaders += other.leaders;
        self.restarted_leaders += other.restarted_leaders;
        self.two_leaders += other.two_leaders;
        self.isr_shrinks += other.isr_shrinks;
        self.isr_grows += other.isr_grows;
        self.elr_elections += other.elr_elections;
        self.rejected_alters += other.rejected_alters;
        self.proposals_again += other.proposals_again;
        self.lost_tails += other.lost_tails;
        self.late_flushes += other.late_flushes;
        self.not_enough_replicas += other.not_enough_replicas;
        self.ignored += other.ignored;
        self.acks += other.acks;
        self.damages += other.damages;
        self.repaired += other.repaired;
        self.replicas_added += other.replicas_added;
        self.replicas_removed += other.replicas_removed;
        self.deletions += other.deletions;
        self.unclean += other.unclean;
    }
}

/// splitmix64.
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
