//! Events as JSON, and records: how one becomes the other. Pure.
//!
//! ```text
//! {"topic":"orders","partition":3,"key":"c-7","value":{…},"headers":{"source":"web"},"timestamp":1767225600000}
//! ```
//!
//! A value is stored as the JSON text that was sent, to the byte (a number keeps all its digits), and `null` as no
//! value, which a compacted topic takes as a deletion. `valueEncoding` says otherwise: `text` stores the characters of
//! a string, `base64` the bytes that it encodes. Reading is the reverse: bytes that are JSON come back as that JSON,
//! other text with `"valueEncoding":"text"`, anything else with `"valueEncoding":"base64"`; so what is read may be
//! sent again as it is and gives the same record. Keys are strings (numbers and booleans are taken as their text), or
//! base64 with `"keyEncoding":"base64"`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use strandline_client::{ConsumerRecord, Header, Record};
use utoipa::ToSchema;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};

/// Events that one request may bring.
pub(crate) const MAX_EVENTS: usize = 10_000;

/// How key or value are written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// The JSON text itself.
    #[default]
    Json,
    /// The characters of a string.
    Text,
    /// Bytes in a string, standard alphabet with padding (RFC 4648).
    Base64,
}

/// An event as it comes in. Nothing is copied out of the body that need not be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Event<'a> {
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    pub(crate) topic: Option<Cow<'a, str>>,
    #[serde(default)]
    #[schema(minimum = 0)]
    partition: Option<i32>,
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    key: Option<&'a RawValue>,
    #[serde(default)]
    key_encoding: Encoding,
    /// Any JSON.
    #[serde(borrow, deserialize_with = "present")]
    #[schema(value_type = serde_json::Value, required = true)]
    value: Option<&'a RawValue>,
    #[serde(default)]
    value_encoding: Encoding,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    headers: Headers,
    /// Milliseconds since 1970; the time of its arrival when absent.
    #[serde(default)]
    #[schema(minimum = 0)]
    timestamp: Option<i64>,
}

/// `null` is something, too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What a body holds.
#[derive(Debug)]
pub(crate) enum Posted<'a> {
    One(Event<'a>),
    Batch(Vec<Event<'a>>),
}

/// One event, an array of them, or one after the other with white space between (NDJSON). `lines`: the content type
/// says NDJSON, so that a single one is a batch of one.
///
/// # Errors
/// What is wrong with the body, and where.
pub(crate) fn parse(body: &[u8], lines: bool) -> Result<Posted<'_>, String> {
    let array = body.trim_ascii_start().first() == Some(&b'[');
    if array && !lines {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let events = Bounded.deserialize(&mut deserializer).map_err(|error| error.to_string())?;
        deserializer.end().map_err(|error| error.to_string())?;
        return Ok(Posted::Batch(events));
    }
    let mut events = serde_json::Deserializer::from_slice(body).into_iter::<Event<'_>>();
    let first = match events.next() {
        None => return Err("the body is empty: an event has at least a \"value\"".to_owned()),
        Some(first) => first.map_err(|error| error.to_string())?,
    };
    let mut all = match events.next() {
        None if !lines => return Ok(Posted::One(first)),
        None => return Ok(Posted::Batch(vec![first])),
        Some(second) => vec![first, second.map_err(|error| error.to_string())?],
    };
    for event in events {
        if all.len() == MAX_EVENTS {
            return Err(too_many());
        }
        all.push(event.map_err(|error| format!("event {}: {error}", all.len()))?);
    }
    Ok(Posted::Batch(all))
}

fn too_many() -> String {
    format!("a request may bring {MAX_EVENTS} events; split the batch")
}

/// An array of events that stops at the most there may be.
struct Bounded;

impl<'de> DeserializeSeed<'de> for Bounded {
    type Value = Vec<Event<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Bounded {
    type Value = Vec<Event<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        while let Some(event) = sequence.next_element()? {
            if events.len() == MAX_EVENTS {
                return Err(de::Error::custom(too_many()));
            }
            events.push(event);
        }
        Ok(events)
    }
}

impl Event<'_> {
    /// The record, for `topic`. `body` is what the event was parsed from.
    ///
    /// # Errors
    /// What is wrong with the event.
    pub(crate) fn record(self, topic: &Arc<str>, body: &Bytes) -> Result<Record, String> {
        let mut record = Record::to(topic.clone());
        if let Some(partition) = self.partition {
            if partition < 0 {
                return Err(format!("\"partition\" is {partition}: partitions are counted from 0"));
            }
            record = record.partition(partition);
        }
        if let Some(timestamp) = self.timestamp {
            if timestamp < 0 {
                return Err(format!("\"timestamp\" is {timestamp}: it is milliseconds since 1970"));
            }
            record = record.timestamp_ms(timestamp);
        }
        if let Some(key) = self.key.map(|raw| key(raw, self.key_encoding)).transpose()?.flatten() {
            record = record.key(key);
        }
        let raw = self.value.ok_or("\"value\" is missing")?;
        if let Some(value) = value(raw, self.value_encoding, body)? {
            record = record.value(value);
        }
        Ok(self.headers.0.into_iter().fold(record, Record::with_header))
    }
}

fn key(raw: &RawValue, encoding: Encoding) -> Result<Option<Bytes>, String> {
    let text = raw.get();
    match (text.as_bytes()[0], encoding) {
        (b'n', _) => Ok(None),
        (b'{' | b'[', _) => Err("\"key\" is a string".to_owned()),
        (b'"', Encoding::Base64) => decode(&string(raw)?).map(Some).map_err(|why| format!("\"key\": {why}")),
        (b'"', _) => Ok(Some(string(raw)?.into_bytes().into())),
        (_, Encoding::Base64) => Err("\"key\" with \"keyEncoding\":\"base64\" is a string".to_owned()),
        _ => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
    }
}

fn value(raw: &RawValue, encoding: Encoding, body: &Bytes) -> Result<Option<Bytes>, String> {
    let text = raw.get();
    if text == "null" {
        return Ok(None);
    }
    match encoding {
        Encoding::Json => Ok(Some(body.slice_ref(text.as_bytes()))),
        _ if !text.starts_with('"') => {
            Err("\"value\" with \"valueEncoding\" \"text\" or \"base64\" is a string".to_owned())
        }
        Encoding::Text => Ok(Some(string(raw)?.into_bytes().into())),
        Encoding::Base64 => decode(&string(raw)?).map(Some).map_err(|why| format!("\"value\": {why}")),
    }
}

fn string(raw: &RawValue) -> Result<String, String> {
    serde_json::from_str(raw.get()).map_err(|error| error.to_string())
}

fn decode(text: &str) -> Result<Bytes, String> {
    BASE64.decode(text).map(Bytes::from).map_err(|error| format!("not base64: {error}"))
}

/// Headers of an event: `{"name":"text","other":{"base64":"AAE="},"twice":["a","b"],"none":null}`.
#[derive(Debug, Default)]
struct Headers(Vec<Header>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a header is a string, null, {\"base64\":…}, or an array of these")]
enum HeaderIn {
    One(Option<HeaderValue>),
    Many(Vec<Option<HeaderValue>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HeaderValue {
    Text(String),
    Bytes { base64: String },
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given: Option<BTreeMap<String, HeaderIn>> = Deserialize::deserialize(deserializer)?;
        let mut headers = Vec::new();
        for (name, values) in given.into_iter().flatten() {
            let values = match values {
                HeaderIn::One(value) => vec![value],
                HeaderIn::Many(values) => values,
            };
            for value in values {
                let value = match value {
                    None => None,
                    Some(HeaderValue::Text(text)) => Some(Bytes::from(text)),
                    Some(HeaderValue::Bytes { base64 }) => Some(decode(&base64).map_err(de::Error::custom)?),
                };
                headers.push(Header::new(name.clone(), value));
            }
        }
        Ok(Headers(headers))
    }
}

/// A record as it goes out.
#[derive(Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) record: &'a ConsumerRecord,
    /// With the partition that it came from: for answers that hold records of several.
    pub(crate) place: bool,
}

impl utoipa::PartialSchema for Shown<'_> {
    fn schema() -> RefOr<Schema> {
        let of = |kind| ObjectBuilder::new().schema_type(kind);
        let int64 = || of(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        let text_or_null = SchemaType::from_iter([Type::String, Type::Null]);
        let encoding = || of(Type::String).enum_values(Some(["text", "base64"]));
        of(Type::Object)
            .description(Some("An event as it is read"))
            .property("topic", of(Type::String))
            .property("partition", of(Type::Integer))
            .property("offset", int64())
            .required("offset")
            .property("timestamp", int64())
            .required("timestamp")
            .property("key", ObjectBuilder::new().schema_type(text_or_null))
            .required("key")
            .property("keyEncoding", encoding())
            .property("value", ObjectBuilder::new().schema_type(SchemaType::AnyValue))
            .required("value")
            .property("valueEncoding", encoding())
            .property("headers", of(Type::Object))
            .required("headers")
            .into()
    }
}

impl ToSchema for Shown<'_> {}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.record;
        let mut map = serializer.serialize_map(None)?;
        if self.place {
            map.serialize_entry("topic", &record.topic)?;
            map.serialize_entry("partition", &record.partition)?;
        }
        map.serialize_entry("offset", &record.offset)?;
        map.serialize_entry("timestamp", &record.timestamp_ms)?;
        match record.key.as_deref().map(|key| (key, std::str::from_utf8(key))) {
            None => map.serialize_entry("key", &())?,
            Some((_, Ok(text))) => map.serialize_entry("key", text)?,
            Some((bytes, Err(_))) => {
                map.serialize_entry("key", &BASE64.encode(bytes))?;
                map.serialize_entry("keyEncoding", &Encoding::Base64)?;
            }
        }
        match record.value.as_deref() {
            None => map.serialize_entry("value", &())?,
            Some(bytes) => match serde_json::from_slice::<&RawValue>(bytes) {
                // Bytes `null` are a value, and no value at all is `null`.
                Ok(json) if json.get() != "null" && json.get().len() == bytes.len() => {
                    map.serialize_entry("value", json)?;
                }
                _ => match std::str::from_utf8(bytes) {
                    Ok(text) => {
                        map.serialize_entry("value", text)?;
                        map.serialize_entry("valueEncoding", &Encoding::Text)?;
                    }
                    Err(_) => {
                        map.serialize_entry("value", &BASE64.encode(bytes))?;
                        map.serialize_entry("valueEncoding", &Encoding::Base64)?;
                    }
                },
            },
        }
        map.serialize_entry("headers", &ShownHeaders(&record.headers))?;
        map.end()
    }
}

struct ShownHeaders<'a>(&'a [Header]);

impl Serialize for ShownHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut by_name: BTreeMap<Cow<'_, str>, Vec<ShownHeader<'_>>> = BTreeMap::new();
        for header in self.0 {
            let name = String::from_utf8_lossy(&header.key);
            by_name.entry(name).or_default().push(ShownHeader(header.value.as_deref()));
        }
        let mut map = serializer.serialize_map(Some(by_name.len()))?;
        for (name, values) in &by_name {
            match values.as_slice() {
                [one] => map.serialize_entry(name, one)?,
                many => map.serialize_entry(name, many)?,
            }
        }
        map.end()
    }
}

struct ShownHeader<'a>(Option<&'a [u8]>);

impl Serialize for ShownHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => serializer.serialize_unit(),
            Some((_, Ok(text))) => serializer.serialize_str(text),
            Some((bytes, Err(_))) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64.encode(bytes))?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests;
