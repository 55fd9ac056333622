//! The writing side: sends payments as they come due, and counts what became of each.
//!
//! ```text
//!  every 5 ms: Pacer::take ─► Producer::send ─► handles ─► per partition, in order ─► acknowledged, failed, unknown
//!                              └ waits while the buffer is full: the rest is behind       and how long it took
//! ```
//!
//! A partition without a leader holds up its own payments only: results are awaited at the head of each partition.

use super::pace::Pacer;
use super::payment::Payments;
use super::recent::{Rate, Times};
use super::{Running, TOPIC, Written, topics};
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{Compression, Delivery, DeliveryHandle, Error, Producer, Record, Result};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

const TICK: Duration = Duration::from_millis(5);
/// Payments taken at once.
const HANDFUL: u64 = 100;
/// Handfuls whose results are awaited; what is in them is bounded by the producer's buffer.
const HANDFULS: usize = 256;
const BUFFER_BYTES: usize = 16 << 20;
const LINGER: Duration = Duration::from_millis(5);
/// An election takes less, and a cluster without a majority is to be told of.
const DELIVERY: Duration = Duration::from_secs(30);
/// What is on its way when it stops.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
const AFTER_ERROR: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

/// What became of the payments so far.
#[derive(Debug, Default)]
pub(super) struct Writing {
    acknowledged: u64,
    failed: u64,
    unknown: u64,
    /// Taken by the producer, without a result so far.
    on_the_way: u64,
    behind: u64,
    shed: u64,
    rate: Rate,
    times: Times,
    last_error: Option<String>,
}

impl Writing {
    pub(super) fn figures(&self) -> Written {
        Written {
            achieved_per_minute: self.rate.per(Duration::from_secs(60)),
            acknowledged: self.acknowledged,
            failed: self.failed,
            unknown: self.unknown,
            behind: self.behind,
            shed: self.shed,
            latency_ms: self.times.percentiles(),
            last_error: self.last_error.clone(),
        }
    }

    /// Another second is over.
    fn turn(&mut self, now: Duration) {
        self.times.turn();
        self.rate.note(now, self.acknowledged);
    }

    fn settled(&mut self, result: &Result<Delivery>, took: Duration) {
        self.on_the_way -= 1;
        match result {
            Ok(_) => {
                self.acknowledged += 1;
                self.times.record(took);
            }
            Err(error) => {
                if error.may_have_happened() {
                    self.unknown += 1;
                } else {
                    self.failed += 1;
                }
                self.last_error = Some(error.message().to_owned());
            }
        }
    }

    /// Nobody waits for results any more.
    fn give_up(&mut self) {
        self.unknown += std::mem::take(&mut self.on_the_way);
    }

    fn not_sent(&mut self, count: u64, error: &Error) {
        self.failed += count;
        self.last_error = Some(error.message().to_owned());
    }
}

/// A payment on its way, and since when it was due.
type Sent = (DeliveryHandle, Instant);

/// Writes until it is told to stop, then waits a moment for what is on its way.
pub(super) async fn run(running: Arc<Running>) {
    let builder = running.client.producer().linger(LINGER).buffer_bytes(BUFFER_BYTES);
    let builder = builder.compression(Compression::Lz4).delivery_timeout(DELIVERY);
    let producer = builder.build().expect("the options are constant");
    let (sent, inbox) = mpsc::channel(HANDFULS);
    let settling = settle(&running, inbox);
    let sending = async {
        send(&running, &producer, sent).await;
        // Sends what lingers; results come to `settle`.
        let _ = tokio::time::timeout(LAST_ANSWERS, producer.close()).await;
    };
    let mut settling = pin!(settling);
    tokio::select! {
        // Ends when `send` has, and every result is in.
        () = &mut settling => return,
        () = sending => {}
    }
    if tokio::time::timeout(LAST_ANSWERS, settling).await.is_err() {
        running.writing.lock().give_up();
    }
}

async fn send(running: &Running, producer: &Producer, sent: mpsc::Sender<Vec<Sent>>) {
    let mut pacer = Pacer::new(running.rate_per_minute());
    let mut payments = Payments::new(running.client.fork_seed());
    let topic: Arc<str> = TOPIC.into();
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !running.stop.is_cancelled() {
        let now = Instant::now();
        pacer.set_rate(now - begun, running.rate_per_minute());
        let due = pacer.take(now - begun, HANDFUL);
        {
            let mut writing = running.writing.lock();
            (writing.behind, writing.shed) = (pacer.behind(), pacer.shed());
        }
        if due.count == 0 {
            ticks.tick().await;
            continue;
        }
        let mut handful = Vec::with_capacity(due.count as usize);
        for index in 0..due.count {
            let since = now.checked_sub(due.age(index)).unwrap_or(now);
            let (key, value) = payments.draw(running.client.now_ms());
            let record = Record::to(topic.clone()).key(key).value(value);
            let record = record.header("source", "demo").header("type", "payment.captured");
            let mut sending = pin!(producer.send(record));
            let result = match at_once(sending.as_mut()).await {
                Some(result) => result,
                None => {
                    // The buffer is full: what is on its way is not to wait for this one to be counted.
                    hand_over(running, &sent, std::mem::take(&mut handful)).await;
                    tokio::select! {
                        biased;
                        () = running.stop.cancelled() => return,
                        result = sending => result,
                    }
                }
            };
            match result {
                Ok(handle) => handful.push((handle, since)),
                Err(error) => {
                    running.writing.lock().not_sent(due.count - index, &error);
                    recover(running).await;
                    break;
                }
            }
        }
        hand_over(running, &sent, handful).await;
    }
}

async fn hand_over(running: &Running, sent: &mpsc::Sender<Vec<Sent>>, handful: Vec<Sent>) {
    running.writing.lock().on_the_way += handful.len() as u64;
    // `settle` goes on for as long as there is a sender.
    let _ = sent.send(handful).await;
}

/// The result of a future that does not have to wait.
async fn at_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        let polled = std::pin::Pin::new(&mut future).poll(cx);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(result) => Some(result),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// The producer takes nothing: the topic may have been deleted.
async fn recover(running: &Running) {
    let again = async {
        tokio::time::sleep(AFTER_ERROR).await;
        if let Err(error) = topics::create(&running.client).await {
            tracing::debug!(%error, "the demonstration's topics are not there");
        }
    };
    tokio::select! {
        biased;
        () = running.stop.cancelled() => {}
        () = again => {}
    }
}

/// The first payment of a partition that has no result yet.
async fn head(partition: i32, sent: Sent) -> (i32, Result<Delivery>, Instant) {
    let (handle, since) = sent;
    (partition, handle.await, since)
}

/// Counts results until every sender is gone and all are in.
async fn settle(running: &Running, mut inbox: mpsc::Receiver<Vec<Sent>>) {
    let mut waiting: BTreeMap<i32, VecDeque<Sent>> = BTreeMap::new();
    let mut heads = FuturesUnordered::new();
    let mut seconds = tokio::time::interval(SECOND);
    let mut open = true;
    while open || !heads.is_empty() {
        tokio::select! {
            now = seconds.tick() => running.writing.lock().turn(now.saturating_duration_since(running.started)),
            handful = inbox.recv(), if open => {
                let Some(handful) = handful else {
                    open = false;
                    continue;
                };
                for sent in handful {
                    let partition = sent.0.partition();
                    // An entry is there while its head is awaited.
                    match waiting.entry(partition) {
                        std::collections::btree_map::Entry::Occupied(mut queue) => queue.get_mut().push_back(sent),
                        std::collections::btree_map::Entry::Vacant(place) => {
                            place.insert(VecDeque::new());
                            heads.push(head(partition, sent));
                        }
                    }
                }
            }
            Some((partition, result, since)) = heads.next(), if !heads.is_empty() => {
                let now = Instant::now();
                let mut writing = running.writing.lock();
                writing.settled(&result, now.saturating_duration_since(since));
                let queue = waiting.entry(partition).or_default();
                // One batch answers for many.
                while let Some(result) = queue.front().and_then(|(handle, _)| handle.try_result()) {
                    if let Some((_, since)) = queue.pop_front() {
                        writing.settled(&result, now.saturating_duration_since(since));
                    }
                }
                match queue.pop_front() {
                    Some(next) => heads.push(head(partition, next)),
                    None => drop(waiting.remove(&partition)),
                }
            }
        }
    }
}
