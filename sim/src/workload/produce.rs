//! A producer that sends numbered records and puts on record what it was told of each.

use super::{Bell, outcome_of};
use crate::history::{Acks, Attempt, Outcome, Tp, What};
use crate::world::ClientWorld;
use bytes::Bytes;
use rand::RngExt;
use std::time::Duration;
use strandline_client::{Compression, Record};

/// How one producer behaves.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    pub bootstrap: String,
    pub topic: String,
    pub partitions: i32,
    pub acks: Acks,
    pub idempotent: bool,
    pub compression: Compression,
    /// Mean pause between two records.
    pub pause: Duration,
    pub value_bytes: usize,
    /// Records carry a time that is up to this far from now, either way; 0: none, so that the SDK's counts.
    pub clock_off_ms: i64,
}

/// The value of an attempt: its number, and as much of a pattern as wanted.
pub fn value_of(attempt: Attempt, bytes: usize) -> Vec<u8> {
    let mut value = format!("{:016x};", attempt.0).into_bytes();
    while value.len() < bytes {
        value.push(b'a' + ((value.len() as u64).wrapping_mul(attempt.0 | 1) % 26) as u8);
    }
    value
}

/// The attempt that wrote this value, if it is one.
pub fn attempt_of(value: &[u8]) -> Option<Attempt> {
    let text = std::str::from_utf8(value.get(..16)?).ok()?;
    let attempt = Attempt(u64::from_str_radix(text, 16).ok()?);
    (value == value_of(attempt, value.len())).then_some(attempt)
}

pub async fn produce(world: ClientWorld, plan: ProducerPlan, bell: Bell) {
    let mut rng = world.seed.fork("producer").rng();
    let client = world.sdk(&plan.bootstrap).build().expect("the plan's options are usable");
    let acks = match plan.acks {
        Acks::All => strandline_client::Acks::All,
        Acks::Leader => strandline_client::Acks::Leader,
        Acks::None => strandline_client::Acks::None,
    };
    let producer = client
        .producer()
        .acks(acks)
        .idempotent(plan.idempotent)
        .compression(plan.compression)
        .linger(Duration::from_millis(rng.random_range(0..10)))
        .delivery_timeout(Duration::from_secs(20))
        .build()
        .expect("the plan's options are usable");
    let session = world.recorder.new_session();
    let mut partition = 0;
    while !bell.has_rung() {
        let attempt = world.recorder.new_attempt();
        // Runs of one partition make batches of several records.
        if rng.random_bool(0.3) {
            partition = rng.random_range(0..plan.partitions);
        }
        let key = Bytes::from(format!("key-{}", rng.random_range(0..20)));
        let value = value_of(attempt, rng.random_range(18..=plan.value_bytes.max(18)));
        let mut record = Record::to(plan.topic.as_str()).partition(partition).key(key).value(value);
        if plan.clock_off_ms > 0 {
            let off = rng.random_range(-plan.clock_off_ms..=plan.clock_off_ms);
            record = record.timestamp_ms((world.clock.read_ms(world.recorder.now_us()) + off).max(0));
        }
        let tp = Tp::new(plan.topic.as_str(), partition);
        let (acks, idempotent) = (plan.acks, plan.idempotent);
        world.recorder.record(&world.name, What::Send { session, attempt, tp, acks, idempotent });
        let sent = producer.send(record).await;
        let world_then = world.clone();
        tokio::task::spawn_local(async move {
            let outcome = match sent {
                Ok(delivery) => match delivery.await {
                    Ok(delivery) => Outcome::Acknowledged(delivery.offset),
                    Err(error) => outcome_of(&error),
                },
                Err(error) => outcome_of(&error),
            };
            world_then.recorder.record(&world_then.name, What::Sent { session, attempt, outcome });
        });
        tokio::time::sleep(plan.pause.mul_f64(rng.random_range(0.0..2.0))).await;
    }
    // Everything under way ends within the delivery time-out.
    if let Err(error) = producer.close().await {
        world.recorder.note(&world.name, format_args!("close: {error}"));
    }
    world.recorder.record(&world.name, What::Gone { session });
}
