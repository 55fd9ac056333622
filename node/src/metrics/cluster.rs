//! Partitions and the cluster, as this node has them.

use super::table::*;
use crate::broker::Broker;
use crate::context::Context;
use crate::partition::{LeadingReading, PartitionReading};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metrics::{Labels, Page};
use strandline_record::BrokerId;

pub(super) fn gather(
    context: &Context,
    broker: &Broker,
    partitions: &[PartitionReading],
    limit: usize,
    page: &mut Page,
) {
    node(context, broker, page);
    sums(partitions, page);
    topics(context, partitions, limit, page);
    for partition in partitions.iter().take(limit) {
        one(partition, page);
    }
    page.add(&OMITTED, &[&"partition"], partitions.len().saturating_sub(limit));
    raft(context, page);
}

fn node(context: &Context, broker: &Broker, page: &mut Page) {
    page.add(&NODE_INFO, &[&context.id], 1_u64);
    page.add(&REGISTERED, &[], context.broker_epoch().is_some());
    let image = context.image();
    let fenced = image.brokers.iter().filter(|(_, broker)| broker.fenced).count();
    page.add(&BROKERS, &[&"fenced"], fenced);
    page.add(&BROKERS, &[&"active"], image.brokers.size() - fenced);
    page.add(&OFFLINE, &[], image.partitions.iter().filter(|(_, agreed)| agreed.leader.is_none()).count());
    page.add(&UNOPENED, &[], broker.unopened());
    let roles = &context.meters.partitions;
    page.add(&ROLES_BEGUN, &[&"leader"], roles.led.get());
    page.add(&ROLES_BEGUN, &[&"follower"], roles.followed.get());
    page.add(&DAMAGE_FOUND, &[], roles.damage_found.get());
    page.add(&DAMAGE_REPAIRED, &[], roles.damage_repaired.get());
}

fn sums(partitions: &[PartitionReading], page: &mut Page) {
    let leading = || partitions.iter().filter_map(|partition| partition.leading.as_ref());
    let count = |which: fn(&LeadingReading) -> bool| leading().filter(|led| which(led)).count();
    page.add(&REPLICAS, &[], partitions.len());
    page.add(&LED, &[], leading().count());
    page.add(&UNDER_REPLICATED, &[], count(|led| led.isr < led.replicas));
    page.add(&UNDER_MIN_ISR, &[], count(|led| led.isr < led.min_insync));
    page.add(&AT_MIN_ISR, &[], count(|led| led.isr == led.min_insync && led.isr < led.replicas));
    page.add(&DAMAGED, &[], partitions.iter().filter(|partition| partition.damaged).count());
    let mut lag: BTreeMap<BrokerId, i64> = BTreeMap::new();
    for (follower, behind) in leading().flat_map(|led| &led.followers) {
        *lag.entry(*follower).or_default() += behind.unwrap_or(0);
    }
    for (follower, behind) in lag {
        page.add(&FOLLOWER_LAG, &[&follower], behind);
    }
}

fn topics(context: &Context, partitions: &[PartitionReading], limit: usize, page: &mut Page) {
    // Sorted by topic, so that those of one lie together.
    let held: Vec<&[PartitionReading]> = partitions.chunk_by(|a, b| a.topic == b.topic).collect();
    for of_topic in held.iter().take(limit) {
        let labels = Labels::new(&[&of_topic[0].topic]);
        page.family(&TOPIC_REPLICAS).add(labels.clone(), of_topic.len());
        page.family(&TOPIC_SIZE)
            .add(labels, of_topic.iter().map(|partition| partition.size_bytes).sum::<u64>());
    }
    let counted = context.meters.topics();
    for (name, meters) in counted.iter().take(limit) {
        let labels = Labels::new(&[name]);
        let counts = [
            (&TOPIC_PRODUCED_RECORDS, &meters.produced.records),
            (&TOPIC_PRODUCED_BYTES, &meters.produced.bytes),
            (&TOPIC_FETCHED_RECORDS, &meters.fetched.records),
            (&TOPIC_FETCHED_BYTES, &meters.fetched.bytes),
        ];
        for (metric, counter) in counts {
            page.family(metric).add(labels.clone(), counter.get());
        }
    }
    page.add(&OMITTED, &[&"topic"], counted.len().max(held.len()).saturating_sub(limit));
}

fn one(partition: &PartitionReading, page: &mut Page) {
    let labels = Labels::new(&[&partition.topic, &partition.tp.partition.0]);
    let mut add = |metric, value: strandline_metrics::Value| page.family(metric).add(labels.clone(), value);
    add(&PARTITION_SIZE, partition.size_bytes.into());
    add(&PARTITION_LOG_START, partition.log_start.0.into());
    add(&PARTITION_HIGH_WATERMARK, partition.high_watermark.0.into());
    add(&PARTITION_LOG_END, partition.log_end.0.into());
    add(&PARTITION_LEADS, partition.leading.is_some().into());
    if let Some(epoch) = partition.leader_epoch {
        add(&PARTITION_LEADER_EPOCH, epoch.0.into());
    }
    if let Some(LeadingReading { isr, followers, .. }) = &partition.leading {
        add(&PARTITION_ISR, (*isr).into());
        let behind = followers.iter().filter_map(|(_, lag)| *lag).max();
        add(&PARTITION_FOLLOWER_LAG, behind.unwrap_or(0).into());
    }
}

fn raft(context: &Context, page: &mut Page) {
    let raft = context.raft.metrics();
    page.add(&RAFT_TERM, &[], raft.term);
    page.add(&RAFT_IS_LEADER, &[], raft.is_leader);
    page.add(&RAFT_HAS_LEADER, &[], raft.leader.is_some());
    page.add(&RAFT_VOTERS, &[], context.raft.voters().len());
    page.add(&RAFT_LOG_BYTES, &[], raft.log_bytes);
    let indexes = [
        (&RAFT_LAST_INDEX, raft.last_index),
        (&RAFT_COMMITTED_INDEX, raft.committed),
        (&RAFT_APPLIED_INDEX, raft.applied),
        (&RAFT_SNAPSHOT_INDEX, raft.snapshot),
    ];
    for (metric, index) in indexes {
        page.add(metric, &[], index.unwrap_or(0));
    }
}

/// Names by which topics are known, of an image.
pub(super) fn topic_name(
    image: &strandline_metadata::Image,
    id: strandline_record::TopicId,
) -> Option<Arc<str>> {
    image.topics.get(&id).map(|topic| topic.name.clone())
}
