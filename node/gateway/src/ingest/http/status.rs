//! `GET /get_status`: health, nodes, partitions, counts and lag.

use super::super::pipeline::Stage;
use super::super::store::Totals;
use super::pipeline;
use crate::app::AppState;
use crate::http::extract::Reading;
use crate::http::problem::Problem;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use strandline_client::OffsetSpec;
use utoipa::ToSchema;

/// How the pipeline is.
#[derive(Serialize, ToSchema)]
#[schema(as = IngestStatus)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    /// `ok`; `degraded`: events are taken, and wait; `starting`.
    #[schema(value_type = String)]
    status: &'static str,
    store: StoreDocument,
    counts: Counts,
    /// Records of the topics that the store does not have yet.
    lag: i64,
    nodes: Vec<Node>,
    partitions: Vec<Partition>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = IngestStore)]
struct StoreDocument {
    /// `open`, `opening`, `starting`, or `idle`: nothing was ever ingested.
    #[schema(value_type = String)]
    state: &'static str,
    /// All gateways answer from it.
    shared: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Default, Serialize, ToSchema)]
#[schema(as = IngestCounts)]
struct Counts {
    processed: u64,
    rejected: u64,
    failed: u64,
    duplicates: u64,
}

impl From<Totals> for Counts {
    fn from(totals: Totals) -> Self {
        let Totals { processed, rejected, failed, duplicates } = totals;
        Counts { processed, rejected, failed, duplicates }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = IngestNode)]
struct Node {
    id: u64,
    http: String,
    /// `serving`, or `fenced`: down, or not caught up since its start.
    #[schema(value_type = String)]
    state: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = IngestPartition)]
#[serde(rename_all = "camelCase")]
struct Partition {
    topic: String,
    partition: i32,
    leader: Option<u64>,
    replicas: Vec<u64>,
    in_sync: Vec<u64>,
    end_offset: Option<i64>,
    processed_offset: i64,
    lag: Option<i64>,
}

/// Show how the ingest pipeline is
///
/// 200 also where it is not well: the document says so.
#[utoipa::path(
    get,
    path = "/get_status",
    tag = "ingest",
    responses(
        (status = 200, description = "Health, nodes, partitions, counts and lag", body = Answer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get(State(app): State<AppState>, _: Reading) -> Result<Json<Answer>, Problem> {
    let ingest = pipeline(&app)?;
    let admin = ingest.client.admin();
    let cluster = admin.cluster_status().await?;
    let mut nodes: Vec<Node> = cluster
        .brokers
        .into_iter()
        .map(|broker| Node {
            id: broker.id,
            http: broker.http,
            state: if broker.fenced { "fenced" } else { "serving" },
        })
        .collect();
    nodes.sort_by_key(|node| node.id);

    let mut store = StoreDocument { state: "open", shared: false, error: ingest.health.error.lock().clone() };
    let (mut counts, mut offsets) = (Counts::default(), BTreeMap::new());
    match ingest.stage() {
        Stage::Starting => store.state = "starting",
        Stage::Idle => store.state = "idle",
        Stage::Opening(why) => (store.state, store.error) = ("opening", Some(why)),
        Stage::Open(open) => {
            store.shared = open.shared();
            match (open.totals().await, open.offsets().await) {
                (Ok(totals), Ok(known)) => (counts, offsets) = (totals.into(), known),
                (Err(error), _) | (_, Err(error)) => store.error = Some(error.to_string()),
            }
        }
    }

    let mut partitions = Vec::new();
    if let Some(topics) = ingest.topics().await? {
        let ends = topics.partitions().map(|(partition, _)| (partition, OffsetSpec::Latest));
        // Of a partition without a leader nobody can say.
        let ends = admin.list_offsets(ends.collect::<Vec<_>>()).await.unwrap_or_default();
        let details = topics.both().into_iter().flat_map(|topic| &topic.partitions);
        for ((partition, source), detail) in topics.partitions().zip(details) {
            let end_offset = ends.get(&partition).and_then(|listed| listed.offset);
            let processed_offset = offsets.get(&source).copied().unwrap_or(0);
            partitions.push(Partition {
                topic: partition.topic.to_string(),
                partition: partition.partition,
                leader: detail.leader,
                replicas: detail.replicas.clone(),
                in_sync: detail.isr.clone(),
                end_offset,
                processed_offset,
                lag: end_offset.map(|end| (end - processed_offset).max(0)),
            });
        }
    }
    let well = store.error.is_none()
        && nodes.iter().all(|node| node.state == "serving")
        && partitions.iter().all(|partition| partition.leader.is_some());
    let status = match (store.state, well) {
        ("starting", _) => "starting",
        (_, true) => "ok",
        _ => "degraded",
    };
    let lag = partitions.iter().filter_map(|partition| partition.lag).sum();
    Ok(Json(Answer { status, store, counts, lag, nodes, partitions }))
}
