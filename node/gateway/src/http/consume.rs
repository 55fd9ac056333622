//! `GET /consume` and `GET /v1/topics/{topic}/records`: records of one partition from an offset on. Keeps nothing
//! between requests: the answer says where to read on.

use super::admission::Permit;
use super::event::Shown;
use super::extract::{Params, Reading, Segments};
use super::problem::Problem;
use crate::app::{App, AppState};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use strandline_client::{ConsumerRecord, OffsetSpec, Page, ReadOptions, TopicPartition};
use utoipa::{IntoParams, ToSchema};

/// Records in an answer unless said otherwise, and at most.
const DEFAULT_MAX: usize = 100;
const MOST: usize = 10_000;
/// Bytes of batches that an answer is made from; a single larger one exceeds it.
const PAGE_BYTES: u32 = 512 << 10;
/// The longest that an answer waits for records.
pub(crate) const MAX_WAIT_MS: u64 = 30_000;

/// Where to read, how much, and how long to wait for it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsumeParams {
    /// The default topic when absent; not where the path names one.
    topic: Option<String>,
    /// Number of the partition, from 0.
    #[serde(default)]
    #[param(minimum = 0)]
    partition: i32,
    /// First record to return; without it the first there is.
    #[param(minimum = 0)]
    offset: Option<i64>,
    /// Instead of an offset: the first record at or after this, in milliseconds since 1970.
    #[param(minimum = 0)]
    timestamp: Option<i64>,
    /// Most events in the answer; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 10000)]
    max: Option<usize>,
    /// How long to wait, in milliseconds, when there is no event yet; 0 unless said otherwise.
    #[param(maximum = 30000)]
    wait_ms: Option<u64>,
}

/// An answer of `GET /consume`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Events<'a> {
    #[schema(value_type = Vec<Shown>)]
    events: Records<'a>,
    next_offset: i64,
}

/// An answer of `GET /v1/topics/{topic}/records`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TopicEvents<'a> {
    topic: &'a str,
    partition: i32,
    #[schema(value_type = Vec<Shown>)]
    events: Records<'a>,
    next_offset: i64,
    high_watermark: i64,
    log_start_offset: i64,
}

/// Records as events.
pub(crate) struct Records<'a> {
    pub(crate) records: &'a [ConsumerRecord],
    pub(crate) place: bool,
}

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.records.len()))?;
        for record in self.records {
            sequence.serialize_element(&Shown { record, place: self.place })?;
        }
        sequence.end()
    }
}

/// Read events of one partition, from an offset on
///
/// Without an offset from the first there is. `nextOffset` is where to read on.
#[utoipa::path(
    get,
    path = "/consume",
    tag = "events",
    params(ConsumeParams),
    responses(
        (status = 200, description = "Events, and where to read on", body = Events),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn consume(
    State(app): State<AppState>,
    Params(mut params): Params<ConsumeParams>,
    Reading(permit): Reading,
) -> Result<Response, Problem> {
    let topic = params.topic.take().map_or_else(|| app.default_topic().clone(), Arc::from);
    let page = read(&app, topic, &params).await?;
    let events = Records { records: &page.records, place: false };
    Ok(held(&Events { events, next_offset: page.next_offset }, permit))
}

/// Read events of one partition of a topic
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/records",
    tag = "events",
    params(("topic" = String, Path, description = "Name of the topic"), ConsumeParams),
    responses(
        (status = 200, description = "Events, where to read on, and the ends of the log", body = TopicEvents),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn consume_from(
    State(app): State<AppState>,
    Segments(topic): Segments<String>,
    Params(params): Params<ConsumeParams>,
    Reading(permit): Reading,
) -> Result<Response, Problem> {
    if params.topic.is_some() {
        return Err(Problem::invalid("the path names the topic already"));
    }
    let page = read(&app, topic.as_str().into(), &params).await?;
    let answer = TopicEvents {
        topic: &topic,
        partition: params.partition,
        events: Records { records: &page.records, place: false },
        next_offset: page.next_offset,
        high_watermark: page.high_watermark,
        log_start_offset: page.log_start_offset,
    };
    Ok(held(&answer, permit))
}

async fn read(app: &App, topic: Arc<str>, params: &ConsumeParams) -> Result<Page, Problem> {
    let from = match (params.offset, params.timestamp) {
        (None, None) => OffsetSpec::Earliest,
        (Some(offset), None) if offset >= 0 => OffsetSpec::Offset(offset),
        (None, Some(timestamp)) if timestamp >= 0 => OffsetSpec::Timestamp(timestamp),
        (Some(_), Some(_)) => return Err(Problem::invalid("give an offset or a timestamp, not both")),
        _ => return Err(Problem::invalid("offset and timestamp are 0 or more")),
    };
    let options = ReadOptions {
        max_records: at_most("max", params.max.unwrap_or(DEFAULT_MAX), MOST)?,
        max_bytes: PAGE_BYTES,
        max_wait: wait(params.wait_ms)?,
    };
    let described = app.topic(&topic).await?;
    if usize::try_from(params.partition).ok().is_none_or(|number| number >= described.partitions.len()) {
        let detail =
            format!("topic {topic} has partitions 0 to {}", described.partitions.len().saturating_sub(1));
        return Err(Problem::new(axum::http::StatusCode::NOT_FOUND, "unknown-partition", detail));
    }
    let partition = TopicPartition { topic, partition: params.partition };
    let page = app.client.read(&partition, from, options).await?;
    app.meters.read(page.records.len());
    Ok(page)
}

/// `wait_ms` as a time.
pub(crate) fn wait(wait_ms: Option<u64>) -> Result<Duration, Problem> {
    let wait_ms = wait_ms.unwrap_or(0);
    if wait_ms > MAX_WAIT_MS {
        return Err(Problem::invalid(format!("wait_ms is at most {MAX_WAIT_MS}")));
    }
    Ok(Duration::from_millis(wait_ms))
}

/// A number from 1 to `most`.
pub(crate) fn at_most(name: &str, number: usize, most: usize) -> Result<usize, Problem> {
    match (1..=most).contains(&number) {
        true => Ok(number),
        false => Err(Problem::invalid(format!("{name} is 1 to {most}"))),
    }
}

/// JSON whose permit is given back when the client has taken it, or is gone.
pub(crate) fn held(answer: &impl Serialize, permit: Permit) -> Response {
    let json = serde_json::to_vec(answer).unwrap_or_default();
    let mut response = Response::new(Body::new(Held { body: Full::new(json.into()), _permit: permit }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

struct Held {
    body: Full<Bytes>,
    _permit: Permit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
