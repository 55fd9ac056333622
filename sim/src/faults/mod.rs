//! What can go wrong, what of it a run plans ([`plan`]), and how it is done to the world ([`inject`]).
//!
//! Faults up to the declared tolerance may cost time; faults beyond it may cost availability; neither ever yields a
//! wrong answer. What destroys data (bit rot, a wiped disk) hits one machine at a time, and the next only when every
//! partition has all its replicas again: no broker survives the loss of all copies.

pub mod inject;
pub mod links;
pub mod plan;

use std::collections::BTreeMap;
use std::fmt;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal,)+) => {
        /// One sort of fault, as the report counts it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl FaultKind {
            pub const ALL: &[FaultKind] = &[$(FaultKind::$kind,)+];

            /// As in reports and in `--json`.
            pub fn name(self) -> &'static str {
                match self {
                    $(FaultKind::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// A node's process dies; the machine and what it was told to write stay.
    Crash = "crash",
    /// A machine loses power: what was not synced is gone, kept or torn, page by page.
    PowerLoss = "power loss",
    /// A crash or power loss in the middle of a chosen disk operation.
    CrashPoint = "crash point",
    /// A process stands still: nothing is sent, received or written, and time passes.
    Pause = "pause",
    /// Some machines and the others do not reach each other.
    Partition = "partition",
    /// Some machines do not hear others, which hear them.
    OneWayPartition = "one-way partition",
    /// Single messages are lost, and with each its connection.
    Loss = "loss",
    /// Messages of one machine take up to a given time, out of step with each other.
    Delay = "delay",
    /// All messages between two machines take long.
    SlowLink = "slow link",
    /// A disk takes a hundred times as long.
    SlowDisk = "slow disk",
    /// A write fails with EIO.
    WriteError = "write error",
    /// An fsync fails with EIO, and the pages are marked clean as if it had not.
    FsyncError = "fsync error",
    /// No space is left on a disk for a while.
    DiskFull = "disk full",
    /// Bits flip in files at rest.
    BitRot = "bit rot",
    /// A machine comes back with an empty disk.
    WipedDisk = "wiped disk",
    /// A wall clock jumps, by up to an hour, either way.
    ClockJump = "clock jump",
    /// A wall clock runs up to a tenth too fast or too slow.
    ClockDrift = "clock drift",
    /// A node is removed and joins again, or a partition's replicas move, while machines cannot reach each other.
    Membership = "membership change under partition",
    /// All nodes are stopped cleanly and started again, one after another.
    RollingRestart = "rolling restart",
    /// A client's process dies and is started again.
    ClientCrash = "client crash",
    /// A client hears nothing and nobody hears it for a while.
    ClientCut = "client cut off",
}

impl FaultKind {
    /// Data that was durable is gone afterwards.
    pub fn destroys(self) -> bool {
        matches!(self, FaultKind::BitRot | FaultKind::WipedDisk)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each kind was truly done to somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters(BTreeMap<FaultKind, u64>);

impl FaultCounters {
    pub fn count(&mut self, kind: FaultKind) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub fn of(&self, kind: FaultKind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &FaultCounters) {
        for (kind, count) in &other.0 {
            *self.0.entry(*kind).or_default() += count;
        }
    }

    /// Every kind, those that never happened too.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64)> + '_ {
        FaultKind::ALL.iter().map(|kind| (*kind, self.of(*kind)))
    }
}
