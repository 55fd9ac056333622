//! One partition's log: a row of segments, the newest batches in memory, and what is derived from them.
//!
//! The order that holds on every replica: log start ≤ log end, flushed end ≤ log end. The flushed end is below the log
//! start while a log that began again, or a log start that went past it, is not on disk. The high watermark is not known
//! here; retention keeps below the bound that it is given.
//!
//! Methods take one short lock, write into the page cache and never wait for the disk's completion; what
//! makes bytes durable are the workers of the journal and of the checkpoint.

mod append;
mod read;
mod state;
#[cfg(test)]
pub(crate) mod testing;
mod truncate;

use crate::cache::TailCache;
use crate::config::{FlushMode, LogConfig};
use crate::dedup::Dedup;
use crate::epochs::EpochCache;
use crate::error::{AppendError, LogError, ReadError};
use crate::index::SparseIndex;
use crate::journal::{Op, Token};
use crate::producers::KnownProducer;
use crate::producers::Producers;
use crate::segment::{COMPACTED, NUMBERS_END, Segment};
use crate::store::Shared;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use strandline_record::{LeaderEpoch, Offset, TopicPartition};

pub use append::Appended;
pub use read::ReadBatches;
pub(crate) use state::{Trouble, closed_index, index_path, is_lost, open_segment, segment_path};

/// A log's flushed end moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushedTo {
    /// Exclusive: everything below is durable.
    pub end: Offset,
    /// Epoch of the last batch below `end` when it was handed to the journal; -1 when there was none.
    pub leader_epoch: LeaderEpoch,
    /// The log's count of truncations: a completion from before a truncation is never reported.
    pub truncations: u64,
}

/// Called from the journal's and the checkpoint's worker, no lock held; the two may overtake one another, so
/// the largest end of a count of truncations is what holds. Not called where appending flushes
/// at once (`flush=interval`, `flush=os`): there the flushed end has moved when the append returns.
pub type FlushListener = Arc<dyn Fn(FlushedTo) + Send + Sync>;

/// What a checkpoint says of one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub tp: TopicPartition,
    /// The log's newest journal entry that the rest takes into account.
    pub applied_seq: u64,
    pub start: Offset,
    pub end: Offset,
    pub next_number: u32,
    pub segments: Vec<Segment>,
    pub epochs: EpochCache,
    pub damaged: Option<Offset>,
    /// Appended batches go through the journal; otherwise what follows in the files is taken as far as it
    /// is intact.
    pub journaled: bool,
    /// Compaction has covered what lies below. Kept beside the record in the checkpoint.
    #[serde(skip)]
    pub compacted_to: Offset,
}

impl LogRecord {
    pub fn is_sound(&self) -> bool {
        let pairs = self.segments.windows(2);
        let first = self.segments.first();
        let (compacted, appended): (Vec<&Segment>, Vec<&Segment>) =
            self.segments.iter().partition(|segment| segment.number >= COMPACTED);
        let numbers: BTreeSet<u32> = compacted.iter().map(|segment| segment.number).collect();
        0 <= self.start.get()
            && self.start <= self.end
            && self.segments.iter().all(Segment::is_sound)
            && self.next_number <= COMPACTED
            && self.segments.iter().all(|s| s.bytes > 0 && s.end > self.start)
            && appended.iter().all(|s| s.number < self.next_number)
            && appended.windows(2).all(|p| p[0].number < p[1].number)
            && numbers.len() == compacted.len()
            && numbers.last().is_none_or(|last| *last < NUMBERS_END)
            && compacted.iter().all(|s| s.closed)
            && pairs.into_iter().all(|p| p[0].end == p[1].base && p[0].closed)
            && first.map_or(self.start == self.end, |first| first.base <= self.start)
            && self.segments.last().is_none_or(|last| last.end == self.end)
            && self.epochs.is_sound(self.end)
    }
}

/// What is derived from the batches and only needed once the log is written to.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Of the active segment.
    pub index: SparseIndex,
    pub producers: Producers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    Deleted,
}

/// Invariants: those of [`LogRecord::is_sound`], except that the last segment may be empty for a moment;
/// `flushed ≤ end`; while `journaled` is not set `flushed = end`.
#[derive(Debug)]
pub(crate) struct Inner {
    pub config: LogConfig,
    pub health: Health,
    pub start: Offset,
    pub end: Offset,
    pub flushed: Offset,
    /// Cuts of the log end, counted since the start of the process.
    pub truncations: u64,
    pub applied_seq: u64,
    pub next_number: u32,
    /// Of the next file that compaction writes.
    pub next_compacted: u32,
    /// Compaction has covered what lies below; at most the log end.
    pub compacted_to: Offset,
    pub segments: VecDeque<Segment>,
    pub epochs: EpochCache,
    pub damaged: Option<Offset>,
    pub journaled: bool,
    /// Batches below were appended without the journal: the flushed end waits here until a checkpoint has
    /// synced them.
    pub hold: Option<Offset>,
    /// What the journal has made durable while `hold` is set.
    pub held: Option<Token>,
    /// Retention deletes nothing at or above (the high watermark).
    pub retention_bound: Offset,
    /// Compaction removes no tombstone at or above.
    pub tombstone_bound: Offset,
    pub loaded: Option<Loaded>,
    /// With `dedup.key`, from the first time on that somebody asked.
    pub dedup: Option<Dedup>,
    pub cache: TailCache,
    /// Numbers of the files with bytes that no sync has covered.
    pub dirty: BTreeSet<u32>,
    /// File names that no sync has covered.
    pub new_names: bool,
    /// Length of the active segment when its index was last written.
    pub indexed: u64,
    /// Length of the active segment when its dirty pages were last pushed out.
    pub written_back: u64,
    /// Up to where the active segment's pages were given back to the operating system.
    pub dropped: u64,
}

/// See the module.
pub struct PartitionLog {
    tp: TopicPartition,
    pub(crate) shared: Arc<Shared>,
    inner: Mutex<Inner>,
    listener: Mutex<Option<FlushListener>>,
}

impl std::fmt::Debug for PartitionLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartitionLog({})", self.tp)
    }
}

impl PartitionLog {
    pub(crate) fn from_record(shared: Arc<Shared>, record: LogRecord, config: LogConfig) -> Self {
        let active = record.segments.last().filter(|last| !last.closed).map_or(0, |last| last.bytes);
        let next_compacted = record.segments.iter().map(|segment| segment.number + 1);
        let next_compacted = next_compacted.fold(COMPACTED + record.next_number, u32::max);
        let inner = Inner {
            config,
            health: Health::Good,
            start: record.start,
            end: record.end,
            flushed: record.end,
            truncations: 0,
            applied_seq: record.applied_seq,
            next_number: record.next_number,
            next_compacted,
            compacted_to: record.compacted_to.min(record.end),
            segments: record.segments.into(),
            epochs: record.epochs,
            damaged: record.damaged,
            journaled: record.journaled,
            hold: None,
            held: None,
            retention_bound: Offset::ZERO,
            tombstone_bound: Offset::ZERO,
            loaded: None,
            dedup: None,
            cache: TailCache::default(),
            dirty: BTreeSet::new(),
            new_names: false,
            indexed: active,
            written_back: active,
            dropped: 0,
        };
        PartitionLog { tp: record.tp, shared, inner: Mutex::new(inner), listener: Mutex::new(None) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub fn topic_partition(&self) -> TopicPartition {
        self.tp
    }

    /// The first offset that can be read; equals the log end when the log is empty.
    pub fn log_start(&self) -> Offset {
        self.lock().start
    }

    /// The offset that the next record gets.
    pub fn log_end(&self) -> Offset {
        self.lock().end
    }

    /// Everything below survives power loss (with `flush=ack`; otherwise this is the log end).
    pub fn flushed_end(&self) -> Offset {
        self.lock().flushed
    }

    /// How often the log end was cut since the process started.
    pub fn truncations(&self) -> u64 {
        self.lock().truncations
    }

    /// Epoch of the last batch.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.lock().epochs.last()
    }

    /// The largest epoch that is at most `asked`, and the offset where it ends (KIP-279).
    pub fn end_of_epoch(&self, asked: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let inner = self.lock();
        inner.epochs.end_of(asked, inner.end)
    }

    /// The epoch of the record at `offset`, or at the end, of the last one.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.lock().epochs.at(offset)
    }

    /// The idempotent producers that this log knows of, at most `max`, by id.
    pub fn producers(self: &Arc<Self>, max: usize) -> Result<Vec<KnownProducer>, ReadError> {
        let mut inner = self.lock();
        inner.check_readable(inner.start)?;
        let known = inner.load(&self.shared, self.tp).map(|loaded| loaded.producers.list(max));
        known.map_err(|trouble| self.read_trouble(&mut inner, trouble))
    }

    /// Offset of the first batch of exactly this epoch.
    pub fn epoch_start(&self, epoch: LeaderEpoch) -> Option<Offset> {
        self.lock().epochs.start_of(epoch)
    }

    /// Bytes of all batches on disk.
    pub fn size_bytes(&self) -> u64 {
        self.lock().segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Compaction has covered what lies below.
    pub fn compacted_to(&self) -> Offset {
        self.lock().compacted_to
    }

    /// From where on the log is damaged. Set durably; nothing is read or appended until
    /// [`PartitionLog::repair`].
    pub fn damaged(&self) -> Option<Offset> {
        self.lock().damaged
    }

    pub fn config(&self) -> LogConfig {
        self.lock().config.clone()
    }

    /// Takes effect at once, except that leaving `flush=ack` waits for the next checkpoint. After a change to
    /// `flush=ack` the flushed end stays where it is until a checkpoint has synced what was appended before.
    pub fn set_config(&self, config: LogConfig) {
        let checkpoint = {
            let mut inner = self.lock();
            if inner.config.dedup != config.dedup {
                // Of other keys or another time: it is read again.
                inner.dedup = None;
            }
            inner.config = config;
            let ack = inner.config.flush == FlushMode::Ack;
            if ack && !inner.journaled {
                inner.journaled = true;
                inner.hold = Some(inner.end);
            }
            ack != inner.journaled || inner.hold.is_some()
        };
        if checkpoint {
            self.shared.request_checkpoint();
        }
        self.shared.intervals_changed();
    }

    pub fn set_flush_listener(&self, listener: FlushListener) {
        *self.listener.lock() = Some(listener);
    }

    pub fn clear_flush_listener(&self) {
        *self.listener.lock() = None;
    }

    /// Retention deletes only records below (the high watermark).
    pub fn set_retention_bound(&self, bound: Offset) {
        self.lock().retention_bound = bound;
    }

    /// Compaction removes only tombstones below: what every replica is known to hold, so that none keeps for ever what
    /// a tombstone deleted that it never got.
    pub fn set_tombstone_bound(&self, bound: Offset) {
        self.lock().tombstone_bound = bound;
    }

    /// The journal made an entry of this log durable.
    pub(crate) fn journal_flushed(&self, token: Token) {
        let moved = {
            let mut inner = self.lock();
            if token.truncations != inner.truncations {
                None
            } else if inner.hold.is_some() {
                inner.held = Some(token);
                None
            } else {
                inner.flush_to(token)
            }
        };
        self.tell(moved);
    }

    /// A checkpoint that noted the log at `end` is durable.
    pub(crate) fn checkpointed(&self, end: Offset, journaled: bool, truncations: u64) {
        let moved = {
            let mut inner = self.lock();
            if truncations != inner.truncations {
                // It says nothing about the log as it is now: the next one will.
                if inner.hold.is_some() {
                    self.shared.request_checkpoint();
                }
                return;
            }
            if !journaled && inner.config.flush != FlushMode::Ack && inner.journaled {
                inner.journaled = false;
                (inner.hold, inner.held) = (None, None);
                let token = inner.token();
                inner.flush_to(token)
            } else if journaled && inner.hold.is_some_and(|hold| hold <= end) {
                inner.hold = None;
                inner.held.take().and_then(|token| inner.flush_to(token))
            } else {
                None
            }
        };
        self.tell(moved);
    }

    fn tell(&self, moved: Option<FlushedTo>) {
        if let Some(flushed) = moved {
            let listener = self.listener.lock().clone();
            if let Some(listener) = listener {
                listener(flushed);
            }
        }
    }

    pub(crate) fn evict_cached(&self, id: u64) {
        self.lock().cache.evict_up_to(&self.shared.cache, id);
    }

    /// Pushes dirty pages of the active segment out, so that no sync finds many.
    pub(crate) fn start_write_back(&self) {
        let (segment, from) = {
            let mut inner = self.lock();
            let Some(active) = inner.active().copied() else { return };
            let from = std::mem::replace(&mut inner.written_back, active.bytes);
            (active, from.min(active.bytes))
        };
        if segment.bytes > from
            && let Ok(file) = open_segment(&self.shared, self.tp, &segment)
        {
            file.start_write_back(from, segment.bytes - from);
        }
    }

    /// Hands an operation that was just done to the journal. In the lock of `inner`.
    fn journal(self: &Arc<Self>, inner: &mut Inner, op: Op) {
        let notify = match op {
            Op::Append { .. } | Op::Truncate { .. } | Op::Reset { .. } | Op::Repair { .. } => {
                Some((self.clone(), inner.token()))
            }
            _ => None,
        };
        inner.applied_seq = self.shared.journal.push(self.tp, inner.applied_seq, op, notify);
    }
}

impl Inner {
    pub fn token(&self) -> Token {
        Token {
            end: self.end,
            leader_epoch: self.epochs.last().unwrap_or(LeaderEpoch(-1)),
            truncations: self.truncations,
        }
    }

    fn flush_to(&mut self, token: Token) -> Option<FlushedTo> {
        assert!(token.end <= self.end, "nothing is flushed beyond the log end");
        if token.end <= self.flushed {
            return None;
        }
        self.flushed = token.end;
        let Token { end, leader_epoch, truncations } = token;
        Some(FlushedTo { end, leader_epoch, truncations })
    }

    pub fn record(&self, tp: TopicPartition) -> LogRecord {
        LogRecord {
            tp,
            applied_seq: self.applied_seq,
            start: self.start,
            end: self.end,
            next_number: self.next_number,
            segments: self.segments.iter().filter(|segment| segment.bytes > 0).copied().collect(),
            epochs: self.epochs.clone(),
            damaged: self.damaged,
            journaled: self.journaled && self.config.flush == FlushMode::Ack,
            compacted_to: self.compacted_to,
        }
    }

    /// Whether operations other than a repair may go on.
    pub fn usable(&self) -> Result<(), LogError> {
        match (&self.health, self.damaged) {
            (Health::Deleted, _) => Err(LogError::Deleted),
            (Health::Good, Some(from)) => Err(LogError::Damaged { from }),
            (Health::Good, None) => Ok(()),
        }
    }
}

impl From<LogError> for AppendError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged { from } => AppendError::Damaged { from },
            LogError::Deleted => AppendError::Deleted,
            LogError::OutOfRange { .. } => AppendError::Invalid(error.to_string()),
            LogError::Failed(reason) => AppendError::Failed(reason),
        }
    }
}

impl From<LogError> for ReadError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged { from } => ReadError::Damaged { from },
            LogError::Deleted => ReadError::Deleted,
            LogError::OutOfRange { log_start, log_end, .. } => ReadError::OutOfRange { log_start, log_end },
            LogError::Failed(reason) => ReadError::Failed(reason),
        }
    }
}
