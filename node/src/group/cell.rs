//! One group's cell: its state, of whichever protocol, and who waits for answers from it.

use super::{Groups, coordinator};
use crate::context::PROPOSE_DEADLINE;
use crate::error::ServeError;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_core::consumer_group::{self, ConsumerGroupLimits, ConsumerGroupState, HeartbeatResult};
use strandline_core::group::{
    Answer, Effect, GroupLimits, GroupState, Now, ProposalFailure, ProposalId, ReplyId,
};
use strandline_metadata::{Command, Image};
use strandline_record::BrokerId;
use tokio::sync::oneshot;

pub(super) struct Cell {
    pub state: Mutex<CellState>,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cell")
    }
}

pub(super) struct CellState {
    /// `None` once emptied, which happens only to a cell that is found no more: whoever holds it looks again.
    pub group: Option<Coordinated>,
    pub waiting: BTreeMap<ReplyId, Waiter>,
    /// Counts the states that the cell has held: what one proposed does not concern the next.
    incarnation: u64,
}

/// A group has the protocol of its members; without any, that of whoever comes.
pub(super) enum Coordinated {
    Classic(GroupState),
    Consumer(ConsumerGroupState),
}

pub(super) enum Waiter {
    Classic(oneshot::Sender<Answer>),
    Consumer(oneshot::Sender<HeartbeatResult>),
}

pub(super) enum Effects {
    Classic(Vec<Effect>),
    Consumer(Vec<consumer_group::Effect>),
}

#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub classic: GroupLimits,
    pub consumer: ConsumerGroupLimits,
}

impl Cell {
    pub fn adopt(name: &Arc<str>, image: &Image, limits: &Limits, now: Now) -> Arc<Cell> {
        let group = match image.consumer_groups.get(name) {
            Some(_) => Coordinated::consumer(name, image, limits, now),
            None => Coordinated::classic(name, image, limits, now),
        };
        let state = CellState { group: Some(group), waiting: BTreeMap::new(), incarnation: 0 };
        Arc::new(Cell { state: Mutex::new(state) })
    }
}

impl Coordinated {
    pub fn classic(name: &Arc<str>, image: &Image, limits: &Limits, now: Now) -> Self {
        let agreed = image.groups.get(name).cloned();
        Self::Classic(GroupState::adopt(name.clone(), agreed, limits.classic, now))
    }

    pub fn consumer(name: &Arc<str>, image: &Image, limits: &Limits, now: Now) -> Self {
        let agreed = image.consumer_groups.get(name).cloned();
        Self::Consumer(ConsumerGroupState::adopt(name.clone(), agreed, limits.consumer.clone(), now))
    }

    pub fn is_idle(&self) -> bool {
        match self {
            Self::Classic(state) => state.is_idle(),
            Self::Consumer(state) => state.is_idle(),
        }
    }

    pub fn tick(&mut self, image: &Image, now: Now) -> Effects {
        match self {
            Self::Classic(state) => Effects::Classic(match state.next_deadline() {
                Some(deadline) if deadline <= now.mono_ms => state.tick(now),
                _ => Vec::new(),
            }),
            Self::Consumer(state) => Effects::Consumer(state.tick(image, now)),
        }
    }

    /// Whether the image has agreed on members of the other protocol: that is what the group is now.
    pub fn is_superseded(&self, name: &Arc<str>, image: &Image) -> bool {
        match self {
            Self::Classic(_) => image.consumer_groups.get(name).is_some_and(|g| !g.members.is_empty()),
            Self::Consumer(_) => image.groups.get(name).is_some_and(|g| !g.members.is_empty()),
        }
    }

    pub fn follow(&mut self, name: &Arc<str>, image: &Image, now: Now) -> Effects {
        match self {
            Self::Classic(state) => Effects::Classic(state.image(image.groups.get(name), now)),
            Self::Consumer(state) => {
                Effects::Consumer(state.image(image.consumer_groups.get(name), image, now))
            }
        }
    }

    pub fn unload(self) -> Effects {
        match self {
            Self::Classic(state) => Effects::Classic(state.unload()),
            Self::Consumer(state) => Effects::Consumer(state.unload()),
        }
    }

    fn proposal_failed(&mut self, id: ProposalId, failure: ProposalFailure, now: Now) -> Effects {
        match self {
            Self::Classic(state) => Effects::Classic(state.proposal_failed(id, failure, now)),
            Self::Consumer(state) => Effects::Consumer(state.proposal_failed(id, failure, now)),
        }
    }
}

impl Groups {
    pub(super) fn carry_out(self: &Arc<Self>, cell: &Arc<Cell>, state: &mut CellState, effects: Effects) {
        // Whoever waited may be gone.
        match effects {
            Effects::Classic(effects) => {
                for effect in effects {
                    match effect {
                        Effect::Reply { id, answer } => {
                            if let Some(Waiter::Classic(waiting)) = state.waiting.remove(&id) {
                                let _ = waiting.send(answer);
                            }
                        }
                        Effect::Propose { id, command } => self.propose(cell, state, id, command),
                    }
                }
            }
            Effects::Consumer(effects) => {
                for effect in effects {
                    match effect {
                        consumer_group::Effect::Reply { id, answer } => {
                            if let Some(Waiter::Consumer(waiting)) = state.waiting.remove(&id) {
                                let _ = waiting.send(answer);
                            }
                        }
                        consumer_group::Effect::Propose { id, command } => {
                            self.propose(cell, state, id, command)
                        }
                    }
                }
            }
        }
    }

    /// Success shows in the image; anything else goes back to the group.
    fn propose(self: &Arc<Self>, cell: &Arc<Cell>, state: &CellState, id: ProposalId, command: Command) {
        let (groups, cell, incarnation) = (self.clone(), cell.clone(), state.incarnation);
        tokio::spawn(async move {
            let failure = match groups.context.propose(command, PROPOSE_DEADLINE).await {
                Ok(_) => return,
                Err(ServeError::Rejected(rejection)) => ProposalFailure::Rejected(rejection),
                Err(_) => ProposalFailure::Unknown,
            };
            let mut state = cell.state.lock();
            if state.incarnation != incarnation {
                return;
            }
            let Some(group) = state.group.as_mut() else { return };
            let effects = group.proposal_failed(id, failure, groups.now());
            groups.carry_out(&cell, &mut state, effects);
        });
    }

    /// Holds the group in its other protocol from now on. Whoever waits is sent away to ask again.
    pub(super) fn replace(self: &Arc<Self>, cell: &Arc<Cell>, state: &mut CellState, next: Coordinated) {
        if let Some(before) = state.group.replace(next) {
            self.carry_out(cell, state, before.unload());
        }
        state.incarnation += 1;
        state.waiting.clear();
    }

    /// What the image says of one group, in image order.
    pub(super) fn follow(self: &Arc<Self>, name: &Arc<str>, cell: &Arc<Cell>, image: &Image) {
        let mut state = cell.state.lock();
        let Some(group) = state.group.as_mut() else { return };
        let now = self.now();
        if group.is_superseded(name, image) {
            let next = match group {
                Coordinated::Classic(_) => Coordinated::consumer(name, image, &self.limits, now),
                Coordinated::Consumer(_) => Coordinated::classic(name, image, &self.limits, now),
            };
            return self.replace(cell, &mut state, next);
        }
        let effects = group.follow(name, image, now);
        self.carry_out(cell, &mut state, effects);
    }
}

/// Whether this node is to hold the group: it coordinates it, and it has members.
pub(super) fn members_here(image: &Image, own: BrokerId) -> impl Iterator<Item = &Arc<str>> {
    let classic = image.groups.iter().filter(|(_, group)| !group.members.is_empty()).map(|(name, _)| name);
    let consumer =
        image.consumer_groups.iter().filter(|(_, group)| !group.members.is_empty()).map(|(name, _)| name);
    classic.chain(consumer).filter(move |name| coordinator(image, name) == Some(own))
}
