//! What holds for any records: they come out as they went in, damage is noticed, and no bytes make the
//! decoder panic.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use strandline_record::*;

const LIMITS: DecodeLimits = DecodeLimits { max_decompressed_bytes: 1 << 22 };

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..max).prop_map(Bytes::from),
        // Compressible.
        (any::<u8>(), 0..max * 8).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let header = (bytes(8), option::of(bytes(16))).prop_map(|(key, value)| RecordHeader { key, value });
    let timestamp =
        prop_oneof![4 => 1_600_000_000_000i64..1_900_000_000_000, 1 => Just(-1), 1 => any::<i64>()];
    (timestamp, option::of(bytes(20)), option::of(bytes(300)), vec(header, 0..4)).prop_map(
        |(timestamp_ms, key, value, headers)| Record { offset: Offset(0), timestamp_ms, key, value, headers },
    )
}

fn codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&Compression::ALL[..])
}

fn stamp() -> impl Strategy<Value = ProducerStamp> {
    (0..i64::MAX, 0..i16::MAX, 0..=i32::MAX).prop_map(|(id, epoch, base_sequence)| ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
        base_sequence,
    })
}

/// Builds a batch; the records get the offsets that it gives them.
fn build(records: &mut [Record], compression: Compression, base: i64) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    builder.set_base_offset(Offset(base));
    for record in records {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let estimate = builder.size_if_appended(record.timestamp_ms, key, value, &record.headers);
        let delta = builder.append(record.timestamp_ms, key, value, &record.headers);
        assert_eq!(builder.estimated_bytes(), estimate);
        record.offset = Offset(base + i64::from(delta));
    }
    builder.build()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn records_come_out_as_they_went_in(
        mut records in vec(record(), 1..40),
        compression in codec(),
        base in 0..i64::MAX / 2,
        stamp in option::of(stamp()),
    ) {
        let mut batch = BytesMut::from(build(&mut records, compression, base));
        stamp_producer(&mut batch, stamp);
        let header = validate_batch(&batch, BatchLimits::producer(1 << 22)).unwrap();
        prop_assert_eq!(header.compression(), compression);
        prop_assert_eq!(header.producer(), stamp);
        prop_assert_eq!(header.count() as usize, records.len());
        prop_assert_eq!(header.next_offset(), records.last().unwrap().offset.plus(1));
        prop_assert_eq!(header.max_timestamp(), records.iter().map(|r| r.timestamp_ms).max().unwrap().max(-1));
        let decoded = decode_batch(batch.freeze(), LIMITS).unwrap();
        prop_assert_eq!(decoded.records().unwrap(), records);
    }

    #[test]
    fn every_codec_and_level_gives_back_its_input(
        input in bytes(200_000),
        compression in codec(),
        level in option::of(-200..200),
    ) {
        let mut out = BytesMut::from(&b"before"[..]);
        compression.compress(level, &input, &mut out);
        prop_assert_eq!(&out[..6], b"before");
        let compressed = out.split_off(6).freeze();
        prop_assert_eq!(compression.decompress(&compressed, input.len()).unwrap(), input.clone());
        if !input.is_empty() {
            let limit = input.len() - 1;
            prop_assert_eq!(
                compression.decompress(&compressed, limit),
                Err(BatchError::DecompressedTooLarge { limit })
            );
        }
    }

    #[test]
    fn the_fuzzers_entry_point_survives_any_bytes(data in vec(any::<u8>(), 0..400)) {
        fuzzing::batch_decoder(&data);
    }

    #[test]
    fn the_fuzzers_entry_point_survives_batches_with_some_bytes_changed(
        mut records in vec(record(), 1..4),
        compression in codec(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in option::weighted(0.2, any::<proptest::sample::Index>()),
    ) {
        let mut batch = build(&mut records, compression, 7).to_vec();
        for (at, byte) in changes {
            let at = at.index(batch.len());
            batch[at] = byte;
        }
        if let Some(cut) = cut {
            batch.truncate(cut.index(batch.len()));
        }
        fuzzing::batch_decoder(&batch);
    }
}

#[test]
fn a_flip_of_any_bit_that_the_checksum_covers_is_noticed() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression);
        for i in 0..5u8 {
            builder.append(1000, Some(&[i]), Some(b"a value that repeats, a value that repeats"), &[]);
        }
        let whole = builder.build();
        for at in 17..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.to_vec();
                damaged[at] ^= 1 << bit;
                let result = validate_batch(&damaged, BatchLimits::log(1 << 20));
                assert!(result.is_err(), "{compression}: bit {bit} of byte {at}");
                assert!(decode_batch(Bytes::from(damaged), LIMITS).is_err());
            }
        }
    }
}
