//! Consumer groups. Each leader knows the ends of its partitions and, from the metadata, what every group has committed of
//! them: the sum over all nodes is the lag, whoever coordinates. Members are counted by their coordinator.

use super::cluster::topic_name;
use super::table::*;
use crate::context::Context;
use crate::group::coordinator;
use crate::partition::PartitionReading;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metrics::Page;
use strandline_record::{Offset, TopicId, TopicPartition};

pub(super) fn gather(context: &Context, partitions: &[PartitionReading], limit: usize, page: &mut Page) {
    let image = context.image();
    let led: BTreeMap<TopicPartition, Offset> = partitions
        .iter()
        .filter(|partition| partition.leading.is_some())
        .map(|partition| (partition.tp, partition.high_watermark))
        .collect();
    let mut lag: BTreeMap<(&Arc<str>, TopicId), i64> = BTreeMap::new();
    for ((group, tp), committed) in image.offsets.iter() {
        if let Some(end) = led.get(tp) {
            *lag.entry((group, tp.topic)).or_default() += (end.0 - committed.offset.0).max(0);
        }
    }
    for ((group, topic), behind) in lag.iter().take(limit) {
        if let Some(topic) = topic_name(&image, *topic) {
            page.add(&GROUP_LAG, &[group, &topic], *behind);
        }
    }
    let here = |name: &Arc<str>| coordinator(&image, name) == Some(context.id);
    let classic = image.groups.iter().map(|(name, group)| (name, group.members.len()));
    let consumer = image.consumer_groups.iter().map(|(name, group)| (name, group.members.len()));
    let mut members: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
    for (name, count) in classic.chain(consumer).filter(|(name, _)| here(name)) {
        *members.entry(name).or_default() += count;
    }
    for (group, count) in members.iter().take(limit) {
        page.add(&GROUP_MEMBERS, &[group], *count);
    }
    page.add(&OMITTED, &[&"group"], lag.len().max(members.len()).saturating_sub(limit));
}
