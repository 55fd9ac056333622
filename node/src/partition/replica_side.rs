//! The partition while it follows: requests to the leader's broker, and what is done with its answers.

use super::{After, BEGIN_AGAIN_MS, Partition, RoleState, State};
use crate::replica::Fetcher;
use bytes::Bytes;
use std::sync::Arc;
use strandline_core::partition::{Action, Answer, Follower, FollowerStart, Learned, Outcome};
use strandline_record::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use strandline_wire::peer::replica_data_partition::Outcome as Wire;
use strandline_wire::peer::{ReplicaDataPartition, ReplicaFetchPartition};

pub struct Following {
    pub core: Follower,
    pub leader: BrokerId,
    fetcher: Arc<Fetcher>,
    /// Flushed further than the outstanding request says; the fetcher sends it.
    acknowledge: Option<Offset>,
}

/// What the fetcher does about a partition after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Ask again at once.
    Ask,
    /// Ask again after a short pause: the image, here or there, is a little behind.
    AskLater,
    /// Ask again after a long one: the disk is full, or failing.
    AskMuchLater,
    /// Its request is still outstanding, or it no longer follows.
    Nothing,
}

impl Following {
    /// A flush reached `end`.
    pub fn flushed(&mut self, tp: TopicPartition, end: Offset) {
        if let Some(acknowledged) = self.core.flushed(self.core.flush_token(), end) {
            self.acknowledge = Some(acknowledged);
            self.fetcher.mark_dirty(tp);
        }
    }
}

impl Partition {
    pub(super) fn begin_following(
        &self,
        state: &mut State,
        leader: BrokerId,
        epoch: LeaderEpoch,
        agreed: &strandline_metadata::Partition,
    ) {
        let Some(broker_epoch) = self.context.broker_epoch() else { return };
        // As where leading begins: the log start stays while the role is made of it.
        self.log.set_retention_bound(Offset::ZERO);
        let (log_start, log_end) = (self.log.log_start(), self.log.log_end());
        let mut start = FollowerStart {
            tp: self.tp,
            leader,
            epoch,
            broker_epoch,
            unclean_epoch: agreed.unclean_epoch,
            log_start,
            log_end,
            last_epoch: self.log.last_epoch(),
            flushed: self.log.flushed_end(),
            high_watermark: state.high_watermark.clamp(log_start, log_end),
            high_watermark_epoch: state.high_watermark_epoch,
            truncations: state.truncations,
            last_number: state.last_request,
        };
        if start.begins_again() {
            if let Err(error) = self.log.reset_to(Offset::ZERO) {
                tracing::error!(partition = %self.tp, %error, "the log could not begin again");
                state.begin_again_ms = Some(self.context.now_ms() + BEGIN_AGAIN_MS);
                return;
            }
            start = start.begun_again();
        }
        let core = Follower::new(start);
        self.log.set_retention_bound(core.high_watermark());
        let Some(this) = self.this.upgrade() else { return };
        let fetcher = self.fetchers.attach(leader, this);
        state.role = RoleState::Follower(Box::new(Following { core, leader, fetcher, acknowledge: None }));
    }

    pub(super) fn end_following(&self, state: &mut State, following: Following) {
        state.high_watermark = following.core.high_watermark();
        state.high_watermark_epoch = following.core.high_watermark_epoch();
        state.truncations = following.core.truncations();
        state.last_request = following.core.last_number();
        following.fetcher.detach(self.tp);
    }

    /// The next message about this partition to `leader`, if there is something to say.
    pub fn next_request(&self, leader: BrokerId) -> Option<ReplicaFetchPartition> {
        let mut state = self.state.lock();
        let RoleState::Follower(following) = &mut state.role else { return None };
        if following.leader != leader {
            return None;
        }
        let blank = ReplicaFetchPartition {
            topic_id: Bytes::copy_from_slice(self.tp.topic.0.as_bytes()),
            partition: self.tp.partition.0,
            leader_epoch: following.core.epoch().0,
            ..Default::default()
        };
        if let Some(request) = following.core.request() {
            following.acknowledge = None;
            return Some(ReplicaFetchPartition {
                number: request.number,
                next_offset: request.next_offset.0,
                last_fetched_epoch: request.last_epoch.map_or(-1, |epoch| epoch.0),
                flushed_end: request.flushed_end.0,
                ..blank
            });
        }
        let flushed_end = following.acknowledge.take()?;
        let number = following.core.outstanding()?;
        Some(ReplicaFetchPartition { ack_only: true, number, flushed_end: flushed_end.0, ..blank })
    }

    /// The stream to `leader` broke: its request is void.
    pub fn disconnected(&self, leader: BrokerId) {
        if let RoleState::Follower(following) = &mut self.state.lock().role
            && following.leader == leader
        {
            following.core.disconnected();
            following.acknowledge = None;
        }
    }

    /// An answer of `leader`, and its batches.
    pub fn replica_data(&self, leader: BrokerId, data: &ReplicaDataPartition, batches: &Bytes) -> Then {
        let mut state = self.state.lock();
        let before = visible_end(&state);
        let then = self.take_data(&mut state, leader, data, batches);
        // Consumers that read from this follower wait for it.
        let wake = if visible_end(&state) == before { Vec::new() } else { state.waiters.take() };
        drop(state);
        self.carry_out(After { wake, ..After::default() });
        then
    }

    fn take_data(
        &self,
        state: &mut State,
        leader: BrokerId,
        data: &ReplicaDataPartition,
        batches: &Bytes,
    ) -> Then {
        let RoleState::Follower(following) = &mut state.role else { return Then::Nothing };
        if following.leader != leader {
            return Then::Nothing;
        }
        let answer = Answer {
            number: data.number,
            leader_epoch: LeaderEpoch(data.leader_epoch),
            outcome: outcome(data),
        };
        let core = &mut following.core;
        let own_end = |epoch| match self.log.end_of_epoch(epoch) {
            Some((_, end)) => end,
            None => self.log.log_start(),
        };
        match core.answer(&answer, self.log.log_start(), own_end) {
            Action::Ignore => Then::Nothing,
            Action::Retry => Then::AskLater,
            Action::Learned(learned) => {
                self.learned(learned);
                self.log.set_tombstone_bound(Offset(data.held_by_all));
                Then::Nothing
            }
            Action::Append { base } => {
                let appended = self.log.append_as_follower(batches, self.context.env.wall_clock_ms());
                if let Err(error) = &appended {
                    tracing::warn!(partition = %self.tp, %base, %error, "the leader's batches could not be appended");
                }
                let learned = core.appended(self.log.log_end(), self.log.last_epoch());
                self.learned(learned);
                self.log.set_tombstone_bound(Offset(data.held_by_all));
                if appended.is_ok() { Then::Ask } else { Then::AskMuchLater }
            }
            Action::Truncate(truncation) => {
                tracing::info!(partition = %self.tp, topic = %self.topic, to = %truncation.to, from = %self.log.log_end(),
                    "the log diverges from the leader's; truncating");
                self.cut(state, self.log.truncate_to(truncation.to).map(|_| ()))
            }
            Action::Reset { start } => {
                tracing::info!(partition = %self.tp, topic = %self.topic, %start, "starting the log again");
                self.cut(state, self.log.reset_to(start))
            }
        }
    }

    /// The log after a truncation; if it failed nothing has been changed, and the role is begun again later.
    fn cut(&self, state: &mut State, result: Result<(), strandline_storage::LogError>) -> Then {
        let RoleState::Follower(following) = &mut state.role else { return Then::Nothing };
        match result {
            Ok(()) => {
                following.core.truncated(self.log.log_end(), self.log.last_epoch());
                self.log.set_retention_bound(following.core.high_watermark());
                following.acknowledge = None;
                Then::Ask
            }
            Err(error) => {
                tracing::error!(partition = %self.tp, %error, "the log could not be truncated");
                self.give_up_following(state);
                Then::Nothing
            }
        }
    }

    fn learned(&self, learned: Learned) {
        if let Some(high_watermark) = learned.high_watermark {
            // A new leader's may be lower than what was known here.
            self.log.set_retention_bound(high_watermark);
        }
        if let Some(log_start) = learned.log_start
            && let Err(error) = self.log.advance_log_start(log_start)
        {
            tracing::warn!(partition = %self.tp, %error, "the log start could not be moved");
        }
    }
}

/// Where what consumers see of a follower ends.
fn visible_end(state: &State) -> Option<Offset> {
    match &state.role {
        RoleState::Follower(following) => Some(following.core.high_watermark()),
        RoleState::Leader(_) | RoleState::Idle(_) => None,
    }
}

fn outcome(data: &ReplicaDataPartition) -> Outcome {
    let (high_watermark, log_start) = (Offset(data.high_watermark), Offset(data.log_start_offset));
    match data.outcome() {
        Wire::Data if data.batch_bytes == 0 => Outcome::Marks { high_watermark, log_start },
        Wire::Data => Outcome::Data { base: Offset(data.base_offset), high_watermark, log_start },
        Wire::Diverging => Outcome::Diverging {
            epoch: (data.diverging_epoch >= 0).then_some(LeaderEpoch(data.diverging_epoch)),
            end: Offset(data.diverging_end),
        },
        Wire::BelowLogStart => Outcome::BelowLogStart { log_start },
        Wire::RefusedEpoch | Wire::NotLeader | Wire::StaleBroker | Wire::OutOfRange | Wire::Error => {
            Outcome::Refused
        }
    }
}
