//! Bytes of the journal.
//!
//! A journal file is a row of *groups*, each written by one write and made durable by one sync before the
//! next one is begun. A group begins at a multiple of 4096 ([`BLOCK`]), so that no page that holds acknowledged bytes is
//! ever written again, and so that a group can be found behind one that is unreadable. Little-endian:
//!
//! ```text
//! group      0   4  magic "SLJG"
//!            4   4  CRC-32C of bytes 8 to the end of the table
//!            8   4  version, 1
//!           12   4  entries n, 1 ..= ENTRIES_MAX
//!           16   8  generation: one use of one file; higher than that of every earlier use of any file
//!           24   8  number of the group, without gaps over all files
//!           32   8  bytes of the payloads
//!           40  16  directory id
//!           56   8  zero
//!           64 64n  table
//!                   payloads, back to back, in the order of the table
//!                   zeros up to a multiple of 4096
//! entry      0   1  kind
//!            1   3  zero
//!            4   4  partition
//!            8  16  topic id
//!           24   8  sequence number of the entry, over all logs
//!           32   8  sequence number of the entry before it of the same log, 0: none
//!           40   8  a   append: base offset; truncate, repair: end; reset, start, create: start; damage: from
//!           48   4  b   append: end offset - base offset
//!           52   4  c   append: number of the file that it went to; truncate, repair, reset, start,
//!                       create: number of the log's next file
//!           56   4  payload bytes (appended batches)
//!           60   4  CRC-32C of the payload
//! ```
//!
//! Table and payloads have separate checksums: when a payload is damaged, the table still says whose it was.

pub use crate::disk::BLOCK;
use crate::disk::BlockBuffer;
use crate::segment::COMPACTED;
use bytes::Bytes;
use strandline_record::{Offset, PartitionId, TopicId, TopicPartition, crc32c};
use uuid::Uuid;

pub const GROUP_HEADER_BYTES: usize = 64;
pub const ENTRY_BYTES: usize = 64;
/// Entries of one group.
pub const ENTRIES_MAX: usize = 4096;
const MAGIC: &[u8; 4] = b"SLJG";
const VERSION: u32 = 1;

/// What was done to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Append { base: Offset, end: Offset, number: u32, bytes: Bytes },
    Truncate { end: Offset, next_number: u32 },
    Reset { start: Offset, next_number: u32 },
    AdvanceStart { start: Offset, next_number: u32 },
    Create { start: Offset, next_number: u32 },
    Delete,
    Damage { from: Offset },
    Repair { end: Offset, next_number: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    /// The log's entry before this one; 0: none.
    pub prev: u64,
    pub tp: TopicPartition,
    pub op: Op,
}

/// An entry as the table has it, before its payload was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableEntry {
    pub entry: Entry,
    pub payload_bytes: usize,
    pub payload_crc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub entries: usize,
    pub generation: u64,
    pub number: u64,
    pub payload_bytes: u64,
    crc: u32,
}

impl GroupHeader {
    pub fn table_bytes(&self) -> usize {
        self.entries * ENTRY_BYTES
    }

    /// Whole size in the file, padding included.
    pub fn size(&self) -> u64 {
        padded((GROUP_HEADER_BYTES + self.table_bytes()) as u64 + self.payload_bytes)
    }
}

pub fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK as u64)
}

/// The payload of an entry.
fn payload(op: &Op) -> &[u8] {
    match op {
        Op::Append { bytes, .. } => bytes,
        _ => &[],
    }
}

/// Size of the group that these entries make, padding included.
pub fn group_size<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
    let bytes: usize = entries.map(|entry| ENTRY_BYTES + payload(&entry.op).len()).sum();
    padded((GROUP_HEADER_BYTES + bytes) as u64)
}

/// Writes a whole group into `buffer` and returns it.
pub fn encode_group<'a, 'b>(
    buffer: &'b mut BlockBuffer,
    directory: Uuid,
    generation: u64,
    number: u64,
    entries: impl ExactSizeIterator<Item = &'a Entry> + Clone,
) -> &'b [u8] {
    let count = entries.len();
    assert!((1..=ENTRIES_MAX).contains(&count), "a group has a bounded number of entries");
    let group = buffer.bytes(group_size(entries.clone()) as usize);
    let (head, mut rest) = group.split_at_mut(GROUP_HEADER_BYTES + count * ENTRY_BYTES);
    let (header, table) = head.split_at_mut(GROUP_HEADER_BYTES);
    let mut payload_bytes = 0;
    for (entry, slot) in entries.zip(table.chunks_exact_mut(ENTRY_BYTES)) {
        let payload = payload(&entry.op);
        let (copy, behind) = rest.split_at_mut(payload.len());
        copy.copy_from_slice(payload);
        // Of the copy, which is warm.
        slot.copy_from_slice(&encode_entry(entry, payload.len(), crc32c(copy)));
        payload_bytes += payload.len() as u64;
        rest = behind;
    }
    rest.fill(0);
    header.fill(0);
    header[0..4].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(count as u32).to_le_bytes());
    header[16..24].copy_from_slice(&generation.to_le_bytes());
    header[24..32].copy_from_slice(&number.to_le_bytes());
    header[32..40].copy_from_slice(&payload_bytes.to_le_bytes());
    header[40..56].copy_from_slice(directory.as_bytes());
    let crc = crc32c(&head[8..]);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    group
}

fn encode_entry(entry: &Entry, payload_bytes: usize, payload_crc: u32) -> [u8; ENTRY_BYTES] {
    let (kind, a, b, c): (u8, Offset, u32, u32) = match &entry.op {
        Op::Append { base, end, number, .. } => {
            let offsets = u32::try_from(end.get() - base.get()).expect("an append lies in one segment");
            (1, *base, offsets, *number)
        }
        Op::Truncate { end, next_number } => (2, *end, 0, *next_number),
        Op::Reset { start, next_number } => (3, *start, 0, *next_number),
        Op::AdvanceStart { start, next_number } => (4, *start, 0, *next_number),
        Op::Create { start, next_number } => (5, *start, 0, *next_number),
        Op::Delete => (6, Offset::ZERO, 0, 0),
        Op::Damage { from } => (7, *from, 0, 0),
        Op::Repair { end, next_number } => (8, *end, 0, *next_number),
    };
    let payload_bytes = u32::try_from(payload_bytes).expect("appends are bounded");
    let mut out = [0; ENTRY_BYTES];
    out[0] = kind;
    out[4..8].copy_from_slice(&entry.tp.partition.get().to_le_bytes());
    out[8..24].copy_from_slice(entry.tp.topic.0.as_bytes());
    out[24..32].copy_from_slice(&entry.seq.to_le_bytes());
    out[32..40].copy_from_slice(&entry.prev.to_le_bytes());
    out[40..48].copy_from_slice(&a.get().to_le_bytes());
    out[48..52].copy_from_slice(&b.to_le_bytes());
    out[52..56].copy_from_slice(&c.to_le_bytes());
    out[56..60].copy_from_slice(&payload_bytes.to_le_bytes());
    out[60..64].copy_from_slice(&payload_crc.to_le_bytes());
    out
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were sliced")
}

/// Reads what looks like a group header; the checksum is checked by [`decode_table`].
pub fn parse_header(bytes: &[u8; GROUP_HEADER_BYTES], directory: Uuid) -> Option<GroupHeader> {
    let entries = u32::from_le_bytes(field(bytes, 12)) as usize;
    let payload_bytes = u64::from_le_bytes(field(bytes, 32));
    let plausible = bytes.starts_with(MAGIC)
        && u32::from_le_bytes(field(bytes, 8)) == VERSION
        && (1..=ENTRIES_MAX).contains(&entries)
        && payload_bytes < 1 << 40
        && u64::from_le_bytes(field(bytes, 24)) < u64::MAX
        && bytes[40..56] == *directory.as_bytes();
    plausible.then(|| GroupHeader {
        entries,
        generation: u64::from_le_bytes(field(bytes, 16)),
        number: u64::from_le_bytes(field(bytes, 24)),
        payload_bytes,
        crc: u32::from_le_bytes(field(bytes, 4)),
    })
}

/// The table behind a header, if it is what was written. `head` is header and table.
pub fn decode_table(header: &GroupHeader, head: &[u8]) -> Option<Vec<TableEntry>> {
    if crc32c(&head[8..]) != header.crc {
        return None;
    }
    let entries: Option<Vec<TableEntry>> =
        head[GROUP_HEADER_BYTES..].chunks_exact(ENTRY_BYTES).map(decode_entry).collect();
    let entries = entries?;
    let sum: u64 = entries.iter().map(|e| e.payload_bytes as u64).sum();
    (sum == header.payload_bytes).then_some(entries)
}

fn decode_entry(bytes: &[u8]) -> Option<TableEntry> {
    let a = Offset(i64::from_le_bytes(field(bytes, 40)));
    let b = u32::from_le_bytes(field(bytes, 48));
    let next_number = u32::from_le_bytes(field(bytes, 52));
    let payload_bytes = u32::from_le_bytes(field(bytes, 56)) as usize;
    if a.get() < 0 || next_number >= COMPACTED {
        return None;
    }
    let op = match bytes[0] {
        1 => {
            let end = Offset(a.get().checked_add(i64::from(b))?);
            Op::Append { base: a, end, number: next_number, bytes: Bytes::new() }
        }
        2 => Op::Truncate { end: a, next_number },
        3 => Op::Reset { start: a, next_number },
        4 => Op::AdvanceStart { start: a, next_number },
        5 => Op::Create { start: a, next_number },
        6 => Op::Delete,
        7 => Op::Damage { from: a },
        8 => Op::Repair { end: a, next_number },
        _ => return None,
    };
    let sound = match &op {
        Op::Append { base, end, .. } => base < end && payload_bytes > 0,
        _ => payload_bytes == 0,
    };
    let tp = TopicPartition {
        topic: TopicId(Uuid::from_bytes(field(bytes, 8))),
        partition: PartitionId(i32::from_le_bytes(field(bytes, 4))),
    };
    let seq = u64::from_le_bytes(field(bytes, 24));
    let prev = u64::from_le_bytes(field(bytes, 32));
    sound.then_some(TableEntry {
        entry: Entry { seq, prev, tp, op },
        payload_bytes,
        payload_crc: u32::from_le_bytes(field(bytes, 60)),
    })
}
