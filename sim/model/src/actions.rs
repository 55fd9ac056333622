//! What may happen next.

use crate::log::CAPACITY;
use crate::metadata::{BROKERS, EVERYBODY, NONE, has, size};
use crate::model::Replication;
use crate::replica::{Leader, Role};
use crate::state::{Action, Kept, State};

impl Replication {
    pub(crate) fn enabled(&self, s: &State, out: &mut Vec<Action>) {
        for b in 0..BROKERS {
            if s.replicas[b].up {
                self.broker_actions(s, b, out);
            } else {
                out.push(Action::Restart(b));
            }
        }
        out.extend((0..s.net.len()).map(Action::Deliver));
        if s.answer.is_some() {
            out.push(Action::DeliverAnswer);
        }
        // Raft waits for images that are too far behind.
        if s.history.len() <= self.bounds.lag {
            self.commands(s, out);
        }
    }

    fn broker_actions(&self, s: &State, b: usize, out: &mut Vec<Action>) {
        let bounds = &self.bounds;
        let replica = &s.replicas[b];
        for to in replica.image + 1..s.history.len() as u8 {
            out.push(Action::Image(b, to));
        }
        if !self.rules.leads_once_per_epoch && replica.led_until != 0 && replica.role == Role::Idle {
            out.push(Action::Image(b, replica.image)); // it looks at the same image again
        }
        self.disk_actions(s, b, out);
        if s.used.deletions < bounds.deletions {
            // Each replica applies retention by itself, a leader DeleteRecords too.
            let leads = replica.leader().is_some();
            let end = if leads && !self.rules.deletes_below_hw {
                replica.log.end()
            } else {
                replica.high_watermark
            };
            if leads || bounds.uncleans == 0 {
                out.extend((replica.log.start() + 1..=end).map(|to| Action::Delete(b, to)));
            }
        }
        match &replica.role {
            Role::Leader(leader) => self.leader_actions(s, b, leader, out),
            Role::Follower { .. } => self.follower_actions(s, b, out),
            Role::Idle => {}
        }
    }

    fn disk_actions(&self, s: &State, b: usize, out: &mut Vec<Action>) {
        let bounds = &self.bounds;
        let replica = &s.replicas[b];
        let dirty = replica.disk != replica.log || replica.flushed != replica.log.end();
        match &replica.flush {
            Some(_) => out.push(Action::FlushEnds(b)),
            None if dirty && bounds.slow_flush => out.push(Action::FlushBegins(b)),
            None if dirty => out.push(Action::Flush(b)),
            None => {}
        }
        if s.used.crashes < bounds.crashes {
            let (durable, end) = (replica.log.common_end(&replica.disk), replica.log.end());
            for keep in durable..=end {
                if bounds.partial_loss || keep == durable || keep == end {
                    out.push(Action::Crash(b, Kept::UpTo(keep)));
                }
            }
            if replica.disk.start() != replica.log.start() || replica.disk.end() != durable {
                out.push(Action::Crash(b, Kept::Disk));
            }
            if replica.flush.is_some_and(|flush| !flush.current) {
                out.push(Action::Crash(b, Kept::Flushing));
            }
        }
        // Each replica is damaged at most once, and only one at a time.
        let agreed = s.agreed();
        if size(agreed.reported) < bounds.damages
            && !has(agreed.reported, b)
            && s.replicas.iter().all(|r| !r.damaged)
        {
            let flushed = replica.log.common_end(&replica.disk);
            out.extend((replica.log.start()..flushed).map(|from| Action::Damage(b, from)));
        }
    }

    fn leader_actions(&self, s: &State, b: usize, leader: &Leader, out: &mut Vec<Action>) {
        let bounds = &self.bounds;
        if s.used.records < bounds.records && (s.replicas[b].log.end() as usize) < CAPACITY {
            out.push(Action::Produce(b));
        }
        if s.used.alters < bounds.alters {
            for isr in 1..=EVERYBODY {
                let added = isr & !leader.isr;
                let removed = leader.isr & !isr;
                let grows = (0..BROKERS).filter(|&f| has(added, f)).all(|f| self.may_grow(s, b, f));
                let useful = isr != leader.isr || leader.unanswered;
                if has(isr, b) && size(added) <= 1 && size(removed) <= 2 && grows && useful {
                    out.push(Action::Propose(b, isr));
                }
            }
        }
        if !self.rules.pending_until_higher_epoch && leader.unanswered {
            out.push(Action::GiveUp(b));
        }
    }

    fn follower_actions(&self, s: &State, b: usize, out: &mut Vec<Action>) {
        let replica = &s.replicas[b];
        let leader = s.image(b).leader;
        if leader == NONE || leader as usize == b || replica.broker_epoch == 0 {
            return;
        }
        let mine = |i: &usize| s.net[*i].follower as usize == b;
        let taken: Vec<usize> = (0..s.net.len()).filter(mine).collect();
        let places = if taken.len() < self.bounds.in_flight { vec![usize::MAX] } else { taken };
        for place in places {
            out.push(Action::Fetch(b, place));
            if self.bounds.acks && replica.flushed > replica.log.start() {
                out.push(Action::Acknowledge(b, place));
            }
        }
    }

    fn commands(&self, s: &State, out: &mut Vec<Action>) {
        let bounds = &self.bounds;
        let agreed = s.agreed();
        let used = &s.used;
        let epochs_left = agreed.leader_epoch < bounds.leader_epochs;
        for (b, replica) in s.replicas.iter().enumerate() {
            let leads = agreed.leader as usize == b;
            let registered = replica.broker_epoch == agreed.broker_epoch[b];
            if replica.up && replica.broker_epoch == 0 && (epochs_left || !leads) {
                out.push(Action::RegisterBroker(b));
            }
            if replica.up && replica.damaged && !has(agreed.reported, b) && registered && epochs_left {
                out.push(Action::ReplicaDamaged(b));
            }
            let matters = has(agreed.replicas, b) || self.moves_replicas();
            if matters && !has(agreed.fenced, b) && used.fences < bounds.fences && (epochs_left || !leads) {
                out.push(Action::FenceBroker(b));
            }
            // The broker wants it once its image holds its registration; nothing depends on that.
            if has(agreed.fenced, b)
                && used.unfences < bounds.unfences
                && registered
                && (epochs_left || agreed.leader != NONE)
            {
                out.push(Action::UnfenceBroker(b));
            }
            if epochs_left && used.preferred < bounds.preferred {
                out.push(Action::ElectPreferred(b));
            }
            if epochs_left && used.uncleans < bounds.uncleans {
                out.push(Action::ElectUnclean(b));
            }
        }
        if used.min_isr_changes < bounds.min_isr_changes {
            out.push(Action::SetMinIsr(3 - agreed.min_isr));
        }
        if used.flush_changes < bounds.flush_changes {
            out.push(Action::SetFlush(!agreed.flush_later));
        }
        if used.reassignments < bounds.reassignments && epochs_left {
            // One replica more, one less, or one for another.
            let change = |set: &u8| {
                let (added, removed) = (set & !agreed.replicas, agreed.replicas & !set);
                size(added) <= 1 && size(removed) <= 1 && added | removed != 0
            };
            out.extend((1..=EVERYBODY).filter(change).map(Action::SetReplicas));
        }
        if used.targets < bounds.targets {
            let targets = (1..=EVERYBODY).filter(|t| *t != agreed.target);
            out.extend(
                targets.filter(|t| *t != agreed.replicas || agreed.target != 0).map(Action::SetReassignment),
            );
        }
        for i in 0..s.alters.len() {
            out.push(Action::Apply(i, true));
            out.push(Action::Apply(i, false));
        }
    }
}
