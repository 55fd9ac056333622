//! Serving and dialling gRPC over [`Env`](crate::env::Env)'s sockets.

mod accept;

pub use accept::{Acceptor, Connections, Limits, MAX_PEER_CONNECTIONS, Remote, ServedIo, incoming};

use std::io;
use std::time::Duration;
use strandline_raft::io::{BoxedIo, Connect};
use tonic::codegen::http::{HeaderValue, Response, Uri, header};
use tonic::transport::{Channel, Endpoint};

/// HTTP/2 flow-control windows. A stream must hold a bandwidth-delay product and a few whole batches; one
/// connection carries a handful of streams.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Streams open at once on one connection.
const MAX_STREAMS: u32 = 4096;
const MAX_FRAME: u32 = 256 << 10;
/// For a connection that this node opens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest message of either service: a batch of `message.max.bytes` in a message with others.
pub const MAX_MESSAGE: usize = 64 << 20;

fn without_date(mut response: Response<tonic::body::Body>) -> Response<tonic::body::Body> {
    // hyper would stamp the wall clock: pointless here, and it makes simulated traces differ.
    response.headers_mut().insert(header::DATE, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
    response
}

type Map = fn(Response<tonic::body::Body>) -> Response<tonic::body::Body>;
pub type Server = tonic::transport::Server<
    tower::layer::util::Stack<tower::util::MapResponseLayer<Map>, tower::layer::util::Identity>,
>;

/// A gRPC server with this project's settings.
pub fn server() -> Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(tower::util::MapResponseLayer::new(without_date as Map))
}

/// A channel to `host:port` that connects when it is first used, and again when it broke.
pub fn channel(to: &Connect, addr: &str) -> Result<Channel, tonic::transport::Error> {
    let to = to.clone();
    let target = addr.to_owned();
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (to, target) = (to.clone(), target.clone());
        async move { connect(&to, &target).await.map(hyper_util::rt::TokioIo::new) }
    })))
}

/// A connection to `host:port`, within a deadline.
pub async fn connect(connect: &Connect, addr: &str) -> io::Result<BoxedIo> {
    tokio::time::timeout(CONNECT_TIMEOUT, connect(addr.to_owned())).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt"))
    })
}
