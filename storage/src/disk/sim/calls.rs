//! The simulated disk as callers see it: [`Disk`], its files and its locks.

use super::SimDisk;
use super::faults::SimOp;
use super::image::FileState;
use super::names::{Inode, ROOT};
use super::state::{Content, State, Verdict, components, crashed};
use crate::disk::failure::failed;
use crate::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, assert_blocks, check_small, replace_file};
use parking_lot::MutexGuard;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl SimDisk {
    fn open_file(&self, path: &Path, mode: OpenMode, direct: bool) -> io::Result<Arc<dyn DiskFile>> {
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
            direct,
            path: path.to_owned(),
        }))
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(path, mode, false)
    }

    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(path, mode, true)
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
        let names = components(path).map_err(|e| failed("create directory", path, e))?;
        for (i, name) in names.iter().enumerate() {
            dir = match state.names.get(dir, name) {
                Some(inode) if state.is_dir(inode) => inode,
                Some(_) if i + 1 < names.len() => {
                    return Err(failed("create directory", path, ErrorKind::NotADirectory));
                }
                Some(_) => return Err(failed("create directory", path, ErrorKind::AlreadyExists)),
                None => state.mutate(SimOp::Create, path, |s| {
                    Ok(s.create((dir, (*name).to_owned()), Content::Directory))
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
        // In the order in which Linux looks at things.
        let source = state.look_up_name(from).map_err(refuse)?;
        let target = state.look_up_name(to).map_err(refuse)?;
        let inode = state.look_up(from).map_err(refuse)?;
        let (from_names, to_names) = (components(from)?, components(to)?);
        if from_names == to_names {
            return Ok(());
        }
        if to_names.starts_with(&from_names) {
            return Err(refuse(ErrorKind::InvalidInput.into()));
        }
        if from_names.starts_with(&to_names) {
            return Err(refuse(ErrorKind::DirectoryNotEmpty.into()));
        }
        let is_dir = state.is_dir(inode);
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
    /// Only whole blocks are written; what survives of them is drawn as for any others.
    direct: bool,
    path: PathBuf,
}

impl SimFile {
    /// The state, unless this handle is from before a crash.
    fn state(&self, operation: SimOp) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        if state.crashed || state.life != self.life {
            return Err(crashed(operation, &self.path));
        }
        Ok(state)
    }

    fn state_for_writing(&self, operation: SimOp) -> io::Result<MutexGuard<'_, State>> {
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
        if self.direct {
            assert_blocks(bufs, offset);
        }
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
