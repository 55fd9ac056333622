//! What an operator does who reads what the cluster says: removes a machine whose disk is gone and lets it join with an
//! empty one, and gives up what only a lost or rotten copy had.
//!
//! Invariants: unclean elections are allowed only where nobody who is eligible has an intact copy, and a lost or a
//! damaged one explains it (a partition that lost its leader otherwise is a bug, and stays without one, for I19 to see);
//! they are forbidden again afterwards.

use super::{Injector, name};
use crate::workload::admin::{Order, Orders};
use crate::world::{PEER_PORT, World};
use std::collections::BTreeSet;
use strandline_node::config::HostPort;

/// So long a healed cluster has no leader of a partition with a damaged copy before somebody looks at it.
const PATIENCE_US: u64 = 5_000_000;

#[derive(Debug, Default)]
pub(super) struct Operator {
    /// A wiped node on its way back.
    readmission: Option<Readmission>,
    /// All faults have ended.
    healed: bool,
    /// When the first partition that only a damaged copy may lead was seen.
    rotten_since: Option<u64>,
    /// Topics that were given up because of damage.
    given_up: BTreeSet<String>,
}

#[derive(Debug)]
struct Readmission {
    node: u64,
    order: Option<u64>,
    tries: u64,
    /// Topics of which nobody else may lead a partition. What only the lost disk had is given up.
    given_up: BTreeSet<String>,
}

impl Operator {
    /// A node whose disk was wiped is to come back.
    pub(super) fn bring_back(&mut self, node: u64) {
        self.readmission = Some(Readmission { node, order: None, tries: 0, given_up: BTreeSet::new() });
    }

    /// Who is on the way back.
    pub(super) fn brings_back(&self) -> Option<u64> {
        self.readmission.as_ref().map(|readmission| readmission.node)
    }

    pub(super) fn all_is_healed(&mut self) {
        self.healed = true;
    }

    /// Nothing is left to do.
    pub(super) fn is_done(&self) -> bool {
        self.readmission.is_none() && self.given_up.is_empty()
    }

    /// Topics with a partition that only damaged replicas may lead: with a minimum of one in-sync replica, the damage of
    /// one copy may be more than a topic tolerates.
    fn give_up_rotten(&mut self, world: &World, orders: &Orders) {
        let Some(newest) = world.views().values().max_by_key(|view| view.image.index) else { return };
        let is_damaged = |id: &u64, tp| {
            let replica = world.views().get(id).and_then(|view| view.replicas.get(tp));
            replica.is_some_and(|replica| replica.damaged)
        };
        let mut rotten = BTreeSet::new();
        let mut leaderless = BTreeSet::new();
        for (tp, partition) in newest.image.partitions.iter().filter(|(_, one)| one.leader.is_none()) {
            leaderless.insert(tp.topic.to_string());
            let mut eligible = partition.isr.iter().chain(&partition.elr);
            if partition.replicas.iter().any(|id| is_damaged(id, tp)) && eligible.all(|id| is_damaged(id, tp))
            {
                rotten.insert(tp.topic.to_string());
            }
        }
        if rotten.is_empty() {
            self.rotten_since = None;
        } else if world.now_us() >= *self.rotten_since.get_or_insert(world.now_us()) + PATIENCE_US {
            for topic in rotten {
                if self.given_up.insert(topic.clone()) {
                    world.trace().note(
                        "fault",
                        format_args!("{topic} is given up where only damaged copies are left"),
                    );
                    orders.give(unclean_elections(&topic, true));
                }
            }
        }
        self.given_up.retain(|topic| {
            let is_led = !leaderless.contains(topic);
            if is_led {
                orders.give(unclean_elections(topic, false));
            }
            !is_led
        });
    }
}

impl Injector {
    pub(super) fn operate(&mut self, world: &mut World) {
        self.readmit(world);
        if self.operator.healed {
            self.operator.give_up_rotten(world, &self.orders);
        }
    }

    /// A wiped node is removed by an admin, then joins with an empty directory.
    fn readmit(&mut self, world: &mut World) {
        let Some(back) = &mut self.operator.readmission else { return };
        let node = back.node;
        match back.order {
            None => back.order = Some(self.orders.give(Order::RemoveNode { node })),
            Some(order) => match self.orders.result(order) {
                None => {}
                Some(Ok(())) => {
                    let members: Vec<HostPort> = world
                        .node_ids()
                        .into_iter()
                        .filter(|id| *id != node)
                        .map(|id| HostPort::new(name(id), PEER_PORT))
                        .collect();
                    world.configure(node, |config| {
                        config.form_cluster = None;
                        config.join = members;
                    });
                    world.start(node);
                    for topic in &back.given_up {
                        self.orders.give(unclean_elections(topic, false));
                    }
                    self.operator.readmission = None;
                }
                Some(Err(why)) => {
                    back.tries += 1;
                    world.trace().note(
                        "fault",
                        format_args!("node-{node} is not removed yet (try {}): {why}", back.tries),
                    );
                    back.order = None;
                    // What an operator does who reads what `remove-node` says about them.
                    for topic in led_by_nobody_else(world, node) {
                        if back.given_up.insert(topic.clone()) {
                            self.orders.give(unclean_elections(&topic, true));
                        }
                    }
                }
            },
        }
    }
}

fn unclean_elections(topic: &str, allowed: bool) -> Order {
    let set = vec![("unclean.leader.election.enable".to_owned(), allowed.to_string())];
    Order::AlterTopic { name: topic.to_owned(), set }
}

/// Topics with a partition whose last eligible replica is on this node: with a minimum of one in-sync replica, or when
/// nothing is flushed, the loss of one disk may be more than a topic tolerates.
fn led_by_nobody_else(world: &World, node: u64) -> BTreeSet<String> {
    let newest = world.views().values().max_by_key(|view| view.image.index);
    let partitions = newest.iter().flat_map(|view| &view.image.partitions);
    let orphaned = partitions.filter(|(_, partition)| {
        partition.leader.is_none() && partition.isr.iter().chain(&partition.elr).all(|id| *id == node)
    });
    orphaned.map(|(tp, _)| tp.topic.to_string()).collect()
}
