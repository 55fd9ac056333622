//! Metadata, DescribeCluster, DescribeTopicPartitions: what this node's image says.

use super::{
    Code, NO_OPERATIONS, NONE, Node, controller_of, live_nodes, node_of, text, topic_name, topic_of, wire_id,
    wire_ids,
};
use crate::controller::NewTopic;
use crate::error::ServeError;
use crate::front::kafka::codes::code;
use crate::front::kafka::dispatch::Call;
use kafka_protocol::error::ResponseError::{
    InvalidRequest, InvalidTopicException, LeaderNotAvailable, ListenerNotFound, UnknownTopicId,
    UnknownTopicOrPartition, UnsupportedEndpointType,
};
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition as DescribedPartition,
    DescribeTopicPartitionsResponseTopic as DescribedTopic,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId as WireBroker, DescribeClusterRequest, DescribeClusterResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, MetadataRequest, MetadataResponse,
};
use std::collections::BTreeSet;
use strandline_metadata::machine::check_topic_name;
use strandline_metadata::{Image, Partition, Topic};
use strandline_record::{PartitionId, TopicPartition};

/// Topics that one request may bring into being.
const MAX_AUTO_CREATED: usize = 100;
/// Partitions in one answer to DescribeTopicPartitions (`max.request.partition.size.limit`).
const MAX_DESCRIBED: usize = 2_000;

pub async fn metadata(call: &Call, request: MetadataRequest) -> MetadataResponse {
    // Version 0 has no null: nothing named is everything.
    let wanted = request.topics.filter(|topics| call.version > 0 || !topics.is_empty());
    if let Some(topics) = &wanted
        && request.allow_auto_topic_creation
        && call.context().config.auto_create_topics_enable
    {
        let names = topics.iter().filter(|topic| topic.topic_id.is_nil()).filter_map(|t| t.name.as_deref());
        let names: Vec<String> = names.map(|name| name.to_string()).collect();
        create_missing(call, &names).await;
    }
    let image = call.context().image();
    let topics = match wanted {
        None => image
            .topic_ids
            .values()
            .filter_map(|id| image.topics.get(id))
            .map(|topic| described(call, &image, topic))
            .collect(),
        Some(wanted) => wanted
            .into_iter()
            .map(|topic| {
                let name = topic.name.as_deref().map(ToString::to_string).unwrap_or_default();
                match topic_of(&image, &name, topic.topic_id) {
                    Some(known) => described(call, &image, known),
                    None => MetadataResponseTopic::default()
                        .with_error_code(missing(&name, !topic.topic_id.is_nil()))
                        .with_name(topic.name)
                        .with_topic_id(topic.topic_id)
                        .with_topic_authorized_operations(NO_OPERATIONS),
                }
            })
            .collect(),
    };
    let brokers = live_nodes(&image).map(|Node { id, host, port, rack }| {
        MetadataResponseBroker::default().with_node_id(id).with_host(host).with_port(port).with_rack(rack)
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(image.cluster_id.map(|id| text(&id.to_string())))
        .with_controller_id(controller_of(&image, call.context().raft.leader().map(|(id, _)| id)))
        .with_topics(topics)
        .with_cluster_authorized_operations(NO_OPERATIONS)
}

/// Why a topic is not described.
fn missing(name: &str, by_id: bool) -> Code {
    if by_id {
        UnknownTopicId.code()
    } else if check_topic_name(name).is_err() {
        InvalidTopicException.code()
    } else {
        UnknownTopicOrPartition.code()
    }
}

async fn create_missing(call: &Call, names: &[String]) {
    let image = call.context().image();
    let missing = names.iter().filter(|name| image.topic_by_name(name).is_none());
    for name in missing.take(MAX_AUTO_CREATED) {
        let new = NewTopic {
            name: name.clone(),
            partitions: None,
            replication: None,
            assignments: None,
            configs: Default::default(),
            validate_only: false,
        };
        if let Err(error) = call.front.controller.create_topic(new).await {
            tracing::debug!(topic = %name, %error, "not created on first use");
        }
    }
}

fn partitions<'a>(image: &'a Image, topic: &'a Topic) -> impl Iterator<Item = (i32, &'a Partition)> {
    (0..topic.partitions).filter_map(move |number| {
        let tp = TopicPartition { topic: topic.id, partition: PartitionId(number) };
        Some((number, &**image.partition(tp)?))
    })
}

fn described(call: &Call, image: &Image, topic: &Topic) -> MetadataResponseTopic {
    let partitions = partitions(image, topic).map(|(number, partition)| {
        let (code, leader) = leader_of(image, partition, call.version >= 6);
        MetadataResponsePartition::default()
            .with_error_code(code)
            .with_partition_index(number)
            .with_leader_id(leader)
            .with_leader_epoch(if call.version >= 7 { partition.leader_epoch.0 } else { -1 })
            .with_replica_nodes(wire_ids(&partition.replicas))
            .with_isr_nodes(wire_ids(&partition.isr))
            .with_offline_replicas(offline(image, partition))
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(NO_OPERATIONS)
}

/// The leader, or why nobody is named. `listener_not_found`: the client knows that code.
fn leader_of(image: &Image, partition: &Partition, listener_not_found: bool) -> (Code, WireBroker) {
    let nobody = WireBroker(-1);
    match partition.leader.and_then(|leader| image.broker(leader)) {
        None => (LeaderNotAvailable.code(), nobody),
        Some(broker) if node_of(broker).is_some() => (NONE, wire_id(broker.id)),
        Some(_) if listener_not_found => (ListenerNotFound.code(), nobody),
        Some(_) => (LeaderNotAvailable.code(), nobody),
    }
}

fn offline(image: &Image, partition: &Partition) -> Vec<WireBroker> {
    let is_offline = |id: &&strandline_record::BrokerId| image.broker(**id).is_none_or(|b| b.fenced);
    wire_ids(partition.replicas.iter().filter(is_offline))
}

pub fn describe_cluster(call: &Call, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    const BROKERS: i8 = 1;
    let image = call.context().image();
    let response = DescribeClusterResponse::default()
        .with_endpoint_type(request.endpoint_type)
        .with_cluster_authorized_operations(NO_OPERATIONS);
    if call.version >= 1 && request.endpoint_type != BROKERS {
        return response
            .with_error_code(UnsupportedEndpointType.code())
            .with_error_message(Some(text("only brokers are listening here")));
    }
    let fenced_too = request.include_fenced_brokers;
    let brokers = image.brokers.values().filter(|broker| fenced_too || !broker.fenced).filter_map(|broker| {
        let Node { id, host, port, rack } = node_of(broker)?;
        let fenced = call.version >= 2 && broker.fenced;
        Some(
            DescribeClusterBroker::default()
                .with_broker_id(id)
                .with_host(host)
                .with_port(port)
                .with_rack(rack)
                .with_is_fenced(fenced),
        )
    });
    response
        .with_cluster_id(text(&image.cluster_id.map(|id| id.to_string()).unwrap_or_default()))
        .with_controller_id(controller_of(&image, call.context().raft.leader().map(|(id, _)| id)))
        .with_brokers(brokers.collect())
}

/// Topics in order of their names, a page at a time (KIP-966).
pub fn describe_topic_partitions(
    call: &Call,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = call.context().image();
    let named: BTreeSet<String> = match request.topics.is_empty() {
        true => image.topic_ids.keys().map(|name| name.to_string()).collect(),
        false => request.topics.iter().map(|topic| topic.name.to_string()).collect(),
    };
    let from =
        request.cursor.as_ref().map(|cursor| (cursor.topic_name.to_string(), cursor.partition_index.max(0)));
    let mut room = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, MAX_DESCRIBED);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in named.iter().filter(|name| from.as_ref().is_none_or(|(first, _)| *name >= first)) {
        let next = |partition: i32| {
            Some(Cursor::default().with_topic_name(topic_name(name)).with_partition_index(partition))
        };
        if room == 0 {
            response.next_cursor = next(0);
            break;
        }
        let Some(topic) = image.topic_by_name(name) else {
            response.topics.push(
                DescribedTopic::default()
                    .with_error_code(missing(name, false))
                    .with_name(Some(topic_name(name)))
                    .with_topic_authorized_operations(NO_OPERATIONS),
            );
            continue;
        };
        let first = from.as_ref().filter(|(first, _)| first == name).map_or(0, |(_, partition)| *partition);
        let page: Vec<DescribedPartition> = partitions(&image, topic)
            .skip(first as usize)
            .take(room)
            .map(|(number, partition)| described_partition(&image, number, partition))
            .collect();
        room -= page.len();
        let end = first.saturating_add(page.len() as i32);
        response.topics.push(
            DescribedTopic::default()
                .with_name(Some(topic_name(name)))
                .with_topic_id(topic.id.0)
                .with_partitions(page)
                .with_topic_authorized_operations(NO_OPERATIONS),
        );
        if end < topic.partitions {
            response.next_cursor = next(end);
            break;
        }
    }
    response
}

fn described_partition(image: &Image, number: i32, partition: &Partition) -> DescribedPartition {
    let (code, leader) = leader_of(image, partition, true);
    DescribedPartition::default()
        .with_error_code(code)
        .with_partition_index(number)
        .with_leader_id(leader)
        .with_leader_epoch(partition.leader_epoch.0)
        .with_replica_nodes(wire_ids(&partition.replicas))
        .with_isr_nodes(wire_ids(&partition.isr))
        .with_eligible_leader_replicas(Some(wire_ids(&partition.elr)))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(offline(image, partition))
}

/// The error of a request about a topic, with its text.
pub fn refused(error: &ServeError) -> (Code, Option<kafka_protocol::protocol::StrBytes>) {
    (code(error), Some(text(&error.to_string())))
}

/// A request that names something twice.
pub fn twice(what: &str) -> (Code, Option<kafka_protocol::protocol::StrBytes>) {
    (InvalidRequest.code(), Some(text(&format!("{what} is named twice"))))
}
