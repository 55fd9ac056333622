//! The four requests that producing takes, at one version each. Pure but for the calls of [`Wire`].

use super::super::super::TopicArgs;
use super::super::events::Events;
use super::Layout;
use super::wire::{Call, Wire};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use std::time::Duration;
use strandline_client::Acks;
use strandline_record::{BatchBuilder, Compression};

const API_VERSIONS: i16 = 3;
const METADATA: i16 = 9;
const CREATE_TOPICS: i16 = 5;
const PRODUCE: i16 = 9;
/// Partitions of a topic that are believed; each is a number to keep.
const MOST_PARTITIONS: usize = 1 << 20;

/// What is asked first: whether the node speaks the versions used here.
///
/// # Errors
/// Says what it does not speak.
pub async fn supported(wire: &Wire) -> Result<(), String> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("strandline-bench"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    let answer = ask(wire, &Call::of(ApiKey::ApiVersions, API_VERSIONS, &request)).await?;
    let answer = decoded::<ApiVersionsResponse>(answer, API_VERSIONS)?;
    for (key, version) in
        [(ApiKey::Metadata, METADATA), (ApiKey::CreateTopics, CREATE_TOPICS), (ApiKey::Produce, PRODUCE)]
    {
        let spoken = answer
            .api_keys
            .iter()
            .any(|api| api.api_key == key as i16 && (api.min_version..=api.max_version).contains(&version));
        if !spoken {
            return Err(format!("the node does not speak version {version} of {key:?}"));
        }
    }
    Ok(())
}

/// Creates the topic, if it does not exist.
///
/// # Errors
/// What the node says.
pub async fn create_topic(wire: &Wire, topic: &TopicArgs) -> Result<(), String> {
    let configs = topic.configs.iter().map(|(key, value)| {
        let value = Some(StrBytes::from_string(value.clone()));
        CreatableTopicConfig::default().with_name(StrBytes::from_string(key.clone())).with_value(value)
    });
    let replicas =
        topic.replication.map_or(Ok(-1), i16::try_from).map_err(|_| "too many replicas".to_owned())?;
    let wanted = CreatableTopic::default()
        .with_name(name(&topic.topic))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(replicas)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
    let answer = ask(wire, &Call::of(ApiKey::CreateTopics, CREATE_TOPICS, &request)).await?;
    let answer = decoded::<CreateTopicsResponse>(answer, CREATE_TOPICS)?;
    let code = answer.topics.first().map_or(-1, |topic| topic.error_code);
    match ResponseError::try_from_code(code) {
        None | Some(ResponseError::TopicAlreadyExists) => Ok(()),
        Some(error) => {
            let message = answer.topics.first().and_then(|topic| topic.error_message.as_ref());
            Err(format!("topic {} cannot be created: {error:?}: {}", topic.topic, message.map_or("", |m| m)))
        }
    }
}

/// Who leads the topic's partitions.
///
/// # Errors
/// What is wrong with the answer, or with the topic.
pub async fn metadata(wire: &Wire, topic: &str) -> Result<Layout, String> {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    let answer = ask(wire, &Call::of(ApiKey::Metadata, METADATA, &request)).await?;
    let answer = decoded::<MetadataResponse>(answer, METADATA)?;
    let nodes = answer.brokers.iter().map(|node| (node.node_id.0, format!("{}:{}", &*node.host, node.port)));
    let found = answer.topics.first().ok_or_else(|| format!("there is no topic {topic}"))?;
    if found.error_code != 0 {
        return Err(format!("topic {topic}: {:?}", ResponseError::try_from_code(found.error_code)));
    }
    let mut leaders = vec![-1; found.partitions.len().min(MOST_PARTITIONS)];
    for partition in &found.partitions {
        let index = usize::try_from(partition.partition_index).ok();
        let place = index.and_then(|index| leaders.get_mut(index));
        *place.ok_or("the partitions of the answer are not numbered from 0")? = partition.leader_id.0;
    }
    Ok(Layout { nodes: nodes.collect(), leaders })
}

/// A batch with the records of request `n`.
pub fn batch(events: &Events, n: u64, count: u64, key: Option<&str>, document: &mut Vec<u8>) -> Bytes {
    let mut batch = BatchBuilder::with_capacity(Compression::None, (events.size() + 32) * count as usize);
    for i in 0..count {
        document.clear();
        events.document(n * count + i, document);
        batch.append(-1, key.map(str::as_bytes), Some(document), &[]);
    }
    batch.build()
}

/// The request that appends a batch.
pub fn produce(topic: &str, partition: i32, batch: Bytes, acks: Acks, timeout: Duration) -> Call {
    let acks = match acks {
        Acks::All => -1,
        Acks::Leader => 1,
        Acks::None => 0,
    };
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
        .with_topic_data(vec![topic]);
    Call::of(ApiKey::Produce, PRODUCE, &request)
}

/// The error code of the one partition that was written to.
///
/// # Errors
/// What is wrong with the answer.
pub fn produced(answer: Bytes) -> Result<i16, String> {
    let answer = decoded::<ProduceResponse>(answer, PRODUCE)?;
    let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    partition
        .map(|partition| partition.error_code)
        .ok_or_else(|| "an answer without its partition".to_owned())
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

async fn ask(wire: &Wire, call: &Call) -> Result<Bytes, String> {
    wire.call(call).await.map_err(|error| error.to_string())
}

fn decoded<T: Decodable>(mut answer: Bytes, version: i16) -> Result<T, String> {
    T::decode(&mut answer, version).map_err(|_| "an answer that cannot be read".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::super::events::Shape;
    use super::*;
    use strandline_record::{BatchLimits, validate_batch};

    #[test]
    fn a_batch_holds_the_records_of_its_request_and_is_what_a_broker_takes() {
        let events = Events::new(Shape::Value, 100, 5, 0).unwrap();
        let built = batch(&events, 7, 3, Some("key-00000002"), &mut Vec::new());
        let header = validate_batch(&built, BatchLimits::producer(1 << 20)).unwrap();
        assert_eq!(header.count(), 3);
        let text = String::from_utf8_lossy(&built);
        for n in [21, 22, 23] {
            assert!(text.contains(&format!("{{\"n\":{n},")), "{n}");
        }
        assert_eq!(text.matches("key-00000002").count(), 3);
    }

    #[test]
    fn an_answer_of_a_stranger_is_an_error_and_no_panic() {
        assert!(produced(Bytes::from_static(b"")).is_err());
        assert!(produced(Bytes::from_static(&[0xff; 64])).is_err());
    }
}
