//! Who takes part in a run: nodes, topics and clients, drawn from the seed.

use crate::history::{Acks, TopicFacts};
use crate::run::Limits;
use crate::seeds::Seed;
use crate::workload::group::MemberPlan;
use crate::workload::offsets::WatcherPlan;
use crate::workload::produce::ProducerPlan;
use crate::world::PEER_PORT;
use rand::RngExt;
use rand::seq::IndexedRandom;
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_client::{Assignor, Compression};
use strandline_node::config::{FormCluster, HostPort, NodeConfig};
use strandline_record::BrokerId;

#[derive(Clone, Debug)]
pub struct Cast {
    pub nodes: usize,
    pub topics: Vec<TopicPlan>,
    pub readers: usize,
    pub producers: usize,
    pub members: usize,
    pub static_members: bool,
    pub assignor: Assignor,
    /// What a scenario changes of what was drawn.
    pub twist: Twist,
    seed: Seed,
}

/// Changes to what the seed draws for each, by its number.
#[derive(Clone, Copy, Debug)]
pub struct Twist {
    pub node: fn(&mut NodeConfig),
    pub producer: fn(usize, &mut ProducerPlan),
    pub member: fn(usize, &mut MemberPlan),
}

impl Default for Twist {
    fn default() -> Self {
        Twist { node: |_| {}, producer: |_, _| {}, member: |_, _| {} }
    }
}

#[derive(Clone, Debug)]
pub struct TopicPlan {
    pub name: String,
    pub facts: TopicFacts,
    /// As they are sent with the creation.
    pub configs: Vec<(String, String)>,
}

pub fn draw_cast(seed: Seed, limits: Limits) -> Cast {
    let mut rng = seed.rng();
    let nodes = *[3, 3, 3, 4, 5, 5, 7].choose(&mut rng).expect("it is not empty");
    let nodes = nodes.min(limits.nodes.max(1));
    let (producers, readers, members) =
        (rng.random_range(1..=3), rng.random_range(1..=2), rng.random_range(1..=4));
    let static_members = rng.random_bool(0.3);
    let assignor = *[Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky]
        .choose(&mut rng)
        .expect("it is not empty");
    let replication = 3.min(nodes);
    let plain = TopicPlan {
        name: "events".to_owned(),
        facts: TopicFacts {
            partitions: rng.random_range(2..=4),
            replication,
            min_insync: 2.min(replication),
            flush_ack: true,
            retention: false,
            unclean_elections: false,
        },
        configs: vec![("segment.bytes".to_owned(), "65536".to_owned())],
    };
    let mut topics = vec![plain.clone()];
    // A second topic whose rules differ: other flush modes, short retention.
    if rng.random_bool(0.5) {
        let mut facts = TopicFacts { partitions: 2, ..plain.facts };
        let mut configs = plain.configs.clone();
        match rng.random_range(0..3) {
            0 => {
                facts.retention = true;
                configs.push(("retention.bytes".to_owned(), "131072".to_owned()));
            }
            1 => {
                // Where every replica was stopped uncleanly none is known to be complete: only an unclean election
                // gives such a partition a leader again.
                (facts.flush_ack, facts.unclean_elections) = (false, true);
                configs.push(("unclean.leader.election.enable".to_owned(), "true".to_owned()));
                configs.push(("flush".to_owned(), "interval".to_owned()));
            }
            _ => {
                facts.min_insync = 1;
                configs.push(("min.insync.replicas".to_owned(), "1".to_owned()));
            }
        }
        topics.push(TopicPlan { name: "others".to_owned(), facts, configs });
    }
    Cast {
        nodes,
        topics,
        readers: readers.min(limits.clients),
        producers: producers.min(limits.clients),
        members: members.min(limits.clients),
        static_members,
        assignor,
        twist: Twist::default(),
        seed,
    }
}

impl Cast {
    /// The first three form the cluster; the others join.
    pub fn node_configs(&self) -> Vec<NodeConfig> {
        let founders = (self.nodes as u64).min(3);
        let members: BTreeMap<BrokerId, HostPort> =
            (1..=founders).map(|id| (BrokerId(id), peer(id))).collect();
        (1..=self.nodes as u64)
            .map(|id| match id <= founders {
                true => {
                    NodeConfig { form_cluster: Some(FormCluster(members.clone())), ..self.node_config(id) }
                }
                false => self.joining(id),
            })
            .collect()
    }

    /// A node that joins.
    pub fn joining(&self, id: u64) -> NodeConfig {
        let founders = (self.nodes as u64).min(3);
        NodeConfig { join: (1..=founders).map(peer).collect(), ..self.node_config(id) }
    }

    fn node_config(&self, id: u64) -> NodeConfig {
        let mut rng = self.seed.fork("nodes").nth(id).rng();
        let mut config = NodeConfig::new(BrokerId(id), "/data");
        config.journal_file_bytes = 4 << 20;
        config.disk_reserved_bytes = 16 << 20;
        config.scrub_bytes_per_second = 1 << rng.random_range(16..24);
        // As few as that in some runs, so that snapshots are taken, sent and recovered from.
        config.raft_snapshot_entries = *[40, 200, 5_000].choose(&mut rng).expect("it is not empty");
        (self.twist.node)(&mut config);
        config
    }

    pub fn topic_sizes(&self) -> Vec<(String, i32)> {
        self.topics.iter().map(|topic| (topic.name.clone(), topic.facts.partitions)).collect()
    }

    pub fn producers(&self, bootstrap: &str) -> Vec<(String, ProducerPlan)> {
        let mut rng = self.seed.fork("producers").rng();
        (0..self.producers)
            .map(|number| {
                let topic = self.topics.choose(&mut rng).expect("there is a topic");
                let acks = match rng.random_range(0..10) {
                    0 => Acks::Leader,
                    1 => Acks::None,
                    _ => Acks::All,
                };
                let mut plan = ProducerPlan {
                    bootstrap: bootstrap.to_owned(),
                    // The first one always writes to the topic with the strictest promise.
                    topic: if number == 0 { self.topics[0].name.clone() } else { topic.name.clone() },
                    partitions: if number == 0 {
                        self.topics[0].facts.partitions
                    } else {
                        topic.facts.partitions
                    },
                    acks: if number == 0 { Acks::All } else { acks },
                    idempotent: acks == Acks::All && rng.random_bool(0.8),
                    compression: *[Compression::None, Compression::Lz4, Compression::Zstd]
                        .choose(&mut rng)
                        .expect("it is not empty"),
                    pause: Duration::from_millis(rng.random_range(5..60)),
                    value_bytes: rng.random_range(20..800),
                    clock_off_ms: 0,
                };
                (self.twist.producer)(number, &mut plan);
                (format!("producer-{number}"), plan)
            })
            .collect()
    }

    pub fn members(&self, bootstrap: &str) -> Vec<(String, MemberPlan)> {
        let mut rng = self.seed.fork("members").rng();
        (0..self.members)
            .map(|number| {
                let mut plan = MemberPlan {
                    bootstrap: bootstrap.to_owned(),
                    group: "workers".to_owned(),
                    topics: self.topics.iter().map(|topic| topic.name.clone()).collect(),
                    assignor: self.assignor,
                    instance_id: self.static_members.then(|| format!("static-{number}")),
                    session_timeout: Duration::from_secs(6),
                    work: Duration::from_millis(rng.random_range(1..200)),
                };
                (self.twist.member)(number, &mut plan);
                (format!("member-{number}"), plan)
            })
            .collect()
    }

    pub fn watcher(&self, bootstrap: &str) -> WatcherPlan {
        WatcherPlan {
            bootstrap: bootstrap.to_owned(),
            groups: vec!["workers".to_owned()],
            topics: self.topic_sizes(),
            deletes_from: self.topics.iter().skip(1).map(|t| (t.name.clone(), t.facts.partitions)).collect(),
        }
    }
}

fn peer(id: u64) -> HostPort {
    HostPort::new(format!("node-{id}"), PEER_PORT)
}
