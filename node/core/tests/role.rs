//! Which role a broker takes, by its image.

mod common;

use common::{Cluster, id, tp};
use strandline_core::partition::{Damage, IdleReason, Role, desired_role};
use strandline_metadata::Command;
use strandline_record::{BrokerEpoch, LeaderEpoch, Offset};

fn cluster() -> Cluster {
    let mut cluster = Cluster::of(4);
    cluster.topic(&[&[1, 2, 3]], &[]);
    cluster
}

fn role(cluster: &Cluster, broker: u64, damage: Option<Damage>) -> Role {
    desired_role(id(broker), Some(cluster.epoch(broker)), &cluster.image, tp(0), damage)
}

fn report(cluster: &mut Cluster, broker: u64) {
    let (id, epoch) = (id(broker), cluster.epoch(broker));
    cluster.apply(Command::ReplicaDamaged { id, epoch, tp: tp(0), from: Offset(0) });
}

#[test]
fn the_image_says_who_leads_and_who_follows() {
    let cluster = cluster();
    assert_eq!(role(&cluster, 1, None), Role::Leader { epoch: LeaderEpoch(1) });
    assert_eq!(role(&cluster, 2, None), Role::Follower { leader: id(1), epoch: LeaderEpoch(1) });
    assert_eq!(role(&cluster, 4, None), Role::Idle(IdleReason::NotReplica));
    let unknown = desired_role(id(1), Some(cluster.epoch(1)), &cluster.image, tp(9), None);
    assert_eq!(unknown, Role::Idle(IdleReason::UnknownPartition));
}

#[test]
fn a_restarted_broker_takes_no_role_until_its_image_holds_its_registration() {
    let mut cluster = cluster();
    let before = cluster.clone();
    let idle = Role::Idle(IdleReason::NotRegistered);
    assert_eq!(desired_role(id(1), None, &before.image, tp(0), None), idle);
    let registered = cluster.register(1, None);
    assert_eq!(desired_role(id(1), Some(registered), &before.image, tp(0), None), idle, "an old image");
    assert_eq!(
        desired_role(id(1), Some(before.epoch(1)), &cluster.image, tp(0), None),
        idle,
        "another process"
    );
    assert!(matches!(role(&cluster, 1, None), Role::Follower { .. }));
}

#[test]
fn without_a_leader_there_is_nothing_to_follow() {
    let mut cluster = cluster();
    (1..=3).for_each(|broker| cluster.fence(broker));
    assert_eq!(role(&cluster, 2, None), Role::Idle(IdleReason::NoLeader));
}

#[test]
fn a_damaged_replica_takes_no_role_until_its_report_is_in_the_image() {
    let mut cluster = cluster();
    let damage = Some(Damage { found_in: Some(LeaderEpoch(1)) });
    for broker in [1, 2] {
        assert_eq!(role(&cluster, broker, damage), Role::Idle(IdleReason::Damaged));
    }
    report(&mut cluster, 2);
    assert_eq!(role(&cluster, 2, damage), Role::Follower { leader: id(1), epoch: LeaderEpoch(2) });
    assert_eq!(role(&cluster, 1, damage), Role::Idle(IdleReason::Damaged), "2's report, not its own");
}

#[test]
fn an_old_report_says_nothing_of_new_damage() {
    let mut cluster = cluster();
    report(&mut cluster, 2);
    let again = Some(Damage { found_in: Some(LeaderEpoch(2)) });
    assert_eq!(role(&cluster, 2, again), Role::Idle(IdleReason::Damaged));
    report(&mut cluster, 2);
    assert!(matches!(role(&cluster, 2, again), Role::Follower { .. }));

    // Found at recovery: a report of the process before does not count.
    assert_ne!(cluster.register(2, None), BrokerEpoch(0));
    let at_recovery = Some(Damage { found_in: None });
    assert_eq!(role(&cluster, 2, at_recovery), Role::Idle(IdleReason::Damaged));
    report(&mut cluster, 2);
    assert!(matches!(role(&cluster, 2, at_recovery), Role::Follower { .. }));
}
