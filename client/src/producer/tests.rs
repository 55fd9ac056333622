//! The producer where no broker can be reached: nothing hangs, and nothing is left in doubt.

use super::*;
use crate::metadata::{PartitionDescription, TopicDescription};
use std::collections::BTreeMap;
use std::io;
use strandline_record::TopicId;

fn nowhere() -> Client {
    let connector: crate::Connector = Arc::new(|_| {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::ConnectionRefused, "no network here")) })
    });
    let client = Client::builder().connector(connector).seed(1).operation_timeout(Duration::from_millis(200));
    client.build().unwrap()
}

/// As if the topic had been looked up while the cluster was there.
fn with_topic(producer: &Producer) {
    let partition = PartitionDescription {
        partition: 0,
        leader: Some(1),
        leader_epoch: 0,
        partition_epoch: 0,
        replicas: vec![1],
        isr: vec![1],
        elr: vec![],
        reassignment: vec![],
    };
    producer.inner.shared.accumulator.lock().put_topic(&TopicDescription {
        name: "t".into(),
        id: TopicId::default(),
        partitions: vec![partition],
        configs: BTreeMap::new(),
    });
}

#[tokio::test]
async fn a_topic_that_cannot_be_looked_up_is_a_definite_failure() {
    let producer = nowhere().producer().build().unwrap();
    let error = producer.send(Record::to("t").value("v")).await.unwrap_err();
    assert!(error.is_retriable() && !error.may_have_happened(), "{error:?}");
    assert!(error.to_string().contains("no network here"), "{error}");
}

#[tokio::test]
async fn what_was_never_sent_fails_definitely_at_the_delivery_timeout_and_gives_its_memory_back() {
    let producer = nowhere().producer().delivery_timeout(Duration::from_millis(300)).build().unwrap();
    with_topic(&producer);
    let handles = [
        producer.send(Record::to("t").value("one")).await.unwrap(),
        producer.send(Record::to("t").value("two")).await.unwrap(),
    ];
    assert!(producer.inner.shared.memory.available_permits() < 32 << 20);
    for handle in handles {
        let error = handle.await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::TimedOut, "{error}");
        assert!(!error.may_have_happened());
    }
    producer.flush().await.unwrap();
    assert_eq!(producer.inner.shared.memory.available_permits(), 32 << 20);
}

#[tokio::test]
async fn closing_settles_everything_and_refuses_more() {
    let producer = nowhere().producer().delivery_timeout(Duration::from_millis(200)).build().unwrap();
    with_topic(&producer);
    let handle = producer.send(Record::to("t").value("v")).await.unwrap();
    let clone = producer.clone();
    producer.close().await.unwrap();
    assert!(handle.try_result().unwrap().is_err());
    let error = clone.send(Record::to("t").value("v")).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Closed);
}

#[tokio::test]
async fn a_full_buffer_makes_send_wait_and_then_fail_definitely() {
    let builder = nowhere().producer().buffer_bytes(1000).batch_bytes(500).idempotent(true);
    let producer = builder.delivery_timeout(Duration::from_millis(200)).build().unwrap();
    with_topic(&producer);
    let first = producer.send(Record::to("t").value("x".repeat(900))).await.unwrap();
    let started = Instant::now();
    // The first one's expiry makes room, or the wait is over first: either way it took that long.
    let second = producer.send(Record::to("t").value("y".repeat(900))).await;
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert!(first.await.is_err());
    if let Err(error) = second.map(drop) {
        assert!(!error.may_have_happened() && error.is_retriable());
    }
    let error = producer.send(Record::to("t").value("z".repeat(2000))).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::RecordTooLarge);
}

#[tokio::test]
async fn a_record_that_cannot_be_sent_is_refused_before_it_is_and_one_that_shrinks_is_not() {
    let builder = |compression| {
        let builder = nowhere().producer().acks(Acks::Leader).compression(compression);
        builder.buffer_bytes(300 << 20).delivery_timeout(Duration::from_millis(500)).build().unwrap()
    };
    let plain = builder(Compression::None);
    with_topic(&plain);
    let large = || Record::to("t").value(vec![b'x'; 65 << 20]);
    let error = plain.send_and_wait(large()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::RecordTooLarge, "{error}");
    assert!(error.to_string().contains("produce to t-0"), "{error}");
    assert_eq!(plain.inner.shared.memory.available_permits(), 300 << 20, "its memory is given back");

    let small = builder(Compression::Lz4);
    with_topic(&small);
    // Worth sending, though nobody can be reached.
    let error = small.send_and_wait(large()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::TimedOut, "{error}");
    let error = small.send(Record::to("t").value(vec![b'x'; 257 << 20])).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::RecordTooLarge, "nobody could decompress it: {error}");
}

#[tokio::test]
async fn a_record_that_waited_for_a_producer_id_says_why_there_was_none() {
    let producer = nowhere().producer().delivery_timeout(Duration::from_millis(600)).build().unwrap();
    with_topic(&producer);
    let error = producer.send_and_wait(Record::to("t").value("v")).await.unwrap_err();
    assert!(!error.may_have_happened(), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("get a producer id") && message.contains("no network here"), "{message}");
}

#[tokio::test]
async fn options_that_contradict_each_other_are_refused() {
    let client = nowhere();
    assert!(client.producer().acks(Acks::Leader).idempotent(true).build().is_err());
    assert!(client.producer().max_in_flight(6).build().is_err());
    assert!(client.producer().max_in_flight(6).idempotent(false).build().is_ok());
    assert!(client.producer().batch_bytes(0).build().is_err());
    assert!(client.producer().buffer_bytes(10).build().is_err());
    assert!(client.producer().delivery_timeout(Duration::ZERO).build().is_err());
    assert!(Client::builder().bootstrap("nonsense").build().is_err());
    assert!(Client::builder().bootstrap(" , ").build().is_err());
    assert!("sometimes".parse::<Acks>().is_err());
}
