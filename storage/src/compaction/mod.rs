//! Compaction (`cleanup.policy=compact`): of the records of one key only the last one stays, of those below the high
//! watermark and not in the active segment. Offsets never change.
//!
//! ```text
//!  Store::compact (a budget of bytes, now and then) ──wakes──► worker ──► the log that needs it most
//!                                                                              │ a pass, in bounded steps
//!      closed segments, as they are ──► what is left, written aside and synced ┘
//!                                         └─ takes their place in the log ──► checkpoint lists it ──► old files go
//! ```
//!
//! What it rests on:
//! * a segment's bytes never change: what is left of some is written to a new file, and the row of segments in memory
//!   points there. Until a checkpoint lists that file a crash finds the old row, all of whose files are there (they are
//!   removed behind that checkpoint), and the new file is removed at the start as one that nobody knows. So there is no
//!   third state, and no journal entry is needed: compaction changes nothing that the journal's entries rest on. The
//!   ends of batches in a compacted segment are ends of batches in those that it replaced;
//! * files of compacted segments have numbers of their own ([`crate::segment::COMPACTED`]): recovery takes in files of
//!   consecutive numbers where a log does without the journal, and must neither meet these nor miss a number;
//! * batches stay contiguous: where some were removed lies a *filler*, a batch without records, one for each run of
//!   them in a leader epoch. Base offsets lie outside the checksums of batches; that each begins where the one before
//!   ends is what they are checked by, on disk as in replication. Fillers also keep the starts of leader epochs;
//! * nothing at or above the high watermark is touched, nor anything that changes while the pass runs: a segment that
//!   was cut, dropped or found damaged meanwhile ends the pass;
//! * a batch that a producer is remembered by (its last five) keeps its header: what is derived from the log is the
//!   same before and after.

mod filter;
mod keys;
mod output;
mod pass;
mod plan;
mod worker;

pub(crate) use filter::DECOMPRESSED_MAX;
pub(crate) use filter::{Fate, Filter, Rules};
pub(crate) use keys::KeyMap;
pub use worker::CompactionWorker;

use crate::store::{Shared, Store};
use crate::worker::Waker;
use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use strandline_record::{BatchIter, DecodeLimits, decode_verified_batch};

/// What compaction did since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Passes that came to their end.
    pub passes: u64,
    /// Passes that ended early: because the log changed, was found damaged or could not be written.
    pub abandoned: u64,
    /// Of those, the ones after an error of the disk or for want of space.
    pub errors: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub records_removed: u64,
    pub segments_replaced: u64,
    /// When the last pass came to its end, ms since the Unix epoch.
    pub last_pass_ms: Option<i64>,
}

/// What the worker was asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    now_ms: i64,
    budget_bytes: u64,
    look: bool,
}

/// What the store and its worker share.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    turn: Mutex<Turn>,
    stats: Mutex<CompactionStats>,
    waker: OnceLock<Waker>,
    /// The worker is at something, or has logs to look at.
    busy: AtomicBool,
}

impl Compaction {
    pub fn set_waker(&self, waker: Waker) {
        assert!(self.waker.set(waker).is_ok(), "compaction has one worker");
    }
}

impl Store {
    /// Lets the worker read and write about `budget_bytes` for compaction. With `look` it begins with the logs that are
    /// due when it has ended what it is at. To be called every second or so; a budget that was not used is gone.
    pub fn compact(&self, now_ms: i64, budget_bytes: u64, look: bool) {
        let compaction = &self.shared().compaction;
        {
            let mut turn = compaction.turn.lock();
            *turn = Turn { now_ms, budget_bytes, look: turn.look || look };
            if look {
                compaction.busy.store(true, Ordering::Release);
            }
        }
        if compaction.busy.load(Ordering::Acquire)
            && let Some(waker) = compaction.waker.get()
        {
            waker.wake();
        }
    }

    pub fn compaction_stats(&self) -> CompactionStats {
        *self.shared().compaction.stats.lock()
    }
}

/// Why a producer's batches, which are intact, cannot go into a compacted log: a record without a key could never be superseded.
pub(crate) fn refuse_keyless(batches: &bytes::Bytes) -> Result<(), String> {
    for batch in BatchIter::new(batches) {
        let (_, batch) = batch.map_err(|error| error.to_string())?;
        let limits = DecodeLimits { max_decompressed_bytes: filter::DECOMPRESSED_MAX };
        let decoded =
            decode_verified_batch(batches.slice_ref(batch), limits).map_err(|error| error.to_string())?;
        for (n, record) in decoded.iter().enumerate() {
            if record.map_err(|error| error.to_string())?.key.is_none() {
                return Err(format!(
                    "record {n} has no key, which a topic with cleanup.policy=compact needs"
                ));
            }
        }
    }
    Ok(())
}
