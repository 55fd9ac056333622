//! The worked example of `ops/docs/simulation.md`: a shop whose workers process orders, with a bug that nobody sees in
//! a thousand ordinary runs. The simulation finds it, and shows that the repaired worker has it no more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use strandline_client::{
    AutoOffsetReset, ConsumerHandle, ConsumerRecord, OffsetAndMetadata, RebalanceListener, Record,
    TopicPartition, async_trait,
};
use strandline_sim::{App, Cluster};

const ORDERS: usize = 100;

/// What the workers have done, as an outside database would have it: order → how often.
type Database = Arc<Mutex<BTreeMap<String, usize>>>;

/// Orders that were read and are not processed yet: a worker reads on while it works, so that it is not thrown out of
/// its group by a slow order.
#[derive(Clone, Default)]
struct Pipeline(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    waiting: VecDeque<ConsumerRecord>,
    /// Next offset to process, by partition: what may be committed.
    processed: BTreeMap<TopicPartition, i64>,
    owned: BTreeSet<TopicPartition>,
}

impl Pipeline {
    fn is_done_with(&self, partitions: &[TopicPartition]) -> bool {
        let state = self.0.lock().unwrap();
        !state.waiting.iter().any(|order| partitions.contains(&order.topic_partition()))
    }

    fn processed(&self, partitions: &[TopicPartition]) -> BTreeMap<TopicPartition, OffsetAndMetadata> {
        let state = self.0.lock().unwrap();
        let of = |tp: &TopicPartition| Some((tp.clone(), OffsetAndMetadata::new(*state.processed.get(tp)?)));
        partitions.iter().filter_map(of).collect()
    }
}

/// The bug: when partitions go to another worker, everything that was *read* is committed as if it were processed, and
/// what still waits is dropped, because "the next owner will do it". The next owner begins behind it.
struct Hasty(Pipeline);

#[async_trait]
impl RebalanceListener for Hasty {
    async fn on_assigned(&self, _: &ConsumerHandle, partitions: &[TopicPartition]) {
        self.0.0.lock().unwrap().owned.extend(partitions.iter().cloned());
    }

    async fn on_revoked(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
        let _ = consumer.commit().await;
        let mut state = self.0.0.lock().unwrap();
        state.owned.retain(|tp| !partitions.contains(tp));
        let State { waiting, owned, .. } = &mut *state;
        waiting.retain(|order| owned.contains(&order.topic_partition()));
    }
}

/// The repair: what was read is processed before its partition is given up, and only what is processed is committed.
struct Patient(Pipeline);

#[async_trait]
impl RebalanceListener for Patient {
    async fn on_assigned(&self, _: &ConsumerHandle, partitions: &[TopicPartition]) {
        self.0.0.lock().unwrap().owned.extend(partitions.iter().cloned());
    }

    async fn on_revoked(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
        while !self.0.is_done_with(partitions) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = consumer.commit_offsets(&self.0.processed(partitions)).await;
        self.0.0.lock().unwrap().owned.retain(|tp| !partitions.contains(tp));
    }

    async fn on_lost(&self, _: &ConsumerHandle, partitions: &[TopicPartition]) {
        // The group has given this worker up already: what waits here is somebody else's.
        let mut state = self.0.0.lock().unwrap();
        state.owned.retain(|tp| !partitions.contains(tp));
        state.waiting.retain(|order| !partitions.contains(&order.topic_partition()));
    }
}

async fn work(app: App, hasty: bool, database: Database) {
    let pipeline = Pipeline::default();
    let client = app.client();
    let builder =
        client.consumer().group("workers").auto_commit(false).auto_offset_reset(AutoOffsetReset::Earliest);
    let builder = match hasty {
        true => builder.rebalance_listener(Hasty(pipeline.clone())),
        false => builder.rebalance_listener(Patient(pipeline.clone())),
    };
    let mut consumer = builder.build().unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let processing = pipeline.clone();
    tokio::task::spawn_local(async move {
        loop {
            let order = processing.0.lock().unwrap().waiting.front().cloned();
            let Some(order) = order else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            // A payment, a mail: something that takes its time.
            tokio::time::sleep(Duration::from_millis(40)).await;
            let mut state = processing.0.lock().unwrap();
            if state.waiting.front().is_some_and(|first| first.offset == order.offset) {
                state.waiting.pop_front();
                let name = String::from_utf8_lossy(order.value.as_deref().unwrap_or_default()).into_owned();
                *database.lock().unwrap().entry(name).or_default() += 1;
                state.processed.insert(order.topic_partition(), order.offset + 1);
            }
        }
    });
    loop {
        let read = match consumer.poll(10, Duration::from_millis(100)).await {
            Ok(read) => read,
            Err(error) => {
                app.note(&format!("{error}"));
                continue;
            }
        };
        pipeline.0.lock().unwrap().waiting.extend(read);
        let owned: Vec<TopicPartition> = pipeline.0.lock().unwrap().owned.iter().cloned().collect();
        let _ = consumer.commit_offsets(&pipeline.processed(&owned)).await;
    }
}

/// A shop takes orders while one worker works; then a second one joins, and the group rebalances. Which orders were
/// never processed?
fn lost_orders(cluster: &mut Cluster, hasty: bool) -> Vec<String> {
    cluster.create_topic("orders", 4, 3);
    let database = Database::default();
    cluster.client("shop", |app| async move {
        let producer = app.client().producer().build().unwrap();
        for number in 0..ORDERS {
            let order = format!("order-{number}");
            let record = Record::to("orders").key(format!("customer-{}", number % 7)).value(order);
            producer.send_and_wait(record).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let first = database.clone();
    cluster.client("worker-1", move |app| work(app, hasty, first.clone()));
    cluster.run_for(Duration::from_millis(900));
    let second = database.clone();
    cluster.client("worker-2", move |app| work(app, hasty, second.clone()));
    assert!(cluster.run_until_ended("shop", Duration::from_secs(60)), "every order is taken");
    let all = || database.lock().unwrap().len() == ORDERS;
    cluster.run_until(Duration::from_secs(30), all);
    let done = database.lock().unwrap();
    (0..ORDERS).map(|number| format!("order-{number}")).filter(|order| !done.contains_key(order)).collect()
}

#[test]
fn the_simulation_finds_the_order_that_a_hasty_worker_loses() {
    let lost = (1..=5).map(|seed| lost_orders(&mut Cluster::new(seed), true)).find(|lost| !lost.is_empty());
    assert!(lost.is_some(), "no seed showed the planted bug");
}

#[test]
fn a_patient_worker_loses_no_order_in_a_rebalance() {
    strandline_sim::check(1..=5, |cluster| {
        let lost = lost_orders(cluster, false);
        assert!(lost.is_empty(), "never processed: {lost:?}");
    });
}
