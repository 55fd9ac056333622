//! The Raft log and vote, on `storage::disk`.
//!
//! ```text
//!   openraft ── append, vote, truncate, purge ──► queue ──► worker: one frame, one fdatasync ──► callbacks
//!       ▲                                           │
//!       └── entries ◄── memory (recent) or disk ◄───┘
//! ```
//! `frame` has the bytes, `recovery` opens, `state` is what is known in memory, `worker` writes.
//!
//! Invariants: what was appended can be read at once and is durable when its callback says so; a vote is durable
//! when `save_vote` returns; operations reach the disk in the order in which they were asked; a torn tail is
//! cut when the log is opened, damage never is.

mod frame;
mod recovery;
mod state;
mod worker;

pub use frame::crc32c;
pub use recovery::LogError;

use crate::types::{Entry, LogId, TypeConfig, Vote};
use frame::Record;
use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use strandline_storage::disk::Disk;
use strandline_storage::worker::{Waker, WorkerHost};
use tokio::sync::oneshot;
use worker::{Done, Limits, LogWorker, Op, Shared};

/// Entries that one read for replication or applying returns at most, in bytes (and one entry at least).
pub const READ_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A segment is closed when it is about this long.
    pub segment_bytes: u64,
    /// Entries kept in memory besides those not flushed yet.
    pub cache_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { segment_bytes: 4 << 20, cache_bytes: 1 << 20 }
    }
}

/// Handle to the open log; clones share it.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Mutex<Shared>>,
    waker: Waker,
}

impl Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogStore({:?})", self.shared.lock().state.range())
    }
}

impl LogStore {
    /// Opens or creates the log in `dir` and hands its writer to `host`. Blocks for the length of one read of
    /// the log. `salt` tells this log's new segments from any other bytes; it need not be the same at each start.
    pub fn open(
        disk: Arc<dyn Disk>,
        host: &dyn WorkerHost,
        dir: &Path,
        config: &LogConfig,
        salt: u64,
    ) -> Result<Self, LogError> {
        let recovered = recovery::open(&*disk, dir)?;
        let shared = Shared { state: recovered.state, ..Shared::default() };
        let shared = Arc::new(Mutex::new(shared));
        let worker = LogWorker {
            shared: shared.clone(),
            disk,
            dir: dir.to_owned(),
            segments: recovered.segments,
            next_lsn: recovered.next_lsn,
            salt,
            limits: Limits {
                segment_bytes: config.segment_bytes,
                cache_bytes: config.cache_bytes,
                frame_bytes: 8 << 20,
            },
            roll_at: config.segment_bytes,
        };
        Ok(LogStore { shared, waker: host.spawn(Box::new(worker)) })
    }

    /// Whether nothing was ever written: neither a vote nor an entry.
    pub fn is_blank(&self) -> bool {
        let shared = self.shared.lock();
        shared.state.vote.is_none() && shared.state.last_log_id().is_none()
    }

    /// Bytes of the entries that are not purged.
    pub fn live_bytes(&self) -> u64 {
        self.shared.lock().state.live_bytes()
    }

    fn enqueue(&self, change: impl FnOnce(&mut Shared) -> io::Result<()>) -> io::Result<()> {
        {
            let mut shared = self.shared.lock();
            if let Some(failed) = &shared.failed {
                return Err(io::Error::other(format!("the raft log failed before: {failed}")));
            }
            change(&mut shared)?;
        }
        self.waker.wake();
        Ok(())
    }

    /// Queues one record and waits until it is durable.
    async fn write_durably(
        &self,
        record: Record,
        purge: Option<LogId>,
        change: impl FnOnce(&mut Shared),
    ) -> io::Result<()> {
        let (waiter, done) = oneshot::channel();
        let record = frame::encode_record(&record);
        self.enqueue(|shared| {
            change(shared);
            let done = Some(Done::Waiter(waiter));
            shared.queue.push_back(Op { record, entry: None, purge, done });
            Ok(())
        })?;
        done.await.map_err(|_| io::Error::other("the raft log's writer has stopped"))?
    }

    /// Entries of `start..end` as far as the log has them, at most `max_bytes` but at least one; one state of the
    /// log, whatever happens to it meanwhile.
    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        enum Found {
            InMemory(Entry),
            OnDisk(LogId, state::Location),
        }
        let mut found = Vec::new();
        {
            let shared = self.shared.lock();
            let Some((first, last)) = shared.state.range() else { return Ok(Vec::new()) };
            let mut bytes = 0;
            for index in start.max(first)..end.min(last + 1) {
                let slot = shared.state.slot(index).expect("entries are contiguous");
                bytes += slot.bytes as usize;
                if !found.is_empty() && bytes > max_bytes {
                    break;
                }
                found.push(match &slot.cached {
                    Some(entry) => Found::InMemory((**entry).clone()),
                    None => {
                        let location = slot.location.clone().expect("what is not in memory is on disk");
                        Found::OnDisk(slot.log_id, location)
                    }
                });
            }
        }
        let load = |found| match found {
            Found::InMemory(entry) => Ok(entry),
            Found::OnDisk(log_id, location) => read_entry(log_id, &location),
        };
        found.into_iter().map(load).collect()
    }
}

fn read_entry(log_id: LogId, location: &state::Location) -> io::Result<Entry> {
    let mut bytes = vec![0; location.bytes as usize];
    location.file.read_exact_at(&mut bytes, location.position)?;
    match frame::decode_record(&bytes)? {
        (Record::Entry(entry), _) if entry.log_id == log_id => Ok(entry),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("raft log: entry {log_id} does not lie at byte {}", location.position),
        )),
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at + 1,
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.lock().state.vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES)
    }

    /// Reads on as the stream is consumed, so that applying a long log needs little memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let state = (self.clone(), start, Vec::new().into_iter());
        futures::stream::unfold(
            state,
            move |(log, next, mut chunk): (LogStore, u64, std::vec::IntoIter<Entry>)| {
                let item = match chunk.next() {
                    Some(entry) => Some(Ok(entry)),
                    None if next >= end => None,
                    None => match log.read(next, end, READ_BYTES) {
                        Ok(entries) => {
                            chunk = entries.into_iter();
                            chunk.next().map(Ok)
                        }
                        Err(error) => Some(Err(error)),
                    },
                };
                let next = match &item {
                    Some(Ok(entry)) => entry.log_id.index + 1,
                    _ => u64::MAX,
                };
                std::future::ready(item.map(|item| (item, (log, next, chunk))))
            },
        )
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let shared = self.shared.lock();
        Ok(LogState { last_purged_log_id: shared.state.purged, last_log_id: shared.state.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.write_durably(Record::Vote(vote), None, |shared| shared.state.vote = Some(vote)).await
    }

    /// Only a hint that shortens the next start: it rides along with the next frame.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.state.committed = committed;
        shared.committed_dirty = true;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.lock().state.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<(Entry, Vec<u8>)> = entries
            .into_iter()
            .map(|entry| {
                let record = Record::Entry(entry);
                let bytes = frame::encode_record(&record);
                let Record::Entry(entry) = record else { unreachable!("made above") };
                (entry, bytes)
            })
            .collect();
        self.enqueue(|shared| {
            for (entry, record) in entries {
                let index = entry.log_id.index;
                let serial = shared.state.push(entry, record.len()).map_err(io::Error::other)?;
                shared.queue.push_back(Op { record, entry: Some((index, serial)), purge: None, done: None });
            }
            let done = Some(Done::Append(callback));
            shared.queue.push_back(Op { record: Vec::new(), entry: None, purge: None, done });
            Ok(())
        })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let change = |shared: &mut Shared| shared.state.truncate_after(last);
        self.write_durably(Record::TruncateAfter(last), None, change).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let change = |shared: &mut Shared| shared.state.purge(upto);
        self.write_durably(Record::Purge(upto), Some(upto), change).await
    }
}

#[cfg(test)]
mod tests;
