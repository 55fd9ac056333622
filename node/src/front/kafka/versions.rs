//! Which requests are served in which versions: what ApiVersions answers, what the connection accepts, and what
//! `ops/docs/kafka.md` says.
//!
//! What is not in the table is neither advertised nor answered. Produce is advertised from version 0 although
//! only 3 and later are decoded: older librdkafka takes the lowest version for a sign of whether it may send
//! compressed batches (KAFKA-18659).

use super::shape::Shape;
use super::shapes;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};
use kafka_protocol::protocol::VersionRange;

/// A request that is served.
#[derive(Debug)]
pub struct Served {
    pub key: ApiKey,
    /// Versions that are decoded and answered, both inclusive.
    pub min: i16,
    pub max: i16,
    /// First version whose request has a flexible header and body (KIP-482).
    pub flexible: i16,
    pub shape: &'static Shape,
}

impl Served {
    pub fn has(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// What ApiVersions says.
    pub fn advertised(&self) -> VersionRange {
        let min = if self.key == ApiKey::Produce { 0 } else { self.min };
        VersionRange { min, max: self.max }
    }
}

const NEVER: i16 = i16::MAX;

const fn served(key: ApiKey, min: i16, max: i16, flexible: i16, shape: &'static Shape) -> Served {
    Served { key, min, max, flexible, shape }
}

/// Ordered by key.
pub static SERVED: &[Served] = &[
    served(ApiKey::Produce, 3, 13, 9, &shapes::PRODUCE),
    served(ApiKey::Fetch, 4, 18, 12, &shapes::FETCH),
    served(ApiKey::ListOffsets, 1, 10, 6, &shapes::LIST_OFFSETS),
    served(ApiKey::Metadata, 0, 13, 9, &shapes::METADATA),
    served(ApiKey::OffsetCommit, 2, 9, 8, &shapes::OFFSET_COMMIT),
    served(ApiKey::OffsetFetch, 1, 9, 6, &shapes::OFFSET_FETCH),
    served(ApiKey::FindCoordinator, 0, 6, 3, &shapes::FIND_COORDINATOR),
    served(ApiKey::JoinGroup, 0, 9, 6, &shapes::JOIN_GROUP),
    served(ApiKey::Heartbeat, 0, 4, 4, &shapes::HEARTBEAT),
    served(ApiKey::LeaveGroup, 0, 5, 4, &shapes::LEAVE_GROUP),
    served(ApiKey::SyncGroup, 0, 5, 4, &shapes::SYNC_GROUP),
    served(ApiKey::DescribeGroups, 0, 6, 5, &shapes::DESCRIBE_GROUPS),
    served(ApiKey::ListGroups, 0, 5, 3, &shapes::LIST_GROUPS),
    served(ApiKey::ApiVersions, 0, 4, 3, &shapes::API_VERSIONS),
    served(ApiKey::CreateTopics, 2, 7, 5, &shapes::CREATE_TOPICS),
    served(ApiKey::DeleteTopics, 1, 6, 4, &shapes::DELETE_TOPICS),
    served(ApiKey::DeleteRecords, 0, 2, 2, &shapes::DELETE_RECORDS),
    served(ApiKey::InitProducerId, 0, 5, 2, &shapes::INIT_PRODUCER_ID),
    served(ApiKey::OffsetForLeaderEpoch, 2, 4, 4, &shapes::OFFSET_FOR_LEADER_EPOCH),
    served(ApiKey::DescribeConfigs, 1, 4, 4, &shapes::DESCRIBE_CONFIGS),
    served(ApiKey::AlterConfigs, 0, 2, 2, &shapes::ALTER_CONFIGS),
    served(ApiKey::DescribeLogDirs, 1, 4, 2, &shapes::DESCRIBE_LOG_DIRS),
    served(ApiKey::CreatePartitions, 0, 3, 2, &shapes::CREATE_PARTITIONS),
    served(ApiKey::DeleteGroups, 0, 2, 2, &shapes::DELETE_GROUPS),
    served(ApiKey::ElectLeaders, 0, 2, 2, &shapes::ELECT_LEADERS),
    served(ApiKey::IncrementalAlterConfigs, 0, 1, 1, &shapes::INCREMENTAL_ALTER_CONFIGS),
    served(ApiKey::AlterPartitionReassignments, 0, 1, 0, &shapes::ALTER_PARTITION_REASSIGNMENTS),
    served(ApiKey::ListPartitionReassignments, 0, 0, 0, &shapes::LIST_PARTITION_REASSIGNMENTS),
    served(ApiKey::OffsetDelete, 0, 0, NEVER, &shapes::OFFSET_DELETE),
    served(ApiKey::DescribeClientQuotas, 0, 1, 1, &shapes::DESCRIBE_CLIENT_QUOTAS),
    served(ApiKey::AlterClientQuotas, 0, 1, 1, &shapes::ALTER_CLIENT_QUOTAS),
    served(ApiKey::DescribeCluster, 0, 2, 0, &shapes::DESCRIBE_CLUSTER),
    served(ApiKey::DescribeProducers, 0, 0, 0, &shapes::DESCRIBE_PRODUCERS),
    served(ApiKey::ConsumerGroupHeartbeat, 0, 1, 0, &shapes::CONSUMER_GROUP_HEARTBEAT),
    served(ApiKey::ConsumerGroupDescribe, 0, 1, 0, &shapes::CONSUMER_GROUP_DESCRIBE),
    served(ApiKey::DescribeTopicPartitions, 0, 0, 0, &shapes::DESCRIBE_TOPIC_PARTITIONS),
];

pub fn find(key: i16) -> Option<&'static Served> {
    SERVED.iter().find(|served| served.key as i16 == key)
}

/// The body of the ApiVersions answer.
pub fn api_versions() -> ApiVersionsResponse {
    let keys = SERVED.iter().map(|served| {
        let VersionRange { min, max } = served.advertised();
        ApiVersion::default().with_api_key(served.key as i16).with_min_version(min).with_max_version(max)
    });
    ApiVersionsResponse::default().with_api_keys(keys.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::kafka::shape::{Kind, check};
    use bytes::Bytes;
    use kafka_protocol::messages::*;
    use kafka_protocol::protocol::{Decodable, Encodable, Message};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn the_table_is_in_order_and_within_what_the_decoders_know() {
        assert!(SERVED.is_sorted_by_key(|served| served.key as i16));
        for served in SERVED {
            let known = served.key.valid_versions();
            assert!(known.min <= served.min && served.max <= known.max, "{:?} {known:?}", served.key);
            for version in served.min..=served.max {
                let flexible = served.key.request_header_version(version) == 2;
                assert_eq!(served.is_flexible(version), flexible, "{:?} {version}", served.key);
            }
        }
        assert_eq!(find(ApiKey::Produce as i16).unwrap().advertised().min, 0);
        assert!(find(ApiKey::ShareGroupHeartbeat as i16).is_none());
    }

    /// Bytes of a request of a shape, with whatever fits in its fields.
    struct Drawn {
        bytes: Vec<u8>,
        rng: StdRng,
        version: i16,
        flexible: bool,
    }

    impl Drawn {
        fn varint(&mut self, mut value: u32) {
            while value >= 0x80 {
                self.bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            self.bytes.push(value as u8);
        }

        fn length(&mut self, plain: usize, len: usize) {
            match (self.flexible, plain) {
                (true, _) => self.varint(len as u32 + 1),
                (false, 2) => self.bytes.extend((len as i16).to_be_bytes()),
                (false, _) => self.bytes.extend((len as i32).to_be_bytes()),
            }
        }

        fn fields(&mut self, shape: &Shape) {
            let version = self.version;
            for field in shape.fields.iter().filter(|f| (f.from..=f.to).contains(&version)) {
                self.value(&field.kind);
            }
            if !self.flexible {
                return;
            }
            let known: Vec<_> = shape.tags.iter().filter(|tag| tag.from <= version).collect();
            let unknown = self.rng.random_range(0..2);
            self.varint(known.len() as u32 + unknown);
            for tag in known {
                self.varint(tag.number);
                let rng = StdRng::seed_from_u64(self.rng.random());
                let mut inner = Drawn { bytes: Vec::new(), rng, version, flexible: true };
                inner.value(&tag.kind);
                self.varint(inner.bytes.len() as u32);
                self.bytes.extend(inner.bytes);
            }
            for _ in 0..unknown {
                self.varint(77);
                self.varint(3);
                self.bytes.extend([1, 2, 3]);
            }
        }

        fn value(&mut self, kind: &Kind) {
            match kind {
                Kind::Fixed(size) => {
                    for _ in 0..*size {
                        self.bytes.push(self.rng.random_range(0..3));
                    }
                }
                Kind::Text => {
                    let len = self.rng.random_range(0..200);
                    self.length(2, len);
                    self.bytes.extend(std::iter::repeat_n(b'x', len));
                }
                Kind::Bytes => {
                    let len = self.rng.random_range(0..300);
                    self.length(4, len);
                    self.bytes.extend(std::iter::repeat_n(7, len));
                }
                Kind::Array(element) => {
                    let count = self.rng.random_range(0..4);
                    self.length(4, count);
                    (0..count).for_each(|_| self.value(element));
                }
                Kind::Struct(shape) => self.fields(shape),
                Kind::Nullable(shape) => {
                    let present = self.rng.random_range(0..2);
                    self.bytes.push(if present == 1 { 1 } else { 0xff });
                    if present == 1 {
                        self.fields(shape);
                    }
                }
            }
        }
    }

    fn decoder_follows<Q: Decodable + Encodable + Message>(key: ApiKey) {
        let served = find(key as i16).unwrap();
        for version in served.min..=served.max {
            for seed in 0..40 {
                let rng = StdRng::seed_from_u64(seed);
                let flexible = served.is_flexible(version);
                let mut drawn = Drawn { bytes: Vec::new(), rng, version, flexible };
                drawn.fields(served.shape);
                let mut bytes = Bytes::from(drawn.bytes);
                let name = format!("{key:?} {version} seed {seed}");
                assert_eq!(check(served.shape, version, flexible, &bytes), Ok(()), "{name}");
                // Cut anywhere, it is refused, and not by the decoder.
                for cut in [bytes.len() / 3, bytes.len().saturating_sub(1)] {
                    if cut < bytes.len() {
                        assert!(check(served.shape, version, flexible, &bytes[..cut]).is_err(), "{name}");
                    }
                }
                let decoded = Q::decode(&mut bytes, version);
                assert!(decoded.is_ok(), "{name}: {:?}", decoded.err());
                assert!(bytes.is_empty(), "{name}: the decoder leaves {} bytes", bytes.len());
            }
        }
    }

    #[test]
    fn each_decoder_reads_what_the_shape_walks() {
        decoder_follows::<ProduceRequest>(ApiKey::Produce);
        decoder_follows::<FetchRequest>(ApiKey::Fetch);
        decoder_follows::<ListOffsetsRequest>(ApiKey::ListOffsets);
        decoder_follows::<MetadataRequest>(ApiKey::Metadata);
        decoder_follows::<OffsetCommitRequest>(ApiKey::OffsetCommit);
        decoder_follows::<OffsetFetchRequest>(ApiKey::OffsetFetch);
        decoder_follows::<FindCoordinatorRequest>(ApiKey::FindCoordinator);
        decoder_follows::<JoinGroupRequest>(ApiKey::JoinGroup);
        decoder_follows::<HeartbeatRequest>(ApiKey::Heartbeat);
        decoder_follows::<LeaveGroupRequest>(ApiKey::LeaveGroup);
        decoder_follows::<SyncGroupRequest>(ApiKey::SyncGroup);
        decoder_follows::<DescribeGroupsRequest>(ApiKey::DescribeGroups);
        decoder_follows::<ListGroupsRequest>(ApiKey::ListGroups);
        decoder_follows::<ApiVersionsRequest>(ApiKey::ApiVersions);
        decoder_follows::<CreateTopicsRequest>(ApiKey::CreateTopics);
        decoder_follows::<DeleteTopicsRequest>(ApiKey::DeleteTopics);
        decoder_follows::<DeleteRecordsRequest>(ApiKey::DeleteRecords);
        decoder_follows::<InitProducerIdRequest>(ApiKey::InitProducerId);
        decoder_follows::<OffsetForLeaderEpochRequest>(ApiKey::OffsetForLeaderEpoch);
        decoder_follows::<DescribeConfigsRequest>(ApiKey::DescribeConfigs);
        decoder_follows::<AlterConfigsRequest>(ApiKey::AlterConfigs);
        decoder_follows::<DescribeLogDirsRequest>(ApiKey::DescribeLogDirs);
        decoder_follows::<CreatePartitionsRequest>(ApiKey::CreatePartitions);
        decoder_follows::<DeleteGroupsRequest>(ApiKey::DeleteGroups);
        decoder_follows::<ElectLeadersRequest>(ApiKey::ElectLeaders);
        decoder_follows::<IncrementalAlterConfigsRequest>(ApiKey::IncrementalAlterConfigs);
        decoder_follows::<AlterPartitionReassignmentsRequest>(ApiKey::AlterPartitionReassignments);
        decoder_follows::<ListPartitionReassignmentsRequest>(ApiKey::ListPartitionReassignments);
        decoder_follows::<OffsetDeleteRequest>(ApiKey::OffsetDelete);
        decoder_follows::<DescribeClientQuotasRequest>(ApiKey::DescribeClientQuotas);
        decoder_follows::<AlterClientQuotasRequest>(ApiKey::AlterClientQuotas);
        decoder_follows::<DescribeClusterRequest>(ApiKey::DescribeCluster);
        decoder_follows::<DescribeProducersRequest>(ApiKey::DescribeProducers);
        decoder_follows::<ConsumerGroupHeartbeatRequest>(ApiKey::ConsumerGroupHeartbeat);
        decoder_follows::<ConsumerGroupDescribeRequest>(ApiKey::ConsumerGroupDescribe);
        decoder_follows::<DescribeTopicPartitionsRequest>(ApiKey::DescribeTopicPartitions);
    }

    fn markdown_table() -> String {
        let mut table = String::from("| request | key | versions |\n|---|---|---|\n");
        for served in SERVED {
            let VersionRange { min, max } = served.advertised();
            let range = if min == max { min.to_string() } else { format!("{min}–{max}") };
            let note =
                if min < served.min { format!(" (answered from {})", served.min) } else { String::new() };
            table += &format!("| {:?} | {} | {range}{note} |\n", served.key, served.key as i16);
        }
        table
    }

    #[test]
    fn the_page_about_kafka_has_this_table() {
        let page = include_str!("../../../../ops/docs/kafka.md");
        assert!(page.contains(&markdown_table()), "ops/docs/kafka.md lacks:\n{}", markdown_table());
    }
}
