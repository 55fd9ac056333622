//! Serving and dialling gRPC over [`Env`]'s sockets.

use crate::env::Listener;
use bytes::Bytes;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use strandline_raft::io::{BoxedIo, Connect};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::codegen::http::{HeaderValue, Response, Uri, header};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// HTTP/2 flow-control windows. A stream must hold a bandwidth-delay product and a few whole batches; one
/// connection carries a handful of streams.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Streams open at once on one connection.
const MAX_STREAMS: u32 = 4096;
const MAX_FRAME: u32 = 256 << 10;
/// Connections that have not been accepted by HTTP/2 yet wait in the kernel.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest message of either service: a batch of `message.max.bytes` in a message with others.
pub const MAX_MESSAGE: usize = 64 << 20;

/// An accepted connection, as tonic wants it.
pub struct ServedIo {
    io: BoxedIo,
    remote: Arc<str>,
    /// Read already, by whoever looked what protocol it is.
    unread: Bytes,
}

impl ServedIo {
    pub fn new(io: BoxedIo, remote: Arc<str>, unread: Bytes) -> Self {
        ServedIo { io, remote, unread }
    }
}

/// Remote address of a request, found in its extensions.
#[derive(Clone, Debug)]
pub struct Remote(pub Arc<str>);

impl Connected for ServedIo {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        Remote(self.remote.clone())
    }
}

impl AsyncRead for ServedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let count = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Connections of a listener, without end.
pub fn incoming(listener: Box<dyn Listener>) -> impl futures::Stream<Item = io::Result<ServedIo>> + Send {
    futures::stream::unfold(listener, |mut listener| async move {
        let (io, remote) = accept(&mut *listener).await;
        Some((Ok(ServedIo::new(io, remote, Bytes::new())), listener))
    })
}

/// The next connection. An accept that fails (too many open files) is retried after a pause instead of ending the
/// service.
pub async fn accept(listener: &mut dyn Listener) -> (BoxedIo, Arc<str>) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

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
