//! The table of keys. A row gives the field of [`NodeConfig`], the key's name, type, default, range, example
//! and documentation; everything else about configuration is derived from it.
//!
//! No key is a dotted prefix of another (TOML could not hold both); a test checks it.

use super::value::{ConfigValue, FlushMode, FormCluster, HostPort, LogFormat, TimestampType, Unit};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use strandline_core::consumer_group::assignor::Assignor;
use strandline_record::BrokerId;
use uuid::Uuid;

/// One row of the table.
pub struct Key {
    pub name: &'static str,
    /// Heading under which it is listed.
    pub section: &'static str,
    /// Sentences, one line.
    pub documentation: &'static str,
    pub example: &'static str,
    /// Must be given; the default is then meaningless.
    pub required: bool,
    range: Option<(u64, u64)>,
    kind: fn(Unit) -> &'static str,
    allowed: fn(Unit) -> &'static str,
    get: fn(&NodeConfig, Unit) -> String,
    set: fn(&mut NodeConfig, &str, Unit) -> Result<(), String>,
    number: fn(&NodeConfig, Unit) -> Option<u64>,
}

impl Key {
    fn unit(&self) -> Unit {
        Unit::of(self.name)
    }

    /// `--broker-session-timeout-ms`, without the dashes in front.
    pub fn flag(&self) -> String {
        self.name.replace('.', "-")
    }

    /// `STRANDLINE_BROKER_SESSION_TIMEOUT_MS`.
    pub fn env(&self) -> String {
        format!("STRANDLINE_{}", self.name.to_uppercase().replace(['.', '-'], "_"))
    }

    /// Type of the value in a word or two.
    pub fn kind(&self) -> &'static str {
        (self.kind)(self.unit())
    }

    /// What may be written, in words.
    pub fn allowed(&self) -> String {
        let words = (self.allowed)(self.unit());
        match self.range {
            Some((low, u64::MAX)) => format!("{words}; at least {low}"),
            Some((low, high)) => format!("{words}; {low} to {high}"),
            None => words.to_owned(),
        }
    }

    /// The value in `config`, as text that [`Key::set`] reads back. Empty when there is none.
    pub fn get(&self, config: &NodeConfig) -> String {
        (self.get)(config, self.unit())
    }

    /// The default as text; `None` when there is none.
    pub fn default(&self) -> Option<String> {
        let text = self.get(&NodeConfig::default());
        (!self.required && !text.is_empty()).then_some(text)
    }

    /// Sets the value from text; the error says what is wrong with the text, not what would be right.
    pub fn set(&self, config: &mut NodeConfig, text: &str) -> Result<(), String> {
        (self.set)(config, text, self.unit())?;
        self.check_range(config)
    }

    /// That the value lies in the key's range.
    pub(super) fn check_range(&self, config: &NodeConfig) -> Result<(), String> {
        let (Some((low, high)), Some(number)) = (self.range, (self.number)(config, self.unit())) else {
            return Ok(());
        };
        if number < low {
            return Err(format!("{number} is too small"));
        }
        if number > high {
            return Err(format!("{number} is too large"));
        }
        Ok(())
    }
}

/// The row of a name.
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

macro_rules! is_required {
    () => {
        false
    };
    (required) => {
        true
    };
}

macro_rules! range {
    () => {
        None
    };
    ($low:expr) => {
        Some(($low, u64::MAX))
    };
    ($low:expr, $high:expr) => {
        Some(($low, $high))
    };
}

macro_rules! node_config {
    ($(
        $section:literal {
            $(
                #[doc = $first:literal] $(#[doc = $doc:literal])*
                $field:ident: $ty:ty = $default:expr, $name:literal, $example:literal
                $([$low:expr $(, $high:expr)?])? $($required:ident)?;
            )+
        }
    )+) => {
        /// Configuration of one node. Build it with [`super::load`], or in tests from
        /// [`NodeConfig::new`]; then call [`NodeConfig::validate`].
        #[derive(Clone, Debug, PartialEq)]
        pub struct NodeConfig {
            $($(
                #[doc = $first] $(#[doc = $doc])*
                #[doc = ""]
                #[doc = concat!("Key `", $name, "`.")]
                pub $field: $ty,
            )+)+
        }

        impl Default for NodeConfig {
            /// Every default. `node.id` and `data.dir` have none, so the result is not yet valid.
            fn default() -> Self {
                NodeConfig { $($($field: $default,)+)+ }
            }
        }

        /// Every key, in the order in which they are listed.
        pub static KEYS: &[Key] = &[$($(
            Key {
                name: $name,
                section: $section,
                documentation: concat!($first, $($doc,)*).trim_ascii(),
                example: $example,
                required: is_required!($($required)?),
                range: range!($($low $(, $high)?)?),
                kind: <$ty as ConfigValue>::kind,
                allowed: <$ty as ConfigValue>::allowed,
                get: |config, unit| config.$field.render(unit),
                set: |config, text, unit| {
                    config.$field = ConfigValue::parse(text, unit)?;
                    Ok(())
                },
                number: |config, unit| config.$field.number(unit),
            },
        )+)+];
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const DAY_MS: u64 = 86_400_000;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn loopback(port: u16) -> HostPort {
    HostPort::new("127.0.0.1", port)
}

node_config! {
    "Identity and data" {
        /// Number of this node, different on each node of the cluster and never changed afterwards.
        node_id: BrokerId = BrokerId(0), "node.id", "1" required;
        /// Directory that holds everything this node keeps. It belongs to one node of one cluster and is locked
        /// while the node runs.
        data_dir: PathBuf = PathBuf::new(), "data.dir", "/var/lib/strandline" required;
        /// Where this node stands, such as a rack or an availability zone; replicas of a partition are spread over
        /// racks.
        broker_rack: Option<String> = None, "broker.rack", "zone-a";
        /// The cluster that this node belongs to. When given, a node that joins refuses any other cluster, and a
        /// data directory of any other cluster is refused.
        cluster_id: Option<Uuid> = None, "cluster.id", "7d4ce5f4-6a3a-4f0b-9d2b-3b1f8f1f6c10";
        /// Forms a new cluster of the listed nodes, each with its peer address; give the same list to each of them.
        /// A node whose data directory belongs to a cluster already keeps to that one.
        form_cluster: Option<FormCluster> = None, "form.cluster", "1=10.0.0.1:7170,2=10.0.0.2:7170,3=10.0.0.3:7170";
        /// Joins the cluster that one of these nodes (peer addresses) belongs to.
        join: Vec<HostPort> = Vec::new(), "join", "10.0.0.1:7170,10.0.0.2:7170";
    }
    "Listeners" {
        /// Address on which clients (SDK and command line, gRPC) are served.
        listen_grpc: HostPort = loopback(7070), "listen.grpc", "0.0.0.0:7070";
        /// Address by which clients reach `listen.grpc`; the listen address itself when absent.
        advertise_grpc: Option<HostPort> = None, "advertise.grpc", "node-1.example:7070";
        /// Address on which the other nodes are served.
        listen_peer: HostPort = loopback(7170), "listen.peer", "0.0.0.0:7170";
        /// Address by which other nodes reach `listen.peer`; when absent, this node's own entry of `form.cluster`,
        /// else the listen address itself.
        advertise_peer: Option<HostPort> = None, "advertise.peer", "node-1.example:7170";
        /// Address on which Kafka clients are served; none are when absent.
        listen_kafka: Option<HostPort> = None, "listen.kafka", "127.0.0.1:9092";
        /// Address by which Kafka clients reach `listen.kafka`; the listen address itself when absent.
        advertise_kafka: Option<HostPort> = None, "advertise.kafka", "node-1.example:9092";
        /// Address on which HTTP is served (events over JSON, health); it is not when absent.
        listen_http: Option<HostPort> = None, "listen.http", "127.0.0.1:8080";
        /// Address by which HTTP clients reach `listen.http`; the listen address itself when absent.
        advertise_http: Option<HostPort> = None, "advertise.http", "node-1.example:8080";
        /// Connections of clients that a listener holds at once; further ones are closed at once. Other nodes are not
        /// counted.
        max_connections: usize = 10_000, "max.connections", "2000" [1, 1_000_000];
        /// Kafka connections from one address that are held at once; further ones are closed at once.
        connections_max_per_ip: usize = 10_000, "connections.max.per.ip", "500" [1, 1_000_000];
        /// A Kafka connection on which nothing was asked for this long is closed.
        connections_max_idle: Duration = ms(600_000), "connections.max.idle.ms", "600000" [1000];
    }
    "Defaults of new topics" {
        /// Partitions of a topic whose creation does not say how many.
        num_partitions: i32 = 1, "num.partitions", "12" [1, 10_000];
        /// Replicas of a topic whose creation does not say how many; fewer when the cluster has fewer nodes.
        default_replication_factor: u32 = 3, "default.replication.factor", "3" [1, 15];
        /// In-sync replicas that a write with acks=all needs (topic key `min.insync.replicas`); lowered to the number of
        /// replicas of a topic that has fewer.
        min_insync_replicas: u32 = 2, "min.insync.replicas", "2" [1, 15];
        /// What an acknowledgement waits for (topic key `flush`): `ack` for the disk of each in-sync replica, `interval`
        /// and `os` for their memory only.
        log_flush_mode: FlushMode = FlushMode::Ack, "log.flush.mode", "ack";
        /// How often topics with `flush=interval` are synced (topic key `flush.ms`).
        log_flush_interval: Duration = ms(1000), "log.flush.interval.ms", "1000" [1];
        /// Size at which a segment is closed and the next one begun (topic key `segment.bytes`).
        log_segment_bytes: u64 = 1024 * MIB, "log.segment.bytes", "128MiB" [64 * KIB, 2047 * MIB];
        /// Age at which a segment is closed although it is not full (topic key `segment.ms`).
        log_roll: Duration = ms(7 * DAY_MS), "log.roll.ms", "7d" [1000];
        /// How long records are kept (topic key `retention.ms`); -1 keeps them for ever.
        log_retention: Option<Duration> = Some(ms(7 * DAY_MS)), "log.retention.ms", "30d";
        /// How many bytes a partition keeps (topic key `retention.bytes`); -1 sets no limit.
        log_retention_bytes: Option<u64> = None, "log.retention.bytes", "10GiB";
        /// Largest record batch that is accepted (topic key `max.message.bytes`).
        message_max_bytes: u64 = MIB + 12, "message.max.bytes", "1048588" [KIB, 60 * MIB];
        /// Whether records keep the producer's time or get the leader's (topic key `message.timestamp.type`).
        log_message_timestamp_type: TimestampType = TimestampType::CreateTime, "log.message.timestamp.type", "LogAppendTime";
        /// Whether a topic that does not exist is created, with the defaults above, when a client that wants that asks
        /// about it: `strandline produce` does, and the SDK's producer with `auto_create_topics`.
        auto_create_topics_enable: bool = false, "auto.create.topics.enable", "true";
    }
    "Storage" {
        /// How often segments that retention has passed are looked for.
        log_retention_check_interval: Duration = ms(300_000), "log.retention.check.interval.ms", "300000" [10];
        /// How often partitions are looked for that compaction is due for (`cleanup.policy=compact`).
        log_cleaner_backoff: Duration = ms(15_000), "log.cleaner.backoff.ms", "15000" [10];
        /// How much compaction reads and writes together; 0 turns it off.
        log_cleaner_io_max_bytes_per_second: u64 = 32 * MIB, "log.cleaner.io.max.bytes.per.second", "32MiB";
        /// Memory for the keys of the partition that is being compacted, 24 bytes for each and some room; a partition
        /// with more keys takes several passes.
        log_cleaner_dedupe_buffer_size: u64 = 16 * MIB, "log.cleaner.dedupe.buffer.size", "16MiB" [KIB, 4096 * MIB];
        /// Idempotency keys (`dedup.key`) that are remembered, of all partitions together; each takes 30 to 60 bytes. With
        /// more, the oldest are forgotten within their window.
        dedup_max_keys: usize = 4_000_000, "dedup.max.keys", "4000000" [1, 1_000_000_000];
        /// Size of one journal file. The journal makes acknowledged records of all partitions durable together.
        journal_file_bytes: u64 = 64 * MIB, "journal.file.bytes", "64MiB" [MIB, 4096 * MIB];
        /// Journal files that may be in use before writers wait for the segments to be synced.
        journal_files_max: usize = 8, "journal.files.max", "8" [2, 1024];
        /// Memory for the most recent records of all partitions together, from which followers and consumers at
        /// the end are served without reading files.
        tail_cache_bytes: u64 = 16 * MIB, "tail.cache.bytes", "16MiB";
        /// Free space below which the node refuses new records (retriable), so that metadata can still be written.
        disk_reserved_bytes: u64 = 256 * MIB, "disk.reserved.bytes", "256MiB" [16 * MIB];
        /// How fast old segments are read back in the background to find damage; 0 turns it off.
        scrub_bytes_per_second: u64 = 4 * MIB, "scrub.bytes.per.second", "4MiB";
    }
    "Requests" {
        /// Record bytes that may wait for their acknowledgement on this node; further producers wait.
        produce_inflight_max_bytes: u64 = 64 * MIB, "produce.inflight.max.bytes", "64MiB" [MIB];
        /// Largest answer to one fetch, whatever the client asks for (one batch is always returned whole).
        fetch_max_bytes: u64 = 16 * MIB, "fetch.max.bytes", "16MiB" [KIB, 1024 * MIB];
        /// Largest request of a Kafka client that has said who it is; 64 KiB before that.
        kafka_max_request_bytes: u64 = 100 * MIB, "kafka.max.request.bytes", "100MiB" [64 * KIB, 1024 * MIB];
        /// Bytes of Kafka requests that are being read on this node; while there are more, requests of more than 64 KiB
        /// are not read on.
        queued_max_request_bytes: u64 = 256 * MIB, "queued.max.request.bytes", "256MiB" [MIB];
    }
    "Replication and failover" {
        /// Silence after which the controller takes a broker for dead. (A killed process is noticed at once, by its
        /// closed connection.)
        broker_session_timeout: Duration = ms(3000), "broker.session.timeout.ms", "3000" [100];
        /// How often a broker reports to the controller.
        broker_heartbeat_interval: Duration = ms(500), "broker.heartbeat.interval.ms", "500" [10];
        /// A follower that has not been caught up for this long leaves the in-sync replicas.
        replica_lag_time_max: Duration = ms(10_000), "replica.lag.time.max.ms", "10000" [100];
        /// Whether leadership returns to the first replica of each partition once that is in sync again.
        auto_leader_rebalance_enable: bool = true, "auto.leader.rebalance.enable", "true";
        /// How often leadership is looked at for that.
        leader_imbalance_check_interval: Duration = Duration::from_secs(10), "leader.imbalance.check.interval.seconds", "10" [1];
        /// How often the Raft leader (of metadata) shows that it is there.
        raft_heartbeat: Duration = ms(50), "raft.heartbeat.ms", "50" [5];
        /// Shortest silence after which a voter seeks election; each time a new one is drawn from the two bounds.
        raft_election_min: Duration = ms(200), "raft.election.min.ms", "200" [10];
        /// Longest silence after which a voter seeks election.
        raft_election_max: Duration = ms(400), "raft.election.max.ms", "400" [20];
        /// Changes of metadata after which a snapshot of all metadata is taken; a fifth as many are kept for nodes
        /// that come back soon.
        raft_snapshot_entries: usize = 5000, "raft.snapshot.entries", "5000" [10, 1_000_000];
    }
    "Consumer groups" {
        /// Shortest session timeout that a member may ask for.
        group_min_session_timeout: Duration = ms(1000), "group.min.session.timeout.ms", "6000" [100];
        /// Longest session timeout that a member may ask for.
        group_max_session_timeout: Duration = ms(1_800_000), "group.max.session.timeout.ms", "1800000" [100];
        /// How long the first member of an empty group waits for others before partitions are assigned.
        group_initial_rebalance_delay: Duration = ms(500), "group.initial.rebalance.delay.ms", "3000" [0, 300_000];
        /// Members that a group may have.
        group_max_size: usize = 1000, "group.max.size", "1000" [1, 100_000];
        /// Silence after which a member of a group of the consumer protocol (KIP-848) is removed.
        group_consumer_session_timeout: Duration = ms(45_000), "group.consumer.session.timeout.ms", "45000" [100];
        /// How often members of groups of the consumer protocol are told to send heartbeats.
        group_consumer_heartbeat_interval: Duration = ms(5000), "group.consumer.heartbeat.interval.ms", "5000" [100];
        /// Members that a group of the consumer protocol may have.
        group_consumer_max_size: usize = 1000, "group.consumer.max.size", "1000" [1, 100_000];
        /// Assignors that members of groups of the consumer protocol may ask for; the first is for those that ask for
        /// none.
        group_consumer_assignors: Vec<Assignor> = Assignor::ALL.to_vec(), "group.consumer.assignors", "range,uniform";
    }
    "HTTP gateway" {
        /// Topic of `POST /produce` and `GET /consume` when none is named; it is created on first use.
        http_default_topic: String = "events".to_owned(), "http.default.topic", "events";
        /// Largest body of an HTTP request.
        http_max_body_bytes: u64 = 4 * MIB, "http.max.body.bytes", "4MiB" [KIB, 64 * MIB];
        /// How long an HTTP request may take: to arrive once it has begun, and then to be carried out.
        http_request_timeout: Duration = ms(15_000), "http.request.timeout.ms", "15000" [100, 600_000];
        /// Writes over HTTP that are carried out at once; further ones get 429 before their body is read.
        http_max_inflight_requests: usize = 4096, "http.max.inflight.requests", "4096" [1, 1_000_000];
        /// Reads over HTTP that are carried out at once, those that wait for records among them; further ones get 429.
        http_max_inflight_reads: usize = 256, "http.max.inflight.reads", "256" [1, 1_000_000];
        /// Bytes of HTTP bodies held at once; further requests get 429 before their body is read. One without a length
        /// counts as `http.max.body.bytes`.
        http_max_inflight_bytes: u64 = 64 * MIB, "http.max.inflight.bytes", "64MiB" [KIB, 4095 * MIB];
        /// HTTP requests a second that one client may send (a token bucket); 0 sets no limit. Further ones get 429.
        http_client_rate: u32 = 0, "http.client.rate", "1000" [0, 1_000_000];
        /// HTTP requests that one client may send at once when it was silent before (the depth of its bucket).
        http_client_burst: u32 = 1000, "http.client.burst", "1000" [1, 1_000_000];
        /// Header by which HTTP clients are told apart for `http.client.rate`, as a proxy in front sets it; their
        /// addresses count when absent.
        http_client_header: Option<String> = None, "http.client.header", "x-forwarded-for";
        /// Members of consumer groups that are kept for HTTP clients at once.
        http_max_consumers: usize = 100, "http.max.consumers", "100" [0, 10_000];
        /// A consumer over HTTP that nobody asks for anything for this long leaves its group.
        http_consumer_idle: Duration = ms(300_000), "http.consumer.idle.ms", "300000" [1000];
        /// How long the answer to a request with an `Idempotency-Key` is given again.
        http_idempotency_window: Duration = ms(600_000), "http.idempotency.window.ms", "10min" [1000];
        /// Answers kept for that; the oldest make room.
        http_idempotency_max_keys: usize = 100_000, "http.idempotency.max.keys", "100000" [1, 10_000_000];
        /// Topics, partitions and groups that have series of their own at `/metrics`, at most so many of each; sums are of
        /// all, and `strandline_metrics_omitted` says how many were left out.
        http_metrics_max_partitions: usize = 1000, "http.metrics.max.partitions", "1000" [0, 1_000_000];
    }
    "Ingestion" {
        /// Where the gateway keeps ingested events: `sqlite` (a file in the data directory), `sqlite:PATH`,
        /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE` for all gateways together, or `none`.
        ingest_store: String = "sqlite".to_owned(), "ingest.store", "postgres://strandline@db.example/events";
        /// TOML file whose `[ingest]` table configures the pipeline (`ops/docs/ingest.md`), or `none`.
        ingest_config: String = "none".to_owned(), "ingest.config", "/etc/strandline/ingest.toml";
        /// Development mode: `?simulateFailure=true` makes the store fail for an event.
        ingest_development: bool = false, "ingest.development", "true";
    }
    "Process" {
        /// Threads that serve requests.
        worker_threads: usize = 2, "worker.threads", "2" [1, 1024];
        /// How long a clean shutdown may take to hand leadership over before the node stops regardless.
        shutdown_timeout: Duration = ms(10_000), "shutdown.timeout.ms", "10000";
        /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, also for each module
        /// (`info,strandline_raft=debug`).
        log_level: String = "info".to_owned(), "log.level", "info";
        /// Layout of log lines (on standard error): `text`, or `json` with one object a line.
        log_format: LogFormat = LogFormat::Text, "log.format", "json";
    }
}

impl NodeConfig {
    /// Defaults for node `node_id`, keeping its data in `data_dir`.
    pub fn new(node_id: BrokerId, data_dir: impl AsRef<Path>) -> Self {
        NodeConfig { node_id, data_dir: data_dir.as_ref().to_owned(), ..NodeConfig::default() }
    }

    /// The address that clients are told: `advertise.grpc`, else `listen.grpc`.
    pub fn advertised_grpc(&self) -> HostPort {
        self.advertise_grpc.clone().unwrap_or_else(|| self.listen_grpc.clone())
    }

    /// The address that Kafka clients are told, where they are served: `advertise.kafka`, else `listen.kafka`.
    pub fn advertised_kafka(&self) -> Option<HostPort> {
        let listen = self.listen_kafka.clone()?;
        Some(self.advertise_kafka.clone().unwrap_or(listen))
    }

    /// The address that HTTP clients are told, where they are served: `advertise.http`, else `listen.http`.
    pub fn advertised_http(&self) -> Option<HostPort> {
        let listen = self.listen_http.clone()?;
        Some(self.advertise_http.clone().unwrap_or(listen))
    }

    /// The address that other nodes are told: `advertise.peer`, else this node's entry of `form.cluster`, else
    /// `listen.peer`.
    pub fn advertised_peer(&self) -> HostPort {
        let formed = || self.form_cluster.as_ref().and_then(|nodes| nodes.0.get(&self.node_id)).cloned();
        self.advertise_peer.clone().or_else(formed).unwrap_or_else(|| self.listen_peer.clone())
    }
    /// Topic keys and values that a new topic with `replication` replicas gets besides those its creation sets: the
    /// defaults of this node that differ from the built-in ones. (Topics without a key follow the built-in default.)
    pub fn topic_defaults(&self, replication: u32) -> BTreeMap<&'static str, String> {
        let mut lowered = self.clone();
        lowered.min_insync_replicas = self.min_insync_replicas.min(replication.max(1));
        let mut builtin = NodeConfig::default();
        builtin.min_insync_replicas = builtin.min_insync_replicas.min(replication.max(1));
        TOPIC_DEFAULTS
            .iter()
            .map(|(node_key, topic_key)| (key(node_key).expect("a key of the table"), *topic_key))
            .filter(|(key, _)| key.get(&lowered) != key.get(&builtin))
            .map(|(key, topic_key)| (topic_key, key.get(&lowered)))
            .collect()
    }
}

/// Keys of a node that are the default of a topic's key.
const TOPIC_DEFAULTS: &[(&str, &str)] = &[
    ("min.insync.replicas", "min.insync.replicas"),
    ("log.flush.mode", "flush"),
    ("log.flush.interval.ms", "flush.ms"),
    ("log.segment.bytes", "segment.bytes"),
    ("log.roll.ms", "segment.ms"),
    ("log.retention.ms", "retention.ms"),
    ("log.retention.bytes", "retention.bytes"),
    ("message.max.bytes", "max.message.bytes"),
    ("log.message.timestamp.type", "message.timestamp.type"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_metadata::configs;

    #[test]
    fn the_default_of_a_node_is_the_built_in_default_of_the_topic_key() {
        for (node_key, topic_key) in TOPIC_DEFAULTS {
            let builtin = configs::find(topic_key).expect("a topic key").default;
            assert_eq!(key(node_key).unwrap().default().as_deref(), Some(builtin), "{node_key}");
        }
    }

    #[test]
    fn a_new_topic_gets_the_defaults_that_the_node_was_given() {
        let mut config = NodeConfig::new(BrokerId(1), "data");
        assert!(config.topic_defaults(3).is_empty());
        assert!(
            config.topic_defaults(1).is_empty(),
            "the built-in minimum is lowered with the replicas anyway"
        );
        config.min_insync_replicas = 3;
        config.log_retention = None;
        config.log_flush_mode = FlushMode::Os;
        let defaults = config.topic_defaults(3);
        let expected = [("flush", "os"), ("min.insync.replicas", "3"), ("retention.ms", "-1")];
        assert_eq!(defaults, expected.map(|(k, v)| (k, v.to_owned())).into());
        for (key, value) in defaults {
            configs::find(key).unwrap().check(&value).unwrap();
        }
        assert!(!config.topic_defaults(2).contains_key("retention.bytes"));
        assert!(!config.topic_defaults(2).contains_key("min.insync.replicas"), "2 is the built-in default");
    }
}
