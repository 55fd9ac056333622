//! The bytes of a Fetch answer, versions 4 to 18. Written by hand, since `kafka-protocol` copies the record bytes
//! into the answer: here each partition's records are a piece of their own behind the bytes that precede them.
//!
//! ```text
//! throttle time, error (7+), session (7+)
//! topics:      name (to 12) or id (13+)
//!   partitions: number, error, high watermark, last stable offset, log start (5+), aborted transactions,
//!               preferred replica (11+), records
//!               tagged (12+): 0 diverging epoch, 1 current leader
//! tagged (16+): 0 addresses of the leaders named above
//! ```
//!
//! Records are never null, but empty: librdkafka rejects null.

use super::{Code, Node};
use crate::front::kafka::frame::Answer;
use crate::front::kafka::session::TopicKey;
use bytes::{BufMut, Bytes, BytesMut};

const FLEXIBLE: i16 = 12;
const SESSIONS: i16 = 7;
const LOG_START: i16 = 5;
const PREFERRED_REPLICA: i16 = 11;
const NODE_ENDPOINTS: i16 = 16;

/// One partition's answer.
#[derive(Clone, Debug)]
pub struct PartitionAnswer {
    pub number: i32,
    pub code: Code,
    pub high_watermark: i64,
    pub log_start: i64,
    /// The client's log is another one behind this epoch and end (KIP-320).
    pub diverging: Option<(i32, i64)>,
    /// Who leads instead, and since which epoch (KIP-951).
    pub leader: Option<(i32, i32)>,
    /// The broker to read from instead (KIP-392); -1: this one.
    pub preferred_replica: i32,
    pub records: Bytes,
}

impl PartitionAnswer {
    pub fn error(number: i32, code: Code) -> Self {
        PartitionAnswer {
            number,
            code,
            high_watermark: -1,
            log_start: -1,
            diverging: None,
            leader: None,
            preferred_replica: -1,
            records: Bytes::new(),
        }
    }
}

/// A whole answer. Partitions of one topic that follow each other are written together.
pub struct FetchAnswer<'a> {
    pub version: i16,
    pub correlation: i32,
    pub throttle_ms: i32,
    pub code: Code,
    pub session: i32,
    /// The client reads committed records only: it gets a list of aborted transactions, which is empty.
    pub read_committed: bool,
    pub partitions: &'a [(TopicKey, PartitionAnswer)],
    /// Leaders that are named in `partitions`.
    pub endpoints: &'a [Node],
}

impl FetchAnswer<'_> {
    pub fn encode(&self) -> Answer {
        let mut out = Pieces { open: Answer::begin(), first: None, others: Vec::new() };
        let flexible = self.version >= FLEXIBLE;
        out.open.put_i32(self.correlation);
        if flexible {
            out.open.put_u8(0);
        }
        out.open.put_i32(self.throttle_ms);
        if self.version >= SESSIONS {
            out.open.put_i16(self.code);
            out.open.put_i32(self.session);
        }
        let topics: Vec<_> = self.partitions.chunk_by(|(a, _), (b, _)| a == b).collect();
        self.count(&mut out.open, topics.len());
        for topic in topics {
            match &topic[0].0 {
                TopicKey::Name(name) => self.text(&mut out.open, name),
                TopicKey::Id(id) => out.open.put_slice(id.as_bytes()),
            }
            self.count(&mut out.open, topic.len());
            for (_, partition) in topic {
                self.partition(&mut out, partition);
            }
            if flexible {
                out.open.put_u8(0);
            }
        }
        if flexible {
            self.endpoints(&mut out.open);
        }
        out.finish()
    }

    fn partition(&self, out: &mut Pieces, partition: &PartitionAnswer) {
        let open = &mut out.open;
        open.put_i32(partition.number);
        open.put_i16(partition.code);
        open.put_i64(partition.high_watermark);
        // There are no transactions: everything visible is stable.
        open.put_i64(partition.high_watermark);
        if self.version >= LOG_START {
            open.put_i64(partition.log_start);
        }
        match (self.read_committed, self.version >= FLEXIBLE) {
            (true, _) => self.count(open, 0),
            (false, true) => open.put_u8(0),
            (false, false) => open.put_i32(-1),
        }
        if self.version >= PREFERRED_REPLICA {
            open.put_i32(partition.preferred_replica);
        }
        match self.version >= FLEXIBLE {
            true => varint(open, partition.records.len() as u32 + 1),
            false => open.put_i32(partition.records.len() as i32),
        }
        out.records(&partition.records);
        if self.version >= FLEXIBLE {
            tags(&mut out.open, partition);
        }
    }

    fn endpoints(&self, out: &mut BytesMut) {
        if self.version < NODE_ENDPOINTS || self.endpoints.is_empty() {
            return out.put_u8(0);
        }
        let mut field = BytesMut::new();
        self.count(&mut field, self.endpoints.len());
        for Node { id, host, port, rack } in self.endpoints {
            field.put_i32(id.0);
            self.text(&mut field, host);
            field.put_i32(*port);
            match rack {
                Some(rack) => self.text(&mut field, rack),
                None => field.put_u8(0),
            }
            field.put_u8(0);
        }
        out.put_u8(1);
        tagged(out, 0, &field);
    }

    fn count(&self, out: &mut BytesMut, count: usize) {
        match self.version >= FLEXIBLE {
            true => varint(out, count as u32 + 1),
            false => out.put_i32(count as i32),
        }
    }

    fn text(&self, out: &mut BytesMut, text: &str) {
        match self.version >= FLEXIBLE {
            true => varint(out, text.len() as u32 + 1),
            false => out.put_i16(text.len() as i16),
        }
        out.put_slice(text.as_bytes());
    }
}

fn tags(out: &mut BytesMut, partition: &PartitionAnswer) {
    let mut fields = Vec::new();
    if let Some((epoch, end)) = partition.diverging {
        let mut field = BytesMut::new();
        field.put_i32(epoch);
        field.put_i64(end);
        field.put_u8(0);
        fields.push((0, field));
    }
    if let Some((leader, epoch)) = partition.leader {
        let mut field = BytesMut::new();
        field.put_i32(leader);
        field.put_i32(epoch);
        field.put_u8(0);
        fields.push((1, field));
    }
    varint(out, fields.len() as u32);
    for (number, field) in fields {
        tagged(out, number, &field);
    }
}

fn tagged(out: &mut BytesMut, number: u32, field: &[u8]) {
    varint(out, number);
    varint(out, field.len() as u32);
    out.put_slice(field);
}

fn varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// What has been written, and the piece that is being written.
struct Pieces {
    open: BytesMut,
    first: Option<BytesMut>,
    others: Vec<Bytes>,
}

impl Pieces {
    fn records(&mut self, records: &Bytes) {
        if records.is_empty() {
            return;
        }
        self.close();
        self.others.push(records.clone());
    }

    fn close(&mut self) {
        let closed = std::mem::take(&mut self.open);
        match self.first {
            None => self.first = Some(closed),
            Some(_) => self.others.push(closed.freeze()),
        }
    }

    fn finish(mut self) -> Answer {
        self.close();
        Answer::new(self.first.expect("closed above"), self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::kafka::frame;
    use kafka_protocol::messages::{BrokerId, FetchResponse, ResponseHeader};
    use kafka_protocol::protocol::{Decodable, HeaderVersion, StrBytes};
    use std::time::Duration;
    use uuid::Uuid;

    fn bytes_of(answer: Answer) -> Bytes {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut written = std::io::Cursor::new(Vec::new());
        runtime.block_on(frame::write(&mut written, answer, Duration::from_secs(1))).unwrap();
        let mut bytes = Bytes::from(written.into_inner());
        let length = bytes.split_to(4);
        assert_eq!(u32::from_be_bytes(length[..].try_into().unwrap()) as usize, bytes.len());
        bytes
    }

    #[test]
    fn every_version_is_read_back_by_the_library_as_it_was_meant() {
        let id = Uuid::from_u128(7);
        let records = Bytes::from(vec![5; 300]);
        let full = PartitionAnswer {
            high_watermark: 12,
            log_start: 3,
            preferred_replica: 2,
            records: records.clone(),
            ..PartitionAnswer::error(1, 0)
        };
        let moved = PartitionAnswer {
            leader: Some((9, 4)),
            diverging: Some((3, 11)),
            ..PartitionAnswer::error(2, 6)
        };
        let endpoints =
            [Node { id: BrokerId(9), host: StrBytes::from_static_str("there"), port: 9094, rack: None }];
        for version in 4..=18 {
            let topic = || if version >= 13 { TopicKey::Id(id) } else { TopicKey::Name("t".into()) };
            let partitions = [(topic(), full.clone()), (topic(), moved.clone())];
            let answer = FetchAnswer {
                version,
                correlation: 77,
                throttle_ms: 5,
                code: 0,
                session: 6,
                read_committed: version % 2 == 0,
                partitions: &partitions,
                endpoints: &endpoints,
            };
            let mut bytes = bytes_of(answer.encode());
            let header = ResponseHeader::decode(&mut bytes, FetchResponse::header_version(version)).unwrap();
            let read = FetchResponse::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty(), "version {version} leaves {} bytes", bytes.len());
            assert_eq!((header.correlation_id, read.throttle_time_ms), (77, 5));
            assert_eq!(read.session_id, if version >= 7 { 6 } else { 0 });
            assert_eq!((read.responses.len(), read.responses[0].partitions.len()), (1, 2));
            let topic = &read.responses[0];
            match version >= 13 {
                true => assert_eq!(topic.topic_id, id),
                false => assert_eq!(&**topic.topic, "t"),
            }
            let (first, second) = (&topic.partitions[0], &topic.partitions[1]);
            assert_eq!((first.partition_index, first.error_code, first.high_watermark), (1, 0, 12));
            assert_eq!(first.last_stable_offset, 12);
            assert_eq!(first.log_start_offset, if version >= 5 { 3 } else { -1 });
            assert_eq!(first.records.as_ref(), Some(&records));
            assert_eq!(first.aborted_transactions.is_some(), version % 2 == 0, "version {version}");
            assert_eq!(first.preferred_read_replica.0, if version >= 11 { 2 } else { -1 });
            assert_eq!((second.error_code, second.records.as_ref()), (6, Some(&Bytes::new())));
            if version >= 12 {
                assert_eq!((second.current_leader.leader_id.0, second.current_leader.leader_epoch), (9, 4));
                assert_eq!((second.diverging_epoch.epoch, second.diverging_epoch.end_offset), (3, 11));
            }
            if version >= 16 {
                assert_eq!((&*read.node_endpoints[0].host, read.node_endpoints[0].port), ("there", 9094));
            }
        }
    }
}
