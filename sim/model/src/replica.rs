//! One broker's replica of the partition: what is on its disk, what it has in memory, its role.

use crate::log::Log;
use crate::metadata::BROKERS;

/// What a leader knows of a follower in its epoch: ends that it acknowledged, and under which registration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ack {
    pub broker_epoch: u8,
    /// What the follower believes that its disk holds.
    pub flushed: u8,
    /// Its log end when it last asked.
    pub next: u8,
    /// Number of the first request that matched.
    pub matched: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Leader {
    pub epoch: u8,
    /// Log end when this epoch began.
    pub start: u8,
    /// Committed ISR and the partition epoch that says so, from the image or an answer.
    pub isr: u8,
    pub partition_epoch: u8,
    /// An AlterPartition naming `partition_epoch` is in flight or unanswered, and what it may add.
    pub unanswered: bool,
    pub adds: u8,
    /// What it would remove (only a mutant looks).
    pub removes: u8,
}

impl Leader {
    /// A committed ISR under a higher partition epoch ends what was unanswered.
    pub fn adopt(&mut self, partition_epoch: u8, isr: u8) {
        self.partition_epoch = partition_epoch;
        self.isr = isr;
        self.forget_proposals();
    }

    pub fn forget_proposals(&mut self) {
        self.unanswered = false;
        self.adds = 0;
        self.removes = 0;
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    Idle,
    Follower { epoch: u8 },
    Leader(Leader),
}

/// A flush under way: the log as it will be on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flush {
    pub log: Log,
    /// Nothing has been cut since it began.
    pub current: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replica {
    pub up: bool,
    pub log: Log,
    /// What a power loss is sure to leave; a cut or a deletion reaches it with the next flush.
    pub disk: Log,
    /// What the replica believes to be on disk; it may be below the log start.
    pub flushed: u8,
    pub flush: Option<Flush>,
    pub high_watermark: u8,
    /// The epoch in which it learnt its high watermark (kept only where unclean elections happen).
    pub high_watermark_epoch: u8,
    /// Its registration, 0 until a restarted broker has its answer.
    pub broker_epoch: u8,
    /// Its image: an index into the agreed history.
    pub image: u8,
    pub role: Role,
    pub acks: [Option<Ack>; BROKERS],
    /// Number of its requests: how often its log was cut in this role. (A request between two cuts says the same
    /// of the log as any other, so one number for them is enough.)
    pub number: u8,
    /// The epoch of a leadership that ended by a peer's request.
    pub led_until: u8,
    /// It has lost flushed records and has not seen its report in its image.
    pub damaged: bool,
}

impl Replica {
    pub fn start() -> Self {
        Replica {
            up: true,
            log: Log::EMPTY,
            disk: Log::EMPTY,
            flushed: 0,
            flush: None,
            high_watermark: 0,
            high_watermark_epoch: 0,
            broker_epoch: 1,
            image: 0,
            role: Role::Idle,
            acks: [None; BROKERS],
            number: 0,
            led_until: 0,
            damaged: false,
        }
    }

    /// The log is now another one that agrees with what it was below `end`.
    pub fn cut(&mut self, log: Log, end: u8) {
        self.log = log;
        self.flushed = self.flushed.min(end);
        self.high_watermark = self.high_watermark.min(end).max(log.start());
        if let Some(flush) = &mut self.flush {
            flush.current = false;
        }
    }

    pub fn truncate(&mut self, end: u8) {
        let mut log = self.log;
        log.truncate(end.max(log.start()));
        self.cut(log, end);
    }

    pub fn leave_role(&mut self) {
        self.role = Role::Idle;
        self.acks = [None; BROKERS];
        self.number = 0;
    }

    pub fn epoch(&self) -> u8 {
        match &self.role {
            Role::Idle => 0,
            Role::Follower { epoch } => *epoch,
            Role::Leader(leader) => leader.epoch,
        }
    }

    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    pub fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }
}
