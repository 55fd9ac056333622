//! AlterPartition, SetReplicas, SetReassignment.

use super::{Applied, election, named_partition, put_partition, settings};
use crate::command::{Rejection, Response};
use crate::image::{Delta, Image, Partition};
use std::collections::{BTreeMap, BTreeSet};
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicPartition};

/// The leader's proposal of another ISR (KIP-497, with the broker epochs of KIP-903). Who is removed joins
/// the ELR while the ISR is below `min.insync.replicas`; the requester itself must stay a member.
pub(super) fn alter(
    image: &mut Image,
    tp: TopicPartition,
    requester: BrokerId,
    (leader_epoch, partition_epoch): (LeaderEpoch, PartitionEpoch),
    isr: &BTreeMap<BrokerId, BrokerEpoch>,
    delta: &mut Delta,
) -> Applied {
    let mut partition = named_partition(image, tp)?;
    if partition.leader_epoch != leader_epoch || partition.partition_epoch != partition_epoch {
        return Err(stale(&partition));
    }
    if partition.leader != Some(requester) {
        return Err(Rejection::NotLeader);
    }
    if !isr.contains_key(&requester) {
        return Err(Rejection::Invalid("the leader is always a member of the ISR".to_owned()));
    }
    for (id, epoch) in isr {
        if !partition.replicas.contains(id) {
            return Err(Rejection::NotReplica(*id));
        }
        let broker = super::brokers::current(image, *id, *epoch)?;
        if broker.fenced {
            return Err(Rejection::BrokerFenced(*id));
        }
    }
    let next: BTreeSet<BrokerId> = isr.keys().copied().collect();
    let removed: Vec<BrokerId> = partition.isr.difference(&next).copied().collect();
    partition.elr.retain(|b| !next.contains(b));
    if next.len() < settings(image, tp, &partition).min_insync_replicas {
        partition.elr.extend(removed);
    }
    partition.isr = next;
    Ok(Response::Partition(put_partition(image, tp, partition, delta)))
}

/// Compare-and-set of the replica list, by partition epoch.
///
/// Replicas that are new start outside the ISR. A member of ISR or ELR may be removed only if the ISR that
/// remains has `min.insync.replicas` members (or all of the new list, if that is shorter): each of them holds
/// everything acknowledged, so nothing is lost and no less redundancy remains than was promised. While there is no
/// leader, or the ISR is too small, only replicas outside ISR and ELR may go. Reaching the target ends the
/// reassignment. A removed leader is replaced by election.
///
/// A removal begins a new leader epoch in any case: what the removed replica acknowledged must not count when it
/// is added again, for it has deleted its log in between (hazard 7; the leader's image may skip the removal).
pub(super) fn set_replicas(
    image: &mut Image,
    tp: TopicPartition,
    partition_epoch: PartitionEpoch,
    replicas: &[BrokerId],
    delta: &mut Delta,
) -> Applied {
    let mut partition = named_partition(image, tp)?;
    if partition.partition_epoch != partition_epoch {
        return Err(stale(&partition));
    }
    check_replicas(image, replicas, &partition.replicas)?;
    let stays = |b: &BrokerId| replicas.contains(b);
    let removes = !partition.replicas.iter().all(stays);
    let loses_candidate = !partition.isr.iter().chain(&partition.elr).all(stays);

    partition.replicas = replicas.to_vec();
    partition.isr.retain(stays);
    partition.elr.retain(stays);
    partition.damage_reports.retain(|b, _| stays(b));
    if partition.reassignment.as_deref() == Some(replicas) {
        partition.reassignment = None;
    }
    if loses_candidate {
        let needed = settings(image, tp, &partition).min_insync_replicas.min(replicas.len());
        if partition.isr.len() < needed {
            return Err(Rejection::InvalidReplicas(format!(
                "it removes in-sync or eligible replicas and leaves {} in sync of {needed} needed",
                partition.isr.len()
            )));
        }
    }
    if partition.leader.is_some_and(|leader| !replicas.contains(&leader)) {
        election::elect(image, &mut partition);
    } else if removes {
        partition.leader_epoch = LeaderEpoch(partition.leader_epoch.0 + 1);
    }
    Ok(Response::Partition(put_partition(image, tp, partition, delta)))
}

/// Stores the wanted replicas, or cancels. A target equal to the present list is the same as none.
pub(super) fn set_reassignment(
    image: &mut Image,
    tp: TopicPartition,
    target: Option<&[BrokerId]>,
    delta: &mut Delta,
) -> Applied {
    let mut partition = named_partition(image, tp)?;
    if let Some(target) = target {
        check_replicas(image, target, &partition.replicas)?;
    }
    partition.reassignment = target.filter(|t| *t != partition.replicas).map(<[BrokerId]>::to_vec);
    Ok(Response::Partition(put_partition(image, tp, partition, delta)))
}

/// A replica list is not empty, names each broker once, and only registered ones; a draining broker may
/// stay but not be added.
pub(super) fn check_replicas(
    image: &Image,
    replicas: &[BrokerId],
    present: &[BrokerId],
) -> Result<(), Rejection> {
    let invalid = |reason: String| Err(Rejection::InvalidReplicas(reason));
    if replicas.is_empty() {
        return invalid("it is empty".to_owned());
    }
    for (i, id) in replicas.iter().enumerate() {
        if replicas[..i].contains(id) {
            return invalid(format!("broker {id} appears twice"));
        }
        match image.brokers.get(id) {
            None => return invalid(format!("broker {id} is not registered")),
            Some(b) if b.draining && !present.contains(id) => {
                return invalid(format!("broker {id} is being drained"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn stale(partition: &Partition) -> Rejection {
    Rejection::StalePartition {
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
    }
}
