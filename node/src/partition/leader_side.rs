//! The partition as clients and followers see it while this node leads it.

use super::leading::{Feed, Outstanding, Waiting};
use super::{Acks, After, Completion, Partition, Produced, RoleState, ServeError, State};
use crate::partition::FetchWaiter;
use crate::replica::ReplicaSession;
use bytes::Bytes;
use std::sync::Arc;
use strandline_core::partition::{
    Effects, FetchDecision, FollowerAck, FollowerFetch, Leader, ProduceRefusal, ReadCheck, Refusal,
};
use strandline_record::{BatchHeader, LeaderEpoch, Offset};
use strandline_storage::{AppendError, Appended, KnownProducer, ReadError};
use strandline_wire::peer::replica_data_partition::Outcome;
use strandline_wire::peer::{ReplicaDataPartition, ReplicaFetchPartition};

/// A consumer's read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub from: Offset,
    /// The leader epoch as the client knows it.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the record before `from` as the client read it (KIP-320).
    pub last_fetched_epoch: Option<LeaderEpoch>,
    pub max_bytes: usize,
    pub min_one_batch: bool,
}

/// Whole batches below the high watermark; the first may begin before the offset asked for.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub batches: Bytes,
    pub high_watermark: Offset,
    pub log_start: Offset,
    pub leader_epoch: LeaderEpoch,
    /// The client's log is another one from here on: the largest epoch at or below the one it named, and
    /// where that ends.
    pub diverging: Option<(Option<LeaderEpoch>, Offset)>,
}

impl Partition {
    /// Appends one batch and reports its result through `completion`, now or when it is durable.
    pub fn produce(
        &self,
        batch: Bytes,
        acks: Acks,
        leader_epoch: Option<LeaderEpoch>,
        deadline_ms: u64,
        completion: Completion,
    ) {
        let mut after = After::default();
        {
            let mut state = self.state.lock();
            match self.append(&mut state, &batch, acks, leader_epoch, &mut after) {
                Err(error) => after.done.push((completion, Err(error))),
                Ok((produced, end)) => match &mut state.role {
                    RoleState::Leader(leading) if !leading.core.is_acknowledged(acks.into(), end) => {
                        leading.wait(acks, Waiting { end, produced, deadline_ms, completion });
                    }
                    _ => after.done.push((completion, Ok(produced))),
                },
            }
        }
        self.carry_out(after);
    }

    /// The batch in the log: what to answer, and the end that must be durable first.
    fn append(
        &self,
        state: &mut State,
        batch: &Bytes,
        acks: Acks,
        leader_epoch: Option<LeaderEpoch>,
        after: &mut After,
    ) -> Result<(Produced, Offset), ServeError> {
        // One batch has one answer: of two, the second could be missing when the first is a repetition.
        if BatchHeader::parse(batch).is_ok_and(|header| header.size_in_bytes() < batch.len()) {
            return Err(ServeError::InvalidRecord(
                "a request carries one batch for each partition".to_owned(),
            ));
        }
        let leading = self.leading(state, leader_epoch)?;
        leading.core.check_produce(acks.into()).map_err(|refusal| match refusal {
            ProduceRefusal::NotEnoughReplicas { isr, min_insync } => {
                ServeError::NotEnoughReplicas { isr, min_isr: min_insync }
            }
            ProduceRefusal::Deposed(epoch) => ServeError::NotLeader { leader: None, epoch },
        })?;
        let epoch = leading.core.epoch();
        let log_start = leading.core.log_start();
        match self.log.append_as_leader(batch, epoch, self.context.env.wall_clock_ms()) {
            // All of it is in the log already: the answer waits until that is durable.
            Ok(appended) if !appended.written => {
                let end = appended.last_offset.plus(1);
                Ok((Produced { duplicate: true, ..produced(appended, log_start) }, end))
            }
            Ok(appended) => {
                let records = appended.last_offset.0 - appended.base_offset.0 + 1;
                self.meters.produced.add(records as u64, batch.len());
                let effects = leading.core.appended(appended.last_offset.plus(1), self.context.now_ms());
                for feed in leading.feeds.values() {
                    if feed.outstanding.is_some() {
                        feed.session.mark_ready(self.tp);
                    }
                }
                self.follow_up(state, effects, after);
                let end = appended.last_offset.plus(1);
                Ok((produced(appended, log_start), end))
            }
            // The first copy counts: the answer waits until it is durable, as that of the first would have.
            Err(AppendError::Duplicate { base_offset, last_offset }) => {
                let produced = Produced {
                    base_offset,
                    log_append_time_ms: None,
                    log_start,
                    duplicate: true,
                    repeats: Vec::new(),
                };
                Ok((produced, last_offset.plus(1)))
            }
            Err(error) => Err(self.append_error(error)),
        }
    }

    fn append_error(&self, error: AppendError) -> ServeError {
        match error {
            AppendError::TooLarge { size, max } => ServeError::RecordTooLarge { size, max },
            AppendError::Corrupt(error) => ServeError::CorruptRecord(error.to_string()),
            AppendError::Invalid(why) => ServeError::InvalidRecord(why.to_string()),
            error @ AppendError::OutOfOrderSequence { .. } => {
                ServeError::OutOfOrderSequence(error.to_string())
            }
            AppendError::Duplicate { .. } => unreachable!("answered by its caller"),
            error @ AppendError::ProducerFenced { .. } => ServeError::ProducerFenced(error.to_string()),
            AppendError::StorageFull => ServeError::StorageFull,
            AppendError::KeysNotRead => ServeError::KeysNotRead,
            AppendError::Damaged { from } => ServeError::Damaged(from),
            error => ServeError::Storage(error.to_string()),
        }
    }

    /// The leading state, if this node leads at the epoch that the client knows.
    fn leading<'a>(
        &self,
        state: &'a mut State,
        asked: Option<LeaderEpoch>,
    ) -> Result<&'a mut super::Leading, ServeError> {
        if state.stopped {
            return Err(ServeError::ShuttingDown);
        }
        match &mut state.role {
            RoleState::Leader(leading) => {
                let current = leading.core.epoch();
                match asked {
                    Some(asked) if asked < current => Err(ServeError::FencedLeaderEpoch { asked, current }),
                    Some(asked) if asked > current => Err(ServeError::UnknownLeaderEpoch { asked, current }),
                    _ => Ok(leading),
                }
            }
            RoleState::Follower(following) => {
                Err(ServeError::NotLeader { leader: Some(following.leader), epoch: following.core.epoch() })
            }
            RoleState::Idle(_) => {
                if state.damage.is_some()
                    && let Some(from) = self.log.damaged()
                {
                    return Err(ServeError::Damaged(from));
                }
                let image = self.context.image();
                let agreed = image.partition(self.tp);
                // The image may name this node while it has not taken up the role (again) yet.
                let leader = agreed.and_then(|p| p.leader).filter(|leader| *leader != self.context.id);
                Err(ServeError::NotLeader {
                    leader,
                    epoch: agreed.map_or(LeaderEpoch(0), |p| p.leader_epoch),
                })
            }
        }
    }

    // ---- reads ----

    /// Woken (once) when the high watermark advances or the role ends.
    pub fn wake_on_change(&self, waiter: &Arc<FetchWaiter>) {
        self.state.lock().waiters.add(waiter);
    }

    /// What is visible from an offset on.
    pub fn read(&self, request: &ReadRequest) -> Result<Fetched, ServeError> {
        let (end, mut fetched) = {
            let mut state = self.state.lock();
            let leading = self.leading(&mut state, request.leader_epoch)?;
            let core = &leading.core;
            let fetched = Fetched {
                batches: Bytes::new(),
                high_watermark: core.high_watermark(),
                log_start: core.log_start(),
                leader_epoch: core.epoch(),
                diverging: None,
            };
            if let Some(diverging) = self.divergence(core, request) {
                return Ok(Fetched { diverging: Some(diverging), ..fetched });
            }
            match core.read_check(request.from) {
                ReadCheck::Ready { end } => (end, fetched),
                ReadCheck::AtEnd => return Ok(fetched),
                ReadCheck::NotAvailable => return Err(ServeError::OffsetNotAvailable),
                ReadCheck::OutOfRange { log_start, .. } => {
                    return Err(ServeError::OffsetOutOfRange { log_start, end: core.high_watermark() });
                }
            }
        };
        if request.max_bytes == 0 && !request.min_one_batch {
            return Ok(fetched);
        }
        // Below the high watermark nothing changes in an epoch, so this needs no lock. Whatever came of it counts only
        // if the epoch still holds: the log may have been truncated and grown again meanwhile.
        let read = self.log.read(request.from, request.max_bytes, request.min_one_batch, end);
        self.still_leads(fetched.leader_epoch)?;
        match read {
            Ok(read) => {
                fetched.batches = read.bytes;
                Ok(fetched)
            }
            Err(error) => Err(self.read_error(error)),
        }
    }

    /// That the epoch in which something was read without the lock has not ended.
    fn still_leads(&self, epoch: LeaderEpoch) -> Result<(), ServeError> {
        self.leading(&mut self.state.lock(), Some(epoch)).map(|_| ())
    }

    fn read_error(&self, error: ReadError) -> ServeError {
        match error {
            ReadError::OutOfRange { log_start, log_end } => {
                ServeError::OffsetOutOfRange { log_start, end: log_end }
            }
            ReadError::Damaged { from } => {
                self.look_for_damage();
                ServeError::Damaged(from)
            }
            error => ServeError::Storage(error.to_string()),
        }
    }

    /// KIP-320: the record before the asked offset is not the one that this log has there.
    fn divergence(&self, core: &Leader, request: &ReadRequest) -> Option<(Option<LeaderEpoch>, Offset)> {
        let last = request.last_fetched_epoch?;
        match self.log.end_of_epoch(last) {
            Some((epoch, end)) if epoch != last || end < request.from => Some((Some(epoch), end)),
            Some(_) => None,
            // Everything of that epoch has been deleted: the log start decides.
            None if request.from <= core.log_start() => None,
            None => Some((None, core.log_start())),
        }
    }

    /// First visible record at or after a time; `-1` latest, `-2` earliest, `-3` the largest timestamp.
    /// Returns offset, timestamp and the leader epoch there.
    pub fn list_offset(
        &self,
        timestamp_ms: i64,
        leader_epoch: Option<LeaderEpoch>,
    ) -> Result<(Option<Offset>, i64, LeaderEpoch), ServeError> {
        let mut state = self.state.lock();
        let leading = self.leading(&mut state, leader_epoch)?;
        let (epoch, log_start, end) =
            (leading.core.epoch(), leading.core.log_start(), leading.core.high_watermark());
        if timestamp_ms == EARLIEST {
            return Ok((Some(log_start), -1, epoch));
        }
        if !leading.core.offsets_available() {
            return Err(ServeError::OffsetNotAvailable);
        }
        if timestamp_ms == LATEST {
            return Ok((Some(end), -1, epoch));
        }
        drop(state);
        let found = match timestamp_ms {
            MAX_TIMESTAMP => self.log.max_timestamp(),
            _ => self.log.offset_for_timestamp(timestamp_ms),
        };
        self.still_leads(epoch)?;
        match found.map_err(|error| self.read_error(error))? {
            Some((offset, at)) if offset < end => Ok((Some(offset), at, epoch)),
            _ => Ok((None, -1, epoch)),
        }
    }

    /// The epoch of the record at an offset (or, at the end, of the last one).
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.log.epoch_at(offset)
    }

    /// The largest epoch that is at most `asked` and where it ends, while this node leads (KIP-320). An epoch in
    /// which nothing was written ends where it began.
    pub fn end_of_epoch(
        &self,
        asked: LeaderEpoch,
        leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<(LeaderEpoch, Offset)>, ServeError> {
        let mut state = self.state.lock();
        let leading = self.leading(&mut state, leader_epoch)?;
        let current = leading.core.epoch();
        Ok(match self.log.end_of_epoch(asked) {
            _ if asked > current => None,
            _ if asked == current => Some((current, self.log.log_end())),
            found => found,
        })
    }

    /// The idempotent producers that wrote to this partition.
    pub fn producers(&self) -> Result<Vec<KnownProducer>, ServeError> {
        let epoch = self.leading(&mut self.state.lock(), None)?.core.epoch();
        let known = self.log.producers(MAX_LISTED_PRODUCERS);
        self.still_leads(epoch)?;
        known.map_err(|error| self.read_error(error))
    }

    /// Bytes on this node's disk, and how many records its visible end lies behind its log end.
    pub fn size_and_lag(&self) -> (u64, i64) {
        let marks = self.marks();
        (self.log.size_bytes(), (marks.log_end.0 - marks.high_watermark.0).max(0))
    }

    /// DeleteRecords: moves the log start up to `before` (`None`: the high watermark).
    pub fn delete_records(&self, before: Option<Offset>) -> Result<Offset, ServeError> {
        let mut state = self.state.lock();
        let leading = self.leading(&mut state, None)?;
        let high_watermark = leading.core.high_watermark();
        let to = before.unwrap_or(high_watermark);
        if to > high_watermark || to < Offset::ZERO {
            return Err(ServeError::OffsetOutOfRange {
                log_start: leading.core.log_start(),
                end: high_watermark,
            });
        }
        self.log.advance_log_start(to).map_err(|error| ServeError::Storage(error.to_string()))?;
        leading.core.log_start_moved(self.log.log_start());
        for feed in leading.feeds.values() {
            feed.session.mark_ready(self.tp);
        }
        Ok(self.log.log_start())
    }

    /// Retention has run.
    pub fn log_start_may_have_moved(&self) {
        if let RoleState::Leader(leading) = &mut self.state.lock().role {
            let log_start = self.log.log_start();
            if log_start > leading.core.log_start() {
                leading.core.log_start_moved(log_start);
                leading.feeds.values().for_each(|feed| feed.session.mark_ready(self.tp));
            }
        }
    }

    // ---- flushes and followers ----

    /// The journal has made more durable. The log's own flushed end is the truth: it has dropped completions
    /// that a truncation overtook.
    pub(super) fn flushed(&self) {
        let mut after = After::default();
        {
            let mut state = self.state.lock();
            let end = self.log.flushed_end();
            let effects = match &mut state.role {
                RoleState::Leader(leading) => leading.core.flushed(leading.core.flush_token(), end),
                RoleState::Follower(following) => {
                    following.flushed(self.tp, end);
                    Effects::default()
                }
                RoleState::Idle(_) => Effects::default(),
            };
            self.follow_up(&mut state, effects, &mut after);
        }
        self.carry_out(after);
    }

    /// A follower's request or acknowledgement.
    pub fn replica_fetch(&self, session: &Arc<ReplicaSession>, fetch: &ReplicaFetchPartition) {
        let mut after = After::default();
        {
            let mut state = self.state.lock();
            let now_ms = self.context.now_ms();
            let epoch = LeaderEpoch(fetch.leader_epoch);
            let effects = match &mut state.role {
                RoleState::Leader(leading) if fetch.stop => {
                    if leading
                        .feeds
                        .get(&session.broker)
                        .is_some_and(|feed| Arc::ptr_eq(&feed.session, session))
                    {
                        leading.feeds.remove(&session.broker);
                    }
                    Effects::default()
                }
                RoleState::Leader(leading) if fetch.ack_only => {
                    let ack = FollowerAck {
                        broker: session.broker,
                        broker_epoch: session.broker_epoch,
                        leader_epoch: epoch,
                        number: fetch.number,
                        flushed_end: Offset(fetch.flushed_end),
                    };
                    leading.core.follower_ack(&ack, now_ms).1
                }
                RoleState::Leader(leading) => {
                    let request = FollowerFetch {
                        broker: session.broker,
                        broker_epoch: session.broker_epoch,
                        leader_epoch: epoch,
                        number: fetch.number,
                        next_offset: Offset(fetch.next_offset),
                        last_epoch: (fetch.last_fetched_epoch >= 0)
                            .then_some(LeaderEpoch(fetch.last_fetched_epoch)),
                        flushed_end: Offset(fetch.flushed_end),
                    };
                    let (decision, effects) =
                        leading.core.follower_fetch(&request, |asked| self.log.end_of_epoch(asked), now_ms);
                    self.answer_follower(leading, session, fetch, decision);
                    effects
                }
                RoleState::Follower(_) | RoleState::Idle(_) => {
                    if !fetch.ack_only && !fetch.stop {
                        session.answer(refusal(fetch, Outcome::NotLeader));
                    }
                    Effects::default()
                }
            };
            self.follow_up(&mut state, effects, &mut after);
        }
        self.carry_out(after);
    }

    fn answer_follower(
        &self,
        leading: &mut super::Leading,
        session: &Arc<ReplicaSession>,
        fetch: &ReplicaFetchPartition,
        decision: FetchDecision,
    ) {
        let refused = |outcome| refusal(fetch, outcome);
        match decision {
            FetchDecision::Send { from } => {
                let outstanding = Some(Outstanding { number: fetch.number, from });
                let feed = leading.feeds.entry(session.broker).or_insert_with(|| Feed {
                    session: session.clone(),
                    outstanding: None,
                    sent_high_watermark: Offset::ZERO,
                    sent_log_start: Offset::ZERO,
                });
                if !Arc::ptr_eq(&feed.session, session) {
                    // A newer stream takes over; what the older one still says no longer counts here.
                    if feed.session.number > session.number {
                        return;
                    }
                    feed.session = session.clone();
                }
                feed.outstanding = outstanding;
                if leading.core.log_end() > from {
                    session.mark_ready(self.tp);
                }
            }
            FetchDecision::Diverging { epoch, end } => session.answer(ReplicaDataPartition {
                diverging_epoch: epoch.map_or(-1, |epoch| epoch.0),
                diverging_end: end.0,
                ..refused(Outcome::Diverging)
            }),
            FetchDecision::BelowLogStart { log_start } => {
                session.answer(ReplicaDataPartition {
                    log_start_offset: log_start.0,
                    ..refused(Outcome::BelowLogStart)
                });
            }
            FetchDecision::Refused(why) => session.answer(refused(match why {
                Refusal::FencedEpoch { .. } => Outcome::RefusedEpoch,
                Refusal::NotLeader { .. } | Refusal::NotReplica(_) | Refusal::NoFetch => Outcome::NotLeader,
                Refusal::StaleBroker => Outcome::StaleBroker,
            })),
        }
    }

    /// What to send to a follower now, and its batches: data for its outstanding request, or marks that moved, or
    /// nothing.
    pub fn take_replica_data(
        &self,
        session: &Arc<ReplicaSession>,
        max_bytes: usize,
    ) -> Option<(ReplicaDataPartition, Vec<Bytes>)> {
        let (epoch, outstanding, end) = {
            let mut state = self.state.lock();
            let leading = self.leading(&mut state, None).ok()?;
            let feed =
                leading.feeds.get(&session.broker).filter(|feed| Arc::ptr_eq(&feed.session, session))?;
            (leading.core.epoch(), feed.outstanding?, leading.core.log_end())
        };
        // A leader's log only grows in its epoch, so it may be read without the lock; whether the epoch still
        // holds is looked at again below.
        let read = match outstanding.from < end {
            true => self.log.read_slices(outstanding.from, max_bytes, end),
            false => Ok(Vec::new()),
        };
        let mut state = self.state.lock();
        let leading = self.leading(&mut state, None).ok()?;
        if leading.core.epoch() != epoch {
            return None;
        }
        let (high_watermark, log_start) = (leading.core.high_watermark(), leading.core.log_start());
        let held_by_all = leading.core.held_by_all().unwrap_or(Offset::ZERO);
        let feed = leading.feeds.get_mut(&session.broker)?;
        if !Arc::ptr_eq(&feed.session, session) || feed.outstanding != Some(outstanding) {
            return None;
        }
        let answer = ReplicaDataPartition {
            topic_id: Bytes::copy_from_slice(self.tp.topic.0.as_bytes()),
            partition: self.tp.partition.0,
            leader_epoch: epoch.0,
            number: outstanding.number,
            outcome: Outcome::Data as i32,
            base_offset: outstanding.from.0,
            high_watermark: high_watermark.0,
            log_start_offset: log_start.0,
            held_by_all: held_by_all.0,
            ..Default::default()
        };
        match read {
            Ok(batches) if batches.is_empty() => {
                // Marks alone leave the request outstanding.
                if feed.sent_high_watermark == high_watermark && feed.sent_log_start == log_start {
                    return None;
                }
                (feed.sent_high_watermark, feed.sent_log_start) = (high_watermark, log_start);
                Some((answer, Vec::new()))
            }
            Ok(batches) => {
                feed.outstanding = None;
                (feed.sent_high_watermark, feed.sent_log_start) = (high_watermark, log_start);
                let batch_bytes = batches.iter().map(Bytes::len).sum::<usize>();
                let batch_bytes = u32::try_from(batch_bytes).expect("a read is bounded");
                Some((ReplicaDataPartition { batch_bytes, ..answer }, batches))
            }
            Err(ReadError::OutOfRange { log_start, .. }) if outstanding.from < log_start => {
                feed.outstanding = None;
                let outcome = Outcome::BelowLogStart as i32;
                Some((ReplicaDataPartition { outcome, log_start_offset: log_start.0, ..answer }, Vec::new()))
            }
            Err(error) => {
                feed.outstanding = None;
                drop(state);
                let error = self.read_error(error);
                tracing::warn!(partition = %self.tp, %error, "a follower could not be served");
                Some((ReplicaDataPartition { outcome: Outcome::Error as i32, ..answer }, Vec::new()))
            }
        }
    }

    /// A follower's stream ended.
    pub fn replica_gone(&self, session: &Arc<ReplicaSession>) {
        if let RoleState::Leader(leading) = &mut self.state.lock().role {
            leading.feeds.retain(|_, feed| !Arc::ptr_eq(&feed.session, session));
        }
    }
}

const MAX_LISTED_PRODUCERS: usize = 10_000;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

fn produced(appended: Appended, log_start: Offset) -> Produced {
    Produced {
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time,
        log_start,
        duplicate: false,
        repeats: appended.repeats,
    }
}

fn refusal(fetch: &ReplicaFetchPartition, outcome: Outcome) -> ReplicaDataPartition {
    ReplicaDataPartition {
        topic_id: fetch.topic_id.clone(),
        partition: fetch.partition,
        leader_epoch: fetch.leader_epoch,
        number: fetch.number,
        outcome: outcome as i32,
        ..Default::default()
    }
}
