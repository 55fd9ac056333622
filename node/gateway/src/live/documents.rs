//! What goes over the wire: JSON with short names, since it goes to every viewer every second.
//!
//! Times are milliseconds since 1970, rates are per second, latencies are milliseconds.

use super::events::Event;
use serde::Serialize;
use std::collections::VecDeque;
use utoipa::ToSchema;

/// All of it, for a viewer who has nothing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot<'a> {
    pub(super) cluster: Cluster,
    pub(super) events: &'a VecDeque<Event>,
    /// Absent before the first second is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tick: Option<&'a Tick>,
    /// The last minutes, oldest first.
    pub(super) history: &'a VecDeque<Point>,
}

/// After a change of the cluster: all of its summary, and what happened.
#[derive(Serialize)]
pub(super) struct Change<'a> {
    pub(super) cluster: Cluster,
    pub(super) events: &'a [Event],
}

/// The cluster without its partitions, whose number has no bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cluster {
    pub(super) cluster_id: String,
    /// +1 at every change: what was asked for page by page is stale.
    pub(super) version: u64,
    pub(super) controller: Option<u64>,
    pub(super) nodes: Vec<Node>,
    pub(super) topics: usize,
    pub(super) partitions: usize,
    pub(super) under_replicated: usize,
    pub(super) leaderless: usize,
    /// Some node answers this gateway.
    pub(super) reachable: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) grpc: String,
    pub(super) http: String,
    pub(super) kafka: String,
    pub(super) rack: String,
    /// The cluster's verdict: `serving`, `fenced` (down, or not caught up) or `draining`.
    pub(super) state: &'static str,
    /// Whether it answers this gateway; why not.
    pub(super) answers: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) silent_since: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    pub(super) leads: usize,
    pub(super) replicas: usize,
}

/// One second.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tick {
    #[serde(flatten)]
    pub(super) point: Point,
    /// Partitions with the longest queues, the longest first.
    pub(super) deepest: Vec<Queue>,
    /// Groups with the largest lag, the largest first.
    pub(super) groups: Vec<GroupSummary>,
    pub(super) group_count: usize,
    /// More groups than are looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) groups_left_out: bool,
}

/// What the plots are made of. Absent is unknown, or of nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Point {
    pub(super) t: i64,
    /// Records written to the cluster a second.
    #[serde(rename = "in")]
    pub(super) written: f64,
    /// Records that groups (and this gateway's view of the ingested events) got done with a second.
    #[serde(rename = "out")]
    pub(super) delivered: f64,
    /// Of this gateway: requests, errors (5xx) and refusals (429), records in and out, each a second.
    pub(super) requests: f64,
    pub(super) errors: f64,
    pub(super) refused: f64,
    pub(super) http_in: f64,
    pub(super) http_out: f64,
    /// 50th, 95th and 99th percentile of the writes of this gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) produce: Option<[f64; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ingest: Option<[f64; 3]>,
    /// Over all partitions: high watermark less the slowest reader's offset.
    pub(super) depth: i64,
    /// Over all groups and partitions.
    pub(super) lag: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Queue {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) depth: i64,
    /// Who is the farthest behind.
    pub(super) slowest: String,
}

/// A reader of the cluster and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GroupSummary {
    pub(crate) group: String,
    /// As in `GET /v1/groups`, or `View`: the store of this gateway, which keeps its offsets itself.
    pub(crate) state: String,
    /// Records that are acknowledged and not committed, in all its partitions.
    pub(crate) lag: i64,
    /// Partitions of which it has committed an offset.
    pub(crate) partitions: usize,
    /// Records a second, of the last one.
    pub(crate) rate: f64,
}

/// A topic in a list.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopicSummary {
    pub(crate) name: String,
    pub(crate) partitions: usize,
    pub(crate) replication_factor: usize,
    pub(crate) under_replicated: usize,
    pub(crate) leaderless: usize,
    /// Sum of the high watermarks.
    pub(crate) end: i64,
    /// Records a second, of the last one.
    pub(crate) rate: f64,
    /// Longest queues of its partitions, added up; absent where nobody reads it.
    pub(crate) depth: Option<i64>,
}

/// A partition in a list.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartitionRow {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) leader: Option<u64>,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<u64>,
    pub(crate) isr: Vec<u64>,
    pub(crate) high_watermark: Option<i64>,
    /// High watermark less the slowest reader's offset; absent where nobody reads it.
    pub(crate) depth: Option<i64>,
    pub(crate) slowest: Option<String>,
}
