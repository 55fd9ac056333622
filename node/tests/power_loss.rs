//! All nodes lose power at the same moment under load, with everything that was not fsynced gone or torn: nothing
//! that was acknowledged is missing afterwards, nothing is there twice, and the replicas agree.
#![allow(clippy::disallowed_methods, reason = "tests wait on the real clock")]

mod common;

use bytes::Bytes;
use common::{Node, client, cluster};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strandline_record::{BatchBuilder, Compression, DecodeLimits, SharedBatchIter, decode_batch};
use strandline_wire::v1::strandline_client::StrandlineClient;
use strandline_wire::v1::*;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const PARTITIONS: i32 = 4;

/// (partition, offset) → value, as acknowledged.
type Acknowledged = Arc<Mutex<BTreeMap<(i32, i64), String>>>;

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1_700_000_000_000, Some(b"key"), Some(value.as_bytes()), &[]);
    builder.build()
}

/// Writes numbered records to the partitions that `node` leads until its stream breaks.
async fn write(
    mut client: StrandlineClient<Channel>,
    topic: TopicInfo,
    node: u64,
    round: u32,
    acknowledged: Acknowledged,
) {
    let led: Vec<i32> =
        topic.partitions.iter().filter(|p| p.leader == Some(node)).map(|p| p.partition).collect();
    let (tx, rx) = tokio::sync::mpsc::channel(8);
    let Ok(answers) = client.produce(ReceiverStream::new(rx)).await else { return };
    let mut answers = answers.into_inner();
    let sent: Arc<Mutex<BTreeMap<u64, String>>> = Arc::default();
    let (topic_id, noted) = (topic.topic_id.clone(), sent.clone());
    let sender = tokio::spawn(async move {
        for number in 0u64.. {
            let partition = led[number as usize % led.len()];
            let value = format!("round {round}, node {node}, record {number}");
            noted.lock().unwrap().insert(number, value.clone());
            let partitions = vec![ProducePartition {
                topic_id: topic_id.clone(),
                partition,
                leader_epoch: -1,
                batches: batch(&value),
            }];
            let request =
                ProduceRequest { request_id: number, acks: Acks::All as i32, timeout_ms: 5000, partitions };
            if tx.send(request).await.is_err() {
                return;
            }
        }
    });
    while let Ok(Some(answer)) = answers.message().await {
        let result = &answer.partitions[0];
        if result.error.is_none() {
            let value = sent.lock().unwrap().remove(&answer.request_id).expect("answered once");
            let before = acknowledged.lock().unwrap().insert((result.partition, result.base_offset), value);
            assert!(before.is_none(), "two records acknowledged at one offset");
        }
    }
    sender.abort();
}

async fn topic(client: &mut StrandlineClient<Channel>) -> TopicInfo {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let request = MetadataRequest { topics: vec!["t".to_owned()], ..Default::default() };
        let mut answer = client.metadata(request).await.unwrap().into_inner();
        let topic = answer.topics.remove(0);
        if topic.error.is_none() && topic.partitions.iter().all(|p| p.leader.is_some() && p.isr.len() == 3) {
            return topic;
        }
        assert!(Instant::now() < until, "not every partition has a leader and a full ISR: {topic:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every visible record of a partition, from its leader.
async fn read(nodes: &[Node], topic: &TopicInfo, partition: i32) -> BTreeMap<i64, String> {
    let mut leader = topic.partitions[partition as usize].leader.unwrap();
    let mut found = BTreeMap::new();
    let mut next = 0;
    let mut last = None;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        assert!(Instant::now() < until, "partition {partition} could not be read on from {next}: {last:?}");
        let wanted = FetchPartition {
            topic_id: topic.topic_id.clone(),
            partition,
            leader_epoch: -1,
            offset: next,
            last_fetched_epoch: -1,
            max_bytes: 1 << 20,
        };
        let request = FetchRequest {
            request_id: 1,
            max_wait_ms: 200,
            min_bytes: 1,
            max_bytes: 1 << 20,
            partitions: vec![wanted],
        };
        let mut client = client(&nodes[leader as usize - 1], 3).await;
        let mut answers = client.fetch(tokio_stream::once(request)).await.unwrap().into_inner();
        let mut answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            other => panic!("a fetch stream ended: {other:?}"),
        };
        let answer = answer.partitions.remove(0);
        if let Some(error) = answer.error {
            // Leadership may move: preferred leaders take over again.
            leader = error.leader_id.unwrap_or(leader);
            last = Some(error);
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        for batch in SharedBatchIter::new(answer.batches) {
            let (header, bytes) = batch.unwrap();
            let decoded = decode_batch(bytes, DecodeLimits { max_decompressed_bytes: 1 << 20 }).unwrap();
            for record in decoded.records().unwrap() {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                found.insert(record.offset.0, value);
            }
            next = header.next_offset().0;
        }
        if next >= answer.high_watermark {
            return found;
        }
    }
}

async fn check(nodes: &[Node], acknowledged: &Acknowledged) {
    let mut first = client(&nodes[0], 3).await;
    let topic = topic(&mut first).await;
    let mut seen: BTreeMap<String, (i32, i64)> = BTreeMap::new();
    for partition in &topic.partitions {
        let found = read(nodes, &topic, partition.partition).await;
        for ((_, offset), value) in
            acknowledged.lock().unwrap().iter().filter(|((p, _), _)| *p == partition.partition)
        {
            assert_eq!(found.get(offset), Some(value), "partition {}, offset {offset}", partition.partition);
        }
        for (offset, value) in found {
            let twice = seen.insert(value.clone(), (partition.partition, offset));
            assert!(twice.is_none(), "{value} is at {twice:?} and at {:?}", (partition.partition, offset));
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_all_nodes_lose_power_at_once() {
    let mut nodes = cluster(3, 20_261_121);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let acknowledged: Acknowledged = Arc::default();
    for node in &mut nodes {
        node.start();
    }
    runtime.block_on(async {
        let mut first = client(&nodes[0], 3).await;
        let request = CreateTopicRequest {
            name: "t".to_owned(),
            partitions: PARTITIONS,
            replication_factor: 3,
            ..Default::default()
        };
        let created = first.create_topic(request).await.unwrap().into_inner();
        assert!(created.error.is_none(), "{created:?}");
    });
    for round in 0..3 {
        runtime.block_on(async {
            let mut first = client(&nodes[0], 3).await;
            let topic = topic(&mut first).await;
            for id in 1..=3u64 {
                if topic.partitions.iter().any(|p| p.leader == Some(id)) {
                    let client = client(&nodes[id as usize - 1], 3).await;
                    tokio::spawn(write(client, topic.clone(), id, round, acknowledged.clone()));
                }
            }
            let before = acknowledged.lock().unwrap().len();
            let until = Instant::now() + Duration::from_secs(20);
            while acknowledged.lock().unwrap().len() < before + 300 {
                assert!(Instant::now() < until, "writes are not acknowledged");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        for node in &mut nodes {
            node.power_loss();
        }
        for node in &mut nodes {
            node.start();
        }
        runtime.block_on(check(&nodes, &acknowledged));
    }
    assert!(acknowledged.lock().unwrap().len() >= 900);
    for node in &mut nodes {
        node.stop();
    }
}
