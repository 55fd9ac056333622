//! Entry points for coverage-guided fuzzing.
//!
//! Input of [`recovery`]: a row of commands, each a byte that says what it is and two bytes of length
//! (little-endian), followed by so many bytes.
//!
//! ```text
//!  0 meta file as it is            4 checkpoint body, wrapped with a right checksum
//!  1 checkpoint file as it is      5 group of the journal: entries of 64 bytes, wrapped; payloads follow
//!  2 checkpoint copy as it is      6 checkpoint made up from the bytes, contradictions and all
//!  3 journal file as it is         7 segment file with base 0 and number 1 + bytes so far; 8: its index
//! ```

use crate::checkpoint::Manifest;
use crate::compaction::{Fate, Filter, KeyMap, Rules};
use crate::config::{LogConfig, StoreConfig};
use crate::disk::{BlockBuffer, Disk, SimDisk};
use crate::journal::{Entry, Op, format};
use crate::log::LogRecord;
use crate::meta::Meta;
use crate::segment::{Segment, index_name, log_dir, segment_name};
use crate::store::Store;
use crate::worker::ManualHost;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use strandline_record::{
    BatchBuilder, BatchHeader, BrokerId, Compression, DecodeLimits, LeaderEpoch, Offset, PartitionId, Record,
    TopicId, TopicPartition, crc32c, decode_batch, decode_verified_batch,
};
use uuid::Uuid;

const ROOT: &str = "/fuzz";
const DIRECTORY: Uuid = Uuid::from_u128(1);

fn tp(n: u8) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(2)), partition: PartitionId(i32::from(n % 3)) }
}

/// Numbers from the input, 0 when it is used up.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn small(&mut self) -> i64 {
        i64::from(self.next() % 32)
    }
}

fn wrapped(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    [magic.as_slice(), &crc32c(body).to_le_bytes(), body].concat()
}

/// A checkpoint whose parts need not fit together.
fn made_up_checkpoint(numbers: &mut Numbers) -> Vec<u8> {
    let logs = (0..numbers.next() % 4).map(|n| {
        let segments: Vec<Segment> = (0..numbers.next() % 4)
            .map(|_| {
                let mut segment = Segment::new(Offset(numbers.small()), numbers.next().into(), 0);
                segment.bytes = u64::from(numbers.next()) * 16;
                segment.end = Offset(numbers.small());
                segment.closed = numbers.next().is_multiple_of(2);
                segment
            })
            .collect();
        let flags = numbers.next();
        LogRecord {
            tp: tp(n),
            applied_seq: numbers.small() as u64,
            start: Offset(numbers.small()),
            end: Offset(numbers.small()),
            next_number: numbers.next().into(),
            segments,
            epochs: Default::default(),
            damaged: (flags & 1 != 0).then(|| Offset(numbers.small())),
            journaled: flags & 2 != 0,
            compacted_to: Offset(numbers.small()),
        }
    });
    let logs: Vec<LogRecord> = logs.collect();
    let manifest = Manifest {
        sequence: numbers.next().into(),
        incarnation: numbers.next().into(),
        generation: numbers.next().into(),
        first_group: numbers.next().into(),
        next_seq: numbers.next().into(),
        clean: numbers.next().is_multiple_of(2),
        next_number: 1,
        removing: Vec::new(),
        logs,
    };
    manifest.encode().unwrap_or_default()
}

/// A group whose entries say what the bytes say; appends have batches that are sound.
fn made_up_group(numbers: &mut Numbers, number: u64) -> Vec<u8> {
    let generation = u64::from(numbers.next() % 4);
    let entries: Vec<Entry> = (0..1 + numbers.next() % 6)
        .map(|_| {
            let (tp, seq, prev) = (tp(numbers.next()), numbers.small() as u64, numbers.small() as u64);
            let (kind, at, next_number) =
                (numbers.next() % 8, Offset(numbers.small()), numbers.next().into());
            let op = match kind {
                0 | 1 => {
                    let mut batch = BatchBuilder::new(Compression::None);
                    batch.set_base_offset(at).set_leader_epoch(LeaderEpoch(numbers.next().into()));
                    for _ in 0..1 + numbers.next() % 3 {
                        batch.append(0, None, Some(b"value"), &[]);
                    }
                    let count = batch.count();
                    Op::Append {
                        base: at,
                        end: at.plus(count.into()),
                        number: next_number,
                        bytes: batch.build(),
                    }
                }
                2 => Op::Truncate { end: at, next_number },
                3 => Op::Reset { start: at, next_number },
                4 => Op::AdvanceStart { start: at, next_number },
                5 => Op::Create { start: at, next_number },
                6 => Op::Delete,
                _ if numbers.next().is_multiple_of(2) => Op::Damage { from: at },
                _ => Op::Repair { end: at, next_number },
            };
            Entry { seq, prev, tp, op }
        })
        .collect();
    format::encode_group(&mut BlockBuffer::default(), DIRECTORY, generation, number, entries.iter()).to_vec()
}

/// Lays files of these bytes on a disk and opens it: an error or a store that can be used, never a panic.
pub fn recovery(data: &[u8]) {
    let disk = SimDisk::new(0);
    let root = Path::new(ROOT);
    let write = |path: &Path, content: &[u8]| {
        if let Some(dir) = path.parent() {
            let _ = disk.create_dir_all(dir);
        }
        let _ = disk.write_file_atomically(path, content);
    };
    let meta = Meta { directory: DIRECTORY, node: BrokerId(1), cluster: None, clean_epoch: None };
    let _ = disk.create_dir_all(&root.join("logs"));
    let _ = disk.create_dir_all(&root.join("journal"));
    let _ = meta.write(&disk, root);
    let mut journal: Vec<u8> = Vec::new();
    let (mut rest, mut segments, mut groups) = (data, 0u8, 0u64);
    while let [command, low, high, tail @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (bytes, next) = tail.split_at(len);
        rest = next;
        let mut numbers = Numbers(bytes);
        match command % 9 {
            0 => write(&root.join("meta"), bytes),
            1 => write(&root.join("checkpoint"), bytes),
            2 => write(&root.join("checkpoint.copy"), bytes),
            3 => {
                journal.extend_from_slice(bytes);
                journal.resize(journal.len().next_multiple_of(format::BLOCK), 0);
            }
            4 => write(&root.join("checkpoint"), &wrapped(b"SLCHECK1", bytes)),
            5 => {
                groups += 1;
                journal.extend(made_up_group(&mut numbers, groups));
            }
            6 => write(&root.join("checkpoint"), &made_up_checkpoint(&mut numbers)),
            kind => {
                let (base, number) = (Offset(numbers.small()), u32::from(numbers.next()));
                let dir = log_dir(root, tp(segments));
                segments = segments.wrapping_add(1);
                if kind == 7 {
                    write(&dir.join(segment_name(base, number)), numbers.0);
                } else {
                    write(&dir.join(index_name(base, number)), &wrapped(b"SLINDEX1", numbers.0));
                }
            }
        }
    }
    write(&root.join("journal").join("00000000.journal"), &journal);
    for _ in 0..2 {
        let config = StoreConfig { journal_file_bytes: 64 << 10, ..StoreConfig::new(BrokerId(1), DIRECTORY) };
        let host = ManualHost::new();
        let Ok((store, _)) = Store::open(Arc::new(disk.clone()), root, config, &host, 0) else { return };
        use_logs(&store);
        host.run_all().expect("this disk does not fail");
    }
}

/// A batch as compaction filters it: four bytes (how far keys are known, the time, how many keys were seen again
/// behind, whether the batch is remembered by), then the batch, whose header is mended.
pub fn compaction(data: &[u8]) {
    let [mapped, now, superseded, remembers, batch @ ..] = data else { return };
    let Some(batch) = strandline_record::fuzzing::mended(batch) else { return };
    let header = BatchHeader::parse(&batch).expect("it is valid");
    let limits = DecodeLimits { max_decompressed_bytes: 1 << 20 };
    let Ok(before) = decode_verified_batch(batch.clone(), limits).and_then(|decoded| decoded.records())
    else {
        return;
    };
    let mut keys = KeyMap::new(1 << 12, 100, Uuid::from_u128(1));
    for record in before.iter().take(usize::from(*superseded)) {
        if let Some(key) = &record.key {
            keys.put(key, header.next_offset());
        }
    }
    let remembered = if remembers % 2 == 0 { [].into() } else { [header.base_offset()].into() };
    let rules = Rules {
        keys: &keys,
        mapped_to: header.base_offset().plus(i64::from(*mapped)),
        remembered: &remembered,
        tombstone_bound: header.base_offset().plus(i64::from(*now) / 2),
        now_ms: i64::from(*now),
        delete_retention_ms: i64::from(*now),
    };
    match Filter::default().decide(&rules, &header, &batch) {
        Fate::Keep => {}
        Fate::Remove => assert!(!remembered.contains(&header.base_offset()) || header.is_filler()),
        Fate::Replace(left) => {
            let again = decode_batch(left, limits).expect("what is left is a batch");
            let after = again.header();
            let same = |header: &BatchHeader| {
                (header.base_offset(), header.last_offset(), header.leader_epoch(), header.last_sequence())
            };
            assert_eq!(same(after), same(&header), "its place, epoch and sequences stay");
            let after = again.records().expect("records that were written can be read");
            let mut rest = before.iter();
            assert!(after.iter().all(|record| rest.any(|known| known == record)), "records stay as they are");
            let kept = |record: &&Record| record.key.is_none() || record.offset >= rules.mapped_to;
            assert!(
                before.iter().filter(kept).all(|record| after.contains(record)),
                "what must stay is there"
            );
        }
    }
}

/// Reads, cuts and writes every log.
fn use_logs(store: &Store) {
    for tp in store.logs() {
        let log = store.open_log(tp, &LogConfig::default()).expect("it is open");
        let (mut from, end) = (log.log_start(), log.log_end());
        while let Ok(read) = log.read(from, 1 << 16, true, end) {
            assert!(read.next_offset <= end);
            if read.next_offset <= from {
                break;
            }
            from = read.next_offset;
        }
        let _ = log.offset_for_timestamp(0);
        if log.damaged().is_some() {
            let _ = log.repair();
        }
        let _ = log.truncate_to(Offset((log.log_start().get() + log.log_end().get()) / 2));
        let mut batch = BatchBuilder::new(Compression::None);
        batch.append(0, None, Some(b"more"), &[]);
        let bytes: Bytes = batch.build();
        let epoch = log.last_epoch().unwrap_or_default().max(LeaderEpoch(1));
        let _ = log.append_as_leader(&bytes, epoch, 0);
    }
}
