//! Groups, offsets and administration over the Kafka listener, and beside gRPC.
#![allow(clippy::disallowed_methods, reason = "tests use sockets and wait")]

mod common;

use bytes::Bytes;
use common::wire::{Wire, batch, produce, text, topic};
use common::{Node, client, cluster};
use kafka_protocol::error::ResponseError::*;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use strandline_wire::v1;

fn on_one_node(test: impl AsyncFnOnce(&Node)) {
    let mut nodes = cluster(1, 11);
    nodes[0].start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(&nodes[0]));
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn join(member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol.with_metadata(Bytes::from_static(b"what it wants"))])
}

fn commit(member: &str, generation: i32, name: &str, offset: i64) -> OffsetCommitRequest {
    let place = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_leader_epoch(-1)
        .with_committed_metadata(Some(text("a note")));
    let places = OffsetCommitRequestTopic::default().with_name(topic(name)).with_partitions(vec![place]);
    OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(generation)
        .with_topics(vec![places])
}

#[test]
fn members_join_get_their_assignment_beat_commit_and_leave() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 1, &[]).await;
        let unnamed = wire.ask(5, &join("")).await;
        assert_eq!(unnamed.error_code, MemberIdRequired.code(), "KIP-394");
        let member = unnamed.member_id.to_string();
        assert!(member.starts_with("a-test-"), "{member}");
        let joined = wire.ask(5, &join(&member)).await;
        assert_eq!((joined.error_code, &*joined.leader, joined.members.len()), (0, &*member, 1));
        assert_eq!(joined.members[0].metadata, Bytes::from_static(b"what it wants"));
        let generation = joined.generation_id;

        let early = wire.ask(7, &commit(&member, generation, "t", 3)).await;
        assert_eq!(early.topics[0].partitions[0].error_code, RebalanceInProgress.code());
        let own = SyncGroupRequestAssignment::default().with_member_id(text(&member));
        let sync = SyncGroupRequest::default()
            .with_group_id(group("g"))
            .with_generation_id(generation)
            .with_member_id(text(&member))
            .with_assignments(vec![own.with_assignment(Bytes::from_static(b"what it gets"))]);
        let synced = wire.ask(3, &sync).await;
        assert_eq!((synced.error_code, synced.assignment), (0, Bytes::from_static(b"what it gets")));

        let beat = |generation| {
            let beat = HeartbeatRequest::default().with_group_id(group("g"));
            beat.with_generation_id(generation).with_member_id(text(&member))
        };
        assert_eq!(wire.ask(3, &beat(generation)).await.error_code, 0);
        assert_eq!(wire.ask(3, &beat(generation + 1)).await.error_code, IllegalGeneration.code());
        let committed = wire.ask(7, &commit(&member, generation, "t", 3)).await;
        assert_eq!(committed.topics[0].partitions[0].error_code, 0);
        let stranger = wire.ask(7, &commit("somebody", generation, "t", 4)).await;
        assert_eq!(stranger.topics[0].partitions[0].error_code, UnknownMemberId.code());
        let unknown = wire.ask(7, &commit(&member, generation, "nowhere", 1)).await;
        assert_eq!(unknown.topics[0].partitions[0].error_code, UnknownTopicOrPartition.code());

        let asked = DescribeGroupsRequest::default().with_groups(vec![group("g"), group("none")]);
        let described = wire.ask(5, &asked).await.groups;
        assert_eq!((&*described[0].group_state, described[0].members.len()), ("Stable", 1));
        assert_eq!(&*described[0].members[0].client_host, "/127.0.0.1");
        assert_eq!((&*described[1].group_state, described[1].error_code), ("Dead", 0));
        assert_eq!(wire.ask(6, &asked).await.groups[1].error_code, GroupIdNotFound.code());
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group("g")]);
        assert_eq!(wire.ask(2, &delete).await.results[0].error_code, NonEmptyGroup.code());
        let leave = LeaveGroupRequest::default().with_group_id(group("g")).with_member_id(text(&member));
        assert_eq!(wire.ask(2, &leave).await.error_code, 0);
        let listed = wire.ask(4, &ListGroupsRequest::default()).await.groups;
        assert_eq!((listed.len(), &*listed[0].group_state), (1, "Empty"));
        assert_eq!(wire.ask(2, &delete).await.results[0].error_code, 0);
    });
}

#[test]
fn what_one_protocol_commits_the_other_sees_metadata_and_all() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        let mut sdk = client(node, 1).await;
        wire.create_topic("t", 1, &[]).await;
        wire.produce_until_taken(9, &produce("t", 0, -1, batch(&["a", "b"]))).await;
        let answer = wire.ask(7, &commit("", -1, "t", 1)).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 0, "a simple consumer's commit");
        let all = v1::OffsetFetchRequest { group: "g".into(), topics: vec![], all: true };
        let seen = sdk.offset_fetch(all).await.unwrap().into_inner().offsets;
        assert_eq!((seen[0].offset, &*seen[0].metadata), (1, "a note"));

        let place = v1::OffsetCommitPartition {
            topic_id: seen[0].topic_id.clone(),
            partition: 0,
            offset: 2,
            leader_epoch: -1,
            metadata: "another".into(),
        };
        let request = v1::OffsetCommitRequest {
            group: "g".into(),
            generation: -1,
            partitions: vec![place],
            ..Default::default()
        };
        assert_eq!(sdk.offset_commit(request).await.unwrap().into_inner().error, None);
        let named =
            OffsetFetchRequestTopic::default().with_name(topic("t")).with_partition_indexes(vec![0, 7]);
        let request = OffsetFetchRequest::default().with_group_id(group("g")).with_topics(Some(vec![named]));
        let fetched = wire.ask(5, &request).await.topics[0].partitions.clone();
        assert_eq!((fetched[0].committed_offset, fetched[0].metadata.as_deref()), (2, Some("another")));
        assert_eq!((fetched[1].committed_offset, fetched[1].error_code), (-1, 0), "nothing there");
        let topics =
            OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
        let one =
            OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(Some(vec![topics]));
        let everything = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![one, everything]);
        for fetched in wire.ask(8, &request).await.groups {
            assert_eq!(fetched.topics[0].partitions[0].committed_offset, 2);
        }
    });
}

#[test]
fn topics_are_created_with_kafkas_defaults_and_altered_by_kafkas_names() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        let creatable = CreatableTopic::default()
            .with_name(topic("t"))
            .with_num_partitions(-1)
            .with_replication_factor(-1);
        let create =
            CreateTopicsRequest::default().with_topics(vec![creatable.clone()]).with_timeout_ms(1000);
        let created = wire.ask(7, &create).await.topics[0].clone();
        assert_eq!((created.error_code, created.num_partitions, created.replication_factor), (0, 1, 1));
        let defaults = created.configs.unwrap();
        let retention = defaults.iter().find(|c| &*c.name == "retention.ms").unwrap();
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("604800000"), 5));
        assert_eq!(wire.ask(7, &create).await.topics[0].error_code, TopicAlreadyExists.code());
        let too_many = creatable.clone().with_name(topic("u")).with_replication_factor(3);
        let create = CreateTopicsRequest::default().with_topics(vec![too_many]).with_timeout_ms(1000);
        assert_eq!(wire.ask(7, &create).await.topics[0].error_code, InvalidReplicationFactor.code());
        assert_eq!(wire.create_topic("v", 1, &[("no.such.key", "1")]).await, InvalidConfig.code());
        assert_eq!(wire.create_topic("bad name", 1, &[]).await, InvalidTopicException.code());
        let twice = CreateTopicsRequest::default()
            .with_topics(vec![creatable.clone().with_name(topic("w")), creatable.with_name(topic("w"))]);
        let twice = wire.ask(7, &twice).await.topics;
        assert_eq!((twice.len(), twice[0].error_code), (1, InvalidRequest.code()));

        let alter = |key: &str, operation, value: Option<&str>| {
            let config = AlterableConfig::default().with_name(text(key)).with_config_operation(operation);
            let resource =
                AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
            let resource = resource.with_configs(vec![config.with_value(value.map(text))]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
        };
        let described = async |wire: &mut Wire| {
            let resource = DescribeConfigsResource::default().with_resource_type(2);
            let keys = Some(vec![text("retention.ms")]);
            let resource = resource.with_resource_name(text("t")).with_configuration_keys(keys);
            let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
            let result = wire.ask(4, &request.with_include_synonyms(true)).await.results[0].clone();
            let config = result.configs[0].clone();
            (
                config.value.unwrap().to_string(),
                config.config_source,
                config.config_type,
                config.synonyms.len(),
            )
        };
        let altered = wire.ask(1, &alter("retention.ms", 0, Some("1000"))).await.responses[0].clone();
        assert_eq!(altered.error_code, 0, "{altered:?}");
        assert_eq!(described(&mut wire).await, ("1000".to_owned(), 1, 5, 2));
        assert_eq!(wire.ask(1, &alter("retention.ms", 1, None)).await.responses[0].error_code, 0);
        assert_eq!(described(&mut wire).await, ("604800000".to_owned(), 5, 5, 1));
        let cleared = wire.ask(1, &alter("leader.replication.throttled.replicas", 1, None)).await;
        assert_eq!(cleared.responses[0].error_code, 0, "what is not there may be cleared");
        for (key, operation, value, code) in [
            ("retention.ms", 0, Some("soon"), InvalidConfig),
            ("retention.ms", 2, Some("1"), InvalidConfig),
            ("retention.ms", 0, None, InvalidConfig),
            ("no.such.key", 0, Some("1"), InvalidConfig),
            ("retention.ms", 9, Some("1"), InvalidRequest),
        ] {
            let refused = wire.ask(1, &alter(key, operation, value)).await.responses[0].clone();
            assert_eq!(refused.error_code, code.code(), "{key} {operation} {value:?}");
        }
    });
}
