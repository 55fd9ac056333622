//! The whole system as a stateright model: what each action does. What may happen is in `actions.rs`, what must hold in
//! `properties.rs`, what leaders and followers decide in `leader.rs` and `follower.rs`.

use crate::log::Log;
use crate::metadata::{AlterPartition, BROKERS, Metadata, Verdict, has};
use crate::replica::{Flush, Replica};
use crate::rules::Rules;
use crate::state::{Action, Answer, Body, Bounds, Kept, Message, State, Used};
use stateright::{Model, Property};

pub struct Replication {
    pub rules: Rules,
    pub bounds: Bounds,
}

impl Model for Replication {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let bounds = &self.bounds;
        let metadata = Metadata {
            broker_epoch: [1; BROKERS],
            fenced: 0,
            replicas: bounds.start_replicas,
            target: 0,
            leader: 0,
            leader_epoch: 1,
            partition_epoch: 1,
            isr: bounds.start_isr,
            elr: 0,
            min_isr: bounds.start_min_isr,
            unclean_epoch: 0,
            flush_later: bounds.flush_later,
            reported: 0,
        };
        let mut s = State {
            replicas: [Replica::start(), Replica::start(), Replica::start()],
            history: vec![metadata],
            net: vec![],
            alters: vec![],
            answer: None,
            committed: Log::EMPTY,
            lineage: 0,
            declared_start: 0,
            two_values: false,
            assertion: false,
            no_progress: false,
            used: Used::default(),
        };
        (0..BROKERS).for_each(|b| self.take_role(&mut s, b));
        vec![s]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        self.enabled(s, out);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut s = before.clone();
        self.act(&mut s, action)?;
        self.settle(&mut s);
        (s != *before).then_some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::properties::all()
    }
}

impl Replication {
    /// `None`: it turns out not to be possible.
    fn act(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Produce(b) => {
                s.used.records += 1;
                let (attempt, epoch) = (s.used.records, s.replicas[b].epoch());
                s.replicas[b].log.append(epoch, attempt);
                self.advance_high_watermark(s, b);
            }
            Action::Flush(b) => self.flush(s, b),
            Action::FlushBegins(b) => {
                let replica = &mut s.replicas[b];
                replica.flush = Some(Flush { log: replica.log, current: true });
            }
            Action::FlushEnds(b) => self.flush_ends(s, b),
            Action::Fetch(b, replaced) => {
                let (broker_epoch, flushed) = (s.replicas[b].broker_epoch, s.replicas[b].flushed);
                self.send(s, b, Body::Fetch { broker_epoch, flushed }, replaced)?;
            }
            Action::Acknowledge(b, replaced) => {
                let (broker_epoch, flushed) = (s.replicas[b].broker_epoch, s.replicas[b].flushed);
                self.send(s, b, Body::Ack { broker_epoch, flushed }, replaced)?;
            }
            Action::Deliver(i) => {
                let message = s.net.remove(i);
                if message.is_answer() {
                    self.handle_answer(s, message);
                } else {
                    self.handle_request(s, message);
                }
            }
            Action::Propose(b, isr) => self.propose(s, b, isr),
            Action::GiveUp(b) => {
                s.replicas[b].leader_mut()?.forget_proposals();
                self.advance_high_watermark(s, b);
            }
            Action::Apply(i, answered) => self.apply_alter(s, i, answered),
            Action::DeliverAnswer => self.deliver_answer(s),
            Action::Image(b, to) => {
                s.replicas[b].image = to;
                self.take_role(s, b);
            }
            Action::Delete(b, to) => {
                s.used.deletions += 1;
                if s.counts(s.replicas[b].epoch()) {
                    s.declared_start = s.declared_start.max(to);
                }
                self.delete(&mut s.replicas[b], to);
            }
            Action::Crash(b, kept) => {
                s.used.crashes += 1;
                Self::crash(s, b, kept);
            }
            Action::Restart(b) => {
                s.replicas[b].up = true;
                s.replicas[b].broker_epoch = 0;
                self.take_role(s, b);
            }
            Action::RegisterBroker(b) => {
                let next = s.agreed().register(b, &self.rules);
                s.replicas[b].broker_epoch = next.broker_epoch[b];
                s.commit(next);
                self.take_role(s, b);
            }
            Action::Damage(b, from) => {
                let replica = &mut s.replicas[b];
                replica.truncate(from);
                (replica.disk, replica.flush) = (replica.log, None);
                replica.damaged = true;
                if self.rules.role_after_damage_report || replica.leader().is_some() {
                    replica.leave_role();
                }
            }
            command => self.agree_on(s, command)?,
        }
        Some(())
    }

    /// Commands that are proposed and applied in one step; that proposals take time shows in late images.
    fn agree_on(&self, s: &mut State, command: Action) -> Option<()> {
        let rules = &self.rules;
        let (agreed, used) = (*s.agreed(), &mut s.used);
        let next = match command {
            Action::FenceBroker(b) => {
                used.fences += 1;
                agreed.fence(b, rules)
            }
            Action::UnfenceBroker(b) => {
                used.unfences += 1;
                agreed.unfence(b, rules)
            }
            Action::ElectPreferred(b) => {
                used.preferred += 1;
                agreed.elect_preferred(b)?
            }
            Action::ElectUnclean(b) => {
                used.uncleans += 1;
                agreed.elect_unclean(b)?
            }
            Action::SetMinIsr(min_isr) => {
                used.min_isr_changes += 1;
                agreed.set_min_isr(min_isr, rules)
            }
            Action::SetFlush(later) => {
                used.flush_changes += 1;
                agreed.set_flush(later, rules)?
            }
            Action::SetReplicas(replicas) => {
                used.reassignments += 1;
                agreed.set_replicas(replicas, rules)?
            }
            Action::SetReassignment(target) => {
                used.targets += 1;
                agreed.set_target(target, rules)
            }
            Action::ReplicaDamaged(b) => agreed.replica_damaged(b, rules),
            other => unreachable!("{other:?} is no command"),
        };
        s.commit(next);
        Some(())
    }

    fn flush(&self, s: &mut State, b: usize) {
        let replica = &mut s.replicas[b];
        replica.disk = replica.log;
        replica.flushed = replica.log.end();
        self.advance_high_watermark(s, b);
    }

    fn flush_ends(&self, s: &mut State, b: usize) {
        let replica = &mut s.replicas[b];
        let Some(flush) = replica.flush.take() else { return };
        replica.disk = flush.log;
        if flush.current || !self.rules.flush_checks_truncations {
            replica.flushed = replica.flushed.max(flush.log.end().min(replica.log.end()));
        }
        self.advance_high_watermark(s, b);
    }

    fn send(&self, s: &mut State, b: usize, body: Body, replaced: usize) -> Option<()> {
        let replica = &s.replicas[b];
        let message = Message {
            follower: b as u8,
            leader: s.image(b).leader,
            leader_epoch: replica.epoch(),
            number: replica.number,
            next: replica.log.end(),
            last_epoch: replica.log.last_epoch(),
            body,
        };
        if s.net.contains(&message) {
            return None;
        }
        if replaced != usize::MAX {
            s.net.remove(replaced);
        }
        s.net.push(message);
        Some(())
    }

    fn propose(&self, s: &mut State, b: usize, isr: u8) {
        s.used.alters += 1;
        let broker_epoch = s.image(b).broker_epoch;
        let leader = s.replicas[b].leader_mut().expect("only leaders propose");
        let adds = isr & !leader.isr;
        leader.adds = if self.rules.pending_accumulates { leader.adds | adds } else { adds };
        leader.removes |= leader.isr & !isr;
        leader.unanswered = true;
        let alter = AlterPartition {
            requester: b as u8,
            leader_epoch: leader.epoch,
            partition_epoch: leader.partition_epoch,
            isr,
            broker_epoch,
        };
        s.alters.push(alter);
        self.advance_high_watermark(s, b);
    }

    fn apply_alter(&self, s: &mut State, i: usize, answered: bool) {
        let alter = s.alters.remove(i);
        let verdict = match s.agreed().alter_partition(&alter, &self.rules) {
            Ok(next) => {
                s.history.push(next);
                Verdict::Applied { partition_epoch: next.partition_epoch, isr: next.isr }
            }
            Err(verdict) => verdict,
        };
        if answered {
            s.answer = Some(Answer {
                to: alter.requester,
                leader_epoch: alter.leader_epoch,
                named: alter.partition_epoch,
                verdict,
            });
        }
    }

    fn deliver_answer(&self, s: &mut State) {
        let Some(answer) = s.answer.take() else { return };
        let b = answer.to as usize;
        let Some(leader) = s.replicas[b].leader_mut().filter(|l| l.epoch == answer.leader_epoch) else {
            return;
        };
        match answer.verdict {
            Verdict::Applied { partition_epoch, isr } => {
                if partition_epoch > leader.partition_epoch {
                    leader.adopt(partition_epoch, isr);
                }
            }
            Verdict::Rejected => {
                if !self.rules.rejection_keeps_pending && answer.named == leader.partition_epoch {
                    leader.forget_proposals();
                }
            }
        }
        self.advance_high_watermark(s, b);
    }

    /// Power loss. What is in memory only is forgotten, the high watermark too.
    fn crash(s: &mut State, b: usize, kept: Kept) {
        let replica = &mut s.replicas[b];
        let flush = replica.flush.take();
        match kept {
            Kept::Disk => replica.log = replica.disk,
            Kept::Flushing => replica.log = flush.map_or(replica.disk, |flush| flush.log),
            Kept::UpTo(end) => replica.log.truncate(end),
        }
        replica.up = false;
        replica.disk = replica.log;
        replica.flushed = replica.log.end();
        replica.high_watermark = replica.log.start();
        replica.high_watermark_epoch = 0;
        replica.led_until = 0;
        replica.leave_role();
        // Answers die with its connections; its requests may still arrive.
        s.net.retain(|m| m.follower as usize != b || !m.is_answer());
    }

    pub(crate) fn moves_replicas(&self) -> bool {
        self.bounds.reassignments > 0
    }

    fn settle(&self, s: &mut State) {
        if !self.bounds.flushes() {
            for b in 0..BROKERS {
                let replica = &s.replicas[b];
                if replica.disk != replica.log || replica.flushed != replica.log.end() {
                    self.flush(s, b);
                }
            }
        }
        if !self.moves_replicas() {
            // A broker without a replica sees everything at once: it makes no difference.
            let last = s.history.len() as u8 - 1;
            let idle = |b: &usize| !has(self.bounds.start_replicas, *b);
            (0..BROKERS).filter(idle).for_each(|b| s.replicas[b].image = last);
        }
        s.trim();
        s.net.sort_unstable();
        s.alters.sort_unstable();
        // A proposal that names an epoch that has passed can only be rejected; its only use is the answer. Where
        // rejections say nothing, it is gone.
        let rules = &self.rules;
        if rules.rejection_keeps_pending && rules.alter_checks_partition_epoch {
            let now = s.agreed().partition_epoch;
            s.alters.retain(|alter| alter.partition_epoch >= now);
        }
    }
}
