//! The codecs that a batch's records may be compressed with.
//!
//! Layouts, each what Kafka's Java client writes and reads:
//!
//! ```text
//! gzip    RFC 1952, any number of members
//! lz4     LZ4 frames, 64 KiB independent blocks
//! zstd    RFC 8878, any number of frames
//! snappy  xerial framing: 82 "SNAPPY" 00, version i32 = 1, compatible i32 = 1,
//!         then blocks of at most 32 KiB of input: length i32, raw snappy
//!         (a single raw snappy block, as librdkafka may write, is read too)
//! ```
//!
//! Decompression trusts no declared length: nothing is allocated for one that the input cannot hold, and
//! the output is bounded by the caller's limit (CVE-2023-34455 is what happens otherwise).

use crate::BatchError;
use bytes::{BufMut, Bytes, BytesMut};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Output that one byte of snappy input can stand for, generously (64 bytes take 3).
const SNAPPY_RATIO_MAX: usize = 64;
/// Output that is allocated at once on the word of a zstd frame, for each byte of input.
const ZSTD_TRUSTED_RATIO: usize = 64;
/// Windows that zstd frames may ask for: 8 MiB serves every level but the "ultra" ones.
const ZSTD_WINDOW_LOG_MIN: u32 = 23;
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

thread_local! {
    // Making one costs more than it costs to decode a small batch.
    static ZSTD_COMPRESSOR: RefCell<zstd::bulk::Compressor<'static>> = RefCell::default();
    static ZSTD_DECOMPRESSOR: RefCell<zstd::bulk::Decompressor<'static>> = RefCell::default();
}

/// Codec of a batch's records; the number is what the attributes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Compression {
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The codec with this number in the attributes.
    pub fn from_id(id: u8) -> Option<Compression> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// The number in the attributes.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The name in configuration (`compression.type`).
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl Compression {
    /// Appends `input`, compressed, to `out`. `level` is the codec's own (gzip 1-9, zstd up to 22, negative
    /// ones are faster), brought into its range; `None` is its default. Snappy and lz4 have none.
    pub fn compress(self, level: Option<i32>, input: &[u8], out: &mut BytesMut) {
        match self {
            Compression::None => out.put_slice(input),
            Compression::Gzip => {
                let level = level.map_or(flate2::Compression::default(), |level| {
                    flate2::Compression::new(level.clamp(1, 9) as u32)
                });
                let mut encoder = flate2::write::GzEncoder::new(out.writer(), level);
                encoder.write_all(input).and_then(|()| encoder.finish()).expect("memory takes every write");
            }
            Compression::Snappy => compress_xerial(input, out),
            Compression::Lz4 => {
                let frame = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out.writer());
                encoder.write_all(input).expect("memory takes every write");
                encoder.finish().expect("memory takes every write");
            }
            Compression::Zstd => {
                let range = zstd::compression_level_range();
                let level =
                    level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).clamp(*range.start(), *range.end());
                let start = out.len();
                out.resize(start + zstd::zstd_safe::compress_bound(input.len()), 0);
                let written = ZSTD_COMPRESSOR
                    .with_borrow_mut(|compressor| {
                        compressor.set_compression_level(level)?;
                        compressor.compress_to_buffer(input, &mut out[start..])
                    })
                    .expect("the level is in range and the buffer has the codec's bound");
                out.truncate(start + written);
            }
        }
    }

    /// The bytes that were compressed to `input`; at most `limit` of them.
    pub fn decompress(self, input: &Bytes, limit: usize) -> Result<Bytes, BatchError> {
        let mut out = Vec::new();
        match self {
            Compression::None if input.len() > limit => {
                return Err(BatchError::DecompressedTooLarge { limit });
            }
            Compression::None => return Ok(input.clone()),
            Compression::Gzip => {
                self.read_bounded(flate2::bufread::MultiGzDecoder::new(&input[..]), &mut out, limit)?;
            }
            Compression::Snappy if input.starts_with(&XERIAL_MAGIC) => {
                self.decompress_xerial(input, &mut out, limit)?;
            }
            Compression::Snappy => self.decompress_snappy_block(input, &mut out, limit)?,
            Compression::Lz4 => {
                self.read_bounded(lz4_flex::frame::FrameDecoder::new(&input[..]), &mut out, limit)?;
            }
            Compression::Zstd => self.decompress_zstd(input, &mut out, limit)?,
        }
        Ok(Bytes::from(out))
    }

    fn damaged(self, reason: impl fmt::Display) -> BatchError {
        BatchError::Decompression { codec: self, reason: reason.to_string() }
    }

    fn read_bounded(self, reader: impl Read, out: &mut Vec<u8>, limit: usize) -> Result<(), BatchError> {
        // One more than the limit tells "exactly" from "more". Memory grows with what has been decoded.
        reader
            .take((limit as u64).saturating_add(1))
            .read_to_end(out)
            .map_err(|error| self.damaged(error))?;
        if out.len() > limit { Err(BatchError::DecompressedTooLarge { limit }) } else { Ok(()) }
    }

    fn decompress_snappy_block(
        self,
        block: &[u8],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), BatchError> {
        let len = snap::raw::decompress_len(block).map_err(|error| self.damaged(error))?;
        if len > limit.saturating_sub(out.len()) {
            return Err(BatchError::DecompressedTooLarge { limit });
        }
        if len > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
            return Err(self.damaged("the declared length cannot be true"));
        }
        let start = out.len();
        out.resize(start + len, 0);
        let written = snap::raw::Decoder::new()
            .decompress(block, &mut out[start..])
            .map_err(|error| self.damaged(error))?;
        out.truncate(start + written);
        Ok(())
    }

    fn decompress_xerial(self, input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), BatchError> {
        let mut rest =
            input.get(XERIAL_HEADER_BYTES..).ok_or_else(|| self.damaged("the frame header ends early"))?;
        while let Some((len, tail)) = rest.split_first_chunk() {
            let block =
                usize::try_from(i32::from_be_bytes(*len)).ok().and_then(|len| tail.split_at_checked(len));
            let (block, tail) = block.ok_or_else(|| self.damaged("a block ends early"))?;
            self.decompress_snappy_block(block, out, limit)?;
            rest = tail;
        }
        if rest.is_empty() { Ok(()) } else { Err(self.damaged("a block length ends early")) }
    }

    fn decompress_zstd(self, input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), BatchError> {
        // The common case: one frame that states its size, decoded in one go into a buffer of that size.
        if let Ok(Some(len)) = zstd::zstd_safe::get_frame_content_size(input)
            && len <= limit as u64
            && len <= (input.len() as u64).saturating_mul(ZSTD_TRUSTED_RATIO as u64)
            && let Ok(content) =
                ZSTD_DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress(input, len as usize))
        {
            *out = content;
            return Ok(());
        }
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)
            .map_err(|error: io::Error| self.damaged(error))?;
        let window = limit.checked_next_power_of_two().map_or(ZSTD_WINDOW_LOG_MAX, usize::ilog2);
        decoder
            .window_log_max(window.clamp(ZSTD_WINDOW_LOG_MIN, ZSTD_WINDOW_LOG_MAX))
            .map_err(|error| self.damaged(error))?;
        self.read_bounded(decoder, out, limit)
    }
}

fn compress_xerial(input: &[u8], out: &mut BytesMut) {
    out.put_slice(&XERIAL_MAGIC);
    out.put_i32(1);
    out.put_i32(1);
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK_BYTES) {
        let start = out.len();
        out.resize(start + 4 + snap::raw::max_compress_len(block.len()), 0);
        let written =
            encoder.compress(block, &mut out[start + 4..]).expect("the buffer has the codec's bound");
        out[start..start + 4].copy_from_slice(&(written as i32).to_be_bytes());
        out.truncate(start + 4 + written);
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is none of `none`, `gzip`, `snappy`, `lz4`, `zstd`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompression(pub String);

impl std::str::FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}
