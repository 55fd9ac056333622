//! CreateTopic, DeleteTopic, AddPartitions, AlterTopicConfigs and the table of configurations.

mod common;

use common::{TOPIC, World, create_topic, id};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::configs::{
    self, CompactionSettings, DedupKey, DedupSettings, FlushMode, TimestampType,
};
use strandline_metadata::{Command, CommittedOffset, Rejection, Response, TopicSettings, command::tp};
use strandline_record::{LeaderEpoch, Offset, PartitionEpoch, TopicId};
use uuid::Uuid;

#[test]
fn a_new_topic_has_its_live_replicas_in_sync_and_its_first_one_leading() {
    let mut world = World::with_brokers(3);
    world.fence(2);
    let created = world.apply(create_topic("events", &[&[1, 2, 3], &[2, 3, 1]], &[]));
    assert_eq!(created, Response::TopicCreated { id: TOPIC });
    assert_eq!(world.roles(), (1, vec![1, 3], vec![]));
    let second = world.image.partition(tp(TOPIC, 1)).unwrap();
    assert_eq!(second.leader, Some(id(3)));
    assert_eq!((second.leader_epoch, second.partition_epoch), (LeaderEpoch(1), PartitionEpoch(1)));
    assert_eq!(second.unclean_epoch, LeaderEpoch(0));
    assert_eq!(world.image.topic_by_name("events").map(|t| t.partitions), Some(2));
}

#[test]
fn creating_a_topic_again_answers_the_same_and_its_name_is_taken_for_others() {
    let mut world = World::with_partition(&[]);
    let image = world.image.clone();
    assert_eq!(world.apply(create_topic("events", &[&[1, 2, 3]], &[])), Response::TopicCreated { id: TOPIC });
    assert_eq!(world.image.topics, image.topics);
    let other = TopicId(Uuid::from_u128(3));
    let mut namesake = create_topic("events", &[&[1]], &[]);
    let Command::CreateTopic { id, .. } = &mut namesake else { panic!() };
    *id = other;
    assert_eq!(world.rejected(namesake), Rejection::TopicExists("events".into()));
    assert!(matches!(world.rejected(create_topic("others", &[&[1]], &[])), Rejection::Invalid(_)));
}

#[test]
fn topic_names_follow_kafkas_rule() {
    let long = "x".repeat(249);
    for good in ["a", "A.b_c-9", "..a", long.as_str()] {
        let mut world = World::with_brokers(1);
        let created = world.apply(create_topic(good, &[&[1]], &[]));
        assert!(matches!(created, Response::TopicCreated { .. }), "{good}");
    }
    let too_long = "x".repeat(250);
    for bad in ["", ".", "..", "a b", "a/b", "ä", too_long.as_str()] {
        let mut world = World::with_brokers(1);
        assert!(
            matches!(world.rejected(create_topic(bad, &[&[1]], &[])), Rejection::InvalidName(_)),
            "{bad}"
        );
    }
}

#[test]
fn assignments_that_cannot_work_are_refused() {
    let mut world = World::with_brokers(3);
    world.fence(3);
    assert!(matches!(world.rejected(create_topic("t", &[], &[])), Rejection::Invalid(_)));
    for bad in [&[&[][..]][..], &[&[1, 1]], &[&[1, 9]], &[&[1], &[1, 2]]] {
        assert!(
            matches!(world.rejected(create_topic("t", bad, &[])), Rejection::InvalidReplicas(_)),
            "{bad:?}"
        );
    }
    assert_eq!(world.rejected(create_topic("t", &[&[3]], &[])), Rejection::NoEligibleReplica);
}

#[test]
fn partitions_are_added_if_the_count_is_the_expected_one() {
    let mut world = World::with_partition(&[]);
    let add = |expected| Command::AddPartitions {
        topic: TOPIC,
        expected,
        assignments: vec![vec![id(2), id(1)], vec![id(3), id(1)]],
    };
    assert_eq!(world.rejected(add(2)), Rejection::PartitionCountChanged(1));
    world.done(add(1));
    assert_eq!(world.image.topics.get(&TOPIC).unwrap().partitions, 3);
    assert_eq!(world.image.partition(tp(TOPIC, 2)).unwrap().leader, Some(id(3)));
    assert_eq!(world.rejected(add(1)), Rejection::PartitionCountChanged(3));
}

#[test]
fn a_deleted_topic_takes_its_partitions_and_committed_offsets_along_and_frees_its_name() {
    let mut world = World::with_partition(&[]);
    let offset = CommittedOffset { offset: Offset(4), leader_epoch: None, metadata: None, commit_time_ms: 0 };
    world.done(Command::CommitOffsets {
        group: "readers".into(),
        member: None,
        offsets: vec![(tp(TOPIC, 0), offset)],
    });
    world.done(Command::DeleteTopic { id: TOPIC });
    assert_eq!(world.image.partitions.size(), 0);
    assert_eq!(world.image.offsets.size(), 0);
    assert_eq!(world.image.topic_by_name("events"), None);
    assert!(world.delta.offsets.contains("readers"));
    assert!(world.delta.offset_keys.contains(&(Arc::from("readers"), tp(TOPIC, 0))));
    assert_eq!(world.rejected(Command::DeleteTopic { id: TOPIC }), Rejection::UnknownTopic);
    assert!(matches!(world.apply(create_topic("events", &[&[1]], &[])), Response::TopicCreated { .. }));
}

#[test]
fn an_unknown_configuration_is_refused_with_the_nearest_name() {
    let mut world = World::with_partition(&[]);
    for (wrong, nearest) in [
        ("retention.m", Some("retention.ms")),
        ("min.isync.replicas", Some("min.insync.replicas")),
        ("Cleanup.Policy", Some("cleanup.policy")),
        ("frobnicate.the.whole.thing", None),
    ] {
        let answer = world.configure(&[(wrong, "1")], &[]);
        let Response::Rejected(Rejection::InvalidConfig { key, reason }) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(key, wrong);
        match nearest {
            Some(nearest) => assert!(reason.contains(nearest), "{reason}"),
            None => assert!(!reason.contains("mean"), "{reason}"),
        }
        let answer = world.configure(&[], &[wrong]);
        assert!(matches!(answer, Response::Rejected(Rejection::InvalidConfig { .. })));
    }
}

#[test]
fn configuration_values_are_checked() {
    for (key, good, bad) in [
        (
            "cleanup.policy",
            &["delete", "compact", "compact,delete", "delete,compact"][..],
            &["", "Compact", "compact,", "none"][..],
        ),
        (
            "dedup.key",
            &["none", "key", "header:id", "header:a:b"],
            &["", "header", "header:", "value", "Key"],
        ),
        ("dedup.window.ms", &["1", "86400000"], &["0", "-1", "1h"]),
        ("delete.retention.ms", &["0", "86400000"], &["-1"]),
        ("max.compaction.lag.ms", &["1", "9223372036854775807"], &["0"]),
        ("min.cleanable.dirty.ratio", &["0", "0.01", "0.5", "1.0"], &["-0.1", "1.1", "NaN", "half"]),
        ("min.compaction.lag.ms", &["0", "60000"], &["-1"]),
        ("retention.ms", &["-1", "0", "604800000"], &["-2", "x", "1.5", ""]),
        ("retention.bytes", &["-1", "1000"], &["-2", "many"]),
        ("segment.bytes", &["4096", "1073741824"], &["0", "4095", "99999999999"]),
        ("segment.ms", &["1"], &["0", "-1"]),
        ("max.message.bytes", &["1048588"], &["0", "-1", "1g"]),
        ("min.insync.replicas", &["1", "3"], &["0", "-1"]),
        ("message.timestamp.type", &["CreateTime", "LogAppendTime"], &["createtime"]),
        ("unclean.leader.election.enable", &["true", "false"], &["1", "yes", "True"]),
        ("flush", &["ack", "interval", "os"], &["always", ""]),
        ("flush.ms", &["1", "60000"], &["0"]),
        ("compression.type", &["producer"], &["zstd"]),
        ("index.interval.bytes", &["512", "4096"], &["1"]),
    ] {
        let mut world = World::with_partition(&[]);
        for value in good {
            assert_eq!(world.configure(&[(key, value)], &[]), Response::Done, "{key}={value}");
        }
        for value in bad {
            let answer = world.configure(&[(key, value)], &[]);
            assert!(
                matches!(&answer, Response::Rejected(Rejection::InvalidConfig { key: k, .. }) if k == key),
                "{key}={value}: {answer:?}"
            );
        }
    }
    let mut world = World::with_partition(&[]);
    let lags = world.configure(&[("min.compaction.lag.ms", "6"), ("max.compaction.lag.ms", "5")], &[]);
    assert!(matches!(lags, Response::Rejected(Rejection::InvalidConfig { .. })), "{lags:?}");
    let compacted = world.configure(&[("cleanup.policy", "compact,delete"), ("dedup.key", "key")], &[]);
    assert!(matches!(compacted, Response::Rejected(Rejection::InvalidConfig { .. })), "{compacted:?}");
    let both = world.configure(&[("retention.ms", "1")], &["retention.ms"]);
    assert!(matches!(both, Response::Rejected(Rejection::InvalidConfig { .. })));
}

#[test]
fn every_default_is_a_value_that_its_key_accepts_and_the_table_is_sorted() {
    for row in configs::TOPIC_CONFIGS {
        row.check(row.default).unwrap();
        assert!(!row.documentation.is_empty());
    }
    assert!(configs::TOPIC_CONFIGS.is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn settings_are_the_defaults_with_what_is_set() {
    let defaults = TopicSettings::from_configs(&BTreeMap::new(), 3);
    assert_eq!(
        defaults,
        TopicSettings {
            compaction: None,
            dedup: None,
            flush: FlushMode::Ack,
            flush_ms: 1000,
            index_interval_bytes: 4096,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            min_insync_replicas: 2,
            retention_bytes: None,
            retention_ms: Some(604_800_000),
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            unclean_leader_election: false,
        }
    );
    let set: BTreeMap<Arc<str>, Arc<str>> = [
        ("flush", "os"),
        ("retention.ms", "-1"),
        ("retention.bytes", "5000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("unclean.leader.election.enable", "true"),
        ("dedup.key", "header:id"),
        ("dedup.window.ms", "60000"),
    ]
    .map(|(k, v)| (k.into(), v.into()))
    .into();
    assert_eq!(
        TopicSettings::from_configs(&set, 3),
        TopicSettings {
            dedup: Some(DedupSettings { key: DedupKey::Header("id".into()), window_ms: 60_000 }),
            flush: FlushMode::Os,
            retention_ms: None,
            retention_bytes: Some(5000),
            timestamp_type: TimestampType::LogAppendTime,
            unclean_leader_election: true,
            ..defaults
        }
    );
}

#[test]
fn retention_goes_by_the_delete_policy_and_compaction_by_the_compact_policy() {
    let settings = |policy: &str| {
        let configs =
            [("cleanup.policy", policy), ("retention.bytes", "5000"), ("min.cleanable.dirty.ratio", "0.01")];
        TopicSettings::from_configs(&configs.map(|(k, v)| (k.into(), v.into())).into(), 3)
    };
    let compaction = CompactionSettings {
        min_lag_ms: 0,
        max_lag_ms: i64::MAX as u64,
        delete_retention_ms: 86_400_000,
        min_dirty_ppm: 10_000,
    };
    for (policy, compacts, deletes) in
        [("delete", false, true), ("compact", true, false), ("compact,delete", true, true)]
    {
        let settings = settings(policy);
        assert_eq!(settings.compaction, compacts.then_some(compaction), "{policy}");
        assert_eq!(settings.retention_bytes, deletes.then_some(5000), "{policy}");
        assert_eq!(settings.retention_ms, deletes.then_some(604_800_000), "{policy}");
    }
}

#[test]
fn the_default_minimum_is_lowered_to_the_replica_count_and_a_set_one_is_not() {
    let minimum = |configs: &[(&str, &str)], replication| {
        let configs = configs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect();
        TopicSettings::from_configs(&configs, replication).min_insync_replicas
    };
    assert_eq!([1, 2, 3, 5].map(|replication| minimum(&[], replication)), [1, 2, 2, 2]);
    assert_eq!(minimum(&[("min.insync.replicas", "2")], 1), 2);
    assert_eq!(minimum(&[("min.insync.replicas", "1")], 3), 1);
}

#[test]
fn waiting_for_the_disk_can_be_given_up_and_not_taken_up_again() {
    let mut world = World::with_partition(&[]);
    assert_eq!(world.configure(&[("flush", "interval")], &[]), Response::Done);
    assert_eq!(world.configure(&[("flush", "os")], &[]), Response::Done);
    for answer in [world.configure(&[("flush", "ack")], &[]), world.configure(&[], &["flush"])] {
        assert!(matches!(answer, Response::Rejected(Rejection::InvalidConfig { .. })), "{answer:?}");
    }
    assert_eq!(world.configure(&[("retention.ms", "1000")], &[]), Response::Done);
}
