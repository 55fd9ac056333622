//! The segment that a pass writes, aside: nobody knows its file until it takes its place in the log.

use super::filter::Gap;
use super::pass::Stop;
use crate::disk::{DiskFile, OpenMode};
use crate::index::{self, SparseIndex};
use crate::log::{PartitionLog, index_path, segment_path};
use crate::segment::Segment;
use std::io::IoSlice;
use std::sync::Arc;
use strandline_record::BatchHeader;

/// Written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub struct Output {
    file: Arc<dyn DiskFile>,
    segment: Segment,
    index: SparseIndex,
    buffer: Vec<u8>,
    /// Batches that were removed just before.
    gap: Option<Gap>,
}

impl Output {
    /// For what is left of `replaced`, which are neighbours.
    pub fn create(log: &PartitionLog, replaced: &[Segment]) -> Result<Output, Stop> {
        let shared = &log.shared;
        let bytes: u64 = replaced.iter().map(|segment| segment.bytes).sum();
        let free = shared.disk.free_bytes(&shared.root).map_err(Stop::Failed)?;
        if free < shared.config.reserved_bytes.saturating_add(bytes) {
            return Err(Stop::NoSpace);
        }
        let (number, interval_bytes) = {
            let mut inner = log.lock();
            inner.usable().map_err(|_| Stop::Changed)?;
            (inner.take_compacted_number().ok_or(Stop::Changed)?, inner.config.index_interval_bytes)
        };
        let newest = replaced.iter().map(|segment| segment.newest_append_ms).max().unwrap_or_default();
        let mut segment = Segment::new(replaced[0].base, number, newest);
        segment.closed = true;
        let path = segment_path(shared, log.topic_partition(), &segment);
        let file = shared.disk.open(&path, OpenMode::CreateNew)?;
        let index = SparseIndex::new(segment.base, interval_bytes);
        Ok(Output { file, segment, index, buffer: Vec::new(), gap: None })
    }

    /// Takes in a batch that stays. Returns the bytes that were written to the file.
    pub fn put(&mut self, batch: &[u8]) -> Result<u64, Stop> {
        if let Some(gap) = self.gap.take() {
            self.append(&gap.filler());
        }
        self.append(batch);
        if self.buffer.len() >= BUFFER_BYTES { self.write() } else { Ok(0) }
    }

    /// Takes in a batch that goes.
    pub fn remove(&mut self, header: &BatchHeader) {
        if let Some(filler) = Gap::widen(&mut self.gap, header) {
            self.append(&filler);
        }
    }

    fn append(&mut self, batch: &[u8]) {
        let header = BatchHeader::parse(batch).expect("it was read, or built, just before");
        self.index.append(&header);
        self.segment.append(&header, self.segment.newest_append_ms);
        self.buffer.extend_from_slice(batch);
    }

    fn write(&mut self) -> Result<u64, Stop> {
        let bytes = self.buffer.len() as u64;
        self.file.write_all_at(&[IoSlice::new(&self.buffer)], self.segment.bytes - bytes)?;
        self.buffer.clear();
        Ok(bytes)
    }

    /// Makes the bytes durable and puts the segment in the place of `replaced`, unless the log has changed there.
    /// Returns the bytes that were written.
    pub fn install(
        &mut self,
        log: &PartitionLog,
        replaced: &[Segment],
        truncations: u64,
    ) -> Result<u64, Stop> {
        if let Some(gap) = self.gap.take() {
            self.append(&gap.filler());
        }
        let written = self.write()?;
        let (shared, tp) = (&log.shared, log.topic_partition());
        let (first, last) = (&replaced[0], &replaced[replaced.len() - 1]);
        assert!(
            self.segment.base == first.base && self.segment.end == last.end,
            "a compacted segment covers the offsets of those that it replaces"
        );
        self.segment.first_append_ms = first.first_append_ms;
        self.file.sync_data().map_err(Stop::Fatal)?;
        // The state of the producers at its end, where it was kept.
        let old = index::read(&*shared.disk, &index_path(shared, tp, last), last);
        let producers = old.filter(|file| file.end == last.end).and_then(|file| file.producers);
        let path = index_path(shared, tp, &self.segment);
        if let Err(error) = index::write(&*shared.disk, &path, &self.segment, &self.index, producers.as_ref())
        {
            // It can be rebuilt.
            tracing::warn!(log = %tp, %error, "cannot write an index");
        }
        let mut inner = log.lock();
        let same = inner.usable().is_ok() && inner.truncations == truncations;
        if same && inner.replace_segments(shared, tp, replaced, self.segment) {
            Ok(written)
        } else {
            Err(Stop::Changed)
        }
    }

    /// Removes the file of a segment that did not come to be in the log.
    pub fn abandon(self, log: &PartitionLog) {
        let (shared, tp) = (&log.shared, log.topic_partition());
        drop(self.file);
        for path in [segment_path(shared, tp, &self.segment), index_path(shared, tp, &self.segment)] {
            // What is left of it is removed at the next start.
            let _ = shared.disk.remove_file(&path);
        }
    }
}
