//! A member of a group in a thread of its own, which commits what it has read before it gives partitions up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::{Answer, Failure, settings, text};

#[derive(Default)]
struct Seen {
    read: u64,
    next: BTreeMap<i32, i64>,
    assigned: Vec<i32>,
    failed: Option<String>,
}

/// Shared by the thread, librdkafka's callback and the driver's loop.
#[derive(Default)]
struct Context {
    topic: String,
    seen: Mutex<Seen>,
    leaving: AtomicBool,
}

#[derive(Clone)]
struct Shared(Arc<Context>);

impl ClientContext for Shared {}

impl ConsumerContext for Shared {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let gone: Vec<i32> = partitions.elements().iter().map(|place| place.partition()).collect();
            self.give_up(consumer, Some(&gone));
        }
    }
}

impl Shared {
    /// Commits what was read of these partitions, of all with `None`.
    fn give_up(&self, consumer: &BaseConsumer<Self>, partitions: Option<&[i32]>) {
        let mut seen = self.0.seen.lock().expect("no panic under this lock");
        let mut done = TopicPartitionList::new();
        seen.next.retain(|partition, next| {
            let goes = partitions.is_none_or(|gone| gone.contains(partition));
            if goes {
                let _ = done.add_partition_offset(&self.0.topic, *partition, Offset::Offset(*next));
            }
            !goes
        });
        if done.count() > 0
            && let Err(error) = consumer.commit(&done, CommitMode::Sync)
        {
            seen.failed = Some(error.to_string());
        }
    }

    fn read(&self, consumer: &BaseConsumer<Self>, file: &mut impl Write, limit: u64) -> Result<(), Failure> {
        while !self.0.leaving.load(Ordering::Relaxed) {
            let polled = consumer.poll(Duration::from_millis(100));
            let mut seen = self.0.seen.lock().expect("no panic under this lock");
            // An error here is a connection that broke or a leader that moved: librdkafka goes on by itself.
            if let Some(Ok(record)) = polled
                && seen.read < limit
            {
                let (partition, offset) = (record.partition(), record.offset());
                let key = record.key_view::<str>().transpose()?.unwrap_or_default();
                let value = record.payload_view::<str>().transpose()?.unwrap_or_default();
                writeln!(file, "{partition} {offset} {key} {value}")?;
                seen.next.insert(partition, offset + 1);
                seen.read += 1;
            } else {
                file.flush()?;
            }
            seen.assigned = consumer.assignment()?.elements().iter().map(|place| place.partition()).collect();
        }
        file.flush()?;
        self.give_up(consumer, None);
        Ok(())
    }
}

pub struct Member {
    shared: Shared,
    thread: JoinHandle<()>,
}

impl Member {
    pub fn join(bootstrap: &str, request: &Value) -> Result<Self, Failure> {
        let mut settings = settings(bootstrap);
        settings.set("group.id", text(request, "group"));
        settings.set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        match text(request, "protocol") {
            "consumer" => settings.set("group.protocol", "consumer"),
            "cooperative" => settings.set("partition.assignment.strategy", "cooperative-sticky"),
            _ => settings.set("partition.assignment.strategy", "range").set("session.timeout.ms", "10000"),
        };
        let context = Context { topic: text(request, "topic").into(), ..Context::default() };
        let shared = Shared(Arc::new(context));
        let consumer: BaseConsumer<Shared> = settings.create_with_context(shared.clone())?;
        consumer.subscribe(&[text(request, "topic")])?;
        let mut file = BufWriter::new(File::create(text(request, "file"))?);
        let limit = request["limit"].as_u64().unwrap_or(u64::MAX);
        let mine = shared.clone();
        let thread = std::thread::spawn(move || {
            if let Err(Failure::Error(error)) = mine.read(&consumer, &mut file, limit) {
                mine.0.seen.lock().expect("no panic under this lock").failed = Some(error);
            }
        });
        Ok(Self { shared, thread })
    }

    pub fn state(&self) -> Answer {
        let seen = self.shared.0.seen.lock().expect("no panic under this lock");
        Ok(json!({ "assigned": seen.assigned, "read": seen.read, "failed": seen.failed }))
    }

    pub fn leave(self) -> Answer {
        self.shared.0.leaving.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Failure::Error("the member panicked".into()))?;
        let seen = self.shared.0.seen.lock().expect("no panic under this lock");
        match &seen.failed {
            Some(error) => Err(Failure::Error(error.clone())),
            None => Ok(json!({ "read": seen.read })),
        }
    }
}
