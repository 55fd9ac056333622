//! I7: replicas agree below the smaller of their high watermarks. From HAZARDS.md (hazards 1, 2, 13, 22, 35) and
//! KIP-101, KIP-279.
//!
//! Looks at: during the run, that no replica's log ends below the high watermark that it has shown in this life; at the
//! end, the stored bytes of all replicas, batch by batch.
//!
//! Sound, because a replica forgets its high watermark at a restart, an unclean election or damage that was cut excuses
//! a shorter log (the replica still shows the high watermark of the history before until it has fetched from the leader
//! of the new one, so that counts only from its first change on), a replica that was taken away and given again is another one, and batches are stored as the leader
//! wrote them, so that they are equal byte for byte or not at all. What lies below the larger log start, or at or above
//! the smaller high watermark, is not compared.

use super::batch::Batch;
use super::ledger::{Finals, Shared};
use super::{Check, Invariant, Observation, named};
use crate::history::Tp;
use crate::observe::Role;
use std::collections::BTreeMap;

named!("I7-log-matching");

pub struct LogMatching {
    ledger: Shared,
    shown: BTreeMap<(Tp, u64), Shown>,
}

/// What a replica has shown in this life, since the last damage and unclean election.
#[derive(Debug)]
struct Shown {
    life: u64,
    unclean_epoch: i32,
    /// The largest high watermark.
    high_watermark: i64,
    /// Log end and high watermark that it brought along from the history before, until it shows others.
    brought: Option<(i64, i64)>,
}

impl LogMatching {
    pub fn new(ledger: Shared) -> Self {
        LogMatching { ledger, shown: BTreeMap::new() }
    }
}

/// One replica's log, and what of it is compared.
struct Log<'a> {
    node: u64,
    bytes: &'a [u8],
    batches: &'a [Batch],
    /// Log start and high watermark.
    bounds: (i64, i64),
}

impl Log<'_> {
    /// The batches of which nothing lies outside of these.
    fn between(&self, start: i64, end: i64) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(move |batch| batch.base >= start && batch.last < end)
    }
}

fn compare(tp: &Tp, finals: &Finals, bounds: &BTreeMap<u64, (i64, i64)>) -> Check {
    let mut logs = Vec::new();
    for (node, log) in finals {
        if let (Ok((bytes, batches)), Some(bounds)) = (log, bounds.get(node)) {
            logs.push(Log { node: *node, bytes, batches, bounds: *bounds });
        }
    }
    for (place, one) in logs.iter().enumerate() {
        for two in &logs[place + 1..] {
            let (start, end) = (one.bounds.0.max(two.bounds.0), one.bounds.1.min(two.bounds.1));
            let (mut mine, mut theirs) = (one.between(start, end), two.between(start, end));
            loop {
                let (first, second) = (mine.next(), theirs.next());
                let equal = match (first, second) {
                    (None, None) => break,
                    (Some(first), Some(second)) => {
                        one.bytes[first.bytes.clone()] == two.bytes[second.bytes.clone()]
                    }
                    _ => false,
                };
                if !equal {
                    return violated(format!(
                        "{tp}: below {end}, the smaller high watermark, node {} has {}, node {} has {}",
                        one.node,
                        told(first),
                        two.node,
                        told(second)
                    ));
                }
            }
        }
    }
    Ok(())
}

fn told(batch: Option<&Batch>) -> String {
    batch.map_or("no further batch".to_owned(), |batch| {
        format!(
            "offsets {} to {} of leader epoch {} from producer {} epoch {} sequence {}, checksum {:08x}",
            batch.base,
            batch.last,
            batch.leader_epoch,
            batch.producer_id,
            batch.producer_epoch,
            batch.base_sequence,
            batch.checksums.1
        )
    })
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for tp in &ledger.touched {
            let part = &ledger.parts[tp];
            for (node, seen) in &part.replicas {
                let view = &seen.view;
                let key = (tp.clone(), *node);
                let role_epoch = match view.role {
                    Role::Leader { epoch } | Role::Follower { epoch, .. } => Some(epoch),
                    Role::Idle => None,
                };
                let unclean_epoch = part.unclean.epoch;
                let before = unclean_epoch > 0 && role_epoch.is_none_or(|epoch| epoch < unclean_epoch);
                if !seen.live || view.damaged || part.unclean.unsettled || before {
                    self.shown.remove(&key);
                    continue;
                }
                let marks = (view.log_end, view.high_watermark);
                let fresh = || Shown {
                    life: seen.life,
                    unclean_epoch,
                    high_watermark: 0,
                    brought: (unclean_epoch > 0).then_some(marks),
                };
                let shown = self.shown.entry(key).or_insert_with(fresh);
                if (shown.life, shown.unclean_epoch) != (seen.life, unclean_epoch) {
                    *shown = fresh();
                }
                if shown.brought == Some(marks) {
                    continue;
                }
                shown.brought = None;
                if view.log_end < shown.high_watermark {
                    return violated(format!(
                        "{tp} on node {node} ({:?}) ends at {}, but its high watermark was {}: committed records were \
                         truncated",
                        view.role, view.log_end, shown.high_watermark
                    ));
                }
                shown.high_watermark = shown.high_watermark.max(view.high_watermark);
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for (tp, finals) in &ledger.finals {
            let bounds = ledger.parts.get(tp).map(|part| {
                part.live()
                    .map(|(node, seen)| (node, (seen.view.log_start, seen.view.high_watermark)))
                    .collect()
            });
            compare(tp, finals, &bounds.unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::made;
    use super::super::testkit::{Bench, broken};
    use super::*;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(LogMatching::new(ledger)))
    }

    fn batch(base: i64, epoch: i32, value: &[u8]) -> Vec<u8> {
        made::batch(base, epoch, (-1, -1, -1), &[value])
    }

    #[test]
    fn equal_below_the_high_watermark_is_enough() {
        let mut bench = bench();
        bench.ends(&[(1, 3), (2, 2), (3, 3)]);
        bench.replica(1).high_watermark = 2;
        bench.replica(2).high_watermark = 1;
        bench.replica(3).high_watermark = 2;
        bench.step().unwrap();
        let first = [batch(0, 1, b"a"), batch(1, 1, b"b")].concat();
        bench.log(1, [first.clone(), batch(2, 1, b"c")].concat());
        bench.log(2, [batch(0, 1, b"a"), batch(1, 1, b"other")].concat());
        bench.log(3, [first, batch(2, 2, b"x")].concat());
        bench.finish().unwrap();
    }

    #[test]
    fn bytes_that_differ_below_it() {
        for (other, says) in [
            (batch(0, 1, b"x"), "node 1 has offsets 0 to 0 of leader epoch 1"),
            (batch(0, 2, b"a"), "of leader epoch 2"),
            (Vec::new(), "no further batch"),
        ] {
            let mut bench = bench();
            bench.commit_to(1);
            bench.log(1, batch(0, 1, b"a"));
            bench.log(2, other);
            broken(bench.finish(), says);
        }
    }

    #[test]
    fn a_log_that_ends_below_the_high_watermark_it_has_shown() {
        let mut bench = bench();
        bench.commit_to(5);
        bench.ends(&[(2, 4)]);
        broken(bench.step(), "t-0 on node 2");
    }

    #[test]
    fn a_restart_damage_and_an_unclean_election_excuse_a_shorter_log() {
        let mut bench = bench();
        bench.commit_to(5);
        bench.start(2, 2);
        bench.step().unwrap();
        bench.replica(3).damaged = true;
        bench.step().unwrap();
        (bench.replica(3).damaged, bench.replica(3).high_watermark) = (false, 2);
        bench.ends(&[(3, 2)]);
        bench.step().unwrap();
        bench.elect(2, 2);
        bench.agree(|agreed| (agreed.isr, agreed.unclean_epoch) = ([2].into(), 2));
        bench.ends(&[(1, 1)]);
        bench.replica(1).high_watermark = 1;
        bench.step().unwrap();
    }

    #[test]
    fn what_a_replica_brings_along_from_before_an_unclean_election_does_not_count() {
        let mut bench = bench();
        bench.commit_to(5);
        bench.elect(2, 2);
        bench.agree(|agreed| (agreed.isr, agreed.unclean_epoch) = ([2].into(), 2));
        for node in [1, 3] {
            bench.replica(node).role = Role::Follower { leader: 2, epoch: 2 };
        }
        bench.step().unwrap();
        // Fetched for the first time.
        bench.ends(&[(1, 0)]);
        bench.replica(1).high_watermark = 0;
        bench.step().unwrap();
        bench.ends(&[(1, 4)]);
        bench.replica(1).high_watermark = 4;
        bench.step().unwrap();
        bench.ends(&[(1, 3)]);
        broken(bench.step(), "t-0 on node 1");
    }
}
