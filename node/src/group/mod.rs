//! Group coordination on this node: a thin shell around the deciding `core::group`.
//!
//! A cell holds one group's state while this node coordinates it. Requests lock the cell, let the core
//! decide, and carry out the effects: answers go to whoever waits, proposals to Raft. What has been agreed
//! comes back through the image ([`Groups::apply`]), in image order.
//!
//! Invariants: a cell adopts only from the image last applied here, so it never sees an older one after a
//! newer; a cell without waiting members or agreed ones is dropped when idle, so that memory follows the
//! groups in use.

mod offsets;

use crate::context::{Context, PROPOSE_DEADLINE};
use crate::error::ServeError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strandline_core::group::{
    Answer, Effect, GroupDescription, GroupError, GroupLimits, GroupPhase, GroupState, JoinAnswer,
    JoinRequest, Now, ProposalFailure, ProposalId, ReplyId, SyncAnswer, SyncRequest, coordinator_for,
};
use strandline_metadata::machine::check_group_id;
use strandline_metadata::{Command, Delta, Group, Image};
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
    limits: GroupLimits,
    shared: Mutex<Shared>,
    next_reply: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    image: Option<Arc<Image>>,
    cells: BTreeMap<Arc<str>, Arc<Cell>>,
}

struct Cell {
    state: Mutex<CellState>,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cell")
    }
}

struct CellState {
    /// `None` once emptied, which happens only to a cell that is found no more: whoever holds it looks again.
    group: Option<GroupState>,
    waiting: BTreeMap<ReplyId, oneshot::Sender<Answer>>,
}

impl Cell {
    fn adopt(name: &Arc<str>, image: &Image, limits: GroupLimits, now: Now) -> Arc<Cell> {
        let state = GroupState::adopt(name.clone(), image.groups.get(name).cloned(), limits, now);
        Arc::new(Cell { state: Mutex::new(CellState { group: Some(state), waiting: BTreeMap::new() }) })
    }
}

impl Groups {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        let config = &context.config;
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let limits = GroupLimits {
            session_timeout_min_ms: ms(config.group_min_session_timeout),
            session_timeout_max_ms: ms(config.group_max_session_timeout),
            initial_rebalance_delay_ms: ms(config.group_initial_rebalance_delay),
            max_members: config.group_max_size,
            ..GroupLimits::default()
        };
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
        let cell = Cell::adopt(&name, &image, self.limits, self.now());
        shared.cells.insert(name, cell.clone());
        Ok(cell)
    }

    /// Locks the group and lets `decide` change it; its effects are carried out.
    fn with<T>(
        self: &Arc<Self>,
        group: &str,
        decide: impl FnOnce(&mut GroupState, Now) -> (T, Vec<Effect>),
    ) -> Result<T, ServeError> {
        self.on_cell(group, |cell, state, now| {
            let group = state.group.as_mut().expect("a cell that is in use");
            let (value, effects) = decide(group, now);
            self.carry_out(cell, state, effects);
            value
        })
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

    fn carry_out(self: &Arc<Self>, cell: &Arc<Cell>, state: &mut CellState, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { id, answer } => {
                    if let Some(waiting) = state.waiting.remove(&id) {
                        let _ = waiting.send(answer); // The client may be gone.
                    }
                }
                Effect::Propose { id, command } => self.propose(cell, id, command),
            }
        }
    }

    /// Success shows in the image; anything else goes back to the group.
    fn propose(self: &Arc<Self>, cell: &Arc<Cell>, id: ProposalId, command: Command) {
        let (groups, cell) = (self.clone(), cell.clone());
        tokio::spawn(async move {
            let failure = match groups.context.propose(command, PROPOSE_DEADLINE).await {
                Ok(_) => return,
                Err(ServeError::Rejected(rejection)) => ProposalFailure::Rejected(rejection),
                Err(_) => ProposalFailure::Unknown,
            };
            let mut state = cell.state.lock();
            let Some(group) = state.group.as_mut() else { return };
            let effects = group.proposal_failed(id, failure, groups.now());
            groups.carry_out(&cell, &mut state, effects);
        });
    }

    /// Follows the metadata: agreed generations, and which groups are coordinated elsewhere now.
    pub fn apply(self: &Arc<Self>, image: &Arc<Image>, delta: &Delta) {
        let (changed, moved) = {
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
            (changed, moved)
        };
        for cell in moved {
            self.unload(&cell);
        }
        for (name, cell) in changed {
            let mut state = cell.state.lock();
            let Some(group) = state.group.as_mut() else { continue };
            let effects = group.image(image.groups.get(&name), self.now());
            self.carry_out(&cell, &mut state, effects);
        }
    }

    /// Groups with members that this node has just come to coordinate are held from now on, asked for or not,
    /// so that members that died meanwhile expire.
    fn adopt_all(&self, shared: &mut Shared, image: &Image) {
        for (name, group) in image.groups.iter() {
            if !group.members.is_empty()
                && !shared.cells.contains_key(name)
                && shared.cells.len() < MAX_CELLS
                && coordinator(image, name) == Some(self.context.id)
            {
                shared.cells.insert(name.clone(), Cell::adopt(name, image, self.limits, self.now()));
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
        let now = self.now();
        for (name, cell) in cells {
            let mut state = cell.state.lock();
            let Some(group) = state.group.as_mut() else { continue };
            if group.next_deadline().is_some_and(|deadline| deadline <= now.mono_ms) {
                let effects = group.tick(now);
                self.carry_out(&cell, &mut state, effects);
            }
            let idle = state.waiting.is_empty() && state.group.as_ref().is_some_and(GroupState::is_idle);
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
        let answer = self.wait_for(group, wait, |state, reply, now| state.join(request, reply, now)).await?;
        match answer {
            Answer::Join(answer) => Ok(answer),
            Answer::Error(error) => Err(self.refused(group, error)),
            Answer::Sync(_) => unreachable!("a join is answered as a join"),
        }
    }

    pub async fn sync(self: &Arc<Self>, group: &str, request: SyncRequest) -> Result<SyncAnswer, ServeError> {
        let wait = Duration::from_millis(u64::from(self.limits.session_timeout_max_ms));
        let answer = self.wait_for(group, wait, |state, reply, now| state.sync(request, reply, now)).await?;
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

    /// Sends a request that may be answered by a later event, and waits for that; not beyond the node's end.
    async fn wait_for(
        self: &Arc<Self>,
        group: &str,
        wait: Duration,
        request: impl FnOnce(&mut GroupState, ReplyId, Now) -> Vec<Effect>,
    ) -> Result<Answer, ServeError> {
        let reply = ReplyId(self.next_reply.fetch_add(1, Ordering::Relaxed));
        let (tx, rx) = oneshot::channel();
        let cell = self.on_cell(group, |cell, state, now| {
            let group = state.group.as_mut().expect("a cell that is in use");
            let effects = request(group, reply, now);
            state.waiting.insert(reply, tx);
            self.carry_out(cell, state, effects);
            cell.clone()
        })?;
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
        let mut described = self.with(group, |state, _| (state.describe(), Vec::new()))?;
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

fn coordinator(image: &Image, group: &str) -> Option<BrokerId> {
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
        if let Some(group) = state.group.as_mut() {
            let effects = group.abandon(self.reply, now);
            self.groups.carry_out(&self.cell, &mut state, effects);
        }
    }
}
