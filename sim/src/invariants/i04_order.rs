//! I4: non-overlapping acknowledged sends get increasing offsets, and so do the sends of one idempotent producer; a
//! consumer's records of one partition come without a gap and without an inversion. From HAZARDS.md (hazards 9, 12,
//! 41); Jepsen's *poll skip*, *nonmonotonic poll*, *nonmonotonic send* and the int- variants of these, which are the
//! same here: every record is looked at, whether it came in one poll or in two.
//!
//! Looks at: acknowledgements with acks=all and the order of sends; positions and records of each session.
//!
//! Sound, because acks=leader is left out (a deposed leader goes on giving offsets until it hears of it); offsets are
//! dense, as there is neither compaction nor are there transactions yet; a gap is allowed up to what may have been
//! deleted (a group member with `auto.offset.reset` goes on at the log start by itself); an assignment, a seek, and
//! being told that a place is gone begin anew; and an unclean election forgets both.

use super::ledger::{Shared, When};
use super::{Check, Invariant, named};
use crate::history::{Acks, Attempt, Event, Outcome, Session, Tp, What};
use std::collections::BTreeMap;

named!("I4-order");

/// The acknowledged sends of one partition.
#[derive(Debug, Default)]
struct Sends {
    /// Of which history: the epoch of the last unclean election.
    history: i32,
    /// When the largest offset so far was acknowledged. Both increase.
    largest: Vec<(When, i64, Attempt)>,
    /// Of idempotent producers, in the order of sending.
    by_session: BTreeMap<(Session, When), (i64, Attempt)>,
}

pub struct Order {
    ledger: Shared,
    sends: BTreeMap<Tp, Sends>,
    /// Where each session's next record must be.
    next: BTreeMap<(Session, Tp), i64>,
}

impl Order {
    pub fn new(ledger: Shared) -> Self {
        Order { ledger, sends: BTreeMap::new(), next: BTreeMap::new() }
    }

    fn acknowledged(&mut self, attempt: Attempt, offset: i64) -> Check {
        let ledger = self.ledger.borrow();
        let now = ledger.now;
        let Some(sent) = ledger.attempts.get(&attempt).filter(|sent| sent.acks == Acks::All) else {
            return Ok(());
        };
        let Some(part) = ledger.part(&sent.tp).filter(|part| part.counts(sent.begun)) else { return Ok(()) };
        let sends = self.sends.entry(sent.tp.clone()).or_default();
        if sends.history != part.unclean.epoch {
            *sends = Sends { history: part.unclean.epoch, ..Sends::default() };
        }
        let before = sends.largest.partition_point(|(acknowledged, ..)| *acknowledged < sent.begun);
        if let Some((at, largest, other)) = before.checked_sub(1).map(|last| sends.largest[last])
            && largest >= offset
        {
            return violated(format!(
                "{other:?} had been acknowledged at {} offset {largest} at {at}, when {attempt:?} was sent at {}; \
                 that one got offset {offset}",
                sent.tp, sent.begun
            ));
        }
        if sends.largest.last().is_none_or(|(_, largest, _)| *largest < offset) {
            sends.largest.push((now, offset, attempt));
        }
        if !sent.idempotent {
            return Ok(());
        }
        let me = (sent.session, sent.begun);
        let earlier = sends.by_session.range(..me).next_back();
        let later = sends.by_session.range(me..).next();
        for ((session, begun), (other, sibling)) in earlier.into_iter().chain(later) {
            if *session == sent.session && (*begun < sent.begun) != (*other < offset) {
                return violated(format!(
                    "{session:?} sent {sibling:?} at {begun} and {attempt:?} at {}, to {}; they were acknowledged at \
                     offsets {other} and {offset}",
                    sent.begun, sent.tp
                ));
            }
        }
        sends.by_session.insert(me, (offset, attempt));
        Ok(())
    }

    fn read(&mut self, session: Session, tp: &Tp, offset: i64) -> Check {
        let expected = self.next.insert((session, tp.clone()), offset + 1);
        let Some(expected) = expected else { return Ok(()) };
        if offset < expected {
            return violated(format!(
                "{session:?} had come to {tp} offset {expected} and was then given {offset}"
            ));
        }
        let ledger = self.ledger.borrow();
        let Some(part) = ledger.part(tp) else { return Ok(()) };
        if offset == expected || offset <= part.may_start {
            return Ok(());
        }
        let skipped: Vec<_> = part.sights.range(expected..offset).take(5).collect();
        let skipped = match skipped.is_empty() {
            true => "nobody is known to have seen what lies between".to_owned(),
            false => format!("between lie {skipped:?}"),
        };
        violated(format!(
            "{session:?} had come to {tp} offset {expected} and was then given {offset}; {skipped}; deleted may be \
             what is below {}",
            part.may_start
        ))
    }

    fn begin_anew(&mut self, session: Session, partitions: &[Tp]) {
        for tp in partitions {
            self.next.remove(&(session, tp.clone()));
        }
    }
}

impl Invariant for Order {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::Sent { attempt, outcome: Outcome::Acknowledged(Some(offset)), .. } => {
                return self.acknowledged(*attempt, *offset);
            }
            What::Read { session, tp, offset, .. } => return self.read(*session, tp, *offset),
            What::Position { session, tp, offset } => {
                self.next.insert((*session, tp.clone()), *offset);
            }
            What::OutOfRange { session, tp, .. } | What::Truncated { session, tp, .. } => {
                self.begin_anew(*session, std::slice::from_ref(tp));
            }
            What::Assigned { session, partitions, .. }
            | What::Revoked { session, partitions, .. }
            | What::Lost { session, partitions, .. } => self.begin_anew(*session, partitions),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, READER, WRITER, broken, tp};
    use super::*;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(Order::new(ledger)))
    }

    #[test]
    fn sends_that_overlap_may_get_offsets_in_any_order_from_different_producers() {
        let mut bench = bench();
        bench.send_as(Session(1), 1, Acks::All, true).unwrap();
        bench.send_as(Session(2), 2, Acks::All, true).unwrap();
        bench.acked(2, 0).unwrap();
        bench.acked(1, 1).unwrap();
        bench.send(3).unwrap();
        bench.acked(3, 2).unwrap();
    }

    #[test]
    fn a_send_after_an_acknowledgement_gets_a_larger_offset() {
        let mut bench = bench();
        bench.send_as(Session(1), 1, Acks::All, false).unwrap();
        bench.acked(1, 5).unwrap();
        bench.send_as(Session(2), 2, Acks::All, false).unwrap();
        broken(bench.acked(2, 4), "that one got offset 4");
        bench.send_as(Session(2), 3, Acks::Leader, false).unwrap();
        bench.acked(3, 3).unwrap();
    }

    #[test]
    fn sends_of_one_idempotent_producer_stay_in_order() {
        for (idempotent, wrong) in [(true, true), (false, false)] {
            let mut bench = bench();
            bench.send_as(WRITER, 1, Acks::All, idempotent).unwrap();
            bench.send_as(WRITER, 2, Acks::All, idempotent).unwrap();
            bench.acked(2, 0).unwrap();
            let check = bench.acked(1, 1);
            assert_eq!(check.is_err(), wrong, "{check:?}");
        }
    }

    #[test]
    fn polls_without_gap_or_inversion() {
        let mut bench = bench();
        bench.position(READER, 3).unwrap();
        bench.read(3, 1).unwrap();
        bench.read(4, 2).unwrap();
        broken(bench.read(4, 2), "had come to t-0 offset 5 and was then given 4");
        broken(bench.read(6, 3), "had come to t-0 offset 5 and was then given 6");
        bench.position(READER, 3).unwrap();
        broken(bench.read(5, 7), "Attempt(1)");
        bench.happen(What::Revoked { session: READER, group: "g".into(), partitions: vec![tp()] }).unwrap();
        bench.read(9, 5).unwrap();
    }

    #[test]
    fn deleted_records_may_be_passed_over() {
        let mut bench = bench();
        bench.position(READER, 0).unwrap();
        let before = 5;
        bench.happen(What::DeleteRecords { session: WRITER, delete: 1, tp: tp(), before }).unwrap();
        bench.read(5, 1).unwrap();
        bench.position(READER, 0).unwrap();
        broken(bench.read(6, 2), "deleted may be what is below 5");
    }
}
