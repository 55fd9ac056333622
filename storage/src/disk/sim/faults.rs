//! What a test can make the simulated disk do: fail, crash, be slow; and what it counts.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Kinds of I/O that can be counted and made to fail. All but `Read` are mutating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SimOp {
    Read,
    Write,
    SetLen,
    Allocate,
    /// `sync_data` of a file.
    Sync,
    /// A file or directory is made.
    Create,
    Rename,
    /// A file or directory is removed.
    Remove,
    SyncDir,
    SyncFilesystem,
}

/// A failure to come. `SimFault::eio(SimOp::Sync).on("journal").after(2)` fails the third sync of a file
/// whose path contains "journal", once.
#[derive(Clone, Debug)]
pub struct SimFault {
    pub(super) operation: SimOp,
    pub(super) path_contains: String,
    pub(super) skip: u64,
    pub(super) always: bool,
    pub(super) errno: i32,
}

impl SimFault {
    fn new(operation: SimOp, errno: i32) -> Self {
        SimFault { operation, path_contains: String::new(), skip: 0, always: false, errno }
    }

    /// The device reports an error. A write may have been done in part; after a failed sync the pages that
    /// did not arrive are marked clean, so that a second sync lies, as on Linux.
    pub fn eio(operation: SimOp) -> Self {
        SimFault::new(operation, libc::EIO)
    }

    /// No space, whatever [`super::SimDisk::set_capacity`] says.
    pub fn enospc(operation: SimOp) -> Self {
        SimFault::new(operation, libc::ENOSPC)
    }

    /// Only where the path contains this.
    pub fn on(mut self, path_contains: impl Into<String>) -> Self {
        self.path_contains = path_contains.into();
        self
    }

    /// Lets this many matching operations pass first.
    pub fn after(mut self, operations: u64) -> Self {
        self.skip = operations;
        self
    }

    /// Every matching operation from then on, not only one.
    pub fn always(mut self) -> Self {
        self.always = true;
        self
    }

    pub(super) fn matches(&self, operation: SimOp, path: &Path) -> bool {
        self.operation == operation && path.to_string_lossy().contains(&self.path_contains)
    }
}

/// The process is dead: a crash point was reached, or the handle is from before a crash or power loss. The
/// cause inside the `io::Error`s that say so; [`is_crash`] recognises them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulated process crashed before {operation:?} of {}", path.display())]
pub struct Crashed {
    pub operation: SimOp,
    pub path: PathBuf,
}

/// Whether this error came from a simulated crash.
pub fn is_crash(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<Crashed>())
}

/// How long operations take. Calls do not wait; what they would have waited adds up until
/// [`super::SimDisk::take_latency`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimLatency {
    /// Of every operation, reads included.
    pub operation: Duration,
    /// In addition, of every sync.
    pub sync: Duration,
    /// In addition, for every KiB read or written.
    pub kib: Duration,
}

/// Operations since the disk was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCounters {
    pub reads: u64,
    pub bytes_read: u64,
    pub writes: u64,
    pub bytes_written: u64,
    pub set_lens: u64,
    pub allocates: u64,
    /// Files made durable one by one.
    pub syncs: u64,
    pub creates: u64,
    pub renames: u64,
    pub removes: u64,
    pub dir_syncs: u64,
    pub filesystem_syncs: u64,
}

impl SimCounters {
    pub(super) fn count(&mut self, operation: SimOp) {
        *match operation {
            SimOp::Read => &mut self.reads,
            SimOp::Write => &mut self.writes,
            SimOp::SetLen => &mut self.set_lens,
            SimOp::Allocate => &mut self.allocates,
            SimOp::Sync => &mut self.syncs,
            SimOp::Create => &mut self.creates,
            SimOp::Rename => &mut self.renames,
            SimOp::Remove => &mut self.removes,
            SimOp::SyncDir => &mut self.dir_syncs,
            SimOp::SyncFilesystem => &mut self.filesystem_syncs,
        } += 1;
    }
}
