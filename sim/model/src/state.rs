//! What a state is made of: three replicas, the agreed history, and the messages under way.

use crate::log::Log;
use crate::metadata::{AlterPartition, BROKERS, EVERYBODY, Metadata, Verdict};
use crate::replica::Replica;

/// How far a check goes. Counts are totals over the run.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub records: u8,
    pub leader_epochs: u8,
    pub crashes: u8,
    pub fences: u8,
    pub unfences: u8,
    pub preferred: u8,
    pub alters: u8,
    pub damages: u8,
    pub uncleans: u8,
    pub min_isr_changes: u8,
    pub flush_changes: u8,
    /// SetReplicas and SetReassignment.
    pub reassignments: u8,
    pub targets: u8,
    /// Retention or DeleteRecords, on any replica.
    pub deletions: u8,
    /// Messages (requests and answers) under way per follower; a new one may replace, and so lose, any.
    pub in_flight: usize,
    /// Commands that a broker's image may be behind.
    pub lag: usize,
    pub start_min_isr: u8,
    pub start_isr: u8,
    pub start_replicas: u8,
    /// The topic's flush mode at the start is another than `ack`.
    pub flush_later: bool,
    /// Power losses may keep any part of the unflushed suffix, or only none and all of it.
    pub partial_loss: bool,
    /// Flushes take time even where no power loss follows.
    pub lazy_flush: bool,
    /// A flush begins and ends; the log may change in between.
    pub slow_flush: bool,
    /// Acknowledgements between requests.
    pub acks: bool,
}

impl Bounds {
    pub const NOTHING: Bounds = Bounds {
        records: 1,
        leader_epochs: 1,
        crashes: 0,
        fences: 0,
        unfences: 0,
        preferred: 0,
        alters: 0,
        damages: 0,
        uncleans: 0,
        min_isr_changes: 0,
        flush_changes: 0,
        reassignments: 0,
        targets: 0,
        deletions: 0,
        in_flight: 1,
        lag: 3,
        start_min_isr: 2,
        start_isr: EVERYBODY,
        start_replicas: EVERYBODY,
        flush_later: false,
        partial_loss: false,
        lazy_flush: false,
        slow_flush: false,
        acks: false,
    };

    /// Flushes are steps of their own. (Where nothing unflushed can be lost, a slow flush is no more than a slow
    /// fetch.)
    pub fn flushes(&self) -> bool {
        self.crashes > 0 || self.lazy_flush || self.slow_flush
    }
}

/// What has been spent of the bounds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Used {
    pub records: u8,
    pub crashes: u8,
    pub fences: u8,
    pub unfences: u8,
    pub preferred: u8,
    pub alters: u8,
    pub uncleans: u8,
    pub min_isr_changes: u8,
    pub flush_changes: u8,
    pub reassignments: u8,
    pub targets: u8,
    pub deletions: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Body {
    Fetch {
        broker_epoch: u8,
        flushed: u8,
    },
    /// The flushed end has moved since the request.
    Ack {
        broker_epoch: u8,
        flushed: u8,
    },
    Diverging {
        epoch: u8,
        end: u8,
    },
    /// Begin again at this offset with an empty log: nothing here matches, or it has been deleted.
    StartAt {
        offset: u8,
        deleted: bool,
    },
    Records {
        records: Log,
        high_watermark: u8,
        log_start: u8,
    },
}

/// A request of a follower, or its answer; both carry what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Message {
    pub follower: u8,
    /// Whom the follower takes for the leader.
    pub leader: u8,
    pub leader_epoch: u8,
    pub number: u8,
    pub next: u8,
    pub last_epoch: u8,
    pub body: Body,
}

impl Message {
    pub fn is_answer(&self) -> bool {
        !matches!(self.body, Body::Fetch { .. } | Body::Ack { .. })
    }
}

/// Raft's answer to an AlterPartition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Answer {
    pub to: u8,
    pub leader_epoch: u8,
    pub named: u8,
    pub verdict: Verdict,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub replicas: [Replica; BROKERS],
    /// The agreed history from the oldest image on.
    pub history: Vec<Metadata>,
    pub net: Vec<Message>,
    pub alters: Vec<AlterPartition>,
    pub answer: Option<Answer>,
    /// Everything that was ever below some leader's high watermark: visible, and acknowledged. Since the unclean
    /// election of epoch `lineage`, if there was one: what one loses is excused, what is seen after it is not.
    pub committed: Log,
    pub lineage: u8,
    /// The highest log start that retention or DeleteRecords has declared.
    pub declared_start: u8,
    /// Some leader's high watermark passed an offset that already had another value.
    pub two_values: bool,
    /// A follower truncated below its own high watermark.
    pub assertion: bool,
    /// An answer that ends in a truncation truncated nothing: the follower would ask the same for ever.
    pub no_progress: bool,
    pub used: Used,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Leader: append (acks=all or acks=leader: the model acknowledges whatever the HW passes).
    Produce(usize),
    /// fdatasync of the whole log, at once.
    Flush(usize),
    /// The same in two steps.
    FlushBegins(usize),
    FlushEnds(usize),
    /// Follower fetch; the usize is the message it replaces when the channel is full.
    Fetch(usize, usize),
    /// Follower: its flushed end, between requests.
    Acknowledge(usize, usize),
    /// The leader handles request i, the follower handles answer i.
    Deliver(usize),
    /// Leader: propose this ISR.
    Propose(usize, u8),
    /// Mutant only: a leader forgets an unanswered AlterPartition.
    GiveUp(usize),
    /// Raft applies proposal i; its answer is sent or lost.
    Apply(usize, bool),
    DeliverAnswer,
    /// A broker's image moves to this point of the history.
    Image(usize, u8),
    FenceBroker(usize),
    UnfenceBroker(usize),
    ElectPreferred(usize),
    ElectUnclean(usize),
    SetMinIsr(u8),
    SetFlush(bool),
    SetReplicas(u8),
    SetReassignment(u8),
    /// Retention or DeleteRecords: below this offset.
    Delete(usize, u8),
    /// Power loss.
    Crash(usize, Kept),
    Restart(usize),
    RegisterBroker(usize),
    /// Flushed records from this offset on are found damaged and cut off.
    Damage(usize, u8),
    ReplicaDamaged(usize),
}

/// What a power loss leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// What was on disk before the last cuts and deletions.
    Disk,
    /// What the flush under way was writing.
    Flushing,
    /// The log as it is, up to here.
    UpTo(u8),
}

impl State {
    pub fn agreed(&self) -> &Metadata {
        self.history.last().expect("the history is never empty")
    }

    pub fn image(&self, b: usize) -> &Metadata {
        &self.history[self.replicas[b].image as usize]
    }

    /// Agrees on `next`, if it is anything new.
    pub fn commit(&mut self, next: Metadata) {
        if next != *self.agreed() {
            self.history.push(next);
        }
    }

    /// Forgets what is older than every image.
    pub fn trim(&mut self) {
        let oldest = self.replicas.iter().map(|r| r.image).min().expect("there are brokers");
        if oldest > 0 {
            self.history.drain(..oldest as usize);
            self.replicas.iter_mut().for_each(|replica| replica.image -= oldest);
        }
    }

    /// Whether what is seen by a leader of this epoch counts: not so once an unclean election came after it.
    pub fn counts(&self, leader_epoch: u8) -> bool {
        leader_epoch >= self.agreed().unclean_epoch
    }

    /// An unclean election has been agreed, and nobody has led since.
    pub fn between_lineages(&self) -> bool {
        self.lineage != self.agreed().unclean_epoch
    }

    /// After an unclean election, as long as nothing of the new history is to be kept: a power loss may bring back the
    /// log of a replica that had begun again and not flushed that, and it may even lead with it.
    pub fn may_begin_anywhere(&self) -> bool {
        self.lineage > 0 && self.committed.end() <= self.declared_start
    }

    /// A leader of this epoch shows what is below `end` in `log`.
    pub fn see(&mut self, leader_epoch: u8, log: &Log, end: u8) {
        if !self.counts(leader_epoch) {
            return;
        }
        if self.between_lineages() {
            // What was declared deleted stays so as far as the two histories are one.
            let same = self.committed.common_end(log).max(log.start());
            self.declared_start = self.declared_start.min(same).max(log.start());
            self.committed = Log::starting_at(log.start());
            self.lineage = self.agreed().unclean_epoch;
        }
        let elsewhere = log.start() > self.committed.end() || log.end() < self.committed.end();
        if elsewhere && self.may_begin_anywhere() {
            (self.committed, self.declared_start) = (Log::starting_at(log.start()), log.start());
        }
        for offset in log.start().max(self.committed.start())..end {
            match (log.get(offset), self.committed.get(offset)) {
                (Some(record), None) if offset == self.committed.end() => self.committed.push(record),
                (record, committed) => self.two_values |= record != committed,
            }
        }
    }
}
