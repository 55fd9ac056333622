//! What the parts of a client share: options, channels, the metadata cache and its refresh, randomness.

use crate::backoff::{Backoff, BackoffPolicy, fork};
use crate::client::Clock;
use crate::connection::{Connection, Pool, Wire};
use crate::error::{Error, ErrorCode, ErrorKind, Result};
use crate::metadata::{Metadata, Route, TopicDescription};
use crate::types::TopicId;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_wire::v1;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a topic that no broker knows is looked for: it may have been created a moment ago.
const UNKNOWN_TOPIC_WAIT: Duration = Duration::from_secs(2);
/// One broker's share of a metadata refresh; the next one is asked after it.
pub(crate) const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) bootstrap: Vec<Arc<str>>,
    pub(crate) client_id: String,
    pub(crate) request_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) metadata_max_age: Duration,
    pub(crate) retry: BackoffPolicy,
    pub(crate) seed: u64,
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) metadata: Mutex<Metadata>,
    pool: Pool,
    /// Counts the changes of `metadata`.
    version: watch::Sender<u64>,
    /// One refresh at a time; counts those that were done.
    refreshing: tokio::sync::Mutex<()>,
    refreshed: AtomicU64,
    rng: Mutex<StdRng>,
    forks: AtomicU64,
    pub(crate) coordinators: Mutex<BTreeMap<String, Arc<str>>>,
}

impl Inner {
    pub(crate) fn new(options: Options, pool: Pool, clock: Clock) -> Self {
        Inner {
            rng: Mutex::new(fork(options.seed, 1)),
            forks: AtomicU64::new(16),
            options,
            pool,
            clock,
            metadata: Mutex::default(),
            version: watch::channel(0).0,
            refreshing: tokio::sync::Mutex::new(()),
            refreshed: AtomicU64::new(0),
            coordinators: Mutex::default(),
        }
    }

    /// A stream of randomness of its own for one producer or consumer.
    pub(crate) fn fork_rng(&self) -> StdRng {
        fork(self.options.seed, self.forks.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn connection(&self, address: &str) -> Result<Connection> {
        self.pool.get(address)
    }

    pub(crate) fn wire(&self, address: &str) -> Result<Wire> {
        Ok(self.connection(address)?.wire)
    }

    pub(crate) fn broker_address(&self, id: u64) -> Option<Arc<str>> {
        self.metadata.lock().address(id)
    }

    pub(crate) fn route(&self, topic: &str, partition: i32) -> Option<Route> {
        self.metadata.lock().route(topic, partition)
    }

    /// Follows the changes of the metadata cache.
    pub(crate) fn metadata_version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn delay(&self, backoff: &mut Backoff) -> Duration {
        backoff.next(&mut self.rng.lock())
    }

    /// Sleeps before the next try, or gives the error up if it is final or time is up.
    pub(crate) async fn pause(&self, backoff: &mut Backoff, deadline: Instant, error: Error) -> Result<()> {
        if !error.is_retriable() {
            return Err(error);
        }
        let delay = self.delay(backoff);
        if Instant::now() + delay >= deadline {
            return Err(error.give_up("gave up after the time allowed"));
        }
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Believes a refusal that names a later leader; false if it told nothing new.
    pub(crate) fn hint(&self, topic: &str, partition: i32, error: &Error) -> bool {
        let Some(hint) = error.leader() else { return false };
        let changed = self.metadata.lock().hint(topic, partition, hint);
        if changed {
            self.version.send_modify(|version| *version += 1);
        }
        changed
    }

    /// Addresses to ask when any broker will do, in random order: known brokers, then the bootstrap list.
    pub(crate) fn candidates(&self) -> Vec<Arc<str>> {
        let mut known: Vec<Arc<str>> = {
            let metadata = self.metadata.lock();
            metadata
                .brokers()
                .filter(|b| !b.fenced && !b.grpc.is_empty())
                .map(|b| b.grpc.as_str().into())
                .collect()
        };
        let mut bootstrap: Vec<_> =
            self.options.bootstrap.iter().filter(|address| !known.contains(address)).cloned().collect();
        let mut rng = self.rng.lock();
        known.shuffle(&mut *rng);
        bootstrap.shuffle(&mut *rng);
        known.append(&mut bootstrap);
        known
    }

    /// Asks brokers, one after the other, until one gives metadata at least as new as what is known.
    pub(crate) async fn fetch_metadata(&self, request: &v1::MetadataRequest) -> Result<v1::MetadataResponse> {
        let mut last = Error::connection("no broker is known");
        for address in self.candidates() {
            let call = async {
                let mut wire = self.wire(&address)?;
                let timeout = METADATA_TIMEOUT.min(self.options.request_timeout);
                match tokio::time::timeout(timeout, wire.metadata(request.clone())).await {
                    Ok(Ok(answer)) => Ok(answer.into_inner()),
                    Ok(Err(status)) => Err(Error::from_status(&status, &address)),
                    Err(_) => Err(Error::timed_out(format!("{address} did not answer within {timeout:?}"))),
                }
            };
            match call.await {
                Ok(answer) => {
                    if answer.brokers.is_empty() {
                        last = Error::new(
                            ErrorKind::Broker(ErrorCode::ClusterNotReady),
                            format!("{address} does not know any broker yet"),
                        );
                        continue;
                    }
                    let newer = self.metadata.lock().update(&answer)?;
                    if newer {
                        self.forget_old_channels();
                        self.version.send_modify(|version| *version += 1);
                        return Ok(answer);
                    }
                    last = Error::new(
                        ErrorKind::Broker(ErrorCode::ClusterNotReady),
                        format!("{address} lags behind the metadata known already"),
                    );
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "metadata request failed");
                    // Whoever asks again has lost nothing, and has at most a topic that it wanted.
                    last = error.without_effect();
                }
            }
        }
        Err(last.context("no broker gave the cluster's metadata"))
    }

    fn forget_old_channels(&self) {
        let metadata = self.metadata.lock();
        let bootstrap = &self.options.bootstrap;
        self.pool.retain(|address| {
            bootstrap.iter().any(|b| &**b == address) || metadata.brokers().any(|b| b.grpc == address)
        });
    }

    /// Fetches the metadata of the topics in use and of `more`. Callers that come while another refresh is
    /// under way share its result.
    pub(crate) async fn refresh(&self, more: &[String]) -> Result<()> {
        let before = self.refreshed.load(Ordering::Acquire);
        let _one_at_a_time = self.refreshing.lock().await;
        let fresh = self.refreshed.load(Ordering::Acquire) != before;
        if fresh && more.iter().all(|name| self.metadata.lock().topic(name).is_some()) {
            return Ok(());
        }
        let mut topics = self.metadata.lock().topic_names();
        topics.extend(more.iter().filter(|name| !topics.contains(name)).cloned().collect::<Vec<_>>());
        self.fetch_metadata(&v1::MetadataRequest { topics, all_topics: false, allow_auto_create: false })
            .await?;
        Ok(())
    }

    /// The topic from the cache, or from the cluster.
    pub(crate) async fn topic(&self, name: &str, allow_auto_create: bool) -> Result<Arc<TopicDescription>> {
        let start = Instant::now();
        let deadline = start + self.options.operation_timeout;
        let mut backoff = Backoff::new(self.options.retry);
        loop {
            if let Some(topic) = self.metadata.lock().topic(name) {
                return Ok(topic);
            }
            let error = {
                let _one_at_a_time = self.refreshing.lock().await;
                let mut topics = self.metadata.lock().topic_names();
                topics.push(name.to_owned());
                let request = v1::MetadataRequest { topics, all_topics: false, allow_auto_create };
                match self.fetch_metadata(&request).await {
                    Ok(answer) => match answer.topics.iter().find(|t| t.name == name) {
                        Some(info) => match TopicDescription::parse(info) {
                            Ok(_) => continue,
                            Err(error) => error,
                        },
                        None => Error::new(
                            ErrorKind::Broker(ErrorCode::UnknownTopicOrPartition),
                            format!("there is no topic {name}: create it first"),
                        ),
                    },
                    Err(error) => error,
                }
            };
            let unknown = error.code() == Some(ErrorCode::UnknownTopicOrPartition);
            if unknown && start.elapsed() >= UNKNOWN_TOPIC_WAIT {
                return Err(error);
            }
            self.pause(&mut backoff, deadline, error).await?;
        }
    }

    /// Names the topic with this id, asking the cluster for all topics if it is not known.
    pub(crate) async fn topic_by_id(&self, id: TopicId) -> Result<Option<Arc<TopicDescription>>> {
        if let Some(topic) = self.metadata.lock().topic_by_id(id) {
            return Ok(Some(topic));
        }
        let request = v1::MetadataRequest { all_topics: true, ..Default::default() };
        self.fetch_metadata(&request).await?;
        Ok(self.metadata.lock().topic_by_id(id))
    }
}

/// Ends a background task with its owner.
#[derive(Debug)]
pub(crate) struct Task(tokio::task::JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Task(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
