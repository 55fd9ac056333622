//! "Elect", ElectLeader and ReplicaDamaged.

use super::{Applied, brokers, named_partition, put_partition, settings};
use crate::command::{Election, Rejection, Response};
use crate::configs;
use crate::image::{DamageReport, Delta, Image, Partition};
use std::collections::BTreeSet;
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicPartition};

/// Leader epoch +1; the leader is the first replica in assignment order that is unfenced and in the ISR;
/// else unfenced and in the ELR, and then the ISR is that one alone; else none.
///
/// A draining broker is passed over as long as another one will do: any member of the same set is as safe.
pub(super) fn elect(image: &Image, partition: &mut Partition) {
    partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
    if let Some(leader) = first_alive(image, partition, |b| partition.isr.contains(&b)) {
        partition.leader = Some(leader);
    } else if let Some(leader) = first_alive(image, partition, |b| partition.elr.contains(&b)) {
        partition.leader = Some(leader);
        partition.isr = BTreeSet::from([leader]);
        partition.elr.remove(&leader);
    } else {
        partition.leader = None;
    }
}

fn first_alive(image: &Image, partition: &Partition, among: impl Fn(BrokerId) -> bool) -> Option<BrokerId> {
    let alive = |b: &&BrokerId| among(**b) && image.brokers.get(*b).is_some_and(|b| !b.fenced);
    let draining = |b: &&BrokerId| image.brokers.get(*b).is_some_and(|b| b.draining);
    let alive = || partition.replicas.iter().filter(alive);
    alive().find(|b| !draining(b)).or_else(|| alive().next()).copied()
}

/// An accepted election of who leads already starts no new leader epoch; it raises the partition epoch only.
pub(super) fn elect_leader(
    image: &mut Image,
    tp: TopicPartition,
    kind: Election,
    delta: &mut Delta,
) -> Applied {
    let mut partition = named_partition(image, tp)?;
    match kind {
        Election::Preferred => {
            let preferred = *partition.replicas.first().expect("a partition has replicas");
            hand_over(image, &mut partition, preferred)?;
        }
        Election::To(to) => hand_over(image, &mut partition, to)?,
        Election::Unclean => elect_unclean(image, tp, &mut partition)?,
    }
    Ok(Response::Partition(put_partition(image, tp, partition, delta)))
}

fn hand_over(image: &Image, partition: &mut Partition, to: BrokerId) -> Result<(), Rejection> {
    if !partition.replicas.contains(&to) {
        return Err(Rejection::NotReplica(to));
    }
    let willing = image.brokers.get(&to).is_some_and(|b| !b.fenced && !b.draining);
    if !willing || !partition.isr.contains(&to) {
        return Err(Rejection::NoEligibleReplica);
    }
    if partition.leader != Some(to) {
        partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
        partition.leader = Some(to);
    }
    Ok(())
}

fn elect_unclean(image: &Image, tp: TopicPartition, partition: &mut Partition) -> Result<(), Rejection> {
    if !settings(image, tp, partition).unclean_leader_election {
        return Err(Rejection::InvalidConfig {
            key: configs::UNCLEAN_LEADER_ELECTION_ENABLE.to_owned(),
            reason: "the topic does not allow an unclean election".to_owned(),
        });
    }
    let eligible = |b| partition.isr.contains(&b) || partition.elr.contains(&b);
    if first_alive(image, partition, eligible).is_some() {
        return Err(Rejection::Invalid("a member of the ISR or ELR is alive".to_owned()));
    }
    let leader = first_alive(image, partition, |_| true).ok_or(Rejection::NoEligibleReplica)?;
    partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
    partition.unclean_epoch = partition.leader_epoch;
    partition.leader = Some(leader);
    partition.isr = BTreeSet::from([leader]);
    partition.elr.clear();
    Ok(())
}

/// The damaged replica leaves ISR and ELR, and a new leader epoch begins in any case: what it acknowledged
/// in the old one no longer counts.
pub(super) fn replica_damaged(
    image: &mut Image,
    id: BrokerId,
    epoch: BrokerEpoch,
    tp: TopicPartition,
    from: Offset,
    delta: &mut Delta,
) -> Applied {
    brokers::current(image, id, epoch)?;
    let mut partition = named_partition(image, tp)?;
    if !partition.replicas.contains(&id) {
        return Err(Rejection::NotReplica(id));
    }
    partition.isr.remove(&id);
    partition.elr.remove(&id);
    match partition.leader {
        Some(leader) if leader != id => {
            partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
        }
        _ => elect(image, &mut partition),
    }
    let report = DamageReport { broker_epoch: epoch, from, leader_epoch: partition.leader_epoch };
    partition.damage_reports.insert(id, report);
    Ok(Response::Partition(put_partition(image, tp, partition, delta)))
}
