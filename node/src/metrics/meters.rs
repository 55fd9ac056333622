//! What a node counts while it works: relaxed atomics, added to where things happen and read at a scrape.

use crate::net::Connections;
use crate::partition::ProduceResult;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_metrics::{Counter, Histogram, LATENCY};
use strandline_record::{BatchHeader, BatchIter};
use strandline_wire::v1::ErrorCode;

/// Everything that one node counts.
#[derive(Debug, Default)]
pub struct Meters {
    pub grpc: Grpc,
    pub kafka: Kafka,
    pub partitions: Roles,
    topics: Mutex<BTreeMap<Arc<str>, Arc<TopicMeters>>>,
    listeners: Mutex<Vec<Connections>>,
}

/// Of all partitions of this node.
#[derive(Debug, Default)]
pub struct Roles {
    /// Leaderships that began here.
    pub led: Counter,
    /// Times that following a leader began here.
    pub followed: Counter,
    pub damage_found: Counter,
    pub damage_repaired: Counter,
}

/// Of one topic, as far as its partitions are led here.
#[derive(Debug, Default)]
pub struct TopicMeters {
    pub produced: Volume,
    pub fetched: Volume,
}

/// Records and their bytes, as they are stored.
#[derive(Debug, Default)]
pub struct Volume {
    pub records: Counter,
    pub bytes: Counter,
}

impl Volume {
    pub fn add(&self, records: u64, bytes: usize) {
        self.records.add(records);
        self.bytes.add(bytes as u64);
    }
}

/// Records in whole batches.
pub fn records_in(batches: &[u8]) -> u64 {
    BatchIter::new(batches)
        .map_while(Result::ok)
        .map(|(header, _)| u64::try_from(header.count()).unwrap_or(0))
        .sum()
}

/// What a producer sent for one partition, by the header of its batch; it counts once it is acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    records: u64,
    bytes: usize,
}

impl Sent {
    pub fn of(batch: &[u8]) -> Self {
        let records =
            BatchHeader::parse(batch).map_or(0, |header| u64::try_from(header.count()).unwrap_or(0));
        Sent { records, bytes: batch.len() }
    }
}

/// Of produce or fetch requests in one protocol.
#[derive(Debug)]
pub struct Requests {
    /// From a request that was read to its answer; a fetch that waits for records waits in it.
    pub took: Histogram,
    pub volume: Volume,
    pub throttled: Counter,
    throttled_micros: Counter,
}

impl Default for Requests {
    fn default() -> Self {
        Requests {
            took: Histogram::new(LATENCY),
            volume: Volume::default(),
            throttled: Counter::new(),
            throttled_micros: Counter::new(),
        }
    }
}

impl Requests {
    /// A batch of a produce request has its result. What had been appended before does not count again.
    pub fn produced(&self, sent: Sent, result: &ProduceResult) {
        if let Ok(produced) = result
            && !produced.duplicate
        {
            self.volume.add(sent.records.saturating_sub(produced.repeats.len() as u64), sent.bytes);
        }
    }

    /// Whoever sent the request is held back for so long.
    pub fn throttle(&self, held_back: Duration) {
        if !held_back.is_zero() {
            self.throttled.inc();
            self.throttled_micros.add(u64::try_from(held_back.as_micros()).unwrap_or(u64::MAX));
        }
    }

    pub fn throttled_seconds(&self) -> f64 {
        self.throttled_micros.get() as f64 / 1e6
    }
}

/// Codes below this have a counter of their own; others share the first, which is `unknown`.
const CODES: usize = 160;

/// Counts by small numbers.
#[derive(Debug)]
struct ByNumber(Box<[Counter]>);

impl Default for ByNumber {
    fn default() -> Self {
        ByNumber((0..CODES).map(|_| Counter::new()).collect())
    }
}

impl ByNumber {
    fn inc(&self, number: i32) {
        let at = usize::try_from(number).ok().filter(|at| *at < CODES).unwrap_or(0);
        self.0[at].inc();
    }

    /// Those that were counted.
    fn counted(&self) -> impl Iterator<Item = (i32, u64)> {
        self.0.iter().enumerate().map(|(at, count)| (at as i32, count.get())).filter(|(_, count)| *count > 0)
    }
}

/// The SDK's protocol.
#[derive(Debug, Default)]
pub struct Grpc {
    pub produce: Requests,
    pub fetch: Requests,
    calls: ByNumber,
    errors: ByNumber,
}

/// Methods of the service but the two streams, whose requests are counted one by one.
const METHODS: &[&str] = &[
    "ListOffsets",
    "InitProducerId",
    "DeleteRecords",
    "Metadata",
    "CreateTopic",
    "DeleteTopic",
    "AddPartitions",
    "AlterTopic",
    "DescribeTopicConfigs",
    "ElectLeader",
    "Reassign",
    "ClusterStatus",
    "RemoveNode",
    "TransferLeadership",
    "FindCoordinator",
    "JoinGroup",
    "SyncGroup",
    "Heartbeat",
    "LeaveGroup",
    "OffsetCommit",
    "OffsetFetch",
    "ListGroups",
    "DescribeGroup",
    "DeleteGroup",
    "DeleteOffsets",
];

impl Grpc {
    /// A call at `path`, which may be anything.
    pub fn called(&self, path: &str) {
        let method = path.rsplit('/').next().unwrap_or_default();
        if let Some(at) = METHODS.iter().position(|known| *known == method) {
            self.calls.inc(at as i32);
        }
    }

    /// An answer, or one partition of it, says this.
    pub fn failed(&self, code: ErrorCode) {
        self.errors.inc(code as i32);
    }

    pub fn calls(&self) -> impl Iterator<Item = (String, u64)> {
        self.calls.counted().map(|(at, count)| (snake(METHODS[at as usize]), count))
    }

    pub fn errors(&self) -> impl Iterator<Item = (String, u64)> {
        self.errors.counted().map(|(code, count)| {
            let name = ErrorCode::try_from(code).map_or("unknown", |code| code.as_str_name());
            (name.trim_start_matches("ERROR_CODE_").to_ascii_lowercase(), count)
        })
    }
}

/// Kafka's protocol.
#[derive(Debug, Default)]
pub struct Kafka {
    pub produce: Requests,
    pub fetch: Requests,
    calls: ByNumber,
    errors: ByNumber,
}

impl Kafka {
    /// A request other than Produce and Fetch.
    pub fn called(&self, key: ApiKey) {
        self.calls.inc(i32::from(key as i16));
    }

    /// A partition of a produce or fetch answer says this; 0 is no error.
    pub fn answered(&self, code: i16) {
        if code != 0 {
            self.errors.inc(i32::from(code));
        }
    }

    pub fn calls(&self) -> impl Iterator<Item = (String, u64)> {
        self.calls.counted().map(|(key, count)| {
            let key = i16::try_from(key).ok().and_then(|key| ApiKey::try_from(key).ok());
            (key.map_or_else(|| "unknown".to_owned(), |key| snake(&format!("{key:?}"))), count)
        })
    }

    pub fn errors(&self) -> impl Iterator<Item = (String, u64)> {
        self.errors.counted().map(|(code, count)| {
            let known = i16::try_from(code).ok().and_then(ResponseError::try_from_code);
            let name = match known {
                Some(ResponseError::Unknown(_)) | None => "unknown".to_owned(),
                Some(error) => snake(&format!("{error:?}")),
            };
            (name, count)
        })
    }
}

/// `OffsetCommit` as `offset_commit`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

impl Meters {
    /// The meters of a topic, shared by its partitions here.
    pub fn topic(&self, name: &Arc<str>) -> Arc<TopicMeters> {
        self.topics.lock().entry(name.clone()).or_default().clone()
    }

    /// Topics with a partition here, by name. The others are forgotten.
    pub fn topics(&self) -> Vec<(Arc<str>, Arc<TopicMeters>)> {
        let mut topics = self.topics.lock();
        topics.retain(|_, meters| Arc::strong_count(meters) > 1);
        topics.iter().map(|(name, meters)| (name.clone(), meters.clone())).collect()
    }

    /// A listener accepts from now on.
    pub fn listens(&self, connections: Connections) {
        self.listeners.lock().push(connections);
    }

    pub fn listeners(&self) -> Vec<Connections> {
        self.listeners.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_record::{BatchBuilder, Compression};

    #[test]
    fn every_method_of_the_service_is_counted() {
        let service = include_str!("../../../client/wire/proto/strandline.proto");
        let methods: Vec<&str> = service
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
            .filter(|method| !["Produce", "Fetch"].contains(method))
            .collect();
        assert_eq!(methods, METHODS);
        let grpc = Grpc::default();
        grpc.called("/strandline.v1.Strandline/OffsetCommit");
        grpc.called("/somewhere/Else");
        grpc.called("/strandline.v1.Strandline/Produce");
        assert_eq!(grpc.calls().collect::<Vec<_>>(), [("offset_commit".to_owned(), 1)]);
    }

    #[test]
    fn errors_have_the_names_of_their_protocol() {
        let (grpc, kafka) = (Grpc::default(), Kafka::default());
        grpc.failed(ErrorCode::NotLeader);
        [0, 6, 6, -1, 30_000].into_iter().for_each(|code| kafka.answered(code));
        assert_eq!(grpc.errors().collect::<Vec<_>>(), [("not_leader".to_owned(), 1)]);
        let expected = [("unknown".to_owned(), 2), ("not_leader_or_follower".to_owned(), 2)];
        assert_eq!(kafka.errors().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_topic_without_partitions_is_forgotten() {
        let meters = Meters::default();
        let (kept, _) = (meters.topic(&"kept".into()), meters.topic(&"gone".into()));
        kept.produced.add(3, 100);
        let names: Vec<_> = meters.topics().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["kept".into()]);
        assert_eq!(meters.topic(&"kept".into()).produced.records.get(), 3);
    }

    #[test]
    fn records_are_counted_by_their_batches_headers() {
        let batch = |records: usize| {
            let mut built = BatchBuilder::new(Compression::None);
            (0..records).for_each(|_| {
                built.append(1, None, Some(b"value"), &[]);
            });
            built.build()
        };
        let two = [&batch(3)[..], &batch(4)[..]].concat();
        assert_eq!(records_in(&two), 7);
        assert_eq!(records_in(&two[..two.len() - 1]), 3);
        assert_eq!(records_in(b""), 0);
    }
}
