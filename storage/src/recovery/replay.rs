//! From the checkpoint and the journal to the logs.

use super::{DamagedLog, RecoveryReport};
use crate::checkpoint::Manifest;
use crate::config::LogConfig;
use crate::index;
use crate::journal::reader::{JournalScan, ReadEntry};
use crate::journal::{Entry, Op};
use crate::log::{LogRecord, PartitionLog, Trouble};
use crate::segment::{
    COMPACTED, LOGS, index_name, log_dir, log_dir_name, parse_log_dir, parse_segment_name, segment_name,
};
use crate::store::{Garbage, Shared};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use strandline_record::{Offset, TopicPartition};

/// What lies in one log's directory.
#[derive(Default)]
pub(super) struct Files {
    /// Number → base offset and length.
    pub(super) segments: BTreeMap<u32, (Offset, u64)>,
    pub(super) indexes: BTreeMap<u32, Offset>,
}

/// A log on its way back.
pub(super) struct Recovering {
    pub(super) log: Arc<PartitionLog>,
    pub(super) files: Files,
    /// Its files may hold batches that neither checkpoint nor journal know; they count as far as they are
    /// intact (`flush=interval`, `flush=os`).
    pub(super) adopts: bool,
    /// Its entries do not continue what was applied, or its bytes are damaged: appends cannot be applied.
    pub(super) broken: bool,
    /// A group was lost, and it is not known whether this log was in it.
    pub(super) uncertain: bool,
    /// Batches that were taken in and come to the end of the active segment, in one write for many.
    pub(super) buffer: Vec<u8>,
}

pub(super) struct Replay<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) now_ms: i64,
    pub(super) logs: BTreeMap<TopicPartition, Recovering>,
    /// Directories that belong to no log so far.
    pub(super) dirs: BTreeMap<TopicPartition, Files>,
    /// Of the checkpoint: entries below are in it.
    pub(super) checkpointed_seq: u64,
    pub(super) highest_seq: u64,
    pub(super) group_lost: bool,
    /// Bytes in the buffers of all logs.
    pub(super) buffered: usize,
    pub(super) report: RecoveryReport,
}

/// The buffers of all logs are written when together they reach this.
const BUFFERS_BYTES: usize = 16 << 20;

/// What came of it.
pub struct Replayed {
    pub report: RecoveryReport,
    /// A log was written to without the journal.
    pub unjournaled: bool,
}

/// Brings the logs of `shared` back.
pub fn run(
    shared: &Arc<Shared>,
    manifest: Manifest,
    scan: &JournalScan,
    groups: Range<u64>,
    now_ms: i64,
) -> io::Result<Replayed> {
    let unjournaled = manifest.logs.iter().any(|log| !log.journaled);
    let end = groups.end;
    let mut replay = Replay {
        shared,
        now_ms,
        logs: BTreeMap::new(),
        dirs: BTreeMap::new(),
        checkpointed_seq: manifest.next_seq,
        highest_seq: manifest.next_seq,
        group_lost: false,
        buffered: 0,
        report: RecoveryReport { clean: manifest.clean, ..Default::default() },
    };
    shared.raise_number(manifest.next_number);
    replay.run(manifest, scan, groups)?;
    // A torn group is written over, by its number: with another one behind it, it would look damaged.
    let first_group = end - u64::from(replay.report.torn_tail);
    shared.journal.go_on_at(first_group, replay.highest_seq.saturating_add(1));
    Ok(Replayed { report: replay.report, unjournaled })
}

pub(super) fn lower(mark: &mut Option<Offset>, from: Offset) {
    *mark = Some(mark.map_or(from, |known| known.min(from)));
}

impl Replay<'_> {
    fn run(&mut self, manifest: Manifest, scan: &JournalScan, groups: Range<u64>) -> io::Result<()> {
        let removing: BTreeSet<TopicPartition> = manifest.removing.into_iter().collect();
        let mut unknown = self.list_dirs()?;
        for record in manifest.logs {
            let files = self.dirs.remove(&record.tp).unwrap_or_default();
            self.restore(record, files)?;
        }
        for (number, missing) in scan.found(groups.clone()) {
            if missing > 0 {
                self.lose_groups(missing);
            }
            match scan.read(number)? {
                Some(entries) if number + 1 == groups.end && entries.iter().any(|entry| !entry.intact) => {
                    self.report.torn_tail = true;
                }
                Some(entries) => {
                    self.report.damaged_groups += u64::from(entries.iter().any(|entry| !entry.intact));
                    if self.buffered >= BUFFERS_BYTES {
                        self.write_buffers()?;
                    }
                    for entry in entries {
                        self.highest_seq = self.highest_seq.max(entry.entry.seq);
                        self.replay(entry)?;
                    }
                }
                None => self.lose_groups(1),
            }
        }
        for (tp, mut log) in std::mem::take(&mut self.logs) {
            self.finish(tp, &mut log)?;
            if let Some(from) = log.log.damaged() {
                self.report.damaged.push(DamagedLog { tp, from });
            }
            self.shared.insert(log.log);
        }
        for (tp, files) in &self.dirs {
            if removing.contains(tp) {
                // Its removal was decided durably, and interrupted.
                self.shared.disk.remove_dir_all(&log_dir(&self.shared.root, *tp))?;
            } else if !files.segments.is_empty() {
                unknown.insert(log_dir_name(*tp));
            } else {
                // Of segments that were lost: the next log of that name must not find them beside its own.
                for (number, base) in &files.indexes {
                    self.remove(*tp, &index_name(*base, *number))?;
                }
            }
        }
        self.report.unknown = unknown.iter().cloned().collect();
        self.shared.set_unknown(unknown);
        Ok(())
    }

    fn lose_groups(&mut self, groups: u64) {
        tracing::error!(groups, "groups of the journal are damaged");
        self.report.damaged_groups += groups;
        self.group_lost = true;
        self.logs.values_mut().for_each(|log| log.uncertain = true);
    }

    /// Reads the directories of the logs. Returns the names that are none.
    fn list_dirs(&mut self) -> io::Result<BTreeSet<String>> {
        let mut unknown = BTreeSet::new();
        for entry in self.shared.disk.read_dir(&self.shared.root.join(LOGS))? {
            let Some(tp) = parse_log_dir(&entry.name).filter(|_| entry.is_dir) else {
                unknown.insert(entry.name);
                continue;
            };
            let mut files = Files::default();
            for file in self.shared.disk.read_dir(&entry.path)? {
                let Some((base, number)) = parse_segment_name(&file.name) else { continue };
                if file.name.ends_with(".log") {
                    files.segments.insert(number, (base, file.len));
                } else {
                    files.indexes.insert(number, base);
                }
            }
            self.dirs.insert(tp, files);
        }
        Ok(unknown)
    }

    /// Takes over what the checkpoint says of a log, and looks whether its files are there.
    fn restore(&mut self, record: LogRecord, mut files: Files) -> io::Result<()> {
        let (tp, adopts, next_number) = (record.tp, !record.journaled, record.next_number);
        let segments = record.segments.clone();
        let log = Arc::new(PartitionLog::from_record(self.shared.clone(), record, LogConfig::default()));
        let mut broken = false;
        for segment in &segments {
            if let Some(from) = self.lost(tp, segment, &files)? {
                let mut inner = log.lock();
                let from = from.max(inner.start);
                tracing::error!(log = %tp, %from, "a segment is damaged below the checkpoint");
                lower(&mut inner.damaged, from);
                broken = true;
                break;
            }
        }
        // What the checkpoint does not know is dropped here, or looked at when its turn comes.
        let listed: BTreeSet<u32> = segments.iter().map(|segment| segment.number).collect();
        let appended = next_number..COMPACTED;
        let keep = |number: u32| listed.contains(&number) || adopts && appended.contains(&number);
        let stray: Vec<u32> = files.segments.keys().copied().filter(|number| !keep(*number)).collect();
        for number in stray {
            if let Some((base, _)) = files.segments.remove(&number) {
                self.remove(tp, &segment_name(base, number))?;
            }
        }
        let active = segments.last().filter(|last| !last.closed);
        for (number, base) in std::mem::take(&mut files.indexes) {
            // One that goes beyond the checkpoint might be of bytes that are not there any more.
            let path = log_dir(&self.shared.root, tp).join(index_name(base, number));
            let good = match active.filter(|active| active.number == number) {
                Some(active) => index::read(&*self.shared.disk, &path, active).is_some(),
                None => listed.contains(&number),
            };
            if !good {
                self.remove(tp, &index_name(base, number))?;
            }
        }
        if let (false, Some(active)) = (adopts, active) {
            self.cut_file(tp, active, &mut files)?;
        }
        self.logs.insert(tp, Recovering { log, files, adopts, broken, uncertain: false, buffer: Vec::new() });
        Ok(())
    }

    fn replay(&mut self, read: ReadEntry) -> io::Result<()> {
        let ReadEntry { entry, intact } = read;
        let tp = entry.tp;
        let applied = self.logs.get(&tp).map(|log| log.log.lock().applied_seq);
        let known = match applied {
            Some(applied) => entry.seq <= applied,
            // The checkpoint does not list it: created and deleted before.
            None => entry.seq < self.checkpointed_seq,
        };
        if known {
            return Ok(());
        }
        match (&entry.op, applied) {
            (Op::Create { start, next_number }, _) => self.create(tp, entry.seq, *start, *next_number)?,
            (Op::Delete, Some(_)) => self.delete(tp)?,
            (Op::Delete, None) => return Ok(()),
            (_, None) if !self.group_lost => {
                // The rest of a log whose deletion the checkpoint has seen and whose earlier entries it hides.
                return Ok(());
            }
            (_, None) => {
                // Its creation was lost: nothing is known of it but that it is not whole.
                self.create(tp, entry.seq, Offset::ZERO, 1)?;
                if let Some(log) = self.logs.get_mut(&tp) {
                    log.broken = true;
                }
            }
            (_, Some(_)) => {
                let mut log = self.logs.remove(&tp).expect("it was just seen");
                let applied = self.apply(tp, &mut log, &entry, intact);
                self.logs.insert(tp, log);
                applied?;
            }
        }
        self.report.replayed += 1;
        Ok(())
    }

    fn create(&mut self, tp: TopicPartition, seq: u64, start: Offset, next_number: u32) -> io::Result<()> {
        // There is one if its deletion was in a group that was lost.
        self.delete(tp)?;
        let files = self.dirs.remove(&tp).unwrap_or_default();
        for (number, (base, _)) in files.segments {
            // Of an earlier log of that name, or written anew from the journal.
            self.remove(tp, &segment_name(base, number))?;
        }
        for (number, base) in files.indexes {
            self.remove(tp, &index_name(base, number))?;
        }
        let record = LogRecord {
            tp,
            applied_seq: seq,
            start,
            end: start,
            next_number,
            segments: Vec::new(),
            epochs: Default::default(),
            damaged: None,
            journaled: true,
            compacted_to: Offset::ZERO,
        };
        let log = Arc::new(PartitionLog::from_record(self.shared.clone(), record, LogConfig::default()));
        let new = Recovering {
            log,
            files: Files::default(),
            adopts: false,
            broken: false,
            uncertain: false,
            buffer: Vec::new(),
        };
        self.logs.insert(tp, new);
        Ok(())
    }

    fn delete(&mut self, tp: TopicPartition) -> io::Result<()> {
        let Some(log) = self.logs.remove(&tp) else { return Ok(()) };
        self.buffered -= log.buffer.len();
        let mut inner = log.log.lock();
        let (start, next_number, numbers_end) = (inner.start, inner.next_number, inner.numbers_end());
        inner.reset(self.shared, tp, start);
        drop(inner);
        self.shared.raise_number(numbers_end);
        for (number, (base, _)) in log.files.segments {
            if number < next_number || number >= COMPACTED {
                self.shared.discard(Garbage::Segment { tp, base, number });
            } else {
                // No checkpoint lists it; it may be a new log's of that name, and comes again from the journal.
                self.remove(tp, &segment_name(base, number))?;
                self.shared.disk.sync_dir(&log_dir(&self.shared.root, tp))?;
            }
        }
        self.shared.discard(Garbage::Log { tp });
        Ok(())
    }

    /// Applies an entry behind the newest one that was applied.
    fn apply(
        &mut self,
        tp: TopicPartition,
        log: &mut Recovering,
        entry: &Entry,
        intact: bool,
    ) -> io::Result<()> {
        log.broken |= entry.prev != log.log.lock().applied_seq || !intact;
        log.uncertain = false;
        let shared = self.shared;
        if log.adopts || !matches!(entry.op, Op::Append { .. }) {
            self.write_buffer(tp, log)?;
        }
        match &entry.op {
            Op::Append { number, end, .. } => self.adopt(tp, log, *number, Some(*end))?,
            Op::AdvanceStart { start, next_number } => {
                self.adopt(tp, log, next_number.saturating_sub(1), Some(*start))?;
            }
            Op::Reset { next_number, .. }
            | Op::Truncate { next_number, .. }
            | Op::Repair { next_number, .. } => {
                self.adopt(tp, log, *next_number, None)?;
            }
            Op::Create { .. } | Op::Delete | Op::Damage { .. } => {}
        }
        let owner = log.log.clone();
        let inner = &mut *owner.lock();
        inner.applied_seq = entry.seq;
        let done = match &entry.op {
            // Everything before it is gone anyway, damaged or not.
            Op::Reset { start, next_number } => {
                inner.reset(shared, tp, *start);
                inner.next_number = inner.next_number.max(*next_number);
                log.broken = false;
                Ok(())
            }
            Op::Damage { from } => {
                lower(&mut inner.damaged, *from);
                Ok(())
            }
            _ if log.broken => Ok(()),
            Op::Append { number, bytes, .. } => self.append(inner, tp, log, *number, bytes),
            Op::Truncate { end, next_number } | Op::Repair { end, next_number } => {
                let end = (*end).max(inner.start);
                let repair = matches!(entry.op, Op::Repair { .. });
                let cut = match repair {
                    true => inner.mend(shared, tp, end).map(|_| ()),
                    false if end < inner.end => inner.cut(shared, tp, end).map(|_| ()),
                    false => Ok(()),
                };
                inner.next_number = inner.next_number.max(*next_number);
                cut
            }
            Op::AdvanceStart { start, next_number } => {
                if inner.start < *start && *start <= inner.end {
                    inner.advance_start(shared, tp, *start);
                } else if *start > inner.end && log.adopts {
                    // The records up to there were not synced, and they were not to be kept. No gap in the
                    // numbers, unlike after a reset: the log went on in the file of the entry's next number.
                    let next_number = inner.next_number.max(*next_number);
                    inner.reset(shared, tp, *start);
                    inner.next_number = next_number;
                } else if *start > inner.end {
                    log.broken = true;
                }
                Ok(())
            }
            Op::Create { .. } | Op::Delete => Ok(()),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Damaged(from)) => {
                let from = from.max(inner.start).min(inner.end);
                lower(&mut inner.damaged, from);
                log.broken = true;
                Ok(())
            }
            Err(Trouble::Full) => Err(io::ErrorKind::StorageFull.into()),
            Err(Trouble::Io(error)) => Err(error),
        }
    }

    fn finish(&mut self, tp: TopicPartition, log: &mut Recovering) -> io::Result<()> {
        self.write_buffer(tp, log)?;
        self.adopt(tp, log, u32::MAX, None)?;
        let owner = log.log.clone();
        let inner = &mut *owner.lock();
        if inner.segments.back().is_some_and(|last| last.bytes == 0) {
            inner.close_active(self.shared, tp);
        }
        if log.broken || log.uncertain {
            let end = inner.end;
            lower(&mut inner.damaged, end);
            tracing::error!(log = %tp, from = %inner.damaged.unwrap_or(end), "the log may miss records: it is to be repaired");
        } else if let (true, Some(active)) = (log.adopts, inner.active().copied()) {
            self.cut_file(tp, &active, &mut log.files)?;
        }
        for (number, (base, _)) in &log.files.segments {
            if *number < COMPACTED {
                inner.next_number = inner.next_number.max(number + 1);
            }
            if !inner.segments.iter().any(|segment| segment.number == *number) {
                self.shared.discard(Garbage::Segment { tp, base: *base, number: *number });
            }
        }
        inner.flushed = inner.end;
        inner.damaged = inner.damaged.map(|from| from.max(inner.start).min(inner.end));
        Ok(())
    }
}
