//! The `[ingest]` table of a gateway's configuration.

use super::normalise::{Rules, RulesConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where a gateway keeps its events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum StoreLocation {
    /// A file of this gateway alone: `sqlite:PATH`.
    Sqlite(PathBuf),
    /// A database that all gateways share: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    Postgres(String),
}

impl FromStr for StoreLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(StoreLocation::Sqlite(path.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(StoreLocation::Postgres(text.into()));
        }
        Err("a store is sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE".into())
    }
}

impl TryFrom<String> for StoreLocation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StoreLocation> for String {
    fn from(location: StoreLocation) -> String {
        match location {
            StoreLocation::Sqlite(path) => format!("sqlite:{}", path.display()),
            StoreLocation::Postgres(url) => url,
        }
    }
}

/// Keys of `[ingest]`; what is left out keeps its default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// Where events are kept; without it there is no ingestion.
    pub store: Option<StoreLocation>,
    /// How events are normalised.
    pub rules: RulesConfig,
    /// Partitions of the topics when they are created.
    pub partitions: i32,
    /// How often the store is tried with an event before the event counts as failed.
    pub attempts: u32,
    /// First delay between two tries; it doubles, and each is drawn between half and the whole of it.
    pub retry_backoff_ms: u64,
    /// Longest delay.
    pub retry_backoff_max_ms: u64,
    /// How long a call of the store may take.
    pub store_timeout_ms: u64,
    /// How long the answer to an event waits for what becomes of it.
    pub wait_ms: u64,
    /// Most events of one request.
    pub max_events: usize,
    /// Group in which gateways share the work where they share the store.
    pub group: String,
    /// Allows `?simulateFailure=true`. Not for production.
    pub development: bool,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig {
            store: None,
            rules: RulesConfig::default(),
            partitions: 6,
            attempts: 5,
            retry_backoff_ms: 50,
            retry_backoff_max_ms: 5_000,
            store_timeout_ms: 10_000,
            wait_ms: 5_000,
            max_events: 10_000,
            group: "strandline-ingest".into(),
            development: false,
        }
    }
}

impl IngestConfig {
    /// Reads the `[ingest]` table of a TOML document; other tables are not looked at.
    ///
    /// # Errors
    /// A sentence that names the place and the fault.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            ingest: IngestConfig,
        }
        toml::from_str::<Document>(text).map(|document| document.ingest).map_err(|error| error.to_string())
    }

    /// Checks every key, and compiles the rules.
    ///
    /// # Errors
    /// The first key that cannot be used, and why.
    pub fn compile(&self) -> Result<Rules, String> {
        let bounds = [
            ("partitions", i64::from(self.partitions), 1, 10_000),
            ("attempts", i64::from(self.attempts), 1, 100),
            ("retry_backoff_ms", whole(self.retry_backoff_ms), 1, 60_000),
            ("retry_backoff_max_ms", whole(self.retry_backoff_max_ms), whole(self.retry_backoff_ms), 600_000),
            ("store_timeout_ms", whole(self.store_timeout_ms), 100, 600_000),
            ("wait_ms", whole(self.wait_ms), 0, 60_000),
            ("max_events", i64::try_from(self.max_events).unwrap_or(i64::MAX), 1, 100_000),
        ];
        if let Some((key, value, from, to)) =
            bounds.into_iter().find(|(_, value, from, to)| !(from..=to).contains(&value))
        {
            return Err(format!("ingest.{key} = {value} must be from {from} to {to}"));
        }
        if self.group.is_empty() {
            return Err("ingest.group is empty".into());
        }
        Rules::compile(self.rules.clone()).map_err(|error| error.to_string())
    }

    pub(super) fn store_timeout(&self) -> Duration {
        Duration::from_millis(self.store_timeout_ms)
    }

    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_with_its_defaults_and_faults_are_named() {
        let text = "[http]\nother = 1\n[ingest]\nstore = \"sqlite:/data/i.db\"\nattempts = 3\n\
                    [ingest.rules]\ndefault_client = \"nobody\"";
        let config = IngestConfig::from_toml(text).unwrap();
        assert_eq!(config.store, Some(StoreLocation::Sqlite("/data/i.db".into())));
        assert_eq!((config.attempts, config.wait_ms), (3, 5_000));
        assert_eq!(config.rules.default_client.as_deref(), Some("nobody"));
        config.compile().unwrap();
        assert_eq!(IngestConfig::from_toml("").unwrap(), IngestConfig::default());
        for (text, says) in [
            ("[ingest]\nstore = \"mysql://x\"", "a store is sqlite:PATH or postgres://"),
            ("[ingest]\nattempt = 3", "unknown field `attempt`"),
        ] {
            let error = IngestConfig::from_toml(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        for (text, says) in [
            ("[ingest]\nattempts = 0", "ingest.attempts = 0 must be from 1 to 100"),
            ("[ingest]\nretry_backoff_max_ms = 10", "ingest.retry_backoff_max_ms = 10 must be from 50"),
            ("[ingest.rules]\nclient_fields = []", "ingest.rules.client_fields must contain"),
        ] {
            let error = IngestConfig::from_toml(text).unwrap().compile().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
