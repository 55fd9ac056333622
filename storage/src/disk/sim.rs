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

mod faults;
mod image;
mod names;

pub use faults::{Crashed, SimCounters, SimFault, SimLatency, SimOp, is_crash};
pub use image::Unsynced;

use super::failure::failed;
use super::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, check_small, replace_file};
use image::{FileState, PAGE};
use names::{Inode, Name, Names, ROOT};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What [`Disk::free_bytes`] says when no capacity is set.
const UNLIMITED: u64 = 1 << 50;
/// Removals after which unreachable inodes are looked for.
const COLLECT_EVERY: u32 = 256;

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

#[derive(Clone, Debug)]
enum Content {
    Directory,
    File(FileState),
}

#[derive(Clone, Debug)]
struct Node {
    content: Content,
    /// Has a name now.
    linked: bool,
    /// Handles of this life.
    handles: u32,
    /// Counted in `State::used`: the file's space while it is linked or open.
    charged: u64,
}

#[derive(Debug)]
struct State {
    nodes: BTreeMap<Inode, Node>,
    names: Names,
    next_inode: Inode,
    locks: BTreeMap<Inode, u64>,
    next_lock: u64,
    /// +1 at every crash: handles of an earlier life are dead.
    life: u64,
    capacity: Option<u64>,
    used: u64,
    removals: u32,
    faults: Vec<SimFault>,
    faults_hit: u64,
    op_count: u64,
    crash_at: Option<u64>,
    crashed: bool,
    counters: SimCounters,
    latency: SimLatency,
    waited: Duration,
    write_back_rng: StdRng,
    fault_rng: StdRng,
    loss_rng: StdRng,
}

enum Verdict {
    Go,
    Fail(io::Error),
    /// The crash point. Nobody learns whether the operation was done.
    Crash {
        done: bool,
    },
}

fn crashed(operation: SimOp, path: &Path) -> io::Error {
    io::Error::other(Crashed { operation, path: path.to_owned() })
}

impl State {
    fn new(seed: u64) -> State {
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
    fn begin(&mut self, operation: SimOp, path: &Path) -> io::Result<Verdict> {
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
    fn mutate<T>(
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

    fn waited_for_bytes(&mut self, bytes: usize) {
        self.waited += self.latency.kib.mul_f64(bytes as f64 / 1024.0);
    }

    fn is_dir(&self, inode: Inode) -> bool {
        matches!(self.nodes[&inode].content, Content::Directory)
    }

    fn file(&mut self, inode: Inode) -> &mut FileState {
        match &mut self.nodes.get_mut(&inode).expect("an open or linked inode exists").content {
            Content::File(file) => file,
            Content::Directory => unreachable!("a file handle is of a file"),
        }
    }

    fn look_up(&self, path: &Path) -> io::Result<Inode> {
        let mut inode = ROOT;
        for name in components(path)? {
            if !self.is_dir(inode) {
                return Err(ErrorKind::NotADirectory.into());
            }
            inode = self.names.get(inode, name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    fn look_up_dir(&self, path: &Path) -> io::Result<Inode> {
        let inode = self.look_up(path)?;
        if self.is_dir(inode) { Ok(inode) } else { Err(ErrorKind::NotADirectory.into()) }
    }

    /// The directory and the name in it; the name itself need not exist.
    fn look_up_name(&self, path: &Path) -> io::Result<Name> {
        let name = components(path)?.pop().ok_or(ErrorKind::InvalidInput)?.to_owned();
        Ok((self.look_up_dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn create(&mut self, name: Name, content: Content) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, Node { content, linked: true, handles: 0, charged: 0 });
        self.names.add(name, inode);
        inode
    }

    fn unlink(&mut self, inode: Inode) {
        self.nodes.get_mut(&inode).expect("a linked inode exists").linked = false;
        self.charge(inode);
        self.removals += 1;
        if self.removals >= COLLECT_EVERY {
            self.collect();
        }
    }

    /// Keeps `used` true after anything changed a file's size, links or handles.
    fn charge(&mut self, inode: Inode) {
        let node = self.nodes.get_mut(&inode).expect("a charged inode exists");
        let space = match &node.content {
            Content::File(file) if node.linked || node.handles > 0 => file.allocated(),
            _ => 0,
        };
        self.used = self.used - node.charged + space;
        node.charged = space;
    }

    /// Forgets inodes that nothing can lead to any more.
    fn collect(&mut self) {
        self.removals = 0;
        let reachable = self.names.inodes();
        self.nodes.retain(|inode, node| node.handles > 0 || reachable.contains(inode));
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(UNLIMITED, |capacity| capacity.saturating_sub(self.used))
    }

    /// How far a file may reach without running out of space.
    fn reach(&self, inode: Inode) -> u64 {
        self.nodes[&inode].charged + self.free() / PAGE * PAGE
    }

    /// Writes the first `limit` bytes of the buffers.
    fn write(&mut self, inode: Inode, bufs: &[IoSlice<'_>], mut offset: u64, mut limit: usize) {
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
    fn end_life(&mut self) {
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

    fn power_loss(&mut self, unsynced: Unsynced) {
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
    fn walk(
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

fn components(path: &Path) -> io::Result<Vec<&str>> {
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

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let refuse = |error: io::Error| failed("open", path, error);
        let inode = match (state.look_up(path), mode) {
            _ if state.crashed => return Err(crashed(SimOp::Create, path)),
            (Ok(_), OpenMode::CreateNew) => return Err(refuse(ErrorKind::AlreadyExists.into())),
            (Ok(inode), _) if state.is_dir(inode) => return Err(refuse(ErrorKind::IsADirectory.into())),
            (Ok(inode), _) => inode,
            (Err(error), OpenMode::ReadWriteCreate | OpenMode::CreateNew)
                if error.kind() == ErrorKind::NotFound =>
            {
                let name = state.look_up_name(path).map_err(refuse)?;
                state.mutate(SimOp::Create, path, |s| {
                    Ok(s.create(name, Content::File(FileState::default())))
                })?
            }
            (Err(error), _) => return Err(refuse(error)),
        };
        state.nodes.get_mut(&inode).expect("just looked up").handles += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            inode,
            life: state.life,
            writable: mode != OpenMode::Read,
            path: path.to_owned(),
        }))
    }

    fn read_file(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = file.len()?;
        check_small(path, len, max_bytes)?;
        let mut content = vec![0; len as usize];
        file.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    fn write_file_atomically(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        replace_file(self, path, content)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let mut dir = ROOT;
        for name in components(path).map_err(|e| failed("create directory", path, e))? {
            dir = match state.names.get(dir, name) {
                Some(inode) if state.is_dir(inode) => inode,
                Some(_) => return Err(failed("create directory", path, ErrorKind::AlreadyExists)),
                None => state.mutate(SimOp::Create, path, |s| {
                    Ok(s.create((dir, name.to_owned()), Content::Directory))
                })?,
            };
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        if state.crashed {
            return Err(crashed(SimOp::Read, path));
        }
        let dir = state.look_up_dir(path).map_err(|e| failed("list", path, e))?;
        let entry = |(name, inode): (&str, Inode)| {
            let (is_dir, len) = match &state.nodes[&inode].content {
                Content::Directory => (true, 0),
                Content::File(file) => (false, file.current().len()),
            };
            DirEntry { path: path.join(name), name: name.to_owned(), is_dir, len }
        };
        Ok(state.names.list(dir).map(entry).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        match state.look_up(path) {
            _ if state.crashed => Err(crashed(SimOp::Read, path)),
            Ok(_) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(failed("stat", path, e)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let refuse = |error: io::Error| failed("rename", from, error);
        let inode = state.look_up(from).map_err(refuse)?;
        let (source, target) =
            (state.look_up_name(from).map_err(refuse)?, state.look_up_name(to).map_err(refuse)?);
        if source == target {
            return Ok(());
        }
        let is_dir = state.is_dir(inode);
        if is_dir && components(to)?.starts_with(&components(from)?) {
            return Err(refuse(ErrorKind::InvalidInput.into()));
        }
        let replaced = state.names.get(target.0, &target.1);
        if let Some(old) = replaced {
            match (is_dir, state.is_dir(old)) {
                (true, false) => return Err(refuse(ErrorKind::NotADirectory.into())),
                (false, true) => return Err(refuse(ErrorKind::IsADirectory.into())),
                (true, true) if state.names.list(old).next().is_some() => {
                    return Err(refuse(ErrorKind::DirectoryNotEmpty.into()));
                }
                _ => {}
            }
        }
        state.mutate(SimOp::Rename, from, |state| {
            state.names.rename(source, target, inode);
            if let Some(old) = replaced {
                state.unlink(old);
            }
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let refuse = |error: io::Error| failed("remove", path, error);
        let inode = state.look_up(path).map_err(refuse)?;
        if state.is_dir(inode) {
            return Err(refuse(ErrorKind::IsADirectory.into()));
        }
        let name = state.look_up_name(path).map_err(refuse)?;
        state.mutate(SimOp::Remove, path, |state| {
            state.names.remove(name);
            state.unlink(inode);
            Ok(())
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let entries = self.read_dir(path)?;
        for entry in entries {
            if entry.is_dir {
                self.remove_dir_all(&entry.path)?;
            } else {
                self.remove_file(&entry.path)?;
            }
        }
        let mut state = self.state.lock();
        let refuse = |error: io::Error| failed("remove directory", path, error);
        let (inode, name) =
            (state.look_up_dir(path).map_err(refuse)?, state.look_up_name(path).map_err(refuse)?);
        state.mutate(SimOp::Remove, path, |state| {
            state.names.remove(name);
            state.unlink(inode);
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let dir = state.look_up_dir(path).map_err(|e| failed("sync directory", path, e))?;
        state.mutate(SimOp::SyncDir, path, |state| {
            state.names.sync_dir(dir);
            Ok(())
        })
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.look_up(path).map_err(|e| failed("syncfs", path, e))?;
        let verdict = state.begin(SimOp::SyncFilesystem, path)?;
        let State { nodes, names, fault_rng, .. } = &mut *state;
        let files = nodes.values_mut().filter_map(|node| match &mut node.content {
            Content::File(file) => Some(file),
            Content::Directory => None,
        });
        match verdict {
            Verdict::Fail(error) => {
                files.for_each(|file| file.fail_sync(fault_rng));
                Err(error)
            }
            Verdict::Crash { done: false } => Err(crashed(SimOp::SyncFilesystem, path)),
            Verdict::Go | Verdict::Crash { done: true } => {
                files.for_each(FileState::sync);
                names.sync_all();
                if state.crashed {
                    return Err(crashed(SimOp::SyncFilesystem, path));
                }
                state.collect();
                Ok(())
            }
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        state.look_up(path).map_err(|e| failed("statvfs", path, e))?;
        Ok(state.free())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        // Creates the file when it is missing, as the real one does.
        self.open(path, OpenMode::ReadWriteCreate)?;
        let mut state = self.state.lock();
        let inode = state.look_up(path).map_err(|e| failed("lock", path, e))?;
        if state.locks.contains_key(&inode) {
            return Err(failed("lock", path, ErrorKind::WouldBlock));
        }
        let id = state.next_lock;
        state.next_lock += 1;
        state.locks.insert(inode, id);
        Ok(Box::new(SimLock { disk: self.clone(), inode, id }))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    inode: Inode,
    id: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        // A lock of a life that has ended may have been taken anew.
        if state.locks.get(&self.inode) == Some(&self.id) {
            state.locks.remove(&self.inode);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Inode,
    life: u64,
    writable: bool,
    path: PathBuf,
}

impl SimFile {
    /// The state, unless this handle is from before a crash.
    fn state(&self, operation: SimOp) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        if state.crashed || state.life != self.life {
            return Err(crashed(operation, &self.path));
        }
        Ok(state)
    }

    fn state_for_writing(&self, operation: SimOp) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        if !self.writable {
            return Err(failed("write", &self.path, io::Error::from_raw_os_error(libc::EBADF)));
        }
        self.state(operation)
    }

    fn full(&self) -> io::Error {
        failed("write", &self.path, ErrorKind::StorageFull)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state(SimOp::Read)?.file(self.inode).current().len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(buf, offset)? == buf.len() {
            return Ok(());
        }
        Err(failed("read", &self.path, ErrorKind::UnexpectedEof))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state(SimOp::Read)?;
        if let Verdict::Fail(error) = state.begin(SimOp::Read, &self.path)? {
            return Err(error);
        }
        let read = state.file(self.inode).current().read(buf, offset);
        state.counters.bytes_read += read as u64;
        state.waited_for_bytes(read);
        Ok(read)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.state_for_writing(SimOp::Write)?;
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total == 0 {
            return Ok(());
        }
        if offset.checked_add(total as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(failed("write", &self.path, ErrorKind::InvalidInput));
        }
        match state.begin(SimOp::Write, &self.path)? {
            Verdict::Go => {
                let fits = (state.reach(self.inode).saturating_sub(offset) as usize).min(total);
                state.counters.bytes_written += fits as u64;
                state.waited_for_bytes(fits);
                state.write(self.inode, bufs, offset, fits);
                if fits < total { Err(self.full()) } else { Ok(()) }
            }
            Verdict::Fail(error) => {
                let part = state.fault_rng.random_range(0..total);
                state.write(self.inode, bufs, offset, part);
                Err(error)
            }
            Verdict::Crash { done } => {
                let part = if done { total } else { state.fault_rng.random_range(0..total) };
                state.write(self.inode, bufs, offset, part);
                Err(crashed(SimOp::Write, &self.path))
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state_for_writing(SimOp::SetLen)?.mutate(SimOp::SetLen, &self.path, |state| {
            if len > state.file(self.inode).current().len() && len > state.reach(self.inode) {
                return Err(self.full());
            }
            let file = state.file(self.inode);
            if len < file.current().len() {
                // Cutting a file gives back what was reserved for it.
                file.reserved = 0;
            }
            file.set_len(len);
            state.charge(self.inode);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.state_for_writing(SimOp::Allocate)?.mutate(SimOp::Allocate, &self.path, |state| {
            if len > state.reach(self.inode) {
                return Err(self.full());
            }
            let file = state.file(self.inode);
            file.reserved = file.reserved.max(len);
            state.charge(self.inode);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state(SimOp::Sync)?;
        match state.begin(SimOp::Sync, &self.path)? {
            Verdict::Go => {
                state.file(self.inode).sync();
                Ok(())
            }
            Verdict::Fail(error) => {
                let mut rng = StdRng::seed_from_u64(state.fault_rng.random());
                state.file(self.inode).fail_sync(&mut rng);
                Err(error)
            }
            Verdict::Crash { done } => {
                if done {
                    state.file(self.inode).sync();
                }
                Err(crashed(SimOp::Sync, &self.path))
            }
        }
    }

    /// Nothing: the simulated page cache holds everything.
    fn advise_dont_need(&self, _offset: u64, _len: u64) {}

    /// Nothing: un-synced pages may survive a power loss with or without it.
    fn start_write_back(&self, _offset: u64, _len: u64) {}
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.life == self.life {
            state.nodes.get_mut(&self.inode).expect("an open inode exists").handles -= 1;
            state.charge(self.inode);
        }
    }
}
