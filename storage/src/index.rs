//! The sparse index of one segment, by offset and by time, and the file beside the segment that keeps it
//! together with the producer state at the point up to which it was made.
//!
//! File layout (`<base>-<number>.index`), little-endian:
//!
//! ```text
//!   0   8  magic "SLINDEX1"
//!   8   4  CRC-32C of the rest
//!  12      postcard of `IndexFile`
//! ```
//!
//! The file is a cache: it is written when a segment is closed, at a clean stop and now and then in
//! between, never synced on its own, and rebuilt from the segment when it is missing, garbled or about
//! other bytes. Since a segment's bytes never change, an index of a prefix of it stays right.
//!
//! Invariants: offsets and positions of entries strictly increase; an entry's timestamp is the largest of
//! all batches before it.

use crate::disk::{Disk, OpenMode};
use crate::producers::Producers;
use crate::segment::Segment;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice};
use std::path::Path;
use strandline_record::{BatchHeader, Offset, crc32c};

const MAGIC: &[u8; 8] = b"SLINDEX1";
/// With so many entries every other one is dropped and the interval doubled: an index stays below 256 KiB.
const ENTRIES_MAX: usize = 16_384;
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Base offset of a batch - base offset of the segment.
    offset: u32,
    position: u32,
    /// Largest timestamp of the batches before this one.
    max_timestamp: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseIndex {
    base: Offset,
    interval_bytes: u32,
    entries: Vec<Entry>,
    max_timestamp: i64,
    /// Bytes of the segment that were taken in.
    covered: u64,
}

impl SparseIndex {
    pub fn new(base: Offset, interval_bytes: u32) -> Self {
        SparseIndex { base, interval_bytes, entries: Vec::new(), max_timestamp: -1, covered: 0 }
    }

    /// Takes in the next batch of the segment.
    pub fn append(&mut self, header: &BatchHeader) {
        let due = match self.entries.last() {
            Some(last) => self.covered - u64::from(last.position) >= u64::from(self.interval_bytes),
            None => self.covered >= u64::from(self.interval_bytes),
        };
        let offset = header.base_offset().get() - self.base.get();
        if let (true, Ok(offset), Ok(position)) = (due, u32::try_from(offset), u32::try_from(self.covered)) {
            if self.entries.len() == ENTRIES_MAX {
                let mut at = 0;
                self.entries.retain(|_| {
                    at += 1;
                    at % 2 == 0
                });
                self.interval_bytes = self.interval_bytes.saturating_mul(2);
            }
            self.entries.push(Entry { offset, position, max_timestamp: self.max_timestamp });
        }
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp());
        self.covered += header.size_in_bytes() as u64;
    }

    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// A batch boundary at or before the batch that holds `offset`: position and base offset.
    pub fn before_offset(&self, offset: Offset) -> (u64, Offset) {
        let after = self.entries.partition_point(|e| self.base.get() + i64::from(e.offset) <= offset.get());
        self.at(after)
    }

    /// A batch boundary at or before the first batch whose timestamp is at least `timestamp`.
    pub fn before_timestamp(&self, timestamp: i64) -> (u64, Offset) {
        self.at(self.entries.partition_point(|e| e.max_timestamp < timestamp))
    }

    /// Like [`SparseIndex::before_offset`], with the largest timestamp of the batches before it.
    pub fn before_offset_with_timestamp(&self, offset: Offset) -> (u64, Offset, i64) {
        let (position, base) = self.before_offset(offset);
        let found = self.entries.binary_search_by_key(&position, |e| u64::from(e.position));
        (position, base, found.map_or(-1, |at| self.entries[at].max_timestamp))
    }

    fn at(&self, after: usize) -> (u64, Offset) {
        match self.entries[..after].last() {
            Some(entry) => (u64::from(entry.position), self.base.plus(i64::from(entry.offset))),
            None => (0, self.base),
        }
    }

    fn is_sound(&self, segment: &Segment) -> bool {
        self.base == segment.base
            && self.entries.len() <= ENTRIES_MAX
            && self.entries.windows(2).all(|p| p[0].offset < p[1].offset && p[0].position < p[1].position)
            && self.entries.last().is_none_or(|e| u64::from(e.position) < self.covered)
    }

    /// Approximate size in memory.
    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + 64
    }
}

/// What an index file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFile {
    number: u32,
    pub index: SparseIndex,
    /// The offset up to which both were made.
    pub end: Offset,
    /// State after the batch before `end`; `None` when it was not at hand.
    pub producers: Option<Producers>,
}

/// Writes the index of all of `segment`'s bytes.
pub fn write(
    disk: &dyn Disk,
    path: &Path,
    segment: &Segment,
    index: &SparseIndex,
    producers: Option<&Producers>,
) -> io::Result<()> {
    assert_eq!(index.covered(), segment.bytes, "the index covers the segment");
    // The fields of `IndexFile`, in its order.
    let body =
        postcard::to_stdvec(&(segment.number, index, segment.end, producers)).map_err(io::Error::other)?;
    let file = disk.open(path, OpenMode::ReadWriteCreate)?;
    file.set_len(0)?;
    file.write_all_at(
        &[IoSlice::new(MAGIC), IoSlice::new(&crc32c(&body).to_le_bytes()), IoSlice::new(&body)],
        0,
    )
}

/// The index beside `segment`, if there is one that is intact and about a prefix of the segment's bytes.
pub fn read(disk: &dyn Disk, path: &Path, segment: &Segment) -> Option<IndexFile> {
    let bytes = disk.read_file(path, FILE_BYTES_MAX).ok()?;
    let body = bytes.strip_prefix(MAGIC)?;
    let (crc, body) = body.split_first_chunk::<4>()?;
    if crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let file: IndexFile = postcard::from_bytes(body).ok()?;
    let covered = file.index.covered();
    let prefix = covered <= segment.bytes
        && file.end <= segment.end
        && (covered == segment.bytes) == (file.end == segment.end);
    (file.number == segment.number && file.index.is_sound(segment) && prefix).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::batch_at;

    fn index(batches: i64, interval: u32) -> (SparseIndex, Vec<(u64, Offset, i64)>) {
        let mut index = SparseIndex::new(Offset(1000), interval);
        let mut all = vec![];
        for n in 0..batches {
            let header = BatchHeader::parse(&batch_at(1000 + n * 3, 3, n * 10)).unwrap();
            all.push((index.covered(), header.base_offset(), header.max_timestamp()));
            index.append(&header);
        }
        (index, all)
    }

    #[test]
    fn a_lookup_answers_a_batch_boundary_at_or_before_what_was_asked_and_near_it() {
        let (index, all) = index(500, 400);
        for (position, base, timestamp) in &all {
            let (at, offset) = index.before_offset(base.plus(1));
            assert!(all.iter().any(|(p, b, _)| (p, b) == (&at, &offset)));
            assert!(at <= *position && position - at <= 800);
            let (at, offset) = index.before_timestamp(*timestamp);
            assert!(all.iter().any(|(p, b, _)| (p, b) == (&at, &offset)));
            assert!(at <= *position && position - at <= 800);
        }
    }

    #[test]
    fn an_index_stays_bounded_however_long_the_segment_is() {
        let (index, all) = index(40_000, 1);
        assert!(index.entries.len() <= ENTRIES_MAX && index.entries.len() > ENTRIES_MAX / 4);
        for (position, base, _) in all.iter().step_by(997) {
            let (at, _) = index.before_offset(*base);
            assert!(at <= *position && position - at <= 8 * 200);
        }
    }
}
