//! Which role this broker should have for a partition, from its image alone.
//!
//! * A restarted broker takes no role, and acts on no image, until its image holds its own registration.
//! * A damaged replica takes no role until its image shows its report applied.

use strandline_metadata::{Image, Partition};
use strandline_record::{BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader { epoch: LeaderEpoch },
    Follower { leader: BrokerId, epoch: LeaderEpoch },
    Idle(IdleReason),
}

impl Role {
    pub fn epoch(&self) -> Option<LeaderEpoch> {
        match *self {
            Role::Leader { epoch } | Role::Follower { epoch, .. } => Some(epoch),
            Role::Idle(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleReason {
    /// The image does not hold this process's registration yet.
    NotRegistered,
    /// No such partition (deleted, or not created yet as far as the image goes).
    UnknownPartition,
    /// The partition exists, this broker is not among its replicas.
    NotReplica,
    /// Damage was found and the image does not show the report yet: report it.
    Damaged,
    /// Nobody leads; acknowledged data waits.
    NoLeader,
}

/// Damage found in the local log and not repaired yet (the log has not been cut and refetched).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The leader epoch in the image when the first unrepaired damage was found, `None` when that was at
    /// recovery, before this process was registered. A report counts only if it was applied after that.
    pub found_in: Option<LeaderEpoch>,
}

/// Whether the report of `damage` has been applied, so that the log may be cut there and refetched.
pub fn damage_reported(me: BrokerId, registered: BrokerEpoch, damage: Damage, partition: &Partition) -> bool {
    partition.damage_reports.get(&me).is_some_and(|report| {
        // Each report begins a leader epoch, so one that begins a later epoch than the one in which the damage
        // was found came after it; an older report (of damage since repaired) does not.
        report.broker_epoch == registered
            && damage.found_in.is_none_or(|found_in| report.leader_epoch > found_in)
    })
}

/// `registered`: this process's own registration, `None` before it has one. `damage`: unrepaired damage.
///
/// Once it is reported, the caller truncates the log at the damage before it takes up the role.
pub fn desired_role(
    me: BrokerId,
    registered: Option<BrokerEpoch>,
    image: &Image,
    tp: TopicPartition,
    damage: Option<Damage>,
) -> Role {
    let known = image.broker(me).map(|broker| broker.epoch);
    let Some(registered) = registered.filter(|&registered| known == Some(registered)) else {
        return Role::Idle(IdleReason::NotRegistered);
    };
    let Some(partition) = image.partition(tp) else {
        return Role::Idle(IdleReason::UnknownPartition);
    };
    if !partition.replicas.contains(&me) {
        return Role::Idle(IdleReason::NotReplica);
    }
    if damage.is_some_and(|damage| !damage_reported(me, registered, damage, partition)) {
        return Role::Idle(IdleReason::Damaged);
    }
    let epoch = partition.leader_epoch;
    match partition.leader {
        None => Role::Idle(IdleReason::NoLeader),
        Some(leader) if leader == me => Role::Leader { epoch },
        Some(leader) => Role::Follower { leader, epoch },
    }
}
