//! What a leader answers producers and consumers: may this be appended, is it acknowledged, what is visible.

use super::{Leader, LeaderEpoch, Offset};

/// How many replicas a producer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// The whole maximal ISR.
    All,
    /// The leader's own disk (its page cache where [`Durability::Appended`]).
    Leader,
    /// Nobody.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceRefusal {
    /// Nothing was appended; retriable.
    #[error("{isr} in-sync replicas, {min_insync} are needed")]
    NotEnoughReplicas { isr: usize, min_insync: usize },
    /// Nothing was appended; ask the new leader.
    #[error("leader epoch {0} is over")]
    Deposed(LeaderEpoch),
}

/// May a consumer read at an offset?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadCheck {
    /// Records from the offset up to here are visible (above the offset, never beyond the high watermark).
    Ready { end: Offset },
    /// Nothing visible there yet: wait for the high watermark to pass the offset.
    AtEnd,
    /// A new leader whose high watermark has not reached the start of its epoch cannot say (KIP-207); retriable.
    NotAvailable,
    /// Below the log start or above the log end.
    OutOfRange { log_start: Offset, log_end: Offset },
}

impl Leader {
    /// Before anything is appended.
    pub fn check_produce(&self, acks: Acks) -> Result<(), ProduceRefusal> {
        if self.deposed.is_some() {
            return Err(ProduceRefusal::Deposed(self.epoch));
        }
        let isr = self.isr.committed().len();
        let min_insync = self.rules.min_insync;
        if acks == Acks::All && isr < min_insync {
            return Err(ProduceRefusal::NotEnoughReplicas { isr, min_insync });
        }
        Ok(())
    }

    /// Whether a batch that ends at `end` (its last offset + 1) is acknowledged. Once deposed, what is not
    /// acknowledged yet has an unknown outcome.
    pub fn is_acknowledged(&self, acks: Acks, end: Offset) -> bool {
        match acks {
            Acks::All => self.high_watermark >= end,
            Acks::Leader => self.own_end() >= end,
            Acks::None => true,
        }
    }

    /// Whether this leader knows where the visible log ends (KIP-207). Until then `ListOffsets(latest)` gets
    /// a retriable error.
    pub fn offsets_available(&self) -> bool {
        self.high_watermark >= self.epoch_start
    }

    /// A consumer's fetch at `offset`.
    pub fn read_check(&self, offset: Offset) -> ReadCheck {
        if offset >= self.log_start && offset < self.high_watermark {
            return ReadCheck::Ready { end: self.high_watermark };
        }
        if offset < self.log_start {
            return ReadCheck::OutOfRange { log_start: self.log_start, log_end: self.log_end };
        }
        if !self.offsets_available() {
            return ReadCheck::NotAvailable;
        }
        match offset <= self.log_end {
            true => ReadCheck::AtEnd,
            false => ReadCheck::OutOfRange { log_start: self.log_start, log_end: self.log_end },
        }
    }
}
