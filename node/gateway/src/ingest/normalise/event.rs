//! A normalised event, its canonical form and its identity.
//!
//! Canonical form: one JSON object, UTF-8, no white space, members in this order:
//!
//! ```text
//!  {"amount":"12.5","client":"client_C","metric":"refund","timestamp":"2024-01-15T10:30:00.000Z"}
//! ```
//!
//! The amount is plain decimal without exponent and without needless zeros, the time UTC with three digits after the
//! point. The [`EventId`] is the SHA-256 of these bytes; two events with the same id are one event.

use super::amount::Amount;
use super::time::format_time;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt;

/// What the pipeline counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who it is about.
    pub client: String,
    /// What happened.
    pub metric: String,
    /// How much.
    pub amount: Amount,
    /// When, in milliseconds since the Unix epoch.
    pub time_ms: i64,
}

#[derive(Serialize)]
struct Canonical<'a> {
    amount: String,
    client: &'a str,
    metric: &'a str,
    timestamp: String,
}

impl Event {
    /// The canonical form.
    pub fn canonical(&self) -> String {
        let canonical = Canonical {
            amount: self.amount.to_string(),
            client: &self.client,
            metric: &self.metric,
            timestamp: format_time(self.time_ms),
        };
        serde_json::to_string(&canonical).expect("strings are JSON")
    }

    /// SHA-256 of the canonical form.
    pub fn id(&self) -> EventId {
        EventId::of(self.canonical().as_bytes())
    }
}

/// Identity of an event: of a normalised one the digest of its canonical form, of a rejected one that of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId([u8; 32]);

impl EventId {
    /// SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        EventId(Sha256::digest(bytes).into())
    }

    /// From the 64 hexadecimal digits of its [`Display`](fmt::Display) form, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut id = [0; 32];
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(EventId(id))
    }

    /// From 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(EventId)
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
