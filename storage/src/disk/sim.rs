//! A disk in memory that can lose, tear, refuse and rot, decided by a seed alone.
//!
//! It keeps two states of everything, the one that calls see and the one that would surely survive, and
//! what was done between them. [`SimDisk::power_loss`] draws from the seed what survives of the latter:
//! pages independently of each other, whole or torn at sectors, names and lengths too. A disk that passes
//! under it may rely on nothing but the contract in [`super`]. It is stricter than most file systems where
//! the contract is: a file whose directory was not synced vanishes although its data was, and so does a
//! directory whose parent was not. Only the root directory exists from the start.
//!
//! ```text
//!   write, set_len, rename, …  ──►  current ──sync──► durable
//!   crash()       process dies: handles and locks end, current stays
//!   power_loss()  also: current := durable + some of what was not synced
//! ```

mod calls;
mod faults;
mod image;
mod names;
mod state;

pub use faults::{Crashed, SimCounters, SimFault, SimLatency, SimOp, is_crash};
pub use image::Unsynced;

use names::{Names, ROOT};
use parking_lot::Mutex;
use rand::RngExt;
use state::State;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// Control, for tests and the simulation.
impl SimDisk {
    /// An empty disk. Relative and absolute paths are the same; `..` is refused.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State::new(seed))) }
    }

    /// Another disk with the same content, durable and not, and the same capacity, whose further fate another seed
    /// decides. Handles, locks, faults and counters stay with this one.
    pub fn fork(&self, seed: u64) -> SimDisk {
        let (old, mut state) = (self.state.lock(), State::new(seed));
        state.nodes = old.nodes.clone();
        state.names = old.names.clone();
        state.next_inode = old.next_inode;
        (state.capacity, state.used) = (old.capacity, old.used);
        state.end_life();
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// The process dies: handles fail from now on, locks are free, nothing written is lost. Ends a crash
    /// point that was reached or set.
    pub fn crash(&self) {
        self.state.lock().end_life();
    }

    /// The machine loses power: a crash, and of what was not synced the seed decides how much survives.
    pub fn power_loss(&self) {
        self.power_loss_with(Unsynced::Random);
    }

    /// [`SimDisk::power_loss`] with a given outcome.
    pub fn power_loss_with(&self, unsynced: Unsynced) {
        self.state.lock().power_loss(unsynced);
    }

    /// The disk is replaced by an empty one. Faults, capacity and counters stay.
    pub fn wipe(&self) {
        let mut state = self.state.lock();
        state.names = Names::default();
        state.nodes.retain(|inode, _| *inode == ROOT);
        state.used = 0;
        state.end_life();
    }

    /// Lets a failure happen. Of several that match an operation the one injected first acts.
    pub fn inject(&self, fault: SimFault) {
        self.state.lock().faults.push(fault);
    }

    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Operations that an injected fault failed so far.
    pub fn faults_hit(&self) -> u64 {
        self.state.lock().faults_hit
    }

    /// Bytes that all files together may take, in whole pages of 4096; a file's length counts, holes
    /// included, and what `allocate` reserved. `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Bytes taken, as [`SimDisk::set_capacity`] counts them.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used
    }

    /// Mutating operations (all kinds but reads) begun so far: the number of the next one, counted from 0.
    pub fn op_count(&self) -> u64 {
        self.state.lock().op_count
    }

    /// The mutating operation of this number, and everything after it, fails with [`Crashed`]. Whether that
    /// operation still took effect, and a write in which part, is drawn from the seed. [`SimDisk::crash`] or
    /// [`SimDisk::power_loss`] starts the next life.
    pub fn set_crash_at_op(&self, number: u64) {
        self.state.lock().crash_at = Some(number);
    }

    /// Whether the crash point was reached and the next life not started.
    pub fn is_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    pub fn counters(&self) -> SimCounters {
        self.state.lock().counters
    }

    pub fn set_latency(&self, latency: SimLatency) {
        self.state.lock().latency = latency;
    }

    pub fn latency(&self) -> SimLatency {
        self.state.lock().latency
    }

    /// What the operations since the last call would have taken. The host of a worker sleeps that long, in
    /// simulated time, after each run.
    pub fn take_latency(&self) -> Duration {
        std::mem::take(&mut self.state.lock().waited)
    }

    /// Bit rot: flips one bit of a file at rest, and in what reads see. `InvalidInput` behind the end.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        assert!(bit < 8, "a byte has bits 0 to 7");
        let mut state = self.state.lock();
        let inode = state.look_up(path)?;
        if state.is_dir(inode) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let file = state.file(inode);
        if offset >= file.current().len().max(file.durable().len()) {
            return Err(ErrorKind::InvalidInput.into());
        }
        file.flip_bit(offset, bit);
        Ok(())
    }

    /// Bit rot at random places of the files whose path contains this; returns where (path, offset, bit).
    /// Nothing when there is no byte to flip.
    pub fn rot(&self, path_contains: &str, flips: usize) -> Vec<(PathBuf, u64, u8)> {
        let mut files = self.files();
        files.retain(|(path, len)| *len > 0 && path.to_string_lossy().contains(path_contains));
        let total: u64 = files.iter().map(|(_, len)| len).sum();
        let mut flipped = Vec::new();
        for _ in 0..if total == 0 { 0 } else { flips } {
            let (mut place, bit) = {
                let rng = &mut self.state.lock().fault_rng;
                (rng.random_range(0..total), rng.random_range(0..8))
            };
            for (path, len) in &files {
                if place < *len {
                    self.flip_bit(path, place, bit).expect("a listed file has this byte");
                    flipped.push((path.clone(), place, bit));
                    break;
                }
                place -= len;
            }
        }
        flipped
    }

    /// Path and length of every file, by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let (state, mut files) = (self.state.lock(), Vec::new());
        state
            .walk(false, ROOT, Path::new("/"), &mut |path, file, _| files.push((path, file.current().len())));
        files
    }

    /// Path and length of every file that would be there if everything un-synced were lost.
    pub fn durable_files(&self) -> Vec<(PathBuf, u64)> {
        let (state, mut files) = (self.state.lock(), Vec::new());
        state.walk(true, ROOT, Path::new("/"), &mut |path, file, _| files.push((path, file.durable().len())));
        files
    }

    /// Content of a file if everything un-synced were lost; `None` if its name would be.
    pub fn read_durable(&self, path: &Path) -> Option<Vec<u8>> {
        let wanted = Path::new("/").join(path);
        let (state, mut content) = (self.state.lock(), None);
        state.walk(true, ROOT, Path::new("/"), &mut |path, file, _| {
            if path == wanted {
                let mut bytes = vec![0; file.durable().len() as usize];
                file.durable().read(&mut bytes, 0);
                content = Some(bytes);
            }
        });
        content
    }

    /// One line for each file: path, length, durable length, and whether data or name is not synced.
    pub fn dump(&self) -> String {
        let (state, mut text) = (self.state.lock(), String::new());
        state.walk(false, ROOT, Path::new("/"), &mut |path, file, dir| {
            let data = if file.is_synced() { "" } else { " data-unsynced" };
            let name = if state.names.is_synced(dir) { "" } else { " directory-unsynced" };
            let (len, durable) = (file.current().len(), file.durable().len());
            writeln!(text, "{} {len} {durable}{data}{name}", path.display()).expect("a String takes it");
        });
        text
    }
}
