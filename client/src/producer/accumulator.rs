//! Records on their way into batches. `send` encodes a record straight into its partition's open batch, under
//! one short lock; the sender takes batches out that are full, have lingered, or are flushed. Pure but for
//! `Instant`s that are passed in.
//!
//! Invariants
//! - Records of a partition leave in the order in which they came.
//! - A batch is closed before it would exceed `batch_bytes` or the topic's `max.message.bytes`; only a single
//!   larger record exceeds them, so that a broker that refuses it refuses no other record with it.
//! - `lingering` holds every open batch, in the order of its deadline (linger is the same for all).

use super::delivery::{BatchDelivery, DeliveryHandle};
use super::partitioner::Sticky;
use crate::metadata::TopicDescription;
use crate::types::Record;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use strandline_record::{BatchBuilder, Compression, partition_for_key};
use tokio::time::Instant;

/// Names a partition that this producer has written to, by its place in a table.
pub(crate) type Slot = usize;

/// Records of one partition that travel together.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Counts batches in the order in which they were begun.
    pub(crate) number: u64,
    pub(crate) builder: BatchBuilder,
    pub(crate) delivery: Arc<BatchDelivery>,
    pub(crate) begun: Instant,
    /// What it holds against `buffer_bytes`.
    pub(crate) weight: usize,
}

#[derive(Debug)]
struct Partition {
    topic: Arc<str>,
    partition: i32,
    open: Option<Gathered>,
    closed: VecDeque<Gathered>,
    queued_bytes: usize,
    /// What the last batch grew to: a guess for the next one's buffer.
    last_bytes: usize,
}

#[derive(Debug)]
struct Topic {
    /// By partition number.
    slots: Vec<Slot>,
    /// Partitions with a leader, ascending; all if none has one.
    available: Vec<i32>,
    sticky: Sticky,
    /// `batch_bytes`, or the largest batch that the topic takes if that is less.
    batch_bytes: usize,
}

/// Key of the largest batch that a topic takes, and its value where the topic has none of its own.
const MAX_MESSAGE_BYTES: (&str, usize) = ("max.message.bytes", (1 << 20) + 12);

fn max_message_bytes(description: &TopicDescription) -> usize {
    let (key, default) = MAX_MESSAGE_BYTES;
    description.configs.get(key).and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) compression: Compression,
    pub(crate) compression_level: Option<i32>,
}

/// What became of [`Accumulator::append`].
pub(crate) enum Appended {
    Done {
        handle: DeliveryHandle,
        /// The sender has something to do that it does not know of.
        wake: bool,
    },
    /// The topic is to be looked up and [`Accumulator::put_topic`] called.
    UnknownTopic,
    /// It has this many partitions.
    NoSuchPartition(usize),
}

#[derive(Debug)]
pub(crate) struct Accumulator {
    limits: Limits,
    topics: BTreeMap<Arc<str>, Topic>,
    partitions: Vec<Partition>,
    /// Slots with closed batches.
    ready: BTreeSet<Slot>,
    lingering: VecDeque<(Instant, Slot, u64)>,
    next_number: u64,
    /// Numbers of the batches begun and not yet settled.
    unsettled: BTreeSet<u64>,
    /// Batches below this leave without lingering.
    flush_below: u64,
    rng: StdRng,
}

impl Accumulator {
    pub(crate) fn new(limits: Limits, rng: StdRng) -> Self {
        Accumulator {
            limits,
            topics: BTreeMap::new(),
            partitions: Vec::new(),
            ready: BTreeSet::new(),
            lingering: VecDeque::new(),
            next_number: 0,
            unsettled: BTreeSet::new(),
            flush_below: 0,
            rng,
        }
    }

    /// Takes a topic's present partitions and leaders in.
    pub(crate) fn put_topic(&mut self, description: &TopicDescription) {
        let sticky = || Sticky::new(self.limits.batch_bytes);
        let topic = self.topics.entry(description.name.clone()).or_insert_with(|| Topic {
            slots: Vec::new(),
            available: Vec::new(),
            sticky: sticky(),
            batch_bytes: 0,
        });
        topic.batch_bytes = self.limits.batch_bytes.min(max_message_bytes(description));
        for partition in topic.slots.len()..description.partitions.len() {
            topic.slots.push(self.partitions.len());
            self.partitions.push(Partition {
                topic: description.name.clone(),
                partition: partition as i32,
                open: None,
                closed: VecDeque::new(),
                queued_bytes: 0,
                last_bytes: 0,
            });
        }
        let led = description.partitions.iter().filter(|p| p.leader.is_some()).map(|p| p.partition);
        topic.available = led.collect();
        if topic.available.is_empty() {
            topic.available = (0..description.partitions.len() as i32).collect();
        }
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    pub(crate) fn slots(&self) -> usize {
        self.partitions.len()
    }

    /// Topic and partition of a slot.
    pub(crate) fn name(&self, slot: Slot) -> (Arc<str>, i32) {
        (self.partitions[slot].topic.clone(), self.partitions[slot].partition)
    }

    /// Encodes a record into its batch. `now` is asked for only where a batch begins.
    pub(crate) fn append(
        &mut self,
        record: &Record,
        timestamp_ms: i64,
        now: impl FnOnce() -> Instant,
    ) -> Appended {
        let Some(topic) = self.topics.get_mut(&record.topic) else { return Appended::UnknownTopic };
        let weight = record.weight();
        let batch_bytes = topic.batch_bytes;
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, topic.slots.len() as i32).get(),
            (None, None) => {
                let (slots, partitions) = (&topic.slots, &self.partitions);
                let queued = |p: i32| partitions[slots[p as usize]].queued_bytes;
                topic.sticky.pick(weight, &topic.available, queued, &mut self.rng)
            }
        };
        let Some(&slot) = usize::try_from(partition).ok().and_then(|p| topic.slots.get(p)) else {
            return Appended::NoSuchPartition(topic.slots.len());
        };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let target = &mut self.partitions[slot];
        let mut wake = false;
        if let Some(open) = &target.open {
            let size = open.builder.size_if_appended(timestamp_ms, key, value, &record.headers);
            if size > batch_bytes {
                target.close();
                wake = self.ready.insert(slot);
            }
        }
        if target.open.is_none() {
            let number = self.next_number;
            self.next_number += 1;
            self.unsettled.insert(number);
            let begun = now();
            // The sender sleeps until the first deadline: it must learn of one where there was none.
            wake |= self.lingering.is_empty() || self.limits.linger.is_zero();
            self.lingering.push_back((begun + self.limits.linger, slot, number));
            let capacity = target.last_bytes.max(weight + 64);
            target.open = Some(Gathered {
                number,
                builder: BatchBuilder::with_capacity(self.limits.compression, capacity)
                    .compression_level(self.limits.compression_level),
                delivery: BatchDelivery::new(target.topic.clone(), target.partition),
                begun,
                weight: 0,
            });
        }
        let open = target.open.as_mut().expect("opened above");
        let index = open.builder.append(timestamp_ms, key, value, &record.headers);
        open.weight += weight;
        target.queued_bytes += weight;
        let handle = DeliveryHandle::new(open.delivery.clone(), index as u32, timestamp_ms);
        if open.builder.estimated_bytes() >= batch_bytes {
            target.close();
            wake |= self.ready.insert(slot);
        }
        Appended::Done { handle, wake }
    }

    /// Closes the batches whose time has come (with `all`, every one).
    pub(crate) fn close_due(&mut self, now: Instant, all: bool) {
        while let Some(&(deadline, slot, number)) = self.lingering.front() {
            let target = &mut self.partitions[slot];
            // One that was filled and closed since needs no closing.
            let open = target.open.as_ref().is_some_and(|open| open.number == number);
            if open {
                if !all && deadline > now && number >= self.flush_below {
                    break;
                }
                target.close();
                self.ready.insert(slot);
            }
            self.lingering.pop_front();
        }
    }

    /// When [`close_due`](Self::close_due) next has something to close.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.lingering.front().map(|(deadline, _, _)| *deadline)
    }

    /// Slots with batches to take, ascending.
    pub(crate) fn ready(&self) -> Vec<Slot> {
        self.ready.iter().copied().collect()
    }

    /// Takes the oldest closed batch of a slot.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Gathered> {
        let target = &mut self.partitions[slot];
        let taken = target.closed.pop_front()?;
        target.queued_bytes -= taken.weight;
        if target.closed.is_empty() {
            self.ready.remove(&slot);
        }
        Some(taken)
    }

    /// Takes the oldest closed batch of a slot if it was begun before `limit`.
    pub(crate) fn take_begun_before(&mut self, slot: Slot, limit: Instant) -> Option<Gathered> {
        if self.partitions[slot].closed.front().is_some_and(|batch| batch.begun < limit) {
            self.take(slot)
        } else {
            None
        }
    }

    /// Everything begun so far leaves without lingering. Returns the number below which all must be settled.
    pub(crate) fn flush(&mut self) -> u64 {
        self.flush_below = self.next_number;
        self.next_number
    }

    pub(crate) fn settled(&mut self, number: u64) {
        assert!(self.unsettled.remove(&number), "a batch is settled once");
    }

    /// Everything begun before `number` is settled.
    pub(crate) fn is_settled_below(&self, number: u64) -> bool {
        self.unsettled.first().is_none_or(|first| *first >= number)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Takes everything out, at the end.
    pub(crate) fn drain(&mut self) -> Vec<Gathered> {
        self.ready.clear();
        self.lingering.clear();
        self.partitions.iter_mut().flat_map(|p| p.closed.drain(..).chain(p.open.take())).collect()
    }
}

impl Partition {
    fn close(&mut self) {
        let open = self.open.take().expect("the caller saw it");
        self.last_bytes = open.builder.estimated_bytes();
        self.closed.push_back(open);
    }
}

#[cfg(test)]
#[path = "accumulator_tests.rs"]
mod tests;
