//! Bytes of the Raft log.
//!
//! ```text
//!   segment  = header checkpoint-frame zeros to 512 │ frame frame …    file `<number, 20 digits>.raftlog`
//!   header   magic "STRNDRFT" 8 │ version u32 │ number u64 │ salt u64 │ crc32c u32 of what is before it
//!   frame    magic u32 │ payload bytes u32 │ lsn u64 │ crc32c u32 of (salt, bytes, lsn, payload) │ payload
//!   payload  record record …
//!   record   bytes u32 │ crc32c u32 │ postcard of `Record`
//! ```
//! All numbers are little endian. A frame is one group commit: it is written at once and synced before the next
//! one is written. So a bad frame with a good one behind it was durable once and is damage, while a bad frame at
//! the end may be a write that a power loss tore. Lsns count frames without gaps, across segments; the salt keeps
//! a stored command from passing for a frame. The first frame of each segment is a `Checkpoint`, so that the
//! segments before it can be removed.

use crate::types::{Entry, LogId, Vote};
use serde::{Deserialize, Serialize};
use std::io;

pub const SEGMENT_MAGIC: &[u8; 8] = b"STRNDRFT";
pub const VERSION: u32 = 1;
pub const SEGMENT_HEADER_BYTES: usize = 32;
/// Header and first frame, written and synced before anything is written behind them.
pub const FIRST_BLOCK_BYTES: usize = 512;
const FRAME_MAGIC: u32 = 0x5246_4C53;
pub const FRAME_HEADER_BYTES: usize = 20;
pub const RECORD_HEADER_BYTES: usize = 8;
/// Longer frames are neither written nor believed.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Record {
    /// What the segments before this one said besides entries.
    Checkpoint {
        vote: Option<Vote>,
        purged: Option<LogId>,
        committed: Option<LogId>,
    },
    Vote(Vote),
    Entry(Entry),
    /// Entries behind this one do not count any more (`None`: no entry does).
    TruncateAfter(Option<LogId>),
    /// Entries up to this one, inclusive, are in a snapshot and do not count any more.
    Purge(LogId),
    Committed(Option<LogId>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub number: u64,
    pub salt: u64,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.number.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = crc32c(&[&bytes[..28]]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` if these are not the bytes of a header; `Err` if it is one of another version.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, u32> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else { return Ok(None) };
        if &bytes[..8] != SEGMENT_MAGIC || u32_at(bytes, 28) != crc32c(&[&bytes[..28]]) {
            return Ok(None);
        }
        match u32_at(bytes, 8) {
            VERSION => Ok(Some(SegmentHeader { number: u64_at(bytes, 12), salt: u64_at(bytes, 20) })),
            other => Err(other),
        }
    }
}

/// A record with its length and checksum in front.
pub fn encode_record(record: &Record) -> Vec<u8> {
    let header = vec![0; RECORD_HEADER_BYTES];
    let mut bytes =
        postcard::to_extend(record, header).expect("a record has no value that postcard cannot encode");
    let length = u32::try_from(bytes.len() - RECORD_HEADER_BYTES).expect("commands are bounded");
    let checksum = crc32c(&[&bytes[RECORD_HEADER_BYTES..]]);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The record at the start of `bytes` and how many bytes it takes.
pub fn decode_record(bytes: &[u8]) -> io::Result<(Record, usize)> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("raft log record: {what}"));
    let header = bytes.get(..RECORD_HEADER_BYTES).ok_or_else(|| bad("cut off"))?;
    let end = RECORD_HEADER_BYTES + u32_at(header, 0) as usize;
    let body = bytes.get(RECORD_HEADER_BYTES..end).ok_or_else(|| bad("cut off"))?;
    if u32_at(header, 4) != crc32c(&[body]) {
        return Err(bad("checksum mismatch"));
    }
    let record = postcard::from_bytes(body).map_err(|e| bad(&e.to_string()))?;
    Ok((record, end))
}

pub fn encode_frame_header(salt: u64, lsn: u64, payload: &[&[u8]]) -> [u8; FRAME_HEADER_BYTES] {
    let length = payload.iter().map(|p| p.len()).sum::<usize>();
    assert!(length <= MAX_FRAME_BYTES, "a frame of {length} bytes");
    let mut bytes = [0; FRAME_HEADER_BYTES];
    bytes[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&lsn.to_le_bytes());
    let covered = bytes;
    let mut parts: Vec<&[u8]> = Vec::with_capacity(payload.len() + 2);
    let salt = salt.to_le_bytes();
    parts.push(&salt);
    parts.push(&covered[4..16]);
    parts.extend_from_slice(payload);
    bytes[16..].copy_from_slice(&crc32c(&parts).to_le_bytes());
    bytes
}

/// A whole, correct frame at the start of `bytes`: its lsn and payload.
pub fn decode_frame(salt: u64, bytes: &[u8]) -> Option<(u64, &[u8])> {
    let header = bytes.get(..FRAME_HEADER_BYTES)?;
    let length = u32_at(header, 4) as usize;
    if u32_at(header, 0) != FRAME_MAGIC || length > MAX_FRAME_BYTES {
        return None;
    }
    let payload = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length)?;
    let checksum = crc32c(&[&salt.to_le_bytes(), &header[4..16], payload]);
    (checksum == u32_at(header, 16)).then(|| (u64_at(header, 8), payload))
}

/// Where in `bytes` a correct frame with at least this lsn begins, at any position.
pub fn find_frame(salt: u64, bytes: &[u8], min_lsn: u64) -> Option<usize> {
    let magic = FRAME_MAGIC.to_le_bytes();
    (0..bytes.len().saturating_sub(FRAME_HEADER_BYTES - 1)).find(|&at| {
        bytes[at..at + 4] == magic && decode_frame(salt, &bytes[at..]).is_some_and(|(lsn, _)| lsn >= min_lsn)
    })
}

pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
