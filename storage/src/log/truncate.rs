//! Everything that takes records away: truncation, starting over, the log start, damage and its repair.
//!
//! No file is changed: a segment that is cut keeps its bytes and is closed, the log goes on in a new file,
//! and files that are no longer needed are removed after the next checkpoint.

use super::state::{index_path, lost_at, open_segment};
use super::{Health, Inner, PartitionLog, Trouble};
use crate::error::LogError;
use crate::index::{self, SparseIndex};
use crate::journal::Op;
use crate::segment::{Scanner, Segment};
use crate::store::Shared;
use std::sync::Arc;
use strandline_record::{Offset, TopicPartition};

impl PartitionLog {
    /// Cuts the log so that it ends at `end`, or where the batch that holds `end` begins. At or beyond the log
    /// end it does nothing; below the log start the log starts over at `end`. Returns the new log end.
    pub fn truncate_to(self: &Arc<Self>, end: Offset) -> Result<Offset, LogError> {
        let mut inner = self.lock();
        inner.usable()?;
        if end >= inner.end {
            return Ok(inner.end);
        }
        if end < inner.start {
            return Ok(self.start_over(&mut inner, end));
        }
        let cut = inner.cut(&self.shared, self.tp, end);
        let end = cut.map_err(|trouble| self.trouble(&mut inner, trouble))?;
        let op = Op::Truncate { end, next_number: inner.next_number };
        self.journal(&mut inner, op);
        drop(inner);
        self.shared.journal.wake();
        Ok(end)
    }

    /// Drops all records; the log is empty and starts and ends at `start`. Also clears damage: nothing of what
    /// was damaged is left.
    pub fn reset_to(self: &Arc<Self>, start: Offset) -> Result<(), LogError> {
        let mut inner = self.lock();
        match inner.usable() {
            Ok(()) | Err(LogError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        self.start_over(&mut inner, start);
        Ok(())
    }

    fn start_over(self: &Arc<Self>, inner: &mut Inner, start: Offset) -> Offset {
        inner.reset(&self.shared, self.tp, start);
        let op = Op::Reset { start, next_number: inner.next_number };
        self.journal(inner, op);
        self.shared.journal.wake();
        start
    }

    /// Raises the log start: records below can no longer be read (DeleteRecords, and what the leader says).
    /// Nothing happens if it is there already. Beyond the log end the log starts over.
    pub fn advance_log_start(self: &Arc<Self>, to: Offset) -> Result<(), LogError> {
        let mut inner = self.lock();
        inner.usable()?;
        if to <= inner.start {
            return Ok(());
        }
        if to > inner.end {
            self.start_over(&mut inner, to);
            return Ok(());
        }
        self.raise_start(&mut inner, to);
        Ok(())
    }

    /// In the lock; `to` is above the log start and at most the log end.
    pub(crate) fn raise_start(self: &Arc<Self>, inner: &mut Inner, to: Offset) {
        inner.advance_start(&self.shared, self.tp, to);
        let op = Op::AdvanceStart { start: to, next_number: inner.next_number };
        self.journal(inner, op);
        self.shared.journal.wake();
    }

    /// Marks the log as damaged from `from` on (the scrub, a reader of another kind). Durable soon after.
    pub fn mark_damaged(self: &Arc<Self>, from: Offset) {
        let mut inner = self.lock();
        self.note_damage(&mut inner, from);
    }

    pub(crate) fn note_damage(self: &Arc<Self>, inner: &mut Inner, from: Offset) {
        if inner.health == Health::Deleted || inner.damaged.is_some_and(|known| known <= from) {
            return;
        }
        tracing::error!(log = %self.tp, %from, "the log is damaged: it is neither read nor written until repaired");
        let from = from.max(inner.start).min(inner.end);
        inner.damaged = Some(from);
        inner.cache.clear(&self.shared.cache);
        self.journal(inner, Op::Damage { from });
        self.shared.journal.wake();
    }

    /// Cuts the log where it is damaged and lifts the mark: it goes on as a follower's. Only after the
    /// controller's image shows that the damage was reported. Returns the new log end.
    pub fn repair(self: &Arc<Self>) -> Result<Offset, LogError> {
        let mut inner = self.lock();
        match inner.usable() {
            Ok(()) => return Ok(inner.end),
            Err(LogError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        let from = inner.damaged.expect("it is damaged");
        let end = match inner.mend(&self.shared, self.tp, from) {
            Ok(end) => end,
            Err(trouble) => return Err(self.trouble(&mut inner, trouble)),
        };
        let op = Op::Repair { end, next_number: inner.next_number };
        self.journal(&mut inner, op);
        drop(inner);
        self.shared.journal.wake();
        Ok(end)
    }

    fn trouble(self: &Arc<Self>, inner: &mut Inner, trouble: Trouble) -> LogError {
        match trouble {
            Trouble::Damaged(from) => {
                self.note_damage(inner, from);
                LogError::Damaged { from }
            }
            Trouble::Full => LogError::Failed("no space".to_owned()),
            Trouble::Io(error) => {
                let reason = error.to_string();
                self.shared.write_failed(self.tp, error);
                LogError::Failed(reason)
            }
        }
    }
}

impl Inner {
    /// The log now ends at `end` or where the batch that holds it begins; `start ≤ end < log end`.
    pub(crate) fn cut(
        &mut self,
        shared: &Shared,
        tp: TopicPartition,
        end: Offset,
    ) -> Result<Offset, Trouble> {
        assert!(self.start <= end && end < self.end, "a cut lies in the log");
        // Find everything first: after that nothing can fail.
        let at = self.segments.partition_point(|segment| segment.end <= end);
        let segment = self.segments[at];
        let mut kept = segment;
        (kept.bytes, kept.end, kept.max_timestamp) = (0, segment.base, -1);
        if end > segment.base.max(self.start) {
            (kept.bytes, kept.end, kept.max_timestamp) = self.find_cut(shared, tp, &segment, end)?;
        }
        Ok(self.cut_found(shared, tp, at, kept))
    }

    /// Length, end and largest timestamp of a segment without the batch that holds `end` and those behind.
    /// Reads nothing behind it: that may be damaged. Checks the batches in front of it, as far as it reads them: a
    /// wrong header could make them seem to end there.
    fn find_cut(
        &self,
        shared: &Shared,
        tp: TopicPartition,
        segment: &Segment,
        end: Offset,
    ) -> Result<(u64, Offset, i64), Trouble> {
        let before = |index: &SparseIndex| index.before_offset_with_timestamp(end);
        let loaded = self.loaded.as_ref().filter(|_| !segment.closed);
        let (position, offset, mut max_timestamp) = match loaded {
            Some(loaded) => before(&loaded.index),
            None => index::read(&*shared.disk, &index_path(shared, tp, segment), segment)
                .map_or((0, segment.base, -1), |file| before(&file.index)),
        };
        let start = self.start;
        let file =
            open_segment(shared, tp, segment).map_err(|error| lost_at(error, segment.base.max(start)))?;
        let mut offset = offset;
        let mut scanner = Scanner::new(&*file, position, segment.bytes, offset, true);
        while offset < end {
            let position = scanner.position();
            match scanner.next_batch()? {
                Some(Ok((_, header))) if header.next_offset() <= end => {
                    max_timestamp = max_timestamp.max(header.max_timestamp());
                    offset = header.next_offset();
                }
                Some(Ok(_)) => return Ok((position, offset, max_timestamp)),
                Some(Err(_)) | None => return Err(Trouble::Damaged(offset.max(self.start))),
            }
        }
        Ok((scanner.position(), offset, max_timestamp))
    }

    fn cut_found(&mut self, shared: &Shared, tp: TopicPartition, at: usize, mut kept: Segment) -> Offset {
        // A log that starts inside the batch that the cut takes is empty then.
        let end = kept.end.max(self.start);
        let keep = kept.bytes > 0 && kept.end > self.start;
        while self.segments.len() > at + usize::from(keep) {
            self.drop_segment_at(shared, tp, self.segments.len() - 1);
        }
        if keep {
            kept.closed = true;
            shared.indexes.forget((tp, kept.number));
            self.segments[at] = kept;
        }
        self.end = end;
        self.ended_at(shared, end);
        end
    }

    /// What else follows from a new, smaller log end.
    fn ended_at(&mut self, shared: &Shared, end: Offset) {
        self.epochs.truncate(end);
        self.loaded = None;
        if let Some(dedup) = &mut self.dedup {
            dedup.cut(end);
        }
        self.cache.truncate(&shared.cache, end);
        self.truncations += 1;
        self.held = None;
        self.flushed = self.flushed.min(end);
        self.hold = self.hold.map(|hold| hold.min(end));
        self.damaged = self.damaged.map(|from| from.min(end));
        self.compacted_to = self.compacted_to.min(end);
    }

    pub(crate) fn reset(&mut self, shared: &Shared, tp: TopicPartition, start: Offset) {
        while !self.segments.is_empty() {
            self.drop_segment_at(shared, tp, self.segments.len() - 1);
        }
        // A gap in the numbers: without the journal, recovery takes in files of consecutive numbers, and must not go
        // on from the old ones to those that follow when the entry of this was lost.
        self.next_number += 1;
        (self.start, self.end) = (start, start);
        self.cache.clear(&shared.cache);
        self.ended_at(shared, start);
        self.epochs.clear();
        self.dedup = None;
        // That the log begins here is not on disk yet: a loss of power may bring the old one back. Until the entry of
        // this is durable no more counts than what was flushed below (`ended_at`).
        if !self.journaled {
            self.flushed = start;
        }
        self.hold = self.hold.map(|_| start);
        self.damaged = None;
    }

    pub(crate) fn advance_start(&mut self, shared: &Shared, tp: TopicPartition, to: Offset) {
        assert!(self.start < to && to <= self.end, "the log start stays in the log");
        self.start = to;
        if self.segments.back().is_some_and(|last| last.end <= to) {
            self.close_active(shared, tp);
        }
        while self.segments.front().is_some_and(|segment| segment.end <= to) {
            self.drop_segment_at(shared, tp, 0);
        }
        self.epochs.advance_start(to);
        // The flushed end stays where it is, perhaps below the log start: the records in between need not be on disk,
        // and neither need this be.
        self.retention_bound = self.retention_bound.max(to);
    }

    /// Cuts at `from`, or before it where the batches in front of it are unreadable too, and lifts the mark.
    pub(crate) fn mend(
        &mut self,
        shared: &Shared,
        tp: TopicPartition,
        mut from: Offset,
    ) -> Result<Offset, Trouble> {
        let end = loop {
            if from >= self.end {
                // Damage at the end: records may be missing behind it. The log stays, as a shorter one.
                self.close_active(shared, tp);
                self.ended_at(shared, self.end);
                break self.end;
            }
            match self.cut(shared, tp, from.max(self.start)) {
                Ok(end) => break end,
                Err(Trouble::Damaged(earlier)) => {
                    assert!(earlier < from, "a search for a cut looks only in front of it");
                    from = earlier;
                }
                Err(trouble) => return Err(trouble),
            }
        };
        self.damaged = None;
        Ok(end)
    }
}
