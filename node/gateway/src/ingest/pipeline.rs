//! The pipeline of one gateway: its topics, its store, and the task that brings the one into the other.
//!
//! ```text
//!  Starting ─► the topics are not there ─► Idle ─┐
//!      └─────► they are ────────────────────────┴─► Opening (tried until it works) ─► Open ─► read, write, read …
//! ```
//!
//! A store of this gateway alone gets all partitions, from the offsets that it holds. A shared one gets those that the
//! consumer group assigns, from the group's offsets, which are committed after the store's and never before: where both
//! differ, the store's count, and records that it has are passed over.

use super::config::{IngestConfig, StoreLocation};
use super::normalise::Rules;
use super::processor::{Backoff, DeadLetters, Health, Patience, Processor};
use super::progress::Progress;
use super::reader::Reader;
use super::record::{DEAD_LETTERS, DEDUP, DeadLetter, EVENTS, REJECTED};
use super::store::{PostgresStore, Source, SqliteStore, Store, StoreError};
use crate::live::Latency;
use async_trait::async_trait;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{
    AutoOffsetReset, Client, Consumer, Error, ErrorCode, NewTopic, OffsetSpec, Producer, TopicDescription,
    TopicPartition,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two tries at what the pipeline cannot work without.
const AGAIN: Duration = Duration::from_secs(1);
/// For making the topics, and between two looks whether they are there.
const MAKE: Duration = Duration::from_secs(10);
const SEEN: Duration = Duration::from_millis(20);
/// For leaving the group when the gateway stops.
const LEAVE: Duration = Duration::from_secs(3);

/// Why there is nowhere to write.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTopics {
    /// The cluster's word.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// They were asked for, and did not appear.
    #[error("the topics of the ingest pipeline were not there within {MAKE:?}")]
    NotSeen,
}

/// Opens a store.
pub type Opener =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Arc<dyn Store>, StoreError>> + Send>> + Send + Sync>;

/// Where the store is.
#[derive(Clone)]
pub(super) enum Stage {
    /// Not looked yet.
    Starting,
    /// Nobody has ever ingested anything.
    Idle,
    /// It cannot be opened so far, because of this.
    Opening(String),
    /// It answers questions.
    Open(Arc<dyn Store>),
}

/// The ingest pipeline of one gateway.
pub struct Ingest {
    pub(super) config: IngestConfig,
    pub(super) rules: Rules,
    pub(super) client: Client,
    pub(super) progress: Progress,
    pub(super) health: Arc<Health>,
    /// From the arrival of events until the log has them.
    pub(super) enqueued: Latency,
    opener: Opener,
    stage: Mutex<Stage>,
    producer: Mutex<Option<Producer>>,
    /// One at a time makes the topics.
    creating: tokio::sync::Mutex<()>,
    created: Notify,
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The topics as the cluster has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topics {
    pub(super) events: TopicDescription,
    pub(super) rejected: TopicDescription,
}

impl Topics {
    pub(super) fn both(&self) -> [&TopicDescription; 2] {
        [&self.events, &self.rejected]
    }

    /// Names, identities and numbers of partitions: what makes a reader begin anew or look wider.
    pub(super) fn shape(&self) -> [([u8; 16], usize); 2] {
        self.both().map(|topic| (topic_id(topic), topic.partitions.len()))
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = (TopicPartition, Source)> {
        self.both().into_iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| {
                let partition = partition.partition;
                let source = Source { topic_id: topic_id(topic), partition };
                (TopicPartition::new(topic.name.clone(), partition), source)
            })
        })
    }
}

fn topic_id(topic: &TopicDescription) -> [u8; 16] {
    *topic.id.0.as_bytes()
}

#[async_trait]
impl DeadLetters for Ingest {
    async fn send(&self, letter: &DeadLetter) -> Result<(), String> {
        let sent = async { self.producer()?.send_and_wait(letter.record()).await };
        sent.await.map(drop).map_err(|error| error.to_string())
    }
}

impl Ingest {
    /// A pipeline with the store that the configuration names. Talks to nobody before [`run`](Self::run).
    ///
    /// # Errors
    /// The first key that cannot be used, and why.
    pub fn new(config: IngestConfig, client: Client) -> Result<Arc<Ingest>, String> {
        let location = config.store.clone().ok_or("ingest.store is not set")?;
        let deadline = config.store_timeout();
        let opener: Opener = Arc::new(move || {
            let location = location.clone();
            Box::pin(async move {
                Ok(match location {
                    StoreLocation::Sqlite(path) => {
                        Arc::new(SqliteStore::open(path, deadline)?) as Arc<dyn Store>
                    }
                    StoreLocation::Postgres(url) => Arc::new(PostgresStore::open(&url, deadline).await?),
                })
            })
        });
        Self::with_store(config, client, opener)
    }

    /// A pipeline with a store of the caller's.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_store(config: IngestConfig, client: Client, opener: Opener) -> Result<Arc<Ingest>, String> {
        let rules = config.compile()?;
        Ok(Arc::new(Ingest {
            config,
            rules,
            client,
            progress: Progress::default(),
            health: Arc::default(),
            enqueued: Latency::default(),
            opener,
            stage: Mutex::new(Stage::Starting),
            producer: Mutex::new(None),
            creating: tokio::sync::Mutex::default(),
            created: Notify::new(),
        }))
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage.lock().clone()
    }

    /// The producer of all that this gateway writes, on the runtime of its first user.
    pub(super) fn producer(&self) -> Result<Producer, Error> {
        let mut slot = self.producer.lock();
        if let Some(producer) = &*slot {
            return Ok(producer.clone());
        }
        let producer = self
            .client
            .producer()
            .linger(Duration::from_millis(1))
            .delivery_timeout(Duration::from_secs(12))
            .build()?;
        Ok(slot.insert(producer).clone())
    }

    /// The topics, or `None` where one of them is not there.
    pub(super) async fn topics(&self) -> Result<Option<Topics>, Error> {
        let admin = self.client.admin();
        let mut found = Vec::with_capacity(3);
        for name in [EVENTS, REJECTED, DEAD_LETTERS] {
            match admin.describe_topic(name).await {
                Ok(topic) => found.push(topic),
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let mut found = found.into_iter();
        Ok(found.next().zip(found.next()).map(|(events, rejected)| Topics { events, rejected }))
    }

    /// The topics, made if they are not there. They keep everything: the stores are made from them.
    pub(super) async fn make_topics(&self) -> Result<Topics, NoTopics> {
        let made = async {
            let _alone = self.creating.lock().await;
            loop {
                if let Some(topics) = self.topics().await? {
                    self.created.notify_one();
                    return Ok(topics);
                }
                self.create_topics().await?;
                // They are agreed, and not yet seen by the node that was asked.
                tokio::time::sleep(SEEN).await;
            }
        };
        tokio::time::timeout(MAKE, made).await.unwrap_or(Err(NoTopics::NotSeen))
    }

    async fn create_topics(&self) -> Result<(), Error> {
        for name in [EVENTS, REJECTED, DEAD_LETTERS] {
            let topic = NewTopic::new(name)
                .partitions(self.config.partitions)
                .config("retention.ms", "-1")
                .config("dedup.key", format!("header:{DEDUP}"));
            match self.client.admin().create_topic(topic).await {
                Ok(_) => {}
                Err(error) if error.code() == Some(ErrorCode::TopicExists) || error.may_have_happened() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Works until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut rng = StdRng::seed_from_u64(self.client.fork_seed());
        let patience = Patience { attempts: 1, first: AGAIN / 4, longest: 4 * AGAIN };
        let mut backoff = Backoff::new(patience);
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = tokio::select! {
                biased;
                () = stop.cancelled(), if !matches!(self.stage(), Stage::Open(_)) => return,
                ended = self.work(&stop) => ended,
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "the ingest pipeline was interrupted; trying again");
            }
            if began.elapsed() > 4 * AGAIN {
                backoff = Backoff::new(patience);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep(backoff.next(&mut rng)) => {}
            }
        }
    }

    /// From the topics to the store and on, until something breaks or it is to stop.
    async fn work(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), String> {
        let topics = loop {
            match self.topics().await.map_err(|error| error.to_string())? {
                Some(topics) => break topics,
                None => {
                    let mut stage = self.stage.lock();
                    if !matches!(*stage, Stage::Open(_)) {
                        *stage = Stage::Idle;
                    }
                }
            }
            tokio::select! {
                () = self.created.notified() => {}
                () = tokio::time::sleep(AGAIN) => {}
            }
        };
        let store = match self.stage() {
            Stage::Open(store) => store,
            _ => match (self.opener)().await {
                Ok(store) => store,
                Err(error) => {
                    *self.stage.lock() = Stage::Opening(error.to_string());
                    return Err(error.to_string());
                }
            },
        };
        *self.stage.lock() = Stage::Open(store.clone());
        let reading = self.read(&topics, store.clone(), stop);
        if store.shared() {
            tokio::select! {
                ended = reading => ended,
                never = self.progress.follow(store.clone()) => never,
            }
        } else {
            reading.await
        }
    }

    async fn read(
        self: &Arc<Self>,
        topics: &Topics,
        store: Arc<dyn Store>,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let sources: BTreeMap<TopicPartition, Source> = topics.partitions().collect();
        let offsets = store.offsets().await.map_err(|error| error.to_string())?;
        self.progress.advance(offsets.iter().map(|(source, next)| (*source, *next)));
        let consumer =
            self.consumer(&sources, &offsets, store.shared()).map_err(|error| error.to_string())?;
        let patience = Patience {
            attempts: self.config.attempts,
            first: Duration::from_millis(self.config.retry_backoff_ms),
            longest: Duration::from_millis(self.config.retry_backoff_max_ms),
        };
        let seed = self.client.fork_seed();
        let mut reader = Reader {
            ingest: self,
            processor: Processor::new(store.clone(), self.clone(), patience, self.health.clone(), seed),
            next: if store.shared() { BTreeMap::new() } else { offsets },
            shared: store.shared(),
            sources,
            consumer,
        };
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ended = reader.read_on(topics.shape()) => ended,
        };
        if tokio::time::timeout(LEAVE, reader.consumer.close()).await.is_err() {
            tracing::debug!("the ingest group was not left in time");
        }
        ended
    }

    fn consumer(
        &self,
        sources: &BTreeMap<TopicPartition, Source>,
        offsets: &BTreeMap<Source, i64>,
        shared: bool,
    ) -> Result<Consumer, Error> {
        let builder = self.client.consumer().auto_offset_reset(AutoOffsetReset::Earliest).auto_commit(false);
        if shared {
            let consumer = builder.group(&self.config.group).build()?;
            consumer.subscribe([EVENTS, REJECTED])?;
            return Ok(consumer);
        }
        let consumer = builder.build()?;
        consumer.assign(sources.keys().cloned())?;
        for (partition, source) in sources {
            if let Some(next) = offsets.get(source) {
                consumer.seek(partition, OffsetSpec::Offset(*next))?;
            }
        }
        Ok(consumer)
    }
}
