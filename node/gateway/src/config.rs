//! What a gateway may use, and its defaults.

use crate::ingest::IngestConfig;
use std::time::Duration;

/// Limits and names of one gateway. The keys of a node's configuration that begin with `http.` are these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
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
}

impl Default for GatewayConfig {
    fn default() -> Self {
        GatewayConfig {
            default_topic: "events".to_owned(),
            max_connections: 10_000,
            max_body_bytes: 4 << 20,
            request_timeout: Duration::from_secs(15),
            ingest: IngestConfig::default(),
        }
    }
}
