//! What a transaction has to change, decided from the batches and from what the store has of them.

use super::bucket::{Bucket, BucketKey, Level};
use super::{Batch, EventId, Status, Totals, Verdict, Write};
use std::collections::BTreeMap;

/// Changes of one transaction.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// New rows, each with the place of its batch.
    pub(super) insert: Vec<(usize, &'a Write)>,
    /// Rows of failed events that are processed now.
    pub(super) revive: Vec<&'a Write>,
    /// What to add to buckets.
    pub(super) buckets: BTreeMap<BucketKey, Bucket>,
    /// What to add to the totals.
    pub(super) added: Totals,
    /// What to take off the failed: events that were redriven.
    pub(super) revived: u64,
}

/// The writes of `batches` that are at or after their source's next offset in the store (`places`, one a batch).
pub(super) fn new_writes<'a>(
    batches: &'a [Batch],
    places: &'a [i64],
) -> impl Iterator<Item = (usize, &'a Write)> {
    batches.iter().zip(places).enumerate().flat_map(|(at, (batch, place))| {
        batch.writes.iter().filter(move |write| write.offset >= *place).map(move |write| (at, write))
    })
}

/// `known` holds the status of the events among the new writes that have a row.
pub(super) fn plan<'a>(
    batches: &'a [Batch],
    places: &'a [i64],
    mut known: BTreeMap<EventId, Status>,
) -> Plan<'a> {
    let mut plan = Plan::default();
    for (at, write) in new_writes(batches, places) {
        let status = write.verdict.status();
        match known.get(&write.id) {
            None => plan.insert.push((at, write)),
            Some(Status::Failed) if write.redriven && status == Status::Processed => {
                plan.revive.push(write);
                plan.revived += 1;
            }
            Some(_) => {
                plan.added.duplicates += 1;
                continue;
            }
        }
        known.insert(write.id, status);
        match &write.verdict {
            Verdict::Processed(event) => {
                plan.added.processed += 1;
                let one = Bucket::one(&event.amount);
                for level in Level::ALL {
                    plan.buckets.entry(BucketKey::of(event, level)).or_default().merge(&one);
                }
            }
            Verdict::Rejected { .. } => plan.added.rejected += 1,
            Verdict::Failed { .. } => plan.added.failed += 1,
        }
    }
    plan
}
