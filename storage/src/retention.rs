//! What runs now and then: deleting old segments, rolling by time, forgetting idle producers, reading
//! everything slowly to find damage.

use crate::epochs::EpochCache;
use crate::log::{Inner, PartitionLog, open_segment, segment_path};
use crate::segment::Scanner;
use crate::store::{Shared, Store};
use std::io;
use std::sync::Arc;
use strandline_record::{Offset, TopicPartition};

/// Damage that the scrub found (and has marked).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamageReport {
    pub tp: TopicPartition,
    /// Offset of the first batch that is not intact.
    pub from: Offset,
}

/// Where the scrub goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScrubCursor {
    at: Option<(TopicPartition, Offset)>,
}

impl Store {
    /// Retention by time and size, rolling by time, forgetting producers. To be called every few seconds to minutes.
    pub fn maintain(&self, now_ms: i64) {
        let shared = self.shared();
        if shared.is_stopped() || shared.is_failed() {
            return;
        }
        for log in shared.all_logs() {
            log.maintain(now_ms);
        }
    }

    /// Reads on in the closed segments, at least one batch and about `budget_bytes`, and checks every batch.
    /// Begins again at the first log after the last; returns what it found damaged, which is marked already.
    pub fn scrub_some(&self, cursor: &mut ScrubCursor, budget_bytes: u64) -> Vec<DamageReport> {
        let shared = self.shared();
        let mut found = Vec::new();
        let mut left = budget_bytes;
        let logs = shared.all_logs();
        let (first, mut from) = match cursor.at {
            Some((tp, offset)) => {
                (logs.partition_point(|log| log.topic_partition() < tp), Some((tp, offset)))
            }
            None => (0, None),
        };
        for log in &logs[first.min(logs.len())..] {
            let tp = log.topic_partition();
            let mut offset = match from.take() {
                Some((at, offset)) if at == tp => offset,
                _ => Offset::ZERO,
            };
            loop {
                if left == 0 {
                    cursor.at = Some((tp, offset));
                    return found;
                }
                match log.scrub(offset, &mut left) {
                    Scrubbed::Upto(next) => offset = next,
                    Scrubbed::Damaged(from) => {
                        found.push(DamageReport { tp, from });
                        break;
                    }
                    Scrubbed::End => break,
                }
            }
        }
        cursor.at = None;
        found
    }
}

enum Scrubbed {
    Upto(Offset),
    Damaged(Offset),
    End,
}

impl PartitionLog {
    fn maintain(self: &Arc<Self>, now_ms: i64) {
        let mut inner = self.lock();
        if inner.usable().is_err() {
            return;
        }
        let tp = self.topic_partition();
        inner.expire_producers(&self.shared, now_ms);
        inner.roll_by_time(&self.shared, tp, now_ms);
        let start = inner.retained_from(now_ms);
        if start > inner.start {
            self.raise_start(&mut inner, start);
        }
    }

    /// Checks batches of one closed segment from `from` on.
    fn scrub(self: &Arc<Self>, from: Offset, left: &mut u64) -> Scrubbed {
        let (segment, begin, truncations, epochs) = {
            let inner = self.lock();
            let from = from.max(inner.start);
            let at = inner.segments.partition_point(|segment| segment.end <= from);
            match inner.segments.get(at) {
                Some(segment) if segment.closed && inner.usable().is_ok() => {
                    (*segment, from, inner.truncations, inner.epochs.clone())
                }
                _ => return Scrubbed::End,
            }
        };
        let result = scrub_segment(&self.shared, self.topic_partition(), &segment, begin, &epochs, left);
        match result {
            Ok(next) => Scrubbed::Upto(next),
            Err(offset) => {
                let mut inner = self.lock();
                let same = inner.truncations == truncations;
                if same && inner.segments.iter().any(|listed| listed.number == segment.number) {
                    self.note_damage(&mut inner, offset);
                    return Scrubbed::Damaged(offset);
                }
                Scrubbed::End
            }
        }
    }
}

/// Where the checked batches end, or where the damage begins.
fn scrub_segment(
    shared: &Shared,
    tp: TopicPartition,
    segment: &crate::segment::Segment,
    from: Offset,
    epochs: &EpochCache,
    left: &mut u64,
) -> Result<Offset, Offset> {
    let lost = |_: io::Error, offset: Offset| offset;
    let index = crate::log::closed_index(shared, tp, segment, 4096).map_err(|trouble| match trouble {
        crate::log::Trouble::Damaged(from) => from,
        _ => segment.base,
    })?;
    let (position, mut offset) = index.before_offset(from);
    let path = segment_path(shared, tp, segment);
    tracing::trace!(path = %path.display(), %offset, "scrubbing");
    let file = open_segment(shared, tp, segment).map_err(|error| lost(error, offset))?;
    let mut scanner = Scanner::new(&*file, position, segment.bytes, offset, true);
    while *left > 0 {
        match scanner.next_batch().map_err(|error| lost(error, offset))? {
            // Those before the log start are not asked for their epoch, which is no longer known.
            Some(Ok((_, header)))
                if header.base_offset() >= from
                    && epochs.at(header.base_offset()) != Some(header.leader_epoch()) =>
            {
                return Err(offset);
            }
            Some(Ok((_, header))) => {
                offset = header.next_offset();
                *left = left.saturating_sub(header.size_in_bytes() as u64);
            }
            Some(Err(bad)) => {
                tracing::error!(log = %tp, position = bad.position, reason = %bad.reason, "the scrub found damage");
                return Err(offset);
            }
            None => break,
        }
    }
    file.advise_dont_need(position, scanner.position() - position);
    if scanner.position() == segment.bytes && offset != segment.end {
        return Err(offset.min(segment.end));
    }
    Ok(offset)
}

impl Inner {
    fn expire_producers(&mut self, shared: &Shared, now_ms: i64) {
        if let Some(loaded) = &mut self.loaded {
            loaded.producers.expire(now_ms.saturating_sub(shared.config.producer_id_expiration_ms));
        }
    }

    fn roll_by_time(&mut self, shared: &Shared, tp: TopicPartition, now_ms: i64) {
        let Some(active) = self.active().filter(|active| active.bytes > 0) else { return };
        let age = now_ms.saturating_sub(active.first_append_ms);
        let idle = now_ms.saturating_sub(active.newest_append_ms);
        // One whose records have all expired is closed so that it can go.
        let expired = self.config.retention_ms.is_some_and(|retention_ms| idle > retention_ms);
        if age >= self.config.roll_ms() || expired {
            self.close_active(shared, tp);
        }
    }

    /// The log start that retention asks for.
    fn retained_from(&self, now_ms: i64) -> Offset {
        let mut start = self.start;
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        for segment in &self.segments {
            if !segment.closed || segment.end > self.retention_bound {
                break;
            }
            let idle = now_ms.saturating_sub(segment.newest_append_ms);
            let old = self.config.retention_ms.is_some_and(|retention_ms| idle > retention_ms);
            let much = self.config.retention_bytes.is_some_and(|max| bytes - segment.bytes >= max);
            if !old && !much {
                break;
            }
            bytes -= segment.bytes;
            start = segment.end;
        }
        start
    }
}
