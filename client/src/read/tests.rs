use super::*;
use crate::consumer::testing::batches;

fn answered(batches: bytes::Bytes) -> v1::FetchPartitionResult {
    v1::FetchPartitionResult { batches, high_watermark: 100, log_start_offset: 3, ..Default::default() }
}

fn read(from: i64, max_records: usize, result: v1::FetchPartitionResult) -> Result<(Vec<i64>, i64)> {
    let tp = TopicPartition::new("t", 0);
    let page = page(&tp, from, ReadOptions { max_records, ..ReadOptions::default() }, result)?;
    assert_eq!((page.high_watermark, page.log_start_offset), (100, 3));
    Ok((page.records.iter().map(|record| record.offset).collect(), page.next_offset))
}

#[test]
fn a_page_begins_where_it_was_asked_for_and_ends_at_its_most() {
    let bytes = batches(10, 1, &[3, 2]);
    assert_eq!(read(10, 500, answered(bytes.clone())).unwrap(), ((10..15).collect(), 15));
    assert_eq!(read(11, 500, answered(bytes.clone())).unwrap(), ((11..15).collect(), 15));
    assert_eq!(read(11, 3, answered(bytes.clone())).unwrap(), ((11..14).collect(), 14));
    assert_eq!(read(10, 3, answered(bytes.clone())).unwrap(), ((10..13).collect(), 13));
    assert_eq!(read(14, 1, answered(bytes)).unwrap(), (vec![14], 15));
    assert_eq!(read(15, 1, answered(bytes::Bytes::new())).unwrap(), (vec![], 15));
}

#[test]
fn a_damaged_batch_is_an_error_and_never_records() {
    let mut bytes = batches(10, 1, &[3]).to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let error = read(10, 500, answered(bytes.into())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Corrupt(_)), "{error:?}");
}

#[test]
fn an_offset_that_is_not_in_the_log_comes_with_the_ends_of_the_log() {
    let mut result = answered(bytes::Bytes::new());
    result.error = Some(v1::Error { code: ErrorCode::OffsetOutOfRange as i32, ..Default::default() });
    let whole = v1::FetchResponse { partitions: vec![result.clone()], ..Default::default() };
    assert!(whole.error().is_none(), "it is an answer");
    let error = read(101, 500, result).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::OffsetOutOfRange { log_start_offset: 3, high_watermark: 100, .. }),
        "{error:?}"
    );
    assert!(!error.is_retriable() && !error.may_have_happened());
}
