//! Groups of the consumer protocol (KIP-848): one change at a time, one owner for each partition, commits by
//! member epoch, and their living together with classic groups.

mod common;

use common::{TOPIC, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::{
    Command, CommitMember, CommittedOffset, ConsumerGroup, ConsumerGroupChange, ConsumerMember, Group,
    GroupEpoch, Partitions, Rejection, command::tp, snapshot,
};
use strandline_record::{Generation, Offset};

fn partitions(numbers: &[i32]) -> Partitions {
    numbers.iter().map(|n| tp(TOPIC, *n)).collect()
}

fn member(epoch: i32, assigned: &[i32], revoking: &[i32]) -> ConsumerMember {
    ConsumerMember {
        instance_id: None,
        rack: None,
        client_id: "client".into(),
        client_host: "host".into(),
        topics: ["events".into()].into(),
        regex: None,
        assignor: None,
        rebalance_timeout_ms: 1,
        away: false,
        epoch: GroupEpoch(epoch),
        previous_epoch: GroupEpoch(0),
        assigned: partitions(assigned),
        revoking: partitions(revoking),
        target: partitions(assigned),
    }
}

fn change(epoch: i32, members: &[(&str, Option<ConsumerMember>)]) -> ConsumerGroupChange {
    ConsumerGroupChange {
        epoch: GroupEpoch(epoch),
        target_epoch: GroupEpoch(epoch),
        topics_hash: 1,
        members: members.iter().map(|(id, m)| (Arc::from(*id), m.clone().map(Arc::new))).collect(),
        changed_at_ms: 1,
    }
}

fn alter(expected: Option<u64>, change: ConsumerGroupChange) -> Command {
    Command::AlterConsumerGroup { group: "g".into(), expected, change }
}

fn group(world: &World) -> Arc<ConsumerGroup> {
    world.image.consumer_groups.get("g").unwrap().clone()
}

fn version(world: &World) -> Option<u64> {
    world.image.consumer_groups.get("g").map(|g| g.version)
}

/// Applies to the present version.
fn put(world: &mut World, change: ConsumerGroupChange) {
    let expected = version(world);
    world.done(alter(expected, change));
}

fn refused(world: &mut World, change: ConsumerGroupChange) -> bool {
    let expected = version(world);
    matches!(world.rejected(alter(expected, change)), Rejection::Invalid(_))
}

fn commit(by: Option<(i32, &str)>) -> Command {
    let offset = CommittedOffset { offset: Offset(5), leader_epoch: None, metadata: None, commit_time_ms: 3 };
    Command::CommitOffsets {
        group: "g".into(),
        member: by.map(|(epoch, id)| CommitMember { generation: Generation(epoch), member_id: id.into() }),
        offsets: vec![(tp(TOPIC, 0), offset)],
    }
}

fn classic(generation: i32, expected: Option<i32>, member: Option<&str>) -> Command {
    let member_of = || strandline_metadata::GroupMember {
        instance_id: None,
        client_id: "c".into(),
        client_host: "h".into(),
        session_timeout_ms: 1,
        rebalance_timeout_ms: 1,
        protocols: vec![],
        assignment: Arc::default(),
    };
    let members: BTreeMap<Arc<str>, _> = member.iter().map(|id| (Arc::from(*id), member_of())).collect();
    let next = Group {
        generation: Generation(generation),
        protocol_type: "consumer".into(),
        protocol: if members.is_empty() { "".into() } else { "range".into() },
        leader: members.keys().next().cloned(),
        assigned: members.is_empty(),
        members,
        changed_at_ms: 1,
    };
    Command::PutGeneration { group: "g".into(), expected: expected.map(Generation), next }
}

#[test]
fn of_two_changes_of_one_version_the_first_applies() {
    let mut world = World::with_partition(&[]);
    assert_eq!(world.rejected(alter(Some(1), change(1, &[]))), Rejection::StaleGroupVersion(None));
    put(&mut world, change(1, &[("a", Some(member(1, &[0, 1], &[])))]));
    let seen = version(&world);
    let stale = Rejection::StaleGroupVersion(seen);
    assert_eq!(world.rejected(alter(None, change(2, &[]))), stale);
    let first = alter(seen, change(2, &[("b", Some(member(2, &[], &[])))]));
    let second = alter(seen, change(2, &[("c", Some(member(2, &[], &[])))]));
    world.apply(first.clone());
    for late in [second, first] {
        let now = version(&world);
        assert_eq!(world.rejected(late), Rejection::StaleGroupVersion(now));
    }
    assert_eq!(group(&world).members.keys().map(|k| &**k).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_version_does_not_come_back_when_the_group_is_deleted() {
    let mut world = World::with_partition(&[]);
    put(&mut world, change(1, &[]));
    let before = version(&world);
    world.done(Command::DeleteGroup { group: "g".into() });
    assert_eq!(version(&world), None);
    put(&mut world, change(1, &[]));
    assert!(version(&world) > before);
    assert_eq!(world.rejected(alter(before, change(2, &[]))), Rejection::StaleGroupVersion(version(&world)));
}

#[test]
fn a_partition_is_given_away_only_after_its_owner_let_go() {
    let mut world = World::with_partition(&[]);
    put(&mut world, change(1, &[("a", Some(member(1, &[0, 1], &[])))]));
    assert!(refused(&mut world, change(2, &[("b", Some(member(2, &[1], &[])))])), "a consumes it");
    put(&mut world, change(2, &[("a", Some(member(1, &[0], &[1])))]));
    assert!(refused(&mut world, change(2, &[("b", Some(member(2, &[1], &[])))])), "a has not confirmed");
    let (a, b) = (member(2, &[0], &[]), member(2, &[1], &[]));
    put(&mut world, change(2, &[("a", Some(a)), ("b", Some(b))]));
    assert_eq!(group(&world).owners().unwrap().len(), 2);
    assert!(refused(&mut world, change(2, &[("b", Some(member(2, &[1], &[1])))])), "its own twice");
    put(&mut world, change(3, &[("a", None), ("b", Some(member(2, &[0, 1], &[])))]));
}

#[test]
fn epochs_do_not_go_back_and_members_do_not_run_ahead() {
    let mut world = World::with_partition(&[]);
    put(&mut world, change(3, &[("a", Some(member(3, &[], &[])))]));
    assert!(refused(&mut world, change(2, &[("a", Some(member(2, &[], &[])))])));
    assert!(refused(&mut world, change(3, &[("a", Some(member(2, &[], &[])))])));
    assert!(refused(&mut world, change(3, &[("a", Some(member(4, &[], &[])))])));
    let ahead = ConsumerGroupChange { target_epoch: GroupEpoch(4), ..change(3, &[]) };
    assert!(refused(&mut world, ahead));
    assert!(refused(&mut world, change(4, &[("z", None)])), "no such member");
    put(&mut world, change(4, &[("a", Some(member(4, &[], &[])))]));
}

#[test]
fn an_instance_belongs_to_one_member_and_can_be_handed_on() {
    let mut world = World::with_partition(&[]);
    let of = |assigned: &[i32], away| ConsumerMember {
        instance_id: Some("i".into()),
        away,
        ..member(1, assigned, &[])
    };
    put(&mut world, change(1, &[("a", Some(of(&[0], false)))]));
    assert!(refused(&mut world, change(1, &[("b", Some(of(&[], false)))])));
    put(&mut world, change(1, &[("a", Some(of(&[0], true)))]));
    put(&mut world, change(1, &[("a", None), ("b", Some(of(&[0], false)))]));
    let away = ConsumerMember { away: true, ..member(1, &[], &[]) };
    assert!(refused(&mut world, change(1, &[("c", Some(away))])), "only a static member is away");
}

#[test]
fn a_commit_carries_the_members_own_epoch() {
    let mut world = World::with_partition(&[]);
    world.done(commit(None));
    put(&mut world, change(1, &[("a", Some(member(1, &[0], &[])))]));
    world.done(commit(Some((1, "a"))));
    put(&mut world, change(2, &[("a", Some(member(1, &[], &[0])))]));
    world.done(commit(Some((1, "a"))));
    put(&mut world, change(2, &[("a", Some(member(2, &[], &[]))), ("b", Some(member(2, &[0], &[])))]));
    let stale = Rejection::StaleMemberEpoch { current: GroupEpoch(2) };
    for epoch in [0, 1, 3] {
        assert_eq!(world.rejected(commit(Some((epoch, "a")))), stale);
    }
    assert_eq!(world.rejected(commit(Some((2, "z")))), Rejection::UnknownMember);
    assert_eq!(world.rejected(commit(None)), Rejection::GroupNotEmpty);
    let away = ConsumerMember { instance_id: Some("i".into()), away: true, ..member(2, &[], &[]) };
    put(&mut world, change(2, &[("a", Some(away))]));
    assert_eq!(world.rejected(commit(Some((2, "a")))), stale, "it said that it had stopped");
    put(&mut world, change(3, &[("a", None), ("b", None)]));
    assert_eq!(world.rejected(commit(Some((2, "a")))), Rejection::UnknownMember);
    world.done(commit(None));
}

#[test]
fn an_empty_group_may_change_its_protocol_and_keeps_its_offsets() {
    let mut world = World::with_partition(&[]);
    world.done(commit(None));
    world.apply(classic(1, None, Some("m")));
    assert_eq!(world.rejected(alter(None, change(1, &[]))), Rejection::OtherGroupProtocol);
    world.apply(classic(2, Some(1), None));
    put(&mut world, change(3, &[("a", Some(member(3, &[0], &[])))]));
    assert_eq!(world.image.groups.size(), 0);
    assert_eq!(world.rejected(classic(4, None, Some("m"))), Rejection::OtherGroupProtocol);
    put(&mut world, change(4, &[("a", None)]));
    world.apply(classic(5, None, Some("m")));
    assert_eq!((world.image.groups.size(), world.image.consumer_groups.size()), (1, 0));
    assert!(world.image.committed_offset(&"g".into(), tp(TOPIC, 0)).is_some());
}

#[test]
fn offsets_and_the_group_are_deleted_only_while_it_has_no_members() {
    let mut world = World::with_partition(&[]);
    let delete = || Command::DeleteGroup { group: "g".into() };
    let delete_offsets = || Command::DeleteOffsets { group: "g".into(), partitions: vec![tp(TOPIC, 0)] };
    put(&mut world, change(1, &[("a", Some(member(1, &[0], &[])))]));
    world.done(commit(Some((1, "a"))));
    assert_eq!(world.rejected(delete()), Rejection::GroupNotEmpty);
    assert_eq!(world.rejected(delete_offsets()), Rejection::GroupNotEmpty);
    put(&mut world, change(2, &[("a", None)]));
    world.done(delete_offsets());
    assert_eq!(world.image.offsets.size(), 0);
    world.done(delete());
    assert!(world.delta.groups.contains("g"));
    assert_eq!(world.rejected(delete()), Rejection::UnknownGroup);
}

#[test]
fn a_snapshot_with_two_owners_of_a_partition_is_refused() {
    let mut world = World::with_partition(&[]);
    put(&mut world, change(1, &[("a", Some(member(1, &[0], &[])))]));
    assert_eq!(snapshot::decode(&snapshot::encode(&world.image)).unwrap(), world.image);
    let mut bad = ConsumerGroup::clone(&group(&world));
    bad.members.insert("b".into(), Arc::new(member(1, &[], &[0])));
    world.image.consumer_groups.insert_mut("g".into(), Arc::new(bad));
    assert!(snapshot::decode(&snapshot::encode(&world.image)).is_err());
}
