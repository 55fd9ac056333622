//! From the bytes of a request to the function that answers it, and back.

use super::KafkaFront;
use super::api::{
    self, admin, cluster, configs, consumer_group, fetch, groups, offsets, produce, quotas, replicas,
};
use super::connection::Pending;
use super::frame::Answer;
use super::shape::{self, ShapeError};
use super::versions::{self, Served};
use crate::context::Context;
use bytes::{Buf, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A request that is not answered: the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("request {key} in version {version} is not served")]
    NotServed { key: i16, version: i16 },
    #[error("the request header is cut off")]
    Header,
    #[error("{key:?} {version}: {error}")]
    Shape { key: ApiKey, version: i16, error: ShapeError },
    #[error("{key:?} {version}: {error}")]
    Malformed { key: ApiKey, version: i16, error: String },
    /// A mistake of ours.
    #[error("the answer to {key:?} {version} cannot be encoded: {error}")]
    Encode { key: ApiKey, version: i16, error: String },
}

/// One request and who sent it.
pub struct Call {
    pub front: Arc<KafkaFront>,
    pub version: i16,
    pub client_id: Arc<str>,
    /// `/address`.
    pub host: Arc<str>,
    correlation: i32,
    /// `None`: an ApiVersions request of a version that does not exist yet.
    served: Option<&'static Served>,
    body: Bytes,
}

impl Call {
    pub fn key(&self) -> Option<ApiKey> {
        self.served.map(|served| served.key)
    }

    /// Whether this is how a client says who it is.
    pub fn introduces(&self) -> bool {
        self.key() == Some(ApiKey::ApiVersions)
    }

    pub fn context(&self) -> &Arc<Context> {
        self.front.context()
    }

    /// The request, once its counts have been looked at. Bytes in it are slices of the frame.
    pub fn decode<Q: Decodable>(&self) -> Result<Q, Refusal> {
        let served = self.served.expect("the one request without a row is not decoded");
        let (key, version) = (served.key, self.version);
        shape::check(served.shape, version, served.is_flexible(version), &self.body)
            .map_err(|error| Refusal::Shape { key, version, error })?;
        Q::decode(&mut self.body.clone(), version).map_err(|error| Refusal::Malformed {
            key,
            version,
            error: error.to_string(),
        })
    }

    pub fn encode<R: Encodable + HeaderVersion>(&self, response: &R) -> Result<Answer, Refusal> {
        self.encode_as(response, self.version)
    }

    fn encode_as<R: Encodable + HeaderVersion>(&self, response: &R, version: i16) -> Result<Answer, Refusal> {
        let mut bytes = Answer::begin();
        let key = self.key().unwrap_or(ApiKey::ApiVersions);
        let failed = |error: String| {
            tracing::error!(?key, version, %error, "an answer could not be encoded");
            Refusal::Encode { key, version, error }
        };
        let header = ResponseHeader::default().with_correlation_id(self.correlation);
        header.encode(&mut bytes, R::header_version(version)).map_err(|error| failed(error.to_string()))?;
        response.encode(&mut bytes, version).map_err(|error| failed(error.to_string()))?;
        Ok(Answer::new(bytes, Vec::new()))
    }

    /// For answers that are put together by hand.
    pub fn correlation(&self) -> i32 {
        self.correlation
    }
}

/// Reads the header: key, version, correlation id, client id, and tagged fields where the version has them.
pub fn parse(front: &Arc<KafkaFront>, host: &Arc<str>, mut frame: Bytes) -> Result<Call, Refusal> {
    if frame.len() < 8 {
        return Err(Refusal::Header);
    }
    let (key, version, correlation) = (frame.get_i16(), frame.get_i16(), frame.get_i32());
    let call = |served, client_id: &[u8], body| Call {
        front: front.clone(),
        version,
        client_id: String::from_utf8_lossy(client_id).into(),
        host: host.clone(),
        correlation,
        served,
        body,
    };
    let served = versions::find(key).filter(|served| served.has(version));
    let Some(served) = served else {
        return match key == ApiKey::ApiVersions as i16 {
            true => Ok(call(None, b"", Bytes::new())),
            false => Err(Refusal::NotServed { key, version }),
        };
    };
    if frame.len() < 2 {
        return Err(Refusal::Header);
    }
    let client_id = match frame.get_i16() {
        -1 => Bytes::new(),
        len => {
            let len = usize::try_from(len).map_err(|_| Refusal::Header)?;
            if len > frame.len() {
                return Err(Refusal::Header);
            }
            frame.split_to(len)
        }
    };
    if served.is_flexible(version) {
        let left = shape::skip_tags(&frame).map_err(|_| Refusal::Header)?.len();
        frame.advance(frame.len() - left);
    }
    Ok(call(Some(served), &client_id, frame))
}

/// Appends; the answer comes when the batches are durable. The second value: how long the client is muted after.
pub async fn produce(call: Call) -> Result<(Pending, Duration), Refusal> {
    produce::start(call).await
}

/// Answers everything but Produce. The second value: how long the client is muted after its answer.
pub async fn handle(call: Call) -> Result<(Answer, Duration), Refusal> {
    let Some(key) = call.key() else {
        // Version 0 is what every client understands (KIP-511).
        let unsupported = ResponseError::UnsupportedVersion.code();
        let answer = versions::api_versions().with_error_code(unsupported);
        return Ok((call.encode_as(&answer, 0)?, Duration::ZERO));
    };
    if key == ApiKey::Fetch {
        let began = Instant::now();
        let (answer, throttled) = fetch::fetch(&call).await?;
        let meters = &call.context().meters.kafka.fetch;
        meters.took.record(began.elapsed());
        meters.throttle(throttled);
        return Ok((answer, throttled));
    }
    call.context().meters.kafka.called(key);
    Ok((answer(&call, key).await?, Duration::ZERO))
}

async fn answer(call: &Call, key: ApiKey) -> Result<Answer, Refusal> {
    match key {
        ApiKey::ApiVersions => call.encode(&api_versions(call)?),
        ApiKey::Metadata => call.encode(&cluster::metadata(call, call.decode()?).await),
        ApiKey::DescribeCluster => call.encode(&cluster::describe_cluster(call, &call.decode()?)),
        ApiKey::DescribeTopicPartitions => {
            call.encode(&cluster::describe_topic_partitions(call, &call.decode()?))
        }
        ApiKey::ListOffsets => call.encode(&offsets::list_offsets(call, call.decode()?)),
        ApiKey::OffsetForLeaderEpoch => call.encode(&offsets::offset_for_leader_epoch(call, call.decode()?)),
        ApiKey::InitProducerId => call.encode(&offsets::init_producer_id(call, &call.decode()?).await),
        ApiKey::DeleteRecords => call.encode(&offsets::delete_records(call, call.decode()?)),
        ApiKey::FindCoordinator => call.encode(&groups::find_coordinator(call, &call.decode()?)),
        ApiKey::JoinGroup => call.encode(&groups::join(call, call.decode()?).await),
        ApiKey::SyncGroup => call.encode(&groups::sync(call, call.decode()?).await),
        ApiKey::Heartbeat => call.encode(&groups::heartbeat(call, &call.decode()?)),
        ApiKey::LeaveGroup => call.encode(&groups::leave(call, call.decode()?)),
        ApiKey::DescribeGroups => call.encode(&groups::describe(call, call.decode()?).await),
        ApiKey::ListGroups => call.encode(&groups::list(call, &call.decode()?).await),
        ApiKey::DeleteGroups => call.encode(&groups::delete(call, call.decode()?).await),
        ApiKey::ConsumerGroupHeartbeat => call.encode(&consumer_group::heartbeat(call, call.decode()?).await),
        ApiKey::ConsumerGroupDescribe => call.encode(&consumer_group::describe(call, call.decode()?).await),
        ApiKey::OffsetCommit => call.encode(&api::commits::commit(call, call.decode()?).await),
        ApiKey::OffsetFetch => call.encode(&api::commits::fetch(call, call.decode()?).await),
        ApiKey::OffsetDelete => call.encode(&api::commits::delete(call, call.decode()?).await),
        ApiKey::CreateTopics => call.encode(&admin::create_topics(call, call.decode()?).await),
        ApiKey::DeleteTopics => call.encode(&admin::delete_topics(call, call.decode()?).await),
        ApiKey::CreatePartitions => call.encode(&admin::create_partitions(call, call.decode()?).await),
        ApiKey::DescribeConfigs => call.encode(&configs::describe(call, call.decode()?)),
        ApiKey::AlterConfigs => call.encode(&configs::alter(call, call.decode()?).await),
        ApiKey::IncrementalAlterConfigs => {
            call.encode(&configs::incremental_alter(call, call.decode()?).await)
        }
        ApiKey::DescribeLogDirs => call.encode(&replicas::describe_log_dirs(call, &call.decode()?)),
        ApiKey::DescribeProducers => call.encode(&replicas::describe_producers(call, call.decode()?)),
        ApiKey::ElectLeaders => call.encode(&replicas::elect_leaders(call, call.decode()?).await),
        ApiKey::AlterPartitionReassignments => {
            call.encode(&replicas::alter_reassignments(call, call.decode()?).await)
        }
        ApiKey::ListPartitionReassignments => {
            call.encode(&replicas::list_reassignments(call, &call.decode()?))
        }
        ApiKey::DescribeClientQuotas => call.encode(&quotas::describe(call, &call.decode()?)),
        ApiKey::AlterClientQuotas => call.encode(&quotas::alter(call, call.decode()?).await),
        key => Err(Refusal::NotServed { key: key as i16, version: call.version }),
    }
}

fn api_versions(call: &Call) -> Result<ApiVersionsResponse, Refusal> {
    let request: kafka_protocol::messages::ApiVersionsRequest = call.decode()?;
    // KIP-511: letters, digits, '-' and '.', beginning and ending with a letter or digit.
    let valid = |name: &str| {
        let bytes = name.as_bytes();
        bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    if call.version >= 3 && !(valid(&request.client_software_name) && valid(&request.client_software_version))
    {
        let invalid = ResponseError::InvalidRequest.code();
        return Ok(versions::api_versions().with_error_code(invalid));
    }
    tracing::debug!(
        software = %request.client_software_name,
        version = %request.client_software_version,
        client = %call.client_id,
        "a Kafka client"
    );
    Ok(versions::api_versions())
}
