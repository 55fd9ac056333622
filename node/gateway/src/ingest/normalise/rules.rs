//! The rule set: which fields mean what, in which formats, and what stands in for what is missing.
//!
//! Of each list of names the first that the event has counts, looked for in the nested object first (it says more
//! than the envelope), then beside it. `null` and blank text count as missing; a value that is there and cannot be
//! read makes the event rejected, and is not passed over for the next name.

use super::amount::Amount;
use super::event::Event;
use super::fields::{Fields, Value};
use super::time;
use super::{Reason, Rejection, excerpt};
use serde::{Deserialize, Serialize};

/// The keys under `[ingest.rules]`; what is left out keeps its default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesConfig {
    /// Objects inside an event in which its fields may be nested.
    pub payload_fields: Vec<String>,
    /// Names of the client, best first.
    pub client_fields: Vec<String>,
    /// Names of the metric.
    pub metric_fields: Vec<String>,
    /// Names of the amount.
    pub amount_fields: Vec<String>,
    /// Names of the time.
    pub time_fields: Vec<String>,
    /// Formats of times beside the built-in ones, as in strftime.
    pub time_formats: Vec<String>,
    /// Client of events that name none. Without it they are rejected: nobody could ask for them.
    pub default_client: Option<String>,
    /// Metric of events that name none.
    pub default_metric: Option<String>,
    /// Amount of events that give none. Without it they are rejected: a sum over a guess is wrong.
    pub default_amount: Option<String>,
    /// Whether an event without a time happened when it arrived; else it is rejected.
    pub default_time_is_arrival: bool,
    /// Longest client or metric, in bytes.
    pub max_name_bytes: usize,
    /// Longest event, in bytes as it was sent.
    pub max_event_bytes: usize,
}

impl Default for RulesConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        RulesConfig {
            payload_fields: names(&["payload"]),
            client_fields: names(&["source", "client_id", "clientId", "client", "origin"]),
            metric_fields: names(&["metric", "event_type", "type", "eventType", "name"]),
            amount_fields: names(&["amount", "value", "count", "quantity", "total", "price"]),
            time_fields: names(&["timestamp", "time", "date", "created_at", "createdAt", "ts"]),
            time_formats: Vec::new(),
            default_client: None,
            default_metric: Some("unknown".into()),
            default_amount: None,
            default_time_is_arrival: true,
            max_name_bytes: 256,
            max_event_bytes: 64 << 10,
        }
    }
}

/// Why a rule set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Canonical forms have to be readable by the rules that made them.
    #[error("ingest.rules.{key} must contain {name:?}: that is how events are kept")]
    CanonicalName {
        /// The list.
        key: &'static str,
        /// What it lacks.
        name: &'static str,
    },
    /// A default that would not be accepted from an event.
    #[error("ingest.rules.{key}: {what}")]
    Default {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A format with unknown directives.
    #[error("ingest.rules.time_formats: {format:?} is not usable: {what}")]
    Format {
        /// The format.
        format: String,
        /// What is wrong with it.
        what: String,
    },
    /// A bound out of range.
    #[error("ingest.rules.{key} must be from {from} to {to}")]
    Bound {
        /// The key.
        key: &'static str,
        /// Least.
        from: usize,
        /// Most.
        to: usize,
    },
}

/// A checked rule set.
#[derive(Clone, Debug)]
pub struct Rules {
    config: RulesConfig,
    default_amount: Option<Amount>,
}

impl Rules {
    /// Checks a rule set, once.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn compile(config: RulesConfig) -> Result<Self, RulesError> {
        for (key, list, name) in [
            ("client_fields", &config.client_fields, "client"),
            ("metric_fields", &config.metric_fields, "metric"),
            ("amount_fields", &config.amount_fields, "amount"),
            ("time_fields", &config.time_fields, "timestamp"),
        ] {
            if !list.iter().any(|n| n == name) {
                return Err(RulesError::CanonicalName { key, name });
            }
        }
        for (key, value, to) in [
            ("max_name_bytes", config.max_name_bytes, 1024),
            ("max_event_bytes", config.max_event_bytes, 512 << 10),
        ] {
            if !(16..=to).contains(&value) {
                return Err(RulesError::Bound { key, from: 16, to });
            }
        }
        for (key, default) in
            [("default_client", &config.default_client), ("default_metric", &config.default_metric)]
        {
            if let Some(default) = default {
                let bad = |what| RulesError::Default { key, what };
                if default.trim().is_empty() {
                    return Err(bad("it is empty; leave the key out instead".into()));
                }
                check_name(default, config.max_name_bytes).map_err(bad)?;
            }
        }
        let bad_amount =
            |what: String| RulesError::Default { key: "default_amount", what: format!("it {what}") };
        let default_amount =
            config.default_amount.as_deref().map(Amount::from_event).transpose().map_err(bad_amount)?;
        for format in &config.time_formats {
            // A format that cannot write a moment cannot read one.
            let written = jiff::fmt::strtime::format(
                format,
                &jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC),
            );
            if let Err(error) = written {
                return Err(RulesError::Format { format: format.clone(), what: error.to_string() });
            }
        }
        Ok(Rules { config, default_amount })
    }

    /// Longest event, in bytes.
    pub fn max_event_bytes(&self) -> usize {
        self.config.max_event_bytes
    }

    /// Normalises one event, which arrived at `arrival_ms` (milliseconds since the Unix epoch).
    ///
    /// # Errors
    /// What is wrong with it, for whoever sent it.
    pub fn normalise(&self, text: &str, arrival_ms: i64) -> Result<Event, Rejection> {
        if text.len() > self.config.max_event_bytes {
            return Err(Rejection::new(
                Reason::TooLarge,
                format!("the event has {} bytes, the most is {}", text.len(), self.config.max_event_bytes),
            ));
        }
        let outer = Fields::parse(text)?;
        let payload = self
            .config
            .payload_fields
            .iter()
            .find_map(|name| outer.text(name).filter(|text| text.starts_with('{')));
        let inner = payload.map(Fields::parse).transpose()?.unwrap_or_default();
        let event = Reader { rules: self, layers: [&inner, &outer] };
        let client = event.client()?;
        // A client can be told of a fault in the rest only by its name.
        let of_client = |mut rejection: Rejection| {
            rejection.client = Some(client.clone());
            rejection
        };
        let metric = event.metric().map_err(of_client)?;
        let amount = event.amount().map_err(of_client)?;
        let time_ms = event.time(arrival_ms).map_err(of_client)?;
        Ok(Event { client, metric, amount, time_ms })
    }
}

/// One event under one rule set.
struct Reader<'r, 'a> {
    rules: &'r Rules,
    /// The more telling first.
    layers: [&'r Fields<'a>; 2],
}

impl<'r, 'a> Reader<'r, 'a> {
    /// The first field of these that is there and says something, with its name.
    fn pick(&self, names: &'r [String]) -> Option<(&'r str, Value<'a>)> {
        self.layers.iter().find_map(|fields| {
            names.iter().find_map(|name| match fields.value(name)? {
                Value::Null => None,
                Value::Text(text) if text.trim().is_empty() => None,
                value => Some((name.as_str(), value)),
            })
        })
    }

    fn client(&self) -> Result<String, Rejection> {
        let config = &self.rules.config;
        match self.pick(&config.client_fields) {
            Some(found) => self.name(found).map_err(|what| Rejection::new(Reason::InvalidClient, what)),
            None => config.default_client.clone().ok_or_else(|| {
                Rejection::new(Reason::MissingClient, none_of("client", &config.client_fields))
            }),
        }
    }

    fn metric(&self) -> Result<String, Rejection> {
        let config = &self.rules.config;
        match self.pick(&config.metric_fields) {
            Some(found) => self.name(found).map_err(|what| Rejection::new(Reason::InvalidMetric, what)),
            None => config.default_metric.clone().ok_or_else(|| {
                Rejection::new(Reason::MissingMetric, none_of("metric", &config.metric_fields))
            }),
        }
    }

    /// Text, or a number as its digits: clients are often numbered.
    fn name(&self, (field, value): (&str, Value<'a>)) -> Result<String, String> {
        let name = match value {
            Value::Text(text) => text.trim().to_owned(),
            Value::Number(digits) => digits.to_owned(),
            Value::Null => return Err(format!("{field} is null")),
            Value::Other(what) => return Err(format!("{field} is {what} (expected text)")),
        };
        check_name(&name, self.rules.config.max_name_bytes).map_err(|what| format!("{field}: {what}"))?;
        Ok(name)
    }

    fn amount(&self) -> Result<Amount, Rejection> {
        let names = &self.rules.config.amount_fields;
        let invalid =
            |field: &str, what: String| Rejection::new(Reason::InvalidAmount, format!("{field} {what}"));
        match self.pick(names) {
            Some((field, Value::Number(digits))) => Amount::from_event(digits)
                .map_err(|what| invalid(field, format!("= {} {what}", excerpt(digits)))),
            Some((field, Value::Text(text))) => Amount::from_event(&text)
                .map_err(|what| invalid(field, format!("= {:?} {what}", excerpt(&text)))),
            Some((field, Value::Other(what))) => {
                Err(invalid(field, format!("is {what} (expected a number)")))
            }
            Some((_, Value::Null)) | None => self
                .rules
                .default_amount
                .clone()
                .ok_or_else(|| Rejection::new(Reason::MissingAmount, none_of("amount", names))),
        }
    }

    fn time(&self, arrival_ms: i64) -> Result<i64, Rejection> {
        let config = &self.rules.config;
        let (field, shown, time) = match self.pick(&config.time_fields) {
            Some((field, Value::Number(digits))) => (field, digits.to_owned(), time::from_number(digits)),
            Some((field, Value::Text(text))) => {
                let text = text.trim();
                let number = time::from_number(text);
                (field, format!("{text:?}"), number.or_else(|| time::from_text(text, &config.time_formats)))
            }
            Some((field, Value::Other(what))) => (field, what.to_owned(), None),
            Some((_, Value::Null)) | None if config.default_time_is_arrival => return Ok(arrival_ms),
            Some((_, Value::Null)) | None => {
                return Err(Rejection::new(Reason::MissingTime, none_of("time", &config.time_fields)));
            }
        };
        time.ok_or_else(|| {
            Rejection::new(
                Reason::InvalidTime,
                format!(
                    "{field} = {} is not a time (expected ISO 8601, such as 2024-01-15T10:30:00Z, or Unix seconds \
                     or milliseconds)",
                    excerpt(&shown)
                ),
            )
        })
    }
}

fn none_of(what: &str, names: &[String]) -> String {
    format!("there is no {what}: expected one of the fields {}", names.join(", "))
}

fn check_name(name: &str, max_bytes: usize) -> Result<(), String> {
    if name.len() > max_bytes {
        return Err(format!("{} is longer than {max_bytes} bytes", excerpt(name)));
    }
    match name.chars().find(|c| c.is_control()) {
        Some(control) => Err(format!("it contains the control character U+{:04X}", control as u32)),
        None => Ok(()),
    }
}
