//! I1: a record acknowledged with acks=all is returned by every later successful read of its offset, byte for byte,
//! unless declared retention or deletion has raised the log start past it. From HAZARDS.md (hazards 1, 2, 4–8, 13, 15,
//! 24, 35, 37); Jepsen's *lost write* and *unseen*.
//!
//! Looks at: acknowledgements (at that moment the record must be flushed on the whole agreed ISR, and have been on
//! `min.insync.replicas` disks); log starts that rise although nobody deleted; consumers told that what they have read
//! is out of range or truncated; at the end, what the last reader was given, and the bytes of every replica.
//!
//! Sound, because: only acks=all with an offset counts, in any flush mode (a tail lost with the power takes its replica
//! out of ISR and ELR, so that the partition waits rather than forget); an unclean election voids what was promised
//! before it settled ([`super::ledger`]); a deletion counts from when it was asked for, whatever came of it; a topic
//! with retention may raise its log start as it likes; a client that comes anew may meet a leader that does not know it
//! is one no more, so only one that has read the offset before it may complain of its range (a client never goes back
//! to an older leader epoch).

use super::ledger::{Part, Shared, When};
use super::{Check, Invariant, Observation, named};
use crate::history::{Acks, Attempt, Event, Outcome, Session, Tp, What};
use crate::workload::produce::attempt_of;
use std::collections::BTreeMap;

named!("I1-durability");

/// A session that asks for both ends of a partition and then reads all between them.
#[derive(Debug, Default)]
struct Whole {
    asked: Option<When>,
    start: Option<i64>,
    end: Option<i64>,
    read: BTreeMap<i64, Option<Attempt>>,
}

pub struct Durability {
    ledger: Shared,
    /// Next offsets of sessions that have read the one before.
    read_to: BTreeMap<(Session, Tp), i64>,
    wholes: BTreeMap<(Tp, Session), Whole>,
}

impl Durability {
    pub fn new(ledger: Shared) -> Self {
        Durability { ledger, read_to: BTreeMap::new(), wholes: BTreeMap::new() }
    }

    fn acknowledged(&self, attempt: Attempt, offset: i64) -> Check {
        let ledger = self.ledger.borrow();
        let Some(sent) = ledger.attempts.get(&attempt) else { return Ok(()) };
        let Some(part) = ledger.part(&sent.tp) else { return Ok(()) };
        // A promise that the ledger did not take down is none.
        if sent.acks != Acks::All || part.promised.get(&offset) != Some(&attempt) {
            return Ok(());
        }
        let tp = &sent.tp;
        if offset >= part.ceiling {
            return violated(format!(
                "{attempt:?} was acknowledged at {tp} offset {offset}, but at best everything below {} is on the \
                 disks of the agreed ISR; {}",
                part.ceiling,
                part.ends()
            ));
        }
        let (Some(facts), Some(agreed)) = (part.facts, &part.agreed) else { return Ok(()) };
        let needed = facts.min_insync.min(facts.replication).min(agreed.replicas.len());
        let holders = part.replicas.values().filter(|seen| seen.most > offset || !seen.live).count();
        if holders < needed {
            return violated(format!(
                "{attempt:?} was acknowledged at {tp} offset {offset}, which was ever on {holders} disks of {needed} \
                 needed; {}",
                part.ends()
            ));
        }
        Ok(())
    }

    fn out_of_range(&self, session: Session, tp: &Tp, position: i64, log_start: i64) -> Check {
        let ledger = self.ledger.borrow();
        let Some(part) = ledger.part(tp).filter(|part| part.unclean.epoch == 0) else { return Ok(()) };
        if position < log_start {
            return raised(tp, part, log_start, &format!("{session:?} at offset {position} was told"));
        }
        match self.read_to.get(&(session, tp.clone())) {
            Some(read) if *read == position => violated(format!(
                "{session:?} has read {tp} up to offset {}, and was told that {position} is out of range (log start \
                 {log_start}): what it had read is gone",
                position - 1
            )),
            _ => Ok(()),
        }
    }

    fn read_back(&self, tp: &Tp, part: &Part) -> Check {
        let of_tp = self.wholes.range((tp.clone(), Session(0))..=(tp.clone(), Session(u64::MAX)));
        let mut complete = of_tp.filter_map(|((_, session), whole)| {
            let (asked, start, end) = (whole.asked?, whole.start?, whole.end?);
            (!whole.read.is_empty() || start >= end).then_some((*session, asked, start, end, &whole.read))
        });
        let Some((session, asked, start, end, read)) = complete.next_back() else { return Ok(()) };
        if part.unclean.epoch == 0 {
            raised(tp, part, start, &format!("{session:?}, the last reader, was told"))?;
        }
        let ledger = self.ledger.borrow();
        for (offset, attempt) in part.promised.range(start..) {
            let told = &ledger.attempts[attempt];
            let Some((acknowledged, _)) = told.ended.as_ref().filter(|(at, _)| *at < asked) else { continue };
            let now = match read.get(offset) {
                Some(Some(found)) if found == attempt => continue,
                Some(found) => format!("it holds {found:?}"),
                None if *offset >= end => format!("the log ends at {end}"),
                None => "there is nothing".to_owned(),
            };
            return violated(format!(
                "{attempt:?}, sent at {} and acknowledged at {acknowledged} at {tp} offset {offset}, is lost: when \
                 {session:?} read everything, {now}",
                told.begun
            ));
        }
        Ok(())
    }

    fn on_disks(&self, tp: &Tp, part: &Part) -> Check {
        let ledger = self.ledger.borrow();
        let Some(agreed) = &part.agreed else { return Ok(()) };
        for (node, log) in ledger.finals.get(tp).into_iter().flatten() {
            if !agreed.isr.contains(node) {
                continue;
            }
            // Logs that cannot be read are I17's.
            let Ok((_, batches)) = log else { continue };
            let mut batches = batches.iter().peekable();
            for (offset, attempt) in &part.promised {
                if part.may_be_gone(*offset) {
                    continue;
                }
                while batches.next_if(|batch| batch.last < *offset).is_some() {}
                let batch = batches.peek().filter(|batch| batch.base <= *offset);
                let values = batch.and_then(|batch| batch.values.as_ref());
                let found = values.map(|values| values.iter().find(|(at, _)| at == offset));
                let what = match (batch, found) {
                    (None, _) => "nothing there".to_owned(),
                    (Some(_), None) => continue,
                    (Some(_), Some(value)) => match value.and_then(|(_, value)| attempt_of(value)) {
                        Some(found) if found == *attempt => continue,
                        found => format!("{found:?} there"),
                    },
                };
                return violated(format!(
                    "{attempt:?}, acknowledged at {tp} offset {offset}: node {node}, in the ISR, has {what} at the end"
                ));
            }
        }
        Ok(())
    }
}

fn raised(tp: &Tp, part: &Part, log_start: i64, who: &str) -> Check {
    match log_start <= part.may_start {
        true => Ok(()),
        false => violated(format!(
            "{who} that {tp} starts at {log_start}, but nobody asked to delete anything at or above {}",
            part.may_start
        )),
    }
}

impl Invariant for Durability {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::Sent { attempt, outcome: Outcome::Acknowledged(Some(offset)), .. } => {
                self.acknowledged(*attempt, *offset)
            }
            What::Read { session, tp, offset, attempt, .. } => {
                self.read_to.insert((*session, tp.clone()), offset + 1);
                if let Some(whole) = self.wholes.get_mut(&(tp.clone(), *session)) {
                    whole.read.insert(*offset, *attempt);
                }
                Ok(())
            }
            What::EndRead { session, tp, latest, offset, .. } => {
                let whole = self.wholes.entry((tp.clone(), *session)).or_default();
                match latest {
                    true => (whole.end, whole.asked) = (Some(*offset), Some(self.ledger.borrow().now)),
                    false => whole.start = Some(*offset),
                }
                Ok(())
            }
            What::OutOfRange { session, tp, position, log_start } => {
                self.out_of_range(*session, tp, *position, *log_start)
            }
            What::Truncated { session, tp, position, end } => {
                let ledger = self.ledger.borrow();
                match ledger.part(tp).is_some_and(|part| part.unclean.epoch == 0) {
                    true => violated(format!(
                        "{session:?} at {tp} offset {position} was told that the log was truncated to {end}, and \
                         there was no unclean election"
                    )),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for tp in &ledger.touched {
            let part = &ledger.parts[tp];
            if part.facts.is_some() {
                for (node, seen) in part.live() {
                    raised(tp, part, seen.view.log_start, &format!("node {node} says"))?;
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for (tp, part) in &ledger.parts {
            self.read_back(tp, part)?;
            self.on_disks(tp, part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::made;
    use super::super::testkit::{Bench, READER, broken, facts, tp};
    use super::*;
    use crate::history::TopicFacts;
    use crate::workload::produce::value_of;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(Durability::new(ledger)))
    }

    fn acknowledge(bench: &mut Bench, attempt: u64, offset: i64) {
        bench.send(attempt).unwrap();
        bench.commit_to(offset + 1);
        bench.acked(attempt, offset).unwrap();
    }

    #[test]
    fn what_is_acknowledged_and_read_back_is_fine() {
        let mut bench = bench();
        acknowledge(&mut bench, 7, 0);
        bench.end_read(READER, true, 1).unwrap();
        bench.end_read(READER, false, 0).unwrap();
        bench.read(0, 7).unwrap();
        for node in 1..=3 {
            bench.log(node, made::batch(0, 1, (-1, -1, -1), &[&value_of(Attempt(7), 30)]));
        }
        bench.finish().unwrap();
    }

    #[test]
    fn an_acknowledgement_before_the_isr_has_flushed() {
        let mut bench = bench();
        bench.send(7).unwrap();
        bench.ends(&[(1, 1), (2, 1)]);
        bench.step().unwrap();
        broken(bench.acked(7, 0), "at best everything below 0");
    }

    #[test]
    fn a_replica_that_is_down_counts_with_what_it_had() {
        let mut bench = bench();
        bench.send(7).unwrap();
        bench.ends(&[(1, 1), (2, 1), (3, 1)]);
        bench.nodes.get_mut(&3).unwrap().replicas.get_mut(&tp()).unwrap().damaged = true;
        bench.ends(&[(3, 0)]);
        bench.step().unwrap();
        bench.replica(3).damaged = false;
        bench.ends(&[(3, 1)]);
        bench.step().unwrap();
        bench.nodes.remove(&3);
        bench.step().unwrap();
        bench.acked(7, 0).unwrap();
    }

    #[test]
    fn an_acknowledgement_with_too_few_copies() {
        let mut bench = bench();
        bench.agree(|agreed| agreed.isr = [1].into());
        bench.send(7).unwrap();
        bench.ends(&[(1, 1)]);
        bench.step().unwrap();
        broken(bench.acked(7, 0), "1 disks of 2 needed");
    }

    #[test]
    fn acks_leader_promises_nothing() {
        let mut bench = bench();
        bench.send_as(READER, 7, Acks::Leader, false).unwrap();
        bench.step().unwrap();
        bench.acked(7, 0).unwrap();
        bench.end_read(READER, true, 0).unwrap();
        bench.end_read(READER, false, 0).unwrap();
        bench.finish().unwrap();
    }

    #[test]
    fn a_record_that_the_last_reader_does_not_get() {
        for (end, reads, says) in [(1, vec![(0, 8)], "it holds"), (0, vec![], "ends at 0")] {
            let mut bench = bench();
            acknowledge(&mut bench, 7, 0);
            bench.send(8).unwrap();
            bench.end_read(READER, true, end).unwrap();
            bench.end_read(READER, false, 0).unwrap();
            for (offset, attempt) in reads {
                bench.read(offset, attempt).unwrap();
            }
            broken(bench.finish(), says);
        }
    }

    #[test]
    fn a_record_missing_on_a_disk_of_the_isr() {
        let mut bench = bench();
        acknowledge(&mut bench, 7, 0);
        bench.log(1, made::batch(0, 1, (-1, -1, -1), &[&value_of(Attempt(7), 30)]));
        bench.log(2, made::batch(0, 1, (-1, -1, -1), &[&value_of(Attempt(8), 30)]));
        broken(bench.finish(), "node 2, in the ISR, has Some(Attempt(8)) there");
        bench.log(2, Vec::new());
        broken(bench.finish(), "node 2, in the ISR, has nothing there");
    }

    #[test]
    fn a_log_start_rises_only_where_somebody_deletes() {
        let mut bench = bench();
        acknowledge(&mut bench, 7, 0);
        let what = What::DeleteRecords { session: READER, delete: 1, tp: tp(), before: 1 };
        bench.happen(what).unwrap();
        bench.replica(1).log_start = 1;
        bench.step().unwrap();
        bench.happen(What::OutOfRange { session: READER, tp: tp(), position: 0, log_start: 1 }).unwrap();
        bench.commit_to(3);
        bench.replica(2).log_start = 2;
        broken(bench.step(), "node 2 says that t-0 starts at 2");
        let told = What::OutOfRange { session: READER, tp: tp(), position: 0, log_start: 2 };
        broken(bench.happen(told), "starts at 2");
        let retention = TopicFacts { retention: true, ..facts() };
        let mut bench = Bench::of(retention, |ledger| Box::new(Durability::new(ledger)));
        bench.commit_to(3);
        bench.replica(2).log_start = 2;
        bench.step().unwrap();
    }

    #[test]
    fn what_was_read_is_not_out_of_range_later() {
        let mut bench = bench();
        acknowledge(&mut bench, 7, 0);
        let told = What::OutOfRange { session: READER, tp: tp(), position: 1, log_start: 0 };
        bench.happen(told.clone()).unwrap();
        bench.read(0, 7).unwrap();
        broken(bench.happen(told), "what it had read is gone");
    }

    #[test]
    fn truncation_needs_an_unclean_election_which_voids_what_was_promised() {
        let truncated = What::Truncated { session: READER, tp: tp(), position: 5, end: 3 };
        let mut bench = bench();
        broken(bench.happen(truncated.clone()), "no unclean election");
        acknowledge(&mut bench, 7, 0);
        bench.elect(2, 2);
        bench.agree(|agreed| (agreed.isr, agreed.unclean_epoch) = ([2].into(), 2));
        bench.ends(&[(1, 0), (2, 0), (3, 0)]);
        (1..=3).for_each(|node| bench.replica(node).high_watermark = 0);
        bench.step().unwrap();
        bench.happen(truncated).unwrap();
        bench.end_read(READER, true, 0).unwrap();
        bench.end_read(READER, false, 0).unwrap();
        bench.finish().unwrap();
    }
}
