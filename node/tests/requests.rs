//! What one node answers to requests that are not right: nothing of them is in the log afterwards.
#![allow(clippy::disallowed_methods, reason = "tests wait on the real clock")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{client, cluster};
use strandline_record::{BatchBuilder, Compression};
use strandline_wire::v1::strandline_client::StrandlineClient;
use strandline_wire::v1::*;
use tonic::transport::Channel;

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    builder.build()
}

async fn produce(
    client: &mut StrandlineClient<Channel>,
    topic_id: &Bytes,
    batches: Bytes,
) -> ProducePartitionResult {
    let partitions =
        vec![ProducePartition { topic_id: topic_id.clone(), partition: 0, leader_epoch: -1, batches }];
    let request = ProduceRequest { request_id: 7, acks: Acks::All as i32, timeout_ms: 5000, partitions };
    // The request stream stays open until the answer is there.
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    tx.send(request).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(rx);
    let mut answers = client.produce(stream).await.unwrap().into_inner();
    let mut answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.request_id, 7);
    answer.partitions.remove(0)
}

fn code(result: &ProducePartitionResult) -> ErrorCode {
    result.error.as_ref().map_or(ErrorCode::None, |error| error.code())
}

#[test]
fn batches_that_are_not_right_are_refused_and_leave_nothing_behind() {
    let mut nodes = cluster(1, 5);
    nodes[0].start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = client(&nodes[0], 1).await;
        let request = CreateTopicRequest { name: "t".to_owned(), partitions: 1, ..Default::default() };
        let created = client.create_topic(request).await.unwrap().into_inner();
        assert!(created.error.is_none(), "{created:?}");
        let id = created.topic_id;

        let first = produce(&mut client, &id, batch("right")).await;
        assert_eq!((code(&first), first.base_offset), (ErrorCode::None, 0), "{first:?}");

        let mut flipped = BytesMut::from(&batch("flipped")[..]);
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert_eq!(code(&produce(&mut client, &id, flipped.freeze()).await), ErrorCode::CorruptRecord);

        let cut = batch("cut");
        assert_eq!(
            code(&produce(&mut client, &id, cut.slice(..cut.len() - 3)).await),
            ErrorCode::CorruptRecord
        );

        let two = [batch("one"), batch("two")].concat();
        assert_eq!(code(&produce(&mut client, &id, two.into()).await), ErrorCode::InvalidRecord);

        let unknown = Bytes::from_static(&[9; 16]);
        assert_eq!(
            code(&produce(&mut client, &unknown, batch("lost")).await),
            ErrorCode::UnknownTopicOrPartition
        );

        let next = produce(&mut client, &id, batch("right again")).await;
        assert_eq!((code(&next), next.base_offset), (ErrorCode::None, 1), "{next:?}");
    });
    nodes[0].stop();
}
