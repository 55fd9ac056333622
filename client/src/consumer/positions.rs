//! Where a consumer stands in each of its partitions, and what has been fetched ahead. Pure: fetch results and
//! the user's calls in; records to hand out, fetches to make, errors to tell out.
//!
//! Each partition has three places, never out of order:
//!
//! ```text
//!   consumed ≤ position ≤ fetch_offset
//!   processed   next to     next to
//!   (commit)    hand out    ask for
//! ```
//!
//! Invariants
//! - `consumed` reaches `position` only when the user asks for more: what it was given before counts as processed
//!   then, not earlier.
//! - A position moves forward with the records handed out. It goes back only by `seek`, or after an explicit
//!   error (truncation, out of range): never silently (hazard 9).
//! - Each assignment and seek begins a new incarnation; an answer to a fetch or lookup of another is dropped.

use super::places::{AutoOffsetReset, Chunk, Fetched, Lag, Progress, Want};
use crate::error::{Error, ErrorKind};
use crate::types::{OffsetAndMetadata, OffsetSpec, TopicPartition};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use strandline_record::BatchIter;
use tokio::time::Instant;

#[derive(Debug)]
enum Standing {
    /// The group's committed offset is to be looked up.
    Uncommitted,
    /// A place is to be looked up.
    Unresolved(OffsetSpec),
    Reading,
    /// An error has been told; nothing happens before a seek.
    Stopped,
}

#[derive(Debug)]
struct Slot {
    incarnation: u64,
    standing: Standing,
    /// A lookup or fetch is under way.
    busy: bool,
    progress: Arc<Progress>,
    fetch_offset: i64,
    fetch_epoch: i32,
    /// Leader epochs of what was fetched, each with the first offset seen of it; the newest few.
    epochs: VecDeque<(i32, i64)>,
    chunks: VecDeque<Chunk>,
    paused: bool,
    /// The last fetch brought records.
    hot: bool,
    retry_at: Option<Instant>,
    failures: u32,
    high_watermark: i64,
    log_start: i64,
}

/// Leader epochs of which a partition remembers where they began. With more of them since the place where two histories
/// part, the error names an end that is too late, never one that is too early.
const EPOCHS: usize = 16;

impl Slot {
    fn saw(&mut self, epoch: i32, offset: i64) {
        if self.epochs.back().is_none_or(|(last, _)| *last != epoch) {
            self.epochs.push_back((epoch, offset));
            if self.epochs.len() > EPOCHS {
                self.epochs.pop_front();
            }
        }
    }

    /// Where the records handed out end that a leader may have whose log has no epoch between `epoch`, which ends at
    /// `end` there, and what is read: at the latest where the first later epoch was seen (KIP-320, KIP-595).
    fn shared_end(&self, epoch: i32, end: i64) -> i64 {
        let later = self.epochs.iter().find(|(seen, _)| *seen > epoch).map(|(_, from)| *from);
        later.map_or(end, |from| from.min(end)).min(self.progress.position())
    }

    fn buffered(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.len()).sum()
    }
}

#[derive(Debug)]
pub(crate) struct Positions {
    reset: AutoOffsetReset,
    slots: BTreeMap<TopicPartition, Slot>,
    /// Partitions with chunks, in the order in which they are served.
    ready: VecDeque<TopicPartition>,
    errors: VecDeque<Error>,
    next_incarnation: u64,
    buffered: usize,
}

impl Positions {
    pub(crate) fn new(reset: AutoOffsetReset) -> Self {
        Positions {
            reset,
            slots: BTreeMap::new(),
            ready: VecDeque::new(),
            errors: VecDeque::new(),
            next_incarnation: 0,
            buffered: 0,
        }
    }

    fn incarnation(&mut self) -> u64 {
        self.next_incarnation += 1;
        self.next_incarnation
    }

    // ---- assignment ----

    /// Begins to read partitions: from the group's offsets if `committed`, else where the policy says.
    pub(crate) fn assign(&mut self, partitions: impl IntoIterator<Item = TopicPartition>, committed: bool) {
        for tp in partitions {
            if self.slots.contains_key(&tp) {
                continue;
            }
            let incarnation = self.incarnation();
            self.slots.insert(
                tp.clone(),
                Slot {
                    incarnation,
                    standing: Standing::Uncommitted,
                    busy: false,
                    progress: Progress::new(-1, -1),
                    fetch_offset: -1,
                    fetch_epoch: -1,
                    epochs: VecDeque::new(),
                    chunks: VecDeque::new(),
                    paused: false,
                    hot: false,
                    retry_at: None,
                    failures: 0,
                    high_watermark: -1,
                    log_start: -1,
                },
            );
            if !committed {
                self.no_offset(&tp);
            }
        }
    }

    pub(crate) fn unassign<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for tp in partitions {
            self.drop_chunks(tp);
            self.slots.remove(tp);
        }
    }

    pub(crate) fn assignment(&self) -> Vec<TopicPartition> {
        self.slots.keys().cloned().collect()
    }

    pub(crate) fn is_assigned(&self, tp: &TopicPartition) -> bool {
        self.slots.contains_key(tp)
    }

    // ---- the user's calls ----

    /// Moves to an offset, or to a place that is looked up first. False if the partition is not assigned.
    pub(crate) fn seek(&mut self, tp: &TopicPartition, to: OffsetSpec) -> bool {
        if !self.slots.contains_key(tp) {
            return false;
        }
        match to {
            OffsetSpec::Offset(offset) => self.start_at(tp, offset, -1),
            spec => self.unresolve(tp, spec),
        }
        true
    }

    /// Drops what is buffered and reads on from `offset`.
    fn start_at(&mut self, tp: &TopicPartition, offset: i64, epoch: i32) {
        self.drop_chunks(tp);
        let incarnation = self.incarnation();
        let slot = self.slots.get_mut(tp).expect("the caller checked");
        slot.incarnation = incarnation;
        slot.standing = Standing::Reading;
        slot.busy = false;
        slot.retry_at = None;
        slot.failures = 0;
        slot.progress = Progress::new(offset, epoch);
        (slot.fetch_offset, slot.fetch_epoch) = (offset, epoch);
        slot.epochs.retain(|(_, from)| *from < offset);
    }

    fn unresolve(&mut self, tp: &TopicPartition, spec: OffsetSpec) {
        self.drop_chunks(tp);
        let incarnation = self.incarnation();
        let slot = self.slots.get_mut(tp).expect("the caller checked");
        slot.incarnation = incarnation;
        slot.standing = Standing::Unresolved(spec);
        slot.busy = false;
        slot.retry_at = None;
    }

    pub(crate) fn set_paused(&mut self, tp: &TopicPartition, paused: bool) -> bool {
        let Some(slot) = self.slots.get_mut(tp) else { return false };
        let was = std::mem::replace(&mut slot.paused, paused);
        if paused && !was && matches!(slot.standing, Standing::Reading) {
            // What it has buffered would keep others from being fetched: fetch it again afterwards.
            let (offset, epoch) = slot.progress.handed_out();
            let consumed = slot.progress.clone();
            self.start_at(tp, offset, epoch);
            self.slots.get_mut(tp).expect("it was there").progress = consumed;
        }
        true
    }

    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        self.slots.iter().filter(|(_, slot)| slot.paused).map(|(tp, _)| tp.clone()).collect()
    }

    /// Next offset to be handed out; `None` while it is not known or the partition not assigned.
    pub(crate) fn position(&self, tp: &TopicPartition) -> Option<i64> {
        let slot = self.slots.get(tp)?;
        matches!(slot.standing, Standing::Reading).then(|| slot.progress.position())
    }

    pub(crate) fn lag(&self, tp: &TopicPartition) -> Option<Lag> {
        let slot = self.slots.get(tp)?;
        (matches!(slot.standing, Standing::Reading) && slot.high_watermark >= 0).then(|| Lag {
            position: slot.progress.position(),
            high_watermark: slot.high_watermark,
            log_start_offset: slot.log_start,
        })
    }

    /// What to commit: everything handed out, or only what counts as processed.
    pub(crate) fn offsets(
        &self,
        only_consumed: bool,
        of: impl Fn(&TopicPartition) -> bool,
    ) -> BTreeMap<TopicPartition, OffsetAndMetadata> {
        let offset = |slot: &Slot| {
            let (offset, epoch) =
                if only_consumed { slot.progress.consumed() } else { slot.progress.handed_out() };
            OffsetAndMetadata { offset, leader_epoch: (epoch >= 0).then_some(epoch), metadata: String::new() }
        };
        self.slots
            .iter()
            .filter(|(tp, slot)| matches!(slot.standing, Standing::Reading) && of(tp))
            .map(|(tp, slot)| (tp.clone(), offset(slot)))
            .collect()
    }

    /// Of what was handed out, what comes before `next` counts as processed.
    pub(crate) fn consume_to(&self, tp: &TopicPartition, next: &OffsetAndMetadata) {
        if let Some(slot) = self.slots.get(tp) {
            slot.progress.consume_to(next.offset, next.leader_epoch.unwrap_or(-1));
        }
    }

    // ---- handing out ----

    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.errors.pop_front()
    }

    pub(crate) fn push_error(&mut self, error: Error) {
        self.errors.push_back(error);
    }

    /// The next chunk to hand out, from each partition in turn.
    pub(crate) fn take_chunk(&mut self) -> Option<(TopicPartition, u64, Arc<Progress>, Chunk)> {
        let tp = self.ready.pop_front()?;
        let slot = self.slots.get_mut(&tp).expect("ready partitions are assigned");
        let chunk = slot.chunks.pop_front().expect("ready partitions have chunks");
        if !slot.chunks.is_empty() {
            self.ready.push_back(tp.clone());
        }
        Some((tp, slot.incarnation, slot.progress.clone(), chunk))
    }

    /// A chunk taken has been handed out, or thrown away: its memory is free.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.buffered -= bytes;
    }

    /// Whether records of this incarnation may be handed out.
    pub(crate) fn may_hand_out(&self, tp: &TopicPartition, incarnation: u64) -> bool {
        self.slots.get(tp).is_some_and(|slot| slot.incarnation == incarnation && !slot.paused)
    }

    /// Served bytes turned out damaged: fetch them again from the present position, after the delay.
    pub(crate) fn refetch(&mut self, tp: &TopicPartition, incarnation: u64, retry_at: Instant) {
        if !self.may_hand_out(tp, incarnation) {
            return;
        }
        let slot = &self.slots[tp];
        let (progress, (offset, epoch)) = (slot.progress.clone(), slot.progress.handed_out());
        self.start_at(tp, offset, epoch);
        let slot = self.slots.get_mut(tp).expect("it was there");
        (slot.progress, slot.retry_at) = (progress, Some(retry_at));
    }

    // ---- lookups ----

    /// Partitions whose committed offset is to be asked for; they count as busy from now on.
    pub(crate) fn want_committed(&mut self, now: Instant) -> Vec<(TopicPartition, u64)> {
        let due = |slot: &Slot| {
            matches!(slot.standing, Standing::Uncommitted)
                && !slot.busy
                && slot.retry_at.is_none_or(|at| at <= now)
        };
        let wanted = self.slots.iter_mut().filter(|(_, slot)| due(slot));
        wanted
            .map(|(tp, slot)| {
                slot.busy = true;
                (tp.clone(), slot.incarnation)
            })
            .collect()
    }

    /// Partitions with a place to be looked up; they count as busy from now on.
    pub(crate) fn want_lookup(&mut self, now: Instant, max: usize) -> Vec<(TopicPartition, u64, OffsetSpec)> {
        let due = |slot: &Slot| !slot.busy && slot.retry_at.is_none_or(|at| at <= now);
        let mut wanted = Vec::new();
        for (tp, slot) in self.slots.iter_mut().filter(|(_, slot)| due(slot)) {
            if let Standing::Unresolved(spec) = slot.standing
                && wanted.len() < max
            {
                slot.busy = true;
                wanted.push((tp.clone(), slot.incarnation, spec));
            }
        }
        wanted
    }

    fn current(&mut self, tp: &TopicPartition, incarnation: u64) -> Option<&mut Slot> {
        self.slots.get_mut(tp).filter(|slot| slot.incarnation == incarnation)
    }

    /// What the group has committed, or that it has nothing.
    pub(crate) fn committed(
        &mut self,
        tp: &TopicPartition,
        incarnation: u64,
        offset: Option<&OffsetAndMetadata>,
    ) {
        if self.current(tp, incarnation).is_none() {
            return;
        }
        match offset {
            Some(offset) => self.start_at(tp, offset.offset, offset.leader_epoch.unwrap_or(-1)),
            None => self.no_offset(tp),
        }
    }

    fn no_offset(&mut self, tp: &TopicPartition) {
        match self.reset.spec() {
            Some(spec) => self.unresolve(tp, spec),
            None => {
                let message =
                    format!("there is no committed offset for {tp}; seek, or set auto_offset_reset");
                self.stop(tp, Error::new(ErrorKind::NoOffset(tp.clone()), message));
            }
        }
    }

    pub(crate) fn looked_up(&mut self, tp: &TopicPartition, incarnation: u64, offset: i64) {
        if self.current(tp, incarnation).is_some() {
            self.start_at(tp, offset, -1);
        }
    }

    /// A lookup or fetch failed; again at `retry_at`.
    pub(crate) fn failed(&mut self, tp: &TopicPartition, incarnation: u64, retry_at: Instant) {
        if let Some(slot) = self.current(tp, incarnation) {
            slot.busy = false;
            slot.failures = slot.failures.saturating_add(1);
            slot.retry_at = Some(retry_at);
        }
    }

    /// How often in a row it has failed.
    pub(crate) fn failures(&self, tp: &TopicPartition) -> u32 {
        self.slots.get(tp).map_or(0, |slot| slot.failures)
    }

    /// A lookup or fetch was called off; it may be made again at once.
    pub(crate) fn cancelled(&mut self, tp: &TopicPartition, incarnation: u64) {
        if let Some(slot) = self.current(tp, incarnation) {
            slot.busy = false;
        }
    }

    /// Tells an error and waits for a seek.
    pub(crate) fn stop(&mut self, tp: &TopicPartition, error: Error) {
        self.drop_chunks(tp);
        let incarnation = self.incarnation();
        let slot = self.slots.get_mut(tp).expect("the caller checked");
        slot.incarnation = incarnation;
        slot.standing = Standing::Stopped;
        slot.busy = false;
        self.errors.push_back(error);
    }

    pub(crate) fn stop_current(&mut self, tp: &TopicPartition, incarnation: u64, error: Error) {
        if self.current(tp, incarnation).is_some() {
            self.stop(tp, error);
        }
    }

    // ---- fetching ----

    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    /// Partitions that could be fetched now: reading, not paused, not busy, and with less than
    /// `partition_bytes` buffered.
    pub(crate) fn want_fetch(&self, now: Instant, partition_bytes: usize) -> Vec<Want> {
        let due = |slot: &Slot| {
            matches!(slot.standing, Standing::Reading)
                && !slot.busy
                && !slot.paused
                && slot.retry_at.is_none_or(|at| at <= now)
                && slot.buffered() < partition_bytes
        };
        let want = |(tp, slot): (&TopicPartition, &Slot)| Want {
            partition: tp.clone(),
            incarnation: slot.incarnation,
            offset: slot.fetch_offset,
            last_fetched_epoch: slot.fetch_epoch,
            hot: slot.hot,
        };
        self.slots.iter().filter(|(_, slot)| due(slot)).map(want).collect()
    }

    pub(crate) fn fetching(&mut self, tp: &TopicPartition, incarnation: u64) {
        if let Some(slot) = self.current(tp, incarnation) {
            slot.busy = true;
        }
    }

    /// When a delayed partition is next due.
    pub(crate) fn next_retry(&self, now: Instant) -> Option<Instant> {
        self.slots
            .values()
            .filter(|slot| !slot.busy)
            .filter_map(|slot| slot.retry_at)
            .filter(|at| *at > now)
            .min()
    }

    /// Takes a fetch's answer in. Returns whether there is something for the user.
    pub(crate) fn fetched(&mut self, tp: &TopicPartition, incarnation: u64, answer: &Fetched) -> bool {
        let reset = self.reset;
        let Some(slot) = self.current(tp, incarnation) else { return false };
        slot.busy = false;
        (slot.retry_at, slot.failures) = (None, 0);
        if let Some((epoch, end_offset)) = answer.diverging {
            let (position, read) = slot.progress.handed_out();
            if position <= end_offset && read <= epoch {
                // Only what was fetched ahead is gone: nobody has seen it. Whether the leader has what was handed out, the
                // next fetch asks, with the epoch of that.
                let progress = slot.progress.clone();
                self.start_at(tp, position, if read < 0 { epoch } else { read });
                self.slots.get_mut(tp).expect("it was there").progress = progress;
                return false;
            }
            // An epoch that the leader does not have may have been read below where its own log ends.
            let end_offset = slot.shared_end(epoch, end_offset);
            let error = Error::new(
                ErrorKind::Truncated { partition: tp.clone(), position, epoch, end_offset },
                format!(
                    "the log of {tp} was truncated to offset {end_offset} (epoch {epoch}) after this consumer had read \
                     to {position}: records that were read are gone"
                ),
            );
            match reset {
                AutoOffsetReset::Error => self.stop(tp, error),
                _ => {
                    self.errors.push_back(error);
                    self.start_at(tp, end_offset, epoch);
                }
            }
            return true;
        }
        slot.high_watermark = slot.high_watermark.max(answer.high_watermark);
        slot.log_start = slot.log_start.max(answer.log_start);
        let asked = slot.fetch_offset;
        let (mut end, mut epoch, mut from) = (asked, slot.fetch_epoch, None);
        let mut batches = BatchIter::new(&answer.batches);
        let mut damaged = None;
        let mut covered = 0;
        let mut first = asked;
        loop {
            let begin = batches.position();
            match batches.next() {
                None => break,
                Some(Ok((header, _))) => {
                    if header.next_offset().get() <= end {
                        // Wholly before what was asked for.
                        continue;
                    }
                    from.get_or_insert(begin);
                    slot.saw(header.leader_epoch().get(), first);
                    first = header.next_offset().get();
                    (end, epoch) = (header.next_offset().get(), header.leader_epoch().get());
                    covered = batches.position();
                }
                Some(Err(error)) if error.is_truncated() => break,
                Some(Err(error)) => {
                    damaged = Some(error);
                    break;
                }
            }
        }
        slot.hot = from.is_some();
        if let Some(from) = from {
            let bytes = answer.batches.slice(from..covered);
            self.buffered += bytes.len();
            let slot = self.slots.get_mut(tp).expect("found above");
            if slot.chunks.is_empty() {
                self.ready.push_back(tp.clone());
            }
            slot.chunks.push_back(Chunk { bytes, end, epoch });
            (slot.fetch_offset, slot.fetch_epoch) = (end, epoch);
        } else if let Some(error) = damaged {
            let error = Error::new(
                ErrorKind::Corrupt(tp.clone()),
                format!("{tp} at offset {asked}: {error}; seek past it to go on"),
            );
            self.stop(tp, error);
        }
        true
    }

    /// The leader says that the offset asked for is not in the log.
    pub(crate) fn out_of_range(
        &mut self,
        tp: &TopicPartition,
        incarnation: u64,
        log_start: i64,
        high_watermark: i64,
    ) {
        let reset = self.reset;
        let Some(slot) = self.current(tp, incarnation) else { return };
        let (position, epoch) = slot.progress.handed_out();
        if (log_start..=high_watermark).contains(&position) {
            // Only what was fetched ahead is gone.
            let progress = slot.progress.clone();
            self.start_at(tp, position, epoch);
            self.slots.get_mut(tp).expect("it was there").progress = progress;
            return;
        }
        let what =
            if position < log_start { "has been removed by retention" } else { "is past the end of the log" };
        let error = Error::new(
            ErrorKind::OffsetOutOfRange {
                partition: tp.clone(),
                position,
                log_start_offset: log_start,
                high_watermark,
            },
            format!(
                "offset {position} of {tp} {what}: offsets {log_start} to {high_watermark} can be read; seek to one"
            ),
        );
        match reset.spec() {
            None => self.stop(tp, error),
            Some(spec) => {
                if position > high_watermark {
                    // Going back is never silent.
                    self.errors.push_back(error);
                } else {
                    tracing::warn!(partition = %tp, position, log_start, "position reset: {error}");
                }
                self.unresolve(tp, spec);
            }
        }
    }

    fn drop_chunks(&mut self, tp: &TopicPartition) {
        if let Some(slot) = self.slots.get_mut(tp) {
            self.buffered -= slot.chunks.drain(..).map(|chunk| chunk.bytes.len()).sum::<usize>();
            self.ready.retain(|ready| ready != tp);
        }
    }
}

#[cfg(test)]
#[path = "positions_tests.rs"]
mod tests;
