//! "What is agreed": the Raft state machine. Each command is one atomic function of it.

use crate::rules::Rules;

pub const BROKERS: usize = 3;
pub const NONE: u8 = 3;
pub const EVERYBODY: u8 = 0b111;

pub fn bit(broker: usize) -> u8 {
    1 << broker
}

pub fn has(set: u8, broker: usize) -> bool {
    set & bit(broker) != 0
}

pub fn size(set: u8) -> u8 {
    set.count_ones() as u8
}

/// Sets of brokers are bits; assignment order is the order of the brokers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Metadata {
    pub broker_epoch: [u8; BROKERS],
    pub fenced: u8,
    pub replicas: u8,
    /// Where a reassignment goes; 0: there is none.
    pub target: u8,
    pub leader: u8,
    pub leader_epoch: u8,
    pub partition_epoch: u8,
    pub isr: u8,
    pub elr: u8,
    pub min_isr: u8,
    pub unclean_epoch: u8,
    /// A flush mode other than `ack`: what is appended counts.
    pub flush_later: bool,
    /// Which replicas have a ReplicaDamaged behind them (each is damaged at most once here).
    pub reported: u8,
}

/// AlterPartition{requester, leader_epoch, partition_epoch, isr with broker epochs}.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AlterPartition {
    pub requester: u8,
    pub leader_epoch: u8,
    pub partition_epoch: u8,
    pub isr: u8,
    pub broker_epoch: [u8; BROKERS],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Verdict {
    Applied { partition_epoch: u8, isr: u8 },
    Rejected,
}

impl Metadata {
    /// min.insync.replicas as it counts for this partition: no more than the replicas that it has or is to have.
    pub fn needed(&self) -> u8 {
        let target = if self.target == 0 { self.replicas } else { self.target };
        self.min_isr.min(size(self.replicas)).min(size(target))
    }

    fn empty_elr_if(&mut self, rule: bool) {
        if rule && size(self.isr) >= self.needed() {
            self.elr = 0;
        }
    }

    /// Leader := first replica in assignment order that is unfenced and in the ISR, else unfenced and in the ELR
    /// (then ISR := {it}), else none.
    fn elect(&mut self, rules: &Rules) {
        self.leader_epoch += 1;
        let first = |set: u8| (0..BROKERS).find(|&b| has(set & !self.fenced, b));
        if let Some(b) = first(self.isr) {
            self.leader = b as u8;
        } else if let Some(b) = first(self.elr) {
            self.leader = b as u8;
            self.isr = bit(b);
            self.elr &= !self.isr;
            self.empty_elr_if(rules.elr_emptied_by_election);
        } else {
            self.leader = NONE;
        }
    }

    fn leave_isr_as_fenced(&mut self, b: usize, rules: &Rules) {
        if has(self.isr, b) {
            self.isr &= !bit(b);
            let below = size(self.isr) < self.needed();
            if rules.elr_filled_on_fence && (below || !rules.elr_only_below_min_isr) {
                self.elr |= bit(b);
            }
        }
        if self.leader as usize == b {
            self.elect(rules);
        }
    }

    /// Whatever changed the partition moves its epoch.
    fn seal(mut self, before: &Metadata) -> Self {
        let partition = |m: &Metadata| (m.leader, m.leader_epoch, m.isr, m.elr, m.unclean_epoch, m.replicas);
        if partition(&self) != partition(before) {
            self.partition_epoch = before.partition_epoch + 1;
        }
        self
    }

    pub fn fence(&self, b: usize, rules: &Rules) -> Self {
        let mut m = *self;
        m.fenced |= bit(b);
        m.leave_isr_as_fenced(b, rules);
        m.seal(self)
    }

    pub fn unfence(&self, b: usize, rules: &Rules) -> Self {
        let mut m = *self;
        m.fenced &= !bit(b);
        if m.leader == NONE && has(m.isr | m.elr, b) {
            m.elect(rules);
        }
        m.seal(self)
    }

    /// Every stop is unclean here.
    pub fn register(&self, b: usize, rules: &Rules) -> Self {
        let mut m = *self;
        m.broker_epoch[b] += 1;
        m.fenced |= bit(b);
        if rules.register_fences {
            m.leave_isr_as_fenced(b, rules);
        }
        if m.flush_later && rules.unclean_leaves_elr {
            m.elr &= !bit(b);
        }
        m.seal(self)
    }

    /// ElectLeader{preferred}; the model lets any unfenced member of the ISR be the preferred one.
    pub fn elect_preferred(&self, b: usize) -> Option<Self> {
        if !has(self.isr & !self.fenced, b) || self.leader as usize == b {
            return None;
        }
        let mut m = *self;
        m.leader = b as u8;
        m.leader_epoch += 1;
        Some(m.seal(self))
    }

    /// ElectLeader{unclean}.
    pub fn elect_unclean(&self, b: usize) -> Option<Self> {
        if (self.isr | self.elr) & !self.fenced != 0 || !has(self.replicas & !self.fenced, b) {
            return None;
        }
        let mut m = *self;
        m.leader = b as u8;
        m.leader_epoch += 1;
        m.unclean_epoch = m.leader_epoch;
        m.isr = bit(b);
        m.elr = 0;
        Some(m.seal(self))
    }

    pub fn replica_damaged(&self, b: usize, rules: &Rules) -> Self {
        let mut m = *self;
        m.reported |= bit(b);
        if rules.damage_leaves_isr {
            m.isr &= !bit(b);
        }
        if rules.damage_leaves_elr {
            m.elr &= !bit(b);
        }
        if rules.damage_raises_epoch || m.leader as usize == b {
            let leader = m.leader as usize;
            if leader != b && leader < BROKERS {
                m.leader_epoch += 1; // the same leader, in a new epoch
            } else {
                m.elect(rules);
            }
        }
        m.seal(self)
    }

    /// It names each partition of the topic, so it moves their epochs.
    pub fn set_min_isr(&self, min_isr: u8, rules: &Rules) -> Self {
        let mut m = *self;
        m.min_isr = min_isr;
        m.empty_elr_if(rules.elr_emptied_by_min_isr);
        m = m.seal(self);
        if rules.min_isr_moves_partition_epoch {
            m.partition_epoch = self.partition_epoch + 1;
        }
        m
    }

    pub fn set_flush(&self, flush_later: bool, rules: &Rules) -> Option<Self> {
        if rules.flush_never_tightened && !flush_later {
            return None;
        }
        Some(Metadata { flush_later, ..*self })
    }

    /// SetReassignment: only what `needed` follows from it matters here.
    pub fn set_target(&self, target: u8, rules: &Rules) -> Self {
        let mut m = *self;
        m.target = if target == m.replicas { 0 } else { target };
        m.empty_elr_if(rules.elr_emptied_by_min_isr);
        m.partition_epoch += 1;
        m
    }

    /// SetReplicas. The model lets a controller propose any list at any time: whatever it decided on, `apply` decides
    /// again. (So the compare-and-set by partition epoch is for progress, not for safety.)
    pub fn set_replicas(&self, replicas: u8, rules: &Rules) -> Option<Self> {
        if replicas == 0 || replicas == self.replicas {
            return None;
        }
        let mut m = *self;
        m.replicas = replicas;
        m.isr &= replicas;
        m.elr &= replicas;
        if m.target == replicas {
            m.target = 0;
        }
        let loses_candidate = (self.isr | self.elr) & !replicas != 0;
        if rules.removal_leaves_enough && loses_candidate && size(m.isr) < m.needed() {
            return None;
        }
        if m.leader != NONE && !has(replicas, m.leader as usize) {
            m.elect(rules);
        } else if self.replicas & !replicas != 0 && rules.removal_raises_epoch {
            m.leader_epoch += 1;
        }
        m.empty_elr_if(rules.elr_emptied_by_min_isr);
        Some(m.seal(self))
    }

    pub fn alter_partition(&self, alter: &AlterPartition, rules: &Rules) -> Result<Self, Verdict> {
        // Who leads, and in which leader epoch, need not be checked for safety: both move the partition epoch.
        let mut refused = rules.alter_checks_partition_epoch && self.partition_epoch != alter.partition_epoch;
        for b in (0..BROKERS).filter(|&b| has(alter.isr, b)) {
            refused |= !has(self.replicas, b);
            refused |= rules.alter_checks_unfenced && has(self.fenced, b);
            refused |= rules.alter_checks_broker_epoch && self.broker_epoch[b] != alter.broker_epoch[b];
        }
        if refused {
            return Err(Verdict::Rejected);
        }
        let mut m = *self;
        m.isr = alter.isr;
        m.elr &= !m.isr;
        if size(m.isr) < m.needed() {
            m.elr |= self.isr & !m.isr;
        }
        m.empty_elr_if(rules.elr_emptied_by_alter);
        m.partition_epoch += 1; // also when it changes nothing: that ends what was unanswered
        Ok(m)
    }
}
