//! Membership in a group: joining, heartbeats, commits, leaving. [`super::membership`] says which steps a
//! rebalance takes and in which order; here they are carried out.
//!
//! Three tasks: [`run`] joins and rebalances, [`heartbeat`] says that the member lives whether or not the
//! application asks for records (but leaves the group if it has not for `max_poll_interval`), and
//! [`commit_periodically`] commits at an interval. They meet in [`GroupShared`].

use super::membership::{Cause, Membership, Partitions, Step};
use super::{ConsumerHandle, Shared};
use crate::admin::topics::millis;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorCode, ErrorKind, Result};
use crate::types::{OffsetAndMetadata, TopicPartition};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use strandline_wire::assign::{self, RebalanceProtocol};
use strandline_wire::v1;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

const PROTOCOL_TYPE: &str = "consumer";

/// Who the consumer is in its group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Empty before the coordinator has given one.
    pub(crate) id: String,
    /// -1 while it is no member.
    pub(crate) generation: i32,
    /// Joined and synced: heartbeats are due.
    stable: bool,
}

#[derive(Debug, Default)]
enum Mode {
    #[default]
    None,
    Subscribed(BTreeSet<String>),
    Assigned,
}

struct State {
    mode: Mode,
    member: Member,
    rejoin: Option<Cause>,
    /// The group refuses this consumer for good; its user has been told.
    refused: bool,
}

pub(crate) struct GroupShared {
    state: Mutex<State>,
    changed: Notify,
    closing: watch::Sender<bool>,
    closed: watch::Sender<Option<Result<()>>>,
    /// Commits go out one after the other, so that an older one never overwrites a newer one.
    pub(crate) committing: tokio::sync::Mutex<()>,
    later: Mutex<BTreeMap<TopicPartition, OffsetAndMetadata>>,
    commit_wanted: Notify,
}

impl Default for GroupShared {
    fn default() -> Self {
        GroupShared {
            state: Mutex::new(State {
                mode: Mode::None,
                member: Member { id: String::new(), generation: -1, stable: false },
                rejoin: None,
                refused: false,
            }),
            changed: Notify::new(),
            closing: watch::channel(false).0,
            closed: watch::channel(None).0,
            committing: tokio::sync::Mutex::new(()),
            later: Mutex::default(),
            commit_wanted: Notify::new(),
        }
    }
}

impl GroupShared {
    pub(crate) fn subscribe(&self, topics: Vec<String>) -> Result<()> {
        let mut state = self.state.lock();
        if matches!(state.mode, Mode::Assigned) {
            return Err(Error::invalid("this consumer has partitions assigned; subscribe with another one"));
        }
        state.mode = Mode::Subscribed(topics.into_iter().collect());
        state.rejoin = state.rejoin.max(Some(Cause::Rebalance));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn assign(&self) -> Result<()> {
        let mut state = self.state.lock();
        if matches!(state.mode, Mode::Subscribed(_)) {
            return Err(Error::invalid("this consumer is subscribed; assign partitions to another one"));
        }
        state.mode = Mode::Assigned;
        Ok(())
    }

    pub(crate) fn member(&self) -> Member {
        self.state.lock().member.clone()
    }

    pub(crate) fn rejoin(&self, cause: Cause) {
        let mut state = self.state.lock();
        state.rejoin = state.rejoin.max(Some(cause));
        drop(state);
        self.changed.notify_one();
    }

    /// The group has given up the member that `id` and `generation` name. Ignored if it is another one by now.
    pub(crate) fn lost(&self, id: &str, generation: i32, forget_id: bool) {
        let mut state = self.state.lock();
        if state.member.id != id || state.member.generation != generation {
            return;
        }
        state.member.generation = -1;
        state.member.stable = false;
        if forget_id {
            state.member.id.clear();
        }
        state.rejoin = Some(Cause::Lost);
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn commit_later(&self, offsets: BTreeMap<TopicPartition, OffsetAndMetadata>) {
        self.later.lock().extend(offsets);
        self.commit_wanted.notify_one();
    }
}

/// Says that the consumer ends, and waits until it has left its group.
pub(super) async fn close(shared: &Arc<Shared>) -> Result<()> {
    if shared.options.group.is_none() {
        return Ok(());
    }
    // Whoever closes has processed what it was given: a gate that is being closed may close.
    shared.change(|state| state.in_poll = true);
    shared.entered_poll.notify_waiters();
    let mut closed = shared.group.closed.subscribe();
    shared.group.closing.send_replace(true);
    // The steps have deadlines of their own; this only bounds a listener that does not return.
    let limit = shared.client.inner.options.operation_timeout * 3;
    match tokio::time::timeout(limit, closed.wait_for(Option::is_some)).await {
        Ok(Ok(result)) => result.clone().expect("waited for"),
        _ => Err(Error::indeterminate(
            "the consumer did not finish closing in time; its last commit may be missing",
        )),
    }
}

/// The task that joins and rebalances.
pub(super) async fn run(shared: Arc<Shared>) {
    let cooperative = |a: &super::Assignor| a.rules().protocol() == RebalanceProtocol::Cooperative;
    let protocol = if shared.options.assignors.iter().all(cooperative) {
        RebalanceProtocol::Cooperative
    } else {
        RebalanceProtocol::Eager
    };
    let backoff = Backoff::new(shared.client.inner.options.retry);
    let mut driver =
        Driver { membership: Membership::new(protocol), backoff, watched: BTreeMap::new(), shared };
    let mut closing = driver.shared.group.closing.subscribe();
    loop {
        let cause = driver.wait(&mut closing).await;
        match cause {
            Some(cause) => driver.rebalance(cause, &mut closing).await,
            None => {
                let result = driver.close().await;
                driver.shared.group.closed.send_replace(Some(result));
                return;
            }
        }
    }
}

struct Driver {
    shared: Arc<Shared>,
    membership: Membership,
    backoff: Backoff,
    /// As leader: the topics that the last assignment was made from, with their partitions (0: none such).
    watched: BTreeMap<String, i32>,
}

/// Why an attempt to join came to nothing.
enum Setback {
    /// Again, at once or after a delay.
    Again {
        cause: Cause,
        at_once: bool,
    },
    Refused(Error),
    Closing,
}

impl Driver {
    /// Until there is reason to join, or `None`: to close.
    async fn wait(&mut self, closing: &mut watch::Receiver<bool>) -> Option<Cause> {
        let inner = self.shared.client.inner.clone();
        let mut metadata = inner.metadata_version();
        let mut next_refresh = Instant::now() + inner.options.metadata_max_age;
        loop {
            if *closing.borrow_and_update() {
                return None;
            }
            {
                let mut state = self.shared.group.state.lock();
                if matches!(state.mode, Mode::Subscribed(_))
                    && !state.refused
                    && let Some(cause) = state.rejoin.take()
                {
                    return Some(cause);
                }
            }
            tokio::select! {
                biased;
                _ = closing.changed() => {}
                () = self.shared.group.changed.notified() => {}
                _ = metadata.changed(), if !self.watched.is_empty() => {
                    if self.watched_changed() {
                        return Some(Cause::Rebalance);
                    }
                }
                () = tokio::time::sleep_until(next_refresh), if !self.watched.is_empty() => {
                    next_refresh = Instant::now() + inner.options.metadata_max_age;
                    let topics: Vec<String> = self.watched.keys().cloned().collect();
                    if let Err(error) = inner.refresh(&topics).await {
                        tracing::debug!(%error, "metadata refresh failed");
                    }
                    if self.watched_changed() {
                        return Some(Cause::Rebalance);
                    }
                }
            }
        }
    }

    /// The leader joins again when a topic has come, gone or grown.
    fn watched_changed(&self) -> bool {
        let metadata = self.shared.client.inner.metadata.lock();
        let now = |topic: &str| metadata.topic(topic).map_or(0, |t| t.partitions.len() as i32);
        self.watched.iter().any(|(topic, partitions)| now(topic) != *partitions)
    }

    async fn rebalance(&mut self, mut cause: Cause, closing: &mut watch::Receiver<bool>) {
        loop {
            if cause == Cause::Lost {
                // Joins again only for an application that asks for records.
                self.lose_everything().await;
            } else {
                let subscribed = match &self.shared.group.state.lock().mode {
                    Mode::Subscribed(topics) => topics.clone(),
                    _ => BTreeSet::new(),
                };
                let steps = self.membership.prepare(cause, |topic| subscribed.contains(topic));
                self.execute(steps).await;
            }
            // Whatever asked for this rebalance is answered by it.
            self.shared.group.state.lock().rejoin = None;
            let setback = match self.join(closing).await {
                Ok(assignment) => {
                    self.backoff.reset();
                    let steps = self.membership.complete(assignment);
                    self.execute(steps).await;
                    return;
                }
                Err(setback) => setback,
            };
            match setback {
                Setback::Closing => return,
                Setback::Refused(error) => {
                    self.shared.group.state.lock().refused = true;
                    self.lose_everything().await;
                    self.shared.tell(error);
                    return;
                }
                Setback::Again { cause: next, at_once } => {
                    cause = next;
                    if !at_once {
                        let delay = self.shared.client.inner.delay(&mut self.backoff);
                        tokio::select! {
                            biased;
                            _ = closing.changed() => return,
                            () = tokio::time::sleep(delay) => {}
                        }
                    }
                }
            }
        }
    }

    /// Carries steps out in order. If the group gives the member up meanwhile, what is left of them is void: the
    /// partitions are lost.
    async fn execute(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Gate => {
                    self.shared.close_gate().await;
                    if self.shared.group.state.lock().rejoin == Some(Cause::Lost) {
                        return self.lose_everything().await;
                    }
                }
                Step::Commit(partitions) => {
                    if let Err(error) = self.commit_consumed(&partitions).await {
                        tracing::warn!(%error, "automatic commit before giving partitions up failed");
                    }
                }
                Step::Revoked(partitions) => {
                    let list: Vec<_> = partitions.iter().cloned().collect();
                    if let Some(listener) = &self.shared.options.listener {
                        listener.on_revoked(&self.handle(), &list).await;
                    }
                    self.shared.change(|state| state.positions.unassign(&partitions));
                }
                Step::Lost(_) => self.lose_everything().await,
                Step::Assigned(partitions) => {
                    let list: Vec<_> = partitions.iter().cloned().collect();
                    tracing::info!(group = ?self.shared.options.group, new = ?list, "partitions assigned");
                    self.shared.change(|state| state.positions.assign(partitions, true));
                    if let Some(listener) = &self.shared.options.listener {
                        listener.on_assigned(&self.handle(), &list).await;
                    }
                }
                Step::Open => self.shared.open_gate(),
                Step::Rejoin => self.shared.group.rejoin(Cause::Rebalance),
            }
        }
    }

    /// The group has given the member up: its partitions may be someone else's already.
    async fn lose_everything(&mut self) {
        self.shared.close_gate().await;
        for step in self.membership.lose() {
            if let Step::Lost(partitions) = step {
                let list: Vec<_> = partitions.iter().cloned().collect();
                tracing::warn!(group = ?self.shared.options.group, lost = ?list, "partitions lost");
                if let Some(listener) = &self.shared.options.listener {
                    listener.on_lost(&self.handle(), &list).await;
                }
            }
        }
        self.shared.change(|state| {
            let all = state.positions.assignment();
            state.positions.unassign(&all);
        });
        self.shared.open_gate();
    }

    fn handle(&self) -> ConsumerHandle {
        ConsumerHandle { shared: self.shared.clone() }
    }

    async fn commit_consumed(&self, partitions: &Partitions) -> Result<()> {
        if self.shared.options.auto_commit.is_none() {
            return Ok(());
        }
        let _in_order = self.shared.group.committing.lock().await;
        let offsets = self.shared.state.lock().positions.offsets(true, |tp| partitions.contains(tp));
        self.handle().commit_now(&offsets).await
    }

    /// Joins and syncs once. Returns the assignment.
    async fn join(&mut self, closing: &mut watch::Receiver<bool>) -> Result<Partitions, Setback> {
        let topics = {
            let mut state = self.shared.group.state.lock();
            // No heartbeat of the old generation while the new one forms.
            state.member.stable = false;
            match &state.mode {
                Mode::Subscribed(topics) => topics.clone(),
                _ => return Err(Setback::Closing),
            }
        };
        let joining = join_and_sync(&self.shared, &topics, self.membership.owned());
        let (assignment, watched) = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return Err(Setback::Closing),
            joined = joining => joined?,
        };
        self.watched = watched;
        self.shared.group.state.lock().member.stable = true;
        Ok(assignment)
    }

    async fn close(&mut self) -> Result<()> {
        let mut result = Ok(());
        let subscribed = matches!(self.shared.group.state.lock().mode, Mode::Subscribed(_));
        if subscribed {
            for step in self.membership.close() {
                match step {
                    Step::Commit(partitions) => result = self.commit_consumed(&partitions).await,
                    other => self.execute(vec![other]).await,
                }
            }
            leave(&self.shared, "the consumer was closed").await;
        } else {
            let all: Partitions = self.shared.state.lock().positions.assignment().into_iter().collect();
            result = self.commit_consumed(&all).await;
        }
        result
    }
}

type Joined = (Partitions, BTreeMap<String, i32>);

async fn join_and_sync(
    shared: &Arc<Shared>,
    topics: &BTreeSet<String>,
    owned: &Partitions,
) -> Result<Joined, Setback> {
    let (inner, options) = (&shared.client.inner, &shared.options);
    let group = options.group.as_deref().expect("a subscription has a group");
    let instance = options.instance_id.clone().unwrap_or_default();
    let address = match inner.coordinator(group).await {
        Ok(address) => address,
        Err(error) => return Err(setback(shared, group, &error)),
    };
    let member = shared.group.member();
    let protocols = options
        .assignors
        .iter()
        .map(|assignor| {
            let generation = (member.generation >= 0).then_some(member.generation);
            let subscription = assign::Subscription {
                topics: topics.iter().cloned().collect(),
                user_data: assignor.rules().subscription_user_data(generation),
                owned_partitions: owned.iter().map(|tp| (tp.topic.to_string(), tp.partition)).collect(),
                generation,
                rack: None,
                instance_id: None,
            };
            let metadata =
                subscription.encode().map_err(|e| Setback::Refused(Error::invalid(e.to_string())))?;
            Ok(v1::GroupProtocol { name: assignor.rules().name().to_owned(), metadata: metadata.into() })
        })
        .collect::<Result<Vec<_>, Setback>>()?;
    let request = v1::JoinGroupRequest {
        group: group.to_owned(),
        member_id: member.id.clone(),
        instance_id: instance.clone(),
        client_id: inner.options.client_id.clone(),
        session_timeout_ms: millis(options.session_timeout),
        rebalance_timeout_ms: millis(options.max_poll_interval),
        protocol_type: PROTOCOL_TYPE.to_owned(),
        protocols,
    };
    // The coordinator answers when all members have joined, or the rebalance time-out is over.
    let patience = options.max_poll_interval + inner.options.request_timeout;
    let mut wire = inner.wire(&address).map_err(Setback::Refused)?;
    let joined = match tokio::time::timeout(patience, wire.join_group(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Err(setback(shared, group, &Error::from_status(&status, &address))),
        Err(_) => {
            let error = Error::indeterminate(format!("{address} did not answer a join within {patience:?}"));
            return Err(setback(shared, group, &error));
        }
    };
    if let Some(error) = Error::from_wire(joined.error.as_ref()) {
        if error.code() == Some(ErrorCode::MemberIdRequired) && !joined.member_id.is_empty() {
            shared.group.state.lock().member.id = joined.member_id;
            return Err(Setback::Again { cause: Cause::Rebalance, at_once: true });
        }
        return Err(setback(shared, group, &error));
    }
    {
        let mut state = shared.group.state.lock();
        state.member.id.clone_from(&joined.member_id);
        state.member.generation = joined.generation;
    }
    tracing::info!(
        group,
        member = joined.member_id,
        generation = joined.generation,
        leads = joined.leader == joined.member_id,
        "joined"
    );
    let (assignments, watched) = if joined.leader == joined.member_id {
        share_out(shared, &joined).await.map_err(|error| setback(shared, group, &error))?
    } else {
        (Vec::new(), BTreeMap::new())
    };
    let request = v1::SyncGroupRequest {
        group: group.to_owned(),
        generation: joined.generation,
        member_id: joined.member_id.clone(),
        instance_id: instance,
        assignments,
    };
    let synced = inner
        .call_once(&address, patience, |mut wire| Box::pin(async move { wire.sync_group(request).await }))
        .await
        .map_err(|error| setback(shared, group, &error))?;
    let assignment = assign::Assignment::decode(&synced.assignment).map_err(|error| {
        Setback::Refused(Error::protocol(format!(
            "the leader of group {group} sent an assignment that cannot be read: {error}"
        )))
    })?;
    let partitions =
        assignment.partitions.into_iter().map(|(topic, p)| TopicPartition::new(topic, p)).collect();
    Ok((partitions, watched))
}

/// What the leader does: reads the members' subscriptions and shares the partitions out.
async fn share_out(
    shared: &Arc<Shared>,
    joined: &v1::JoinGroupResponse,
) -> Result<(Vec<v1::MemberAssignment>, BTreeMap<String, i32>)> {
    let inner = &shared.client.inner;
    let assignor = assign::assignor(&joined.protocol).ok_or_else(|| {
        Error::protocol(format!(
            "the coordinator chose the assignor {:?}, which nobody here offered",
            joined.protocol
        ))
    })?;
    let mut members = BTreeMap::new();
    for member in &joined.members {
        let mut subscription = assign::Subscription::decode(&member.metadata).map_err(|error| {
            Error::protocol(format!(
                "member {} subscribed in a way that cannot be read: {error}",
                member.member_id
            ))
        })?;
        subscription.instance_id = (!member.instance_id.is_empty()).then(|| member.instance_id.clone());
        members.insert(member.member_id.clone(), subscription);
    }
    let topics: BTreeSet<String> = members.values().flat_map(|s| s.topics.iter().cloned()).collect();
    let names: Vec<String> = topics.iter().cloned().collect();
    inner.refresh(&names).await?;
    let partitions_of =
        |topic: &String| inner.metadata.lock().topic(topic).map_or(0, |t| t.partitions.len() as i32);
    let watched: BTreeMap<String, i32> =
        topics.iter().map(|topic| (topic.clone(), partitions_of(topic))).collect();
    let known = watched.iter().filter(|(_, n)| **n > 0).map(|(topic, n)| (topic.clone(), *n)).collect();
    let mut assignments = Vec::with_capacity(members.len());
    for (member_id, partitions) in assignor.assign(&known, &members) {
        let assignment = assign::Assignment { partitions, user_data: None };
        let bytes = assignment.encode().map_err(|error| Error::invalid(error.to_string()))?;
        assignments.push(v1::MemberAssignment { member_id, assignment: Bytes::from(bytes) });
    }
    Ok((assignments, watched))
}

/// What follows from a failed join or sync.
fn setback(shared: &Shared, group: &str, error: &Error) -> Setback {
    tracing::debug!(group, %error, "not joined yet");
    match error.code() {
        Some(ErrorCode::UnknownMemberId) => {
            let mut state = shared.group.state.lock();
            state.member = Member { id: String::new(), generation: -1, stable: false };
            Setback::Again { cause: Cause::Lost, at_once: true }
        }
        Some(ErrorCode::IllegalGeneration) => {
            shared.group.state.lock().member.generation = -1;
            Setback::Again { cause: Cause::Lost, at_once: true }
        }
        Some(ErrorCode::RebalanceInProgress) => Setback::Again { cause: Cause::Rebalance, at_once: true },
        Some(ErrorCode::MemberIdRequired) => Setback::Again { cause: Cause::Rebalance, at_once: false },
        _ if error.is_retriable() || error.may_have_happened() => {
            shared.client.inner.coordinator_failed(group, error);
            Setback::Again { cause: Cause::Rebalance, at_once: false }
        }
        _ => Setback::Refused(error.clone().context(format_args!("join group {group}"))),
    }
}

/// Leaves the group. A static member stays on its list until its session times out.
async fn leave(shared: &Arc<Shared>, why: &str) {
    let (inner, options) = (&shared.client.inner, &shared.options);
    let Some(group) = &options.group else { return };
    let member = shared.group.member();
    if member.id.is_empty() || options.instance_id.is_some() {
        return;
    }
    let request =
        v1::LeaveGroupRequest { group: group.clone(), member_id: member.id, instance_id: String::new() };
    let left = match inner.coordinator(group).await {
        Ok(address) => {
            let call =
                |mut wire: crate::connection::Wire| -> crate::client::CallFuture<v1::LeaveGroupResponse> {
                    Box::pin(async move { wire.leave_group(request).await })
                };
            inner.call_once(&address, inner.options.request_timeout, call).await.map(drop)
        }
        Err(error) => Err(error),
    };
    match left {
        Ok(()) => tracing::info!(group, why, "left the group"),
        Err(error) => tracing::warn!(group, %error, "could not leave the group; its session will time out"),
    }
}

/// The task that says that the member lives.
pub(super) async fn heartbeat(shared: Arc<Shared>) {
    let (inner, options) = (shared.client.inner.clone(), shared.options.clone());
    let group = options.group.clone().expect("started only with a group");
    let mut polls = 0;
    let mut last_poll = Instant::now();
    let mut backoff = Backoff::new(inner.options.retry);
    let mut pause = options.heartbeat_interval;
    loop {
        tokio::time::sleep(pause).await;
        pause = options.heartbeat_interval;
        let member = shared.group.member();
        let now_polls = shared.polls.load(std::sync::atomic::Ordering::Relaxed);
        if now_polls != polls || shared.state.lock().in_poll || member.generation < 0 {
            (polls, last_poll) = (now_polls, Instant::now());
        }
        if member.generation < 0 {
            continue;
        }
        if last_poll.elapsed() >= options.max_poll_interval {
            tracing::warn!(group, "no record was asked for within max_poll_interval; leaving the group");
            leave(&shared, "no record was asked for within max_poll_interval").await;
            shared.group.lost(&member.id, member.generation, options.instance_id.is_none());
            continue;
        }
        if !member.stable {
            continue;
        }
        match beat(&shared, &group, &member).await {
            Ok(()) => backoff.reset(),
            Err(error) => match error.code() {
                Some(ErrorCode::RebalanceInProgress) => shared.group.rejoin(Cause::Rebalance),
                Some(ErrorCode::IllegalGeneration) => shared.group.lost(&member.id, member.generation, false),
                Some(ErrorCode::UnknownMemberId) => shared.group.lost(&member.id, member.generation, true),
                _ if error.is_retriable() || error.may_have_happened() => {
                    tracing::debug!(group, %error, "heartbeat failed");
                    inner.coordinator_failed(&group, &error);
                    pause = inner.delay(&mut backoff).min(options.heartbeat_interval);
                }
                _ => {
                    shared.group.state.lock().refused = true;
                    shared.group.lost(&member.id, member.generation, true);
                    shared.tell(error.context(format_args!("membership in group {group} ended")));
                }
            },
        }
    }
}

async fn beat(shared: &Arc<Shared>, group: &str, member: &Member) -> Result<()> {
    let inner = &shared.client.inner;
    let address = inner.coordinator(group).await?;
    let request = v1::HeartbeatRequest {
        group: group.to_owned(),
        generation: member.generation,
        member_id: member.id.clone(),
        instance_id: shared.options.instance_id.clone().unwrap_or_default(),
    };
    // A lost heartbeat must leave time for another within the session.
    let timeout =
        inner.options.request_timeout.min(shared.options.session_timeout / 3).max(Duration::from_millis(1));
    inner
        .call_once(&address, timeout, |mut wire| Box::pin(async move { wire.heartbeat(request).await }))
        .await
        .map(drop)
}

/// The task that commits at an interval, and what [`GroupShared::commit_later`] was given.
pub(super) async fn commit_periodically(shared: Arc<Shared>) {
    let mut committed: BTreeMap<TopicPartition, OffsetAndMetadata> = BTreeMap::new();
    let handle = ConsumerHandle { shared: shared.clone() };
    let period = shared.options.auto_commit;
    let mut next = period.map(|period| Instant::now() + period);
    loop {
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.group.commit_wanted.notified() => {
                let _in_order = shared.group.committing.lock().await;
                let mut offsets = std::mem::take(&mut *shared.group.later.lock());
                {
                    // What was given up since is no longer this member's to commit.
                    let state = shared.state.lock();
                    offsets.retain(|tp, _| state.positions.is_assigned(tp));
                }
                if let Err(error) = handle.commit_now(&offsets).await {
                    tracing::warn!(%error, "commit in the background failed");
                }
            }
            () = due => {
                next = period.map(|period| Instant::now() + period);
                {
                    let state = shared.group.state.lock();
                    if matches!(state.mode, Mode::Subscribed(_)) && !state.member.stable {
                        // The rebalance commits.
                        continue;
                    }
                }
                let _in_order = shared.group.committing.lock().await;
                let offsets = shared.state.lock().positions.offsets(true, |_| true);
                let news: BTreeMap<_, _> =
                    offsets.iter().filter(|(tp, offset)| committed.get(tp) != Some(offset)).map(|(tp, o)| (tp.clone(), o.clone())).collect();
                match handle.commit_now(&news).await {
                    Ok(()) => committed = offsets,
                    Err(error) if matches!(error.kind(), ErrorKind::Rebalanced) || error.is_retriable() => {
                        tracing::debug!(%error, "automatic commit failed; the next makes it good");
                    }
                    Err(error) => tracing::warn!(%error, "automatic commit failed"),
                }
            }
        }
    }
}
