//! The reading end of one run of the pipeline: what it polls, it has the processor write, batch by batch and in order.
//!
//! Invariant: what is read next is what the store says comes next; where the two differ, the reader goes back.

use super::pipeline::Ingest;
use super::processor::{Extra, Processor, Work};
use super::record;
use super::store::{Batch, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{Consumer, ConsumerRecord, Error, ErrorKind, OffsetSpec, TopicPartition};
use tokio::time::Instant;

/// Records of one transaction.
const RECORDS: usize = 2_000;
/// How long to wait for the first of them before looking around.
const LOOK: Duration = Duration::from_millis(200);
/// How often the topics are looked at: they may get partitions, or be deleted and created again.
const TOPICS_EVERY: Duration = Duration::from_secs(5);

/// The reading end of one run.
pub(super) struct Reader<'a> {
    pub(super) ingest: &'a Arc<Ingest>,
    pub(super) processor: Processor,
    pub(super) consumer: Consumer,
    pub(super) sources: BTreeMap<TopicPartition, Source>,
    /// Where the next batch of each source begins; not known of a partition that was just assigned.
    pub(super) next: BTreeMap<Source, i64>,
    pub(super) shared: bool,
}

impl Reader<'_> {
    /// Reads until the topics change their shape, which is no error, or something breaks.
    pub(super) async fn read_on(&mut self, shape: [([u8; 16], usize); 2]) -> Result<(), String> {
        let mut look_at_topics = Instant::now() + TOPICS_EVERY;
        loop {
            match self.consumer.poll(RECORDS, LOOK).await {
                Ok(records) if records.is_empty() => self.pass_over().await?,
                Ok(records) => self.bring(records).await?,
                Err(error) => self.overcome(&error)?,
            }
            if Instant::now() >= look_at_topics {
                look_at_topics = Instant::now() + TOPICS_EVERY;
                // An answer that does not come says nothing about the topics.
                if let Ok(topics) = self.ingest.topics().await
                    && topics.is_none_or(|topics| topics.shape() != shape)
                {
                    tracing::info!("the ingest topics have changed; reading them anew");
                    return Ok(());
                }
            }
        }
    }

    fn overcome(&mut self, error: &Error) -> Result<(), String> {
        match error.kind() {
            ErrorKind::Truncated { partition, end_offset, .. } => {
                tracing::error!(%error, "events that were counted are gone from the log");
                self.seek(partition, *end_offset)
            }
            _ => Err(error.to_string()),
        }
    }

    fn seek(&self, partition: &TopicPartition, offset: i64) -> Result<(), String> {
        match self.consumer.seek(partition, OffsetSpec::Offset(offset)) {
            Ok(()) => Ok(()),
            // Someone else's by now.
            Err(_) if self.shared => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn bring(&mut self, records: Vec<ConsumerRecord>) -> Result<(), String> {
        self.forget_others();
        let work = self.work(&records)?;
        self.write(work).await
    }

    /// Tells the store of places in which there is no record for it, such as those of resends, which the broker leaves out:
    /// what it lacks would never be nothing otherwise.
    async fn pass_over(&mut self) -> Result<(), String> {
        self.forget_others();
        let passed = |(partition, source): (&TopicPartition, &Source)| {
            let next = self.consumer.position(partition)?;
            let from = match self.next.get(source) {
                Some(known) if *known >= next => return None,
                Some(known) => *known,
                // Where a shared store is, it says when this is too far.
                None if self.shared => next,
                None if next == 0 => return None,
                None => 0,
            };
            Some(Batch { source: *source, topic: partition.topic.clone(), from, next, writes: Vec::new() })
        };
        let batches: Vec<Batch> = self.sources.iter().filter_map(passed).collect();
        match batches.is_empty() {
            true => Ok(()),
            false => self.write(Work { batches, extras: BTreeMap::new() }).await,
        }
    }

    /// Nothing is known any more of partitions that others have now.
    fn forget_others(&mut self) {
        if self.shared {
            let mine: BTreeSet<Source> = self
                .consumer
                .assignment()
                .iter()
                .filter_map(|partition| self.sources.get(partition).copied())
                .collect();
            self.next.retain(|source, _| mine.contains(source));
        }
    }

    async fn write(&mut self, work: Work) -> Result<(), String> {
        let ends: Vec<(Source, i64, i64)> =
            work.batches.iter().map(|batch| (batch.source, batch.from, batch.next)).collect();
        match self.processor.write(work).await {
            Ok(()) => {
                self.next.extend(ends.iter().map(|(source, _, next)| (*source, *next)));
                self.ingest.progress.advance(ends.into_iter().map(|(source, _, next)| (source, next)));
                if self.shared
                    && let Err(error) = self.consumer.commit_async()
                {
                    tracing::debug!(%error, "the group's offsets are not committed");
                }
                Ok(())
            }
            Err(behind) => {
                tracing::info!(source = %behind.of, next = behind.next, "reading again what the store lacks");
                let names: BTreeMap<Source, TopicPartition> =
                    self.sources.iter().map(|(partition, source)| (*source, partition.clone())).collect();
                for (source, from, _) in ends {
                    let next = if source == behind.of { behind.next } else { from };
                    self.next.insert(source, next);
                    if let Some(partition) = names.get(&source) {
                        self.seek(partition, next)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// What the records ask of the store, batched by source.
    fn work(&self, records: &[ConsumerRecord]) -> Result<Work, String> {
        let mut batches: BTreeMap<Source, Batch> = BTreeMap::new();
        let mut extras = BTreeMap::new();
        for record in records {
            let source = *self
                .sources
                .get(&record.topic_partition())
                .ok_or_else(|| format!("partition {} is new", record.topic_partition()))?;
            let batch = batches.entry(source).or_insert_with(|| Batch {
                source,
                topic: record.topic.clone(),
                from: self.next.get(&source).copied().unwrap_or(record.offset),
                next: record.offset,
                writes: Vec::new(),
            });
            batch.next = record.offset + 1;
            batch.writes.push(record::read(record, &self.ingest.rules));
            let extra = Extra {
                value: record.value.clone().unwrap_or_default(),
                redrives: record::redrives(&record.headers),
                fails: self.ingest.config.development && record::simulates_failure(&record.headers),
            };
            extras.insert((source, record.offset), extra);
        }
        Ok(Work { batches: batches.into_values().collect(), extras })
    }
}
