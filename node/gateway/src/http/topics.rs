//! Topics and the cluster over HTTP.

use super::extract::{Admitted, Params, Reading, Segments};
use super::problem::Problem;
use crate::app::{AppState, check_topic_name};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strandline_client::{
    Broker, NewTopic, OffsetSpec, PartitionDescription, TopicDescription, TopicPartition,
};
use utoipa::{IntoParams, ToSchema};

#[derive(Serialize, ToSchema)]
pub(crate) struct Topics {
    topics: Vec<TopicEntry>,
}

#[derive(Serialize, ToSchema)]
struct TopicEntry {
    name: String,
    partitions: usize,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Topic {
    name: String,
    id: String,
    partitions: Vec<Partition>,
    /// What was set explicitly.
    configs: BTreeMap<String, String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Partition {
    partition: i32,
    leader: Option<u64>,
    leader_epoch: i32,
    replicas: Vec<u64>,
    isr: Vec<u64>,
}

impl From<&TopicDescription> for Topic {
    fn from(topic: &TopicDescription) -> Topic {
        let partition = |p: &PartitionDescription| Partition {
            partition: p.partition,
            leader: p.leader,
            leader_epoch: p.leader_epoch,
            replicas: p.replicas.clone(),
            isr: p.isr.clone(),
        };
        Topic {
            name: topic.name.to_string(),
            id: topic.id.0.to_string(),
            partitions: topic.partitions.iter().map(partition).collect(),
            configs: topic.configs.clone(),
        }
    }
}

/// A topic to create; what is left out is the cluster's default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Create {
    name: String,
    partitions: Option<i32>,
    replication_factor: Option<i32>,
    #[serde(default)]
    configs: BTreeMap<String, String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopicOffsets {
    topic: String,
    partitions: Vec<PartitionEnds>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PartitionEnds {
    partition: i32,
    log_start_offset: Option<i64>,
    high_watermark: Option<i64>,
    /// Of the first record at or after the timestamp asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct OffsetsParams {
    /// Also the first record at or after this, in milliseconds since 1970.
    #[param(minimum = 0)]
    timestamp: Option<i64>,
}

/// List the topics
#[utoipa::path(
    get,
    path = "/v1/topics",
    tag = "topics",
    responses(
        (status = 200, description = "Every topic", body = Topics),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn list(State(app): State<AppState>, _: Reading) -> Result<Json<Topics>, Problem> {
    let topics = app.client.admin().list_topics().await?;
    let entry =
        |t: &TopicDescription| TopicEntry { name: t.name.to_string(), partitions: t.partitions.len() };
    Ok(Json(Topics { topics: topics.iter().map(entry).collect() }))
}

/// Create a topic
#[utoipa::path(
    post,
    path = "/v1/topics",
    tag = "topics",
    request_body(content = Create),
    responses(
        (status = 201, description = "Created", body = Topic),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn create(
    State(app): State<AppState>,
    admitted: Admitted,
) -> Result<(StatusCode, Json<Topic>), Problem> {
    let create: Create = admitted.json()?;
    check_topic_name(&create.name)?;
    let mut topic = NewTopic::new(create.name.as_str());
    if let Some(partitions) = create.partitions {
        topic = topic.partitions(positive("partitions", partitions)?);
    }
    if let Some(replicas) = create.replication_factor {
        topic = topic.replication_factor(positive("replicationFactor", replicas)?);
    }
    for (key, value) in create.configs {
        topic = topic.config(key, value);
    }
    app.client.admin().create_topic(topic).await?;
    // What was created exists, whatever keeps its description away.
    let described = app.client.topic(&create.name).await;
    let described = described.map_err(|error| Problem::from(error).may_have_happened(true))?;
    Ok((StatusCode::CREATED, Json(Topic::from(&*described))))
}

fn positive(name: &str, number: i32) -> Result<i32, Problem> {
    match number {
        1.. => Ok(number),
        _ => Err(Problem::invalid(format!("{name} is 1 or more"))),
    }
}

/// Show a topic: its partitions, leaders and configuration
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}",
    tag = "topics",
    params(("topic" = String, Path, description = "Name of the topic")),
    responses(
        (status = 200, description = "The topic", body = Topic),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn describe(
    State(app): State<AppState>,
    Segments(name): Segments<String>,
    _: Reading,
) -> Result<Json<Topic>, Problem> {
    check_topic_name(&name)?;
    Ok(Json(Topic::from(&app.client.admin().describe_topic(&name).await?)))
}

/// Delete a topic with its records
#[utoipa::path(
    delete,
    path = "/v1/topics/{topic}",
    tag = "topics",
    params(("topic" = String, Path, description = "Name of the topic")),
    responses(
        (status = 204, description = "Deleted"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn delete(
    State(app): State<AppState>,
    Segments(name): Segments<String>,
    _admitted: Admitted,
) -> Result<StatusCode, Problem> {
    check_topic_name(&name)?;
    app.client.admin().delete_topic(&name).await?;
    app.topic_is_gone(&name);
    Ok(StatusCode::NO_CONTENT)
}

/// Show where a topic's partitions begin and end
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/offsets",
    tag = "topics",
    params(("topic" = String, Path, description = "Name of the topic"), OffsetsParams),
    responses(
        (status = 200, description = "First and next offset of each partition", body = TopicOffsets),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn offsets(
    State(app): State<AppState>,
    Segments(name): Segments<String>,
    Params(params): Params<OffsetsParams>,
    _: Reading,
) -> Result<Json<TopicOffsets>, Problem> {
    if params.timestamp.is_some_and(|timestamp| timestamp < 0) {
        return Err(Problem::invalid("timestamp is 0 or more"));
    }
    let topic = app.topic(&name).await?;
    let all = |spec| -> Vec<_> {
        let place = |p: &PartitionDescription| (TopicPartition::new(topic.name.clone(), p.partition), spec);
        topic.partitions.iter().map(place).collect()
    };
    let admin = app.client.admin();
    let starts = admin.list_offsets(all(OffsetSpec::Earliest)).await?;
    let ends = admin.list_offsets(all(OffsetSpec::Latest)).await?;
    let found = match params.timestamp {
        Some(timestamp) => admin.list_offsets(all(OffsetSpec::Timestamp(timestamp))).await?,
        None => BTreeMap::new(),
    };
    let partitions = starts.iter().map(|(tp, start)| PartitionEnds {
        partition: tp.partition,
        log_start_offset: start.offset,
        high_watermark: ends.get(tp).and_then(|end| end.offset),
        offset: found.get(tp).and_then(|found| found.offset),
    });
    Ok(Json(TopicOffsets { partitions: partitions.collect(), topic: name }))
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cluster {
    cluster_id: String,
    /// Node that leads the agreement on metadata.
    metadata_leader: Option<u64>,
    voters: Vec<u64>,
    nodes: Vec<Node>,
    topics: u32,
    partitions: u32,
    under_replicated: u32,
    leaderless: u32,
    /// A majority confirmed all this.
    confirmed: bool,
}

#[derive(Serialize, ToSchema)]
struct Node {
    id: u64,
    grpc: String,
    kafka: Option<String>,
    http: Option<String>,
    rack: Option<String>,
    /// It does not serve now.
    fenced: bool,
    /// Partitions that it leads, and that it holds a replica of.
    leads: u32,
    replicas: u32,
}

/// Show the nodes and the state of the cluster
#[utoipa::path(
    get,
    path = "/v1/cluster",
    tag = "cluster",
    responses(
        (status = 200, description = "The cluster", body = Cluster),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn cluster(State(app): State<AppState>, _: Reading) -> Result<Json<Cluster>, Problem> {
    let status = app.client.admin().cluster_status().await?;
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let node = |broker: &Broker| {
        let share = status.leaders.iter().find(|share| share.broker_id == broker.id);
        Node {
            id: broker.id,
            grpc: broker.grpc.clone(),
            kafka: some(&broker.kafka),
            http: some(&broker.http),
            rack: some(&broker.rack),
            fenced: broker.fenced,
            leads: share.map_or(0, |share| share.leads),
            replicas: share.map_or(0, |share| share.replicas),
        }
    };
    Ok(Json(Cluster {
        nodes: status.brokers.iter().map(node).collect(),
        cluster_id: status.cluster_id,
        metadata_leader: status.raft_leader,
        voters: status.voters,
        topics: status.topics,
        partitions: status.partitions,
        under_replicated: status.under_replicated,
        leaderless: status.leaderless,
        confirmed: status.confirmed,
    }))
}
