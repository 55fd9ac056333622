//! One client: its requests are begun in the order in which they come and answered in that order.
//!
//! ```text
//! read ─▶ request ─┬─ Produce: appended at once, answered when durable ──┐
//!                  └─ others: one at a time, to their end ───────────────┴─▶ queue ─▶ write
//! ```
//!
//! While a request waits (a long poll, a rebalance) the socket is watched, so that a client that goes away is
//! noticed at once and nothing waits for it any more.
//!
//! Bounds: frames are small until the client has sent a valid ApiVersions request; a frame that has begun must go
//! on arriving; unanswered produces; bytes of answers that the client has not taken, above which no further
//! request is begun; a client that takes none for [`STALL`] is disconnected, and so is one that is idle for too long.

use super::KafkaFront;
use super::dispatch::{self, Refusal};
use super::frame::{self, Answer, FrameError, Frames};
use super::listener::host_of;
use crate::net::ServedIo;
use kafka_protocol::messages::ApiKey;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

/// Largest frame of a client that has not said who it is (CVE-2022-34917).
const MAX_FIRST_FRAME: usize = 64 << 10;
/// For the first request to arrive.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// For a frame that has begun to arrive whole, and the rate at which further bytes earn further time.
const FRAME: Duration = Duration::from_secs(30);
const FRAME_BYTES_PER_SECOND: usize = 256 << 10;
/// A client that takes no byte of an answer for this long is disconnected.
const STALL: Duration = Duration::from_secs(30);
/// Produces of one connection that may be unanswered.
const QUEUE: usize = 64;
/// While more than this has not been taken, no further request is begun.
const MAX_UNSENT: usize = 1 << 20;
/// For answers that are due when the connection ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// An answer that is due, in the order of the requests.
pub enum Pending {
    Ready(Answer),
    /// Comes when the batches are durable. Dropped without a value, the connection ends.
    Later(oneshot::Receiver<Settled>),
}

/// What became of a produce request.
pub enum Settled {
    Answer(Answer),
    /// `acks=0`: the client expects none.
    Nothing,
    /// `acks=0` and something went wrong: a closed connection is the only way to say so.
    Close,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("idle for too long")]
    Idle,
    #[error("no first request in time")]
    Silent,
    #[error("a request did not arrive whole in time")]
    TooSlow,
    #[error("a request with acks=0 failed")]
    Unanswerable,
    #[error("the answers could not be written: {0}")]
    Write(#[from] std::io::Error),
}

/// Bytes of answers that wait for the client.
#[derive(Default)]
struct Unsent {
    bytes: AtomicUsize,
    taken: Notify,
}

impl Unsent {
    async fn has_room(&self) {
        loop {
            let taken = self.taken.notified();
            if self.bytes.load(Ordering::Acquire) <= MAX_UNSENT {
                return;
            }
            taken.await;
        }
    }
}

/// Serves a client until it goes away or breaks a rule.
pub async fn serve(front: Arc<KafkaFront>, io: ServedIo) {
    let remote = io.remote().clone();
    let (reading, writing) = tokio::io::split(io);
    let (queue, pending) = mpsc::channel(QUEUE);
    let unsent = Arc::new(Unsent::default());
    // Kafka writes a client's address with a slash in front.
    let host: Arc<str> = format!("/{}", host_of(&remote)).into();
    let mut writer = pin!(write(writing, pending, unsent.clone()));
    let reader = pin!(read(front, reading, queue, unsent, host));
    let ended = tokio::select! {
        biased;
        ended = &mut writer => ended,
        ended = reader => {
            let _ = tokio::time::timeout(LAST_ANSWERS, writer).await;
            ended
        }
    };
    match ended {
        Ok(()) | Err(End::Frame(FrameError::Closed | FrameError::Io(_)) | End::Idle) => {}
        Err(error) => tracing::debug!(%remote, %error, "a Kafka connection was closed"),
    }
}

async fn write(
    mut io: impl AsyncWrite + Unpin,
    mut pending: mpsc::Receiver<Pending>,
    unsent: Arc<Unsent>,
) -> Result<(), End> {
    while let Some(next) = pending.recv().await {
        let (answer, counted) = match next {
            Pending::Ready(answer) => {
                let counted = answer.len();
                (answer, counted)
            }
            // Answers to produces are small, and bounded by the queue.
            Pending::Later(settled) => match settled.await {
                Ok(Settled::Answer(answer)) => (answer, 0),
                Ok(Settled::Nothing) => continue,
                Ok(Settled::Close) | Err(_) => return Err(End::Unanswerable),
            },
        };
        let written = frame::write(&mut io, answer, STALL).await;
        unsent.bytes.fetch_sub(counted, Ordering::AcqRel);
        unsent.taken.notify_one();
        written?;
    }
    Ok(())
}

async fn read(
    front: Arc<KafkaFront>,
    io: impl AsyncRead + Unpin,
    queue: mpsc::Sender<Pending>,
    unsent: Arc<Unsent>,
    host: Arc<str>,
) -> Result<(), End> {
    let config = &front.context().config;
    let (max_request, idle) = (config.kafka_max_request_bytes as usize, config.connections_max_idle);
    let mut frames = Frames::new(io, MAX_FIRST_FRAME.min(max_request), front.reading.clone());
    let mut known = false;
    let mut first = true;
    loop {
        let (wait, silent) = if first { (FIRST_REQUEST, End::Silent) } else { (idle, End::Idle) };
        arrive(&mut frames, wait, silent).await?;
        first = false;
        // Its part of the budget is given back once the request has been begun, or answered.
        let Some((frame, held)) = frames.take() else { continue };
        unsent.has_room().await;
        let call = dispatch::parse(&front, &host, frame)?;
        let introduces = call.introduces();
        let (pending, throttled) = if call.key() == Some(ApiKey::Produce) {
            Box::pin(dispatch::produce(call)).await?
        } else {
            // Boxed: a connection that is idle holds no room for its largest request.
            let mut handling = Box::pin(dispatch::handle(call));
            let (answer, throttled) = loop {
                tokio::select! {
                    biased;
                    handled = &mut handling => break handled?,
                    // The next request meanwhile, one at most; or the end of the connection, and with it of this.
                    filled = frames.fill(), if !frames.is_ready() => filled?,
                }
            };
            unsent.bytes.fetch_add(answer.len(), Ordering::AcqRel);
            (Pending::Ready(answer), throttled)
        };
        drop(held);
        if introduces && !known {
            known = true;
            frames.set_limit(max_request);
        }
        if queue.send(pending).await.is_err() {
            return Ok(()); // The writer has ended, and says why.
        }
        if !throttled.is_zero() {
            tokio::time::sleep(throttled).await;
        }
    }
}

/// Waits for a whole frame: `idle` for its first byte, then at the rate that is asked of everybody.
async fn arrive<R: AsyncRead + Unpin>(
    frames: &mut Frames<R>,
    idle: Duration,
    silent: End,
) -> Result<(), End> {
    let began = Instant::now();
    let mut inside = frames.is_inside().then_some(began);
    loop {
        let deadline = match inside {
            None => began + idle,
            Some(since) => {
                since + FRAME + Duration::from_secs((frames.received() / FRAME_BYTES_PER_SECOND) as u64)
            }
        };
        match tokio::time::timeout_at(deadline, frames.read_some()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => inside = inside.or_else(|| Some(Instant::now())),
            Ok(Err(error)) => return Err(error.into()),
            Err(_) if inside.is_some() => return Err(End::TooSlow),
            Err(_) => return Err(silent),
        }
    }
}
