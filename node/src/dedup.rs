//! Reading the idempotency keys of a topic's window up again after a start ([`PartitionLog::catch_up_dedup`]), on every
//! replica, so that whoever becomes leader has them.
//!
//! Invariants: one piece of one partition at a time, so that nothing else waits for long; a partition whose log cannot be
//! read is passed over, its damage is told in the ordinary way.
//!
//! [`PartitionLog::catch_up_dedup`]: strandline_storage::PartitionLog::catch_up_dedup

use crate::broker::Broker;
use crate::context::Context;
use std::sync::Arc;
use std::time::Duration;

/// Read at once.
const PIECE_BYTES: usize = 1 << 20;
/// So often is looked for partitions that have something to read.
const LOOK: Duration = Duration::from_millis(200);

pub async fn read_keys(context: Arc<Context>, broker: Arc<Broker>) {
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            _ = interval.tick() => {}
        }
        for partition in broker.partitions().into_iter().filter(|partition| partition.has_keys_to_read()) {
            while !context.stopping.is_cancelled() && partition.read_keys(PIECE_BYTES) {
                tokio::task::yield_now().await;
            }
        }
    }
}
