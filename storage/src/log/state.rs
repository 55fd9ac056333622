//! The parts of a log that appending, reading and recovery share: files, what is derived from them, and
//! writing batches. Everything here runs in the log's lock.

use super::{Inner, Loaded};
use crate::disk::{DiskFile, OpenMode};
use crate::index::{self, SparseIndex};
use crate::producers::Producers;
use crate::segment::{COMPACTED, NUMBERS_END, Scanner, Segment, index_name, log_dir, segment_name};
use crate::store::{Garbage, Shared};
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use strandline_record::{BatchHeader, Offset, TopicPartition};

/// What stops an operation below the level of its own errors.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The bytes from this offset on are not what was written.
    Damaged(Offset),
    /// No space; nothing was changed.
    Full,
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
            _ => Trouble::Io(error),
        }
    }
}

pub(crate) fn segment_path(shared: &Shared, tp: TopicPartition, segment: &Segment) -> PathBuf {
    log_dir(&shared.root, tp).join(segment_name(segment.base, segment.number))
}

pub(crate) fn index_path(shared: &Shared, tp: TopicPartition, segment: &Segment) -> PathBuf {
    log_dir(&shared.root, tp).join(index_name(segment.base, segment.number))
}

/// The file of a segment, for reading and writing.
pub(crate) fn open_segment(
    shared: &Shared,
    tp: TopicPartition,
    segment: &Segment,
) -> io::Result<Arc<dyn DiskFile>> {
    let path = segment_path(shared, tp, segment);
    shared.files.get(&*shared.disk, (tp, segment.number), &path, OpenMode::ReadWrite)
}

/// Whether an error of reading a file that must be there means that its bytes are lost.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    )
}

/// The index of a closed segment: from its file, else rebuilt from the segment.
pub(crate) fn closed_index(
    shared: &Shared,
    tp: TopicPartition,
    segment: &Segment,
    interval_bytes: u32,
) -> Result<Arc<SparseIndex>, Trouble> {
    if let Some(index) = shared.indexes.get((tp, segment.number)) {
        return Ok(index);
    }
    let path = index_path(shared, tp, segment);
    let found = index::read(&*shared.disk, &path, segment).map(|file| (file.index, file.end));
    let (mut index, end) =
        found.unwrap_or_else(|| (SparseIndex::new(segment.base, interval_bytes), segment.base));
    if index.covered() < segment.bytes {
        let file = open_segment(shared, tp, segment).map_err(|error| lost_at(error, end))?;
        scan(&*file, segment, index.covered(), end, |header| index.append(header))?;
        // Only to be quicker next time.
        if let Err(error) = index::write(&*shared.disk, &path, segment, &index, None) {
            tracing::warn!(log = %tp, %error, "cannot write an index");
        }
    }
    let index = Arc::new(index);
    shared.indexes.put((tp, segment.number), index.clone());
    Ok(index)
}

pub(super) fn lost_at(error: io::Error, offset: Offset) -> Trouble {
    if is_lost(&error) { Trouble::Damaged(offset) } else { error.into() }
}

/// Walks the headers of a segment from a position on. Where they do not fit together, the batch in front may be
/// the one whose header is wrong: it counts as damaged too.
fn scan(
    file: &dyn DiskFile,
    segment: &Segment,
    position: u64,
    from: Offset,
    mut visit: impl FnMut(&BatchHeader),
) -> Result<(), Trouble> {
    let (mut last, mut end) = (from, from);
    let mut scanner = Scanner::new(file, position, segment.bytes, from, false);
    while let Some(next) = scanner.next_batch().map_err(|error| lost_at(error, last))? {
        match next {
            Ok((_, header)) => {
                visit(&header);
                (last, end) = (header.base_offset(), header.next_offset());
            }
            Err(bad) => {
                tracing::error!(position = bad.position, reason = %bad.reason, "a segment is damaged");
                return Err(Trouble::Damaged(last));
            }
        }
    }
    if end == segment.end { Ok(()) } else { Err(Trouble::Damaged(last)) }
}

impl Inner {
    pub fn active(&self) -> Option<&Segment> {
        self.segments.back().filter(|segment| !segment.closed)
    }

    /// Makes the producer state and the active segment's index available: from the newest index file that
    /// is good, and the batches behind it.
    pub fn load(&mut self, shared: &Shared, tp: TopicPartition) -> Result<&mut Loaded, Trouble> {
        if self.loaded.is_none() {
            let loaded = self.build(shared, tp)?;
            self.loaded = Some(loaded);
        }
        Ok(self.loaded.as_mut().expect("it was just set"))
    }

    fn build(&self, shared: &Shared, tp: TopicPartition) -> Result<Loaded, Trouble> {
        let interval = self.config.index_interval_bytes;
        let mut producers = Producers::default();
        let mut index = SparseIndex::new(self.end, interval);
        // Where to go on scanning.
        let (mut at, mut position, mut from) = (0, 0, self.segments.front().map_or(self.end, |s| s.base));
        for (n, segment) in self.segments.iter().enumerate().rev() {
            let Some(file) = index::read(&*shared.disk, &index_path(shared, tp, segment), segment) else {
                continue;
            };
            let Some(found) = file.producers else { continue };
            (at, position, from) = (n, file.index.covered(), file.end);
            producers = found;
            if !segment.closed {
                index = file.index;
            }
            break;
        }
        for segment in self.segments.iter().skip(at) {
            if !segment.closed && position == 0 {
                index = SparseIndex::new(segment.base, interval);
            }
            if position < segment.bytes {
                let file = open_segment(shared, tp, segment).map_err(|error| lost_at(error, from))?;
                scan(&*file, segment, position, from, |header| {
                    producers.append(header, segment.newest_append_ms);
                    if !segment.closed {
                        index.append(header);
                    }
                })?;
            }
            (position, from) = (0, segment.end);
        }
        Ok(Loaded { index, producers })
    }

    /// Writes the index file of the active segment, if it has grown since.
    pub fn save_index(&mut self, shared: &Shared, tp: TopicPartition) {
        let Some(segment) = self.segments.back().filter(|s| !s.closed && s.bytes > 0).copied() else {
            return;
        };
        let Some(loaded) = self.loaded.as_ref().filter(|_| self.indexed < segment.bytes) else { return };
        let path = index_path(shared, tp, &segment);
        match index::write(&*shared.disk, &path, &segment, &loaded.index, Some(&loaded.producers)) {
            Ok(()) => self.indexed = segment.bytes,
            // It can be rebuilt.
            Err(error) => tracing::warn!(log = %tp, %error, "cannot write an index"),
        }
    }

    /// Nothing is appended to the active segment any more.
    pub fn close_active(&mut self, shared: &Shared, tp: TopicPartition) {
        self.save_index(shared, tp);
        if let Some(segment) = self.segments.back_mut().filter(|segment| !segment.closed) {
            segment.closed = true;
            if let Some(loaded) = &mut self.loaded {
                let index = std::mem::replace(&mut loaded.index, SparseIndex::new(segment.end, 0));
                if index.covered() == segment.bytes {
                    shared.indexes.put((tp, segment.number), Arc::new(index));
                }
            }
        }
        if self.segments.back().is_some_and(|segment| segment.bytes == 0) {
            self.drop_segment_at(shared, tp, self.segments.len() - 1);
        }
    }

    /// Takes a segment out of the log; its file goes once no checkpoint lists it.
    pub fn drop_segment_at(&mut self, shared: &Shared, tp: TopicPartition, at: usize) {
        let segment = self.segments.remove(at).expect("the caller knows the segment");
        self.dirty.remove(&segment.number);
        shared.files.forget(&(tp, segment.number));
        shared.indexes.forget((tp, segment.number));
        shared.discard(Garbage::Segment { tp, base: segment.base, number: segment.number });
    }

    /// The number of the next file that compaction writes; `None`: they are used up.
    pub fn take_compacted_number(&mut self) -> Option<u32> {
        let number = self.next_compacted;
        if number >= NUMBERS_END {
            return None;
        }
        self.next_compacted += 1;
        Some(number)
    }

    /// Numbers of files from here on are used neither by appends nor, counted from [`COMPACTED`], by compaction.
    pub fn numbers_end(&self) -> u32 {
        self.next_number.max(self.next_compacted - COMPACTED)
    }

    /// Puts `new`, whose bytes are durable, in the place of `old`, neighbours whose offsets it covers. `false`: the log
    /// does not hold them any more as they were.
    pub fn replace_segments(
        &mut self,
        shared: &Shared,
        tp: TopicPartition,
        old: &[Segment],
        new: Segment,
    ) -> bool {
        let Some(at) = self.segments.iter().position(|segment| segment.number == old[0].number) else {
            return false;
        };
        if !self.segments.iter().skip(at).take(old.len()).eq(old) {
            return false;
        }
        old.iter().for_each(|_| self.drop_segment_at(shared, tp, at));
        self.segments.insert(at, new);
        self.cache.drop_below(&shared.cache, new.end);
        self.new_names = true;
        true
    }

    fn must_roll(&self, bytes: u64, end: Offset, now_ms: i64) -> bool {
        let Some(active) = self.active() else { return true };
        active.bytes > 0
            && (active.bytes + bytes > self.config.segment_bytes
                || end.get() - active.base.get() > i64::from(i32::MAX)
                || now_ms.saturating_sub(active.first_append_ms) >= self.config.roll_ms())
    }

    /// Goes on in a new file.
    pub fn begin_segment(
        &mut self,
        shared: &Shared,
        tp: TopicPartition,
        base: Offset,
        now_ms: i64,
    ) -> Result<Arc<dyn DiskFile>, Trouble> {
        self.close_active(shared, tp);
        if self.next_number >= COMPACTED {
            return Err(Trouble::Io(io::Error::other("the numbers of the log's files are used up")));
        }
        let segment = Segment::new(base, self.next_number, now_ms);
        let path = segment_path(shared, tp, &segment);
        let create =
            || shared.files.get(&*shared.disk, (tp, segment.number), &path, OpenMode::ReadWriteCreate);
        let file = match create() {
            // The first one of this log, or the directory was lost and what it held is damage.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                shared.disk.create_dir_all(&log_dir(&shared.root, tp))?;
                create()?
            }
            created => created?,
        };
        self.next_number += 1;
        self.new_names = true;
        (self.indexed, self.written_back, self.dropped) = (0, 0, 0);
        self.segments.push_back(segment);
        // Left over from before a crash, and replayed again now.
        if !file.is_empty()? {
            file.set_len(0)?;
        }
        if let Some(loaded) = &mut self.loaded {
            loaded.index = SparseIndex::new(base, self.config.index_interval_bytes);
        }
        Ok(file)
    }

    /// Writes whole batches, which continue the log, to the active segment and takes them in. After an
    /// error nothing has changed, but the segment is closed: what the failed write left is not written over.
    pub fn write(
        &mut self,
        shared: &Shared,
        tp: TopicPartition,
        bytes: &Bytes,
        headers: &[BatchHeader],
        now_ms: i64,
    ) -> Result<(), Trouble> {
        let (first, last) = (headers[0], headers[headers.len() - 1]);
        self.load(shared, tp)?;
        let roll = self.must_roll(bytes.len() as u64, last.next_offset(), now_ms);
        let file = if roll {
            self.begin_segment(shared, tp, first.base_offset(), now_ms)
        } else {
            let active = *self.active().expect("it need not be rolled");
            // A file that is not there is damage; it would be missing again after a restart.
            let start = self.start;
            open_segment(shared, tp, &active).map_err(|error| lost_at(error, active.base.max(start)))
        };
        let written = file.and_then(|file| {
            let active = self.active().expect("it was just opened");
            Ok(file.write_all_at(&[IoSlice::new(bytes)], active.bytes)?)
        });
        if let Err(trouble) = written {
            self.close_active(shared, tp);
            return Err(trouble);
        }
        for header in headers {
            self.take_in(header, now_ms);
        }
        Ok(())
    }

    /// A batch, which continues the log, now lies at the end of the active segment.
    pub fn take_in(&mut self, header: &BatchHeader, now_ms: i64) {
        let segment = self.segments.back_mut().expect("it holds the batch");
        segment.append(header, now_ms);
        self.dirty.insert(segment.number);
        if let Some(loaded) = &mut self.loaded {
            loaded.index.append(header);
            loaded.producers.append(header, now_ms);
        }
        let sound = self.epochs.assign(header.leader_epoch(), header.base_offset().max(self.start));
        assert!(sound, "the caller has checked that epochs do not decrease");
        self.end = header.next_offset();
    }
}
