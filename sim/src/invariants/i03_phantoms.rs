//! I3: each value read maps to a known attempt; a definitely failed attempt is never read. (That an unknown one is
//! read at most once where the producer is idempotent is I6's.) From HAZARDS.md (hazard 34); Jepsen's *aborted read*.
//!
//! Looks at: every record read, in both orders with its attempt's end.
//!
//! Sound, because *failed* in the history means that the SDK said the record is not in the log and never will be
//! (`may_have_happened` is false); everything less certain is unknown, and a client that dies leaves its attempts
//! open.

use super::ledger::Shared;
use super::{Check, Invariant, named};
use crate::history::{Attempt, Event, Outcome, Session, Tp, What};

named!("I3-phantoms");

pub struct Phantoms {
    ledger: Shared,
}

impl Phantoms {
    pub fn new(ledger: Shared) -> Self {
        Phantoms { ledger }
    }

    fn read(&self, session: Session, tp: &Tp, offset: i64, attempt: Option<Attempt>) -> Check {
        let place = format!("{session:?} read {tp} offset {offset}");
        let Some(attempt) = attempt else { return violated(format!("{place}: a value that nobody sent")) };
        let ledger = self.ledger.borrow();
        match ledger.attempts.get(&attempt) {
            None => violated(format!("{place}: {attempt:?}, which nobody has made")),
            Some(sent) if sent.tp != *tp => {
                violated(format!("{place}: {attempt:?}, which was sent to {}", sent.tp))
            }
            Some(sent) => match &sent.ended {
                Some((at, Outcome::Failed(why))) => violated(format!(
                    "{place}: {attempt:?} of {:?}, sent at {}, which failed for good at {at}: {why}",
                    sent.session, sent.begun
                )),
                _ => Ok(()),
            },
        }
    }
}

impl Invariant for Phantoms {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::Read { session, tp, offset, attempt, .. } => self.read(*session, tp, *offset, *attempt),
            What::Sent { attempt, outcome: Outcome::Failed(why), .. } => {
                let ledger = self.ledger.borrow();
                let sent = ledger.attempts.get(attempt);
                match sent.and_then(|sent| Some((&sent.tp, sent.seen_at?))) {
                    Some((tp, (offset, _))) => violated(format!(
                        "{attempt:?} is said to have failed ({why}), but was read before at {tp} offset {offset}"
                    )),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, READER, broken};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::new(|ledger| Box::new(Phantoms::new(ledger)));
        bench.send(1).unwrap();
        bench
    }

    #[test]
    fn open_unknown_and_acknowledged_attempts_may_be_read() {
        let mut bench = bench();
        bench.read(0, 1).unwrap();
        bench.sent(1, Outcome::Unknown("no answer".to_owned())).unwrap();
        bench.read(0, 1).unwrap();
        bench.send(2).unwrap();
        bench.acked(2, 1).unwrap();
        bench.read(1, 2).unwrap();
    }

    #[test]
    fn a_failed_attempt_that_is_read_after_or_before() {
        let mut bench = bench();
        bench.failed(1).unwrap();
        broken(bench.read(0, 1), "failed for good");
        bench.send(2).unwrap();
        bench.read(1, 2).unwrap();
        broken(bench.failed(2), "was read before at t-0 offset 1");
    }

    #[test]
    fn values_of_nobody_or_of_another_partition() {
        let mut bench = bench();
        broken(bench.read_as(READER, 0, 1, None, 0), "nobody sent");
        broken(bench.read(0, 5), "nobody has made");
        let (tp, attempt) = (Tp::new("t", 3), Some(Attempt(1)));
        let what = What::Read { session: READER, tp, offset: 0, leader_epoch: 1, attempt, checksum: 0 };
        broken(bench.happen(what), "was sent to t-0");
    }
}
