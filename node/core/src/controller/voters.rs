//! Who votes in Raft. Up to five brokers, an odd number as soon as there are three (a fourth voter makes
//! agreement slower and tolerates no more); every other broker is a learner. A voter is replaced when its broker
//! is removed or being drained, never because it is merely away: while it is, its vote is still counted on.
//!
//! One change at a time, decided on Raft's own membership, and repeated until that shows it.

use super::{ControllerConfig, Effect};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::{Broker, Image};
use strandline_record::BrokerId;

const MAX_VOTERS: usize = 5;

/// Raft's membership and how its members do, as its leader has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: BTreeSet<BrokerId>,
    pub learners: BTreeSet<BrokerId>,
    /// Members (voters or learners) that hold nearly all of the log: fit to become voters.
    pub caught_up: BTreeSet<BrokerId>,
    /// A change is under way (the newest configuration is not committed yet): nothing else is proposed.
    pub changing: bool,
    /// The first step of a change (joint configuration) was taken, the second was not: the leader may have died between them.
    pub joint: bool,
    /// Where the members are, as Raft has it.
    pub addresses: BTreeMap<BrokerId, Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Voters {
    me: BrokerId,
    config: ControllerConfig,
    next_ms: u64,
    /// Members without a registered broker, since when.
    unknown: BTreeMap<BrokerId, u64>,
    /// Members behind which this controller has seen a broker. Without one they were removed on purpose.
    registered: BTreeSet<BrokerId>,
    /// Members without a broker that an administrator removes: they are not waited for.
    dismissed: BTreeSet<BrokerId>,
}

impl Voters {
    pub fn new(me: BrokerId, config: ControllerConfig) -> Self {
        Voters {
            me,
            config,
            next_ms: 0,
            unknown: BTreeMap::new(),
            registered: BTreeSet::new(),
            dismissed: BTreeSet::new(),
        }
    }

    /// An administrator removes this member. It counts until it has left, or a broker registers behind it.
    pub fn dismiss(&mut self, id: BrokerId) {
        self.dismissed.insert(id);
    }

    pub fn tick(
        &mut self,
        image: &Image,
        membership: &Membership,
        shutting_down: &BTreeSet<BrokerId>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let members = || membership.voters.iter().chain(&membership.learners).copied();
        self.unknown.retain(|&id, _| image.broker(id).is_none() && members().any(|member| member == id));
        for id in members().filter(|&id| image.broker(id).is_none()) {
            self.unknown.entry(id).or_insert(now_ms);
        }
        self.registered.retain(|&id| members().any(|member| member == id));
        self.registered.extend(members().filter(|&id| image.broker(id).is_some()));
        self.dismissed.retain(|id| self.unknown.contains_key(id));
        if membership.changing || now_ms < self.next_ms {
            return;
        }
        if let Some(effect) = self.next_change(image, membership, shutting_down, now_ms) {
            self.next_ms = now_ms + self.config.retry_ms;
            effects.push(effect);
        }
    }

    fn next_change(
        &self,
        image: &Image,
        membership: &Membership,
        shutting_down: &BTreeSet<BrokerId>,
        now_ms: u64,
    ) -> Option<Effect> {
        let Membership { voters, learners, caught_up, .. } = membership;
        // Every registered broker follows the metadata.
        let newcomer = image.brokers.values().find(|b| !voters.contains(&b.id) && !learners.contains(&b.id));
        if let Some(broker) = newcomer {
            return Some(Effect::AddLearner { id: broker.id, endpoint: broker.endpoints.peer.clone() });
        }
        // A node that came back at another address registers itself through the leader; nobody reaches it before Raft knows.
        let moved = |broker: &&Arc<Broker>| {
            membership.addresses.get(&broker.id).is_some_and(|known| *known != broker.endpoints.peer)
        };
        if let Some(broker) = image.brokers.values().find(moved) {
            return Some(Effect::MoveMember { id: broker.id, endpoint: broker.endpoints.peer.clone() });
        }
        let wanted = self.wanted(image, membership, now_ms);
        let leaves = !wanted.contains(&self.me) || shutting_down.contains(&self.me);
        if leaves && voters.contains(&self.me) {
            // A leader does not vote itself out: another one does that.
            let alive = |id: &&BrokerId| image.broker(**id).is_some_and(|b| !b.fenced);
            let fit =
                |id: &&BrokerId| **id != self.me && caught_up.contains(*id) && !shutting_down.contains(*id);
            let staying = voters.iter().filter(|id| wanted.contains(id));
            if let Some(&to) = staying.filter(alive).find(fit) {
                return Some(Effect::TransferLeadership { to });
            }
        }
        if (wanted != *voters || membership.joint) && wanted.contains(&self.me) {
            return Some(Effect::ChangeVoters(wanted));
        }
        let gone = |id: &&BrokerId| self.is_gone(**id, now_ms);
        learners.iter().find(gone).map(|&id| Effect::RemoveLearner(id))
    }

    /// This member's broker was removed, or none has been registered under its id for long: it never came.
    fn is_gone(&self, id: BrokerId, now_ms: u64) -> bool {
        let long = |&since: &u64| {
            self.registered.contains(&id)
                || self.dismissed.contains(&id)
                || now_ms.saturating_sub(since) >= self.config.forget_member_after_ms
        };
        self.unknown.get(&id).is_some_and(long)
    }

    /// Present voters that may stay, and the fittest learners up to the number that there should be. Whoever
    /// is to leave stays until there is somebody in its place.
    fn wanted(&self, image: &Image, membership: &Membership, now_ms: u64) -> BTreeSet<BrokerId> {
        let leaving = |id: &BrokerId| match image.broker(*id) {
            Some(broker) => broker.draining,
            None => self.is_gone(*id, now_ms),
        };
        let lasting = image.brokers.values().filter(|broker| !broker.draining).count();
        let unregistered = membership.voters.iter().filter(|id| image.broker(**id).is_none() && !leaving(id));
        let size = voter_count(lasting + unregistered.count());

        let (leave, mut wanted): (Vec<BrokerId>, BTreeSet<BrokerId>) = {
            let (leave, stay): (Vec<_>, Vec<_>) = membership.voters.iter().copied().partition(leaving);
            (leave, stay.into_iter().collect())
        };
        while wanted.len() < size {
            let rack = |id: BrokerId| image.broker(id).and_then(|broker| broker.rack.clone());
            let same_rack = |id: BrokerId| wanted.iter().filter(|&&v| rack(v) == rack(id)).count();
            let fit = |id: &BrokerId| {
                !wanted.contains(id)
                    && membership.caught_up.contains(id)
                    && image.broker(*id).is_some_and(|broker| !broker.fenced && !broker.draining)
            };
            let best = membership.learners.iter().copied().filter(fit).min_by_key(|&id| (same_rack(id), id));
            let Some(best) = best else { break };
            wanted.insert(best);
        }
        // Nobody goes before the others are enough.
        for id in leave {
            if wanted.len() < size {
                wanted.insert(id);
            }
        }
        // More than needed: those that are away first, this leader last.
        while wanted.len() > size.max(1) {
            let away = |id: BrokerId| image.broker(id).is_none_or(|broker| broker.fenced);
            let Some(&least) = wanted.iter().max_by_key(|&&id| (id != self.me, away(id), id)) else { break };
            wanted.remove(&least);
        }
        // An even number on the way to an odd one would tolerate less than before: wait for the last one too.
        if wanted.len() < size && wanted.len() % 2 == 0 && wanted.is_superset(&membership.voters) {
            let newest = wanted.iter().rev().find(|id| !membership.voters.contains(id)).copied();
            newest.iter().for_each(|id| {
                wanted.remove(id);
            });
        }
        match wanted.is_empty() {
            true => membership.voters.clone(),
            false => wanted,
        }
    }
}

/// How many of `brokers` vote.
fn voter_count(brokers: usize) -> usize {
    match brokers {
        0..=2 => brokers,
        3 | 4 => 3,
        _ => MAX_VOTERS,
    }
}
