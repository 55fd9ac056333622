//! One file of a log: whole batches back to back, and nothing else. Beside it may lie its index (see
//! [`crate::index`]), which can always be rebuilt from it.
//!
//! Names: `logs/<topic id>-<partition>/<base offset>-<number>.log`. The number counts the files of a log
//! and never repeats, because a truncation does not write over a file but goes on in a new one, which may
//! have the same base offset as one that was there before. Files that compaction wrote are counted apart, from
//! [`COMPACTED`] on.
//!
//! Invariants: a file's bytes below its logical length are never changed; a logical length that was cut
//! never grows again (the segment is closed).

use crate::disk::DiskFile;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use strandline_record::{
    BatchHeader, BatchLimits, HEADER_BYTES, Offset, PartitionId, TopicId, TopicPartition, validate_batch,
};

/// Directory of the logs, below the store's.
pub const LOGS: &str = "logs";
/// Directory of what metadata does not know.
pub const ORPHANED: &str = "orphaned";
/// Files that compaction wrote have numbers from here on, all others lower ones. A number has 8 digits.
pub const COMPACTED: u32 = 50_000_000;
/// Above every number.
pub const NUMBERS_END: u32 = 100_000_000;
/// Read at once when a segment is scanned.
const SCAN_BYTES: usize = 128 << 10;

/// What is known of one file, as checkpoints have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Offset of its first record.
    pub base: Offset,
    pub number: u32,
    /// Logical length: what lies beyond it in the file is not part of the log.
    pub bytes: u64,
    /// Exclusive; equals `base` while it is empty.
    pub end: Offset,
    /// Largest batch timestamp, -1 when there is none.
    pub max_timestamp: i64,
    /// When its first and its newest batch were appended, ms since the Unix epoch.
    pub first_append_ms: i64,
    pub newest_append_ms: i64,
    /// Nothing is appended any more.
    pub closed: bool,
}

impl Segment {
    pub fn new(base: Offset, number: u32, now_ms: i64) -> Self {
        Segment {
            base,
            number,
            bytes: 0,
            end: base,
            max_timestamp: -1,
            first_append_ms: now_ms,
            newest_append_ms: now_ms,
            closed: false,
        }
    }

    /// Takes in a batch that was written at its end.
    pub fn append(&mut self, header: &BatchHeader, now_ms: i64) {
        assert_eq!(header.base_offset(), self.end, "batches are contiguous");
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp());
        if self.bytes == 0 {
            self.first_append_ms = now_ms;
        }
        self.newest_append_ms = self.newest_append_ms.max(now_ms);
        self.bytes += header.size_in_bytes() as u64;
        self.end = header.next_offset();
    }

    /// What must hold of one that was read from disk.
    pub fn is_sound(&self) -> bool {
        self.base.get() >= 0
            && self.base <= self.end
            && (self.bytes == 0) == (self.base == self.end)
            && self.bytes <= i64::MAX as u64
            && self.number < u32::MAX
    }
}

/// The name of a log's directory.
pub fn log_dir_name(tp: TopicPartition) -> String {
    format!("{}-{}", tp.topic.0.simple(), tp.partition)
}

/// The log that a directory of this name belongs to.
pub fn parse_log_dir(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.split_once('-')?;
    let topic = TopicId(uuid::Uuid::try_parse(topic).ok()?);
    let tp = TopicPartition { topic, partition: PartitionId(partition.parse().ok()?) };
    (log_dir_name(tp) == name).then_some(tp)
}

pub fn log_dir(root: &Path, tp: TopicPartition) -> PathBuf {
    root.join(LOGS).join(log_dir_name(tp))
}

pub fn segment_name(base: Offset, number: u32) -> String {
    format!("{:020}-{number:08}.log", base.get())
}

pub fn index_name(base: Offset, number: u32) -> String {
    format!("{:020}-{number:08}.index", base.get())
}

/// Base offset and number of a segment file or its index.
pub fn parse_segment_name(name: &str) -> Option<(Offset, u32)> {
    let stem = name.strip_suffix(".log").or_else(|| name.strip_suffix(".index"))?;
    let (base, number) = stem.split_once('-')?;
    if base.len() != 20 || number.len() != 8 {
        return None;
    }
    Some((Offset(base.parse().ok()?), number.parse().ok()?))
}

/// Why a scan ended before the end it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadBatch {
    pub position: u64,
    pub reason: String,
}

/// Walks the batches of a file between two positions. Checks that they are contiguous, and with
/// `checksums` that they are intact; without it, only headers are read of batches that are large.
pub struct Scanner<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    expected: Offset,
    checksums: bool,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    buffered_at: u64,
}

impl<'a> Scanner<'a> {
    /// `position` must be a batch boundary where `expected` begins.
    pub fn new(file: &'a dyn DiskFile, position: u64, end: u64, expected: Offset, checksums: bool) -> Self {
        Scanner { file, position, end, expected, checksums, buffer: Vec::new(), buffered_at: 0 }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Makes `len` bytes at the position available, or as many as there are.
    fn fill(&mut self, len: usize) -> io::Result<&[u8]> {
        let within = self.position.checked_sub(self.buffered_at).and_then(|at| usize::try_from(at).ok());
        let available = within.map_or(0, |at| self.buffer.len().saturating_sub(at));
        if available < len {
            let want = (self.end - self.position).min(len.max(SCAN_BYTES) as u64) as usize;
            self.buffer.resize(want, 0);
            let mut filled = 0;
            while filled < want {
                match self.file.read_at(&mut self.buffer[filled..], self.position + filled as u64)? {
                    0 => break,
                    read => filled += read,
                }
            }
            self.buffer.truncate(filled);
            self.buffered_at = self.position;
        }
        Ok(&self.buffer[(self.position - self.buffered_at) as usize..])
    }

    /// The bytes of the batch that was given last, where checksums are looked at.
    pub fn batch_bytes(&self, position: u64, size: usize) -> &[u8] {
        let at = (position - self.buffered_at) as usize;
        &self.buffer[at..at + size]
    }

    fn batch(&mut self) -> io::Result<Result<BatchHeader, String>> {
        let left = self.end - self.position;
        let header = match BatchHeader::parse(self.fill(HEADER_BYTES)?) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let size = header.size_in_bytes();
        if size as u64 > left {
            return Ok(Err(format!("a batch of {size} bytes where {left} are left")));
        }
        if header.base_offset() != self.expected {
            return Ok(Err(format!("offset {} where {} is due", header.base_offset(), self.expected)));
        }
        if self.checksums {
            let bytes = self.fill(size)?;
            let Some(bytes) = bytes.get(..size) else {
                return Ok(Err("the file ends inside a batch".to_owned()));
            };
            if let Err(error) = validate_batch(bytes, BatchLimits::log(usize::MAX)) {
                return Ok(Err(error.to_string()));
            }
        }
        Ok(Ok(header))
    }

    /// The next batch and its position; `None` at the end.
    pub fn next_batch(&mut self) -> io::Result<Option<Result<(u64, BatchHeader), BadBatch>>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        Ok(Some(match self.batch()? {
            Ok(header) => {
                self.position += header.size_in_bytes() as u64;
                self.expected = header.next_offset();
                Ok((position, header))
            }
            Err(reason) => Err(BadBatch { position, reason }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let tp = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(7)), partition: PartitionId(3) };
        assert_eq!(parse_log_dir(&log_dir_name(tp)), Some(tp));
        assert_eq!(parse_log_dir("lost+found"), None);
        assert_eq!(parse_log_dir(&log_dir_name(tp).replace("7-3", "7-03")), None);
        assert_eq!(parse_segment_name(&segment_name(Offset(42), 9)), Some((Offset(42), 9)));
        assert_eq!(parse_segment_name(&index_name(Offset(42), 9)), Some((Offset(42), 9)));
        assert_eq!(parse_segment_name("42-9.log"), None);
    }
}
