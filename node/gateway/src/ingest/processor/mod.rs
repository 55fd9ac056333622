//! Brings batches into the store, whatever the store does meanwhile.
//!
//! ```text
//!  batches ─► try ─ fails ─► halve, in order ─► one event ─► try, wait, try … ─┬─ taken
//!                                                                             ├─ the store takes nothing else either:
//!                                                                             │  an outage, which fails no event: wait
//!                                                                             └─ it takes other writes, but not this:
//!                                                                                dead-letter it, write it as failed
//! ```
//!
//! Time, randomness, the store and the dead-letter topic are given. Invariants: a batch is left only when the store's
//! offset has passed it, or at [`Behind`], with nothing after the gap written; every event in it is then processed,
//! rejected, a duplicate, or failed, and a failed one was acknowledged by the dead-letter topic before.

mod backoff;
mod counts;

use super::record::{DeadLetter, origin};
use super::store::{Batch, Source, Store, StoreError, Verdict};
use async_trait::async_trait;
pub(super) use backoff::Backoff;
use bytes::Bytes;
pub(crate) use counts::Counts;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Takes dead letters; returns once they are durable.
#[async_trait]
pub(super) trait DeadLetters: Send + Sync {
    async fn send(&self, letter: &DeadLetter) -> Result<(), String>;
}

/// How often and how fast the store is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) attempts: u32,
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

/// What a dead letter needs of its record beside the write.
#[derive(Clone, Debug)]
pub(super) struct Extra {
    pub(super) value: Bytes,
    pub(super) redrives: u32,
    /// A failure was asked for, and may be.
    pub(super) fails: bool,
}

/// What the rest of the gateway may know of the processor.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Last error of the store, while it has not worked since.
    pub(crate) error: Mutex<Option<String>>,
    pub(crate) counts: Counts,
}

/// Batches of different sources; the extras by source and offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    pub(super) batches: Vec<Batch>,
    pub(super) extras: BTreeMap<(Source, i64), Extra>,
}

/// The store's offset of a source is before the work that was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) of: Source,
    pub(super) next: i64,
}

/// One processor, which brings one piece of work at a time.
pub(super) struct Processor {
    store: Arc<dyn Store>,
    dead_letters: Arc<dyn DeadLetters>,
    patience: Patience,
    health: Arc<Health>,
    rng: StdRng,
}

/// Why a try did not work.
enum Failed {
    Behind(Behind),
    Because(String),
}

impl Processor {
    pub(super) fn new(
        store: Arc<dyn Store>,
        dead_letters: Arc<dyn DeadLetters>,
        patience: Patience,
        health: Arc<Health>,
        seed: u64,
    ) -> Self {
        Processor { store, dead_letters, patience, health, rng: StdRng::seed_from_u64(seed) }
    }

    /// Writes all of it. Waits as long as the store is out of order.
    pub(super) async fn write(&mut self, work: Work) -> Result<(), Behind> {
        let extras = work.extras;
        let mut parts = vec![work.batches];
        while let Some(part) = parts.pop() {
            let part: Arc<[Batch]> = part.into();
            match self.attempt(&part, &extras).await {
                Ok(()) => {}
                Err(Failed::Behind(behind)) => return Err(behind),
                Err(Failed::Because(error)) => match halves(&part) {
                    Some((first, second)) => {
                        parts.push(second);
                        parts.push(first);
                    }
                    None => self.insist(&part[0], &extras, error).await?,
                },
            }
        }
        Ok(())
    }

    async fn attempt(
        &self,
        batches: &Arc<[Batch]>,
        extras: &BTreeMap<(Source, i64), Extra>,
    ) -> Result<(), Failed> {
        let writes = batches.iter().flat_map(|batch| batch.writes.iter().map(move |write| (batch, write)));
        let simulated = writes
            .filter(|(_, write)| matches!(write.verdict, Verdict::Processed(_)))
            .any(|(batch, write)| extras.get(&(batch.source, write.offset)).is_some_and(|extra| extra.fails));
        if simulated {
            self.health.counts.store_errors.inc();
            return Err(Failed::Because("the failure that ?simulateFailure=true asked for".into()));
        }
        let began = Instant::now();
        let applied = self.store.apply(batches.clone()).await;
        self.health.counts.applied(batches, began.elapsed(), &applied);
        match applied {
            Ok(()) => {
                *self.health.error.lock() = None;
                Ok(())
            }
            Err(StoreError::Behind { of, next }) => Err(Failed::Behind(Behind { of, next })),
            Err(error) => Err(Failed::Because(error.to_string())),
        }
    }

    /// Brings one event in, whose first attempt has failed with `error`.
    async fn insist(
        &mut self,
        batch: &Batch,
        extras: &BTreeMap<(Source, i64), Extra>,
        mut error: String,
    ) -> Result<(), Behind> {
        let alone: Arc<[Batch]> = Arc::new([batch.clone()]);
        let mut backoff = Backoff::new(self.patience);
        let mut attempts = 1;
        loop {
            if attempts >= self.patience.attempts {
                if !self.probe(&error).await {
                    // An outage fails no event. The waits go on growing; the count begins again when it ends.
                    attempts = 0;
                } else if let Some(write) = batch.writes.first() {
                    let extra = extras.get(&(batch.source, write.offset));
                    return self.give_up(batch, extra, attempts, error).await;
                }
            }
            tokio::time::sleep(backoff.next(&mut self.rng)).await;
            attempts += 1;
            match self.attempt(&alone, extras).await {
                Ok(()) => return Ok(()),
                Err(Failed::Behind(behind)) => return Err(behind),
                Err(Failed::Because(why)) => error = why,
            }
        }
    }

    /// Whether the store takes anything.
    async fn probe(&self, error: &str) -> bool {
        match self.store.probe().await {
            Ok(()) => true,
            Err(outage) => {
                if self.health.error.lock().replace(outage.to_string()).is_none() {
                    tracing::warn!(%outage, first = error, "the ingest store is out of order; waiting for it");
                }
                false
            }
        }
    }

    /// Dead-letters an event that only it, of all writes, the store does not take, and writes that it failed.
    async fn give_up(
        &mut self,
        batch: &Batch,
        extra: Option<&Extra>,
        attempts: u32,
        error: String,
    ) -> Result<(), Behind> {
        let write = &batch.writes[0];
        let mut failed = batch.clone();
        if let Verdict::Processed(event) = &write.verdict {
            let letter = DeadLetter {
                id: write.id,
                redrives: extra.map_or(0, |extra| extra.redrives),
                value: extra.map(|extra| extra.value.clone()).unwrap_or_default(),
                error: error.clone(),
                attempts,
                origin: origin(&batch.topic, batch.source, write.offset),
            };
            tracing::warn!(id = %letter.id, origin = %letter.origin, attempts, %error, "an event failed");
            let mut backoff = Backoff::new(self.patience);
            while let Err(why) = self.dead_letters.send(&letter).await {
                tracing::warn!(id = %letter.id, why, "the dead-letter topic does not take it; trying again");
                tokio::time::sleep(backoff.next(&mut self.rng)).await;
            }
            self.health.counts.dead_letters.inc();
            failed.writes[0].verdict = Verdict::Failed { event: event.clone(), error, attempts };
        }
        if self.mark(failed.clone(), attempts).await? {
            return Ok(());
        }
        // What the store does not take may be what the mark repeats. The event lies in its topics; pass it over.
        tracing::error!(id = %write.id, "the store takes neither the event nor the mark that it failed");
        failed.writes.clear();
        while !self.mark(failed.clone(), attempts).await? {}
        Ok(())
    }

    /// Tries a batch until the store takes it, or takes other writes but not this one `attempts` times: then false.
    async fn mark(&mut self, batch: Batch, attempts: u32) -> Result<bool, Behind> {
        let batches: Arc<[Batch]> = Arc::new([batch]);
        let mut backoff = Backoff::new(self.patience);
        let mut refusals = 0;
        loop {
            match self.attempt(&batches, &BTreeMap::new()).await {
                Ok(()) => return Ok(true),
                Err(Failed::Behind(behind)) => return Err(behind),
                Err(Failed::Because(error)) => refusals += u32::from(self.probe(&error).await),
            }
            if refusals >= attempts {
                return Ok(false);
            }
            tokio::time::sleep(backoff.next(&mut self.rng)).await;
        }
    }
}

/// Two parts to try one after the other; `None` of what cannot be divided.
fn halves(batches: &[Batch]) -> Option<(Vec<Batch>, Vec<Batch>)> {
    if batches.len() > 1 {
        let (first, second) = batches.split_at(batches.len() / 2);
        return Some((first.to_vec(), second.to_vec()));
    }
    let batch = batches.first().filter(|batch| batch.writes.len() > 1)?;
    let (mut first, mut second) = (batch.clone(), batch.clone());
    second.writes = first.writes.split_off(batch.writes.len() / 2);
    (first.next, second.from) = (second.writes[0].offset, second.writes[0].offset);
    Some((vec![first], vec![second]))
}

#[cfg(test)]
mod tests;
