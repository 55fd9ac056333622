//! One pass over one log, in bounded steps.
//!
//! ```text
//!   map    the dirty part: the last offset of each key, until the map is full
//!   clean  from the log start to where the map ends, row of segments by row of segments:
//!            one segment, nothing goes ──► it stays as it is
//!            otherwise ──► what is left is written aside, synced, and takes its place
//! ```
//!
//! From low offsets to high ones: when a tombstone is removed, what it deletes is gone already, in the same checkpoint
//! or in an earlier one.

use super::filter::{Fate, Filter, Rules, open};
use super::keys::KeyMap;
use super::output::Output;
use super::plan::{Candidate, View, candidate, groups};
use crate::epochs::EpochCache;
use crate::log::{Inner, PartitionLog, Trouble, is_lost, open_segment};
use crate::segment::{Scanner, Segment};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use strandline_record::{BatchHeader, Offset};

/// Why a pass ended early. What it has put in place until then stays.
#[derive(Debug)]
pub enum Stop {
    /// The log was truncated, deleted, found damaged, or its start has moved.
    Changed,
    /// The batch at this offset of the segment of this number is not what was written.
    Damaged(u32, Offset),
    NoSpace,
    Failed(io::Error),
    /// A sync failed.
    Fatal(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Stop::NoSpace,
            _ => Stop::Failed(error),
        }
    }
}

/// What a step cost and did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub read: u64,
    pub written: u64,
    pub records_removed: u64,
    pub segments_replaced: u64,
}

impl Spent {
    fn bytes(&self) -> u64 {
        self.read + self.written
    }
}

/// The log as it was when the pass began.
#[derive(Debug)]
struct Source {
    log: Arc<PartitionLog>,
    segments: Vec<Segment>,
    epochs: EpochCache,
    start: Offset,
}

/// A batch boundary.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Index of the segment.
    segment: usize,
    position: u64,
    offset: Offset,
}

#[derive(Debug)]
enum Stage {
    Map(Place),
    Clean {
        /// Those that are left, the present one first.
        groups: VecDeque<Range<usize>>,
        place: Place,
        /// `None`: nothing was found yet that goes.
        output: Option<Box<Output>>,
        filter: Filter,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Pass {
    source: Source,
    truncations: u64,
    dirty_from: Offset,
    /// Where the map ends, once that is known.
    mapped_to: Offset,
    keys: KeyMap,
    remembered: BTreeSet<Offset>,
    tombstone_bound: Offset,
    segment_bytes: u64,
    delete_retention_ms: i64,
    now_ms: i64,
    stage: Stage,
}

/// What a pass over the log would cover, if one is due.
pub fn due(inner: &Inner, now_ms: i64) -> Option<Candidate> {
    let config = inner.config.compaction.as_ref().filter(|_| inner.usable().is_ok())?;
    let view = View { start: inner.start, compacted_to: inner.compacted_to, bound: inner.retention_bound };
    candidate(inner.segments.iter(), view, config, now_ms)
}

impl Source {
    fn begin(&self, segment: usize) -> Place {
        Place { segment, position: 0, offset: self.segments[segment].base }
    }

    /// Gives batches, checked, to `visit` until it breaks, the budget is spent or the segment ends, which is
    /// `true`. The place is behind the last batch that was given.
    fn read(
        &self,
        place: &mut Place,
        spent: &mut Spent,
        budget: u64,
        mut visit: impl FnMut(&mut Spent, &BatchHeader, Bytes) -> Result<ControlFlow<()>, Stop>,
    ) -> Result<bool, Stop> {
        let segment = &self.segments[place.segment];
        let (shared, tp) = (&self.log.shared, self.log.topic_partition());
        let damaged = |offset: Offset| Stop::Damaged(segment.number, offset);
        let lost = |error: io::Error, offset| if is_lost(&error) { damaged(offset) } else { error.into() };
        let file = open_segment(shared, tp, segment).map_err(|error| lost(error, place.offset))?;
        let begin = place.position;
        let mut scanner = Scanner::new(&*file, begin, segment.bytes, place.offset, true);
        let mut ended = false;
        while spent.bytes() < budget {
            let Some(next) = scanner.next_batch().map_err(|error| lost(error, place.offset))? else {
                if place.offset != segment.end {
                    return Err(damaged(place.offset));
                }
                ended = true;
                break;
            };
            let (position, header) = next.map_err(|bad| {
                tracing::error!(log = %tp, position = bad.position, reason = %bad.reason, "compaction found damage");
                damaged(place.offset)
            })?;
            // The epoch lies outside the checksum. Below the log start it is no longer known.
            let base = header.base_offset();
            let readable = header.next_offset() > self.start;
            if readable && self.epochs.at(base.max(self.start)) != Some(header.leader_epoch()) {
                return Err(damaged(base));
            }
            let batch = Bytes::copy_from_slice(scanner.batch_bytes(position, header.size_in_bytes()));
            spent.read += batch.len() as u64;
            (place.position, place.offset) = (scanner.position(), header.next_offset());
            if visit(spent, &header, batch)?.is_break() {
                break;
            }
        }
        file.advise_dont_need(begin, place.position - begin);
        Ok(ended)
    }
}

impl Pass {
    /// `None`: it is not due.
    pub fn begin(log: &Arc<PartitionLog>, now_ms: i64) -> Result<Option<Pass>, Stop> {
        let (shared, tp) = (&log.shared, log.topic_partition());
        let mut inner = log.lock();
        let Some(Candidate { segments, dirty_from, .. }) = due(&inner, now_ms) else { return Ok(None) };
        let config = inner.config.compaction.expect("it is compacted");
        let end = segments.last().map_or(dirty_from, |last| last.end);
        let loaded = inner.load(shared, tp).map(|loaded| {
            loaded.producers.remembered().filter(|base| *base < end).collect::<BTreeSet<Offset>>()
        });
        let remembered = match loaded {
            Ok(remembered) => remembered,
            Err(Trouble::Damaged(from)) => {
                log.note_damage(&mut inner, from);
                return Err(Stop::Changed);
            }
            Err(Trouble::Full) => return Err(Stop::NoSpace),
            Err(Trouble::Io(error)) => return Err(Stop::Failed(error)),
        };
        let first = segments.iter().position(|segment| segment.end > dirty_from).unwrap_or_default();
        let dirty = u64::try_from(end.get() - dirty_from.get()).unwrap_or_default();
        let source = Source { log: log.clone(), segments, epochs: inner.epochs.clone(), start: inner.start };
        Ok(Some(Pass {
            stage: Stage::Map(source.begin(first)),
            source,
            truncations: inner.truncations,
            dirty_from,
            mapped_to: end,
            keys: KeyMap::new(shared.config.dedupe_buffer_bytes, dirty, shared.directory_id),
            remembered,
            tombstone_bound: inner.tombstone_bound,
            segment_bytes: inner.config.segment_bytes,
            delete_retention_ms: config.delete_retention_ms,
            now_ms,
        }))
    }

    pub fn log(&self) -> &Arc<PartitionLog> {
        &self.source.log
    }

    /// Goes on until about `budget` bytes were read and written. `true`: the pass is complete.
    pub fn step(&mut self, budget: u64, spent: &mut Spent) -> Result<bool, Stop> {
        while spent.bytes() < budget {
            let done = match &mut self.stage {
                Stage::Map(_) => {
                    self.map(budget, spent)?;
                    false
                }
                Stage::Clean { groups, .. } if groups.is_empty() => true,
                Stage::Clean { .. } => {
                    self.clean(budget, spent)?;
                    false
                }
            };
            if done {
                return self.complete().map(|()| true);
            }
        }
        Ok(false)
    }

    fn map(&mut self, budget: u64, spent: &mut Spent) -> Result<(), Stop> {
        let Stage::Map(place) = &mut self.stage else { return Ok(()) };
        let (keys, dirty_from) = (&mut self.keys, self.dirty_from);
        let mut full_at = None;
        let ended = self.source.read(place, spent, budget, |_, header, batch| {
            if header.next_offset() <= dirty_from || header.is_control() {
                return Ok(ControlFlow::Continue(()));
            }
            let Ok(decoded) = open(&batch) else { return Ok(ControlFlow::Continue(())) };
            for record in decoded.iter().flatten().filter(|record| record.offset >= dirty_from) {
                if record.key.is_some_and(|key| !keys.put(&key, record.offset)) {
                    // The whole batch is for the next pass, unless this one would not come forward.
                    let base = header.base_offset();
                    full_at = Some(if base > dirty_from { base } else { record.offset });
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let next = place.segment + 1;
        if let Some(full_at) = full_at {
            self.mapped_to = full_at;
        } else if !ended {
            return Ok(());
        } else if next < self.source.segments.len() {
            self.stage = Stage::Map(self.source.begin(next));
            return Ok(());
        }
        let covered = self.source.segments.partition_point(|segment| segment.base < self.mapped_to);
        let groups = groups(&self.source.segments[..covered], self.segment_bytes).into();
        self.stage =
            Stage::Clean { groups, place: self.source.begin(0), output: None, filter: Filter::default() };
        Ok(())
    }

    fn clean(&mut self, budget: u64, spent: &mut Spent) -> Result<(), Stop> {
        let Stage::Clean { groups, place, output, filter } = &mut self.stage else { return Ok(()) };
        let Some(group) = groups.front().cloned() else { return Ok(()) };
        let replaced = &self.source.segments[group.clone()];
        if output.is_none() && replaced.len() > 1 {
            *output = Some(Box::new(Output::create(&self.source.log, replaced)?));
        }
        let rules = Rules {
            keys: &self.keys,
            mapped_to: self.mapped_to,
            remembered: &self.remembered,
            tombstone_bound: self.tombstone_bound,
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
        };
        let removed_before = filter.removed;
        let mut begin_output = false;
        let ended = self.source.read(place, spent, budget, |spent, header, batch| {
            let fate = filter.decide(&rules, header, &batch);
            match (output.as_mut(), fate) {
                (None, Fate::Keep) => {}
                (None, Fate::Remove) if header.is_filler() => {}
                (None, _) => {
                    begin_output = true;
                    return Ok(ControlFlow::Break(()));
                }
                (Some(output), Fate::Keep) => spent.written += output.put(&batch)?,
                (Some(output), Fate::Replace(batch)) => spent.written += output.put(&batch)?,
                (Some(output), Fate::Remove) => output.remove(header),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if begin_output {
            // Once more from the front, now that it is known that not all of it stays.
            filter.removed = removed_before;
            *output = Some(Box::new(Output::create(&self.source.log, replaced)?));
            *place = self.source.begin(group.start);
            return Ok(());
        }
        spent.records_removed += filter.removed - removed_before;
        if !ended {
            return Ok(());
        }
        place.segment += 1;
        if place.segment < group.end {
            *place = self.source.begin(place.segment);
            return Ok(());
        }
        if let Some(output) = output.as_mut() {
            spent.written += output.install(&self.source.log, replaced, self.truncations)?;
            spent.segments_replaced += replaced.len() as u64;
        }
        *output = None;
        groups.pop_front();
        if let Some(next) = groups.front() {
            *place = self.source.begin(next.start);
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<(), Stop> {
        let mut inner = self.source.log.lock();
        if inner.usable().is_err() || inner.truncations != self.truncations {
            return Err(Stop::Changed);
        }
        inner.compacted_to = inner.compacted_to.max(self.mapped_to.min(inner.end));
        Ok(())
    }

    /// Ends the pass where it is.
    pub fn abandon(self) {
        if let Stage::Clean { output: Some(output), .. } = self.stage {
            output.abandon(&self.source.log);
        }
    }
}
