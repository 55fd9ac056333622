//! I14: after an acknowledged commit, a fetch returns it or a later accepted one; accepted commits carry the current
//! generation. From HAZARDS.md (hazards 27, 28, 29).
//!
//! Looks at: commits and offset reads of clients; where a group member begins to read what it was assigned; and the
//! offsets in the newest agreed state, each change of which counts as a read of that moment. The agreed generation is
//! followed there as well.
//!
//! Sound, because each (group, partition) is judged as a register with overlapping writes: a value may be read if some
//! commit of it, that has not failed, was not certainly overwritten before the question was asked: that is, if no
//! other commit began after it had ended and was acknowledged before the question. A commit whose end is unknown never
//! ends, until it is the only one that explains what was read. A generation may have been the agreed one at any moment
//! between the beginning of the commit and its acknowledgement. A member may begin at the log start where there is no
//! commit, or where the log start has passed it.

use super::ledger::{Shared, When};
use super::{Check, Invariant, Observation, named};
use crate::history::{Event, Outcome, Session, Tp, What};
use std::collections::BTreeMap;
use std::sync::Arc;

named!("I14-offsets");

type Key = (Arc<str>, Tp);

#[derive(Clone, Debug)]
struct Commit {
    number: u64,
    session: Session,
    offset: i64,
    begun: When,
    /// By then it had taken effect.
    ended: Option<When>,
    acknowledged: bool,
}

/// A commit that has not ended.
#[derive(Clone, Debug)]
struct Open {
    group: Arc<str>,
    generation: Option<i32>,
    begun: When,
    partitions: Vec<Tp>,
}

/// The agreed generation of a group from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reign {
    since: When,
    generation: i32,
    empty: bool,
}

pub struct Offsets {
    ledger: Shared,
    commits: BTreeMap<Key, Vec<Commit>>,
    open: BTreeMap<u64, Open>,
    generations: BTreeMap<Arc<str>, Vec<Reign>>,
    agreed: BTreeMap<Key, i64>,
    /// Members that have read nothing yet of what they were assigned, and since when.
    begins: BTreeMap<(Session, Tp), (Arc<str>, When)>,
}

impl Offsets {
    pub fn new(ledger: Shared) -> Self {
        Offsets {
            ledger,
            commits: BTreeMap::new(),
            open: BTreeMap::new(),
            generations: BTreeMap::new(),
            agreed: BTreeMap::new(),
            begins: BTreeMap::new(),
        }
    }

    /// Whether a question asked then may be answered so now. If only one commit explains it, that one took effect.
    fn may_be_read(&mut self, key: &Key, value: Option<i64>, asked: When, now: When) -> bool {
        let Some(commits) = self.commits.get_mut(key) else { return value.is_none() };
        let settled = commits.iter().filter(|c| c.acknowledged && c.ended.is_some_and(|ended| ended < asked));
        let overwritten = settled.map(|commit| commit.begun).max();
        let Some(value) = value else { return overwritten.is_none() };
        let stale = |commit: &Commit| matches!((commit.ended, overwritten), (Some(e), Some(o)) if e < o);
        let mut explains = commits.iter_mut().filter(|commit| commit.offset == value && !stale(commit));
        let (first, second) = (explains.next(), explains.next());
        match (first, second) {
            (None, _) => false,
            (Some(commit), None) => {
                commit.ended = Some(commit.ended.map_or(now, |ended| ended.min(now)));
                true
            }
            (Some(_), Some(_)) => true,
        }
    }

    fn read(&mut self, key: &Key, value: Option<i64>, asked: When, who: &str) -> Check {
        let now = self.ledger.borrow().now;
        if self.may_be_read(key, value, asked, now) {
            return Ok(());
        }
        violated(format!(
            "{who} offset {value:?} of group {} for {}; {}",
            key.0,
            key.1,
            self.told(key, asked)
        ))
    }

    fn told(&self, key: &Key, asked: When) -> String {
        let commits = self.commits.get(key).map_or(&[][..], Vec::as_slice);
        let last = commits
            .iter()
            .rev()
            .filter(|c| c.acknowledged && c.ended.is_some_and(|ended| ended < asked))
            .take(3);
        let told = last.map(|c| {
            format!(
                "commit {} of {:?}: {}, begun {}, acknowledged {}",
                c.number,
                c.session,
                c.offset,
                c.begun,
                c.ended.unwrap_or_default()
            )
        });
        format!("acknowledged before that was asked at {asked}: {}", told.collect::<Vec<_>>().join("; "))
    }

    fn committed(&mut self, number: u64, outcome: &Outcome<()>) -> Check {
        let Some(Open { group, generation, begun, partitions }) = self.open.remove(&number) else {
            return Ok(());
        };
        let now = self.ledger.borrow().now;
        for tp in partitions {
            let commits = self.commits.entry((group.clone(), tp)).or_default();
            match outcome {
                Outcome::Failed(_) => commits.retain(|commit| commit.number != number),
                Outcome::Unknown(_) => {}
                Outcome::Acknowledged(()) => {
                    if let Some(commit) = commits.iter_mut().rev().find(|commit| commit.number == number) {
                        commit.acknowledged = true;
                        commit.ended = Some(commit.ended.map_or(now, |ended| ended.min(now)));
                    }
                }
            }
        }
        match outcome {
            Outcome::Acknowledged(()) => self.check_generation(&group, generation, begun, number),
            _ => Ok(()),
        }
    }

    fn check_generation(&self, group: &Arc<str>, generation: Option<i32>, begun: When, number: u64) -> Check {
        let reigns = self.generations.get(group).map_or(&[][..], Vec::as_slice);
        let before = reigns.partition_point(|reign| reign.since < begun);
        // Before it was first seen there was no group, which is as good as an empty one.
        let absent = Reign { since: When::default(), generation: -1, empty: true };
        let held = before.checked_sub(1).map_or(absent, |last| reigns[last]);
        let window = || std::iter::once(&held).chain(&reigns[before..]);
        let fits = match generation {
            None => window().any(|reign| reign.empty),
            Some(generation) => {
                window().any(|reign| reign.generation >= generation)
                    && window().any(|reign| reign.generation <= generation)
            }
        };
        match fits {
            true => Ok(()),
            false => violated(format!(
                "commit {number} of group {group}, begun at {begun} in generation {generation:?}, was accepted, but \
                 agreed was meanwhile {:?}",
                window().collect::<Vec<_>>()
            )),
        }
    }

    /// A group member reads its first record of what it was assigned.
    fn begin(&mut self, session: Session, tp: &Tp, offset: i64) -> Check {
        let Some((group, assigned)) = self.begins.remove(&(session, tp.clone())) else { return Ok(()) };
        let (now, may_start) = {
            let ledger = self.ledger.borrow();
            (ledger.now, ledger.part(tp).map_or(0, |part| part.may_start))
        };
        let key = (group, tp.clone());
        if self.may_be_read(&key, Some(offset), assigned, now)
            || (offset <= may_start && (offset > 0 || self.may_be_read(&key, None, assigned, now)))
        {
            return Ok(());
        }
        violated(format!(
            "{session:?}, a member of group {} that was assigned {tp} at {assigned}, begins to read at {offset}; {}",
            key.0,
            self.told(&key, assigned)
        ))
    }

    fn forget(&mut self, session: Session, partitions: &[Tp]) {
        for tp in partitions {
            self.begins.remove(&(session, tp.clone()));
        }
    }
}

impl Invariant for Offsets {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        let now = self.ledger.borrow().now;
        match &event.what {
            What::Commit { session, commit, group, generation, offsets } => {
                for (tp, offset) in offsets {
                    let made = Commit {
                        number: *commit,
                        session: *session,
                        offset: *offset,
                        begun: now,
                        ended: None,
                        acknowledged: false,
                    };
                    self.commits.entry((group.clone(), tp.clone())).or_default().push(made);
                }
                let partitions = offsets.keys().cloned().collect();
                let open = Open { group: group.clone(), generation: *generation, begun: now, partitions };
                self.open.insert(*commit, open);
                Ok(())
            }
            What::Committed { commit, outcome, .. } => self.committed(*commit, outcome),
            What::OffsetRead { session, group, tp, offset, asked_us } => {
                let asked = When { us: *asked_us, seq: 0 };
                self.read(&(group.clone(), tp.clone()), *offset, asked, &format!("{session:?} was told"))
            }
            What::Assigned { session, group, partitions, .. } => {
                for tp in partitions {
                    self.begins.insert((*session, tp.clone()), (group.clone(), now));
                }
                Ok(())
            }
            What::Read { session, tp, offset, .. } => self.begin(*session, tp, *offset),
            What::Position { session, tp, .. }
            | What::OutOfRange { session, tp, .. }
            | What::Truncated { session, tp, .. } => {
                self.forget(*session, std::slice::from_ref(tp));
                Ok(())
            }
            What::Revoked { session, partitions, .. } | What::Lost { session, partitions, .. } => {
                self.forget(*session, partitions);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let shared = self.ledger.clone();
        let ledger = shared.borrow();
        if !ledger.newer {
            return Ok(());
        }
        for (name, group) in &ledger.newest.groups {
            let reign =
                Reign { since: ledger.now, generation: group.generation, empty: group.members.is_empty() };
            let reigns = self.generations.entry(name.clone()).or_default();
            if reigns
                .last()
                .is_none_or(|last| (last.generation, last.empty) != (reign.generation, reign.empty))
            {
                reigns.push(reign);
            }
        }
        let moved: Vec<(Key, i64)> = ledger
            .newest
            .offsets
            .iter()
            .filter(|(key, offset)| self.agreed.get(key) != Some(offset))
            .map(|(key, offset)| (key.clone(), *offset))
            .collect();
        // What was acknowledged in this very step came after this.
        let asked = When { us: ledger.now.us, seq: 0 };
        let index = ledger.newest.index;
        drop(ledger);
        for (key, offset) in moved {
            self.read(&key, Some(offset), asked, &format!("the agreed state at index {index} has"))?;
            self.agreed.insert(key, offset);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, READER, WRITER, broken, tp};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::new(|ledger| Box::new(Offsets::new(ledger)));
        bench.put_group("g", 3, &[("m", b"")]);
        bench.step().unwrap();
        bench
    }

    fn commit(bench: &mut Bench, commit: u64, generation: Option<i32>, offset: i64) {
        let offsets = [(tp(), offset)].into();
        let what = What::Commit { session: WRITER, commit, group: "g".into(), generation, offsets };
        bench.happen(what).unwrap();
    }

    fn committed(bench: &mut Bench, commit: u64, outcome: Outcome<()>) -> Check {
        bench.step().unwrap();
        bench.happen(What::Committed { session: WRITER, commit, outcome })
    }

    fn accept(bench: &mut Bench, number: u64, offset: i64) {
        commit(bench, number, Some(3), offset);
        committed(bench, number, Outcome::Acknowledged(())).unwrap();
        bench.step().unwrap();
    }

    fn read(bench: &mut Bench, offset: Option<i64>) -> Check {
        let asked_us = bench.now_us;
        bench.happen(What::OffsetRead { session: READER, group: "g".into(), tp: tp(), offset, asked_us })
    }

    #[test]
    fn the_last_acknowledged_one_or_one_that_is_open() {
        let mut bench = bench();
        read(&mut bench, None).unwrap();
        accept(&mut bench, 1, 10);
        read(&mut bench, Some(10)).unwrap();
        accept(&mut bench, 2, 5);
        read(&mut bench, Some(5)).unwrap();
        commit(&mut bench, 3, Some(3), 20);
        committed(&mut bench, 3, Outcome::Unknown(String::new())).unwrap();
        read(&mut bench, Some(5)).unwrap();
        read(&mut bench, Some(20)).unwrap();
    }

    #[test]
    fn an_older_one_none_or_one_of_nobody() {
        let mut bench = bench();
        accept(&mut bench, 1, 10);
        accept(&mut bench, 2, 20);
        broken(read(&mut bench, Some(10)), "was told offset Some(10)");
        broken(read(&mut bench, None), "commit 2 of Session(200): 20");
        broken(read(&mut bench, Some(15)), "was told offset Some(15)");
    }

    #[test]
    fn an_unknown_one_that_was_read_does_not_come_back_after_a_later_one() {
        let mut bench = bench();
        commit(&mut bench, 1, Some(3), 10);
        committed(&mut bench, 1, Outcome::Unknown(String::new())).unwrap();
        read(&mut bench, Some(10)).unwrap();
        accept(&mut bench, 2, 20);
        broken(read(&mut bench, Some(10)), "was told offset Some(10)");
    }

    #[test]
    fn a_failed_one_is_never_read() {
        let mut bench = bench();
        commit(&mut bench, 1, Some(3), 10);
        committed(&mut bench, 1, Outcome::Failed(String::new())).unwrap();
        broken(read(&mut bench, Some(10)), "was told offset Some(10)");
    }

    #[test]
    fn the_agreed_state_counts_as_a_read() {
        let mut bench = bench();
        accept(&mut bench, 1, 10);
        accept(&mut bench, 2, 20);
        bench.image.offsets.insert(("g".into(), tp()), 20);
        bench.publish();
        bench.step().unwrap();
        bench.image.offsets.insert(("g".into(), tp()), 10);
        bench.publish();
        broken(bench.step(), "the agreed state at index 13 has offset Some(10)");
    }

    #[test]
    fn generations_of_accepted_commits() {
        let mut bench = bench();
        commit(&mut bench, 1, Some(3), 10);
        bench.put_group("g", 4, &[("m", b"")]);
        committed(&mut bench, 1, Outcome::Acknowledged(())).unwrap();
        commit(&mut bench, 2, Some(3), 11);
        broken(committed(&mut bench, 2, Outcome::Acknowledged(())), "in generation Some(3), was accepted");
        commit(&mut bench, 3, None, 12);
        broken(committed(&mut bench, 3, Outcome::Acknowledged(())), "in generation None, was accepted");
        bench.put_group("g", 5, &[]);
        bench.step().unwrap();
        commit(&mut bench, 4, None, 13);
        committed(&mut bench, 4, Outcome::Acknowledged(())).unwrap();
    }

    #[test]
    fn where_a_member_begins() {
        let mut bench = bench();
        let assigned = What::Assigned {
            session: READER,
            group: "g".into(),
            member: "m".into(),
            generation: 3,
            partitions: vec![tp()],
        };
        bench.happen(assigned.clone()).unwrap();
        bench.read(0, 1).unwrap();
        accept(&mut bench, 1, 10);
        bench.happen(assigned.clone()).unwrap();
        bench.read(10, 1).unwrap();
        bench.happen(assigned.clone()).unwrap();
        broken(bench.read(0, 1), "begins to read at 0");
        let before = 12;
        bench.happen(What::DeleteRecords { session: WRITER, delete: 1, tp: tp(), before }).unwrap();
        bench.happen(assigned.clone()).unwrap();
        bench.read(12, 1).unwrap();
        bench.happen(assigned).unwrap();
        broken(bench.read(13, 1), "begins to read at 13");
    }
}
