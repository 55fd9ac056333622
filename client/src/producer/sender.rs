//! The producer's background task. Its loop: take what is due out of the accumulator, expire what is too old,
//! put what may go on the wire, then sleep until an answer, a signal or a deadline comes.
//!
//! Each broker has one long-lived Produce stream ([`crate::stream`]), over which batches of a partition travel in
//! order. When a stream ends, the outcome of everything unanswered on it is unknown; the windows send it again,
//! with the same sequences, wherever the partition's leader is then.

use super::accumulator::{Gathered, Slot};
use super::delivery::{BatchDelivery, Landed};
use super::exchange::{Answer, Part, Produce, ended_unacknowledged, expired, judge, too_large};
use super::window::{Identity, Outcome, Verdict, Window};
use super::{Acks, Shared};
use crate::admin::topics::millis;
use crate::backoff::Backoff;
use crate::call::{Repeat, Via};
use crate::client::Client;
use crate::error::{Error, ErrorCode, ErrorKind, Result};
use crate::stream::{self, BrokerStream};
use crate::types::{TopicId, id_bytes};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use strandline_record::{ProducerEpoch, ProducerId, ProducerStamp, restamp_producer};
use strandline_wire::produce::BATCH_BYTES_MAX;
use strandline_wire::v1;
use tokio::time::{Instant, Sleep};

/// Batches older than the delivery time-out are looked for this often.
const EXPIRY_PERIOD: Duration = Duration::from_millis(100);
/// Events taken in before the loop goes on to send.
const EVENTS_MAX: usize = 64;
/// Requests outstanding on one stream.
const REQUESTS_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct SenderOptions {
    pub(super) acks: Acks,
    pub(super) idempotent: bool,
    pub(super) max_in_flight: usize,
    pub(super) max_request_bytes: usize,
    pub(super) delivery_timeout: Duration,
}

/// A batch as it goes on the wire.
#[derive(Debug)]
pub(super) struct Batch {
    number: u64,
    bytes: Bytes,
    stamp: Option<(Identity, i32)>,
    delivery: Arc<BatchDelivery>,
    deadline: Instant,
    weight: usize,
}

/// The sender's side of a partition.
struct Lane {
    topic: Arc<str>,
    partition: i32,
    topic_id: Option<TopicId>,
    window: Window<Batch>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    last_error: Option<Error>,
}

type Event = stream::Event<Produce>;
type Pending<T> = Option<BoxFuture<'static, T>>;

pub(super) struct Sender {
    client: Client,
    shared: Arc<Shared>,
    options: SenderOptions,
    /// By slot.
    lanes: Vec<Lane>,
    /// Slots whose window is not empty, or broken.
    active: BTreeSet<Slot>,
    links: BTreeMap<u64, BrokerStream<Produce>>,
    identity: Option<Identity>,
    identifying: Pending<Result<Identity>>,
    identify_at: Option<Instant>,
    identify_backoff: Backoff,
    /// Why there is no producer id yet.
    identify_error: Option<Error>,
    refreshing: Pending<Result<()>>,
    refresh_wanted: bool,
    refresh_at: Option<Instant>,
    refresh_backoff: Backoff,
    next_refresh: Instant,
    metadata: tokio::sync::watch::Receiver<u64>,
    next_expiry: Instant,
    next_request: u64,
    sleep: Pin<Box<Sleep>>,
    ended: Vec<(Batch, Result<Landed>)>,
    reusable: Vec<Event>,
}

impl Sender {
    pub(super) fn new(client: Client, shared: Arc<Shared>, options: SenderOptions) -> Self {
        let retry = client.inner.options.retry;
        let now = Instant::now();
        let mut metadata = client.inner.metadata_version();
        metadata.mark_unchanged();
        Sender {
            next_refresh: now + client.inner.options.metadata_max_age,
            metadata,
            lanes: Vec::new(),
            active: BTreeSet::new(),
            links: BTreeMap::new(),
            identity: None,
            identifying: None,
            identify_at: None,
            identify_backoff: Backoff::new(retry),
            identify_error: None,
            refreshing: None,
            refresh_wanted: false,
            refresh_at: None,
            refresh_backoff: Backoff::new(retry),
            next_expiry: now + EXPIRY_PERIOD,
            next_request: 0,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            ended: Vec::new(),
            reusable: Vec::new(),
            client,
            shared,
            options,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.follow_metadata();
            self.gather(now);
            self.expire(now);
            self.recover(now);
            self.transmit(now);
            self.report();
            if self.shared.closing.load(Ordering::Acquire) && self.shared.accumulator.lock().is_idle() {
                // Dropping `self` wakes those who flush.
                return;
            }
            let deadline = self.next_deadline(now);
            self.sleep.as_mut().reset(deadline);
            let mut events = std::mem::take(&mut self.reusable);
            std::future::poll_fn(|cx| self.poll_events(cx, &mut events)).await;
            for event in events.drain(..) {
                self.handle(event);
            }
            self.reusable = events;
        }
    }

    /// Ready when anything has happened.
    fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()> {
        let mut woken = false;
        self.shared.sender.register(cx.waker());
        woken |= self.shared.signalled.swap(false, Ordering::AcqRel);
        woken |= self.sleep.as_mut().poll(cx).is_ready();
        let now = Instant::now();
        for link in self.links.values_mut() {
            woken |= link.poll(cx, now, events, EVENTS_MAX);
        }
        if let Some(future) = &mut self.identifying
            && let Poll::Ready(result) = future.as_mut().poll(cx)
        {
            (self.identifying, woken) = (None, true);
            match result {
                Ok(identity) => {
                    self.identity = Some(identity);
                    self.identify_error = None;
                    self.identify_backoff.reset();
                }
                Err(error) => {
                    tracing::warn!(%error, "no producer id yet; records wait");
                    if !error.is_retriable() {
                        // The present id is no longer good for an epoch bump: take a new one (KIP-360).
                        self.identity = None;
                    }
                    self.identify_error = Some(error);
                    self.identify_at = Some(now + self.client.inner.delay(&mut self.identify_backoff));
                }
            }
        }
        if let Some(future) = &mut self.refreshing
            && let Poll::Ready(result) = future.as_mut().poll(cx)
        {
            (self.refreshing, woken) = (None, true);
            if let Err(error) = result {
                tracing::debug!(%error, "metadata refresh failed");
                self.refresh_wanted = true;
            }
            // Even a successful refresh may show the old leader still: ask again, but ever more slowly.
            self.refresh_at = Some(now + self.client.inner.delay(&mut self.refresh_backoff));
            self.next_refresh = now + self.client.inner.options.metadata_max_age;
        }
        if woken { Poll::Ready(()) } else { Poll::Pending }
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        // What is due already has been looked at in this round, and waits for something else.
        let lanes = self.active.iter().filter_map(|slot| self.lanes[*slot].retry_at).filter(|at| *at > now);
        let links = self.links.values().filter_map(BrokerStream::deadline);
        let (linger, idle) = {
            let accumulator = self.shared.accumulator.lock();
            (accumulator.next_deadline(), accumulator.is_idle())
        };
        let expiry = (!idle).then_some(self.next_expiry);
        let refresh = self.refresh_at.filter(|at| self.refresh_wanted && *at > now);
        let identify = self.identify_at.filter(|at| *at > now);
        lanes
            .chain(links)
            .chain(linger)
            .chain(expiry)
            .chain(refresh)
            .chain(identify)
            .fold(self.next_refresh, Instant::min)
    }

    fn follow_metadata(&mut self) {
        if !self.metadata.has_changed().unwrap_or(false) {
            return;
        }
        self.metadata.mark_unchanged();
        let mut accumulator = self.shared.accumulator.lock();
        let names: Vec<_> = accumulator.topics().cloned().collect();
        let metadata = self.client.inner.metadata.lock();
        for topic in names.iter().filter_map(|name| metadata.topic(name)) {
            accumulator.put_topic(&topic);
        }
    }

    /// Takes due batches out of the accumulator, builds them and puts them into their windows.
    fn gather(&mut self, now: Instant) {
        if self.options.idempotent && self.identity.is_none() {
            self.identify(now);
            self.shared.accumulator.lock().close_due(now, false);
            return;
        }
        let mut taken: Vec<(Slot, Gathered)> = Vec::new();
        {
            let mut accumulator = self.shared.accumulator.lock();
            let starving = self.shared.starving.load(Ordering::Acquire) > 0;
            let all = starving || self.shared.closing.load(Ordering::Acquire);
            accumulator.close_due(now, all);
            while self.lanes.len() < accumulator.slots() {
                let (topic, partition) = accumulator.name(self.lanes.len());
                self.lanes.push(Lane {
                    topic,
                    partition,
                    topic_id: None,
                    window: Window::new(self.options.max_in_flight, self.options.idempotent),
                    retry_at: None,
                    backoff: Backoff::new(self.client.inner.options.retry),
                    last_error: None,
                });
            }
            for slot in accumulator.ready() {
                for _ in 0..self.lanes[slot].window.room() {
                    match accumulator.take(slot) {
                        Some(gathered) => taken.push((slot, gathered)),
                        None => break,
                    }
                }
            }
        }
        for (slot, mut gathered) in taken {
            let count = gathered.builder.count();
            let mut built = None;
            if gathered.builder.estimated_bytes() > BATCH_BYTES_MAX / 2 {
                // What its codec makes of it decides. Sent, it would end the stream, and again at each retry.
                let bytes = std::mem::take(&mut gathered.builder).build();
                if bytes.len() > BATCH_BYTES_MAX {
                    let lane = &self.lanes[slot];
                    let error = too_large(bytes.len());
                    let error = error.context(format_args!("produce to {}-{}", lane.topic, lane.partition));
                    self.end_gathered(gathered, error);
                    continue;
                }
                built = Some(bytes);
            }
            let batch = Batch {
                number: gathered.number,
                bytes: Bytes::new(),
                stamp: None,
                delivery: gathered.delivery,
                deadline: gathered.begun + self.options.delivery_timeout,
                weight: gathered.weight,
            };
            let window = &mut self.lanes[slot].window;
            let identity = self.identity.filter(|_| self.options.idempotent);
            let stamp = window.push(batch, count, identity);
            let bytes = match built {
                Some(bytes) => restamp_producer(bytes, stamp.map(producer_stamp)),
                None => {
                    // Built with its stamp, so that the checksum is computed once.
                    let mut builder = gathered.builder;
                    builder.set_producer(stamp.map(producer_stamp));
                    builder.build()
                }
            };
            let batch = window.last_mut().expect("just pushed");
            (batch.bytes, batch.stamp) = (bytes, stamp);
            self.active.insert(slot);
        }
    }

    fn identify(&mut self, now: Instant) {
        if self.identifying.is_some() || self.identify_at.is_some_and(|at| at > now) {
            return;
        }
        if self.identity.is_none() && self.shared.accumulator.lock().is_idle() {
            return;
        }
        self.identify_at = None;
        let (inner, old) = (self.client.inner.clone(), self.identity);
        // Given up in time to say why, where records expire before a call would.
        let patience = inner.options.operation_timeout.min(self.options.delivery_timeout / 2);
        self.identifying = Some(Box::pin(async move {
            let request = v1::InitProducerIdRequest {
                producer_id: old.map_or(-1, |i| i.id),
                producer_epoch: old.map_or(-1, |i| i32::from(i.epoch)),
            };
            let answer = inner
                .call_until(Instant::now() + patience, Via::Any, Repeat::Safe, |mut wire, _| {
                    Box::pin(async move { wire.init_producer_id(request).await })
                })
                .await
                .map_err(|error| error.context("get a producer id"))?;
            let epoch = i16::try_from(answer.producer_epoch)
                .map_err(|_| Error::protocol("the broker gave a producer epoch that is too large"))?;
            if old == Some(Identity { id: answer.producer_id, epoch }) {
                return Err(Error::protocol("the broker gave the producer its old epoch again"));
            }
            Ok(Identity { id: answer.producer_id, epoch })
        }));
    }

    /// Ends what is older than the delivery time-out.
    fn expire(&mut self, now: Instant) {
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = now + EXPIRY_PERIOD;
        let timeout = self.options.delivery_timeout;
        for &slot in &self.active {
            let lane = &mut self.lanes[slot];
            for (batch, verdict) in lane.window.expire(|batch| batch.deadline <= now) {
                let error = expired(timeout, verdict, lane.last_error.clone());
                self.ended.push((batch, Err(error)));
            }
        }
        let mut unsent = Vec::new();
        {
            let mut accumulator = self.shared.accumulator.lock();
            for slot in accumulator.ready() {
                while let Some(limit) = now.checked_sub(timeout)
                    && let Some(gathered) = accumulator.take_begun_before(slot, limit)
                {
                    unsent.push((slot, gathered));
                }
            }
        }
        for (slot, gathered) in unsent {
            let last = self.lanes.get(slot).and_then(|lane| lane.last_error.clone());
            let last = last.or_else(|| self.identify_error.clone());
            let error = expired(timeout, Verdict::Failed, last);
            self.end_gathered(gathered, error);
        }
    }

    /// Gives broken windows a new identity, once nothing of theirs is on its way.
    fn recover(&mut self, now: Instant) {
        let mut want = false;
        for &slot in &self.active {
            let lane = &mut self.lanes[slot];
            let Some(old) = lane.window.awaits_recovery() else { continue };
            match self.identity {
                Some(identity) if identity != old => {
                    tracing::info!(topic = %lane.topic, partition = lane.partition, ?old, ?identity, "producer epoch bumped after a gap");
                    for (batch, verdict) in lane.window.recover(identity) {
                        let error = ended_unacknowledged(verdict, lane.last_error.clone());
                        self.ended.push((batch, Err(error)));
                    }
                }
                _ => want = true,
            }
        }
        if want {
            self.identify(now);
        }
    }

    /// Puts on the wire whatever may go there now.
    fn transmit(&mut self, now: Instant) {
        let mut by_broker: BTreeMap<u64, Vec<(Slot, i32)>> = BTreeMap::new();
        for &slot in &self.active {
            let lane = &mut self.lanes[slot];
            if lane.retry_at.is_some_and(|at| at > now) || !lane.window.has_waiting() {
                continue;
            }
            let metadata = self.client.inner.metadata.lock();
            let (topic, route) = (metadata.topic(&lane.topic), metadata.route(&lane.topic, lane.partition));
            drop(metadata);
            if let Some(topic) = topic {
                if lane.topic_id.is_some_and(|id| id != topic.id) {
                    lane.window.restart();
                }
                lane.topic_id = Some(topic.id);
            }
            match route {
                Some(route) if lane.topic_id.is_some() => {
                    lane.retry_at = None;
                    by_broker.entry(route.broker).or_default().push((slot, route.leader_epoch));
                }
                _ => {
                    let error = format!("partition {}-{} has no leader now", lane.topic, lane.partition);
                    lane.last_error =
                        Some(Error::new(ErrorKind::Broker(ErrorCode::LeaderNotAvailable), error));
                    lane.retry_at = Some(now + self.client.inner.delay(&mut lane.backoff));
                    self.refresh_wanted = true;
                }
            }
        }
        for (broker, lanes) in by_broker {
            self.transmit_to(broker, lanes, now);
        }
        self.refresh(now);
        self.links.retain(|broker, link| {
            // A broker that left the cluster, or moved.
            let address = self.client.inner.broker_address(*broker);
            link.is_busy() || address.as_deref() == Some(link.address())
        });
    }

    fn transmit_to(&mut self, broker: u64, mut lanes: Vec<(Slot, i32)>, now: Instant) {
        let inner = &self.client.inner;
        let Some(address) = inner.broker_address(broker) else { return };
        let link = self.links.entry(broker).or_insert_with(|| {
            BrokerStream::new(address.clone(), REQUESTS_MAX, inner.options.retry, inner.fork_rng())
        });
        link.open(inner, &address, now);
        while !lanes.is_empty() && link.accepts() {
            // One batch of each partition, until the request is large enough.
            let mut request = v1::ProduceRequest {
                request_id: self.next_request,
                acks: match self.options.acks {
                    Acks::All => v1::Acks::All,
                    Acks::Leader => v1::Acks::Leader,
                    Acks::None => v1::Acks::NoAcks,
                } as i32,
                timeout_ms: millis(inner.options.request_timeout),
                partitions: Vec::new(),
            };
            let mut parts: Vec<Part> = Vec::new();
            let mut bytes = 0;
            let mut rest = Vec::new();
            for (slot, leader_epoch) in lanes.drain(..) {
                let lane = &mut self.lanes[slot];
                let size = lane.window.peek().map_or(0, |batch| batch.bytes.len());
                if bytes > 0 && bytes + size > self.options.max_request_bytes {
                    rest.push((slot, leader_epoch));
                    continue;
                }
                let Some(outgoing) = lane.window.take() else { continue };
                let batch = outgoing.batch;
                if batch.stamp != outgoing.stamp {
                    batch.bytes = restamp_producer(
                        std::mem::take(&mut batch.bytes),
                        outgoing.stamp.map(producer_stamp),
                    );
                    batch.stamp = outgoing.stamp;
                }
                bytes += batch.bytes.len();
                let topic_id = lane.topic_id.expect("looked up before");
                request.partitions.push(v1::ProducePartition {
                    topic_id: id_bytes(topic_id),
                    partition: lane.partition,
                    leader_epoch,
                    batches: batch.bytes.clone(),
                });
                parts.push(Part { slot, ticket: outgoing.ticket, topic_id, partition: lane.partition });
                if lane.window.has_waiting() {
                    rest.push((slot, leader_epoch));
                }
            }
            lanes = rest;
            if parts.is_empty() {
                continue;
            }
            self.next_request += 1;
            if self.options.acks == Acks::None {
                let landed = Landed {
                    base_offset: None,
                    log_append_time_ms: None,
                    duplicate: false,
                    repeats: Box::default(),
                };
                for part in &parts {
                    if let Some((batch, _)) =
                        self.lanes[part.slot].window.settle(part.ticket, Outcome::Appended)
                    {
                        self.ended.push((batch, Ok(landed.clone())));
                    }
                }
            }
            // Longer than the broker's own patience, so that its answer comes first.
            let deadline = now + inner.options.request_timeout + inner.options.request_timeout / 4;
            link.send(request, parts, deadline);
        }
    }

    fn refresh(&mut self, now: Instant) {
        if now >= self.next_refresh {
            self.refresh_wanted = true;
            self.next_refresh = now + self.client.inner.options.metadata_max_age;
        }
        if !self.refresh_wanted || self.refreshing.is_some() || self.refresh_at.is_some_and(|at| at > now) {
            return;
        }
        self.refresh_wanted = false;
        let inner = self.client.inner.clone();
        self.refreshing = Some(Box::pin(async move { inner.refresh(&[]).await }));
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Answered { ticket: parts, response } => {
                for (part, result) in parts.iter().zip(&response.partitions) {
                    self.settle(part, Answer::Result(result), now);
                }
            }
            Event::Lost { tickets, error } => {
                self.refresh_wanted = true;
                for part in tickets.iter().flatten() {
                    self.settle(part, Answer::None(&error), now);
                }
            }
            Event::Unreachable { error } => {
                self.refresh_wanted = true;
                for &slot in &self.active {
                    self.lanes[slot].last_error.get_or_insert_with(|| error.clone());
                }
            }
        }
    }

    fn settle(&mut self, part: &Part, answer: Answer<'_>, now: Instant) {
        let lane = &mut self.lanes[part.slot];
        let (outcome, landed, error) = judge(&answer);
        if let Some(error) = &error {
            tracing::debug!(topic = %lane.topic, partition = lane.partition, %error, "batch not acknowledged");
            let told = self.client.inner.hint(&lane.topic, lane.partition, error);
            if told {
                lane.retry_at = None;
            } else if matches!(outcome, Outcome::NotAppended | Outcome::Unknown) {
                self.refresh_wanted |= !matches!(
                    error.code(),
                    Some(ErrorCode::NotEnoughReplicas | ErrorCode::StorageFull | ErrorCode::Throttled)
                );
                // One delay for all the batches of the window that fail together.
                if lane.retry_at.is_none_or(|at| at <= now) {
                    lane.retry_at = Some(now + self.client.inner.delay(&mut lane.backoff));
                }
            }
            if outcome != Outcome::OutOfOrder || lane.last_error.is_none() {
                lane.last_error = Some(error.clone());
            }
        } else {
            lane.backoff.reset();
            lane.last_error = None;
            self.refresh_backoff.reset();
        }
        if let Some((batch, verdict)) = lane.window.settle(part.ticket, outcome) {
            let result = match (verdict, landed) {
                (Verdict::Appended, Some(landed)) => Ok(landed),
                (verdict, _) => Err(match error {
                    Some(error) if verdict == Verdict::Failed => {
                        error.context(format_args!("produce to {}-{}", lane.topic, lane.partition))
                    }
                    error => ended_unacknowledged(verdict, error),
                }),
            };
            self.ended.push((batch, result));
        }
    }

    /// Tells users, and gives memory back.
    fn report(&mut self) {
        self.active.retain(|slot| {
            let window = &self.lanes[*slot].window;
            !window.is_empty() || window.awaits_recovery().is_some()
        });
        if self.ended.is_empty() {
            return;
        }
        let mut accumulator = self.shared.accumulator.lock();
        let mut weight = 0;
        for (batch, _) in &self.ended {
            accumulator.settled(batch.number);
            weight += batch.weight;
        }
        drop(accumulator);
        for (batch, result) in self.ended.drain(..) {
            batch.delivery.settle(result);
        }
        self.shared.memory.add_permits(weight);
        self.shared.settled.notify_waiters();
    }

    fn end_gathered(&mut self, gathered: Gathered, error: Error) {
        let batch = Batch {
            number: gathered.number,
            bytes: Bytes::new(),
            stamp: None,
            delivery: gathered.delivery,
            deadline: gathered.begun,
            weight: gathered.weight,
        };
        self.ended.push((batch, Err(error)));
    }
}

impl Drop for Sender {
    /// Whatever ends the task, no handle is left waiting.
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        for slot in 0..self.lanes.len() {
            for (batch, verdict) in self.lanes[slot].window.drain() {
                let error = match verdict {
                    Verdict::Indeterminate => {
                        Error::indeterminate("the producer ended before the answer came")
                    }
                    _ => Error::closed("producer"),
                };
                self.ended.push((batch, Err(error)));
            }
        }
        let unsent = self.shared.accumulator.lock().drain();
        for gathered in unsent {
            self.end_gathered(gathered, Error::closed("producer"));
        }
        self.report();
        self.shared.memory.close();
        self.shared.ended.store(true, Ordering::Release);
        self.shared.settled.notify_waiters();
    }
}

fn producer_stamp((identity, base_sequence): (Identity, i32)) -> ProducerStamp {
    ProducerStamp { id: ProducerId(identity.id), epoch: ProducerEpoch(identity.epoch), base_sequence }
}
