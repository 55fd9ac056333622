//! How far the store is: what answers to events wait for.

use super::pipeline::{Ingest, Stage};
use super::processor::Health;
use super::store::{Source, Store};
use crate::live::Latency;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Next offsets, by topic id and partition.
pub(crate) type NextOffsets = BTreeMap<([u8; 16], i32), i64>;

/// How often a store that others write, too, is asked while someone waits.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Next offsets of all sources, as far as they are known here. They only grow.
#[derive(Debug)]
pub(super) struct Progress {
    next: watch::Sender<BTreeMap<Source, i64>>,
    waiting: AtomicUsize,
    someone_waits: Notify,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            next: watch::Sender::default(),
            waiting: AtomicUsize::new(0),
            someone_waits: Notify::new(),
        }
    }
}

/// Counts a waiter while it waits.
struct Waiting<'a>(&'a Progress);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Progress {
    /// The store has come so far.
    pub(super) fn advance(&self, to: impl IntoIterator<Item = (Source, i64)>) {
        self.next.send_if_modified(|next| {
            let mut moved = false;
            for (source, offset) in to {
                let known = next.entry(source).or_insert(i64::MIN);
                moved |= offset > *known;
                *known = offset.max(*known);
            }
            moved
        });
    }

    /// Next offsets, by topic id and partition.
    pub(super) fn known(&self) -> NextOffsets {
        self.next.borrow().iter().map(|(source, next)| ((source.topic_id, source.partition), *next)).collect()
    }

    /// Returns true once the store has everything before these offsets, false at the deadline.
    pub(super) async fn reach(&self, targets: &BTreeMap<Source, i64>, within: Duration) -> bool {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(self);
        self.someone_waits.notify_one();
        let reached = |next: &BTreeMap<Source, i64>| {
            targets.iter().all(|(source, target)| next.get(source).is_some_and(|next| next >= target))
        };
        let mut next = self.next.subscribe();
        matches!(tokio::time::timeout(within, next.wait_for(reached)).await, Ok(Ok(_)))
    }

    /// Asks a shared store, while someone waits, how far others have brought it. Never returns.
    pub(super) async fn follow(&self, store: Arc<dyn Store>) -> ! {
        loop {
            while self.waiting.load(Ordering::Acquire) == 0 {
                self.someone_waits.notified().await;
            }
            if let Ok(offsets) = store.offsets().await {
                self.advance(offsets);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

impl Ingest {
    /// How long events took until the log had them.
    pub(crate) fn enqueued(&self) -> &Latency {
        &self.enqueued
    }

    /// How the processor is.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Whether the store is open and takes writes; `None` while there is no need for one.
    pub(crate) fn store_is_up(&self) -> Option<bool> {
        match self.stage() {
            Stage::Starting | Stage::Idle => None,
            Stage::Opening(_) => Some(false),
            Stage::Open(_) => Some(self.health.error.lock().is_none()),
        }
    }

    /// How far the store of this gateway is, by topic id and partition, and what to call it. `None` where there is none
    /// so far, or a group's offsets say the same.
    pub(crate) fn view(&self) -> Option<(&'static str, NextOffsets)> {
        match self.stage() {
            Stage::Open(store) if !store.shared() => {
                Some(("ingest store of this gateway", self.progress.known()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source = Source { topic_id: [0; 16], partition: 1 };

    #[tokio::test(start_paused = true)]
    async fn a_waiter_returns_when_its_offsets_are_reached_or_its_time_is_up() {
        let progress = Progress::default();
        let targets = BTreeMap::from([(SOURCE, 5)]);
        assert!(!progress.reach(&targets, Duration::from_secs(1)).await);
        let (reached, ()) = tokio::join!(progress.reach(&targets, Duration::from_secs(1)), async {
            progress.advance([(SOURCE, 4)]);
            tokio::task::yield_now().await;
            progress.advance([(SOURCE, 6)]);
            progress.advance([(SOURCE, 2)]);
        });
        assert!(reached);
        assert!(progress.reach(&targets, Duration::ZERO).await);
        assert_eq!(progress.waiting.load(Ordering::Acquire), 0);
    }
}
