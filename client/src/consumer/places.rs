//! The words in which [`super::positions`] talks with the fetcher and the user's side.

use crate::types::{OffsetSpec, TopicPartition};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

/// What to do where a partition has no valid position: no offset committed, or one that is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AutoOffsetReset {
    /// Begin with the first record there is.
    Earliest,
    /// Begin with the next record to be written.
    #[default]
    Latest,
    /// Report an error and wait for a seek.
    Error,
}

impl AutoOffsetReset {
    pub(super) fn spec(self) -> Option<OffsetSpec> {
        match self {
            AutoOffsetReset::Earliest => Some(OffsetSpec::Earliest),
            AutoOffsetReset::Latest => Some(OffsetSpec::Latest),
            AutoOffsetReset::Error => None,
        }
    }
}

/// The places that change with each record, outside the lock. Written by the user's side while it hands records
/// out, and under the lock while it does not.
#[derive(Debug)]
pub(crate) struct Progress {
    position: AtomicI64,
    /// Leader epoch of the record before `position`, -1 if not known.
    position_epoch: AtomicI32,
    consumed: AtomicI64,
    consumed_epoch: AtomicI32,
}

impl Progress {
    pub(super) fn new(offset: i64, epoch: i32) -> Arc<Self> {
        Arc::new(Progress {
            position: AtomicI64::new(offset),
            position_epoch: AtomicI32::new(epoch),
            consumed: AtomicI64::new(offset),
            consumed_epoch: AtomicI32::new(epoch),
        })
    }

    pub(crate) fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// `position` and the leader epoch of the record before it.
    pub(super) fn handed_out(&self) -> (i64, i32) {
        (self.position(), self.position_epoch.load(Ordering::Relaxed))
    }

    /// `consumed` and the leader epoch of the record before it.
    pub(super) fn consumed(&self) -> (i64, i32) {
        (self.consumed.load(Ordering::Acquire), self.consumed_epoch.load(Ordering::Relaxed))
    }

    pub(crate) fn hand_out(&self, next: i64, epoch: i32) {
        self.position_epoch.store(epoch, Ordering::Relaxed);
        self.position.store(next, Ordering::Release);
    }

    /// Of what was handed out, what comes before `next` counts as processed.
    pub(super) fn consume_to(&self, next: i64, epoch: i32) {
        let next = next.min(self.position());
        if next > self.consumed.load(Ordering::Relaxed) {
            self.consumed_epoch.store(epoch, Ordering::Relaxed);
            self.consumed.store(next, Ordering::Release);
        }
    }

    /// What was handed out counts as processed.
    pub(crate) fn consume(&self) {
        self.consumed_epoch.store(self.position_epoch.load(Ordering::Relaxed), Ordering::Relaxed);
        self.consumed.store(self.position.load(Ordering::Relaxed), Ordering::Release);
    }
}

/// Fetched bytes that wait to be handed out: one or more whole batches.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    /// Behind its last record.
    pub(crate) end: i64,
    /// Leader epoch of its last batch.
    pub(crate) epoch: i32,
}

/// A fetch to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) partition: TopicPartition,
    pub(crate) incarnation: u64,
    pub(crate) offset: i64,
    pub(crate) last_fetched_epoch: i32,
    pub(crate) hot: bool,
}

/// A fetch's answer for one partition, without an error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) batches: Bytes,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    /// (epoch, end offset): the log's history leaves the consumer's here (KIP-320).
    pub(crate) diverging: Option<(i32, i64)>,
}

/// How far a consumer is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Next record to be handed out.
    pub position: i64,
    /// End (exclusive) of what could be read at the last fetch.
    pub high_watermark: i64,
    /// First record in the log at the last fetch.
    pub log_start_offset: i64,
}
