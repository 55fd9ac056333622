//! One event of any shape becomes client, metric, amount and time, or a [`Rejection`] that says what is wrong.
//!
//! ```text
//!  JSON text ─► Fields (names, values as written) ─► Rules (names and formats, compiled once) ─► Event ─► EventId
//! ```
//!
//! Invariants: the same event and the same time of arrival give the same answer, whatever the order of its fields
//! and whether they are nested or flat; what [`Event::canonical`] writes normalises to the same event again; numbers
//! are taken as their digits say, never through a float.

mod amount;
mod event;
mod fields;
mod rules;
mod time;

pub use amount::Amount;
pub use event::{Event, EventId};
pub use rules::{Rules, RulesConfig, RulesError};
pub use time::{format_time, parse_bound};

use std::fmt;

/// Why an event was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Not a JSON object, or not JSON.
    NotAnObject,
    /// Two fields of one name: which one is meant cannot be known.
    RepeatedField,
    /// More bytes than an event may have.
    TooLarge,
    /// No field names a client, and there is no default.
    MissingClient,
    /// The client is no usable name.
    InvalidClient,
    /// No field names a metric, and there is no default.
    MissingMetric,
    /// The metric is no usable name.
    InvalidMetric,
    /// No field gives an amount, and there is no default.
    MissingAmount,
    /// The amount is not a number, or has more digits than are kept.
    InvalidAmount,
    /// No field gives a time, and it is not to be taken from the clock.
    MissingTime,
    /// The time is in no known format, or out of range.
    InvalidTime,
}

impl Reason {
    /// As it is stored and answered.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NotAnObject => "not_an_object",
            Reason::RepeatedField => "repeated_field",
            Reason::TooLarge => "too_large",
            Reason::MissingClient => "missing_client",
            Reason::InvalidClient => "invalid_client",
            Reason::MissingMetric => "missing_metric",
            Reason::InvalidMetric => "invalid_metric",
            Reason::MissingAmount => "missing_amount",
            Reason::InvalidAmount => "invalid_amount",
            Reason::MissingTime => "missing_time",
            Reason::InvalidTime => "invalid_time",
        }
    }
}

/// An event that cannot be normalised: the kind of fault, and a sentence for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Kind of fault.
    pub reason: Reason,
    /// What was found and what is expected.
    pub detail: String,
    /// The client, where that much could be read: so that a client finds its own rejected events.
    pub client: Option<String>,
}

impl Rejection {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Rejection { reason, detail: detail.into(), client: None }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.detail)
    }
}

/// The beginning of something that a stranger wrote, short enough for a message.
fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod properties;
