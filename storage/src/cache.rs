//! The newest batches of all logs, in memory, within one budget: what was appended is sent to followers
//! and consumers at the tail without a read. The oldest batch of the whole node goes first.
//!
//! Each log keeps its own batches ([`TailCache`]); the [`CacheBudget`] keeps the order in which they came.
//! Evicting takes another log's lock, so it is done by [`CacheBudget::victims`] after the appending log's
//! lock is released.

use crate::log::PartitionLog;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use strandline_record::Offset;

/// Charged for each batch besides its bytes.
const OVERHEAD: usize = 96;

#[derive(Debug)]
pub struct CacheBudget {
    max: usize,
    used: AtomicUsize,
    order: Mutex<VecDeque<(Weak<PartitionLog>, u64)>>,
}

impl CacheBudget {
    pub fn new(max: usize) -> Self {
        CacheBudget { max, used: AtomicUsize::new(0), order: Mutex::default() }
    }

    fn push(&self, log: Weak<PartitionLog>, id: u64, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.order.lock().push_back((log, id));
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Logs and the ids up to which they must drop batches, until the budget is kept.
    pub fn evict(&self) {
        while self.used.load(Ordering::Relaxed) > self.max {
            let Some((log, id)) = self.order.lock().pop_front() else { return };
            if let Some(log) = log.upgrade() {
                log.evict_cached(id);
            }
        }
        // Entries whose batch is gone already would pile up in front of one that never leaves.
        let mut order = self.order.lock();
        while order.front().is_some_and(|(log, _)| log.strong_count() == 0) {
            order.pop_front();
        }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug)]
pub struct CachedBatch {
    pub base: Offset,
    pub end: Offset,
    pub bytes: Bytes,
    id: u64,
}

impl CachedBatch {
    fn charge(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// The newest batches of one log, contiguous up to its end.
#[derive(Debug, Default)]
pub struct TailCache {
    batches: VecDeque<CachedBatch>,
    next_id: u64,
}

impl TailCache {
    pub fn push(
        &mut self,
        budget: &CacheBudget,
        log: Weak<PartitionLog>,
        base: Offset,
        end: Offset,
        bytes: Bytes,
    ) {
        let batch = CachedBatch { base, end, bytes, id: self.next_id };
        if batch.charge() > budget.max {
            return self.clear(budget);
        }
        budget.push(log, self.next_id, batch.charge());
        self.next_id += 1;
        self.batches.push_back(batch);
    }

    pub fn evict_up_to(&mut self, budget: &CacheBudget, id: u64) {
        while self.batches.front().is_some_and(|batch| batch.id <= id) {
            if let Some(batch) = self.batches.pop_front() {
                budget.release(batch.charge());
            }
        }
        if self.batches.is_empty() {
            self.batches.shrink_to_fit();
        }
    }

    /// Drops the batches below `end`: they are not the log's any more.
    pub fn drop_below(&mut self, budget: &CacheBudget, end: Offset) {
        while self.batches.front().is_some_and(|batch| batch.end <= end) {
            if let Some(batch) = self.batches.pop_front() {
                budget.release(batch.charge());
            }
        }
    }

    pub fn truncate(&mut self, budget: &CacheBudget, end: Offset) {
        while self.batches.back().is_some_and(|batch| batch.end > end) {
            if let Some(batch) = self.batches.pop_back() {
                budget.release(batch.charge());
            }
        }
    }

    pub fn clear(&mut self, budget: &CacheBudget) {
        let bytes = self.batches.drain(..).map(|batch| batch.charge()).sum();
        budget.release(bytes);
        self.batches.shrink_to_fit();
    }

    /// The cached batches from the one that holds `from` on; `None` when that one is not cached.
    pub fn from(&self, from: Offset) -> Option<impl Iterator<Item = &CachedBatch>> {
        let at = self.batches.partition_point(|batch| batch.end <= from);
        let first = self.batches.get(at)?;
        (first.base <= from).then(|| self.batches.range(at..))
    }
}

/// Evicts what is over the budget; takes locks of logs, so none may be held.
pub fn settle(budget: &Arc<CacheBudget>) {
    if budget.used() > budget.max {
        budget.evict();
    }
}
