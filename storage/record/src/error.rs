//! What can be wrong with the bytes of a batch. Every one of these is hostile or damaged input: none is
//! ever worth a retry with the same bytes.

use thiserror::Error;

/// Why bytes are not a usable batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The bytes end inside a batch: the partial tail of a fetch or of a torn write. The only error that
    /// more bytes may cure.
    #[error("the batch needs {needed} bytes, {available} are there")]
    Truncated { needed: usize, available: usize },
    /// Bytes follow the batch where exactly one batch was expected.
    #[error("{extra} bytes follow the batch")]
    TrailingBytes { extra: usize },
    /// The declared length is smaller than the header.
    #[error("batch length {length} is smaller than a header")]
    InvalidLength { length: i32 },
    #[error("batch of {size} bytes is larger than the limit of {max}")]
    TooLarge { size: usize, max: usize },
    #[error("message format {magic} is not supported, only 2 is")]
    UnsupportedMagic { magic: i8 },
    #[error("checksum is {stored:#010x} in the header, {computed:#010x} over the bytes")]
    BadChecksum { stored: u32, computed: u32 },
    #[error("offsets are out of range: base {base_offset}, last offset delta {last_offset_delta}")]
    InvalidOffsets { base_offset: i64, last_offset_delta: i32 },
    #[error("{count} records cannot span {offsets} offsets")]
    InvalidCount { count: i32, offsets: i64 },
    #[error("attributes {attributes:#06x}: {reason}")]
    InvalidAttributes { attributes: i16, reason: &'static str },
    #[error("producer id {id}, epoch {epoch}, base sequence {base_sequence}: {reason}")]
    InvalidProducer { id: i64, epoch: i16, base_sequence: i32, reason: &'static str },
    /// A record inside the batch is malformed; `index` counts from 0.
    #[error("record {index} is malformed: {reason}")]
    InvalidRecord { index: usize, reason: &'static str },
    /// The compressed bytes are not what their codec writes.
    #[error("{codec} data is damaged: {reason}")]
    Decompression { codec: crate::Compression, reason: String },
    /// The records would decompress to more than the limit.
    #[error("the records decompress to more than {limit} bytes")]
    DecompressedTooLarge { limit: usize },
}

impl BatchError {
    /// The bytes end before the batch does (the only case in which reading on may help).
    pub fn is_truncated(&self) -> bool {
        matches!(self, BatchError::Truncated { .. })
    }
}
