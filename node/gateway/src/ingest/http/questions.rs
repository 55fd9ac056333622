//! `GET /api/events` and `GET /api/aggregations`.

use super::super::normalise::Amount;
use super::super::store::{AggregateQuery, Bucket, EventFilter, Status};
use super::events::EventDocument;
use super::parameters::Parameters;
use super::{of_store, pipeline, store};
use crate::app::AppState;
use crate::http::extract::Reading;
use crate::http::problem::Problem;
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

/// Most events of one answer.
const MAX_LIMIT: u32 = 1_000;
/// Most events to leave out: each is read all the same. Further back, narrow the dates.
const MAX_SKIP: u32 = 100_000;

/// Events, the newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = IngestedEvents)]
pub(super) struct EventsAnswer {
    events: Vec<EventDocument>,
    count: usize,
    limit: u32,
    skip: u32,
}

/// List ingested events, newest first
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "ingest",
    params(
        ("clientId" = Option<String>, Query, description = "Only of this client"),
        ("status" = Option<String>, Query, description = "`processed`, `rejected` or `failed`"),
        ("startDate" = Option<String>, Query, description = "From this day or moment on"),
        ("endDate" = Option<String>, Query, description = "Up to this day or moment, which belongs to it"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless said otherwise", maximum = 1000),
        ("skip" = Option<u32>, Query, description = "Leave so many out", maximum = 100_000),
    ),
    responses(
        (status = 200, description = "Events", body = EventsAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn events(
    State(app): State<AppState>,
    uri: Uri,
    _: Reading,
) -> Result<Json<EventsAnswer>, Problem> {
    let known = ["clientId", "status", "startDate", "endDate", "limit", "skip"];
    let parameters = Parameters::parse(&uri, &known)?;
    let status = match parameters.text("status")? {
        None => None,
        Some(name) => Some(Status::parse(&name).ok_or_else(|| {
            Problem::invalid(format!("there is no status {name:?}"))
                .hint(format!("it is one of {}", Status::ALL.map(Status::name).join(", ")))
        })?),
    };
    let (from_ms, to_ms) = parameters.range()?;
    let filter = EventFilter {
        client: parameters.text("clientId")?,
        status,
        from_ms,
        to_ms,
        limit: parameters.number("limit", 100, MAX_LIMIT)?,
        skip: parameters.number("skip", 0, MAX_SKIP)?,
    };
    let (limit, skip) = (filter.limit, filter.skip);
    let found = match store(pipeline(&app)?)? {
        Some(store) => store.list(filter).await.map_err(of_store)?,
        None => Vec::new(),
    };
    let events: Vec<EventDocument> = found.into_iter().map(EventDocument::from).collect();
    Ok(Json(EventsAnswer { count: events.len(), events, limit, skip }))
}

/// Processed events of one group.
#[derive(Serialize, ToSchema)]
#[schema(as = Aggregation)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
    count: u64,
    #[schema(value_type = f64)]
    sum: Amount,
    #[schema(value_type = Option<f64>)]
    mean: Option<Amount>,
    #[schema(value_type = Option<f64>)]
    min: Option<Amount>,
    #[schema(value_type = Option<f64>)]
    max: Option<Amount>,
}

/// Processed events, added up.
#[derive(Serialize, ToSchema)]
#[schema(as = Aggregations)]
#[serde(rename_all = "camelCase")]
pub(super) struct SumsAnswer {
    #[schema(value_type = String)]
    group_by: &'static str,
    aggregations: Vec<Group>,
}

/// Add processed events up
#[utoipa::path(
    get,
    path = "/api/aggregations",
    tag = "ingest",
    params(
        ("clientId" = Option<String>, Query, description = "Only of this client"),
        ("metric" = Option<String>, Query, description = "Only of this metric"),
        ("startDate" = Option<String>, Query, description = "From this day or moment on"),
        ("endDate" = Option<String>, Query, description = "Up to this day or moment, which belongs to it"),
        ("groupBy" = Option<String>, Query, description = "`none`, `clientId`, `metric` or `both`"),
    ),
    responses(
        (status = 200, description = "Count, sum, mean, least and largest of each group", body = SumsAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn aggregations(
    State(app): State<AppState>,
    uri: Uri,
    _: Reading,
) -> Result<Json<SumsAnswer>, Problem> {
    let known = ["clientId", "metric", "startDate", "endDate", "groupBy"];
    let parameters = Parameters::parse(&uri, &known)?;
    let (group_by, by_client, by_metric) = match parameters.text("groupBy")?.as_deref() {
        None | Some("none") => ("none", false, false),
        Some("clientId") => ("clientId", true, false),
        Some("metric") => ("metric", false, true),
        Some("both") => ("both", true, true),
        Some(other) => {
            return Err(Problem::invalid(format!("events cannot be grouped by {other:?}"))
                .hint("groupBy is none, clientId, metric or both"));
        }
    };
    let (from_ms, to_ms) = parameters.range()?;
    let query = AggregateQuery {
        client: parameters.text("clientId")?,
        metric: parameters.text("metric")?,
        from_ms,
        to_ms,
        by_client,
        by_metric,
    };
    let mut groups = match store(pipeline(&app)?)? {
        Some(store) => store.aggregate(query).await.map_err(of_store)?,
        None => Default::default(),
    };
    if !by_client && !by_metric {
        // One group, of nothing if there is nothing.
        groups.entry((None, None)).or_insert_with(Bucket::default);
    }
    let aggregations = groups
        .into_iter()
        .map(|((client_id, metric), bucket)| Group {
            client_id,
            metric,
            count: bucket.count,
            mean: bucket.sum.mean(bucket.count),
            sum: bucket.sum.normalized(),
            min: bucket.min,
            max: bucket.max,
        })
        .collect();
    Ok(Json(SumsAnswer { group_by, aggregations }))
}
