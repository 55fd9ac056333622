//! A small cluster's metadata and short ways to change it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::command::tp;
use strandline_metadata::{
    BrokerEndpoints, Command, Delta, Election, Image, Partition, Rejection, Response, machine,
};
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition};
use uuid::Uuid;

pub const CLUSTER: Uuid = Uuid::from_u128(0xC1);
pub const TOPIC: TopicId = TopicId(Uuid::from_u128(0x70));

#[derive(Clone)]
pub struct World {
    pub image: Image,
    pub delta: Delta,
}

pub fn id(id: u64) -> BrokerId {
    BrokerId(id)
}

pub fn set(ids: &[u64]) -> BTreeSet<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

pub fn registration(number: u64, clean_epoch: Option<BrokerEpoch>) -> Command {
    Command::RegisterBroker {
        id: id(number),
        directory: Uuid::from_u128(number.into()),
        cluster_id: CLUSTER,
        endpoints: BrokerEndpoints::default(),
        rack: None,
        clean_epoch,
    }
}

pub fn create_topic(name: &str, assignments: &[&[u64]], configs: &[(&str, &str)]) -> Command {
    Command::CreateTopic {
        id: TOPIC,
        name: name.into(),
        assignments: assignments.iter().map(|a| a.iter().copied().map(BrokerId).collect()).collect(),
        configs: configs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect(),
        now_ms: 5,
    }
}

impl World {
    pub fn empty() -> World {
        World { image: Image::default(), delta: Delta::default() }
    }

    pub fn formed() -> World {
        let mut world = World::empty();
        world.done(Command::FormCluster { cluster_id: CLUSTER, now_ms: 1 });
        world
    }

    /// Brokers 1, 2, … registered and unfenced.
    pub fn with_brokers(count: u64) -> World {
        let mut world = World::formed();
        for number in 1..=count {
            world.register(number);
            world.unfence(number);
        }
        world
    }

    /// Three brokers and one topic of one partition on them.
    pub fn with_partition(configs: &[(&str, &str)]) -> World {
        let mut world = World::with_brokers(3);
        world.apply(create_topic("events", &[&[1, 2, 3]], configs));
        assert!(world.image.partition(tp(TOPIC, 0)).is_some());
        world
    }

    /// Applies at the next index. A rejected command must have changed nothing.
    pub fn apply(&mut self, command: Command) -> Response {
        let before = self.image.clone();
        let index = before.index + 1;
        self.delta = Delta::default();
        let response = machine::apply(&mut self.image, index, &command, &mut self.delta);
        if let Response::Rejected(_) = response {
            assert_eq!(Image { index: before.index, ..self.image.clone() }, before, "{command:?}");
            assert!(self.delta.is_empty());
        }
        self.image.check().unwrap();
        response
    }

    pub fn done(&mut self, command: Command) {
        assert_eq!(self.apply(command), Response::Done);
    }

    pub fn rejected(&mut self, command: Command) -> Rejection {
        match self.apply(command) {
            Response::Rejected(rejection) => rejection,
            other => panic!("not rejected: {other:?}"),
        }
    }

    pub fn register(&mut self, number: u64) -> BrokerEpoch {
        let clean = self.image.broker(id(number)).map(|b| b.epoch);
        self.register_as(number, clean)
    }

    pub fn register_unclean(&mut self, number: u64) -> BrokerEpoch {
        self.register_as(number, None)
    }

    fn register_as(&mut self, number: u64, clean_epoch: Option<BrokerEpoch>) -> BrokerEpoch {
        match self.apply(registration(number, clean_epoch)) {
            Response::Registered { epoch } => epoch,
            other => panic!("{other:?}"),
        }
    }

    pub fn epoch(&self, number: u64) -> BrokerEpoch {
        self.image.broker(id(number)).unwrap().epoch
    }

    pub fn fence(&mut self, number: u64) {
        self.done(Command::FenceBroker { id: id(number), epoch: self.epoch(number) });
    }

    pub fn unfence(&mut self, number: u64) {
        self.done(Command::UnfenceBroker { id: id(number), epoch: self.epoch(number) });
    }

    pub fn partition(&self) -> Partition {
        (**self.image.partition(self.tp()).unwrap()).clone()
    }

    pub fn tp(&self) -> TopicPartition {
        tp(TOPIC, 0)
    }

    /// (leader or 0, ISR, ELR)
    pub fn roles(&self) -> (u64, Vec<u64>, Vec<u64>) {
        let p = self.partition();
        let numbers = |set: &BTreeSet<BrokerId>| set.iter().map(|b| b.0).collect();
        (p.leader.map_or(0, |b| b.0), numbers(&p.isr), numbers(&p.elr))
    }

    pub fn epochs(&self) -> (i32, i32) {
        let p = self.partition();
        (p.leader_epoch.0, p.partition_epoch.0)
    }

    /// The AlterPartition that the present leader would send.
    pub fn alteration(&self, isr: &[u64]) -> Command {
        let p = self.partition();
        Command::AlterPartition {
            tp: self.tp(),
            requester: p.leader.unwrap(),
            leader_epoch: p.leader_epoch,
            partition_epoch: p.partition_epoch,
            isr: isr.iter().map(|b| (id(*b), self.epoch(*b))).collect(),
        }
    }

    pub fn alter(&mut self, isr: &[u64]) {
        let command = self.alteration(isr);
        assert!(matches!(self.apply(command), Response::Partition(_)));
    }

    pub fn elect(&mut self, kind: Election) -> Response {
        self.apply(Command::ElectLeader { tp: self.tp(), kind })
    }

    pub fn configure(&mut self, values: &[(&str, &str)], unset: &[&str]) -> Response {
        let set: BTreeMap<Arc<str>, Arc<str>> =
            values.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect();
        let unset = unset.iter().map(|k| Arc::from(*k)).collect();
        self.apply(Command::AlterTopicConfigs { topic: TOPIC, set, unset })
    }

    pub fn set_replicas(&mut self, replicas: &[u64]) -> Response {
        let partition_epoch = self.partition().partition_epoch;
        let replicas = replicas.iter().copied().map(BrokerId).collect();
        self.apply(Command::SetReplicas { tp: self.tp(), partition_epoch, replicas })
    }

    pub fn stale(&self) -> Rejection {
        let (leader_epoch, partition_epoch) = self.epochs();
        Rejection::StalePartition {
            leader_epoch: LeaderEpoch(leader_epoch),
            partition_epoch: PartitionEpoch(partition_epoch),
        }
    }
}
