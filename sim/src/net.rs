//! Turmoil's sockets behind the seams of the node ([`strandline_node::env`]) and of the SDK. A socket of a life that
//! is over neither sends nor receives.

use crate::life::Life;
use crate::trace::Trace;
use futures::future::BoxFuture;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use strandline_node::env::Listener;
use strandline_raft::io::BoxedIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// A host's part in the network during one life.
#[derive(Clone, Debug)]
pub struct Net {
    host: Arc<str>,
    life: Life,
    trace: Trace,
}

impl Net {
    pub fn new(host: Arc<str>, life: Life, trace: Trace) -> Net {
        Net { host, life, trace }
    }

    pub async fn connect(self, address: String) -> io::Result<SimIo> {
        if self.life.is_over() {
            return std::future::pending().await;
        }
        self.trace.detail(&self.host, format_args!("connects to {address}"));
        let asked = tokio::time::Instant::now();
        let stream = match TcpStream::connect(address.as_str()).await {
            // Turmoil refuses at once what a cut or lossy link swallows. A real caller hears nothing at all.
            Err(_) if asked.elapsed().is_zero() => return std::future::pending().await,
            connected => connected?,
        };
        Ok(SimIo { stream, peer: Arc::from(address), net: self })
    }

    pub async fn listen(self, address: &str) -> io::Result<SimListener> {
        Ok(SimListener { listener: TcpListener::bind(address).await?, net: self })
    }

    /// For [`strandline_client::ClientBuilder::connector`].
    pub fn connector(&self) -> strandline_client::Connector {
        let net = self.clone();
        Arc::new(move |address| {
            let net = net.clone();
            Box::pin(async move {
                let io = net.connect(address).await?;
                Ok(Box::new(io) as Box<dyn strandline_client::Io>)
            })
        })
    }
}

/// One end of a connection.
pub struct SimIo {
    stream: TcpStream,
    peer: Arc<str>,
    net: Net,
}

impl AsyncRead for SimIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.net.life.is_over() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.net.life.is_over() {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if self.net.trace.wants_detail()
            && let Poll::Ready(Ok(count)) = written
        {
            let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..count]);
            self.net
                .trace
                .detail(&self.net.host, format_args!("sends {count} bytes {sum:08x} to {}", self.peer));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.net.life.is_over() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

pub struct SimListener {
    listener: TcpListener,
    net: Net,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxedIo, Arc<str>)>> {
        Box::pin(async move {
            let (stream, remote) = self.listener.accept().await?;
            let remote: Arc<str> = Arc::from(remote.to_string());
            let io = SimIo { stream, peer: remote.clone(), net: self.net.clone() };
            Ok((Box::new(io) as BoxedIo, remote))
        })
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }
}
