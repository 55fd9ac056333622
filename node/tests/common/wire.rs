//! A Kafka client that says exactly what a test wants it to say.

use super::Node;
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::time::{Duration, Instant};
use strandline_record::{BatchBuilder, Compression, ProducerEpoch, ProducerId, ProducerStamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing a test waits for takes this long.
const DEADLINE: Duration = Duration::from_secs(30);

pub struct Wire {
    pub stream: TcpStream,
    correlation: i32,
}

pub fn text(string: &str) -> StrBytes {
    StrBytes::from_string(string.to_owned())
}

pub fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A frame with its length.
pub fn frame<Q: Request>(correlation: i32, version: i16, request: &Q) -> Bytes {
    let mut body = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(text("a-test")));
    header.encode(&mut body, Q::header_version(version)).unwrap();
    request.encode(&mut body, version).unwrap();
    let mut framed = BytesMut::from(&(body.len() as u32).to_be_bytes()[..]);
    framed.extend_from_slice(&body);
    framed.freeze()
}

impl Wire {
    /// Connects once the node serves Kafka clients.
    pub async fn connect(node: &Node) -> Wire {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Ok(stream) = TcpStream::connect(node.kafka()).await {
                return Wire { stream, correlation: 0 };
            }
            assert!(Instant::now() < until, "nobody listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// And has said who it is, so that large frames are allowed.
    pub async fn introduced(node: &Node) -> Wire {
        let mut wire = Wire::connect(node).await;
        let hello = ApiVersionsRequest::default()
            .with_client_software_name(text("a-test"))
            .with_client_software_version(text("1"));
        assert_eq!(wire.ask(3, &hello).await.error_code, 0);
        wire
    }

    pub async fn send<Q: Request>(&mut self, version: i16, request: &Q) -> i32 {
        self.correlation += 1;
        self.stream.write_all(&frame(self.correlation, version, request)).await.unwrap();
        self.correlation
    }

    /// A whole frame, without its length; `None` when the connection is closed.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_u32().await.ok()?;
            let mut bytes = vec![0; length as usize];
            self.stream.read_exact(&mut bytes).await.ok()?;
            Some(Bytes::from(bytes))
        };
        tokio::time::timeout(DEADLINE, read).await.expect("an answer in time")
    }

    pub async fn receive<Q: Request>(&mut self, version: i16) -> (i32, Q::Response) {
        let mut bytes = self.frame().await.expect("an answer");
        let header_version = Q::Response::header_version(version);
        let header = ResponseHeader::decode(&mut bytes, header_version).unwrap();
        let response = Q::Response::decode(&mut bytes, version).unwrap();
        assert_eq!(bytes.remaining(), 0, "the answer has bytes left over");
        (header.correlation_id, response)
    }

    pub async fn ask<Q: Request>(&mut self, version: i16, request: &Q) -> Q::Response {
        let sent = self.send(version, request).await;
        let (correlation, response) = self.receive::<Q>(version).await;
        assert_eq!(correlation, sent, "answers come in the order of the requests");
        response
    }

    pub async fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> i16 {
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
        });
        let creatable = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(-1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(10_000);
        self.ask(7, &request).await.topics[0].error_code
    }

    /// Waits until the partition has a leader that takes records.
    pub async fn produce_until_taken(
        &mut self,
        version: i16,
        request: &ProduceRequest,
    ) -> PartitionProduceResponse {
        let until = Instant::now() + DEADLINE;
        loop {
            let answer = self.ask(version, request).await;
            let partition = answer.responses[0].partition_responses[0].clone();
            // Not leader, not enough replicas: the topic is new.
            if !matches!(partition.error_code, 3 | 5 | 6 | 19) {
                return partition;
            }
            assert!(Instant::now() < until, "the partition never got a leader: {partition:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One batch with these values.
pub fn batch(values: &[&str]) -> Bytes {
    built(Compression::None, None, values)
}

pub fn built(codec: Compression, producer: Option<(i64, i16, i32)>, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    builder.set_producer(producer.map(|(id, epoch, base_sequence)| ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence,
    }));
    for (i, value) in values.iter().enumerate() {
        builder.append(1_000 + i as i64, Some(b"key"), Some(value.as_bytes()), &[]);
    }
    builder.build()
}

pub fn produce(name: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic_data = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic_data])
}

/// A fetch of one partition by itself, without a session.
pub fn fetch(name: &str, partition: i32, offset: i64) -> FetchRequest {
    let place = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![FetchTopic::default().with_topic(topic(name)).with_partitions(vec![place])])
}
