//! I5: no consumer sees an offset at or above the true high watermark. From HAZARDS.md (hazards 4, 9, 10) and KIP-207.
//!
//! Looks at: records read, latest offsets told, and the high watermark of every leader that runs, against
//! [`super::ledger`]'s ceiling: the best that the flushed ends of the agreed ISR have ever allowed.
//!
//! Sound, because the ceiling is never below what a correct leader may show (see there), and nodes are observed before
//! clients' events of the same step. After an unclean election what older leaders show, and what was asked before
//! they were gone, is not judged.

use super::ledger::{Part, Shared, When};
use super::{Check, Invariant, Observation, named};
use crate::history::{Event, Tp, What};
use crate::observe::Role;

named!("I5-visibility");

pub struct Visibility {
    ledger: Shared,
}

impl Visibility {
    pub fn new(ledger: Shared) -> Self {
        Visibility { ledger }
    }

    fn below(&self, tp: &Tp, end: i64, judged: impl Fn(&Part) -> bool, who: &str) -> Check {
        let ledger = self.ledger.borrow();
        let Some(part) = ledger.part(tp).filter(|part| end > part.ceiling && judged(part)) else {
            return Ok(());
        };
        violated(format!(
            "{who} {tp} up to {end}, but the high watermark was never above {}; {}",
            part.ceiling,
            part.ends()
        ))
    }
}

impl Invariant for Visibility {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::Read { session, tp, offset, leader_epoch, .. } => {
                let judged = |part: &Part| *leader_epoch >= part.unclean.epoch;
                self.below(tp, offset + 1, judged, &format!("{session:?} was given records of"))
            }
            What::EndRead { session, tp, latest: true, offset, asked_us } => {
                let judged = |part: &Part| part.counts(When { us: *asked_us, seq: 0 });
                self.below(tp, *offset, judged, &format!("{session:?} was told that it can read"))
            }
            _ => Ok(()),
        }
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for tp in &ledger.touched {
            for (node, seen) in ledger.parts[tp].live() {
                if let Role::Leader { epoch } = seen.view.role {
                    let judged = |part: &Part| epoch >= part.unclean.epoch;
                    let who = format_args!("node {node}, leader in epoch {epoch}, shows");
                    if seen.view.high_watermark > ledger.parts[tp].ceiling {
                        self.below(tp, seen.view.high_watermark, judged, &who.to_string())?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, READER, broken};
    use super::*;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(Visibility::new(ledger)))
    }

    #[test]
    fn what_the_isr_has_flushed_may_be_seen() {
        let mut bench = bench();
        bench.commit_to(3);
        bench.read(2, 1).unwrap();
        bench.end_read(READER, true, 3).unwrap();
        // A member that restarts, or is damaged after its acknowledgement, takes nothing back.
        bench.nodes.remove(&3);
        bench.ends(&[(1, 4), (2, 4)]);
        bench.step().unwrap();
        bench.read(2, 1).unwrap();
        broken(bench.read(3, 2), "never above 3");
    }

    #[test]
    fn a_record_or_an_end_above_what_the_isr_has_flushed() {
        let mut bench = bench();
        bench.commit_to(3);
        bench.ends(&[(1, 5), (2, 5)]);
        bench.step().unwrap();
        broken(bench.read(3, 1), "Session(100) was given records of t-0 up to 4");
        broken(bench.end_read(READER, true, 4), "told that it can read");
        bench.end_read(READER, false, 0).unwrap();
    }

    #[test]
    fn a_leader_that_shows_too_much() {
        let mut bench = bench();
        bench.commit_to(3);
        bench.ends(&[(1, 5), (2, 5)]);
        bench.replica(1).high_watermark = 5;
        broken(bench.step(), "node 1, leader in epoch 1, shows t-0 up to 5");
    }

    #[test]
    fn fewer_members_allow_more() {
        let mut bench = bench();
        bench.ends(&[(1, 5), (2, 5)]);
        bench.agree(|agreed| agreed.isr = [1, 2].into());
        bench.replica(1).high_watermark = 5;
        bench.step().unwrap();
        bench.read(4, 1).unwrap();
    }

    #[test]
    fn without_a_leader_what_all_eligible_replicas_hold_may_be_seen() {
        let mut bench = bench();
        bench.commit_to(3);
        bench.ends(&[(1, 5), (2, 4)]);
        bench.agree(|agreed| (agreed.isr, agreed.elr, agreed.leader) = ([].into(), [1, 2].into(), None));
        bench.replica(1).high_watermark = 4;
        bench.step().unwrap();
        bench.replica(1).high_watermark = 5;
        broken(bench.step(), "node 1, leader in epoch 1, shows t-0 up to 5");
    }

    #[test]
    fn a_leader_from_before_an_unclean_election_is_not_judged() {
        let mut bench = bench();
        bench.ends(&[(1, 5)]);
        bench.agree(|agreed| {
            (agreed.leader, agreed.leader_epoch, agreed.unclean_epoch) = (Some(2), 2, 2);
            agreed.isr = [2].into();
        });
        bench.replica(1).high_watermark = 5;
        bench.step().unwrap();
        bench.read_as(READER, 4, 1, Some(1), 1).unwrap();
        bench.lead(2, 2);
        bench.replica(2).high_watermark = 1;
        broken(bench.step(), "leader in epoch 2");
    }
}
