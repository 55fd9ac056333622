//! Batches for unit tests.

use bytes::Bytes;
use strandline_record::{BatchBuilder, Compression, Offset, ProducerEpoch, ProducerId, ProducerStamp};

/// A batch of an idempotent producer.
pub(crate) fn batch_of(id: i64, epoch: i16, sequence: i32, count: i32, value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(Some(ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence: sequence,
    }));
    for _ in 0..count {
        builder.append(1, None, Some(value), &[]);
    }
    builder.build().to_vec()
}

/// A batch of `count` records at `base`, with this timestamp.
pub(crate) fn batch_at(base: i64, count: i32, timestamp_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_base_offset(Offset(base));
    for _ in 0..count {
        builder.append(timestamp_ms, None, Some(b"value"), &[]);
    }
    builder.build()
}
