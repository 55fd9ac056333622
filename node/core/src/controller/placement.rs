//! Which brokers hold the replicas of new partitions.
//!
//! Greedy, one replica at a time, over brokers that are unfenced and not draining. The first replica (the
//! preferred leader) goes where the topic leads least; each further one to a rack that the partition uses
//! least, then to where the topic has fewest replicas. Within a topic that spreads load evenly even when one
//! broker is new and empty; ties are broken by the load of the whole cluster, then by the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::{Image, Partition};
use strandline_record::{BrokerId, TopicId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error("{wanted} replicas need as many live brokers, there are {available}")]
    NotEnoughBrokers { wanted: usize, available: usize },
    #[error("partitions and replicas must each be at least 1")]
    Nothing,
}

/// What a broker holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load {
    /// Partitions of which it is the preferred leader.
    pub leads: usize,
    pub replicas: usize,
}

/// Load of each registered broker, by the replica lists that are wanted in the end.
pub fn cluster_load(image: &Image) -> BTreeMap<BrokerId, Load> {
    let mut loads = image.brokers.keys().map(|&id| (id, Load::default())).collect();
    image.partitions.values().for_each(|partition| add(&mut loads, wanted(partition)));
    loads
}

/// The replicas that a partition has once its reassignment is done.
pub(super) fn wanted(partition: &Partition) -> &[BrokerId] {
    partition.reassignment.as_deref().unwrap_or(&partition.replicas)
}

pub(super) fn add(loads: &mut BTreeMap<BrokerId, Load>, replicas: &[BrokerId]) {
    for (i, &id) in replicas.iter().enumerate() {
        let load = loads.entry(id).or_default();
        load.replicas += 1;
        load.leads += usize::from(i == 0);
    }
}

/// Replica lists for `partitions` new partitions. `topic`: the topic that they are added to, if it exists
/// (its partitions count as the topic's load). Equal inputs give equal lists; `seed` only breaks ties.
pub fn place(
    image: &Image,
    topic: Option<TopicId>,
    partitions: usize,
    replication: usize,
    seed: u64,
) -> Result<Vec<Vec<BrokerId>>, PlacementError> {
    if partitions == 0 || replication == 0 {
        return Err(PlacementError::Nothing);
    }
    let mut in_topic = BTreeMap::new();
    let of_topic = image.partitions.iter().filter(|(tp, _)| Some(tp.topic) == topic);
    of_topic.for_each(|(_, partition)| add(&mut in_topic, wanted(partition)));
    let mut chooser = Chooser { racks: racks(image), overall: cluster_load(image), in_topic, seed };
    let available = chooser.racks.len();
    if available < replication {
        return Err(PlacementError::NotEnoughBrokers { wanted: replication, available });
    }
    Ok((0..partitions)
        .map(|number| {
            let mut replicas = Vec::with_capacity(replication);
            while replicas.len() < replication {
                let next = chooser.next(&replicas, number as u64).expect("enough brokers, as checked");
                replicas.push(next);
            }
            add(&mut chooser.in_topic, &replicas);
            add(&mut chooser.overall, &replicas);
            replicas
        })
        .collect())
}

/// Brokers that may get a replica, with their racks.
fn racks(image: &Image) -> BTreeMap<BrokerId, Option<Arc<str>>> {
    let fit = |broker: &&Arc<strandline_metadata::Broker>| !broker.fenced && !broker.draining;
    image.brokers.values().filter(fit).map(|broker| (broker.id, broker.rack.clone())).collect()
}

struct Chooser {
    racks: BTreeMap<BrokerId, Option<Arc<str>>>,
    overall: BTreeMap<BrokerId, Load>,
    in_topic: BTreeMap<BrokerId, Load>,
    seed: u64,
}

impl Chooser {
    /// The best broker to add to `replicas` of partition `number`.
    fn next(&self, replicas: &[BrokerId], number: u64) -> Option<BrokerId> {
        let first = replicas.is_empty();
        let load = |loads: &BTreeMap<BrokerId, Load>, id: &BrokerId| {
            let load = loads.get(id).copied().unwrap_or_default();
            match first {
                true => (load.leads, load.replicas),
                false => (load.replicas, 0),
            }
        };
        let same_rack = |rack: &Option<Arc<str>>| {
            let on_rack = |id: &&BrokerId| rack.is_some() && self.racks.get(*id) == Some(rack);
            replicas.iter().filter(on_rack).count()
        };
        let cost = |(id, rack): &(&BrokerId, &Option<Arc<str>>)| {
            let tie = mix(self.seed ^ mix(number) ^ mix(id.get()));
            (same_rack(rack), load(&self.in_topic, id), load(&self.overall, id), tie)
        };
        self.racks.iter().filter(|(id, _)| !replicas.contains(id)).min_by_key(cost).map(|(&id, _)| id)
    }
}

/// The broker to take the place of those that leave: fit, not among `staying`, on a rack that `staying` uses
/// least, with the least load. `None` if there is none.
pub(super) fn replacement(
    image: &Image,
    staying: &[BrokerId],
    overall: &BTreeMap<BrokerId, Load>,
) -> Option<BrokerId> {
    let mut racks = racks(image);
    // Racks of brokers that stay count even if those brokers may get nothing new themselves.
    let stay: BTreeSet<BrokerId> = staying.iter().copied().collect();
    for &id in &stay {
        if let Some(broker) = image.broker(id) {
            racks.insert(id, broker.rack.clone());
        }
    }
    if racks.len() == stay.len() {
        return None;
    }
    // As a follower: the place in the list is the caller's business.
    let chooser = Chooser { racks, overall: overall.clone(), in_topic: BTreeMap::new(), seed: 0 };
    match staying.is_empty() {
        true => chooser.next(&[], 0),
        false => chooser.next(staying, 0),
    }
}

/// splitmix64: spreads ties.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
