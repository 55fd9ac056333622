//! The one writer of the log. Everything that must be written queues up; the worker takes all of it, writes it
//! as one frame, syncs once, and completes all that waited: group commit.
//!
//! Nothing is written after a failed write or sync: the host ends the process, and until then every operation
//! answers the error.

use super::frame::{self, Record, SegmentHeader};
use super::recovery::{Segment, segment_path};
use super::state::{Location, LogState};
use crate::types::{LogId, TypeConfig};
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_storage::disk::{Disk, OpenMode};
use strandline_storage::worker::Worker;
use tokio::sync::oneshot;

pub struct Op {
    /// With its header; empty if only the callback matters.
    pub record: Vec<u8>,
    /// Index and serial, if the record is an entry.
    pub entry: Option<(u64, u64)>,
    /// Once the record is durable, segments may be removed up to here.
    pub purge: Option<LogId>,
    pub done: Option<Done>,
}

pub enum Done {
    Append(IOFlushed<TypeConfig>),
    Waiter(oneshot::Sender<io::Result<()>>),
}

impl Done {
    fn complete(self, result: io::Result<()>) {
        match self {
            Done::Append(callback) => callback.io_completed(result),
            // Who waited may have given up.
            Done::Waiter(waiter) => drop(waiter.send(result)),
        }
    }
}

#[derive(Default)]
pub struct Shared {
    pub state: LogState,
    pub queue: VecDeque<Op>,
    /// `committed` has moved since it was last written.
    pub committed_dirty: bool,
    pub failed: Option<String>,
}

pub struct LogWorker {
    pub shared: Arc<Mutex<Shared>>,
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    /// Oldest first; the last one is written to.
    pub segments: Vec<Segment>,
    pub next_lsn: u64,
    pub salt: u64,
    pub limits: Limits,
    /// The active segment is rolled when it is this long.
    pub roll_at: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub segment_bytes: u64,
    pub cache_bytes: usize,
    pub frame_bytes: usize,
}

impl Worker for LogWorker {
    fn name(&self) -> &'static str {
        "raft-log"
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let ops = self.take();
            if ops.is_empty() {
                return Ok(());
            }
            let result = self.write(&ops).and_then(|locations| {
                self.remove_purged(ops.iter().filter_map(|op| op.purge).max())?;
                Ok(locations)
            });
            match result {
                Ok(locations) => {
                    let mut shared = self.shared.lock();
                    for (op, location) in ops.iter().zip(locations) {
                        if let Some((index, serial)) = op.entry {
                            shared.state.flushed(index, serial, location);
                        }
                    }
                    shared.state.evict(self.limits.cache_bytes);
                    drop(shared);
                    ops.into_iter().filter_map(|op| op.done).for_each(|done| done.complete(Ok(())));
                }
                Err(error) => {
                    let left = {
                        let mut shared = self.shared.lock();
                        shared.failed = Some(error.to_string());
                        std::mem::take(&mut shared.queue)
                    };
                    let again = || io::Error::new(error.kind(), error.to_string());
                    let all = ops.into_iter().chain(left);
                    all.filter_map(|op| op.done).for_each(|done| done.complete(Err(again())));
                    return Err(error);
                }
            }
        }
    }

    fn stop(&mut self) {
        let committed = {
            let mut shared = self.shared.lock();
            if !shared.committed_dirty || shared.failed.is_some() {
                return;
            }
            shared.committed_dirty = false;
            shared.state.committed
        };
        let record = frame::encode_record(&Record::Committed(committed));
        if let Err(error) = self.write(&[Op { record, entry: None, purge: None, done: None }]) {
            tracing::warn!(%error, "raft log: the committed mark was not saved (it is only a hint)");
        }
    }
}

impl LogWorker {
    /// What is pending, at most one frame of it, with the committed mark riding along.
    fn take(&mut self) -> Vec<Op> {
        let mut shared = self.shared.lock();
        let mut ops = Vec::new();
        let mut bytes = 0;
        while let Some(op) = shared.queue.front() {
            if !ops.is_empty() && bytes + op.record.len() > self.limits.frame_bytes {
                break;
            }
            bytes += op.record.len();
            ops.extend(shared.queue.pop_front());
        }
        if bytes > 0 && shared.committed_dirty {
            shared.committed_dirty = false;
            let record = frame::encode_record(&Record::Committed(shared.state.committed));
            ops.push(Op { record, entry: None, purge: None, done: None });
        }
        ops
    }

    /// Writes one frame and makes it durable; where each record lies.
    fn write(&mut self, ops: &[Op]) -> io::Result<Vec<Location>> {
        let payload: Vec<&[u8]> = ops.iter().map(|op| op.record.as_slice()).collect();
        let bytes: usize = payload.iter().map(|p| p.len()).sum();
        if self.segments.is_empty() || self.active().len + bytes as u64 > self.roll_at {
            self.roll()?;
        }
        let segment = self.segments.last_mut().expect("roll() made one");
        let mut locations = Vec::with_capacity(ops.len());
        let mut position = segment.len + frame::FRAME_HEADER_BYTES as u64;
        for op in ops {
            let bytes = op.record.len() as u32;
            locations.push(Location { file: segment.file.clone(), position, bytes });
            position += u64::from(bytes);
            segment.max_index = segment.max_index.max(op.entry.map(|(index, _)| index));
        }
        if bytes > 0 {
            let header = frame::encode_frame_header(segment.header.salt, self.next_lsn, &payload);
            let mut bufs = vec![io::IoSlice::new(&header)];
            bufs.extend(payload.iter().filter(|p| !p.is_empty()).map(|p| io::IoSlice::new(p)));
            segment.file.write_all_at(&bufs, segment.len)?;
            segment.file.sync_data()?;
            segment.len = position;
            self.next_lsn += 1;
        }
        Ok(locations)
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("checked by the caller")
    }

    /// Begins a new segment. On a full disk the present one is used on, as long as it goes.
    fn roll(&mut self) -> io::Result<()> {
        let number = self.segments.last().map_or(0, |s| s.header.number + 1);
        let path = segment_path(&self.dir, number);
        match self.create_segment(number, path.clone()) {
            Ok(segment) => {
                self.roll_at = self.limits.segment_bytes;
                self.segments.push(segment);
                self.next_lsn += 1;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull && !self.segments.is_empty() => {
                tracing::warn!(%error, "raft log: no space for a new segment; going on in the present one");
                if self.disk.exists(&path)? {
                    self.disk.remove_file(&path)?;
                    self.disk.sync_dir(&self.dir)?;
                }
                self.roll_at = self.active().len + self.limits.segment_bytes / 4;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn create_segment(&mut self, number: u64, path: PathBuf) -> io::Result<Segment> {
        let file = self.disk.open(&path, OpenMode::CreateNew)?;
        file.allocate(self.limits.segment_bytes)?;
        let header = SegmentHeader { number, salt: self.salt ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15) };
        let checkpoint = {
            let shared = self.shared.lock();
            let LogState { vote, purged, committed, .. } = &shared.state;
            frame::encode_record(&Record::Checkpoint { vote: *vote, purged: *purged, committed: *committed })
        };
        let header_bytes = header.encode();
        let frame_header = frame::encode_frame_header(header.salt, self.next_lsn, &[&checkpoint]);
        let mut block = [&header_bytes[..], &frame_header[..], &checkpoint[..]].concat();
        assert!(block.len() <= frame::FIRST_BLOCK_BYTES, "a checkpoint of {} bytes", checkpoint.len());
        block.resize(frame::FIRST_BLOCK_BYTES, 0);
        file.write_all_at(&[io::IoSlice::new(&block)], 0)?;
        file.sync_data()?;
        self.disk.sync_dir(&self.dir)?;
        Ok(Segment { header, path, file, len: block.len() as u64, max_index: None })
    }

    /// Removes segments, oldest first and each durably before the next (no gap may ever appear), of which every
    /// entry is purged. The active one stays.
    fn remove_purged(&mut self, purged: Option<LogId>) -> io::Result<()> {
        let Some(purged) = purged else { return Ok(()) };
        while self.segments.len() > 1 && self.segments[0].max_index.is_none_or(|max| max <= purged.index) {
            let segment = self.segments.remove(0);
            self.disk.remove_file(&segment.path)?;
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }
}
