//! The peer listener: gRPC and replication streams on one port, told apart by a connection's first bytes.
//!
//! ```text
//! net::Acceptor ─▶ first 8 bytes ─┬─ replica::PREFACE ─▶ replica::serve
//!                                 └─ anything else ────▶ tonic, which sees them again
//! ```
//!
//! Bounds: connections, and how long one may take to say what it is (both the acceptor's); replication streams;
//! connections that wait for tonic.

use crate::broker::Broker;
use crate::env::Listener;
use crate::net::{Acceptor, Limits, MAX_PEER_CONNECTIONS, ServedIo};
use crate::replica;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// One for each follower's broker; an old one may linger until its silence is noticed.
const MAX_REPLICATION_STREAMS: usize = 1024;
const GRPC_QUEUE: usize = 64;

/// Accepts until the node stops. gRPC connections come out of the stream.
pub fn start(
    broker: Arc<Broker>,
    listener: Box<dyn Listener>,
) -> (impl Future<Output = ()> + Send, ReceiverStream<io::Result<ServedIo>>) {
    let (grpc, connections) = mpsc::channel(GRPC_QUEUE);
    (accept(broker, listener, grpc), ReceiverStream::new(connections))
}

async fn accept(broker: Arc<Broker>, listener: Box<dyn Listener>, grpc: mpsc::Sender<io::Result<ServedIo>>) {
    let stopping = broker.context().stopping.clone();
    let mut acceptor = Acceptor::new("peer", listener, Limits::new(MAX_PEER_CONNECTIONS));
    broker.context().meters.listens(acceptor.connections());
    let streams = Arc::new(Semaphore::new(MAX_REPLICATION_STREAMS));
    let accepting = async {
        loop {
            let io = acceptor.next().await;
            let (broker, streams, grpc) = (broker.clone(), streams.clone(), grpc.clone());
            let stopping = stopping.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => {}
                    () = welcome(broker, io, &streams, &grpc) => {}
                }
            });
        }
    };
    tokio::select! {
        biased;
        () = stopping.cancelled() => {}
        () = accepting => {}
    }
}

async fn welcome(
    broker: Arc<Broker>,
    mut io: ServedIo,
    streams: &Arc<Semaphore>,
    grpc: &mpsc::Sender<io::Result<ServedIo>>,
) {
    let mut first = [0; replica::PREFACE.len()];
    if io.read_exact(&mut first).await.is_err() {
        // A port scan, a health check, or an attack: nothing to answer.
        return;
    }
    if first != replica::PREFACE {
        io.put_back(Bytes::copy_from_slice(&first));
        let _ = grpc.send(Ok(io)).await; // The node ends.
        return;
    }
    io.handshake_is_done();
    let remote = io.remote().clone();
    let Ok(_stream) = streams.clone().try_acquire_owned() else {
        tracing::warn!(%remote, "too many replication streams");
        return;
    };
    if let Err(error) = replica::serve(broker, Box::new(io)).await {
        tracing::debug!(%remote, %error, "a follower's replication stream ended");
    }
}
