//! A node's storage: the directory, its logs, and what they share.

use crate::cache::CacheBudget;
use crate::checkpoint::{self, CheckpointWorker, Kind, Progress};
use crate::compaction::{Compaction, CompactionWorker};
use crate::config::{FlushMode, LogConfig, StoreConfig};
use crate::disk::{Disk, DiskLock};
use crate::error::{AppendError, BindError, OpenError};
use crate::files::{FileCache, FileKey};
use crate::index::SparseIndex;
use crate::journal::{Journal, JournalFiles, JournalWriter, Op};
use crate::log::{Health, LogRecord, PartitionLog};
use crate::meta::Meta;
use crate::recovery::{self, RecoveryReport};
use crate::segment::log_dir_name;
use crate::worker::{Waker, WorkerHost};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use strandline_record::{BrokerEpoch, Offset, TopicPartition};
use uuid::Uuid;

/// Whether appends are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    Ok,
    /// Less than the reserve is free: read-only until there is space again.
    Full,
}

/// Files that the logs no longer need, to be removed once a checkpoint without them is durable.
#[derive(Debug)]
pub(crate) enum Garbage {
    Segment {
        tp: TopicPartition,
        base: Offset,
        number: u32,
    },
    /// The directory of a deleted log.
    Log {
        tp: TopicPartition,
    },
    /// The directory of a log that goes to the orphans.
    Quarantine {
        tp: TopicPartition,
    },
}

/// The space that is left above the reserve, looked up when it may have been used up.
#[derive(Debug)]
pub(crate) struct Space {
    left: AtomicI64,
    full: AtomicBool,
}

impl Space {
    /// Looked up again after so many bytes at the latest: others use the disk too.
    const LOOKUP_EVERY: i64 = 64 << 20;
    /// And after this share of what is left, so that several nodes on one disk do not eat up the reserve between two looks.
    const SHARE: i64 = 8;

    pub fn found_full(&self) {
        self.left.store(0, Ordering::Relaxed);
        self.full.store(true, Ordering::Relaxed);
    }
}

/// Indexes of closed segments, the most recently used ones within a bound.
#[derive(Debug, Default)]
pub(crate) struct IndexCache {
    indexes: Mutex<Indexes>,
}

#[derive(Debug, Default)]
struct Indexes {
    /// With the time of the last use.
    by_file: BTreeMap<FileKey, (Arc<SparseIndex>, u64)>,
    clock: u64,
}

impl IndexCache {
    const BYTES_MAX: usize = 4 << 20;

    pub fn get(&self, key: FileKey) -> Option<Arc<SparseIndex>> {
        let Indexes { by_file, clock } = &mut *self.indexes.lock();
        *clock += 1;
        let (index, used) = by_file.get_mut(&key)?;
        *used = *clock;
        Some(index.clone())
    }

    pub fn put(&self, key: FileKey, index: Arc<SparseIndex>) {
        let Indexes { by_file, clock } = &mut *self.indexes.lock();
        *clock += 1;
        by_file.insert(key, (index, *clock));
        let mut bytes: usize = by_file.values().map(|(index, _)| index.bytes()).sum();
        while bytes > Self::BYTES_MAX && by_file.len() > 1 {
            let Some(oldest) = by_file.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key) else {
                break;
            };
            bytes -= by_file.remove(&oldest).map_or(0, |(index, _)| index.bytes());
        }
    }

    pub fn forget(&self, key: FileKey) {
        self.indexes.lock().by_file.remove(&key);
    }
}

/// What the background worker was asked for.
#[derive(Debug, Default)]
struct Requested {
    checkpoint: AtomicBool,
    prepare: AtomicBool,
    write_back: AtomicBool,
    intervals: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Requests {
    pub checkpoint: bool,
    pub prepare: bool,
    pub write_back: bool,
    pub intervals: bool,
}

#[derive(Debug, Default)]
struct Logs {
    open: BTreeMap<TopicPartition, Arc<PartitionLog>>,
    /// Above the file numbers of every log that was deleted, whose files may still be there: new logs begin here.
    next_number: u32,
    /// On their way to the orphans.
    quarantining: BTreeSet<TopicPartition>,
    /// Directories that no checkpoint knows.
    unknown: BTreeSet<String>,
}

/// What the logs, the workers and the store share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub root: PathBuf,
    pub config: StoreConfig,
    pub directory_id: Uuid,
    pub incarnation: u32,
    pub journal: Journal,
    pub journal_files: JournalFiles,
    pub files: FileCache,
    pub indexes: IndexCache,
    pub cache: Arc<CacheBudget>,
    pub space: Space,
    pub compaction: Compaction,
    pub meters: crate::meters::Meters,
    pub dedup: Arc<crate::dedup::Budget>,
    /// Held while a checkpoint is taken.
    pub checkpointing: Mutex<Progress>,
    logs: Mutex<Logs>,
    garbage: Mutex<Vec<Garbage>>,
    requested: Requested,
    background: OnceLock<Waker>,
    failed: AtomicBool,
    /// What `write_failed` was told, until the journal's worker has told the host.
    write_failure: Mutex<Option<io::Error>>,
    stopped: AtomicBool,
    lock: Mutex<Option<Box<dyn DiskLock>>>,
}

/// What [`Shared::new`] is made from.
pub(crate) struct Start {
    pub directory_id: Uuid,
    pub incarnation: u32,
    pub journal: Journal,
    pub journal_files: JournalFiles,
    pub checkpoint_sequence: u64,
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>, root: &Path, config: StoreConfig, start: Start) -> Arc<Shared> {
        Arc::new(Shared {
            root: root.to_owned(),
            directory_id: start.directory_id,
            incarnation: start.incarnation,
            journal: start.journal,
            journal_files: start.journal_files,
            files: FileCache::new(config.open_files_max),
            indexes: IndexCache::default(),
            cache: Arc::new(CacheBudget::new(config.tail_cache_bytes)),
            space: Space { left: AtomicI64::new(0), full: AtomicBool::new(false) },
            compaction: Compaction::default(),
            meters: Default::default(),
            checkpointing: Mutex::new(Progress { sequence: start.checkpoint_sequence, first: true }),
            logs: Mutex::default(),
            garbage: Mutex::default(),
            requested: Requested::default(),
            background: OnceLock::new(),
            failed: AtomicBool::new(false),
            write_failure: Mutex::default(),
            stopped: AtomicBool::new(false),
            lock: Mutex::new(None),
            disk,
            dedup: crate::dedup::Budget::new(config.dedup_keys_max),
            config,
        })
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// A sync failed, or something as bad: nothing more is written.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// A log could not be written to, and not for want of space: the process is to end, as after a failed sync. Its
    /// peers take over what it leads; alive with a log that takes nothing, it would go on leading that partition. The
    /// journal's worker tells the host, so that nobody's append waits for it.
    pub fn write_failed(&self, tp: TopicPartition, error: io::Error) {
        tracing::error!(log = %tp, %error, "writing failed");
        self.fail();
        self.write_failure.lock().get_or_insert(error);
        self.journal.wake();
    }

    pub fn take_write_failure(&self) -> Option<io::Error> {
        self.write_failure.lock().take()
    }

    /// Whether `bytes` may be appended now.
    pub fn admit(&self, bytes: usize) -> Result<(), AppendError> {
        if self.is_failed() || self.is_stopped() {
            return Err(AppendError::Failed("the store does not write any more".to_owned()));
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.space.left.fetch_sub(bytes, Ordering::Relaxed) > bytes {
            return Ok(());
        }
        if self.look_up_space() == DiskState::Full { Err(AppendError::StorageFull) } else { Ok(()) }
    }

    pub fn look_up_space(&self) -> DiskState {
        let left = match self.disk.free_bytes(&self.root) {
            Ok(free) => i64::try_from(free.saturating_sub(self.config.reserved_bytes)).unwrap_or(i64::MAX),
            Err(error) => {
                tracing::warn!(%error, "cannot find out how much space is left");
                Space::LOOKUP_EVERY
            }
        };
        self.space.left.store((left / Space::SHARE).min(Space::LOOKUP_EVERY), Ordering::Relaxed);
        let full = left == 0;
        if self.space.full.swap(full, Ordering::Relaxed) != full {
            if full {
                tracing::error!("the disk is full: read-only until there is space");
            } else {
                tracing::info!("there is space again");
            }
        }
        if full { DiskState::Full } else { DiskState::Ok }
    }

    fn wake_background(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        if let Some(waker) = self.background.get() {
            waker.wake();
        }
    }

    pub fn request_checkpoint(&self) {
        self.wake_background(&self.requested.checkpoint);
    }

    pub fn request_prepare(&self) {
        self.wake_background(&self.requested.prepare);
    }

    pub fn request_write_back(&self) {
        self.wake_background(&self.requested.write_back);
    }

    pub fn intervals_changed(&self) {
        self.wake_background(&self.requested.intervals);
    }

    pub fn take_requests(&self) -> Requests {
        let take = |flag: &AtomicBool| flag.swap(false, Ordering::AcqRel);
        Requests {
            checkpoint: take(&self.requested.checkpoint),
            prepare: take(&self.requested.prepare),
            write_back: take(&self.requested.write_back),
            intervals: take(&self.requested.intervals),
        }
    }

    /// What is asked for from now on is not part of the checkpoint that begins.
    pub fn checkpoint_begins(&self) {
        self.requested.checkpoint.store(false, Ordering::Release);
    }

    pub fn discard(&self, garbage: Garbage) {
        self.garbage.lock().push(garbage);
        self.request_checkpoint();
    }

    pub fn take_garbage(&self) -> Vec<Garbage> {
        std::mem::take(&mut *self.garbage.lock())
    }

    pub fn put_back_garbage(&self, mut garbage: Vec<Garbage>) {
        let mut queue = self.garbage.lock();
        garbage.append(&mut queue);
        *queue = garbage;
    }

    pub fn all_logs(&self) -> Vec<Arc<PartitionLog>> {
        self.logs.lock().open.values().cloned().collect()
    }

    pub fn get(&self, tp: TopicPartition) -> Option<Arc<PartitionLog>> {
        self.logs.lock().open.get(&tp).cloned()
    }

    pub fn insert(&self, log: Arc<PartitionLog>) {
        self.logs.lock().open.insert(log.topic_partition(), log);
    }

    pub fn next_number(&self) -> u32 {
        self.logs.lock().next_number
    }

    pub fn raise_number(&self, number: u32) {
        let mut logs = self.logs.lock();
        logs.next_number = logs.next_number.max(number);
    }

    pub fn set_unknown(&self, unknown: BTreeSet<String>) {
        self.logs.lock().unknown = unknown;
    }

    /// Does something with the directory of a log while no such log is or can be opened.
    pub fn if_absent(&self, tp: TopicPartition, then: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut logs = self.logs.lock();
        logs.quarantining.remove(&tp);
        if logs.open.contains_key(&tp) { Ok(()) } else { then() }
    }

    pub fn interval_logs(&self) -> (Vec<Arc<PartitionLog>>, Option<Duration>) {
        let mut shortest = None;
        let logs = self.all_logs().into_iter().filter(|log| match log.lock().config.flush {
            FlushMode::Interval(every) => {
                shortest = Some(shortest.map_or(every, |shortest: Duration| shortest.min(every)));
                true
            }
            _ => false,
        });
        (logs.collect(), shortest)
    }

    /// Ends all writing and lets go of everything.
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        *self.logs.lock() = Logs::default();
        self.journal.abandon();
        self.files.clear();
        self.lock.lock().take();
    }
}

/// A node's storage. Workers of the host that it was opened with write to its files: stop that host (and
/// drop it) before the directory is opened again.
pub struct Store {
    shared: Arc<Shared>,
    meta: Mutex<Meta>,
    clean_epoch: Option<BrokerEpoch>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.shared.root.display())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Store {
    /// Whether nobody has opened a store in this directory yet.
    ///
    /// # Errors
    /// The directory cannot be looked into.
    pub fn is_new(disk: &dyn Disk, root: &Path) -> io::Result<bool> {
        disk.exists(&crate::meta::path(root)).map(|exists| !exists)
    }

    /// Opens the directory, or creates it, and recovers what it holds. `now_ms` is when what the journal
    /// brings back counts as appended.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: StoreConfig,
        host: &dyn WorkerHost,
        now_ms: i64,
    ) -> Result<(Arc<Store>, RecoveryReport), OpenError> {
        let recovery::Opened { shared, meta, clean_epoch, lock, next_group, report } =
            recovery::open(disk, dir, config, now_ms)?;
        *shared.lock.lock() = Some(lock);
        shared.look_up_space();
        let store = Store { shared: shared.clone(), meta: Mutex::new(meta), clean_epoch };
        let journal = host.spawn(Box::new(JournalWriter::new(shared.clone(), next_group)));
        shared.journal.set_waker(journal);
        let background = host.spawn(Box::new(CheckpointWorker::new(shared.clone())));
        assert!(shared.background.set(background).is_ok(), "a store is opened once");
        shared.compaction.set_waker(host.spawn(Box::new(CompactionWorker::new(shared.clone()))));
        Ok((Arc::new(store), report))
    }

    /// The identity of this directory: tells a restarted node from a wiped one.
    pub fn directory_id(&self) -> Uuid {
        self.shared.directory_id
    }

    pub fn cluster_id(&self) -> Option<Uuid> {
        self.meta.lock().cluster
    }

    /// Binds the directory to a cluster, durably, once and for all.
    pub fn bind_cluster(&self, cluster: Uuid) -> Result<(), BindError> {
        let mut meta = self.meta.lock();
        match meta.cluster {
            Some(found) if found == cluster => Ok(()),
            Some(found) => Err(BindError::OtherCluster { found }),
            None => {
                let bound = Meta { cluster: Some(cluster), ..*meta };
                bound.write(&*self.shared.disk, &self.shared.root)?;
                *meta = bound;
                Ok(())
            }
        }
    }

    /// The broker epoch of the run before this one, if it ended with [`Store::close_clean`]. Already cleared
    /// on disk.
    pub fn clean_epoch(&self) -> Option<BrokerEpoch> {
        self.clean_epoch
    }

    /// Syncs everything, writes the last checkpoint and notes that this run ended cleanly. Nothing is appended
    /// from then on. Flush listeners are not called for what was still on its way to the journal.
    pub fn close_clean(&self, broker_epoch: Option<BrokerEpoch>) -> io::Result<()> {
        if self.shared.stopped.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // An append that was let in before is either in its log by now or fails.
        for log in self.shared.all_logs() {
            drop(log.lock());
        }
        let complete = checkpoint::run(&self.shared, Kind::Closing)?;
        if let (true, Some(epoch)) = (complete, broker_epoch) {
            let mut meta = self.meta.lock();
            meta.clean_epoch = Some(epoch);
            meta.write(&*self.shared.disk, &self.shared.root)?;
        }
        self.shared.stop();
        Ok(())
    }

    /// The logs that are open, which are all that the directory holds.
    pub fn logs(&self) -> Vec<TopicPartition> {
        self.shared.logs.lock().open.keys().copied().collect()
    }

    pub fn get(&self, tp: TopicPartition) -> Option<Arc<PartitionLog>> {
        self.shared.get(tp)
    }

    /// The log, with this configuration; created if there is none. Creating costs no file: that comes with the
    /// first batch. A directory of that name which no checkpoint knows is moved to the orphans first.
    pub fn open_log(&self, tp: TopicPartition, config: &LogConfig) -> io::Result<Arc<PartitionLog>> {
        if self.shared.logs.lock().quarantining.contains(&tp) {
            // Its directory must be gone before a new one comes.
            checkpoint::run(&self.shared, Kind::Running)?;
        }
        let mut logs = self.shared.logs.lock();
        if let Some(log) = logs.open.get(&tp).cloned() {
            drop(logs);
            log.set_config(config.clone());
            return Ok(log);
        }
        if self.shared.is_stopped() {
            return Err(io::Error::other("the store is closed"));
        }
        let name = log_dir_name(tp);
        if logs.unknown.remove(&name) {
            checkpoint::quarantine(&self.shared, &name)?;
        }
        let record = LogRecord {
            tp,
            applied_seq: 0,
            start: Offset::ZERO,
            end: Offset::ZERO,
            next_number: logs.next_number.max(1),
            segments: Vec::new(),
            epochs: Default::default(),
            damaged: None,
            journaled: true,
            compacted_to: Offset::ZERO,
        };
        let create = Op::Create { start: record.start, next_number: record.next_number };
        let log = Arc::new(PartitionLog::from_record(self.shared.clone(), record, config.clone()));
        log.lock().applied_seq = self.shared.journal.push(tp, 0, create, None);
        logs.open.insert(tp, log.clone());
        drop(logs);
        self.shared.journal.wake();
        if config.flush != FlushMode::Ack {
            // From the next checkpoint on it does without the journal.
            self.shared.request_checkpoint();
            self.shared.intervals_changed();
        }
        Ok(log)
    }

    fn take_out(&self, tp: TopicPartition, how: impl FnOnce(&mut Logs)) -> bool {
        let mut logs = self.shared.logs.lock();
        let Some(log) = logs.open.remove(&tp) else { return false };
        let mut inner = log.lock();
        inner.health = Health::Deleted;
        inner.cache.clear(&self.shared.cache);
        for segment in &inner.segments {
            self.shared.files.forget(&(tp, segment.number));
            self.shared.indexes.forget((tp, segment.number));
        }
        logs.next_number = logs.next_number.max(inner.numbers_end());
        self.shared.journal.push(tp, inner.applied_seq, Op::Delete, None);
        how(&mut logs);
        let segments: Vec<_> = inner.segments.drain(..).collect();
        drop(inner);
        if !logs.quarantining.contains(&tp) {
            // One by one: the name may be in use again by the time they are removed.
            for segment in segments {
                self.shared.discard(Garbage::Segment { tp, base: segment.base, number: segment.number });
            }
            self.shared.discard(Garbage::Log { tp });
        } else {
            self.shared.discard(Garbage::Quarantine { tp });
        }
        drop(logs);
        self.shared.journal.wake();
        self.shared.intervals_changed();
        true
    }

    /// Deletes a log and its files. `false`: there is none.
    pub fn delete_log(&self, tp: TopicPartition) -> bool {
        self.take_out(tp, |_| {})
    }

    /// Takes a log out and moves its files to `orphaned/` (what metadata does not know is never deleted).
    /// `false`: there is none.
    pub fn quarantine_log(&self, tp: TopicPartition) -> bool {
        self.take_out(tp, |logs| {
            logs.quarantining.insert(tp);
        })
    }

    /// Directories among the logs that no checkpoint knows, by name.
    pub fn unknown_directories(&self) -> Vec<String> {
        self.shared.logs.lock().unknown.iter().cloned().collect()
    }

    /// Moves such a directory to `orphaned/`. `false`: it is none.
    pub fn quarantine_unknown(&self, name: &str) -> io::Result<bool> {
        let mut logs = self.shared.logs.lock();
        if !logs.unknown.remove(name) {
            return Ok(false);
        }
        checkpoint::quarantine(&self.shared, name)?;
        Ok(true)
    }

    /// Whether appends are taken. Looks how much space is free, and what it finds is what appends go by: to be
    /// called every second or so, because others fill the disk, too, and free it.
    pub fn disk_state(&self) -> DiskState {
        self.shared.look_up_space()
    }

    /// Whether a sync or a write failed in a way that ended all writing; the worker's host was told.
    pub fn is_failed(&self) -> bool {
        self.shared.is_failed()
    }

    /// Bytes appended that the journal has not made durable yet: what a node bounds its intake by.
    pub fn journal_pending_bytes(&self) -> usize {
        self.shared.journal.pending_bytes()
    }

    /// Bytes in the tail cache.
    pub fn cached_bytes(&self) -> usize {
        self.shared.cache.used()
    }

    /// Asks for a checkpoint, soon.
    pub fn request_checkpoint(&self) {
        self.shared.request_checkpoint();
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}
