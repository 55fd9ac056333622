//! The records in a batch. Decoding copies nothing that is not compressed: keys, values and headers are
//! slices of the batch, or of its decompressed block.
//!
//! Layout of a record; varints as in [`crate::varint`], lengths of -1 mean absent:
//!
//! ```text
//! length           varint   bytes that follow
//! attributes       i8       unused
//! timestamp delta  varint   ms, from the batch's base timestamp
//! offset delta     varint   from the batch's base offset
//! key length       varint   key
//! value length     varint   value
//! headers          varint   count, then for each: key length varint, key, value length varint, value
//! ```

use crate::batch::at;
use crate::{
    BatchError, BatchHeader, BatchLimits, HEADER_BYTES, Offset, TimestampType, validate_batch, varint,
};
use bytes::Bytes;
use std::borrow::Cow;

/// The smallest record: every field in one byte.
const RECORD_BYTES_MIN: usize = 7;
/// The smallest header: an empty key and no value.
const RECORD_HEADER_BYTES_MIN: usize = 2;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Record {
    pub offset: Offset,
    /// ms since the Unix epoch, -1 when there is none. The batch's max timestamp under `LogAppendTime`.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

/// A name and a value attached to a record. Names may repeat.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RecordHeader {
    /// UTF-8 by convention; not checked.
    pub key: Bytes,
    pub value: Option<Bytes>,
}

impl RecordHeader {
    pub fn new(key: impl Into<Bytes>, value: Option<Bytes>) -> Self {
        RecordHeader { key: key.into(), value }
    }

    /// The key as text, replacing what is not UTF-8.
    pub fn name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.key)
    }
}

/// What decoding may cost.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLimits {
    /// Largest size of a batch's records after decompression.
    pub max_decompressed_bytes: usize,
}

/// A batch, decompressed; its records are read by [`DecodedBatch::iter`].
#[derive(Clone, Debug)]
pub struct DecodedBatch {
    header: BatchHeader,
    records: Bytes,
}

/// Checks and decompresses `batch`, which must be exactly one batch from a log. The records are checked as
/// they are read.
pub fn decode_batch(batch: Bytes, limits: DecodeLimits) -> Result<DecodedBatch, BatchError> {
    validate_batch(&batch, BatchLimits::log(usize::MAX))?;
    decode_verified_batch(batch, limits)
}

/// [`decode_batch`] for bytes that [`validate_batch`] has already accepted: does not compute the checksum
/// again.
pub fn decode_verified_batch(batch: Bytes, limits: DecodeLimits) -> Result<DecodedBatch, BatchError> {
    let header = BatchHeader::parse(&batch)?;
    let (needed, available) = (header.size_in_bytes(), batch.len());
    if available < needed {
        return Err(BatchError::Truncated { needed, available });
    }
    let records =
        header.compression().decompress(&batch.slice(HEADER_BYTES..needed), limits.max_decompressed_bytes)?;
    Ok(DecodedBatch { header, records })
}

impl DecodedBatch {
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of the records, decompressed.
    pub fn records_bytes(&self) -> usize {
        self.records.len()
    }

    /// The records, decompressed.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.records
    }

    /// The records in order; ends after the first error.
    pub fn iter(&self) -> RecordIter {
        RecordIter {
            header: self.header,
            records: self.records.clone(),
            position: 0,
            index: 0,
            last_delta: -1,
        }
    }

    /// All records, or the first error.
    pub fn records(&self) -> Result<Vec<Record>, BatchError> {
        let mut records = Vec::with_capacity(self.iter().size_hint().1.unwrap_or(0));
        for record in self.iter() {
            records.push(record?);
        }
        Ok(records)
    }
}

impl IntoIterator for DecodedBatch {
    type Item = Result<Record, BatchError>;
    type IntoIter = RecordIter;

    fn into_iter(self) -> RecordIter {
        self.iter()
    }
}

/// Reads records one by one. Checks that there are as many as the header says, with increasing offsets within
/// the batch, and nothing behind them.
#[derive(Clone, Debug)]
pub struct RecordIter {
    header: BatchHeader,
    records: Bytes,
    position: usize,
    /// Of the next record; the count after the last or an error.
    index: i32,
    last_delta: i32,
}

impl RecordIter {
    fn fail(&mut self, reason: &'static str) -> Option<Result<Record, BatchError>> {
        let index = self.index as usize;
        self.index = self.header.count();
        // Nothing is left to find behind the end.
        self.position = self.records.len();
        Some(Err(BatchError::InvalidRecord { index, reason }))
    }

    fn read(&mut self) -> Result<Record, &'static str> {
        let mut rest = &self.records[self.position..];
        let length = varint::take_i32(&mut rest).ok_or("the length is cut or too large")?;
        let mut body = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
            .ok_or("the length exceeds the batch")?;
        let end = self.records.len() - rest.len() + body.len();
        let (_attributes, fields) = body.split_first().ok_or("it is empty")?;
        body = fields;
        let timestamp_delta = varint::take_i64(&mut body).ok_or("the timestamp is cut")?;
        let offset_delta = varint::take_i32(&mut body).ok_or("the offset is cut")?;
        if offset_delta <= self.last_delta || offset_delta > self.header.last_offset_delta() {
            return Err("the offset is out of order");
        }
        let key = self.take_bytes(&mut body).ok_or("the key is cut")?;
        let value = self.take_bytes(&mut body).ok_or("the value is cut")?;
        let headers = varint::take_i32(&mut body).ok_or("the header count is cut")?;
        let headers = usize::try_from(headers)
            .ok()
            .filter(|headers| *headers <= body.len() / RECORD_HEADER_BYTES_MIN)
            .ok_or("the header count exceeds the record")?;
        let mut record = Record {
            offset: self.header.base_offset().plus(i64::from(offset_delta)),
            timestamp_ms: self.timestamp(timestamp_delta),
            key,
            value,
            headers: Vec::with_capacity(headers),
        };
        for _ in 0..headers {
            let key = self.take_bytes(&mut body).flatten().ok_or("a header's key is cut or missing")?;
            let value = self.take_bytes(&mut body).ok_or("a header's value is cut")?;
            record.headers.push(RecordHeader { key, value });
        }
        if !body.is_empty() {
            return Err("it has more bytes than fields");
        }
        self.last_delta = offset_delta;
        self.position = end;
        Ok(record)
    }

    fn timestamp(&self, delta: i64) -> i64 {
        match self.header.timestamp_type() {
            TimestampType::LogAppendTime => self.header.max_timestamp(),
            // As Kafka's clients do: hostile values wrap, they are nobody's safety.
            TimestampType::CreateTime => self.header.base_timestamp().wrapping_add(delta),
        }
    }

    /// A length and its bytes; `Some(None)` when absent, `None` when malformed.
    fn take_bytes(&self, body: &mut &[u8]) -> Option<Option<Bytes>> {
        match varint::take_i32(body)? {
            -1 => Some(None),
            length => {
                let (bytes, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
                *body = rest;
                Some(Some(self.records.slice_ref(bytes)))
            }
        }
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.count() {
            if self.position < self.records.len() {
                return self.fail("bytes follow the last record");
            }
            return None;
        }
        match self.read() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => self.fail(reason),
        }
    }

    /// The upper bound is trustworthy: no more records than the bytes can hold.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.header.count() - self.index).max(0) as usize;
        (0, Some(left.min((self.records.len() - self.position) / RECORD_BYTES_MIN + 1)))
    }
}

/// For the fuzzer: makes random bytes pass the header's own checks, so that what lies behind them is reached.
pub(crate) fn mend(batch: &mut [u8]) {
    assert!(batch.len() >= HEADER_BYTES, "a batch has a header");
    let length = (batch.len() - crate::LENGTH_PREFIX_BYTES) as i32;
    batch[at::LENGTH..at::LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    batch[at::MAGIC] = crate::MAGIC as u8;
    crate::batch::write_crc(batch);
}
