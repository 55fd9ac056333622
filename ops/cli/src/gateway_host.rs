//! What a gateway needs from its process: its limits out of the configuration, a socket, and a client.

use crate::exit::{Exit, Failure};
use axum::serve::{Listener, ListenerExt};
use std::net::SocketAddr;
use std::path::Path;
use strandline_client::Client;
use strandline_gateway::GatewayConfig;
use strandline_gateway::ingest::{IngestConfig, StoreLocation};
use strandline_node::config::{HostPort, NodeConfig};

/// The part of a node's configuration that is the gateway's.
pub fn gateway_config(config: &NodeConfig) -> GatewayConfig {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    GatewayConfig {
        name: config.advertised_http().map_or_else(|| "a gateway".to_owned(), |address| address.to_string()),
        default_topic: config.http_default_topic.clone(),
        max_connections: config.max_connections,
        max_body_bytes: bytes(config.http_max_body_bytes),
        request_timeout: config.http_request_timeout,
        max_inflight_requests: config.http_max_inflight_requests,
        max_inflight_reads: config.http_max_inflight_reads,
        max_inflight_bytes: bytes(config.http_max_inflight_bytes),
        client_rate: config.http_client_rate,
        client_burst: config.http_client_burst,
        client_header: config.http_client_header.clone(),
        max_consumers: config.http_max_consumers,
        consumer_idle: config.http_consumer_idle,
        idempotency_window: config.http_idempotency_window,
        idempotency_max_keys: config.http_idempotency_max_keys,
        ..GatewayConfig::default()
    }
}

/// The ingest pipeline's part: the table in its file, if it has one, with the flags over it. `data_dir`: where a file of
/// the gateway's own lies, for a gateway that has such a place.
pub fn ingest_config(config: &NodeConfig, data_dir: Option<&Path>) -> Result<IngestConfig, Failure> {
    let mut ingest = match config.ingest_config.as_str() {
        "none" => IngestConfig::default(),
        path => {
            let refuse = |why: String| Failure::usage(format_args!("ingest.config {path}: {why}"));
            let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
            IngestConfig::from_toml(&text).map_err(refuse)?
        }
    };
    ingest.development |= config.ingest_development;
    match (config.ingest_store.as_str(), data_dir) {
        ("none", _) => ingest.store = None,
        // The default, which a file may know better.
        ("sqlite", _) if ingest.store.is_some() => {}
        ("sqlite", Some(dir)) => ingest.store = Some(StoreLocation::Sqlite(dir.join("ingest.sqlite"))),
        ("sqlite", None) => {}
        (text, _) => {
            let location = text.parse();
            ingest.store = Some(
                location.map_err(|why: String| Failure::usage(format_args!("ingest.store {text}: {why}")))?,
            );
        }
    }
    ingest.compile().map_err(Failure::usage)?;
    Ok(ingest)
}

/// Takes the port, so that one in use is named before anything else is done.
pub async fn listen(address: &HostPort) -> Result<impl Listener<Addr = SocketAddr> + use<>, Failure> {
    let bound = tokio::net::TcpListener::bind((address.host.trim_matches(['[', ']']), address.port)).await;
    let listener = bound.map_err(|error| {
        let failure = Failure::new(Exit::Failure, format_args!("cannot listen on {address}: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.hint("another process has this port; stop it or choose another port")
            }
            _ => failure,
        }
    })?;
    Ok(listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
    }))
}

/// A client of the cluster at `bootstrap`, with no more patience than an HTTP request has.
pub fn client(config: &GatewayConfig, bootstrap: &str) -> Result<Client, Failure> {
    let client = Client::builder()
        .bootstrap(bootstrap)
        .client_id("strandline-gateway")
        .request_timeout(config.request_timeout)
        .operation_timeout(config.request_timeout);
    client.build().map_err(Failure::from)
}

/// Where a gateway in the same process as its node finds that node.
pub fn own_node(config: &NodeConfig) -> String {
    let listen = &config.listen_grpc;
    match listen.host.as_str() {
        "0.0.0.0" => HostPort::new("127.0.0.1", listen.port),
        "[::]" => HostPort::new("[::1]", listen.port),
        _ => listen.clone(),
    }
    .to_string()
}
