//! The coordinator's state of one group, and the way of its changes through Raft.
//!
//! Invariants:
//! * `sessions` are exactly the agreed members';
//! * requests are queued only while a proposal is under way.

use super::draft::{self, Draft};
use super::subscription::preferred_assignor;
use super::types::*;
use crate::group::{Now, ProposalFailure, ProposalId, ReplyId};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::{
    Command, CommitMember, ConsumerGroup, ConsumerMember, GroupEpoch, Image, Rejection,
};
use strandline_record::Generation;

pub struct ConsumerGroupState {
    name: Arc<str>,
    limits: ConsumerGroupLimits,
    /// The group as the image last showed it.
    agreed: Option<Arc<ConsumerGroup>>,
    sessions: BTreeMap<Arc<str>, Session>,
    /// What came while a proposal was under way, in order.
    queue: Vec<Waiting>,
    proposed: Option<Proposed>,
    /// The topics may not be those that the target was computed from.
    look_at_topics: bool,
    next_proposal: u64,
    effects: Vec<Effect>,
    /// Not later than the next moment at which `tick` has something to do.
    deadline: Option<u64>,
}

#[derive(Default)]
struct Session {
    ends: u64,
    /// By then the member must have given up what it was told to.
    revoke_by: Option<u64>,
    /// The member as it was when we last told it where it stands.
    told: Option<Arc<ConsumerMember>>,
}

struct Waiting {
    reply: ReplyId,
    request: HeartbeatRequest,
    /// The member as it was agreed when the request came.
    seen: Option<Arc<ConsumerMember>>,
}

struct Proposed {
    next: ConsumerGroup,
    command: Command,
    id: ProposalId,
    retry_at: u64,
    /// The requests that it answers.
    waiting: Vec<Waiting>,
}

impl ConsumerGroupState {
    /// The coordinator's state for a group as the image shows it.
    pub fn adopt(
        name: Arc<str>,
        agreed: Option<Arc<ConsumerGroup>>,
        limits: ConsumerGroupLimits,
        now: Now,
    ) -> Self {
        let mut state = Self {
            name,
            limits,
            agreed: None,
            sessions: BTreeMap::new(),
            queue: Vec::new(),
            proposed: None,
            look_at_topics: false,
            next_proposal: 0,
            effects: Vec::new(),
            deadline: None,
        };
        state.adopt_agreed(agreed, now);
        state.recompute_deadline();
        state
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// When [`Self::tick`] is due (`Now::mono_ms`). May be early, never late.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Nothing is remembered here that the image does not know: the state may be dropped and adopted again
    /// when the group is next asked for.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.proposed.is_none()
    }

    /// The broker is not the coordinator any more: everybody who waits is sent away to ask again.
    pub fn unload(mut self) -> Vec<Effect> {
        self.refuse_all(&ConsumerGroupError::NotCoordinator);
        self.effects
    }

    /// ConsumerGroupHeartbeat. The answer may come with a later event, once what it rests on is agreed. Of
    /// `image` only the topics are looked at, here and elsewhere.
    pub fn heartbeat(
        &mut self,
        request: HeartbeatRequest,
        reply: ReplyId,
        image: &Image,
        now: Now,
    ) -> Vec<Effect> {
        match self.try_heartbeat(request, reply, image, now) {
            Ok(()) => {}
            Err(error) => self.reply(reply, Err(error)),
        }
        self.finish()
    }

    fn try_heartbeat(
        &mut self,
        request: HeartbeatRequest,
        reply: ReplyId,
        image: &Image,
        now: Now,
    ) -> Result<(), ConsumerGroupError> {
        draft::check(&request, &self.limits)?;
        let seen = self.member(&request.member_id).cloned();
        let waiting = Waiting { reply, request, seen };
        if self.is_plain(&waiting.request) {
            self.answer(waiting, now);
            return Ok(());
        }
        let request = &waiting.request;
        if let Some(at) = self.queue.iter().position(|w| w.request.member_id == request.member_id) {
            // Its client gave it up and asks again.
            let earlier = self.queue.remove(at);
            self.reply(earlier.reply, Err(ConsumerGroupError::NotCoordinator));
        }
        if self.queue.len() >= self.limits.max_members {
            return Err(ConsumerGroupError::GroupMaxSizeReached);
        }
        self.queue.push(waiting);
        self.go_on(image, now);
        Ok(())
    }

    /// The member is where it should be and says nothing new.
    fn is_plain(&self, request: &HeartbeatRequest) -> bool {
        let Some(group) = &self.agreed else { return false };
        if request.epoch <= JOIN || self.look_at_topics {
            return false;
        }
        let Ok(member) = draft::check_epoch(group, request) else { return false };
        let same = draft::updated(member, request, &self.limits).is_ok_and(|m| Arc::ptr_eq(&m, member));
        same && member.is_at(group.target_epoch)
    }

    /// The image shows the group like this (`None`: it does not exist). To be called in image order, whenever
    /// the delta names the group; images between may be missing.
    pub fn image(&mut self, group: Option<&Arc<ConsumerGroup>>, image: &Image, now: Now) -> Vec<Effect> {
        if self.agreed.as_ref() == group {
            return Vec::new();
        }
        let ours = |p: &mut Proposed| group.is_some_and(|group| draft::same_content(group, &p.next));
        if let Some(proposed) = self.proposed.take_if(ours) {
            self.set_agreed(group.cloned(), now);
            for waiting in proposed.waiting {
                self.answer(waiting, now);
            }
        } else {
            // Another coordinator's work. What members told us was about another state of the group.
            self.refuse_all(&ConsumerGroupError::NotCoordinator);
            self.adopt_agreed(group.cloned(), now);
        }
        self.go_on(image, now);
        self.finish()
    }

    /// Topics came, went, or grew.
    pub fn topics_changed(&mut self, image: &Image, now: Now) -> Vec<Effect> {
        self.look_at_topics = !self.sessions.is_empty() || self.proposed.is_some();
        self.go_on(image, now);
        self.finish()
    }

    /// A proposal did not succeed, or not for sure. It is sent again after a pause unless the image has
    /// decided the matter by then.
    pub fn proposal_failed(&mut self, id: ProposalId, failure: ProposalFailure, now: Now) -> Vec<Effect> {
        let retry_at = self.retry_at(now);
        let Some(proposed) = self.proposed.as_mut().filter(|p| p.id == id) else { return Vec::new() };
        proposed.retry_at = retry_at;
        let error = match failure {
            ProposalFailure::Rejected(Rejection::OtherGroupProtocol) => ConsumerGroupError::OtherProtocol,
            // The agreed state moved: the image shows how.
            ProposalFailure::Rejected(Rejection::StaleGroupVersion(_)) | ProposalFailure::Unknown => {
                return self.finish();
            }
            ProposalFailure::Rejected(rejection) => ConsumerGroupError::Refused(rejection),
        };
        self.refuse_all(&error);
        self.look_at_topics = !self.sessions.is_empty();
        // What time asked for is asked for again, after a pause.
        for session in self.sessions.values_mut() {
            session.ends = session.ends.max(retry_at);
            session.revoke_by = session.revoke_by.map(|by| by.max(retry_at));
        }
        self.finish()
    }

    /// Time has passed. Due at [`Self::next_deadline`]; earlier or later does no harm.
    pub fn tick(&mut self, image: &Image, now: Now) -> Vec<Effect> {
        if self.deadline.is_none_or(|deadline| deadline > now.mono_ms) {
            return Vec::new();
        }
        match &self.proposed {
            Some(proposed) if proposed.retry_at <= now.mono_ms => self.send(now),
            Some(_) => {}
            None => self.go_on(image, now),
        }
        self.finish()
    }

    /// Whether a commit is worth proposing, and with which member; `apply` decides. `None` for `epoch` is a
    /// simple consumer's commit (Kafka's −1), which only a group without members takes.
    pub fn commit_check(
        &self,
        member_id: &Arc<str>,
        epoch: Option<GroupEpoch>,
    ) -> Result<Option<CommitMember>, ConsumerGroupError> {
        let Some(epoch) = epoch else {
            let nobody = self.sessions.is_empty() && member_id.is_empty();
            return if nobody { Ok(None) } else { Err(ConsumerGroupError::UnknownMemberId) };
        };
        match self.member(member_id) {
            None => Err(ConsumerGroupError::UnknownMemberId),
            Some(member) if member.epoch != epoch || member.away => Err(ConsumerGroupError::StaleMemberEpoch),
            Some(_) => {
                Ok(Some(CommitMember { generation: Generation(epoch.0), member_id: member_id.clone() }))
            }
        }
    }

    pub fn phase(&self) -> ConsumerGroupPhase {
        match &self.agreed {
            None => ConsumerGroupPhase::Dead,
            Some(group) if group.members.is_empty() => ConsumerGroupPhase::Empty,
            Some(group) if group.is_stable() => ConsumerGroupPhase::Stable,
            Some(_) => ConsumerGroupPhase::Reconciling,
        }
    }

    pub fn describe(&self) -> ConsumerGroupDescription {
        let unborn = ConsumerGroup::unborn();
        let group = self.agreed.as_deref().unwrap_or(&unborn);
        ConsumerGroupDescription {
            phase: self.phase(),
            epoch: group.epoch,
            target_epoch: group.target_epoch,
            assignor: preferred_assignor(group, &self.limits.assignors),
            members: group.members.iter().map(|(id, member)| (id.clone(), member.clone())).collect(),
        }
    }

    /// Makes a draft of all that there is to do, and proposes it. If it is what is agreed already, the
    /// requests in it are answered.
    fn go_on(&mut self, image: &Image, now: Now) {
        if self.proposed.is_some() {
            return;
        }
        let mut draft = Draft::of(self.agreed.as_deref());
        for id in self.expired(now) {
            draft.remove(&id);
        }
        let mut waiting = Vec::new();
        let mut asked = BTreeMap::new();
        for w in std::mem::take(&mut self.queue) {
            // If the member was told something since, it was in answer to another request: this one is old, and
            // what it says of its partitions as well.
            let current = same_standing(w.seen.as_ref(), self.member(&w.request.member_id));
            let taken = match current || w.request.epoch < JOIN {
                true => draft.take(&w.request, &self.limits),
                false => Err(ConsumerGroupError::NotCoordinator),
            };
            match taken {
                Ok(()) => {
                    asked.insert(w.request.member_id.clone(), w.request.owned.clone());
                    waiting.push(w);
                }
                Err(error) => self.reply(w.reply, Err(error)),
            }
        }
        if draft.retarget || std::mem::take(&mut self.look_at_topics) {
            draft.retarget(image, &self.limits);
        }
        draft.reconcile(&asked);
        let Some(change) = draft.change_from(self.agreed.as_deref(), now.wall_ms) else {
            for w in waiting {
                self.answer(w, now);
            }
            return;
        };
        let expected = self.agreed.as_ref().map(|group| group.version);
        let command = Command::AlterConsumerGroup { group: self.name.clone(), expected, change };
        let id = ProposalId(self.next_proposal);
        self.proposed = Some(Proposed { next: draft.group, command, id, retry_at: 0, waiting });
        self.send(now);
    }

    fn send(&mut self, now: Now) {
        let retry_at = self.retry_at(now);
        let proposed = self.proposed.as_mut().expect("there is something to send");
        proposed.id = ProposalId(self.next_proposal);
        proposed.retry_at = retry_at;
        self.next_proposal += 1;
        self.effects.push(Effect::Propose { id: proposed.id, command: proposed.command.clone() });
    }

    /// Members whose time is up, and that are not asking right now.
    fn expired(&self, now: Now) -> Vec<Arc<str>> {
        let due = |session: &Session| {
            session.ends <= now.mono_ms || session.revoke_by.is_some_and(|by| by <= now.mono_ms)
        };
        let asks = |id: &Arc<str>| self.queue.iter().any(|w| w.request.member_id == *id);
        self.sessions.iter().filter(|(id, s)| due(s) && !asks(id)).map(|(id, _)| id.clone()).collect()
    }

    /// From what is agreed.
    fn answer(&mut self, waiting: Waiting, now: Now) {
        let Waiting { reply, request, .. } = waiting;
        if let Some(session) = self.sessions.get_mut(&request.member_id) {
            session.ends = now.mono_ms + u64::from(self.limits.session_timeout_ms);
        }
        let heartbeat_interval_ms = self.limits.heartbeat_interval_ms;
        let member_id = request.member_id.clone();
        if request.epoch < JOIN {
            let epoch = request.epoch;
            return self.reply(
                reply,
                Ok(HeartbeatAnswer { member_id, epoch, heartbeat_interval_ms, assignment: None }),
            );
        }
        let Some(member) = self.member(&member_id).cloned() else {
            return self.reply(reply, Err(ConsumerGroupError::UnknownMemberId));
        };
        let session = self.sessions.get_mut(&member_id).expect("agreed members have sessions");
        let told = session.told.replace(member.clone());
        // It was told this epoch and asks at the one before: the answer was lost.
        let repeat =
            told.as_ref().is_some_and(|told| told.epoch == member.epoch) && request.epoch != member.epoch.0;
        let news = told.is_none_or(|told| told.assigned != member.assigned);
        let assignment = (request.is_full() || news || repeat).then(|| member.assigned.clone());
        self.reply(
            reply,
            Ok(HeartbeatAnswer { member_id, epoch: member.epoch.0, heartbeat_interval_ms, assignment }),
        );
    }

    fn member(&self, id: &str) -> Option<&Arc<ConsumerMember>> {
        self.agreed.as_ref()?.members.get(id)
    }

    fn adopt_agreed(&mut self, agreed: Option<Arc<ConsumerGroup>>, now: Now) {
        self.sessions.clear();
        self.set_agreed(agreed, now);
        self.look_at_topics = !self.sessions.is_empty();
    }

    /// Sessions follow the agreed members.
    fn set_agreed(&mut self, agreed: Option<Arc<ConsumerGroup>>, now: Now) {
        let mut before = std::mem::take(&mut self.sessions);
        for (id, member) in agreed.iter().flat_map(|group| &group.members) {
            let mut session = before.remove(id).unwrap_or_else(|| Session {
                ends: now.mono_ms + u64::from(self.limits.session_timeout_ms),
                ..Session::default()
            });
            let same = self.member(id).is_some_and(|before| before.revoking == member.revoking);
            let by = now.mono_ms + u64::from(member.rebalance_timeout_ms);
            session.revoke_by = match member.revoking.is_empty() {
                true => None,
                false => Some(session.revoke_by.filter(|_| same).unwrap_or(by)),
            };
            self.sessions.insert(id.clone(), session);
        }
        self.agreed = agreed;
    }

    fn refuse_all(&mut self, error: &ConsumerGroupError) {
        let proposed = self.proposed.take().map(|p| p.waiting).unwrap_or_default();
        for waiting in proposed.into_iter().chain(std::mem::take(&mut self.queue)) {
            self.reply(waiting.reply, Err(error.clone()));
        }
    }

    fn reply(&mut self, id: ReplyId, answer: HeartbeatResult) {
        self.effects.push(Effect::Reply { id, answer });
    }

    fn retry_at(&self, now: Now) -> u64 {
        now.mono_ms + u64::from(self.limits.propose_retry_ms.max(1))
    }

    /// Ends an event.
    fn finish(&mut self) -> Vec<Effect> {
        self.recompute_deadline();
        assert!(self.queue.is_empty() || self.proposed.is_some(), "requests wait only for a proposal");
        let members = self.agreed.as_ref().map_or(0, |group| group.members.len());
        assert_eq!(self.sessions.len(), members, "agreed members have sessions");
        std::mem::take(&mut self.effects)
    }

    fn recompute_deadline(&mut self) {
        self.deadline = match &self.proposed {
            Some(proposed) => Some(proposed.retry_at),
            None if self.look_at_topics => Some(0),
            None => self.sessions.values().flat_map(|s| [Some(s.ends), s.revoke_by]).flatten().min(),
        };
    }
}

/// What the member was told last is what it has to be told.
fn same_standing(a: Option<&Arc<ConsumerMember>>, b: Option<&Arc<ConsumerMember>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            Arc::ptr_eq(a, b)
                || (a.epoch == b.epoch
                    && a.assigned == b.assigned
                    && a.revoking == b.revoking
                    && a.away == b.away)
        }
        _ => false,
    }
}
