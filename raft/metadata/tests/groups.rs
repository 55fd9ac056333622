//! Groups, committed offsets, producer ids.

mod common;

use common::{TOPIC, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::{
    Command, CommitMember, CommittedOffset, Group, GroupMember, Rejection, Response, command::tp,
};
use strandline_record::{Generation, Offset, TopicPartition};

fn member(instance: Option<&str>) -> GroupMember {
    GroupMember {
        instance_id: instance.map(Arc::from),
        client_id: "client".into(),
        client_host: "host".into(),
        session_timeout_ms: 1,
        rebalance_timeout_ms: 1,
        protocols: vec![("range".into(), Arc::from([1_u8, 2].as_slice()))],
        assignment: Arc::from([].as_slice()),
    }
}

fn group(generation: i32, members: &[(&str, Option<&str>)]) -> Group {
    Group {
        generation: Generation(generation),
        protocol_type: "consumer".into(),
        protocol: if members.is_empty() { "".into() } else { "range".into() },
        leader: members.first().map(|(id, _)| Arc::from(*id)),
        members: members.iter().map(|(id, instance)| (Arc::from(*id), member(*instance))).collect(),
        changed_at_ms: 1,
        assigned: members.is_empty(),
    }
}

fn put(expected: Option<i32>, next: Group) -> Command {
    Command::PutGeneration { group: "g".into(), expected: expected.map(Generation), next }
}

fn assign(generation: i32, to: &[(&str, u8)]) -> Command {
    let assignments = to.iter().map(|(id, bytes)| (Arc::from(*id), Arc::from([*bytes].as_slice()))).collect();
    Command::PutAssignment { group: "g".into(), generation: Generation(generation), assignments }
}

fn commit(by: Option<(i32, &str)>, offset: i64) -> Command {
    commit_to(tp(TOPIC, 0), by, offset)
}

fn commit_to(tp: TopicPartition, by: Option<(i32, &str)>, offset: i64) -> Command {
    let committed =
        CommittedOffset { offset: Offset(offset), leader_epoch: None, metadata: None, commit_time_ms: 3 };
    Command::CommitOffsets {
        group: "g".into(),
        member: by.map(|(generation, id)| CommitMember {
            generation: Generation(generation),
            member_id: id.into(),
        }),
        offsets: vec![(tp, committed)],
    }
}

fn committed(world: &World) -> Option<i64> {
    world.image.committed_offset(&"g".into(), tp(TOPIC, 0)).map(|c| c.offset.0)
}

/// Members a and b of generation 1, assigned.
fn stable() -> World {
    let mut world = World::with_partition(&[]);
    world.apply(put(None, group(1, &[("a", None), ("b", Some("static-b"))])));
    world.apply(assign(1, &[("a", 7), ("b", 8)]));
    assert!(world.image.groups.get("g").unwrap().assigned);
    world
}

#[test]
fn a_generation_is_put_by_compare_and_set_and_strictly_increases() {
    let mut world = World::with_partition(&[]);
    assert_eq!(world.rejected(put(Some(1), group(2, &[]))), Rejection::StaleGeneration(None));
    assert_eq!(world.apply(put(None, group(4, &[("a", None)]))), Response::Generation(Generation(4)));
    let stale = Rejection::StaleGeneration(Some(Generation(4)));
    assert_eq!(world.rejected(put(None, group(5, &[]))), stale);
    assert_eq!(world.rejected(put(Some(3), group(5, &[]))), stale);
    for not_higher in [3, 4] {
        assert!(matches!(world.rejected(put(Some(4), group(not_higher, &[]))), Rejection::Invalid(_)));
    }
    assert_eq!(world.apply(put(Some(4), group(5, &[]))), Response::Generation(Generation(5)));
}

#[test]
fn a_group_that_contradicts_itself_is_refused() {
    let mut world = World::with_partition(&[]);
    let foreign_leader = Group { leader: Some("z".into()), ..group(1, &[("a", None)]) };
    let protocol_of_nobody = Group { protocol: "range".into(), ..group(1, &[]) };
    let unassigned_nobody = Group { assigned: false, ..group(1, &[]) };
    let twins = group(1, &[("a", Some("x")), ("b", Some("x"))]);
    for bad in [foreign_leader, protocol_of_nobody, unassigned_nobody, twins] {
        assert!(matches!(world.rejected(put(None, bad)), Rejection::Invalid(_)));
    }
    let nameless = Command::PutGeneration { group: "".into(), expected: None, next: group(1, &[]) };
    assert!(matches!(world.rejected(nameless), Rejection::InvalidName(_)));
}

#[test]
fn the_first_assignment_of_a_generation_wins() {
    let mut world = World::with_partition(&[]);
    assert_eq!(world.rejected(assign(1, &[])), Rejection::StaleGeneration(None));
    world.apply(put(None, group(2, &[("a", None), ("b", None)])));
    assert_eq!(world.rejected(assign(1, &[])), Rejection::StaleGeneration(Some(Generation(2))));
    assert_eq!(world.rejected(assign(2, &[("z", 1)])), Rejection::UnknownMember);
    assert_eq!(world.apply(assign(2, &[("a", 9)])), Response::Generation(Generation(2)));
    let group = world.image.groups.get("g").unwrap().clone();
    assert_eq!(group.members[&Arc::from("a")].assignment[..], [9]);
    assert!(group.members[&Arc::from("b")].assignment.is_empty(), "not named: nothing");
    assert_eq!(world.rejected(assign(2, &[("b", 9)])), Rejection::AlreadyAssigned);
}

#[test]
fn a_static_member_that_came_back_takes_over_place_assignment_and_leadership() {
    let mut world = stable();
    let replace = |generation, from: &str, to: &str, instance| Command::ReplaceMember {
        group: "g".into(),
        generation: Generation(generation),
        from: from.into(),
        to: to.into(),
        member: member(instance),
    };
    let stale = Rejection::StaleGeneration(Some(Generation(1)));
    assert_eq!(world.rejected(replace(2, "b", "c", Some("static-b"))), stale);
    assert_eq!(world.rejected(replace(1, "z", "c", Some("static-b"))), Rejection::UnknownMember);
    assert_eq!(world.rejected(replace(1, "b", "c", Some("other"))), Rejection::UnknownMember);
    assert_eq!(world.rejected(replace(1, "a", "c", None)), Rejection::UnknownMember, "a is not static");
    assert!(matches!(world.rejected(replace(1, "b", "a", Some("static-b"))), Rejection::Invalid(_)));
    world.apply(replace(1, "b", "c", Some("static-b")));
    let after = world.image.groups.get("g").unwrap().clone();
    assert_eq!(after.members.keys().map(|k| &**k).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(after.members[&Arc::from("c")].assignment[..], [8]);
    assert_eq!(world.rejected(commit(Some((1, "b")), 5)), Rejection::UnknownMember, "the old id is fenced");

    world.apply(put(Some(1), group(2, &[("c", Some("static-b"))])));
    assert_eq!(world.rejected(replace(2, "c", "d", Some("static-b"))), Rejection::RebalanceInProgress);
    world.apply(assign(2, &[]));
    world.apply(replace(2, "c", "d", Some("static-b")));
    assert_eq!(world.image.groups.get("g").unwrap().leader.as_deref(), Some("d"));
}

#[test]
fn a_commit_needs_a_member_of_the_current_and_assigned_generation() {
    let mut world = stable();
    world.done(commit(Some((1, "a")), 5));
    assert_eq!(committed(&world), Some(5));
    assert_eq!(world.rejected(commit(Some((1, "z")), 6)), Rejection::UnknownMember);
    for other in [0, 2] {
        let illegal = Rejection::IllegalGeneration { current: Generation(1) };
        assert_eq!(world.rejected(commit(Some((other, "a")), 6)), illegal);
    }
    assert_eq!(world.rejected(commit(None, 6)), Rejection::GroupNotEmpty);

    world.apply(put(Some(1), group(2, &[("a", None)])));
    assert_eq!(world.rejected(commit(Some((2, "a")), 6)), Rejection::RebalanceInProgress);
    world.apply(assign(2, &[]));
    world.done(commit(Some((2, "a")), 6));
    assert_eq!(world.rejected(commit(Some((1, "b")), 1)), Rejection::UnknownMember, "a zombie");
    assert_eq!(committed(&world), Some(6));
}

#[test]
fn without_a_member_a_commit_needs_a_group_that_is_missing_or_empty() {
    let mut world = World::with_partition(&[]);
    assert_eq!(world.rejected(commit(Some((1, "a")), 1)), Rejection::UnknownGroup);
    world.done(commit(None, 1));
    world.apply(put(None, group(1, &[])));
    world.done(commit(None, 2));
    assert_eq!(committed(&world), Some(2));
    world.apply(put(Some(1), group(2, &[("a", None)])));
    assert_eq!(world.rejected(commit(None, 3)), Rejection::GroupNotEmpty);
}

#[test]
fn bad_offsets_are_refused_and_unknown_partitions_passed_over() {
    let mut world = World::with_partition(&[]);
    assert!(matches!(world.rejected(commit(None, -1)), Rejection::Invalid(_)));
    let mut wordy = commit(None, 1);
    let Command::CommitOffsets { offsets, .. } = &mut wordy else { panic!() };
    offsets[0].1.metadata = Some("x".repeat(4097).into());
    assert!(matches!(world.rejected(wordy), Rejection::Invalid(_)));

    let mut mixed = commit(None, 4);
    let Command::CommitOffsets { offsets, .. } = &mut mixed else { panic!() };
    let gone = (tp(TOPIC, 9), offsets[0].1.clone());
    offsets.insert(0, gone);
    world.done(mixed);
    assert_eq!(committed(&world), Some(4));
    assert_eq!(world.image.offsets.size(), 1);
}

#[test]
fn offsets_and_groups_are_deleted_only_while_the_group_has_no_members() {
    let mut world = stable();
    world.done(commit(Some((1, "a")), 5));
    let delete = || Command::DeleteGroup { group: "g".into() };
    let delete_offsets = || Command::DeleteOffsets { group: "g".into(), partitions: vec![tp(TOPIC, 0)] };
    assert_eq!(world.rejected(delete()), Rejection::GroupNotEmpty);
    assert_eq!(world.rejected(delete_offsets()), Rejection::GroupNotEmpty);
    world.apply(put(Some(1), group(2, &[])));
    world.done(delete_offsets());
    assert_eq!(committed(&world), None);
    world.done(commit(None, 6));
    world.done(delete());
    assert_eq!((committed(&world), world.image.groups.size()), (None, 0));
    assert!(world.delta.groups.contains("g") && world.delta.offsets.contains("g"));
    assert_eq!(world.rejected(delete()), Rejection::UnknownGroup);
    assert_eq!(world.rejected(delete_offsets()), Rejection::UnknownGroup);

    world.done(commit(None, 7));
    world.done(delete());
    assert_eq!(committed(&world), None, "a group that exists only by its offsets");
}

#[test]
fn one_groups_offsets_are_listed_apart_from_its_neighbours() {
    let mut world = World::with_brokers(1);
    world.apply(common::create_topic("events", &[&[1], &[1]], &[]));
    for (name, partition, offset) in [("f", 0, 1), ("g", 0, 2), ("g", 1, 3), ("ga", 0, 4)] {
        let mut command = commit_to(tp(TOPIC, partition), None, offset);
        let Command::CommitOffsets { group, .. } = &mut command else { panic!() };
        *group = name.into();
        world.done(command);
    }
    let listed: BTreeMap<i32, i64> = world
        .image
        .group_offsets(&"g".into())
        .map(|(tp, committed)| (tp.partition.0, committed.offset.0))
        .collect();
    assert_eq!(listed, BTreeMap::from([(0, 2), (1, 3)]));
}

#[test]
fn producer_ids_come_in_blocks_that_never_overlap() {
    let mut world = World::formed();
    let take = |count| Command::AllocateProducerIds { count };
    assert_eq!(world.apply(take(1000)), Response::ProducerIds { first: 0, count: 1000 });
    assert_eq!(world.apply(take(1)), Response::ProducerIds { first: 1000, count: 1 });
    assert_eq!(world.apply(take(5)), Response::ProducerIds { first: 1001, count: 5 });
    assert!(matches!(world.rejected(take(0)), Rejection::Invalid(_)));
    assert!(matches!(world.rejected(take(u32::MAX)), Rejection::Invalid(_)));
    world.image.next_producer_id = i64::MAX - 1;
    assert!(matches!(world.rejected(take(5)), Rejection::Invalid(_)));
}

#[test]
fn a_batch_answers_each_command_and_goes_on_after_a_rejection() {
    let mut world = World::with_partition(&[]);
    let Response::Batch(answers) = world.apply(Command::Batch(vec![
        commit(None, 1),
        commit(None, -1),
        Command::Batch(vec![]),
        commit(None, 2),
    ])) else {
        panic!()
    };
    assert_eq!(answers[0], Response::Done);
    assert!(matches!(answers[1], Response::Rejected(Rejection::Invalid(_))));
    assert!(matches!(answers[2], Response::Rejected(Rejection::Invalid(_))));
    assert_eq!(answers[3], Response::Done);
    assert_eq!(committed(&world), Some(2));
}
