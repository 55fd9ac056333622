//! Requests through the SDK: one record a send (or `--batch` of them), until all of them are acknowledged.
//!
//! One producer serves all slots, as in an application with many users. It does not linger: a record waits only for
//! those that are under way to its partition's leader.

use super::engine::Slot;
use super::events::Events;
use super::stats::Answer;
use super::{LoadArgs, topic_args};
use crate::cli::Global;
use crate::commands::connect;
use crate::exit::Failure;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{Error, ErrorCode, Producer, Record};

/// One send at a time.
pub struct GrpcSlot {
    producer: Producer,
    topic: Arc<str>,
    events: Arc<Events>,
    batch: u64,
}

/// Creates the topic if need be, and the producer.
///
/// # Errors
/// Where no node answers, or the topic cannot be had.
pub async fn prepare(args: &LoadArgs, events: Events, global: &Global) -> Result<Vec<GrpcSlot>, Failure> {
    let client = connect(global).await?;
    let topic = topic_args(args);
    super::super::Target::prepare(&client.admin(), &topic).await?;
    let producer =
        client.producer().acks(args.acks).linger(Duration::ZERO).delivery_timeout(global.timeout).build()?;
    let (topic, events): (Arc<str>, _) = (topic.topic.into(), Arc::new(events));
    let slot = |_| GrpcSlot {
        producer: producer.clone(),
        topic: topic.clone(),
        events: events.clone(),
        batch: args.batch,
    };
    Ok((0..args.concurrency).map(slot).collect())
}

impl GrpcSlot {
    async fn write(&self, n: u64) -> Result<(), Error> {
        let key = self.events.key(n);
        let mut handles = Vec::with_capacity(self.batch as usize);
        for i in 0..self.batch {
            let mut value = Vec::with_capacity(self.events.size());
            self.events.document(n * self.batch + i, &mut value);
            let mut record = Record::to(self.topic.clone()).value(value);
            if let Some(key) = &key {
                record = record.key(key.clone());
            }
            handles.push(self.producer.send(record).await?);
        }
        for handle in handles {
            handle.await?;
        }
        Ok(())
    }
}

impl Slot for GrpcSlot {
    async fn send(&mut self, n: u64) -> Answer {
        match self.write(n).await {
            Ok(()) => Answer::Acknowledged,
            Err(error) if error.code() == Some(ErrorCode::Throttled) => Answer::Refused(None),
            Err(error) => Answer::Failed(match error.code().or(error.obstacle()) {
                Some(code) => format!("{code:?}"),
                None => format!("{:?}", error.kind()),
            }),
        }
    }
}
