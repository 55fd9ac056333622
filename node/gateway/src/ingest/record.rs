//! The records of the pipeline's topics.
//!
//! ```text
//!  ingest.events    key: event id (64 hex digits)            value: {"amount","client","metric","timestamp","original"}
//!                   headers: ingest-id (not of one that is redriven), ingest-redrive (how often), ingest-simulate-failure
//!  ingest.rejected  key: SHA-256 of the value                value: the event as it was sent
//!                   headers: ingest-id, ingest-reason, ingest-client
//!  ingest.dlq       key: event id, or ID#n of the n-th redrive    value: that of the failed record
//!                   headers: ingest-id (the key), ingest-error, ingest-attempts, ingest-origin (TOPIC-PARTITION@OFFSET)
//!                   without a value: this letter has been redriven
//! ```
//!
//! The keys make all records of one event meet in one partition, in an order that every reader sees alike: the first of
//! them is the event, the others are resends. Records that others wrote into `ingest.events` are normalised on reading.

use super::normalise::{Amount, Event, EventId, Rules, parse_bound};
use super::store::{Source, Verdict, Write};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use strandline_client::{ConsumerRecord, Header, Record};

/// Events that count.
pub const EVENTS: &str = "ingest.events";
/// Events that cannot be normalised.
pub const REJECTED: &str = "ingest.rejected";
/// Events that the store would not take.
pub const DEAD_LETTERS: &str = "ingest.dlq";

/// What the broker knows two records for the same by (`dedup.key` of the topics). A redriven event goes without it.
pub const DEDUP: &str = "ingest-id";
const REDRIVE: &str = "ingest-redrive";
const SIMULATE_FAILURE: &str = "ingest-simulate-failure";
const REASON: &str = "ingest-reason";
const CLIENT: &str = "ingest-client";
/// Header of a dead letter: the last error.
pub const ERROR: &str = "ingest-error";
/// Header of a dead letter: how often it was tried.
pub const ATTEMPTS: &str = "ingest-attempts";
/// Header of a dead letter: the failed record.
pub const ORIGIN: &str = "ingest-origin";

/// Value of a record of [`EVENTS`].
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Value<'a> {
    amount: String,
    client: String,
    metric: String,
    timestamp: String,
    #[serde(borrow)]
    original: &'a RawValue,
}

/// The record of an accepted event.
pub(super) fn accepted(event: &Event, id: EventId, original: &RawValue, simulate_failure: bool) -> Record {
    let value = Value {
        amount: event.amount.to_string(),
        client: event.client.clone(),
        metric: event.metric.clone(),
        timestamp: super::normalise::format_time(event.time_ms),
        original,
    };
    let value = serde_json::to_vec(&value).expect("strings are JSON");
    let record = Record::to(EVENTS).key(id.to_string()).value(value).header(DEDUP, id.to_string());
    if simulate_failure { record.header(SIMULATE_FAILURE, "true") } else { record }
}

/// The record of a rejected event.
pub(super) fn rejected(original: &str, id: EventId, reason: &str, client: Option<&str>) -> Record {
    let record = Record::to(REJECTED)
        .key(id.to_string())
        .value(original.to_owned())
        .header(DEDUP, id.to_string())
        .header(REASON, reason.to_owned());
    match client {
        Some(client) => record.header(CLIENT, client.to_owned()),
        None => record,
    }
}

/// Whether a failure was asked for.
pub(super) fn simulates_failure(headers: &[Header]) -> bool {
    headers.iter().any(|header| header.key == SIMULATE_FAILURE.as_bytes())
}

/// What a record of [`EVENTS`] or [`REJECTED`] asks of the store.
pub(super) fn read(record: &ConsumerRecord, rules: &Rules) -> Write {
    let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
    let reason = header(&record.headers, REASON);
    let (id, verdict, original) = if &*record.topic == REJECTED {
        let reason = reason.unwrap_or_else(|| "rejected".into());
        let client = header(&record.headers, CLIENT);
        (EventId::of(value.as_bytes()), Verdict::Rejected { client, reason }, value.into_owned())
    } else {
        let found = match own(&value) {
            Some((event, original)) => Ok((event, original.to_owned())),
            None => {
                rules.normalise(&value, record.timestamp_ms).map(|event| (event, value.clone().into_owned()))
            }
        };
        match found {
            Ok((event, original)) => (event.id(), Verdict::Processed(event), original),
            Err(rejection) => {
                let reason = without_nul(&rejection.to_string());
                let verdict = Verdict::Rejected { reason, client: rejection.client };
                (EventId::of(value.as_bytes()), verdict, value.into_owned())
            }
        }
    };
    Write {
        offset: record.offset,
        id,
        received_ms: record.timestamp_ms,
        redriven: header(&record.headers, REDRIVE).is_some(),
        verdict,
        original: Some(without_nul(&original)),
    }
}

/// A value that [`accepted`] made.
fn own(value: &str) -> Option<(Event, &str)> {
    let value: Value<'_> = serde_json::from_str(value).ok()?;
    let amount = Amount::from_event(&value.amount).ok()?;
    let (time_ms, _) = parse_bound(&value.timestamp)?;
    let event = Event { client: value.client, metric: value.metric, amount, time_ms };
    // Names as the rules let them through: no store has to cope with others.
    let usable = |name: &str| !name.is_empty() && name.len() <= 1024 && !name.chars().any(char::is_control);
    (usable(&event.client) && usable(&event.metric)).then(|| (event, value.original.get()))
}

pub(super) fn header(headers: &[Header], name: &str) -> Option<String> {
    let found = headers.iter().find(|header| header.key == name.as_bytes())?;
    let text = String::from_utf8_lossy(found.value.as_deref().unwrap_or_default());
    Some(without_nul(&text))
}

/// PostgreSQL's text has no place for NUL; neither has JSON, so this only touches what is no event anyway.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// How often the event of a record was redriven.
pub(super) fn redrives(headers: &[Header]) -> u32 {
    header(headers, REDRIVE).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// An event that the store would not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub id: EventId,
    /// How often it was redriven before.
    pub redrives: u32,
    /// Value of the failed record.
    pub value: bytes::Bytes,
    /// Last error.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The failed record, as `TOPIC-PARTITION@OFFSET`.
    pub origin: String,
}

impl DeadLetter {
    /// The key by which letters of one failure are one letter, whoever saw it fail.
    pub fn key(&self) -> String {
        match self.redrives {
            0 => self.id.to_string(),
            n => format!("{}#{n}", self.id),
        }
    }

    /// The record of the letter.
    pub(super) fn record(&self) -> Record {
        Record::to(DEAD_LETTERS)
            .key(self.key())
            .value(self.value.clone())
            .header(DEDUP, self.key())
            .header(ERROR, self.error.clone())
            .header(ATTEMPTS, self.attempts.to_string())
            .header(ORIGIN, self.origin.clone())
    }

    /// Reads a record of [`DEAD_LETTERS`]; `None` for one that is no letter.
    pub fn read(record: &ConsumerRecord) -> Option<DeadLetter> {
        let (id, redrives) = parse_key(record.key.as_deref()?)?;
        Some(DeadLetter {
            id,
            redrives,
            value: record.value.clone()?,
            error: header(&record.headers, ERROR).unwrap_or_default(),
            attempts: header(&record.headers, ATTEMPTS).and_then(|n| n.parse().ok()).unwrap_or(0),
            origin: header(&record.headers, ORIGIN).unwrap_or_default(),
        })
    }

    /// The record that tries the event again. It carries the event's own key, so that it comes after the failed one.
    pub fn again(&self) -> Record {
        Record::to(EVENTS)
            .key(self.id.to_string())
            .value(self.value.clone())
            .header(REDRIVE, (self.redrives + 1).to_string())
    }

    /// The record that says that the letter has been redriven.
    pub fn done(&self) -> Record {
        Record::to(DEAD_LETTERS).key(self.key())
    }
}

fn parse_key(key: &[u8]) -> Option<(EventId, u32)> {
    let key = std::str::from_utf8(key).ok()?;
    match key.split_once('#') {
        Some((id, redrives)) => Some((EventId::parse(id)?, redrives.parse().ok()?)),
        None => Some((EventId::parse(key)?, 0)),
    }
}

/// `TOPIC-PARTITION@OFFSET`.
pub(super) fn origin(topic: &str, source: Source, offset: i64) -> String {
    format!("{topic}-{}@{offset}", source.partition)
}
