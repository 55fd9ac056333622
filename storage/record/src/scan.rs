//! The keys and headers of a batch's records without building the records: a length is read and the rest jumped over. For
//! whoever looks at every record of a log and wants next to nothing of it.
//!
//! Invariant: of an intact batch it yields what [`RecordIter`](crate::RecordIter) does; at the first record that is not well
//! formed, as far as it looks, it ends.

use crate::records::DecodedBatch;
use crate::{Offset, varint};

/// A record as far as it has been looked at.
#[derive(Clone, Copy, Debug)]
pub struct Scanned<'a> {
    pub offset: Offset,
    pub key: Option<&'a [u8]>,
    /// From the value's length on.
    fields: &'a [u8],
}

impl<'a> Scanned<'a> {
    /// The value of the first header of this name; `None` if there is none, it has no value, or the record is malformed.
    pub fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut fields = self.fields;
        take(&mut fields)?;
        let headers = varint::take_i32(&mut fields)?;
        for _ in 0..headers {
            let key = take(&mut fields)??;
            let value = take(&mut fields)?;
            if key == name {
                return value;
            }
        }
        None
    }
}

/// A length and its bytes; `Some(None)` when absent, `None` when malformed.
fn take<'a>(fields: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint::take_i32(fields)? {
        -1 => Some(None),
        length => {
            let (bytes, rest) = fields.split_at_checked(usize::try_from(length).ok()?)?;
            *fields = rest;
            Some(Some(bytes))
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Scan<'a> {
    records: &'a [u8],
    base: Offset,
    left: i32,
    last_delta: i32,
    end_delta: i32,
}

impl DecodedBatch {
    /// See the module.
    pub fn scan(&self) -> Scan<'_> {
        let header = self.header();
        Scan {
            records: self.bytes(),
            base: header.base_offset(),
            left: header.count(),
            last_delta: -1,
            end_delta: header.last_offset_delta(),
        }
    }
}

impl<'a> Scan<'a> {
    fn read(&mut self) -> Option<Scanned<'a>> {
        let length = usize::try_from(varint::take_i32(&mut self.records)?).ok()?;
        let (body, rest) = self.records.split_at_checked(length)?;
        let (_attributes, mut fields) = body.split_first()?;
        varint::take_i64(&mut fields)?;
        let delta = varint::take_i32(&mut fields)?;
        if delta <= self.last_delta || delta > self.end_delta {
            return None;
        }
        let key = take(&mut fields)?;
        (self.records, self.last_delta) = (rest, delta);
        Some(Scanned { offset: self.base.plus(i64::from(delta)), key, fields })
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Scanned<'a>;

    fn next(&mut self) -> Option<Scanned<'a>> {
        if self.left <= 0 {
            return None;
        }
        let scanned = self.read();
        self.left = if scanned.is_some() { self.left - 1 } else { 0 };
        scanned
    }
}

#[cfg(test)]
mod tests {
    use crate::{BatchBuilder, Compression, DecodeLimits, DecodedBatch, RecordHeader, decode_batch};
    use bytes::Bytes;
    use proptest::prelude::*;

    const LIMITS: DecodeLimits = DecodeLimits { max_decompressed_bytes: 1 << 20 };

    type Wanted = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(u8, Option<Vec<u8>>)>);

    fn some_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..200))
    }

    fn built(records: &[Wanted]) -> DecodedBatch {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        for (n, (key, value, headers)) in records.iter().enumerate() {
            let header = |(name, value): &(u8, Option<Vec<u8>>)| {
                RecordHeader::new(vec![*name], value.clone().map(Bytes::from))
            };
            let headers: Vec<RecordHeader> = headers.iter().map(header).collect();
            builder.append(n as i64 * 1000, key.as_deref(), value.as_deref(), &headers);
        }
        decode_batch(builder.build(), LIMITS).unwrap()
    }

    proptest! {
        #[test]
        fn it_sees_what_the_records_are(records in prop::collection::vec(
            (some_bytes(), some_bytes(), prop::collection::vec((0..4u8, some_bytes()), 0..5)), 1..20,
        )) {
            let batch = built(&records);
            let all = batch.records().unwrap();
            prop_assert_eq!(batch.scan().count(), all.len());
            for (scanned, record) in batch.scan().zip(&all) {
                prop_assert_eq!((scanned.offset, scanned.key), (record.offset, record.key.as_deref()));
                for name in 0..4u8 {
                    let header = record.headers.iter().find(|header| header.key == vec![name]);
                    prop_assert_eq!(scanned.header(&[name]), header.and_then(|header| header.value.as_deref()));
                }
            }
        }
    }
}
