//! What a store counts and knows of itself, for metrics.

use crate::journal::Pending;
use crate::store::{Shared, Store};
use std::time::Duration;
use strandline_metrics::{Counter, Histogram, LATENCY, Reading, SIZE};

/// Of the journal's worker, which alone adds to them.
#[derive(Debug)]
pub(crate) struct Meters {
    flush: Histogram,
    group_bytes: Histogram,
    entries: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Meters { flush: Histogram::new(LATENCY), group_bytes: Histogram::new(SIZE), entries: Counter::new() }
    }
}

impl Meters {
    /// A group has become durable.
    pub fn flushed(&self, group: &[Pending], took: Duration) {
        self.flush.record(took);
        self.group_bytes
            .add(group.iter().map(|pending| crate::journal::cost(&pending.entry.op) as u64).sum());
        self.entries.add(group.len() as u64);
    }
}

/// A store at one moment.
#[derive(Clone, Debug)]
pub struct StoreReading {
    /// That the file system has left; `None` if it does not say.
    pub free_bytes: Option<u64>,
    /// Below so much free space nothing is appended.
    pub reserved_bytes: u64,
    /// Of the segments of all logs.
    pub log_bytes: u64,
    /// In the tail cache.
    pub cached_bytes: u64,
    /// Appended, and not durable in the journal so far.
    pub journal_pending_bytes: u64,
    /// Whose contents a crash would need, and how many there may be.
    pub journal_files: usize,
    pub journal_files_max: usize,
    /// Writing and syncing one group, in seconds.
    pub flush: Reading,
    /// Bytes of each group that was flushed.
    pub group_bytes: Reading,
    /// Entries of all of them.
    pub entries: u64,
}

impl Shared {
    fn reading(&self) -> StoreReading {
        let log_bytes = self.all_logs().iter().map(|log| log.size_bytes()).sum();
        StoreReading {
            free_bytes: self.disk.free_bytes(&self.root).ok(),
            reserved_bytes: self.config.reserved_bytes,
            log_bytes,
            cached_bytes: self.cache.used() as u64,
            journal_pending_bytes: self.journal.pending_bytes() as u64,
            journal_files: self.journal_files.used(),
            journal_files_max: self.journal_files.max(),
            flush: self.meters.flush.reading(),
            group_bytes: self.meters.group_bytes.reading(),
            entries: self.meters.entries.get(),
        }
    }
}

impl Store {
    /// What there is to say of the store now. Asks the file system for its free space, and locks each log for a moment.
    pub fn reading(&self) -> StoreReading {
        self.shared().reading()
    }
}
