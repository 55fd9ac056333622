//! Connections: accepts them, bounds their number, headers and silence, and lets requests end when it stops.
//!
//! HTTP/1.1 only: a proxy in front speaks anything else, and none of HTTP/2's ways to exhaust a server exist here.

use crate::app::App;
use crate::config::GatewayConfig;
use crate::http;
use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::Client;
use strandline_metrics::Source;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// Line and headers of a request together.
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
/// For requests that are being answered when the gateway stops.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Why a gateway ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used; the message says what would be right.
    #[error("{0}")]
    Config(String),
}

/// The address of the client at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Serves HTTP until `shutdown` completes, then takes no more requests and lets those under way end. `/metrics` shows
/// `sources` besides the gateway itself.
///
/// # Errors
/// [`ServeError::Config`] before anything is served.
pub async fn serve<L>(
    config: GatewayConfig,
    mut listener: L,
    client: Client,
    sources: Vec<Arc<dyn Source>>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError>
where
    L: Listener<Addr = SocketAddr>,
{
    let header_timeout = config.request_timeout;
    let app = App::new(config, client, sources)?;
    let stop_ingest = CancellationToken::new();
    let ingesting = app.ingest.clone().map(|ingest| tokio::spawn(ingest.run(stop_ingest.clone())));
    let router = http::routes(app.clone());
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .pipeline_flush(true);
    let open = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut expiring = std::pin::pin!(app.instances.expire());
    loop {
        let (io, peer) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = &mut expiring => unreachable!("it goes on for ever"),
            accepted = listener.accept() => accepted,
        };
        let Ok(slot) = app.connections.clone().try_acquire_owned() else {
            tracing::debug!(%peer, "too many HTTP connections");
            continue;
        };
        let service = PerConnection { router: router.clone(), peer: Peer(peer) };
        let connection = open.watch(builder.serve_connection(TokioIo::new(io), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "HTTP connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    // Streams have no end of their own.
    app.live.stop();
    let demo = tokio::spawn({
        let app = app.clone();
        async move { app.demo.close().await }
    });
    if tokio::time::timeout(LAST_ANSWERS, open.shutdown()).await.is_err() {
        tracing::warn!("some HTTP requests were not answered in time");
    }
    app.instances.close().await;
    if tokio::time::timeout(LAST_ANSWERS, demo).await.is_err() {
        tracing::warn!("the demonstration did not stop in time");
    }
    // After the last answer, which may have waited for it.
    stop_ingest.cancel();
    if let Some(ingesting) = ingesting
        && tokio::time::timeout(LAST_ANSWERS, ingesting).await.is_err()
    {
        tracing::warn!("the ingest pipeline did not stop in time");
    }
    Ok(())
}

/// The routes, with what a request does not say itself.
struct PerConnection {
    router: Router,
    peer: Peer,
}

impl hyper::service::Service<axum::http::Request<hyper::body::Incoming>> for PerConnection {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = axum::routing::future::RouteFuture<std::convert::Infallible>;

    fn call(&self, mut request: axum::http::Request<hyper::body::Incoming>) -> Self::Future {
        tracing::trace!(peer = %self.peer.0, method = %request.method(), path = request.uri().path(), "request");
        request.extensions_mut().insert(self.peer);
        self.router.clone().call(request)
    }
}
