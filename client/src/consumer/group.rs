//! Membership in a group: joining, heartbeats, commits, leaving. [`super::membership`] says which steps a
//! rebalance takes and in which order; here they are carried out.
//!
//! Three tasks: [`run`] joins and rebalances, [`super::heartbeat::heartbeat`] says that the member lives whether or not the
//! application asks for records (but leaves the group if it has not for `max_poll_interval`), and
//! [`super::heartbeat::commit_periodically`] commits at an interval. They meet in [`GroupShared`].

use super::heartbeat::leave;
use super::join::{Setback, join_and_sync};
use super::membership::{Cause, Membership, Partitions, Step};
use super::{ConsumerHandle, Shared};
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::types::{OffsetAndMetadata, TopicPartition};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_wire::assign::RebalanceProtocol;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Who the consumer is in its group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Empty before the coordinator has given one.
    pub(crate) id: String,
    /// -1 while it is no member.
    pub(crate) generation: i32,
    /// Joined and synced: heartbeats are due.
    pub(super) stable: bool,
}

/// How the consumer came by its partitions.
#[derive(Debug, Default)]
pub(super) enum Mode {
    #[default]
    None,
    Subscribed(BTreeSet<String>),
    Assigned,
}

pub(super) struct State {
    pub(super) mode: Mode,
    pub(super) member: Member,
    rejoin: Option<Cause>,
    /// The group refuses this consumer for good; its user has been told.
    refused: bool,
}

pub(crate) struct GroupShared {
    pub(super) state: Mutex<State>,
    changed: Notify,
    closing: watch::Sender<bool>,
    closed: watch::Sender<Option<Result<()>>>,
    /// Commits go out one after the other, so that an older one never overwrites a newer one.
    pub(crate) committing: tokio::sync::Mutex<()>,
    /// Offsets for [`commit_later`](Self::commit_later), the newest of each partition.
    pub(super) later: Mutex<BTreeMap<TopicPartition, OffsetAndMetadata>>,
    pub(super) commit_wanted: Notify,
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

    /// Partitions are read without membership.
    pub(crate) fn is_assigned(&self) -> bool {
        matches!(self.state.lock().mode, Mode::Assigned)
    }

    /// Partitions are read as the group hands them out.
    pub(crate) fn is_subscribed(&self) -> bool {
        matches!(self.state.lock().mode, Mode::Subscribed(_))
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

    /// The generation that `member` was in rebalances. Ignored if it has moved on already.
    pub(crate) fn rebalancing(&self, member: &Member) {
        let now = self.member();
        if now.id == member.id && now.generation == member.generation && now.stable {
            self.rejoin(Cause::Rebalance);
        }
    }

    /// The group will not have `member` any more: nothing will be joined again. Answers whether that is so; it is not if
    /// the consumer is another member by now: a static one that joins again takes its own place, and what it still had
    /// under way under its old name is fenced (KIP-345).
    pub(crate) fn refuse(&self, member: &Member) -> bool {
        let mut state = self.state.lock();
        if state.member.id != member.id || state.member.generation != member.generation {
            return false;
        }
        state.refused = true;
        drop(state);
        self.lost(&member.id, member.generation, true);
        true
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
                    && let Some(cause) = state.rejoin.take()
                    && (!state.refused || cause == Cause::Lost)
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
                if self.shared.group.state.lock().refused {
                    return;
                }
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
        let member = self.shared.group.member();
        let offsets = self.shared.state.lock().positions.offsets(true, |tp| partitions.contains(tp));
        self.handle().commit_as(&member, &offsets).await
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

/// Carries steps out as a rebalance would.
#[cfg(test)]
pub(super) async fn execute_for_test(shared: &Arc<Shared>, steps: Vec<Step>) {
    let backoff = Backoff::new(shared.client.inner.options.retry);
    let membership = Membership::new(RebalanceProtocol::Cooperative);
    Driver { membership, backoff, watched: BTreeMap::new(), shared: shared.clone() }.execute(steps).await;
}

#[cfg(test)]
mod refusal_tests {
    use super::*;

    /// A static member joined again while a heartbeat under its old name was on its way, which was fenced.
    #[test]
    fn a_refusal_of_who_it_was_before_does_not_end_who_it_is_now() {
        let group = GroupShared::default();
        let member = |id: &str, generation| Member { id: id.to_owned(), generation, stable: true };
        let before = member("m-1", 4);
        for now in [member("m-2", 5), member("m-1", 5), member("", -1)] {
            group.state.lock().member = now;
            assert!(!group.refuse(&before));
            assert!(!group.state.lock().refused);
        }
        group.state.lock().member = before.clone();
        assert!(group.refuse(&before));
        assert!(group.state.lock().refused && group.member().generation < 0);
    }
}
