use super::super::cursor::{Cursor, Next};
use super::super::testing::batches;
use super::*;
use bytes::{Bytes, BytesMut};
use std::time::Duration;

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn fetched(batches: Bytes) -> Fetched {
    Fetched { batches, high_watermark: 1000, log_start: 0, diverging: None }
}

fn at(reset: AutoOffsetReset, offset: i64) -> Positions {
    let mut positions = Positions::new(reset);
    positions.assign([tp(0)], true);
    let (partition, incarnation) = positions.want_committed(Instant::now()).remove(0);
    positions.committed(&partition, incarnation, Some(&OffsetAndMetadata::new(offset)));
    positions
}

fn want(positions: &Positions) -> Want {
    let mut wants = positions.want_fetch(Instant::now(), 1 << 20);
    assert_eq!(wants.len(), 1, "{wants:?}");
    wants.remove(0)
}

fn fetch(positions: &mut Positions, answer: &Fetched) -> bool {
    let want = want(positions);
    positions.fetching(&want.partition, want.incarnation);
    positions.fetched(&want.partition, want.incarnation, answer)
}

/// Hands out all that is buffered; returns the offsets.
fn hand_out(positions: &mut Positions) -> Vec<i64> {
    let mut offsets = Vec::new();
    while let Some((partition, incarnation, progress, chunk)) = positions.take_chunk() {
        let mut cursor = Cursor::new(partition, incarnation, progress, chunk);
        loop {
            match cursor.next() {
                Next::Record(record) => {
                    assert_eq!(record.value.unwrap(), record.offset.to_string());
                    cursor.progress().hand_out(record.offset + 1, record.leader_epoch);
                    offsets.push(record.offset);
                }
                Next::End { offset, epoch } => {
                    cursor.progress().hand_out(offset, epoch);
                    break;
                }
                Next::Damaged(error) => panic!("{error}"),
            }
        }
        positions.release(cursor.bytes);
    }
    offsets
}

fn committable(positions: &Positions, only_consumed: bool) -> Option<(i64, Option<i32>)> {
    positions.offsets(only_consumed, |_| true).get(&tp(0)).map(|o| (o.offset, o.leader_epoch))
}

#[tokio::test]
async fn records_before_the_position_in_the_first_batch_are_passed_over() {
    let mut positions = at(AutoOffsetReset::Error, 7);
    assert!(fetch(&mut positions, &fetched(batches(0, 3, &[5, 5, 5]))));
    assert_eq!(hand_out(&mut positions), [7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!((want(&positions).offset, want(&positions).last_fetched_epoch), (15, 3));
    assert_eq!(positions.buffered(), 0);
}

#[tokio::test]
async fn a_batch_cut_off_at_the_end_is_fetched_again_whole() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    let whole = batches(0, 1, &[4, 4]);
    fetch(&mut positions, &fetched(whole.slice(..whole.len() - 3)));
    assert_eq!(hand_out(&mut positions), [0, 1, 2, 3]);
    assert_eq!(want(&positions).offset, 4);
}

#[tokio::test]
async fn fetches_run_ahead_of_the_user_and_commits_follow_only_what_is_processed() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    fetch(&mut positions, &fetched(batches(0, 1, &[3])));
    fetch(&mut positions, &fetched(batches(3, 2, &[3])));
    assert_eq!(want(&positions).offset, 6);
    assert_eq!(committable(&positions, false), Some((0, None)), "nothing is handed out");
    let (_, _, progress, chunk) = positions.take_chunk().unwrap();
    let mut cursor = Cursor::new(tp(0), 0, progress.clone(), chunk);
    let Next::Record(record) = cursor.next() else { panic!() };
    progress.hand_out(record.offset + 1, record.leader_epoch);
    assert_eq!(committable(&positions, false), Some((1, Some(1))));
    assert_eq!(committable(&positions, true), Some((0, None)), "the user has not asked for more");
    progress.consume();
    assert_eq!(committable(&positions, true), Some((1, Some(1))));
}

#[tokio::test]
async fn partitions_are_served_in_turn() {
    let mut positions = Positions::new(AutoOffsetReset::Error);
    positions.assign([tp(0), tp(1)], true);
    for (partition, incarnation) in positions.want_committed(Instant::now()) {
        positions.committed(&partition, incarnation, Some(&OffsetAndMetadata::new(0)));
    }
    for base in [0, 2] {
        for want in positions.want_fetch(Instant::now(), 1 << 20) {
            positions.fetching(&want.partition, want.incarnation);
            positions.fetched(&want.partition, want.incarnation, &fetched(batches(base, 0, &[2])));
        }
    }
    let order: Vec<i32> = std::iter::from_fn(|| positions.take_chunk()).map(|c| c.0.partition).collect();
    assert_eq!(order, [0, 1, 0, 1]);
}

#[tokio::test]
async fn an_answer_from_before_a_seek_is_dropped() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    let old = want(&positions);
    positions.fetching(&old.partition, old.incarnation);
    assert!(positions.want_fetch(Instant::now(), 1 << 20).is_empty(), "one fetch at a time");
    positions.seek(&tp(0), OffsetSpec::Offset(50));
    assert!(!positions.fetched(&old.partition, old.incarnation, &fetched(batches(0, 0, &[9]))));
    assert_eq!(positions.buffered(), 0);
    assert_eq!(want(&positions).offset, 50);
    assert_eq!(committable(&positions, true), Some((50, None)));
    assert!(!positions.seek(&tp(9), OffsetSpec::Offset(1)), "not assigned");
}

#[tokio::test]
async fn without_a_committed_offset_the_policy_says_where_to_begin() {
    for (reset, spec) in
        [(AutoOffsetReset::Earliest, OffsetSpec::Earliest), (AutoOffsetReset::Latest, OffsetSpec::Latest)]
    {
        let mut positions = Positions::new(reset);
        positions.assign([tp(0)], true);
        let (partition, incarnation) = positions.want_committed(Instant::now()).remove(0);
        positions.committed(&partition, incarnation, None);
        assert_eq!(positions.position(&tp(0)), None);
        let (partition, incarnation, wanted) = positions.want_lookup(Instant::now(), 9).remove(0);
        assert_eq!(wanted, spec);
        assert!(positions.want_lookup(Instant::now(), 9).is_empty(), "asked once");
        positions.looked_up(&partition, incarnation, 42);
        assert_eq!(want(&positions).offset, 42);
        assert!(positions.take_error().is_none());
    }
    let mut positions = Positions::new(AutoOffsetReset::Error);
    positions.assign([tp(0)], true);
    let (partition, incarnation) = positions.want_committed(Instant::now()).remove(0);
    positions.committed(&partition, incarnation, None);
    assert!(matches!(positions.take_error().unwrap().kind(), ErrorKind::NoOffset(p) if *p == tp(0)));
    assert!(positions.want_fetch(Instant::now(), 1).is_empty() && committable(&positions, false).is_none());
    positions.seek(&tp(0), OffsetSpec::Offset(3));
    assert_eq!(want(&positions).offset, 3);
}

#[tokio::test]
async fn an_offset_that_retention_removed_is_an_error_or_a_reset_forward() {
    let mut positions = at(AutoOffsetReset::Error, 5);
    let w = want(&positions);
    positions.out_of_range(&w.partition, w.incarnation, 100, 200);
    let error = positions.take_error().unwrap();
    let expected = ErrorKind::OffsetOutOfRange {
        partition: tp(0),
        position: 5,
        log_start_offset: 100,
        high_watermark: 200,
    };
    assert_eq!(error.kind(), &expected);
    assert!(positions.want_fetch(Instant::now(), 1 << 20).is_empty(), "stopped until a seek");

    let mut positions = at(AutoOffsetReset::Earliest, 5);
    let w = want(&positions);
    positions.out_of_range(&w.partition, w.incarnation, 100, 200);
    assert!(positions.take_error().is_none());
    assert_eq!(positions.want_lookup(Instant::now(), 9)[0].2, OffsetSpec::Earliest);
}

#[tokio::test]
async fn a_position_past_the_end_never_goes_back_silently() {
    let mut positions = at(AutoOffsetReset::Latest, 300);
    let w = want(&positions);
    positions.out_of_range(&w.partition, w.incarnation, 100, 200);
    assert!(matches!(
        positions.take_error().unwrap().kind(),
        ErrorKind::OffsetOutOfRange { position: 300, .. }
    ));
    assert_eq!(positions.want_lookup(Instant::now(), 9)[0].2, OffsetSpec::Latest);
}

#[tokio::test]
async fn an_out_of_range_answer_about_what_was_only_fetched_ahead_costs_the_user_nothing() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    fetch(&mut positions, &fetched(batches(0, 1, &[10])));
    let w = want(&positions);
    assert_eq!(w.offset, 10);
    positions.out_of_range(&w.partition, w.incarnation, 0, 8);
    assert!(positions.take_error().is_none());
    assert_eq!(want(&positions).offset, 0, "fetched again from where the user is");
    assert_eq!(positions.buffered(), 0);
}

#[tokio::test]
async fn a_truncation_below_what_was_read_is_told_even_where_the_policy_goes_on() {
    for reset in [AutoOffsetReset::Error, AutoOffsetReset::Earliest, AutoOffsetReset::Latest] {
        let mut positions = at(reset, 0);
        fetch(&mut positions, &fetched(batches(0, 4, &[10])));
        assert_eq!(hand_out(&mut positions).len(), 10);
        fetch(&mut positions, &Fetched { diverging: Some((4, 6)), ..Fetched::default() });
        let error = positions.take_error().unwrap();
        let expected = ErrorKind::Truncated { partition: tp(0), position: 10, epoch: 4, end_offset: 6 };
        assert_eq!(error.kind(), &expected);
        if reset == AutoOffsetReset::Error {
            assert!(positions.want_fetch(Instant::now(), 1 << 20).is_empty());
        } else {
            assert_eq!((want(&positions).offset, want(&positions).last_fetched_epoch), (6, 4));
        }
    }
}

/// After an unclean election the log may be longer than what was read, and yet another one.
#[tokio::test]
async fn another_history_below_the_position_is_told_where_the_log_goes_on_behind_it() {
    let mut positions = at(AutoOffsetReset::Earliest, 0);
    let read = [batches(0, 1, &[4]), batches(4, 2, &[3]), batches(7, 3, &[3])].concat();
    fetch(&mut positions, &fetched(read.into()));
    assert_eq!(hand_out(&mut positions).len(), 10);
    assert_eq!((want(&positions).offset, want(&positions).last_fetched_epoch), (10, 3));
    fetch(&mut positions, &Fetched { diverging: Some((1, 34)), ..Fetched::default() });
    let expected = ErrorKind::Truncated { partition: tp(0), position: 10, epoch: 1, end_offset: 4 };
    assert_eq!(positions.take_error().unwrap().kind(), &expected);
    assert_eq!((want(&positions).offset, want(&positions).last_fetched_epoch), (4, 1));
}

#[tokio::test]
async fn what_was_handed_out_is_asked_for_by_its_own_epoch() {
    let mut positions = at(AutoOffsetReset::Earliest, 0);
    fetch(&mut positions, &fetched(batches(0, 1, &[4])));
    assert_eq!(hand_out(&mut positions).len(), 4);
    fetch(&mut positions, &fetched(batches(4, 3, &[4])));
    fetch(&mut positions, &Fetched { diverging: Some((2, 20)), ..Fetched::default() });
    assert!(positions.take_error().is_none());
    assert_eq!((want(&positions).offset, want(&positions).last_fetched_epoch), (4, 1));
}

#[tokio::test]
async fn a_truncation_above_the_position_only_drops_what_was_fetched_ahead() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    fetch(&mut positions, &fetched(batches(0, 4, &[10])));
    fetch(&mut positions, &Fetched { diverging: Some((3, 6)), ..Fetched::default() });
    assert!(positions.take_error().is_none() && positions.take_chunk().is_none());
    assert_eq!((want(&positions).offset, want(&positions).last_fetched_epoch), (0, 3));
}

#[tokio::test]
async fn a_paused_partition_is_neither_fetched_nor_handed_out_and_goes_on_where_it_was() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    fetch(&mut positions, &fetched(batches(0, 1, &[3])));
    let incarnation = {
        let (_, incarnation, progress, chunk) = positions.take_chunk().unwrap();
        progress.hand_out(1, 1);
        progress.consume();
        positions.release(chunk.bytes.len());
        incarnation
    };
    positions.set_paused(&tp(0), true);
    assert!(!positions.may_hand_out(&tp(0), incarnation));
    assert!(positions.want_fetch(Instant::now(), 1 << 20).is_empty());
    assert_eq!((positions.paused(), positions.buffered()), (vec![tp(0)], 0));
    positions.set_paused(&tp(0), false);
    assert_eq!(want(&positions).offset, 1);
    assert_eq!(committable(&positions, true), Some((1, Some(1))));
}

#[tokio::test]
async fn a_failed_fetch_waits_for_its_delay() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    let (w, now) = (want(&positions), Instant::now());
    positions.fetching(&w.partition, w.incarnation);
    positions.failed(&w.partition, w.incarnation, now + Duration::from_secs(1));
    assert!(positions.want_fetch(now, 1 << 20).is_empty());
    assert_eq!(positions.next_retry(now), Some(now + Duration::from_secs(1)));
    assert_eq!(positions.want_fetch(now + Duration::from_secs(1), 1 << 20).len(), 1);
}

#[tokio::test]
async fn memory_of_a_partition_that_is_taken_away_is_free_at_once() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    fetch(&mut positions, &fetched(batches(0, 1, &[30])));
    assert!(positions.buffered() > 0);
    let (_, incarnation, _, chunk) = positions.take_chunk().unwrap();
    positions.unassign(&[tp(0)]);
    assert!(!positions.may_hand_out(&tp(0), incarnation));
    positions.release(chunk.bytes.len());
    assert_eq!(positions.buffered(), 0);
    assert!(positions.take_chunk().is_none() && positions.assignment().is_empty());
}

#[tokio::test]
async fn a_damaged_batch_is_told_and_fetched_again_from_the_same_position() {
    let mut positions = at(AutoOffsetReset::Error, 0);
    let mut bytes = BytesMut::from(&batches(0, 1, &[3])[..]);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fetch(&mut positions, &fetched(bytes.freeze()));
    let (partition, incarnation, progress, chunk) = positions.take_chunk().unwrap();
    let mut cursor = Cursor::new(partition, incarnation, progress, chunk);
    let Next::Damaged(error) = cursor.next() else { panic!("a flipped bit went unnoticed") };
    assert_eq!(error.kind(), &ErrorKind::Corrupt(tp(0)));
    positions.release(cursor.bytes);
    let retry_at = Instant::now() + Duration::from_secs(1);
    positions.refetch(&tp(0), incarnation, retry_at);
    assert_eq!(positions.want_fetch(retry_at, 1 << 20)[0].offset, 0);
}
