//! Chooses the logs and does the passes, a turn at a time.

use super::pass::{Pass, Spent, Stop, due};
use super::{Shared, Turn};
use crate::log::PartitionLog;
use crate::worker::Worker;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use strandline_record::TopicPartition;

/// See [`super`].
#[derive(Debug)]
pub struct CompactionWorker {
    shared: Arc<Shared>,
    pass: Option<Pass>,
    /// Logs of which a pass began, or could not, since it was told to look.
    tried: BTreeSet<TopicPartition>,
    looking: bool,
}

impl CompactionWorker {
    pub fn new(shared: Arc<Shared>) -> Self {
        CompactionWorker { shared, pass: None, tried: BTreeSet::new(), looking: false }
    }

    /// The log that needs it most: one that is overdue, else the dirtiest.
    fn choose(&self, now_ms: i64) -> Option<Arc<PartitionLog>> {
        let logs = self.shared.all_logs().into_iter();
        let due = logs.filter(|log| !self.tried.contains(&log.topic_partition())).filter_map(|log| {
            let found = due(&log.lock(), now_ms)?;
            Some((Reverse((found.overdue, found.dirty_ppm)), log))
        });
        due.min_by_key(|(urgency, log)| (*urgency, log.topic_partition())).map(|(_, log)| log)
    }

    fn work(&mut self) -> Result<(), io::Error> {
        let Turn { now_ms, budget_bytes, look } = std::mem::take(&mut *self.shared.compaction.turn.lock());
        if look {
            self.tried.clear();
            self.looking = true;
        }
        let mut spent = Spent::default();
        while spent.read + spent.written < budget_bytes && !self.shared.is_stopped() {
            if self.pass.is_none() && !self.begin(now_ms)? {
                break;
            }
            let Some(mut pass) = self.pass.take() else { continue };
            match pass.step(budget_bytes, &mut spent) {
                Ok(false) => self.pass = Some(pass),
                Ok(true) => {
                    let mut stats = self.shared.compaction.stats.lock();
                    stats.passes += 1;
                    stats.last_pass_ms = Some(now_ms);
                    // A pass that ended where its map was full is followed by another.
                    self.tried.remove(&pass.log().topic_partition());
                }
                Err(stop) => {
                    let log = pass.log().clone();
                    pass.abandon();
                    self.stopped(&log, stop)?;
                }
            }
        }
        {
            // A look that was asked for since then is not forgotten.
            let turn = self.shared.compaction.turn.lock();
            let busy = self.looking || self.pass.is_some() || turn.look;
            self.shared.compaction.busy.store(busy, Ordering::Release);
        }
        let mut stats = self.shared.compaction.stats.lock();
        stats.bytes_read += spent.read;
        stats.bytes_written += spent.written;
        stats.records_removed += spent.records_removed;
        stats.segments_replaced += spent.segments_replaced;
        Ok(())
    }

    /// Begins a pass, or finds that a log does not need one after all. `false`: there is no log left.
    fn begin(&mut self, now_ms: i64) -> io::Result<bool> {
        if !self.looking {
            return Ok(false);
        }
        let Some(log) = self.choose(now_ms) else {
            self.looking = false;
            return Ok(false);
        };
        self.tried.insert(log.topic_partition());
        match Pass::begin(&log, now_ms) {
            Ok(pass) => self.pass = pass,
            Err(stop) => self.stopped(&log, stop)?,
        }
        Ok(true)
    }

    /// Only a failed sync is fatal.
    fn stopped(&self, log: &Arc<PartitionLog>, stop: Stop) -> io::Result<()> {
        let tp = log.topic_partition();
        let error = match stop {
            Stop::Changed => false,
            Stop::Damaged(number, from) => {
                let mut inner = log.lock();
                // A file that was cut or removed meanwhile says nothing about damage.
                if inner.segments.iter().any(|segment| segment.number == number && segment.end > from) {
                    log.note_damage(&mut inner, from);
                }
                false
            }
            Stop::NoSpace => {
                tracing::warn!(log = %tp, "there is no space to compact it");
                true
            }
            Stop::Failed(error) => {
                tracing::error!(log = %tp, %error, "it could not be compacted");
                true
            }
            Stop::Fatal(error) => return Err(error),
        };
        let mut stats = self.shared.compaction.stats.lock();
        stats.abandoned += 1;
        stats.errors += u64::from(error);
        Ok(())
    }
}

impl Worker for CompactionWorker {
    fn name(&self) -> &'static str {
        "compaction"
    }

    fn run(&mut self) -> io::Result<()> {
        if self.shared.is_stopped() || self.shared.is_failed() {
            // Its file is removed at the next start.
            self.pass = None;
            return Ok(());
        }
        let done = self.work();
        if done.is_err() {
            self.shared.fail();
        }
        done
    }
}
