//! Consumers without a group: they read partitions from a place they choose and put on record what they see.

use super::produce::attempt_of;
use super::{Bell, tp_of};
use crate::history::{Session, Tp, What};
use crate::world::ClientWorld;
use rand::RngExt;
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_client::{
    AutoOffsetReset, Client, Consumer, ConsumerRecord, Error, ErrorKind, OffsetSpec, TopicPartition,
};

/// CRC-32C of what a consumer sees of a record.
pub fn checksum_of(record: &ConsumerRecord) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in [&record.key, &record.value] {
        digest.update(&[u8::from(part.is_some())]);
        digest.update(part.as_deref().unwrap_or_default());
    }
    for header in &record.headers {
        digest.update(&header.key);
        digest.update(header.value.as_deref().unwrap_or_default());
    }
    digest.finalize() as u32
}

/// The history's entry for a record that was handed out.
pub fn read_of(session: Session, record: &ConsumerRecord) -> What {
    What::Read {
        session,
        tp: Tp { topic: record.topic.clone(), partition: record.partition },
        offset: record.offset,
        leader_epoch: record.leader_epoch,
        attempt: record.value.as_deref().and_then(attempt_of),
        checksum: checksum_of(record),
    }
}

/// Puts an error of a consumer on record. Where reading goes on, if it must be told: `None` for errors after which
/// the consumer goes on by itself.
pub fn record_error(world: &ClientWorld, session: Session, error: &Error) -> Option<(TopicPartition, i64)> {
    let name = &world.name;
    match error.kind() {
        ErrorKind::OffsetOutOfRange { partition, position, log_start_offset, .. } => {
            let what = What::OutOfRange {
                session,
                tp: tp_of(partition),
                position: *position,
                log_start: *log_start_offset,
            };
            world.recorder.record(name, what);
            Some((partition.clone(), *log_start_offset))
        }
        ErrorKind::Truncated { partition, position, end_offset, .. } => {
            let what =
                What::Truncated { session, tp: tp_of(partition), position: *position, end: *end_offset };
            world.recorder.record(name, what);
            Some((partition.clone(), *end_offset))
        }
        ErrorKind::Corrupt(partition) => {
            let what = What::Corrupt { session, tp: tp_of(partition), why: error.to_string() };
            world.recorder.record(name, what);
            None
        }
        _ => {
            world.recorder.note(name, format_args!("consumer: {error}"));
            None
        }
    }
}

fn go_to(world: &ClientWorld, session: Session, consumer: &Consumer, tp: &TopicPartition, offset: i64) {
    if consumer.seek(tp, OffsetSpec::Offset(offset)).is_ok() {
        world.recorder.record(&world.name, What::Position { session, tp: tp_of(tp), offset });
    }
}

/// Reads all partitions from their beginning for as long as the run lasts, seeking back now and then.
pub async fn follow(world: ClientWorld, bootstrap: String, topics: Vec<(String, i32)>, bell: Bell) {
    let mut rng = world.seed.fork("reader").rng();
    let client = world.sdk(&bootstrap).build().expect("the options are usable");
    let mut consumer =
        client.consumer().auto_offset_reset(AutoOffsetReset::Error).build().expect("the options are usable");
    let session = world.recorder.new_session();
    let all: Vec<TopicPartition> = topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|n| TopicPartition::new(topic.as_str(), n)))
        .collect();
    consumer.assign(all.clone()).expect("a consumer without a group may assign");
    for tp in &all {
        go_to(&world, session, &consumer, tp, 0);
    }
    while !bell.has_rung() {
        match consumer.poll(100, Duration::from_millis(500)).await {
            Ok(records) => {
                for record in &records {
                    world.recorder.record(&world.name, read_of(session, record));
                }
            }
            Err(error) => match record_error(&world, session, &error) {
                Some((tp, offset)) => go_to(&world, session, &consumer, &tp, offset),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
        if rng.random_bool(0.01) {
            let tp = &all[rng.random_range(0..all.len())];
            let position = consumer.position(tp).unwrap_or(0);
            go_to(&world, session, &consumer, tp, rng.random_range(0..=position));
        }
    }
    world.recorder.record(&world.name, What::Gone { session });
}

/// Reads every partition once, from its log start to its end: what a run must be able to do when it has healed.
/// `true` in `done` when all of it was read.
pub async fn read_everything(
    world: ClientWorld,
    bootstrap: String,
    topics: Vec<(String, i32)>,
    done: std::sync::Arc<std::sync::atomic::AtomicBool>,
) {
    let client = world.sdk(&bootstrap).build().expect("the options are usable");
    let session = world.recorder.new_session();
    let mut ends = BTreeMap::new();
    let mut starts = BTreeMap::new();
    for (topic, count) in &topics {
        for partition in 0..*count {
            let tp = TopicPartition::new(topic.as_str(), partition);
            ends.insert(tp.clone(), end_of(&world, &client, session, &tp, OffsetSpec::Latest).await);
            let start = end_of(&world, &client, session, &tp, OffsetSpec::Earliest).await;
            starts.insert(tp, start);
        }
    }
    let mut consumer =
        client.consumer().auto_offset_reset(AutoOffsetReset::Error).build().expect("the options are usable");
    consumer.assign(ends.keys().cloned().collect::<Vec<_>>()).expect("a consumer without a group may assign");
    let mut places = starts;
    for (tp, offset) in &places {
        go_to(&world, session, &consumer, tp, *offset);
    }
    while places.iter().any(|(tp, place)| *place < ends[tp]) {
        match consumer.poll(1000, Duration::from_millis(500)).await {
            Ok(records) => {
                for record in &records {
                    world.recorder.record(&world.name, read_of(session, record));
                    places.insert(record.topic_partition(), record.offset + 1);
                }
            }
            Err(error) => match record_error(&world, session, &error) {
                Some((tp, offset)) => {
                    go_to(&world, session, &consumer, &tp, offset);
                    places.insert(tp, offset);
                }
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    world.recorder.record(&world.name, What::Gone { session });
    done.store(true, std::sync::atomic::Ordering::Relaxed);
}

async fn end_of(
    world: &ClientWorld,
    client: &Client,
    session: Session,
    tp: &TopicPartition,
    spec: OffsetSpec,
) -> i64 {
    loop {
        let asked_us = world.recorder.now_us();
        match client.admin().list_offsets([(tp.clone(), spec)]).await {
            Ok(listed) => {
                let offset = listed[tp].offset.unwrap_or(0);
                let latest = spec == OffsetSpec::Latest;
                world
                    .recorder
                    .record(&world.name, What::EndRead { session, tp: tp_of(tp), latest, offset, asked_us });
                return offset;
            }
            Err(error) => world.recorder.note(&world.name, format_args!("offset of {tp}: {error}")),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
