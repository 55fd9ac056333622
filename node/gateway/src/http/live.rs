//! `GET /v1/live`: what happens, as it happens, as server-sent events; and the lists that such a view leads to, page by
//! page. What is behind it: [`crate::live`].

use super::extract::{Params, Reading, Segments};
use super::problem::Problem;
use crate::app::AppState;
use crate::live::{GroupSummary, PartitionFilter, PartitionRow, Picture, TopicSummary};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// Entries of a page unless said otherwise, and at most.
const DEFAULT_SIZE: usize = 50;
const MOST: usize = 1000;
/// Said once: a browser that lost its stream comes back after so many milliseconds.
const COME_BACK: &[u8] = b"retry: 1000\n\n";
const SOON: Duration = Duration::from_secs(1);
/// For the leaders of a group's partitions.
const ENDS: Duration = Duration::from_secs(2);

/// Follow the cluster: server-sent events
///
/// `snapshot` first, then a `tick` every second and `cluster` when something changes there. With `Last-Event-ID` it goes
/// on where it was, if that is not too long ago.
#[utoipa::path(
    get,
    path = "/v1/live",
    tag = "cluster",
    params(("Last-Event-ID" = Option<String>, Header, description = "The last message that came")),
    responses(
        (status = 200, description = "A stream without end", body = String, content_type = "text/event-stream"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn stream(
    State(app): State<AppState>,
    headers: HeaderMap,
    _: Reading,
) -> Result<Response, Problem> {
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let viewer = app.live.view(&app, last_id).ok_or_else(|| {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-viewers", "as many look as may at once")
            .hint("close another dashboard of this gateway, or look at another gateway")
            .retry_after(SOON)
    })?;
    let messages = stream::unfold(viewer, |mut viewer| async move {
        let messages = viewer.next().await?;
        Some((Ok::<Bytes, Infallible>(messages), viewer))
    });
    let body = stream::iter([Ok(Bytes::from_static(COME_BACK))]).chain(messages);
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    // A proxy that gathers the stream up would hold back what is live.
    Ok((headers, [("x-accel-buffering", "no")], Body::from_stream(body)).into_response())
}

/// Which page, of how many entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicsParams {
    /// From 0.
    #[serde(default)]
    page: usize,
    /// Entries of a page; 50 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    size: Option<usize>,
    /// Only names that contain this.
    #[serde(default)]
    search: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct TopicsPage {
    total: usize,
    page: usize,
    topics: Vec<TopicSummary>,
}

/// List topics with their rates, a page at a time
#[utoipa::path(
    get,
    path = "/v1/cluster/topics",
    tag = "cluster",
    params(TopicsParams),
    responses(
        (status = 200, description = "Topics by name", body = TopicsPage),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn topics(
    State(app): State<AppState>,
    Params(params): Params<TopicsParams>,
    _: Reading,
) -> Result<Json<TopicsPage>, Problem> {
    let size = size(params.size)?;
    let (topics, total) = ask(&app, |picture| picture.topics(&params.search, params.page, size)).await?;
    Ok(Json(TopicsPage { total, page: params.page, topics }))
}

/// Which partitions, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartitionsParams {
    /// From 0.
    #[serde(default)]
    page: usize,
    /// Entries of a page; 50 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    size: Option<usize>,
    /// Only those of this topic.
    topic: Option<String>,
    /// Only those with a replica on this node.
    node: Option<u64>,
    /// Only those that are in this state.
    state: Option<PartitionState>,
}

/// What may be wrong with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PartitionState {
    UnderReplicated,
    Leaderless,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct PartitionsPage {
    total: usize,
    page: usize,
    partitions: Vec<PartitionRow>,
}

/// List partitions with leaders, replicas and queues, a page at a time
#[utoipa::path(
    get,
    path = "/v1/cluster/partitions",
    tag = "cluster",
    params(PartitionsParams),
    responses(
        (status = 200, description = "Partitions by topic and number", body = PartitionsPage),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn partitions(
    State(app): State<AppState>,
    Params(params): Params<PartitionsParams>,
    _: Reading,
) -> Result<Json<PartitionsPage>, Problem> {
    let size = size(params.size)?;
    let filter = PartitionFilter {
        topic: params.topic,
        node: params.node,
        under_replicated: params.state == Some(PartitionState::UnderReplicated),
        leaderless: params.state == Some(PartitionState::Leaderless),
    };
    let (partitions, total) = ask(&app, |picture| picture.partitions(&filter, params.page, size)).await?;
    Ok(Json(PartitionsPage { total, page: params.page, partitions }))
}

/// Which groups.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupsParams {
    /// Only names that contain this.
    #[serde(default)]
    search: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct GroupsPage {
    groups: Vec<GroupSummary>,
}

/// List the readers of the cluster with their lag
///
/// Groups (the first 200 by name), and the store of this gateway's ingest pipeline.
#[utoipa::path(
    get,
    path = "/v1/cluster/groups",
    tag = "cluster",
    params(GroupsParams),
    responses(
        (status = 200, description = "Readers by name", body = GroupsPage),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn groups(
    State(app): State<AppState>,
    Params(params): Params<GroupsParams>,
    _: Reading,
) -> Result<Json<GroupsPage>, Problem> {
    let groups = ask(&app, |picture| picture.groups(&params.search)).await?;
    Ok(Json(GroupsPage { groups }))
}

/// Where a group is in each partition, and how far that is from the end.
#[derive(Serialize, ToSchema)]
pub(crate) struct GroupLag {
    group: String,
    /// Of the partitions whose end is known.
    lag: i64,
    partitions: Vec<PartitionLag>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PartitionLag {
    topic: String,
    partition: i32,
    committed: i64,
    high_watermark: Option<i64>,
    lag: Option<i64>,
    /// When it was committed, in milliseconds since 1970.
    committed_at: Option<i64>,
}

/// Show how far behind a group is, by partition
#[utoipa::path(
    get,
    path = "/v1/groups/{group}/lag",
    tag = "groups",
    params(("group" = String, Path, description = "Name of the group")),
    responses(
        (status = 200, description = "Committed offsets, ends, and what lies between", body = GroupLag),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn lag(
    State(app): State<AppState>,
    Segments(group): Segments<String>,
    _: Reading,
) -> Result<Json<GroupLag>, Problem> {
    super::groups::check_group(&group)?;
    let admin = app.client.admin();
    let committed = admin.group_offsets(&group).await?;
    let mut topics = Vec::new();
    for tp in committed.keys() {
        if topics.last().is_none_or(|last: &strandline_client::TopicDescription| last.name != tp.topic) {
            topics.push((*app.client.topic(&tp.topic).await?).clone());
        }
    }
    let brokers = admin.cluster_status().await?.brokers;
    let ends = admin.high_watermarks(&brokers, &topics, ENDS).await;
    let row = |(tp, at): (&strandline_client::TopicPartition, &strandline_client::CommittedOffset)| {
        let high_watermark = ends.get(tp).copied();
        PartitionLag {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            committed: at.position.offset,
            high_watermark,
            lag: high_watermark.map(|end| (end - at.position.offset).max(0)),
            committed_at: (at.commit_time_ms >= 0).then_some(at.commit_time_ms),
        }
    };
    let partitions: Vec<PartitionLag> = committed.iter().map(row).collect();
    Ok(Json(GroupLag { group, lag: partitions.iter().filter_map(|p| p.lag).sum(), partitions }))
}

fn size(size: Option<usize>) -> Result<usize, Problem> {
    super::consume::at_most("size", size.unwrap_or(DEFAULT_SIZE), MOST)
}

async fn ask<T>(app: &AppState, question: impl Fn(&Picture) -> T) -> Result<T, Problem> {
    app.live.ask(app, question).await.ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "cluster-unreachable", "no node was heard of so far")
            .hint("try again in a moment")
            .retry_after(SOON)
    })
}
