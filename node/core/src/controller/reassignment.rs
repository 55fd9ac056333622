//! Moving replicas: grow the list, wait until all that are wanted are in the ISR, see that one of them leads,
//! shrink the list. And draining: what a broker that is to be removed holds is reassigned to others.
//!
//! ```text
//!   replicas [1 2 3], wanted [2 3 4]
//!     SetReplicas [1 2 3 4]        the new ones at the end: the preferred leader stays
//!     … 4 catches up, joins the ISR
//!     ElectLeader::To(2)           only if the leader is not wanted
//!     SetReplicas [2 3 4]          `apply` ends the reassignment
//! ```
//!
//! Nothing is ever removed before its replacement is in sync. Each step names the partition epoch that it was
//! decided on, so a step decided on an older image does nothing.

use super::placement::{Load, cluster_load, replacement, wanted};
use super::{Controller, Effect, Subject, propose_all};
use std::collections::BTreeMap;
use strandline_metadata::{Command, Election, Image, Partition, TopicSettings};
use strandline_record::{BrokerId, TopicPartition};

/// The next step of a reassignment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Propose(Command),
    /// Until the wanted replicas are in the ISR, or there is a leader.
    Wait,
}

/// Progress of draining one broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// Replicas that it still holds.
    pub replicas_left: usize,
    pub leads: usize,
    /// Replicas that cannot be moved now: no other broker may take them, and too few would stay.
    pub stuck: usize,
    /// Partitions without a leader that nobody but this broker may lead: it comes back, or what it held is given up by an
    /// unclean election.
    pub orphaned: usize,
}

/// How far the draining of `id` has come. With nothing left it may be fenced and unregistered.
pub fn drain_progress(image: &Image, id: BrokerId) -> DrainProgress {
    let mut progress = DrainProgress::default();
    let load = cluster_load(image);
    for (&tp, partition) in image.partitions.iter() {
        progress.leads += usize::from(partition.leader == Some(id));
        if partition.replicas.contains(&id) || wanted(partition).contains(&id) {
            progress.replicas_left += 1;
            let mut eligible = partition.isr.iter().chain(&partition.elr);
            progress.orphaned += usize::from(partition.leader.is_none() && eligible.all(|e| *e == id));
            let stuck =
                wanted(partition).contains(&id) && drain_target(image, tp, partition, &load).is_none();
            progress.stuck += usize::from(stuck);
        }
    }
    progress
}

/// What cancels a partition's reassignment: nothing more to do if it has not begun, else the way back to the
/// replicas before it (new ones were added at the end).
pub fn cancel(tp: TopicPartition, partition: &Partition) -> Command {
    let before = partition.reassignment.as_ref().map(|target| target.len());
    let target =
        before.filter(|&len| len < partition.replicas.len()).map(|len| partition.replicas[..len].to_vec());
    Command::SetReassignment { tp, target }
}

impl Controller {
    pub(super) fn move_replicas(&mut self, image: &Image, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut moving = 0;
        let mut commands = vec![];
        for &tp in &self.index.reassigning {
            let Some(partition) = image.partition(tp) else { continue };
            // Those that have begun come first: only they hold data twice.
            moving += usize::from(has_begun(partition));
        }
        for &tp in &self.index.reassigning {
            let Some(partition) = image.partition(tp) else { continue };
            if !has_begun(partition) {
                if moving >= self.config.max_moves {
                    continue;
                }
                moving += 1;
            }
            let Step::Propose(command) = self.next_step(image, tp, partition) else { continue };
            if self.proposals.is_due(Subject::Replicas(tp, partition.partition_epoch), now_ms) {
                commands.push(command);
            }
        }
        self.drain(image, self.config.max_moves.saturating_sub(moving), now_ms, &mut commands);
        propose_all(commands, effects);
    }

    fn next_step(&self, image: &Image, tp: TopicPartition, partition: &Partition) -> Step {
        let Some(target) = &partition.reassignment else { return Step::Wait };
        let set_replicas = |replicas: Vec<BrokerId>| {
            let partition_epoch = partition.partition_epoch;
            Step::Propose(Command::SetReplicas { tp, partition_epoch, replicas })
        };
        let missing: Vec<BrokerId> =
            target.iter().copied().filter(|id| !partition.replicas.contains(id)).collect();
        if !missing.is_empty() {
            return set_replicas(partition.replicas.iter().copied().chain(missing).collect());
        }
        let in_sync = target.iter().all(|id| partition.isr.contains(id));
        let (true, Some(leader)) = (in_sync, partition.leader) else { return Step::Wait };
        if !target.contains(&leader) {
            return match target.iter().find(|&&id| self.may_lead(id, image)) {
                Some(&to) => Step::Propose(Command::ElectLeader { tp, kind: Election::To(to) }),
                None => Step::Wait,
            };
        }
        set_replicas(target.clone())
    }

    /// Gives up to `slots` partitions on draining brokers a target without them.
    fn drain(&mut self, image: &Image, slots: usize, now_ms: u64, commands: &mut Vec<Command>) {
        if self.index.draining.is_empty() {
            return;
        }
        let mut load = cluster_load(image);
        let mut planned = 0;
        for &tp in &self.index.draining {
            let Some(partition) = image.partition(tp) else { continue };
            // One that has begun has its slot already, and keeps it until it may end elsewhere.
            let begun = has_begun(partition);
            if planned == slots && !begun {
                continue;
            }
            let Some(target) = drain_target(image, tp, partition, &load) else { continue };
            planned += usize::from(!begun);
            super::placement::add(&mut load, &target);
            if self.proposals.is_due(Subject::Reassignment(tp), now_ms) {
                commands.push(Command::SetReassignment { tp, target: Some(target) });
            }
        }
    }
}

/// The growth step has been taken.
fn has_begun(partition: &Partition) -> bool {
    let held = |target: &Vec<BrokerId>| target.iter().all(|id| partition.replicas.contains(id));
    partition.reassignment.as_ref().is_some_and(held)
}

/// The partition's replicas, or those that it is moving to, with each draining one replaced, in its place, by the best
/// other broker. Where no registered broker is left to take it, the list gets shorter, as long as what stays satisfies
/// `min.insync.replicas`. `None`: nothing can be done now.
fn drain_target(
    image: &Image,
    tp: TopicPartition,
    partition: &Partition,
    load: &BTreeMap<BrokerId, Load>,
) -> Option<Vec<BrokerId>> {
    let drains = |id: &BrokerId| image.broker(*id).is_none_or(|broker| broker.draining);
    let held = wanted(partition);
    let mut staying: Vec<BrokerId> = held.iter().copied().filter(|id| !drains(id)).collect();
    let mut target = vec![];
    for id in held {
        if !drains(id) {
            target.push(*id);
        } else if let Some(new) = replacement(image, &staying, load) {
            staying.push(new);
            target.push(new);
        }
    }
    if target.len() < held.len() {
        // A fenced broker may come back and take it: no reason to give up a copy.
        let all_taken = image.brokers.values().all(|b| b.draining || target.contains(&b.id));
        let configs = &image.topics.get(&tp.topic)?.configs;
        let needed = TopicSettings::from_configs(configs, target.len()).min_insync_replicas;
        if !all_taken || target.is_empty() || target.len() < needed {
            return None;
        }
    }
    (target != held).then_some(target)
}
