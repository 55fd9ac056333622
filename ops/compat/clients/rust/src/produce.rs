//! Produces numbered records, at a rate if there is one, and sees how long the slowest acknowledgement took.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use serde_json::{Value, json};

use crate::{Answer, settings, text};

#[derive(Default)]
struct Seen {
    longest: Duration,
    failed: u64,
    settled: u64,
    why: Option<String>,
}

#[derive(Default)]
struct Acknowledgements(Mutex<Seen>);

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    /// When the record was given to the client.
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Instant>) {
        let mut seen = self.0.lock().expect("no panic under this lock");
        seen.longest = seen.longest.max(sent.elapsed());
        seen.settled += 1;
        if let Err((error, _)) = result {
            seen.failed += 1;
            seen.why = Some(error.to_string());
        }
    }
}

pub fn run(bootstrap: &str, request: &Value) -> Answer {
    let mut settings = settings(bootstrap);
    settings.set("compression.type", text(request, "codec")).set("linger.ms", "5").set("acks", "all");
    if let Some(idempotent) = request["idempotent"].as_bool() {
        settings.set("enable.idempotence", idempotent.to_string());
        if !idempotent {
            settings.set("max.in.flight.requests.per.connection", "1");
        }
    }
    let producer: BaseProducer<Acknowledgements> =
        settings.create_with_context(Acknowledgements::default())?;
    let count = request["count"].as_u64().unwrap_or(0);
    let rate = request["rate"].as_f64().unwrap_or(f64::INFINITY);
    let (began, topic, tag) = (Instant::now(), text(request, "topic"), text(request, "tag"));
    for number in 0..count {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            producer.poll(wait.min(Duration::from_millis(10)));
        }
        let (key, value) = (format!("k{}", number % 1000), format!("{tag}-{number}"));
        let mut record =
            BaseRecord::with_opaque_to(topic, Box::new(Instant::now())).key(&key).payload(&value);
        while let Err((error, back)) = producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(100));
            record = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(90))?;
    let seen = producer.context().0.lock().expect("no panic under this lock");
    let failed = seen.failed + (count - seen.settled);
    Ok(json!({ "failed": failed, "why": seen.why, "stall_ms": seen.longest.as_millis() as u64 }))
}
