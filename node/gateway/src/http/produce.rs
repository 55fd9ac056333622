//! `POST /produce` and `POST /v1/topics/{topic}/records`: events in, and where they lie once they are on disk on
//! every in-sync replica.
//!
//! ```text
//! body ─▶ events (JSON, NDJSON, CloudEvents) ─▶ topics exist? ─▶ producer (with all other requests) ─▶ 200, or a problem
//! ```
//!
//! A request is refused as a whole, before anything is written, for what is wrong with any of its events. What fails
//! later fails for each record by itself; the answer is then a problem whose `results` tell them apart.

use super::cloudevents::{self, essence};
use super::event::{self, Event, Posted};
use super::extract::{Admitted, Params, Segments};
use super::idempotency::{Begin, Key, MAX_KEY, Outcome, first_answer};
use super::problem::Problem;
use crate::app::{App, AppState, check_topic_name};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use strandline_client::{Delivery, Error, ErrorCode, Record};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// Where events go that name no topic.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProduceParams {
    /// Topic of events that name none.
    topic: Option<String>,
}

/// Where a record lies.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Written {
    #[schema(value_type = String)]
    topic: Arc<str>,
    partition: i32,
    /// Absent only where a retry found the record written before, too long ago to say where.
    offset: Option<i64>,
    /// The topic has a `dedup.key`, and a record with the same key: nothing was written, and `offset` is that record's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

impl From<Delivery> for Written {
    fn from(delivery: Delivery) -> Written {
        let Delivery { topic, partition, offset, repeated: duplicate, .. } = delivery;
        Written { topic, partition, offset, duplicate }
    }
}

/// Where the records of a batch lie, in its order.
#[derive(Debug, Serialize)]
pub(crate) struct BatchWritten {
    results: Vec<Written>,
}

/// Write events to the topic that they name, or the default one
///
/// One event, an array, NDJSON, or CloudEvents (structured, batch, or binary with `ce-` headers).
#[utoipa::path(
    post,
    path = "/produce",
    tag = "events",
    params(ProduceParams, ("Idempotency-Key" = Option<String>, Header, description = "A retry with the same key and body gets the first answer", min_length = 1, max_length = 255)),
    request_body(content((Event = "application/json"), (String = "application/x-ndjson"), (serde_json::Value = "application/cloudevents+json"), (Vec<serde_json::Value> = "application/cloudevents-batch+json"))),
    responses(
        (status = 200, description = "Written, on disk on every in-sync replica. A batch is answered with `results`, in its order", body = Written),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn produce(
    State(app): State<AppState>,
    Params(params): Params<ProduceParams>,
    admitted: Admitted,
) -> Response {
    let topic = match params.topic {
        Some(topic) => topic.into(),
        None => app.default_topic().clone(),
    };
    answer(app, topic, false, admitted).await
}

/// Write events to a topic
///
/// As `POST /produce`; events may repeat the topic, but name no other.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/records",
    tag = "events",
    params(("topic" = String, Path, description = "Name of the topic"), ("Idempotency-Key" = Option<String>, Header, description = "A retry with the same key and body gets the first answer", min_length = 1, max_length = 255)),
    request_body(content((Event = "application/json"), (String = "application/x-ndjson"), (serde_json::Value = "application/cloudevents+json"), (Vec<serde_json::Value> = "application/cloudevents-batch+json"))),
    responses(
        (status = 200, description = "Written, on disk on every in-sync replica. A batch is answered with `results`, in its order", body = Written),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn produce_to(
    State(app): State<AppState>,
    Segments(topic): Segments<String>,
    admitted: Admitted,
) -> Response {
    answer(app, topic.into(), true, admitted).await
}

async fn answer(app: AppState, topic: Arc<str>, fixed: bool, admitted: Admitted) -> Response {
    let arrived = Instant::now();
    let meters = app.clone();
    let outcome = match idempotency_key(&admitted.headers) {
        Err(problem) => Err(problem),
        Ok(None) => carry_out(&app, &topic, fixed, &admitted).await,
        Ok(Some(key)) => once(app, Key { scope: topic.clone(), key }, topic, fixed, admitted).await,
    };
    if outcome.is_ok() {
        meters.meters.produce.record(arrived.elapsed());
    }
    respond(outcome)
}

pub(crate) fn respond(outcome: Outcome) -> Response {
    match outcome {
        Ok(json) => {
            let mut response = Response::new(Body::from(json));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(problem) => problem.into_response(),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY => Ok(Some(key.into())),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid-idempotency-key",
            format!("Idempotency-Key is 1 to {MAX_KEY} printable ASCII characters"),
        )),
    }
}

/// Carries the request out once for its key. It goes on although its client leaves: a retry is owed its answer.
async fn once(app: AppState, key: Key, topic: Arc<str>, fixed: bool, admitted: Admitted) -> Outcome {
    let mut digest = Sha256::new();
    for name in ["content-type", "ce-id", "ce-source", "ce-type", "ce-specversion"] {
        let value = admitted.headers.get(name).map_or(&b""[..], |value| value.as_bytes());
        digest.update((value.len() as u64).to_le_bytes());
        digest.update(value);
    }
    digest.update([u8::from(fixed)]);
    digest.update(&admitted.body);
    let ticket = match app.answers.begin(key, digest.finalize().into()) {
        Begin::Again(outcome) => return first_answer(outcome).await,
        Begin::Conflict => {
            let detail = "this Idempotency-Key was used for another request";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail)
                .hint("give each request a key of its own, and a retry the same body"));
        }
        Begin::First(ticket) => ticket,
    };
    let running = tokio::spawn(async move {
        let outcome = carry_out(&app, &topic, fixed, &admitted).await;
        app.answers.finish(ticket, outcome.clone());
        outcome
    });
    running.await.unwrap_or_else(|error| {
        let detail = format!("the request broke off: {error}");
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "unexpected", detail).may_have_happened(true))
    })
}

async fn carry_out(app: &App, topic: &Arc<str>, fixed: bool, admitted: &Admitted) -> Outcome {
    let (records, single) = records(topic, fixed, &admitted.headers, &admitted.body)?;
    // Almost always all of one topic.
    let mut looked = None;
    for record in &records {
        if looked != Some(record.topic()) {
            app.topic(record.topic()).await?;
            looked = Some(record.topic());
        }
    }
    if single {
        let record = records.into_iter().next().ok_or_else(|| Problem::invalid("there is no event"))?;
        let written = app.producer.send_and_wait(record).await.map_err(|error| failed(app, topic, error))?;
        app.meters.wrote(1);
        return Ok(to_json(&Written::from(written)));
    }
    write_all(app, topic, records).await
}

/// The records of a request, and whether it is answered as a single one.
fn records(
    topic: &Arc<str>,
    fixed: bool,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(Vec<Record>, bool), Problem> {
    let wrong =
        |why: String| Problem::invalid(why).hint("nothing was written; GET /docs shows what an event is");
    if let Some(mode) = cloudevents::mode(headers)
        .map_err(|why| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", why))?
    {
        let records = cloudevents::records(mode, headers, body, topic).map_err(wrong)?;
        return Ok((records, mode != cloudevents::Mode::Batch));
    }
    let lines =
        matches!(&*essence(headers), "application/x-ndjson" | "application/ndjson" | "application/jsonl");
    let one = |event: Event<'_>| match &event.topic {
        Some(named) if fixed && **named != **topic => {
            Err(format!("the event is for topic {named}, and was sent to {topic}"))
        }
        Some(named) if **named != **topic => {
            check_topic_name(named).map_err(|_| format!("{named:?} is no name of a topic"))?;
            let named: Arc<str> = Arc::from(&**named);
            event.record(&named, body)
        }
        _ => event.record(topic, body),
    };
    match event::parse(body, lines).map_err(wrong)? {
        Posted::One(event) => Ok((vec![one(event).map_err(wrong)?], true)),
        Posted::Batch(events) => {
            let numbered = events.into_iter().enumerate();
            let records =
                numbered.map(|(i, event)| one(event).map_err(|why| wrong(format!("event {i}: {why}"))));
            Ok((records.collect::<Result<_, _>>()?, false))
        }
    }
}

/// Sends all of them, then waits for all. 200 only if every one is written.
async fn write_all(app: &App, topic: &Arc<str>, records: Vec<Record>) -> Outcome {
    let mut sent = Vec::with_capacity(records.len());
    for record in records {
        sent.push(app.producer.send(record).await);
    }
    let mut results = Vec::with_capacity(sent.len());
    for sent in sent {
        results.push(match sent {
            Ok(handle) => handle.await,
            Err(error) => Err(error),
        });
    }
    app.meters.wrote(results.iter().filter(|result| result.is_ok()).count());
    if results.iter().all(Result::is_ok) {
        let results = results.into_iter().flatten().map(Written::from).collect();
        return Ok(to_json(&BatchWritten { results }));
    }
    let written = results.iter().filter(|result| result.is_ok()).count();
    let doubt = results.iter().any(|result| result.as_ref().map_or_else(Error::may_have_happened, |_| true));
    let mut first = None;
    let all: Vec<Value> = results
        .into_iter()
        .map(|result| match result {
            Ok(delivery) => serde_json::to_value(Written::from(delivery)).unwrap_or_default(),
            Err(error) => {
                let problem = failed(app, topic, error);
                let value = serde_json::json!({ "problem": problem.to_value() });
                first.get_or_insert(problem);
                value
            }
        })
        .collect();
    let first = first.unwrap_or_else(|| Problem::invalid("nothing failed"));
    let detail = format!("{written} of {} records were written; results says which", all.len());
    let mut problem = Problem::new(first.status(), "partly-written", detail)
        .hint("send those again whose problem says that it did not happen")
        .with("results", all);
    if problem.status().is_server_error() || problem.status() == StatusCode::TOO_MANY_REQUESTS {
        problem = problem.may_have_happened(doubt);
    }
    Err(problem)
}

fn failed(app: &App, topic: &str, error: Error) -> Problem {
    if error.code() == Some(ErrorCode::UnknownTopicOrPartition) {
        app.topic_is_gone(topic);
    }
    Problem::from(error)
}

fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
