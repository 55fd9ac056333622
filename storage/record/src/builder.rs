//! Builds batches. Records are encoded as they come, so that building costs one pass, and without a codec
//! the header is written in front of them in place.

use crate::batch::{self, CONTROL, DELETE_HORIZON, LOG_APPEND_TIME, TRANSACTIONAL, at};
use crate::{
    BatchHeader, Compression, HEADER_BYTES, LENGTH_PREFIX_BYTES, LeaderEpoch, MAGIC, NO_TIMESTAMP, Offset,
    ProducerStamp, Record, RecordHeader, TimestampType, varint,
};
use bytes::{BufMut, Bytes, BytesMut};

/// A batch in the making.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records, not compressed.
    buffer: BytesMut,
    compression: Compression,
    level: Option<i32>,
    producer: Option<ProducerStamp>,
    attributes: i16,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    /// Set by the first record.
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    /// Timestamp of the whole batch under `LogAppendTime`.
    append_time: Option<i64>,
    count: i32,
    last_offset_delta: i32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new(Compression::None)
    }
}

impl BatchBuilder {
    pub fn new(compression: Compression) -> Self {
        Self::with_capacity(compression, 0)
    }

    /// With room for this many bytes of records, before compression.
    pub fn with_capacity(compression: Compression, records_bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(HEADER_BYTES + records_bytes);
        buffer.put_bytes(0, HEADER_BYTES);
        BatchBuilder {
            buffer,
            compression,
            level: None,
            producer: None,
            attributes: 0,
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch(-1),
            base_timestamp: None,
            max_timestamp: NO_TIMESTAMP,
            append_time: None,
            count: 0,
            last_offset_delta: -1,
        }
    }

    /// For rewriting a batch with some of its records ([`BatchBuilder::append_record`]), as compaction does:
    /// same codec, producer, attributes, leader epoch and offsets.
    pub fn rewrite(header: &BatchHeader) -> Self {
        let mut builder = Self::new(header.compression());
        builder.producer = header.producer();
        builder.attributes = header.attributes() & (TRANSACTIONAL | CONTROL);
        builder.base_offset = header.base_offset();
        builder.leader_epoch = header.leader_epoch();
        builder.last_offset_delta = header.last_offset_delta();
        if header.timestamp_type() == TimestampType::LogAppendTime {
            builder.append_time = Some(header.max_timestamp());
        }
        if let Some(horizon_ms) = header.delete_horizon() {
            builder.set_delete_horizon(horizon_ms);
        }
        builder
    }

    /// The codec's own level; brought into its range.
    pub fn compression_level(mut self, level: Option<i32>) -> Self {
        self.level = level;
        self
    }

    /// Stamps the batch with an idempotent producer. May be called until the batch is built, and again after
    /// a change of mind; afterwards there is [`restamp_producer`].
    pub fn set_producer(&mut self, producer: Option<ProducerStamp>) -> &mut Self {
        self.producer = producer;
        self
    }

    pub fn set_base_offset(&mut self, offset: Offset) -> &mut Self {
        self.base_offset = offset;
        self
    }

    pub fn set_leader_epoch(&mut self, epoch: LeaderEpoch) -> &mut Self {
        self.leader_epoch = epoch;
        self
    }

    pub fn set_transactional(&mut self, transactional: bool) -> &mut Self {
        self.attributes = self.attributes & !TRANSACTIONAL | if transactional { TRANSACTIONAL } else { 0 };
        self
    }

    /// Marks it as a control batch; only logs and brokers write those.
    pub fn set_control(&mut self, control: bool) -> &mut Self {
        self.attributes = self.attributes & !CONTROL | if control { CONTROL } else { 0 };
        self
    }

    /// All records get this timestamp (`LogAppendTime`), ms since the Unix epoch.
    pub fn set_append_time(&mut self, timestamp_ms: Option<i64>) -> &mut Self {
        self.append_time = timestamp_ms;
        self
    }

    /// From when on compaction may remove the batch's tombstones, ms since the Unix epoch (KIP-534). It takes the place of
    /// the base timestamp.
    ///
    /// # Panics
    /// If there is a record already.
    pub fn set_delete_horizon(&mut self, horizon_ms: i64) -> &mut Self {
        assert!(self.is_empty(), "the timestamps of records count from the delete horizon");
        self.attributes |= DELETE_HORIZON;
        self.base_timestamp = Some(horizon_ms);
        self
    }

    /// Takes the delete horizon away again.
    ///
    /// # Panics
    /// If there is a record already.
    pub fn clear_delete_horizon(&mut self) -> &mut Self {
        assert!(self.is_empty(), "the timestamps of records count from the delete horizon");
        self.attributes &= !DELETE_HORIZON;
        self.base_timestamp = None;
        self
    }

    /// Records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch if it were built now without a codec: with one it is an estimate from above, but
    /// for data that cannot be compressed.
    pub fn estimated_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// [`BatchBuilder::estimated_bytes`] after appending this record.
    pub fn size_if_appended(
        &self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> usize {
        let body = self.body_size(self.next_delta(), timestamp_ms, key, value, headers);
        self.buffer.len() + varint::size(body as i64) + body
    }

    /// Appends a record behind the last one and returns its offset delta. `timestamp_ms`: since the Unix
    /// epoch, or -1.
    ///
    /// # Panics
    /// If the batch would exceed `i32::MAX` bytes: callers keep batches below a limit of their own, with
    /// [`BatchBuilder::size_if_appended`].
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> i32 {
        let delta = self.next_delta();
        self.put(delta, timestamp_ms, key, value, headers);
        self.last_offset_delta = delta;
        delta
    }

    /// Appends a record at its own offset, with gaps where records were removed. The last offset of a
    /// rewritten batch stays.
    ///
    /// # Panics
    /// If its offset is not in the batch's range.
    pub fn append_record(&mut self, record: &Record) {
        let delta = record.offset.get() - self.base_offset.get();
        assert!((0..=i64::from(i32::MAX)).contains(&delta), "a record lies behind its batch's base offset");
        self.put(
            delta as i32,
            record.timestamp_ms,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        self.last_offset_delta = self.last_offset_delta.max(delta as i32);
    }

    fn next_delta(&self) -> i32 {
        self.last_offset_delta + 1
    }

    fn timestamp_delta(&self, timestamp_ms: i64) -> i64 {
        timestamp_ms.wrapping_sub(self.base_timestamp.unwrap_or(timestamp_ms))
    }

    fn body_size(
        &self,
        delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> usize {
        let mut size = 1 // attributes
            + varint::size(self.timestamp_delta(timestamp_ms))
            + varint::size(i64::from(delta))
            + bytes_size(key)
            + bytes_size(value)
            + varint::size(headers.len() as i64);
        for header in headers {
            size += bytes_size(Some(&header.key)) + bytes_size(header.value.as_deref());
        }
        size
    }

    fn put(
        &mut self,
        delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) {
        let body = self.body_size(delta, timestamp_ms, key, value, headers);
        let size = varint::size(body as i64) + body;
        assert!(self.buffer.len() + size <= i32::MAX as usize, "a batch is kept below i32::MAX bytes");
        let timestamp_delta = self.timestamp_delta(timestamp_ms);
        self.base_timestamp.get_or_insert(timestamp_ms);
        self.max_timestamp = self.max_timestamp.max(timestamp_ms);
        let out = &mut self.buffer;
        out.reserve(size);
        let start = out.len();
        varint::put(out, body as i64);
        out.put_u8(0);
        varint::put(out, timestamp_delta);
        varint::put(out, i64::from(delta));
        put_bytes(out, key);
        put_bytes(out, value);
        varint::put(out, headers.len() as i64);
        for header in headers {
            put_bytes(out, Some(&header.key));
            put_bytes(out, header.value.as_deref());
        }
        assert_eq!(out.len() - start, size, "a record has the size that was computed for it");
        self.count += 1;
    }

    /// Compresses the records and writes the header.
    ///
    /// # Panics
    /// If there is no record, unless the batch rewrites another.
    pub fn build(self) -> Bytes {
        assert!(self.last_offset_delta >= 0, "a batch has a record");
        let mut batch = match self.compression {
            Compression::None => self.buffer,
            codec => {
                let records = &self.buffer[HEADER_BYTES..];
                let mut batch = BytesMut::with_capacity(HEADER_BYTES + records.len() / 2);
                batch.put_bytes(0, HEADER_BYTES);
                codec.compress(self.level, records, &mut batch);
                batch
            }
        };
        let length =
            i32::try_from(batch.len() - LENGTH_PREFIX_BYTES).expect("a batch stays below i32::MAX bytes");
        let append_time = if self.append_time.is_some() { LOG_APPEND_TIME } else { 0 };
        let attributes = self.attributes | append_time | i16::from(self.compression.id());
        let mut header = &mut batch[..HEADER_BYTES];
        header.put_i64(self.base_offset.get());
        header.put_i32(length);
        header.put_i32(self.leader_epoch.get());
        header.put_i8(MAGIC);
        header.put_u32(0); // the checksum, below
        header.put_i16(attributes);
        header.put_i32(self.last_offset_delta);
        header.put_i64(self.base_timestamp.unwrap_or(NO_TIMESTAMP));
        header.put_i64(self.append_time.unwrap_or(self.max_timestamp));
        batch[at::COUNT..HEADER_BYTES].copy_from_slice(&self.count.to_be_bytes());
        batch::stamp_producer(&mut batch, self.producer);
        batch.freeze()
    }
}

/// The batch of this header without its records, as compaction leaves it where the producer's sequence is still needed:
/// same offsets, producer and leader epoch; not compressed and without a timestamp.
pub fn emptied(header: &BatchHeader) -> Bytes {
    let mut builder = BatchBuilder::rewrite(header);
    builder.clear_delete_horizon();
    builder.compression = Compression::None;
    builder.append_time = None;
    builder.build()
}

/// A batch without records that holds the place of those that compaction removed, from `base` to `last` (inclusive).
///
/// # Panics
/// If the offsets are not in order or span more than a batch can.
pub fn filler(base: Offset, last: Offset, epoch: LeaderEpoch) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_base_offset(base).set_leader_epoch(epoch);
    builder.last_offset_delta =
        i32::try_from(last.get() - base.get()).expect("the span of a batch fits 31 bits");
    builder.build()
}

/// Gives a built batch another producer, epoch or sequence, in place if nobody else holds its bytes.
pub fn restamp_producer(batch: Bytes, producer: Option<ProducerStamp>) -> Bytes {
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    batch::stamp_producer(&mut batch, producer);
    batch.freeze()
}

fn bytes_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
        None => varint::put(out, -1),
    }
}
