//! The leader's end of one replication stream: which partitions have something to send to this follower.
//!
//! Partitions mark themselves ready (cheap, under their own lock); the stream, when its socket has room,
//! takes what is ready and asks each partition for its data. One wake-up serves everything that gathered.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use strandline_record::{BrokerEpoch, BrokerId, TopicPartition};
use strandline_wire::peer::ReplicaDataPartition;
use tokio::sync::Notify;

/// Bytes of batches in one message; more waits for the next.
pub const MAX_MESSAGE_BYTES: usize = 2 << 20;

/// One follower's stream, as partitions see it.
#[derive(Debug)]
pub struct ReplicaSession {
    pub broker: BrokerId,
    pub broker_epoch: BrokerEpoch,
    /// Tells a follower's streams apart: a late message of an older stream must not move a newer one.
    pub number: u64,
    ready: Mutex<Ready>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Ready {
    partitions: BTreeSet<TopicPartition>,
    /// Answers that need no data (refusals, divergence).
    answers: Vec<ReplicaDataPartition>,
}

/// What to send next.
#[derive(Debug, Default)]
pub struct Batch {
    pub partitions: Vec<TopicPartition>,
    pub answers: Vec<ReplicaDataPartition>,
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

impl ReplicaSession {
    pub fn new(broker: BrokerId, broker_epoch: BrokerEpoch) -> Self {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        ReplicaSession { broker, broker_epoch, number, ready: Mutex::default(), notify: Notify::new() }
    }

    /// The partition has data, or a mark to pass on, for this follower.
    pub fn mark_ready(&self, tp: TopicPartition) {
        if self.ready.lock().partitions.insert(tp) {
            self.notify.notify_one();
        }
    }

    pub fn answer(&self, answer: ReplicaDataPartition) {
        // Bounded by the stream's reader, which looks at their number before it takes in more requests.
        self.ready.lock().answers.push(answer);
        self.notify.notify_one();
    }

    /// Answers that wait to be sent.
    pub fn answers(&self) -> usize {
        self.ready.lock().answers.len()
    }

    /// Waits for something to send. Nothing is lost when it is dropped.
    pub async fn next(&self) -> Batch {
        loop {
            {
                let mut ready = self.ready.lock();
                if !ready.partitions.is_empty() || !ready.answers.is_empty() {
                    let partitions = std::mem::take(&mut ready.partitions).into_iter().collect();
                    return Batch { partitions, answers: std::mem::take(&mut ready.answers) };
                }
            }
            self.notify.notified().await;
        }
    }
}
