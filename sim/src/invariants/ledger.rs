//! What all invariants start from, kept once: attempts and their ends, who saw which value where, the newest agreed
//! state seen anywhere, what each replica looked like last, and how far the true high watermark can have come.
//!
//! The [`Keeper`] goes first in the list of invariants, so that the others find the present step or event in here.
//!
//! Two bounds stand for the true high watermark, from two sides:
//! * `ceiling`: it was never above. The smallest flushed end in the ISR (in the ELR where that is empty), of the newest agreed state seen anywhere, at
//!   its best moment so far. A leader's maximal ISR contains the agreed one (I9), every member's acknowledgement was
//!   flushed before it was sent, and what is committed is not truncated; so whatever a correct leader has ever shown
//!   is below. A replica that is down or damaged counts with what it had: its acknowledgement stands.
//! * `proven`: it has come this far, for a client was told so (an acknowledgement with acks=all, a record read, a
//!   latest offset).
//!
//! An unclean election begins a new history of its partition: what was promised before it is void. What is said after
//! it counts again from the moment on at which no leader of an older epoch runs any more ([`Part::unclean`]).

use super::batch::{self, Batch};
use super::{Check, Invariant, Observation};
use crate::history::{Acks, Attempt, Event, Outcome, Session, TopicFacts, Tp, What};
use crate::observe::{ImageView, PartitionView, ReplicaView, Role, Unread};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

pub type Shared = Rc<RefCell<Ledger>>;

/// A moment: simulated time, and the number of the event, which orders what happened in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct When {
    pub us: u64,
    pub seq: u64,
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06} s", self.us / 1_000_000, self.us % 1_000_000)
    }
}

#[derive(Clone, Debug)]
pub struct Sent {
    pub session: Session,
    pub tp: Tp,
    pub acks: Acks,
    pub idempotent: bool,
    pub begun: When,
    /// `None`: open, which is unknown.
    pub ended: Option<(When, Outcome<Option<i64>>)>,
    /// Where it was first seen as a visible record, and in which history of its partition.
    pub seen_at: Option<(i64, i32)>,
}

/// The first sight of what lies at an offset.
#[derive(Clone, Debug)]
pub struct Sight {
    pub attempt: Attempt,
    /// Unknown where an acknowledgement was the first sight.
    pub checksum: Option<u32>,
    pub leader_epoch: Option<i32>,
    pub at: When,
    pub by: Session,
}

/// A replica as it was last seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub life: u64,
    pub view: ReplicaView,
    /// It runs at this moment.
    pub live: bool,
    pub broker_epoch: Option<u64>,
    /// Its flushed end when it was last seen without damage.
    pub counted: i64,
    /// The largest flushed end that it was ever seen with.
    pub most: i64,
}

#[derive(Clone, Debug, Default)]
pub struct Unclean {
    /// Leader epoch of the last one; 0: there was none.
    pub epoch: i32,
    /// A leader of an older epoch may still run.
    pub unsettled: bool,
    /// Since when none does.
    pub settled: Option<When>,
}

#[derive(Clone, Debug, Default)]
pub struct Part {
    pub facts: Option<TopicFacts>,
    pub agreed: Option<Arc<PartitionView>>,
    /// What was agreed before that.
    pub before: Option<Arc<PartitionView>>,
    pub replicas: BTreeMap<u64, Seen>,
    pub ceiling: i64,
    pub proven: i64,
    pub proof: String,
    /// Records below may have been deleted, and why.
    pub may_start: i64,
    pub unclean: Unclean,
    /// Offset → what was seen there first, in this history.
    pub sights: BTreeMap<i64, Sight>,
    /// Acknowledged with acks=all: offset → attempt.
    pub promised: BTreeMap<i64, Attempt>,
}

impl Part {
    /// Whether something said in answer to a request of `asked` is about the present history.
    pub fn counts(&self, asked: When) -> bool {
        self.unclean.epoch == 0 || self.unclean.settled.is_some_and(|since| asked >= since)
    }

    fn prove(&mut self, end: i64, how: impl FnOnce() -> String) {
        if end > self.proven {
            self.proven = end;
            self.proof = how();
        }
    }

    /// Deleted, or perhaps deleted.
    pub fn may_be_gone(&self, offset: i64) -> bool {
        offset < self.may_start
    }

    pub fn live(&self) -> impl Iterator<Item = (u64, &Seen)> {
        self.replicas.iter().filter(|(_, seen)| seen.live).map(|(node, seen)| (*node, seen))
    }

    /// All flushed ends, for a message.
    pub fn ends(&self) -> String {
        let end = |(node, seen): (&u64, &Seen)| {
            let state = match (seen.live, seen.view.damaged) {
                (false, _) => " (down)",
                (true, true) => " (damaged)",
                (true, false) => "",
            };
            format!("node {node}{state} {} of {}", seen.view.flushed_end, seen.view.log_end)
        };
        let ends: Vec<String> = self.replicas.iter().map(end).collect();
        let isr = self.agreed.as_ref().map(|agreed| (agreed.leader_epoch, agreed.isr.clone()));
        format!("flushed of log ends: {}; leader epoch and ISR agreed: {isr:?}", ends.join(", "))
    }
}

/// The logs of a partition's replicas at the end, by node.
pub type Finals = BTreeMap<u64, Result<(Vec<u8>, Vec<Batch>), Unread>>;

#[derive(Debug, Default)]
pub struct Ledger {
    pub now: When,
    pub attempts: BTreeMap<Attempt, Sent>,
    pub parts: BTreeMap<Tp, Part>,
    /// Whose replicas or agreed state are not what they were a step ago.
    pub touched: BTreeSet<Tp>,
    /// The agreed state with the largest index that any node has shown.
    pub newest: Arc<ImageView>,
    /// `newest` moved in this step.
    pub newer: bool,
    lives: BTreeMap<u64, (u64, Option<u64>)>,
    last: BTreeMap<u64, BTreeMap<Tp, ReplicaView>>,
    deletes: BTreeMap<u64, Tp>,
    pub finals: BTreeMap<Tp, Finals>,
}

impl Ledger {
    pub fn part(&self, tp: &Tp) -> Option<&Part> {
        self.parts.get(tp)
    }

    /// Looks at what a step left behind. What has not changed costs a comparison.
    fn observe(&mut self, seen: &Observation<'_>) {
        self.now.us = seen.now_us;
        self.touched.clear();
        self.see_agreed(seen);
        let gone: Vec<u64> = self.lives.keys().filter(|id| !seen.nodes.contains_key(id)).copied().collect();
        for node in gone {
            self.lose_node(node);
        }
        for (node, view) in seen.nodes {
            let life = (view.life, view.broker_epoch);
            if self.lives.get(node) != Some(&life) {
                if self.lives.get(node).is_some_and(|known| known.0 != view.life) {
                    self.lose_node(*node);
                }
                self.lives.insert(*node, life);
                self.last.insert(*node, BTreeMap::new());
            }
            if self.last.get(node) != Some(&view.replicas) {
                self.see_replicas(*node, life, &view.replicas);
            }
        }
        for tp in self.touched.clone() {
            self.parts.get_mut(&tp).expect("what is touched is known").reckon(self.now);
        }
    }

    fn see_agreed(&mut self, seen: &Observation<'_>) {
        let newest = seen.nodes.values().map(|view| &view.image).max_by_key(|image| image.index);
        self.newer = newest.is_some_and(|image| image.index > self.newest.index);
        let Some(newest) = newest.filter(|_| self.newer) else { return };
        for (tp, agreed) in &newest.partitions {
            let known = self.newest.partitions.get(tp);
            if known.is_none_or(|known| !Arc::ptr_eq(known, agreed) && known != agreed) {
                let part = self.parts.entry(tp.clone()).or_default();
                part.before = part.agreed.replace(agreed.clone());
                self.touched.insert(tp.clone());
            }
        }
        self.newest = newest.clone();
    }

    fn lose_node(&mut self, node: u64) {
        self.lives.remove(&node);
        for tp in self.last.remove(&node).unwrap_or_default().into_keys() {
            self.lose_replica(node, tp);
        }
    }

    fn lose_replica(&mut self, node: u64, tp: Tp) {
        if let Some(seen) = self.parts.get_mut(&tp).and_then(|part| part.replicas.get_mut(&node)) {
            seen.live = false;
            self.touched.insert(tp);
        }
    }

    fn see_replicas(
        &mut self,
        node: u64,
        (life, broker_epoch): (u64, Option<u64>),
        replicas: &BTreeMap<Tp, ReplicaView>,
    ) {
        let mut last = self.last.remove(&node).unwrap_or_default();
        if last.keys().any(|tp| !replicas.contains_key(tp)) {
            let lost: Vec<Tp> = last.keys().filter(|tp| !replicas.contains_key(tp)).cloned().collect();
            for tp in lost {
                last.remove(&tp);
                self.lose_replica(node, tp);
            }
        }
        for (tp, view) in replicas {
            if last.get(tp) == Some(view) {
                continue;
            }
            let part = self.parts.entry(tp.clone()).or_default();
            let known = part.replicas.get(&node);
            let most = known.map_or(0, |seen| seen.most).max(view.flushed_end);
            let counted = match view.damaged {
                true => known.map_or(view.flushed_end, |seen| seen.counted),
                false => view.flushed_end,
            };
            let seen = Seen { life, view: view.clone(), live: true, broker_epoch, counted, most };
            part.replicas.insert(node, seen);
            last.insert(tp.clone(), view.clone());
            self.touched.insert(tp.clone());
        }
        self.last.insert(node, last);
    }

    fn event(&mut self, event: &Event) {
        self.now = When { us: event.at_us, seq: self.now.seq + 1 };
        let now = self.now;
        match &event.what {
            What::Topic { topic, settings } => {
                for partition in 0..settings.partitions {
                    let tp = Tp { topic: topic.clone(), partition };
                    self.parts.entry(tp).or_default().facts = Some(*settings);
                }
            }
            What::Send { session, attempt, tp, acks, idempotent } => {
                let sent = Sent {
                    session: *session,
                    tp: tp.clone(),
                    acks: *acks,
                    idempotent: *idempotent,
                    begun: now,
                    ended: None,
                    seen_at: None,
                };
                self.attempts.insert(*attempt, sent);
            }
            What::Sent { session, attempt, outcome } => self.sent(*session, *attempt, outcome),
            What::Read { session, tp, offset, leader_epoch, attempt, checksum } => {
                let part = self.parts.entry(tp.clone()).or_default();
                if part.unclean.epoch > 0 && (part.unclean.unsettled || *leader_epoch < part.unclean.epoch) {
                    return;
                }
                part.prove(offset + 1, || format!("{session:?} read offset {offset} at {now}"));
                let Some(attempt) = *attempt else { return };
                let sight = Sight {
                    attempt,
                    checksum: Some(*checksum),
                    leader_epoch: Some(*leader_epoch),
                    at: now,
                    by: *session,
                };
                let known = part.sights.entry(*offset).or_insert(sight);
                if known.attempt == attempt && known.checksum.is_none() {
                    (known.checksum, known.leader_epoch) = (Some(*checksum), Some(*leader_epoch));
                }
                let history = part.unclean.epoch;
                if let Some(sent) = self.attempts.get_mut(&attempt) {
                    sent.see(*offset, history);
                }
            }
            What::EndRead { session, tp, latest: true, offset, asked_us } => {
                let part = self.parts.entry(tp.clone()).or_default();
                if part.counts(When { us: *asked_us, seq: 0 }) {
                    part.prove(*offset, || format!("{session:?} was told the end {offset} at {now}"));
                }
            }
            What::DeleteRecords { delete, tp, before, .. } => {
                let part = self.parts.entry(tp.clone()).or_default();
                // Until it is known to have failed, and a negative bound stands for the high watermark.
                let before = if *before < 0 { i64::MAX } else { *before };
                part.may_start = part.may_start.max(before);
                self.deletes.insert(*delete, tp.clone());
            }
            What::DeletedRecords { delete, outcome: Outcome::Acknowledged(start), .. } => {
                if let Some(part) = self.deletes.get(delete).and_then(|tp| self.parts.get_mut(tp)) {
                    part.may_start = part.may_start.max(*start);
                }
            }
            _ => {}
        }
    }

    fn sent(&mut self, session: Session, attempt: Attempt, outcome: &Outcome<Option<i64>>) {
        let now = self.now;
        let Some(sent) = self.attempts.get_mut(&attempt) else { return };
        sent.ended = Some((now, outcome.clone()));
        let Outcome::Acknowledged(Some(offset)) = *outcome else { return };
        let part = self.parts.entry(sent.tp.clone()).or_default();
        // With acks=leader the record may vanish again: its offset says nothing for good.
        if sent.acks != Acks::All || !part.counts(sent.begun) {
            return;
        }
        part.prove(offset + 1, || format!("{attempt:?} was acknowledged at offset {offset} at {now}"));
        part.promised.entry(offset).or_insert(attempt);
        let sight = Sight { attempt, checksum: None, leader_epoch: None, at: now, by: session };
        part.sights.entry(offset).or_insert(sight);
        sent.see(offset, part.unclean.epoch);
    }

    /// Every replica's log as it is now, parsed.
    fn read_logs(&mut self, seen: &Observation<'_>) {
        for (tp, agreed) in &self.newest.partitions {
            let finals = self.finals.entry(tp.clone()).or_default();
            for node in &agreed.replicas {
                let Some(view) = seen.nodes.get(node) else { continue };
                let parsed = view.logs.read(tp).and_then(|bytes| {
                    let batches = batch::parse(&bytes).map_err(Unread::Failed)?;
                    Ok((bytes, batches))
                });
                finals.insert(*node, parsed);
            }
        }
    }
}

impl Sent {
    fn see(&mut self, offset: i64, history: i32) {
        if self.seen_at.is_none_or(|(_, of)| of != history) {
            self.seen_at = Some((offset, history));
        }
    }
}

impl Part {
    /// After the replicas or the agreed state have changed.
    fn reckon(&mut self, now: When) {
        let Some(agreed) = self.agreed.clone() else { return };
        if agreed.unclean_epoch > self.unclean.epoch {
            self.unclean = Unclean { epoch: agreed.unclean_epoch, unsettled: true, settled: None };
            self.sights.clear();
            self.promised.clear();
            (self.proven, self.proof) = (0, String::new());
        }
        if self.unclean.unsettled {
            let old =
                |seen: &Seen| matches!(seen.view.role, Role::Leader { epoch } if epoch < self.unclean.epoch);
            if !self.live().any(|(_, seen)| old(seen)) {
                self.unclean.unsettled = false;
                self.unclean.settled = Some(When { us: now.us, seq: now.seq + 1 });
            }
        }
        // A partition that has just lost its last member may still be led, by whoever has not heard of it; the next leader
        // comes from the eligible replicas, so what all of them hold may be shown (KIP-966).
        let members = if agreed.isr.is_empty() { &agreed.elr } else { &agreed.isr };
        let ends = members.iter().map(|node| self.replicas.get(node).map_or(0, |seen| seen.counted));
        if let Some(end) = ends.min() {
            self.ceiling = self.ceiling.max(end);
        }
        if self.facts.is_some_and(|facts| facts.retention) {
            let starts = self.live().map(|(_, seen)| seen.view.log_start);
            self.may_start = starts.fold(self.may_start, i64::max);
        }
    }
}

/// Keeps the [`Ledger`] for the others.
pub struct Keeper(pub Shared);

impl Invariant for Keeper {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn event(&mut self, event: &Event) -> Check {
        self.0.borrow_mut().event(event);
        Ok(())
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Check {
        self.0.borrow_mut().observe(seen);
        Ok(())
    }

    fn finish(&mut self, seen: &Observation<'_>) -> Check {
        self.0.borrow_mut().read_logs(seen);
        Ok(())
    }
}
