//! One journal for all logs of a node: what makes appended batches durable (group commit).
//!
//! ```text
//!   logs ──push (in the log's lock)──► pending ──┐ the worker takes all there is, up to a bound
//!                                                ▼
//!      flushed ends move ◄── one fdatasync ◄── one write ── current file ──full──► next file
//!                                                                                   │
//!      prewritten, free files ◄── checkpoint: everything before is in the segments ─┘
//! ```
//!
//! Invariants:
//! * a log pushes in its own lock, after its segment has the bytes: entries of a log are in its order, and
//!   whatever has a sequence number is in the page cache of a segment;
//! * a group is written after the one before it is durable: a readable group proves that every earlier one
//!   was once on disk whole;
//! * a file is used again only after a checkpoint that covers all of it is durable.

mod files;
pub mod format;
pub mod reader;
mod writer;

use crate::log::PartitionLog;
use crate::worker::Waker;
pub use files::{JOURNAL, JournalFiles};
pub use format::{Entry, Op};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use strandline_record::{LeaderEpoch, Offset, TopicPartition};
pub use writer::JournalWriter;

/// What a log gets back once an entry of it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub end: Offset,
    /// Epoch of the last batch below `end`; -1 when there is none.
    pub leader_epoch: LeaderEpoch,
    /// The log's count of truncations when the entry was made.
    pub truncations: u64,
}

#[derive(Debug)]
pub struct Pending {
    pub entry: Entry,
    pub notify: Option<(Arc<PartitionLog>, Token)>,
}

/// Where replay would have to begin if a checkpoint were taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file in use.
    pub generation: u64,
    /// The first group in it.
    pub first_group: u64,
    /// Every entry below is in the segments.
    pub next_seq: u64,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Pending>,
    /// Payload bytes of what is queued or being written.
    bytes: usize,
    place: Place,
}

#[derive(Debug)]
pub struct Journal {
    state: Mutex<State>,
    waker: OnceLock<Waker>,
}

impl Journal {
    pub fn new(place: Place) -> Self {
        Journal {
            state: Mutex::new(State { queue: VecDeque::new(), bytes: 0, place }),
            waker: OnceLock::new(),
        }
    }

    pub fn set_waker(&self, waker: Waker) {
        assert!(self.waker.set(waker).is_ok(), "the journal has one worker");
    }

    /// Queues an entry and returns its sequence number. The caller holds the log's lock, and wakes the
    /// worker after releasing it.
    pub fn push(
        &self,
        tp: TopicPartition,
        prev: u64,
        op: Op,
        notify: Option<(Arc<PartitionLog>, Token)>,
    ) -> u64 {
        let mut state = self.state.lock();
        let seq = state.place.next_seq;
        state.place.next_seq += 1;
        state.bytes += cost(&op);
        state.queue.push_back(Pending { entry: Entry { seq, prev, tp, op }, notify });
        seq
    }

    /// Where the entries end that were found at a start.
    pub fn go_on_at(&self, first_group: u64, next_seq: u64) {
        let mut state = self.state.lock();
        state.place.first_group = first_group;
        state.place.next_seq = state.place.next_seq.max(next_seq);
    }

    pub fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub fn pending_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub fn place(&self) -> Place {
        self.state.lock().place
    }

    /// Takes what is queued, at least one entry if there is one.
    fn take(&self, bytes_max: usize, entries_max: usize) -> Vec<Pending> {
        let mut state = self.state.lock();
        let (mut bytes, mut count) = (0, 0);
        for pending in state.queue.iter().take(entries_max) {
            bytes += cost(&pending.entry.op);
            if count > 0 && bytes > bytes_max {
                break;
            }
            count += 1;
        }
        if count == state.queue.len() {
            // All of it: no copying, and a queue that a burst made large is given back.
            return std::mem::take(&mut state.queue).into();
        }
        state.queue.drain(..count).collect()
    }

    /// What `take` gave is durable.
    fn done(&self, group: &[Pending]) {
        let bytes: usize = group.iter().map(|pending| cost(&pending.entry.op)).sum();
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Forgets what is queued: the store is gone.
    pub fn abandon(&self) {
        let queue = std::mem::take(&mut self.state.lock().queue);
        drop(queue);
    }

    fn begin_file(&self, generation: u64, first_group: u64) {
        let mut state = self.state.lock();
        state.place.generation = generation;
        state.place.first_group = first_group;
    }
}

/// Bytes that an entry takes, as the bounds count them.
pub fn cost(op: &Op) -> usize {
    match op {
        Op::Append { bytes, .. } => bytes.len() + format::ENTRY_BYTES,
        _ => format::ENTRY_BYTES,
    }
}
