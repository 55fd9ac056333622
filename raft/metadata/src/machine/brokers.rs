//! RegisterBroker, UnfenceBroker, FenceBroker, SetDraining, UnregisterBroker.
//!
//! A broker's epoch is the Raft index of its registration. Commands that share an entry (a batch) share its
//! index, so a second registration of one broker in the same entry is rejected: the epochs of one broker
//! strictly increase. Two brokers may register in one entry and have equal numbers; epochs are only ever
//! compared for the same broker.

use super::{Applied, election, put_partition, settings};
use crate::command::{Rejection, Response};
use crate::configs::FlushMode;
use crate::image::{Broker, BrokerEndpoints, Delta, Image};
use std::sync::Arc;
use strandline_record::{BrokerEpoch, BrokerId, TopicPartition};
use uuid::Uuid;

/// What a registration says of the broker.
pub(super) struct Registration<'a> {
    pub directory: Uuid,
    pub endpoints: &'a BrokerEndpoints,
    pub rack: &'a Option<Arc<str>>,
}

pub(super) fn register(
    image: &mut Image,
    index: u64,
    id: BrokerId,
    cluster_id: Uuid,
    registration: Registration<'_>,
    clean_epoch: Option<BrokerEpoch>,
    delta: &mut Delta,
) -> Applied {
    let cluster = image.cluster_id.expect("decide() checked that the cluster is formed");
    if cluster_id != cluster {
        return Err(Rejection::WrongCluster(cluster));
    }
    let known = image.brokers.get(&id).cloned();
    if let Some(known) = &known {
        if known.directory != registration.directory {
            return Err(Rejection::WrongDirectory { id, registered: known.directory });
        }
        if known.epoch.0 == index {
            return Err(Rejection::Invalid(format!("broker {id} registered in this very entry")));
        }
        assert!(known.epoch.0 < index, "broker epochs are indices of earlier entries");
    }
    let broker = Broker {
        id,
        directory: registration.directory,
        endpoints: registration.endpoints.clone(),
        rack: registration.rack.clone(),
        epoch: BrokerEpoch(index),
        fenced: true,
        draining: known.as_ref().is_some_and(|b| b.draining),
    };
    let epoch = broker.epoch;
    put_broker(image, broker, delta);

    // After an unclean stop its tail may be gone wherever acknowledging did not wait for the disk.
    let unclean = known.as_ref().is_some_and(|known| clean_epoch != Some(known.epoch));
    leave_every_isr(image, id, unclean, delta);
    Ok(Response::Registered { epoch })
}

pub(super) fn fence(image: &mut Image, id: BrokerId, epoch: BrokerEpoch, delta: &mut Delta) -> Applied {
    let broker = current(image, id, epoch)?;
    if !broker.fenced {
        put_broker(image, Broker { fenced: true, ..Broker::clone(&broker) }, delta);
        leave_every_isr(image, id, false, delta);
    }
    Ok(Response::Done)
}

pub(super) fn unfence(image: &mut Image, id: BrokerId, epoch: BrokerEpoch, delta: &mut Delta) -> Applied {
    let broker = current(image, id, epoch)?;
    if !broker.fenced {
        return Ok(Response::Done);
    }
    put_broker(image, Broker { fenced: false, ..Broker::clone(&broker) }, delta);
    let waiting: Vec<TopicPartition> = image
        .partitions
        .iter()
        .filter(|(_, p)| p.leader.is_none() && (p.isr.contains(&id) || p.elr.contains(&id)))
        .map(|(tp, _)| *tp)
        .collect();
    for tp in waiting {
        let mut partition = (**image.partitions.get(&tp).expect("listed above")).clone();
        election::elect(image, &mut partition);
        put_partition(image, tp, partition, delta);
    }
    Ok(Response::Done)
}

pub(super) fn set_draining(image: &mut Image, id: BrokerId, draining: bool, delta: &mut Delta) -> Applied {
    let broker = image.brokers.get(&id).cloned().ok_or(Rejection::UnknownBroker(id))?;
    if broker.draining != draining {
        put_broker(image, Broker { draining, ..Broker::clone(&broker) }, delta);
    }
    Ok(Response::Done)
}

/// Also refused while a reassignment wants the broker, and in the entry that registered it (its epoch must
/// not be given out twice).
pub(super) fn unregister(image: &mut Image, index: u64, id: BrokerId, delta: &mut Delta) -> Applied {
    let broker = image.brokers.get(&id).ok_or(Rejection::UnknownBroker(id))?;
    if !broker.fenced {
        return Err(Rejection::BrokerNotFenced(id));
    }
    if broker.epoch.0 == index {
        return Err(Rejection::Invalid(format!("broker {id} registered in this very entry")));
    }
    let wanted = |target: &Option<Vec<BrokerId>>| target.as_ref().is_some_and(|t| t.contains(&id));
    let holds = |p: &crate::image::Partition| p.replicas.contains(&id) || wanted(&p.reassignment);
    let replicas = image.partitions.values().filter(|p| holds(p)).count();
    if replicas > 0 {
        return Err(Rejection::BrokerHoldsReplicas {
            id,
            replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
        });
    }
    image.brokers.remove_mut(&id);
    delta.brokers.insert(id);
    Ok(Response::Done)
}

/// What fencing does to partitions: the broker leaves every ISR, the last member too; where an ISR is then
/// below `min.insync.replicas`, and only there, it joins the ELR; what it led elects. `lost_tail`: it also
/// leaves the ELR of partitions that acknowledge before the disk has the bytes.
fn leave_every_isr(image: &mut Image, id: BrokerId, lost_tail: bool, delta: &mut Delta) {
    let held: Vec<TopicPartition> = image
        .partitions
        .iter()
        .filter(|(_, p)| p.isr.contains(&id) || (lost_tail && p.elr.contains(&id)))
        .map(|(tp, _)| *tp)
        .collect();
    for tp in held {
        let before = image.partitions.get(&tp).expect("listed above").clone();
        let mut partition = (*before).clone();
        let settings = settings(image, tp, &partition);
        if partition.isr.remove(&id) && partition.isr.len() < settings.min_insync_replicas {
            partition.elr.insert(id);
        }
        if partition.leader == Some(id) {
            election::elect(image, &mut partition);
        }
        if lost_tail && settings.flush != FlushMode::Ack {
            partition.elr.remove(&id);
        }
        if partition != *before {
            put_partition(image, tp, partition, delta);
        }
    }
}

/// The broker, if `epoch` is its current registration.
pub(super) fn current(image: &Image, id: BrokerId, epoch: BrokerEpoch) -> Result<Arc<Broker>, Rejection> {
    let broker = image.brokers.get(&id).ok_or(Rejection::UnknownBroker(id))?;
    if broker.epoch != epoch {
        return Err(Rejection::StaleBrokerEpoch { current: broker.epoch });
    }
    Ok(broker.clone())
}

fn put_broker(image: &mut Image, broker: Broker, delta: &mut Delta) {
    delta.brokers.insert(broker.id);
    image.brokers.insert_mut(broker.id, Arc::new(broker));
}
