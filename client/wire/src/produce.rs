//! Produce requests on gRPC without a copy of their batches. tonic gathers a message into one buffer before it is
//! sent and after it was received, which for a message that is nearly all record bytes costs as much as the rest of its
//! way. Here the batches stay where they are: [`pieces`] puts them between the few bytes of protobuf that stand around
//! them, [`Requests`] slices them out of the DATA frames that they came in.
//!
//! On the wire it is gRPC as everybody speaks it, `ProduceRequest` behind its five-byte prefix:
//!
//! ```text
//!  offset size
//!       0    1  compressed flag: 0, requests are never compressed (their batches may be)
//!       1    4  length of the message, big-endian
//!       5       the message: protobuf, cut anywhere into DATA frames
//! ```
//!
//! Invariants: what is kept is bounded by the largest message and one DATA frame; a message is decoded once all of it is
//! there; however it was cut, the same requests come out.

use crate::v1::{ProducePartition, ProduceRequest};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{self, WireType};
use std::collections::VecDeque;
use tonic::Status;

/// Where produce streams are served.
pub const PATH: &str = "/strandline.v1.Strandline/Produce";

/// Largest message that a broker takes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Largest batch that fits into a request of its own, with room for what stands around it.
pub const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;

const PREFIX: usize = 5;
/// Fields of the .proto file.
const PARTITIONS: u32 = 4;
const BATCHES: u32 = 4;

/// The message with its prefix, in pieces: a batch is a piece of its own.
pub fn pieces(request: ProduceRequest) -> VecDeque<Bytes> {
    let batches: Vec<Bytes> = request.partitions.iter().map(|p| p.batches.clone()).collect();
    let mut head = request;
    let partitions: Vec<ProducePartition> = std::mem::take(&mut head.partitions)
        .into_iter()
        .map(|partition| ProducePartition { batches: Bytes::new(), ..partition })
        .collect();
    let field =
        |tag: u32, size: usize| encoding::key_len(tag) + encoding::encoded_len_varint(size as u64) + size;
    // An empty field is not written at all.
    let batch_field = |batch: &Bytes| if batch.is_empty() { 0 } else { field(BATCHES, batch.len()) };
    let sizes: Vec<usize> =
        partitions.iter().zip(&batches).map(|(p, batch)| p.encoded_len() + batch_field(batch)).collect();
    let total = head.encoded_len() + sizes.iter().map(|size| field(PARTITIONS, *size)).sum::<usize>();

    let mut pieces = VecDeque::with_capacity(2 * batches.len() + 1);
    let mut out = BytesMut::with_capacity(PREFIX + head.encoded_len() + 64 * batches.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(total).expect("a request stays below 4 GiB"));
    head.encode_raw(&mut out);
    for ((partition, size), batch) in partitions.iter().zip(sizes).zip(batches) {
        encoding::encode_key(PARTITIONS, WireType::LengthDelimited, &mut out);
        encoding::encode_varint(size as u64, &mut out);
        partition.encode_raw(&mut out);
        if !batch.is_empty() {
            encoding::encode_key(BATCHES, WireType::LengthDelimited, &mut out);
            encoding::encode_varint(batch.len() as u64, &mut out);
            pieces.push_back(out.split().freeze());
            pieces.push_back(batch);
        }
    }
    if !out.is_empty() {
        pieces.push_back(out.freeze());
    }
    pieces
}

/// Received and not yet decoded.
#[derive(Debug, Default)]
struct Received {
    frames: VecDeque<Bytes>,
    len: usize,
}

impl Received {
    fn push(&mut self, frame: Bytes) {
        self.len += frame.len();
        if !frame.is_empty() {
            self.frames.push_back(frame);
        }
    }
}

impl Buf for Received {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.frames.front().map_or(&[], |frame| frame)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "no more than there is");
        self.len -= count;
        while count > 0 {
            let first = self.frames.front_mut().expect("as many bytes as were counted");
            if first.len() > count {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.frames.pop_front();
        }
    }

    /// A slice where one frame holds all of it.
    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        assert!(count <= self.len, "no more than there is");
        match self.frames.front_mut() {
            Some(first) if first.len() > count => {
                self.len -= count;
                first.split_to(count)
            }
            Some(first) if first.len() == count => {
                self.len -= count;
                self.frames.pop_front().expect("it was just looked at")
            }
            _ => {
                let mut joined = BytesMut::with_capacity(count);
                joined.put(self.take(count));
                joined.freeze()
            }
        }
    }
}

/// Takes requests out of a produce stream's DATA frames.
#[derive(Debug)]
pub struct Requests {
    /// The largest message that is taken.
    limit: usize,
    received: Received,
    /// Length of the message that is being received.
    message: Option<usize>,
}

impl Requests {
    pub fn new(limit: usize) -> Self {
        Requests { limit, received: Received::default(), message: None }
    }

    /// Takes in the next DATA frame. To be called only when there is no request to [`take`](Self::take).
    pub fn push(&mut self, frame: Bytes) {
        self.received.push(frame);
    }

    /// Whether the stream may end here.
    pub fn is_between(&self) -> bool {
        self.message.is_none() && !self.received.has_remaining()
    }

    /// A request, if all of it has been received.
    pub fn take(&mut self) -> Result<Option<ProduceRequest>, Status> {
        let length = match self.message {
            Some(length) => length,
            None => {
                if self.received.remaining() < PREFIX {
                    return Ok(None);
                }
                if self.received.get_u8() != 0 {
                    return Err(Status::unimplemented("compressed messages are not taken"));
                }
                let length = self.received.get_u32() as usize;
                if length > self.limit {
                    let limit = self.limit;
                    let what = format!("a message of {length} bytes, at most {limit} are taken");
                    return Err(Status::out_of_range(what));
                }
                *self.message.insert(length)
            }
        };
        if self.received.remaining() < length {
            return Ok(None);
        }
        self.message = None;
        let request = ProduceRequest::decode((&mut self.received).take(length))
            .map_err(|error| Status::invalid_argument(format!("not a message: {error}")))?;
        Ok(Some(request))
    }
}

#[cfg(test)]
#[path = "produce_tests.rs"]
mod tests;
