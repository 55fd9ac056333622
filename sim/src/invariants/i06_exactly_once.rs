//! I6: each (producer id, epoch, sequence) occupies at most one offset, across failover, snapshot and retention. From
//! HAZARDS.md (hazards 32, 34), KIP-98, KIP-360; Jepsen's *duplicate*.
//!
//! Looks at: where each attempt of an idempotent producer is acknowledged and read; at the end, the headers of every
//! replica's batches: no sequence twice, and those of one producer and epoch follow each other without a gap.
//!
//! Sound, because attempts without idempotence may appear more than once (a repeated send), acknowledgements with
//! acks=leader may be of a copy that is lost, and a history before an unclean election is another one.

use super::batch::Batch;
use super::ledger::Shared;
use super::{Check, Invariant, Observation, named};
use crate::history::{Acks, Attempt, Event, Outcome, Tp, What};
use std::collections::BTreeMap;

named!("I6-exactly-once");

pub struct ExactlyOnce {
    ledger: Shared,
}

impl ExactlyOnce {
    pub fn new(ledger: Shared) -> Self {
        ExactlyOnce { ledger }
    }

    fn seen(&self, attempt: Attempt, offset: i64, how: &str, leader_epoch: Option<i32>) -> Check {
        let ledger = self.ledger.borrow();
        let Some(sent) = ledger.attempts.get(&attempt).filter(|sent| sent.idempotent) else { return Ok(()) };
        let (Some(part), Some((first, history))) = (ledger.part(&sent.tp), sent.seen_at) else {
            return Ok(());
        };
        let judged = match leader_epoch {
            Some(epoch) => !part.unclean.unsettled && epoch >= part.unclean.epoch,
            None => part.counts(sent.begun),
        };
        if !judged || history != part.unclean.epoch || first == offset {
            return Ok(());
        }
        violated(format!(
            "{attempt:?} of {:?}, an idempotent producer, sent once at {} to {}, is at offset {first} and was {how} at \
             offset {offset}",
            sent.session, sent.begun, sent.tp
        ))
    }
}

/// No sequence twice, none missing between two.
fn check_log(tp: &Tp, node: u64, batches: &[Batch]) -> Check {
    let mut last: BTreeMap<(i64, i16), (i64, i64)> = BTreeMap::new();
    for batch in batches.iter().filter(|batch| batch.producer_id >= 0 && batch.base_sequence >= 0) {
        let producer = (batch.producer_id, batch.producer_epoch);
        let (first, end) =
            (i64::from(batch.base_sequence), i64::from(batch.base_sequence) + i64::from(batch.count));
        if let Some((expected, at)) = last.insert(producer, (end % (1 << 31), batch.last))
            && expected != first
        {
            let what = if first < expected { "again" } else { "with a gap" };
            return violated(format!(
                "{tp} on node {node}: producer {} epoch {} continues {what}: up to offset {at} sequences below \
                 {expected}, at offset {} sequence {first}",
                producer.0, producer.1, batch.base
            ));
        }
    }
    Ok(())
}

impl Invariant for ExactlyOnce {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::Read { attempt: Some(attempt), offset, leader_epoch, .. } => {
                self.seen(*attempt, *offset, "read", Some(*leader_epoch))
            }
            What::Sent { attempt, outcome: Outcome::Acknowledged(Some(offset)), .. } => {
                let all =
                    self.ledger.borrow().attempts.get(attempt).is_some_and(|sent| sent.acks == Acks::All);
                if all { self.seen(*attempt, *offset, "acknowledged", None) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for (tp, finals) in &ledger.finals {
            for (node, log) in finals {
                if let Ok((_, batches)) = log {
                    check_log(tp, *node, batches)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::made;
    use super::super::testkit::{Bench, READER, WRITER, broken};
    use super::*;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(ExactlyOnce::new(ledger)))
    }

    #[test]
    fn once_is_fine_however_often_it_is_read() {
        let mut bench = bench();
        bench.send(1).unwrap();
        bench.acked(1, 0).unwrap();
        bench.read(0, 1).unwrap();
        bench.read(0, 1).unwrap();
        bench.log(1, made::batch(0, 1, (7, 0, 0), &[b"a", b"b"]));
        bench.log(2, [made::batch(0, 1, (7, 0, 0), &[b"a"]), made::batch(1, 1, (7, 0, 1), &[b"b"])].concat());
        bench.finish().unwrap();
    }

    #[test]
    fn an_idempotent_attempt_at_two_offsets() {
        let mut bench = bench();
        bench.send(1).unwrap();
        bench.sent(1, Outcome::Unknown(String::new())).unwrap();
        bench.read(0, 1).unwrap();
        broken(bench.read(4, 1), "is at offset 0 and was read at offset 4");
        bench.send(2).unwrap();
        bench.read(1, 2).unwrap();
        broken(bench.acked(2, 3), "is at offset 1 and was acknowledged at offset 3");
    }

    #[test]
    fn without_idempotence_twice_is_possible() {
        let mut bench = bench();
        bench.send_as(WRITER, 1, Acks::All, false).unwrap();
        bench.read(0, 1).unwrap();
        bench.read(4, 1).unwrap();
    }

    #[test]
    fn after_an_unclean_election_it_may_be_elsewhere() {
        let mut bench = bench();
        bench.send(1).unwrap();
        bench.read(4, 1).unwrap();
        bench.elect(2, 2);
        bench.agree(|agreed| (agreed.isr, agreed.unclean_epoch) = ([2].into(), 2));
        bench.step().unwrap();
        bench.read_as(READER, 2, 2, Some(1), 1).unwrap();
        broken(bench.read_as(READER, 3, 2, Some(1), 1), "is at offset 2");
    }

    #[test]
    fn sequences_in_the_logs() {
        for (second, says) in [(0, "again"), (2, "with a gap")] {
            let mut bench = bench();
            let log = [made::batch(0, 1, (7, 0, 0), &[b"a"]), made::batch(1, 1, (7, 0, second), &[b"b"])];
            bench.log(3, log.concat());
            broken(bench.finish(), says);
        }
        let mut bench = bench();
        let log = [made::batch(0, 1, (7, 0, 5), &[b"a"]), made::batch(1, 1, (7, 1, 0), &[b"b"])];
        bench.log(3, log.concat());
        bench.finish().unwrap();
    }
}
