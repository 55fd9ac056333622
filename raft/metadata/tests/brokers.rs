//! RegisterBroker, UnfenceBroker, FenceBroker, SetDraining, UnregisterBroker, FormCluster.

mod common;

use common::{CLUSTER, World, create_topic, id, registration};
use strandline_metadata::{Command, Election, Rejection, Response};
use strandline_record::BrokerEpoch;
use uuid::Uuid;

#[test]
fn nothing_is_accepted_before_the_cluster_is_formed_and_forming_twice_is_refused() {
    let mut world = World::empty();
    assert_eq!(world.rejected(registration(1, None)), Rejection::NotFormed);
    assert_eq!(world.rejected(Command::AllocateProducerIds { count: 1 }), Rejection::NotFormed);
    world.done(Command::FormCluster { cluster_id: CLUSTER, now_ms: 7 });
    assert_eq!((world.image.cluster_id, world.image.formed_at_ms), (Some(CLUSTER), 7));
    let again = Command::FormCluster { cluster_id: CLUSTER, now_ms: 8 };
    assert_eq!(world.rejected(again), Rejection::AlreadyFormed);
}

#[test]
fn a_registration_gets_the_index_as_its_epoch_and_starts_fenced() {
    let mut world = World::formed();
    let first = world.register(1);
    assert_eq!(first, BrokerEpoch(world.image.index));
    assert!(world.image.broker(id(1)).unwrap().fenced);
    let second = world.register(1);
    assert!(second > first);
}

#[test]
fn a_registration_for_another_cluster_or_from_another_directory_is_refused() {
    let mut world = World::formed();
    let Command::RegisterBroker { id, directory, endpoints, rack, .. } = registration(1, None) else {
        panic!()
    };
    let with = |directory, cluster_id| Command::RegisterBroker {
        id,
        directory,
        cluster_id,
        endpoints: endpoints.clone(),
        rack: rack.clone(),
        clean_epoch: None,
    };
    let elsewhere = Uuid::from_u128(99);
    assert_eq!(world.rejected(with(directory, elsewhere)), Rejection::WrongCluster(CLUSTER));
    world.register(1);
    let wiped = world.rejected(with(elsewhere, CLUSTER));
    assert_eq!(wiped, Rejection::WrongDirectory { id, registered: directory });
}

#[test]
fn a_broker_registers_once_in_an_entry_so_its_epochs_strictly_increase() {
    let mut world = World::formed();
    let both = Command::Batch(vec![registration(1, None), registration(1, None), registration(2, None)]);
    let Response::Batch(answers) = world.apply(both) else { panic!() };
    let epoch = BrokerEpoch(world.image.index);
    assert_eq!(answers[0], Response::Registered { epoch });
    assert!(matches!(answers[1], Response::Rejected(Rejection::Invalid(_))));
    assert_eq!(answers[2], Response::Registered { epoch });
    // Nor by way of being forgotten in between.
    let around = Command::Batch(vec![
        registration(3, None),
        Command::UnregisterBroker { id: id(3) },
        registration(3, None),
    ]);
    let Response::Batch(answers) = world.apply(around) else { panic!() };
    assert!(matches!(answers[1], Response::Rejected(Rejection::Invalid(_))));
}

#[test]
fn a_stale_broker_epoch_is_refused_everywhere() {
    let mut world = World::with_partition(&[]);
    let old = world.epoch(1);
    let current = world.register(1);
    let stale = Rejection::StaleBrokerEpoch { current };
    assert_eq!(world.rejected(Command::UnfenceBroker { id: id(1), epoch: old }), stale);
    assert_eq!(world.rejected(Command::FenceBroker { id: id(1), epoch: old }), stale);
    let damaged = Command::ReplicaDamaged { id: id(1), epoch: old, tp: world.tp(), from: 0.into() };
    assert_eq!(world.rejected(damaged), stale);
    let unknown = Command::FenceBroker { id: id(9), epoch: old };
    assert_eq!(world.rejected(unknown), Rejection::UnknownBroker(id(9)));
}

#[test]
fn fencing_takes_a_follower_out_of_the_isr() {
    let mut world = World::with_partition(&[]);
    let before = world.epochs();
    world.fence(3);
    assert_eq!(world.roles(), (1, vec![1, 2], vec![]), "the ISR suffices: it joins no ELR");
    assert_eq!(world.epochs(), (before.0, before.1 + 1));
}

#[test]
fn fencing_the_leader_elects_the_next_in_assignment_order_in_the_same_command() {
    let mut world = World::with_partition(&[]);
    let before = world.epochs();
    world.fence(1);
    assert_eq!(world.roles(), (2, vec![2, 3], vec![]));
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1));
}

#[test]
fn below_min_insync_replicas_who_is_fenced_joins_the_elr_and_the_last_leaves_the_isr_too() {
    let mut world = World::with_partition(&[]);
    world.fence(3);
    world.fence(2);
    assert_eq!(world.roles(), (1, vec![1], vec![2]), "3 left when two remained");
    world.fence(1);
    assert_eq!(world.roles(), (0, vec![], vec![1, 2]));
}

#[test]
fn fencing_again_changes_nothing() {
    let mut world = World::with_partition(&[]);
    world.fence(2);
    let before = world.partition();
    world.fence(2);
    assert_eq!(world.partition(), before);
    assert!(world.delta.is_empty());
}

#[test]
fn unfencing_a_member_of_the_elr_elects_it_and_makes_it_the_isr() {
    let mut world = World::with_partition(&[]);
    for number in [3, 2, 1] {
        world.fence(number);
    }
    let before = world.epochs();
    world.unfence(3);
    assert_eq!(world.roles(), (0, vec![], vec![1, 2]), "3 lacks what 1 and 2 acknowledged");
    assert_eq!(world.epochs(), before);
    world.unfence(2);
    assert_eq!(world.roles(), (2, vec![2], vec![1]));
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1));
    world.unfence(1);
    assert_eq!(world.roles(), (2, vec![2], vec![1]), "it has a leader already");
}

#[test]
fn registering_does_everything_that_fencing_does() {
    let mut fenced = World::with_partition(&[]);
    let mut registered = fenced.clone();
    fenced.fence(1);
    registered.register(1);
    assert_eq!(registered.partition(), fenced.partition());
    assert!(registered.image.broker(id(1)).unwrap().fenced);
}

#[test]
fn after_an_unclean_stop_the_elr_keeps_the_broker_only_where_the_disk_had_what_it_acknowledged() {
    for (flush, clean, stays) in [
        ("ack", true, true),
        ("ack", false, true),
        ("interval", true, true),
        ("interval", false, false),
        ("os", true, true),
        ("os", false, false),
    ] {
        let mut world = World::with_partition(&[("flush", flush)]);
        for number in [3, 2, 1] {
            world.fence(number);
        }
        assert_eq!(world.roles(), (0, vec![], vec![1, 2]));
        match clean {
            true => world.register(2),
            false => world.register_unclean(2),
        };
        let expected = if stays { vec![1, 2] } else { vec![1] };
        assert_eq!(world.roles(), (0, vec![], expected), "flush={flush}, clean={clean}");
    }
}

#[test]
fn an_unclean_leader_of_a_partition_flushed_later_leaves_isr_and_elr_at_once() {
    let mut world = World::with_partition(&[("flush", "os")]);
    world.fence(2);
    world.fence(3);
    assert_eq!(world.roles(), (1, vec![1], vec![3]), "2 left while the ISR sufficed");
    let before = world.epochs();
    world.register_unclean(1);
    assert_eq!(world.roles(), (0, vec![], vec![3]));
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1), "one command, one partition epoch");
}

#[test]
fn a_clean_epoch_of_an_older_registration_is_an_unclean_stop() {
    let mut world = World::with_partition(&[("flush", "os")]);
    let first = world.epoch(3);
    world.register(3);
    world.unfence(3);
    world.alter(&[1, 2, 3]);
    for number in [1, 2, 3] {
        world.fence(number);
    }
    assert_eq!(world.roles(), (0, vec![], vec![2, 3]));
    world.apply(registration(3, Some(first)));
    assert_eq!(world.roles(), (0, vec![], vec![2]));
}

#[test]
fn a_draining_broker_leads_only_if_no_other_member_can_and_gets_no_new_replica() {
    let mut world = World::with_partition(&[]);
    world.done(Command::SetDraining { id: id(2), draining: true });
    world.fence(1);
    assert_eq!(world.roles().0, 3, "2 comes first but is draining");
    world.fence(3);
    assert_eq!(world.roles().0, 2, "none other is left");
    world.unfence(1);
    let refused = world.elect(Election::To(id(2)));
    assert_eq!(refused, Response::Rejected(Rejection::NoEligibleReplica));
    world.register(4);
    world.unfence(4);
    world.done(Command::SetDraining { id: id(4), draining: true });
    assert!(matches!(world.set_replicas(&[1, 2, 3, 4]), Response::Rejected(Rejection::InvalidReplicas(_))));
    world.register(4);
    assert!(world.image.broker(id(4)).unwrap().draining, "a restart does not end it");
}

#[test]
fn a_broker_is_forgotten_only_when_fenced_and_without_replicas() {
    let mut world = World::with_partition(&[]);
    world.register(4);
    world.unfence(4);
    let forget = |number| Command::UnregisterBroker { id: id(number) };
    assert_eq!(world.rejected(forget(4)), Rejection::BrokerNotFenced(id(4)));
    world.fence(4);
    world.fence(3);
    assert_eq!(world.rejected(forget(3)), Rejection::BrokerHoldsReplicas { id: id(3), replicas: 1 });
    let wanted = Command::SetReassignment { tp: world.tp(), target: Some(vec![id(1), id(4)]) };
    assert!(matches!(world.apply(wanted), Response::Partition(_)));
    assert_eq!(world.rejected(forget(4)), Rejection::BrokerHoldsReplicas { id: id(4), replicas: 1 });
    world.apply(Command::SetReassignment { tp: world.tp(), target: None });
    world.done(forget(4));
    assert_eq!(world.image.broker(id(4)), None);
    assert_eq!(world.rejected(forget(4)), Rejection::UnknownBroker(id(4)));
}

#[test]
fn fencing_touches_only_the_partitions_of_the_broker() {
    let mut world = World::with_brokers(4);
    world.apply(create_topic("events", &[&[1, 2, 3], &[2, 3, 4], &[4, 1, 2]], &[]));
    world.fence(4);
    let touched: Vec<i32> = world.delta.partitions.iter().map(|tp| tp.partition.0).collect();
    assert_eq!(touched, [1, 2]);
}
