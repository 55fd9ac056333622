//! Decodes one chunk, record by record. Each batch's checksum is verified before its first record is handed
//! out (hazard 36); records before the position and control batches are passed over.

use super::places::{Chunk, Progress};
use crate::error::{Error, ErrorKind};
use crate::types::{ConsumerRecord, TopicPartition};
use std::sync::Arc;
use strandline_record::{BatchError, DecodeLimits, RecordIter, SharedBatchIter, decode_batch};

/// A decompressed batch may not be larger: a small one could fill the memory otherwise (hazard 46).
pub(crate) const MAX_DECOMPRESSED_BYTES: usize = 256 << 20;
const DECODE_LIMITS: DecodeLimits = DecodeLimits { max_decompressed_bytes: MAX_DECOMPRESSED_BYTES };

pub(crate) struct Cursor {
    pub(crate) partition: TopicPartition,
    pub(crate) incarnation: u64,
    /// What it holds of the buffer.
    pub(crate) bytes: usize,
    progress: Arc<Progress>,
    batches: SharedBatchIter,
    records: Option<RecordIter>,
    leader_epoch: i32,
    end: i64,
    end_epoch: i32,
}

pub(crate) enum Next {
    Record(ConsumerRecord),
    /// The chunk is through; the position is at least this.
    End {
        offset: i64,
        epoch: i32,
    },
    Damaged(Error),
}

impl Cursor {
    pub(crate) fn new(
        partition: TopicPartition,
        incarnation: u64,
        progress: Arc<Progress>,
        chunk: Chunk,
    ) -> Self {
        Cursor {
            partition,
            incarnation,
            bytes: chunk.bytes.len(),
            progress,
            batches: SharedBatchIter::new(chunk.bytes),
            records: None,
            leader_epoch: -1,
            end: chunk.end,
            end_epoch: chunk.epoch,
        }
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    pub(crate) fn next(&mut self) -> Next {
        loop {
            let position = self.progress.position();
            if let Some(records) = &mut self.records {
                match records.next() {
                    Some(Ok(record)) if record.offset.get() < position => continue,
                    Some(Ok(record)) => {
                        return Next::Record(ConsumerRecord {
                            topic: self.partition.topic.clone(),
                            partition: self.partition.partition,
                            offset: record.offset.get(),
                            timestamp_ms: record.timestamp_ms,
                            leader_epoch: self.leader_epoch,
                            key: record.key,
                            value: record.value,
                            headers: record.headers,
                        });
                    }
                    Some(Err(error)) => return self.damaged(error),
                    None => self.records = None,
                }
            }
            match self.batches.next() {
                None => return Next::End { offset: self.end.max(position), epoch: self.end_epoch },
                Some(Err(error)) => return self.damaged(error),
                Some(Ok((header, batch))) => match decode_batch(batch, DECODE_LIMITS) {
                    Ok(_) if header.is_control() || header.next_offset().get() <= position => {}
                    Ok(decoded) => {
                        self.leader_epoch = header.leader_epoch().get();
                        self.records = Some(decoded.iter());
                    }
                    Err(error) => return self.damaged(error),
                },
            }
        }
    }

    fn damaged(&mut self, error: BatchError) -> Next {
        let (tp, position) = (&self.partition, self.progress.position());
        Next::Damaged(Error::new(
            ErrorKind::Corrupt(tp.clone()),
            format!(
                "the batch of {tp} at offset {position} is damaged: {error}; it is fetched again, or seek past it"
            ),
        ))
    }
}
