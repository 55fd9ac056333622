//! Groups of the consumer protocol (KIP-848) over the Kafka listener, and beside the classic one.
#![allow(clippy::disallowed_methods, reason = "tests use sockets and wait")]

mod common;

use bytes::Bytes;
use common::wire::{Wire, text, topic};
use common::{Node, cluster};
use kafka_protocol::error::ResponseError::*;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::*;

fn on_one_node(test: impl AsyncFnOnce(&Node)) {
    let mut nodes = cluster(1, 12);
    nodes[0].start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test(&nodes[0]));
}

fn group() -> GroupId {
    GroupId(text("g"))
}

fn join(member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_member_epoch(0)
        .with_rebalance_timeout_ms(10_000)
        .with_subscribed_topic_names(Some(vec![topic("t")]))
        .with_topic_partitions(Some(vec![]))
}

fn beat(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    join(member)
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

fn commit(member: &str, epoch: i32) -> OffsetCommitRequest {
    let place =
        OffsetCommitRequestPartition::default().with_committed_offset(3).with_committed_leader_epoch(-1);
    let places = OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![place]);
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_generation_id_or_member_epoch(epoch)
        .with_topics(vec![places])
}

fn classic_join() -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::new());
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// How many partitions an answer assigns.
fn assigned(answer: &ConsumerGroupHeartbeatResponse) -> Option<usize> {
    let assignment = answer.assignment.as_ref()?;
    Some(assignment.topic_partitions.iter().map(|t| t.partitions.len()).sum())
}

#[test]
fn members_get_their_partitions_hand_them_over_commit_and_leave() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 4, &[]).await;
        let first = wire.ask(1, &join("m1")).await;
        assert_eq!((first.error_code, first.member_epoch, assigned(&first)), (0, 1, Some(4)));
        assert_eq!(first.heartbeat_interval_ms, 5_000);
        let second = wire.ask(1, &join("m2")).await;
        assert_eq!((second.member_epoch, assigned(&second)), (2, Some(0)));

        let revoked = wire.ask(1, &beat("m1", 1)).await;
        assert_eq!((revoked.member_epoch, assigned(&revoked)), (1, Some(2)));
        assert_eq!(wire.ask(9, &commit("m1", 1)).await.topics[0].partitions[0].error_code, 0);
        let kept = &revoked.assignment.as_ref().unwrap().topic_partitions[0];
        let owned =
            TopicPartitions::default().with_topic_id(kept.topic_id).with_partitions(kept.partitions.clone());
        let confirmed = wire.ask(1, &beat("m1", 1).with_topic_partitions(Some(vec![owned]))).await;
        assert_eq!((confirmed.error_code, confirmed.member_epoch, assigned(&confirmed)), (0, 2, None));
        let given = wire.ask(1, &beat("m2", 2)).await;
        assert_eq!((given.member_epoch, assigned(&given)), (2, Some(2)));
        let stale = wire.ask(9, &commit("m1", 1)).await;
        assert_eq!(stale.topics[0].partitions[0].error_code, StaleMemberEpoch.code());

        let asked =
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(), GroupId(text("none"))]);
        let described = wire.ask(1, &asked).await.groups;
        assert_eq!((&*described[0].group_state, &*described[0].assignor_name), ("Stable", "uniform"));
        assert_eq!((described[0].group_epoch, described[0].assignment_epoch), (2, 2));
        let members: Vec<_> = described[0].members.iter().map(|m| (&*m.member_id, m.member_epoch)).collect();
        assert_eq!(members, [("m1", 2), ("m2", 2)]);
        assert_eq!(&*described[0].members[0].assignment.topic_partitions[0].topic_name, &topic("t"));
        assert_eq!(described[1].error_code, GroupIdNotFound.code());
        let listed = wire.ask(5, &ListGroupsRequest::default()).await.groups;
        assert_eq!((&*listed[0].group_type, &*listed[0].group_state), ("consumer", "Stable"));

        assert_eq!(wire.ask(1, &beat("m1", -1)).await.member_epoch, -1);
        assert_eq!(wire.ask(1, &beat("m1", 2)).await.error_code, UnknownMemberId.code());
        let all = wire.ask(1, &beat("m2", 2)).await;
        assert_eq!((all.member_epoch, assigned(&all)), (3, Some(4)));
    });
}

#[test]
fn a_group_has_one_protocol_until_it_is_empty() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 1, &[]).await;
        assert_eq!(wire.ask(1, &join("m1")).await.error_code, 0);
        assert_eq!(wire.ask(3, &classic_join()).await.error_code, InconsistentGroupProtocol.code());
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
        assert_eq!(wire.ask(2, &delete).await.results[0].error_code, NonEmptyGroup.code());
        assert_eq!(wire.ask(1, &beat("m1", -1)).await.error_code, 0);

        let joined = wire.ask(3, &classic_join()).await;
        assert_eq!(joined.error_code, 0, "the empty group takes a classic member");
        assert_eq!(wire.ask(1, &join("m1")).await.error_code, GroupIdNotFound.code());
        let member = LeaveGroupRequest::default().with_group_id(group()).with_member_id(joined.member_id);
        assert_eq!(wire.ask(2, &member).await.error_code, 0);
        // The departure of a classic member is answered before it is agreed.
        let mut deleted = NonEmptyGroup.code();
        while deleted == NonEmptyGroup.code() {
            deleted = wire.ask(2, &delete).await.results[0].error_code;
        }
        assert_eq!(deleted, 0);
        let mut joined = wire.ask(1, &join("m1")).await;
        while joined.error_code == CoordinatorLoadInProgress.code() {
            joined = wire.ask(1, &join("m1")).await;
        }
        assert_eq!((joined.error_code, joined.member_epoch), (0, 1));
    });
}

#[test]
fn requests_that_are_not_right_are_refused_with_the_protocols_codes() {
    on_one_node(async |node| {
        let mut wire = Wire::introduced(node).await;
        wire.create_topic("t", 1, &[]).await;
        let unnamed = wire.ask(0, &join("")).await;
        assert_eq!(unnamed.error_code, 0, "in version 0 the broker names the member");
        assert!(!unnamed.member_id.unwrap().is_empty());
        assert_eq!(wire.ask(1, &join("")).await.error_code, InvalidRequest.code());
        let other = join("m2").with_server_assignor(Some(text("sticky")));
        assert_eq!(wire.ask(1, &other).await.error_code, UnsupportedAssignor.code());
        let pattern = join("m2").with_subscribed_topic_regex(Some(text("(")));
        assert_eq!(wire.ask(1, &pattern).await.error_code, InvalidRegularExpression.code());
        let nowhere = join("m2").with_group_id(GroupId(text("")));
        assert_eq!(wire.ask(1, &nowhere).await.error_code, InvalidGroupId.code());
        assert_eq!(wire.ask(1, &beat("nobody", 1)).await.error_code, UnknownMemberId.code());
        let named = |member: &str| join(member).with_instance_id(Some(text("i")));
        assert_eq!(wire.ask(1, &named("s1")).await.error_code, 0);
        assert_eq!(wire.ask(1, &named("s2")).await.error_code, UnreleasedInstanceId.code());
    });
}
