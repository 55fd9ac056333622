//! Random command sequences: apply is deterministic, epochs never go back, the invariants hold, what a delta
//! leaves out did not change, and a snapshot restored goes on like the original.

mod common;

use common::{CLUSTER, TOPIC, id, registration};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::{
    Command, CommitMember, CommittedOffset, ConsumerGroupChange, ConsumerMember, Delta, Election, Group,
    GroupEpoch, GroupMember, Image, Response, command::tp, machine, snapshot,
};
use strandline_record::{BrokerEpoch, BrokerId, Generation, Offset, TopicId};
use uuid::Uuid;

/// A command in terms of the image that it will meet, so that most are nearly right.
#[derive(Clone, Debug)]
enum Step {
    Register { id: u64, clean: bool },
    Unfence { id: u64, stale: bool },
    Fence { id: u64, stale: bool },
    Drain { id: u64, on: bool },
    Unregister { id: u64 },
    Create { topic: u8, replicas: Vec<u64>, partitions: usize, flush: usize },
    Delete { topic: u8 },
    Add { topic: u8, replicas: Vec<u64> },
    Minimum { topic: u8, value: Option<u8> },
    Unclean { topic: u8, on: bool },
    Alter { at: (u8, i32), isr: BTreeSet<u64>, back: i32 },
    Elect { at: (u8, i32), kind: u8, to: u64 },
    Damage { at: (u8, i32), id: u64 },
    Replicas { at: (u8, i32), replicas: Vec<u64>, back: i32 },
    Reassign { at: (u8, i32), target: Option<Vec<u64>> },
    Ids { count: u32 },
    Generation { group: u8, members: BTreeSet<u8>, back: i32, assigned: bool },
    Assign { group: u8, back: i32 },
    Consumers { group: u8, members: BTreeMap<u8, Option<(u8, u8)>>, ahead: i32, stale: bool },
    Commit { group: u8, member: Option<u8>, back: i32, at: (u8, i32), offset: i64 },
    DeleteOffsets { group: u8, at: (u8, i32) },
    DeleteGroup { group: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let broker = || 1_u64..6;
    let at = || (0_u8..2, 0_i32..2);
    let replicas = || prop::collection::vec(broker(), 1..4);
    prop_oneof![
        3 => (broker(), any::<bool>()).prop_map(|(id, clean)| Step::Register { id, clean }),
        6 => (broker(), prop::bool::weighted(0.1)).prop_map(|(id, stale)| Step::Unfence { id, stale }),
        3 => (broker(), prop::bool::weighted(0.1)).prop_map(|(id, stale)| Step::Fence { id, stale }),
        1 => (broker(), any::<bool>()).prop_map(|(id, on)| Step::Drain { id, on }),
        1 => broker().prop_map(|id| Step::Unregister { id }),
        3 => (0_u8..2, replicas(), 1_usize..3, 0_usize..3)
            .prop_map(|(topic, replicas, partitions, flush)| Step::Create { topic, replicas, partitions, flush }),
        1 => (0_u8..2).prop_map(|topic| Step::Delete { topic }),
        1 => (0_u8..2, replicas()).prop_map(|(topic, replicas)| Step::Add { topic, replicas }),
        2 => (0_u8..2, prop::option::of(1_u8..4)).prop_map(|(topic, value)| Step::Minimum { topic, value }),
        1 => (0_u8..2, any::<bool>()).prop_map(|(topic, on)| Step::Unclean { topic, on }),
        6 => (at(), prop::collection::btree_set(broker(), 0..4), prop_oneof![9 => Just(0), 1 => Just(1)])
            .prop_map(|(at, isr, back)| Step::Alter { at, isr, back }),
        3 => (at(), 0_u8..3, broker()).prop_map(|(at, kind, to)| Step::Elect { at, kind, to }),
        2 => (at(), broker()).prop_map(|(at, id)| Step::Damage { at, id }),
        2 => (at(), replicas(), prop_oneof![9 => Just(0), 1 => Just(1)])
            .prop_map(|(at, replicas, back)| Step::Replicas { at, replicas, back }),
        1 => (at(), prop::option::of(replicas())).prop_map(|(at, target)| Step::Reassign { at, target }),
        1 => (0_u32..5).prop_map(|count| Step::Ids { count }),
        3 => (0_u8..2, prop::collection::btree_set(0_u8..3, 0..3), 0_i32..2, any::<bool>())
            .prop_map(|(group, members, back, assigned)| Step::Generation { group, members, back, assigned }),
        2 => (0_u8..2, 0_i32..2).prop_map(|(group, back)| Step::Assign { group, back }),
        5 => (
            0_u8..2,
            prop::collection::btree_map(0_u8..3, prop::option::of((0_u8..8, 0_u8..4)), 0..3),
            -1_i32..2,
            prop::bool::weighted(0.1),
        )
            .prop_map(|(group, members, ahead, stale)| Step::Consumers { group, members, ahead, stale }),
        4 => (0_u8..2, prop::option::of(0_u8..3), 0_i32..2, at(), -1_i64..100)
            .prop_map(|(group, member, back, at, offset)| Step::Commit { group, member, back, at, offset }),
        1 => (0_u8..2, at()).prop_map(|(group, at)| Step::DeleteOffsets { group, at }),
        1 => (0_u8..2).prop_map(|group| Step::DeleteGroup { group }),
    ]
}

fn topic(number: u8) -> TopicId {
    if number == 0 { TOPIC } else { TopicId(Uuid::from_u128(0x71)) }
}

fn brokers(ids: &[u64]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn command(step: &Step, image: &Image) -> Command {
    let epoch = |number: u64, stale: bool| {
        let current = image.broker(id(number)).map_or(BrokerEpoch(0), |b| b.epoch);
        BrokerEpoch(current.0.saturating_sub(stale.into()))
    };
    let partition = |at: &(u8, i32)| image.partition(tp(topic(at.0), at.1)).cloned();
    let group = |number: u8| -> Arc<str> { format!("group-{number}").into() };
    let generation = |number: u8| image.groups.get(&group(number)).map(|g| g.generation);
    let consumers = |number: u8| image.consumer_groups.get(&group(number)).cloned();
    match step.clone() {
        Step::Register { id: number, clean } => registration(number, clean.then(|| epoch(number, false))),
        Step::Unfence { id: number, stale } => {
            Command::UnfenceBroker { id: id(number), epoch: epoch(number, stale) }
        }
        Step::Fence { id: number, stale } => {
            Command::FenceBroker { id: id(number), epoch: epoch(number, stale) }
        }
        Step::Drain { id: number, on } => Command::SetDraining { id: id(number), draining: on },
        Step::Unregister { id: number } => Command::UnregisterBroker { id: id(number) },
        Step::Create { topic: number, replicas, partitions, flush } => Command::CreateTopic {
            id: topic(number),
            name: format!("topic-{number}").into(),
            assignments: vec![brokers(&replicas); partitions],
            configs: BTreeMap::from([("flush".into(), ["ack", "interval", "os"][flush].into())]),
            now_ms: 4,
        },
        Step::Delete { topic: number } => Command::DeleteTopic { id: topic(number) },
        Step::Add { topic: number, replicas } => Command::AddPartitions {
            topic: topic(number),
            expected: image.topics.get(&topic(number)).map_or(0, |t| t.partitions),
            assignments: vec![brokers(&replicas)],
        },
        Step::Minimum { topic: number, value } => {
            let key: Arc<str> = "min.insync.replicas".into();
            Command::AlterTopicConfigs {
                topic: topic(number),
                set: value.iter().map(|v| (key.clone(), v.to_string().into())).collect(),
                unset: value.is_none().then(|| key.clone()).into_iter().collect(),
            }
        }
        Step::Unclean { topic: number, on } => Command::AlterTopicConfigs {
            topic: topic(number),
            set: BTreeMap::from([("unclean.leader.election.enable".into(), on.to_string().into())]),
            unset: BTreeSet::new(),
        },
        Step::Alter { at, isr, back } => {
            let present = partition(&at);
            let leader = present.as_ref().and_then(|p| p.leader).unwrap_or(id(1));
            let mut members: BTreeMap<_, _> = isr.iter().map(|b| (id(*b), epoch(*b, false))).collect();
            members.insert(leader, epoch(leader.0, false));
            Command::AlterPartition {
                tp: tp(topic(at.0), at.1),
                requester: leader,
                leader_epoch: present.as_ref().map_or(0.into(), |p| p.leader_epoch),
                partition_epoch: present.map_or(0, |p| p.partition_epoch.0 - back).into(),
                isr: members,
            }
        }
        Step::Elect { at, kind, to } => {
            let kind = [Election::Preferred, Election::Unclean, Election::To(id(to))][usize::from(kind)];
            Command::ElectLeader { tp: tp(topic(at.0), at.1), kind }
        }
        Step::Damage { at, id: number } => Command::ReplicaDamaged {
            id: id(number),
            epoch: epoch(number, false),
            tp: tp(topic(at.0), at.1),
            from: Offset(9),
        },
        Step::Replicas { at, replicas, back } => Command::SetReplicas {
            tp: tp(topic(at.0), at.1),
            partition_epoch: partition(&at).map_or(0, |p| p.partition_epoch.0 - back).into(),
            replicas: brokers(&replicas),
        },
        Step::Reassign { at, target } => {
            Command::SetReassignment { tp: tp(topic(at.0), at.1), target: target.map(|t| brokers(&t)) }
        }
        Step::Ids { count } => Command::AllocateProducerIds { count },
        Step::Generation { group: number, members, back, assigned } => {
            let present = generation(number);
            let next = present.map_or(1, |g| g.0 + 1) - back;
            let member = GroupMember {
                instance_id: None,
                client_id: "c".into(),
                client_host: "h".into(),
                session_timeout_ms: 1,
                rebalance_timeout_ms: 1,
                protocols: vec![],
                assignment: Arc::from([].as_slice()),
            };
            let members: BTreeMap<Arc<str>, GroupMember> =
                members.iter().map(|m| (m.to_string().into(), member.clone())).collect();
            Command::PutGeneration {
                group: group(number),
                expected: present,
                next: Group {
                    generation: Generation(next),
                    protocol_type: "consumer".into(),
                    protocol: if members.is_empty() { "".into() } else { "range".into() },
                    leader: members.keys().next().cloned(),
                    assigned: assigned || members.is_empty(),
                    members,
                    changed_at_ms: 2,
                },
            }
        }
        Step::Assign { group: number, back } => Command::PutAssignment {
            group: group(number),
            generation: Generation(generation(number).map_or(0, |g| g.0) - back),
            assignments: BTreeMap::new(),
        },
        Step::Consumers { group: number, members, ahead, stale } => {
            let present = consumers(number);
            let epoch = GroupEpoch(present.as_ref().map_or(0, |g| g.epoch.0) + ahead);
            let bits = |of: u8| (0..3).filter(move |n| of & (1 << n) != 0).map(|n| tp(TOPIC, n)).collect();
            let member = |id: u8, (assigned, revoking): (u8, u8)| ConsumerMember {
                instance_id: (id == 2).then(|| "static".into()),
                rack: None,
                client_id: "c".into(),
                client_host: "h".into(),
                topics: ["topic-0".into()].into(),
                regex: (id == 1).then(|| ".*".into()),
                assignor: None,
                rebalance_timeout_ms: 1,
                away: id == 2 && assigned == 0,
                epoch,
                previous_epoch: GroupEpoch(0),
                assigned: bits(assigned),
                revoking: bits(revoking),
                target: bits(assigned),
            };
            Command::AlterConsumerGroup {
                group: group(number),
                expected: present.map(|g| g.version - u64::from(stale)),
                change: ConsumerGroupChange {
                    epoch,
                    target_epoch: epoch,
                    topics_hash: 1,
                    members: members
                        .iter()
                        .map(|(id, owned)| {
                            (id.to_string().into(), owned.map(|owned| Arc::new(member(*id, owned))))
                        })
                        .collect(),
                    changed_at_ms: 3,
                },
            }
        }
        Step::Commit { group: number, member, back, at, offset } => Command::CommitOffsets {
            group: group(number),
            member: member.map(|m| {
                let member_id: Arc<str> = m.to_string().into();
                let epoch = match consumers(number) {
                    Some(group) => group.members.get(&member_id).map_or(0, |m| m.epoch.0),
                    None => generation(number).map_or(0, |g| g.0),
                };
                CommitMember { generation: Generation(epoch - back), member_id }
            }),
            offsets: vec![(
                tp(topic(at.0), at.1),
                CommittedOffset {
                    offset: Offset(offset),
                    leader_epoch: None,
                    metadata: None,
                    commit_time_ms: 1,
                },
            )],
        },
        Step::DeleteOffsets { group: number, at } => {
            Command::DeleteOffsets { group: group(number), partitions: vec![tp(topic(at.0), at.1)] }
        }
        Step::DeleteGroup { group: number } => Command::DeleteGroup { group: group(number) },
    }
}

/// What may only grow grew, and an accepted command that touched a partition moved its epoch by exactly one.
fn check_epochs(before: &Image, after: &Image, delta: &Delta) {
    for (id, old) in before.brokers.iter() {
        if let Some(new) = after.brokers.get(id) {
            assert!(new.epoch >= old.epoch);
        }
    }
    for (tp, old) in before.partitions.iter() {
        let Some(new) = after.partitions.get(tp) else { continue };
        assert!(new.leader_epoch >= old.leader_epoch && new.unclean_epoch >= old.unclean_epoch);
        assert!(new.leader == old.leader || new.leader_epoch > old.leader_epoch, "two leaders in an epoch");
        let moved = new.partition_epoch.0 - old.partition_epoch.0;
        assert_eq!(moved, delta.partitions.contains(tp).into(), "{tp}");
    }
    for (group, old) in before.groups.iter() {
        if let Some(new) = after.groups.get(group) {
            assert!(new.generation >= old.generation);
        }
    }
    for (group, old) in before.consumer_groups.iter() {
        let Some(new) = after.consumer_groups.get(group) else { continue };
        assert!(new.epoch >= old.epoch && new.target_epoch >= old.target_epoch);
        assert!(new.version > old.version || new == old, "a change has a version of its own");
        for (id, member) in &old.members {
            assert!(new.members.get(id).is_none_or(|m| m.epoch >= member.epoch));
        }
    }
    assert!(after.next_producer_id >= before.next_producer_id);
}

/// Everything that differs is named in the delta.
fn check_delta(before: &Image, after: &Image, delta: &Delta) {
    for id in before.brokers.keys().chain(after.brokers.keys()) {
        assert!(delta.brokers.contains(id) || before.brokers.get(id) == after.brokers.get(id));
    }
    for id in before.topics.keys().chain(after.topics.keys()) {
        assert!(delta.topics.contains(id) || before.topics.get(id) == after.topics.get(id));
    }
    for tp in before.partitions.keys().chain(after.partitions.keys()) {
        assert!(delta.partitions.contains(tp) || before.partitions.get(tp) == after.partitions.get(tp));
    }
    for group in before.groups.keys().chain(after.groups.keys()) {
        assert!(delta.groups.contains(group) || before.groups.get(group) == after.groups.get(group));
    }
    for group in before.consumer_groups.keys().chain(after.consumer_groups.keys()) {
        let same = before.consumer_groups.get(group) == after.consumer_groups.get(group);
        assert!(delta.groups.contains(group) || same);
    }
    for key in before.offsets.keys().chain(after.offsets.keys()) {
        let named = delta.offset_keys.contains(key) && delta.offsets.contains(&key.0);
        assert!(named || before.offsets.get(key) == after.offsets.get(key));
    }
}

fn formed() -> Image {
    let mut image = Image::default();
    let form = Command::FormCluster { cluster_id: CLUSTER, now_ms: 1 };
    assert_eq!(machine::apply(&mut image, 1, &form, &mut Delta::default()), Response::Done);
    image
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_keeps_the_invariants_and_replays_to_the_same(
        steps in prop::collection::vec(step(), 1..80),
        snapshot_at in 0_usize..80,
    ) {
        let mut image = formed();
        let mut log = Vec::new();
        let mut restored = None;
        for (position, step) in steps.iter().enumerate() {
            if position == snapshot_at {
                restored = Some((snapshot::decode(&snapshot::encode(&image)).unwrap(), log.len()));
            }
            let command = command(step, &image);
            let before = image.clone();
            let mut delta = Delta::default();
            let index = before.index + 1;
            let answer = machine::apply(&mut image, index, &command, &mut delta);
            image.check().unwrap();
            check_epochs(&before, &image, &delta);
            check_delta(&before, &image, &delta);
            if let Response::Rejected(_) = answer {
                prop_assert!(delta.is_empty());
                prop_assert_eq!(&Image { index: before.index, ..image.clone() }, &before);
            }
            log.push((command, answer));
        }
        let replay = |mut from: Image, log: &[(Command, Response)]| {
            for (command, answer) in log {
                let decoded = Command::decode(&command.encode()).unwrap();
                let index = from.index + 1;
                assert_eq!(&machine::apply(&mut from, index, &decoded, &mut Delta::default()), answer);
            }
            from
        };
        prop_assert_eq!(&replay(formed(), &log), &image);
        if let Some((restored, from)) = restored {
            prop_assert_eq!(&replay(restored, &log[from..]), &image);
        }
    }

    #[test]
    fn one_entry_of_many_commands_is_as_good_as_many_entries(steps in prop::collection::vec(step(), 1..30)) {
        // Broker epochs and versions of groups are indices, so only commands that do not depend on them are
        // compared.
        let mut one_by_one = formed();
        for number in 1..4 {
            let index = one_by_one.index + 1;
            machine::apply(&mut one_by_one, index, &registration(number, None), &mut Delta::default());
            let epoch = BrokerEpoch(index);
            let unfence = Command::UnfenceBroker { id: id(number), epoch };
            machine::apply(&mut one_by_one, index + 1, &unfence, &mut Delta::default());
        }
        let mut at_once = one_by_one.clone();
        let mut commands = Vec::new();
        let mut answers = Vec::new();
        let indexed =
            |s: &Step| matches!(s, Step::Register { .. } | Step::Unregister { .. } | Step::Consumers { .. });
        for step in steps.iter().filter(|s| !indexed(s)) {
            let command = command(step, &one_by_one);
            let index = one_by_one.index + 1;
            answers.push(machine::apply(&mut one_by_one, index, &command, &mut Delta::default()));
            commands.push(command);
        }
        let index = one_by_one.index.max(at_once.index + 1);
        let batch = machine::apply(&mut at_once, index, &Command::Batch(commands), &mut Delta::default());
        prop_assert_eq!(batch, Response::Batch(answers));
        prop_assert_eq!(Image { index: 0, ..at_once }, Image { index: 0, ..one_by_one });
    }

    #[test]
    fn bytes_that_are_no_snapshot_are_refused_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        keep_header in any::<bool>(),
    ) {
        if keep_header {
            let mut good = snapshot::encode(&formed());
            good.truncate(24);
            good.append(&mut bytes);
            bytes = good;
        }
        prop_assert!(snapshot::decode(&bytes).is_err());
    }

    #[test]
    fn any_flipped_bit_of_a_snapshot_is_noticed(steps in prop::collection::vec(step(), 1..20), flip in any::<prop::sample::Index>()) {
        let mut image = formed();
        for step in &steps {
            let (command, index) = (command(step, &image), image.index + 1);
            machine::apply(&mut image, index, &command, &mut Delta::default());
        }
        let mut bytes = snapshot::encode(&image);
        let bit = flip.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(snapshot::decode(&bytes).is_err());
    }
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused_even_with_a_good_checksum() {
    let mut image = formed();
    for (index, command) in [
        registration(1, None),
        Command::UnfenceBroker { id: id(1), epoch: BrokerEpoch(2) },
        common::create_topic("events", &[&[1]], &[]),
    ]
    .iter()
    .enumerate()
    {
        machine::apply(&mut image, index as u64 + 2, command, &mut Delta::default());
    }
    assert_eq!(snapshot::decode(&snapshot::encode(&image)), Ok(image.clone()));

    let mut leader_outside = image.clone();
    let mut partition = (**image.partition(tp(TOPIC, 0)).unwrap()).clone();
    partition.isr.clear();
    leader_outside.partitions.insert_mut(tp(TOPIC, 0), Arc::new(partition));
    let mut nameless = image.clone();
    nameless.topic_ids.remove_mut("events");
    let mut missing = image.clone();
    missing.partitions.remove_mut(&tp(TOPIC, 0));
    let mut unknown_broker = image.clone();
    unknown_broker.brokers.remove_mut(&id(1));
    let mut from_the_future = image.clone();
    from_the_future.index = 1;
    for bad in [leader_outside, nameless, missing, unknown_broker, from_the_future] {
        assert!(matches!(
            snapshot::decode(&snapshot::encode(&bad)),
            Err(snapshot::SnapshotError::Inconsistent(_))
        ));
    }
}
