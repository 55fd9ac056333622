//! Opening a directory: whose it is, what the last checkpoint says, and what the journal adds to that.
//!
//! ```text
//!  meta, checkpoint ──► for each log: drop what its files have beyond the checkpoint
//!                                      (not journaled: take it in as far as it is intact)
//!        journal ──────► replay the entries behind the checkpoint, group by group
//!                        torn last group: cut · group or payload unreadable before the last: damage
//!                 ─────► new checkpoint, new journal generation
//! ```
//!
//! The new checkpoint syncs the whole file system, which may take seconds. The store is open before, and goes on as
//! it does between any two checkpoints: what it replayed stays in the journal, is durable there, and is replayed again
//! with what is appended if it dies before. The checkpoint comes first only where the journal is not all that the logs
//! rest on: after a clean stop (the next start would not read the journal), where batches were taken in that are not
//! in the journal, and where damage was found (it is not to be judged again after a repair).
//!
//! Until the new checkpoint is durable nothing that the old one or the journal holds is changed: a crash during
//! recovery finds the same again. All that recovery does to the files, and whatever the process before it left
//! unsynced, is durable before the new checkpoint is: what was dropped once must not come back. A segment that is
//! written anew under the number of a lost one would else meet the old one's index.
//!
//! Which logs an unreadable group has hit is told by the chain that each log's entries form: a log whose next
//! entry names the one that was applied last was not in the group. All others are marked as damaged from
//! where they end; without a readable table that is every log that has no later entry.

mod files;
mod replay;

use crate::checkpoint::{self, Kind, Manifest};
use crate::config::StoreConfig;
use crate::disk::{Disk, DiskLock};
use crate::error::OpenError;
use crate::journal::reader::{self, JournalScan};
use crate::journal::{JOURNAL, Journal, JournalFiles, Place};
use crate::meta::{self, Meta};
use crate::segment::LOGS;
use crate::store::{Shared, Start};
use replay::Replayed;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_record::{BrokerEpoch, Offset, TopicPartition};

const LOCK: &str = "lock";
/// Journal generations of one open are counted in the low half.
const INCARNATION_SHIFT: u32 = 32;

/// A log that is damaged, by now or since earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedLog {
    pub tp: TopicPartition,
    pub from: Offset,
}

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The directory was new.
    pub created: bool,
    /// The last run ended with `close_clean`.
    pub clean: bool,
    /// Entries of the journal that were applied.
    pub replayed: u64,
    /// The journal ended in a group that was not written whole; nothing in it was acknowledged.
    pub torn_tail: bool,
    /// Groups of the journal that were once durable and could not be read.
    pub damaged_groups: u64,
    /// Checkpoint files that were unreadable (the other one served).
    pub damaged_checkpoints: u64,
    pub damaged: Vec<DamagedLog>,
    /// Directories among the logs that no checkpoint knows.
    pub unknown: Vec<String>,
}

/// An opened directory.
pub(crate) struct Opened {
    pub shared: Arc<Shared>,
    pub meta: Meta,
    pub clean_epoch: Option<BrokerEpoch>,
    pub lock: Box<dyn DiskLock>,
    pub next_group: u64,
    pub report: RecoveryReport,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::Permission { path: path.clone(), source }
        }
        _ => OpenError::Io { path: path.clone(), source },
    }
}

/// The meta file, and the newest checkpoint if the directory was ever used.
struct Identity {
    meta: Option<Meta>,
    manifest: Option<Manifest>,
    damaged_checkpoints: u64,
}

/// Creates the directory and makes every name on the way to it durable.
fn create_root(disk: &dyn Disk, root: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for dir in root.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        if disk.exists(dir)? {
            break;
        }
        missing.push(dir);
    }
    disk.create_dir_all(root)?;
    for dir in missing {
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => disk.sync_dir(parent)?,
            _ => disk.sync_dir(Path::new("."))?,
        }
    }
    Ok(())
}

fn dir_is_empty(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.read_dir(path) {
        Ok(entries) => Ok(entries.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn identify(disk: &dyn Disk, root: &Path, config: &StoreConfig) -> Result<Identity, OpenError> {
    let unreadable = |path: PathBuf, reason: &str| OpenError::Unreadable { path, reason: reason.to_owned() };
    let meta = Meta::read(disk, root).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => unreadable(meta::path(root), &error.to_string()),
        _ => failed(&meta::path(root))(error),
    })?;
    if let Some(meta) = &meta {
        if meta.node != config.node_id {
            let (found, expected) = (meta.node, config.node_id);
            return Err(OpenError::OtherNode { path: root.to_owned(), found, expected });
        }
        if let (Some(found), Some(expected)) = (meta.cluster, config.cluster_id)
            && found != expected
        {
            return Err(OpenError::OtherCluster { path: root.to_owned(), found, expected });
        }
    }
    let found = checkpoint::read(disk, root).map_err(failed(root))?;
    let damaged_checkpoints = found.unreadable.len() as u64;
    for (name, reason) in &found.unreadable {
        tracing::error!(name, reason, "a checkpoint file is unreadable");
    }
    if meta.is_none() || found.newest.is_none() {
        // Good for a new directory, or one whose creation was interrupted: then it holds nothing.
        let empty = || Ok(dir_is_empty(disk, &root.join(LOGS))? && dir_is_empty(disk, &root.join(JOURNAL))?);
        let unused = found.newest.is_none() && found.unreadable.is_empty();
        if !unused || !empty().map_err(failed(root))? {
            return Err(match (meta.is_none(), found.unreadable.first()) {
                (true, _) => unreadable(meta::path(root), "it is missing, and the directory is in use"),
                (false, Some((name, reason))) => unreadable(root.join(name), reason),
                (false, None) => {
                    unreadable(root.join("checkpoint"), "it is missing, and the directory is in use")
                }
            });
        }
    }
    Ok(Identity { meta, manifest: found.newest, damaged_checkpoints })
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    root: &Path,
    config: StoreConfig,
    now_ms: i64,
) -> Result<Opened, OpenError> {
    create_root(&*disk, root).map_err(failed(root))?;
    let lock = disk.lock(&root.join(LOCK)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path: root.to_owned() },
        _ => failed(&root.join(LOCK))(error),
    })?;
    let Identity { meta, manifest, damaged_checkpoints } = identify(&*disk, root, &config)?;
    let created = meta.is_none();
    let found = meta.unwrap_or(Meta {
        directory: config.new_directory_id,
        node: config.node_id,
        cluster: config.cluster_id,
        clean_epoch: None,
    });
    let clean_epoch = found.clean_epoch;
    let meta = Meta { clean_epoch: None, cluster: found.cluster.or(config.cluster_id), ..found };
    if created || meta != found {
        meta.write(&*disk, root).map_err(failed(&meta::path(root)))?;
    }
    if manifest.is_none() {
        for dir in [LOGS, JOURNAL] {
            disk.create_dir_all(&root.join(dir)).map_err(failed(root))?;
        }
        disk.sync_dir(root).map_err(failed(root))?;
    }
    let manifest = manifest.unwrap_or(Manifest {
        sequence: 0,
        incarnation: 0,
        generation: 0,
        first_group: 1,
        next_seq: 1,
        clean: true,
        next_number: 1,
        removing: Vec::new(),
        logs: Vec::new(),
    });

    let scan = if manifest.clean {
        reader::list(&*disk, root).map(JournalScan::of_clean)
    } else {
        reader::scan(&*disk, root, meta.directory, manifest.generation)
    };
    let scan = scan.map_err(failed(&root.join(JOURNAL)))?;
    let groups = scan.range(manifest.first_group);
    // A process that did not come to its first checkpoint has left the counter in its journal files only.
    let found = scan.generation().map_or(0, |generation| (generation >> INCARNATION_SHIFT) as u32);
    let Some(incarnation) = manifest.incarnation.max(found).checked_add(1) else {
        return Err(OpenError::Unreadable {
            path: root.join(JOURNAL),
            reason: "its counter is used up".to_owned(),
        });
    };
    let generation = u64::from(incarnation) << INCARNATION_SHIFT;
    let journal_files =
        JournalFiles::new(root, config.journal_file_bytes, config.journal_files_max, generation, &scan.files);
    let journal = Journal::new(Place { generation, first_group: groups.end, next_seq: manifest.next_seq });
    let start = Start {
        directory_id: meta.directory,
        incarnation,
        journal,
        journal_files,
        checkpoint_sequence: manifest.sequence,
    };
    let shared = Shared::new(disk, root, config, start);

    let clean = manifest.clean;
    let Replayed { mut report, unjournaled } =
        replay::run(&shared, manifest, &scan, groups, now_ms).map_err(failed(root))?;
    report.created = created;
    report.clean &= !created;
    report.damaged_checkpoints = damaged_checkpoints;
    let damage = damaged_checkpoints > 0 || report.damaged_groups > 0 || !report.damaged.is_empty();
    if clean || unjournaled || damage {
        if !checkpoint::run(&shared, Kind::Running).map_err(failed(root))? {
            let source = io::Error::new(io::ErrorKind::StorageFull, "no space for a checkpoint");
            return Err(OpenError::Io { path: root.to_owned(), source });
        }
    } else {
        // A process that was killed may have left in the page cache only what was read here: the last groups, and the
        // name of the checkpoint.
        scan.sync(&*shared.disk, root).map_err(failed(&root.join(JOURNAL)))?;
        shared.disk.sync_dir(root).map_err(failed(root))?;
        shared.request_checkpoint();
    }
    let next_group = shared.journal.place().first_group;
    Ok(Opened { shared, meta, clean_epoch, lock, next_group, report })
}
