//! Accepting connections: how many there may be, and how long one may take to say what it is.
//!
//! ```text
//! accept ─▶ a slot is free? ─ yes ─▶ handshake in time? ─ yes ─▶ served until it ends ─▶ the slot is free again
//!                └─ no: closed at once       └─ no: closed
//! ```
//!
//! Invariants: a listener holds at most [`Limits::max_connections`] connections, each until its socket is closed; a
//! connection that has not sent the HTTP/2 preface after [`Limits::handshake`] is closed (later silence is noticed by
//! HTTP/2's own pings); whatever remote hosts do, at most one line a [`QUIET`] is logged about it.

use crate::env::Listener;
use bytes::Bytes;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use strandline_raft::io::BoxedIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

/// Connections of other nodes: a few for each, and their probes. Not `max.connections`, so that clients in large
/// numbers do not cut the nodes off from one another.
pub const MAX_PEER_CONNECTIONS: usize = 4096;
/// Bytes with which every HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Between two log lines of one listener about connections that it did not serve.
const QUIET: Duration = Duration::from_secs(10);
/// After an accept that failed (too many open files, most likely).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What a listener grants to those who connect.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections held at once; further ones are closed at once.
    pub max_connections: usize,
    /// For the HTTP/2 preface to arrive.
    pub handshake: Duration,
}

impl Limits {
    pub fn new(max_connections: usize) -> Self {
        Limits { max_connections, handshake: HANDSHAKE }
    }
}

/// Connections of a listener, without end. An accept that fails is retried after a pause instead of ending the
/// service.
pub fn incoming(acceptor: Acceptor) -> impl futures::Stream<Item = io::Result<ServedIo>> + Send {
    futures::stream::unfold(acceptor, |mut acceptor| async move {
        let served = acceptor.next().await;
        Some((Ok(served), acceptor))
    })
}

/// The accepting end of a listener.
pub struct Acceptor {
    name: &'static str,
    listener: Box<dyn Listener>,
    limits: Limits,
    slots: Arc<Semaphore>,
    unserved: Arc<Unserved>,
    /// No line is logged before this.
    quiet_until: Option<Instant>,
}

/// Connections that were closed unserved, since the process started.
#[derive(Debug, Default)]
struct Unserved {
    /// There was no slot.
    refused: AtomicU64,
    /// No handshake in time.
    too_slow: AtomicU64,
    /// The accept itself failed.
    failed: AtomicU64,
    /// How many of all these the log tells of.
    told: AtomicU64,
}

impl Unserved {
    fn total(&self) -> u64 {
        [&self.refused, &self.too_slow, &self.failed].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn untold(&self) -> bool {
        self.total() > self.told.load(Ordering::Relaxed)
    }
}

impl Acceptor {
    pub fn new(name: &'static str, listener: Box<dyn Listener>, limits: Limits) -> Self {
        let slots = Arc::new(Semaphore::new(limits.max_connections));
        Acceptor { name, listener, limits, slots, unserved: Arc::default(), quiet_until: None }
    }

    /// How many connections there are, for as long as it accepts.
    pub fn connections(&self) -> Connections {
        Connections {
            name: self.name,
            max: self.limits.max_connections,
            slots: self.slots.clone(),
            unserved: self.unserved.clone(),
        }
    }

    /// The next connection for which there is a slot.
    pub async fn next(&mut self) -> ServedIo {
        loop {
            self.tell();
            let accepted = match self.quiet_until {
                None => self.listener.accept().await,
                Some(until) => tokio::select! {
                    biased;
                    accepted = self.listener.accept() => accepted,
                    () = tokio::time::sleep_until(until) => continue,
                },
            };
            match accepted {
                Ok((io, remote)) => match self.slots.clone().try_acquire_owned() {
                    Ok(slot) => {
                        let handshake = Handshake {
                            missing: PREFACE_BYTES,
                            deadline: Box::pin(tokio::time::sleep(self.limits.handshake)),
                            unserved: self.unserved.clone(),
                        };
                        return ServedIo {
                            io,
                            remote,
                            unread: Bytes::new(),
                            handshake: Some(handshake),
                            _slot: slot,
                        };
                    }
                    // Dropping it closes it.
                    Err(_) => count(&self.unserved.refused),
                },
                Err(error) => {
                    count(&self.unserved.failed);
                    tracing::debug!(listener = self.name, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// Logs what has not been told of, unless something was logged a moment ago.
    fn tell(&mut self) {
        let now = Instant::now();
        if self.quiet_until.is_some_and(|until| now < until) {
            return;
        }
        self.quiet_until = None;
        let unserved = &self.unserved;
        if unserved.untold() {
            unserved.told.store(unserved.total(), Ordering::Relaxed);
            self.quiet_until = Some(now + QUIET);
            tracing::warn!(
                listener = self.name,
                refused = unserved.refused.load(Ordering::Relaxed),
                too_slow = unserved.too_slow.load(Ordering::Relaxed),
                failed = unserved.failed.load(Ordering::Relaxed),
                max_connections = self.limits.max_connections,
                "connections were closed unserved (counted since the start): refused for want of a slot, too slow with \
                 their handshake, or not accepted by the system (too many open files?)"
            );
        }
    }
}

/// The connections of one listener, from outside.
#[derive(Clone, Debug)]
pub struct Connections {
    pub name: &'static str,
    /// Held at once.
    pub max: usize,
    slots: Arc<Semaphore>,
    unserved: Arc<Unserved>,
}

impl Connections {
    pub fn open(&self) -> usize {
        self.max.saturating_sub(self.slots.available_permits())
    }

    /// Those that were closed unserved, by reason.
    pub fn unserved(&self) -> [(&'static str, u64); 3] {
        let Unserved { refused, too_slow, failed, .. } = &*self.unserved;
        [("refused", refused), ("too_slow", too_slow), ("failed", failed)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Remote address of a request, found in its extensions.
#[derive(Clone, Debug)]
pub struct Remote(pub Arc<str>);

/// An accepted connection, as tonic wants it.
pub struct ServedIo {
    io: BoxedIo,
    remote: Arc<str>,
    /// Read already, by whoever looked what protocol it is.
    unread: Bytes,
    /// Until the preface is there.
    handshake: Option<Handshake>,
    _slot: OwnedSemaphorePermit,
}

impl ServedIo {
    pub fn remote(&self) -> &Arc<str> {
        &self.remote
    }

    /// Whoever reads next gets `read` first.
    pub fn put_back(&mut self, read: Bytes) {
        self.unread = read;
    }

    /// It has said what it is, in another way than HTTP/2 does.
    pub fn handshake_is_done(&mut self) {
        self.handshake = None;
    }
}

struct Handshake {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
    unserved: Arc<Unserved>,
}

impl Handshake {
    /// Whether there is nothing more to wait for; an error when the time is up.
    fn progress(&mut self, cx: &mut Context<'_>, read: usize) -> io::Result<bool> {
        self.missing = self.missing.saturating_sub(read);
        if self.missing > 0 && self.deadline.as_mut().poll(cx).is_ready() {
            count(&self.unserved.too_slow);
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface in time"));
        }
        Ok(self.missing == 0)
    }
}

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
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Some(handshake) = &mut self.handshake {
            match handshake.progress(cx, buf.filled().len() - before) {
                Ok(true) => self.handshake = None,
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        polled
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

#[cfg(test)]
mod tests;
