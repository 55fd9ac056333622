//! Replicas: elections, reassignments, log directories, producers.

use super::cluster::refused;
use super::{Code, NONE, broker_ids, partition_of, text, topic_name, wire_ids};
use crate::error::ServeError;
use crate::front::kafka::codes::code;
use crate::front::kafka::dispatch::Call;
use kafka_protocol::error::ResponseError::{
    ElectionNotNeeded, EligibleLeadersNotAvailable, InvalidReplicationFactor, InvalidRequest,
    NoReassignmentInProgress, PreferredLeaderNotAvailable,
};
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeProducersRequest, DescribeProducersResponse, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, ProducerId,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, BTreeSet};
use strandline_metadata::{Election, Image, Partition, Rejection};
use strandline_record::{BrokerId, TopicPartition};

/// All partitions, by the names of their topics.
fn everything(image: &Image) -> Vec<(String, Vec<i32>)> {
    let topics = image.topic_ids.values().filter_map(|id| image.topics.get(id));
    topics.map(|topic| (topic.name.to_string(), (0..topic.partitions).collect())).collect()
}

pub async fn elect_leaders(call: &Call, request: ElectLeadersRequest) -> ElectLeadersResponse {
    const PREFERRED: i8 = 0;
    const UNCLEAN: i8 = 1;
    // Version 0 knows no other.
    let kind = match if call.version == 0 { PREFERRED } else { request.election_type } {
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        _ => return ElectLeadersResponse::default().with_error_code(InvalidRequest.code()),
    };
    let named = request.topic_partitions.is_some();
    let wanted = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|t| (t.topic.to_string(), t.partitions)).collect(),
        None => everything(&call.context().image()),
    };
    let mut response = ElectLeadersResponse::default();
    for (topic, partitions) in wanted {
        let mut result = ReplicaElectionResult::default().with_topic(topic_name(&topic));
        for number in partitions {
            let (code, message) = elect(call, &topic, number, kind).await;
            // Of all partitions, those that need none are not mentioned.
            if named || code != ElectionNotNeeded.code() {
                let answer = PartitionResult::default().with_partition_id(number).with_error_code(code);
                result.partition_result.push(answer.with_error_message(message));
            }
        }
        if !result.partition_result.is_empty() {
            response.replica_election_results.push(result);
        }
    }
    response
}

async fn elect(call: &Call, topic: &str, number: i32, kind: Election) -> (Code, Option<StrBytes>) {
    let image = call.context().image();
    let tp = match partition_of(&image, topic, number) {
        Ok(tp) => tp,
        Err(error) => return refused(&error),
    };
    let agreed = image.partition(tp).expect("looked up above");
    let needed = match kind {
        Election::Preferred => agreed.leader != agreed.replicas.first().copied(),
        _ => agreed.leader.is_none(),
    };
    if !needed {
        return (ElectionNotNeeded.code(), Some(text("the partition has this leader already")));
    }
    match call.front.controller.elect_leader(tp, kind).await {
        Ok(()) => (NONE, None),
        Err(ServeError::Rejected(Rejection::NoEligibleReplica)) => {
            let code = match kind {
                Election::Preferred => PreferredLeaderNotAvailable,
                _ => EligibleLeadersNotAvailable,
            };
            (code.code(), Some(text("no replica that could lead is alive and in sync")))
        }
        Err(error) => refused(&error),
    }
}

pub async fn alter_reassignments(
    call: &Call,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let may_resize = call.version == 0 || request.allow_replication_factor_change;
    let mut response =
        AlterPartitionReassignmentsResponse::default().with_allow_replication_factor_change(may_resize);
    for topic in request.topics {
        let mut result = ReassignableTopicResponse::default().with_name(topic.name.clone());
        for partition in topic.partitions {
            let number = partition.partition_index;
            let target = partition.replicas.as_deref();
            let (code, message) = reassign(call, &topic.name, number, target, may_resize).await;
            result.partitions.push(
                ReassignablePartitionResponse::default()
                    .with_partition_index(number)
                    .with_error_code(code)
                    .with_error_message(message),
            );
        }
        response.responses.push(result);
    }
    response
}

async fn reassign(
    call: &Call,
    topic: &str,
    number: i32,
    target: Option<&[kafka_protocol::messages::BrokerId]>,
    may_resize: bool,
) -> (Code, Option<StrBytes>) {
    let image = call.context().image();
    let tp = match partition_of(&image, topic, number) {
        Ok(tp) => tp,
        Err(error) => return refused(&error),
    };
    let agreed = image.partition(tp).expect("looked up above");
    let target = match target.map(broker_ids).transpose() {
        Ok(target) => target,
        Err(error) => return refused(&error),
    };
    match &target {
        None if agreed.reassignment.is_none() => {
            return (NoReassignmentInProgress.code(), Some(text("no reassignment is under way")));
        }
        Some(target) if !may_resize && target.len() != agreed.target_replication() => {
            let why = "the number of replicas would change, which the request does not allow";
            return (InvalidReplicationFactor.code(), Some(text(why)));
        }
        _ => {}
    }
    let changed = call.front.controller.reassign(tp, target).await;
    changed.err().map_or((NONE, None), |error| refused(&error))
}

pub fn list_reassignments(
    call: &Call,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let image = call.context().image();
    let wanted = match &request.topics {
        Some(topics) => topics.iter().map(|t| (t.name.to_string(), t.partition_indexes.clone())).collect(),
        None => everything(&image),
    };
    let mut response = ListPartitionReassignmentsResponse::default();
    for (topic, partitions) in wanted {
        let ongoing: Vec<_> = partitions
            .into_iter()
            .filter_map(|number| {
                ongoing(number, image.partition(partition_of(&image, &topic, number).ok()?)?)
            })
            .collect();
        if !ongoing.is_empty() {
            let name = topic_name(&topic);
            response
                .topics
                .push(OngoingTopicReassignment::default().with_name(name).with_partitions(ongoing));
        }
    }
    response
}

fn ongoing(number: i32, partition: &Partition) -> Option<OngoingPartitionReassignment> {
    let target: BTreeSet<BrokerId> = partition.reassignment.as_ref()?.iter().copied().collect();
    let now: BTreeSet<BrokerId> = partition.replicas.iter().copied().collect();
    // Those that are added are replicas from early on, and stay listed as added until the end.
    let caught_up = |id: &&BrokerId| !partition.isr.contains(id);
    let adding: BTreeSet<BrokerId> =
        target.difference(&now).copied().chain(target.iter().filter(caught_up).copied()).collect();
    let all: Vec<BrokerId> =
        partition.replicas.iter().copied().chain(target.difference(&now).copied()).collect();
    Some(
        OngoingPartitionReassignment::default()
            .with_partition_index(number)
            .with_replicas(wire_ids(&all))
            .with_adding_replicas(wire_ids(&adding))
            .with_removing_replicas(wire_ids(now.difference(&target))),
    )
}

/// This node's own replicas; clients ask every broker for its own.
pub fn describe_log_dirs(call: &Call, request: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let image = call.context().image();
    let wanted: Option<BTreeSet<TopicPartition>> = request.topics.as_ref().map(|topics| {
        let named = topics.iter().flat_map(|topic| topic.partitions.iter().map(|n| (&topic.topic, *n)));
        named.filter_map(|(topic, number)| partition_of(&image, topic, number).ok()).collect()
    });
    let mut by_topic: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in call.front.broker.partitions() {
        let tp = partition.tp();
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&tp)) {
            continue;
        }
        let (size, lag) = partition.size_and_lag();
        by_topic.entry(partition.topic().to_string()).or_default().push(
            DescribeLogDirsPartition::default()
                .with_partition_index(tp.partition.0)
                .with_partition_size(i64::try_from(size).unwrap_or(i64::MAX))
                .with_offset_lag(lag),
        );
    }
    let topics = by_topic.into_iter().map(|(name, partitions)| {
        DescribeLogDirsTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
    });
    let dir = DescribeLogDirsResult::default()
        .with_log_dir(text(&call.context().config.data_dir.display().to_string()))
        .with_topics(topics.collect());
    // Space is not told: -1 is "not known".
    let dir = if call.version >= 4 { dir.with_total_bytes(-1).with_usable_bytes(-1) } else { dir };
    DescribeLogDirsResponse::default().with_results(vec![dir])
}

pub fn describe_producers(call: &Call, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let image = call.context().image();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|number| {
            let known = partition_of(&image, &topic.name, *number)
                .and_then(|tp| call.front.broker.partition_or_error(tp))
                .and_then(|partition| partition.producers());
            let answer = PartitionResponse::default().with_partition_index(*number);
            match known {
                Ok(producers) => answer.with_error_code(NONE).with_active_producers(
                    producers
                        .into_iter()
                        .map(|producer| {
                            ProducerState::default()
                                .with_producer_id(ProducerId(producer.id.0))
                                .with_producer_epoch(i32::from(producer.epoch.0))
                                .with_last_sequence(producer.last_sequence.unwrap_or(-1))
                                .with_last_timestamp(producer.last_seen_ms)
                                .with_coordinator_epoch(-1)
                                .with_current_txn_start_offset(-1)
                        })
                        .collect(),
                ),
                Err(error) => {
                    answer.with_error_code(code(&error)).with_error_message(Some(text(&error.to_string())))
                }
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}
