//! Whether the tests would notice: a disk that says it has synced and has not must look like a store that
//! loses what it acknowledged.

mod common;

use common::{Modelled, Node};
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use strandline_storage::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, SimDisk};

/// What the disk does not do although it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    SyncJournal,
    SyncSegments,
    SyncLogDirs,
    KeepTheOldCheckpoint,
}

#[derive(Debug)]
struct LyingDisk {
    disk: SimDisk,
    lie: Lie,
}

#[derive(Debug)]
struct LyingFile {
    file: Arc<dyn DiskFile>,
    syncs: bool,
}

impl Disk for LyingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let name = path.to_string_lossy();
        let lies = self.lie == Lie::SyncJournal && name.contains("journal")
            || self.lie == Lie::SyncSegments && name.ends_with(".log");
        Ok(Arc::new(LyingFile { file: self.disk.open(path, mode)?, syncs: !lies }))
    }
    fn read_file(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.disk.read_file(path, max_bytes)
    }
    fn write_file_atomically(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if self.lie == Lie::KeepTheOldCheckpoint && path.to_string_lossy().contains("checkpoint") {
            // The new content is seen, and lost with the power.
            let file = self.disk.open(path, OpenMode::ReadWriteCreate)?;
            file.set_len(content.len() as u64)?;
            return file.write_all_at(&[IoSlice::new(content)], 0);
        }
        self.disk.write_file_atomically(path, content)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.lie == Lie::SyncLogDirs && path.to_string_lossy().contains("logs") {
            return Ok(());
        }
        self.disk.sync_dir(path)
    }
    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        match self.lie {
            Lie::SyncSegments | Lie::SyncLogDirs => Ok(()),
            _ => self.disk.sync_filesystem(path),
        }
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.disk.lock(path)
    }
}

impl DiskFile for LyingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bufs, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.syncs { self.file.sync_data() } else { Ok(()) }
    }
    fn advise_dont_need(&self, offset: u64, len: u64) {
        self.file.advise_dont_need(offset, len);
    }
    fn start_write_back(&self, offset: u64, len: u64) {
        self.file.start_write_back(offset, len);
    }
}

/// Writes, flushes, checkpoints, loses power, and looks.
fn is_noticed(seed: u64, lie: Lie) -> bool {
    let disk = SimDisk::new(seed);
    // What is there at first was written through an honest one.
    drop(Node::open(&disk));
    let node =
        Node::try_open_through(Arc::new(LyingDisk { disk: disk.clone(), lie }), &disk).expect("it opens");
    let mut it = Modelled { node, logs: Default::default(), next_id: 1, epoch: 1, mixed: false };
    for round in 0..40 {
        for log in 0..2 {
            it.append(log, 2, 1200).expect("it is written");
        }
        it.flush().expect("it says that it is flushed");
        if round == 3 || round == 30 {
            it.checkpoint().expect("it says that it is there");
            it.truncate(0, 5).expect("it is cut");
        }
    }
    let logs = it.logs.clone();
    it.node.power_loss();
    let looked = catch_unwind(AssertUnwindSafe(|| {
        Modelled::check_recovered(&Node::try_open(&disk).expect("it opens"), &logs);
    }));
    looked.is_err()
}

#[test]
fn every_sync_that_is_left_out_is_noticed_and_none_that_is_done() {
    assert!((0..20).all(|seed| !is_noticed(seed, Lie::None)), "an honest disk loses nothing");
    for lie in [Lie::SyncJournal, Lie::SyncSegments, Lie::SyncLogDirs, Lie::KeepTheOldCheckpoint] {
        let noticed = (0..20).filter(|seed| is_noticed(*seed, lie)).count();
        assert!(noticed >= 5, "{lie:?} is noticed {noticed} times of 20");
    }
}
