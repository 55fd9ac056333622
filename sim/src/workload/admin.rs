//! An operator: makes the topics, then does what the run orders, one thing at a time.

use crate::history::Tp;
use crate::world::ClientWorld;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{Client, ErrorCode, NewTopic, TopicPartition};

/// What an operator is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    CreateTopic { name: String, partitions: i32, replication: i32, configs: Vec<(String, String)> },
    Reassign { tp: Tp, replicas: Vec<u64> },
    RemoveNode { node: u64 },
    ElectPreferred { tp: Tp },
    AlterTopic { name: String, set: Vec<(String, String)> },
    TransferLeadership,
}

/// Orders and what became of them. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Orders(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    next: u64,
    waiting: VecDeque<(u64, Order)>,
    done: BTreeMap<u64, Result<(), String>>,
}

impl Orders {
    /// Its number.
    pub fn give(&self, order: Order) -> u64 {
        let mut book = self.0.lock();
        book.next += 1;
        let number = book.next;
        book.waiting.push_back((number, order));
        number
    }

    pub fn result(&self, number: u64) -> Option<Result<(), String>> {
        self.0.lock().done.get(&number).cloned()
    }

    /// Whether everything ordered was tried.
    pub fn is_empty(&self) -> bool {
        let book = self.0.lock();
        book.done.len() as u64 == book.next
    }

    fn first(&self) -> Option<(u64, Order)> {
        self.0.lock().waiting.front().cloned()
    }

    fn done(&self, number: u64, result: Result<(), String>) {
        let mut book = self.0.lock();
        book.waiting.pop_front();
        book.done.insert(number, result);
    }
}

/// The longest that one order is tried.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn operate(world: ClientWorld, bootstrap: String, orders: Orders) {
    let client = world.sdk(&bootstrap).build().expect("the options are usable");
    loop {
        let Some((number, order)) = orders.first() else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut step = String::new();
        let result = match tokio::time::timeout(PATIENCE, carry_out(&client, &order, &mut step)).await {
            Ok(result) => result,
            Err(_) => Err(format!("not done within {PATIENCE:?}: {step}")),
        };
        world.recorder.note(&world.name, format_args!("{order:?}: {result:?}"));
        orders.done(number, result);
    }
}

/// `at`: how far it has come.
async fn carry_out(client: &Client, order: &Order, at: &mut String) -> Result<(), String> {
    let admin = client.admin();
    let text = |error: strandline_client::Error| error.to_string();
    match order.clone() {
        Order::CreateTopic { name, partitions, replication, configs } => {
            let mut topic = NewTopic::new(name).partitions(partitions).replication_factor(replication);
            for (key, value) in configs {
                topic = topic.config(key, value);
            }
            admin.create_topic(topic).await.map(|_| ()).map_err(text)
        }
        Order::Reassign { tp, replicas } => {
            admin.reassign(&TopicPartition::new(tp.topic, tp.partition), replicas).await.map_err(text)
        }
        Order::RemoveNode { node } => {
            use futures::StreamExt;
            let mut progress = match admin.remove_node(node).await {
                Ok(progress) => progress,
                Err(error) => return gone_already(error),
            };
            while let Some(step) = progress.next().await {
                match step {
                    Ok(step) => *at = format!("{}, {} replicas left", step.step, step.replicas_left),
                    Err(error) => return gone_already(error),
                }
            }
            Ok(())
        }
        Order::ElectPreferred { tp } => {
            admin.elect_leader(&TopicPartition::new(tp.topic, tp.partition), false).await.map_err(text)
        }
        Order::AlterTopic { name, set } => admin.alter_topic(&name, set, []).await.map_err(text),
        Order::TransferLeadership => admin.transfer_leadership(None).await.map_err(text),
    }
}

/// An earlier try whose answer was lost has removed it.
fn gone_already(error: strandline_client::Error) -> Result<(), String> {
    match error.code() {
        Some(ErrorCode::NodeNotFound) => Ok(()),
        _ => Err(error.to_string()),
    }
}
