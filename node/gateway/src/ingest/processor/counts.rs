//! What the processor counts, for metrics.

use super::super::store::{Batch, StoreError, Verdict};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_metrics::{Counter, Histogram, LATENCY};

/// Since the gateway started.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Events that the store has taken, by what became of them.
    pub(crate) processed: Counter,
    pub(crate) rejected: Counter,
    pub(crate) failed: Counter,
    pub(crate) dead_letters: Counter,
    /// Writes that it did not take.
    pub(crate) store_errors: Counter,
    /// Of writes that it took.
    pub(crate) store_write: Histogram,
    /// Where the next batch of each partition begins.
    pub(crate) offsets: Mutex<BTreeMap<(Arc<str>, i32), i64>>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            processed: Counter::new(),
            rejected: Counter::new(),
            failed: Counter::new(),
            dead_letters: Counter::new(),
            store_errors: Counter::new(),
            store_write: Histogram::new(LATENCY),
            offsets: Mutex::default(),
        }
    }
}

impl Counts {
    /// The store was asked to take these.
    pub(super) fn applied(&self, batches: &[Batch], took: Duration, answer: &Result<(), StoreError>) {
        match answer {
            Ok(()) => {
                self.store_write.record(took);
                for batch in batches {
                    for write in &batch.writes {
                        match write.verdict {
                            Verdict::Processed(_) => self.processed.inc(),
                            Verdict::Rejected { .. } => self.rejected.inc(),
                            Verdict::Failed { .. } => self.failed.inc(),
                        }
                    }
                    let place = (batch.topic.clone(), batch.source.partition);
                    self.offsets.lock().insert(place, batch.next);
                }
            }
            // It has passed them over, or lacks what came before: nothing is wrong.
            Err(StoreError::Behind { .. }) => {}
            Err(_) => self.store_errors.inc(),
        }
    }
}
