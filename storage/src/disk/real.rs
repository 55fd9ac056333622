//! The real file system. Linux: `pwritev`, `fdatasync`, `syncfs`, `fallocate`, `posix_fadvise`,
//! `sync_file_range`, `flock`, `O_DIRECT`.

use super::failure::failed;
use super::{DirEntry, Disk, DiskFile, DiskLock, OpenMode, assert_blocks, check_small, replace_file};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Buffers that one `pwritev` takes.
const IOV_MAX: usize = 1024;

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk {
    _private: (),
}

impl RealDisk {
    pub fn new() -> Self {
        RealDisk::default()
    }
}

/// Turns the result of a system call into a `Result`.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "offset is too large"))
}

// The one place that opens files; everything else is kept away from this by the same lint.
#[allow(clippy::disallowed_methods)]
fn open_with(options: &OpenOptions, path: &Path) -> io::Result<File> {
    options.open(path)
}

fn options(mode: OpenMode) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::Read => &mut options,
        OpenMode::ReadWrite => options.write(true),
        OpenMode::ReadWriteCreate => options.write(true).create(true).truncate(false),
        OpenMode::CreateNew => options.write(true).create_new(true),
    };
    options
}

fn open_file(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let file = open_with(options, path).map_err(|e| failed("open", path, e))?;
    if file.metadata().map_err(|e| failed("stat", path, e))?.is_dir() {
        return Err(failed("open", path, io::ErrorKind::IsADirectory));
    }
    Ok(file)
}

fn open_directory(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = open_file(path, &options(mode))?;
        Ok(Arc::new(RealFile { file, path: path.to_owned(), direct: AtomicBool::new(false) }))
    }

    #[cfg(target_os = "linux")]
    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        use std::os::unix::fs::OpenOptionsExt;
        match open_file(path, options(mode).custom_flags(libc::O_DIRECT)) {
            Ok(file) => Ok(Arc::new(RealFile { file, path: path.to_owned(), direct: AtomicBool::new(true) })),
            // The file system does not know it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.open(path, mode),
            Err(error) => Err(error),
        }
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
        fs::create_dir_all(path).map_err(|e| failed("create directory", path, e))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let list = || -> io::Result<Vec<DirEntry>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let metadata = match entry.metadata() {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // removed meanwhile
                    metadata => metadata?,
                };
                let is_dir = metadata.is_dir();
                entries.push(DirEntry {
                    path: entry.path(),
                    name: entry.file_name().to_string_lossy().into_owned(),
                    is_dir,
                    len: if is_dir { 0 } else { metadata.len() },
                });
            }
            entries.sort();
            Ok(entries)
        };
        list().map_err(|e| failed("list", path, e))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match path.try_exists() {
            // What lies below a file does not exist either.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(false),
            result => result.map_err(|e| failed("stat", path, e)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(|e| failed("rename", from, e))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(|e| failed("remove", path, e))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path).map_err(|e| failed("remove directory", path, e))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        open_directory(path).and_then(|dir| dir.sync_all()).map_err(|e| failed("sync directory", path, e))
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        open_directory(path).and_then(|file| sync_filesystem_of(&file)).map_err(|e| failed("syncfs", path, e))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let dir = open_directory(path).map_err(|e| failed("open", path, e))?;
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the descriptor is open for the duration of the call, which fills `stat` when it succeeds.
        let stat = unsafe {
            check(libc::fstatvfs(dir.as_raw_fd(), stat.as_mut_ptr()))
                .map_err(|e| failed("statvfs", path, e))?;
            stat.assume_init()
        };
        #[allow(clippy::unnecessary_cast)] // the fields' widths differ between platforms
        Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the real seam")]
    fn clock(&self) -> Duration {
        static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
        ORIGIN.get_or_init(std::time::Instant::now).elapsed()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_with(&options, path).map_err(|e| failed("open", path, e))?;
        // SAFETY: a plain system call on a descriptor that is open.
        check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
            .map_err(|e| failed("lock", path, e))?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

#[cfg(target_os = "linux")]
fn sync_filesystem_of(file: &File) -> io::Result<()> {
    // SAFETY: a plain system call on a descriptor that is open.
    check(unsafe { libc::syncfs(file.as_raw_fd()) })
}

#[cfg(not(target_os = "linux"))]
fn sync_filesystem_of(_file: &File) -> io::Result<()> {
    // Elsewhere nothing reports the errors of a whole file system: refuse rather than promise.
    Err(io::ErrorKind::Unsupported.into())
}

/// Closing the descriptor releases the lock, and so does the death of the process.
#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
    /// Writes go past the page cache.
    direct: AtomicBool,
}

impl RealFile {
    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> io::Error {
        move |source| failed(operation, &self.path, source)
    }

    #[cfg(target_os = "linux")]
    fn go_through_the_page_cache(&self) -> io::Result<()> {
        tracing::warn!(path = %self.path.display(), "the file system refuses direct writes");
        // SAFETY: plain system calls on a descriptor that is open.
        unsafe {
            let flags = libc::fcntl(self.file.as_raw_fd(), libc::F_GETFL);
            check(flags.min(0))?;
            check(libc::fcntl(self.file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_DIRECT))?;
        }
        self.direct.store(false, Ordering::Relaxed);
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn go_through_the_page_cache(&self) -> io::Result<()> {
        unreachable!("nothing is opened for direct writes here")
    }

    /// One `pwritev`; returns what it took. `bufs` must not be empty.
    fn write_some(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let count = bufs.len().min(IOV_MAX) as libc::c_int;
        let offset = file_offset(offset)?;
        loop {
            // SAFETY: IoSlice is guaranteed to have the layout of iovec; the buffers outlive the call.
            let written = unsafe {
                libc::pwritev(self.file.as_raw_fd(), bufs.as_ptr().cast::<libc::iovec>(), count, offset)
            };
            match written {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                1.. => return Ok(written as usize),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn write_bufs(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut left: usize = bufs.iter().map(|buf| buf.len()).sum();
        if left == 0 {
            return Ok(());
        }
        let first = self.write_some(bufs, offset)?;
        left -= first;
        if left == 0 {
            return Ok(());
        }
        // Rare: more than IOV_MAX buffers, more than 2 GiB, or the disk took a part.
        let mut owned: Vec<IoSlice<'_>> = bufs.to_vec();
        let mut rest = owned.as_mut_slice();
        let mut written = first;
        loop {
            IoSlice::advance_slices(&mut rest, written);
            offset += written as u64;
            if left == 0 {
                return Ok(());
            }
            written = self.write_some(rest, offset)?;
            left -= written;
        }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(self.failed("stat"))?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        file_offset(offset)?;
        self.file.read_exact_at(buf, offset).map_err(self.failed("read"))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        file_offset(offset)?;
        loop {
            match self.file.read_at(buf, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(self.failed("read")),
            }
        }
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if !self.direct.load(Ordering::Relaxed) {
            return self.write_bufs(bufs, offset).map_err(self.failed("write"));
        }
        assert_blocks(bufs, offset);
        match self.write_bufs(bufs, offset) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // A file system that knows it and wants it otherwise. What was written of it is written over.
                self.go_through_the_page_cache().and_then(|()| self.write_bufs(bufs, offset))
            }
            written => written,
        }
        .map_err(self.failed("write"))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(self.failed("set the length of"))
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let len = file_offset(len)?;
        loop {
            // SAFETY: a plain system call on a descriptor that is open.
            let result =
                check(unsafe { libc::fallocate(self.file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, len) });
            match result {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The file system cannot: the caller was promised no more than an attempt.
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
                result => return result.map_err(self.failed("allocate")),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().map_err(self.failed("fdatasync"))
    }

    #[cfg(target_os = "linux")]
    fn advise_dont_need(&self, offset: u64, len: u64) {
        if let (Ok(offset), Ok(len)) = (file_offset(offset), file_offset(len)) {
            // SAFETY: a plain system call on a descriptor that is open; advice cannot fail harmfully.
            unsafe { libc::posix_fadvise(self.file.as_raw_fd(), offset, len, libc::POSIX_FADV_DONTNEED) };
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn advise_dont_need(&self, _offset: u64, _len: u64) {}

    #[cfg(target_os = "linux")]
    fn start_write_back(&self, offset: u64, len: u64) {
        if let (Ok(offset), Ok(len)) = (file_offset(offset), file_offset(len)) {
            // SAFETY: a plain system call on a descriptor that is open. SYNC_FILE_RANGE_WRITE starts the
            // writing and waits for nothing; its errors are seen by the next fdatasync as well.
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn start_write_back(&self, _offset: u64, _len: u64) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::disk::{BLOCK, BlockBuffer};

    #[test]
    fn a_file_system_that_refuses_direct_writes_gets_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        let options = &mut options(OpenMode::CreateNew);
        let file = open_file(&path, options).expect("it opens");
        let file = RealFile { file, path, direct: AtomicBool::new(true) };
        file.go_through_the_page_cache().expect("flags are set");
        let mut buffer = BlockBuffer::default();
        let bytes = buffer.bytes(BLOCK);
        bytes.fill(1);
        // Neither asserted nor asked of the file system any more.
        file.write_all_at(&[IoSlice::new(&bytes[1..])], 1).expect("it writes");
        assert_eq!(file.len().expect("a length"), BLOCK as u64);
    }
}
