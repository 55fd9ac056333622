//! The peer listener: gRPC and replication streams on one port, told apart by a connection's first bytes.
//!
//! ```text
//! accept ─▶ first 8 bytes, within a deadline ─┬─ replica::PREFACE ─▶ replica::serve
//!                                             └─ anything else ────▶ tonic, which sees them again
//! ```
//!
//! Bounds: connections that have not said yet what they are, replication streams, and connections that wait for tonic.

use crate::broker::Broker;
use crate::env::Listener;
use crate::net::{self, ServedIo};
use crate::replica;
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use strandline_raft::io::BoxedIo;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// A connection says what it is within this time.
const PREFACE_DEADLINE: Duration = Duration::from_secs(5);
/// Connections that have not said it yet; more wait in the kernel.
const MAX_UNKNOWN: usize = 256;
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

async fn accept(
    broker: Arc<Broker>,
    mut listener: Box<dyn Listener>,
    grpc: mpsc::Sender<io::Result<ServedIo>>,
) {
    let stopping = broker.context().stopping.clone();
    let unknown = Arc::new(Semaphore::new(MAX_UNKNOWN));
    let streams = Arc::new(Semaphore::new(MAX_REPLICATION_STREAMS));
    let accepting = async {
        loop {
            let permit = unknown.clone().acquire_owned().await.expect("never closed");
            let (io, remote) = net::accept(&mut *listener).await;
            let (broker, streams, grpc) = (broker.clone(), streams.clone(), grpc.clone());
            let stopping = stopping.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => {}
                    () = welcome(broker, io, remote, permit, &streams, &grpc) => {}
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
    mut io: BoxedIo,
    remote: Arc<str>,
    permit: OwnedSemaphorePermit,
    streams: &Arc<Semaphore>,
    grpc: &mpsc::Sender<io::Result<ServedIo>>,
) {
    let mut first = [0; replica::PREFACE.len()];
    match tokio::time::timeout(PREFACE_DEADLINE, io.read_exact(&mut first)).await {
        Ok(Ok(_)) => {}
        // A port scan, a health check, or an attack: nothing to answer.
        Ok(Err(_)) | Err(_) => return,
    }
    if first != replica::PREFACE {
        let served = ServedIo::new(io, remote, Bytes::copy_from_slice(&first));
        // Held until tonic takes it.
        let _ = grpc.send(Ok(served)).await;
        return;
    }
    drop(permit);
    let Ok(_stream) = streams.clone().try_acquire_owned() else {
        tracing::warn!(%remote, "too many replication streams");
        return;
    };
    if let Err(error) = replica::serve(broker, io).await {
        tracing::debug!(%remote, %error, "a follower's replication stream ended");
    }
}
