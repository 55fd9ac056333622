//! I2: nobody ever sees two values for one (partition, offset). From HAZARDS.md (hazards 2, 4, 11, 22) and the
//! log-matching property; Jepsen's *inconsistent offsets*.
//!
//! Looks at: every record read, every acks=all acknowledgement with an offset, and at the end the replicas' records.
//! Key, headers and value are compared by checksum between readers.
//!
//! Sound, because an offset acknowledged with acks=leader or none says nothing (such a record may vanish and its offset
//! be given again), and because after an unclean election a new history begins: reads of batches with an older leader
//! epoch, and acknowledgements of sends begun before it settled, are not compared.

use super::ledger::{Part, Shared};
use super::{Check, Invariant, Observation, named};
use crate::history::{Acks, Attempt, Event, Outcome, Session, Tp, What};
use crate::workload::produce::attempt_of;

named!("I2-one-value");

pub struct OneValue {
    ledger: Shared,
}

impl OneValue {
    pub fn new(ledger: Shared) -> Self {
        OneValue { ledger }
    }

    fn compare(&self, tp: &Tp, offset: i64, who: &str, attempt: Attempt, checksum: Option<u32>) -> Check {
        let ledger = self.ledger.borrow();
        let Some(sight) = ledger.part(tp).and_then(|part| part.sights.get(&offset)) else { return Ok(()) };
        let differs = matches!((checksum, sight.checksum), (Some(now), Some(then)) if now != then);
        if attempt == sight.attempt && !differs {
            return Ok(());
        }
        violated(format!(
            "{tp} offset {offset}: {who} has {attempt:?} (checksum {checksum:x?}), but {:?} saw {:?} (checksum {:x?}, \
             leader epoch {:?}) at {}",
            sight.by, sight.attempt, sight.checksum, sight.leader_epoch, sight.at
        ))
    }

    fn read(&self, session: Session, tp: &Tp, offset: i64, leader_epoch: i32, read: (Attempt, u32)) -> Check {
        let comparable = |part: &Part| {
            part.unclean.epoch == 0 || (!part.unclean.unsettled && leader_epoch >= part.unclean.epoch)
        };
        if !self.ledger.borrow().part(tp).is_some_and(comparable) {
            return Ok(());
        }
        self.compare(
            tp,
            offset,
            &format!("{session:?}, reading it in leader epoch {leader_epoch},"),
            read.0,
            Some(read.1),
        )
    }

    fn acknowledged(&self, attempt: Attempt, offset: i64) -> Check {
        let tp = {
            let ledger = self.ledger.borrow();
            let Some(sent) = ledger.attempts.get(&attempt).filter(|sent| sent.acks == Acks::All) else {
                return Ok(());
            };
            let part = ledger.part(&sent.tp);
            if !part.is_some_and(|part| part.counts(sent.begun)) {
                return Ok(());
            }
            sent.tp.clone()
        };
        self.compare(&tp, offset, "an acknowledgement", attempt, None)
    }
}

impl Invariant for OneValue {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::Read { session, tp, offset, leader_epoch, attempt: Some(attempt), checksum } => {
                self.read(*session, tp, *offset, *leader_epoch, (*attempt, *checksum))
            }
            What::Sent { attempt, outcome: Outcome::Acknowledged(Some(offset)), .. } => {
                self.acknowledged(*attempt, *offset)
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for (tp, finals) in &ledger.finals {
            for (node, log) in finals {
                let Ok((_, batches)) = log else { continue };
                let values = batches.iter().filter_map(|batch| batch.values.as_ref()).flatten();
                for (offset, value) in values {
                    if let Some(attempt) = attempt_of(value) {
                        self.compare(tp, *offset, &format!("node {node}, at the end,"), attempt, None)?;
                    }
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
    use crate::workload::produce::value_of;

    fn bench() -> Bench {
        let mut bench = Bench::new(|ledger| Box::new(OneValue::new(ledger)));
        for attempt in 1..4 {
            bench.send(attempt).unwrap();
        }
        bench.send_as(WRITER, 9, Acks::Leader, false).unwrap();
        bench
    }

    #[test]
    fn everybody_sees_the_same() {
        let mut bench = bench();
        bench.acked(1, 0).unwrap();
        bench.read(0, 1).unwrap();
        bench.read_as(WRITER, 0, 1, Some(1), 1).unwrap();
        bench.log(1, made::batch(0, 1, (-1, -1, -1), &[&value_of(Attempt(1), 20)]));
        bench.finish().unwrap();
    }

    #[test]
    fn two_attempts_at_one_offset() {
        let mut bench = bench();
        bench.acked(1, 0).unwrap();
        broken(bench.read(0, 2), "saw Attempt(1)");
        bench.read(1, 3).unwrap();
        broken(bench.acked(2, 1), "saw Attempt(3)");
        bench.log(3, made::batch(0, 1, (-1, -1, -1), &[&value_of(Attempt(2), 20)]));
        broken(bench.finish(), "node 3, at the end, has Attempt(2)");
    }

    #[test]
    fn one_attempt_with_other_bytes() {
        let mut bench = bench();
        bench.read_as(READER, 0, 1, Some(1), 5).unwrap();
        broken(bench.read_as(WRITER, 0, 1, Some(1), 6), "checksum Some(6)");
    }

    #[test]
    fn an_offset_of_acks_leader_may_be_given_again() {
        let mut bench = bench();
        bench.acked(9, 0).unwrap();
        bench.read(0, 2).unwrap();
        bench.acked(2, 0).unwrap();
    }

    #[test]
    fn an_unclean_election_begins_again_once_the_old_leader_is_gone() {
        let mut bench = bench();
        bench.acked(1, 0).unwrap();
        // Node 1 still leads epoch 1.
        bench.agree(|agreed| {
            (agreed.leader, agreed.leader_epoch, agreed.unclean_epoch) = (Some(2), 2, 2);
            agreed.isr = [2].into();
        });
        bench.lead(2, 2);
        bench.step().unwrap();
        bench.read_as(READER, 0, 2, Some(2), 2).unwrap();
        bench.read_as(READER, 0, 1, Some(1), 1).unwrap();
        bench.elect(2, 2);
        bench.step().unwrap();
        bench.acked(3, 1).unwrap();
        bench.read_as(READER, 0, 2, Some(2), 2).unwrap();
        broken(bench.read_as(WRITER, 0, 2, Some(3), 3), "saw Attempt(2)");
    }
}
