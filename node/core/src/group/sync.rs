//! SyncGroup: the leader brings the assignments, each member fetches its own.

use super::state::{GroupState, Phase};
use super::types::*;
use std::collections::BTreeMap;
use std::sync::Arc;

impl GroupState {
    /// SyncGroup. Answered once the generation's assignments are agreed.
    pub fn sync(&mut self, request: SyncRequest, reply: ReplyId, now: Now) -> Vec<Effect> {
        if let Err(error) = self.try_sync(request, reply, now) {
            self.refuse(reply, error);
        }
        self.finish()
    }

    fn try_sync(&mut self, request: SyncRequest, reply: ReplyId, now: Now) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation() {
            return Err(GroupError::IllegalGeneration);
        }
        let agreed = self.agreed.clone().ok_or(GroupError::UnknownMemberId)?;
        if request.protocol_type.is_some_and(|p| p != agreed.protocol_type)
            || request.protocol.is_some_and(|p| p != agreed.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let id = request.member_id;
        match &self.phase {
            Phase::Empty => return Err(GroupError::UnknownMemberId),
            Phase::Preparing { .. } | Phase::Agreeing { .. } => return Err(GroupError::RebalanceInProgress),
            Phase::Completing { .. } | Phase::Stable { .. } => {}
        }
        let leads = agreed.leader.as_ref() == Some(&id);
        let assigns = leads && !agreed.assigned && self.assigning.is_none();
        if assigns {
            let bytes: usize = request.assignments.iter().map(|(id, bytes)| id.len() + bytes.len()).sum();
            if bytes > self.limits.max_assignment_bytes {
                return Err(GroupError::InvalidRequest("the assignments are too large"));
            }
        }
        let member = self.members.get_mut(&id).expect("checked above");
        member.extend_session(now);
        member.synced = true;
        if agreed.assigned {
            let answer = self.sync_answer(&id);
            self.reply(reply, answer);
            return Ok(());
        }
        let earlier = member.sync.replace(reply);
        if let Some(earlier) = earlier {
            self.refuse(earlier, GroupError::RebalanceInProgress);
        }
        if assigns {
            // Assignments for strangers are dropped; members left out get an empty one.
            let assignments: BTreeMap<Arc<str>, Arc<[u8]>> = request
                .assignments
                .into_iter()
                .filter(|(member, _)| agreed.members.contains_key(member))
                .collect();
            self.propose_assignment(assignments, now);
        }
        Ok(())
    }

    pub(super) fn sync_answer(&self, id: &Arc<str>) -> Answer {
        let agreed = self.agreed.as_ref().expect("only agreed assignments are told");
        assert!(agreed.assigned, "only agreed assignments are told");
        Answer::Sync(SyncAnswer {
            protocol_type: agreed.protocol_type.clone(),
            protocol: agreed.protocol.clone(),
            assignment: agreed.members[id].assignment.clone(),
        })
    }
}
