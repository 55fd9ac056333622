//! The cluster as this gateway sees it. Pure: what was heard goes in, documents and events come out.
//!
//! Two sources are kept apart: what the cluster agreed on (the newest metadata that any node showed) and whether a node
//! answers this gateway. A node that was killed is silent at once; fenced it is when the controller says so.
//!
//! Invariant: metadata never goes back ([`NodeView::metadata_index`]).

use super::committed::{Offsets, Reader, depths};
use super::documents::{
    Change, Cluster, GroupSummary, Node, PartitionRow, Point, Queue, Snapshot, Tick, TopicSummary,
};
use super::events::{Event, What, is_under_replicated, of_topics};
use super::meters::Reading;
use crate::ingest::NextOffsets;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{Broker, NodeView, TopicDescription, TopicPartition};

/// Events and seconds kept for those who come later.
const EVENTS: usize = 100;
const POINTS: usize = 300;
/// Entries of the lists in a tick.
const LISTED: usize = 10;
/// A node is silent when it let so many looks in a row pass; one that refuses is so at once.
const PATIENCE: u32 = 2;

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    pub(super) error: String,
    /// It may just be slow.
    pub(super) timed_out: bool,
}

#[derive(Clone, Debug, Default)]
struct Hearing {
    missed: u32,
    /// Since when, and why, if it counts as silent.
    silent: Option<(i64, String)>,
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    cluster_id: String,
    metadata_index: u64,
    topics_index: Option<u64>,
    brokers: BTreeMap<u64, Broker>,
    controller: Option<u64>,
    reachable: bool,
    hearing: BTreeMap<u64, Hearing>,
    topics: BTreeMap<Arc<str>, TopicDescription>,
    /// Leads and replicas, by node.
    shares: BTreeMap<u64, (usize, usize)>,
    under_replicated: usize,
    leaderless: usize,
    version: u64,
    ends: Offsets,
    /// Records written since the last tick, and by topic a second of the last tick.
    written: BTreeMap<Arc<str>, u64>,
    rates: BTreeMap<Arc<str>, f64>,
    readers: BTreeMap<String, Reader>,
    left_out: bool,
    meters: Option<Reading>,
    tick: Option<Tick>,
    history: VecDeque<Point>,
    events: VecDeque<Event>,
}

/// Which partitions are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionFilter {
    pub(crate) topic: Option<String>,
    pub(crate) node: Option<u64>,
    pub(crate) under_replicated: bool,
    pub(crate) leaderless: bool,
}

/// To a tenth: what is shown.
pub(super) fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

impl Picture {
    /// Addresses of the nodes that are known.
    pub(super) fn addresses(&self) -> BTreeMap<u64, String> {
        let reachable = self.brokers.values().filter(|broker| !broker.grpc.is_empty());
        reachable.map(|broker| (broker.id, broker.grpc.clone())).collect()
    }

    /// What is needed to ask for the ends of partitions.
    pub(super) fn layout(&self) -> (Vec<Broker>, Vec<TopicDescription>) {
        (self.brokers.values().cloned().collect(), self.topics.values().cloned().collect())
    }

    /// The topics are older than the metadata.
    pub(super) fn topics_are_stale(&self) -> bool {
        self.reachable && self.topics_index != Some(self.metadata_index)
    }

    /// Every known node was asked, and some addresses at which nodes may be. Returns a message if that changed anything.
    pub(super) fn heard(
        &mut self,
        now_ms: i64,
        nodes: BTreeMap<u64, Result<NodeView, Silence>>,
        others: Vec<NodeView>,
    ) -> Option<Vec<u8>> {
        let before = self.summary();
        let mut happened = Vec::new();
        for (id, answer) in &nodes {
            let hearing = self.hearing.entry(*id).or_default();
            match answer {
                Ok(_) => {
                    if hearing.silent.is_some() {
                        happened.push(What::Node { node: *id, state: "answering" });
                    }
                    *hearing = Hearing::default();
                }
                Err(silence) => {
                    hearing.missed += 1;
                    if hearing.silent.is_none() && (!silence.timed_out || hearing.missed >= PATIENCE) {
                        hearing.silent = Some((now_ms, silence.error.clone()));
                        happened.push(What::Node { node: *id, state: "silent" });
                    }
                }
            }
        }
        let views = nodes.into_values().filter_map(Result::ok).chain(others);
        let newest = views.max_by_key(|view| view.metadata_index);
        self.reachable = newest.is_some();
        if let Some(view) = newest.filter(|view| view.metadata_index >= self.metadata_index) {
            self.metadata(&view, &mut happened);
        }
        self.publish(now_ms, before, happened)
    }

    /// A node showed all topics.
    pub(super) fn has_topics(&mut self, now_ms: i64, view: NodeView) -> Option<Vec<u8>> {
        if view.metadata_index < self.metadata_index
            || self.topics_index.is_some_and(|i| view.metadata_index < i)
        {
            return None;
        }
        let before = self.summary();
        let mut happened = Vec::new();
        self.metadata(&view, &mut happened);
        let topics: BTreeMap<_, _> =
            view.topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        if self.topics_index.is_some() {
            happened.extend(of_topics(&self.topics, &topics));
        }
        self.ends.retain(|tp, _| {
            let (old, new) = (self.topics.get(&tp.topic), topics.get(&tp.topic));
            old.zip(new).is_some_and(|(old, new)| old.id == new.id)
        });
        self.rates.retain(|topic, _| topics.contains_key(topic));
        self.topics_index = Some(view.metadata_index);
        let changed = self.topics != topics;
        self.topics = topics;
        if changed {
            self.count();
            self.version += 1;
        }
        self.publish(now_ms, before, happened)
    }

    fn metadata(&mut self, view: &NodeView, happened: &mut Vec<What>) {
        let first = self.brokers.is_empty();
        let now: BTreeMap<u64, Broker> = view.brokers.iter().map(|b| (b.id, b.clone())).collect();
        if !first {
            let ids: BTreeSet<u64> = self.brokers.keys().chain(now.keys()).copied().collect();
            for id in ids {
                let state = match (self.brokers.get(&id), now.get(&id)) {
                    (Some(_), None) => "removed",
                    (None, Some(_)) => "joined",
                    (Some(old), Some(new)) if state(old) != state(new) => state(new),
                    _ => continue,
                };
                happened.push(What::Node { node: id, state });
            }
            // That nobody is known to lead lasts for as long as an election: who it is next is what happened.
            if view.controller.is_some() && view.controller != self.controller {
                happened.push(What::Controller { from: self.controller, to: view.controller });
            }
        }
        self.hearing.retain(|id, _| now.contains_key(id));
        self.brokers = now;
        self.controller = view.controller.or(self.controller);
        self.metadata_index = view.metadata_index;
        self.cluster_id.clone_from(&view.cluster_id);
    }

    fn count(&mut self) {
        self.shares.clear();
        (self.under_replicated, self.leaderless) = (0, 0);
        for partition in self.topics.values().flat_map(|topic| &topic.partitions) {
            self.under_replicated += usize::from(is_under_replicated(partition));
            match partition.leader {
                Some(leader) => self.shares.entry(leader).or_default().0 += 1,
                None => self.leaderless += 1,
            }
            for replica in &partition.replicas {
                self.shares.entry(*replica).or_default().1 += 1;
            }
        }
    }

    fn publish(&mut self, now_ms: i64, before: Cluster, happened: Vec<What>) -> Option<Vec<u8>> {
        let cluster = self.summary();
        if happened.is_empty() && cluster == before {
            return None;
        }
        let new: Vec<Event> = happened.into_iter().map(|what| Event { t: now_ms, what }).collect();
        self.events.extend(new.iter().cloned());
        self.events.drain(..self.events.len().saturating_sub(EVENTS));
        Some(json(&Change { cluster, events: &new }))
    }

    /// Ends of partitions; those that are left out are where they were.
    pub(super) fn ends_at(&mut self, ends: Offsets) {
        for (partition, end) in ends {
            if let Some(before) = self.ends.insert(partition.clone(), end) {
                let grown = u64::try_from(end - before).unwrap_or(0);
                *self.written.entry(partition.topic).or_default() += grown;
            }
        }
    }

    /// These are all readers; `left_out`: there are more.
    pub(super) fn readers_are(&mut self, states: BTreeMap<String, String>, left_out: bool) {
        self.readers.retain(|name, _| states.contains_key(name));
        for (name, state) in states {
            self.readers.entry(name).or_default().state = state;
        }
        self.left_out = left_out;
    }

    /// Where a reader is.
    pub(super) fn reader_is_at(&mut self, name: &str, offsets: Offsets) {
        if let Some(reader) = self.readers.get_mut(name) {
            reader.is_at(offsets);
        }
    }

    /// Offsets of partitions that are known by the id of their topic, by its name.
    pub(super) fn named(&self, next: &NextOffsets) -> Offsets {
        let topic = |id: &[u8; 16]| self.topics.values().find(|topic| topic.id.0.as_bytes() == id);
        let named = next.iter().filter_map(|((id, partition), offset)| {
            Some((TopicPartition { topic: topic(id)?.name.clone(), partition: *partition }, *offset))
        });
        named.collect()
    }

    /// Closes a second, or as long as it was since the last time. Returns its message; of the first time there is none.
    pub(super) fn tick(&mut self, now_ms: i64, elapsed: Duration, reading: Reading) -> Option<Vec<u8>> {
        let before = self.meters.replace(reading.clone())?;
        let seconds = elapsed.as_secs_f64().max(0.001);
        let rate = |count: u64| rounded(count as f64 / seconds);
        let written = std::mem::take(&mut self.written);
        let delivered = self.readers.values_mut().map(|reader| reader.tick(&self.ends, seconds)).sum();
        let depths = depths(&self.ends, &self.readers);
        let mut deepest: Vec<_> = depths.iter().filter(|(_, (depth, _))| *depth > 0).collect();
        deepest.sort_by_key(|(_, (depth, _))| std::cmp::Reverse(*depth));
        let queue = |(tp, (depth, slowest)): &(&TopicPartition, &(i64, &str))| Queue {
            topic: tp.topic.to_string(),
            partition: tp.partition,
            depth: *depth,
            slowest: (*slowest).to_owned(),
        };
        let point = Point {
            t: now_ms,
            written: rate(written.values().sum()),
            delivered: rate(delivered),
            requests: rate(reading.requests.saturating_sub(before.requests)),
            errors: rate(reading.errors.saturating_sub(before.errors)),
            refused: rate(reading.refused.saturating_sub(before.refused)),
            http_in: rate(reading.records_in.saturating_sub(before.records_in)),
            http_out: rate(reading.records_out.saturating_sub(before.records_out)),
            produce: reading.produce.since(&before.produce).percentiles(),
            ingest: reading.ingest.since(&before.ingest).percentiles(),
            depth: depths.values().map(|(depth, _)| depth).sum(),
            lag: self.readers.values().map(|reader| reader.lag).sum(),
        };
        let mut groups = self.groups("");
        groups.sort_by_key(|group| std::cmp::Reverse(group.lag));
        groups.truncate(LISTED);
        let tick = Tick {
            deepest: deepest.iter().take(LISTED).map(queue).collect(),
            groups,
            group_count: self.readers.len(),
            groups_left_out: self.left_out,
            point,
        };
        self.rates = written.into_iter().map(|(topic, count)| (topic, rate(count))).collect();
        self.history.push_back(tick.point.clone());
        self.history.drain(..self.history.len().saturating_sub(POINTS));
        Some(json(self.tick.insert(tick)))
    }

    /// Everything, for a viewer who has nothing.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        json(&Snapshot {
            cluster: self.summary(),
            events: &self.events,
            tick: self.tick.as_ref(),
            history: &self.history,
        })
    }

    fn summary(&self) -> Cluster {
        let node = |broker: &Broker| {
            let silent = self.hearing.get(&broker.id).and_then(|hearing| hearing.silent.clone());
            let (leads, replicas) = self.shares.get(&broker.id).copied().unwrap_or_default();
            let (silent_since, error) = silent.unzip();
            Node {
                id: broker.id,
                grpc: broker.grpc.clone(),
                http: broker.http.clone(),
                kafka: broker.kafka.clone(),
                rack: broker.rack.clone(),
                state: state(broker),
                answers: silent_since.is_none(),
                silent_since,
                error,
                leads,
                replicas,
            }
        };
        Cluster {
            cluster_id: self.cluster_id.clone(),
            version: self.version,
            controller: self.controller,
            nodes: self.brokers.values().map(node).collect(),
            topics: self.topics.len(),
            partitions: self.topics.values().map(|topic| topic.partitions.len()).sum(),
            under_replicated: self.under_replicated,
            leaderless: self.leaderless,
            reachable: self.reachable,
        }
    }

    /// Readers whose name contains `search`, by name.
    pub(crate) fn groups(&self, search: &str) -> Vec<GroupSummary> {
        let found = self.readers.iter().filter(|(name, _)| name.contains(search));
        found.map(|(name, reader)| reader.summary(name)).collect()
    }

    /// Topics whose name contains `search`, by name: those of one page, and how many there are.
    pub(crate) fn topics(&self, search: &str, page: usize, size: usize) -> (Vec<TopicSummary>, usize) {
        let depths = depths(&self.ends, &self.readers);
        let found = || self.topics.values().filter(|topic| topic.name.contains(search));
        let summary = |topic: &TopicDescription| {
            let partition = |p: i32| TopicPartition { topic: topic.name.clone(), partition: p };
            let numbers = || (0..).take(topic.partitions.len()).map(partition);
            let depth = numbers().filter_map(|tp| Some(depths.get(&tp)?.0));
            TopicSummary {
                name: topic.name.to_string(),
                partitions: topic.partitions.len(),
                replication_factor: topic.partitions.first().map_or(0, |p| p.replicas.len()),
                under_replicated: topic.partitions.iter().filter(|p| is_under_replicated(p)).count(),
                leaderless: topic.partitions.iter().filter(|p| p.leader.is_none()).count(),
                end: numbers().filter_map(|tp| self.ends.get(&tp)).sum(),
                rate: self.rates.get(&topic.name).copied().unwrap_or(0.0),
                depth: depth.reduce(|all, one| all + one),
            }
        };
        let shown = found().skip(page.saturating_mul(size)).take(size).map(summary).collect();
        (shown, found().count())
    }

    /// Partitions that pass the filter, by topic and number: those of one page, and how many there are.
    pub(crate) fn partitions(
        &self,
        filter: &PartitionFilter,
        page: usize,
        size: usize,
    ) -> (Vec<PartitionRow>, usize) {
        let depths = depths(&self.ends, &self.readers);
        let topics =
            self.topics.values().filter(|t| filter.topic.as_deref().is_none_or(|name| name == &*t.name));
        let all = topics.flat_map(|t| t.partitions.iter().map(|p| (t.name.clone(), p)));
        let found: Vec<_> = all
            .filter(|(_, p)| {
                filter.node.is_none_or(|id| p.replicas.contains(&id))
                    && (!filter.under_replicated || is_under_replicated(p))
                    && (!filter.leaderless || p.leader.is_none())
            })
            .collect();
        let total = found.len();
        let row = |(topic, p): (Arc<str>, &strandline_client::PartitionDescription)| {
            let tp = TopicPartition { topic, partition: p.partition };
            let depth = depths.get(&tp);
            PartitionRow {
                topic: tp.topic.to_string(),
                partition: p.partition,
                leader: p.leader,
                leader_epoch: p.leader_epoch,
                replicas: p.replicas.clone(),
                isr: p.isr.clone(),
                high_watermark: self.ends.get(&tp).copied(),
                depth: depth.map(|(depth, _)| *depth),
                slowest: depth.map(|(_, name)| (*name).to_owned()),
            }
        };
        let rows = found.into_iter().skip(page.saturating_mul(size)).take(size).map(row);
        (rows.collect(), total)
    }
}

fn state(broker: &Broker) -> &'static str {
    match (broker.fenced, broker.draining) {
        (true, _) => "fenced",
        (false, true) => "draining",
        (false, false) => "serving",
    }
}

fn json(document: &impl serde::Serialize) -> Vec<u8> {
    // Documents of this program's own, with text as keys: this cannot fail.
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests;
