//! How far the groups are behind: asks the leaders for the ends of the partitions and the coordinators for what was
//! committed, once a second. An answer that does not come leaves the figures as they were.

use super::{Running, TOPIC};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{Broker, TopicDescription};
use tokio::time::{Instant, MissedTickBehavior};

const SECOND: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(1);

/// Looks until it is told to stop.
pub(super) async fn run(running: Arc<Running>) {
    if running.groups.is_empty() {
        return running.stop.cancelled().await;
    }
    tokio::select! {
        biased;
        () = running.stop.cancelled() => {}
        () = count_seconds(&running) => {}
        () = look(&running) => {}
    }
}

async fn count_seconds(running: &Running) {
    let mut seconds = tokio::time::interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        seconds.tick().await;
        let now = running.elapsed();
        running.groups.iter().for_each(|group| group.turn(now));
    }
}

async fn look(running: &Running) {
    let admin = running.client.admin();
    let mut brokers: Vec<Broker> = Vec::new();
    let mut topic: Option<TopicDescription> = None;
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    let mut committed: Vec<BTreeMap<i32, i64>> = vec![BTreeMap::new(); running.groups.len()];
    loop {
        let next = Instant::now() + SECOND;
        if let Ok(Ok(status)) = tokio::time::timeout(ANSWER, admin.cluster_status()).await {
            brokers = status.brokers;
        }
        if let Ok(Ok(described)) = tokio::time::timeout(ANSWER, admin.describe_topic(TOPIC)).await {
            topic = Some(described);
        }
        let found = admin.high_watermarks(&brokers, topic.as_slice(), ANSWER).await;
        ends.extend(found.into_iter().map(|(partition, end)| (partition.partition, end)));
        for (group, committed) in running.groups.iter().zip(&mut committed) {
            let answer = tokio::time::timeout(ANSWER, admin.group_offsets(group.name())).await;
            if let Ok(Ok(offsets)) = answer {
                let ours = offsets.into_iter().filter(|(partition, _)| &*partition.topic == TOPIC);
                *committed = ours.map(|(partition, at)| (partition.partition, at.position.offset)).collect();
            }
            if !ends.is_empty() {
                group.ends(&ends, committed);
            }
        }
        tokio::time::sleep_until(next).await;
    }
}
