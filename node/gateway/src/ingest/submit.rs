//! Taking events in: each is written to the log, and its answer waits for what becomes of it.
//!
//! Whether an event is a resend is decided by the log's order, which all gateways read alike: the first record of an
//! event is the event. The answer compares the place of its own record with the place that the store has for the event.
//! (Where the broker itself refuses a second record of one key, the delivery says so already; nothing else changes.)

use super::normalise::{EventId, Rejection};
use super::pipeline::{Ingest, NoTopics, Stage};
use super::record;
use super::store::{Source, StoredEvent};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use strandline_client::{Delivery, DeliveryHandle, Error};
use tokio::time::Instant;

/// What became of one event of a request.
#[derive(Debug)]
pub(super) struct Submitted {
    /// Its identity.
    pub(super) id: EventId,
    /// Why it was rejected, if it was.
    pub(super) rejection: Option<Rejection>,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// The store has it; `duplicate`: from an earlier record.
    Settled { event: Box<StoredEvent>, duplicate: bool },
    /// It is durable, and has not been processed so far.
    Accepted(Delivery),
    /// It was not written, or perhaps was.
    Unwritten(Error),
}

struct Sent {
    id: EventId,
    rejection: Option<Rejection>,
    written: Result<DeliveryHandle, Error>,
}

impl Ingest {
    /// Writes events, and waits (if `wait`) until the store has them, at most as long as configured.
    ///
    /// # Errors
    /// Where nothing was written, because the topics cannot be had.
    pub(super) async fn submit(
        &self,
        events: &[&RawValue],
        simulate_failure: bool,
        wait: bool,
    ) -> Result<Vec<Submitted>, NoTopics> {
        let arrived = Instant::now();
        if matches!(self.stage(), Stage::Starting | Stage::Idle) {
            self.make_topics().await?;
        }
        let producer = self.producer()?;
        let now_ms = self.client.now_ms();
        let mut sent = Vec::with_capacity(events.len());
        for original in events {
            let (id, rejection, record) = match self.rules.normalise(original.get(), now_ms) {
                Ok(event) => {
                    let id = event.id();
                    (id, None, record::accepted(&event, id, original, simulate_failure))
                }
                Err(rejection) => {
                    let id = EventId::of(original.get().as_bytes());
                    let reason = rejection.to_string();
                    let record = record::rejected(original.get(), id, &reason, rejection.client.as_deref());
                    (id, Some(rejection), record)
                }
            };
            sent.push(Sent { id, rejection, written: producer.send(record).await });
        }
        let mut written = Vec::with_capacity(sent.len());
        for Sent { id, rejection, written: handle } in sent {
            let delivery = match handle {
                Ok(handle) => handle.await,
                Err(error) => Err(error),
            };
            written.push((id, rejection, delivery));
        }
        if written.iter().all(|(_, _, delivery)| delivery.is_ok()) {
            self.enqueued.record(arrived.elapsed());
        }
        let rows = if wait { self.rows(&written).await } else { BTreeMap::new() };
        let settle = |(id, rejection, delivery): (EventId, Option<Rejection>, Result<Delivery, Error>)| {
            let outcome = match delivery {
                Err(error) => Outcome::Unwritten(error),
                Ok(delivery) => match rows.get(&id) {
                    None => Outcome::Accepted(delivery),
                    Some(event) => {
                        let first = event.topic == *delivery.topic
                            && event.partition == delivery.partition
                            && delivery.offset == Some(event.offset);
                        let duplicate = delivery.repeated || !first;
                        Outcome::Settled { event: Box::new(event.clone()), duplicate }
                    }
                },
            };
            Submitted { id, rejection, outcome }
        };
        Ok(written.into_iter().map(settle).collect())
    }

    /// The store's rows of what was written, once it has come so far; none if that takes too long.
    async fn rows(
        &self,
        written: &[(EventId, Option<Rejection>, Result<Delivery, Error>)],
    ) -> BTreeMap<EventId, StoredEvent> {
        let deadline = tokio::time::Instant::now() + self.config.wait();
        let look_up = async {
            let mut targets: BTreeMap<Source, i64> = BTreeMap::new();
            let mut ids = Vec::with_capacity(written.len());
            for (id, _, delivery) in written {
                let Ok(delivery) = delivery else { continue };
                let topic = self.client.topic(&delivery.topic).await.ok()?;
                let source = Source { topic_id: *topic.id.0.as_bytes(), partition: delivery.partition };
                let next = targets.entry(source).or_insert(0);
                *next = (*next).max(delivery.offset? + 1);
                ids.push(*id);
            }
            if !self.progress.reach(&targets, self.config.wait()).await {
                return None;
            }
            let Stage::Open(store) = self.stage() else { return None };
            store.get(ids).await.ok()
        };
        tokio::time::timeout_at(deadline, look_up).await.ok().flatten().unwrap_or_default()
    }
}
