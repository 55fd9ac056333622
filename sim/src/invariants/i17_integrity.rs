//! I17: no byte served or replicated fails its checksum; corruption on fewer than all replicas loses nothing (that is
//! I1's); on all, an explicit halt. From HAZARDS.md (hazards 35, 36), FAST'18 protocol-aware recovery.
//!
//! Looks at: what consumers say about bytes they were served; at the end, every replica's log: readable, checksums
//! right, offsets without a gap from its log start to its log end, leader epochs in order.
//!
//! Sound, because the network of a simulation does not change bytes, so bad ones came from a node. A replica that says
//! that it is damaged has halted explicitly and is not judged, also where it finds that out only now, reading its log
//! for the oracle: rot in what nobody reads stays unknown until the scrub comes by.

use super::batch::Batch;
use super::ledger::{Seen, Shared};
use super::{Check, Invariant, Observation, named};
use crate::history::{Event, Tp, What};
use crate::observe::Unread;

named!("I17-integrity");

pub struct Integrity {
    ledger: Shared,
}

impl Integrity {
    pub fn new(ledger: Shared) -> Self {
        Integrity { ledger }
    }
}

fn check_log(tp: &Tp, node: u64, seen: &Seen, batches: &[Batch]) -> Check {
    let mut next = None;
    let mut epoch = i32::MIN;
    for batch in batches {
        let broken = if !batch.is_intact() {
            format!("checksum {:08x} instead of {:08x}", batch.checksums.1, batch.checksums.0)
        } else if next.is_some_and(|next| next != batch.base) {
            format!("it follows offset {next:?} without continuing it")
        } else if batch.leader_epoch < epoch {
            format!("leader epoch {} after {epoch}", batch.leader_epoch)
        } else if i64::from(batch.count) != batch.last - batch.base + 1 {
            format!("{} records", batch.count)
        } else {
            (next, epoch) = (Some(batch.last + 1), batch.leader_epoch);
            continue;
        };
        return violated(format!("{tp} on node {node}, batch {} to {}: {broken}", batch.base, batch.last));
    }
    let (start, end) = (seen.view.log_start, seen.view.log_end);
    let first = batches.first().map_or(end, |batch| batch.base);
    if first > start || next.unwrap_or(end) != end {
        return violated(format!(
            "{tp} on node {node} says that it holds {start} to {end}, but its batches go from {first} to {next:?}"
        ));
    }
    Ok(())
}

impl Invariant for Integrity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::Corrupt { session, tp, why } => {
                violated(format!("{session:?} was served damaged bytes of {tp}: {why}"))
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _: &Observation<'_>) -> Check {
        let ledger = self.ledger.borrow();
        for (tp, finals) in &ledger.finals {
            for (node, log) in finals {
                let seen = ledger.part(tp).and_then(|part| part.replicas.get(node));
                let Some(seen) = seen.filter(|seen| seen.live && !seen.view.damaged) else { continue };
                match log {
                    Ok((_, batches)) => check_log(tp, *node, seen, batches)?,
                    Err(Unread::Damaged) => {}
                    Err(Unread::Failed(why)) => {
                        return violated(format!("{tp} on node {node} cannot be read: {why}"));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::made::batch;
    use super::super::testkit::{Bench, READER, broken, tp};
    use super::*;

    const NOBODY: (i64, i16, i32) = (-1, -1, -1);

    /// All three hold this, which goes from 0 to `end`.
    fn bench(log: &[u8], end: i64) -> Bench {
        let mut bench = Bench::new(|ledger| Box::new(Integrity::new(ledger)));
        bench.commit_to(end);
        (1..=3).for_each(|node| bench.log(node, log.to_vec()));
        bench
    }

    #[test]
    fn whole_logs() {
        let log = [batch(0, 1, NOBODY, &[b"a", b"b"]), batch(2, 3, NOBODY, &[b"c"])].concat();
        bench(&log, 3).finish().unwrap();
        let mut bench = bench(&log, 3);
        bench.replica(1).log_start = 1;
        bench.step().unwrap();
        bench.finish().unwrap();
    }

    #[test]
    fn logs_that_are_not_whole() {
        let mut changed = batch(0, 1, NOBODY, &[b"a"]);
        *changed.last_mut().unwrap() ^= 1;
        let gap = [batch(0, 1, NOBODY, &[b"a"]), batch(2, 1, NOBODY, &[b"c"])].concat();
        let epochs = [batch(0, 2, NOBODY, &[b"a"]), batch(1, 1, NOBODY, &[b"b"])].concat();
        let short = batch(0, 1, NOBODY, &[b"a"]);
        for (log, end, says) in [
            (changed, 1, "checksum"),
            (gap, 3, "without continuing it"),
            (epochs, 2, "leader epoch 1 after 2"),
            (short, 2, "says that it holds 0 to 2"),
            (vec![1, 2, 3], 1, "cannot be read: at byte 0"),
        ] {
            broken(bench(&log, end).finish(), says);
        }
    }

    #[test]
    fn a_replica_that_says_so_is_not_judged() {
        let mut bench = bench(&[1, 2, 3], 1);
        (1..=3).for_each(|node| bench.replica(node).damaged = true);
        bench.step().unwrap();
        bench.finish().unwrap();
    }

    #[test]
    fn damage_found_by_reading_is_an_explicit_halt_and_any_other_failure_is_not() {
        let mut bench = bench(&batch(0, 1, NOBODY, &[b"a"]), 1);
        bench.unread(2, Unread::Damaged);
        bench.finish().unwrap();
        bench.unread(3, Unread::Failed("no such file".to_owned()));
        broken(bench.finish(), "t-0 on node 3 cannot be read: no such file");
    }

    #[test]
    fn damaged_bytes_that_a_consumer_gets() {
        let mut bench = bench(&[], 0);
        let what = What::Corrupt { session: READER, tp: tp(), why: "checksum".to_owned() };
        broken(bench.happen(what), "was served damaged bytes of t-0");
    }
}
