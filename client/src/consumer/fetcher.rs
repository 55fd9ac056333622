//! The background task that reads ahead: one Fetch stream to each broker that leads a partition, lookups of
//! committed offsets and places, and what the answers mean ([`super::positions`] decides).
//!
//! Partitions whose last fetch brought records travel in requests of their own, apart from quiet ones: a busy
//! partition's next request does not name every quiet one again.

use super::Shared;
use super::places::{Fetched, Want};
use crate::admin::topics::millis;
use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::error::{Error, ErrorCode, Result};
use crate::stream::{self, BrokerStream, Kind};
use crate::types::{OffsetAndMetadata, TopicId, TopicPartition, id_bytes, id_from};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use strandline_wire::v1;
use tokio::time::{Instant, Sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

/// Requests outstanding at one broker.
const REQUESTS_MAX: usize = 4;
/// Lookups of places under way at once.
const LOOKUPS_MAX: usize = 32;
const EVENTS_MAX: usize = 16;
/// Failures of a partition, with their growing delays, before the user hears of them.
const FAILURES_TOLD: u32 = 8;

/// A partition in a request.
pub(super) struct Asked {
    partition: TopicPartition,
    topic_id: TopicId,
    incarnation: u64,
}

/// The Fetch stream.
pub(super) struct Fetch;
type Event = stream::Event<Fetch>;

impl Kind for Fetch {
    type Request = v1::FetchRequest;
    type Response = v1::FetchResponse;
    type Ticket = Vec<Asked>;

    fn open(
        mut connection: Connection,
        requests: ReceiverStream<v1::FetchRequest>,
    ) -> BoxFuture<'static, Result<Response<Streaming<v1::FetchResponse>>, Status>> {
        Box::pin(async move { connection.wire.fetch(requests).await })
    }

    fn request_id(request: &v1::FetchRequest) -> u64 {
        request.request_id
    }

    fn response_id(response: &v1::FetchResponse) -> u64 {
        response.request_id
    }

    /// An answer may leave out partitions that have nothing new.
    fn fits(_: &Vec<Asked>, _: &v1::FetchResponse) -> bool {
        true
    }
}

/// A fetch to make, with the topic's id and the leader epoch known.
type Routed = (Want, TopicId, i32);
type CommittedAnswer = (Vec<(TopicPartition, u64)>, Result<BTreeMap<TopicPartition, OffsetAndMetadata>>);
type LookupAnswer = (TopicPartition, u64, Result<i64>);

pub(super) struct Fetcher {
    shared: Arc<Shared>,
    streams: BTreeMap<u64, BrokerStream<Fetch>>,
    committed: Option<BoxFuture<'static, CommittedAnswer>>,
    lookups: FuturesUnordered<BoxFuture<'static, LookupAnswer>>,
    refreshing: Option<BoxFuture<'static, Result<()>>>,
    refresh_wanted: BTreeSet<String>,
    refresh_at: Option<Instant>,
    refresh_backoff: Backoff,
    next_refresh: Instant,
    next_request: u64,
    sleep: Pin<Box<Sleep>>,
}

impl Fetcher {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let options = &shared.client.inner.options;
        Fetcher {
            refresh_backoff: Backoff::new(options.retry),
            next_refresh: Instant::now() + options.metadata_max_age,
            streams: BTreeMap::new(),
            committed: None,
            lookups: FuturesUnordered::new(),
            refreshing: None,
            refresh_wanted: BTreeSet::new(),
            refresh_at: None,
            next_request: 0,
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            shared,
        }
    }

    pub(super) async fn run(mut self) {
        let mut events = Vec::new();
        loop {
            let now = Instant::now();
            self.look_up(now);
            self.request(now);
            self.refresh(now);
            let deadline = self.next_deadline(now);
            self.sleep.as_mut().reset(deadline);
            std::future::poll_fn(|cx| self.poll_events(cx, &mut events)).await;
            for event in events.drain(..) {
                self.handle(event);
            }
        }
    }

    fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()> {
        self.shared.fetcher.register(cx.waker());
        let mut woken = self.shared.fetch_signalled.swap(false, Ordering::AcqRel);
        woken |= self.sleep.as_mut().poll(cx).is_ready();
        let now = Instant::now();
        for stream in self.streams.values_mut() {
            woken |= stream.poll(cx, now, events, EVENTS_MAX);
        }
        if let Some(future) = &mut self.committed
            && let Poll::Ready((asked, result)) = future.as_mut().poll(cx)
        {
            (self.committed, woken) = (None, true);
            self.take_committed(asked, result, now);
        }
        while let Poll::Ready(Some((tp, incarnation, result))) = self.lookups.poll_next_unpin(cx) {
            woken = true;
            match result {
                Ok(offset) => self.shared.change(|state| state.positions.looked_up(&tp, incarnation, offset)),
                Err(error) => self.failed(&tp, incarnation, error, now),
            }
        }
        if let Some(future) = &mut self.refreshing
            && let Poll::Ready(result) = future.as_mut().poll(cx)
        {
            (self.refreshing, woken) = (None, true);
            if let Err(error) = result {
                tracing::debug!(%error, "metadata refresh failed");
            }
            self.refresh_at = Some(now + self.shared.client.inner.delay(&mut self.refresh_backoff));
        }
        if woken { Poll::Ready(()) } else { Poll::Pending }
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let retry = self.shared.state.lock().positions.next_retry(now);
        let streams = self.streams.values().filter_map(BrokerStream::deadline);
        let refresh = self.refresh_at.filter(|at| !self.refresh_wanted.is_empty() && *at > now);
        streams.chain(retry).chain(refresh).fold(self.next_refresh, Instant::min)
    }

    /// Starts lookups of positions that are not known.
    fn look_up(&mut self, now: Instant) {
        let inner = &self.shared.client.inner;
        if self.committed.is_none()
            && let Some(group) = self.shared.options.group.clone()
        {
            let wanted = self.shared.state.lock().positions.want_committed(now);
            if !wanted.is_empty() {
                let inner = inner.clone();
                self.committed = Some(Box::pin(async move {
                    let partitions: Vec<_> = wanted.iter().map(|(tp, _)| tp.clone()).collect();
                    let result = inner.fetch_offsets(&group, &partitions).await;
                    (wanted, result)
                }));
            }
        }
        let room = LOOKUPS_MAX - self.lookups.len();
        let wanted = self.shared.state.lock().positions.want_lookup(now, room);
        for (tp, incarnation, spec) in wanted {
            let inner = inner.clone();
            self.lookups.push(Box::pin(async move {
                let found = match inner.list_offset(&tp, spec).await {
                    Ok(listed) => match listed.offset {
                        Some(offset) => Ok(offset),
                        // No record at or after the timestamp: on from the end.
                        None => inner
                            .list_offset(&tp, crate::types::OffsetSpec::Latest)
                            .await
                            .map(|l| l.offset.unwrap_or(0)),
                    },
                    Err(error) => Err(error),
                };
                (tp, incarnation, found)
            }));
        }
    }

    fn take_committed(
        &mut self,
        asked: Vec<(TopicPartition, u64)>,
        result: Result<BTreeMap<TopicPartition, OffsetAndMetadata>>,
        now: Instant,
    ) {
        match result {
            Ok(offsets) => self.shared.change(|state| {
                for (tp, incarnation) in &asked {
                    state.positions.committed(tp, *incarnation, offsets.get(tp));
                }
            }),
            Err(error) => {
                for (tp, incarnation) in &asked {
                    self.failed(tp, *incarnation, error.clone(), now);
                }
            }
        }
    }

    /// Sends fetches for every partition that can use one.
    fn request(&mut self, now: Instant) {
        let options = &self.shared.options;
        let wants = {
            let state = self.shared.state.lock();
            if state.positions.buffered() >= options.prefetch_bytes {
                return;
            }
            state.positions.want_fetch(now, 2 * options.partition_fetch_bytes as usize)
        };
        let inner = self.shared.client.inner.clone();
        let mut groups: BTreeMap<(u64, bool), Vec<Routed>> = BTreeMap::new();
        for want in wants {
            let (topic, route) = {
                let metadata = inner.metadata.lock();
                let tp = &want.partition;
                (metadata.topic(&tp.topic), metadata.route(&tp.topic, tp.partition))
            };
            match (topic, route) {
                (Some(topic), Some(route)) => {
                    groups.entry((route.broker, want.hot)).or_default().push((
                        want,
                        topic.id,
                        route.leader_epoch,
                    ));
                }
                (topic, _) => {
                    let tp = &want.partition;
                    if let Some(topic) = topic
                        && tp.partition as usize >= topic.partitions.len()
                    {
                        let error = Error::invalid(format!(
                            "topic {} has {} partitions, there is no partition {}",
                            tp.topic,
                            topic.partitions.len(),
                            tp.partition
                        ));
                        self.shared.change(|state| state.positions.stop_current(tp, want.incarnation, error));
                        continue;
                    }
                    self.refresh_wanted.insert(tp.topic.to_string());
                    let at = now + inner.options.retry.max;
                    self.shared.state.lock().positions.failed(tp, want.incarnation, at);
                }
            }
        }
        for ((broker, _), wants) in groups {
            let Some(address) = inner.broker_address(broker) else { continue };
            let stream = self.streams.entry(broker).or_insert_with(|| {
                BrokerStream::new(address.clone(), REQUESTS_MAX, inner.options.retry, inner.fork_rng())
            });
            stream.open(&inner, &address, now);
            if !stream.accepts() {
                continue;
            }
            let options = &self.shared.options;
            let mut request = v1::FetchRequest {
                request_id: self.next_request,
                max_wait_ms: millis(options.fetch_max_wait),
                min_bytes: options.fetch_min_bytes,
                max_bytes: options.fetch_max_bytes,
                partitions: Vec::with_capacity(wants.len()),
            };
            self.next_request += 1;
            let mut asked = Vec::with_capacity(wants.len());
            let mut state = self.shared.state.lock();
            for (want, topic_id, leader_epoch) in wants {
                state.positions.fetching(&want.partition, want.incarnation);
                request.partitions.push(v1::FetchPartition {
                    topic_id: id_bytes(topic_id),
                    partition: want.partition.partition,
                    leader_epoch,
                    offset: want.offset,
                    last_fetched_epoch: want.last_fetched_epoch,
                    max_bytes: options.partition_fetch_bytes,
                });
                asked.push(Asked { partition: want.partition, topic_id, incarnation: want.incarnation });
            }
            drop(state);
            stream.send(request, asked, now + options.fetch_max_wait + inner.options.request_timeout);
        }
        self.streams.retain(|broker, stream| {
            stream.is_busy() || inner.broker_address(*broker).as_deref() == Some(stream.address())
        });
    }

    fn refresh(&mut self, now: Instant) {
        if now >= self.next_refresh {
            self.next_refresh = now + self.shared.client.inner.options.metadata_max_age;
            let assigned = self.shared.state.lock().positions.assignment();
            self.refresh_wanted.extend(assigned.iter().map(|tp| tp.topic.to_string()));
        }
        if self.refresh_wanted.is_empty()
            || self.refreshing.is_some()
            || self.refresh_at.is_some_and(|at| at > now)
        {
            return;
        }
        let topics: Vec<String> = std::mem::take(&mut self.refresh_wanted).into_iter().collect();
        let inner = self.shared.client.inner.clone();
        self.refreshing = Some(Box::pin(async move { inner.refresh(&topics).await }));
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Answered { ticket, response } => self.answered(ticket, response, now),
            Event::Lost { tickets, error } => {
                tracing::debug!(%error, "fetches lost");
                let mut state = self.shared.state.lock();
                for asked in tickets.iter().flatten() {
                    self.refresh_wanted.insert(asked.partition.topic.to_string());
                    // Reading again does no harm, and the stream has its own delay.
                    state.positions.cancelled(&asked.partition, asked.incarnation);
                }
            }
            Event::Unreachable { error } => {
                tracing::debug!(%error, "broker not reachable");
                let assigned = self.shared.state.lock().positions.assignment();
                self.refresh_wanted.extend(assigned.iter().map(|tp| tp.topic.to_string()));
            }
        }
    }

    fn answered(&mut self, ticket: Vec<Asked>, response: v1::FetchResponse, now: Instant) {
        let mut results: BTreeMap<(TopicId, i32), v1::FetchPartitionResult> = response
            .partitions
            .into_iter()
            .filter_map(|result| Some(((id_from(&result.topic_id)?, result.partition), result)))
            .collect();
        let mut for_user = false;
        let mut failures = Vec::new();
        {
            let mut state = self.shared.state.lock();
            for asked in ticket {
                let tp = &asked.partition;
                let Some(result) = results.remove(&(asked.topic_id, tp.partition)) else {
                    // Nothing new there.
                    let nothing = Fetched { high_watermark: -1, log_start: -1, ..Fetched::default() };
                    state.positions.fetched(tp, asked.incarnation, &nothing);
                    continue;
                };
                match Error::from_wire(result.error.as_ref()) {
                    None => {
                        let fetched = Fetched {
                            batches: result.batches,
                            high_watermark: result.high_watermark,
                            log_start: result.log_start_offset,
                            diverging: result.diverging.map(|end| (end.epoch, end.end_offset)),
                        };
                        let some = fetched.batches != Bytes::new() || fetched.diverging.is_some();
                        for_user |= state.positions.fetched(tp, asked.incarnation, &fetched) && some;
                    }
                    Some(error) if error.code() == Some(ErrorCode::OffsetOutOfRange) => {
                        let (start, end) = (result.log_start_offset, result.high_watermark);
                        state.positions.out_of_range(tp, asked.incarnation, start, end);
                        for_user = true;
                    }
                    Some(error) => failures.push((asked, error)),
                }
            }
        }
        if for_user {
            // Wakes the user; the count of changes makes it look even in the middle of a chunk, which is cheap.
            self.shared.change(|_| ());
        }
        let inner = self.shared.client.inner.clone();
        for (asked, error) in failures {
            let tp = &asked.partition;
            if inner.hint(&tp.topic, tp.partition, &error) {
                self.shared.state.lock().positions.cancelled(tp, asked.incarnation);
            } else {
                self.refresh_wanted.insert(tp.topic.to_string());
                self.failed(tp, asked.incarnation, error, now);
            }
        }
        if self.refresh_wanted.is_empty() {
            self.refresh_backoff.reset();
        }
    }

    fn failed(&mut self, tp: &TopicPartition, incarnation: u64, error: Error, now: Instant) {
        let inner = &self.shared.client.inner;
        tracing::debug!(partition = %tp, %error, "fetch failed");
        if !error.is_retriable() && !error.may_have_happened() {
            let error = error.context(format_args!("read {tp}"));
            self.shared.change(|state| state.positions.stop_current(tp, incarnation, error));
            return;
        }
        let failures = self.shared.state.lock().positions.failures(tp);
        if error.code() == Some(ErrorCode::UnknownTopicOrPartition) && failures + 1 >= FAILURES_TOLD {
            // It was not created a moment ago; it does not exist, or no longer.
            let error = error.context(format_args!("read {tp}"));
            self.shared.change(|state| state.positions.stop_current(tp, incarnation, error));
            return;
        }
        let mut state = self.shared.state.lock();
        let retry = inner.options.retry;
        let delay = retry.first.saturating_mul(1 << failures.min(10)).min(retry.max);
        state.positions.failed(tp, incarnation, now + delay);
        drop(state);
        if failures + 1 == FAILURES_TOLD {
            tracing::warn!(partition = %tp, %error, "cannot be read for now; still trying");
        }
    }
}
