//! Reading: from memory at the tail, else from a segment, whole batches either way. What comes from a file
//! is checked; the first batch that is not intact marks the log as damaged from there.

use super::state::{closed_index, is_lost, open_segment};
use super::{Health, Inner, PartitionLog, Trouble};
use crate::cache::CachedBatch;
use crate::disk::DiskFile;
use crate::epochs::EpochCache;
use crate::error::ReadError;
use crate::segment::{Scanner, Segment};
use crate::store::Shared;
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use strandline_record::{
    BatchHeader, BatchLimits, DecodeLimits, HEADER_BYTES, Offset, SharedBatchIter, TopicPartition,
    decode_verified_batch, validate_batch,
};

/// Read at least, when looking for a batch behind an index entry.
const READ_BYTES_MIN: usize = 16 << 10;
/// Records of a batch are decompressed up to this size to find a timestamp; beyond, the batch is answered.
const DECOMPRESSED_MAX: usize = 256 << 20;
/// A read that a truncation or a retention got in the way of begins again.
const ATTEMPTS: usize = 4;

/// What a read gives: whole batches, back to back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatches {
    /// Empty at the log end, and when the first batch is not wholly below the bound or is larger than what
    /// was asked for.
    pub bytes: Bytes,
    /// Offset of the first batch, which may lie before the offset that was asked for; that one if empty.
    pub base_offset: Offset,
    /// Where to read on.
    pub next_offset: Offset,
}

impl ReadBatches {
    fn none(from: Offset) -> Self {
        ReadBatches { bytes: Bytes::new(), base_offset: from, next_offset: from }
    }
}

/// What to take: at most `max_bytes`, or one batch if it must be, wholly below `upto`.
#[derive(Clone, Copy)]
struct Want {
    from: Offset,
    max_bytes: usize,
    min_one_batch: bool,
    upto: Offset,
}

impl Want {
    fn takes(&self, taken: usize, size: usize, end: Offset) -> bool {
        end <= self.upto && (taken + size <= self.max_bytes || taken == 0 && self.min_one_batch)
    }
}

/// Where in a file to begin, found under the lock.
struct Plan {
    segment: Segment,
    position: u64,
    offset: Offset,
    file: Arc<dyn DiskFile>,
    truncations: u64,
    log_start: Offset,
    epochs: EpochCache,
}

impl Plan {
    /// Whether these bytes are the batch that is due. Offset and epoch lie outside the checksum.
    fn is_intact(&self, header: &BatchHeader, bytes: Option<&[u8]>, expected: Offset) -> bool {
        header.base_offset() == expected
            && self.epochs.at(expected.max(self.log_start)) == Some(header.leader_epoch())
            && bytes.is_some_and(|bytes| validate_batch(bytes, BatchLimits::log(usize::MAX)).is_ok())
    }
}

enum Source {
    Cache(Vec<CachedBatch>),
    File(Plan),
}

/// What a read found; perhaps no batch, where the first is too large or not wholly below the bound.
enum Found {
    Nothing,
    Cached(Vec<CachedBatch>),
    InFile(ReadBatches),
}

impl PartitionLog {
    /// Reads from the batch that holds `from`. Takes whole batches only, those whose records all lie below
    /// `upto` (the high watermark for consumers, the log end for followers), at most `max_bytes` of them, or one
    /// that is larger with `min_one_batch`. May stop before `max_bytes` at the end of a segment.
    pub fn read(
        self: &Arc<Self>,
        from: Offset,
        max_bytes: usize,
        min_one_batch: bool,
        upto: Offset,
    ) -> Result<ReadBatches, ReadError> {
        self.find(Want { from, max_bytes, min_one_batch, upto }).map(|found| match found {
            Found::Nothing => ReadBatches::none(from),
            Found::Cached(batches) => joined(from, batches),
            Found::InFile(read) => read,
        })
    }

    /// Like [`read`](Self::read), at least one batch, but those that are in memory are not copied together: what
    /// comes are whole batches back to back in one slice or in several, of which none is empty.
    pub fn read_slices(
        self: &Arc<Self>,
        from: Offset,
        max_bytes: usize,
        upto: Offset,
    ) -> Result<Vec<Bytes>, ReadError> {
        self.find(Want { from, max_bytes, min_one_batch: true, upto }).map(|found| match found {
            Found::Nothing => Vec::new(),
            Found::Cached(batches) => batches.into_iter().map(|batch| batch.bytes).collect(),
            Found::InFile(read) => Some(read.bytes).filter(|bytes| !bytes.is_empty()).into_iter().collect(),
        })
    }

    fn find(self: &Arc<Self>, want: Want) -> Result<Found, ReadError> {
        for _ in 0..ATTEMPTS {
            let plan = {
                let mut inner = self.lock();
                inner.check_readable(want.from)?;
                if want.from == inner.end
                    || want.upto <= want.from
                    || want.max_bytes == 0 && !want.min_one_batch
                {
                    return Ok(Found::Nothing);
                }
                match inner.source(&self.shared, self.tp, &want) {
                    Ok(Source::Cache(batches)) => return Ok(Found::Cached(batches)),
                    Ok(Source::File(plan)) => plan,
                    Err(trouble) => return Err(self.read_trouble(&mut inner, trouble)),
                }
            };
            let read = read_file(&plan, &want);
            if matches!(read, Ok(Some(_))) && self.lock().truncations == plan.truncations {
                return Ok(Found::InFile(read.ok().flatten().expect("it was just matched")));
            }
            let mut inner = self.lock();
            // A file that was cut or removed meanwhile says nothing about damage.
            if inner.truncations == plan.truncations && inner.lists(&plan.segment) {
                match read {
                    Err(trouble) => return Err(self.read_trouble(&mut inner, trouble)),
                    Ok(Some(read)) => return Ok(Found::InFile(read)),
                    Ok(None) => return Err(self.read_trouble(&mut inner, Trouble::Damaged(plan.offset))),
                }
            }
        }
        Err(ReadError::Failed("the log kept changing under the read".to_owned()))
    }

    /// Offset and timestamp of the first record whose timestamp is at least `timestamp_ms`. The caller hides
    /// what lies above the high watermark.
    pub fn offset_for_timestamp(
        self: &Arc<Self>,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, ReadError> {
        let start = {
            let mut inner = self.lock();
            inner.check_readable(inner.start)?;
            let found = inner.before_timestamp(&self.shared, self.tp, timestamp_ms);
            match found.map_err(|trouble| self.read_trouble(&mut inner, trouble))? {
                Some(offset) => offset.max(inner.start),
                None => return Ok(None),
            }
        };
        let log_start = self.log_start();
        let mut from = start;
        loop {
            let read = self.read(from, 1 << 20, true, self.log_end())?;
            if read.bytes.is_empty() {
                return Ok(None);
            }
            for (header, batch) in SharedBatchIter::new(read.bytes).flatten() {
                if header.max_timestamp() >= timestamp_ms
                    && let Some(found) = first_at_least(header, batch, timestamp_ms, log_start)
                {
                    return Ok(Some(found));
                }
            }
            from = read.next_offset;
        }
    }

    /// Offset and timestamp of the first record with the largest timestamp (KIP-734).
    pub fn max_timestamp(self: &Arc<Self>) -> Result<Option<(Offset, i64)>, ReadError> {
        let largest = self.lock().segments.iter().map(|segment| segment.max_timestamp).max();
        match largest {
            Some(largest) if largest >= 0 => self.offset_for_timestamp(largest),
            _ => Ok(None),
        }
    }

    pub(super) fn read_trouble(self: &Arc<Self>, inner: &mut Inner, trouble: Trouble) -> ReadError {
        match trouble {
            Trouble::Damaged(from) => {
                self.note_damage(inner, from);
                ReadError::Damaged { from: inner.damaged.unwrap_or(from) }
            }
            Trouble::Full => ReadError::Failed("no space".to_owned()),
            Trouble::Io(error) => ReadError::Failed(error.to_string()),
        }
    }
}

/// One batch of a read as it is, several copied together.
fn joined(from: Offset, batches: Vec<CachedBatch>) -> ReadBatches {
    let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return ReadBatches::none(from) };
    let (base_offset, next_offset) = (first.base, last.end);
    let bytes = if batches.len() == 1 {
        first.bytes.clone()
    } else {
        let mut bytes = BytesMut::with_capacity(batches.iter().map(|batch| batch.bytes.len()).sum());
        batches.iter().for_each(|batch| bytes.extend_from_slice(&batch.bytes));
        bytes.freeze()
    };
    ReadBatches { bytes, base_offset, next_offset }
}

/// The first record of a batch at or after `log_start` whose timestamp is at least `timestamp`.
fn first_at_least(
    header: BatchHeader,
    batch: Bytes,
    timestamp: i64,
    log_start: Offset,
) -> Option<(Offset, i64)> {
    let limits = DecodeLimits { max_decompressed_bytes: DECOMPRESSED_MAX };
    let Ok(decoded) = decode_verified_batch(batch, limits) else {
        // The producer wrote something that cannot be opened; the batch is the best answer there is.
        return Some((header.base_offset().max(log_start), header.max_timestamp()));
    };
    let mut records = decoded.iter().filter_map(Result::ok);
    records
        .find(|record| record.timestamp_ms >= timestamp && record.offset >= log_start)
        .map(|record| (record.offset, record.timestamp_ms))
}

/// Reads and checks batches. `None`: the segment ends before the offset.
fn read_file(plan: &Plan, want: &Want) -> Result<Option<ReadBatches>, Trouble> {
    let (mut position, mut expected) = (plan.position, plan.offset);
    // The last batch that was skipped by its header alone, which may be what is wrong.
    let mut skipped = expected;
    let mut len = want.max_bytes.clamp(READ_BYTES_MIN, 64 << 20);
    loop {
        let left = plan.segment.bytes - position;
        if left == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; (left.min(len as u64)) as usize];
        match plan.file.read_exact_at(&mut buffer, position) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return find_end(plan, position, expected).map(|_| None);
            }
            Err(error) => return Err(error.into()),
        }
        // Skip what lies before the batch that holds `from`.
        let mut at = 0;
        let header = loop {
            let rest = &buffer[at..];
            if rest.len() < HEADER_BYTES.min((left as usize).saturating_sub(at)) || rest.is_empty() {
                break None;
            }
            let header = BatchHeader::parse(rest).map_err(|_| Trouble::Damaged(skipped))?;
            let fits =
                header.size_in_bytes() as u64 <= left - at as u64 && header.next_offset() <= plan.segment.end;
            if header.base_offset() != expected || !fits {
                return Err(Trouble::Damaged(skipped));
            }
            if header.next_offset() > want.from {
                break Some(header);
            }
            skipped = header.base_offset();
            expected = header.next_offset();
            at += header.size_in_bytes();
            if at >= buffer.len() {
                break None;
            }
        };
        let Some(first) = header else {
            // What is left of the buffer, if anything, begins a header that goes on behind it.
            position += at as u64;
            continue;
        };
        let size = first.size_in_bytes();
        if !want.takes(0, size, first.next_offset()) {
            return Ok(Some(ReadBatches::none(want.from)));
        }
        if buffer.len() - at < size {
            position += at as u64;
            len = size.max(READ_BYTES_MIN);
            continue;
        }
        let (begin, base_offset) = (at, expected);
        while at < buffer.len() {
            let Ok(header) = BatchHeader::parse(&buffer[at..]) else {
                if buffer.len() - at < HEADER_BYTES && (buffer.len() as u64) < left {
                    break;
                }
                return partial(&buffer, begin, at, base_offset, expected);
            };
            let size = header.size_in_bytes();
            if buffer.len() - at < size && size as u64 <= left - at as u64 {
                break;
            }
            if !want.takes(at - begin, size, header.next_offset()) {
                break;
            }
            let intact = plan.is_intact(&header, buffer.get(at..at + size), expected);
            if !intact {
                return partial(&buffer, begin, at, base_offset, expected);
            }
            at += size;
            expected = header.next_offset();
        }
        let bytes = Bytes::from(buffer).slice(begin..at);
        return Ok(Some(ReadBatches { bytes, base_offset, next_offset: expected }));
    }
}

/// The intact batches in front of a damaged one; the damage itself once a read begins there.
fn partial(
    buffer: &[u8],
    begin: usize,
    at: usize,
    base_offset: Offset,
    next_offset: Offset,
) -> Result<Option<ReadBatches>, Trouble> {
    if at == begin {
        return Err(Trouble::Damaged(next_offset));
    }
    let bytes = Bytes::copy_from_slice(&buffer[begin..at]);
    Ok(Some(ReadBatches { bytes, base_offset, next_offset }))
}

/// The file is shorter than it must be: where do its batches end?
fn find_end(plan: &Plan, position: u64, expected: Offset) -> Result<(), Trouble> {
    let mut offset = expected;
    let mut scanner = Scanner::new(&*plan.file, position, plan.segment.bytes, expected, true);
    while let Some(next) = scanner.next_batch()? {
        match next {
            Ok((_, header)) => offset = header.next_offset(),
            Err(_) => return Err(Trouble::Damaged(offset)),
        }
    }
    Ok(())
}

impl Inner {
    pub(super) fn check_readable(&self, from: Offset) -> Result<(), ReadError> {
        if self.health == Health::Deleted {
            return Err(ReadError::Deleted);
        }
        if let Some(from) = self.damaged {
            return Err(ReadError::Damaged { from });
        }
        if from < self.start || from > self.end {
            return Err(ReadError::OutOfRange { log_start: self.start, log_end: self.end });
        }
        Ok(())
    }

    fn lists(&self, segment: &Segment) -> bool {
        self.segments.iter().any(|listed| listed.number == segment.number)
    }

    fn segment_of(&self, offset: Offset) -> Option<Segment> {
        let at = self.segments.partition_point(|segment| segment.end <= offset);
        self.segments.get(at).copied()
    }

    fn source(&mut self, shared: &Shared, tp: TopicPartition, want: &Want) -> Result<Source, Trouble> {
        if let Some(batches) = self.cache.from(want.from) {
            let mut taken = 0;
            let mut chosen = Vec::new();
            for batch in batches {
                if !want.takes(taken, batch.bytes.len(), batch.end) {
                    break;
                }
                taken += batch.bytes.len();
                chosen.push(batch.clone());
            }
            return Ok(Source::Cache(chosen));
        }
        let segment = self.segment_of(want.from).expect("segments cover the log from its start to its end");
        let (position, offset) = if segment.closed {
            closed_index(shared, tp, &segment, self.config.index_interval_bytes)?.before_offset(want.from)
        } else {
            self.load(shared, tp)?.index.before_offset(want.from)
        };
        let file = open_segment(shared, tp, &segment).map_err(|error| {
            if is_lost(&error) { Trouble::Damaged(segment.base.max(self.start)) } else { error.into() }
        })?;
        let (truncations, log_start, epochs) = (self.truncations, self.start, self.epochs.clone());
        Ok(Source::File(Plan { segment, position, offset, file, truncations, log_start, epochs }))
    }

    /// A batch boundary at or before the first batch whose timestamp is at least `timestamp`.
    fn before_timestamp(
        &mut self,
        shared: &Shared,
        tp: TopicPartition,
        timestamp: i64,
    ) -> Result<Option<Offset>, Trouble> {
        let Some(segment) = self.segments.iter().find(|s| s.max_timestamp >= timestamp).copied() else {
            return Ok(None);
        };
        let (_, offset) = if segment.closed {
            closed_index(shared, tp, &segment, self.config.index_interval_bytes)?.before_timestamp(timestamp)
        } else {
            self.load(shared, tp)?.index.before_timestamp(timestamp)
        };
        Ok(Some(offset))
    }
}
