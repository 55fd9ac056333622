//! The topics of a demonstration, made where they are missing.
//!
//! Payments are kept for some minutes and within bounds, so that a demonstration does not fill a disk: at most
//! [`RETENTION_BYTES`] and a segment for each of the partitions and replicas, once the brokers look for what is too old.

use super::{TOPIC, lease};
use std::time::Duration;
use strandline_client::{Client, Error, ErrorCode, NewTopic};
use tokio::time::Instant;

const PARTITIONS: i32 = 12;
const MOST_REPLICAS: usize = 3;
/// Of each partition.
const RETENTION_BYTES: u64 = 32 << 20;
const SEGMENT_BYTES: u64 = 8 << 20;
const RETENTION: Duration = Duration::from_secs(900);
/// For both topics.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(300);

/// Makes both topics.
///
/// # Errors
/// What kept the cluster from making them.
pub(super) async fn create(client: &Client) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    let payments = |topic: NewTopic| {
        topic
            .partitions(PARTITIONS)
            .config("retention.bytes", RETENTION_BYTES.to_string())
            .config("segment.bytes", SEGMENT_BYTES.to_string())
            .config("retention.ms", RETENTION.as_millis().to_string())
    };
    ensure(client, TOPIC, payments, deadline).await?;
    ensure(client, lease::NAME, |topic| topic.partitions(1), deadline).await
}

/// A topic that is there, and that the client knows.
async fn ensure(
    client: &Client,
    name: &str,
    shape: impl Fn(NewTopic) -> NewTopic,
    deadline: Instant,
) -> Result<(), Error> {
    loop {
        let error = match make(client, name, &shape).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Not the topic's fault, or perhaps it is there by now.
        let again = error.is_retriable() || error.may_have_happened();
        if !again || Instant::now() + PAUSE >= deadline {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn make(client: &Client, name: &str, shape: impl Fn(NewTopic) -> NewTopic) -> Result<(), Error> {
    let admin = client.admin();
    match admin.describe_topic(name).await {
        Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => {}
        described => return described.map(drop),
    }
    // As many copies as there are nodes that can hold one now.
    let nodes = admin.cluster_status().await?.brokers.iter().filter(|b| !b.fenced && !b.draining).count();
    let replicas = nodes.clamp(1, MOST_REPLICAS);
    let topic = shape(NewTopic::new(name)).replication_factor(i32::try_from(replicas).unwrap_or(1));
    match admin.create_topic(topic).await {
        Err(error) if error.code() != Some(ErrorCode::TopicExists) => return Err(error),
        _ => {}
    }
    // Waits until the cluster's nodes know of it.
    client.topic(name).await.map(drop)
}
