//! The oracle's own reader of stored record batches (format version 2), sharing no code with the broker's: what both
//! misread would otherwise look right.
//!
//! ```text
//!   0 base offset i64 │ 8 length i32 │ 12 leader epoch i32 │ 16 magic i8 │ 17 CRC-32C u32 │ 21 attributes i16
//!  23 last offset delta i32 │ 27, 35 timestamps │ 43 producer id i64 │ 51 producer epoch i16 │ 53 base sequence i32
//!  57 record count i32 │ 61 records
//! ```
//!
//! Records are looked into only where they are not compressed; what consumers read shows the others' values.

use std::ops::Range;

const HEADER: usize = 61;
const CHECKED_FROM: usize = 21;
const CODEC: i16 = 0b111;

/// One stored batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub base: i64,
    /// Last offset, inclusive.
    pub last: i64,
    pub leader_epoch: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// -1 where there is none.
    pub base_sequence: i32,
    pub count: i32,
    /// Stored and computed checksum.
    pub checksums: (u32, u32),
    /// Where it lies in what was parsed.
    pub bytes: Range<usize>,
    /// Offsets and values of its records; `None` where they are compressed.
    pub values: Option<Vec<(i64, Vec<u8>)>>,
}

impl Batch {
    pub fn is_intact(&self) -> bool {
        self.checksums.0 == self.checksums.1
    }
}

/// Reads batches that follow each other without a gap in the bytes.
///
/// # Errors
/// Bytes that are not batches, with the place.
pub fn parse(bytes: &[u8]) -> Result<Vec<Batch>, String> {
    let mut batches = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let batch = parse_one(bytes, at).map_err(|why| format!("at byte {at}: {why}"))?;
        at = batch.bytes.end;
        batches.push(batch);
    }
    Ok(batches)
}

fn parse_one(bytes: &[u8], at: usize) -> Result<Batch, String> {
    let rest = &bytes[at..];
    if rest.len() < HEADER {
        return Err(format!("{} bytes are no batch header", rest.len()));
    }
    let int = |from: usize, len: usize| -> i64 {
        let unsigned = rest[from..from + len].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let unused = 64 - 8 * len as u32;
        ((unsigned << unused) as i64) >> unused
    };
    let size = 12 + int(8, 4);
    if size < HEADER as i64 || size > rest.len() as i64 {
        return Err(format!("a batch of {size} bytes where {} are left", rest.len()));
    }
    if int(16, 1) != 2 {
        return Err(format!("magic {}", int(16, 1)));
    }
    let whole = &rest[..size as usize];
    let (base, delta) = (int(0, 8), int(23, 4));
    if base < 0 || delta < 0 {
        return Err(format!("base offset {base}, last offset delta {delta}"));
    }
    let stored = int(17, 4) as u32;
    let computed = crc32c(&whole[CHECKED_FROM..]);
    let (attributes, count) = (int(21, 2) as i16, int(57, 4) as i32);
    let values = match attributes & CODEC == 0 && stored == computed {
        true => Some(records(&whole[HEADER..], base, count)?),
        false => None,
    };
    Ok(Batch {
        base,
        last: base + delta,
        leader_epoch: int(12, 4) as i32,
        producer_id: int(43, 8),
        producer_epoch: int(51, 2) as i16,
        base_sequence: int(53, 4) as i32,
        count,
        checksums: (stored, computed),
        bytes: at..at + size as usize,
        values,
    })
}

fn records(mut bytes: &[u8], base: i64, count: i32) -> Result<Vec<(i64, Vec<u8>)>, String> {
    let mut values = Vec::new();
    for number in 0..count {
        let length = varint(&mut bytes)?;
        let mut record = take(&mut bytes, length)?;
        take(&mut record, 1)?;
        varint(&mut record)?;
        let delta = varint(&mut record)?;
        let key = varint(&mut record)?;
        take(&mut record, key.max(0))?;
        let value = varint(&mut record)?;
        let value = take(&mut record, value.max(0))?;
        if delta < 0 {
            return Err(format!("record {number} has offset delta {delta}"));
        }
        values.push((base + delta, value.to_vec()));
    }
    Ok(values)
}

fn take<'a>(bytes: &mut &'a [u8], count: i64) -> Result<&'a [u8], String> {
    let count = usize::try_from(count).map_err(|_| format!("a length of {count}"))?;
    let taken = bytes.get(..count).ok_or_else(|| format!("{count} bytes where {} are left", bytes.len()))?;
    *bytes = &bytes[count..];
    Ok(taken)
}

/// A zigzag variable-length integer.
fn varint(bytes: &mut &[u8]) -> Result<i64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("a number without end".to_owned())
}

/// CRC-32C (Castagnoli), byte by byte over a table.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut n = 0;
        while n < 256 {
            let mut value = n as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82F6_3B78 } else { value >> 1 };
                bit += 1;
            }
            table[n] = value;
            n += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |sum, byte| TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ sum >> 8)
}

/// Batches made by hand, for the oracle's own tests.
#[cfg(test)]
pub mod made {
    use super::crc32c;

    fn varint(into: &mut Vec<u8>, value: i64) {
        let mut rest = (value << 1 ^ value >> 63) as u64;
        while rest >= 0x80 {
            into.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        into.push(rest as u8);
    }

    /// A batch of these values, under (id, epoch, first sequence) of a producer.
    pub fn batch(base: i64, leader_epoch: i32, producer: (i64, i16, i32), values: &[&[u8]]) -> Vec<u8> {
        let mut records = Vec::new();
        for (delta, value) in values.iter().enumerate() {
            let mut record = vec![0];
            varint(&mut record, 0);
            varint(&mut record, delta as i64);
            varint(&mut record, -1);
            varint(&mut record, value.len() as i64);
            record.extend_from_slice(value);
            varint(&mut record, 0);
            varint(&mut records, record.len() as i64);
            records.extend(record);
        }
        let mut checked = vec![0, 0];
        checked.extend((values.len() as i32 - 1).to_be_bytes());
        checked.extend([0; 16]);
        checked.extend(producer.0.to_be_bytes());
        checked.extend(producer.1.to_be_bytes());
        checked.extend(producer.2.to_be_bytes());
        checked.extend((values.len() as i32).to_be_bytes());
        checked.extend(records);
        let mut whole = base.to_be_bytes().to_vec();
        whole.extend((checked.len() as i32 + 9).to_be_bytes());
        whole.extend(leader_epoch.to_be_bytes());
        whole.push(2);
        whole.extend(crc32c(&checked).to_be_bytes());
        whole.extend(checked);
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    }

    #[test]
    fn batches_come_out_as_they_went_in() {
        let mut bytes = made::batch(5, 2, (7, 1, 3), &[b"one", b"two"]);
        bytes.extend(made::batch(7, 3, (-1, -1, -1), &[b"three"]));
        let batches = parse(&bytes).unwrap();
        assert_eq!(batches.len(), 2);
        let first = &batches[0];
        assert_eq!((first.base, first.last, first.leader_epoch), (5, 6, 2));
        assert_eq!((first.producer_id, first.producer_epoch, first.base_sequence), (7, 1, 3));
        assert_eq!(first.values, Some(vec![(5, b"one".to_vec()), (6, b"two".to_vec())]));
        assert!(first.is_intact() && batches[1].is_intact());
        assert_eq!((batches[1].base_sequence, batches[1].producer_id), (-1, -1));
    }

    #[test]
    fn a_changed_byte_shows_and_cut_bytes_are_refused() {
        let mut bytes = made::batch(0, 1, (-1, -1, -1), &[b"value"]);
        *bytes.last_mut().unwrap() ^= 1;
        assert!(!parse(&bytes).unwrap()[0].is_intact());
        let whole = made::batch(0, 1, (-1, -1, -1), &[b"value"]);
        for cut in 1..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "{cut}");
        }
    }

    /// The broker's own writer makes what is read here.
    #[test]
    fn it_reads_what_the_broker_writes() {
        use strandline_record::{BatchBuilder, Compression, LeaderEpoch, Offset};
        for compression in [Compression::None, Compression::Lz4] {
            let mut builder = BatchBuilder::new(compression);
            builder.set_base_offset(Offset(40)).set_leader_epoch(LeaderEpoch(6));
            builder.append(1, Some(b"key"), Some(b"value"), &[]);
            builder.append(2, None, Some(b"other"), &[]);
            let bytes = builder.build();
            let batches = parse(&bytes).unwrap();
            let batch = &batches[0];
            assert!(batch.is_intact());
            assert_eq!((batch.base, batch.last, batch.leader_epoch, batch.count), (40, 41, 6, 2));
            let values = vec![(40, b"value".to_vec()), (41, b"other".to_vec())];
            assert_eq!(batch.values, (compression == Compression::None).then_some(values));
        }
    }
}
