//! What the plays have in common: a small cast, so that the moment which a hazard needs is easy to hit, and words for
//! looking at partitions.

use crate::draw::{Cast, TopicPlan};
use crate::history::{Acks, TopicFacts, Tp};
use crate::stage::Stage;
use crate::world::Failure;
use std::time::Duration;
use strandline_node::config::NodeConfig;

pub const SECOND: Duration = Duration::from_secs(1);

pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The partition that most plays are about.
pub fn first() -> Tp {
    Tp::new("events", 0)
}

/// So many nodes; one topic of so many partitions with three replicas each; one producer, one reader, one member of a
/// group. Leadership stays where a play puts it.
pub fn small(cast: &mut Cast, nodes: usize, partitions: i32) {
    cast.nodes = nodes;
    cast.topics.truncate(1);
    let topic = &mut cast.topics[0];
    let replication = nodes.min(3);
    topic.facts = TopicFacts {
        partitions,
        replication,
        min_insync: 2.min(replication),
        flush_ack: true,
        retention: false,
        unclean_elections: false,
    };
    (cast.producers, cast.readers, cast.members) = (1, 1, 1);
    cast.static_members = false;
    cast.twist.node = calm;
    cast.twist.producer = |_, plan| (plan.acks, plan.pause) = (Acks::All, ms(8));
}

/// No leader moves but by what the play does.
pub fn calm(config: &mut NodeConfig) {
    config.auto_leader_rebalance_enable = false;
}

/// Also, who lags is noticed soon.
pub fn impatient(config: &mut NodeConfig) {
    calm(config);
    config.replica_lag_time_max = SECOND;
}

pub fn set(topic: &mut TopicPlan, key: &str, value: &str) {
    topic.configs.retain(|(known, _)| known != key);
    topic.configs.push((key.to_owned(), value.to_owned()));
}

pub fn min_insync(cast: &mut Cast, count: usize) {
    cast.topics[0].facts.min_insync = count;
    set(&mut cast.topics[0], "min.insync.replicas", &count.to_string());
}

pub fn unclean_elections(cast: &mut Cast) {
    cast.topics[0].facts.unclean_elections = true;
    set(&mut cast.topics[0], "unclean.leader.election.enable", "true");
}

/// Leader and the two followers of a partition once all three are in sync, in the order of assignment.
pub fn trio(stage: &Stage<'_>, tp: &Tp) -> Option<(u64, u64, u64)> {
    let leader = stage.leader_of(tp)?;
    let partition = stage.partition(tp);
    let followers: Vec<u64> = partition.replicas.iter().copied().filter(|id| *id != leader).collect();
    match followers[..] {
        [one, other] if partition.isr.len() == 3 => Some((leader, one, other)),
        _ => None,
    }
}

/// The same, waited for.
pub fn get_trio(stage: &mut Stage<'_>, tp: &Tp) -> Result<(u64, u64, u64), Failure> {
    stage.must(seconds(20), "three replicas in sync", |stage| trio(stage, tp).is_some())?;
    Ok(trio(stage, tp).expect("it was just there"))
}

/// Everybody but these.
pub fn nodes_but(stage: &Stage<'_>, these: &[u64]) -> Vec<u64> {
    stage.world.node_ids().into_iter().filter(|id| !these.contains(id)).collect()
}

pub fn missed(what: &str) -> Failure {
    Failure::NotProvoked(what.to_owned())
}
