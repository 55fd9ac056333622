//! Frames: four bytes of length, then a request or an answer.
//!
//! Invariants: memory for a frame grows with the bytes that have arrived, never with the length that was
//! declared; what exceeds [`FREE`] is taken from a budget that all connections share, and while that is used up the
//! connection is not read; one that has sent no bytes of a frame holds no buffer; [`Frames::fill`] may be dropped
//! at any moment without losing a byte.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const LENGTH_BYTES: usize = 4;
/// A first piece; enough for most requests.
const PIECE_MIN: usize = 2 << 10;
/// As much is read at once at most.
const PIECE_MAX: usize = 1 << 20;
/// Bytes of a frame that every connection may hold without asking.
const FREE: usize = 64 << 10;
/// The shared budget is counted in units, so that it fits a semaphore.
const UNIT: usize = 4 << 10;
/// Slices handed to one write.
const SLICES: usize = 64;

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the client closed the connection")]
    Closed,
    #[error("a frame of {declared} bytes, {limit} are allowed")]
    TooLarge { declared: i64, limit: usize },
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Memory for the larger frames of all connections.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    pub fn new(bytes: usize) -> Self {
        Budget(Arc::new(Semaphore::new((bytes / UNIT).clamp(1, u32::MAX as usize / 2))))
    }
}

/// A part of the budget, until it is dropped.
pub type Held = Option<OwnedSemaphorePermit>;

/// The reading end of a connection.
pub struct Frames<R> {
    io: R,
    buffer: BytesMut,
    limit: usize,
    budget: Budget,
    /// For what `buffer` has beyond [`FREE`].
    held: Held,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Frames of more than `limit` bytes are refused.
    pub fn new(io: R, limit: usize, budget: Budget) -> Self {
        Frames { io, buffer: BytesMut::new(), limit, budget, held: None }
    }

    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether some bytes of a frame are here, and not all.
    pub fn is_inside(&self) -> bool {
        !self.buffer.is_empty() && !self.is_ready()
    }

    /// Whether [`Frames::take`] has something to give.
    pub fn is_ready(&self) -> bool {
        self.declared().is_ok_and(|len| len.is_some_and(|len| self.buffer.len() >= LENGTH_BYTES + len))
    }

    fn declared(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let declared = i32::from_be_bytes(*length);
        match usize::try_from(declared) {
            Ok(len) if len <= self.limit => Ok(Some(len)),
            _ => Err(FrameError::TooLarge { declared: i64::from(declared), limit: self.limit }),
        }
    }

    /// Bytes of the next frame that are here.
    pub fn received(&self) -> usize {
        self.buffer.len()
    }

    /// Reads until a whole frame is here. What was read stays when the call is dropped.
    pub async fn fill(&mut self) -> Result<(), FrameError> {
        while !self.read_some().await? {}
        Ok(())
    }

    /// Reads what there is, if a whole frame is not here yet; answers whether it is now. What was read stays when
    /// the call is dropped.
    pub async fn read_some(&mut self) -> Result<bool, FrameError> {
        let missing = match self.declared()? {
            None => PIECE_MIN,
            Some(len) if self.buffer.len() >= LENGTH_BYTES + len => return Ok(true),
            Some(len) => LENGTH_BYTES + len - self.buffer.len(),
        };
        // As much again as is here already: what is reserved has been earned.
        let room = missing.min(self.buffer.len().clamp(PIECE_MIN, PIECE_MAX));
        self.hold(self.buffer.len() + room).await;
        self.buffer.reserve(room);
        if self.io.read_buf(&mut self.buffer).await? == 0 {
            return Err(FrameError::Closed);
        }
        Ok(self.declared()?.is_some_and(|len| self.buffer.len() >= LENGTH_BYTES + len))
    }

    /// Waits until the budget has room for so many bytes of this connection.
    async fn hold(&mut self, bytes: usize) {
        let wanted = bytes.saturating_sub(FREE).div_ceil(UNIT);
        let more = wanted.saturating_sub(self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more == 0 {
            return;
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let more = self.budget.0.clone().acquire_many_owned(more).await.expect("the budget is never closed");
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
    }

    /// The next frame without its length, if it is here, and its part of the budget.
    pub fn take(&mut self) -> Option<(Bytes, Held)> {
        if !self.is_ready() {
            return None;
        }
        let len = self.declared().ok().flatten()?;
        let mut frame = self.buffer.split_to(LENGTH_BYTES + len);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Some((frame.split_off(LENGTH_BYTES).freeze(), self.held.take()))
    }
}

/// An answer: pieces that lie one behind another on the wire. Record bytes are pieces of their own.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pieces: Vec<Bytes>,
}

impl Answer {
    /// `first` begins with four bytes in which the length is filled in.
    pub fn new(mut first: BytesMut, others: Vec<Bytes>) -> Self {
        let total = first.len() - LENGTH_BYTES + others.iter().map(Bytes::len).sum::<usize>();
        let total = u32::try_from(total).expect("answers are bounded");
        first[..LENGTH_BYTES].copy_from_slice(&total.to_be_bytes());
        let mut pieces = vec![first.freeze()];
        pieces.extend(others);
        Answer { pieces }
    }

    /// Room for the length that [`Answer::new`] fills in.
    pub fn begin() -> BytesMut {
        BytesMut::from(&[0; LENGTH_BYTES][..])
    }

    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }
}

/// Writes an answer whole. A client that takes no byte for `stall` is given up.
pub async fn write<W: AsyncWrite + Unpin>(io: &mut W, answer: Answer, stall: Duration) -> io::Result<()> {
    let mut pieces: VecDeque<Bytes> = answer.pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces.iter().take(SLICES).map(|piece| IoSlice::new(piece)).collect();
        let written = tokio::time::timeout(stall, io.write_vectored(&slices)).await;
        let mut written = written.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes of its answers")
        })??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = pieces.front_mut() {
            if written < first.len() {
                bytes::Buf::advance(first, written);
                break;
            }
            written -= first.len();
            pieces.pop_front();
        }
    }
    io.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        runtime().block_on(async {
            let (mut client, server) = tokio::io::duplex(7);
            let mut frames = Frames::new(server, 100, Budget::new(UNIT));
            let sent = tokio::spawn(async move {
                for body in [&b"first"[..], b"", b"the third one"] {
                    client.write_all(&(body.len() as u32).to_be_bytes()).await.unwrap();
                    client.write_all(body).await.unwrap();
                }
            });
            for body in [&b"first"[..], b"", b"the third one"] {
                frames.fill().await.unwrap();
                assert_eq!(frames.take().unwrap().0, body);
            }
            sent.await.unwrap();
            assert!(matches!(frames.fill().await, Err(FrameError::Closed)));
        });
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_and_reserves_nothing() {
        runtime().block_on(async {
            for declared in [101i32, i32::MAX, -1] {
                let (mut client, server) = tokio::io::duplex(64);
                let mut frames = Frames::new(server, 100, Budget::new(UNIT));
                client.write_all(&declared.to_be_bytes()).await.unwrap();
                assert!(matches!(frames.fill().await, Err(FrameError::TooLarge { .. })));
                assert!(frames.buffer.capacity() <= 2 * PIECE_MIN);
            }
        });
    }

    #[test]
    fn a_large_declared_length_reserves_only_what_arrived_again() {
        runtime().block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let mut frames = Frames::new(server, 1 << 30, Budget::new(UNIT));
            client.write_all(&(1i32 << 29).to_be_bytes()).await.unwrap();
            client.write_all(&[1; 10_000]).await.unwrap();
            let wait = frames.fill();
            assert!(tokio::time::timeout(Duration::from_millis(20), wait).await.is_err());
            assert!(frames.is_inside());
            assert!(frames.buffer.capacity() < 64 << 10, "{}", frames.buffer.capacity());
        });
    }

    #[test]
    fn large_frames_share_a_budget_and_wait_for_it() {
        runtime().block_on(async {
            let budget = Budget::new(200 << 10);
            let large = async |budget: &Budget| {
                let (mut client, server) = tokio::io::duplex(1 << 20);
                client.write_all(&(200i32 << 10).to_be_bytes()).await.unwrap();
                client.write_all(&vec![1; 200 << 10]).await.unwrap();
                (client, Frames::new(server, 1 << 20, budget.clone()))
            };
            let ((_a, mut first), (_b, mut second)) = (large(&budget).await, large(&budget).await);
            first.fill().await.unwrap();
            let held = first.take().unwrap();
            let waits = tokio::time::timeout(Duration::from_millis(20), second.fill()).await;
            assert!(waits.is_err() && second.is_inside());
            drop(held);
            second.fill().await.unwrap();
            assert_eq!(second.take().unwrap().0.len(), 200 << 10);
        });
    }

    #[test]
    fn an_answer_is_written_in_pieces_with_its_length_in_front() {
        runtime().block_on(async {
            let (client, mut server) = tokio::io::duplex(3);
            let (mut client, _) = tokio::io::split(client);
            let mut first = Answer::begin();
            first.extend_from_slice(b"head");
            let answer = Answer::new(first, vec![Bytes::from_static(b"records"), Bytes::new()]);
            let written = tokio::spawn(async move { write(&mut server, answer, STALL).await });
            let mut got = vec![0; 15];
            client.read_exact(&mut got).await.unwrap();
            written.await.unwrap().unwrap();
            assert_eq!(got, [&11u32.to_be_bytes()[..], b"head", b"records"].concat());
        });
    }
}
