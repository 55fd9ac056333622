//! I16: reported epoch and high watermark never decrease within a client session. From HAZARDS.md (hazards 9, 26),
//! KIP-207, KIP-320.
//!
//! Looks at: the latest offsets that a session is told, where it had the answer to one before it asked for the next;
//! the leader epochs of records that it reads one after the other.
//!
//! Sound, because a client never goes back to an older leader epoch, and a new leader answers only when its high
//! watermark has passed where its epoch began. Between sessions nothing is asked: a leader that does not know that it
//! is deposed may tell a new client an older end. An unclean election begins anew, and so does a seek for epochs. The
//! earliest offset may go back: a follower hears of a deletion later.

use super::ledger::Shared;
use super::{Check, Invariant, named};
use crate::history::{Event, Session, Tp, What};
use std::collections::BTreeMap;

named!("I16-client-view");

pub struct ClientView {
    ledger: Shared,
    /// The largest end told so far: when, and what.
    ends: BTreeMap<(Session, Tp), Vec<(u64, i64)>>,
    /// Offset and leader epoch of the last record.
    epochs: BTreeMap<(Session, Tp), (i64, i32)>,
}

impl ClientView {
    pub fn new(ledger: Shared) -> Self {
        ClientView { ledger, ends: BTreeMap::new(), epochs: BTreeMap::new() }
    }
}

impl Invariant for ClientView {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::EndRead { session, tp, latest: true, offset, asked_us } => {
                if self.ledger.borrow().part(tp).is_some_and(|part| part.unclean.epoch > 0) {
                    return Ok(());
                }
                let told = self.ends.entry((*session, tp.clone())).or_default();
                let before = told.partition_point(|(at_us, _)| at_us < asked_us);
                if let Some((at_us, largest)) = before.checked_sub(1).map(|last| told[last])
                    && *offset < largest
                {
                    return violated(format!(
                        "{session:?} was told at {at_us} µs that {tp} ends at {largest}; it asked again at {asked_us} µs \
                         and was told {offset}"
                    ));
                }
                if told.last().is_none_or(|(_, largest)| largest < offset) {
                    told.push((event.at_us, *offset));
                }
                Ok(())
            }
            What::Read { session, tp, offset, leader_epoch, .. } => {
                let before = self.epochs.insert((*session, tp.clone()), (*offset, *leader_epoch));
                match before.filter(|(last, epoch)| last + 1 == *offset && epoch > leader_epoch) {
                    Some((last, epoch)) => violated(format!(
                        "{session:?} read {tp} offset {last} of leader epoch {epoch}, then {offset} of {leader_epoch}"
                    )),
                    None => Ok(()),
                }
            }
            What::Truncated { session, tp, .. } => {
                self.epochs.remove(&(*session, tp.clone()));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, READER, WRITER, broken, tp};
    use super::*;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(ClientView::new(ledger)))
    }

    #[test]
    fn ends_grow_and_sessions_are_apart() {
        let mut bench = bench();
        bench.end_read(READER, true, 5).unwrap();
        bench.end_read(WRITER, true, 3).unwrap();
        bench.step().unwrap();
        bench.end_read(READER, true, 5).unwrap();
        bench.end_read(READER, false, 2).unwrap();
        // Asked before the first answer came.
        let what = What::EndRead { session: READER, tp: tp(), latest: true, offset: 4, asked_us: 0 };
        bench.happen(what).unwrap();
    }

    #[test]
    fn an_end_that_goes_back() {
        let mut bench = bench();
        bench.end_read(READER, true, 5).unwrap();
        bench.step().unwrap();
        broken(bench.end_read(READER, true, 4), "ends at 5");
    }

    #[test]
    fn epochs_along_the_log() {
        let mut bench = bench();
        bench.read_as(READER, 0, 2, Some(1), 1).unwrap();
        bench.read_as(READER, 1, 2, Some(2), 1).unwrap();
        bench.read_as(READER, 0, 1, Some(1), 1).unwrap();
        bench.read_as(READER, 1, 3, Some(2), 1).unwrap();
        broken(bench.read_as(READER, 2, 2, Some(3), 1), "offset 1 of leader epoch 3, then 2 of 2");
    }
}
