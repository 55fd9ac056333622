//! The one state behind a simulated disk and its handles.

use super::faults::{Crashed, SimCounters, SimFault, SimLatency, SimOp};
use super::image::{FileState, PAGE, Unsynced};
use super::names::{Inode, Name, Names, ROOT};
use crate::disk::failure::failed;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// What [`crate::disk::Disk::free_bytes`] says when no capacity is set.
const UNLIMITED: u64 = 1 << 50;
/// Removals after which unreachable inodes are looked for.
const COLLECT_EVERY: u32 = 256;

#[derive(Clone, Debug)]
pub(super) enum Content {
    Directory,
    File(FileState),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    /// Has a name now.
    pub(super) linked: bool,
    /// Handles of this life.
    pub(super) handles: u32,
    /// Counted in `State::used`: the file's space while it is linked or open.
    pub(super) charged: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<Inode, Node>,
    pub(super) names: Names,
    pub(super) next_inode: Inode,
    pub(super) locks: BTreeMap<Inode, u64>,
    pub(super) next_lock: u64,
    /// +1 at every crash: handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) capacity: Option<u64>,
    pub(super) used: u64,
    pub(super) removals: u32,
    pub(super) faults: Vec<SimFault>,
    pub(super) faults_hit: u64,
    pub(super) op_count: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) counters: SimCounters,
    pub(super) latency: SimLatency,
    pub(super) waited: Duration,
    pub(super) write_back_rng: StdRng,
    pub(super) fault_rng: StdRng,
    pub(super) loss_rng: StdRng,
}

pub(super) enum Verdict {
    Go,
    Fail(io::Error),
    /// The crash point. Nobody learns whether the operation was done.
    Crash {
        done: bool,
    },
}

pub(super) fn crashed(operation: SimOp, path: &Path) -> io::Error {
    io::Error::other(Crashed { operation, path: path.to_owned() })
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        let root = Node { content: Content::Directory, linked: true, handles: 0, charged: 0 };
        // Independent streams, so that a draw in one disturbs no other.
        let mut streams = StdRng::seed_from_u64(seed);
        let mut stream = || StdRng::seed_from_u64(streams.random());
        State {
            nodes: BTreeMap::from([(ROOT, root)]),
            names: Names::default(),
            next_inode: ROOT + 1,
            locks: BTreeMap::new(),
            next_lock: 0,
            life: 0,
            capacity: None,
            used: 0,
            removals: 0,
            faults: Vec::new(),
            faults_hit: 0,
            op_count: 0,
            crash_at: None,
            crashed: false,
            counters: SimCounters::default(),
            latency: SimLatency::default(),
            waited: Duration::ZERO,
            write_back_rng: stream(),
            fault_rng: stream(),
            loss_rng: stream(),
        }
    }

    /// Every operation passes here first.
    pub(super) fn begin(&mut self, operation: SimOp, path: &Path) -> io::Result<Verdict> {
        if self.crashed {
            return Err(crashed(operation, path));
        }
        if operation != SimOp::Read {
            let number = self.op_count;
            self.op_count += 1;
            if self.crash_at == Some(number) {
                self.crashed = true;
                return Ok(Verdict::Crash { done: self.fault_rng.random_bool(0.5) });
            }
        }
        self.counters.count(operation);
        self.waited += self.latency.operation;
        if matches!(operation, SimOp::Sync | SimOp::SyncDir | SimOp::SyncFilesystem) {
            self.waited += self.latency.sync;
        }
        let hit = self.faults.iter_mut().position(|fault| {
            fault.matches(operation, path) && {
                let passes = fault.skip > 0;
                fault.skip = fault.skip.saturating_sub(1);
                !passes
            }
        });
        let Some(hit) = hit else { return Ok(Verdict::Go) };
        self.faults_hit += 1;
        let error = io::Error::from_raw_os_error(self.faults[hit].errno);
        if !self.faults[hit].always {
            self.faults.remove(hit);
        }
        Ok(Verdict::Fail(failed("carry out (simulated fault) an operation on", path, error)))
    }

    /// An operation that happens or does not.
    pub(super) fn mutate<T>(
        &mut self,
        operation: SimOp,
        path: &Path,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.begin(operation, path)? {
            Verdict::Go => effect(self),
            Verdict::Fail(error) => Err(error),
            Verdict::Crash { done } => {
                if done {
                    let _ = effect(self);
                }
                Err(crashed(operation, path))
            }
        }
    }

    pub(super) fn waited_for_bytes(&mut self, bytes: usize) {
        self.waited += self.latency.kib.mul_f64(bytes as f64 / 1024.0);
    }

    pub(super) fn is_dir(&self, inode: Inode) -> bool {
        matches!(self.nodes[&inode].content, Content::Directory)
    }

    pub(super) fn file(&mut self, inode: Inode) -> &mut FileState {
        match &mut self.nodes.get_mut(&inode).expect("an open or linked inode exists").content {
            Content::File(file) => file,
            Content::Directory => unreachable!("a file handle is of a file"),
        }
    }

    pub(super) fn look_up(&self, path: &Path) -> io::Result<Inode> {
        let mut inode = ROOT;
        for name in components(path)? {
            if !self.is_dir(inode) {
                return Err(ErrorKind::NotADirectory.into());
            }
            inode = self.names.get(inode, name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    pub(super) fn look_up_dir(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.look_up(path)?;
        if self.is_dir(inode) { Ok(inode) } else { Err(ErrorKind::NotADirectory.into()) }
    }

    /// The directory and the name in it; the name itself need not exist.
    pub(super) fn look_up_name(&self, path: &Path) -> io::Result<Name> {
        let name = components(path)?.pop().ok_or(ErrorKind::InvalidInput)?.to_owned();
        Ok((self.look_up_dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    pub(super) fn create(&mut self, name: Name, content: Content) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, Node { content, linked: true, handles: 0, charged: 0 });
        self.names.add(name, inode);
        inode
    }

    pub(super) fn unlink(&mut self, inode: Inode) {
        self.nodes.get_mut(&inode).expect("a linked inode exists").linked = false;
        self.charge(inode);
        self.removals += 1;
        if self.removals >= COLLECT_EVERY {
            self.collect();
        }
    }

    /// Keeps `used` true after anything changed a file's size, links or handles.
    pub(super) fn charge(&mut self, inode: Inode) {
        let node = self.nodes.get_mut(&inode).expect("a charged inode exists");
        let space = match &node.content {
            Content::File(file) if node.linked || node.handles > 0 => file.allocated(),
            _ => 0,
        };
        self.used = self.used - node.charged + space;
        node.charged = space;
    }

    /// Forgets inodes that nothing can lead to any more.
    pub(super) fn collect(&mut self) {
        self.removals = 0;
        let reachable = self.names.inodes();
        self.nodes.retain(|inode, node| node.handles > 0 || reachable.contains(inode));
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity.map_or(UNLIMITED, |capacity| capacity.saturating_sub(self.used))
    }

    /// How far a file may reach without running out of space.
    pub(super) fn reach(&self, inode: Inode) -> u64 {
        self.nodes[&inode].charged + self.free() / PAGE * PAGE
    }

    /// Writes the first `limit` bytes of the buffers.
    pub(super) fn write(&mut self, inode: Inode, bufs: &[IoSlice<'_>], mut offset: u64, mut limit: usize) {
        let Content::File(file) = &mut self.nodes.get_mut(&inode).expect("an open inode exists").content
        else {
            unreachable!("a file handle is of a file")
        };
        for buf in bufs {
            let part = &buf[..buf.len().min(limit)];
            if !part.is_empty() {
                file.write(part, offset, &mut self.write_back_rng);
            }
            offset += part.len() as u64;
            limit -= part.len();
        }
        self.charge(inode);
    }

    /// Handles and locks end.
    pub(super) fn end_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.crashed = false;
        self.crash_at = None;
        let inodes: Vec<Inode> = self.nodes.keys().copied().collect();
        for inode in inodes {
            self.nodes.get_mut(&inode).expect("listed").handles = 0;
            self.charge(inode);
        }
        self.collect();
    }

    pub(super) fn power_loss(&mut self, unsynced: Unsynced) {
        let overall = match unsynced {
            Unsynced::Random if self.loss_rng.random_ratio(1, 4) => Unsynced::Lost,
            other => other,
        };
        let of_names = overall.draw(&mut self.loss_rng);
        self.names.power_loss(of_names, &mut self.loss_rng);
        let linked = self.names.inodes();
        for (inode, node) in &mut self.nodes {
            node.linked = linked.contains(inode);
            if let Content::File(file) = &mut node.content {
                let of_file = overall.draw(&mut self.loss_rng);
                file.power_loss(of_file, &mut self.loss_rng);
            }
        }
        self.end_life();
    }

    /// Files below `dir` in the tree that `list` walks, with their paths.
    pub(super) fn walk(
        &self,
        durable: bool,
        dir: Inode,
        path: &Path,
        visit: &mut impl FnMut(PathBuf, &FileState, Inode),
    ) {
        let children: Vec<(String, Inode)> = if durable {
            self.names.list_durable(dir).map(|(name, inode)| (name.to_owned(), inode)).collect()
        } else {
            self.names.list(dir).map(|(name, inode)| (name.to_owned(), inode)).collect()
        };
        for (name, inode) in children {
            let path = path.join(name);
            match &self.nodes[&inode].content {
                Content::Directory => self.walk(durable, inode, &path, visit),
                Content::File(file) => visit(path, file, dir),
            }
        }
    }
}

pub(super) fn components(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_str().ok_or(ErrorKind::InvalidInput)?),
            Component::ParentDir | Component::Prefix(_) => return Err(ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
