//! The user's side of a consumer and its gate, with bytes put where the fetcher would put them. No broker can be
//! reached.

use super::membership::Step;
use super::places::Fetched;
use super::testing::batches;
use super::*;
use crate::types::OffsetSpec;
use futures::{FutureExt, StreamExt};
use std::io;
use tokio::time::{Instant, sleep, timeout};

fn nowhere() -> Client {
    let connector: crate::Connector = Arc::new(|_| {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::ConnectionRefused, "no network here")) })
    });
    Client::builder().connector(connector).seed(1).build().unwrap()
}

fn tp() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// A consumer at offset 0 of `t-0`.
fn consumer() -> Consumer {
    let consumer = nowhere().consumer().build().unwrap();
    consumer.assign([tp()]).unwrap();
    consumer.seek(&tp(), OffsetSpec::Offset(0)).unwrap();
    consumer
}

/// What the fetcher does with an answer.
fn feed(consumer: &ConsumerHandle, base: i64, counts: &[usize]) {
    let answer =
        Fetched { batches: batches(base, 1, counts), high_watermark: 1000, log_start: 0, diverging: None };
    let fed = consumer.shared.change(|state| {
        let later = Instant::now() + Duration::from_secs(3600);
        let want = state.positions.want_fetch(later, 1 << 20).remove(0);
        assert_eq!(want.partition, tp());
        state.positions.fetched(&want.partition, want.incarnation, &answer)
    });
    assert!(fed);
}

fn processed(consumer: &ConsumerHandle) -> i64 {
    consumer.shared.state.lock().positions.offsets(true, |_| true)[&tp()].offset
}

async fn next(consumer: &mut Consumer) -> i64 {
    let record = timeout(Duration::from_secs(5), consumer.recv()).await.expect("a record is there").unwrap();
    record.unwrap().offset
}

#[tokio::test]
async fn a_record_counts_as_processed_when_the_next_is_asked_for() {
    let mut consumer = consumer();
    feed(&consumer, 0, &[2, 2]);
    assert_eq!((next(&mut consumer).await, processed(&consumer), consumer.position(&tp())), (0, 0, Some(1)));
    assert_eq!((next(&mut consumer).await, processed(&consumer), consumer.position(&tp())), (1, 1, Some(2)));
    // Three in one call: none of them is processed before the next call.
    feed(&consumer, 4, &[5]);
    let records = consumer.poll(3, Duration::from_secs(5)).await.unwrap();
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(processed(&consumer), 2);
    let records = consumer.poll(3, Duration::from_secs(5)).await.unwrap();
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(processed(&consumer), 4);
    assert_eq!(consumer.next().await.unwrap().unwrap().offset, 7);
    assert_eq!(processed(&consumer), 7);
}

#[tokio::test]
async fn closing_counts_no_more_as_processed_than_the_application_says() {
    let upto = |offset| BTreeMap::from([(tp(), OffsetAndMetadata::new(offset))]);
    // (says, is taken for): nothing of the last call, part of it, and more than was ever given.
    for (says, expected) in [(BTreeMap::new(), 3), (upto(5), 5), (upto(2), 3), (upto(100), 7)] {
        let mut consumer = consumer();
        let handle = consumer.handle();
        feed(&handle, 0, &[10]);
        for (max, first) in [(3, 0), (4, 3)] {
            let records = consumer.poll(max, Duration::from_secs(5)).await.unwrap();
            assert_eq!((records.len(), records[0].offset), (max, first));
        }
        consumer.close_processed(&says).await.unwrap();
        assert_eq!(processed(&handle), expected, "{says:?}");
    }
    let mut all = consumer();
    let handle = all.handle();
    feed(&handle, 0, &[10]);
    assert_eq!(all.poll(4, Duration::from_secs(5)).await.unwrap().len(), 4);
    all.close().await.unwrap();
    assert_eq!(processed(&handle), 4);
}

#[tokio::test]
async fn the_gate_closes_only_while_the_user_waits_and_then_holds_records_back() {
    let mut consumer = consumer();
    let handle = consumer.handle();
    feed(&handle, 0, &[5]);
    assert_eq!(next(&mut consumer).await, 0);
    // A rebalance begins while the application is busy with record 0.
    let shared = handle.shared.clone();
    let mut gate = tokio::spawn(async move { shared.close_gate().await });
    assert!(timeout(Duration::from_millis(50), &mut gate).await.is_err(), "record 0 is not processed yet");
    assert_eq!(processed(&handle), 0);
    // It asks for the next one: not given, and record 0 is processed.
    let waiting = tokio::spawn(async move { (next(&mut consumer).await, consumer) });
    gate.await.unwrap();
    assert_eq!(processed(&handle), 1);
    sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    handle.shared.open_gate();
    let (offset, _consumer) = waiting.await.unwrap();
    assert_eq!(offset, 1);
}

#[tokio::test]
async fn a_call_that_is_given_up_no_longer_lets_the_gate_close() {
    let mut consumer = consumer();
    assert!(timeout(Duration::from_millis(20), consumer.recv()).await.is_err());
    assert!(consumer.handle.shared.close_gate().now_or_never().is_none(), "nobody waits");
    consumer.handle.shared.open_gate();
    feed(&consumer, 0, &[1]);
    assert_eq!(next(&mut consumer).await, 0);
}

#[tokio::test]
async fn records_of_a_partition_taken_away_are_not_handed_out_even_from_the_middle_of_a_batch() {
    let mut consumer = consumer();
    feed(&consumer, 0, &[100]);
    assert_eq!(next(&mut consumer).await, 0);
    consumer.shared.change(|state| state.positions.unassign(&[tp()]));
    assert!(timeout(Duration::from_millis(20), consumer.recv()).await.is_err());
    assert_eq!(consumer.shared.state.lock().positions.buffered(), 0);
}

#[tokio::test]
async fn a_seek_or_a_pause_counts_from_the_very_next_record() {
    let mut consumer = consumer();
    feed(&consumer, 0, &[100]);
    assert_eq!(next(&mut consumer).await, 0);
    consumer.seek(&tp(), OffsetSpec::Offset(50)).unwrap();
    feed(&consumer, 40, &[100]);
    assert_eq!(next(&mut consumer).await, 50);
    consumer.pause(&tp()).unwrap();
    assert!(timeout(Duration::from_millis(20), consumer.recv()).await.is_err());
    consumer.resume(&tp()).unwrap();
    feed(&consumer, 40, &[100]);
    assert_eq!(next(&mut consumer).await, 51);
    assert!(consumer.seek(&TopicPartition::new("t", 9), OffsetSpec::Latest).is_err());
    assert!(consumer.seek(&tp(), OffsetSpec::Offset(-5)).is_err());
}

#[tokio::test]
async fn an_error_comes_once_and_the_end_is_none() {
    let mut consumer = consumer();
    feed(&consumer, 0, &[1]);
    consumer.shared.tell(Error::invalid("something"));
    assert!(consumer.recv().await.unwrap().is_err());
    assert_eq!(next(&mut consumer).await, 0);
    consumer.shared.change(|state| state.closed = true);
    assert!(consumer.next().await.is_none());
}

/// The driver's steps, carried out on the real state: automatic commit cannot reach anyone here, but everything
/// before and after it happens in order.
#[tokio::test]
async fn a_listener_is_told_behind_the_gate_and_before_its_partitions_go() {
    struct Heard(Mutex<Vec<String>>, Notify);
    struct Listener(Arc<Heard>);
    #[async_trait]
    impl RebalanceListener for Listener {
        async fn on_revoked(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
            let position = consumer.position(&partitions[0]);
            self.0.0.lock().push(format!("revoked {partitions:?} at {position:?}"));
        }
        async fn on_assigned(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
            for partition in partitions {
                consumer.seek(partition, OffsetSpec::Offset(0)).unwrap();
            }
            self.0.0.lock().push(format!("assigned {partitions:?}"));
            self.0.1.notify_one();
        }
    }
    let heard = Arc::new(Heard(Mutex::default(), Notify::new()));
    let builder =
        nowhere().consumer().group("g").auto_commit(false).rebalance_listener(Listener(heard.clone()));
    let mut consumer = builder.build().unwrap();
    let handle = consumer.handle();
    let partitions = || std::iter::once(tp()).collect();
    let shared = handle.shared.clone();
    let busy = Arc::new(Notify::new());
    let is_busy = busy.clone();
    let rebalance = tokio::spawn(async move {
        group::execute_for_test(&shared, vec![Step::Gate, Step::Assigned(partitions()), Step::Open]).await;
        is_busy.notified().await;
        group::execute_for_test(
            &shared,
            vec![Step::Gate, Step::Commit(partitions()), Step::Revoked(partitions()), Step::Open],
        )
        .await;
    });
    let user = tokio::spawn(async move {
        let first = next(&mut consumer).await;
        busy.notify_one();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(consumer.assignment(), [tp()], "still busy with it");
        let _ = timeout(Duration::from_millis(50), consumer.recv()).await;
        (first, consumer)
    });
    heard.1.notified().await;
    feed(&handle, 0, &[3]);
    rebalance.await.unwrap();
    let (first, _consumer) = user.await.unwrap();
    assert_eq!(first, 0);
    assert_eq!(*heard.0.lock(), ["assigned [t-0]", "revoked [t-0] at Some(1)"]);
    assert!(handle.assignment().is_empty());
}

#[tokio::test]
async fn options_that_contradict_each_other_are_refused() {
    let client = nowhere();
    assert!(client.consumer().group("").build().is_err());
    assert!(client.consumer().group_instance_id("a").build().is_err());
    assert!(client.consumer().group("g").session_timeout(Duration::from_secs(2)).build().is_err());
    assert!(client.consumer().group("g").assignors([]).build().is_err());
    assert!(client.consumer().fetch_max_wait(Duration::from_secs(60)).build().is_err());
    let alone = client.consumer().build().unwrap();
    assert!(alone.subscribe(["t"]).is_err(), "there is no group");
    assert!(alone.commit().await.is_err());
    let member = client.consumer().group("g").build().unwrap();
    member.subscribe(["t"]).unwrap();
    assert!(member.assign([tp()]).is_err(), "it is subscribed");
}
