//! The record batch, version 2: the one format of the log, of replication and of every wire (KIP-98;
//! <https://kafka.apache.org/documentation/#recordbatch>). This module reads and checks headers and never
//! looks at records; [`crate::decode_batch`] does.
//!
//! Layout, big-endian:
//!
//! ```text
//!  offset size
//!       0    8  base offset            rewritten by the leader's log; outside the checksum
//!       8    4  batch length           bytes that follow this field: whole size - 12
//!      12    4  partition leader epoch rewritten by the leader's log; outside the checksum
//!      16    1  magic                  2
//!      17    4  CRC-32C                over everything from byte 21 to the end
//!      21    2  attributes             bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control,
//!                                      6 base timestamp is the delete horizon (KIP-534)
//!      23    4  last offset delta      last offset - base offset; kept by compaction
//!      27    8  base timestamp         ms since the Unix epoch, -1: none
//!      35    8  max timestamp          ms since the Unix epoch, -1: none
//!      43    8  producer id            -1: not idempotent
//!      51    2  producer epoch
//!      53    4  base sequence          of the first record; sequences wrap from 2^31-1 to 0
//!      57    4  records count
//!      61       records, compressed as one block if a codec is set
//! ```
//!
//! Invariants of a parsed header: magic is 2, the codec is known, `0 <= base offset <= last offset <
//! i64::MAX`, and the size is at least [`HEADER_BYTES`].

use crate::{BatchError, Compression, LeaderEpoch, Offset, ProducerEpoch, ProducerId};
use bytes::Bytes;

/// Size of the batch header; the records begin here.
pub const HEADER_BYTES: usize = 61;
/// Bytes before and including the length field: `batch length` counts what follows them.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// The only message format supported.
pub const MAGIC: i8 = 2;
/// Base sequence of a batch that carries none (control batches, batches that are not idempotent).
pub const NO_SEQUENCE: i32 = -1;
/// Timestamp of a batch or record that carries none.
pub const NO_TIMESTAMP: i64 = -1;

pub(crate) mod at {
    pub const BASE_OFFSET: usize = 0;
    pub const LENGTH: usize = 8;
    pub const LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const COUNT: usize = 57;
}

pub(crate) const CODEC_MASK: i16 = 0b111;
pub(crate) const LOG_APPEND_TIME: i16 = 1 << 3;
pub(crate) const TRANSACTIONAL: i16 = 1 << 4;
pub(crate) const CONTROL: i16 = 1 << 5;
pub(crate) const DELETE_HORIZON: i16 = 1 << 6;
const UNUSED: i16 = !0b0111_1111;

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// Set by the producer.
    #[default]
    CreateTime,
    /// Set by the leader when it appended: every record has the batch's max timestamp.
    LogAppendTime,
}

/// The idempotent producer of a batch (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// Sequence of the first record, [`NO_SEQUENCE`] on control batches.
    pub base_sequence: i32,
}

/// The header of one batch, copied out of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    base_offset: i64,
    length: i32,
    leader_epoch: i32,
    crc: u32,
    attributes: i16,
    last_offset_delta: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    count: i32,
    compression: Compression,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were sliced")
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may go on after the batch, or end inside its
    /// records. Checks what the invariants above promise; neither the checksum nor that the whole batch
    /// is there.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Truncated { needed: HEADER_BYTES, available: bytes.len() });
        }
        let magic = bytes[at::MAGIC] as i8;
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic });
        }
        let length = i32::from_be_bytes(field(bytes, at::LENGTH));
        if length < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return Err(BatchError::InvalidLength { length });
        }
        let attributes = i16::from_be_bytes(field(bytes, at::ATTRIBUTES));
        let Some(compression) = Compression::from_id((attributes & CODEC_MASK) as u8) else {
            return Err(BatchError::InvalidAttributes { attributes, reason: "unknown compression codec" });
        };
        let base_offset = i64::from_be_bytes(field(bytes, at::BASE_OFFSET));
        let last_offset_delta = i32::from_be_bytes(field(bytes, at::LAST_OFFSET_DELTA));
        let end = base_offset.checked_add(i64::from(last_offset_delta)).and_then(|last| last.checked_add(1));
        if base_offset < 0 || last_offset_delta < 0 || end.is_none() {
            return Err(BatchError::InvalidOffsets { base_offset, last_offset_delta });
        }
        Ok(BatchHeader {
            base_offset,
            length,
            leader_epoch: i32::from_be_bytes(field(bytes, at::LEADER_EPOCH)),
            crc: u32::from_be_bytes(field(bytes, at::CRC)),
            attributes,
            last_offset_delta,
            base_timestamp: i64::from_be_bytes(field(bytes, at::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(bytes, at::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(bytes, at::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(bytes, at::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(bytes, at::BASE_SEQUENCE)),
            count: i32::from_be_bytes(field(bytes, at::COUNT)),
            compression,
        })
    }

    /// Offset of the first record (of the first that there was, in a compacted batch).
    pub fn base_offset(&self) -> Offset {
        Offset(self.base_offset)
    }

    /// Offset of the last record, inclusive.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset + i64::from(self.last_offset_delta))
    }

    /// Offset of the record after this batch: its exclusive end.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Last offset - base offset.
    pub fn last_offset_delta(&self) -> i32 {
        self.last_offset_delta
    }

    /// Size of the whole batch, header included.
    pub fn size_in_bytes(&self) -> usize {
        LENGTH_PREFIX_BYTES + self.length as usize
    }

    /// Epoch of the leader that appended the batch; whatever the producer wrote (usually -1) before that.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.leader_epoch)
    }

    /// The stored CRC-32C.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// The attribute bits as they are.
    pub fn attributes(&self) -> i16 {
        self.attributes
    }

    pub fn compression(&self) -> Compression {
        self.compression
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// A transaction marker: not for applications.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// From when on compaction may remove the batch's tombstones, ms since the Unix epoch (KIP-534). Set when it
    /// passed over them for the first time.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether it only holds the place of batches that compaction removed: [`crate::filler`].
    pub fn is_filler(&self) -> bool {
        self.count == 0 && self.producer_id < 0 && !self.is_control()
    }

    /// Timestamp that record deltas count from, ms since the Unix epoch.
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// Largest timestamp of the batch, ms since the Unix epoch; [`NO_TIMESTAMP`] when there is none.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// The idempotent producer, if there is one.
    pub fn producer(&self) -> Option<ProducerStamp> {
        (self.producer_id >= 0).then_some(ProducerStamp {
            id: ProducerId(self.producer_id),
            epoch: ProducerEpoch(self.producer_epoch),
            base_sequence: self.base_sequence,
        })
    }

    /// Sequence of the last record, wrapped; `None` when the batch has no sequences.
    pub fn last_sequence(&self) -> Option<i32> {
        let stamp = self.producer().filter(|stamp| stamp.base_sequence >= 0)?;
        Some(sequence_plus(stamp.base_sequence, self.last_offset_delta))
    }

    /// Records in the batch: last offset delta + 1 unless compaction took some.
    pub fn count(&self) -> i32 {
        self.count
    }
}

/// The sequence `records` after `sequence`: 0 follows `i32::MAX` (KIP-98). Both must not be negative.
pub fn sequence_plus(sequence: i32, records: i32) -> i32 {
    assert!(sequence >= 0 && records >= 0, "sequences and counts are not negative");
    ((i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX)) as i32
}

/// CRC-32C (Castagnoli), by the widest instructions that the processor has.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Where the bytes come from, which decides how strict the check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOrigin {
    /// A client: no gaps in the offsets, no control records, at least one record.
    Producer,
    /// A log, here or on a peer: compaction may have removed records, even all of them, and there are
    /// control batches.
    Log,
}

/// What [`validate_batch`] accepts.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Largest whole batch, header included (`max.message.bytes`).
    pub max_batch_bytes: usize,
    pub origin: BatchOrigin,
}

impl BatchLimits {
    pub fn producer(max_batch_bytes: usize) -> Self {
        BatchLimits { max_batch_bytes, origin: BatchOrigin::Producer }
    }

    pub fn log(max_batch_bytes: usize) -> Self {
        BatchLimits { max_batch_bytes, origin: BatchOrigin::Log }
    }
}

/// Checks that `bytes` is exactly one batch, whole, within the limits, and intact. Does not decode the
/// records: the checksum says that they are what the producer wrote.
pub fn validate_batch(bytes: &[u8], limits: BatchLimits) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let size = header.size_in_bytes();
    if size > limits.max_batch_bytes {
        return Err(BatchError::TooLarge { size, max: limits.max_batch_bytes });
    }
    if bytes.len() < size {
        return Err(BatchError::Truncated { needed: size, available: bytes.len() });
    }
    if bytes.len() > size {
        return Err(BatchError::TrailingBytes { extra: bytes.len() - size });
    }
    let computed = crc32c(&bytes[at::ATTRIBUTES..]);
    if computed != header.crc {
        return Err(BatchError::BadChecksum { stored: header.crc, computed });
    }
    let offsets = i64::from(header.last_offset_delta) + 1;
    let count = i64::from(header.count);
    let (attributes, log) = (header.attributes, limits.origin == BatchOrigin::Log);
    if count < 0 || count > offsets || !log && (count == 0 || count != offsets) {
        return Err(BatchError::InvalidCount { count: header.count, offsets });
    }
    if !log && attributes & CONTROL != 0 {
        return Err(BatchError::InvalidAttributes {
            attributes,
            reason: "a client may not write control records",
        });
    }
    if !log && attributes & (UNUSED | DELETE_HORIZON) != 0 {
        return Err(BatchError::InvalidAttributes { attributes, reason: "reserved bits are set" });
    }
    let invalid_producer = |reason| BatchError::InvalidProducer {
        id: header.producer_id,
        epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        reason,
    };
    match header.producer() {
        Some(stamp) if stamp.epoch.get() < 0 => Err(invalid_producer("a producer id needs an epoch")),
        Some(stamp) if !log && stamp.base_sequence < 0 => {
            Err(invalid_producer("a producer id needs a sequence"))
        }
        None if header.is_transactional() => Err(invalid_producer("a transaction needs a producer id")),
        _ => Ok(header),
    }
}

/// Sets the base offset. Outside the checksum: the batch stays valid.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn write_base_offset(batch: &mut [u8], offset: Offset) {
    assert!(batch.len() >= HEADER_BYTES, "a batch has a header");
    batch[at::BASE_OFFSET..at::BASE_OFFSET + 8].copy_from_slice(&offset.get().to_be_bytes());
}

/// Sets the leader epoch. Outside the checksum: the batch stays valid.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn write_leader_epoch(batch: &mut [u8], epoch: LeaderEpoch) {
    assert!(batch.len() >= HEADER_BYTES, "a batch has a header");
    batch[at::LEADER_EPOCH..at::LEADER_EPOCH + 4].copy_from_slice(&epoch.get().to_be_bytes());
}

/// Marks one whole batch as stamped by the leader at `timestamp_ms` (`message.timestamp.type=LogAppendTime`)
/// and recomputes its checksum. The records are not touched: readers take the max timestamp instead.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp_log_append_time(batch: &mut [u8], timestamp_ms: i64) {
    assert!(batch.len() >= HEADER_BYTES, "a batch has a header");
    let attributes = i16::from_be_bytes(field(batch, at::ATTRIBUTES)) | LOG_APPEND_TIME;
    batch[at::ATTRIBUTES..at::ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[at::MAX_TIMESTAMP..at::MAX_TIMESTAMP + 8].copy_from_slice(&timestamp_ms.to_be_bytes());
    write_crc(batch);
}

/// Gives one whole batch another producer (a retry after an epoch bump, KIP-360) and recomputes its
/// checksum. `None` makes it a batch that is not idempotent.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn stamp_producer(batch: &mut [u8], stamp: Option<ProducerStamp>) {
    assert!(batch.len() >= HEADER_BYTES, "a batch has a header");
    write_producer_fields(batch, stamp);
    write_crc(batch);
}

pub(crate) fn write_producer_fields(batch: &mut [u8], stamp: Option<ProducerStamp>) {
    let (id, epoch, sequence) =
        stamp.map_or((-1, -1, NO_SEQUENCE), |s| (s.id.get(), s.epoch.get(), s.base_sequence));
    batch[at::PRODUCER_ID..at::PRODUCER_ID + 8].copy_from_slice(&id.to_be_bytes());
    batch[at::PRODUCER_EPOCH..at::PRODUCER_EPOCH + 2].copy_from_slice(&epoch.to_be_bytes());
    batch[at::BASE_SEQUENCE..at::BASE_SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
}

pub(crate) fn write_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[at::ATTRIBUTES..]);
    batch[at::CRC..at::CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

/// Walks batches that lie back to back and yields each header with its bytes. Ends after the first error;
/// [`BatchError::Truncated`] is the partial tail, and [`BatchIter::position`] says where it begins. Checks
/// headers only ([`validate_batch`] does the rest).
#[derive(Clone, Debug)]
pub struct BatchIter<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> BatchIter<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        BatchIter { bytes, position: 0, failed: false }
    }

    /// Bytes consumed by the batches yielded so far.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for BatchIter<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if self.failed || rest.is_empty() {
            return None;
        }
        match BatchHeader::parse(rest).and_then(|header| match rest.get(..header.size_in_bytes()) {
            Some(batch) => Ok((header, batch)),
            None => Err(BatchError::Truncated { needed: header.size_in_bytes(), available: rest.len() }),
        }) {
            Ok((header, batch)) => {
                self.position += batch.len();
                Some(Ok((header, batch)))
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// [`BatchIter`] over shared bytes: yields slices that keep them alive.
#[derive(Clone, Debug)]
pub struct SharedBatchIter {
    bytes: Bytes,
    position: usize,
    failed: bool,
}

impl SharedBatchIter {
    pub fn new(bytes: Bytes) -> Self {
        SharedBatchIter { bytes, position: 0, failed: false }
    }

    /// Bytes consumed by the batches yielded so far.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Iterator for SharedBatchIter {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut iter = BatchIter { bytes: &self.bytes, position: self.position, failed: self.failed };
        let next = iter.next().map(|item| item.map(|(header, batch)| (header, self.bytes.slice_ref(batch))));
        (self.position, self.failed) = (iter.position, iter.failed);
        next
    }
}
