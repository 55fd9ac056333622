//! The client and its options. What its parts share is in [`crate::inner`].

use crate::admin::Admin;
use crate::backoff::{Backoff, BackoffPolicy};
use crate::connection::{Connector, Pool, tcp_connector};
use crate::consumer::ConsumerBuilder;
use crate::error::{Error, Result};
use crate::inner::{Inner, Options};
use crate::metadata::TopicDescription;
use crate::producer::ProducerBuilder;
use rand::RngExt;
use rand::rngs::StdRng;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Tells the time in milliseconds since the Unix epoch, for records sent without a timestamp.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

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
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if an option is not usable.
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
            inner: Arc::new(Inner::new(
                Options {
                    bootstrap,
                    client_id: self.client_id,
                    request_timeout: self.request_timeout,
                    operation_timeout: self.operation_timeout,
                    metadata_max_age: self.metadata_max_age,
                    retry: self.retry,
                    seed,
                },
                pool,
                self.clock,
            )),
        })
    }

    /// Makes the client and fetches the cluster's metadata once, so that a wrong address shows at once.
    ///
    /// # Errors
    /// What [`build`](Self::build) refuses, or [`ErrorKind::Connection`](crate::ErrorKind::Connection) and others if no broker answered
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

    /// A topic as far as it is known already; asks nobody.
    pub fn known_topic(&self, name: &str) -> Option<Arc<TopicDescription>> {
        self.inner.metadata.lock().topic(name)
    }

    /// Fetches the metadata of all topics in use anew.
    pub async fn refresh(&self) -> Result<()> {
        self.inner.refresh(&[]).await
    }

    /// Milliseconds since the Unix epoch by the clock that stamps records ([`ClientBuilder::clock`]).
    pub fn now_ms(&self) -> i64 {
        (self.inner.clock)()
    }

    /// A seed from the stream of everything that this client draws at random ([`ClientBuilder::seed`]).
    pub fn fork_seed(&self) -> u64 {
        self.inner.fork_rng().random()
    }

    /// The cluster's id; empty before the first answer.
    pub fn cluster_id(&self) -> String {
        self.inner.metadata.lock().cluster_id().to_owned()
    }
}
