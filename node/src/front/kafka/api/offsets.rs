//! ListOffsets, OffsetForLeaderEpoch, InitProducerId, DeleteRecords.

use super::{NONE, epoch_of, partition_of};
use crate::error::ServeError;
use crate::front::kafka::codes::code;
use crate::front::kafka::dispatch::Call;
use crate::partition::Partition;
use kafka_protocol::error::ResponseError::{
    ClusterAuthorizationFailed, InvalidRequest, TransactionalIdAuthorizationFailed,
};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, InitProducerIdRequest, InitProducerIdResponse,
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    ProducerId,
};
use std::sync::Arc;
use strandline_metadata::Image;
use strandline_record::Offset;

/// Kafka's special timestamps.
const EARLIEST: i64 = -2;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

fn leader_of(call: &Call, image: &Image, topic: &str, number: i32) -> Result<Arc<Partition>, ServeError> {
    call.front.broker.partition_or_error(partition_of(image, topic, number)?)
}

pub fn list_offsets(call: &Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = call.context().image();
    // Followers ask elsewhere (CVE-2018-1288).
    let follower = request.replica_id.0 >= 0;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let blank = ListOffsetsPartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_timestamp(-1)
                .with_offset(-1)
                .with_leader_epoch(-1);
            if follower {
                return blank.with_error_code(ClusterAuthorizationFailed.code());
            }
            let timestamp = match asked.timestamp {
                // Nothing is kept elsewhere: what is local is everything.
                EARLIEST_LOCAL => EARLIEST,
                other => other,
            };
            if timestamp < EARLIEST_LOCAL {
                // Nothing was ever moved to a remote tier; no other of these is known.
                let known = timestamp == LATEST_TIERED;
                return blank.with_error_code(if known { NONE } else { InvalidRequest.code() });
            }
            let found = leader_of(call, &image, &topic.name, asked.partition_index).and_then(|partition| {
                let (offset, at, epoch) =
                    partition.list_offset(timestamp, epoch_of(asked.current_leader_epoch))?;
                let epoch = offset.and_then(|offset| partition.epoch_at(offset)).unwrap_or(epoch);
                Ok((offset, at, epoch))
            });
            match found {
                Ok((offset, at, epoch)) => blank
                    .with_error_code(NONE)
                    .with_offset(offset.map_or(-1, Offset::get))
                    .with_timestamp(at)
                    .with_leader_epoch(if call.version >= 4 && offset.is_some() { epoch.0 } else { -1 }),
                Err(error) => blank.with_error_code(code(&error)),
            }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Where an epoch ends (KIP-320): how a consumer notices that it has read what is no longer there.
pub fn offset_for_leader_epoch(
    call: &Call,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = call.context().image();
    let follower = request.replica_id.0 >= 0;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let blank = EpochEndOffset::default()
                .with_partition(asked.partition)
                .with_leader_epoch(-1)
                .with_end_offset(-1);
            if follower {
                return blank.with_error_code(ClusterAuthorizationFailed.code());
            }
            let end = leader_of(call, &image, &topic.topic, asked.partition).and_then(|partition| {
                let epoch = strandline_record::LeaderEpoch(asked.leader_epoch);
                partition.end_of_epoch(epoch, epoch_of(asked.current_leader_epoch))
            });
            match end {
                Ok(Some((epoch, end))) => {
                    blank.with_error_code(NONE).with_leader_epoch(epoch.0).with_end_offset(end.0)
                }
                Ok(None) => blank.with_error_code(NONE),
                Err(error) => blank.with_error_code(code(&error)),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// An id for an idempotent producer; with its old id and epoch, the next epoch (KIP-360).
pub async fn init_producer_id(call: &Call, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let answer = |code, id, epoch| {
        InitProducerIdResponse::default()
            .with_error_code(code)
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch)
    };
    // There are no transactions. This code ends a client at once, where others make it try for ever.
    if request.transactional_id.is_some() {
        return answer(TransactionalIdAuthorizationFailed.code(), -1, -1);
    }
    let (id, epoch) = (request.producer_id.0, request.producer_epoch);
    if (id < 0) != (epoch < 0) {
        return answer(InvalidRequest.code(), -1, -1);
    }
    if id >= 0 && epoch < i16::MAX - 1 {
        return answer(NONE, id, epoch + 1);
    }
    match call.front.controller.allocate_producer_ids(1).await {
        Ok(id) => answer(NONE, id, 0),
        Err(error) => answer(crate::front::kafka::codes::group_code(&error), -1, -1),
    }
}

pub fn delete_records(call: &Call, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    const HIGH_WATERMARK: i64 = -1;
    let image = call.context().image();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let before = (asked.offset != HIGH_WATERMARK).then_some(Offset(asked.offset));
            let deleted = leader_of(call, &image, &topic.name, asked.partition_index)
                .and_then(|partition| partition.delete_records(before));
            let result = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            match deleted {
                Ok(log_start) => result.with_low_watermark(log_start.0).with_error_code(NONE),
                Err(error) => result.with_low_watermark(-1).with_error_code(code(&error)),
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}
