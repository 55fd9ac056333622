//! The bytes of a whole image.
//!
//! ```text
//!   magic    8 bytes   "STRNDIMG"
//!   version  u32 LE    3
//!   crc32c   u32 LE    over length and body
//!   length   u64 LE    of the body
//!   body               postcard of `Image`
//! ```
//!
//! Invariants: `decode(encode(image)) == image`; what `decode` accepts satisfies [`Image::check`], so bytes
//! from a peer or a bad disk can never make `apply` panic.

use crate::image::Image;

const MAGIC: &[u8; 8] = b"STRNDIMG";
const VERSION: u32 = 3;
const HEADER_BYTES: usize = 24;

/// Why bytes are not a snapshot. None of these is retriable with the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("not a metadata snapshot")]
    NotASnapshot,
    #[error("metadata snapshot of version {0}; this build reads version {VERSION}")]
    Version(u32),
    #[error("the metadata snapshot is cut off or has bytes too many")]
    Length,
    #[error("the checksum of the metadata snapshot does not match")]
    Checksum,
    #[error("the metadata snapshot cannot be decoded: {0}")]
    Decode(String),
    #[error("the metadata snapshot contradicts itself: {0}")]
    Inconsistent(String),
}

pub fn encode(image: &Image) -> Vec<u8> {
    let header = vec![0; HEADER_BYTES];
    let mut bytes =
        postcard::to_extend(image, header).expect("an image has no value that postcard cannot encode");
    let length = (bytes.len() - HEADER_BYTES) as u64;
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c(&bytes[16..]);
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

pub fn decode(bytes: &[u8]) -> Result<Image, SnapshotError> {
    let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(SnapshotError::NotASnapshot);
    };
    if &header[..8] != MAGIC {
        return Err(SnapshotError::NotASnapshot);
    }
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if u32_at(8) != VERSION {
        return Err(SnapshotError::Version(u32_at(8)));
    }
    let length = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
    if length != body.len() as u64 {
        return Err(SnapshotError::Length);
    }
    if u32_at(12) != crc32c(&bytes[16..]) {
        return Err(SnapshotError::Checksum);
    }
    let (image, rest): (Image, &[u8]) =
        postcard::take_from_bytes(body).map_err(|e| SnapshotError::Decode(e.to_string()))?;
    if !rest.is_empty() {
        return Err(SnapshotError::Length);
    }
    image.check().map_err(SnapshotError::Inconsistent)?;
    Ok(image)
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
