//! A compacted log on a simulated disk, and what was written to it.
#![allow(dead_code)]

use crate::common::{NOW, Node, log_config, tp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_record::{
    BatchBuilder, BatchHeader, Compression, DecodeLimits, LeaderEpoch, ProducerEpoch, ProducerId,
    ProducerStamp, SharedBatchIter, decode_batch,
};
use strandline_storage::disk::SimDisk;
use strandline_storage::{AppendError, CompactionConfig, LogConfig, PartitionLog};

pub const LIMITS: DecodeLimits = DecodeLimits { max_decompressed_bytes: 1 << 24 };
pub const TOMBSTONES_MS: i64 = 1000;

pub fn config() -> LogConfig {
    let compaction = CompactionConfig {
        delete_retention_ms: TOMBSTONES_MS,
        min_dirty_ppm: 0,
        ..CompactionConfig::default()
    };
    LogConfig { segment_bytes: 700, compaction: Some(compaction), ..log_config() }
}

pub type Value = Option<u32>;

/// One record: its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    pub key: u8,
    pub value: Value,
}

/// A batch of these, of a producer with its next sequence if there is one.
pub fn batch(puts: &[Put], codec: Compression, producer: Option<(i64, i32)>, timestamp: i64) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    builder.set_producer(producer.map(|(id, base_sequence)| ProducerStamp {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
        base_sequence,
    }));
    for (n, put) in puts.iter().enumerate() {
        let value = put.value.map(|value| format!("{value:06}{}", "v".repeat((value % 40) as usize)));
        let value = value.as_ref().map(String::as_bytes);
        builder.append(timestamp + n as i64, Some(&[put.key]), value, &[]);
    }
    builder.build()
}

/// A record as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    pub key: u8,
    pub value: Value,
    pub timestamp: i64,
}

/// All records; checks that batches are contiguous and of rising epochs.
pub fn read_all(log: &Arc<PartitionLog>) -> Vec<Seen> {
    let (start, end) = (log.log_start(), log.log_end());
    let (mut from, mut next, mut epoch) = (start, None, LeaderEpoch(-1));
    let mut seen = Vec::new();
    while from < end {
        let read =
            log.read(from, 900, true, end).unwrap_or_else(|error| panic!("reading at {from}: {error}"));
        assert!(!read.bytes.is_empty(), "there is a batch at {from} below {end}");
        for item in SharedBatchIter::new(read.bytes.clone()) {
            let (header, bytes) = item.expect("whole batches are read");
            assert!(next.is_none_or(|next| next == header.base_offset()), "batches are contiguous");
            assert!(epoch <= header.leader_epoch(), "epochs do not decrease");
            (next, epoch) = (Some(header.next_offset()), header.leader_epoch());
            let decoded = decode_batch(bytes, LIMITS).expect("intact");
            for record in decoded.iter() {
                let record = record.expect("a whole record");
                if record.offset < start {
                    continue;
                }
                let value = record.value.map(|value| {
                    let number = std::str::from_utf8(&value[..6]).expect("digits").parse().expect("digits");
                    assert_eq!(value.len(), 6 + (number % 40) as usize, "the value is whole");
                    number
                });
                let (key, offset) = (record.key.expect("a key")[0], record.offset.get());
                seen.push(Seen { offset, key, value, timestamp: record.timestamp_ms });
            }
        }
        from = read.next_offset;
    }
    assert!(from == end, "batches end at the log end");
    seen
}

pub fn keyed() -> Keyed {
    Keyed::open(&SimDisk::new(1)).expect("a fresh disk opens")
}

/// One record a batch, so many of each of these keys in turn.
pub fn rounds(it: &mut Keyed, keys: std::ops::Range<u8>, rounds: usize) {
    for _ in 0..rounds {
        for key in keys.clone() {
            it.append(&[(key, false)], Compression::None, None).unwrap();
        }
    }
    it.flush().unwrap();
}

/// Closes the active segment: what is appended next is too large to go on in it.
pub fn roll(it: &mut Keyed) {
    let keys: Vec<(u8, bool)> = (200..212).map(|key| (key, false)).collect();
    it.append(&keys, Compression::None, None).unwrap();
    it.append(&keys, Compression::None, None).unwrap();
    it.flush().unwrap();
}

/// Headers of all batches in the log.
pub fn headers(log: &Arc<PartitionLog>) -> Vec<BatchHeader> {
    let mut headers = Vec::new();
    let mut from = log.log_start();
    while from < log.log_end() {
        let read = log.read(from, 1 << 20, true, log.log_end()).unwrap();
        headers.extend(SharedBatchIter::new(read.bytes).map(|item| item.unwrap().0));
        from = read.next_offset;
    }
    headers
}

pub fn files(disk: &SimDisk, extension: &str) -> Vec<String> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let named = files.filter(|path| path.extension().is_some_and(|e| e == extension));
    named.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// The log with all that was ever written to it, in order.
pub struct Keyed {
    pub node: Node,
    pub written: Vec<Seen>,
    pub epoch: i32,
    pub now: i64,
    /// Next sequence of each producer, with its last batch and where that is.
    pub producers: BTreeMap<i64, (i32, Bytes, i64)>,
    pub next_value: u32,
    /// Of producer ids.
    pub generation: i64,
    pub config: LogConfig,
}

impl Keyed {
    pub fn open(disk: &SimDisk) -> Option<Keyed> {
        let node = Node::try_open(disk).ok()?;
        node.store.open_log(tp(0), &config()).ok()?;
        let producers = BTreeMap::new();
        Some(Keyed {
            node,
            written: vec![],
            epoch: 1,
            now: NOW,
            producers,
            next_value: 0,
            generation: 1,
            config: config(),
        })
    }

    pub fn log(&self) -> Arc<PartitionLog> {
        self.node.store.open_log(tp(0), &self.config).expect("the log is open")
    }

    /// `None`: the disk does not go on.
    pub fn append(&mut self, keys: &[(u8, bool)], codec: Compression, producer: Option<i64>) -> Option<()> {
        let puts: Vec<Put> = keys
            .iter()
            .map(|(key, tombstone)| {
                self.next_value += 1;
                Put { key: *key, value: (!tombstone).then_some(self.next_value) }
            })
            .collect();
        let producer = producer.map(|id| self.generation * 100 + id);
        let sequence = producer.map(|id| (id, self.producers.get(&id).map_or(0, |known| known.0)));
        let timestamp = self.now + self.written.len() as i64;
        let batch = batch(&puts, codec, sequence, timestamp);
        match self.log().append_as_leader(&batch, LeaderEpoch(self.epoch), self.now) {
            Ok(appended) => {
                let base = appended.base_offset.get();
                if let Some((id, sequence)) = sequence {
                    self.producers.insert(id, (sequence + puts.len() as i32, batch, base));
                }
                for (n, put) in puts.iter().enumerate() {
                    let n = n as i64;
                    let Put { key, value } = *put;
                    self.written.push(Seen { offset: base + n, key, value, timestamp: timestamp + n });
                }
                Some(())
            }
            Err(AppendError::Failed(_) | AppendError::StorageFull) => None,
            Err(error) => panic!("append: {error}"),
        }
    }

    /// Everything so far is visible to all; passes until nothing is due.
    pub fn compact(&mut self) -> Option<()> {
        let log = self.log();
        log.set_retention_bound(log.flushed_end());
        log.set_tombstone_bound(log.flushed_end());
        self.node.store.compact(self.now, 1 << 30, true);
        self.node.host.run_named("compaction").ok()
    }

    pub fn flush(&mut self) -> Option<()> {
        self.node.host.run_named("journal").ok()
    }

    pub fn checkpoint(&mut self) -> Option<()> {
        self.node.host.run_all().ok()?;
        self.node.store.request_checkpoint();
        self.node.host.run_all().ok()
    }

    /// What is read is what was written, as far as the log goes, with nothing missing that may not be.
    pub fn check(&self) {
        let log = self.log();
        let (start, end) = (log.log_start().get(), log.log_end().get());
        let written: BTreeMap<i64, Seen> = self.written.iter().map(|seen| (seen.offset, *seen)).collect();
        let seen = read_all(&log);
        for record in &seen {
            assert_eq!(written.get(&record.offset), Some(record), "a record is as it was written");
        }
        assert!(seen.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets increase");
        let mut last: BTreeMap<u8, Seen> = BTreeMap::new();
        for record in self.written.iter().filter(|record| (start..end).contains(&record.offset)) {
            last.insert(record.key, *record);
        }
        let there: BTreeMap<i64, Seen> = seen.iter().map(|seen| (seen.offset, *seen)).collect();
        for (key, record) in &last {
            if record.value.is_some() {
                assert_eq!(there.get(&record.offset), Some(record), "the last value of key {key} is there");
            } else if !there.contains_key(&record.offset) {
                assert!(seen.iter().all(|seen| seen.key != *key), "key {key} is deleted for good");
            }
        }
        // Below where compaction came to each key is there once.
        let compacted_to = log.compacted_to().get();
        let mut keys = BTreeMap::new();
        for record in seen.iter().filter(|record| record.offset < compacted_to) {
            let before = keys.insert(record.key, record.offset);
            assert_eq!(before, None, "key {} is there twice below {compacted_to}", record.key);
        }
    }

    /// Producers whose last batch is there are remembered by it.
    pub fn check_producers(&self) {
        let log = self.log();
        for (_, batch, base) in self.producers.values() {
            if *base < log.log_start().get() || *base >= log.log_end().get() {
                continue;
            }
            match log.append_as_leader(batch, LeaderEpoch(self.epoch), self.now) {
                Err(AppendError::Duplicate { base_offset, .. }) => assert_eq!(base_offset.get(), *base),
                other => panic!("a repetition is known: {other:?}"),
            }
        }
    }

    /// Another process on what the last one left. Goes on with a new epoch and other producers.
    pub fn reopen(self, disk: &SimDisk) -> Keyed {
        let node = Node::open(disk);
        let log = node.store.open_log(tp(0), &self.config).expect("the log opens");
        let mut it = Keyed { node, epoch: self.epoch + 1, generation: self.generation + 1, ..self };
        it.written.retain(|record| record.offset < log.log_end().get());
        it.check();
        it.check_producers();
        it.producers.clear();
        it
    }
}
