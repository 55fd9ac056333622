//! Puts a configuration together from file, environment and flags, and says for every mistake which key,
//! where it was written, and what is allowed.

use super::keys::{KEYS, Key, NodeConfig, key};
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Prefix of the environment variables.
const PREFIX: &str = "STRANDLINE_";

/// Variables with our prefix that are no keys of a node: they belong to the command line.
const NOT_KEYS: &[&str] = &["STRANDLINE_BOOTSTRAP", "STRANDLINE_CONFIG"];

/// Kafka's names for what has another name here.
const KAFKA_NAMES: &[(&str, &str)] = &[
    ("broker.id", "node.id"),
    ("log.dir", "data.dir"),
    ("log.dirs", "data.dir"),
    ("rack", "broker.rack"),
    ("listeners", "listen.kafka"),
    ("advertised.listeners", "advertise.kafka"),
    ("controller.quorum.voters", "form.cluster"),
    ("controller.quorum.bootstrap.servers", "join"),
    ("log.retention.hours", "log.retention.ms"),
    ("log.retention.minutes", "log.retention.ms"),
    ("max.connections.per.ip", "connections.max.per.ip"),
    ("max.message.bytes", "message.max.bytes"),
    ("num.io.threads", "worker.threads"),
    ("socket.request.max.bytes", "kafka.max.request.bytes"),
    ("num.network.threads", "worker.threads"),
];

/// What a configuration is made of, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    pub file: Option<ConfigFile<'a>>,
    /// The whole environment; only `STRANDLINE_…` is looked at.
    pub env: BTreeMap<String, String>,
    /// Key (not flag) and value, in the order given; the last one of a key wins.
    pub flags: Vec<(String, String)>,
}

/// Content of a TOML file.
#[derive(Clone, Copy, Debug)]
pub struct ConfigFile<'a> {
    /// As it is named in messages.
    pub name: &'a str,
    pub text: &'a str,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { name: String, line: usize },
    Env(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Env(variable) => write!(f, "environment variable {variable}"),
            Origin::Flag(flag) => write!(f, "flag --{flag}"),
        }
    }
}

/// A valid configuration and where each value that is not a default came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: NodeConfig,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written; `Default` when nothing was written.
    pub origin: Origin,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.message),
            origin => write!(f, "{origin}: {}", self.message),
        }
    }
}

/// Every mistake that was found; never empty. Nothing was started, nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Merges the sources over the defaults and validates the result.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigError> {
    let mut merge = Merge::default();
    if let Some(file) = sources.file {
        merge.file(file);
    }
    merge.environment(&sources.env);
    for (name, value) in &sources.flags {
        merge.set(name, value, Origin::Flag(name.replace('.', "-")));
    }
    // Rules between keys are checked only once each key is right by itself: what a refused value would have
    // broken or mended is not known.
    if merge.problems.is_empty()
        && let Err(violations) = merge.config.validate()
    {
        for violation in violations {
            let origin = merge.origins.get(violation.key).cloned().unwrap_or(Origin::Default);
            merge.problems.push(Problem { origin, message: violation.to_string() });
        }
    }
    if merge.problems.is_empty() {
        Ok(Loaded { config: merge.config, origins: merge.origins })
    } else {
        Err(ConfigError(merge.problems))
    }
}

#[derive(Default)]
struct Merge {
    config: NodeConfig,
    origins: BTreeMap<&'static str, Origin>,
    problems: Vec<Problem>,
}

impl Merge {
    fn set(&mut self, name: &str, value: &str, origin: Origin) {
        let Some(key) = key(name) else {
            return self.unknown(name, origin);
        };
        match key.set(&mut self.config, value) {
            Ok(()) => {
                self.origins.insert(key.name, origin);
            }
            Err(why) => self.problem(origin, format!("{}: {why}; allowed: {}", key.name, key.allowed())),
        }
    }

    fn problem(&mut self, origin: Origin, message: String) {
        self.problems.push(Problem { origin, message });
    }

    fn unknown(&mut self, name: &str, origin: Origin) {
        let renamed = KAFKA_NAMES.iter().find(|(kafka, _)| *kafka == name);
        let hint = match (renamed, suggest(name, KEYS.iter().map(|k| k.name))) {
            (Some((_, ours)), _) => format!("; here it is called `{ours}`"),
            (None, Some(near)) => format!("; did you mean `{near}`?"),
            (None, None) => "; `strandline config list` shows every key".to_owned(),
        };
        self.problem(origin, format!("unknown key `{name}`{hint}"));
    }

    fn environment(&mut self, env: &BTreeMap<String, String>) {
        for (variable, value) in env.iter().filter(|(variable, _)| variable.starts_with(PREFIX)) {
            let origin = Origin::Env(variable.clone());
            if let Some(key) = KEYS.iter().find(|key| key.env() == *variable) {
                self.set(key.name, value, origin);
            } else if !NOT_KEYS.contains(&variable.as_str()) && !set_by_kubernetes(variable) {
                let near = suggest(variable, KEYS.iter().map(Key::env));
                let hint = match near {
                    Some(near) => format!("; did you mean {near}?"),
                    None => "; `strandline config list` shows every key".to_owned(),
                };
                self.problem(origin, format!("no key has this name{hint}"));
            }
        }
    }

    fn file(&mut self, file: ConfigFile<'_>) {
        match DeTable::parse(file.text) {
            Ok(table) => self.table(file, "", table.get_ref()),
            Err(error) => {
                let line = line_of(file.text, error.span().map_or(0, |span| span.start));
                let origin = Origin::File { name: file.name.to_owned(), line };
                self.problem(origin, format!("not TOML: {}", error.message()));
            }
        }
    }

    /// Tables only group keys: `[log] segment.bytes`, `log.segment.bytes` and `"log.segment.bytes"` are one key.
    fn table(&mut self, file: ConfigFile<'_>, prefix: &str, table: &DeTable<'_>) {
        // In the order of the file, so that problems come in the order of the file.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let path = match prefix {
                "" => name.get_ref().to_string(),
                _ => format!("{prefix}.{}", name.get_ref()),
            };
            let line = line_of(file.text, name.span().start);
            let origin = Origin::File { name: file.name.to_owned(), line };
            match value.get_ref() {
                DeValue::Table(inner) if key(&path).is_none() => self.table(file, &path, inner),
                _ => match text_of(value) {
                    Some(text) => self.set(&path, &text, origin),
                    None => {
                        self.problem(origin, format!("{path}: a {} is no value", value.get_ref().type_str()))
                    }
                },
            }
        }
    }
}

/// A TOML value as the text that flags and environment would carry. Arrays become comma-separated lists,
/// tables lists of `name=value`.
fn text_of(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let sign_and_digits = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            Some(sign_and_digits.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Datetime(_) => None,
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(text_of).collect();
            items.map(|items| items.join(","))
        }
        DeValue::Table(entries) => {
            let entries: Option<Vec<String>> = entries
                .iter()
                .map(|(name, v)| text_of(v).map(|v| format!("{}={v}", name.get_ref())))
                .collect();
            entries.map(|entries| entries.join(","))
        }
    }
}

/// Line, counted from 1, of a byte position.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

/// Kubernetes puts the addresses of every service in its namespace into the environment; with a service called
/// `strandline` that is `STRANDLINE_SERVICE_HOST`, `STRANDLINE_PORT_7070_TCP_ADDR` and so on.
fn set_by_kubernetes(variable: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| variable.ends_with(end))
        || variable.contains("_SERVICE_PORT_")
        || (variable.contains("_PORT_") && (variable.contains("_TCP") || variable.contains("_UDP")))
}

/// The candidate nearest to `name`, if one is near enough to have been meant.
pub fn suggest<S: AsRef<str>>(name: &str, candidates: impl IntoIterator<Item = S>) -> Option<S> {
    let name = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let score = strsim::jaro_winkler(&name, &candidate.as_ref().to_lowercase());
            let distance = strsim::damerau_levenshtein(&name, &candidate.as_ref().to_lowercase());
            (distance, score, candidate)
        })
        .filter(|(distance, score, _)| *distance <= 2 || *distance * 4 <= name.len() || *score >= 0.93)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use strandline_record::BrokerId;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn file(text: &str) -> Option<ConfigFile<'_>> {
        Some(ConfigFile { name: "node.toml", text })
    }

    fn problems(sources: Sources<'_>) -> Vec<String> {
        load(&sources).unwrap_err().0.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let text = "node.id = 3\ndata.dir = \"d\"\nnum.partitions = 2\nmin.insync.replicas = 1\nworker.threads = 4\n";
        let loaded = load(&Sources {
            file: file(text),
            env: env(&[("STRANDLINE_NUM_PARTITIONS", "5"), ("STRANDLINE_WORKER_THREADS", "6")]),
            flags: flags(&[("worker.threads", "7"), ("worker.threads", "8")]),
        })
        .unwrap();
        let config = &loaded.config;
        assert_eq!((config.node_id, config.num_partitions), (BrokerId(3), 5));
        assert_eq!((config.min_insync_replicas, config.worker_threads), (1, 8));
        assert_eq!(config.broker_session_timeout, Duration::from_secs(3));
        assert_eq!(
            loaded.origin("num.partitions").to_string(),
            "environment variable STRANDLINE_NUM_PARTITIONS"
        );
        assert_eq!(loaded.origin("min.insync.replicas").to_string(), "node.toml:4");
        assert_eq!(loaded.origin("worker.threads").to_string(), "flag --worker-threads");
        assert_eq!(loaded.origin("fetch.max.bytes"), &Origin::Default);
    }

    #[test]
    fn tables_dotted_keys_quoted_keys_lists_and_maps_are_the_same_in_a_file() {
        let text = r#"
            "node.id" = 1
            data.dir = "d"
            [log]
            segment.bytes = 1_048_588
            retention.ms = -1
            [form.cluster]
            1 = "127.0.0.1:7170"
            2 = "b:7170"
        "#;
        let config = load(&Sources { file: file(text), ..Sources::default() }).unwrap().config;
        assert_eq!((config.log_segment_bytes, config.log_retention), (1_048_588, None));
        assert_eq!(config.form_cluster.unwrap().to_string(), "1=127.0.0.1:7170,2=b:7170");
        let text = "node.id = 0x1\ndata.dir = \"d\"\njoin = [\"a:1\", \"b:2\"]";
        let config = load(&Sources { file: file(text), ..Sources::default() }).unwrap().config;
        assert_eq!(config.join.len(), 2);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_place_and_the_nearest_key() {
        let text = "node.id = 1\ndata.dir = \"d\"\n\nnum.partition = 3\nlog.dirs = \"x\"\nzzz.qqq.xxx = 1\n";
        assert_eq!(
            problems(Sources {
                file: file(text),
                env: env(&[
                    ("STRANDLINE_WORKER_THREAD", "2"),
                    ("STRANDLINE_BOOTSTRAP", "x:1"),
                    ("HOME", "/")
                ]),
                flags: flags(&[("data.dri", "x")]),
            }),
            [
                "node.toml:4: unknown key `num.partition`; did you mean `num.partitions`?",
                "node.toml:5: unknown key `log.dirs`; here it is called `data.dir`",
                "node.toml:6: unknown key `zzz.qqq.xxx`; `strandline config list` shows every key",
                "environment variable STRANDLINE_WORKER_THREAD: no key has this name; did you mean STRANDLINE_WORKER_THREADS?",
                "flag --data-dri: unknown key `data.dri`; did you mean `data.dir`?",
            ]
        );
    }

    #[test]
    fn a_bad_value_says_which_key_where_and_what_is_allowed() {
        let text = "node.id = 1\ndata.dir = \"d\"\nlog.flush.mode = \"never\"\nworker.threads = 1.5\n";
        assert_eq!(
            problems(Sources {
                file: file(text),
                env: env(&[("STRANDLINE_NUM_PARTITIONS", "many")]),
                flags: flags(&[("worker.threads", "0")]),
            }),
            [
                "node.toml:3: log.flush.mode: `never` is not one of them; allowed: ack, interval or os",
                "node.toml:4: worker.threads: `1.5` is not a number; allowed: a whole number; 1 to 1024",
                "environment variable STRANDLINE_NUM_PARTITIONS: num.partitions: `many` is not a number; \
                 allowed: a whole number; 1 to 10000",
                "flag --worker-threads: worker.threads: 0 is too small; allowed: a whole number; 1 to 1024",
            ]
        );
    }

    #[test]
    fn a_broken_rule_between_keys_names_where_the_value_came_from() {
        let text = "node.id = 1\ndata.dir = \"d\"\nbroker.session.timeout.ms = 900\n";
        let found = problems(Sources { file: file(text), ..Sources::default() });
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("node.toml:3: broker.session.timeout.ms is 900, which is less than 1000"),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_not_toml_is_reported_with_its_line() {
        let found = problems(Sources { file: file("node.id = 1\ndata.dir = \n"), ..Sources::default() });
        assert!(found[0].starts_with("node.toml:2: not TOML"), "{found:?}");
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_ignored() {
        let loaded = load(&Sources {
            env: env(&[
                ("STRANDLINE_SERVICE_HOST", "10.0.0.1"),
                ("STRANDLINE_PORT", "tcp://10.0.0.1:7070"),
                ("STRANDLINE_PORT_7070_TCP_ADDR", "10.0.0.1"),
                ("STRANDLINE_NODE_ID", "4"),
                ("STRANDLINE_DATA_DIR", "d"),
            ]),
            ..Sources::default()
        });
        assert_eq!(loaded.unwrap().config.node_id, BrokerId(4));
    }
}
