//! I15: at most one owner per partition per generation; generations increase; a fenced owner's commits are refused
//! (the latter by I14, which knows the generation of every accepted commit). From HAZARDS.md (hazards 27, 29, 31),
//! KIP-429, and `ops/docs/decisions/group-generations-in-two-steps.md`.
//!
//! Looks at: the assignments in the newest agreed state, read with a parser of the oracle's own; what members are told
//! to own.
//!
//! Sound, because a generation's assignment is agreed before anybody hears of it. A static member that returns takes
//! its predecessor's place under another id within the generation (KIP-345), so two owners are one too many only while
//! both are members. Owners of different generations may overlap: a member that is cut off goes on until it hears.

use super::ledger::Shared;
use super::{Check, Invariant, Observation, named};
use crate::history::{Event, Session, Tp, What};
use crate::observe::GroupView;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

named!("I15-groups");

/// What is known of one generation.
#[derive(Debug, Default)]
struct Generation {
    /// Everybody who was a member in it → what is assigned to it.
    members: BTreeMap<Arc<str>, BTreeSet<Tp>>,
    /// The assignments, whoever has them.
    assignments: Option<Vec<Arc<[u8]>>>,
    /// Who says that it owns a partition.
    owners: BTreeMap<Tp, (Arc<str>, Session)>,
}

pub struct Groups {
    ledger: Shared,
    generations: BTreeMap<(Arc<str>, i32), Generation>,
    last: BTreeMap<Arc<str>, GroupView>,
    of_session: BTreeMap<(Session, Arc<str>), i32>,
}

impl Groups {
    pub fn new(ledger: Shared) -> Self {
        Groups { ledger, generations: BTreeMap::new(), last: BTreeMap::new(), of_session: BTreeMap::new() }
    }

    fn see(&mut self, name: &Arc<str>, group: &GroupView) -> Check {
        if let Some(before) = self.last.insert(name.clone(), group.clone())
            && group.generation < before.generation
        {
            return violated(format!(
                "group {name} went from generation {} back to {}",
                before.generation, group.generation
            ));
        }
        if !group.assigned || group.members.is_empty() {
            return Ok(());
        }
        let known = self.generations.entry((name.clone(), group.generation)).or_default();
        let mut assignments: Vec<Arc<[u8]>> = group.members.values().cloned().collect();
        assignments.sort();
        if known.assignments.as_ref().is_some_and(|known| *known != assignments) {
            return violated(format!(
                "group {name}: the assignments of generation {} change",
                group.generation
            ));
        }
        known.assignments = Some(assignments);
        let mut owners: BTreeMap<Tp, &Arc<str>> = BTreeMap::new();
        for (member, assignment) in &group.members {
            let assigned = parse(assignment).unwrap_or_default();
            for tp in &assigned {
                if let Some(other) = owners.insert(tp.clone(), member) {
                    return violated(format!(
                        "group {name}, generation {}: {tp} is assigned to {other} and to {member}",
                        group.generation
                    ));
                }
            }
            known.members.insert(member.clone(), assigned);
        }
        Ok(())
    }

    fn own(
        &mut self,
        session: Session,
        name: &Arc<str>,
        member: &Arc<str>,
        number: i32,
        partitions: &[Tp],
    ) -> Check {
        let before = self.of_session.insert((session, name.clone()), number);
        if before.is_some_and(|before| before > number) {
            return violated(format!(
                "{session:?}, a member of group {name}, went from generation {before:?} back to {number}"
            ));
        }
        let known = self.generations.entry((name.clone(), number)).or_default();
        for tp in partitions {
            if known.assignments.is_some() && !known.members.get(member).is_some_and(|tps| tps.contains(tp)) {
                return violated(format!(
                    "{session:?}, member {member} of group {name}, was given {tp} in generation {number}, where agreed \
                     is {:?}",
                    known.members
                ));
            }
            let me = (member.clone(), session);
            let (other, of) = known.owners.insert(tp.clone(), me).unwrap_or((member.clone(), session));
            let agreed = self.last.get(name).filter(|group| group.generation == number);
            let both =
                agreed.is_some_and(|g| g.members.contains_key(&other) && g.members.contains_key(member));
            if other != *member && both {
                return violated(format!(
                    "group {name}, generation {number}: {tp} is owned by {other} ({of:?}) and by {member} ({session:?})"
                ));
            }
        }
        Ok(())
    }
}

/// The partitions in a ConsumerProtocolAssignment: version, then topics with their partitions.
fn parse(bytes: &[u8]) -> Option<BTreeSet<Tp>> {
    fn int<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
        let (first, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(first)
    }
    let mut rest = bytes;
    int::<2>(&mut rest)?;
    let mut partitions = BTreeSet::new();
    for _ in 0..i32::from_be_bytes(*int(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(*int(&mut rest)?)).ok()?;
        let (name, behind) = rest.split_at_checked(length)?;
        let topic: Arc<str> = Arc::from(std::str::from_utf8(name).ok()?);
        rest = behind;
        for _ in 0..i32::from_be_bytes(*int(&mut rest)?) {
            let partition = i32::from_be_bytes(*int(&mut rest)?);
            partitions.insert(Tp { topic: topic.clone(), partition });
        }
    }
    Some(partitions)
}

impl Invariant for Groups {
    fn name(&self) -> &'static str {
        NAME
    }

    fn event(&mut self, event: &Event) -> Check {
        match &event.what {
            What::Assigned { session, group, member, generation, partitions } => {
                self.own(*session, group, member, *generation, partitions)
            }
            _ => Ok(()),
        }
    }

    fn observe(&mut self, _: &Observation<'_>) -> Check {
        let shared = self.ledger.clone();
        let ledger = shared.borrow();
        if ledger.newer {
            for (name, group) in &ledger.newest.groups {
                if self.last.get(name) != Some(group) {
                    self.see(name, group)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, broken, tp};
    use super::*;

    fn bench() -> Bench {
        Bench::new(|ledger| Box::new(Groups::new(ledger)))
    }

    /// `t` with these partitions.
    fn assignment(partitions: &[i32]) -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 1, b't'];
        bytes.extend((partitions.len() as i32).to_be_bytes());
        partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
        bytes.extend((-1i32).to_be_bytes());
        bytes
    }

    fn assigned(bench: &mut Bench, session: u64, member: &str, generation: i32) -> Check {
        bench.happen(What::Assigned {
            session: Session(session),
            group: "g".into(),
            member: member.into(),
            generation,
            partitions: vec![tp()],
        })
    }

    #[test]
    fn assignments_are_read_and_cut_ones_refused() {
        let bytes = assignment(&[0, 2]);
        assert_eq!(parse(&bytes), Some([Tp::new("t", 0), Tp::new("t", 2)].into()));
        assert_eq!(parse(&bytes[..bytes.len() - 6]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn one_owner_after_the_other_and_a_static_member_under_a_new_id() {
        let mut bench = bench();
        let (zero, one) = (assignment(&[0]), assignment(&[1]));
        bench.put_group("g", 1, &[("a", &zero), ("b", &one)]);
        bench.step().unwrap();
        assigned(&mut bench, 1, "a", 1).unwrap();
        bench.put_group("g", 1, &[("a2", &zero), ("b", &one)]);
        bench.step().unwrap();
        assigned(&mut bench, 2, "a2", 1).unwrap();
        bench.put_group("g", 2, &[("b", &zero)]);
        bench.step().unwrap();
        assigned(&mut bench, 3, "b", 2).unwrap();
    }

    #[test]
    fn two_owners() {
        let mut bench = bench();
        let zero = assignment(&[0]);
        bench.put_group("g", 1, &[("a", &zero), ("b", &zero)]);
        broken(bench.step(), "t-0 is assigned to a and to b");
        // Nothing agreed was seen of generation 5 but that both are members.
        bench.put_group("g", 5, &[("a", &[]), ("b", &[])]);
        bench.image.groups.get_mut("g").unwrap().assigned = false;
        bench.publish();
        bench.step().unwrap();
        assigned(&mut bench, 1, "a", 5).unwrap();
        broken(assigned(&mut bench, 2, "b", 5), "t-0 is owned by a (Session(1)) and by b (Session(2))");
    }

    #[test]
    fn a_member_that_is_given_what_is_not_its_own() {
        let mut bench = bench();
        bench.put_group("g", 1, &[("a", &assignment(&[1])), ("b", &assignment(&[0]))]);
        bench.step().unwrap();
        broken(assigned(&mut bench, 1, "a", 1), "member a of group g, was given t-0");
    }

    #[test]
    fn generations_and_assignments_that_change() {
        let mut bench = bench();
        bench.put_group("g", 4, &[("a", &assignment(&[0]))]);
        bench.step().unwrap();
        assigned(&mut bench, 1, "a", 4).unwrap();
        broken(assigned(&mut bench, 1, "a", 3), "went from generation Some(4) back to 3");
        bench.put_group("g", 4, &[("a", &assignment(&[1]))]);
        broken(bench.step(), "the assignments of generation 4 change");
        bench.put_group("g", 2, &[("a", &[])]);
        broken(bench.step(), "went from generation 4 back to 2");
    }
}
