//! Fetched bytes for tests.

use bytes::{Bytes, BytesMut};
use strandline_record::{BatchBuilder, LeaderEpoch, Offset};

/// Batches of these many records each, from `base` on, all of leader epoch `epoch`.
pub(crate) fn batches(mut base: i64, epoch: i32, counts: &[usize]) -> Bytes {
    let mut bytes = BytesMut::new();
    for count in counts {
        let mut builder = BatchBuilder::default();
        builder.set_base_offset(Offset(base)).set_leader_epoch(LeaderEpoch(epoch));
        for i in 0..*count {
            builder.append(0, None, Some(format!("{}", base + i as i64).as_bytes()), &[]);
        }
        base += *count as i64;
        bytes.extend_from_slice(&builder.build());
    }
    bytes.freeze()
}
