//! Transcripts with the Kafka listener: what other implementations have stumbled over (KAFKA.md).
#![allow(clippy::disallowed_methods, reason = "tests use sockets and wait")]

mod common;

use bytes::{Buf, Bytes};
use common::wire::{Wire, batch, built, fetch, produce, text, topic};
use common::{Node, cluster};
use kafka_protocol::error::ResponseError::*;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Request};
use strandline_record::{BatchHeader, Compression};
use tokio::io::AsyncWriteExt;

fn on_one_node(test: impl AsyncFnOnce(&Node)) {
    let mut nodes = cluster(1, 7);
    nodes[0].start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(&nodes[0]));
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0_and_the_connection_goes_on() {
    on_one_node(async |node| {
        let mut wire = Wire::connect(node).await;
        let mut bytes = vec![0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff];
        bytes.extend([0, 0]);
        wire.stream.write_all(&bytes).await.unwrap();
        let mut answer = wire.frame().await.unwrap();
        assert_eq!(answer.get_i32(), 5, "the correlation id, and no flexible header");
        let versions = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
        assert_eq!((versions.error_code, answer.remaining()), (UnsupportedVersion.code(), 0));

        for version in 0..=4 {
            let hello = ApiVersionsRequest::default();
            let hello = hello.with_client_software_name(text("x")).with_client_software_version(text("1"));
            let versions = wire.ask(version, &hello).await;
            assert_eq!(versions.error_code, 0);
            let produce = versions.api_keys.iter().find(|key| key.api_key == 0).unwrap();
            assert_eq!((produce.min_version, produce.max_version), (0, 13), "KAFKA-18659");
            assert!(!versions.api_keys.iter().any(|key| key.api_key == 24), "not served, not advertised");
        }
    });
}

#[test]
fn frames_are_small_until_the_client_has_said_who_it_is_and_what_is_not_served_ends_the_connection() {
    on_one_node(async |node| {
        let large = produce("t", 0, -1, Bytes::from(vec![2; 100_000]));
        let mut stranger = Wire::connect(node).await;
        stranger.send(9, &large).await;
        assert!(stranger.frame().await.is_none(), "closed");
        let mut known = Wire::introduced(node).await;
        let answer = known.ask(9, &large).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, UnknownTopicOrPartition.code());
        for garbage in [
            &[0xff, 0xff, 0xff, 0xff, 1, 2][..],
            &[0, 0, 0, 4, 1, 2, 3, 4],
            // Key 68, which is not served.
            &[0, 0, 0, 10, 0, 68, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
            // Metadata that declares a thousand million topics.
            &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x3b, 0x9a, 0xca, 0],
        ] {
            let mut wire = Wire::introduced(node).await;
            wire.stream.write_all(garbage).await.unwrap();
            assert!(wire.frame().await.is_none(), "{garbage:?} should end the connection");
        }
        assert_eq!(known.ask(1, &MetadataRequest::default().with_topics(None)).await.brokers.len(), 1);
    });
}

#[test]
fn records_go_in_and_come_out_in_every_version() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        assert_eq!(wire.create_topic("t", -1, &[]).await, 0);
        let metadata = wire.ask(12, &asks("t")).await;
        let id = metadata.topics[0].topic_id;
        let mut expected = 0;
        for version in 3..=13 {
            let mut request = produce("t", 0, -1, batch(&["one", "two"]));
            if version == 13 {
                request.topic_data[0].name = topic("");
                request.topic_data[0].topic_id = id;
            }
            let taken = wire.produce_until_taken(version, &request).await;
            assert_eq!((taken.error_code, taken.base_offset), (0, expected), "version {version}");
            assert_eq!(taken.log_append_time_ms, -1);
            expected += 2;
        }
        for version in 4..=18 {
            let mut request = fetch("t", 0, 2);
            if version >= 13 {
                request.topics[0].topic = topic("");
                request.topics[0].topic_id = id;
            }
            let fetched = wire.ask(version, &request).await;
            let partition = &fetched.responses[0].partitions[0];
            assert_eq!((partition.error_code, partition.high_watermark), (0, expected), "version {version}");
            assert_eq!(partition.last_stable_offset, expected);
            let records = partition.records.clone().unwrap();
            assert_eq!(BatchHeader::parse(&records).unwrap().base_offset().get(), 2);
            assert_eq!(records.len(), 10 * batch(&["one", "two"]).len());
        }
    });
}

fn asks(name: &str) -> MetadataRequest {
    let named = MetadataRequestTopic::default().with_name(Some(topic(name)));
    MetadataRequest::default().with_topics(Some(vec![named]))
}

#[test]
fn a_fetch_gives_whole_batches_and_the_first_one_however_large() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 2, &[]).await;
        let sent = batch(&["a", "b", "c"]);
        wire.produce_until_taken(9, &produce("t", 0, -1, sent.clone())).await;
        // From the middle of the batch, with room for a byte.
        let mut request = fetch("t", 0, 2);
        request.max_bytes = 1;
        request.topics[0].partitions[0].partition_max_bytes = 1;
        let fetched = wire.ask(12, &request).await;
        let records = fetched.responses[0].partitions[0].records.clone().unwrap();
        assert_eq!(records.len(), sent.len());
        assert_eq!(BatchHeader::parse(&records).unwrap().base_offset().get(), 0);
        // Nothing there yet: no records, but never null.
        wire.produce_until_taken(9, &produce("t", 1, -1, sent)).await;
        for version in [4, 11, 12, 16] {
            let mut request = fetch("t", 1, 3);
            if version >= 13 {
                request.topics[0].topic_id = wire.ask(12, &asks("t")).await.topics[0].topic_id;
                request.topics[0].topic = topic("");
            }
            let fetched = wire.ask(version, &request).await;
            assert_eq!(fetched.responses[0].partitions[0].records, Some(Bytes::new()), "version {version}");
        }
        let beyond = wire.ask(11, &fetch("t", 1, 99)).await;
        assert_eq!(beyond.responses[0].partitions[0].error_code, OffsetOutOfRange.code());
        // A follower has no business here (CVE-2018-1288).
        let follower = fetch("t", 0, 0).with_replica_id(BrokerId(1));
        let refused = wire.ask(11, &follower).await;
        assert_eq!(refused.responses[0].partitions[0].error_code, ClusterAuthorizationFailed.code());
        assert_eq!(refused.responses[0].partitions[0].records, Some(Bytes::new()));
    });
}

#[test]
fn a_fetch_session_answers_what_is_new_and_has_its_own_errors() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 2, &[]).await;
        wire.produce_until_taken(9, &produce("t", 0, -1, batch(&["a"]))).await;
        wire.produce_until_taken(9, &produce("t", 1, -1, batch(&["b"]))).await;
        let mut first = fetch("t", 0, 1).with_session_epoch(0);
        let more = fetch("t", 1, 1).topics.remove(0).partitions.remove(0);
        first.topics[0].partitions.push(more);
        let full = wire.ask(12, &first).await;
        assert_eq!((full.error_code, full.responses[0].partitions.len()), (0, 2));
        let session = full.session_id;
        assert!(session > 0);

        let next = |epoch| {
            let request = FetchRequest::default().with_max_bytes(1 << 20).with_max_wait_ms(0);
            request.with_session_id(session).with_session_epoch(epoch)
        };
        let quiet = wire.ask(12, &next(1)).await;
        assert_eq!((quiet.session_id, quiet.responses.len()), (session, 0));
        wire.produce_until_taken(9, &produce("t", 1, -1, batch(&["c"]))).await;
        let news = wire.ask(12, &next(2)).await;
        assert_eq!((news.responses.len(), news.responses[0].partitions[0].partition_index), (1, 1));
        // Forgotten explicitly, partition 1 is heard of no more.
        let forget = ForgottenTopic::default().with_topic(topic("t")).with_partitions(vec![1]);
        let forgotten = wire.ask(12, &next(3).with_forgotten_topics_data(vec![forget])).await;
        assert_eq!(forgotten.responses.len(), 0);

        let wrong = wire.ask(12, &next(3)).await;
        assert_eq!(wrong.error_code, InvalidFetchSessionEpoch.code());
        let unknown = wire.ask(12, &next(4).with_session_id(session ^ 1)).await;
        assert_eq!(unknown.error_code, FetchSessionIdNotFound.code());
    });
}

#[test]
fn a_long_poll_ends_when_records_come_and_requests_behind_it_are_answered_after_it() {
    on_one_node(async |node| {
        let (mut wire, mut other) = (Wire::introduced(node).await, Wire::introduced(node).await);
        wire.create_topic("t", 1, &[]).await;
        wire.produce_until_taken(9, &produce("t", 0, -1, batch(&["a"]))).await;
        let poll = fetch("t", 0, 1).with_max_wait_ms(25_000);
        let first = wire.send(11, &poll).await;
        let second = wire.send(1, &MetadataRequest::default().with_topics(None)).await;
        other.produce_until_taken(9, &produce("t", 0, -1, batch(&["b"]))).await;
        let (correlation, fetched) = wire.receive::<FetchRequest>(11).await;
        assert_eq!(correlation, first);
        assert!(!fetched.responses[0].partitions[0].records.clone().unwrap().is_empty());
        assert_eq!(wire.receive::<MetadataRequest>(1).await.0, second);
        // Produces without waiting for answers, acks=0 among them, which has none.
        let sent: Vec<i32> = [
            wire.send(9, &produce("t", 0, -1, batch(&["c"]))).await,
            wire.send(9, &produce("t", 0, 0, batch(&["d"]))).await,
            wire.send(9, &produce("t", 0, 1, batch(&["e"]))).await,
        ]
        .into();
        let (correlation, answer) = wire.receive::<ProduceRequest>(9).await;
        assert_eq!((correlation, answer.responses[0].partition_responses[0].base_offset), (sent[0], 2));
        let (correlation, answer) = wire.receive::<ProduceRequest>(9).await;
        assert_eq!((correlation, answer.responses[0].partition_responses[0].base_offset), (sent[2], 4));
    });
}

#[test]
fn batches_are_refused_with_the_code_that_says_why() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 1, &[("max.message.bytes", "1024")]).await;
        wire.produce_until_taken(9, &produce("t", 0, -1, batch(&["a"]))).await;
        let mut old = batch(&["a"]).to_vec();
        old[16] = 1;
        let mut damaged = batch(&["a"]).to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let two = [batch(&["a"]), batch(&["b"])].concat();
        let large = "x".repeat(2000);
        let zstd = built(Compression::Zstd, None, &["a"]);
        for (acks, version, records, code) in [
            (-1, 9, Bytes::from(old), UnsupportedForMessageFormat),
            (-1, 9, Bytes::from(damaged), CorruptMessage),
            (-1, 9, Bytes::from(two), InvalidRecord),
            (-1, 9, batch(&[&large]), MessageTooLarge),
            (-1, 3, zstd, UnsupportedCompressionType),
            (7, 9, batch(&["a"]), InvalidRequiredAcks),
        ] {
            let answer = wire.ask(version, &produce("t", 0, acks, records)).await;
            let partition = &answer.responses[0].partition_responses[0];
            assert_eq!((partition.error_code, partition.base_offset), (code.code(), -1), "{code:?}");
        }
        let transactional = produce("t", 0, -1, batch(&["a"]));
        let transactional = transactional.with_transactional_id(Some(TransactionalId(text("t"))));
        let answer = wire.ask(9, &transactional).await;
        let refused = TransactionalIdAuthorizationFailed.code();
        assert_eq!(answer.responses[0].partition_responses[0].error_code, refused);
        // Nothing of all that was appended.
        assert_eq!(wire.ask(11, &fetch("t", 0, 0)).await.responses[0].partitions[0].high_watermark, 1);
    });
}

#[test]
fn an_idempotent_producer_gets_the_old_offset_for_a_batch_that_it_repeats() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 1, &[]).await;
        let init = wire.ask(4, &InitProducerIdRequest::default().with_transactional_id(None)).await;
        assert_eq!((init.error_code, init.producer_epoch), (0, 0));
        let id = init.producer_id.0;
        let send = |sequence, value| {
            produce("t", 0, -1, built(Compression::None, Some((id, 0, sequence)), &[value]))
        };
        for sequence in 0..3 {
            let taken = wire.produce_until_taken(9, &send(sequence, "v")).await;
            assert_eq!((taken.error_code, taken.base_offset), (0, i64::from(sequence)));
        }
        let repeated = wire.ask(9, &send(1, "v")).await.responses[0].partition_responses[0].clone();
        assert_eq!((repeated.error_code, repeated.base_offset), (0, 1));
        let gap = wire.ask(9, &send(9, "v")).await.responses[0].partition_responses[0].clone();
        assert_eq!(gap.error_code, OutOfOrderSequenceNumber.code());
        let again = InitProducerIdRequest::default().with_transactional_id(None);
        let bumped = wire.ask(4, &again.with_producer_id(ProducerId(id)).with_producer_epoch(0)).await;
        assert_eq!((bumped.producer_id.0, bumped.producer_epoch), (id, 1));
        let fresh = produce("t", 0, -1, built(Compression::None, Some((id, 1, 0)), &["w"]));
        assert_eq!(wire.ask(9, &fresh).await.responses[0].partition_responses[0].error_code, 0);
        let fenced = wire.ask(9, &send(3, "v")).await.responses[0].partition_responses[0].clone();
        assert_eq!(fenced.error_code, InvalidProducerEpoch.code());
    });
}

#[test]
fn log_append_time_is_told_to_producers_and_seen_by_readers() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
        let taken = wire.produce_until_taken(9, &produce("t", 0, -1, batch(&["a"]))).await;
        assert!(taken.log_append_time_ms > 1_000_000, "{taken:?}");
        let records = wire.ask(11, &fetch("t", 0, 0)).await.responses[0].partitions[0].records.clone();
        let header = BatchHeader::parse(&records.unwrap()).unwrap();
        assert_eq!(header.max_timestamp(), taken.log_append_time_ms);
    });
}

#[test]
fn offsets_are_listed_by_time_and_by_name_of_the_end() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 1, &[]).await;
        // Timestamps 1000, 1001, 1002.
        wire.produce_until_taken(9, &produce("t", 0, -1, batch(&["a", "b", "c"]))).await;
        for (timestamp, offset, at) in [
            (-1, 3, -1),
            (-2, 0, -1),
            (-3, 2, 1002),
            (-4, 0, -1),
            (-5, -1, -1),
            (1001, 1, 1001),
            (5000, -1, -1),
        ] {
            let place =
                ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
            let place = ListOffsetsTopic::default().with_name(topic("t")).with_partitions(vec![place]);
            let asked = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![place]);
            let found = wire.ask(9, &asked).await.topics[0].partitions[0].clone();
            assert_eq!((found.error_code, found.offset, found.timestamp), (0, offset, at), "{timestamp}");
        }
    });
}

#[test]
fn a_client_over_its_quota_is_told_so_and_held_back() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 1, &[]).await;
        wire.produce_until_taken(9, &produce("t", 0, -1, batch(&["a"]))).await;
        let named = EntityData::default().with_entity_type(text("client-id"));
        let limit = |key, value| OpData::default().with_key(text(key)).with_value(value);
        let entry = |ops| {
            let entity = named.clone().with_entity_name(Some(text("a-test")));
            AlterClientQuotasRequest::default()
                .with_entries(vec![EntryData::default().with_entity(vec![entity]).with_ops(ops)])
        };
        let unknown = wire.ask(1, &entry(vec![limit("request_percentage", 10.0)])).await;
        assert_eq!(unknown.entries[0].error_code, InvalidRequest.code());
        let altered = wire.ask(1, &entry(vec![limit("producer_byte_rate", 100_000.0)])).await;
        assert_eq!(altered.entries[0].error_code, 0, "{altered:?}");
        let described = wire.ask(1, &DescribeClientQuotasRequest::default()).await;
        let entries = described.entries.unwrap();
        assert_eq!((entries.len(), entries[0].values[0].value), (1, 100_000.0));
        // A second's worth is free; what goes beyond is held back, at 100 bytes a millisecond.
        let large = "x".repeat(110_000);
        let answer = wire.ask(9, &produce("t", 0, -1, batch(&[&large]))).await;
        assert!((1..=200).contains(&answer.throttle_time_ms), "{}", answer.throttle_time_ms);
        // Answered first, it is read again later, and served.
        let next = wire.ask(9, &produce("t", 0, -1, batch(&["b"]))).await;
        assert_eq!(next.responses[0].partition_responses[0].error_code, 0);
    });
}

/// Asks with everything at its default in every version: whatever the answer says, it must encode and decode.
async fn in_every_version<Q: Request + Default>(node: &Node, min: i16, max: i16) {
    for version in min..=max {
        let mut wire = Wire::introduced(node).await;
        wire.ask(version, &Q::default()).await;
    }
}

#[test]
fn every_request_is_answered_in_every_version() {
    on_one_node(async |node| {
        Wire::introduced(node).await.create_topic("t", 2, &[]).await;
        in_every_version::<ListOffsetsRequest>(node, 1, 10).await;
        in_every_version::<MetadataRequest>(node, 0, 13).await;
        in_every_version::<OffsetCommitRequest>(node, 2, 9).await;
        in_every_version::<OffsetFetchRequest>(node, 1, 9).await;
        in_every_version::<FindCoordinatorRequest>(node, 0, 6).await;
        in_every_version::<JoinGroupRequest>(node, 0, 9).await;
        in_every_version::<HeartbeatRequest>(node, 0, 4).await;
        in_every_version::<LeaveGroupRequest>(node, 0, 5).await;
        in_every_version::<SyncGroupRequest>(node, 0, 5).await;
        in_every_version::<DescribeGroupsRequest>(node, 0, 6).await;
        in_every_version::<ListGroupsRequest>(node, 0, 5).await;
        in_every_version::<CreateTopicsRequest>(node, 2, 7).await;
        in_every_version::<DeleteTopicsRequest>(node, 1, 6).await;
        in_every_version::<DeleteRecordsRequest>(node, 0, 2).await;
        in_every_version::<InitProducerIdRequest>(node, 0, 5).await;
        in_every_version::<OffsetForLeaderEpochRequest>(node, 2, 4).await;
        in_every_version::<DescribeConfigsRequest>(node, 1, 4).await;
        in_every_version::<AlterConfigsRequest>(node, 0, 2).await;
        in_every_version::<DescribeLogDirsRequest>(node, 1, 4).await;
        in_every_version::<CreatePartitionsRequest>(node, 0, 3).await;
        in_every_version::<DeleteGroupsRequest>(node, 0, 2).await;
        in_every_version::<ElectLeadersRequest>(node, 0, 2).await;
        in_every_version::<IncrementalAlterConfigsRequest>(node, 0, 1).await;
        in_every_version::<AlterPartitionReassignmentsRequest>(node, 0, 1).await;
        in_every_version::<ListPartitionReassignmentsRequest>(node, 0, 0).await;
        in_every_version::<OffsetDeleteRequest>(node, 0, 0).await;
        in_every_version::<DescribeClientQuotasRequest>(node, 0, 1).await;
        in_every_version::<AlterClientQuotasRequest>(node, 0, 1).await;
        in_every_version::<DescribeClusterRequest>(node, 0, 2).await;
        in_every_version::<DescribeProducersRequest>(node, 0, 0).await;
        in_every_version::<DescribeTopicPartitionsRequest>(node, 0, 0).await;
    });
}

#[test]
fn a_consumer_is_sent_to_a_follower_in_its_rack_which_shows_what_the_leader_has_told_it() {
    let mut nodes = cluster(3, 5);
    for (node, rack) in nodes.iter_mut().zip(["a", "b", "c"]) {
        node.config.broker_rack = Some(rack.to_owned());
        node.start();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        common::client(&nodes[0], 3).await;
        let mut any = Wire::introduced(&nodes[0]).await;
        assert_eq!(any.create_topic("t", 1, &[]).await, 0);
        let partition = any.ask(12, &asks("t")).await.topics[0].partitions[0].clone();
        assert_eq!(partition.replica_nodes.len(), 3);
        let leader = partition.leader_id.0 as usize - 1;
        let follower = (leader + 1) % 3;
        let rack = text(["a", "b", "c"][follower]);
        let mut leading = Wire::introduced(&nodes[leader]).await;
        let mut following = Wire::introduced(&nodes[follower]).await;
        leading.produce_until_taken(9, &produce("t", 0, -1, batch(&["a", "b"]))).await;

        let near = |offset| fetch("t", 0, offset).with_rack_id(rack.clone()).with_max_wait_ms(20_000);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        // Once the follower is in sync it is named.
        let named = loop {
            let told = leading.ask(11, &near(0)).await.responses[0].partitions[0].clone();
            if told.preferred_read_replica.0 >= 0 {
                break told;
            }
            assert!(std::time::Instant::now() < until, "nobody near was named: {told:?}");
        };
        assert_eq!(named.preferred_read_replica.0 as usize, follower + 1);
        assert_eq!((named.error_code, named.records), (0, Some(Bytes::new())));
        let own = fetch("t", 0, 0).with_rack_id(text(["a", "b", "c"][leader]));
        let read = leading.ask(11, &own).await.responses[0].partitions[0].clone();
        assert!(read.preferred_read_replica.0 < 0 && !read.records.unwrap().is_empty());

        let mut records = Bytes::new();
        while records.is_empty() {
            let read = following.ask(11, &near(0)).await.responses[0].partitions[0].clone();
            assert!(matches!(read.error_code, 0 | 78), "{read:?}");
            records = read.records.unwrap();
            assert!(std::time::Instant::now() < until, "the follower shows nothing");
        }
        assert_eq!(BatchHeader::parse(&records).unwrap().next_offset().get(), 2);
        // A poll there ends when the leader's high watermark passes new records.
        following.send(11, &near(2)).await;
        leading.produce_until_taken(9, &produce("t", 0, -1, batch(&["c"]))).await;
        let (_, polled) = following.receive::<FetchRequest>(11).await;
        assert!(!polled.responses[0].partitions[0].records.clone().unwrap().is_empty());
        // It does not know what is out of range, and serves nobody who does not say where they are.
        let beyond = following.ask(11, &near(99)).await.responses[0].partitions[0].error_code;
        assert_eq!(beyond, OffsetNotAvailable.code());
        let elsewhere = following.ask(11, &fetch("t", 0, 0)).await.responses[0].partitions[0].error_code;
        assert_eq!(elsewhere, NotLeaderOrFollower.code());
    });
}
