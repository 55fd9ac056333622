//! Reading once: some records of one partition, from a place on, without a consumer to keep.
//!
//! For whoever answers a question about a log (a gateway, a browser of records) and keeps no position between
//! questions. A [`Consumer`](crate::Consumer) reads ahead and is much faster at reading on and on.

use crate::admin::topics::millis;
use crate::call::{Answer, Repeat, Via};
use crate::client::Client;
use crate::consumer::MAX_DECOMPRESSED_BYTES;
use crate::error::{Error, ErrorCode, ErrorKind, Result};
use crate::types::{ConsumerRecord, OffsetSpec, TopicPartition, id_bytes};
use futures::StreamExt;
use std::time::Duration;
use strandline_record::{BatchError, DecodeLimits, SharedBatchIter, decode_batch};
use strandline_wire::v1;
use tokio::time::Instant;

const DECODE_LIMITS: DecodeLimits = DecodeLimits { max_decompressed_bytes: MAX_DECOMPRESSED_BYTES };

/// How much to read at once, and how long to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Most records returned. Default 500.
    pub max_records: usize,
    /// About the most bytes taken from the broker; a single larger batch exceeds it. Default 1 MiB.
    pub max_bytes: u32,
    /// How long to wait when there is nothing to read yet. Default zero.
    pub max_wait: Duration,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions { max_records: 500, max_bytes: 1 << 20, max_wait: Duration::ZERO }
    }
}

/// Records of one partition, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of their offsets; empty if there was none in time.
    pub records: Vec<ConsumerRecord>,
    /// Where to read on: past the last of `records`, and past what is no record (removed ones, control batches).
    pub next_offset: i64,
    /// End (exclusive) of what could be read; `next_offset` has reached it when all was read.
    pub high_watermark: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
}

impl Answer for v1::FetchResponse {
    /// Asked for one partition. An offset that is not in the log is an answer: it comes with the log's ends.
    fn error(&self) -> Option<&v1::Error> {
        let error = self.partitions.first()?.error.as_ref();
        error.filter(|error| error.code != ErrorCode::OffsetOutOfRange as i32)
    }
}

impl Client {
    /// Reads some records of a partition, from a place on. What is returned is acknowledged and stays.
    ///
    /// # Errors
    /// [`ErrorKind::OffsetOutOfRange`] with the log's ends, [`ErrorKind::Corrupt`], an unknown topic or partition,
    /// and whatever keeps the leader from answering until the operation time-out.
    pub async fn read(
        &self,
        partition: &TopicPartition,
        from: OffsetSpec,
        options: ReadOptions,
    ) -> Result<Page> {
        let end = Instant::now() + options.max_wait;
        let mut offset = match from {
            OffsetSpec::Offset(offset) => offset,
            place => match self.inner.list_offset(partition, place).await?.offset {
                Some(offset) => offset,
                // No record at or after the timestamp: the end.
                None => self.inner.list_offset(partition, OffsetSpec::Latest).await?.offset.unwrap_or(0),
            },
        };
        loop {
            // A broker may be asked to wait only for as long as its answer is waited for.
            let left = end.saturating_duration_since(Instant::now());
            let wait = left.min(self.inner.options.request_timeout / 2);
            let page = self.fetch_once(partition, offset, options, wait).await?;
            let progress = page.next_offset > offset;
            offset = page.next_offset;
            if !page.records.is_empty() || (wait == left && !progress) || options.max_records == 0 {
                return Ok(page);
            }
        }
    }

    async fn fetch_once(
        &self,
        tp: &TopicPartition,
        offset: i64,
        options: ReadOptions,
        wait: Duration,
    ) -> Result<Page> {
        let inner = &self.inner;
        let answer = inner
            .call(
                format!("read {tp} from offset {offset}"),
                Via::Leader(&tp.topic, tp.partition),
                Repeat::Read,
                |mut wire, leader_epoch| {
                    let topic = inner.metadata.lock().topic(&tp.topic);
                    let request = v1::FetchRequest {
                        request_id: 0,
                        max_wait_ms: millis(wait),
                        min_bytes: 1,
                        max_bytes: options.max_bytes,
                        partitions: vec![v1::FetchPartition {
                            topic_id: topic.map(|t| id_bytes(t.id)).unwrap_or_default(),
                            partition: tp.partition,
                            leader_epoch,
                            offset,
                            last_fetched_epoch: -1,
                            max_bytes: options.max_bytes,
                        }],
                    };
                    Box::pin(async move {
                        // The requests stay open until the answer is there: it belongs to an open stream.
                        let requests = futures::stream::once(std::future::ready(request));
                        let requests = requests.chain(futures::stream::pending());
                        let answers = wire.fetch(requests).await?;
                        let answer = answers.into_inner().message().await?;
                        let ended = || tonic::Status::unavailable("the stream ended without an answer");
                        answer.map(tonic::Response::new).ok_or_else(ended)
                    })
                },
            )
            .await?;
        let Some(result) = answer.partitions.into_iter().next() else {
            return Err(Error::protocol(format!("the leader of {tp} left the partition out of its answer")));
        };
        page(tp, offset, options, result)
    }
}

/// Decodes an answer.
fn page(
    tp: &TopicPartition,
    offset: i64,
    options: ReadOptions,
    result: v1::FetchPartitionResult,
) -> Result<Page> {
    if result.error.is_some() {
        // The only one that is not an error of the call.
        let (log_start_offset, high_watermark) = (result.log_start_offset, result.high_watermark);
        let kind = ErrorKind::OffsetOutOfRange {
            partition: tp.clone(),
            position: offset,
            log_start_offset,
            high_watermark,
        };
        return Err(Error::new(
            kind,
            format!(
                "offset {offset} is not in {tp}: it has {log_start_offset} to {high_watermark} (the next to be written)"
            ),
        ));
    }
    let mut page = Page {
        records: Vec::new(),
        next_offset: offset,
        high_watermark: result.high_watermark,
        log_start_offset: result.log_start_offset,
    };
    for batch in SharedBatchIter::new(result.batches) {
        let (header, bytes) = batch.map_err(|error| damaged(tp, page.next_offset, &error))?;
        let decoded =
            decode_batch(bytes, DECODE_LIMITS).map_err(|error| damaged(tp, page.next_offset, &error))?;
        if header.is_control() || header.next_offset().get() <= page.next_offset {
            page.next_offset = page.next_offset.max(header.next_offset().get());
            continue;
        }
        for record in decoded.iter() {
            let record = record.map_err(|error| damaged(tp, page.next_offset, &error))?;
            if record.offset.get() < page.next_offset {
                continue;
            }
            if page.records.len() >= options.max_records {
                return Ok(page);
            }
            page.next_offset = record.offset.get() + 1;
            page.records.push(ConsumerRecord {
                topic: tp.topic.clone(),
                partition: tp.partition,
                offset: record.offset.get(),
                timestamp_ms: record.timestamp_ms,
                leader_epoch: header.leader_epoch().get(),
                key: record.key,
                value: record.value,
                headers: record.headers,
            });
        }
        page.next_offset = header.next_offset().get();
    }
    Ok(page)
}

fn damaged(tp: &TopicPartition, offset: i64, error: &BatchError) -> Error {
    let message = format!("the batch of {tp} at offset {offset} is damaged: {error}; read on past it");
    Error::new(ErrorKind::Corrupt(tp.clone()), message)
}

#[cfg(test)]
mod tests;
