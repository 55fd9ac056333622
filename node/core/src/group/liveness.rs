//! Who is still there: heartbeats, leaving, time, and whether a commit is worth proposing.

use super::state::{GroupState, Phase};
use super::types::*;
use std::sync::Arc;
use strandline_metadata::CommitMember;
use strandline_record::Generation;

impl GroupState {
    /// Heartbeat. `RebalanceInProgress` asks the member to join again.
    pub fn heartbeat(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: Generation,
        now: Now,
    ) -> Result<(), GroupError> {
        self.check_member(member_id, instance_id)?;
        if generation != self.generation() {
            return Err(GroupError::IllegalGeneration);
        }
        // Sessions only get longer here, so the known deadline stays a lower bound.
        self.members.get_mut(member_id).expect("checked above").extend_session(now);
        match self.phase {
            Phase::Empty => Err(GroupError::UnknownMemberId),
            Phase::Preparing { .. } | Phase::Agreeing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Completing { .. } | Phase::Stable { .. } => Ok(()),
        }
    }

    /// LeaveGroup of one member: by its id, or (from an administrator) by its instance id alone.
    pub fn leave(
        &mut self,
        member_id: &Arc<str>,
        instance_id: Option<&str>,
        now: Now,
    ) -> (Result<(), GroupError>, Vec<Effect>) {
        let result = self.try_leave(member_id, instance_id, now);
        (result, self.finish())
    }

    fn try_leave(
        &mut self,
        member_id: &Arc<str>,
        instance_id: Option<&str>,
        now: Now,
    ) -> Result<(), GroupError> {
        let id = match instance_id {
            Some(instance) if member_id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMemberId)?
            }
            _ if self.pending_ids.remove(member_id).is_some() => {
                self.try_complete_join(now);
                return Ok(());
            }
            _ => {
                self.check_member(member_id, instance_id)?;
                member_id.clone()
            }
        };
        self.remove_member(&id, GroupError::UnknownMemberId);
        self.rebalance(now);
        Ok(())
    }

    /// Whether a commit is worth proposing, and with which member; `apply` decides. `None` for
    /// `generation` is a simple consumer's commit (Kafka's −1), which only a group without members takes.
    /// Counts as a sign of life.
    pub fn commit_check(
        &mut self,
        member_id: &Arc<str>,
        instance_id: Option<&str>,
        generation: Option<Generation>,
        now: Now,
    ) -> Result<Option<CommitMember>, GroupError> {
        let Some(generation) = generation else {
            return if self.members.is_empty() && member_id.is_empty() {
                Ok(None)
            } else {
                Err(GroupError::UnknownMemberId)
            };
        };
        self.check_member(member_id, instance_id)?;
        if generation != self.generation() {
            return Err(GroupError::IllegalGeneration);
        }
        let member = self.members.get_mut(member_id).expect("checked above");
        member.extend_session(now);
        // It has something to commit, so it has its assignment (perhaps from another coordinator).
        member.synced |= matches!(self.phase, Phase::Stable { .. });
        match self.phase {
            Phase::Empty => Err(GroupError::UnknownMemberId),
            // Nobody owns anything in this generation yet.
            Phase::Completing { .. } => Err(GroupError::RebalanceInProgress),
            // Also while the next generation is prepared: members commit before they give up partitions.
            Phase::Preparing { .. } | Phase::Agreeing { .. } | Phase::Stable { .. } => {
                Ok(Some(CommitMember { generation, member_id: member_id.clone() }))
            }
        }
    }

    /// The client that waited for this answer is gone. Its session goes on from now.
    pub fn abandon(&mut self, reply: ReplyId, now: Now) -> Vec<Effect> {
        for replacement in self.replacing.values_mut() {
            replacement.wait = replacement.wait.filter(|w| w.reply != reply);
        }
        let found = self
            .members
            .iter_mut()
            .find(|(_, m)| m.sync == Some(reply) || m.join.is_some_and(|w| w.reply == reply));
        if let Some((id, member)) = found {
            member.sync = member.sync.filter(|r| *r != reply);
            member.join = member.join.filter(|w| w.reply != reply);
            member.extend_session(now);
            if !member.knows_id && !member.is_static() {
                let id = id.clone();
                self.remove_member(&id, GroupError::UnknownMemberId);
                self.rebalance(now);
            }
        }
        self.finish()
    }

    /// Time has passed. Due at [`Self::next_deadline`]; earlier or later does no harm.
    pub fn tick(&mut self, now: Now) -> Vec<Effect> {
        if self.next_deadline().is_none_or(|deadline| deadline > now.mono_ms) {
            return Vec::new();
        }
        self.pending_ids.retain(|_, lapses| *lapses > now.mono_ms);
        let expired: Vec<_> = self
            .members
            .iter()
            .filter(|(id, m)| m.session_deadline <= now.mono_ms && self.can_expire(id, m))
            .map(|(id, _)| id.clone())
            .collect();
        self.expel(expired, now);
        match &mut self.phase {
            Phase::Preparing { deadline, .. } if *deadline <= now.mono_ms => self.join_deadline(now),
            Phase::Completing { sync_deadline: deadline } if *deadline <= now.mono_ms => {
                self.expel_unsynced(now)
            }
            Phase::Stable { sync_deadline } if sync_deadline.is_some_and(|d| d <= now.mono_ms) => {
                *sync_deadline = None;
                self.expel_unsynced(now);
            }
            _ => {}
        }
        self.try_complete_join(now);
        self.retry_proposals(now);
        self.finish()
    }

    fn expel_unsynced(&mut self, now: Now) {
        let late: Vec<_> = self.members.iter().filter(|(_, m)| !m.synced).map(|(id, _)| id.clone()).collect();
        if late.is_empty()
            && let Phase::Completing { sync_deadline } = &mut self.phase
        {
            // All are there, but the assignment is not agreed yet: Raft is what takes long.
            *sync_deadline = now.mono_ms + u64::from(self.limits.propose_retry_ms.max(1));
        }
        self.expel(late, now);
    }

    fn expel(&mut self, members: Vec<Arc<str>>, now: Now) {
        if members.is_empty() {
            return;
        }
        for id in &members {
            self.remove_member(id, GroupError::UnknownMemberId);
        }
        self.rebalance(now);
    }
}
