//! The only access to files. Everything that Strandline persists goes through [`Disk`], so that the
//! simulation can take away what was not made durable, tear what was half written and flip what lies
//! at rest.
//!
//! Durability contract, the same on every implementation and checked by one contract suite:
//! * bytes written are visible to reads at once and durable only after [`DiskFile::sync_data`] of that
//!   file (or [`Disk::sync_filesystem`]) returned `Ok`;
//! * a created, renamed or removed name is durable only after [`Disk::sync_dir`] of its directory;
//! * an error of any sync leaves the durable state of the file unknown: the caller must never retry it
//!   and treat it as fatal (fsyncgate);
//! * all calls are blocking and may be called from several threads.

mod block_buffer;
mod failure;
mod real;
pub mod sim;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use block_buffer::BlockBuffer;
pub use real::RealDisk;
pub use sim::SimDisk;

/// What is written through [`Disk::open_direct`] is a multiple of this, at a multiple of this, in the file as in
/// memory: no device has larger blocks.
pub const BLOCK: usize = 4096;

/// What [`Disk::write_file_atomically`] appends to a file's name to get its temporary one. A file of such a
/// name that is found at a start is the remainder of a crash: it may be removed, never read.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; writes are an error.
    Read,
    /// Must exist.
    ReadWrite,
    /// Created when missing.
    ReadWriteCreate,
    /// Must not exist.
    CreateNew,
}

/// A file system, or the simulation of one.
pub trait Disk: Send + Sync + std::fmt::Debug + 'static {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// For writing whole [`BLOCK`]s past the page cache, where the file system can: costs less for bytes that are not
    /// read again. Durable after a sync like any other; to be read through another handle.
    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path, mode)
    }
    /// Whole content of a small file. `NotFound` when missing; `InvalidData` when longer than `max_bytes`.
    fn read_file(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>>;
    /// All or nothing replacement of a small file: temporary file (name + [`TEMPORARY_SUFFIX`]), write, sync,
    /// rename, directory sync. One writer per path at a time.
    fn write_file_atomically(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Makes a directory and the parents that are missing; each is durable once *its* parent is synced.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    fn exists(&self, path: &Path) -> io::Result<bool>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes every byte written so far to any file of the file system that holds `path` durable
    /// (`syncfs`; data and names).
    fn sync_filesystem(&self, path: &Path) -> io::Result<()>;
    /// Bytes that an unprivileged user may still write.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Time since some moment, to measure by; nothing may be decided by it. A disk without one measures nothing.
    fn clock(&self) -> Duration {
        Duration::ZERO
    }
    /// Exclusive, non-blocking, held until dropped and released by the death of the process.
    /// `WouldBlock` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    pub path: PathBuf,
    pub name: String,
    pub is_dir: bool,
    /// 0 for directories.
    pub len: u64,
}

/// An open file; positions are explicit, so that it can be shared.
pub trait DiskFile: Send + Sync + std::fmt::Debug {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Reads up to `buf.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all the buffers one behind another from `offset`.
    fn write_all_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space without changing the length where the file system can; otherwise does nothing.
    /// `StorageFull` when there is none.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// `fdatasync`: data and the length.
    fn sync_data(&self) -> io::Result<()>;
    /// Advice: these bytes will not be read again soon (page cache may drop clean pages). `len` 0: to the end.
    fn advise_dont_need(&self, offset: u64, len: u64);
    /// Advice: start writing these bytes out (`sync_file_range` or nothing); no durability follows. `len` 0:
    /// to the end.
    fn start_write_back(&self, offset: u64, len: u64);
}

/// Held lock of [`Disk::lock`].
pub trait DiskLock: Send + Sync + std::fmt::Debug {}

/// [`Disk::write_file_atomically`] in terms of the other operations.
fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(TEMPORARY_SUFFIX);
    let temporary = path.with_file_name(name);
    let written = (|| {
        let file = disk.open(&temporary, OpenMode::ReadWriteCreate)?;
        file.set_len(0)?;
        file.write_all_at(&[io::IoSlice::new(content)], 0)?;
        file.sync_data()?;
        disk.rename(&temporary, path)
    })();
    if let Err(error) = written {
        // Frees the space of a half written file; the error that matters is the first.
        let _ = disk.remove_file(&temporary);
        return Err(error);
    }
    disk.sync_dir(match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    })
}

/// What [`Disk::open_direct`] asks of a write.
fn assert_blocks(bufs: &[io::IoSlice<'_>], offset: u64) {
    let whole =
        bufs.iter().all(|buf| buf.as_ptr().addr().is_multiple_of(BLOCK) && buf.len().is_multiple_of(BLOCK));
    assert!(whole && offset.is_multiple_of(BLOCK as u64), "whole blocks are written directly");
}

/// The bound of [`Disk::read_file`], checked before anything is allocated.
fn check_small(path: &Path, len: u64, max_bytes: u64) -> io::Result<()> {
    if len <= max_bytes {
        return Ok(());
    }
    let reason = format!("it has {len} bytes, at most {max_bytes} were expected");
    Err(failure::failed("read", path, io::Error::new(io::ErrorKind::InvalidData, reason)))
}
