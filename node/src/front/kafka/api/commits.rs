//! Committed offsets. They lie in the agreed metadata: what is committed by one protocol is seen by the other, and
//! by whichever broker is asked.

use super::{Code, NONE, epoch_of, partition_of, text, topic_name};
use crate::error::ServeError;
use crate::front::kafka::codes::{code, group_code};
use crate::front::kafka::dispatch::Call;
use kafka_protocol::error::ResponseError::{InvalidGroupId, InvalidRequest, OffsetMetadataTooLarge};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::{CommittedOffset, Rejection};
use strandline_record::{Generation, LeaderEpoch, Offset, TopicPartition};

/// Kafka's `offset.metadata.max.bytes`.
const MAX_METADATA: usize = 4096;
/// From this version one request names several groups.
const SEVERAL_GROUPS: i16 = 8;

fn no_group() -> ServeError {
    ServeError::Rejected(Rejection::InvalidName("a group id is not empty".to_owned()))
}

/// A partition of a commit, and its own refusal if there is one.
type Checked = (i32, Option<Code>);

pub async fn commit(call: &Call, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = call.context().image();
    let commit_time_ms = call.context().env.wall_clock_ms();
    let mut known = Vec::new();
    let mut checked: Vec<(TopicName, Vec<Checked>)> = Vec::new();
    for topic in &request.topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
            let refused = match partition_of(&image, &topic.name, partition.partition_index) {
                Err(error) => Some(code(&error)),
                Ok(_) if metadata.len() > MAX_METADATA => Some(OffsetMetadataTooLarge.code()),
                Ok(_) if partition.committed_offset < 0 => Some(InvalidRequest.code()),
                Ok(tp) => {
                    let offset = CommittedOffset {
                        offset: Offset(partition.committed_offset),
                        leader_epoch: epoch_of(partition.committed_leader_epoch),
                        metadata: (!metadata.is_empty()).then(|| metadata.into()),
                        commit_time_ms,
                    };
                    known.push((tp, offset));
                    None
                }
            };
            (partition.partition_index, refused)
        });
        checked.push((topic.name.clone(), partitions.collect()));
    }
    let member: Arc<str> = Arc::from(&*request.member_id);
    let epoch = request.generation_id_or_member_epoch;
    let generation = (epoch >= 0).then_some(Generation(epoch));
    let committed = match request.group_id.is_empty() {
        true => Err(no_group()),
        false => {
            let instance = request.group_instance_id.as_deref();
            call.front.groups.commit(&request.group_id, &member, instance, generation, known).await
        }
    };
    let rest = committed.err().map_or(NONE, |error| group_code(&error));
    let topics = checked.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(number, refused)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(number)
                .with_error_code(refused.unwrap_or(rest))
        });
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Topic name → partition → what is committed there, if anything.
type Fetched = Vec<(String, Vec<(i32, Option<CommittedOffset>)>)>;

/// `wanted`: names and partitions; `None` for all that the group has.
async fn committed(
    call: &Call,
    group: &str,
    wanted: Option<Vec<(String, Vec<i32>)>>,
) -> Result<Fetched, ServeError> {
    if group.is_empty() && wanted.is_none() {
        return Err(no_group());
    }
    let all = call.front.groups.committed(group, None).await?;
    let image = call.context().image();
    let Some(wanted) = wanted else {
        let mut by_topic: BTreeMap<String, Vec<(i32, Option<CommittedOffset>)>> = BTreeMap::new();
        for (tp, offset) in all {
            if let Some(topic) = image.topics.get(&tp.topic) {
                by_topic.entry(topic.name.to_string()).or_default().push((tp.partition.0, Some(offset)));
            }
        }
        return Ok(by_topic.into_iter().collect());
    };
    let all: BTreeMap<TopicPartition, CommittedOffset> = all.into_iter().collect();
    let fetched = wanted.into_iter().map(|(name, partitions)| {
        let offsets = partitions.into_iter().map(|number| {
            let found = partition_of(&image, &name, number).ok().and_then(|tp| all.get(&tp).cloned());
            (number, found)
        });
        let offsets = offsets.collect();
        (name, offsets)
    });
    Ok(fetched.collect())
}

/// Offset, leader epoch and metadata as they are written.
fn wire(found: &Option<CommittedOffset>) -> (i64, i32, String) {
    match found {
        Some(committed) => (
            committed.offset.0,
            committed.leader_epoch.map_or(-1, LeaderEpoch::get),
            committed.metadata.as_deref().unwrap_or_default().to_owned(),
        ),
        None => (-1, -1, String::new()),
    }
}

pub async fn fetch(call: &Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version >= SEVERAL_GROUPS {
        let mut response = OffsetFetchResponse::default();
        for group in request.groups {
            let wanted = group.topics.map(|topics| {
                topics.into_iter().map(|t| (t.name.to_string(), t.partition_indexes)).collect()
            });
            response.groups.push(of_group(call, group.group_id, wanted).await);
        }
        return response;
    }
    let wanted: Option<Vec<(String, Vec<i32>)>> = request
        .topics
        .map(|topics| topics.into_iter().map(|t| (t.name.to_string(), t.partition_indexes)).collect());
    let asked = wanted.clone();
    match committed(call, &request.group_id, wanted).await {
        Ok(fetched) => OffsetFetchResponse::default().with_topics(single(call, fetched, NONE)),
        // Version 1 has no place for an error but the partitions.
        Err(error) if call.version < 2 => {
            let blank = asked.unwrap_or_default().into_iter();
            let blank = blank.map(|(name, all)| (name, all.into_iter().map(|n| (n, None)).collect()));
            OffsetFetchResponse::default().with_topics(single(call, blank.collect(), group_code(&error)))
        }
        Err(error) => OffsetFetchResponse::default().with_error_code(group_code(&error)),
    }
}

fn single(call: &Call, fetched: Fetched, code: i16) -> Vec<OffsetFetchResponseTopic> {
    let topics = fetched.into_iter().map(|(name, partitions)| {
        let partitions = partitions.iter().map(|(number, found)| {
            let (offset, epoch, metadata) = wire(found);
            OffsetFetchResponsePartition::default()
                .with_partition_index(*number)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(if call.version >= 5 { epoch } else { -1 })
                .with_metadata(Some(text(&metadata)))
                .with_error_code(code)
        });
        OffsetFetchResponseTopic::default().with_name(topic_name(&name)).with_partitions(partitions.collect())
    });
    topics.collect()
}

async fn of_group(
    call: &Call,
    group: GroupId,
    wanted: Option<Vec<(String, Vec<i32>)>>,
) -> OffsetFetchResponseGroup {
    let fetched = committed(call, &group, wanted).await;
    let response = OffsetFetchResponseGroup::default().with_group_id(group);
    match fetched {
        Ok(fetched) => {
            let topics = fetched.into_iter().map(|(name, partitions)| {
                let partitions = partitions.iter().map(|(number, found)| {
                    let (offset, epoch, metadata) = wire(found);
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(*number)
                        .with_committed_offset(offset)
                        .with_committed_leader_epoch(epoch)
                        .with_metadata(Some(text(&metadata)))
                });
                OffsetFetchResponseTopics::default()
                    .with_name(topic_name(&name))
                    .with_partitions(partitions.collect())
            });
            response.with_topics(topics.collect())
        }
        Err(error) => response.with_error_code(group_code(&error)),
    }
}

pub async fn delete(call: &Call, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    if request.group_id.is_empty() {
        return OffsetDeleteResponse::default().with_error_code(InvalidGroupId.code());
    }
    let image = call.context().image();
    let (mut known, mut topics) = (Vec::new(), Vec::new());
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let found = partition_of(&image, &topic.name, partition.partition_index);
            let refused = match found {
                Ok(tp) => {
                    known.push(tp);
                    NONE
                }
                Err(error) => code(&error),
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(refused)
        });
        let partitions = partitions.collect();
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    match call.front.groups.delete_offsets(&request.group_id, known).await {
        Ok(()) => OffsetDeleteResponse::default().with_topics(topics),
        Err(error) => OffsetDeleteResponse::default().with_error_code(group_code(&error)),
    }
}
