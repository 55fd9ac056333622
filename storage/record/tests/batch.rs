//! Headers: what is read, accepted, refused and rewritten.

use bytes::{Bytes, BytesMut};
use strandline_record::*;

const STAMP: ProducerStamp = ProducerStamp { id: ProducerId(9), epoch: ProducerEpoch(2), base_sequence: 40 };

fn batch(records: i32) -> BytesMut {
    let mut builder = BatchBuilder::default();
    builder.set_producer(Some(STAMP));
    for i in 0..records {
        builder.append(1000 + i64::from(i), Some(b"key"), Some(b"value"), &[]);
    }
    BytesMut::from(builder.build())
}

/// Changes bytes of the header and makes the checksum right again.
fn with(at: usize, bytes: &[u8]) -> BytesMut {
    let mut batch = batch(3);
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn producer(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    validate_batch(batch, BatchLimits::producer(1 << 20))
}

fn log(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    validate_batch(batch, BatchLimits::log(1 << 20))
}

#[test]
fn offsets_are_counted_from_the_base_offset_to_an_exclusive_end() {
    let mut batch = batch(3);
    write_base_offset(&mut batch, Offset(500));
    write_leader_epoch(&mut batch, LeaderEpoch(4));
    let header = producer(&batch).expect("base offset and leader epoch lie outside the checksum");
    assert_eq!(
        (header.base_offset(), header.last_offset(), header.next_offset()),
        (500.into(), 502.into(), 503.into())
    );
    assert_eq!((header.leader_epoch(), header.count()), (LeaderEpoch(4), 3));
    assert_eq!((header.producer(), header.last_sequence()), (Some(STAMP), Some(42)));
    assert_eq!((header.base_timestamp(), header.max_timestamp()), (1000, 1002));
    assert_eq!(header.size_in_bytes(), batch.len());
}

#[test]
fn sequences_wrap_behind_the_largest_to_zero() {
    assert_eq!(sequence_plus(5, 0), 5);
    assert_eq!(sequence_plus(i32::MAX, 0), i32::MAX);
    assert_eq!(sequence_plus(i32::MAX, 1), 0);
    assert_eq!(sequence_plus(i32::MAX - 2, 5), 2);
    assert_eq!(sequence_plus(i32::MAX, i32::MAX), i32::MAX - 1);
}

#[test]
fn a_header_that_no_batch_can_have_is_refused_before_its_checksum_is_computed() {
    assert_eq!(BatchHeader::parse(&batch(1)[..60]), Err(BatchError::Truncated { needed: 61, available: 60 }));
    assert_eq!(producer(&with(16, &[1])), Err(BatchError::UnsupportedMagic { magic: 1 }));
    assert_eq!(producer(&with(8, &48i32.to_be_bytes())), Err(BatchError::InvalidLength { length: 48 }));
    assert_eq!(producer(&with(8, &(-1i32).to_be_bytes())), Err(BatchError::InvalidLength { length: -1 }));
    assert!(matches!(producer(&with(22, &[5])), Err(BatchError::InvalidAttributes { attributes: 5, .. })));
    assert!(matches!(producer(&with(0, &(-1i64).to_be_bytes())), Err(BatchError::InvalidOffsets { .. })));
    assert!(matches!(producer(&with(0, &i64::MAX.to_be_bytes())), Err(BatchError::InvalidOffsets { .. })));
    assert!(matches!(producer(&with(23, &(-1i32).to_be_bytes())), Err(BatchError::InvalidOffsets { .. })));
}

#[test]
fn a_batch_is_refused_that_is_cut_followed_by_more_or_too_large() {
    let whole = batch(3);
    let size = whole.len();
    assert_eq!(
        producer(&whole[..size - 1]),
        Err(BatchError::Truncated { needed: size, available: size - 1 })
    );
    assert_eq!(producer(&[&whole[..], b"x"].concat()), Err(BatchError::TrailingBytes { extra: 1 }));
    let limits = BatchLimits::producer(size - 1);
    assert_eq!(validate_batch(&whole, limits), Err(BatchError::TooLarge { size, max: size - 1 }));
    // The size is judged by the declared length, before the bytes are there.
    assert_eq!(validate_batch(&whole[..61], limits), Err(BatchError::TooLarge { size, max: size - 1 }));
    assert!(producer(&whole).is_ok());
}

#[test]
fn a_producer_may_write_neither_gaps_nor_control_records_nor_reserved_bits_and_a_log_has_them() {
    let gap = with(23, &5i32.to_be_bytes());
    assert_eq!(producer(&gap), Err(BatchError::InvalidCount { count: 3, offsets: 6 }));
    assert_eq!(log(&gap).unwrap().next_offset(), Offset(6));
    let empty = with(57, &0i32.to_be_bytes());
    assert!(matches!(producer(&empty), Err(BatchError::InvalidCount { count: 0, .. })));
    assert!(log(&empty).is_ok());
    for count in [-1, 4] {
        let wrong = with(57, &i32::to_be_bytes(count));
        assert!(matches!(producer(&wrong), Err(BatchError::InvalidCount { .. })));
        assert!(matches!(log(&wrong), Err(BatchError::InvalidCount { .. })));
    }
    for attributes in [0x20i16, 0x40, 0x80, i16::MIN] {
        let batch = with(21, &attributes.to_be_bytes());
        assert!(matches!(producer(&batch), Err(BatchError::InvalidAttributes { .. })), "{attributes:#x}");
        assert!(log(&batch).is_ok(), "{attributes:#x}");
    }
}

#[test]
fn a_producer_id_comes_with_an_epoch_and_a_sequence_and_a_transaction_with_an_id() {
    assert!(matches!(log(&with(51, &(-1i16).to_be_bytes())), Err(BatchError::InvalidProducer { .. })));
    let no_sequence = with(53, &(-1i32).to_be_bytes());
    assert!(matches!(producer(&no_sequence), Err(BatchError::InvalidProducer { .. })));
    assert_eq!(log(&no_sequence).unwrap().last_sequence(), None, "control batches have none");
    let mut anonymous = with(21, &0x10i16.to_be_bytes());
    assert!(producer(&anonymous).unwrap().is_transactional());
    stamp_producer(&mut anonymous, None);
    assert!(matches!(producer(&anonymous), Err(BatchError::InvalidProducer { .. })));
}

#[test]
fn a_producer_is_restamped_without_rebuilding_and_other_holders_keep_their_bytes() {
    let original = batch(3).freeze();
    let stamp = ProducerStamp { id: ProducerId(9), epoch: ProducerEpoch(3), base_sequence: 0 };
    let shared = original.clone();
    let restamped = restamp_producer(original, Some(stamp));
    assert_eq!(producer(&restamped).unwrap().producer(), Some(stamp));
    assert_eq!(producer(&shared).unwrap().producer(), Some(STAMP));
    assert_eq!(restamped[61..], shared[61..]);
}

#[test]
fn under_log_append_time_every_record_has_the_leaders_timestamp() {
    let mut batch = batch(3);
    stamp_log_append_time(&mut batch, 77_000);
    let header = producer(&batch).expect("the checksum was recomputed");
    assert_eq!((header.timestamp_type(), header.max_timestamp()), (TimestampType::LogAppendTime, 77_000));
    let decoded = decode_batch(batch.freeze(), DecodeLimits { max_decompressed_bytes: 1000 }).unwrap();
    assert!(decoded.iter().all(|record| record.unwrap().timestamp_ms == 77_000));
}

#[test]
fn batches_back_to_back_are_walked_and_a_partial_tail_is_told_apart_from_damage() {
    let (first, second) = (batch(1), batch(2));
    let both = [&first[..], &second[..]].concat();
    for cut in 0..=both.len() {
        let mut iter = BatchIter::new(&both[..cut]);
        let mut shared = SharedBatchIter::new(Bytes::copy_from_slice(&both[..cut]));
        let mut whole = 0;
        let error = loop {
            let (item, same) = (iter.next(), shared.next());
            assert_eq!(
                item.clone().map(|i| i.map(|(h, b)| (h, b.to_vec()))),
                same.map(|i| i.map(|(h, b)| (h, b.to_vec())))
            );
            match item {
                Some(Ok((header, batch))) => {
                    assert_eq!(header.size_in_bytes(), batch.len());
                    whole += 1;
                }
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        let (expected, boundary) = match cut {
            cut if cut == both.len() => (2, both.len()),
            cut if cut >= first.len() => (1, first.len()),
            _ => (0, 0),
        };
        assert_eq!(
            (whole, iter.position(), shared.position()),
            (expected, boundary, boundary),
            "cut at {cut}"
        );
        assert_eq!(error.is_some_and(|error| error.is_truncated()), cut != boundary, "cut at {cut}");
        assert_eq!(iter.next(), None, "an error ends the walk");
    }
    let mut damaged = both.clone();
    damaged[first.len() + 16] = 9;
    let mut iter = BatchIter::new(&damaged);
    assert!(iter.next().unwrap().is_ok());
    assert!(matches!(iter.next(), Some(Err(BatchError::UnsupportedMagic { magic: 9 }))));
    assert_eq!((iter.next(), iter.position()), (None, first.len()));
}

#[test]
fn a_rewritten_batch_keeps_its_offsets_when_records_or_all_of_them_are_removed() {
    let mut original = batch(4);
    write_base_offset(&mut original, Offset(100));
    write_leader_epoch(&mut original, LeaderEpoch(3));
    let decoded = decode_batch(original.freeze(), DecodeLimits { max_decompressed_bytes: 1000 }).unwrap();
    for kept in [&[0usize, 2][..], &[3], &[]] {
        let records: Vec<Record> = decoded.iter().map(Result::unwrap).collect();
        let records: Vec<Record> = kept.iter().map(|i| records[*i].clone()).collect();
        let mut builder = BatchBuilder::rewrite(decoded.header());
        records.iter().for_each(|record| builder.append_record(record));
        let rewritten = builder.build();
        let header = log(&rewritten).unwrap();
        assert_eq!((header.base_offset(), header.next_offset()), (Offset(100), Offset(104)));
        assert_eq!((header.leader_epoch(), header.last_sequence()), (LeaderEpoch(3), Some(43)));
        let again = decode_batch(rewritten, DecodeLimits { max_decompressed_bytes: 1000 }).unwrap();
        assert_eq!(again.records().unwrap(), records);
    }
}

#[test]
fn a_delete_horizon_takes_the_place_of_the_base_timestamp_and_no_timestamp_changes() {
    let limits = DecodeLimits { max_decompressed_bytes: 1000 };
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new(compression);
        for timestamp in [5000, NO_TIMESTAMP, 4000] {
            builder.append(timestamp, Some(b"key"), None, &[]);
        }
        let decoded = decode_batch(builder.build(), limits).unwrap();
        assert_eq!(decoded.header().delete_horizon(), None);
        for horizon in [0, 4500, i64::MAX] {
            let mut builder = BatchBuilder::rewrite(decoded.header());
            builder.set_delete_horizon(horizon);
            decoded.iter().flatten().for_each(|record| builder.append_record(&record));
            let noted = builder.build();
            let header = log(&noted).unwrap();
            assert_eq!((header.delete_horizon(), header.max_timestamp()), (Some(horizon), 5000));
            let noted = decode_batch(noted, limits).unwrap();
            assert_eq!(noted.records().unwrap(), decoded.records().unwrap());
            // Kept when it is written again, and gone with the records.
            let mut builder = BatchBuilder::rewrite(noted.header());
            noted.iter().skip(1).flatten().for_each(|record| builder.append_record(&record));
            let again = decode_batch(builder.build(), limits).unwrap();
            assert_eq!(again.header().delete_horizon(), Some(horizon));
            assert_eq!(again.records().unwrap(), decoded.records().unwrap()[1..]);
            assert_eq!(log(&emptied(noted.header())).unwrap().delete_horizon(), None);
        }
    }
    assert!(matches!(producer(&with(21, &[0, 1 << 6])), Err(BatchError::InvalidAttributes { .. })));
}

#[test]
fn what_holds_the_place_of_records_is_a_batch_of_a_log_and_not_of_a_producer() {
    let filled = filler(Offset(7), Offset(19), LeaderEpoch(3));
    let header = log(&filled).unwrap();
    assert_eq!((header.base_offset(), header.last_offset()), (Offset(7), Offset(19)));
    assert_eq!((header.leader_epoch(), header.count(), header.producer()), (LeaderEpoch(3), 0, None));
    assert!(header.is_filler() && filled.len() == HEADER_BYTES);
    assert!(matches!(producer(&filled), Err(BatchError::InvalidCount { .. })));

    let mut original = batch(4);
    write_base_offset(&mut original, Offset(100));
    stamp_log_append_time(&mut original, 9000);
    let header = log(&original).unwrap();
    let left = log(&emptied(&header)).unwrap();
    assert!(!left.is_filler());
    assert_eq!((left.base_offset(), left.last_offset()), (header.base_offset(), header.last_offset()));
    assert_eq!((left.producer(), left.last_sequence()), (header.producer(), header.last_sequence()));
    assert_eq!((left.count(), left.max_timestamp()), (0, NO_TIMESTAMP));
    let limits = DecodeLimits { max_decompressed_bytes: 1000 };
    assert_eq!(decode_batch(emptied(&header), limits).unwrap().records().unwrap(), vec![]);
}
