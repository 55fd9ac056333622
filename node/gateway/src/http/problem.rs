//! Errors as problem documents (RFC 9457): what went wrong, what to do, and, where that is in doubt, whether it may
//! have happened.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::Duration;
use strandline_client::{Error, ErrorCode, ErrorKind};

/// An answer that is an error.
///
/// ```text
/// {"type":"/docs#unknown-topic","title":"Not Found","status":404,
///  "detail":"topic orders: there is no topic orders","hint":"create it: POST /v1/topics"}
/// ```
///
/// Answers of 429 and 5xx to writes carry `may_have_happened`: `false` is a promise that nothing was written.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Document>);

/// The members of a problem document.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct Document {
    #[serde(rename = "type")]
    kind: String,
    #[schema(value_type = String)]
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    hint: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    may_have_happened: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(flatten)]
    #[schema(ignore)]
    more: Map<String, Value>,
}

impl Problem {
    /// `kind` names the problem in `type`, as a fragment of the documentation page.
    pub fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Problem {
        let doubtful = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Problem(Box::new(Document {
            kind: format!("/docs#{kind}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            may_have_happened: doubtful.then_some(false),
            retry_after_ms: None,
            more: Map::new(),
        }))
    }

    /// 400: the request itself has to change.
    pub fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
    }

    /// What to do about it.
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Problem {
        self.0.hint = Some(hint.into());
        self
    }

    /// Whether what was asked for may have been done all the same.
    pub fn may_have_happened(mut self, may: bool) -> Problem {
        self.0.may_have_happened = Some(may);
        self
    }

    /// When to try again: `Retry-After` in whole seconds, rounded up, and `retry_after_ms`.
    pub fn retry_after(mut self, wait: Duration) -> Problem {
        self.0.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// A further member of the document.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// What was asked for may have been done.
    pub fn is_in_doubt(&self) -> bool {
        self.0.may_have_happened == Some(true)
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The document as a value, to be part of another one.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl utoipa::PartialSchema for Problem {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        Document::schema()
    }
}

impl utoipa::ToSchema for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(ms) = self.0.retry_after_ms {
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        }
        response
    }
}

/// When what the cluster lacks just now may be there again.
const SOON: Duration = Duration::from_secs(1);

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let (status, kind, hint) = meaning(&error);
        let mut problem = Problem::new(status, kind, error.message());
        if let Some(hint) = hint {
            problem = problem.hint(hint);
        }
        if let ErrorKind::OffsetOutOfRange { log_start_offset, high_watermark, .. } = error.kind() {
            problem =
                problem.with("logStartOffset", *log_start_offset).with("highWatermark", *high_watermark);
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            problem = problem.retry_after(SOON);
        }
        if error.may_have_happened() {
            problem = problem.may_have_happened(true);
        }
        problem
    }
}

const UNKNOWN: &str = "it may or may not have happened: look before you do it again";
const LATER: &str = "try again in a moment";

/// Status, name of the problem, and what to do, for each cause.
fn meaning(error: &Error) -> (StatusCode, &'static str, Option<&'static str>) {
    use StatusCode as S;
    match error.kind() {
        ErrorKind::Broker(code) => of_code(*code),
        ErrorKind::Indeterminate => (S::GATEWAY_TIMEOUT, "outcome-unknown", Some(UNKNOWN)),
        ErrorKind::Connection => (S::SERVICE_UNAVAILABLE, "cluster-unreachable", Some(LATER)),
        ErrorKind::TimedOut => (S::SERVICE_UNAVAILABLE, "timed-out", Some(LATER)),
        ErrorKind::RecordTooLarge => (S::PAYLOAD_TOO_LARGE, "record-too-large", None),
        ErrorKind::Invalid => (S::BAD_REQUEST, "invalid-request", None),
        ErrorKind::OffsetOutOfRange { .. } => (
            S::RANGE_NOT_SATISFIABLE,
            "offset-out-of-range",
            Some("read on from logStartOffset, or wait at highWatermark"),
        ),
        ErrorKind::NoOffset(_) => (S::CONFLICT, "no-offset", Some("commit an offset for the group first")),
        ErrorKind::Rebalanced => {
            (S::CONFLICT, "rebalanced", Some("poll again: the partitions belong to other members now"))
        }
        ErrorKind::Truncated { .. } => (S::CONFLICT, "log-truncated", Some("read on from the end named")),
        ErrorKind::Corrupt(_) | ErrorKind::Protocol => (S::BAD_GATEWAY, "bad-answer", None),
        ErrorKind::Closed => (S::SERVICE_UNAVAILABLE, "stopping", Some("use another gateway")),
        _ => (S::INTERNAL_SERVER_ERROR, "unexpected", Some(UNKNOWN)),
    }
}

fn of_code(code: ErrorCode) -> (StatusCode, &'static str, Option<&'static str>) {
    use ErrorCode as E;
    use StatusCode as S;
    match code {
        E::UnknownTopicOrPartition => {
            (S::NOT_FOUND, "unknown-topic", Some("create the topic with POST /v1/topics, or check its name"))
        }
        E::GroupNotFound => (S::NOT_FOUND, "unknown-group", None),
        E::NodeNotFound => (S::NOT_FOUND, "unknown-node", None),
        E::OffsetOutOfRange => (S::RANGE_NOT_SATISFIABLE, "offset-out-of-range", None),
        E::RecordTooLarge => (
            S::PAYLOAD_TOO_LARGE,
            "record-too-large",
            Some("send smaller records, or raise the topic's max.message.bytes"),
        ),
        E::TopicExists => (S::CONFLICT, "topic-exists", None),
        E::GroupNotEmpty => (S::CONFLICT, "group-not-empty", Some("let its members leave first")),
        E::RebalanceInProgress => (S::CONFLICT, "rebalance-in-progress", Some("poll, then try again")),
        E::IllegalGeneration | E::UnknownMemberId | E::FencedInstanceId | E::MemberIdRequired => {
            (S::CONFLICT, "not-a-member", Some("join the group again"))
        }
        E::InconsistentGroupProtocol => (S::CONFLICT, "no-common-assignor", None),
        E::Rejected | E::UnstableOffsets => (S::CONFLICT, "rejected", None),
        E::InvalidTopic
        | E::InvalidPartitions
        | E::InvalidReplicationFactor
        | E::InvalidConfig
        | E::InvalidRequest
        | E::InvalidRecord
        | E::CorruptRecord
        | E::InvalidSessionTimeout => (S::BAD_REQUEST, "invalid-request", None),
        E::Throttled => (S::TOO_MANY_REQUESTS, "throttled", Some(LATER)),
        E::RequestTimedOut | E::OutcomeUnknown => (S::GATEWAY_TIMEOUT, "outcome-unknown", Some(UNKNOWN)),
        E::StorageFull => (S::INSUFFICIENT_STORAGE, "storage-full", Some("free space or lower retention")),
        E::NotEnoughReplicas => (S::SERVICE_UNAVAILABLE, "not-enough-replicas", Some("bring replicas back")),
        E::NotLeader
        | E::FencedLeaderEpoch
        | E::UnknownLeaderEpoch
        | E::LeaderNotAvailable
        | E::OffsetNotAvailable
        | E::StorageError
        | E::ShuttingDown
        | E::NotCoordinator
        | E::CoordinatorLoading
        | E::ClusterNotReady => (S::SERVICE_UNAVAILABLE, "cluster-not-ready", Some(LATER)),
        E::None
        | E::Unknown
        | E::OutOfOrderSequence
        | E::DuplicateSequence
        | E::ProducerFenced
        | E::InvalidProducerEpoch
        | E::UnknownProducerId => (S::INTERNAL_SERVER_ERROR, "unexpected", Some(UNKNOWN)),
    }
}

/// The problems of the data API, for the documentation page.
pub(crate) const KINDS: &[(&str, &str)] = &[
    ("invalid-request", "400: the request itself has to change; nothing was done"),
    ("invalid-topic", "400: a topic's name has 1 to 249 letters, digits, '.', '_' and '-'"),
    ("invalid-idempotency-key", "400: a key has 1 to 255 printable ASCII characters"),
    ("unknown-topic", "404: create it with POST /v1/topics"),
    ("unknown-partition", "404: GET /v1/topics/{topic} lists the partitions"),
    ("unknown-group", "404: no such group"),
    ("unknown-consumer", "404: it left, was idle for too long, or belongs to another gateway"),
    ("body-too-slow", "408: the body did not arrive in time; nothing was done"),
    ("development-only", "403: start the gateway with --ingest-development true"),
    ("topic-exists", "409: the topic is there already"),
    ("group-not-empty", "409: its members have to leave first"),
    ("rebalanced", "409: the partitions belong to other members now; poll again"),
    ("rebalance-in-progress", "409: poll, then commit again"),
    ("consumer-busy", "409: a consumer serves one request at a time"),
    ("demo-elsewhere", "409: a cluster has one demonstration at a time; elsewhere says who runs it"),
    ("body-too-large", "413: split the batch"),
    ("record-too-large", "413: the topic's max.message.bytes is less"),
    ("unsupported-media-type", "415: CloudEvents are taken as JSON"),
    ("offset-out-of-range", "416: read on between logStartOffset and highWatermark"),
    ("idempotency-key-reused", "422: the key was used for another request"),
    ("rate-limited", "429: this client's token bucket is empty; nothing was done"),
    ("too-many-in-flight", "429: try again after Retry-After; nothing was done"),
    ("too-many-bytes-in-flight", "429: try again after Retry-After; nothing was done"),
    ("too-many-consumers", "429: this gateway keeps as many consumers as it may"),
    ("too-many-viewers", "429: close another dashboard of this gateway, or look at another gateway"),
    ("partly-written", "some records of a batch failed; results says which"),
    ("outcome-unknown", "504: it may or may not have happened; look before you do it again"),
    ("cluster-unreachable", "503: no node answers"),
    ("cluster-not-ready", "503: an election is under way; try again in a moment"),
    ("not-enough-replicas", "503: fewer in-sync replicas than min.insync.replicas; nothing was written"),
    ("timed-out", "503: it took too long; nothing was written"),
    ("stopping", "503: this gateway stops; use another one"),
    ("storage-full", "507: the disks are full"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_429_and_5xx_says_whether_it_may_have_happened() {
        for status in [429, 500, 502, 503, 504, 507] {
            let problem = Problem::new(StatusCode::from_u16(status).unwrap(), "x", "y");
            assert_eq!(problem.to_value()["may_have_happened"], false, "{status}");
        }
        assert!(Problem::invalid("y").to_value().get("may_have_happened").is_none());
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_none() {
        for (ms, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let wait = Duration::from_millis(ms);
            let response =
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "x", "y").retry_after(wait).into_response();
            assert_eq!(response.headers()[RETRY_AFTER], seconds);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
    }
}
