//! The journal's worker: takes what is pending, writes it as one group, syncs, tells the logs.

use super::format;
use super::{Pending, Token};
use crate::checkpoint;
use crate::disk::{BlockBuffer, DiskFile};
use crate::log::PartitionLog;
use crate::store::Shared;
use crate::worker::Worker;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use strandline_record::TopicPartition;

/// Payload of one group: more does not make a sync cheaper per byte, and what follows waits for it.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// The buffer of a group that was larger, for one large append, is given back.
const BUFFER_KEPT: u64 = 8 << 20;
/// Traffic after which prepared files are worth having.
const PREPARE_AFTER: u64 = 1 << 20;
/// The segments' dirty pages are pushed out each time so much was journaled, so that no sync of a
/// checkpoint finds a mountain of them.
const WRITE_BACK_EVERY: u64 = 16 << 20;
/// A write that found no space is tried again after this.
const FULL_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Current {
    file: Arc<dyn DiskFile>,
    generation: u64,
    prepared: bool,
    position: u64,
}

#[derive(Debug)]
pub struct JournalWriter {
    shared: Arc<Shared>,
    current: Option<Current>,
    next_group: u64,
    /// Taken, and not written because the disk is full.
    stuck: Vec<Pending>,
    /// For one group.
    buffer: BlockBuffer,
    since_write_back: u64,
}

impl JournalWriter {
    pub fn new(shared: Arc<Shared>, next_group: u64) -> Self {
        JournalWriter {
            shared,
            current: None,
            next_group,
            stuck: Vec::new(),
            buffer: BlockBuffer::default(),
            since_write_back: 0,
        }
    }

    /// Makes sure that the current file has room for `bytes`.
    fn make_room(&mut self, bytes: u64) -> io::Result<&mut Current> {
        let files = &self.shared.journal_files;
        let stay = self.current.as_ref().is_some_and(|current| {
            let full = current.position > 0 && current.position + bytes > files.file_bytes();
            let better = !current.prepared && current.position >= PREPARE_AFTER && files.has_ready();
            !full && !better
        });
        if !stay {
            if files.used() >= files.max() {
                // The checkpoint worker did not keep up: nothing goes on without a file.
                checkpoint::run(&self.shared, checkpoint::Kind::Running).map_err(Fatal::wrap)?;
            }
            let begun = files.begin(&*self.shared.disk)?;
            self.shared.journal.begin_file(begun.generation, self.next_group);
            self.current = Some(Current {
                file: begun.file,
                generation: begun.generation,
                prepared: begun.prepared,
                position: 0,
            });
            if files.used() > 1 {
                self.shared.request_checkpoint();
            }
        }
        Ok(self.current.as_mut().expect("it was just set"))
    }

    fn write(&mut self, group: &[Pending]) -> io::Result<()> {
        let entries = group.iter().map(|pending| &pending.entry);
        let size = format::group_size(entries.clone());
        let number = self.next_group;
        let current = self.make_room(size)?;
        let (file, generation, position) = (current.file.clone(), current.generation, current.position);
        let directory = self.shared.directory_id;
        let bytes = format::encode_group(&mut self.buffer, directory, generation, number, entries);
        assert_eq!(bytes.len() as u64, size, "a group has the size that room was made for");
        file.write_all_at(&[IoSlice::new(bytes)], position)?;
        file.sync_data().map_err(Fatal::wrap)?;
        if size > BUFFER_KEPT {
            self.buffer = BlockBuffer::default();
        }
        self.next_group += 1;
        let current = self.current.as_mut().expect("it was written to");
        current.position += size;
        if !current.prepared && current.position >= PREPARE_AFTER && !self.shared.journal_files.has_ready() {
            self.shared.request_prepare();
        }
        self.since_write_back += size;
        if self.since_write_back >= WRITE_BACK_EVERY {
            self.since_write_back = 0;
            self.shared.request_write_back();
        }
        Ok(())
    }

    fn notify(group: Vec<Pending>) {
        // Only the newest token of each log: the earlier ones say less.
        let mut newest: BTreeMap<TopicPartition, (Arc<PartitionLog>, Token)> = BTreeMap::new();
        for pending in group {
            if let Some((log, token)) = pending.notify {
                newest.insert(pending.entry.tp, (log, token));
            }
        }
        for (log, token) in newest.into_values() {
            log.journal_flushed(token);
        }
    }
}

impl Worker for JournalWriter {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn run(&mut self) -> io::Result<()> {
        if let Some(error) = self.shared.take_write_failure() {
            return Err(error);
        }
        while !self.shared.is_stopped() {
            let group = match std::mem::take(&mut self.stuck) {
                stuck if stuck.is_empty() => self.shared.journal.take(GROUP_BYTES_MAX, format::ENTRIES_MAX),
                stuck => stuck,
            };
            if group.is_empty() {
                break;
            }
            let began = self.shared.disk.clock();
            match self.write(&group) {
                Ok(()) => {
                    self.shared.meters.flushed(&group, self.shared.disk.clock().saturating_sub(began));
                    self.shared.journal.done(&group);
                    Self::notify(group);
                }
                // Nothing was synced: the same bytes may be written to the same place again.
                Err(error) if error.kind() == io::ErrorKind::StorageFull && !Fatal::is(&error) => {
                    self.shared.space.found_full();
                    self.stuck = group;
                    break;
                }
                Err(error) => {
                    self.shared.fail();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn period(&self) -> Option<Duration> {
        (!self.stuck.is_empty()).then_some(FULL_RETRY)
    }
}

/// Marks an error of a sync, which no kind of it makes worth a retry.
#[derive(Debug)]
pub struct Fatal(io::Error);

impl Fatal {
    pub fn wrap(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), Fatal(error))
    }

    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Fatal>())
    }
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sync failed, what is durable is unknown: {}", self.0)
    }
}

impl std::error::Error for Fatal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
