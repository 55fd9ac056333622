//! Kafka's error codes for the broker's errors: the one place where they are chosen. What matters to a client is
//! whether a code is retriable and whether it makes it look for another broker.

use super::api::Code;
use crate::error::ServeError;
use kafka_protocol::error::ResponseError::{self, *};
use strandline_core::consumer_group::ConsumerGroupError;
use strandline_core::group::GroupError;
use strandline_metadata::Rejection;

/// The code on the wire.
pub fn code(error: &ServeError) -> Code {
    response_error(error).code()
}

fn response_error(error: &ServeError) -> ResponseError {
    match error {
        ServeError::UnknownTopic(_) | ServeError::UnknownPartition => UnknownTopicOrPartition,
        ServeError::NotLeader { .. } => NotLeaderOrFollower,
        ServeError::FencedLeaderEpoch { .. } => FencedLeaderEpoch,
        ServeError::UnknownLeaderEpoch { .. } => UnknownLeaderEpoch,
        ServeError::NotEnoughReplicas { .. } => NotEnoughReplicas,
        ServeError::OffsetOutOfRange { .. } => OffsetOutOfRange,
        ServeError::OffsetNotAvailable => OffsetNotAvailable,
        ServeError::RecordTooLarge { .. } => MessageTooLarge,
        ServeError::CorruptRecord(_) => CorruptMessage,
        ServeError::InvalidRecord(_) => InvalidRecord,
        ServeError::OutOfOrderSequence(_) => OutOfOrderSequenceNumber,
        ServeError::DuplicateSequence => DuplicateSequenceNumber,
        ServeError::ProducerFenced(_) => InvalidProducerEpoch,
        ServeError::UnknownProducerId(_) => UnknownProducerId,
        ServeError::TimedOut => RequestTimedOut,
        // It may be in the log: a producer sends it again, and an idempotent one does so without a duplicate.
        ServeError::Deposed => NotLeaderOrFollower,
        ServeError::ProposalUnknown(_) | ServeError::ClusterNotReady(_) => RequestTimedOut,
        // Retriable, and nothing was appended; another leader may have room.
        ServeError::StorageFull => KafkaStorageError,
        ServeError::KeysNotRead => LeaderNotAvailable,
        ServeError::Damaged(_) | ServeError::Storage(_) | ServeError::NotOpened(_) => KafkaStorageError,
        ServeError::ShuttingDown => NotLeaderOrFollower,
        ServeError::Throttled => ThrottlingQuotaExceeded,
        ServeError::InvalidRequest(_) => InvalidRequest,
        ServeError::InvalidPartitions(_) => InvalidPartitions,
        ServeError::InvalidReplication(_) => InvalidReplicationFactor,
        ServeError::Rejected(rejection) => of_rejection(rejection),
        ServeError::NotCoordinator(_) => NotCoordinator,
        ServeError::NotController(_) => NotController,
        ServeError::Group(error) => of_group(error),
        ServeError::ConsumerGroup(error) => of_consumer_group(error),
    }
}

/// Where the request is about a group, what this node cannot tell yet has codes of its own.
pub fn group_code(error: &ServeError) -> Code {
    match error {
        ServeError::ClusterNotReady(_) => CoordinatorLoadInProgress.code(),
        ServeError::ProposalUnknown(_) | ServeError::ShuttingDown | ServeError::Throttled => {
            CoordinatorNotAvailable.code()
        }
        // A name that is not valid is all that the coordinator refuses in this way.
        ServeError::Rejected(Rejection::InvalidName(_)) => InvalidGroupId.code(),
        error => code(error),
    }
}

fn of_rejection(rejection: &Rejection) -> ResponseError {
    match rejection {
        Rejection::TopicExists(_) => TopicAlreadyExists,
        Rejection::UnknownTopic | Rejection::UnknownPartition => UnknownTopicOrPartition,
        Rejection::InvalidConfig { .. } => InvalidConfig,
        Rejection::InvalidName(_) => InvalidTopicException,
        Rejection::InvalidReplicas(_) => InvalidReplicaAssignment,
        Rejection::PartitionCountChanged(_) => InvalidPartitions,
        Rejection::UnknownGroup => GroupIdNotFound,
        Rejection::GroupNotEmpty => NonEmptyGroup,
        Rejection::IllegalGeneration { .. } | Rejection::StaleGeneration(_) => IllegalGeneration,
        Rejection::StaleMemberEpoch { .. } => StaleMemberEpoch,
        Rejection::OtherGroupProtocol => InconsistentGroupProtocol,
        Rejection::UnknownMember => UnknownMemberId,
        Rejection::RebalanceInProgress => RebalanceInProgress,
        Rejection::UnknownBroker(_) => BrokerIdNotRegistered,
        Rejection::NoEligibleReplica => EligibleLeadersNotAvailable,
        Rejection::NotReplica(_) => InvalidReplicaAssignment,
        Rejection::NotLeader | Rejection::StalePartition { .. } => NotLeaderOrFollower,
        Rejection::StaleBrokerEpoch { .. } => StaleBrokerEpoch,
        Rejection::AlreadyFormed
        | Rejection::NotFormed
        | Rejection::WrongCluster(_)
        | Rejection::WrongDirectory { .. }
        | Rejection::BrokerFenced(_)
        | Rejection::BrokerNotFenced(_)
        | Rejection::BrokerHoldsReplicas { .. }
        | Rejection::AlreadyAssigned
        | Rejection::StaleGroupVersion(_)
        | Rejection::Invalid(_) => InvalidRequest,
    }
}

fn of_group(error: &GroupError) -> ResponseError {
    match error {
        GroupError::NotCoordinator => NotCoordinator,
        GroupError::MemberIdRequired { .. } => MemberIdRequired,
        GroupError::UnknownMemberId => UnknownMemberId,
        GroupError::IllegalGeneration => IllegalGeneration,
        GroupError::FencedInstanceId => FencedInstanceId,
        GroupError::RebalanceInProgress => RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout { .. } => InvalidSessionTimeout,
        GroupError::GroupMaxSizeReached => GroupMaxSizeReached,
        GroupError::InvalidRequest(_) => InvalidRequest,
        GroupError::Refused(rejection) => of_rejection(rejection),
    }
}

fn of_consumer_group(error: &ConsumerGroupError) -> ResponseError {
    match error {
        ConsumerGroupError::NotCoordinator => NotCoordinator,
        ConsumerGroupError::UnknownMemberId => UnknownMemberId,
        ConsumerGroupError::FencedMemberEpoch => FencedMemberEpoch,
        ConsumerGroupError::StaleMemberEpoch => StaleMemberEpoch,
        ConsumerGroupError::FencedInstanceId => FencedInstanceId,
        ConsumerGroupError::UnreleasedInstanceId => UnreleasedInstanceId,
        ConsumerGroupError::UnsupportedAssignor(_) => UnsupportedAssignor,
        ConsumerGroupError::InvalidRegularExpression(_) => InvalidRegularExpression,
        ConsumerGroupError::GroupMaxSizeReached => GroupMaxSizeReached,
        ConsumerGroupError::InvalidRequest(_) => InvalidRequest,
        // As Kafka does without online migration: there is no group of this protocol.
        ConsumerGroupError::OtherProtocol => GroupIdNotFound,
        ConsumerGroupError::Refused(rejection) => of_rejection(rejection),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_record::{LeaderEpoch, Offset};

    /// Codes that a client sends again after, perhaps elsewhere.
    #[test]
    fn what_may_be_tried_again_has_a_retriable_code_and_what_may_not_has_none() {
        let epoch = LeaderEpoch(1);
        for error in [
            ServeError::UnknownPartition,
            ServeError::NotLeader { leader: None, epoch },
            ServeError::FencedLeaderEpoch { asked: epoch, current: epoch },
            ServeError::UnknownLeaderEpoch { asked: epoch, current: epoch },
            ServeError::NotEnoughReplicas { isr: 1, min_isr: 2 },
            ServeError::OffsetNotAvailable,
            ServeError::TimedOut,
            ServeError::Deposed,
            ServeError::StorageFull,
            ServeError::Damaged(Offset(1)),
            ServeError::ShuttingDown,
            ServeError::ClusterNotReady(String::new()),
            ServeError::NotCoordinator(None),
        ] {
            assert!(response_error(&error).is_retriable(), "{error:?}");
        }
        for error in [
            ServeError::OffsetOutOfRange { log_start: Offset(0), end: Offset(0) },
            ServeError::RecordTooLarge { size: 2, max: 1 },
            ServeError::InvalidRecord(String::new()),
            ServeError::InvalidRequest(String::new()),
            ServeError::Rejected(Rejection::GroupNotEmpty),
            ServeError::Group(GroupError::FencedInstanceId),
            ServeError::Group(GroupError::InconsistentGroupProtocol),
        ] {
            assert!(!response_error(&error).is_retriable(), "{error:?}");
        }
    }
}
