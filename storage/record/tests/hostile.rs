//! Input that means harm: it costs no more than its size and the limits allow, and ends in an error.

use bytes::{BufMut, Bytes, BytesMut};
use strandline_record::*;

fn header_for(records: &[u8], compression: Compression, count: i32) -> Bytes {
    let mut builder = BatchBuilder::default();
    builder.append(0, None, None, &[]);
    let mut batch = BytesMut::from(&builder.build()[..HEADER_BYTES]);
    batch.extend_from_slice(records);
    let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = compression.id();
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn decode(records: &[u8], count: i32) -> Result<Vec<Record>, BatchError> {
    let limits = DecodeLimits { max_decompressed_bytes: 1 << 20 };
    decode_batch(header_for(records, Compression::None, count), limits)?.records()
}

fn reason(result: Result<Vec<Record>, BatchError>) -> (usize, &'static str) {
    match result {
        Err(BatchError::InvalidRecord { index, reason }) => (index, reason),
        other => panic!("a malformed record was expected, not {other:?}"),
    }
}

#[test]
fn a_decompression_bomb_ends_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut bomb = BytesMut::new();
        compression.compress(None, &zeros, &mut bomb);
        assert!(bomb.len() < zeros.len() / 15, "{compression} compresses zeros");
        let limits = DecodeLimits { max_decompressed_bytes: 1 << 20 };
        let error = decode_batch(header_for(&bomb, compression, 1), limits).unwrap_err();
        assert_eq!(error, BatchError::DecompressedTooLarge { limit: 1 << 20 }, "{compression}");
    }
}

#[test]
fn declared_sizes_that_the_input_cannot_hold_are_not_allocated() {
    // With a limit as large as the lie only the input's own size stands in the way.
    let limit = usize::MAX / 2;
    let gib = 1u32 << 30;
    let mut raw_snappy = BytesMut::new();
    raw_snappy.put_slice(&[0x80, 0x80, 0x80, 0x80, 0x04, 0x00, b'x']);
    assert!(matches!(
        Compression::Snappy.decompress(&raw_snappy.freeze(), limit),
        Err(BatchError::Decompression { .. })
    ));
    let mut block =
        BytesMut::from(&[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1][..]);
    block.put_u32(gib);
    block.put_u8(1);
    assert!(matches!(
        Compression::Snappy.decompress(&block.freeze(), limit),
        Err(BatchError::Decompression { .. })
    ));
    // A zstd frame that states 1 GiB in one segment: its window would be as large.
    let mut zstd = BytesMut::from(&[0x28, 0xb5, 0x2f, 0xfd, 0xa0][..]);
    zstd.put_u32_le(gib);
    zstd.put_slice(&[0x01, 0, 0]);
    assert!(matches!(
        Compression::Zstd.decompress(&zstd.freeze(), 1 << 20),
        Err(BatchError::Decompression { .. } | BatchError::DecompressedTooLarge { .. })
    ));
}

#[test]
fn a_record_count_that_the_bytes_cannot_hold_is_not_allocated() {
    let records = [12, 0, 0, 0, 1, 1, 0];
    assert_eq!(reason(decode(&records, i32::MAX)).0, 1, "after the only record");
}

#[test]
fn malformed_records_are_refused_with_the_record_and_the_reason() {
    let good = [12, 0, 0, 0, 1, 1, 0];
    assert_eq!(decode(&good, 1).unwrap().len(), 1);
    for (records, count, expected) in [
        (&[][..], 1, (0, "the length is cut or too large")),
        (&[0xff; 10], 1, (0, "the length is cut or too large")),
        (&[14, 0, 0, 0, 1, 1, 0], 1, (0, "the length exceeds the batch")),
        (&[1, 0, 0, 0, 1, 1, 0], 1, (0, "the length exceeds the batch")),
        (&[0], 1, (0, "it is empty")),
        (&[2, 0], 1, (0, "the timestamp is cut")),
        (&[4, 0, 0], 1, (0, "the offset is cut")),
        (&[12, 0, 0, 1, 1, 1, 0], 1, (0, "the offset is out of order")),
        (&[12, 0, 0, 2, 1, 1, 0], 1, (0, "the offset is out of order")),
        (&[12, 0, 0, 0, 3, 1, 0], 1, (0, "the key is cut")),
        (&[12, 0, 0, 0, 8, 1, 0], 1, (0, "the key is cut")),
        (&[12, 0, 0, 0, 1, 4, 0], 1, (0, "the value is cut")),
        (&[10, 0, 0, 0, 1, 1], 1, (0, "the header count is cut")),
        (&[12, 0, 0, 0, 1, 1, 1], 1, (0, "the header count exceeds the record")),
        (&[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f], 1, (0, "the header count exceeds the record")),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], 1, (0, "a header's key is cut or missing")),
        (&[16, 0, 0, 0, 1, 1, 2, 0, 2], 1, (0, "a header's value is cut")),
        (&[14, 0, 0, 0, 1, 1, 0, 0], 1, (0, "it has more bytes than fields")),
        (&[12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 0, 1, 1, 0], 2, (1, "the offset is out of order")),
        (&[12, 0, 0, 0, 1, 1, 0, 99], 1, (1, "bytes follow the last record")),
    ] {
        assert_eq!(reason(decode(records, count)), expected, "{records:?}");
    }
}

#[test]
fn damaged_compressed_blocks_are_errors() {
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let limits = DecodeLimits { max_decompressed_bytes: 1 << 20 };
        let garbage = header_for(b"this is none of the four formats", compression, 1);
        let error = decode_batch(garbage, limits).unwrap_err();
        assert!(matches!(error, BatchError::Decompression { codec, .. } if codec == compression), "{error}");
        let mut block = BytesMut::new();
        compression.compress(None, &[42; 100_000], &mut block);
        for cut in 1..block.len() {
            let cut = block.clone().freeze().slice(..cut);
            // Frames cut between their blocks are shorter, which only the record count can tell.
            if let Ok(content) = compression.decompress(&cut, 1 << 20) {
                assert!(matches!(compression, Compression::Snappy | Compression::Lz4), "{compression}");
                assert!(content.len() <= 100_000 && content.iter().all(|byte| *byte == 42), "{compression}");
            }
        }
    }
}
