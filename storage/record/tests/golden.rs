//! Bytes that Kafka itself, or a format's own specification, fixes.

use bytes::Bytes;
use strandline_record::*;

const LIMITS: DecodeLimits = DecodeLimits { max_decompressed_bytes: 1 << 20 };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// One record "123", as a Kafka 0.11 broker stored it, with the checksum that it computed.
fn stored_by_a_broker() -> Vec<u8> {
    hex("0000000000000000 0000003b 00000001 02 0318a270
         0000 00000000 0000015dff7b063c 0000015dff7b063c ffffffffffffffff ffff ffffffff 00000001
         12 00 00 00 01 06 313233 00")
}

#[test]
fn a_batch_that_a_kafka_broker_stored_is_valid_and_read() {
    let bytes = stored_by_a_broker();
    let header = validate_batch(&bytes, BatchLimits::producer(1 << 20)).unwrap();
    assert_eq!(header.base_offset(), Offset(0));
    assert_eq!(header.next_offset(), Offset(1));
    assert_eq!(header.size_in_bytes(), 71);
    assert_eq!(header.leader_epoch(), LeaderEpoch(1));
    assert_eq!(header.timestamp_type(), TimestampType::CreateTime);
    assert_eq!(header.max_timestamp(), 1503229838908);
    assert_eq!((header.producer(), header.last_sequence()), (None, None));
    assert!(!header.is_control() && !header.is_transactional());
    let records = decode_batch(Bytes::from(bytes), LIMITS).unwrap().records().unwrap();
    let value = Some(Bytes::from("123"));
    assert_eq!(records, [Record { timestamp_ms: 1503229838908, value, ..Record::default() }]);
}

#[test]
fn the_builder_writes_the_bytes_that_kafka_writes() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1503229838908, None, Some(b"123"), &[]);
    builder.set_leader_epoch(LeaderEpoch(1));
    assert_eq!(builder.build(), stored_by_a_broker());
}

#[test]
fn a_transactional_batch_with_headers_and_deltas_has_these_bytes() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder
        .set_transactional(true)
        .set_base_offset(Offset(0x1122))
        .set_leader_epoch(LeaderEpoch(7))
        .set_producer(Some(ProducerStamp {
            id: ProducerId(4000),
            epoch: ProducerEpoch(5),
            base_sequence: i32::MAX,
        }));
    let header = RecordHeader::new("h", None);
    assert_eq!(builder.append(1_000_000, Some(b"k"), None, &[header]), 0);
    assert_eq!(builder.append(999_900, Some(b""), Some(b"vv"), &[]), 1);
    let batch = builder.build();
    let expected = hex("0000000000001122 00000046 00000007 02 00000000
         0010 00000001 00000000000f4240 00000000000f4240 0000000000000fa0 0005 7fffffff 00000002
         14 00 00 00 02 6b 01 02 02 68 01
         12 00 c701 02 00 04 7676 00");
    assert_eq!(batch[..17], expected[..17]);
    assert_eq!(batch[21..], expected[21..]);
    let header = validate_batch(&batch, BatchLimits::producer(1 << 20)).unwrap();
    assert_eq!(header.last_sequence(), Some(0), "sequences wrap to 0");
}

#[test]
fn the_checksum_is_crc32c_on_every_length_that_takes_another_path() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43, "RFC 3720, B.4");
    let bitwise = |bytes: &[u8]| {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8)
                .fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
        })
    };
    let bytes: Vec<u8> = (0..5000u32).map(|i| ((i * i) >> 3) as u8).collect();
    for len in (0..1100).chain([2048, 4095, 5000]) {
        assert_eq!(crc32c(&bytes[..len]), bitwise(&bytes[..len]), "{len} bytes");
    }
}

/// The same ten bytes in each codec, as encoders other than ours may write them.
#[test]
fn blocks_of_other_encoders_are_decompressed() {
    for (codec, bytes) in [
        // One stored deflate block.
        (Compression::Gzip, "1f8b0800000000000003 01 0a00 f5ff 30313233343536373839 c6c784a6 0a000000"),
        // One literal; raw, as librdkafka writes it, and framed, as Java does.
        (Compression::Snappy, "0a 24 30313233343536373839"),
        (Compression::Snappy, "82534e4150505900 00000001 00000001 0000000c 0a 24 30313233343536373839"),
        // An uncompressed block behind the frame header of Kafka's Java client.
        (Compression::Lz4, "04224d18 60 40 82 0a000080 30313233343536373839 00000000"),
        // One raw block, size stated; and in two frames, sizes not stated.
        (Compression::Zstd, "28b52ffd 20 0a 510000 30313233343536373839"),
        (Compression::Zstd, "28b52ffd 00 58 290000 3031323334 28b52ffd 00 58 290000 3536373839"),
    ] {
        let bytes = Bytes::from(hex(bytes));
        assert_eq!(codec.decompress(&bytes, 10).unwrap(), "0123456789", "{codec}");
        assert_eq!(
            codec.decompress(&bytes, 9),
            Err(BatchError::DecompressedTooLarge { limit: 9 }),
            "{codec}"
        );
    }
}

#[test]
fn lz4_and_snappy_frames_begin_as_kafkas_java_client_begins_them() {
    let compressed = |codec: Compression| {
        let mut out = bytes::BytesMut::new();
        codec.compress(None, &[7; 100_000], &mut out);
        out
    };
    assert_eq!(compressed(Compression::Lz4)[..7], hex("04224d18 60 40 82"));
    assert_eq!(compressed(Compression::Snappy)[..16], hex("82534e4150505900 00000001 00000001"));
}
