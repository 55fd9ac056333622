//! One connection of Kafka's protocol: requests are pipelined, answers come in their order.
//!
//! ```text
//!  call ─▶ queue ─▶ writer: all that wait in one write ─▶ socket ─▶ reader: frame ─▶ the oldest call's answer
//!                     └────────── pending, oldest first ──────────────▲
//! ```
//!
//! A call may be dropped while it waits; its frame is written whole, and its answer is read and forgotten. When either
//! side of the connection ends, every call that waits is told so.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

/// Calls that wait to be written; further ones wait for them.
const QUEUE: usize = 1024;
/// Calls written at once.
const TOGETHER: usize = 128;
/// An answer is no larger: those of this tool's requests are far below.
const MOST_ANSWER: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum WireError {
    /// The request was not handed over: it had no effect.
    NotSent,
    /// The connection ended before the answer: the request may have had its effect.
    Lost,
    /// It cannot be opened.
    Open(std::io::Error),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WireError::NotSent => f.write_str("not sent"),
            WireError::Lost => f.write_str("connection lost before the answer"),
            WireError::Open(error) => write!(f, "{error}"),
        }
    }
}

/// A request with all but its correlation id.
#[derive(Clone, Debug)]
pub struct Call {
    key: i16,
    version: i16,
    header_version: i16,
    /// The header of its answer has tagged fields.
    flexible_answer: bool,
    body: Bytes,
}

impl Call {
    pub fn of(key: ApiKey, version: i16, request: &impl Encodable) -> Call {
        let mut body = BytesMut::with_capacity(512);
        request.encode(&mut body, version).expect("the request is made for its version");
        Call {
            key: key as i16,
            version,
            header_version: key.request_header_version(version),
            flexible_answer: key.response_header_version(version) >= 1,
            body: body.freeze(),
        }
    }

    /// The frame, with its length.
    fn write(&self, correlation: i32, out: &mut BytesMut) {
        let begun = out.len();
        out.put_i32(0);
        RequestHeader::default()
            .with_request_api_key(self.key)
            .with_request_api_version(self.version)
            .with_correlation_id(correlation)
            .with_client_id(Some(StrBytes::from_static_str("strandline-bench")))
            .encode(out, self.header_version)
            .expect("a header without surprises");
        out.extend_from_slice(&self.body);
        let length = i32::try_from(out.len() - begun - 4).expect("a request is far below 2 GiB");
        out[begun..begun + 4].copy_from_slice(&length.to_be_bytes());
    }
}

struct Queued {
    call: Call,
    /// Absent where no answer comes.
    answer: Option<oneshot::Sender<Bytes>>,
}

struct Waiting {
    correlation: i32,
    flexible_answer: bool,
    answer: oneshot::Sender<Bytes>,
}

type Pending = Arc<Mutex<VecDeque<Waiting>>>;

/// A connection.
#[derive(Debug)]
pub struct Wire {
    queue: mpsc::Sender<Queued>,
    writer: AbortHandle,
}

impl Wire {
    /// # Errors
    /// [`WireError::Open`].
    pub async fn open(address: &str) -> Result<Wire, WireError> {
        let stream = TcpStream::connect(address).await.map_err(WireError::Open)?;
        stream.set_nodelay(true).map_err(WireError::Open)?;
        let (from, to) = stream.into_split();
        let (queue, queued) = mpsc::channel(QUEUE);
        let pending = Pending::default();
        let writer = tokio::spawn(write(to, queued, pending.clone())).abort_handle();
        let stop = writer.clone();
        tokio::spawn(async move {
            read(from, &pending).await;
            // Nothing will be answered any more. What waits is told so when its sender goes.
            stop.abort();
            pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Wire { queue, writer })
    }

    pub fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Sends a request; the body of its answer.
    ///
    /// # Errors
    /// [`WireError::NotSent`] or [`WireError::Lost`].
    pub async fn call(&self, call: &Call) -> Result<Bytes, WireError> {
        let (answer, answered) = oneshot::channel();
        let queued = Queued { call: call.clone(), answer: Some(answer) };
        self.queue.send(queued).await.map_err(|_| WireError::NotSent)?;
        answered.await.map_err(|_| WireError::Lost)
    }

    /// Sends a request that has no answer.
    ///
    /// # Errors
    /// [`WireError::NotSent`].
    pub async fn tell(&self, call: &Call) -> Result<(), WireError> {
        let queued = Queued { call: call.clone(), answer: None };
        self.queue.send(queued).await.map_err(|_| WireError::NotSent)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn write(mut to: OwnedWriteHalf, mut queued: mpsc::Receiver<Queued>, pending: Pending) {
    let (mut calls, mut out) = (Vec::with_capacity(TOGETHER), BytesMut::new());
    let mut correlation = 0_i32;
    while queued.recv_many(&mut calls, TOGETHER).await > 0 {
        out.clear();
        {
            // Before they are written: an answer may come at once.
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            for Queued { call, answer } in calls.drain(..) {
                correlation = correlation.wrapping_add(1);
                call.write(correlation, &mut out);
                let flexible_answer = call.flexible_answer;
                pending.extend(answer.map(|answer| Waiting { correlation, flexible_answer, answer }));
            }
        }
        if to.write_all(&out).await.is_err() {
            return;
        }
    }
}

/// Until the connection ends, or answers something that was not asked.
async fn read(mut from: OwnedReadHalf, pending: &Pending) {
    let mut buffer = BytesMut::with_capacity(16 << 10);
    loop {
        while let Some(frame) = frame(&mut buffer) {
            let Some((correlation, body)) = frame.split_at_checked(4) else { return };
            let waiting = pending.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(waiting) = waiting.filter(|w| w.correlation.to_be_bytes() == *correlation) else {
                return;
            };
            // The header's tagged fields: none are defined, and none are taken.
            let skipped = usize::from(waiting.flexible_answer);
            if skipped == 1 && body.first() != Some(&0) {
                return;
            }
            // Whoever asked may have gone.
            let _ = waiting.answer.send(frame.slice(4 + skipped..));
        }
        if buffer.first_chunk().is_some_and(|length| too_long(*length)) {
            return;
        }
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn too_long(length: [u8; 4]) -> bool {
    !usize::try_from(i32::from_be_bytes(length)).is_ok_and(|length| length <= MOST_ANSWER)
}

/// The next whole frame without its length.
fn frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = *buffer.first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(length)).ok()?;
    if length > MOST_ANSWER || buffer.len() - 4 < length {
        return None;
    }
    buffer.advance(4);
    Some(buffer.split_to(length).freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiVersionsRequest;
    use tokio::net::TcpListener;

    fn call() -> Call {
        Call::of(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default())
    }

    /// A node that answers each request with what `answer` makes of its correlation id.
    async fn node(answer: fn(i32) -> Vec<u8>) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while let Ok(length) = stream.read_i32().await {
                let mut request = vec![0; length as usize];
                stream.read_exact(&mut request).await.unwrap();
                let correlation = i32::from_be_bytes(request[4..8].try_into().unwrap());
                stream.write_all(&answer(correlation)).await.unwrap();
            }
        });
        Wire::open(&address).await.unwrap()
    }

    #[tokio::test]
    async fn calls_under_way_together_get_their_own_answers() {
        let wire = node(|n| [[0, 0, 0, 8], n.to_be_bytes(), n.to_be_bytes()].concat()).await;
        let call = call();
        let answers = futures::future::join_all((0..300).map(|_| wire.call(&call))).await;
        // In the order in which they were written, which is not quite that of the calls.
        let mut numbers: Vec<i32> = answers.into_iter().map(|answer| answer.unwrap().get_i32()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=300).collect::<Vec<_>>(), "each call has one answer, and no two the same");
        assert!(wire.is_open());
    }

    #[tokio::test]
    async fn a_wrong_answer_ends_the_connection_and_all_who_wait_are_told() {
        for answer in [
            (|n| [[0, 0, 0, 4], (n + 1_i32).to_be_bytes()].concat()) as fn(i32) -> Vec<u8>,
            |_| vec![0x7f, 0xff, 0xff, 0xff, 0],
            |_| vec![0xff, 0xff, 0xff, 0xff, 0],
            |_| vec![0, 0, 0, 2, 0, 0],
        ] {
            let (wire, call) = (node(answer).await, call());
            let both = futures::future::join(wire.call(&call), wire.call(&call)).await;
            assert!(matches!(both.0, Err(WireError::Lost)), "{both:?}");
            assert!(matches!(both.1, Err(WireError::Lost | WireError::NotSent)), "{both:?}");
            assert!(wire.call(&call).await.is_err());
            assert!(!wire.is_open());
        }
    }
}
