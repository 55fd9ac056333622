//! Clusters for tests, agreed the way a real one is: command by command through `machine::apply`.
#![allow(dead_code)] // each test crate uses its part

use std::sync::Arc;
use strandline_metadata::{BrokerEndpoints, Command, Delta, Election, Image, Partition, Response, machine};
use strandline_record::{BrokerEpoch, BrokerId, PartitionId, TopicId, TopicPartition};
use uuid::Uuid;

pub const TOPIC: TopicId = TopicId(Uuid::from_u128(7));

pub fn tp(number: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition: PartitionId(number) }
}

pub fn id(number: u64) -> BrokerId {
    BrokerId(number)
}

pub fn ids(numbers: &[u64]) -> Vec<BrokerId> {
    numbers.iter().copied().map(BrokerId).collect()
}

#[derive(Clone)]
pub struct Cluster {
    pub image: Image,
}

impl Cluster {
    /// Brokers `1..=brokers`, unfenced.
    pub fn of(brokers: u64) -> Self {
        let mut cluster = Cluster { image: Image::default() };
        cluster.apply(Command::FormCluster { cluster_id: Uuid::nil(), now_ms: 0 });
        for id in 1..=brokers {
            cluster.join(id, None);
        }
        cluster
    }

    pub fn apply(&mut self, command: Command) -> (Response, Delta) {
        let mut delta = Delta::default();
        let index = self.image.index + 1;
        let response = machine::apply(&mut self.image, index, &command, &mut delta);
        (response, delta)
    }

    pub fn register(&mut self, broker: u64, rack: Option<&str>) -> BrokerEpoch {
        let endpoints = BrokerEndpoints { peer: format!("node{broker}:7170").into(), ..Default::default() };
        let (response, _) = self.apply(Command::RegisterBroker {
            id: id(broker),
            directory: Uuid::from_u64_pair(1, broker),
            cluster_id: Uuid::nil(),
            endpoints,
            rack: rack.map(Arc::from),
            clean_epoch: None,
        });
        let Response::Registered { epoch } = response else { panic!("{response:?}") };
        epoch
    }

    pub fn join(&mut self, broker: u64, rack: Option<&str>) {
        let epoch = self.register(broker, rack);
        self.apply(Command::UnfenceBroker { id: id(broker), epoch });
    }

    pub fn epoch(&self, broker: u64) -> BrokerEpoch {
        self.image.broker(id(broker)).expect("registered").epoch
    }

    pub fn fence(&mut self, broker: u64) {
        let epoch = self.epoch(broker);
        self.apply(Command::FenceBroker { id: id(broker), epoch });
    }

    pub fn unfence(&mut self, broker: u64) {
        let epoch = self.epoch(broker);
        self.apply(Command::UnfenceBroker { id: id(broker), epoch });
    }

    pub fn drain(&mut self, broker: u64) -> Delta {
        self.apply(Command::SetDraining { id: id(broker), draining: true }).1
    }

    pub fn topic(&mut self, assignments: &[&[u64]], configs: &[(&str, &str)]) {
        let (response, _) = self.apply(Command::CreateTopic {
            id: TOPIC,
            name: "t".into(),
            assignments: assignments.iter().map(|replicas| ids(replicas)).collect(),
            configs: configs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            now_ms: 0,
        });
        assert!(matches!(response, Response::TopicCreated { .. }), "{response:?}");
    }

    pub fn configure(&mut self, key: &str, value: &str) {
        let set = [(key.into(), value.into())].into();
        let (response, _) =
            self.apply(Command::AlterTopicConfigs { topic: TOPIC, set, unset: Default::default() });
        assert_eq!(response, Response::Done);
    }

    pub fn elect(&mut self, number: i32, to: u64) {
        let kind = Election::To(id(to));
        let (response, _) = self.apply(Command::ElectLeader { tp: tp(number), kind });
        assert!(matches!(response, Response::Partition(_)), "{response:?}");
    }

    pub fn partition(&self, number: i32) -> &Partition {
        self.image.partition(tp(number)).expect("a partition")
    }
}
