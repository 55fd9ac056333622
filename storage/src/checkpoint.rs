//! Checkpoints: syncing the segments and writing down what they hold, so that the journal before can be used
//! again; and the worker that does this and the other work in the background.
//!
//! ```text
//!  1 note the journal's place, then each log (in its lock): record and files with unsynced bytes
//!  2 sync those files, or the file system if they are many or if not all are known
//!  3 write the checkpoint file, then its copy
//!  4 only now: reuse journal files before the place, remove files that the logs dropped before the note
//! ```
//!
//! File layout (`checkpoint`, `checkpoint.copy`), little-endian: magic "SLCHECK1", CRC-32C of the rest (4), postcard of
//! [`Manifest`], postcard of the logs that were compacted with the offset up to which (absent in a file of before there
//! was compaction). The copy is there because everything rests on this file; the one with the higher sequence
//! is read, the other one is enough.
//!
//! The files with unsynced bytes are known as far as this process wrote them. What a process before it left in the
//! page cache, and what recovery made of it (files cut and taken in, leftovers and wrong indexes removed), is made
//! durable by the first checkpoint of each open, which syncs the whole file system.
//!
//! Invariants: while a checkpoint is the newest durable one, no byte that it lists is changed, no file that it
//! lists is removed, no journal file from its place on is reused.

use crate::ballast;
use crate::disk::Disk;
use crate::journal::Place;
use crate::log::{Inner, LogRecord, PartitionLog, open_segment};
use crate::segment::{LOGS, ORPHANED, Segment, index_name, log_dir, log_dir_name, segment_name};
use crate::store::{Garbage, Shared};
use crate::worker::Worker;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use strandline_record::{Offset, TopicPartition, crc32c};

const FILES: [&str; 2] = ["checkpoint", "checkpoint.copy"];
const MAGIC: &[u8; 8] = b"SLCHECK1";
const BYTES_MAX: u64 = 1 << 30;
/// The active segment's index is written at a checkpoint when it grew by this: so much is scanned at most when
/// the log is used after an unclean stop.
const INDEX_EVERY: u64 = 32 << 20;
/// So much of the active segment stays in the page cache. What is older was read by those that keep up; giving
/// its pages back makes room for new bytes in memory that is warm.
const KEEP_CACHED: u64 = 8 << 20;
/// When the disk was too full for a checkpoint, it is tried again after this.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts checkpoints.
    pub sequence: u64,
    /// Counts opens: journal generations of one are above those of the last.
    pub incarnation: u32,
    pub generation: u64,
    pub first_group: u64,
    pub next_seq: u64,
    /// The store was closed after this: there is nothing in the journal.
    pub clean: bool,
    /// The file number that new logs begin with.
    pub next_number: u32,
    /// Directories of deleted logs, to be removed after this.
    pub removing: Vec<TopicPartition>,
    pub logs: Vec<LogRecord>,
}

impl Manifest {
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let compacted: BTreeMap<TopicPartition, Offset> = self
            .logs
            .iter()
            .filter(|log| log.compacted_to > Offset::ZERO)
            .map(|log| (log.tp, log.compacted_to))
            .collect();
        let body = postcard::to_stdvec(self)
            .and_then(|body| postcard::to_extend(&compacted, body))
            .map_err(io::Error::other)?;
        Ok([MAGIC.as_slice(), &crc32c(&body).to_le_bytes(), &body].concat())
    }

    pub fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        let body = bytes.strip_prefix(MAGIC).ok_or("not a checkpoint of this version")?;
        let (crc, body) = body.split_first_chunk::<4>().ok_or("it is cut")?;
        if crc32c(body) != u32::from_le_bytes(*crc) {
            return Err("the checksum does not match".to_owned());
        }
        let (mut manifest, rest): (Manifest, &[u8]) =
            postcard::take_from_bytes(body).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            let compacted: BTreeMap<TopicPartition, Offset> =
                postcard::from_bytes(rest).map_err(|error| error.to_string())?;
            for log in &mut manifest.logs {
                log.compacted_to = compacted.get(&log.tp).copied().unwrap_or_default();
            }
        }
        match manifest.logs.iter().find(|log| !log.is_sound()) {
            Some(log) => Err(format!("the record of {} contradicts itself", log.tp)),
            None => Ok(manifest),
        }
    }
}

/// What was found of the checkpoint file and its copy.
#[derive(Debug, Default)]
pub struct Found {
    pub newest: Option<Manifest>,
    /// Of those that are there and unreadable: name and why.
    pub unreadable: Vec<(&'static str, String)>,
}

pub fn read(disk: &dyn Disk, root: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for name in FILES {
        let decoded = match disk.read_file(&root.join(name), BYTES_MAX) {
            Ok(bytes) => Manifest::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        match decoded {
            Ok(manifest) => {
                if found.newest.as_ref().is_none_or(|newest| newest.sequence < manifest.sequence) {
                    found.newest = Some(manifest);
                }
            }
            Err(reason) => found.unreadable.push((name, reason)),
        }
    }
    Ok(found)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Running,
    /// The last one: nothing is appended any more.
    Closing,
}

/// One log as it was noted.
struct Noted {
    log: Arc<PartitionLog>,
    end: Offset,
    journaled: bool,
    truncations: u64,
}

struct UnsyncedFile {
    tp: TopicPartition,
    segment: Segment,
    /// Pages that may go once they are written.
    drop: Range<u64>,
}

/// Files whose bytes or names must be made durable.
#[derive(Default)]
struct Unsynced {
    files: Vec<UnsyncedFile>,
    /// Logs with new names in their directories.
    dirs: Vec<TopicPartition>,
    /// And what else there may be.
    all: bool,
}

impl Unsynced {
    /// Takes over what a log has to sync.
    fn take(&mut self, inner: &mut Inner, tp: TopicPartition) {
        let dirty = std::mem::take(&mut inner.dirty);
        for segment in inner.segments.iter().filter(|segment| dirty.contains(&segment.number)) {
            let drop = if segment.closed {
                0..segment.bytes
            } else {
                let from = inner.dropped;
                inner.dropped = from.max(segment.bytes.saturating_sub(KEEP_CACHED));
                from..inner.dropped
            };
            self.files.push(UnsyncedFile { tp, segment: *segment, drop });
        }
        if std::mem::take(&mut inner.new_names) {
            self.dirs.push(tp);
        }
    }
}

/// What one checkpoint leaves to the next.
#[derive(Debug)]
pub struct Progress {
    /// Of the last one.
    pub sequence: u64,
    /// There was none since the store was opened: what lies unsynced from before is not known.
    pub first: bool,
}

/// Takes a checkpoint. `Ok(false)`: the disk is too full; nothing was given up, it is tried again. An error
/// is fatal.
pub fn run(shared: &Arc<Shared>, kind: Kind) -> io::Result<bool> {
    let mut progress = shared.checkpointing.lock();
    if shared.is_failed() {
        return Err(io::Error::other("a sync failed before"));
    }
    let done = run_locked(shared, kind, &mut progress);
    if done.is_err() {
        shared.fail();
    }
    done
}

fn run_locked(shared: &Arc<Shared>, kind: Kind, progress: &mut Progress) -> io::Result<bool> {
    shared.checkpoint_begins();
    let place = shared.journal.place();
    let garbage = shared.take_garbage();
    let mut unsynced = Unsynced { all: progress.first, ..Default::default() };
    let (mut noted, mut records) = (Vec::new(), Vec::new());
    for log in shared.all_logs() {
        note(shared, kind, log, &mut noted, &mut records, &mut unsynced);
    }
    unsynced.all |= garbage.iter().any(|garbage| matches!(garbage, Garbage::Quarantine { .. }));
    sync(shared, &unsynced)?;
    progress.first = false;

    let removing = garbage.iter().filter_map(|garbage| match garbage {
        Garbage::Log { tp } => Some(*tp),
        _ => None,
    });
    let Place { generation, first_group, next_seq } = place;
    let manifest = Manifest {
        sequence: progress.sequence + 1,
        incarnation: shared.incarnation,
        generation,
        first_group,
        next_seq,
        clean: kind == Kind::Closing,
        next_number: shared.next_number(),
        removing: removing.collect(),
        logs: records,
    };
    let bytes = manifest.encode()?;
    for name in FILES {
        let path = shared.root.join(name);
        let mut written = shared.disk.write_file_atomically(&path, &bytes);
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::StorageFull)
            && ballast::give_up(shared)
        {
            written = shared.disk.write_file_atomically(&path, &bytes);
        }
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // A temporary file could not be written; what was durable before still is.
                tracing::warn!(%error, "the disk is too full for a checkpoint");
                shared.space.found_full();
                shared.put_back_garbage(garbage);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        // The next one must have a higher sequence even if only one of the two was written.
        progress.sequence = manifest.sequence;
    }

    shared.journal_files.recycle_before(generation);
    for noted in noted {
        noted.log.checkpointed(noted.end, noted.journaled, noted.truncations);
    }
    for garbage in garbage {
        remove(shared, garbage);
    }
    if kind == Kind::Running {
        ballast::restore(shared);
    }
    Ok(true)
}

fn note(
    shared: &Shared,
    kind: Kind,
    log: Arc<PartitionLog>,
    noted: &mut Vec<Noted>,
    records: &mut Vec<LogRecord>,
    unsynced: &mut Unsynced,
) {
    let tp = log.topic_partition();
    let mut inner = log.lock();
    let grown = inner.active().map_or(0, |active| active.bytes.saturating_sub(inner.indexed));
    if kind == Kind::Closing || grown >= INDEX_EVERY {
        inner.save_index(shared, tp);
    }
    unsynced.take(&mut inner, tp);
    let record = inner.record(tp);
    let (end, journaled, truncations) = (record.end, record.journaled, inner.truncations);
    drop(inner);
    assert!(record.is_sound(), "a log keeps its invariants: {record:?}");
    records.push(record);
    noted.push(Noted { log, end, journaled, truncations });
}

fn sync(shared: &Shared, unsynced: &Unsynced) -> io::Result<()> {
    let Unsynced { files, dirs, all } = unsynced;
    if *all || files.len() + dirs.len() > shared.config.sync_files_max {
        shared.disk.sync_filesystem(&shared.root)?;
    } else {
        for UnsyncedFile { tp, segment, .. } in files {
            open_segment(shared, *tp, segment)?.sync_data()?;
        }
        for tp in dirs {
            shared.disk.sync_dir(&log_dir(&shared.root, *tp))?;
        }
        if !dirs.is_empty() {
            shared.disk.sync_dir(&shared.root.join(LOGS))?;
        }
    }
    for UnsyncedFile { tp, segment, drop } in files.iter().filter(|file| !file.drop.is_empty()) {
        if let Ok(file) = open_segment(shared, *tp, segment) {
            file.advise_dont_need(drop.start, drop.end - drop.start);
        }
    }
    Ok(())
}

/// Makes what some logs appended so far durable (`flush=interval`).
fn sync_logs(shared: &Shared, logs: &[Arc<PartitionLog>]) -> io::Result<()> {
    // Not while a checkpoint might believe that another sync has covered it already.
    let _progress = shared.checkpointing.lock();
    let mut unsynced = Unsynced::default();
    for log in logs {
        unsynced.take(&mut log.lock(), log.topic_partition());
    }
    sync(shared, &unsynced)
}

/// Removes what no durable checkpoint lists. What cannot be removed is found again at the next start.
fn remove(shared: &Shared, garbage: Garbage) {
    let removed = match garbage {
        Garbage::Segment { tp, base, number } => {
            let dir = log_dir(&shared.root, tp);
            let index = shared.disk.remove_file(&dir.join(index_name(base, number)));
            let log = shared.disk.remove_file(&dir.join(segment_name(base, number)));
            ignore_missing(index).and(ignore_missing(log))
        }
        Garbage::Log { tp } => {
            shared.if_absent(tp, || ignore_missing(shared.disk.remove_dir_all(&log_dir(&shared.root, tp))))
        }
        Garbage::Quarantine { tp } => shared.if_absent(tp, || quarantine(shared, &log_dir_name(tp))),
    };
    if let Err(error) = removed {
        tracing::warn!(%error, "cannot remove files of a log");
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Moves a directory from the logs to the orphans.
pub fn quarantine(shared: &Shared, name: &str) -> io::Result<()> {
    let from = shared.root.join(LOGS).join(name);
    if !shared.disk.exists(&from)? {
        return Ok(());
    }
    let orphaned = shared.root.join(ORPHANED);
    shared.disk.create_dir_all(&orphaned)?;
    let mut n = 0u32;
    let to = loop {
        let to = orphaned.join(format!("{name}.{n}"));
        if !shared.disk.exists(&to)? {
            break to;
        }
        n += 1;
    };
    shared.disk.rename(&from, &to)?;
    shared.disk.sync_dir(&orphaned)?;
    shared.disk.sync_dir(&shared.root.join(LOGS))?;
    shared.disk.sync_dir(&shared.root)
}

/// Does what may take long, beside the journal.
#[derive(Debug)]
pub struct CheckpointWorker {
    shared: Arc<Shared>,
    retry: bool,
    /// Logs with `flush=interval`, and the shortest of their intervals.
    intervals: Vec<Arc<PartitionLog>>,
    interval: Option<Duration>,
}

impl CheckpointWorker {
    pub fn new(shared: Arc<Shared>) -> Self {
        CheckpointWorker { shared, retry: false, intervals: Vec::new(), interval: None }
    }

    fn work(&mut self) -> io::Result<()> {
        let requests = self.shared.take_requests();
        if requests.write_back {
            for log in self.shared.all_logs() {
                log.start_write_back();
            }
        }
        if requests.checkpoint || self.retry {
            self.retry = !run(&self.shared, Kind::Running)?;
        }
        if requests.prepare {
            match self.shared.journal_files.prepare_one(&*self.shared.disk) {
                Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(error),
                _ => {}
            }
        }
        if requests.intervals {
            (self.intervals, self.interval) = self.shared.interval_logs();
        }
        sync_logs(&self.shared, &self.intervals)
    }
}

impl Worker for CheckpointWorker {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn run(&mut self) -> io::Result<()> {
        if self.shared.is_stopped() {
            self.intervals.clear();
            self.interval = None;
            return Ok(());
        }
        let done = self.work();
        if done.is_err() {
            self.shared.fail();
        }
        done
    }

    fn period(&self) -> Option<Duration> {
        self.retry.then_some(FULL_RETRY).into_iter().chain(self.interval).min()
    }
}
