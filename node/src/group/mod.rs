//! Group coordination on this node: a thin shell around the deciding `core::group` (classic protocol) and
//! `core::consumer_group` (the new one, KIP-848).
//!
//! A cell holds one group's state, of either protocol, while this node coordinates it. Requests lock the cell, let the core
//! decide, and carry out the effects: answers go to whoever waits, proposals to Raft. What has been agreed
//! comes back through the image ([`Groups::apply`]), in image order.
//!
//! Invariants: a cell adopts only from the image last applied here, so it never sees an older one after a
//! newer; a cell without waiting members or agreed ones is dropped when idle, so that memory follows the
//! groups in use.

mod cell;
mod consumer;
mod offsets;

use crate::context::Context;
use crate::error::ServeError;
use cell::{Cell, CellState, Coordinated, Effects, Limits, Waiter, members_here};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_core::consumer_group::ConsumerGroupLimits;
use strandline_core::group::{
    Answer, Effect, GroupDescription, GroupError, GroupLimits, GroupPhase, GroupState, JoinAnswer,
    JoinRequest, Now, ReplyId, SyncAnswer, SyncRequest, coordinator_for,
};
use strandline_metadata::machine::check_group_id;
use strandline_metadata::{ConsumerGroup, Delta, Group, Image};
use strandline_record::{BrokerId, Generation};
use tokio::sync::oneshot;

/// Groups held at once; more are refused until some end.
const MAX_CELLS: usize = 100_000;
/// Beyond the longest wait that a member asked for.
const GRACE: Duration = Duration::from_secs(10);

/// All groups that this node coordinates.
#[derive(Debug)]
pub struct Groups {
    context: Arc<Context>,
    limits: Limits,
    shared: Mutex<Shared>,
    next_reply: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    image: Option<Arc<Image>>,
    cells: BTreeMap<Arc<str>, Arc<Cell>>,
}

impl Groups {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        let config = &context.config;
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let classic = GroupLimits {
            session_timeout_min_ms: ms(config.group_min_session_timeout),
            session_timeout_max_ms: ms(config.group_max_session_timeout),
            initial_rebalance_delay_ms: ms(config.group_initial_rebalance_delay),
            max_members: config.group_max_size,
            ..GroupLimits::default()
        };
        let consumer = ConsumerGroupLimits {
            session_timeout_ms: ms(config.group_consumer_session_timeout),
            heartbeat_interval_ms: ms(config.group_consumer_heartbeat_interval),
            max_members: config.group_consumer_max_size,
            assignors: config.group_consumer_assignors.clone(),
            ..ConsumerGroupLimits::default()
        };
        let limits = Limits { classic, consumer };
        Arc::new(Groups { context, limits, shared: Mutex::default(), next_reply: AtomicU64::new(1) })
    }

    /// Which broker coordinates the group, as this node's image has it.
    pub fn coordinator(&self, group: &str) -> Option<BrokerId> {
        coordinator(&self.context.image(), group)
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.context.now_ms(), wall_ms: self.context.env.wall_clock_ms() }
    }

    /// The group's cell, if this node coordinates it.
    fn cell(&self, group: &str) -> Result<Arc<Cell>, ServeError> {
        check_group_id(group).map_err(ServeError::InvalidRequest)?;
        let mut shared = self.shared.lock();
        let Some(image) = shared.image.clone() else {
            return Err(ServeError::ClusterNotReady("this node is still starting".to_owned()));
        };
        let coordinator = coordinator(&image, group);
        if coordinator != Some(self.context.id) {
            return Err(ServeError::NotCoordinator(coordinator));
        }
        if let Some(cell) = shared.cells.get(group) {
            return Ok(cell.clone());
        }
        if shared.cells.len() >= MAX_CELLS {
            return Err(ServeError::Throttled);
        }
        let name: Arc<str> = group.into();
        let cell = Cell::adopt(&name, &image, &self.limits, self.now());
        shared.cells.insert(name, cell.clone());
        Ok(cell)
    }

    /// Locks a group of the classic protocol and lets `decide` change it; its effects are carried out.
    fn with<T>(
        self: &Arc<Self>,
        group: &str,
        decide: impl FnOnce(&mut GroupState, Now) -> (T, Vec<Effect>),
    ) -> Result<T, ServeError> {
        self.on_cell(group, |cell, state, now| {
            let Some(Coordinated::Classic(classic)) = state.group.as_mut() else {
                return Err(consumer::not_classic(state.group.as_ref(), false));
            };
            let (value, effects) = decide(classic, now);
            self.carry_out(cell, state, Effects::Classic(effects));
            Ok(value)
        })?
    }

    /// The image last applied here.
    fn image_here(&self) -> Result<Arc<Image>, ServeError> {
        let image = self.shared.lock().image.clone();
        image.ok_or_else(|| ServeError::ClusterNotReady("this node is still starting".to_owned()))
    }

    /// Locks the group's cell for `work`; its `group` is there.
    fn on_cell<T>(
        &self,
        group: &str,
        work: impl FnOnce(&Arc<Cell>, &mut CellState, Now) -> T,
    ) -> Result<T, ServeError> {
        loop {
            let cell = self.cell(group)?;
            let mut state = cell.state.lock();
            // Emptied since it was found. It is not found again: this ends with another cell, or with the
            // coordinator that the image names now.
            if state.group.is_some() {
                return Ok(work(&cell, &mut state, self.now()));
            }
        }
    }

    /// Where to ask instead, once this node has let go of the group.
    fn moved(&self, group: &str) -> ServeError {
        ServeError::NotCoordinator(self.coordinator(group).filter(|broker| *broker != self.context.id))
    }

    /// Follows the metadata: agreed generations, and which groups are coordinated elsewhere now.
    pub fn apply(self: &Arc<Self>, image: &Arc<Image>, delta: &Delta) {
        let (changed, moved, assigning) = {
            let mut shared = self.shared.lock();
            shared.image = Some(image.clone());
            let look_at_all = delta.full || !delta.brokers.is_empty();
            let moved: Vec<Arc<str>> = match look_at_all {
                true => shared
                    .cells
                    .keys()
                    .filter(|name| coordinator(image, name) != Some(self.context.id))
                    .cloned()
                    .collect(),
                false => Vec::new(),
            };
            if look_at_all {
                self.adopt_all(&mut shared, image);
            }
            let moved: Vec<Arc<Cell>> = moved.iter().filter_map(|name| shared.cells.remove(name)).collect();
            let changed: Vec<(Arc<str>, Arc<Cell>)> = match delta.full {
                true => shared.cells.iter().map(|(name, cell)| (name.clone(), cell.clone())).collect(),
                false => delta
                    .groups
                    .iter()
                    .filter_map(|name| Some((name.clone(), shared.cells.get(name)?.clone())))
                    .collect(),
            };
            let assigning: Vec<Arc<Cell>> = match delta.full || !delta.topics.is_empty() {
                true => shared.cells.values().cloned().collect(),
                false => Vec::new(),
            };
            (changed, moved, assigning)
        };
        for cell in moved {
            self.unload(&cell);
        }
        for (name, cell) in changed {
            self.follow(&name, &cell, image);
        }
        for cell in assigning {
            let mut state = cell.state.lock();
            if let Some(Coordinated::Consumer(group)) = state.group.as_mut() {
                let effects = group.topics_changed(image, self.now());
                self.carry_out(&cell, &mut state, Effects::Consumer(effects));
            }
        }
    }

    /// Groups with members that this node has just come to coordinate are held from now on, asked for or not,
    /// so that members that died meanwhile expire.
    fn adopt_all(&self, shared: &mut Shared, image: &Image) {
        for name in members_here(image, self.context.id) {
            if !shared.cells.contains_key(name) && shared.cells.len() < MAX_CELLS {
                shared.cells.insert(name.clone(), Cell::adopt(name, image, &self.limits, self.now()));
            }
        }
    }

    fn unload(self: &Arc<Self>, cell: &Arc<Cell>) {
        let mut state = cell.state.lock();
        if let Some(group) = state.group.take() {
            let effects = group.unload();
            self.carry_out(cell, &mut state, effects);
        }
        // Whoever still waits asks the new coordinator.
        state.waiting.clear();
    }

    /// Sessions, rebalance time-outs, retries. Called every 100 ms or so.
    pub fn tick(self: &Arc<Self>) {
        let cells: Vec<(Arc<str>, Arc<Cell>)> =
            self.shared.lock().cells.iter().map(|(name, cell)| (name.clone(), cell.clone())).collect();
        let (Ok(image), now) = (self.image_here(), self.now()) else { return };
        for (name, cell) in cells {
            let mut state = cell.state.lock();
            let Some(group) = state.group.as_mut() else { continue };
            let effects = group.tick(&image, now);
            self.carry_out(&cell, &mut state, effects);
            let idle = state.waiting.is_empty() && state.group.as_ref().is_some_and(Coordinated::is_idle);
            if idle {
                self.forget(&name, &cell);
                state.group = None;
            }
        }
    }

    /// Lock order: a cell, then the table of cells.
    fn forget(&self, name: &Arc<str>, cell: &Arc<Cell>) {
        let mut shared = self.shared.lock();
        if shared.cells.get(name).is_some_and(|known| Arc::ptr_eq(known, cell)) {
            shared.cells.remove(name);
        }
    }

    // ---- requests ----

    pub async fn join(self: &Arc<Self>, group: &str, request: JoinRequest) -> Result<JoinAnswer, ServeError> {
        let wait =
            Duration::from_millis(u64::from(request.rebalance_timeout_ms.max(request.session_timeout_ms)));
        let answer =
            self.wait_for(group, wait, true, |state, reply, now| state.join(request, reply, now)).await?;
        match answer {
            Answer::Join(answer) => Ok(answer),
            Answer::Error(error) => Err(self.refused(group, error)),
            Answer::Sync(_) => unreachable!("a join is answered as a join"),
        }
    }

    pub async fn sync(self: &Arc<Self>, group: &str, request: SyncRequest) -> Result<SyncAnswer, ServeError> {
        let wait = Duration::from_millis(u64::from(self.limits.classic.session_timeout_max_ms));
        let answer =
            self.wait_for(group, wait, false, |state, reply, now| state.sync(request, reply, now)).await?;
        match answer {
            Answer::Sync(answer) => Ok(answer),
            Answer::Error(error) => Err(self.refused(group, error)),
            Answer::Join(_) => unreachable!("a sync is answered as a sync"),
        }
    }

    fn refused(&self, group: &str, error: GroupError) -> ServeError {
        match error {
            GroupError::NotCoordinator => self.moved(group),
            error => ServeError::Group(error),
        }
    }

    /// Sends a classic request that may be answered by a later event, and waits for that; not beyond the node's
    /// end.
    async fn wait_for(
        self: &Arc<Self>,
        group: &str,
        wait: Duration,
        joins: bool,
        request: impl FnOnce(&mut GroupState, ReplyId, Now) -> Vec<Effect>,
    ) -> Result<Answer, ServeError> {
        let reply = ReplyId(self.next_reply.fetch_add(1, Ordering::Relaxed));
        let (tx, rx) = oneshot::channel();
        let cell = self.on_cell(group, |cell, state, now| {
            if joins && matches!(&state.group, Some(Coordinated::Consumer(empty)) if empty.is_idle()) {
                let next = Coordinated::classic(&group.into(), &*self.image_here()?, &self.limits, now);
                self.replace(cell, state, next);
            }
            let Some(Coordinated::Classic(classic)) = state.group.as_mut() else {
                return Err(consumer::not_classic(state.group.as_ref(), joins));
            };
            let effects = request(classic, reply, now);
            state.waiting.insert(reply, Waiter::Classic(tx));
            self.carry_out(cell, state, Effects::Classic(effects));
            Ok(cell.clone())
        })??;
        // If the client goes away (this future is dropped), the group hears of it.
        let guard = Abandon { groups: self.clone(), cell, reply };
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(wait + GRACE, rx) => answer,
            // Nothing was agreed for this member: it may ask the next coordinator, or this one when it is back.
            () = self.context.stopping.cancelled() => return Err(ServeError::ShuttingDown),
        };
        drop(guard);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.moved(group)),
            Err(_) => Err(ServeError::Group(GroupError::RebalanceInProgress)),
        }
    }

    pub fn heartbeat(
        self: &Arc<Self>,
        group: &str,
        member: &str,
        instance: Option<&str>,
        generation: Generation,
    ) -> Result<(), ServeError> {
        self.with(group, |state, now| (state.heartbeat(member, instance, generation, now), Vec::new()))?
            .map_err(ServeError::Group)
    }

    pub fn leave(
        self: &Arc<Self>,
        group: &str,
        member: &Arc<str>,
        instance: Option<&str>,
    ) -> Result<(), ServeError> {
        self.with(group, |state, now| state.leave(member, instance, now))?.map_err(ServeError::Group)
    }

    /// A description of a group that this node coordinates.
    pub fn describe(self: &Arc<Self>, group: &str) -> Result<GroupDescription, ServeError> {
        if let Some(consumers) = self.describe_consumers(group)? {
            return Ok(consumer::as_classic(consumers, &self.context.image()));
        }
        let mut described = self.on_cell(group, |_, state, _| match &state.group {
            Some(Coordinated::Classic(classic)) => classic.describe(),
            _ => GroupDescription {
                phase: GroupPhase::Dead,
                generation: Generation(0),
                protocol_type: "".into(),
                protocol: "".into(),
                leader: None,
                members: Vec::new(),
            },
        })?;
        if described.phase == GroupPhase::Dead
            && self.context.image().group_offsets(&Arc::from(group)).next().is_some()
        {
            // It never had members: somebody has committed offsets for it.
            described.phase = GroupPhase::Empty;
        }
        Ok(described)
    }

    /// Every agreed group, with what its agreed state says of it (a rebalance under way is known only to its
    /// coordinator).
    pub fn list(&self) -> Vec<(Arc<str>, GroupPhase, Arc<str>)> {
        let image = self.context.image();
        let mut listed: BTreeMap<Arc<str>, (GroupPhase, Arc<str>)> = image
            .offsets
            .keys()
            .map(|(group, _)| (group.clone(), (GroupPhase::Empty, Arc::from(""))))
            .collect();
        for (name, group) in image.groups.iter() {
            listed.insert(name.clone(), (agreed_phase(group), group.protocol_type.clone()));
        }
        for (name, group) in image.consumer_groups.iter() {
            listed.insert(name.clone(), (agreed_consumer_phase(group), "consumer".into()));
        }
        listed.into_iter().map(|(name, (phase, kind))| (name, phase, kind)).collect()
    }
}

fn agreed_phase(group: &Group) -> GroupPhase {
    match (group.members.is_empty(), group.assigned) {
        (true, _) => GroupPhase::Empty,
        (false, true) => GroupPhase::Stable,
        (false, false) => GroupPhase::CompletingRebalance,
    }
}

fn agreed_consumer_phase(group: &ConsumerGroup) -> GroupPhase {
    match (group.members.is_empty(), group.is_stable()) {
        (true, _) => GroupPhase::Empty,
        (false, true) => GroupPhase::Stable,
        (false, false) => GroupPhase::Reconciling,
    }
}

pub fn coordinator(image: &Image, group: &str) -> Option<BrokerId> {
    let unfenced = image.brokers.iter().filter(|(_, broker)| !broker.fenced).map(|(id, _)| *id);
    coordinator_for(group, unfenced)
}

/// Tells the group that nobody waits for an answer any more.
struct Abandon {
    groups: Arc<Groups>,
    cell: Arc<Cell>,
    reply: ReplyId,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        let mut state = self.cell.state.lock();
        if state.waiting.remove(&self.reply).is_none() {
            return; // It was answered.
        }
        let now = self.groups.now();
        if let Some(Coordinated::Classic(group)) = state.group.as_mut() {
            let effects = group.abandon(self.reply, now);
            self.groups.carry_out(&self.cell, &mut state, Effects::Classic(effects));
        }
    }
}
