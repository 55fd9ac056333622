//! Entry points for the fuzzer (`storage/fuzz`) and for the tests that replay its corpus.

use crate::records::mend;
use crate::{
    BatchBuilder, BatchIter, BatchLimits, DecodeLimits, DecodedBatch, HEADER_BYTES, decode_batch,
    decode_verified_batch, validate_batch,
};
use bytes::Bytes;

const LIMITS: DecodeLimits = DecodeLimits { max_decompressed_bytes: 1 << 20 };

/// Any bytes: as they are, and with the header mended so that the decoders behind it are reached. Panics only
/// if the codec contradicts itself.
pub fn batch_decoder(data: &[u8]) {
    let mut walked = 0;
    for batch in BatchIter::new(data) {
        let Ok((header, batch)) = batch else { break };
        walked += batch.len();
        assert_eq!(header.size_in_bytes(), batch.len(), "the walk yields whole batches");
        let valid = validate_batch(batch, BatchLimits::log(usize::MAX));
        let decoded = decode_batch(Bytes::copy_from_slice(batch), LIMITS);
        assert!(valid.is_ok() || decoded.is_err(), "what is not valid is not decoded");
    }
    assert!(walked <= data.len(), "the walk stays inside the bytes");
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut mended = data.to_vec();
    mend(&mut mended);
    let valid = validate_batch(&mended, BatchLimits::log(usize::MAX)).is_ok();
    if let Ok(batch) = decode_verified_batch(Bytes::from(mended), LIMITS) {
        check(&batch, valid);
    }
}

/// One whole batch of these bytes, if any header can be made of them: with the length, magic and checksum that they need.
pub fn mended(data: &[u8]) -> Option<Bytes> {
    if data.len() < HEADER_BYTES {
        return None;
    }
    let mut batch = data.to_vec();
    mend(&mut batch);
    let valid = validate_batch(&batch, BatchLimits::log(usize::MAX)).is_ok();
    valid.then(|| Bytes::from(batch))
}

/// What can be decoded can be encoded again and comes out the same.
fn check(batch: &DecodedBatch, valid: bool) {
    assert!(batch.records_bytes() <= LIMITS.max_decompressed_bytes, "the limit holds");
    let (Ok(records), true) = (batch.records(), valid) else { return };
    assert_eq!(
        records.len(),
        batch.header().count() as usize,
        "there are as many records as the header says"
    );
    let mut builder = BatchBuilder::rewrite(batch.header());
    for record in &records {
        builder.append_record(record);
    }
    let again = decode_batch(builder.build(), DecodeLimits { max_decompressed_bytes: usize::MAX >> 1 })
        .expect("what was built can be decoded");
    assert_eq!(again.records().expect("records that were built can be read"), records);
    assert_eq!(again.header().last_offset(), batch.header().last_offset());
}
