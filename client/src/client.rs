//! The client shared by producers, consumers and admins: options, channels, metadata, routing, retries.

use crate::admin::Admin;
use crate::backoff::{Backoff, BackoffPolicy, fork};
use crate::connection::{Connector, Pool, Wire, tcp_connector};
use crate::consumer::ConsumerBuilder;
use crate::error::{Error, ErrorCode, ErrorKind, Result};
use crate::metadata::{Metadata, Route, TopicDescription};
use crate::producer::ProducerBuilder;
use crate::types::TopicId;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_wire::v1;
use tokio::sync::watch;
use tokio::time::Instant;

/// Tells the time in milliseconds since the Unix epoch, for records sent without a timestamp.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How long a topic that no broker knows is looked for: it may have been created a moment ago.
const UNKNOWN_TOPIC_WAIT: Duration = Duration::from_secs(2);
/// One broker's share of a metadata refresh; the next one is asked after it.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to a cluster. Cheap to clone; producers, consumers and admins made from one client share its
/// connections and its knowledge of who leads what.
///
/// ```no_run
/// # async fn run() -> strandline_client::Result<()> {
/// let client = strandline_client::Client::builder().bootstrap("127.0.0.1:7070").connect().await?;
/// let status = client.admin().cluster_status().await?;
/// println!("{} brokers", status.brokers.len());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("bootstrap", &self.inner.options.bootstrap).finish_non_exhaustive()
    }
}

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

/// Options of a [`Client`]; made by [`Client::builder`].
#[must_use]
pub struct ClientBuilder {
    bootstrap: String,
    client_id: String,
    connector: Connector,
    connect_timeout: Duration,
    request_timeout: Duration,
    operation_timeout: Duration,
    metadata_max_age: Duration,
    retry: BackoffPolicy,
    seed: Option<u64>,
    clock: Clock,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

// The client's real seam to the wall clock; a simulation injects its own.
#[allow(clippy::disallowed_methods)]
fn system_clock() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl ClientBuilder {
    /// Addresses of some brokers, `host:port`, separated by commas. One that answers is enough: the others are
    /// learnt from it. Default `127.0.0.1:7070`.
    pub fn bootstrap(mut self, addresses: impl Into<String>) -> Self {
        self.bootstrap = addresses.into();
        self
    }

    /// Names this application in the brokers' logs and group descriptions.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    /// How connections are made; by default [`tcp_connector`].
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = connector;
        self
    }

    /// How long a broker may take to accept a connection. Default 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long to wait for the answer to one request before its outcome counts as unknown. Default 10 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a call may take with all its retries. Default 30 s. Producing has its own
    /// [`delivery_timeout`](ProducerBuilder::delivery_timeout).
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Metadata older than this is fetched again even when nothing went wrong. Default 60 s.
    pub fn metadata_max_age(mut self, age: Duration) -> Self {
        self.metadata_max_age = age;
        self
    }

    /// First and longest delay between tries; each is drawn at random from its upper half. Default 20 ms
    /// and 250 ms.
    pub fn retry_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.retry = BackoffPolicy { first, max };
        self
    }

    /// Seed of everything that this client draws at random. By default from the operating system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The clock that stamps records sent without a timestamp; by default the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes the client without talking to anyone yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if an option is not usable.
    pub fn build(self) -> Result<Client> {
        let bootstrap: Vec<Arc<str>> =
            self.bootstrap.split(',').map(str::trim).filter(|a| !a.is_empty()).map(Arc::from).collect();
        if bootstrap.is_empty() {
            return Err(Error::invalid("bootstrap is empty: give at least one broker as host:port"));
        }
        for (what, value) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("operation_timeout", self.operation_timeout),
            ("metadata_max_age", self.metadata_max_age),
            ("the first retry_backoff", self.retry.first),
        ] {
            if value.is_zero() {
                return Err(Error::invalid(format!("{what} must be more than zero")));
            }
        }
        if self.retry.max < self.retry.first {
            return Err(Error::invalid("the longest retry_backoff is below the first"));
        }
        let pool = Pool::new(self.connector, self.connect_timeout, &self.client_id);
        for address in &bootstrap {
            if address
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
            {
                return Err(Error::invalid(format!("{address:?} in bootstrap is not of the form host:port")));
            }
        }
        let seed = self.seed.unwrap_or_else(|| rand::make_rng::<StdRng>().random());
        Ok(Client {
            inner: Arc::new(Inner {
                options: Options {
                    bootstrap,
                    client_id: self.client_id,
                    request_timeout: self.request_timeout,
                    operation_timeout: self.operation_timeout,
                    metadata_max_age: self.metadata_max_age,
                    retry: self.retry,
                    seed,
                },
                pool,
                clock: self.clock,
                metadata: Mutex::default(),
                version: watch::channel(0).0,
                refreshing: tokio::sync::Mutex::new(()),
                rng: Mutex::new(fork(seed, 1)),
                forks: AtomicU64::new(16),
                coordinators: Mutex::default(),
            }),
        })
    }

    /// Makes the client and fetches the cluster's metadata once, so that a wrong address shows at once.
    ///
    /// # Errors
    /// What [`build`](Self::build) refuses, or [`ErrorKind::Connection`] and others if no broker answered
    /// within the operation time-out.
    pub async fn connect(self) -> Result<Client> {
        let client = self.build()?;
        let inner = &client.inner;
        let deadline = Instant::now() + inner.options.operation_timeout;
        let mut backoff = Backoff::new(inner.options.retry);
        loop {
            match inner.refresh(&[]).await {
                Ok(()) => return Ok(client),
                Err(error) => inner.pause(&mut backoff, deadline, error).await?,
            }
        }
    }
}

impl Client {
    /// Options of a new client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            bootstrap: "127.0.0.1:7070".into(),
            client_id: "strandline".into(),
            connector: tcp_connector(),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            operation_timeout: Duration::from_secs(30),
            metadata_max_age: Duration::from_secs(60),
            retry: BackoffPolicy { first: Duration::from_millis(20), max: Duration::from_millis(250) },
            seed: None,
            clock: Arc::new(system_clock),
        }
    }

    /// Options of a new producer.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }

    /// Options of a new consumer.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone())
    }

    /// Administration of topics, groups and the cluster.
    pub fn admin(&self) -> Admin {
        Admin { client: self.clone() }
    }

    /// A topic's partitions and leaders, from the cache if it is there.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicDescription>> {
        self.inner.topic(name, false).await
    }

    /// Fetches the metadata of all topics in use anew.
    pub async fn refresh(&self) -> Result<()> {
        self.inner.refresh(&[]).await
    }

    /// The cluster's id; empty before the first answer.
    pub fn cluster_id(&self) -> String {
        self.inner.metadata.lock().cluster_id().to_owned()
    }
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) metadata: Mutex<Metadata>,
    pool: Pool,
    /// Counts the changes of `metadata`.
    version: watch::Sender<u64>,
    refreshing: tokio::sync::Mutex<()>,
    rng: Mutex<StdRng>,
    forks: AtomicU64,
    coordinators: Mutex<BTreeMap<String, Arc<str>>>,
}

/// How a call finds its broker.
#[derive(Clone, Copy)]
pub(crate) enum Via<'a> {
    /// Any broker that answers.
    Any,
    /// The leader of a partition.
    Leader(&'a str, i32),
    /// The coordinator of a group.
    Coordinator(&'a str),
}

/// May a call whose outcome is unknown simply be made again?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Reads, and writes that come to the same when done twice.
    Safe,
    /// A second time would fail, or do it twice.
    Unsafe,
}

pub(crate) type CallFuture<T> = BoxFuture<'static, Result<tonic::Response<T>, tonic::Status>>;

/// An answer that carries an error for the whole call.
pub(crate) trait Answer {
    fn error(&self) -> Option<&v1::Error>;
}

macro_rules! answers {
    ($($name:ident),* $(,)?) => {
        $(impl Answer for v1::$name {
            fn error(&self) -> Option<&v1::Error> {
                self.error.as_ref()
            }
        })*
    };
}
answers!(
    InitProducerIdResponse,
    DeleteRecordsResponse,
    CreateTopicResponse,
    DescribeTopicConfigsResponse,
    AdminResponse,
    ClusterStatusResponse,
    FindCoordinatorResponse,
    JoinGroupResponse,
    SyncGroupResponse,
    HeartbeatResponse,
    LeaveGroupResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    ListGroupsResponse,
    DescribeGroupResponse,
);

impl Answer for v1::ListOffsetsResponse {
    /// Asked for one partition at a time by [`Inner::call`]'s users.
    fn error(&self) -> Option<&v1::Error> {
        self.partitions.first().and_then(|p| p.error.as_ref())
    }
}

impl Inner {
    /// A stream of randomness of its own for one producer or consumer.
    pub(crate) fn fork_rng(&self) -> StdRng {
        fork(self.options.seed, self.forks.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn wire(&self, address: &str) -> Result<Wire> {
        self.pool.get(address)
    }

    pub(crate) fn broker_address(&self, id: u64) -> Option<Arc<str>> {
        self.metadata.lock().broker(id).map(|b| Arc::from(b.grpc.as_str()))
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

    pub(crate) fn any_addresses(&self) -> Vec<Arc<str>> {
        self.candidates()
    }

    /// Addresses to ask when any broker will do, in random order: known brokers, then the bootstrap list.
    fn candidates(&self) -> Vec<Arc<str>> {
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
                    last = error;
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
        let before = *self.version.borrow();
        let _one_at_a_time = self.refreshing.lock().await;
        let fresh = *self.version.borrow() != before;
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

    pub(crate) async fn coordinator(&self, group: &str) -> Result<Arc<str>> {
        if let Some(address) = self.coordinators.lock().get(group) {
            return Ok(address.clone());
        }
        let mut last = Error::connection("no broker is known");
        for address in self.candidates() {
            let request = v1::FindCoordinatorRequest { group: group.to_owned() };
            let found = self
                .call_once(&address, METADATA_TIMEOUT, |mut wire| {
                    Box::pin(async move { wire.find_coordinator(request).await })
                })
                .await;
            match found {
                Ok(answer) if !answer.endpoint.is_empty() => {
                    let endpoint: Arc<str> = answer.endpoint.as_str().into();
                    self.coordinators.lock().insert(group.to_owned(), endpoint.clone());
                    return Ok(endpoint);
                }
                Ok(_) => {
                    last = Error::new(
                        ErrorKind::Broker(ErrorCode::CoordinatorLoading),
                        format!("{address} knows no coordinator for group {group} yet"),
                    );
                }
                Err(error) => last = error,
            }
        }
        // Finding out changes nothing, so trying again is always right.
        Err(Error::new(
            ErrorKind::Connection,
            format!("no broker names the coordinator of group {group}: {last}"),
        ))
    }

    /// Forgets the coordinator after it refused or could not be reached; a refusal may name the next.
    pub(crate) fn coordinator_failed(&self, group: &str, error: &Error) {
        let next = error.leader().and_then(|hint| {
            hint.endpoint.as_deref().map(Arc::from).or_else(|| self.broker_address(hint.id))
        });
        let mut coordinators = self.coordinators.lock();
        match next {
            Some(endpoint) => coordinators.insert(group.to_owned(), endpoint),
            None => coordinators.remove(group),
        };
    }

    /// One call to one broker, within a deadline. Without an answer its outcome is unknown.
    pub(crate) async fn call_once<T: Answer>(
        &self,
        address: &str,
        timeout: Duration,
        call: impl FnOnce(Wire) -> CallFuture<T>,
    ) -> Result<T> {
        let wire = self.wire(address)?;
        match tokio::time::timeout(timeout, call(wire)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                match Error::from_wire(answer.error()) {
                    None => Ok(answer),
                    Some(error) => Err(error),
                }
            }
            Ok(Err(status)) => Err(Error::from_status(&status, address)),
            Err(_) => Err(Error::new(
                ErrorKind::Broker(ErrorCode::RequestTimedOut),
                format!("{address} did not answer within {timeout:?}"),
            )),
        }
    }

    /// A call with retries until the operation time-out, following leaders and coordinators. `call` gets the
    /// leader epoch known for a partition, else -1.
    pub(crate) async fn call<T: Answer>(
        &self,
        what: String,
        via: Via<'_>,
        repeat: Repeat,
        call: impl Fn(Wire, i32) -> CallFuture<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.options.operation_timeout;
        self.call_until(deadline, via, repeat, call).await.map_err(|error| error.context(what))
    }

    pub(crate) async fn call_until<T: Answer>(
        &self,
        deadline: Instant,
        via: Via<'_>,
        repeat: Repeat,
        call: impl Fn(Wire, i32) -> CallFuture<T>,
    ) -> Result<T> {
        let mut backoff = Backoff::new(self.options.retry);
        let mut candidates: Vec<Arc<str>> = Vec::new();
        // An attempt whose outcome is unknown taints every later failure.
        let mut tainted = false;
        loop {
            let attempt = match self.locate(via, &mut candidates).await {
                Ok((address, epoch)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let timeout = self.options.request_timeout.min(left.max(Duration::from_millis(1)));
                    self.call_once(&address, timeout, |wire| call(wire, epoch)).await
                }
                Err(error) => Err(error),
            };
            let error = match attempt {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let open = error.may_have_happened();
            tainted |= open;
            let give_up = |error: Error| {
                if tainted && repeat == Repeat::Unsafe { error.unknown_outcome() } else { error }
            };
            if !error.is_retriable() || open && repeat == Repeat::Unsafe {
                return Err(give_up(error));
            }
            match via {
                Via::Any => {
                    if let Some(endpoint) = error.leader().and_then(|l| l.endpoint.as_deref()) {
                        candidates.push(endpoint.into());
                    }
                }
                Via::Leader(topic, partition) => {
                    if self.hint(topic, partition, &error) {
                        // Known at once; no need to wait. Each hint raises the epoch, so this ends.
                        continue;
                    }
                }
                Via::Coordinator(group) => self.coordinator_failed(group, &error),
            }
            self.pause(&mut backoff, deadline, error).await.map_err(give_up)?;
            if let Via::Leader(topic, _) = via {
                // Whether this succeeds shows at the next try.
                let _ = self.refresh(&[topic.to_owned()]).await;
            }
        }
    }

    async fn locate(&self, via: Via<'_>, candidates: &mut Vec<Arc<str>>) -> Result<(Arc<str>, i32)> {
        match via {
            Via::Any => {
                if candidates.is_empty() {
                    *candidates = self.candidates();
                    candidates.reverse();
                }
                let address = candidates.pop().expect("the bootstrap list is never empty");
                Ok((address, -1))
            }
            Via::Leader(name, partition) => {
                let topic = self.topic(name, false).await?;
                if usize::try_from(partition).ok().is_none_or(|p| p >= topic.partitions.len()) {
                    return Err(Error::invalid(format!(
                        "topic {name} has partitions 0 to {}, there is no {partition}",
                        topic.partitions.len() - 1
                    )));
                }
                let routed = self.route(name, partition);
                let address = routed.as_ref().and_then(|r| self.broker_address(r.broker));
                match (address, routed) {
                    (Some(address), Some(route)) => Ok((address, route.leader_epoch)),
                    _ => Err(Error::new(
                        ErrorKind::Broker(ErrorCode::LeaderNotAvailable),
                        format!("partition {name}-{partition} has no leader now"),
                    )),
                }
            }
            Via::Coordinator(group) => Ok((self.coordinator(group).await?, -1)),
        }
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
