//! The way of a rebalance through Raft: proposing, noticing in the image what was agreed, and giving way
//! to another coordinator.

use super::state::{Assigning, GroupState, Phase, Replacement};
use super::types::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::{Command, Group, GroupMember, Rejection};
use strandline_record::Generation;

impl GroupState {
    /// The image shows the group like this (`None`: it does not exist). To be called in image order,
    /// whenever the delta names the group; images between may be missing.
    pub fn image(&mut self, group: Option<&Arc<Group>>, now: Now) -> Vec<Effect> {
        if self.agreed.as_ref() == group {
            return Vec::new();
        }
        match (self.agreed.clone(), group) {
            (Some(before), Some(group)) if is_update(&before, group) => {
                self.same_generation(&before, group, now)
            }
            (_, Some(group)) if matches!(&self.phase, Phase::Agreeing { next, .. } if next == group) => {
                self.generation_agreed(group, now)
            }
            (Some(before), None) if before.members.is_empty() => self.deleted(now),
            _ => self.give_way(group, GroupError::NotCoordinator, now),
        }
        self.finish()
    }

    /// A proposal did not succeed, or not for sure. It is sent again after a pause unless the image has
    /// decided the matter by then.
    pub fn proposal_failed(&mut self, id: ProposalId, failure: ProposalFailure, now: Now) -> Vec<Effect> {
        let retry = self.retry_at(now);
        let mut final_answer = match failure {
            ProposalFailure::Rejected(rejection) if !image_will_tell(&rejection) => Some(rejection),
            _ => None,
        };
        let current = if let Phase::Agreeing { proposal, retry_at, .. } = &mut self.phase
            && *proposal == id
        {
            *retry_at = retry;
            true
        } else if let Some(assigning) = self.assigning.as_mut().filter(|a| a.proposal == id) {
            assigning.retry_at = retry;
            true
        } else if let Some(replacement) = self.replacing.values_mut().find(|r| r.proposal == id) {
            replacement.retry_at = retry;
            if matches!(final_answer, Some(Rejection::Invalid(_))) {
                // The new id is a member already: an earlier copy was applied, which the image will show.
                final_answer = None;
            }
            true
        } else {
            false
        };
        if let Some(rejection) = final_answer.filter(|_| current) {
            let agreed = self.agreed.clone();
            self.give_way(agreed.as_ref(), GroupError::Refused(rejection), now);
        }
        self.finish()
    }

    pub(super) fn propose_generation(
        &mut self,
        protocol: Arc<str>,
        leader: Option<Arc<str>>,
        members: BTreeMap<Arc<str>, GroupMember>,
        now: Now,
    ) {
        let above = self.highest.max(self.generation()).get();
        let generation = Generation(above.checked_add(1).expect("two thousand million rebalances"));
        let next = Arc::new(Group {
            generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader,
            assigned: members.is_empty(),
            members,
            changed_at_ms: now.wall_ms,
        });
        self.send_generation(next, now);
    }

    fn send_generation(&mut self, next: Arc<Group>, now: Now) {
        let proposal = self.propose(Command::PutGeneration {
            group: self.name.clone(),
            expected: self.agreed.as_ref().map(|g| g.generation),
            next: (*next).clone(),
        });
        self.phase = Phase::Agreeing { next, proposal, retry_at: self.retry_at(now) };
    }

    pub(super) fn propose_assignment(&mut self, assignments: BTreeMap<Arc<str>, Arc<[u8]>>, now: Now) {
        let proposal = self.propose(Command::PutAssignment {
            group: self.name.clone(),
            generation: self.generation(),
            assignments: assignments.clone(),
        });
        self.assigning = Some(Assigning { assignments, proposal, retry_at: self.retry_at(now) });
    }

    /// Sends again what has had no effect for too long.
    pub(super) fn retry_proposals(&mut self, now: Now) {
        if let Phase::Agreeing { next, retry_at, .. } = &self.phase
            && *retry_at <= now.mono_ms
        {
            let next = next.clone();
            self.send_generation(next, now);
        }
        if let Some(assigning) = self.assigning.take_if(|a| a.retry_at <= now.mono_ms) {
            self.propose_assignment(assigning.assignments, now);
        }
        let due: Vec<_> = self
            .replacing
            .iter()
            .filter(|(_, r)| r.retry_at <= now.mono_ms)
            .map(|(from, _)| from.clone())
            .collect();
        for from in due {
            let Replacement { to, info, wait, .. } = self.replacing.remove(&from).expect("listed above");
            self.propose_replacement(from, to, info, wait, now);
        }
    }

    /// Our generation is agreed: its members hear of it.
    fn generation_agreed(&mut self, group: &Arc<Group>, now: Now) {
        self.set_agreed(Some(group.clone()));
        let mut answers = Vec::new();
        for (id, member) in &mut self.members {
            member.synced = false;
            if member.joined {
                member.extend_session(now);
            }
            if member.is_covered_by(group, id) {
                member.joined = false;
                answers.extend(member.join.take().map(|wait| (id.clone(), wait)));
            }
        }
        for (id, wait) in answers {
            let answer = self.join_answer(&id, wait, None);
            self.reply(wait.reply, answer);
        }
        // Joins and departures since the proposal.
        let changed = !self.members.keys().eq(group.members.keys())
            || self.members.values().any(|m| m.join.is_some() || m.joined);
        self.phase = if group.members.is_empty() {
            Phase::Empty
        } else {
            Phase::Completing { sync_deadline: now.mono_ms + self.rebalance_timeout_ms() }
        };
        if changed {
            self.rebalance(now);
        }
    }

    /// The agreed generation got its assignments, or a static member another id; by us or by another.
    fn same_generation(&mut self, before: &Arc<Group>, group: &Arc<Group>, now: Now) {
        self.set_agreed(Some(group.clone()));
        let gone: Vec<_> =
            before.members.keys().filter(|id| !group.members.contains_key(*id)).cloned().collect();
        for from in gone {
            self.replaced_in_image(&from, before, group, now);
        }
        if let Phase::Completing { sync_deadline } = self.phase
            && group.assigned
        {
            self.assigning = None;
            self.phase = Phase::Stable { sync_deadline: Some(sync_deadline) };
            let waiting: Vec<_> =
                self.members.iter_mut().filter_map(|(id, m)| Some((id.clone(), m.sync.take()?))).collect();
            for (id, reply) in waiting {
                self.members.get_mut(&id).expect("listed above").extend_session(now);
                let answer = self.sync_answer(&id);
                self.reply(reply, answer);
            }
        }
    }

    fn replaced_in_image(&mut self, from: &Arc<str>, before: &Group, group: &Group, now: Now) {
        let (heir, info) =
            heir_of(from, before, group).expect("within a generation members are only replaced");
        let replacement = self.replacing.remove(from);
        if !self.members.contains_key(from) {
            // Left, or renamed here already; the next generation says so.
            assert!(replacement.is_none(), "only members are replaced");
            return;
        }
        self.rename_member(from, heir, info.clone(), now);
        let Some(Replacement { to, info, wait, .. }) = replacement else { return };
        if to != *heir {
            // Another copy of the member came first, through another coordinator or an earlier request.
            self.propose_replacement(heir.clone(), to, info, wait, now);
        } else if let Some(wait) = wait {
            let answer = self.join_answer(&to, wait, Some(from));
            self.reply(wait.reply, answer);
        }
    }

    /// An empty group was deleted. Members may be joining already: for them it begins anew.
    fn deleted(&mut self, now: Now) {
        self.set_agreed(None);
        match &self.phase {
            Phase::Agreeing { next, .. } => {
                // Refused, as it expected the deleted group's generation.
                let next = next.clone();
                self.send_generation(next, now);
            }
            Phase::Empty | Phase::Preparing { .. } => {}
            Phase::Completing { .. } | Phase::Stable { .. } => unreachable!("the group had no members"),
        }
    }

    /// The agreed state is not what we were working on: everybody who waits must ask again, whoever turns
    /// out to be the coordinator.
    pub(super) fn give_way(&mut self, group: Option<&Arc<Group>>, error: GroupError, now: Now) {
        self.refuse_all(&error);
        self.adopt_agreed(group.cloned(), now);
    }
}

/// `after` is the same generation as `before`, with assignments or with static members replaced. (Not so if
/// the group was deleted and came to the same number again.)
fn is_update(before: &Group, after: &Group) -> bool {
    before.generation == after.generation
        && before.protocol_type == after.protocol_type
        && before.protocol == after.protocol
        && before.members.len() == after.members.len()
        && (after.assigned || !before.assigned)
        && before
            .members
            .keys()
            .all(|id| after.members.contains_key(id) || heir_of(id, before, after).is_some())
}

/// Who has the place of the static member `id` of `before` in `after`.
fn heir_of<'a>(id: &str, before: &Group, after: &'a Group) -> Option<(&'a Arc<str>, &'a GroupMember)> {
    let instance = before.members.get(id)?.instance_id.as_ref()?;
    after.members.iter().find(|(_, m)| m.instance_id.as_ref() == Some(instance))
}

/// Rejections that say that the agreed state moved: the image shows how.
fn image_will_tell(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::StaleGeneration(_)
            | Rejection::AlreadyAssigned
            | Rejection::UnknownGroup
            | Rejection::UnknownMember
            | Rejection::RebalanceInProgress
    )
}
