//! Between wire values and the broker's own: the one place where wire codes are chosen.

use crate::context::Context;
use crate::error::ServeError;
use strandline_core::consumer_group::ConsumerGroupError;
use strandline_core::group::GroupError;
use strandline_metadata::{Image, Rejection};
use strandline_record::{BrokerId, LeaderEpoch, PartitionId, TopicId, TopicPartition};
use strandline_wire::v1::{self, ErrorCode};
use uuid::Uuid;

/// Partition named by 16 id bytes and a number.
pub fn topic_partition(topic_id: &[u8], partition: i32) -> Result<TopicPartition, ServeError> {
    Ok(TopicPartition { topic: topic_id_of(topic_id)?, partition: PartitionId(partition) })
}

pub fn topic_id_of(bytes: &[u8]) -> Result<TopicId, ServeError> {
    Uuid::from_slice(bytes)
        .map(TopicId)
        .map_err(|_| ServeError::InvalidRequest(format!("a topic id has 16 bytes, not {}", bytes.len())))
}

pub fn topic_id_bytes(id: TopicId) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(id.0.as_bytes())
}

/// `-1` is "not known" on the wire.
pub fn epoch_of(wire: i32) -> Option<LeaderEpoch> {
    (wire >= 0).then_some(LeaderEpoch(wire))
}

/// The wire form of an error; "not leader" carries who leads and where.
pub fn error(context: &Context, error: &ServeError) -> v1::Error {
    let code = code(error);
    context.meters.grpc.failed(code);
    let mut wire = v1::Error { code: code as i32, message: error.to_string(), ..Default::default() };
    if let ServeError::NotLeader { leader, epoch } = error {
        wire.leader_epoch = Some(epoch.0);
        if let Some(leader) = leader {
            point_at(&mut wire, &context.image(), *leader);
        }
    }
    if let ServeError::NotCoordinator(Some(broker)) | ServeError::NotController(Some(broker)) = error {
        point_at(&mut wire, &context.image(), *broker);
    }
    wire
}

pub fn point_at(wire: &mut v1::Error, image: &Image, broker: BrokerId) {
    wire.leader_id = Some(broker.0);
    wire.leader_endpoint = image.broker(broker).map(|b| b.endpoints.grpc.to_string()).unwrap_or_default();
}

fn code(error: &ServeError) -> ErrorCode {
    match error {
        ServeError::UnknownTopic(_) | ServeError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        ServeError::NotLeader { leader: Some(_), .. } => ErrorCode::NotLeader,
        ServeError::NotLeader { leader: None, .. } => ErrorCode::LeaderNotAvailable,
        ServeError::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        ServeError::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        ServeError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        ServeError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        ServeError::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
        ServeError::RecordTooLarge { .. } => ErrorCode::RecordTooLarge,
        ServeError::CorruptRecord(_) => ErrorCode::CorruptRecord,
        ServeError::InvalidRecord(_) => ErrorCode::InvalidRecord,
        ServeError::OutOfOrderSequence(_) => ErrorCode::OutOfOrderSequence,
        ServeError::DuplicateSequence => ErrorCode::DuplicateSequence,
        ServeError::ProducerFenced(_) => ErrorCode::ProducerFenced,
        ServeError::UnknownProducerId(_) => ErrorCode::UnknownProducerId,
        ServeError::TimedOut => ErrorCode::RequestTimedOut,
        ServeError::Deposed | ServeError::ProposalUnknown(_) => ErrorCode::OutcomeUnknown,
        ServeError::StorageFull => ErrorCode::StorageFull,
        ServeError::KeysNotRead => ErrorCode::LeaderNotAvailable,
        ServeError::Damaged(_) | ServeError::Storage(_) | ServeError::NotOpened(_) => ErrorCode::StorageError,
        ServeError::ShuttingDown => ErrorCode::ShuttingDown,
        ServeError::Throttled => ErrorCode::Throttled,
        ServeError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        ServeError::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
        ServeError::InvalidReplication(_) => ErrorCode::InvalidReplicationFactor,
        ServeError::ClusterNotReady(_) => ErrorCode::ClusterNotReady,
        ServeError::Rejected(rejection) => rejection_code(rejection),
        ServeError::NotCoordinator(_) | ServeError::NotController(_) => ErrorCode::NotCoordinator,
        ServeError::Group(error) => group_code(error),
        ServeError::ConsumerGroup(error) => consumer_group_code(error),
    }
}

fn rejection_code(rejection: &Rejection) -> ErrorCode {
    match rejection {
        Rejection::TopicExists(_) => ErrorCode::TopicExists,
        Rejection::UnknownTopic | Rejection::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        Rejection::InvalidConfig { .. } => ErrorCode::InvalidConfig,
        Rejection::InvalidName(_) => ErrorCode::InvalidTopic,
        Rejection::InvalidReplicas(_) => ErrorCode::InvalidReplicationFactor,
        Rejection::PartitionCountChanged(_) => ErrorCode::InvalidPartitions,
        Rejection::UnknownGroup => ErrorCode::GroupNotFound,
        Rejection::GroupNotEmpty => ErrorCode::GroupNotEmpty,
        Rejection::IllegalGeneration { .. }
        | Rejection::StaleGeneration(_)
        | Rejection::StaleMemberEpoch { .. } => ErrorCode::IllegalGeneration,
        Rejection::OtherGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        Rejection::UnknownMember => ErrorCode::UnknownMemberId,
        Rejection::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        Rejection::UnknownBroker(_) => ErrorCode::NodeNotFound,
        Rejection::NoEligibleReplica => ErrorCode::LeaderNotAvailable,
        Rejection::AlreadyFormed
        | Rejection::NotFormed
        | Rejection::WrongCluster(_)
        | Rejection::WrongDirectory { .. }
        | Rejection::StaleBrokerEpoch { .. }
        | Rejection::BrokerFenced(_)
        | Rejection::BrokerNotFenced(_)
        | Rejection::BrokerHoldsReplicas { .. }
        | Rejection::StalePartition { .. }
        | Rejection::NotLeader
        | Rejection::NotReplica(_)
        | Rejection::AlreadyAssigned
        | Rejection::StaleGroupVersion(_)
        | Rejection::Invalid(_) => ErrorCode::Rejected,
    }
}

fn group_code(error: &GroupError) -> ErrorCode {
    match error {
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::MemberIdRequired { .. } => ErrorCode::MemberIdRequired,
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout { .. } => ErrorCode::InvalidSessionTimeout,
        GroupError::GroupMaxSizeReached => ErrorCode::Throttled,
        GroupError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        GroupError::Refused(rejection) => rejection_code(rejection),
    }
}

/// The SDK has no such groups; it may commit for a member of one, or name one by mistake.
fn consumer_group_code(error: &ConsumerGroupError) -> ErrorCode {
    match error {
        ConsumerGroupError::NotCoordinator => ErrorCode::NotCoordinator,
        ConsumerGroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        ConsumerGroupError::FencedMemberEpoch | ConsumerGroupError::StaleMemberEpoch => {
            ErrorCode::IllegalGeneration
        }
        ConsumerGroupError::FencedInstanceId | ConsumerGroupError::UnreleasedInstanceId => {
            ErrorCode::FencedInstanceId
        }
        ConsumerGroupError::OtherProtocol => ErrorCode::InconsistentGroupProtocol,
        ConsumerGroupError::GroupMaxSizeReached => ErrorCode::Throttled,
        ConsumerGroupError::UnsupportedAssignor(_)
        | ConsumerGroupError::InvalidRegularExpression(_)
        | ConsumerGroupError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        ConsumerGroupError::Refused(rejection) => rejection_code(rejection),
    }
}
