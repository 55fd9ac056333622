//! What all requests share.

use crate::config::GatewayConfig;
use crate::demo::Control;
use crate::http::admission::Admission;
use crate::http::health::Readiness;
use crate::http::idempotency::Answers;
use crate::http::instances::Instances;
use crate::http::problem::Problem;
use crate::ingest::Ingest;
use crate::live::{Live, Meters};
use crate::server::ServeError;
use axum::http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use strandline_client::{Client, ErrorCode, NewTopic, Producer, TopicDescription};
use strandline_metrics::Source;
use tokio::sync::{Mutex, Semaphore};

/// One gateway: its limits and its way to the cluster.
#[derive(Debug)]
pub struct App {
    /// Limits and names.
    pub config: GatewayConfig,
    /// The cluster.
    pub client: Client,
    /// The ingest pipeline, where this gateway has one.
    pub ingest: Option<Arc<Ingest>>,
    /// Writes records of all requests, gathered into batches; acknowledged by every in-sync replica.
    pub producer: Producer,
    /// Who may come in.
    pub admission: Admission,
    pub(crate) answers: Answers,
    pub(crate) instances: Instances,
    pub(crate) readiness: Readiness,
    pub(crate) meters: Meters,
    pub(crate) live: Live,
    pub(crate) demo: Control,
    /// What `/metrics` shows besides the gateway itself.
    pub(crate) sources: Vec<Arc<dyn Source>>,
    pub(crate) scraping: Mutex<()>,
    /// Places for connections.
    pub(crate) connections: Arc<Semaphore>,
    default_topic: Arc<str>,
    /// The default topic was there when last looked.
    default_exists: AtomicBool,
    creating: Mutex<()>,
}

/// The state of every route.
pub type AppState = Arc<App>;

/// A batch that is not full waits this long for records of other requests.
const LINGER: Duration = Duration::from_millis(1);
/// Names of topics are no longer (as in Kafka).
const MAX_TOPIC_NAME: usize = 249;

impl App {
    /// A gateway in front of the client's cluster, on the present Tokio runtime. Talks to nobody yet; [`Ingest::run`]
    /// brings events into the store. `sources` are shown at `/metrics` besides the gateway itself.
    ///
    /// # Errors
    /// [`ServeError::Config`].
    pub fn new(
        config: GatewayConfig,
        client: Client,
        sources: Vec<Arc<dyn Source>>,
    ) -> Result<AppState, ServeError> {
        if let Some(problem) = config.problem() {
            return Err(ServeError::Config(problem));
        }
        let ingest = match config.ingest.store {
            Some(_) => Some(Ingest::new(config.ingest.clone(), client.clone()).map_err(ServeError::Config)?),
            None => None,
        };
        // What is in flight fits, with what each record costs besides its bytes: a full buffer is not where writes
        // wait, they are refused before.
        let buffer = config.max_inflight_bytes.saturating_mul(2).clamp(32 << 20, 1 << 30);
        let producer = client
            .producer()
            .linger(LINGER)
            .buffer_bytes(buffer)
            .delivery_timeout(config.request_timeout)
            .build()
            .map_err(|error| ServeError::Config(error.to_string()))?;
        Ok(Arc::new(App {
            admission: Admission::new(&config),
            ingest,
            answers: Answers::new(config.idempotency_window, config.idempotency_max_keys),
            instances: Instances::new(config.max_consumers, config.consumer_idle),
            readiness: Readiness::default(),
            meters: Meters::default(),
            live: Live::new(),
            demo: Control::new(&config.name, config.ingest.development),
            sources,
            scraping: Mutex::new(()),
            connections: Arc::new(Semaphore::new(config.max_connections)),
            default_topic: config.default_topic.as_str().into(),
            default_exists: AtomicBool::new(false),
            creating: Mutex::new(()),
            config,
            client,
            producer,
        }))
    }

    /// The topic of requests that name none.
    pub fn default_topic(&self) -> &Arc<str> {
        &self.default_topic
    }

    /// A topic that exists. The default topic is created if it does not.
    ///
    /// # Errors
    /// 400 for what is no name of a topic, 404, or what kept the cluster from answering: nothing was written.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicDescription>, Problem> {
        check_topic_name(name)?;
        if let Some(topic) = self.client.known_topic(name) {
            return Ok(topic);
        }
        if name == &*self.default_topic && !self.default_exists.load(Ordering::Acquire) {
            self.create_default().await?;
        }
        match self.client.admin().describe_topic(name).await {
            Ok(topic) => Ok(Arc::new(topic)),
            Err(error) => Err(Problem::from(error)),
        }
    }

    async fn create_default(&self) -> Result<(), Problem> {
        let _one_at_a_time = self.creating.lock().await;
        if self.default_exists.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.client.admin().create_topic(NewTopic::new(&*self.default_topic)).await {
            Ok(_) => tracing::info!(topic = %self.default_topic, "default topic created"),
            Err(error) if error.code() == Some(ErrorCode::TopicExists) => {}
            // A topic that was created all the same is harmless, and no record has been written.
            Err(error) => {
                return Err(Problem::from(error)
                    .may_have_happened(false)
                    .hint("the default topic could not be created; try again in a moment"));
            }
        }
        // Waits until the cluster's nodes know of it.
        self.client.topic(&self.default_topic).await.map_err(Problem::from)?;
        self.default_exists.store(true, Ordering::Release);
        Ok(())
    }

    /// A write found no such topic: the next request looks anew, and creates the default topic again.
    pub(crate) fn topic_is_gone(&self, name: &str) {
        if name == &*self.default_topic {
            self.default_exists.store(false, Ordering::Release);
        }
    }
}

/// Letters, digits, `.`, `_` and `-`, as Kafka has it.
///
/// # Errors
/// 400.
pub(crate) fn check_topic_name(name: &str) -> Result<(), Problem> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if name.is_empty()
        || name.len() > MAX_TOPIC_NAME
        || matches!(name, "." | "..")
        || !name.bytes().all(allowed)
    {
        let detail = format!("{name:?} is no name of a topic");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-topic", detail)
            .hint("use 1 to 249 letters, digits, '.', '_' and '-'"));
    }
    Ok(())
}
