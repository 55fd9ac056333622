//! Frames of the replication stream, in both directions. A connection on the peer listener that begins with
//! [`PREFACE`] carries them; any other is HTTP/2 (`crate::peer_listener`).
//!
//! ```text
//!  offset size
//!       0    4  length of the head, big-endian
//!       4    4  length of the body, big-endian
//!       8       head: a protobuf message, `ReplicaFetch` to the leader, `ReplicaData` to the follower
//!               body: the batches that the head names, back to back in its order
//! ```
//!
//! The batches stand beside the message and not in it, so that they are neither copied into it nor out of it: the
//! writer hands the log's own bytes to one vectored write, the reader receives a body into memory of its own and
//! slices the batches out of that.
//!
//! Invariants: no length is believed before it has been compared with its limit; both [`FrameReader::next`] and its
//! state survive being dropped at any await; what is read into is bounded by one frame.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// First bytes of a connection that carries replication frames. HTTP/2's begin with `PRI `.
pub const PREFACE: [u8; 8] = *b"SLREPL\0\x01";

const LENGTHS: usize = 8;
/// Read at a time while looking for a frame's head: little behind a frame with a large body, which would have to be
/// moved into memory of its own; much where bodies are small.
const HEAD_READ: usize = 2 << 10;
const SMALL_READ: usize = 16 << 10;
const LARGE_BODY: usize = 32 << 10;

/// The longest that a reader takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub head: usize,
    pub body: usize,
}

/// One frame as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub head: Bytes,
    pub body: Bytes,
}

enum State {
    /// At the beginning of a frame.
    Lengths,
    Head {
        head: usize,
        body: usize,
    },
    Body {
        head: Bytes,
        received: BytesMut,
        body: usize,
    },
}

/// Takes frames off a connection.
pub struct FrameReader<R> {
    io: R,
    limits: Limits,
    /// Received and not yet part of a frame.
    buffer: BytesMut,
    state: State,
    last_body: usize,
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R, limits: Limits) -> Self {
        FrameReader { io, limits, buffer: BytesMut::new(), state: State::Lengths, last_body: 0 }
    }

    /// The next frame; `None` at an end between frames. May be dropped and called again.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                self.last_body = frame.body.len();
                return Ok(Some(frame));
            }
            let read = match &mut self.state {
                State::Body { received, body, .. } => {
                    let missing = *body - received.len();
                    self.io.read_buf(&mut received.limit(missing)).await?
                }
                State::Lengths | State::Head { .. } => {
                    let wanted = if self.last_body >= LARGE_BODY { HEAD_READ } else { SMALL_READ };
                    self.buffer.reserve(wanted);
                    self.io.read_buf(&mut (&mut self.buffer).limit(wanted)).await?
                }
            };
            if read == 0 {
                let between = matches!(self.state, State::Lengths) && self.buffer.is_empty();
                return if between { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// A frame, if what has been received holds all of it.
    fn take(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match std::mem::replace(&mut self.state, State::Lengths) {
                State::Lengths => {
                    if self.buffer.len() < LENGTHS {
                        return Ok(None);
                    }
                    let (head, body) = (self.buffer.get_u32() as usize, self.buffer.get_u32() as usize);
                    if head > self.limits.head || body > self.limits.body {
                        return Err(invalid(format!(
                            "a frame of {head} and {body} bytes, at most {} and {} are taken",
                            self.limits.head, self.limits.body
                        )));
                    }
                    self.state = State::Head { head, body };
                }
                State::Head { head, body } => {
                    if self.buffer.len() < head {
                        self.state = State::Head { head, body };
                        return Ok(None);
                    }
                    let head = self.buffer.split_to(head).freeze();
                    if self.buffer.len() >= body {
                        let body = self.buffer.split_to(body).freeze();
                        return Ok(Some(Frame { head, body }));
                    }
                    // The rest goes where it stays.
                    let mut received = BytesMut::with_capacity(body);
                    received.extend_from_slice(&self.buffer);
                    self.buffer.clear();
                    self.state = State::Body { head, received, body };
                }
                State::Body { head, received, body } => {
                    if received.len() < body {
                        self.state = State::Body { head, received, body };
                        return Ok(None);
                    }
                    return Ok(Some(Frame { head, body: received.freeze() }));
                }
            }
        }
    }
}

/// Puts frames on a connection.
pub struct FrameWriter<W> {
    io: W,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(io: W) -> Self {
        FrameWriter { io }
    }

    /// Writes one frame. Dropped half-way, the connection is of no more use.
    ///
    /// # Panics
    /// If the head or the body is 4 GiB long: callers keep far below.
    pub async fn send(&mut self, head: &impl prost::Message, body: Vec<Bytes>) -> io::Result<()> {
        let length = |bytes: usize| u32::try_from(bytes).expect("a frame stays below 4 GiB");
        let head_bytes = head.encoded_len();
        let mut first = BytesMut::with_capacity(LENGTHS + head_bytes);
        first.put_u32(length(head_bytes));
        first.put_u32(length(body.iter().map(Bytes::len).sum()));
        head.encode_raw(&mut first);
        let mut rope = Rope(VecDeque::with_capacity(body.len() + 1));
        rope.0.push_back(first.freeze());
        rope.0.extend(body.into_iter().filter(|bytes| !bytes.is_empty()));
        self.io.write_all_buf(&mut rope).await?;
        self.io.flush().await
    }
}

/// Slices that are written as if they were one. None is empty.
struct Rope(VecDeque<Bytes>);

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn has_remaining(&self) -> bool {
        !self.0.is_empty()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |bytes| bytes)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = self.0.iter().zip(slices.iter_mut());
        filled.map(|(bytes, slice)| *slice = IoSlice::new(bytes)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let first = self.0.front_mut().expect("no more than there is");
            if first.len() > count {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
