//! The partitions that this node holds: found by requests, started, re-led and stopped by metadata.
//!
//! Invariants: a partition object exists exactly for the partitions of the image that name this node as a
//! replica (once the image has been applied), except for those whose log cannot be opened, which are tried again
//! with growing pauses; nothing acts before this process's registration is in the image.

use crate::context::Context;
use crate::error::ServeError;
use crate::metrics::{Requests, records_in};
use crate::partition::Partition;
use crate::replica::Fetchers;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::{Delta, Image};
use strandline_record::{PartitionId, TopicPartition};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pauses between attempts to open a log.
const OPEN_AGAIN_MS: u64 = 500;
const OPEN_AGAIN_MAX_MS: u64 = 30_000;

/// The produce budget is counted in units, so that it fits a semaphore.
const BUDGET_UNIT: usize = 1024;

#[derive(Debug)]
pub struct Broker {
    context: Arc<Context>,
    partitions: RwLock<BTreeMap<TopicPartition, Arc<Partition>>>,
    /// Partitions of this node whose log could not be opened; none of them is in `partitions`.
    unopened: Mutex<BTreeMap<TopicPartition, Unopened>>,
    fetchers: Arc<Fetchers>,
    produce_budget: Arc<Semaphore>,
    produce_budget_units: u32,
}

/// Why a partition is not here, and when it is tried again.
#[derive(Debug)]
struct Unopened {
    error: ServeError,
    pause_ms: u64,
    again_ms: u64,
}

impl Unopened {
    fn new(error: ServeError, before: Option<&Unopened>, now_ms: u64) -> Self {
        let pause_ms = before.map_or(OPEN_AGAIN_MS, |before| (before.pause_ms * 2).min(OPEN_AGAIN_MAX_MS));
        Unopened { error, pause_ms, again_ms: now_ms + pause_ms }
    }
}

/// What the data directory holds and metadata does not know is looked for once.
#[derive(Debug, Default)]
pub struct Orphans {
    looked: bool,
}

impl Broker {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        let units = (context.config.produce_inflight_max_bytes as usize / BUDGET_UNIT)
            .clamp(1, u32::MAX as usize / 2);
        Arc::new(Broker {
            fetchers: Fetchers::new(context.clone()),
            context,
            partitions: RwLock::default(),
            unopened: Mutex::default(),
            produce_budget: Arc::new(Semaphore::new(units)),
            produce_budget_units: units as u32,
        })
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub fn partition(&self, tp: TopicPartition) -> Option<Arc<Partition>> {
        self.partitions.read().get(&tp).cloned()
    }

    /// The partition, or why it is not here.
    pub fn partition_or_error(&self, tp: TopicPartition) -> Result<Arc<Partition>, ServeError> {
        if let Some(partition) = self.partition(tp) {
            return Ok(partition);
        }
        if self.context.broker_epoch().is_none() {
            return Err(ServeError::ClusterNotReady("this node is still starting".to_owned()));
        }
        let image = self.context.image();
        match image.partition(tp) {
            Some(agreed) => {
                if agreed.leader == Some(self.context.id)
                    && let Some(unopened) = self.unopened.lock().get(&tp)
                {
                    return Err(unopened.error.clone());
                }
                let leader = agreed.leader.filter(|leader| *leader != self.context.id);
                Err(ServeError::NotLeader { leader, epoch: agreed.leader_epoch })
            }
            None => Err(ServeError::UnknownPartition),
        }
    }

    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().cloned().collect()
    }

    /// Batches of a partition go out to a consumer.
    pub fn fetched(&self, requests: &Requests, tp: Option<TopicPartition>, batches: &[u8]) {
        let records = records_in(batches);
        requests.volume.add(records, batches.len());
        if let Some(partition) = tp.and_then(|tp| self.partition(tp)) {
            partition.meters().fetched.add(records, batches.len());
        }
    }

    /// Waits until `bytes` more may be in flight; they are until the permit is dropped. A request larger
    /// than the whole budget waits for all of it.
    pub async fn produce_budget(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = (bytes.div_ceil(BUDGET_UNIT) as u32).clamp(1, self.produce_budget_units);
        self.produce_budget.clone().acquire_many_owned(units).await.expect("the budget is never closed")
    }

    /// Follows the metadata: each partition that changed gets its new role.
    pub fn apply(&self, image: &Arc<Image>, delta: &Delta, orphans: &mut Orphans) {
        if self.context.broker_epoch().is_none() {
            return;
        }
        for tp in self.affected(image, delta) {
            self.apply_one(tp, image);
        }
        if !orphans.looked {
            orphans.looked = true;
            self.quarantine_unknown(image);
        }
    }

    fn apply_one(&self, tp: TopicPartition, image: &Arc<Image>) {
        let Some(agreed) = image.partition(tp).filter(|p| p.replicas.contains(&self.context.id)) else {
            self.unopened.lock().remove(&tp);
            return self.stop_and_delete(tp, image);
        };
        match self.get_or_start(tp, image) {
            Ok(partition) => {
                if self.unopened.lock().remove(&tp).is_some() {
                    tracing::info!(partition = %tp, "the partition could be opened now");
                }
                partition.apply(image, agreed);
            }
            Err(error) => {
                let mut unopened = self.unopened.lock();
                let known = unopened.get(&tp);
                if known.is_none_or(|known| known.error != error) {
                    tracing::error!(partition = %tp, %error, "the partition could not be opened; it is tried again");
                }
                let again = Unopened::new(error, known, self.context.now_ms());
                unopened.insert(tp, again);
            }
        }
    }

    /// Tries again to open what could not be opened. To be called by the task that applies the metadata, which
    /// alone starts and stops partitions.
    pub fn open_again(&self, image: &Arc<Image>) {
        let now_ms = self.context.now_ms();
        let due: Vec<TopicPartition> = {
            let unopened = self.unopened.lock();
            unopened.iter().filter(|(_, known)| known.again_ms <= now_ms).map(|(tp, _)| *tp).collect()
        };
        for tp in due {
            self.apply_one(tp, image);
        }
    }

    /// Whether something waits for [`Broker::open_again`].
    pub fn has_unopened(&self) -> bool {
        !self.unopened.lock().is_empty()
    }

    /// Partitions of this node whose log cannot be opened so far.
    pub fn unopened(&self) -> usize {
        self.unopened.lock().len()
    }

    fn affected(&self, image: &Image, delta: &Delta) -> BTreeSet<TopicPartition> {
        let mut affected: BTreeSet<TopicPartition> = delta.partitions.clone();
        if delta.full {
            affected.extend(image.partitions.keys().copied());
            affected.extend(self.partitions.read().keys().copied());
            affected.extend(self.context.store.logs());
            return affected;
        }
        for topic in &delta.topics {
            let count = image.topics.get(topic).map_or(0, |t| t.partitions);
            affected.extend((0..count).map(|n| TopicPartition { topic: *topic, partition: PartitionId(n) }));
            let first = TopicPartition { topic: *topic, partition: PartitionId(0) };
            let last = TopicPartition { topic: *topic, partition: PartitionId(i32::MAX) };
            affected.extend(self.partitions.read().range(first..=last).map(|(tp, _)| *tp));
        }
        if !delta.brokers.is_empty() {
            // Broker epochs and addresses matter to every leader and follower of these brokers.
            let concerned = self.partitions.read();
            affected.extend(concerned.keys().filter_map(|tp| {
                let agreed = image.partition(*tp)?;
                agreed.replicas.iter().any(|replica| delta.brokers.contains(replica)).then_some(*tp)
            }));
        }
        affected
    }

    fn get_or_start(&self, tp: TopicPartition, image: &Image) -> Result<Arc<Partition>, ServeError> {
        if let Some(partition) = self.partition(tp) {
            return Ok(partition);
        }
        let topic =
            image.topics.get(&tp.topic).ok_or_else(|| ServeError::UnknownTopic(tp.topic.to_string()))?;
        let partition = Partition::open(self.context.clone(), self.fetchers.clone(), tp, topic)?;
        self.partitions.write().insert(tp, partition.clone());
        Ok(partition)
    }

    /// The topic was deleted, or the replica moved away: in either case metadata says so in so many words,
    /// which is the only reason to delete data.
    fn stop_and_delete(&self, tp: TopicPartition, image: &Image) {
        let Some(partition) = self.partitions.write().remove(&tp) else { return };
        partition.stop();
        let reason =
            if image.partition(tp).is_some() { "the replica moved away" } else { "the topic was deleted" };
        tracing::info!(partition = %tp, topic = %partition.topic(), reason, "deleting the log");
        self.context.store.delete_log(tp);
    }

    /// Logs that metadata does not name are kept aside, never deleted (hazard 20).
    fn quarantine_unknown(&self, image: &Image) {
        for tp in self.context.store.logs() {
            let mine = image.partition(tp).is_some_and(|p| p.replicas.contains(&self.context.id));
            if !mine && self.partition(tp).is_none() {
                tracing::warn!(partition = %tp, "metadata does not know this log; moving it to orphaned/");
                self.context.store.quarantine_log(tp);
            }
        }
    }

    /// Stops every partition; waiting requests end as unknown. What they were can still be looked at.
    pub fn stop(&self) {
        for partition in self.partitions() {
            partition.stop();
        }
        self.fetchers.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_between_attempts_to_open_a_log_grow_to_a_bound() {
        let error = || ServeError::NotOpened("no".to_owned());
        let mut unopened = Unopened::new(error(), None, 1000);
        assert_eq!(unopened.again_ms, 1000 + OPEN_AGAIN_MS);
        for _ in 0..10 {
            let next = Unopened::new(error(), Some(&unopened), 2000);
            assert!(next.pause_ms > unopened.pause_ms || next.pause_ms == OPEN_AGAIN_MAX_MS);
            unopened = next;
        }
        assert_eq!(unopened.again_ms, 2000 + OPEN_AGAIN_MAX_MS);
    }
}
