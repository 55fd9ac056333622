//! CloudEvents 1.0: the three modes of its HTTP binding, as records of its Kafka binding. Pure.
//!
//! ```text
//! binary      ce-id, ce-source, … headers, data as body      →  ce_id, ce_source, … record headers, data as value
//! structured  application/cloudevents+json                   →  the event as value, its type in `content-type`
//! batch       application/cloudevents-batch+json, an array   →  one structured record for each
//! ```
//!
//! The attribute `partitionkey` (an extension that both specifications know) becomes the record's key.

use super::event::MAX_EVENTS;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use strandline_client::Record;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
/// Before the names of attributes in the headers of a request.
const PREFIX: &str = "ce-";

/// How a request carries its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Binary,
    Structured,
    Batch,
}

/// The mode of a request that carries CloudEvents; `None` for one that does not.
///
/// # Errors
/// A format of CloudEvents that is not JSON.
pub(crate) fn mode(headers: &HeaderMap) -> Result<Option<Mode>, String> {
    let essence = essence(headers);
    match &*essence {
        STRUCTURED => Ok(Some(Mode::Structured)),
        BATCH => Ok(Some(Mode::Batch)),
        other if other.starts_with("application/cloudevents") => {
            Err(format!("{other}: CloudEvents are taken as {STRUCTURED}, {BATCH} or in binary mode"))
        }
        _ => Ok(headers.contains_key("ce-specversion").then_some(Mode::Binary)),
    }
}

/// The media type without its parameters, in lower case.
pub(crate) fn essence(headers: &HeaderMap) -> Cow<'_, str> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    match essence.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => essence.to_ascii_lowercase().into(),
        false => essence.into(),
    }
}

/// The attributes that every event has, and the one that becomes the key.
#[derive(Debug, Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    partitionkey: Option<Cow<'a, str>>,
}

impl Attributes<'_> {
    fn check(&self) -> Result<(), String> {
        if self.specversion != "1.0" {
            return Err(format!("specversion is {:?}: only 1.0 is known", self.specversion));
        }
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            if value.is_empty() {
                return Err(format!("the attribute {name:?} is empty"));
            }
        }
        Ok(())
    }
}

/// The records of a request in `mode`.
///
/// # Errors
/// What is wrong with the event, and which it is.
pub(crate) fn records(
    mode: Mode,
    headers: &HeaderMap,
    body: &Bytes,
    topic: &Arc<str>,
) -> Result<Vec<Record>, String> {
    match mode {
        Mode::Binary => Ok(vec![binary(headers, body, topic)?]),
        Mode::Structured => {
            let raw: &RawValue = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            Ok(vec![structured(raw, body, topic)?])
        }
        Mode::Batch => {
            let all: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            if all.len() > MAX_EVENTS {
                return Err(format!("a request may bring {MAX_EVENTS} events; split the batch"));
            }
            let one = |(i, raw)| structured(raw, body, topic).map_err(|why| format!("event {i}: {why}"));
            all.into_iter().enumerate().map(one).collect()
        }
    }
}

fn structured(raw: &RawValue, body: &Bytes, topic: &Arc<str>) -> Result<Record, String> {
    if !raw.get().starts_with('{') {
        return Err("a CloudEvent is a JSON object".to_owned());
    }
    let attributes: Attributes<'_> = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    attributes.check()?;
    let record = Record::to(topic.clone())
        .value(body.slice_ref(raw.get().as_bytes()))
        .header("content-type", Bytes::from_static(STRUCTURED.as_bytes()));
    Ok(match attributes.partitionkey {
        Some(key) => record.key(key.into_owned()),
        None => record,
    })
}

fn binary(headers: &HeaderMap, body: &Bytes, topic: &Arc<str>) -> Result<Record, String> {
    let mut record = Record::to(topic.clone()).value(body.clone());
    let (mut specversion, mut id, mut source, mut kind) = (None, None, None, None);
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        let value = value.to_str().map_err(|_| format!("{name} is not ASCII: percent-encode it"))?;
        let value = percent_decode(value).map_err(|why| format!("{name}: {why}"))?;
        match attribute {
            "specversion" => specversion = Some(value.clone()),
            "id" => id = Some(value.clone()),
            "source" => source = Some(value.clone()),
            "type" => kind = Some(value.clone()),
            "partitionkey" => record = record.key(value.clone()),
            _ => {}
        }
        record = record.header(format!("ce_{attribute}"), value);
    }
    let needed = |value: Option<String>, name| value.ok_or(format!("the header ce-{name} is missing"));
    Attributes {
        specversion: needed(specversion, "specversion")?.into(),
        id: needed(id, "id")?.into(),
        source: needed(source, "source")?.into(),
        kind: needed(kind, "type")?.into(),
        partitionkey: None,
    }
    .check()?;
    if let Some(value) = headers.get(CONTENT_TYPE) {
        record = record.header("content-type", Bytes::copy_from_slice(value.as_bytes()));
    }
    Ok(record)
}

/// As the HTTP binding has it: any `%xx` is a byte of UTF-8; a value in double quotes means what is between them.
fn percent_decode(value: &str) -> Result<String, String> {
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let value = quoted.unwrap_or(value).as_bytes();
    let mut bytes = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let byte = value[at];
        at += 1;
        match byte {
            b'%' => {
                let hex = value.get(at..at + 2).and_then(|hex| std::str::from_utf8(hex).ok());
                let decoded = hex.filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let decoded = decoded.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(decoded.ok_or("a % without two hexadecimal digits")?);
                at += 2;
            }
            b'\\' if quoted.is_some() && at < value.len() => {
                bytes.push(value[at]);
                at += 1;
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| "what it encodes is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests;
