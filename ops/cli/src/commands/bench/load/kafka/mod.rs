//! Requests over Kafka's protocol: `Produce`, one batch of records each, straight to the leader of its partition.
//!
//! ```text
//!  slot ─▶ partition (by key, or in turn) ─▶ its leader ─▶ one pipelined connection a node ([`wire`]) ─▶ answer
//!            ▲                                  │ not the leader any more: metadata again, and once more
//!            └──────────────────────────────────┘
//! ```
//!
//! What a leader certainly did not append is sent again until the request's time is over; what may have been appended
//! (a connection that broke, a time-out) has failed: without a producer id a second attempt could write it twice.

mod requests;
mod wire;

use super::engine::Slot;
use super::events::Events;
use super::stats::Answer;
use super::{LoadArgs, topic_args};
use crate::exit::{Exit, Failure};
use kafka_protocol::error::ResponseError;
use requests::{create_topic, metadata, produce, produced, supported};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use strandline_client::Acks;
use strandline_record::partition_for_key;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use wire::{Wire, WireError};

/// Before a request goes to a new leader.
const PAUSE: Duration = Duration::from_millis(20);

/// What a cluster said of a topic.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Address of each node.
    pub(super) nodes: BTreeMap<i32, String>,
    /// Leader of each partition; -1 while there is none.
    pub(super) leaders: Vec<i32>,
}

/// What all slots share.
struct Cluster {
    bootstrap: Vec<String>,
    topic: String,
    layout: RwLock<Arc<Layout>>,
    /// Open connections by address. Held while one is opened, so that there is one.
    wires: Mutex<BTreeMap<String, Arc<Wire>>>,
    /// When the layout was last asked for: those who wait for that share the answer.
    asked: Mutex<Instant>,
    acks: Acks,
    timeout: Duration,
    events: Events,
    batch: u64,
}

/// One request under way.
pub struct KafkaSlot {
    cluster: Arc<Cluster>,
    document: Vec<u8>,
}

/// Finds the cluster, and creates the topic if need be.
///
/// # Errors
/// Where nobody answers, the versions do not fit, or the topic cannot be had.
pub async fn prepare(args: &LoadArgs, events: Events, limit: Duration) -> Result<Vec<KafkaSlot>, Failure> {
    let topic = topic_args(args);
    let cluster = Arc::new(Cluster {
        bootstrap: args.brokers.clone(),
        topic: topic.topic.clone(),
        layout: RwLock::default(),
        wires: Mutex::default(),
        asked: Mutex::new(Instant::now()),
        acks: args.acks,
        timeout: limit,
        events,
        batch: args.batch,
    });
    let refused = |why: String| Failure::new(Exit::Refused, why);
    let prepared = async {
        let wire = cluster.any().await.map_err(|error| {
            Failure::new(
                Exit::Unreachable,
                format_args!("nobody answers Kafka's protocol at {}: {error}", args.brokers.join(",")),
            )
            .hint("start a cluster with `strandline dev`, or name its Kafka listeners: --brokers HOST:9092,…")
        })?;
        supported(&wire).await.map_err(refused)?;
        create_topic(&wire, &topic).await.map_err(refused)?;
        // A new topic's leaders are known a moment later.
        while !cluster.has_leaders() {
            if cluster.refresh().await.is_err() || !cluster.has_leaders() {
                sleep(PAUSE).await;
            }
        }
        Ok(())
    };
    timeout(limit, prepared).await.unwrap_or_else(|_| {
        Err(Failure::new(Exit::Unreachable, format_args!("topic {} has no leaders in time", topic.topic)))
    })?;
    Ok((0..args.concurrency).map(|_| KafkaSlot { cluster: cluster.clone(), document: Vec::new() }).collect())
}

impl Cluster {
    fn layout(&self) -> Arc<Layout> {
        self.layout.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_leaders(&self) -> bool {
        let layout = self.layout();
        !layout.leaders.is_empty() && layout.leaders.iter().all(|leader| layout.nodes.contains_key(leader))
    }

    /// The connection to an address, opened if there is none that works.
    async fn wire(&self, address: &str) -> Result<Arc<Wire>, WireError> {
        let mut wires = self.wires.lock().await;
        if let Some(wire) = wires.get(address).filter(|wire| wire.is_open()) {
            return Ok(wire.clone());
        }
        let wire = Arc::new(Wire::open(address).await?);
        wires.insert(address.to_owned(), wire.clone());
        Ok(wire)
    }

    /// A connection to a node that answers.
    async fn any(&self) -> Result<Arc<Wire>, WireError> {
        let layout = self.layout();
        let mut last = WireError::Lost;
        for address in self.bootstrap.iter().chain(layout.nodes.values()) {
            match self.wire(address).await {
                Ok(wire) => return Ok(wire),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks anew who leads what, unless somebody did so a moment ago.
    async fn refresh(&self) -> Result<(), String> {
        let called = Instant::now();
        let mut asked = self.asked.lock().await;
        if *asked > called {
            return Ok(());
        }
        let wire = self.any().await.map_err(|error| error.to_string())?;
        let layout = metadata(&wire, &self.topic).await?;
        *self.layout.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(layout);
        *asked = Instant::now();
        Ok(())
    }
}

/// How one attempt ended.
enum Attempt {
    Done(Answer),
    /// Nothing was appended, and another attempt may do better.
    Again,
}

impl KafkaSlot {
    async fn attempt(&mut self, n: u64, layout: &Layout) -> Attempt {
        let KafkaSlot { cluster, document } = self;
        let partitions = layout.leaders.len();
        let key = cluster.events.key(n);
        let partition = match &key {
            Some(key) => partition_for_key(key.as_bytes(), partitions as i32).0 as usize,
            None => (n % partitions as u64) as usize,
        };
        let Some(address) = layout.nodes.get(&layout.leaders[partition]) else { return Attempt::Again };
        let Ok(wire) = cluster.wire(address).await else { return Attempt::Again };
        let batch = requests::batch(&cluster.events, n, cluster.batch, key.as_deref(), document);
        let request = produce(&cluster.topic, partition as i32, batch, cluster.acks, cluster.timeout);
        let answer = if cluster.acks == Acks::None {
            wire.tell(&request).await.map(|()| None)
        } else {
            wire.call(&request).await.map(Some)
        };
        match answer.map(|answer| answer.map_or(Ok(0), produced)) {
            Err(WireError::NotSent) => Attempt::Again,
            Err(error) => Attempt::Done(Answer::Failed(error.to_string())),
            Ok(Err(wrong)) => Attempt::Done(Answer::Failed(wrong)),
            Ok(Ok(0)) => Attempt::Done(Answer::Acknowledged),
            Ok(Ok(code)) => of_code(code),
        }
    }
}

fn of_code(code: i16) -> Attempt {
    use ResponseError as E;
    match ResponseError::try_from_code(code) {
        Some(
            E::NotLeaderOrFollower
            | E::LeaderNotAvailable
            | E::UnknownTopicOrPartition
            | E::NotEnoughReplicas
            | E::KafkaStorageError
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch,
        ) => Attempt::Again,
        Some(E::ThrottlingQuotaExceeded) => Attempt::Done(Answer::Refused(None)),
        Some(error) => Attempt::Done(Answer::Failed(format!("{error:?}"))),
        None => Attempt::Done(Answer::Failed(format!("error code {code}"))),
    }
}

impl Slot for KafkaSlot {
    async fn send(&mut self, n: u64) -> Answer {
        loop {
            let layout = self.cluster.layout();
            match self.attempt(n, &layout).await {
                Attempt::Done(answer) => return answer,
                // The engine ends this when the request's time is over.
                Attempt::Again => {
                    sleep(PAUSE).await;
                    let _ = self.cluster.refresh().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_certainly_not_appended_is_sent_again() {
        for code in [3, 5, 6, 19, 56, 74, 75] {
            assert!(matches!(of_code(code), Attempt::Again), "{code}");
        }
        for (code, kind) in
            [(7, "RequestTimedOut"), (20, "NotEnoughReplicasAfterAppend"), (10, "MessageTooLarge")]
        {
            match of_code(code) {
                Attempt::Done(Answer::Failed(found)) => assert_eq!(found, kind),
                _ => panic!("{code} is final"),
            }
        }
        assert!(matches!(of_code(89), Attempt::Done(Answer::Refused(None))));
    }
}
