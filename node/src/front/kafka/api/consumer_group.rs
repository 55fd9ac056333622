//! Groups of the new consumer protocol (KIP-848): heartbeats and descriptions.

use super::{NO_OPERATIONS, NONE, text, topic_name};
use crate::error::ServeError;
use crate::front::kafka::codes::group_code;
use crate::front::kafka::dispatch::Call;
use kafka_protocol::error::ResponseError::{GroupIdNotFound, InvalidGroupId};
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member, TopicPartitions as DescribedPartitions,
};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as Owned;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, GroupId,
};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use strandline_core::consumer_group::{
    ConsumerGroupDescription, ConsumerGroupPhase, HeartbeatRequest, JOIN, LEAVE_FOR_NOW,
};
use strandline_metadata::{ConsumerMember, Image, Partitions};
use strandline_record::{PartitionId, TopicId, TopicPartition};

/// Until this version a new member may leave it to the broker to name it.
const MAY_HAVE_NO_ID: i16 = 0;
/// From this version a description says of which protocol a member is.
const MEMBER_TYPE: i16 = 1;
/// A member of the consumer protocol.
const CONSUMER: i8 = 1;

fn shared(text: &Option<StrBytes>) -> Option<Arc<str>> {
    text.as_ref().map(|text| Arc::from(&**text))
}

fn partitions(owned: &[Owned]) -> Partitions {
    let of = |topic: &Owned| {
        let id = TopicId(topic.topic_id);
        topic
            .partitions
            .iter()
            .map(move |n| TopicPartition { topic: id, partition: PartitionId(*n) })
            .collect::<Vec<_>>()
    };
    owned.iter().flat_map(of).collect()
}

pub async fn heartbeat(
    call: &Call,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let mut member_id: Arc<str> = Arc::from(&*request.member_id);
    if member_id.is_empty() && request.member_epoch == JOIN && call.version <= MAY_HAVE_NO_ID {
        member_id = call.context().fresh_uuid().to_string().into();
    }
    let refused = |code, message: &str| {
        ConsumerGroupHeartbeatResponse::default()
            .with_error_code(code)
            .with_error_message(Some(text(message)))
            .with_member_epoch(request.member_epoch)
    };
    if request.group_id.is_empty() {
        return refused(InvalidGroupId.code(), "a group id is not empty");
    }
    let beat = HeartbeatRequest {
        member_id,
        epoch: request.member_epoch,
        instance_id: shared(&request.instance_id),
        rack: shared(&request.rack_id),
        client_id: call.client_id.clone(),
        client_host: call.host.clone(),
        rebalance_timeout_ms: u32::try_from(request.rebalance_timeout_ms).ok(),
        topics: request
            .subscribed_topic_names
            .as_ref()
            .map(|names| names.iter().map(|name| Arc::from(&***name)).collect()),
        regex: shared(&request.subscribed_topic_regex),
        assignor: shared(&request.server_assignor),
        owned: request.topic_partitions.as_deref().map(partitions),
    };
    match call.front.groups.consumer_heartbeat(&request.group_id, beat).await {
        Ok(answer) => ConsumerGroupHeartbeatResponse::default()
            .with_error_code(NONE)
            .with_member_id(Some(text(&answer.member_id)))
            .with_member_epoch(answer.epoch)
            .with_heartbeat_interval_ms(i32::try_from(answer.heartbeat_interval_ms).unwrap_or(i32::MAX))
            .with_assignment(answer.assignment.map(|assigned| {
                let topics = assigned.by_topic().map(|(topic, of)| {
                    TopicPartitions::default()
                        .with_topic_id(topic.0)
                        .with_partitions(of.iter().map(|p| p.0).collect())
                });
                Assignment::default().with_topic_partitions(topics.collect())
            })),
        Err(error) => refused(group_code(&error), &error.to_string()),
    }
}

pub async fn describe(call: &Call, request: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse {
    let current = call.context().linearize().await;
    let image = call.context().image();
    let groups = request.group_ids.into_iter().map(|group| {
        let described = current.clone().and_then(|()| call.front.groups.describe_consumers(&group));
        match described {
            Ok(Some(description)) => described_group(call, &image, group, description),
            Ok(None) => {
                let message = format!("there is no group {} of the consumer protocol", &**group);
                not_described(group, GroupIdNotFound.code(), &message)
            }
            Err(error) => not_described_for(group, &error),
        }
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

fn not_described_for(group: GroupId, error: &ServeError) -> DescribedGroup {
    not_described(group, group_code(error), &error.to_string())
}

fn not_described(group: GroupId, code: i16, message: &str) -> DescribedGroup {
    DescribedGroup::default()
        .with_group_id(group)
        .with_error_code(code)
        .with_error_message(Some(text(message)))
        .with_group_state(text(ConsumerGroupPhase::Dead.as_str()))
        .with_authorized_operations(NO_OPERATIONS)
}

fn described_group(
    call: &Call,
    image: &Image,
    group: GroupId,
    description: ConsumerGroupDescription,
) -> DescribedGroup {
    let members = description.members.iter().map(|(id, member)| described_member(call, image, id, member));
    DescribedGroup::default()
        .with_error_code(NONE)
        .with_group_id(group)
        .with_group_state(text(description.phase.as_str()))
        .with_group_epoch(description.epoch.0)
        .with_assignment_epoch(description.target_epoch.0)
        .with_assignor_name(text(description.assignor.name()))
        .with_members(members.collect())
        .with_authorized_operations(NO_OPERATIONS)
}

fn described_member(call: &Call, image: &Image, id: &str, member: &ConsumerMember) -> Member {
    let described = Member::default()
        .with_member_id(text(id))
        .with_instance_id(member.instance_id.as_deref().map(text))
        .with_rack_id(member.rack.as_deref().map(text))
        .with_member_epoch(if member.away { LEAVE_FOR_NOW } else { member.epoch.0 })
        .with_client_id(text(&member.client_id))
        .with_client_host(text(&member.client_host))
        .with_subscribed_topic_names(member.topics.iter().map(|name| topic_name(name)).collect())
        .with_subscribed_topic_regex(member.regex.as_deref().map(text))
        .with_assignment(described_partitions(image, &member.assigned))
        .with_target_assignment(described_partitions(image, &member.target));
    if call.version >= MEMBER_TYPE { described.with_member_type(CONSUMER) } else { described }
}

/// Partitions of topics that are deleted have no name to be described by, and are left out.
fn described_partitions(image: &Image, partitions: &Partitions) -> DescribedAssignment {
    let topics = partitions.by_topic().filter_map(|(id, of)| {
        let topic = image.topics.get(&id)?;
        Some(
            DescribedPartitions::default()
                .with_topic_id(id.0)
                .with_topic_name(topic_name(&topic.name))
                .with_partitions(of.iter().map(|p| p.0).collect()),
        )
    });
    DescribedAssignment::default().with_topic_partitions(topics.collect())
}
