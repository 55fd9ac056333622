//! The requests, one file for each group of them: each takes a decoded request and gives the answer to encode.

pub mod admin;
pub mod cluster;
pub mod commits;
pub mod configs;
pub mod consumer_group;
pub mod fetch;
pub mod fetch_answer;
pub mod groups;
pub mod offsets;
pub mod produce;
pub mod quotas;
pub mod replicas;

use crate::error::ServeError;
use kafka_protocol::messages::{self, TopicName};
use kafka_protocol::protocol::StrBytes;
use strandline_metadata::{Broker, Image, Topic};
use strandline_record::{BrokerId, LeaderEpoch, PartitionId, TopicId, TopicPartition};
use uuid::Uuid;

/// An error code on the wire.
pub type Code = i16;

/// No error.
pub const NONE: Code = 0;
/// "Not asked for", where a client can ask which operations it may do: there is no authorization yet.
pub const NO_OPERATIONS: i32 = i32::MIN;

pub fn text(string: &str) -> StrBytes {
    StrBytes::from_string(string.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// Broker ids are small (checked when the node starts), as Kafka has 32 bits for them.
pub fn wire_id(id: BrokerId) -> messages::BrokerId {
    messages::BrokerId(i32::try_from(id.0).unwrap_or(-1))
}

pub fn wire_ids<'a>(ids: impl IntoIterator<Item = &'a BrokerId>) -> Vec<messages::BrokerId> {
    ids.into_iter().map(|id| wire_id(*id)).collect()
}

pub fn broker_ids(ids: &[messages::BrokerId]) -> Result<Vec<BrokerId>, ServeError> {
    let known = |id: &messages::BrokerId| u64::try_from(id.0).map(BrokerId);
    ids.iter()
        .map(known)
        .collect::<Result<_, _>>()
        .map_err(|_| ServeError::InvalidReplication("a broker id is negative".to_owned()))
}

/// `-1` is "not known".
pub fn epoch_of(wire: i32) -> Option<LeaderEpoch> {
    (wire >= 0).then_some(LeaderEpoch(wire))
}

/// A broker as Kafka clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: messages::BrokerId,
    pub host: StrBytes,
    pub port: i32,
    pub rack: Option<StrBytes>,
}

/// `None` for a broker without a Kafka listener.
pub fn node_of(broker: &Broker) -> Option<Node> {
    let (host, port) = broker.endpoints.kafka.as_deref()?.rsplit_once(':')?;
    Some(Node {
        id: wire_id(broker.id),
        // An IPv6 address has brackets in an address with a port, and none by itself.
        host: text(host.trim_start_matches('[').trim_end_matches(']')),
        port: port.parse().ok()?,
        rack: broker.rack.as_deref().map(text),
    })
}

/// The brokers that can be asked now.
pub fn live_nodes(image: &Image) -> impl Iterator<Item = Node> {
    image.brokers.values().filter(|broker| !broker.fenced).filter_map(|broker| node_of(broker))
}

/// Who is named as the controller: the metadata leader where clients reach it, else any broker. (Every broker
/// takes what Kafka's controller takes.)
pub fn controller_of(image: &Image, leader: Option<u64>) -> messages::BrokerId {
    let reachable = |id: &u64| {
        image.broker(BrokerId(*id)).is_some_and(|broker| !broker.fenced && node_of(broker).is_some())
    };
    match leader.filter(reachable) {
        Some(id) => wire_id(BrokerId(id)),
        None => live_nodes(image).next().map_or(messages::BrokerId(-1), |node| node.id),
    }
}

/// A topic as a request names it: by name, or (in newer versions) by id.
pub fn topic_of<'a>(image: &'a Image, name: &str, id: Uuid) -> Option<&'a Topic> {
    match id.is_nil() {
        true => image.topic_by_name(name),
        false => image.topics.get(&TopicId(id)),
    }
    .map(|topic| &**topic)
}

/// A partition of a topic that exists.
pub fn partition_of(image: &Image, topic: &str, number: i32) -> Result<TopicPartition, ServeError> {
    let topic = image.topic_by_name(topic).ok_or(ServeError::UnknownPartition)?;
    let tp = TopicPartition { topic: topic.id, partition: PartitionId(number) };
    image.partition(tp).map(|_| tp).ok_or(ServeError::UnknownPartition)
}
