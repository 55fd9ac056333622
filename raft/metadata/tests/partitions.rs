//! AlterPartition, ElectLeader, ReplicaDamaged, SetMinInsyncReplicas, SetReplicas, SetReassignment.

mod common;

use common::{World, id, set};
use strandline_metadata::{Command, DamageReport, Election, Rejection, Response};
use strandline_record::{BrokerEpoch, LeaderEpoch, Offset, PartitionEpoch};

fn damaged(world: &World, number: u64) -> Command {
    Command::ReplicaDamaged { id: id(number), epoch: world.epoch(number), tp: world.tp(), from: Offset(40) }
}

#[test]
fn the_leader_changes_the_isr_and_each_acceptance_moves_the_partition_epoch_by_one() {
    let mut world = World::with_partition(&[]);
    let before = world.epochs();
    world.alter(&[1, 2]);
    assert_eq!(world.roles(), (1, vec![1, 2], vec![]));
    assert_eq!(world.epochs(), (before.0, before.1 + 1));
    world.alter(&[1, 2]);
    assert_eq!(world.epochs(), (before.0, before.1 + 2), "even if it changes nothing");
}

#[test]
fn an_alteration_of_another_leader_epoch_partition_epoch_or_requester_is_refused() {
    let mut world = World::with_partition(&[]);
    let good = world.alteration(&[1, 2]);
    let with = |change: fn(&mut Command)| {
        let mut command = good.clone();
        change(&mut command);
        command
    };
    let old_leader = with(|c| {
        let Command::AlterPartition { leader_epoch, .. } = c else { panic!() };
        *leader_epoch = LeaderEpoch(leader_epoch.0 - 1);
    });
    let old_partition = with(|c| {
        let Command::AlterPartition { partition_epoch, .. } = c else { panic!() };
        *partition_epoch = PartitionEpoch(partition_epoch.0 - 1);
    });
    let future_partition = with(|c| {
        let Command::AlterPartition { partition_epoch, .. } = c else { panic!() };
        *partition_epoch = PartitionEpoch(partition_epoch.0 + 1);
    });
    for command in [old_leader, old_partition, future_partition] {
        assert_eq!(world.rejected(command), world.stale());
    }
    let other = with(|c| {
        let Command::AlterPartition { requester, .. } = c else { panic!() };
        *requester = id(2);
    });
    assert_eq!(world.rejected(other), Rejection::NotLeader);
    assert!(matches!(world.apply(good.clone()), Response::Partition(_)));
    assert_eq!(world.rejected(good), world.stale(), "a second copy finds another partition epoch");
}

#[test]
fn members_of_a_new_isr_are_replicas_unfenced_and_in_their_current_registration() {
    let mut world = World::with_partition(&[]);
    world.register(4);
    world.unfence(4);
    let foreign = world.alteration(&[1, 4]);
    assert_eq!(world.rejected(foreign), Rejection::NotReplica(id(4)));

    world.fence(3);
    let fenced = world.alteration(&[1, 2, 3]);
    assert_eq!(world.rejected(fenced), Rejection::BrokerFenced(id(3)));

    let mut stale = world.alteration(&[1, 2, 3]);
    let current = world.register(3);
    world.unfence(3);
    let Command::AlterPartition { isr, .. } = &mut stale else { panic!() };
    isr.insert(id(3), BrokerEpoch(current.0 - 1));
    assert_eq!(world.rejected(stale), Rejection::StaleBrokerEpoch { current });
    world.alter(&[1, 2, 3]);

    let without_itself = world.alteration(&[2, 3]);
    assert!(matches!(world.rejected(without_itself), Rejection::Invalid(_)));
}

#[test]
fn who_is_removed_joins_the_elr_only_while_the_isr_is_below_the_minimum() {
    let mut world = World::with_partition(&[]);
    world.alter(&[1, 3]);
    assert_eq!(world.roles(), (1, vec![1, 3], vec![]));
    world.alter(&[1]);
    assert_eq!(world.roles(), (1, vec![1], vec![3]));
    world.alter(&[1, 2]);
    assert_eq!(world.roles(), (1, vec![1, 2], vec![]), "the minimum empties the ELR");
}

#[test]
fn who_comes_back_into_the_isr_leaves_the_elr_though_the_minimum_is_not_reached() {
    let mut world = World::with_partition(&[("min.insync.replicas", "3")]);
    world.alter(&[1]);
    assert_eq!(world.roles(), (1, vec![1], vec![2, 3]));
    world.alter(&[1, 2]);
    assert_eq!(world.roles(), (1, vec![1, 2], vec![3]));
}

#[test]
fn the_preferred_leader_is_elected_only_from_the_isr() {
    let mut world = World::with_partition(&[]);
    world.fence(1);
    assert_eq!(world.elect(Election::Preferred), Response::Rejected(Rejection::NoEligibleReplica));
    world.unfence(1);
    assert_eq!(world.elect(Election::Preferred), Response::Rejected(Rejection::NoEligibleReplica));
    world.alter(&[1, 2, 3]);
    let before = world.epochs();
    assert!(matches!(world.elect(Election::Preferred), Response::Partition(_)));
    assert_eq!(world.roles().0, 1);
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1));
}

#[test]
fn electing_who_leads_already_moves_the_partition_epoch_only() {
    let mut world = World::with_partition(&[]);
    let before = world.epochs();
    assert!(matches!(world.elect(Election::Preferred), Response::Partition(_)));
    assert_eq!(world.epochs(), (before.0, before.1 + 1));
}

#[test]
fn leadership_is_handed_to_a_named_member_of_the_isr_and_to_nobody_else() {
    let mut world = World::with_partition(&[]);
    assert!(matches!(world.elect(Election::To(id(3))), Response::Partition(_)));
    assert_eq!(world.roles(), (3, vec![1, 2, 3], vec![]));
    assert_eq!(world.elect(Election::To(id(9))), Response::Rejected(Rejection::NotReplica(id(9))));
    world.alter(&[1, 3]);
    assert_eq!(world.elect(Election::To(id(2))), Response::Rejected(Rejection::NoEligibleReplica));
}

#[test]
fn an_unclean_election_needs_the_topics_consent_and_that_nobody_eligible_is_alive() {
    let mut world = World::with_partition(&[]);
    for number in [3, 2, 1] {
        world.fence(number);
    }
    world.unfence(3);
    assert_eq!(world.roles(), (0, vec![], vec![1, 2]));
    assert!(matches!(
        world.elect(Election::Unclean),
        Response::Rejected(Rejection::InvalidConfig { key, .. }) if key == "unclean.leader.election.enable"
    ));
    assert_eq!(world.configure(&[("unclean.leader.election.enable", "true")], &[]), Response::Done);
    let before = world.epochs();
    assert!(matches!(world.elect(Election::Unclean), Response::Partition(_)));
    assert_eq!(world.roles(), (3, vec![3], vec![]));
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1));
    assert_eq!(world.partition().unclean_epoch, world.partition().leader_epoch);
    assert!(matches!(world.elect(Election::Unclean), Response::Rejected(Rejection::Invalid(_))));
}

#[test]
fn an_unclean_election_without_any_live_replica_finds_nobody() {
    let mut world = World::with_partition(&[("unclean.leader.election.enable", "true")]);
    for number in [3, 2, 1] {
        world.fence(number);
    }
    assert_eq!(world.elect(Election::Unclean), Response::Rejected(Rejection::NoEligibleReplica));
}

#[test]
fn a_damaged_follower_leaves_the_isr_and_a_new_epoch_of_the_same_leader_begins() {
    let mut world = World::with_partition(&[]);
    let before = world.epochs();
    let report = damaged(&world, 2);
    assert!(matches!(world.apply(report), Response::Partition(_)));
    assert_eq!(world.roles(), (1, vec![1, 3], vec![]));
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1));
    let expected = DamageReport {
        broker_epoch: world.epoch(2),
        from: Offset(40),
        leader_epoch: LeaderEpoch(before.0 + 1),
    };
    assert_eq!(world.partition().damage_reports.get(&id(2)), Some(&expected));
}

#[test]
fn a_damaged_leader_is_replaced() {
    let mut world = World::with_partition(&[]);
    let before = world.epochs();
    let report = damaged(&world, 1);
    world.apply(report);
    assert_eq!(world.roles(), (2, vec![2, 3], vec![]));
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1));
}

#[test]
fn a_damaged_replica_leaves_the_elr_and_joins_none() {
    let mut world = World::with_partition(&[]);
    for number in [3, 2, 1] {
        world.fence(number);
    }
    world.unfence(1);
    assert_eq!(world.roles(), (1, vec![1], vec![2]));
    let report = damaged(&world, 2);
    world.apply(report);
    assert_eq!(world.roles(), (1, vec![1], vec![]));
    let report = damaged(&world, 1);
    world.apply(report);
    assert_eq!(world.roles(), (0, vec![], vec![]), "no healthy replica: nothing is invented");
    let report = damaged(&world, 3);
    let before = world.epochs();
    world.apply(report);
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1), "a new epoch in any case");
}

#[test]
fn only_a_replica_can_be_damaged() {
    let mut world = World::with_partition(&[]);
    world.register(4);
    let report = damaged(&world, 4);
    assert_eq!(world.rejected(report), Rejection::NotReplica(id(4)));
}

#[test]
fn changing_the_minimum_moves_every_partition_epoch_and_empties_the_elr_where_the_isr_now_suffices() {
    let mut world = World::with_partition(&[]);
    world.alter(&[1]);
    world.alter(&[1]);
    world.fence(3);
    let mut with_elr = World::with_partition(&[]);
    with_elr.alter(&[1, 2]);
    with_elr.alter(&[1]);
    assert_eq!(with_elr.roles(), (1, vec![1], vec![2]));
    let before = with_elr.epochs();
    assert_eq!(with_elr.configure(&[("min.insync.replicas", "1")], &[]), Response::Done);
    assert_eq!(with_elr.roles(), (1, vec![1], vec![]));
    assert_eq!(with_elr.epochs(), (before.0, before.1 + 1));

    let before = with_elr.epochs();
    assert_eq!(with_elr.configure(&[("min.insync.replicas", "1")], &[]), Response::Done);
    assert_eq!(with_elr.epochs(), (before.0, before.1 + 1), "even if it stays the same");
    assert_eq!(with_elr.configure(&[], &["min.insync.replicas"]), Response::Done);
    assert_eq!(with_elr.epochs(), (before.0, before.1 + 2), "and when it goes back to the default");
    assert_eq!(with_elr.configure(&[("retention.ms", "5")], &[]), Response::Done);
    assert_eq!(with_elr.epochs(), (before.0, before.1 + 2), "other keys do not touch partitions");
}

#[test]
fn a_leader_elected_from_the_elr_after_the_minimum_was_lowered_leaves_no_elr_behind() {
    // From here on it acknowledges alone, so the other former member must no longer be eligible.
    let mut world = World::with_partition(&[]);
    for number in [3, 2, 1] {
        world.fence(number);
    }
    world.configure(&[("min.insync.replicas", "1")], &[]);
    assert_eq!(world.roles(), (0, vec![], vec![1, 2]));
    world.unfence(2);
    assert_eq!(world.roles(), (2, vec![2], vec![]));
    world.fence(2);
    world.unfence(1);
    assert_eq!(world.roles(), (0, vec![], vec![2]));
}

#[test]
fn replicas_are_set_by_compare_and_set_and_grow_outside_the_isr() {
    let mut world = World::with_partition(&[]);
    world.register(4);
    let stale = Command::SetReplicas {
        tp: world.tp(),
        partition_epoch: PartitionEpoch(world.epochs().1 - 1),
        replicas: vec![id(1)],
    };
    assert_eq!(world.rejected(stale), world.stale());
    let before = world.epochs();
    assert!(matches!(world.set_replicas(&[1, 2, 3, 4]), Response::Partition(_)));
    assert_eq!(world.roles(), (1, vec![1, 2, 3], vec![]));
    assert_eq!(world.epochs(), (before.0, before.1 + 1));
}

#[test]
fn a_replica_list_is_not_empty_without_repetition_and_of_known_brokers() {
    let mut world = World::with_partition(&[]);
    for replicas in [&[][..], &[1, 1], &[1, 9]] {
        let answer = world.set_replicas(replicas);
        assert!(matches!(answer, Response::Rejected(Rejection::InvalidReplicas(_))), "{replicas:?}");
    }
}

#[test]
fn removing_the_leader_elects_another_and_forgets_its_damage() {
    let mut world = World::with_partition(&[]);
    let report = damaged(&world, 1);
    world.apply(report);
    world.alter(&[1, 2, 3]);
    world.elect(Election::Preferred);
    let before = world.epochs();
    assert!(matches!(world.set_replicas(&[2, 3]), Response::Partition(_)));
    assert_eq!(world.roles(), (2, vec![2, 3], vec![]));
    assert_eq!(world.epochs(), (before.0 + 1, before.1 + 1));
    assert!(world.partition().damage_reports.is_empty());
}

#[test]
fn members_of_isr_and_elr_are_removed_only_if_enough_in_sync_ones_remain() {
    // (ISR to begin with, new replicas, accepted)
    for (isr, replicas, accepted) in [
        (&[1, 2, 3][..], &[1, 2][..], true),
        (&[1, 2, 3], &[1], true),  // one replica: one in sync is all of it
        (&[1, 2], &[1, 3], false), // would leave one in sync of two
        (&[1, 2], &[1, 2], true),  // removes who is in neither
        (&[1], &[1, 2], true),     // 2 is in the ELR, 3 in neither
        (&[1], &[1, 3], false),    // the ELR has the other copy of what was acknowledged
        (&[1], &[2, 3], false),
    ] {
        let mut world = World::with_partition(&[]);
        if isr.len() < 3 {
            world.alter(&[1, 2]);
            world.alter(isr);
        }
        let answer = world.set_replicas(replicas);
        assert_eq!(matches!(answer, Response::Partition(_)), accepted, "{isr:?} to {replicas:?}: {answer:?}");
    }
}

#[test]
fn without_a_leader_no_candidate_can_be_removed() {
    let mut world = World::with_partition(&[]);
    for number in [3, 2, 1] {
        world.fence(number);
    }
    assert!(matches!(world.set_replicas(&[1, 3]), Response::Rejected(Rejection::InvalidReplicas(_))));
    assert!(matches!(world.set_replicas(&[1, 2]), Response::Partition(_)), "3 is no candidate");
}

#[test]
fn a_partition_moves_from_one_broker_to_another_without_refusing_writes() {
    let mut world = World::with_brokers(2);
    world.apply(common::create_topic("single", &[&[1]], &[]));
    let settings = |world: &World| {
        let topic = world.image.topics.get(&common::TOPIC).unwrap().clone();
        let replication = world.partition().target_replication();
        strandline_metadata::TopicSettings::from_configs(&topic.configs, replication).min_insync_replicas
    };
    assert_eq!(settings(&world), 1);
    world.apply(Command::SetReassignment { tp: world.tp(), target: Some(vec![id(2)]) });
    world.set_replicas(&[1, 2]);
    assert_eq!(settings(&world), 1, "while it grows, too");
    world.alter(&[1, 2]);
    world.set_replicas(&[2]);
    assert_eq!(world.roles(), (2, vec![2], vec![]));
    assert_eq!(world.partition().reassignment, None, "the target is reached");
}

#[test]
fn a_reassignment_is_stored_cancelled_and_checked() {
    let mut world = World::with_partition(&[]);
    let wanted = |target: Option<&[u64]>| Command::SetReassignment {
        tp: common::World::formed().tp(),
        target: target.map(|t| t.iter().copied().map(id).collect()),
    };
    let before = world.epochs();
    world.apply(wanted(Some(&[2, 3])));
    assert_eq!(world.partition().reassignment, Some(vec![id(2), id(3)]));
    world.apply(wanted(None));
    assert_eq!(world.partition().reassignment, None);
    world.apply(wanted(Some(&[1, 2, 3])));
    assert_eq!(world.partition().reassignment, None, "it is so already");
    assert_eq!(world.epochs(), (before.0, before.1 + 3));
    assert!(matches!(world.rejected(wanted(Some(&[]))), Rejection::InvalidReplicas(_)));
    assert!(matches!(world.rejected(wanted(Some(&[7]))), Rejection::InvalidReplicas(_)));
}

#[test]
fn what_names_no_partition_or_topic_is_refused() {
    let mut world = World::with_partition(&[]);
    let elsewhere = strandline_metadata::command::tp(common::TOPIC, 1);
    let nowhere = strandline_metadata::command::tp(strandline_record::TopicId(uuid::Uuid::from_u128(5)), 0);
    for (tp, expected) in [(elsewhere, Rejection::UnknownPartition), (nowhere, Rejection::UnknownTopic)] {
        let election = Command::ElectLeader { tp, kind: Election::Preferred };
        assert_eq!(world.rejected(election), expected);
        assert_eq!(world.rejected(Command::SetReassignment { tp, target: None }), expected);
    }
    assert_eq!(world.partition().isr, set(&[1, 2, 3]));
}
