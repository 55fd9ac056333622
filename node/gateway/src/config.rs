//! What a gateway may use, and its defaults.

use crate::ingest::IngestConfig;
use std::time::Duration;

/// Limits and names of one gateway. The keys of a node's configuration that begin with `http.` are these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// What others call this gateway: the address that its clients use.
    pub name: String,
    /// Topic of `POST /produce` and `GET /consume` when none is named; created on first use.
    pub default_topic: String,
    /// Connections held at once; further ones are closed at once.
    pub max_connections: usize,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// How long a request may take: to arrive once it has begun, and then to be carried out.
    pub request_timeout: Duration,
    /// The ingest pipeline; without a store in it there is none.
    pub ingest: IngestConfig,
    /// Writes that are let in at once.
    pub max_inflight_requests: usize,
    /// Reads that are let in at once, those that wait for records among them.
    pub max_inflight_reads: usize,
    /// Bytes of request bodies held at once.
    pub max_inflight_bytes: usize,
    /// Requests a second that one client may send; 0 sets no limit.
    pub client_rate: u32,
    /// Requests that one client may send at once, if it was silent before.
    pub client_burst: u32,
    /// Header that names the client, set by a proxy in front; its address counts when absent.
    pub client_header: Option<String>,
    /// Consumers in groups that are held for HTTP clients at once.
    pub max_consumers: usize,
    /// A consumer that nobody asks for anything for this long leaves its group.
    pub consumer_idle: Duration,
    /// How long the answer to a request with an `Idempotency-Key` is given again.
    pub idempotency_window: Duration,
    /// Answers kept for that; the oldest make room.
    pub idempotency_max_keys: usize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        GatewayConfig {
            name: "a gateway".to_owned(),
            default_topic: "events".to_owned(),
            max_connections: 10_000,
            max_body_bytes: 4 << 20,
            request_timeout: Duration::from_secs(15),
            ingest: IngestConfig::default(),
            max_inflight_requests: 4096,
            max_inflight_reads: 256,
            max_inflight_bytes: 64 << 20,
            client_rate: 0,
            client_burst: 1000,
            client_header: None,
            max_consumers: 100,
            consumer_idle: Duration::from_secs(300),
            idempotency_window: Duration::from_secs(600),
            idempotency_max_keys: 100_000,
        }
    }
}

impl GatewayConfig {
    /// What is wrong with it, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.max_inflight_bytes < self.max_body_bytes {
            return Some(format!(
                "http.max.inflight.bytes ({}) is less than http.max.body.bytes ({}): such a body would never be let in",
                self.max_inflight_bytes, self.max_body_bytes
            ));
        }
        if let Some(name) = &self.client_header
            && name.parse::<axum::http::HeaderName>().is_err()
        {
            return Some(format!("http.client.header: {name:?} is no name of a header"));
        }
        None
    }
}
