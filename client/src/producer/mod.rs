//! The producer: records in, batches out, results back.
//!
//! `send` encodes a record into its partition's open batch ([`accumulator`]) and returns a handle
//! ([`delivery`]). One background task ([`sender`]) takes batches that are due, numbers them
//! ([`window`]), gathers what goes to the same broker into one request, and settles the batches as answers come.

mod accumulator;
mod call;
mod delivery;
mod exchange;
mod partitioner;
mod sender;
mod window;

use crate::client::Client;
use crate::consumer::MAX_DECOMPRESSED_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::metadata::TopicDescription;
use crate::types::{Delivery, Record};
use accumulator::{Accumulator, Appended, Limits};
pub use delivery::DeliveryHandle;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use sender::{Sender, SenderOptions};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
pub use strandline_record::Compression;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

/// When a record counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Acks {
    /// On disk on every in-sync replica. What is acknowledged survives while one of them does.
    #[default]
    All,
    /// On disk at the leader: lost if the leader is, before the others have it.
    Leader,
    /// At once, unseen.
    None,
}

impl std::str::FromStr for Acks {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "all" | "-1" => Ok(Acks::All),
            "leader" | "1" => Ok(Acks::Leader),
            "none" | "0" => Ok(Acks::None),
            _ => Err(Error::invalid(format!("unknown acks {name:?}: use all, leader or none"))),
        }
    }
}

/// Options of a [`Producer`]; made by [`Client::producer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ProducerBuilder {
    client: Client,
    acks: Acks,
    idempotent: Option<bool>,
    linger: Duration,
    batch_bytes: usize,
    buffer_bytes: usize,
    max_request_bytes: usize,
    max_in_flight: usize,
    compression: Compression,
    compression_level: Option<i32>,
    delivery_timeout: Duration,
    auto_create_topics: bool,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        ProducerBuilder {
            client,
            acks: Acks::All,
            idempotent: None,
            linger: Duration::from_millis(5),
            batch_bytes: 64 << 10,
            buffer_bytes: 32 << 20,
            max_request_bytes: 1 << 20,
            max_in_flight: window::MAX_IDEMPOTENT_IN_FLIGHT,
            compression: Compression::None,
            compression_level: None,
            delivery_timeout: Duration::from_secs(120),
            auto_create_topics: false,
        }
    }

    /// When a record counts as written. Default [`Acks::All`].
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// Numbers batches so that a retry is never appended twice and order is kept (KIP-98). Needs
    /// [`Acks::All`], with which it is the default. Without it, a batch whose outcome is unknown is not retried,
    /// and batches retried may change places.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// How long a batch that is not full waits for more records. Default 5 ms; zero sends at once, and still
    /// gathers what comes while five batches are on their way.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Size at which a batch is full, in bytes before compression. Default 64 KiB: a partition has five on
    /// their way, and per-batch costs (checksums, index, acknowledgement) are spread over 60 records of 1 KiB.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Memory for records that are not yet acknowledged; [`Producer::send`] waits while it is full. Default
    /// 32 MiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Batches for one broker are gathered into requests of about this size. Default 1 MiB.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// Batches of one partition that are on their way at once. Default and, when idempotent, most: 5.
    pub fn max_in_flight(mut self, batches: usize) -> Self {
        self.max_in_flight = batches;
        self
    }

    /// Codec for batches. Default none.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The codec's own level.
    pub fn compression_level(mut self, level: i32) -> Self {
        self.compression_level = Some(level);
        self
    }

    /// How long after its batch was begun a record may wait to be acknowledged, retries included. After it the
    /// record has failed, definitely if it was never sent or always refused, else indeterminately. Default 120 s.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Lets the broker create topics that do not exist, with its defaults, where its own
    /// `auto.create.topics.enable` allows that too. Default false.
    pub fn auto_create_topics(mut self, allow: bool) -> Self {
        self.auto_create_topics = allow;
        self
    }

    /// Starts the producer's background task, on the present Tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if options are not usable or contradict each other.
    pub fn build(self) -> Result<Producer> {
        let idempotent = self.idempotent.unwrap_or(self.acks == Acks::All);
        if idempotent && self.acks != Acks::All {
            return Err(Error::invalid(
                "idempotent(true) needs acks(Acks::All): a retry is only safe in what is kept",
            ));
        }
        if self.max_in_flight == 0 || idempotent && self.max_in_flight > window::MAX_IDEMPOTENT_IN_FLIGHT {
            return Err(Error::invalid("max_in_flight must be 1 to 5; above 5 only with idempotent(false)"));
        }
        if self.batch_bytes == 0 || self.max_request_bytes == 0 {
            return Err(Error::invalid("batch_bytes and max_request_bytes must be more than zero"));
        }
        if self.buffer_bytes < self.batch_bytes || self.buffer_bytes > u32::MAX as usize {
            return Err(Error::invalid("buffer_bytes must be at least batch_bytes, and below 4 GiB"));
        }
        if self.delivery_timeout <= self.linger {
            return Err(Error::invalid("delivery_timeout must be longer than linger"));
        }
        let inner = &self.client.inner;
        let limits = Limits {
            batch_bytes: self.batch_bytes,
            linger: self.linger,
            compression: self.compression,
            compression_level: self.compression_level,
        };
        let shared = Arc::new(Shared {
            accumulator: Mutex::new(Accumulator::new(limits, inner.fork_rng())),
            memory: Semaphore::new(self.buffer_bytes),
            starving: AtomicUsize::new(0),
            signalled: AtomicBool::new(true),
            sender: AtomicWaker::new(),
            settled: Notify::new(),
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let options = SenderOptions {
            acks: self.acks,
            idempotent,
            max_in_flight: self.max_in_flight,
            max_request_bytes: self.max_request_bytes,
            delivery_timeout: self.delivery_timeout,
        };
        tokio::spawn(Sender::new(self.client.clone(), shared.clone(), options).run());
        Ok(Producer {
            inner: Arc::new(Handle {
                client: self.client,
                shared,
                buffer_bytes: self.buffer_bytes,
                max_block: self.delivery_timeout,
                auto_create_topics: self.auto_create_topics,
            }),
        })
    }
}

/// What `send` and the background task share.
pub(crate) struct Shared {
    accumulator: Mutex<Accumulator>,
    /// One permit a byte of `buffer_bytes`.
    memory: Semaphore,
    /// Sends that wait for memory: nothing lingers meanwhile.
    starving: AtomicUsize,
    /// The sender has been told to look; telling it again costs nothing.
    signalled: AtomicBool,
    sender: AtomicWaker,
    /// Batches were settled while someone flushes.
    settled: Notify,
    closing: AtomicBool,
    ended: AtomicBool,
}

impl Shared {
    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.sender.wake();
        }
    }
}

/// Writes records. Cheap to clone; clones share buffer, batches and order.
///
/// ```no_run
/// use strandline_client::{Client, Record};
/// # async fn run() -> strandline_client::Result<()> {
/// let client = Client::builder().bootstrap("127.0.0.1:7070").connect().await?;
/// let producer = client.producer().build()?;
///
/// // One at a time …
/// let delivery = producer.send_and_wait(Record::to("orders").key("c-7").value("first")).await?;
/// println!("partition {} offset {:?}", delivery.partition, delivery.offset);
///
/// // … or many at once: `send` only waits while the buffer is full.
/// let mut handles = Vec::new();
/// for n in 0..1000 {
///     handles.push(producer.send(Record::to("orders").value(format!("record {n}"))).await?);
/// }
/// for handle in handles {
///     if let Err(error) = handle.await {
///         eprintln!("{error} (may be in the log: {})", error.may_have_happened());
///     }
/// }
/// producer.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Handle>,
}

struct Handle {
    client: Client,
    shared: Arc<Shared>,
    buffer_bytes: usize,
    max_block: Duration,
    auto_create_topics: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The task delivers what it has, then ends.
        self.shared.closing.store(true, Ordering::Release);
        self.shared.signal();
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("client", &self.inner.client).finish_non_exhaustive()
    }
}

/// Counts a send that waits for memory, for as long as it does.
struct Starving<'a>(&'a Shared);

impl<'a> Starving<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.starving.fetch_add(1, Ordering::AcqRel);
        shared.signal();
        Starving(shared)
    }
}

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.0.starving.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Producer {
    /// A topic as the producer sees it: looked up if it is not known yet, and created if it does not exist and both
    /// [`ProducerBuilder::auto_create_topics`] and the broker allow that.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicDescription>> {
        self.inner.client.inner.topic(name, self.inner.auto_create_topics).await
    }

    /// Puts a record into its batch, waiting while the buffer is full. The handle gives the result. Records for
    /// one partition are written in the order in which their sends returned.
    ///
    /// # Errors
    /// None of these has written anything: [`ErrorKind::RecordTooLarge`] if it can never fit in the buffer or be
    /// read (that it exceeds what can be sent, or the topic's limit, is the handle's to say),
    /// [`ErrorKind::TimedOut`] if the buffer stayed full for the delivery time-out, an unknown topic or
    /// partition, [`ErrorKind::Closed`].
    pub async fn send(&self, record: Record) -> Result<DeliveryHandle> {
        let Handle { client, shared, buffer_bytes, max_block, .. } = &*self.inner;
        let weight = record.weight();
        // Consumers refuse to decompress more, whatever a codec makes of it on the way.
        let most = (*buffer_bytes).min(MAX_DECOMPRESSED_BYTES);
        if weight > most {
            let what = if most < *buffer_bytes { "the most that consumers take" } else { "buffer_bytes" };
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!("the record needs {weight} bytes, {what} is {most}"),
            ));
        }
        if shared.closing.load(Ordering::Acquire) {
            return Err(Error::closed("producer"));
        }
        let permits = match shared.memory.try_acquire_many(weight as u32) {
            Ok(permits) => permits,
            Err(_) => {
                let _starving = Starving::new(shared);
                match tokio::time::timeout(*max_block, shared.memory.acquire_many(weight as u32)).await {
                    Ok(Ok(permits)) => permits,
                    Ok(Err(_)) => return Err(Error::closed("producer")),
                    Err(_) => {
                        return Err(Error::timed_out(format!(
                            "the producer's buffer of {buffer_bytes} bytes stayed full for {max_block:?}: \
                             the cluster acknowledges too slowly, or not at all"
                        )));
                    }
                }
            }
        };
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| (client.inner.clock)());
        let mut refreshed = false;
        loop {
            let appended = {
                let mut accumulator = shared.accumulator.lock();
                if shared.closing.load(Ordering::Acquire) {
                    return Err(Error::closed("producer"));
                }
                accumulator.append(&record, timestamp_ms, Instant::now)
            };
            match appended {
                Appended::Done { handle, wake } => {
                    // Given back when the batch is settled.
                    permits.forget();
                    if wake {
                        shared.signal();
                    }
                    return Ok(handle);
                }
                Appended::UnknownTopic => {
                    let topic = self.topic(&record.topic).await?;
                    shared.accumulator.lock().put_topic(&topic);
                }
                Appended::NoSuchPartition(_) if !refreshed => {
                    // Partitions may have been added.
                    refreshed = true;
                    client.inner.refresh(&[]).await?;
                    let topic = client.inner.topic(&record.topic, false).await?;
                    shared.accumulator.lock().put_topic(&topic);
                }
                Appended::NoSuchPartition(partitions) => {
                    return Err(Error::invalid(format!(
                        "topic {} has {partitions} partitions, there is no partition {}",
                        record.topic,
                        record.partition.unwrap_or(-1)
                    )));
                }
            }
        }
    }

    /// Sends a record and waits until it is written (as [`ProducerBuilder::acks`] means it).
    pub async fn send_and_wait(&self, record: Record) -> Result<Delivery> {
        self.send(record).await?.await
    }

    /// Sends what lingers, and waits until everything sent before is settled. Results are in the handles.
    pub async fn flush(&self) -> Result<()> {
        let shared = &self.inner.shared;
        let below = shared.accumulator.lock().flush();
        shared.signal();
        loop {
            let settled = shared.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if shared.accumulator.lock().is_settled_below(below) {
                return Ok(());
            }
            if shared.ended.load(Ordering::Acquire) {
                return Err(Error::closed("producer"));
            }
            settled.await;
        }
    }

    /// Refuses further sends, waits until everything sent is settled, and ends the background task. Every clone
    /// is closed with it. A producer that is dropped delivers in the background what it still has.
    pub async fn close(self) -> Result<()> {
        {
            let _no_send_between = self.inner.shared.accumulator.lock();
            self.inner.shared.closing.store(true, Ordering::Release);
        }
        self.flush().await
    }
}

#[cfg(test)]
mod tests;
