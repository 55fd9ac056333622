//! The consumer embedded protocol's bytes. Big-endian; `string` is a 2-byte length and UTF-8, `bytes` a
//! 4-byte length (−1: null), `[T]` a 4-byte count.
//!
//! ```text
//! ConsumerProtocolSubscription          ConsumerProtocolAssignment
//!   version            int16              version            int16
//!   topics             [string]           assigned           [topic string, [partition int32]]
//!   user data          bytes or null      user data          bytes or null
//!   owned (1+)         [topic string, [partition int32]]
//!   generation (2+)    int32, −1: none
//!   rack (3+)          string or null
//! ```
//!
//! Versions above 3 read as 3, trailing bytes are ignored, and fields of later versions may be missing
//! altogether (some clients say version 1 and end after the user data).

use super::{Assignment, Subscription, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The version that is written: Kafka's highest.
const VERSION: i16 = 3;

/// Kafka's limit for topic names. Without it a few bytes for each partition of a topic with a long name
/// would become a copy of the name each.
const TOPIC_NAME_MAX_BYTES: usize = 249;

/// Bytes that do not read as what they should be, or values too long to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// Ends within the named field.
    Truncated(&'static str),
    /// A negative version, length or count.
    Negative(&'static str),
    NotUtf8(&'static str),
    /// Longer than its length field can say.
    TooLong(&'static str),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(field) => write!(f, "ends within {field}"),
            Self::Negative(field) => write!(f, "{field} has a negative length"),
            Self::NotUtf8(field) => write!(f, "{field} is not UTF-8"),
            Self::TooLong(field) => write!(f, "{field} is too long"),
        }
    }
}

impl std::error::Error for CodecError {}

impl Subscription {
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.encode_version(VERSION)
    }

    /// In an older version, without the fields that it does not have. Versions above 3 are written as 3.
    pub fn encode_version(&self, version: i16) -> Result<Vec<u8>, CodecError> {
        let version = version.clamp(0, VERSION);
        let mut out = version.to_be_bytes().to_vec();
        put_count(&mut out, self.topics.len(), "topics")?;
        for topic in &self.topics {
            put_topic(&mut out, topic)?;
        }
        put_bytes(&mut out, self.user_data.as_deref(), "user data")?;
        if version >= 1 {
            put_partitions(&mut out, &self.owned_partitions)?;
        }
        if version >= 2 {
            out.extend(self.generation.unwrap_or(-1).to_be_bytes());
        }
        if version >= 3 {
            match &self.rack {
                Some(rack) => put_string(&mut out, rack, "rack")?,
                None => out.extend((-1i16).to_be_bytes()),
            }
        }
        Ok(out)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut input = Input(bytes);
        let version = input.version()?;
        let count = input.count("topics", 2)?;
        let topics = (0..count).map(|_| input.topic()).collect::<Result<_, _>>()?;
        let user_data = input.nullable_bytes("user data")?;
        let mut subscription = Self { topics, user_data, ..Self::default() };
        if version >= 1 && !input.0.is_empty() {
            subscription.owned_partitions = input.partitions()?;
        }
        if version >= 2 && !input.0.is_empty() {
            subscription.generation = Some(input.i32("generation")?).filter(|g| *g >= 0);
        }
        if version >= 3 && !input.0.is_empty() {
            subscription.rack = input.nullable_string("rack")?;
        }
        Ok(subscription)
    }
}

impl Assignment {
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut out = VERSION.to_be_bytes().to_vec();
        put_partitions(&mut out, &self.partitions)?;
        put_bytes(&mut out, self.user_data.as_deref(), "user data")?;
        Ok(out)
    }

    /// No bytes at all are an empty assignment: so a member is told that the leader left out.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut input = Input(bytes);
        input.version()?;
        Ok(Self { partitions: input.partitions()?, user_data: input.nullable_bytes("user data")? })
    }
}

fn put_count(out: &mut Vec<u8>, count: usize, field: &'static str) -> Result<(), CodecError> {
    out.extend(i32::try_from(count).map_err(|_| CodecError::TooLong(field))?.to_be_bytes());
    Ok(())
}

fn put_string(out: &mut Vec<u8>, string: &str, field: &'static str) -> Result<(), CodecError> {
    out.extend(i16::try_from(string.len()).map_err(|_| CodecError::TooLong(field))?.to_be_bytes());
    out.extend(string.as_bytes());
    Ok(())
}

fn put_topic(out: &mut Vec<u8>, topic: &str) -> Result<(), CodecError> {
    if topic.len() > TOPIC_NAME_MAX_BYTES {
        return Err(CodecError::TooLong("topic"));
    }
    put_string(out, topic, "topic")
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>, field: &'static str) -> Result<(), CodecError> {
    match bytes {
        Some(bytes) => {
            put_count(out, bytes.len(), field)?;
            out.extend(bytes);
        }
        None => out.extend((-1i32).to_be_bytes()),
    }
    Ok(())
}

fn put_partitions(out: &mut Vec<u8>, partitions: &[TopicPartition]) -> Result<(), CodecError> {
    let mut by_topic: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        by_topic.entry(topic).or_default().insert(*partition);
    }
    put_count(out, by_topic.len(), "topics")?;
    for (topic, numbers) in by_topic {
        put_topic(out, topic)?;
        put_count(out, numbers.len(), "partitions")?;
        for number in numbers {
            out.extend(number.to_be_bytes());
        }
    }
    Ok(())
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CodecError::Truncated(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn i16(&mut self, field: &'static str) -> Result<i16, CodecError> {
        Ok(i16::from_be_bytes(self.take(2, field)?.try_into().expect("two bytes")))
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, CodecError> {
        Ok(i32::from_be_bytes(self.take(4, field)?.try_into().expect("four bytes")))
    }

    fn version(&mut self) -> Result<i16, CodecError> {
        let version = self.i16("version")?;
        if version < 0 { Err(CodecError::Negative("version")) } else { Ok(version) }
    }

    /// A count of things that take at least `least` bytes each, checked against what is left, so that
    /// nothing is reserved for what cannot come.
    fn count(&mut self, field: &'static str, least: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.i32(field)?).map_err(|_| CodecError::Negative(field))?;
        if count > self.0.len() / least { Err(CodecError::Truncated(field)) } else { Ok(count) }
    }

    fn nullable_string(&mut self, field: &'static str) -> Result<Option<String>, CodecError> {
        let len = self.i16(field)?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| CodecError::Negative(field))?;
        let bytes = self.take(len, field)?;
        Ok(Some(std::str::from_utf8(bytes).map_err(|_| CodecError::NotUtf8(field))?.to_owned()))
    }

    fn topic(&mut self) -> Result<String, CodecError> {
        let topic = self.nullable_string("topic")?.ok_or(CodecError::Negative("topic"))?;
        if topic.len() > TOPIC_NAME_MAX_BYTES { Err(CodecError::TooLong("topic")) } else { Ok(topic) }
    }

    fn nullable_bytes(&mut self, field: &'static str) -> Result<Option<Vec<u8>>, CodecError> {
        let len = self.i32(field)?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| CodecError::Negative(field))?;
        Ok(Some(self.take(len, field)?.to_vec()))
    }

    fn partitions(&mut self) -> Result<Vec<TopicPartition>, CodecError> {
        let mut partitions = Vec::new();
        for _ in 0..self.count("topics", 6)? {
            let topic = self.topic()?;
            for _ in 0..self.count("partitions", 4)? {
                partitions.push((topic.clone(), self.i32("partition")?));
            }
        }
        Ok(partitions)
    }
}
