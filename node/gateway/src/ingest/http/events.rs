//! `POST /api/events` and `POST /register_event`.

use super::super::normalise::format_time;
use super::super::store::{Status, StoredEvent};
use super::super::submit::{Outcome, Submitted};
use super::parameters::Parameters;
use super::pipeline;
use crate::app::AppState;
use crate::http::extract::Admitted;
use crate::http::problem::Problem;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use strandline_client::Error;
use utoipa::ToSchema;

/// One event, as answers have it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IngestedEvent)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventDocument {
    id: String,
    /// `processed`, `rejected` or `failed`.
    #[schema(value_type = String)]
    status: &'static str,
    client_id: Option<String>,
    metric: Option<String>,
    #[schema(value_type = Option<f64>)]
    amount: Option<Box<RawValue>>,
    timestamp: String,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    /// As it was sent, unless it was processed: as JSON, or, if it is none, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    original: Option<Box<RawValue>>,
    topic: String,
    partition: i32,
    offset: i64,
}

impl From<StoredEvent> for EventDocument {
    fn from(event: StoredEvent) -> Self {
        let original = event.original.map(|text| {
            RawValue::from_string(text.clone())
                .or_else(|_| serde_json::value::to_raw_value(&text))
                .expect("text is JSON when it is quoted")
        });
        EventDocument {
            id: event.id.to_string(),
            status: event.status.name(),
            client_id: event.client,
            metric: event.metric,
            amount: event.amount.map(|amount| amount.to_json()),
            timestamp: format_time(event.time_ms),
            received_at: format_time(event.received_ms),
            reason: event.reason,
            attempts: event.attempts,
            original,
            topic: event.topic,
            partition: event.partition,
            offset: event.offset,
        }
    }
}

/// What became of one event of a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IngestResult)]
#[serde(rename_all = "camelCase")]
struct ResultDocument {
    index: usize,
    id: String,
    /// `processed`, `rejected`, `failed`; `accepted` if that is not known yet, `error` if it was not written.
    #[schema(value_type = String)]
    status: &'static str,
    /// `None` where that is not known yet.
    is_duplicate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The event as it counts: of a resend, the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<EventDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    may_have_happened: Option<bool>,
}

/// What became of the events of a request, in their order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IngestAnswer)]
pub(super) struct Answer {
    success: bool,
    processed: usize,
    failed: usize,
    #[serde(skip_serializing_if = "is_zero")]
    pending: usize,
    results: Vec<ResultDocument>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn document(index: usize, submitted: Submitted) -> ResultDocument {
    let Submitted { id, rejection, outcome } = submitted;
    let of = |status| ResultDocument {
        index,
        id: id.to_string(),
        status,
        is_duplicate: None,
        reason: rejection.as_ref().map(ToString::to_string),
        event: None,
        may_have_happened: None,
    };
    match outcome {
        Outcome::Settled { event, duplicate } => {
            let settled = of(event.status.name());
            let (is_duplicate, reason) = (Some(duplicate), event.reason.clone());
            ResultDocument { is_duplicate, reason, event: Some((*event).into()), ..settled }
        }
        // That it was rejected is certain at once, and so is a repetition that the broker knows of.
        Outcome::Accepted(delivery) => {
            let status = if rejection.is_some() { Status::Rejected.name() } else { "accepted" };
            // Only the store knows of earlier ones whose key the broker has forgotten.
            ResultDocument { is_duplicate: delivery.repeated.then_some(true), ..of(status) }
        }
        Outcome::Unwritten(error) => ResultDocument {
            reason: Some(error.to_string()),
            may_have_happened: Some(error.may_have_happened()),
            ..of("error")
        },
    }
}

/// Ingest one event or an array of them, of any shape
///
/// Answers what became of each: 200 when that is known of all of them, 202 when some are durable and still to be processed.
#[utoipa::path(
    post,
    path = "/api/events",
    tag = "ingest",
    params(("simulateFailure" = Option<bool>, Query, description = "The store fails for these events; in development mode only")),
    request_body(content = serde_json::Value, description = "One JSON object, or an array of them"),
    responses(
        (status = 200, description = "What became of each event", body = Answer),
        (status = 202, description = "All are durable, and some still to be processed", body = Answer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn post(
    State(app): State<AppState>,
    uri: Uri,
    admitted: Admitted,
) -> Result<(StatusCode, Json<Answer>), Problem> {
    let ingest = pipeline(&app)?;
    let simulate_failure = simulate_failure(&app, &uri)?;
    let events = parse(&admitted.body, ingest.config.max_events)?;
    let submitted = ingest.submit(&events, simulate_failure, true).await?;
    let error = submitted.iter().find_map(|one| match &one.outcome {
        Outcome::Unwritten(error) => Some(error.clone()),
        _ => None,
    });
    let any_written = submitted.iter().any(|one| !matches!(one.outcome, Outcome::Unwritten(_)));
    let results: Vec<_> =
        submitted.into_iter().enumerate().map(|(index, one)| document(index, one)).collect();
    if let Some(error) = error {
        return Err(partly(error, any_written, &results));
    }
    let count = |wanted: &[&str]| results.iter().filter(|result| wanted.contains(&result.status)).count();
    let (processed, pending) = (count(&["processed"]), count(&["accepted"]));
    let failed = results.len() - processed - pending;
    let status = if pending == 0 { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Answer { success: failed == 0, processed, failed, pending, results })))
}

/// Some events, or all of them, could not be written.
fn partly(error: Error, any_written: bool, results: &[ResultDocument]) -> Problem {
    let doubtful = any_written || results.iter().any(|result| result.may_have_happened == Some(true));
    Problem::from(error)
        .may_have_happened(doubtful)
        .hint("send the same request again: events that were taken and carry a time of their own count once")
        .with("results", serde_json::to_value(results).unwrap_or_default())
}

/// An event that is durable.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registered {
    id: String,
    #[schema(value_type = String)]
    status: &'static str,
    topic: String,
    partition: i32,
    offset: Option<i64>,
}

/// Enqueue one event, without waiting until it is processed
#[utoipa::path(
    post,
    path = "/register_event",
    tag = "ingest",
    params(("simulateFailure" = Option<bool>, Query, description = "The store fails for this event; in development mode only")),
    request_body(content = serde_json::Value, description = "One JSON object"),
    responses(
        (status = 202, description = "It is durable", body = Registered),
        (status = 422, description = "It cannot be normalised, and is kept for audit", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn register(
    State(app): State<AppState>,
    uri: Uri,
    admitted: Admitted,
) -> Result<(StatusCode, Json<Registered>), Problem> {
    let ingest = pipeline(&app)?;
    let simulate_failure = simulate_failure(&app, &uri)?;
    let events = parse(&admitted.body, 1)?;
    let Some(one) = ingest.submit(&events, simulate_failure, false).await?.pop() else {
        return Err(no_events());
    };
    match one {
        Submitted { outcome: Outcome::Unwritten(error), .. } => Err(error.into()),
        Submitted { id, rejection: Some(rejection), .. } => {
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "event-rejected", rejection.to_string())
                .hint("it is kept for audit: GET /api/events?status=rejected")
                .with("id", id.to_string()))
        }
        Submitted { id, outcome: Outcome::Accepted(delivery), .. } => {
            let registered = Registered {
                id: id.to_string(),
                status: "accepted",
                topic: delivery.topic.to_string(),
                partition: delivery.partition,
                offset: delivery.offset,
            };
            Ok((StatusCode::ACCEPTED, Json(registered)))
        }
        Submitted { id, outcome: Outcome::Settled { event, .. }, .. } => {
            let registered = Registered {
                id: id.to_string(),
                status: event.status.name(),
                topic: event.topic,
                partition: event.partition,
                offset: Some(event.offset),
            };
            Ok((StatusCode::ACCEPTED, Json(registered)))
        }
    }
}

fn simulate_failure(app: &AppState, uri: &Uri) -> Result<bool, Problem> {
    let asked = Parameters::parse(uri, &["simulateFailure"])?.flag("simulateFailure")?;
    if asked && !pipeline(app)?.config.development {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "development-only",
            "simulateFailure is for development mode only",
        )
        .hint("start the gateway with --ingest-development true"));
    }
    Ok(asked)
}

fn no_events() -> Problem {
    Problem::invalid("there is no event in the body").hint("send one JSON object, or an array of them")
}

/// One event, or the elements of an array, as they are written.
fn parse(body: &Bytes, most: usize) -> Result<Vec<&RawValue>, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Problem::invalid(format!("the body is not UTF-8: {error}")))?;
    let malformed =
        |error: serde_json::Error| Problem::invalid(format!("the body is not well-formed JSON: {error}"));
    let text = text.trim();
    if text.is_empty() {
        return Err(no_events());
    }
    let events: Vec<&RawValue> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(malformed)?
    } else {
        vec![serde_json::from_str(text).map_err(malformed)?]
    };
    match events.len() {
        0 => Err(no_events()),
        count if count > most => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-many-events",
            format!("the request has {count} events, the most is {most}"),
        )
        .hint("send them in several requests")),
        _ => Ok(events),
    }
}
